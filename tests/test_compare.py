"""Comparisons of whole networks: the table, its chance level, its intervals, and going on after an interruption."""

import sys
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from convergent import metrics, networks
from convergent.compare import METRICS, bootstrap, compare, null
from convergent.representations import extract
from strategies import alike

module = sys.modules["convergent.compare"]
# Untrained networks have dead units; what is said of them has a test of its own.
pytestmark = [pytest.mark.smoke, pytest.mark.filterwarnings("ignore:constant units")]
quiet = partial(compare, progress=False)

COLUMNS = "metric layer_a layer_b direction value spread chance chance_sd z p low high n_stimuli n_units_a n_units_b"
ONE_WAY = ("permutation", "soft_matching", "cka", "cka_debiased", "shape_cosine", "cca", "svcca", "rsa", "mutual_knn")
FUNCTIONS = {
    "linear": metrics.linear,
    "procrustes": metrics.procrustes,
    "permutation": metrics.permutation,
    "soft_matching": metrics.soft_matching,
    "semi_matching": metrics.semi_matching,
    "cka": metrics.cka,
    "cka_debiased": partial(metrics.cka, debiased=True),
    "shape_cosine": metrics.shape_cosine,
    "cca": metrics.cca,
    "svcca": metrics.svcca,
    "pwcca": metrics.pwcca,
    "rsa": metrics.rsa,
    "mutual_knn": metrics.mutual_knn,
    "cknna": metrics.cknna,
}
HELD_OUT = ("linear", "procrustes", "permutation", "soft_matching", "semi_matching")


def two_networks(n_stimuli=60, seed=0):
    """Layers of a and of b, all of the same latents; 'early' has as many units in both."""
    (a1, b1), (a2, b2) = alike(seed, n_stimuli, 6, 6), alike(seed + 100, n_stimuli, 5, 9)
    return {"early": a1, "late": a2}, {"early": b1, "middle": a1 @ np.ones((6, 4)) + b2[:, :4], "late": b2}


def cell(table, metric, la, lb, direction=None):
    rows = table.query("metric == @metric and layer_a == @la and layer_b == @lb")
    rows = rows if direction is None else rows[rows.direction == direction]
    assert len(rows) == 1
    return rows.iloc[0]


# --- the table ---------------------------------------------------------------------------------------


def test_every_metric_of_the_library_can_be_compared():
    assert set(METRICS) == set(FUNCTIONS)


def test_the_table_has_a_row_for_each_metric_pair_of_layers_and_direction():
    a, b = two_networks()
    table = quiet(a, b, ["linear", "permutation", "cka"], nulls=3)
    assert " ".join(table.columns) == COLUMNS
    expected = [
        (metric, la, lb, direction)
        for metric, directions in (("linear", ("a to b", "b to a")), ("permutation", ("both",)), ("cka", ("both",)))
        for la in a
        for lb in b
        for direction in directions
    ]
    assert [tuple(row) for row in table[["metric", "layer_a", "layer_b", "direction"]].to_numpy()] == expected
    assert (table.n_stimuli == 60).all()
    late = cell(table, "cka", "late", "middle")
    assert (late.n_units_a, late.n_units_b) == (5, 4)
    numbers = table.drop(columns=["metric", "layer_a", "layer_b", "direction"])
    assert all(pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes)
    assert table[["value", "chance", "chance_sd", "z", "p"]].notna().all(axis=None)
    assert table[["low", "high"]].isna().all(axis=None), "no bootstrap was asked for"
    assert table.query("metric == 'cka'").spread.isna().all(), "CKA knows no folds"


def test_the_default_metrics_are_the_three_of_the_book():
    a, b = two_networks()
    table = quiet(a, b, nulls=0)
    assert list(dict.fromkeys(table.metric)) == ["linear", "procrustes", "soft_matching"]
    assert table[["chance", "chance_sd", "z", "p"]].isna().all(axis=None), "no nulls were asked for"


