"""Every metric against its definition, against other packages, and against what must leave it unchanged."""

import json
import os
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import ot
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, PredefinedSplit

import plain
from convergent import metrics
from convergent.moments import shuffled_images
from strategies import (
    ALL,
    CENTRING,
    DIRECTED,
    HELD_OUT,
    MAPPINGS,
    SYMMETRIC,
    alike,
    invertible,
    orthogonal,
    pairs,
    quickly,
    seeds,
)

pytestmark = pytest.mark.smoke

# --- what other packages gave ------------------------------------------------------------------------

REFERENCE = Path(os.environ.get("CONVERGENT_DATA") or "/nowhere/data").parent / "reference"
with_reference = pytest.mark.skipif(
    not (REFERENCE / "values.json").is_file(), reason="no folder `reference` beside $CONVERGENT_DATA"
)
PAIRS = ("A_square", "B_rect", "D_rankdef")


def size_shape(X, Y):
    """Distance after the best rotation, from its cosine."""
    x, y = np.linalg.norm(plain.centred(X)), np.linalg.norm(plain.centred(Y))
    return np.sqrt(x**2 + y**2 - 2 * x * y * metrics.shape_cosine(X, Y))


def both_ways(metric, X, Y):
    return (metric(X, Y) + metric(Y, X)) / 2


AS_IN_VALUES = {
    "cka_linear": metrics.cka,
    "cka_linear_unbiased": partial(metrics.cka, debiased=True),
    "cka_rbf_median": partial(metrics.cka, kernel="rbf"),
    "procrustes_cos": metrics.shape_cosine,
    "procrustes_angular": lambda X, Y: np.arccos(metrics.shape_cosine(X, Y)),
    "procrustes_size_shape": size_shape,
    "perm_mean_corr_lap": partial(metrics.permutation, folds=None),
    "soft_match_corr": partial(metrics.soft_matching, folds=None),
    "semi_match_sym": partial(both_ways, partial(metrics.semi_matching, folds=None)),
    "ridge1_kf5_corr_fold_YfromX": metrics.linear,
    "ridge1_kf5_corr_fold_XfromY": lambda X, Y: metrics.linear(Y, X),
    "ridge1_kf5_r2_pooled_YfromX": partial(metrics.linear, score="r2"),
    "ridge1_kf5_r2_pooled_XfromY": lambda X, Y: metrics.linear(Y, X, score="r2"),
    "ridge100_kf5_corr_fold_YfromX": partial(metrics.linear, alpha=100),
    "ridge100_kf5_corr_fold_XfromY": lambda X, Y: metrics.linear(Y, X, alpha=100),
    "rsa_corr_pearson": partial(metrics.rsa, compare="pearson"),
    "rsa_corr_spearman": metrics.rsa,
    "mutual_knn_cosine_k10": metrics.mutual_knn,
    "mutual_knn_cosine_centred_k10": partial(metrics.mutual_knn, center=True),
    "mutual_knn_dot_k10": partial(metrics.mutual_knn, distance="dot"),
    "cknna_dot_k10": metrics.cknna,
    "cca_mean": metrics.cca,
}
# Packages that compute something else under the name.
OTHERWISE = {
    ("A_square", "cka_linear", "wrongu"),  # debiases, in a way of its own
    ("B_rect", "cka_linear", "wrongu"),
    ("D_rankdef", "cka_linear", "wrongu"),
    # X has rank 10 of 30. This package takes 24 canonical correlations, 14 of them between Y and the rounding errors of
    # X; there are 10, and `test_canonical_correlations_are_as_many_as_the_rank` has them.
    ("D_rankdef", "cca_mean", "anatome"),
}


def reference_pair(name):
    with np.load(REFERENCE / "pairs.npz", allow_pickle=False) as file:
        return file[f"X_{name}"], file[f"Y_{name}"]


@with_reference
@pytest.mark.parametrize(("name", "key"), [*product(PAIRS, AS_IN_VALUES)])
def test_independent_packages_give_the_same_value(name, key):
    ours = AS_IN_VALUES[key](*reference_pair(name))
    values = json.loads((REFERENCE / "values.json").read_text())[name].get(key, {})
    compared = {package: value for package, value in values.items() if (name, key, package) not in OTHERWISE}
    assert compared or (name, key) == ("D_rankdef", "cca_mean") or (name, key[:8]) == ("D_rankdef", "ridge100")
    # The relative part is for procrustes_size_shape, which is no number around 1.
    assert compared == {package: pytest.approx(ours, abs=1e-6, rel=1e-7) for package in compared}


