"""Patterns that were planted in filters are found, and chance is what it is said to be."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, linalg

from convergent import (
    claims,
    networks,
    plots,
    plots_spatial,
    spatial_claims,
    spatial_forms,
    spatial_layers,
    spatial_pairs,
)
from convergent import spatial_sets as sets
from convergent.spatial_filters import spatial_covariance
from convergent.spatial_forms import FORMS

pytestmark = pytest.mark.smoke
COSINES, GAUSS = FORMS


def turned(k, seed):
    """A random orthonormal basis of k x k filters."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((k * k, k * k)))[0]


def covariance(basis, values):
    return (basis * values) @ basis.T


FALLING = 2.0 ** -np.arange(9)


# --- one set or not ----------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.permutations(range(9)))
@settings(max_examples=25, deadline=None)
def test_diagonality_sees_neither_order_nor_sign_nor_scale(seed, scale, order):
    basis = turned(3, seed)
    signs = np.sign(np.random.default_rng(seed).standard_normal(9))
    other = covariance(basis * signs, FALLING[list(order)]) * scale
    assert sets.diagonality(covariance(basis, FALLING), other) == pytest.approx(1, abs=1e-9)


def test_diagonality_is_symmetric_and_falls_as_one_basis_is_turned_away():
    basis, axis = turned(3, 0), np.random.default_rng(1).standard_normal((9, 9))
    A, found = covariance(basis, FALLING), []
    for angle in (0, 0.1, 0.3, 0.9):
        B = covariance(linalg.expm(angle * (axis - axis.T) / 4) @ basis, FALLING)
        found.append(sets.diagonality(A, B))
        assert found[-1] == pytest.approx(sets.diagonality(B, A))
    assert found[0] == pytest.approx(1)
    assert all(a > b for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("k", [3, 5])
def test_random_bases_have_a_diagonality_of_two_over_their_size_plus_two(k):
    values = np.random.default_rng(0).random(k * k)
    A = covariance(turned(k, 1), values)
    pairwise = [sets.diagonality(A, covariance(turned(k, seed), values)) for seed in range(2, 302)]
    by_function = sets.chance(A, A, n=300)
    expected = 2 / (k * k + 2)
    for found in (pairwise, by_function):
        assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(300))


def test_chance_replaces_the_eigenvectors_and_keeps_the_eigenvalues():
    """The same numbers as building each random covariance and comparing it."""
    A, B = covariance(turned(3, 0), FALLING), covariance(turned(3, 1), np.sqrt(FALLING))
    for symmetry in sets.SYMMETRIES:
        built = [sets.diagonality(covariance(U, FALLING), B) for U in sets.random_bases(3, symmetry, 5)]
        np.testing.assert_allclose(sets.chance(A, B, symmetry, 5), built)


@pytest.mark.parametrize("k", [3, 5])
def test_symmetric_bases_are_orthonormal_and_have_their_symmetry(k):
    unevenness = {}  # how far the worst pattern is from being even or odd under an operation
    for symmetry in sets.SYMMETRIES:
        for U in sets.random_bases(k, symmetry, 4):
            np.testing.assert_allclose(U.T @ U, np.eye(k * k), atol=1e-10)
            images = U.T.reshape(-1, k, k)
            for name, again in (("left-right", images[:, :, ::-1]), ("half turn", images[:, ::-1, ::-1])):
                parity = np.abs((images * again).sum((1, 2)))
                unevenness[symmetry, name] = max(unevenness.get((symmetry, name), 0), 1 - parity.min())
    assert unevenness["mirror", "left-right"] == pytest.approx(0, abs=1e-8)
    # With all eight symmetries some patterns come in pairs whose mixtures are even or odd under a half turn only.
    assert unevenness["square", "half turn"] == pytest.approx(0, abs=1e-8)
    assert min(unevenness["any", "left-right"], unevenness["any", "half turn"]) > 0.5
    with pytest.raises(ValueError, match="symmetry 'odd' is not one of any, mirror, square"):
        sets.random_bases(3, "odd")