CONDITIONS = {
    "as it is": {},
    "images of three positions": {"positions": 3},
    "shuffled": {"positions": 3, "shuffle": 5},
    "in sample": {"folds": None},
    "uneven folds": {"folds": 7},
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_value_is_what_the_metric_function_gives(condition):
    (a, b), options = two_networks(), CONDITIONS[condition]
    table = quiet(a, b, METRICS, nulls=0, **options)
    for row in table.itertuples():
        X, Y = a[row.layer_a], b[row.layer_b]
        of_folds = options if row.metric in HELD_OUT else {}
        if row.direction == "b to a":
            X, Y = Y, X
        expected = FUNCTIONS[row.metric](X, Y, **of_folds)
        assert row.value == pytest.approx(expected, abs=1e-9), row
    directions = table.groupby("metric").direction.agg(set)
    for metric in METRICS:
        alone = metric in ONE_WAY or (metric == "cknna" and directions[metric] == {"both"})
        assert directions[metric] == ({"both"} if alone else {"a to b", "b to a"})


@pytest.mark.parametrize("options", [{"alpha": 30.0}, {"alpha": "cv"}, {"score": "r2"}, {"alpha": "cv", "score": "r2"}])
def test_options_of_the_mappings_reach_them(options):
    a, b = two_networks()
    table = quiet(a, b, ["linear", "procrustes"], nulls=2, **options)
    for row in table.itertuples():
        X, Y = a[row.layer_a], b[row.layer_b]
        X, Y = (Y, X) if row.direction == "b to a" else (X, Y)
        own = options if row.metric == "linear" else {k: v for k, v in options.items() if k == "score"}
        assert row.value == pytest.approx(FUNCTIONS[row.metric](X, Y, **own), abs=1e-9), row
        if row.direction == "a to b":
            assert row.chance == pytest.approx(null(row.metric, X, Y, n=2, **own).mean())


def test_the_spread_is_the_standard_deviation_over_folds():
    a, b = two_networks()
    table = quiet(a, b, HELD_OUT, nulls=0)
    for metric in HELD_OUT:
        direction = "both" if metric in ONE_WAY else "a to b"
        per_fold = FUNCTIONS[metric](a["late"], b["late"], details=True).per_fold
        assert cell(table, metric, "late", "late", direction).spread == pytest.approx(per_fold.std(ddof=1))


@pytest.mark.parametrize("metric", METRICS)
def test_more_units_than_stimuli_can_be_compared(metric):
    X, Y = alike(3, 40, 90, 60)
    row = quiet({"x": X}, {"y": Y}, metric, nulls=3).iloc[0]
    assert row.value == pytest.approx(FUNCTIONS[metric](X, Y), abs=1e-9)
    assert np.isfinite([row.chance, row.chance_sd]).all()


def test_tensors_float32_and_chosen_layers_give_the_same_table():
    a, b = two_networks()
    whole = quiet(a, b, ["linear", "cka", "rsa"], nulls=2)
    tensors = [{name: torch.from_numpy(X.astype(np.float32)) for name, X in side.items()} for side in (a, b)]
    single = quiet(*tensors, ["linear", "cka", "rsa"], nulls=2)
    for column in ("value", "spread", "chance", "chance_sd", "p"):
        assert single[column].to_numpy() == pytest.approx(whole[column].to_numpy(), abs=1e-5, nan_ok=True)
    some = quiet(a, b, ["linear", "cka", "rsa"], nulls=2, layers=["late", "early"])
    assert list(dict.fromkeys(some.layer_a)) == ["late", "early"]
    for row in some.itertuples():
        assert cell(whole, row.metric, row.layer_a, row.layer_b, row.direction).value == pytest.approx(row.value)


def test_the_activations_are_left_as_they_were():
    a, b = two_networks()
    before = {name: X.copy() for name, X in a.items()}
    quiet(a, b, METRICS, nulls=2, shuffle=1)
    assert all(np.array_equal(a[name], before[name]) for name in a)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing_and_stay_as_many(threads):
    a, b = two_networks()
    one = quiet(a, b, METRICS, nulls=3)
    torch.set_num_threads(threads)
    pd.testing.assert_frame_equal(quiet(a, b, METRICS, nulls=3), one, rtol=1e-9)
    assert torch.get_num_threads() == threads


def test_constant_units_are_told_once_for_the_whole_comparison():
    a, b = two_networks()
    a["late"][:, 2] = 0.1
    b["early"][:, [0, 1]] = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = quiet(a, b, HELD_OUT, nulls=3, bootstrap=3)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for part in ("1 of 5", "late of a", "2 of 6", "early of b"):
        assert part in str(caught[0].message)
    assert table.drop(columns=["low", "high"]).notna().all(axis=None)
    assert cell(table, "permutation", "late", "late").n_units_a == 5


# --- chance ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_chance_is_what_shuffled_images_give(metric):
    a, b = two_networks()
    row = cell(quiet(a, b, [metric], nulls=6, seed=4).query("direction != 'b to a'"), metric, "early", "late")
    values = null(metric, a["early"], b["late"], n=6, seed=4)
    assert row.chance == pytest.approx(values.mean())
    assert row.chance_sd == pytest.approx(values.std(ddof=1))
    assert row.z == pytest.approx((row.value - row.chance) / row.chance_sd)
    assert row.p == pytest.approx((1 + (values >= row.value).sum()) / 7)


@pytest.mark.parametrize("metric", METRICS)
def test_nulls_follow_from_the_seed_alone(metric):
    X, Y = alike(4)
    values = null(metric, X, Y, n=4, seed=1)
    assert values.shape == (4,)
    assert np.array_equal(values, null(metric, X, Y, n=4, seed=1))
    assert np.array_equal(values, null(metric, X, Y, n=6, seed=1)[:4]), "more nulls begin with the same ones"
    assert not np.array_equal(values, null(metric, X, Y, n=4, seed=2))


def test_tables_follow_from_the_seed_alone():
    a, b = two_networks()
    first, again, other = (quiet(a, b, METRICS, nulls=3, bootstrap=0, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (first.value == other.value).all()
    assert (first.chance != other.chance).all()


def test_shuffled_images_keep_their_positions_together():
    rng = np.random.default_rng(5)
    X = np.repeat(rng.normal(size=(40, 4)), 5, axis=0) + 0.01 * np.tile(rng.normal(size=(5, 4)), (40, 1))
    # Every place of an image says nearly the same: were rows shuffled instead of images, chance would be narrower.
    apart = null("cka", X, X, n=30).std()
    together = null("cka", X, X, n=30, positions=5).std()
    assert together > 2 * apart


@pytest.mark.parametrize("metric", ["linear", "procrustes", "permutation", "soft_matching", "semi_matching"])
def test_chance_of_a_held_out_mapping_is_about_nothing(metric):
    X, Y = alike(6, 200, 10, 12, noise=0.1)
    values = null(metric, X, Y, n=25)
    assert abs(values.mean()) < 4 * values.std() / 5
    assert FUNCTIONS[metric](X, Y) > values.max() + 0.2


def test_chance_of_what_is_in_sample_is_more_than_nothing():
    X, Y = alike(7, 60, 20, 20, noise=0.1)
    assert null("cka", X, Y, n=10).min() > 0.1
    assert null("mutual_knn", X, Y, n=10).mean() == pytest.approx(10 / 59, abs=0.03)
    assert null("linear", X, Y, n=10, folds=None).min() > 0.3


def test_independent_layers_are_not_significant_and_a_layer_is_with_itself():
    rng = np.random.default_rng(8)
    a, b = ({f"layer{i}": rng.normal(size=(80, 8)) for i in range(4)} for _ in range(2))
    table = quiet(a, b, METRICS, nulls=19)
    # One in ten by chance. Of 16 independent pairs more than four standard errors above that, 0.4, are a surprise.
    small = (table.p <= 0.1).groupby(table.metric).mean()
    assert small.max() <= 0.4, small.to_dict()
    assert table.z.abs().max() < 6
    for row in quiet({"layer": a["layer0"]}, {"layer": a["layer0"]}, METRICS, nulls=19).itertuples():
        assert row.p == pytest.approx(1 / 20)
        assert row.z > 3, row


# --- the bootstrap -----------------------------------------------------------------------------------

RESAMPLED = [metric for metric in METRICS if metric not in ("mutual_knn", "cknna")]


@pytest.mark.parametrize("metric", RESAMPLED)
def test_resamples_follow_from_the_seed_and_their_spread_is_in_the_table(metric):
    a, b = two_networks()
    table = quiet(a, b, [metric], nulls=0, bootstrap=12, seed=3, layers=["early"])
    row = cell(table[table.direction != "b to a"], metric, "early", "early")
    values = bootstrap(metric, a["early"], b["early"], n=12, seed=3)
    assert values.shape == (12,)
    assert len(set(values)) == 12
    assert np.array_equal(values, bootstrap(metric, a["early"], b["early"], n=12, seed=3))
    assert not np.array_equal(values, bootstrap(metric, a["early"], b["early"], n=12, seed=4))
    margin = 1.96 * values.std(ddof=1)
    assert (row.low, row.high) == pytest.approx((row.value - margin, row.value + margin))


@pytest.mark.parametrize("metric", ["linear", "procrustes", "permutation", "cka", "cka_debiased", "cca", "rsa"])
def test_the_interval_is_as_wide_as_the_scatter_of_other_images_and_around_the_value(metric):
    latents, rng = alike(9, 8, 6, 6), np.random.default_rng(9)
    A, B = (Z[:6] for Z in latents)  # how six latents are seen, the same for all images

    def images():
        Z = rng.normal(size=(150, 6))
        return [Z @ mixing + rng.normal(size=Z.shape) for mixing in (A, B)]

    others = np.array([FUNCTIONS[metric](*images()) for _ in range(30)])
    X, Y = images()
    row = quiet({"x": X}, {"y": Y}, metric, nulls=0, bootstrap=30).iloc[0]
    # The standard deviation of 30 values is known to 13 %, and here there are two.
    assert (row.high - row.low) / (2 * 1.96 * others.std(ddof=1)) == pytest.approx(1, abs=0.6)
    assert row.low < row.value < row.high
    assert abs(row.value - others.mean()) < row.high - row.low


def test_copies_of_an_image_never_straddle_folds():
    rng = np.random.default_rng(11)
    X, Y = rng.normal(size=(50, 80)), rng.normal(size=(50, 6))
    X, Y = np.repeat(X, 2, axis=0), np.repeat(Y, 2, axis=0)
    leaked = rng.integers(0, 50, 50)
    assert metrics.linear(X[2 * leaked], Y[2 * leaked], 1e-3) > 0.3, "what a leak looks like"
    values = bootstrap("linear", X, Y, n=20, positions=2, alpha=1e-3)
    assert abs(values.mean()) < 0.15
    assert values.max() < 0.35


def test_nearest_neighbours_are_not_resampled():
    a, b = two_networks()
    for metric in ("mutual_knn", "cknna"):
        with pytest.raises(ValueError, match=f"{metric}.*copy"):
            bootstrap(metric, a["early"], b["early"])
        with pytest.raises(ValueError, match=f"{metric}.*copy"):
            quiet(a, b, ["cka", metric], bootstrap=5)


# --- two networks, streamed --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pixels():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 3, 16, 16), dtype=np.uint8))


@pytest.fixture(scope="module")
def pair_of_networks():
    return [networks.load("cnn6", width=0.15, seed=seed) for seed in (0, 1)]


FROM_MOMENTS = [metric for metric in METRICS if metric not in ("rsa", "mutual_knn", "cknna")]
READINGS = {
    "positions": {"spatial": "positions", "n_positions": 3},
    "pool": {"spatial": "pool"},
    "flatten": {"spatial": "flatten"},
}


@pytest.mark.parametrize("reading", READINGS)
def test_a_stream_gives_the_table_of_the_activations(pair_of_networks, pixels, reading):
    chosen = ["layer1", "layer4", "layer6"] if reading != "flatten" else ["layer5", "layer6"]
    found = FROM_MOMENTS if reading != "flatten" else ["linear", "procrustes", "cka", "shape_cosine"]
    reading = READINGS[reading]
    streamed = quiet(*pair_of_networks, found, nulls=20, images=pixels, layers=chosen, batch_size=30, **reading)
    activations = [extract(network, pixels, chosen, **reading) for network in pair_of_networks]
    in_memory = quiet(*activations, found, nulls=20, positions=reading.get("n_positions", 1))
    keys = ["metric", "layer_a", "layer_b", "direction", "n_stimuli", "n_units_a", "n_units_b"]
    pd.testing.assert_frame_equal(streamed[keys], in_memory[keys])
    for column, within in (("value", 1e-5), ("spread", 1e-5)):
        assert streamed[column].to_numpy() == pytest.approx(in_memory[column].to_numpy(), abs=within, nan_ok=True)
    # The shuffles differ, the level that they estimate does not: within five standard errors.
    error = np.sqrt((streamed.chance_sd**2 + in_memory.chance_sd**2) / 20)
    assert ((streamed.chance - in_memory.chance).abs() <= 5 * error + 1e-5).all()


def test_batches_of_another_size_change_the_shuffles_only(pair_of_networks, pixels):
    few, many = (
        quiet(*pair_of_networks, ["linear", "cka_debiased"], nulls=3, images=pixels, batch_size=size)
        for size in (17, 60)
    )
    assert few.value.to_numpy() == pytest.approx(many.value.to_numpy(), abs=1e-5)


def test_streams_follow_from_the_seed_alone(pair_of_networks, pixels):
    options = {"metrics": ["linear", "permutation"], "nulls": 3, "images": pixels, "layers": ["layer6"]}
    first, again, other = (quiet(*pair_of_networks, seed=seed, **options) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (first.chance != other.chance).all()


def test_a_layer_without_places_says_the_same_at_each_place_of_another(pair_of_networks, pixels):
    table = quiet(
        *pair_of_networks, ["linear", "cka"], nulls=2, images=pixels, layers=["layer6", "head"], n_positions=4
    )
    a, b = (extract(network, pixels, ["layer6", "head"], n_positions=4) for network in pair_of_networks)
    expected = metrics.linear(a["layer6"], np.repeat(b["head"], 4, axis=0), positions=4)
    assert cell(table, "linear", "layer6", "head", "a to b").value == pytest.approx(expected, abs=1e-5)
    assert (table.n_stimuli == 240).all()


def test_a_network_is_exactly_like_itself(pair_of_networks, pixels):
    table = quiet(pair_of_networks[0], pair_of_networks[0], ["permutation", "cka"], nulls=4, images=pixels)
    own = table[table.layer_a == table.layer_b]
    assert own.value.to_numpy() == pytest.approx(np.ones(len(own)), abs=1e-5)
    assert (own.p == 1 / 5).all()


def test_what_needs_activations_is_refused_for_networks(pair_of_networks, pixels):
    with pytest.raises(ValueError, match="rsa.*representations.extract"):
        quiet(*pair_of_networks, ["cka", "rsa"], images=pixels)
    with pytest.raises(ValueError, match="bootstrap.*representations.extract"):
        quiet(*pair_of_networks, ["cka"], images=pixels, bootstrap=10)
    with pytest.raises(ValueError, match="images="):
        quiet(*pair_of_networks)
    with pytest.raises(ValueError, match="both be networks"):
        quiet(pair_of_networks[0], {"early": np.ones((60, 2))}, images=pixels)
    with pytest.raises(ValueError, match="layer9"):
        quiet(*pair_of_networks, images=pixels, layers=["layer9"])


# --- going on after an interruption ------------------------------------------------------------------


@pytest.fixture
def interrupted(monkeypatch):
    """A function that makes the comparison stop after `n` pairs of layers, and counts those that are made."""
    compare_pair, made = module._compare_pair, []

    def stop_after(n):
        def counted(source, la, lb, *rest):
            if len(made) >= n:
                raise KeyboardInterrupt
            made.append((la, lb))
            return compare_pair(source, la, lb, *rest)

        made.clear()
        monkeypatch.setattr(module, "_compare_pair", counted)
        return made

    return stop_after


@pytest.mark.parametrize("finished", [0, 1, 4, 5])
def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path, interrupted, finished):
    a, b = two_networks()
    file, options = tmp_path / "deep" / "table.csv", {"nulls": 3, "bootstrap": 3}
    whole = quiet(a, b, ["linear", "cka", "rsa"], **options)
    interrupted(finished)
    with pytest.raises(KeyboardInterrupt):
        quiet(a, b, ["linear", "cka", "rsa"], file=file, **options)
    made = interrupted(100)
    resumed = quiet(a, b, ["linear", "cka", "rsa"], file=file, **options)
    assert len(made) == 6 - finished, "no finished pair is made again"
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    made = interrupted(0)
    pd.testing.assert_frame_equal(quiet(a, b, ["linear", "cka", "rsa"], file=file, **options), whole, check_exact=True)
    assert made == []


def test_a_streamed_comparison_goes_on_where_it_stopped(tmp_path, interrupted, pair_of_networks, pixels):
    options = {"images": pixels, "nulls": 2, "layers": ["layer5", "layer6"], "metrics": ["linear", "cka"]}
    whole = quiet(*pair_of_networks, **options)
    interrupted(2)
    with pytest.raises(KeyboardInterrupt):
        quiet(*pair_of_networks, file=tmp_path / "table.csv", **options)
    made = interrupted(100)
    resumed = quiet(*pair_of_networks, file=tmp_path / "table.csv", **options)
    assert len(made) == 2
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


def test_killed_while_writing_it_goes_on_from_the_rows_before(tmp_path, interrupted):
    a, b = two_networks()
    file = tmp_path / "table.csv"
    whole = quiet(a, b, ["cka"], nulls=2)
    interrupted(3)
    with pytest.raises(KeyboardInterrupt):
        quiet(a, b, ["cka"], nulls=2, file=file)
    (tmp_path / "table.csv.unfinished").write_text("metric,layer_a,lay")
    interrupted(100)
    pd.testing.assert_frame_equal(quiet(a, b, ["cka"], nulls=2, file=file), whole, check_exact=True)


@pytest.mark.parametrize(
    "change",
    [
        {"nulls": 3},
        {"seed": 1},
        {"folds": 4},
        {"metrics": ["linear", "cka", "rsa"]},
        {"alpha": 2.0},
        {"score": "r2"},
        {"positions": 2},
        {"shuffle": 0},
        {"bootstrap": 2},
        {"layers": ["early"]},
    ],
)
def test_a_file_of_other_settings_is_refused(tmp_path, change):
    a, b = two_networks()
    options = {"metrics": ["linear", "cka"], "nulls": 2, "file": tmp_path / "table.csv"}
    quiet(a, b, **options)
    before = options["file"].read_bytes()
    with pytest.raises(ValueError, match="table.csv holds another comparison.*Name another file"):
        quiet(a, b, **options | change)
    assert options["file"].read_bytes() == before


def test_a_file_of_other_activations_is_refused(tmp_path):
    a, b = two_networks()
    file = tmp_path / "table.csv"
    quiet(a, b, ["cka"], nulls=0, file=file)
    changed = {name: X.copy() for name, X in b.items()}
    changed["late"][17, 3] += 1e-9
    others = {
        "one value": (a, changed),
        "the names": ({"early": a["late"], "late": a["early"]}, b),
        "the sides": (b, a),
        "the precision": ({name: X.astype(np.float32) for name, X in a.items()}, b),
    }
    for left, right in others.values():
        with pytest.raises(ValueError, match="another comparison"):
            quiet(left, right, ["cka"], nulls=0, file=file)


def test_a_file_of_other_networks_or_images_is_refused(tmp_path, pair_of_networks, pixels):
    options = {"metrics": ["cka"], "nulls": 0, "layers": ["layer6"], "file": tmp_path / "table.csv"}
    quiet(*pair_of_networks, images=pixels, **options)
    with pytest.raises(ValueError, match="another comparison"):
        quiet(*pair_of_networks, images=pixels.flip(0), **options)
    with pytest.raises(ValueError, match="another comparison"):
        quiet(*reversed(pair_of_networks), images=pixels, **options)
    with pytest.raises(ValueError, match="another comparison"):
        quiet(*pair_of_networks, images=pixels, n_positions=2, **options)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b'metric,layer_a\n"cka,1\n'])
def test_a_file_that_is_no_comparison_is_refused_and_kept(tmp_path, content):
    a, b = two_networks()
    file = tmp_path / "mine.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="mine.csv.*[Nn]ame another file"):
        quiet(a, b, ["cka"], nulls=0, file=file)
    assert file.read_bytes() == content


def test_names_of_layers_survive_the_file(tmp_path, interrupted):
    X, Y = alike(12)
    a = {"nan": X, "1": Y, "1.0": X + 1, "a,b": Y + 1, 'quo"ted': X, "None": Y}
    whole = quiet(a, a, ["cka"], nulls=1)
    interrupted(20)
    with pytest.raises(KeyboardInterrupt):
        quiet(a, a, ["cka"], nulls=1, file=tmp_path / "t.csv")
    interrupted(100)
    pd.testing.assert_frame_equal(quiet(a, a, ["cka"], nulls=1, file=tmp_path / "t.csv"), whole, check_exact=True)


# --- bad input ---------------------------------------------------------------------------------------


def test_bad_layers_are_refused_by_name_before_any_comparison(monkeypatch):
    def never(*args):
        raise AssertionError("a comparison was begun")

    monkeypatch.setattr(module, "_compare_pair", never)
    a, b = two_networks()
    bad = {
        "no units": (np.empty((60, 0)), "layer late of b has no units"),
        "not finite": (np.where(np.eye(60, 9, -5), np.nan, b["late"]), "layer late of b.*not finite"),
        "constant": (np.ones((60, 3)), "layer late of b does not vary"),
        "identical": (np.tile(b["late"][:1], (60, 1)), "layer late of b does not vary"),
        "fewer stimuli": (b["late"][:-1], "layer late of b has 59 stimuli.*60"),
        "one stimulus": (b["late"][:1], "layer late of b has 1 stimuli"),
        "three dimensions": (np.ones((60, 2, 2)), "layer late of b has shape"),
        "words": (np.full((60, 2), "word"), "layer late of b"),
        "nothing": (None, "layer late of b"),
    }
    for rows, message in bad.values():
        with pytest.raises(ValueError, match=message):
            quiet(a, b | {"late": rows}, ["cka"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["ckaa"]}, "metrics='ckaa' is not one of linear"),
        ({"metrics": "ckaa"}, "metrics='ckaa' is not one of linear"),
        ({"metrics": []}, "at least one"),
        ({"metrics": ["cka", "cka"]}, "each once"),
        ({"folds": 61}, "folds=61.*between 2 and 60"),
        ({"folds": 1}, "folds=1"),
        ({"folds": 20, "positions": 4}, "folds=20.*between 2 and 15"),
        ({"positions": 7}, "positions=7"),
        ({"nulls": -1}, "nulls=-1"),
        ({"nulls": 2.5}, "nulls=2.5"),
        ({"bootstrap": -1}, "bootstrap=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"alpha": -1}, "alpha=-1"),
        ({"alpha": "best"}, "alpha='best'"),
        ({"alpha": "cv", "folds": 2, "metrics": "linear"}, "cv.*at least 3"),
        ({"alpha": "cv", "folds": None, "metrics": "linear"}, "cv.*at least 3"),
        ({"score": "R2"}, "score='R2'"),
        ({"shuffle": -2}, "shuffle=-2"),
        ({"layers": ["early", "middle"]}, "a has no layer 'middle': it has early, late"),
        ({"layers": ["early", "early"]}, "each once"),
        ({"layers": []}, "layer"),
        ({"images": torch.zeros(60, 3, 4, 4)}, "images go with two networks"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    a, b = two_networks()
    with pytest.raises(ValueError, match=message):
        quiet(a, b, **{"metrics": ["cka"], "nulls": 1} | options)


def test_no_layers_and_layers_of_one_name_are_refused():
    a, b = two_networks()
    with pytest.raises(ValueError, match="a has no layer.*none"):
        quiet({}, b)
    with pytest.raises(ValueError, match="two layers of one name"):
        quiet({1: a["early"], "1": a["late"]}, b)


def test_unknown_options_of_a_null_are_named():
    X, Y = alike(13)
    with pytest.raises(ValueError, match="unknown options kernel.*alpha, score"):
        null("cka", X, Y, kernel="rbf")
    with pytest.raises(ValueError, match="metric='ckaa'"):
        bootstrap("ckaa", X, Y)
    with pytest.raises(ValueError, match="n=0"):
        null("cka", X, Y, n=0)


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")),
        pytest.param(
            "mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no Apple GPU here")
        ),
    ],
)
def test_a_gpu_gives_the_table_of_the_cpu(device, pair_of_networks, pixels):
    a, b = ({name: torch.from_numpy(X) for name, X in side.items()} for side in two_networks())
    on_device = [{name: X.to(device) for name, X in side.items()} for side in (a, b)]
    pd.testing.assert_frame_equal(quiet(*on_device, METRICS, nulls=3), quiet(a, b, METRICS, nulls=3), atol=1e-5)
    options = {"metrics": FROM_MOMENTS, "nulls": 2, "layers": ["layer6"]}
    on_cpu = quiet(*pair_of_networks, images=pixels, **options)
    moved = [networks.load("cnn6", width=0.15, seed=seed).to(device) for seed in (0, 1)]
    pd.testing.assert_series_equal(quiet(*moved, images=pixels, **options).value, on_cpu.value, atol=1e-4)
