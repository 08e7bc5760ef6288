"""What chapter 3 says about chance, few stimuli, ceilings and axes holds where the truth is known."""

import json
import warnings
from itertools import combinations, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from convergent import cave, certainty, metrics, plots
from convergent import plots_certainty as figures

pytestmark = pytest.mark.smoke


@pytest.fixture(autouse=True)
def _house_style():
    plots.use_style()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def noise():
    return certainty.unrelated((0.1, 0.5, 1.5), n_stimuli=60, draws=4)


def related(n_stimuli, n_units, seed=0, share=0.7):
    """Two clouds with a common part."""
    rng = np.random.default_rng(seed)
    common, own, other = rng.standard_normal((3, n_stimuli, n_units))
    return common * share + own * (1 - share), common * share + other * (1 - share)


# --- few stimuli -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "formula"),
    [("linear", lambda n, m: np.sqrt(n / (m - 1))), ("cka", lambda n, m: n / (n + m - 1))],
)
def test_noise_scores_in_sample_as_the_formulas_of_the_chapter_say(noise, metric, formula):
    rows = noise[(noise.how == certainty.IN_SAMPLE) & (noise.metric == metric) & (noise.ratio < 1)]
    for ratio, value in rows.groupby("ratio").value.mean().items():
        assert value == pytest.approx(formula(60 * ratio, 60), abs=0.05)


def test_with_more_units_than_stimuli_noise_predicts_noise_in_sample(noise):
    last = noise[(noise.how == certainty.IN_SAMPLE) & (noise.ratio == 1.5)].groupby("metric").value.min()
    assert last["cca"] == pytest.approx(1)
    assert last["linear"] > 0.98
    assert last["procrustes"] > 0.7


def test_noise_scores_nothing_held_out_or_debiased_whatever_the_number_of_units(noise):
    fair = noise[noise.how == certainty.HELD_OUT].groupby(["metric", "ratio"]).value.mean()
    assert len(fair) == 4 * 3
    assert fair.abs().max() < 0.08


def test_a_larger_sample_holds_the_smaller_ones_and_the_largest_is_all():
    X, Y = related(80, 6)
    table = certainty.against_stimuli(X, Y, (20, 40, 80)).set_index(["images", "metric", "n_stimuli"])
    assert table.loc[("the same", "cka", 80), "value"] == pytest.approx(metrics.cka(X, Y))
    again = certainty.against_stimuli(X, Y, (40,)).set_index(["images", "metric", "n_stimuli"])
    assert again.loc[("the same", "cka", 40), "value"] == pytest.approx(table.loc[("the same", "cka", 40), "value"])
    assert table.loc[("shuffled", "cka", 80), "value"] < 0.3 < table.loc[("the same", "cka", 80), "value"]


def test_more_stimuli_than_there_are_are_refused():
    with pytest.raises(ValueError, match="a sample of 90 was asked of 80 stimuli"):
        certainty.against_stimuli(*related(80, 6), (20, 90))


def test_enough_is_where_the_score_comes_near_its_last_value_for_good():
    values = {"early": (0.5, 0.5, 0.5), "late": (0.9, 0.6, 0.5), "back and forth": (0.5, 0.7, 0.5)}
    rows = [("l", "h", metric, n, v) for metric, vs in values.items() for n, v in zip((10, 20, 40), vs, strict=True)]
    table = pd.DataFrame(rows, columns=["layer", "how", "metric", "n_stimuli", "value"])
    assert certainty.enough(table, 0.05).xs("l").xs("h").to_dict() == {"early": 10, "late": 40, "back and forth": 40}
    assert certainty.enough(table, 0.15)["l", "h", "late"] == 20


def test_the_error_of_few_images_is_measured_in_the_layer_that_was_asked_for():
    rows = []
    for layer, (few, fair) in {"a": (0.9, 0.5), "b": (0.6, 0.4)}.items():
        for how, metric, values in (
            ("in sample", "cka", (few, 0.55)),
            (certainty.HELD_OUT, "cka_debiased", (fair, 0.5)),
        ):
            rows += [(layer, "0-1", "the same", how, metric, n, v) for n, v in zip((20, 80), values, strict=True)]
            rows += [(layer, "0-1", "shuffled", how, metric, n, 0.0) for n in (20, 80)]
    table = pd.DataFrame(rows, columns=["layer", "pair", "images", "how", "metric", "n_stimuli", "value"])
    last = certainty.errors_of_few(table).set_index("condition").value
    assert last.round(9).to_dict() == {
        "CKA, few images": 0.6,
        "CKA, most images": 0.55,
        "error of CKA": 0.1,
        "error of debiased CKA": 0.1,
    }
    first = certainty.errors_of_few(table, layer=0).set_index("condition").value
    assert first[["error of CKA", "error of debiased CKA"]].tolist() == pytest.approx([0.4, 0.0])