@with_reference
def test_every_value_of_the_reference_is_compared():
    values = json.loads((REFERENCE / "values.json").read_text())
    assert set(values) == set(PAIRS)
    # perm_angular assigns units by covariance, which no metric here does.
    assert {key for of_pair in values.values() for key in of_pair} == {*AS_IN_VALUES, "perm_angular"}


@with_reference
@pytest.mark.parametrize("name", PAIRS)
def test_canonical_correlations_are_as_many_as_the_rank(name):
    X, Y = reference_pair(name)
    assert len(plain.canonical_correlations(X, Y)) == {"A_square": 50, "B_rect": 40, "D_rankdef": 10}[name]
    assert metrics.cca(X, Y) == pytest.approx(plain.cca(X, Y), abs=1e-6)


# --- the definitions, on other data ------------------------------------------------------------------

# Same unit counts; more units on either side; more units than stimuli on either side; folds that do not come out even.
SHAPES = {"square": (60, 7, 7), "narrow": (60, 5, 9), "wide": (60, 9, 5), "uneven": (53, 6, 8)}
MANY_UNITS = {"many x": (40, 70, 6), "many y": (40, 6, 70), "many of both": (40, 70, 55)}
DEFINED = {
    **{f"linear, alpha {a:g}": (partial(metrics.linear, alpha=a), partial(plain.linear, alpha=a)) for a in (1e-3, 30)},
    "linear, in sample": (partial(metrics.linear, folds=None), partial(plain.linear, folds=None)),
    "linear, 2 folds": (partial(metrics.linear, folds=2), partial(plain.linear, folds=2)),
    "linear, r2": (partial(metrics.linear, score="r2"), partial(plain.linear, by="r2")),
    "linear, r2 in sample": (
        partial(metrics.linear, score="r2", folds=None),
        partial(plain.linear, by="r2", folds=None),
    ),
    "procrustes": (metrics.procrustes, plain.procrustes),
    "procrustes, in sample": (partial(metrics.procrustes, folds=None), partial(plain.procrustes, folds=None)),
    "procrustes, r2": (partial(metrics.procrustes, score="r2"), partial(plain.procrustes, by="r2")),
    "permutation": (metrics.permutation, plain.permutation),
    "permutation, in sample": (partial(metrics.permutation, folds=None), partial(plain.permutation, folds=None)),
    "soft_matching": (metrics.soft_matching, plain.soft_matching),
    "soft_matching, in sample": (partial(metrics.soft_matching, folds=None), partial(plain.soft_matching, folds=None)),
    "semi_matching": (metrics.semi_matching, plain.semi_matching),
    "semi_matching, in sample": (partial(metrics.semi_matching, folds=None), partial(plain.semi_matching, folds=None)),
    "cka": (metrics.cka, plain.cka),
    "cka, debiased": (partial(metrics.cka, debiased=True), partial(plain.cka, debiased=True)),
    "cka, rbf": (partial(metrics.cka, kernel="rbf"), partial(plain.cka, kernel="rbf")),
    "cka, rbf, narrow": (
        partial(metrics.cka, kernel="rbf", bandwidth=0.3),
        partial(plain.cka, kernel="rbf", bandwidth=0.3),
    ),
    "cka, rbf, debiased": (
        partial(metrics.cka, kernel="rbf", debiased=True),
        partial(plain.cka, kernel="rbf", debiased=True),
    ),
    "shape_cosine": (metrics.shape_cosine, plain.shape_cosine),
    "cca": (metrics.cca, plain.cca),
    "svcca": (metrics.svcca, plain.svcca),
    "svcca, half": (partial(metrics.svcca, variance=0.5), partial(plain.svcca, variance=0.5)),
    "pwcca": (metrics.pwcca, plain.pwcca),
    "cknna": (metrics.cknna, plain.cknna),
    "cknna, k 3": (partial(metrics.cknna, k=3), partial(plain.cknna, k=3)),
    **{
        f"rsa, {d}, {c}": (partial(metrics.rsa, distance=d, compare=c), partial(plain.rsa, distance=d, compare=c))
        for d, c in product(("correlation", "cosine", "euclidean", "sqeuclidean"), ("spearman", "pearson", "cosine"))
    },
    **{
        f"mutual_knn, {d}, {k}": (
            partial(metrics.mutual_knn, distance=d, k=k),
            partial(plain.mutual_knn, distance=d, k=k),
        )
        for d, k in (("cosine", 10), ("dot", 10), ("euclidean", 10), ("cosine", 1))
    },
}
NO_UNIQUE_ROTATION = [name for name in DEFINED if name.startswith("procrustes") and "in sample" not in name]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DEFINED)
def test_a_metric_is_what_its_definition_gives(name, shape):
    ours, definition = DEFINED[name]
    for seed in range(2):
        X, Y = alike(seed, *SHAPES[shape])
        assert ours(X, Y) == pytest.approx(definition(X, Y), abs=1e-9)


