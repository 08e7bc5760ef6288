"""The metric cards keep what they promise, miss nothing, and translate to other conventions as those define them."""

import json
import math
from dataclasses import replace
from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, subspace_angles
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from convergent import cards, conventions, metrics, plots, plots_cards, sensitivity
from test_metrics import PAIRS, REFERENCE, with_reference

pytestmark = pytest.mark.smoke

EVERY = cards.CARDS | cards.VARIANTS
PROMISES = [(name, *promise) for name, card in EVERY.items() for promise in card.promises()]
EXCEPTIONS = [(name, *change) for name, card in EVERY.items() for change in card.exceptions()]
seeds = st.integers(0, 2**31)
stimuli, units = st.integers(40, 99), st.integers(4, 14)
few_examples = settings(max_examples=8, deadline=None)


def named(rows):
    return [" ".join(row) for row in rows]


# --- promises ----------------------------------------------------------------------------------------


def test_every_public_metric_has_a_card():
    assert {card.function for card in cards.CARDS.values()} == set(metrics.__all__) - {"Details"}


def test_a_variant_is_named_as_the_call_that_makes_it():
    for call, card in cards.VARIANTS.items():
        options = ", ".join(f"{name}={json.dumps(value)}" for name, value in card.options.items())
        python = options.replace("true", "True").replace("null", "None")
        assert call == f"{card.function}({python})"


@pytest.mark.parametrize(("name", "change", "side"), PROMISES, ids=named(PROMISES))
@given(seed=seeds, n_stimuli=stimuli, n_x=units, n_y=units)
@few_examples
def test_what_is_promised_leaves_the_value(name, change, side, seed, n_stimuli, n_x, n_y):
    rng = np.random.default_rng(seed)
    X, Y = cards.draw_pair(rng, n_stimuli, n_x, n_y)
    assert cards.deviation(EVERY[name], change, side, X, Y, rng) <= cards.KEPT


@pytest.mark.parametrize(("name", "change", "side"), EXCEPTIONS, ids=named(EXCEPTIONS))
def test_what_is_not_promised_moves_the_value(name, change, side):
    moved = []
    for draw in range(5):
        rng = np.random.default_rng(draw)
        moved.append(cards.deviation(EVERY[name], change, side, *cards.draw_pair(rng), rng))
    assert max(moved) > 100 * cards.KEPT, "the card could promise more"


@pytest.mark.parametrize("name", [name for name, card in EVERY.items() if card.symmetric])
@given(seed=seeds, n_stimuli=stimuli, n_x=units, n_y=units)
@few_examples
def test_symmetric_metrics_do_not_care_which_comes_first(name, seed, n_stimuli, n_x, n_y):
    X, Y = cards.draw_pair(np.random.default_rng(seed), n_stimuli, n_x, n_y)
    assert EVERY[name](X, Y) == pytest.approx(EVERY[name](Y, X), abs=cards.KEPT)


@pytest.mark.parametrize("name", [name for name, card in EVERY.items() if not card.symmetric])
def test_the_others_do(name):
    assert cards.measure_symmetry(EVERY[name], draws=5) > 100 * cards.KEPT


@pytest.mark.parametrize("name", EVERY)
@given(seed=seeds)
@few_examples
def test_every_value_lies_in_the_range_of_its_card(name, seed):
    card = EVERY[name]
    for X, Y in cards.extreme_pairs(card, np.random.default_rng(seed)):
        value = card(X, Y)
        assert math.isfinite(value)
        assert card.low is None or value >= card.low - 1e-9
        assert card.high is None or value <= card.high + 1e-9


@pytest.mark.parametrize("name", [name for name, card in EVERY.items() if card.high == 1])
def test_the_upper_end_of_the_range_is_reached(name):
    low, high = cards.measure_range(EVERY[name], draws=3)
    assert high == pytest.approx(1, abs=1e-3)  # a penalty keeps ridge regression a little below
    assert low < 0.35


def test_cknna_has_no_upper_end():
    assert cards.measure_range(cards.CARDS["cknna"], draws=10)[1] > 1.1


# --- what the page measures --------------------------------------------------------------------------


