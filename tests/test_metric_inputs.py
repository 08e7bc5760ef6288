"""Bad and awkward input: for every metric a right value or one clear error, never NaN, never another number."""

import re
import warnings
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from convergent import metrics
from strategies import ALL, CENTRING, HELD_OUT, MAPPINGS, alike

pytestmark = pytest.mark.smoke

every_metric = pytest.mark.parametrize("name", ALL)
# Where a unit that says the same of every stimulus counts: it turns the angles between raw responses.
RAW_ANGLES = ("rsa", "rsa, cosine", "rsa, centred", "mutual_knn", "mutual_knn, dot", "cknna")


def on(side, metric, this, other):
    """The metric with `this` as its X or as its Y."""
    return metric(this, other) if side == "X" else metric(other, this)


def refused(call, *args, says=(), remedy, **options):
    """One ValueError, whose message names the value, says what to do, and is one short paragraph."""
    with pytest.raises(ValueError, match=".") as raised:
        call(*args, **options)
    message = str(raised.value)
    for part in says:
        assert str(part) in message, message
    assert re.search(remedy, message), message
    assert "\n" not in message
    assert len(message) < 300


def refused_on_both_sides(name, bad, says, remedy):
    for side in "XY":
        refused(on, side, ALL[name], bad, alike(0)[0], says=[side, *says], remedy=remedy)


def same(value, expected, case="", within=1e-9):
    assert np.isfinite(value), case
    assert value == pytest.approx(expected, rel=0, abs=within), case


# --- errors ------------------------------------------------------------------------------------------


@every_metric
def test_values_that_are_not_finite_are_refused(name):
    for value in (np.nan, np.inf, -np.inf):
        bad = alike(1)[0]
        bad[7, 2] = value
        refused_on_both_sides(name, bad, says=["stimulus 7", "unit 2", value], remedy="leave")


@every_metric
def test_different_numbers_of_stimuli_are_refused(name):
    X, Y = alike(0)
    refused(ALL[name], X, Y[:-1], says=["60", "59", "X", "Y"], remedy="same stimulus.*last batch")


@every_metric
def test_other_shapes_than_stimuli_by_units_are_refused(name):
    for shape in ((60,), (60, 2, 2)):
        refused_on_both_sides(name, np.ones(shape), says=[shape], remedy=r"\(n_stimuli, n_units\)")


@every_metric
def test_fewer_than_three_stimuli_are_refused(name):
    for n in (0, 1, 2):
        X, Y = (Z[:n] for Z in alike(0))
        refused(ALL[name], X, Y, says=[f"{n} stimuli"], remedy="at least 3")


@every_metric
def test_a_layer_without_units_is_refused(name):
    refused_on_both_sides(name, np.empty((60, 0)), says=["no units"], remedy="[Ll]eave")


@every_metric
def test_a_representation_that_does_not_vary_is_refused(name):
    for value, dtype in product((0, 1, 0.1, 1e20, 1e-20), (np.float32, np.float64)):
        silent = np.full((60, 4), value, dtype)
        refused_on_both_sides(name, silent, says=["does not vary"], remedy="[Ll]eave")


@every_metric
def test_stimuli_that_are_all_identical_are_refused(name):
    identical = np.tile(np.random.default_rng(0).normal(size=7), (60, 1))
    refused_on_both_sides(name, identical, says=["identical"], remedy="[Ll]eave")


@every_metric
def test_what_is_no_number_is_refused(name):
    for values in ([["a", "b"]] * 60, np.ones((60, 2), complex), np.array([[None, 1]] * 60), None):
        refused_on_both_sides(name, values, says=[], remedy="give|expected")


@pytest.mark.parametrize("name", HELD_OUT)
def test_folds_must_be_a_number_between_two_and_the_number_of_images(name):
    for folds in (1, 0, -5, 61, 1000, 2.0, True, "5"):
        refused(ALL[name], *alike(0), folds=folds, says=[f"folds={folds!r}"], remedy="between 2 and 60|at least")


@pytest.mark.parametrize("name", HELD_OUT)
def test_more_folds_than_images_are_refused_even_where_there_are_enough_rows(name):
    refused(ALL[name], *alike(0), folds=20, positions=4, says=["folds=20", "15"], remedy="between 2 and 15")


@pytest.mark.parametrize("name", HELD_OUT)
def test_positions_must_divide_the_stimuli(name):
    for positions in (7, 0, -1, 1.0, True):
        refused(ALL[name], *alike(0), positions=positions, says=[f"positions={positions!r}"], remedy="needs|expected")


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_shuffle_is_a_seed(name):
    for shuffle in (-1, 0.5, True, "yes"):
        refused(ALL[name], *alike(0), shuffle=shuffle, says=[f"shuffle={shuffle!r}"], remedy="expected a whole number")