@pytest.mark.parametrize("shape", MANY_UNITS)
@pytest.mark.parametrize("name", [name for name in DEFINED if name not in NO_UNIQUE_ROTATION])
def test_the_definition_holds_for_more_units_than_stimuli(name, shape):
    ours, definition = DEFINED[name]
    X, Y = alike(5, *MANY_UNITS[shape])
    assert ours(X, Y) == pytest.approx(definition(X, Y), abs=1e-7)


@pytest.mark.parametrize("name", [name for name in DEFINED if name not in NO_UNIQUE_ROTATION])
def test_the_definition_holds_for_a_representation_of_low_rank(name):
    ours, definition = DEFINED[name]
    X, Y = alike(6, 60, 9, 6, rank=3)
    assert np.linalg.matrix_rank(plain.centred(X)) == 3
    assert ours(X, Y) == pytest.approx(definition(X, Y), abs=1e-7)


@quickly
@given(pairs(), st.floats(1e-3, 1e3), st.integers(2, 8))
def test_held_out_ridge_is_scikit_learns_refitted_on_every_fold(pair, alpha, folds):
    X, Y, _ = pair
    for by in ("pearson", "r2"):
        expected = plain.linear(X, Y, alpha, folds, by)
        assert metrics.linear(X, Y, alpha, folds, score=by) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n_stimuli", [60, 63])
@pytest.mark.parametrize("n_x", [7, 60])
def test_a_chosen_alpha_is_the_one_that_nested_cross_validation_chooses(n_stimuli, n_x):
    X, Y = alike(3, n_stimuli, n_x, 5, noise=3)
    alphas, folds, chosen, predicted = np.logspace(-2, 4, 9), KFold(5), [], np.empty_like(Y)
    fold_of = np.empty(n_stimuli, int)
    for k, (_, test) in enumerate(folds.split(X)):
        fold_of[test] = k
    for train, test in folds.split(X):
        # The inner folds are the other outer ones, so that no two rows of an inner fold come from different images.
        search = GridSearchCV(Ridge(solver="svd"), {"alpha": alphas}, scoring="r2", cv=PredefinedSplit(fold_of[train]))
        predicted[test] = search.fit(X[train], Y[train]).predict(X[test])
        chosen.append(search.best_params_["alpha"])
    found = metrics.linear(X, Y, "cv", alphas=alphas, score="r2", details=True)
    assert found.alpha == pytest.approx(chosen)
    assert found.value == pytest.approx(r2_score(Y, predicted), abs=1e-9)


def test_a_chosen_alpha_never_sees_the_fold_that_it_is_scored_on():
    X, Y = alike(4, 60, 30, 5, noise=2)
    before = metrics.linear(X, Y, "cv", details=True).alpha
    for k in range(5):
        changed, fold = Y.copy(), slice(12 * k, 12 * k + 12)
        changed[fold] = 100 * np.random.default_rng(k).normal(size=(12, 5))
        after = metrics.linear(X, changed, "cv", details=True).alpha
        assert after[k] == before[k]


def test_a_chosen_alpha_predicts_better_than_a_bad_one():
    X, Y = alike(8, 100, 60, 6)
    chosen = metrics.linear(X, Y, "cv", score="r2")
    assert chosen > metrics.linear(X, Y, 1e-6, score="r2")
    assert chosen > metrics.linear(X, Y, 1e6, score="r2")


# --- exact identities --------------------------------------------------------------------------------


@quickly
@given(pairs(equal=True))
def test_soft_matching_is_permutation_for_equal_unit_counts(pair):
    X, Y, _ = pair
    for folds in (None, 5):
        assert metrics.soft_matching(X, Y, folds) == pytest.approx(metrics.permutation(X, Y, folds), abs=1e-12)