# --- intervals ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spread():
    return certainty.coverage(*related(1200, 12), ["cka_debiased", "linear"], n_stimuli=60, repeats=40, resamples=60)


def test_intervals_around_a_debiased_score_hold_the_large_sample_value(spread):
    share = certainty.covered(spread).loc["cka_debiased", "value ± 1.96 sd"]
    assert share.large > 0.8
    assert share.typical > 0.8


def test_no_interval_around_a_held_out_map_reaches_what_more_images_would_give(spread):
    share = certainty.covered(spread).loc["linear", "value ± 1.96 sd"]
    assert share.typical > 0.8
    assert share.large < share.typical - 0.2


def test_percentiles_of_a_held_out_map_lie_below_its_value(spread):
    rows = spread[(spread.metric == "linear") & (spread.kind == "percentiles")]
    assert ((rows.low + rows.high) / 2 - rows.value).mean() < -0.02
    assert certainty.covered(spread).loc["linear", "percentiles"].typical < 0.8


def test_the_large_value_is_that_of_all_stimuli_and_the_typical_one_the_mean_of_the_samples(spread):
    rows = spread[spread.metric == "cka_debiased"]
    assert rows.large.unique() == pytest.approx([metrics.cka(*related(1200, 12), debiased=True)])
    assert rows.typical.unique() == pytest.approx([rows.groupby("sample").value.first().mean()])


def scores_of_networks(n, rng, peculiarity=1.0):
    own = peculiarity * rng.normal(size=n)
    return {(str(i), str(j)): own[i] + own[j] + 0.3 * rng.normal() for i, j in combinations(range(n), 2)}


@pytest.mark.parametrize("n", [3, 4, 8])
def test_an_interval_over_networks_holds_the_mean_in_95_of_100_worlds(n):
    rng, held = np.random.default_rng(n), []
    for _ in range(400):
        _, low, high = certainty.over_networks(scores_of_networks(n, rng))
        held.append(low <= 0 <= high)
    assert 0.92 <= np.mean(held) <= 0.98


def test_pairs_without_networks_of_their_own_character_give_no_narrower_interval_than_they_deserve():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        _, low, high = certainty.over_networks(scores_of_networks(4, rng, peculiarity=0))
        held.append(low <= 0 <= high)
    assert np.mean(held) >= 0.95


def test_the_mean_over_networks_is_the_mean_over_pairs():
    values = scores_of_networks(5, np.random.default_rng(0))
    mean, low, high = certainty.over_networks(values)
    assert mean == pytest.approx(np.mean(list(values.values())))
    assert mean - low == pytest.approx(high - mean)


def test_equal_pairs_leave_no_doubt():
    assert certainty.over_networks({pair: 0.5 for pair in combinations("abcd", 2)}) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize("values", [{("a", "b"): 1.0}, {("a", "b"): 1.0, ("b", "c"): 1.0}])
def test_too_few_networks_or_missing_pairs_are_refused(values):
    with pytest.raises(ValueError, match="give all pairs of at least three"):
        certainty.over_networks(values)


# --- ceilings ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes():
    return cave.render(600, seed=8)


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_ceiling_estimated_from_repeats_is_near_the_known_one(scenes, noise):
    seen = cave.voxels(scenes[1], scenes[0], n_voxels=60, noise=noise, n_repeats=4)
    guessed = certainty.ceiling_from_repeats(seen.responses)
    assert guessed.shape == (60,)
    assert np.abs(guessed - seen.noise_ceiling).max() < 0.1
    assert guessed.mean() == pytest.approx(seen.noise_ceiling.mean(), abs=0.02)


def test_identical_repeats_have_a_ceiling_of_one_and_independent_ones_about_none():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.normal(size=(1, 500, 8)), 3, axis=0)
    assert certainty.ceiling_from_repeats(same) == pytest.approx(np.ones(8))
    assert certainty.ceiling_from_repeats(rng.normal(size=(3, 5000, 8))).max() < 0.3
    assert certainty.ceiling_from_repeats(np.zeros((3, 5, 2))).tolist() == [0, 0]


def test_a_ceiling_does_not_depend_on_a_voxels_scale():
    responses = np.random.default_rng(0).normal(size=(1, 50, 4)) + np.random.default_rng(1).normal(size=(3, 50, 4))
    scaled = certainty.ceiling_from_repeats(responses * [1, 10, 0.1, 1e4] + [0, 5, -5, 100])
    assert scaled == pytest.approx(certainty.ceiling_from_repeats(responses))


@pytest.mark.parametrize("shape", [(1, 20, 3), (20, 3)])
def test_one_repeat_gives_no_ceiling(shape):
    with pytest.raises(ValueError, match="two repeats or more"):
        certainty.ceiling_from_repeats(np.zeros(shape))