OPTIONS = [
    (metrics.linear, "alpha", (-1, np.nan, np.inf, "best", True, None)),
    (metrics.linear, "score", ("R2", "spearman", None)),
    (partial(metrics.linear, alpha="cv"), "alphas", ([-1.0], [np.nan], [], ["1"])),
    (metrics.procrustes, "score", ("R2", None)),
    (metrics.cka, "kernel", ("gaussian", None)),
    (metrics.cka, "debiased", ("yes", 1, None)),
    (metrics.cka, "bandwidth", (1.0,)),  # the linear kernel has none
    (partial(metrics.cka, kernel="rbf"), "bandwidth", (0, -1, np.nan, np.inf, True, "median")),
    (metrics.svcca, "variance", (0, -0.5, 1.1, 99, np.nan, True, "all")),
    (metrics.rsa, "distance", ("mahalanobis", None)),
    (metrics.rsa, "compare", ("kendall", None)),
    (metrics.rsa, "center", ("yes", 1, None)),
    (metrics.mutual_knn, "k", (0, -1, 60, 61, 2.0, True, None)),
    (metrics.mutual_knn, "distance", ("correlation", None)),
    (metrics.mutual_knn, "center", ("yes", 1)),
    (metrics.cknna, "k", (0, -1, 60, 2.5, True)),
    (metrics.cknna, "center", ("yes", 1)),
]


@pytest.mark.parametrize(("metric", "option", "values"), OPTIONS)
def test_an_option_of_another_kind_is_refused_by_name_and_value(metric, option, values):
    for value in values:
        named = repr(value[0]) if isinstance(value, list) and value else repr(value)
        remedy = "expected|not one of|meaning|at least"
        refused(metric, *alike(0), **{option: value}, says=[option, named], remedy=remedy)


@pytest.mark.parametrize("folds", [2, None])
def test_choosing_alpha_needs_folds_inside_folds(folds):
    refused(metrics.linear, *alike(0), "cv", folds, says=["cv", f"folds={folds}"], remedy="at least 3")


@pytest.mark.parametrize("name", ["cka, debiased", "cka, rbf, debiased"])
def test_debiasing_needs_four_stimuli(name):
    X, Y = alike(0)
    refused(ALL[name], X[:3], Y[:3], says=["3 stimuli"], remedy="at least 4")
    assert np.isfinite(ALL[name](X[:4], Y[:4]))


@pytest.mark.parametrize(("n", "k"), [(3, 10), (11, 11), (10, 10)])
def test_there_must_be_more_stimuli_than_neighbours(n, k):
    X, Y = (Z[:n] for Z in alike(0))
    for metric in (metrics.mutual_knn, metrics.cknna):
        refused(metric, X, Y, k=k, says=[f"k={k}", n], remedy="between")


@pytest.mark.parametrize("name", ["rsa", "rsa, cosine", "mutual_knn"])
def test_a_stimulus_without_a_direction_is_refused_where_angles_count(name):
    X = alike(1)[0]
    X[11] = 0
    refused_on_both_sides(name, X, says=["stimulus 11"], remedy="leave it out|euclidean")


@pytest.mark.parametrize("name", ["rsa", "rsa, centred"])
def test_a_correlation_across_one_unit_is_refused(name):
    refused_on_both_sides(name, alike(1, n_x=1)[0], says=[], remedy="leave|euclidean|units")


@pytest.mark.parametrize("distance", ["correlation", "cosine", "euclidean", "sqeuclidean"])
def test_distances_that_are_all_equal_are_refused_where_they_are_to_correlate(distance):
    X = np.eye(12) + 5  # a regular simplex
    for compare in ("pearson", "spearman"):
        refused(metrics.rsa, X, alike(0, 12)[0], distance, compare, says=["X", "equally far"], remedy="geometry")


# --- awkward units and stimuli -----------------------------------------------------------------------