@pytest.mark.parametrize("n_units", [5, 30])
def test_permutation_is_what_optimal_transport_finds_for_equal_unit_counts(n_units):
    X, Y = alike(1, 90, n_units, n_units)
    r = plain.correlations(X, Y)
    uniform = np.full(n_units, 1 / n_units)
    assert metrics.permutation(X, Y, None) == pytest.approx(1 - ot.emd2(uniform, uniform, 1 - r), abs=1e-9)


@quickly
@given(pairs())
def test_shape_cosine_is_the_bures_cosine_of_the_gram_matrices(pair):
    X, Y, _ = pair
    # The Grams are singular, where SciPy's matrix square root is good to the root of the precision.
    assert metrics.shape_cosine(X, Y) == pytest.approx(plain.bures_cosine(X, Y), abs=1e-5)


@quickly
@given(pairs(equal=True))
def test_the_arccos_of_shape_cosine_is_a_distance(pair):
    X, Y, rng = pair
    Z = Y + rng.normal(size=Y.shape)
    x_y, y_z, x_z = (np.arccos(min(metrics.shape_cosine(*two), 1)) for two in ((X, Y), (Y, Z), (X, Z)))
    assert x_z <= x_y + y_z + 1e-6


def test_linear_cka_of_single_units_is_their_squared_correlation():
    X, Y = alike(2, 50, 1, 1)
    r = np.corrcoef(X[:, 0], Y[:, 0])[0, 1]
    assert metrics.cka(X, Y) == pytest.approx(r**2)
    for turned in (metrics.shape_cosine(X, Y), metrics.cca(X, Y), metrics.procrustes(X, Y, None)):
        assert turned == pytest.approx(abs(r))
    for matched in (metrics.permutation(X, Y, None), metrics.soft_matching(X, Y, None)):
        assert matched == pytest.approx(r)


@quickly
@given(pairs(equal=True))
def test_the_best_rotation_leaves_unexplained_what_shape_cosine_says(pair):
    X, Y, _ = pair
    explained = metrics.shape_cosine(X, Y) ** 2
    residual = (plain.rotation(X, Y, scaled=True)(X) - Y) ** 2
    assert residual.sum() == pytest.approx((1 - explained) * (plain.centred(Y) ** 2).sum())


@quickly
@given(pairs())
def test_in_sample_the_wider_family_of_maps_explains_more(pair):
    X, Y, _ = pair
    least_squares = metrics.linear(X, Y, 0, None, score="r2")
    assert least_squares >= metrics.linear(X, Y, 1, None, score="r2") - 1e-9
    assert least_squares >= metrics.procrustes(X, Y, None, score="r2") - 1e-9
    assert metrics.semi_matching(X, Y, None) >= metrics.soft_matching(X, Y, None) - 1e-9


@pytest.mark.parametrize("name", ["cka", "cka, rbf"])
def test_only_the_debiased_value_is_zero_on_average_for_unrelated_representations(name):
    rng = np.random.default_rng(0)
    draws = [(rng.normal(size=(30, 25)), rng.normal(size=(30, 25))) for _ in range(60)]
    debiased = [ALL[f"{name}, debiased"](X, Y) for X, Y in draws]
    assert abs(np.mean(debiased)) < 4 * np.std(debiased) / np.sqrt(60)
    assert min(debiased) < 0, "negative values are kept"
    assert np.mean([ALL[name](X, Y) for X, Y in draws]) > 0.3


# --- what leaves a metric unchanged ------------------------------------------------------------------