def test_mirror_symmetry_alone_raises_diagonality():
    one, two = (covariance(sets.random_bases(3, "mirror", 200, seed)[0], FALLING) for seed in (1, 2))
    assert sets.chance(one, two, "mirror").mean() > sets.chance(one, two, "any").mean() + 0.1


def test_overlap_is_one_with_itself_and_by_chance_the_share_of_dimensions():
    A = covariance(turned(3, 0), FALLING)
    for rank in (1, 4, 9):
        assert sets.overlap(A, A, rank) == pytest.approx(1)
        assert sets.overlap_chance(A, A, rank, "any", 2000).mean() == pytest.approx(rank / 9, abs=0.02)
    with pytest.raises(ValueError, match="rank 10: filters of 9 pixels have ranks 1 to 9"):
        sets.overlap(A, A, 10)


def test_patterns_swap_ranks_only_where_their_eigenvalues_are_close():
    basis = turned(3, 0)
    near, far = (np.r_[1.2, 1.0, FALLING[2:] / 4], np.r_[9.0, 1.0, FALLING[2:] / 4])
    swapped = basis[:, [1, 0, *range(2, 9)]]
    reference = covariance(swapped, near)
    assert sets.matched_cosines(covariance(basis, near), reference)[:2] == pytest.approx([1, 1])
    assert sets.matched_cosines(covariance(basis, far), reference)[:2] == pytest.approx([0, 0], abs=1e-7)
    vectors, order = sets.aligned(covariance(basis * -1, near), swapped)
    np.testing.assert_allclose(vectors, swapped, atol=1e-8)
    assert order[:2].tolist() == [1, 0]


def test_matched_cosines_of_random_bases_stay_below_those_of_one_set():
    A = covariance(turned(3, 0), FALLING)
    null = sets.matched_chance(A, A, n=50)
    assert null.shape == (50, 9)
    assert null.mean() < 0.5
    assert sets.matched_cosines(A, A) == pytest.approx(np.ones(9))


def test_effective_dimension_counts_patterns_that_are_used_alike():
    assert sets.effective_dimension(np.eye(9)) == pytest.approx(9)
    assert sets.effective_dimension(np.diag([1.0, 1, 1, 0, 0, 0, 0, 0, 0])) == pytest.approx(3)
    with pytest.raises(ValueError, match="all filters are zero"):
        sets.effective_dimension(np.zeros((9, 9)))


def test_the_centre_of_a_covariance_is_the_covariance_of_the_centres():
    filters = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 7, 7)))
    expected = spatial_covariance(filters[:, :, 2:5, 2:5]).numpy()
    np.testing.assert_allclose(sets.centre(spatial_covariance(filters)), expected)
    with pytest.raises(ValueError, match="filters of 4x4 pixels have no central 3x3"):
        sets.centre(np.eye(16))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.eye(8), r"shape \(k², k²\)"),
        (np.full((9, 9), np.nan), "not finite"),
        (2 * np.eye(9), "multiple of the identity"),
    ],
)
def test_what_has_no_patterns_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        sets.diagonality(wrong, wrong)


def test_eigenvalues_of_untrained_filters_lie_between_the_edges():
    rows = np.random.default_rng(0).uniform(-1, 1, (3000, 49)) * np.sqrt(3)
    values = np.linalg.eigvalsh(rows.T @ rows / len(rows))
    low, high = sets.marchenko_pastur_edges(49, 3000)
    assert low - 0.03 < values[0] < low + 0.06
    assert high - 0.06 < values[-1] < high + 0.03


# --- layers of networks ------------------------------------------------------------------------------