def test_measured_promises_are_those_of_the_card_and_a_false_one_is_named():
    card = cards.CARDS["cka"]
    table = cards.measure_promises(card, draws=3)
    assert (table.promised == table.kept).all()
    assert len(table) == len(card.promises()) + len(card.exceptions())
    X = np.random.default_rng(0).normal(size=(40, 6))
    false = replace(card, of_x=card.of_x | {"unit scales"}, symmetric=False, high=0.5)
    said = "; ".join(sensitivity.measure(false, X, draws=3, cost_at=(30, 8)).surprises())
    for one in ("unit scales of X moves it by", "exchanging X and Y moves it by", "it ranges from"):
        assert one in said
    assert sensitivity.measure(card, X, draws=3, cost_at=(30, 8)).surprises() == []


@given(seed=seeds, degrees=st.floats(0, 180), half=st.integers(1, 6))
@few_examples
def test_a_turn_turns_every_stimulus_by_the_same_angle_and_keeps_its_length(seed, degrees, half):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(10, 2 * half))
    turned = sensitivity.turn(X, degrees, rng)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(X, axis=1))
    np.testing.assert_allclose((turned * X).sum(1), np.cos(np.radians(degrees)) * (X**2).sum(1), atol=1e-9)


def test_damage_counts_in_the_units_that_the_figure_names():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 40)) * np.linspace(1, 5, 40) + 3

    def damaged(name, level):
        one = sensitivity.DAMAGE[name]
        return one.apply(X, one.strength * level, np.random.default_rng(1))

    for name in sensitivity.DAMAGE:
        np.testing.assert_allclose(damaged(name, 0), X, atol=1e-12)
    np.testing.assert_allclose((damaged("noise", 2) - X).std(0), 2 * X.std(0), rtol=0.1)
    assert damaged("dropped units", 0.75).shape[1] == 10
    squashed = (damaged("squashing", 4) - X.mean(0)) / X.std(0)
    np.testing.assert_allclose(squashed, np.tanh(4 * (X - X.mean(0)) / X.std(0)) / 4, atol=1e-12)


def test_sensitivity_starts_at_the_layer_itself_and_knows_its_chance_level():
    X = np.random.default_rng(0).normal(size=(200, 10))
    table = sensitivity.measure_sensitivity(cards.CARDS["shape_cosine"], X, draws=2)
    assert set(table.damage) == {*sensitivity.DAMAGE, "shuffled stimuli"}
    assert table[(table.level == 0) & (table.damage != "shuffled stimuli")].value.min() == pytest.approx(1)
    assert table[table.damage == "shuffled stimuli"].value.max() < 0.4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cka", lambda ratio: 1 / (1 + ratio)),
        ("mutual_knn", lambda ratio: 10 / (24 * ratio - 1)),
        ("cka_debiased", lambda ratio: 0),
        ("permutation", lambda ratio: 0),
    ],
)
def test_unrelated_data_give_what_theory_says(name, expected):
    table = sensitivity.measure_chance(cards.CARDS[name], draws=8)
    means = table[table.fit != "in sample"].groupby("ratio").value.mean()
    for ratio in (1, 4, 16):
        assert means[ratio] == pytest.approx(expected(ratio), abs=0.03)


def test_in_sample_values_of_unrelated_data_are_measured_beside_held_out_ones():
    table = sensitivity.measure_chance(cards.CARDS["linear"], draws=2)
    means = table.groupby(["fit", "ratio"]).value.mean()
    assert means["in sample", 1] > 0.9
    assert abs(means["held out", 1]) < 0.2
    assert set(sensitivity.measure_chance(cards.CARDS["cca"], draws=1).fit) == {"as it is"}


def test_cost_is_the_time_of_a_call_and_how_it_grows(monkeypatch):
    clock = [0.0]

    def slow(X, Y):
        clock[0] += 1e-6 * len(X) ** 2 * X.shape[1]

    monkeypatch.setattr(sensitivity.time, "perf_counter", lambda: clock[0])
    cost = sensitivity.measure_cost(slow, n_stimuli=100, n_units=8)
    assert cost == pytest.approx({"seconds": 0.08, "twice_stimuli": 4, "twice_units": 2})


def test_a_hub_is_near_everybody():
    X = np.random.default_rng(0).uniform(0.5, 1, size=(50, 4))
    assert sensitivity.hub(np.eye(30), k=1) == 29, "ties go to the first"
    X[7] *= 100
    assert sensitivity.hub(X, k=3) == 49


# --- how it looks ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deck():
    X = np.random.default_rng(0).normal(size=(60, 8))
    names = ("cka", "linear", "permutation")
    return {name: sensitivity.measure(cards.CARDS[name], X, draws=2, cost_at=(40, 8)) for name in names}