CHANGES = {
    "rotation": lambda X, rng: X @ orthogonal(rng, X.shape[1]),
    "scale": lambda X, rng: X * 10 ** rng.uniform(-3, 3),
    "reflection": lambda X, rng: -X,
    "order of units": lambda X, rng: X[:, rng.permutation(X.shape[1])],
    "scale of each unit": lambda X, rng: X * 10 ** rng.uniform(-2, 2, X.shape[1]),
    "invertible map": lambda X, rng: X @ invertible(rng, X.shape[1]),
    "shift": lambda X, rng: X + 3 * rng.normal(size=X.shape[1]),
    "scale of each stimulus": lambda X, rng: X * 10 ** rng.uniform(-1, 1, (len(X), 1)),
    "shift of each stimulus": lambda X, rng: X + rng.normal(size=(len(X), 1)),
    "silent units": lambda X, rng: np.hstack([np.zeros((len(X), 2)), X]),
    "more units by rotation": lambda X, rng: X @ orthogonal(rng, 90)[: X.shape[1]],  # more than stimuli
}
METRICS = {**ALL, "svcca, all of the variance": partial(metrics.svcca, variance=1)}
GEOMETRY = ("rotation", "scale", "reflection", "order of units", "silent units", "more units by rotation")
SINGLE_UNITS = ("order of units", "scale of each unit")
OF_X = {
    "linear": ("rotation", "reflection", "order of units", "silent units", "more units by rotation"),
    "linear, r2": ("rotation", "reflection", "order of units", "silent units", "more units by rotation"),
    "linear, alpha 0": (*GEOMETRY, "scale of each unit", "invertible map"),
    "linear, cv": ("rotation", "scale", "reflection", "order of units"),
    "linear, in sample": ("rotation", "reflection", "order of units"),
    **dict.fromkeys(("procrustes", "procrustes, r2", "procrustes, in sample"), GEOMETRY),
    **dict.fromkeys((m for m in ALL if m.startswith(("permutation", "soft", "semi"))), SINGLE_UNITS),
    **dict.fromkeys((m for m in ALL if m.startswith("cka")), GEOMETRY),
    "shape_cosine": GEOMETRY,
    "cca": (*GEOMETRY, "scale of each unit", "invertible map"),
    "svcca": GEOMETRY,
    "svcca, all of the variance": (*GEOMETRY, "scale of each unit", "invertible map"),
    "pwcca": ("scale", "reflection", "order of units", "silent units"),
    "rsa": ("scale", "reflection", "order of units", "scale of each stimulus", "shift of each stimulus"),
    "rsa, centred": ("scale", "reflection", "order of units"),
    "rsa, cosine": (*GEOMETRY, "scale of each stimulus"),
    "rsa, euclidean": GEOMETRY,
    "rsa, sqeuclidean": GEOMETRY,
    "mutual_knn": (*GEOMETRY, "scale of each stimulus"),
    **dict.fromkeys(("mutual_knn, centred", "mutual_knn, dot", "mutual_knn, euclidean"), GEOMETRY),
    **dict.fromkeys(("cknna", "cknna, centred"), GEOMETRY),
}
# Of Y where the metric is not symmetric; correlations of single units forget the sign of both with a map that has one.
OF_Y = {
    **dict.fromkeys(("linear", "linear, in sample", "linear, alpha 0"), ("scale", "reflection", *SINGLE_UNITS)),
    "linear, r2": ("scale", "reflection", *SINGLE_UNITS),
    "linear, cv": ("scale", "reflection", *SINGLE_UNITS),
    **dict.fromkeys((m for m in ALL if m.startswith("procrustes")), ("scale", "reflection", "order of units")),
    **dict.fromkeys((m for m in ALL if m.startswith("semi")), SINGLE_UNITS),
    "pwcca": (*GEOMETRY, "scale of each unit", "invertible map"),
    **{m: OF_X[m] for m in ("cknna", "cknna, centred")},
    **{m: OF_X[m] for m in (*SYMMETRIC, "svcca, all of the variance")},
}
for _name in CENTRING:
    OF_X[_name], OF_Y[_name] = (*OF_X[_name], "shift"), (*OF_Y[_name], "shift")


def test_the_invariances_of_every_metric_are_tested():
    assert set(OF_X) == set(OF_Y) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=6, deadline=None)
@given(pairs())
@pytest.mark.filterwarnings("ignore:.*constant:UserWarning")
def test_a_metric_ignores_what_it_should(name, pair):
    X, Y, rng = pair
    expected = pytest.approx(METRICS[name](X, Y), abs=1e-7)
    for change in OF_X[name]:
        assert METRICS[name](CHANGES[change](X, rng), Y) == expected, f"{change} of X"
    for change in OF_Y[name]:
        assert METRICS[name](X, CHANGES[change](Y, rng)) == expected, f"{change} of Y"