def test_planted_patterns_are_found_in_the_filters_of_a_network():
    network = networks.load("cnn6", seed=0)
    basis = turned(3, 5)
    root = covariance(basis, np.sqrt(FALLING))
    noise = np.random.default_rng(0).standard_normal((96, 96, 9))
    network.layer6[0].weight.data = torch.from_numpy((noise @ root).reshape(96, 96, 3, 3)).float()
    found = spatial_layers.of_network(network).set_index("layer").covariance["layer6"]
    assert sets.matched_cosines(found, covariance(basis, FALLING)).min() > 0.98
    np.testing.assert_allclose(sets.spectrum(found)[0], FALLING / FALLING.sum(), rtol=0.1)


def test_a_table_says_what_each_layer_is_and_leaves_the_network_as_it_was():
    network = networks.load("cnn6", seed=0).train()
    table = spatial_layers.of_network(network)
    assert network.training
    assert table.layer.tolist() == [f"layer{i}" for i in range(1, 7)]
    assert table.k.tolist() == [5, 3, 3, 3, 3, 3]
    assert table.height.tolist() == [32, 32, 16, 16, 8, 8]
    assert [np.trace(C) for C in table.covariance] == pytest.approx([1] * 6)
    assert table.halves[1:].max() < 0.6  # two halves of noise have no set in common
    weight = network.layer3[1].weight.detach()
    assert table.variance[2] == pytest.approx(float(weight.square().mean()), rel=1e-5)


def test_order_and_scale_of_channels_do_not_matter():
    network, again = (networks.load("cnn6", seed=0) for _ in range(2))
    shuffled = again.layer3[1].weight.data[torch.randperm(64)][:, torch.randperm(32)]
    again.layer3[1].weight.data = -3 * shuffled
    one, two = (spatial_layers.of_network(n, splits=0).covariance[2] for n in (network, again))
    np.testing.assert_allclose(one, two, atol=1e-7)


def test_grouped_and_pointwise_convolutions_are_left_out_and_others_come_in_the_order_in_which_they_run():
    conv = torch.nn.Conv2d
    network = torch.nn.Module()
    network.late, network.early = conv(8, 8, 3, padding=1), conv(3, 8, 5, padding=2)
    network.depthwise, network.pointwise, network.unused = conv(8, 8, 3, groups=8), conv(8, 8, 1), conv(3, 3, 3)
    network.forward = lambda x: network.depthwise(network.pointwise(network.late(network.early(x))))
    assert list(spatial_layers.convolutions(network)) == ["early", "late"]
    with pytest.raises(ValueError, match="no convolution of 3x3 or more"):
        spatial_layers.convolutions(torch.nn.Sequential(conv(3, 8, 1)))


def test_networks_of_other_packages_are_read():
    table = spatial_layers.of_network(networks.load("torchvision:squeezenet1_1?weights=random", seed=0), splits=0)
    assert set(table.k) == {3}
    assert table.height.iloc[0] == 224


def test_weights_that_are_zero_are_refused():
    network = networks.load("cnn6", seed=0)
    network.layer4[0].weight.data.zero_()
    with pytest.raises(ValueError, match="layer layer4.0: its filters are zero or not finite"):
        spatial_layers.of_network(network)


# --- closed forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [3, 5, 7])
@pytest.mark.parametrize("form", FORMS)
def test_patterns_of_a_form_are_orthonormal_at_every_width(form, k):
    for width in spatial_forms.widths(k):
        F = spatial_forms.basis(form, k, width)
        np.testing.assert_allclose(F.T @ F, np.eye(k * k), atol=1e-9)


def test_endless_cosines_are_the_discrete_cosine_transform():
    for k in (3, 5, 7):
        found = spatial_forms.along(COSINES, k, np.inf)
        np.testing.assert_allclose(found.T, fft.dct(np.eye(k), axis=0, norm="ortho"), atol=1e-12)
        near = np.abs(spatial_forms.along(COSINES, k, 1e5).T @ spatial_forms.along(COSINES, k, np.inf))
        np.testing.assert_allclose(near, np.eye(k), atol=1e-3)