def test_the_ceiling_repairs_noise_in_the_test_but_not_in_the_fit(scenes):
    rows = cave.voxels(scenes[1], scenes[0], n_voxels=30, noise=0, seed=1).signal  # a "layer" that knows the scenes
    table = certainty.beneath_ceilings(rows, scenes[1], scenes[0], (0, 2), n_voxels=40)
    value = table.pivot(index="quantity", columns="noise", values="value")
    for quantity in ("measured", "measured / ceiling", "clean fit / ceiling"):
        assert value.loc[quantity, 0] == pytest.approx(value.loc["without noise", 0], abs=0.01)
    assert value.loc["ceiling", 0] == pytest.approx(1)
    assert value.loc["clean fit / ceiling", 2] == pytest.approx(value.loc["without noise", 2], abs=0.05)
    assert value.loc["measured / ceiling", 2] < value.loc["without noise", 2] - 0.05
    assert value.loc["measured", 2] < value.loc["ceiling", 2]


# --- axes --------------------------------------------------------------------------------------------


def test_a_rotation_keeps_lengths_and_angles_and_belongs_to_its_seed():
    turn = certainty.rotation(7, 3)
    assert turn @ turn.T == pytest.approx(np.eye(7))
    assert certainty.rotation(7, 3) == pytest.approx(turn)
    assert np.abs(certainty.rotation(7, 4) - turn).max() > 0.1


def sparse(n_images, n_units, seed, positions=2):
    return np.random.default_rng(seed).exponential(size=(n_images * positions, n_units)) ** 2


def test_a_reordered_network_matches_by_its_axes_and_not_when_one_is_turned():
    X = sparse(150, 12, 0)
    table = certainty.axes({"layer": X}, {"layer": X[:, ::-1]}, positions=2, turns=3, nulls=10).set_index("condition")
    assert table.value["own axes"] == pytest.approx(1)
    assert table.value["one turned"] < 0.8
    assert table.value["both turned"] < 0.8
    assert abs(table.value["shuffled images"]) < 0.1
    assert table.value["shuffled images"] < table.value["shuffled, largest"] < 0.3


def test_a_network_without_axes_of_its_own_loses_nothing_by_being_turned():
    X = np.random.default_rng(0).standard_normal((600, 10))
    Y = X @ certainty.rotation(10, 5)
    value = certainty.axes({"l": X}, {"l": Y}, positions=1, turns=8, nulls=2).set_index("condition").value
    assert value["own axes"] == pytest.approx(value["one turned"], abs=0.1)
    assert value["own axes"] > 5 * abs(value["shuffled images"])


def test_falls_are_taken_pair_by_pair_and_layer_by_layer():
    rows = [(state, pair, layer, condition, value)
            for state, pair, layer in product(("trained", "untrained"), ("0-1", "0-2"), ("a", "b"))
            for condition, value in (("own axes", 0.5 + (layer == "b") / 10), ("one turned", 0.4))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["state", "pair", "layer", "condition", "value"])
    fall = certainty.falls(table)
    assert len(fall) == 8
    assert set(fall.condition) == {"trained", "untrained"}
    assert fall.groupby("layer").value.unique().map(lambda v: round(float(v[0]), 9)).to_dict() == {"a": 0.1, "b": 0.2}


def test_a_line_has_one_dimension_and_a_ball_as_many_as_units():
    rng = np.random.default_rng(0)
    assert certainty.dimension(rng.normal(size=(50, 1)) * np.arange(1, 6)) == pytest.approx(1)
    assert certainty.dimension(rng.normal(size=(20_000, 5))) == pytest.approx(5, abs=0.05)


def test_only_the_warning_of_silent_units_is_dropped():
    X, Y = related(40, 5)
    Y[:, 0] = 3.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with certainty.silent_units_expected():
            assert metrics.cka(X, Y) > 0
        with pytest.raises(UserWarning, match="hello"), certainty.silent_units_expected():
            warnings.warn("hello", stacklevel=1)


# --- figures -----------------------------------------------------------------------------------------


def test_nulls_draw_the_value_and_its_number_in_every_panel():
    rng = np.random.default_rng(0)
    figure = figures.nulls({(row, column): (0.5, rng.normal(size=50)) for row in "ab" for column in "xyz"})
    assert len(figure.axes) == 6
    assert all([text.get_text() for text in ax.texts] == ["0.50"] for ax in figure.axes)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["x", "y", "z"]