@every_metric
def test_a_constant_unit_is_left_out_with_one_warning(name):
    X, Y = alike(1)
    for side, value in product("XY", (0.0, 0.1, 3e4)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = on(side, ALL[name], np.insert(X, [0, 3], value, axis=1), Y)
        assert np.isfinite(found)
        if name not in RAW_ANGLES or (value == 0 and name not in ("rsa", "rsa, centred")):
            same(found, on(side, ALL[name], X, Y), (side, value), within=1e-7)
        if name in MAPPINGS:
            assert [w.category for w in caught] == [UserWarning]
            assert "2 of 8" in str(caught[0].message)
            assert side in str(caught[0].message)
        else:
            assert len(caught) <= 1


@pytest.mark.parametrize("metric", [metrics.linear, metrics.soft_matching, metrics.semi_matching])
def test_the_warning_of_constant_units_points_at_the_call(metric):
    X, Y = alike(1)
    X[:, 2] = 0
    with pytest.warns(UserWarning, match="1 of 6 units") as caught:
        metric(X, Y)
    assert caught[0].filename == __file__


@every_metric
def test_no_constant_unit_no_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ALL[name](*alike(1))


@pytest.mark.filterwarnings("ignore:.*constant:UserWarning")
def test_details_count_constant_units_as_the_caller_does():
    X, Y = (np.insert(Z, 1, 0.1, axis=1) for Z in alike(2, 60, 4, 4))
    for metric in (metrics.linear, metrics.procrustes, metrics.soft_matching):
        found = metric(X, Y, details=True)
        assert list(np.isnan(found.per_unit)) == [False, True, False, False, False]
        assert found.mapping.shape == (5, 5)
        assert not found.mapping[1].any()
        assert not found.mapping[:, 1].any()
    for metric in (metrics.permutation, metrics.semi_matching):
        found = metric(X, Y, details=True)
        assert np.isnan(found.per_unit[1])
        assert found.mapping[1] == -1
        assert 1 not in found.mapping
    assert sorted(metrics.permutation(X, Y, details=True).mapping) == [-1, 0, 2, 3, 4]


@every_metric
def test_duplicate_units_have_a_value(name):
    X, Y = alike(3)
    expected = ALL[name](X, Y)
    once_more = ALL[name](np.hstack([X, X[:, :1]]), Y)
    assert np.isfinite(once_more)
    if name.startswith(("cca", "linear, alpha 0", "semi_matching")):
        same(once_more, expected, within=1e-7)  # nothing new
    all_twice = ALL[name](np.hstack([X, X]) / np.sqrt(2), Y)
    assert np.isfinite(all_twice)
    if not name.startswith(("permutation", "soft_matching", "linear, cv")):
        same(all_twice, expected, within=1e-7)  # the same geometry


@every_metric
def test_duplicate_stimuli_have_a_value(name):
    X, Y = alike(4, 30)
    value = ALL[name](np.repeat(X, 2, axis=0), np.repeat(Y, 2, axis=0))
    assert np.isfinite(value)
    if name in ("cka", "cka, rbf", "shape_cosine", "cca", "svcca", "pwcca"):
        same(value, ALL[name](X, Y))


@every_metric
def test_more_units_than_stimuli_have_a_value(name):
    for shape in ((20, 60, 50), (20, 60, 4), (20, 4, 60), (12, 300, 200)):
        value = ALL[name](*alike(5, *shape))
        assert np.isfinite(value)
        assert value <= 1 + 1e-9 or name.startswith("cknna")


@every_metric
def test_rounding_does_not_decide_the_value_of_a_representation_of_low_rank(name):
    X, Y = alike(6, 60, 9, 6, rank=3)
    assert np.linalg.matrix_rank(X - X.mean(0)) == 3
    noise = 1e-14 * np.random.default_rng(0).normal(size=X.shape)
    same(ALL[name](X + noise, Y), ALL[name](X, Y), within=1e-6)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("rsa", "rsa, centred")])
def test_single_units_can_be_compared(name):
    X, Y = alike(7, n_x=1, n_y=1)
    if name == "rsa, cosine":
        X, Y = X - X.mean(), Y - Y.mean()  # both signs: otherwise all angles are 0
    assert np.isfinite(ALL[name](X, Y))


@pytest.mark.parametrize("name", [name for name in ALL if name not in HELD_OUT and "debiased" not in name])
def test_three_stimuli_have_a_value_or_a_reason(name):
    X, Y = (Z[:3] for Z in alike(8))
    if name.startswith("cknna"):
        refused(partial(ALL[name], k=2), X, Y, says=[3], remedy="at least 4|between")
    else:
        options = {"k": 1} if name.startswith("mutual_knn") else {}
        assert np.isfinite(ALL[name](X, Y, **options))


def test_leaving_one_out_has_no_correlation_but_an_r2():
    X, Y = alike(9, 30)
    refused(metrics.linear, X, Y, folds=30, says=["fold 1"], remedy="fewer folds")
    assert np.isfinite(metrics.linear(X, Y, folds=30, score="r2"))