def test_derivatives_of_a_gaussian_are_its_finite_differences_made_orthogonal():
    width, x = 1.3, np.arange(7) - 3
    gauss = np.exp(-((x / width) ** 2) / 2)
    # d/dx and d²/dx² of the Gaussian; orthogonal polynomials of the same orders span the same.
    raw = np.stack([gauss, -x / width**2 * gauss, (x**2 / width**4 - 1 / width**2) * gauss], axis=1)
    expected = np.linalg.qr(raw)[0]
    found = spatial_forms.along(GAUSS, 7, width)[:, :3]
    np.testing.assert_allclose(np.abs((expected * found).sum(0)), np.ones(3), atol=1e-10)


@pytest.mark.parametrize(("form", "other"), [(COSINES, GAUSS), (GAUSS, COSINES)])
def test_a_planted_form_is_told_from_the_other_and_its_width_found(form, other):
    width = spatial_forms.widths(7)[10]
    patterns = spatial_forms.basis(form, 7, width)
    values = 0.7 ** spatial_forms.orders(7).sum(1)  # equal for (i, j) and (j, i)
    C = covariance(patterns, values)
    own, wrong = spatial_forms.fit(C, form), spatial_forms.fit(C, other)
    assert own.width == pytest.approx(width)
    assert own.explained == pytest.approx(1)
    assert own.captured == pytest.approx(np.ones(49))
    assert wrong.explained < 0.99


def test_a_stationary_process_has_cosines_for_eigenvectors():
    one = linalg.toeplitz(0.9 ** np.arange(5))
    found = spatial_forms.fit(np.kron(one, one), COSINES)
    assert found.explained > 0.999
    assert found.width == pytest.approx(-1 / np.log(0.9), rel=0.3)


def test_mixtures_of_a_pattern_and_its_transpose_are_free():
    patterns = spatial_forms.basis(COSINES, 5, np.inf)
    pair = [2, 10]  # orders (0, 2) and (2, 0)
    patterns[:, pair] = patterns[:, pair] @ np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    found = spatial_forms.fit(covariance(patterns, 2.0 ** -np.arange(25)), COSINES)
    assert found.explained == pytest.approx(1)
    assert found.cosines == pytest.approx(np.ones(25))


def test_three_pixels_do_not_tell_the_forms_apart():
    for width in (1.0, 2.0, np.inf):
        C = covariance(spatial_forms.basis(COSINES, 3, width), FALLING)
        assert spatial_forms.fit(C, GAUSS).explained > 0.98


def test_what_a_form_explains_of_random_bases_is_fitted_like_the_measurement():
    C = covariance(turned(3, 0), FALLING)
    built = [spatial_forms.fit(covariance(U, FALLING), GAUSS).explained for U in sets.random_bases(3, "any", 6)]
    np.testing.assert_allclose(spatial_forms.chance(C, GAUSS, "any", 6), built)
    assert np.mean(built) < 0.6
    with pytest.raises(ValueError, match="form 'sines' is not one of cosines"):
        spatial_forms.fit(C, "sines")
    with pytest.raises(ValueError, match="width 0"):
        spatial_forms.along(GAUSS, 3, 0)


# --- comparisons, claims and figures -----------------------------------------------------------------


def layers(basis, **about):
    """A network of four layers, the first and the smallest map of which have patterns of their own."""
    k, rows = round(len(basis) ** 0.5), []
    for position in range(1, 5):
        own = turned(k, 77) if position in (1, 4) else basis
        values = np.random.default_rng(position).random(k * k) + np.arange(k * k)[::-1]
        told = {"layer": f"layer{position}", "position": position, "k": k, "n_in": 8, "n_out": 8}
        told |= {"height": 2 if position == 4 else 16, "variance": 0.1, "halves": 0.9, "accuracy": 0.8}
        rows.append(told | {"covariance": covariance(own, values / values.sum())})
    defaults = {"image_set": "A", "labels": "true", "architecture": "vgg11", "seed": 0, "trained": True}
    return spatial_layers.about(pd.DataFrame(rows), **(defaults | about))


