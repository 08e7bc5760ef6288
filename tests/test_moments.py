"""Second moments by fold, from memory and from streams: they hold what the activations hold."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from convergent import mappings, metrics, moments, ridge, similarity
from convergent.stream import Moments
from strategies import alike, orthogonal, quickly, seeds

pytestmark = pytest.mark.smoke


def scatter(A, B=None):
    """Of rows about their mean."""
    B = A if B is None else B
    return (A - A.mean(0)).T @ (B - B.mean(0))


def parts(X, Y, fold_of):
    """What a `Pair` says of every fold, from the definition: name -> (per fold) arrays in the units of X and Y."""
    folds = range(fold_of.max() + 1)
    held_out = len(folds) > 1
    rows = {k: (fold_of != k if held_out else fold_of == k, fold_of == k) for k in folds}
    found = {"total": [scatter(X, Y)], "x.total": [scatter(X)], "y.total": [scatter(Y)]}
    for name in ("train_cross", "test_cross", "x.train_scatter", "x.test_scatter", "y.train_squares", "y.test_squares"):
        found[name] = []
    for train, test in rows.values():
        found["train_cross"].append(scatter(X[train], Y[train]))
        found["test_cross"].append(scatter(X[test], Y[test]))
        found["x.train_scatter"].append(scatter(X[train]))
        found["x.test_scatter"].append(scatter(X[test]))
        found["y.train_squares"].append(np.diag(scatter(Y[train])))
        found["y.test_squares"].append(np.diag(scatter(Y[test])))
    return found


def said(pair):
    """The same from a `Pair`."""
    x, y = pair.x.scale, pair.y.scale
    found = {"total": [pair.total * x * y], "x.total": [pair.x.total * x * x], "y.total": [pair.y.total * y * y]}
    found["train_cross"] = [pair.train_cross(k) * x * y for k in pair.folds]
    found["test_cross"] = [pair.test_cross(k) * x * y for k in pair.folds]
    found["x.train_scatter"] = [pair.x.train_scatter(k) * x * x for k in pair.folds]
    found["x.test_scatter"] = [pair.x.test_scatter(k) * x * x for k in pair.folds]
    found["y.train_squares"] = [pair.y.train_squares(k) * y * y for k in pair.folds]
    found["y.test_squares"] = [pair.y.test_squares(k) * y * y for k in pair.folds]
    return {name: [part.numpy() for part in values] for name, values in found.items()}


def assert_alike(found, expected, within=1e-9):
    """Relative to the largest moment of each kind."""
    assert found.keys() == expected.keys()
    for name in expected:
        size = max(np.abs(part).max() for part in expected[name])
        for k, (ours, theirs) in enumerate(zip(found[name], expected[name], strict=True)):
            assert ours == pytest.approx(theirs, rel=0, abs=within * size), f"{name} of fold {k + 1}"


def folds_of(n, folds):
    if folds is None:
        return np.zeros(n, int)
    found = np.empty(n, int)
    for k, (_, test) in enumerate(KFold(folds).split(found)):
        found[test] = k
    return found


def collect(X, Y, cuts=(), order=None, **settings):
    """A stream of the rows between `cuts`, arriving in `order`."""
    found = Moments(len(X), **settings)
    edges = [0, *cuts, len(X)]
    batches = list(zip(edges[:-1], edges[1:], strict=True))
    for i in range(len(batches)) if order is None else order:
        start, stop = batches[i]
        found.update({"x": X[start:stop]}, {"y": Y[start:stop]}, start)
    return found


# --- folds -------------------------------------------------------------------------------------------


@given(st.integers(3, 200), st.integers(2, 20), st.integers(1, 5))
def test_folds_are_those_of_scikit_learn_cut_between_images(n_images, folds, positions):
    if folds > n_images:
        return
    sizes = moments.fold_sizes(n_images * positions, folds, positions)
    assert sizes == [positions * len(test) for _, test in KFold(folds).split(np.zeros(n_images))]


def test_without_folds_there_is_one_part():
    assert moments.fold_sizes(60, None, 4) == [60]


@given(st.integers(1, 50), st.integers(1, 5), seeds)
def test_a_shuffle_moves_images_whole(n_images, positions, seed):
    order = moments.shuffled_images(n_images * positions, positions, seed).reshape(n_images, positions)
    assert sorted(order[:, 0]) == list(range(0, n_images * positions, positions))
    assert (order == order[:, :1] + np.arange(positions)).all()


# --- from memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [None, 2, 5, 7])
@pytest.mark.parametrize("shape", [(60, 6, 9), (53, 9, 4), (20, 30, 25)])
def test_moments_of_a_fold_are_those_of_its_stimuli(shape, folds):
    X, Y = alike(0, *shape)
    X, Y = 50 + 3 * X, Y / 1000 - 7
    assert_alike(said(moments.of(X, Y, folds)), parts(X, Y, folds_of(len(X), folds)))


@pytest.mark.parametrize(("dtype", "means", "within"), [("f4", 100, 1e-5), ("f8", 100, 1e-11), ("f8", 1e6, 1e-8)])
def test_moments_survive_means_far_above_the_spread(dtype, means, within):
    X, Y = (Z * np.geomspace(0.01, 1, Z.shape[1]) for Z in alike(1, 80))
    far = [(Z + means * Z.std(0)).astype(dtype) for Z in (X, Y)]
    pair = said(moments.of(*far))
    assert_alike(pair, parts(X, Y, folds_of(80, 5)), within)
    variances = pair["x.total"][0].diagonal() / scatter(X).diagonal()
    assert variances == pytest.approx(np.ones(6), abs=within), "also those of the smallest units"


def test_single_entries_are_those_of_the_matrix():
    pair = moments.of(*alike(2))
    i, j = torch.tensor([0, 5, 5, 2]), torch.tensor([8, 0, 3, 3])
    for k in pair.folds:
        assert torch.allclose(pair.test_cross_at(k, i, j), pair.test_cross(k)[i, j], rtol=0, atol=1e-12)


def test_a_flipped_pair_is_the_pair_of_the_flipped():
    X, Y = alike(3)
    assert_alike(said(moments.of(X, Y).flipped()), said(moments.of(Y, X)), within=1e-12)


def test_a_compact_pair_is_a_rotation():
    X, Y = alike(4, 20, 50, 40)
    pair = moments.of(X, Y)
    compact = pair.compact_both()
    assert compact.total.shape == (20, 20)
    assert float(compact.total.norm()) == pytest.approx(float(pair.total.norm()))
    for k in pair.folds:
        found, expected = (torch.linalg.svdvals(p.train_cross(k))[:15] for p in (compact, pair))
        assert torch.allclose(found, expected, rtol=0, atol=1e-9)


def test_a_layer_with_fewer_units_than_stimuli_stays_what_it_is():
    pair = moments.of(*alike(5))
    assert pair.compact() is pair
    assert pair.compact_both() is pair


@pytest.mark.parametrize("seed", [0, 7])
def test_shuffled_folds_are_those_of_the_shuffled_images(seed):
    X, Y = alike(6, 60)
    order = moments.shuffled_images(60, 4, seed)
    assert_alike(said(moments.of(X, Y, 5, 4, seed)), said(moments.of(X[order], Y[order], 5, 4)), within=1e-12)


# --- streams -----------------------------------------------------------------------------------------


@st.composite
def streams(draw, n=60):
    """Cuts of `n` rows into batches, and an order of arrival."""
    cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=6)))
    return cuts, draw(st.permutations(range(len(cuts) + 1)))


@quickly
@given(streams(), st.sampled_from([None, 2, 5]), st.sampled_from([1, 3]), st.sampled_from([None, 4]))
def test_batches_of_any_size_in_any_order_give_the_moments_of_the_whole(stream, folds, positions, shuffle):
    X, Y = alike(7, 60)
    X = X + 20
    found = collect(X, Y, *stream, folds=folds, positions=positions, shuffle=shuffle).pair("x", "y")
    assert_alike(said(found), said(moments.of(X, Y, folds, positions, shuffle)))


@quickly
@given(streams(), st.data())
def test_merged_parts_give_the_moments_of_the_whole(stream, data):
    X, Y = alike(8, 60)
    X[40:] += 1000  # so that the parts have pilot means far apart
    cuts, order = stream
    edges = [0, *cuts, 60]
    collected = []
    for i in order:
        part = Moments(60)
        part.update({"x": X[edges[i] : edges[i + 1]]}, {"y": Y[edges[i] : edges[i + 1]]}, edges[i])
        collected.append(part)
    while len(collected) > 1:  # in any tree
        i = data.draw(st.integers(0, len(collected) - 2))
        collected[i : i + 2] = [collected[i].merge(collected[i + 1])]
    found = collected[0].pair("x", "y")
    assert_alike(said(found), said(moments.of(X, Y)), within=1e-8)
    assert similarity.debiased_cka(found) == pytest.approx(metrics.cka(X, Y, debiased=True), abs=1e-7)
    assert ridge.linear(found, 1.0).value() == pytest.approx(metrics.linear(X, Y), abs=1e-6)


def test_merging_leaves_the_parts_as_they_were():
    X, Y = alike(9, 60)
    first, second = Moments(60), Moments(60)
    first.update({"x": X[:25]}, {"y": Y[:25]}, 0)
    second.update({"x": X[25:]}, {"y": Y[25:]}, 25)
    once, again = first.merge(second), first.merge(second)
    back = second.merge(first)
    for merged in (again, back):
        assert_alike(said(merged.pair("x", "y")), said(once.pair("x", "y")))
    with pytest.raises(ValueError, match="35 of 60 stimuli did not come"):
        first.pair("x", "y")


def test_merging_with_an_empty_part_changes_nothing():
    X, Y = alike(10, 60)
    whole, empty = collect(X, Y), Moments(60)
    for merged in (whole.merge(empty), empty.merge(whole)):
        assert_alike(said(merged.pair("x", "y")), said(whole.pair("x", "y")), within=1e-15)


STREAMED = {
    "linear": (lambda pair: ridge.linear(pair, 1.0).value(), metrics.linear),
    "linear, r2": (
        lambda pair: ridge.linear(pair, 1.0, "r2").value(),
        lambda X, Y: metrics.linear(X, Y, score="r2"),
    ),
    "linear, alpha 0": (lambda pair: ridge.linear(pair, 0.0).value(), lambda X, Y: metrics.linear(X, Y, 0)),
    "procrustes": (lambda pair: mappings.procrustes(pair).value(), metrics.procrustes),
    "permutation": (lambda pair: mappings.permutation(pair).value(), metrics.permutation),
    "soft_matching": (lambda pair: mappings.soft_matching(pair).value(), metrics.soft_matching),
    "semi_matching": (lambda pair: mappings.semi_matching(pair).value(), metrics.semi_matching),
    "cka": (similarity.cka, metrics.cka),
    "cka, debiased": (similarity.debiased_cka, lambda X, Y: metrics.cka(X, Y, debiased=True)),
    "shape_cosine": (similarity.shape_cosine, metrics.shape_cosine),
    "cca": (similarity.cca, metrics.cca),
    "svcca": (lambda pair: similarity.svcca(pair, 0.99), metrics.svcca),
    "pwcca": (similarity.pwcca, metrics.pwcca),
}
KINDS = {
    "ordinary": (alike(11, 60), 1e-9),
    "more units than stimuli": (alike(11, 30, 45, 40), 1e-6),
    "low rank": (alike(11, 60, 9, 6, rank=3), 1e-6),
    "mean of 100 spreads": ([Z + 100 for Z in alike(11, 60)], 1e-8),
    "float32": ([Z.astype(np.float32) for Z in alike(11, 60)], 1e-5),
    "float32, low rank": ([Z.astype(np.float32) for Z in alike(11, 60, 9, 6, rank=3)], 1e-5),
    "float32, mean of 100 spreads": ([(Z + 100).astype(np.float32) for Z in alike(11, 60)], 1e-5),
    "tiny": ([1e-20 * Z for Z in alike(11, 60)], 1e-9),
    "huge": ([1e20 * Z for Z in alike(11, 60)], 1e-9),
    "huge float32": ([(1e20 * Z).astype(np.float32) for Z in alike(11, 60)], 1e-5),
    "half": ([Z.astype(np.float16) for Z in alike(11, 60)], 1e-5),
    "integers": ([np.round(50 * Z).astype(np.int16) for Z in alike(11, 60)], 1e-9),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_gives_the_value_that_the_activations_give(name, kind):
    (X, Y), within = KINDS[kind]
    of_moments, of_activations = STREAMED[name]
    found = of_moments(collect(X, Y, cuts=(7, 20)).pair("x", "y"))
    assert found == pytest.approx(of_activations(X, Y), rel=0, abs=within)


def test_a_first_batch_unlike_the_rest_does_no_harm():
    X, Y = alike(12, 60)
    X[:10] = X[:10] * 1e-7 + 30  # hardly any spread, and far from the rest
    found = collect(X, Y, cuts=(10,)).pair("x", "y")
    assert_alike(said(found), said(moments.of(X, Y)))


def test_a_first_batch_that_does_not_vary_does_no_harm():
    X, Y = alike(13, 60)
    X[:10], Y[:10] = 0.3, 0
    for factor in (1, 1e-20, 1e20):
        found = collect(X * factor, Y * factor, cuts=(10,)).pair("x", "y")
        assert similarity.cka(found) == pytest.approx(metrics.cka(X, Y), abs=1e-9)
        assert similarity.debiased_cka(found) == pytest.approx(metrics.cka(X, Y, debiased=True), abs=1e-9)


def test_single_rows_can_be_batches():
    X, Y = alike(14, 12)
    found = collect(X, Y, cuts=range(1, 12), folds=3).pair("x", "y")
    assert_alike(said(found), said(moments.of(X, Y, 3)))


def test_rows_follow_one_another_when_no_start_is_given():
    X, Y = alike(15, 60)
    found = Moments(60)
    for rows in (slice(0, 17), slice(17, 40), slice(40, 60)):
        found.update({"x": X[rows]}, {"y": Y[rows]})
    assert_alike(said(found.pair("x", "y")), said(collect(X, Y).pair("x", "y")))


def test_many_layers_are_collected_at_once():
    layers = {f"layer{i}": alike(16 + i, 60, 4 + i, 3 + i) for i in range(3)}
    a, b = ({name: pair[side] for name, pair in layers.items()} for side in (0, 1))
    found = Moments(60)
    for rows in (slice(0, 33), slice(33, 60)):
        found.update({name: X[rows] for name, X in a.items()}, {name: Y[rows] for name, Y in b.items()})
    for la in a:
        for lb in b:
            assert_alike(said(found.pair(la, lb)), said(moments.of(a[la], b[lb])))


def test_layers_are_known_by_name_not_by_place():
    X, Y = alike(17, 60, 5, 5)
    found = Moments(60)
    found.update({"one": X[:30], "two": Y[:30]}, {"y": Y[:30]})
    found.update({"two": Y[30:], "one": X[30:]}, {"y": Y[30:]})
    assert_alike(said(found.pair("one", "y")), said(moments.of(X, Y)))
    first, second = Moments(60), Moments(60)
    first.update({"one": X[:30], "two": Y[:30]}, {"y": Y[:30]}, 0)
    second.update({"two": Y[30:], "one": X[30:]}, {"y": Y[30:]}, 30)
    with pytest.raises(ValueError, match="another order"):
        first.merge(second)


def test_tensors_and_arrays_stream_alike_and_stay_as_they_were():
    X, Y = (torch.from_numpy(Z.astype(np.float32)) for Z in alike(18, 60))
    before = X.clone(), Y.clone()
    assert_alike(said(collect(X, Y).pair("x", "y")), said(collect(X.numpy(), Y.numpy()).pair("x", "y")), within=1e-15)
    assert torch.equal(X, before[0])
    assert torch.equal(Y, before[1])


def tensors_in(thing):
    if isinstance(thing, torch.Tensor):
        return thing.numel()
    if isinstance(thing, dict):
        return sum(map(tensors_in, thing.values()))
    return tensors_in(vars(thing)) if hasattr(thing, "__dict__") else 0


def test_what_is_kept_does_not_grow_with_the_stimuli():
    few, many = (tensors_in(collect(*alike(19, n), cuts=range(30, n, 30))) for n in (60, 600))
    assert 0 < few == many


@pytest.mark.filterwarnings("ignore:.*constant:UserWarning")
def test_a_unit_that_is_constant_in_each_batch_only_is_kept():
    X, Y = alike(20, 60)
    X[:, 2] = np.repeat([0.1, 0.7, 0.1], 20)  # varies between batches
    X[:, 4] = 0.1  # never varies
    for found in (collect(X, Y, (20, 40)).pair("x", "y"), merged_in_parts(X, Y, (20, 40)).pair("x", "y")):
        assert found.x.kept.tolist() == [0, 1, 2, 3, 5]
        assert found.x.n_all == 6
        assert_alike(said(found), said(moments.of(X[:, [0, 1, 2, 3, 5]], Y)))


def merged_in_parts(X, Y, cuts, **settings):
    edges, merged = [0, *cuts, len(X)], Moments(len(X), **settings)
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        part = Moments(len(X), **settings)
        part.update({"x": X[start:stop]}, {"y": Y[start:stop]}, start)
        merged = merged.merge(part)
    return merged


def test_a_layer_that_never_varied_is_refused_by_name():
    X, Y = alike(21, 60)
    with pytest.raises(ValueError, match="layer y.*does not vary"):
        collect(X, np.ones_like(Y), (20,)).pair("x", "y")


@pytest.mark.parametrize("name", ["linear", "permutation", "cka"])
def test_units_that_are_silent_in_a_fold_count_as_in_memory(name):
    X, Y = alike(22, 60)
    for Z in (X, Y):
        Z[12:24, 0] = 0.1
        Z[:48, 1] = 0.1
    of_moments, of_activations = STREAMED[name]
    found = of_moments(collect(X + 30, Y - 10, (7, 20)).pair("x", "y"))
    assert found == pytest.approx(of_activations(X, Y), abs=1e-9)


# --- chance in a stream ------------------------------------------------------------------------------


def test_a_null_keeps_what_is_within_and_breaks_what_is_between():
    X = alike(23, 400, 5, 5)[0]
    found = collect(X, X, (150,), nulls=10, seed=3)
    pair = found.pair("x", "y")
    nulls = [found.shuffled(pair, "x", "y", i) for i in range(10)]
    assert [list(null.folds) for null in nulls] == [[i % 5] for i in range(10)], "one fold each, in turn"
    values = [mappings.permutation(null).value() for null in nulls]
    assert mappings.permutation(pair).value() == pytest.approx(1)
    assert np.abs(values).max() < 0.5
    assert len(set(values)) == 10
    assert float(nulls[0].total.norm()) < 0.5 * float(pair.total.norm())


def test_nulls_of_merged_parts_are_those_of_one_pass():
    X, Y = alike(24, 60)
    settings = {"nulls": 6, "seed": 2, "positions": 2}
    whole, merged = collect(X, Y, (30,), **settings), merged_in_parts(X, Y, (30,), **settings)
    pair, other = whole.pair("x", "y"), merged.pair("x", "y")
    for i in range(6):
        values = []
        for found, of in ((whole, pair), (merged, other)):
            null = found.shuffled(of, "x", "y", i)
            values.append((ridge.linear(null, 1.0).value(), similarity.cka(null), mappings.permutation(null).value()))
        assert values[1] == pytest.approx(values[0], abs=1e-5)


# --- bad input ---------------------------------------------------------------------------------------


def refused(match, call, *args, **options):
    with pytest.raises(ValueError, match=match):
        call(*args, **options)


def test_a_refused_batch_leaves_the_moments_as_they_were():
    X, Y = alike(25, 60)
    found = Moments(60)
    found.update({"x": X[:20]}, {"y": Y[:20]})
    bad = X[20:40].copy()
    bad[3, 1] = np.nan
    refused("not finite.*stimulus 3, unit 1", found.update, {"x": bad}, {"y": Y[20:40]})
    refused("20 rows of a", found.update, {"x": X[20:40]}, {"y": Y[20:39]})
    refused("came before or exceed", found.update, {"x": X[:20]}, {"y": Y[:20]}, 10)
    refused("came before or exceed", found.update, {"x": X[:41]}, {"y": Y[:41]})
    refused("layers.*'x': 5", found.update, {"x": X[20:40, :5]}, {"y": Y[20:40]})
    refused("layers.*'z'", found.update, {"z": X[20:40]}, {"y": Y[20:40]})
    refused("layers", found.update, {"x": X[20:40], "z": X[20:40]}, {"y": Y[20:40]})
    refused("no layers", found.update, {}, {"y": Y[20:40]})
    refused("no units", found.update, {"x": X[20:40, :0]}, {"y": Y[20:40]})
    refused("shape", found.update, {"x": X[20:40, 0]}, {"y": Y[20:40]})
    refused("differ in stimuli", found.update, {"x": X[20:40], "w": X[20:30]}, {"y": Y[20:40]})
    refused("start=-1", found.update, {"x": X[20:40]}, {"y": Y[20:40]}, -1)
    refused("40 of 60 stimuli did not come", found.pair, "x", "y")
    found.update({"x": X[20:]}, {"y": Y[20:]})
    assert_alike(said(found.pair("x", "y")), said(moments.of(X, Y)))
    refused("'z' did not come; there are x", found.pair, "z", "y")
    refused("'x' did not come; there are y", found.pair, "x", "x")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_stimuli": 2}, "n_stimuli=2"),
        ({"n_stimuli": 60.0}, "n_stimuli=60.0"),
        ({"n_stimuli": 60, "folds": 61}, "folds=61.*between 2 and 60"),
        ({"n_stimuli": 60, "folds": 1}, "folds=1"),
        ({"n_stimuli": 60, "positions": 7}, "positions=7"),
        ({"n_stimuli": 60, "positions": 4, "folds": 16}, "folds=16.*15"),
        ({"n_stimuli": 60, "shuffle": -1}, "shuffle=-1"),
        ({"n_stimuli": 60, "nulls": -1}, "nulls=-1"),
        ({"n_stimuli": 60, "seed": "a"}, "seed='a'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_batch(settings, match):
    refused(match, lambda: Moments(**settings))


@pytest.mark.parametrize("change", [{"folds": 4}, {"positions": 2}, {"shuffle": 1}, {"nulls": 2}, {"seed": 5}])
def test_parts_of_other_settings_do_not_merge(change):
    X, Y = alike(26, 60)
    first, second = Moments(60), Moments(60, **change)
    first.update({"x": X[:30]}, {"y": Y[:30]}, 0)
    second.update({"x": X[30:]}, {"y": Y[30:]}, 30)
    refused("the two parts differ", first.merge, second)


def test_parts_that_share_stimuli_or_have_other_layers_do_not_merge():
    X, Y = alike(27, 60)
    first, second, third = (Moments(60) for _ in range(3))
    first.update({"x": X[:30]}, {"y": Y[:30]}, 0)
    second.update({"x": X[20:]}, {"y": Y[20:]}, 20)
    third.update({"x": X[30:, :4]}, {"y": Y[30:]}, 30)
    refused("10 stimuli are in both", first.merge, second)
    refused("layers", first.merge, third)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_no_stream_makes_a_warning_or_a_value_that_is_not_finite(seed):
    rng = np.random.default_rng(seed)
    X, Y = alike(seed, 40, 6, 5)
    X = X @ orthogonal(rng, 6) * 10.0 ** rng.integers(-6, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair = collect(X, Y, (int(rng.integers(1, 39)),)).pair("x", "y")
        values = [of_moments(pair) for of_moments, _ in STREAMED.values()]
    assert np.isfinite(values).all()