# --- number types and magnitudes ---------------------------------------------------------------------


@every_metric
def test_any_type_of_numbers_gives_what_float64_gives(name):
    X, Y = (np.round(20 * (Z - Z.min())) % 120 for Z in alike(10))
    expected = ALL[name](X, Y)
    for dtype in (np.uint8, np.int8, np.int16, np.int64, np.uint16, ">f8", "<f8", np.longdouble):
        same(ALL[name](X.astype(dtype), Y.astype(dtype)), expected, dtype)
    same(ALL[name](X.astype(">f4"), Y.astype(">f4")), expected, ">f4", within=1e-5)
    for dtype in (torch.uint8, torch.int32, torch.int64):
        same(ALL[name](*(torch.from_numpy(Z).to(dtype) for Z in (X, Y))), expected, dtype)


@every_metric
def test_yes_and_no_are_one_and_zero(name):
    X, Y = (Z > np.median(Z, 0) for Z in alike(10, 60, 9, 12))
    X[:, 0], Y[:, 0] = ~X[:, 1], ~Y[:, 1]  # no stimulus is all yes or all no
    same(ALL[name](X, Y), ALL[name](X.astype(float), Y.astype(float)))


@every_metric
def test_half_precision_gives_what_float64_gives(name):
    for dtype in (torch.float16, torch.bfloat16):
        X, Y = (torch.from_numpy(10 * Z).to(dtype) for Z in alike(11))
        same(ALL[name](X, Y), ALL[name](X.double().numpy(), Y.double().numpy()), dtype, within=1e-5)
        if dtype == torch.float16:
            same(ALL[name](X.numpy(), Y.numpy()), ALL[name](X, Y))


@every_metric
def test_how_the_numbers_lie_in_memory_does_not_matter(name):
    X, Y = alike(12)
    expected = ALL[name](X, Y)
    read_only = X.copy(), Y.copy()
    for Z in read_only:
        Z.setflags(write=False)
    cases = {
        "strided": (np.repeat(X, 2, axis=1)[:, ::2], np.asfortranarray(Y)),
        "negative strides": (np.ascontiguousarray(X[::-1])[::-1], torch.from_numpy(np.ascontiguousarray(Y.T)).T),
        "with gradients": (torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)),
        "frames": (pd.DataFrame(X), pd.DataFrame(Y, index=range(100, 160))),
        "read only": read_only,
        "lists": (X.tolist(), Y.tolist()),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case, pair in cases.items():
            same(ALL[name](*pair), expected, case)


@every_metric
def test_the_input_is_left_as_it_was(name):
    for dtype in (np.float32, np.float64):
        X, Y = (Z.astype(dtype) for Z in alike(13))
        before = X.copy(), Y.copy()
        ALL[name](X, Y)
        assert np.array_equal(X, before[0])
        assert np.array_equal(Y, before[1])


def scaled(name, factor):
    """The metric for X times `factor`: a given alpha is in squared units of X."""
    given = name in ("linear", "linear, r2", "linear, in sample")
    return partial(ALL[name], alpha=factor**2) if given else ALL[name]


@every_metric
def test_tiny_and_huge_responses_have_the_value_of_ordinary_ones(name):
    for dtype, exponent in product((np.float32, np.float64), (-30, -20, 20, 30)):
        X, Y = (Z.astype(dtype) for Z in alike(14))
        expected, factor, case = ALL[name](X, Y), dtype(10.0**exponent), (dtype, exponent)
        within = 1e-5 if dtype == np.float32 else 1e-9
        same(scaled(name, float(factor))(factor * X, Y), expected, case, within)
        same(ALL[name](X, factor * Y), expected, case, within)
        same(scaled(name, float(factor))(factor * X, Y / factor), expected, case, within)


@pytest.mark.parametrize("name", ["linear", "linear, r2", "linear, in sample"])
def test_alpha_may_be_nothing_or_everything_to_the_responses(name):
    X, Y = alike(14)
    for factor in (1e-30, 1e-20, 1e20, 1e30):
        nearest = ALL[name](X, Y, alpha=0 if factor > 1 else 1e20)
        same(ALL[name](X * factor, Y), nearest, factor, within=1e-6)


@every_metric
def test_the_ends_of_the_range_of_float64_are_no_trap(name):
    X, Y = alike(14)
    expected = ALL[name](X, Y)
    # Alpha is in squared units, so that the one to choose at 1e300 would be no number any more.
    for factor in (1e-150, 1e150) if name == "linear, cv" else (1e-300, 1e-150, 1e150, 1e300):
        value = ALL[name](X * factor, Y * factor)
        if name in ("linear", "linear, r2", "linear, in sample"):
            assert np.isfinite(value)  # what alpha = 1 is to them is tested above
        else:
            same(value, expected, factor)