def study():
    shared = spatial_forms.basis(COSINES, 3, np.inf)
    larger = spatial_forms.basis(COSINES, 5, np.inf)
    return pd.concat(
        [
            layers(shared),
            layers(shared, seed=1),
            layers(shared, image_set="B", seed=1),
            layers(shared, labels="few", seed=1),
            layers(turned(3, 3), labels="random"),
            layers(larger, architecture="vgg11-5x5"),
            layers(shared, architecture="cnn6"),
            layers(turned(3, 4), trained=False),
        ],
        ignore_index=True,
    )


def test_networks_are_compared_that_differ_in_one_thing_and_layers_that_count():
    found = spatial_pairs.pairs(study(), n=10)
    units = found.groupby("kind").unit.unique()
    assert {kind: len(u) for kind, u in units.items()} == {
        spatial_pairs.HALVES: 7, spatial_pairs.LAYERS: 7, spatial_pairs.FIRST: 7, spatial_pairs.UNTRAINED: 1,
        spatial_pairs.SEEDS: 1, spatial_pairs.SETS: 1, spatial_pairs.LABELS: 1, spatial_pairs.SIZES: 1,
        spatial_pairs.KINDS_OF_NETWORK: 2,
    }  # fmt: skip
    assert "few labels" in units[spatial_pairs.LABELS][0]  # the same images, not all of them
    assert set(found.position_b) == {2, 3}
    values = found.groupby("kind").value.mean()
    assert values[spatial_pairs.SEEDS] == pytest.approx(1)
    assert values[spatial_pairs.LABELS] < 0.6
    assert (found["random bases"].dropna() < 0.35).all()


def test_networks_with_the_same_initial_weights_are_not_compared_across_sets_and_labels():
    shared = turned(3, 0)
    one_seed = [layers(shared), layers(shared, image_set="B"), layers(shared, labels="random")]
    found = spatial_pairs.pairs(pd.concat(one_seed, ignore_index=True), n=5)
    assert {spatial_pairs.SETS, spatial_pairs.LABELS}.isdisjoint(found.kind)
    two_seeds = [rows.assign(seed=seed) for seed in (0, 1) for rows in one_seed]
    found = spatial_pairs.pairs(pd.concat(two_seeds, ignore_index=True), n=5)
    units = found.groupby("kind").unit.unique()
    assert len(units[spatial_pairs.SETS]) == len(units[spatial_pairs.LABELS]) == 2
    assert all("seed 0" in unit and "seed 1" in unit for unit in units[spatial_pairs.SETS])


def rows(runs, prefix):
    return [spatial_claims.weigh(name, runs) for name in claims.ids(prefix)]


def test_claims_follow_what_was_planted():
    table = study()
    pairs, fits = spatial_pairs.pairs(table, n=40), spatial_pairs.forms(table, n=10)
    run = {"a run": spatial_claims.conditions(table, pairs, fits)}
    verdicts = {row["claim"]: row.get("a run: verdict") for row in rows(run, "spatial_")}
    assert verdicts["the same set on other image sets"] == "reproduced"
    assert verdicts["the same set for other filter sizes"] == "reproduced"
    assert verdicts["the same set with random labels"] == "not reproduced"
    assert verdicts["the first layer is another matter"] == "reproduced"
    assert verdicts["low-dimensional"] == "not reproduced"
    controls = {row["claim"]: row for row in rows(run, "alike_")}
    assert controls["the same set for another seed"]["a run: verdict"] == "reproduced"
    assert controls["… better than cosines do"]["a run: verdict"] == "not reproduced"


def test_a_run_without_a_comparison_is_marked_and_an_empty_one_too():
    table = layers(spatial_forms.basis(COSINES, 3, np.inf))
    one = spatial_claims.conditions(table, spatial_pairs.pairs(table, n=5), spatial_pairs.forms(table, n=5))
    nothing = table.head(0)
    none = spatial_claims.conditions(nothing, spatial_pairs.pairs(nothing), spatial_pairs.forms(nothing))
    found = [row for prefix in ("spatial_", "alike_") for row in rows({"one": one, "none": none}, prefix)]
    assert all(row["none"] == "not measured" for row in found)
    assert {row["claim"] for row in found if row["one"] == "not measured"} >= {"the same set on other image sets"}