# One change for each metric that it does notice: otherwise the tests above would hold for a constant.
NOTICED = {
    **dict.fromkeys((m for m in METRICS if m.startswith(("perm", "soft", "semi"))), "rotation"),
    **dict.fromkeys(
        (m for m in METRICS if m.startswith(("proc", "cka", "shape", "rsa", "mut", "ckn"))), "invertible map"
    ),
    **dict.fromkeys(("linear", "linear, r2", "linear, in sample"), "scale"),
    "linear, cv": "scale of each stimulus",
    "linear, alpha 0": "scale of each stimulus",
    "cca": "scale of each stimulus",
    "svcca, all of the variance": "scale of each stimulus",
    "svcca": "scale of each stimulus",
    "pwcca": "scale of each unit",
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_notices_the_changes_that_it_should(name):
    X, _ = alike(11, 60, 6, 6)
    Y = X + 0.3 * np.random.default_rng(1).normal(size=X.shape)
    changed = 1e-3 * X if NOTICED[name] == "scale" else CHANGES[NOTICED[name]](X, np.random.default_rng(0))
    assert abs(METRICS[name](changed, Y) - METRICS[name](X, Y)) > 1e-3


@pytest.mark.parametrize("name", [name for name in ALL if name not in HELD_OUT])
@settings(max_examples=6, deadline=None)
@given(pairs())
def test_the_order_of_the_stimuli_does_not_matter(name, pair):
    X, Y, rng = pair
    order = rng.permutation(len(X))
    assert ALL[name](X[order], Y[order]) == pytest.approx(ALL[name](X, Y), abs=1e-9)


@pytest.mark.parametrize("name", HELD_OUT)
def test_the_order_of_the_stimuli_matters_between_folds_only(name):
    X, Y = alike(12, 60)
    inside = np.concatenate([12 * k + np.random.default_rng(k).permutation(12) for k in range(5)])
    assert ALL[name](X[inside], Y[inside]) == pytest.approx(ALL[name](X, Y), abs=1e-9)
    across = np.random.default_rng(0).permutation(60)
    assert abs(ALL[name](X[across], Y[across]) - ALL[name](X, Y)) > 1e-6


# --- range, symmetry, a representation with itself ----------------------------------------------------

MISSED_BY = {"linear": 0.2, "linear, r2": 0.2, "linear, in sample": 0.2, "linear, cv": 1e-3}  # alpha shrinks
RANGE = {
    **dict.fromkeys(ALL, (-1, 1)),
    **dict.fromkeys(("linear, r2", "procrustes, r2"), (-np.inf, 1)),
    **dict.fromkeys(("cka", "cka, rbf", "shape_cosine", "cca", "svcca", "pwcca"), (0, 1)),
    **dict.fromkeys((m for m in ALL if m.startswith("mutual_knn")), (0, 1)),
    **dict.fromkeys((m for m in ALL if m.startswith("cknna")), (-np.inf, np.inf)),
}


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=12, deadline=None)
@given(pairs(n_units=st.integers(1, 60), n_stimuli=st.integers(15, 40)), st.booleans())
def test_the_value_is_in_its_range(name, pair, related):
    X, Y, rng = pair
    Y = Y if related else rng.normal(size=Y.shape)
    # Correlations across one unit are undefined, and angles between one or two may be all the same.
    assume(min(X.shape[1], Y.shape[1]) > 2 or name not in ("rsa", "rsa, centred", "rsa, cosine"))
    low, high = RANGE[name]
    value = ALL[name](X, Y)
    assert type(value) is float
    assert low - 1e-9 <= value <= high + 1e-9


@pytest.mark.parametrize("name", SYMMETRIC)
@settings(max_examples=8, deadline=None)
@given(pairs())
def test_the_value_is_symmetric(name, pair):
    X, Y, _ = pair
    assert ALL[name](X, Y) == pytest.approx(ALL[name](Y, X), abs=1e-9)


@pytest.mark.parametrize("name", DIRECTED)
def test_the_value_has_a_direction(name):
    X, Y = alike(13, 60, 4, 9)
    assert abs(ALL[name](X, Y) - ALL[name](Y, X)) > 1e-4


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=8, deadline=None)
@given(pairs())
def test_a_representation_is_entirely_like_itself(name, pair):
    X, _, _ = pair
    assert ALL[name](X, X) == pytest.approx(1, abs=MISSED_BY.get(name, 1e-6))