def test_the_table_has_a_tick_for_every_change_and_a_link_to_every_card(deck):
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots_cards, "display", lambda bundle, raw: shown.append(bundle))
        plots_cards.ticks(deck)
    soup = BeautifulSoup(shown[0]["text/html"], "html.parser")
    assert [a["href"] for a in soup.select("tbody a")] == ["#card-cka", "#card-linear", "#card-permutation"]
    columns = [th.get_text() for th in soup.select("thead th")]
    rows = {row.th.get_text(): [td.get_text() for td in row.find_all("td")] for row in soup.select("tbody tr")}
    linear = dict(zip(columns[1:], rows["Linear map"], strict=True))
    assert linear["rotation"] == "X"
    assert linear["unit scales"] == "Y"
    assert linear["translation"] == "✓"
    assert linear["order of stimuli"] == linear["X and Y exchanged"] == "–"


def test_a_card_says_what_leaves_moves_and_costs(deck):
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots_cards, "display", lambda bundle, raw: shown.append(bundle["text/plain"]))
        for one in deck.values():
            plots_cards.card(one)
    kernel, linear, _ = shown
    assert "changes to X or Y: ✓ permutation (" in kernel
    assert "✗ unit scales (0." in kernel
    assert "range: 0 to 1; seen: 0." in kernel
    assert "held out" not in kernel
    assert "changes to Y: " in linear
    assert "range: −1 to 1; seen: " in linear
    assert "; in sample 1.00 at 0.5" in linear
    assert "grows as M N² + K N³; " in linear


def test_variants_say_what_they_gain_and_lose():
    measured = {
        call: cards.measure_promises(cards.VARIANTS[call], 2) for call in ("linear(alpha=0)", "rsa(center=True)")
    }
    table = plots_cards.variants(measured)
    assert table.loc["rsa(center=True)", "also unchanged by"] == "translation"
    assert "linear map (of X)" in table.loc["linear(alpha=0)", "also unchanged by"]
    assert list(table) == ["also unchanged by"], "none of these options costs a tick"
    lost = measured["rsa(center=True)"].assign(kept=lambda rows: rows.kept & (rows.change != "permutation"))
    assert plots_cards.variants({"rsa(center=True)": lost}).loc["rsa(center=True)", "no longer by"] == "permutation"


def test_curves_draw_the_own_metric_over_the_others_and_its_chance_level(deck):
    plots.use_style()
    figure = plots_cards.curves("linear", deck)
    assert [ax.get_title() for ax in figure.axes] == [*sensitivity.DAMAGE, "unrelated"]
    noise = figure.axes[0]
    [own] = [line for line in noise.lines if line.get_linewidth() == 2]
    table = deck["linear"].sensitivity
    means = table[table.damage == "noise"].groupby("level").value.mean()
    np.testing.assert_allclose(own.get_ydata(), means)
    assert len(noise.lines) == len(deck) + 1, "every metric, and the dashes of chance"
    dotted = [line for line in figure.axes[4].lines if line.get_linestyle() == ":"]
    assert len(dotted) == 1, "in-sample values of a metric that is fitted"
    plt.close(figure)


# --- conventions -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    return cards.draw_pair(np.random.default_rng(3), n_stimuli=80, n_x=6, n_y=9)


def normed(X):
    X = X - X.mean(0)
    return X / np.linalg.norm(X)


def padded(X, n):
    return np.pad(X, ((0, 0), (0, n - X.shape[1])))


@with_reference
@pytest.mark.parametrize("name", PAIRS)
def test_converters_give_what_other_packages_give(name):
    values = json.loads((REFERENCE / "values.json").read_text())[name]
    arrays = np.load(REFERENCE / "pairs.npz")
    X, Y = arrays[f"X_{name}"], arrays[f"Y_{name}"]
    cosine = metrics.shape_cosine(X, Y)
    expected = {
        "procrustes_angular": conventions.angle(cosine),
        "procrustes_size_shape": conventions.size_and_shape(cosine, X, Y),
        "perm_angular": conventions.angle(conventions.permutation_by_covariance(X, Y)),
        "semi_match_sym": conventions.both_ways(metrics.semi_matching, X, Y, folds=None),
    }
    for key, value in expected.items():
        for package, given_there in values[key].items():
            assert value == pytest.approx(given_there, rel=1e-6), f"{key} of {package}"
    off_diagonal = values["cka_linear"]["wrongu"]
    assert conventions.cka_off_diagonal(X, Y) == pytest.approx(off_diagonal, rel=1e-6)