@every_metric
def test_units_of_very_different_size_stand_side_by_side(name):
    X, Y = alike(15)
    expected = ALL[name](X, Y)
    X[:, 0] *= 1e3
    X[:, 1] *= 1e-3
    value = ALL[name](X, Y)
    assert np.isfinite(value)
    if name.startswith(("permutation", "soft_matching", "semi_matching", "cca", "linear, alpha 0")):
        same(value, expected)


# --- float32 -----------------------------------------------------------------------------------------

CONDITIONS = {
    "well conditioned": {"n_stimuli": 200, "n_x": 12, "n_y": 16},
    "square": {"n_stimuli": 100, "n_x": 20, "n_y": 20},
    "rank deficient": {"n_stimuli": 200, "n_x": 12, "n_y": 16, "rank": 4},
    "more units than stimuli": {"n_stimuli": 40, "n_x": 90, "n_y": 60},
    "more units than stimuli, rank deficient": {"n_stimuli": 40, "n_x": 90, "n_y": 60, "rank": 5},
}


def far_from_zero(X, times=100):
    """Every unit's mean is `times` its standard deviation."""
    return X + times * X.std(0) - X.mean(0)


@every_metric
@pytest.mark.parametrize("condition", CONDITIONS)
def test_float32_is_as_good_as_float64(name, condition):
    for seed in range(2):
        X, Y = alike(seed, **CONDITIONS[condition])
        same(ALL[name](X.astype(np.float32), Y.astype(np.float32)), ALL[name](X, Y), seed, within=1e-5)


@every_metric
@pytest.mark.parametrize("condition", CONDITIONS)
def test_float32_is_as_good_as_float64_where_means_are_100_times_the_spread(name, condition):
    for seed in range(2):
        X, Y = (far_from_zero(Z) for Z in alike(seed, **CONDITIONS[condition]))
        same(ALL[name](X.astype(np.float32), Y.astype(np.float32)), ALL[name](X, Y), seed, within=1e-5)


@pytest.mark.parametrize("name", CENTRING)
def test_a_mean_of_100_spreads_changes_nothing_in_what_is_centred(name):
    X, Y = alike(18, 100)
    for dtype in (np.float32, np.float64):
        far = [far_from_zero(Z).astype(dtype) for Z in (X, Y)]
        same(ALL[name](*far), ALL[name](X, Y), dtype, within=1e-5 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("name", CENTRING)
def test_a_mean_of_a_million_spreads_changes_nothing_in_float64(name):
    X, Y = alike(18, 100)
    same(ALL[name](far_from_zero(X, 1e6), far_from_zero(Y, 1e6)), ALL[name](X, Y), within=1e-6)


@every_metric
def test_float32_and_float64_can_be_compared_with_each_other(name):
    X, Y = alike(19)
    same(ALL[name](X.astype(np.float32), Y), ALL[name](X, Y), within=1e-5)


# --- devices -----------------------------------------------------------------------------------------

cuda = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"))
mps = pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no Apple GPU here"))


@pytest.mark.parametrize("device", ["cpu", cuda, mps])
def test_tensors_give_what_arrays_give_on_every_device(device):
    for name, condition in product(ALL, ("well conditioned", "rank deficient", "more units than stimuli")):
        X, Y = (torch.from_numpy(Z.astype(np.float32)) for Z in alike(20, **CONDITIONS[condition]))
        value = ALL[name](X.to(device), Y.to(device))
        assert type(value) is float
        within = 1e-12 if device == "cpu" else 1e-5
        same(value, ALL[name](X.numpy(), Y.numpy()), (name, condition), within)


@pytest.mark.parametrize("device", ["cpu", cuda, mps])
def test_details_are_arrays_whatever_the_device(device):
    for name in MAPPINGS:
        X, Y = (torch.from_numpy(Z.astype(np.float32)).to(device) for Z in alike(21))
        found = MAPPINGS[name](X, Y, details=True)
        assert type(found.value) is float
        assert {type(part) for part in (found.per_fold, found.per_unit, found.mapping)} == {np.ndarray}


@pytest.mark.parametrize("device", [cuda])
def test_representations_on_different_devices_are_refused(device):
    X, Y = (torch.from_numpy(Z) for Z in alike(0))
    refused(metrics.cka, X, Y.to(device), says=["cpu", device], remedy="one device")