@pytest.mark.parametrize("name", ["procrustes", "linear, alpha 0", "permutation", "soft_matching", "semi_matching"])
def test_independent_representations_score_about_nothing_held_out(name):
    rng = np.random.default_rng(2)
    values = [ALL[name](rng.normal(size=(60, 40)), rng.normal(size=(60, 30))) for _ in range(20)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(20)
    in_sample = partial(ALL[name], folds=None)
    assert in_sample(rng.normal(size=(60, 40)), rng.normal(size=(60, 30))) > 0.15


# --- images, positions and folds ---------------------------------------------------------------------


def by_images(X, n_images, positions):
    """Row numbers (train, test) of five folds that are cut between images."""
    rows = np.arange(n_images * positions).reshape(n_images, positions)
    return [(rows[train].ravel(), rows[test].ravel()) for train, test in KFold(5).split(rows)]


@pytest.mark.parametrize("name", ["linear", "procrustes", "permutation", "soft_matching", "semi_matching"])
def test_positions_of_an_image_share_a_fold(name, monkeypatch):
    X, Y = alike(14, 52, 5, 8)  # 13 images of 4 positions: no five equal folds
    monkeypatch.setattr(plain, "splits", lambda n, folds: by_images(X, 13, 4))
    assert ALL[name](X, Y, positions=4) == pytest.approx(getattr(plain, name)(X, Y), abs=1e-9)


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_shuffle_is_a_new_order_of_the_images(name):
    X, Y = alike(15, 60)
    order = shuffled_images(60, 4, seed=3)
    assert sorted(order) == list(range(60))
    assert (order.reshape(15, 4) == order.reshape(15, 4)[:, :1] + np.arange(4)).all(), "an image stays together"
    shuffled = ALL[name](X, Y, positions=4, shuffle=3)
    assert shuffled == ALL[name](X, Y, positions=4, shuffle=3)
    assert shuffled == pytest.approx(ALL[name](X[order], Y[order], positions=4), abs=1e-12)
    assert shuffled != ALL[name](X, Y, positions=4, shuffle=4)


def test_rows_that_repeat_an_image_do_not_leak_into_the_training_folds():
    rng = np.random.default_rng(16)
    X, Y = np.repeat(rng.normal(size=(50, 80)), 4, axis=0), np.repeat(rng.normal(size=(50, 6)), 4, axis=0)
    apart = rng.permutation(200)
    assert metrics.linear(X[apart], Y[apart], 1e-3) > 0.8, "copies of a held-out stimulus were in the training folds"
    assert abs(metrics.linear(X, Y, 1e-3, positions=4, shuffle=0)) < 0.3


# --- details -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("shape", ["square", "narrow", "wide", "uneven"])
def test_details_add_up_to_the_value(name, shape):
    X, Y = alike(17, *SHAPES[shape])
    found = MAPPINGS[name](X, Y, details=True)
    assert isinstance(found, metrics.Details)
    assert found.value == MAPPINGS[name](X, Y)
    assert found.per_fold.shape == ((1,) if "in sample" in name else (5,))
    assert found.per_unit.shape == (Y.shape[1],)
    assert np.isfinite(found.per_unit).sum() >= min(X.shape[1], Y.shape[1])
    sizes = [len(test) for _, test in plain.splits(len(X), 5)]
    by_stimuli = "r2" in name  # R2 of all predictions put together
    mean = np.average(found.per_fold, weights=sizes) if by_stimuli else found.per_fold.mean()
    assert mean == pytest.approx(found.value, abs=1e-12)


@pytest.mark.parametrize("name", ["linear", "procrustes", "procrustes, r2", "linear, r2", "semi_matching"])
def test_the_value_is_the_mean_over_units(name):
    found = ALL[name](*alike(18, 60), details=True)
    assert found.per_unit.mean() == pytest.approx(found.value)


def test_values_of_units_are_their_own_held_out_correlations():
    X, Y = alike(19, 60, 5, 4)
    found = metrics.linear(X, Y, details=True).per_unit
    alone = [metrics.linear(X, Y[:, [j]]) for j in range(4)]
    assert found == pytest.approx(alone)


@pytest.mark.parametrize("shape", [*SHAPES, *MANY_UNITS])
def test_the_linear_map_on_request_is_the_one_of_all_stimuli(shape):
    X, Y = alike(20, *{**SHAPES, **MANY_UNITS}[shape])
    X *= 1000  # in the original units
    expected = Ridge(alpha=1e6, solver="svd").fit(X, Y).coef_.T
    assert metrics.linear(X, Y, 1e6, details=True).mapping == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_rotation_on_request_is_the_one_of_all_stimuli(shape):
    X, Y = alike(21, *SHAPES[shape])
    R = metrics.procrustes(X, Y, details=True).mapping
    assert R.shape == (X.shape[1], Y.shape[1])
    eye = R @ R.T if X.shape[1] <= Y.shape[1] else R.T @ R
    assert eye == pytest.approx(np.eye(len(eye)), abs=1e-9)
    reached = (plain.centred(X) @ R * plain.centred(Y)).sum()
    n = max(X.shape[1], Y.shape[1])
    padded = [np.pad(plain.centred(Z), ((0, 0), (0, n - Z.shape[1]))) for Z in (X, Y)]
    assert reached == pytest.approx(orthogonal_procrustes(*padded)[1])


def test_the_matching_on_request_is_the_one_of_all_stimuli():
    X, Y = alike(22, 80, 4, 7)
    r = plain.correlations(X, Y)
    i, j = linear_sum_assignment(r, maximize=True)
    matched = metrics.permutation(X, Y, details=True)
    assert [matched.mapping[unit] for unit in j] == list(i)
    assert sum(matched.mapping == -1) == 3
    assert list(metrics.semi_matching(X, Y, details=True).mapping) == list(r.argmax(0))


def test_the_plan_on_request_gives_each_unit_equal_mass():
    X, Y = alike(23, 80, 4, 6)
    found = metrics.soft_matching(X, Y, None, details=True)
    assert found.mapping.sum(1) == pytest.approx(np.full(4, 1 / 4))
    assert found.mapping.sum(0) == pytest.approx(np.full(6, 1 / 6))
    assert (found.mapping * plain.correlations(X, Y)).sum() == pytest.approx(found.value)


def test_a_permuted_representation_gives_the_permutation_back():
    X, _ = alike(24, 80, 8, 8)
    order = np.random.default_rng(0).permutation(8)
    for matching in (metrics.permutation, metrics.semi_matching):
        found = matching(X, X[:, order] * 7 + 1, details=True)
        assert list(found.mapping) == list(order)
        assert found.per_unit == pytest.approx(np.ones(8))


# --- units that are silent here and there -------------------------------------------------------------


def silent_in_parts(seed=25):
    """Unit 0 of Y speaks in fold 2 only, unit 1 everywhere but there; so do units 0 and 1 of X in fold 4."""
    X, Y = alike(seed, 60, 6, 6)
    for Z, fold in ((Y, slice(24, 36)), (X, slice(48, 60))):
        there = np.zeros(60, bool)
        there[fold] = True
        Z[~there, 0] = 0.1  # no float: rounding must not make it vary
        Z[there, 1] = 0.1
    return X, Y


def test_a_unit_that_is_silent_in_a_fold_has_no_score_there():
    X, Y = silent_in_parts()
    X = alike(26, 60, 6, 6)[0]
    found = metrics.linear(X, Y, details=True)
    assert found.value == pytest.approx(plain.linear(X, Y))
    # Unit 0 varies in no training fold of the fold in which it varies: nothing was learnt, so nothing is explained.
    assert found.per_unit[0] == 0
    assert metrics.procrustes(X, Y, details=True).per_unit[0] == 0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shift", [0, 1e4])
def test_units_that_are_silent_in_a_fold_never_make_a_value_undefined(name, shift):
    X, Y = silent_in_parts()
    value = ALL[name](X + shift, Y + shift)
    assert np.isfinite(value)
    if name in CENTRING:
        assert value == pytest.approx(ALL[name](X, Y), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in HELD_OUT if name in SYMMETRIC])
def test_silent_units_count_the_same_on_both_sides(name):
    X, Y = silent_in_parts()
    assert ALL[name](X, Y) == pytest.approx(ALL[name](Y, X))


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_fold_in_which_no_unit_varies_is_refused(name):
    X, Y = alike(27, 60, 4, 4)
    Y[24:36] = 1.5
    if name == "procrustes, r2" or name == "linear, r2":
        return
    with pytest.raises(ValueError, match=r"fold 3.*(fewer folds|shuffle)"):
        ALL[name](X, Y)


@settings(max_examples=3, deadline=None)
@given(seeds)
def test_a_metric_gives_the_same_number_again(seed):
    X, Y = alike(seed, 40, 5, 6)
    for metric in ALL.values():
        assert metric(X, Y) == metric(X, Y)