@given(st.floats(-1, 1))
def test_angles_and_chords_come_back_as_the_similarity(similarity):
    assert conventions.from_angle(conventions.angle(similarity)) == pytest.approx(similarity, abs=1e-9)
    assert conventions.from_chord(conventions.chord(similarity)) == pytest.approx(similarity, abs=1e-9)


def test_distances_of_shapes_are_those_after_the_best_rotation(pair):
    X, Y = pair
    cosine = metrics.shape_cosine(X, Y)
    a, b = padded(normed(X), 9), normed(Y)
    turned = a @ orthogonal_procrustes(a, b)[0]
    assert conventions.chord(cosine) == pytest.approx(np.linalg.norm(turned - b))
    assert conventions.angle(cosine) == pytest.approx(np.arccos((turned * b).sum()))
    size_x, size_y = (np.linalg.norm(Z - Z.mean(0)) for Z in (X, Y))
    assert conventions.size_and_shape(cosine, X, Y) == pytest.approx(np.linalg.norm(size_x * turned - size_y * b))


def test_angles_obey_the_triangle_inequality_where_one_minus_the_cosine_does_not():
    rng = np.random.default_rng(0)
    X, Z = rng.normal(size=(2, 50, 4))
    between = normed(X) + normed(Z)
    for metric in (metrics.shape_cosine, metrics.cka):
        straight, first, second = (metric(a, b) for a, b in ((X, Z), (X, between), (between, Z)))
        assert conventions.angle(straight) <= conventions.angle(first) + conventions.angle(second)
    straight, first, second = (metrics.shape_cosine(a, b) for a, b in ((X, Z), (X, between), (between, Z)))
    assert 1 - straight > (1 - first) + (1 - second)


def test_the_soft_matching_distance_is_that_of_units_of_unit_norm(pair):
    X, Y = pair[0], pair[1][:, :6]
    x, y = ((Z - Z.mean(0)) / np.linalg.norm(Z - Z.mean(0), axis=0) for Z in (X, Y))
    nearest = min(((x - y[:, list(order)]) ** 2).sum() / 6 for order in permutations(range(6)))
    assert conventions.chord(metrics.soft_matching(X, Y, folds=None)) == pytest.approx(np.sqrt(nearest))


def test_matching_on_covariances_is_the_best_of_all_permutations(pair):
    X, Y = normed(pair[0]), normed(pair[1][:, :6])
    best = max((X[:, list(order)] * Y).sum() for order in permutations(range(6)))
    assert conventions.permutation_by_covariance(pair[0], pair[1][:, :6]) == pytest.approx(best)


def test_canonical_correlations_are_cosines_of_angles_between_subspaces_and_their_mean_is_cca(pair):
    X, Y = pair
    angles = subspace_angles(X - X.mean(0), Y - Y.mean(0))
    found = conventions.canonical_correlations(X, Y)
    np.testing.assert_allclose(np.sort(found), np.sort(np.cos(angles)), atol=1e-7)
    assert found.mean() == pytest.approx(metrics.cca(X, Y))
    doubled = conventions.canonical_correlations(np.hstack([X, X]), Y)
    np.testing.assert_allclose(doubled, found, atol=1e-7, err_msg="copies of units add no direction")


def test_svcca_by_singular_values_keeps_as_many_components_as_their_singular_values_say():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    X = np.linalg.qr(X - X.mean(0))[0] * [8, 4, 2, 1]
    Y = X[:, :3] + 0.5 * rng.normal(size=(60, 3))
    # Of X, 8 + 4 + 2 = 14 of 15 are 93 %; as variances, 64 + 16 = 80 of 85 are 94 % already.
    assert conventions.svcca_by_singular_values(X, Y, 0.9) == pytest.approx(metrics.cca(X[:, :3], Y), abs=1e-9)
    assert metrics.svcca(X, X + Y[:, :1], variance=0.9) != pytest.approx(metrics.cca(X, X + Y[:, :1]))
    assert conventions.svcca_by_singular_values(X, Y, 1) == pytest.approx(metrics.cca(X, Y))


def test_cka_without_diagonals_is_the_cosine_of_what_is_left(pair):
    K, L = ((Z - Z.mean(0)) @ (Z - Z.mean(0)).T for Z in pair)
    off = ~np.eye(len(K), dtype=bool)
    expected = (K[off] @ L[off]) / (np.linalg.norm(K[off]) * np.linalg.norm(L[off]))
    assert conventions.cka_off_diagonal(*pair) == pytest.approx(expected)