def test_chances_name_every_metric_and_draw_its_value_and_chance():
    rows = [("in sample", "cca", 0.9, 0.8, 0.01), ("in sample", "cka", 0.7, 0.2, 0.05), ("fair", "rsa", 0.6, 0.0, 0.02)]
    figure = figures.chances(pd.DataFrame(rows, columns=["how", "metric", "value", "chance", "chance_sd"]))
    assert [t.get_text() for ax in figure.axes for t in ax.get_yticklabels()] == ["CCA", "CKA", "RSA"]
    first = figure.axes[0]
    assert sorted(list(line.get_xdata()) for line in first.lines)[-2:] == [[0.8, 0.2], [0.9, 0.7]]


def test_every_metric_that_can_be_compared_has_words():
    from convergent.compare import METRICS

    assert set(METRICS) == set(figures.WORDS)


def test_curves_go_through_the_means(noise):
    figure = figures.with_units(noise, 60)
    means = noise.groupby(["how", "metric", "ratio"]).value.mean()
    drawn = [line.get_ydata() for line in figure.axes[1].lines]
    for metric in ("linear", "cka_debiased"):
        expected = means[certainty.HELD_OUT, metric].to_numpy()
        assert any(len(y) == 3 and np.allclose(y, expected) for y in drawn), metric


def test_shuffled_images_are_dashed_beside_every_curve():
    tables = [certainty.against_stimuli(*related(40, 6, s), (20, 40)).assign(layer=layer, pair=f"0-{s}")
              for s in (1, 2) for layer in ("one", "two")]  # fmt: skip
    figure = figures.with_stimuli(pd.concat(tables))
    assert [ax.get_ylabel() for ax in figure.axes[::2]] == ["score, one", "score, two"]
    for ax, n_metrics in zip(figure.axes, (5, 4, 5, 4), strict=True):
        styles = [line.get_linestyle() for line in ax.lines if len(line.get_xdata()) == 2]
        assert styles.count("--") == n_metrics


def test_intervals_that_miss_stand_out_and_the_shares_are_written_below():
    row = {"metric": "cka", "kind": "percentiles", "value": 0.5, "sd": 0.1, "large": 0.5, "typical": 0.45}
    table = pd.DataFrame(
        [row | {"sample": i, "low": low, "high": low + 0.1} for i, low in enumerate((0.41, 0.44, 0.6))]
    )
    figure = figures.intervals(table)
    held, missed = figure.axes[0].collections
    assert (len(held.get_segments()), len(missed.get_segments())) == (2, 1)
    assert figure.axes[0].get_xlabel() == "large: 67 %\nsame size: 67 %"


def test_ceilings_draw_five_quantities_in_every_panel():
    rows = [(noise, quantity, 0.5) for noise in (1, 2) for quantity in
            ("measured", "ceiling", "measured / ceiling", "clean fit / ceiling", "without noise")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["noise", "quantity", "value"])
    figure = figures.ceilings({"few": table, "many": table})
    assert [len(ax.lines) for ax in figure.axes] == [5, 5]


def test_axes_are_drawn_for_every_run_and_state_with_bands_over_networks():
    rows = [(state, f"{i}-{j}", layer, condition, 0.1 * (i + j)) for state in ("trained", "untrained")
            for i, j in combinations(range(3), 2) for layer in "ab" for condition in figures.AXES]  # fmt: skip
    table = pd.DataFrame(rows, columns=["state", "pair", "layer", "condition", "value"])
    figure = figures.axes({"this run: x": table, "published: y": table})
    assert [ax.get_title() for ax in figure.axes] == [
        "this run, trained", "this run, untrained", "published, trained", "published, untrained",
    ]  # fmt: skip
    for ax in figure.axes:
        assert [len(line.get_ydata()) for line in ax.lines] == [2] * 4
        assert ax.lines[0].get_ydata() == pytest.approx([0.2, 0.2])
        assert len(ax.collections) == 4


def test_with_three_units_four_images_leave_no_room_and_the_prediction_is_perfect():
    rng = np.random.default_rng(0)
    figure = json.loads(figures.room(rng.normal(size=(4, 3)), rng.normal(size=4)).to_json())
    labels = [step["label"] for step in figure["layout"]["sliders"][0]["steps"]]
    correlations = [float(label.split("= ")[1]) for label in labels]
    assert [label.split(":")[0] for label in labels] == ["0 units", "1 unit", "2 units", "3 units"]
    assert correlations == sorted(correlations)
    assert (correlations[0], correlations[-1]) == (0.0, 1.0)


def test_the_length_of_the_prediction_is_the_in_sample_correlation():
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 1))
    figure = figures.room(X, y[:, 0])
    shown = float(figure.layout.sliders[0].steps[1].label.split("= ")[1])
    assert shown == pytest.approx(abs(np.corrcoef(X[:, 0], y[:, 0])[0, 1]), abs=0.006)
    for frame in figure.frames:
        target = [frame.data[0][axis][1] for axis in "xyz"]
        assert np.linalg.norm(target) == pytest.approx(1, abs=0.01)