def test_a_mean_over_networks_has_an_interval_and_one_network_none():
    found = spatial_pairs.summary(spatial_pairs.pairs(study(), n=5)).set_index("kind")
    assert found.low[spatial_pairs.LAYERS] <= found["mean"][spatial_pairs.LAYERS] <= found.high[spatial_pairs.LAYERS]
    assert np.isnan(found.low[spatial_pairs.SEEDS])
    assert spatial_pairs.written(found.reset_index(), spatial_pairs.SEEDS) == "1.00"
    assert spatial_pairs.written(found.reset_index().head(0), spatial_pairs.SEEDS) == "not measured"


def test_an_interval_over_pairs_is_that_of_networks_drawn_anew():
    """One odd network of six moves five of 15 pairs: pairs drawn as if they were independent would miss that."""
    names = [f"net {i}" for i in range(6)]
    values = {f"{a}{spatial_pairs.BETWEEN}{b}": float("net 5" in (a, b)) for a, b in combinations(names, 2)}
    columns = {"kind": spatial_pairs.SEEDS, "unit": list(values), "value": list(values.values())}
    chances = dict.fromkeys((*spatial_pairs.BY_CHANCE.values(), spatial_pairs.HIGH), 0.0)
    [row] = spatial_pairs.summary(pd.DataFrame(columns).assign(**chances)).itertuples()
    rng = np.random.default_rng(1)
    means = []
    for _ in range(2000):
        drawn = rng.integers(6, size=6)
        pairs = [float(5 in (a, b)) for a, b in combinations(drawn, 2) if a != b]
        means += [np.mean(pairs)] if pairs else []
    assert [row.low, row.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.05)
    assert row.high - row.low > 0.6


def test_every_layer_is_compared_with_every_other():
    table = pd.concat([layers(turned(3, 0)), layers(turned(3, 1), seed=1)], ignore_index=True)
    found, labels, begins = spatial_pairs.alike(table)
    assert found.shape == (8, 8)
    assert labels[:2] == ["layer1", "layer2"]
    assert begins == [0, 4]
    assert found[1, 2] == pytest.approx(1)
    assert found[1, 6] < 0.6


@pytest.fixture
def _house_style():
    plots.use_style()
    yield
    plt.close("all")


@pytest.mark.usefixtures("_house_style")
def test_figures_show_what_tables_say():
    table = study()
    kept = {str(i): rows for i, rows in enumerate(spatial_pairs.networks(table[table.trained]).values())}
    shown = [ax for ax in plots_spatial.patterns(kept).axes if ax.get_visible()]
    assert [len(ax.images) for ax in shown] == [4] * 7
    pairs = spatial_pairs.pairs(table, n=5)
    means = spatial_pairs.summary(pairs)
    [ax] = plots_spatial.same_set({"a run": means}).axes
    drawn = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"]
    assert drawn == pytest.approx(means["mean"].tolist())
    assert len(plots_spatial.beside_forms(table.covariance[1]).axes) == 27
    fits = spatial_pairs.forms(table, n=5)
    [ax] = plots_spatial.forms({"k": fits[fits.k == 3]}).axes
    assert {line.get_label() for line in ax.lines if not line.get_label().startswith("_")} == set(FORMS)
    both = spatial_layers.beside_initial(table[table.trained], table[table.trained].assign(variance=0.05))
    [ax] = plots_spatial.spectra({"one": spatial_pairs.networks(both)["A", "true", "vgg11", 0]}).axes
    top = ax.lines[1].get_ydata()[0]
    values = sets.spectrum(table.covariance[1])[0]
    assert top == pytest.approx(values[0] * 9 * 0.1 / 0.05)
    with pytest.raises(ValueError, match="no untrained network to compare it with"):
        spatial_layers.beside_initial(table[table.trained], table[~table.trained])