def test_a_bandwidth_as_a_share_of_the_median_distance_is_squared(pair):
    kernels = []
    for Z in pair:
        distances = np.linalg.norm(Z[:, None] - Z[None], axis=2)[np.triu_indices(len(Z), 1)]
        kernels.append(rbf_kernel(Z, gamma=1 / (2 * (0.5 * np.median(distances)) ** 2)))
    H = np.eye(80) - 1 / 80
    K, L = (H @ kernel @ H for kernel in kernels)
    expected = (K * L).sum() / (np.linalg.norm(K) * np.linalg.norm(L))
    assert metrics.cka(*pair, kernel="rbf", bandwidth=0.5**2) == pytest.approx(expected, abs=1e-4)


def test_neighbours_with_the_stimulus_itself_and_by_jaccard(pair):
    X, Y = (Z / np.linalg.norm(Z, axis=1, keepdims=True) for Z in pair)
    near = [NearestNeighbors(n_neighbors=11).fit(Z).kneighbors(Z, return_distance=False) for Z in (X, Y)]
    sets = [[set(row) for row in rows] for rows in near]
    shared = [len(a & b) / 11 for a, b in zip(*sets, strict=True)]
    overlap = metrics.mutual_knn(*pair, k=10)
    assert conventions.counting_self(overlap, 11) == pytest.approx(np.mean(shared))
    others = [[a - {i} for i, a in enumerate(side)] for side in sets]
    jaccard = np.mean([len(a & b) / len(a | b) for a, b in zip(*others, strict=True)])
    low, high = conventions.jaccard_bounds(overlap)
    assert low <= jaccard <= high


def test_a_penalty_beside_the_mean_error_is_multiplied_by_the_number_of_stimuli(pair):
    X, y = pair[0] - pair[0].mean(0), pair[1][:, 0] - pair[1][:, 0].mean()
    penalty, n = 0.3, len(X)
    of_the_mean = np.linalg.solve(X.T @ X / n + penalty * np.eye(6), X.T @ y / n)
    found = Ridge(alpha=conventions.ridge_alpha(penalty, n), fit_intercept=False).fit(X, y).coef_
    np.testing.assert_allclose(found, of_the_mean)


def test_cut_and_scaled_responses_have_unit_length_and_no_outliers():
    X = np.random.default_rng(0).normal(size=(200, 5))
    X[3, 2] = 1000
    prepared = conventions.cut_and_scaled(X)
    np.testing.assert_allclose(np.linalg.norm(prepared, axis=1), 1)
    limit = np.quantile(np.abs(X), 0.95)
    np.testing.assert_allclose(prepared[3], np.clip(X[3], -limit, limit) / np.linalg.norm(np.clip(X[3], -limit, limit)))
    np.testing.assert_allclose(conventions.cut_and_scaled(X, 1), X / np.linalg.norm(X, axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conventions.angle(1.2), "similarity=1.2: expected a number between -1 and 1"),
        (lambda: conventions.angle(float("nan")), "similarity=nan"),
        (lambda: conventions.from_angle(90), "were these degrees"),
        (lambda: conventions.from_chord(5), "were these representations unscaled"),
        (lambda: conventions.jaccard_bounds(-0.1), "overlap=-0.1"),
        (lambda: conventions.counting_self(0.5, 1), "k=1"),
        (lambda: conventions.ridge_alpha(-1, 10), "penalty=-1"),
        (lambda: conventions.canonical_correlations(np.ones((5, 2)), np.eye(5)), "X does not vary"),
        (lambda: conventions.cka_off_diagonal(np.eye(5), np.eye(4)), "X has 5 stimuli and Y has 4"),
        (lambda: conventions.svcca_by_singular_values(np.eye(5), np.eye(5), 1.5), "share=1.5"),
        (lambda: conventions.cut_and_scaled(np.vstack([np.zeros(2), np.eye(2)])), "stimulus 0 is all zero"),
    ],
)
def test_converters_refuse_what_they_cannot_convert(call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call()


def test_the_table_of_conventions_holds_what_its_converters_give(pair):
    table = plots_cards.other_conventions(*pair)
    X, Y = pair
    names = {**vars(conventions), **vars(metrics), "X": X, "Y": Y}
    for row in table.itertuples():
        value_there = eval(row.converter, names | {"value": row.value})
        assert row._4 == pytest.approx(value_there), row.converter
    assert table.value.between(-1, 1).all()
