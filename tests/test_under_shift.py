"""Chapter 7's measurements: what they must give where the answer is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import pearsonr

import tiny
from convergent import cave, images, networks, shifts, training, under_shift
from convergent.under_shift import WITHIN, Set


@pytest.fixture(scope="module")
def data():
    pictures, latents = cave.render(60, seed=3)
    labels = torch.tensor(latents["shape"].cat.codes.to_numpy(), dtype=torch.int64)
    split = images.Split(pictures, labels, latents)
    return images.Dataset("cave", "The cave", split, split, list(cave.SHAPES), "", 32)


@pytest.fixture(scope="module")
def acts():
    """Two networks of two layers on three sets: the second network is the first, turned, but for the set "noise"."""
    rng, found = np.random.default_rng(0), {}
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    for name, n in ((WITHIN, 100), ("same", 100), ("noise", 40)):
        rows = rng.normal(size=(4 * n, 5))
        other = rng.normal(size=(4 * n, 5)) if name == "noise" else rows @ turn
        found[name, 0] = {"early": rows, "late": rows}
        found[name, 1] = {"early": rows, "late": other}
    return found


def test_there_is_a_familiar_set_and_one_for_each_shift(data):
    groups = under_shift.sets(data, 20, severity=6)
    assert list(groups) == [WITHIN, *shifts.SHIFTS]
    assert all(len(group.split) == 20 for group in groups.values())
    assert groups["contrast"].level == 6
    assert groups["rotation"].level == 3
    assert torch.equal(groups["rotation"].split.images, groups["rotation"].familiar.rot90(3, (2, 3)))


@pytest.mark.parametrize(("severity", "contrast", "rotation"), [(1, 1, 1), (3, 3, 2), (6, 6, 3)])
def test_severity_runs_over_however_many_levels_there_are(severity, contrast, rotation):
    assert under_shift.level("contrast", severity) == contrast
    assert under_shift.level("rotation", severity) == rotation
    assert under_shift.level("edge", severity) == 1


def test_a_shared_geometry_keeps_its_alignment_and_noise_loses_it(acts):
    table = under_shift.alignments(acts, ["procrustes"], nulls=2).set_index(["shift", "layer"])
    assert table.value["same", "late"] == pytest.approx(1, abs=1e-6)
    assert table["drop"]["same", "late"] == pytest.approx(0, abs=1e-6)
    assert abs(table.value["noise", "late"]) < 0.2
    assert table["drop"]["noise", "late"] > 0.8
    assert table.depth[WITHIN].tolist() == [0, 1]
    assert table.chance.abs().max() < 0.3


def test_a_short_set_is_held_against_as_many_familiar_images(acts):
    short = {key: value for key, value in acts.items()}
    familiar = {i: {layer: rows[:160] for layer, rows in acts[WITHIN, i].items()} for i in (0, 1)}
    rng = np.random.default_rng(1)
    for i in (0, 1):
        short["noise", i] = {layer: rows + rng.normal(size=rows.shape) for layer, rows in familiar[i].items()}
    table = under_shift.alignments(short, ["procrustes"], nulls=0).set_index(["shift", "layer"])
    assert table.n_images.to_dict()["noise", "late"] == 40
    alone = {(WITHIN, i): familiar[i] for i in (0, 1)}
    within = under_shift.alignments(alone, ["procrustes"], nulls=0).set_index(["shift", "layer"]).value
    assert table.within["noise", "late"] == pytest.approx(within[WITHIN, "late"])
    assert set(table.loc[WITHIN].n_images) == {100}


def test_a_carried_rotation_holds_where_the_map_is_the_same_and_fails_where_it_is_another(acts):
    turned = dict(acts)
    turned["other map", 0] = acts["same", 0]
    turned["other map", 1] = {layer: rows[:, ::-1] for layer, rows in acts["same", 1].items()}
    fitted = {i: acts[WITHIN, i] for i in (0, 1)}
    table = under_shift.carried(turned, fitted).set_index(["shift", "layer"]).value
    assert table["same", "late"] == pytest.approx(1, abs=1e-6)
    assert table["other map", "late"] < 0.7
    anew = under_shift.alignments(turned, ["procrustes"], nulls=0).set_index(["shift", "layer"]).value
    assert anew["other map", "late"] == pytest.approx(1, abs=1e-6)


def test_accuracy_counts_labelled_images_only():
    split = tiny.split(12)
    split = replace(split, labels=torch.where(torch.arange(12) < 6, split.labels, -1))
    network = networks.load("cnn6", 3, width=0.1)
    acts, table = under_shift.responses(
        [network], {"half": Set(split, None, 1), "none": Set(split[6:], None, 1)}, ["layer1", "layer6"]
    )
    table = table.set_index("shift")
    assert list(acts["half", 0]) == ["layer1", "layer6"]
    assert table.n_labelled.tolist() == [6, 0]
    assert np.isnan(table.accuracy["none"])
    assert table.accuracy["half"] == training.accuracy(network, split[:6])


def test_no_shift_has_no_size_and_a_harder_one_is_larger(data):
    pictures = data.test.images
    groups = {WITHIN: Set(data.test, pictures, 0)}
    for level in (1, 4):
        moved = shifts.shifted(data, "uniform_noise", level)
        groups[str(level)] = Set(moved, pictures, level)
    groups["strangers"] = Set(data.test[list(range(59, -1, -1))], None, 1)
    size = under_shift.sizes(groups).set_index("shift")
    assert size.pixels[WITHIN] == 0
    assert size.statistics[WITHIN] == pytest.approx(0, abs=1e-3)
    assert 0 < size.pixels["1"] < size.pixels["4"]
    assert 0 < size.statistics["1"] < size.statistics["4"]
    assert np.isnan(size.pixels["strangers"])
    assert size.statistics["strangers"] == pytest.approx(0, abs=1e-3), "the order of the images does not matter"


def test_correlations_over_shifts_are_those_of_numpy_and_lie_in_their_intervals():
    rng = np.random.default_rng(0)
    rows = [
        {"shift": f"s{k}", "pair": pair, "layer": layer, "depth": depth, "value": rng.normal() + k, "accuracy": k / 17}
        for k in range(17) for pair in ("0-1", "0-2") for layer, depth in (("a", 0.0), ("b", 1.0))
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    found = under_shift.correlation_by_layer(table, "accuracy").set_index("layer")
    means = table[table.layer == "b"].groupby("shift")[["value", "accuracy"]].mean()
    assert found.r["b"] == pytest.approx(np.corrcoef(means.value, means.accuracy)[0, 1])
    assert (found.low < found.r).all()
    assert (found.r < found.high).all()
    assert found.n_shifts.tolist() == [17, 17]
    one = table[(table.layer == "a") & (table.pair == "0-2")]
    by_pair = under_shift.correlation_by_pair(table, "accuracy").set_index(["pair", "layer"]).value
    assert by_pair["0-2", "a"] == pytest.approx(np.corrcoef(one.value, one.accuracy)[0, 1])


def test_a_missing_size_leaves_that_shift_out():
    table = pd.DataFrame(
        {"shift": list("abcd"), "pair": "0-1", "layer": "x", "depth": 0.0, "value": [1.0, 2, 3, 9],
         "pixels": [1, 2, 3, np.nan]}
    )  # fmt: skip
    found = under_shift.correlation_by_layer(table, "pixels")
    assert found.r.item() == pytest.approx(1)
    assert found.n_shifts.item() == 3


@pytest.mark.parametrize("n", [5, 13, 17])
def test_the_least_correlation_has_a_p_of_five_per_cent(n):
    x, noise = np.linalg.qr(np.column_stack([np.ones(n), np.random.default_rng(0).normal(size=(n, 2))]))[0][:, 1:].T
    r = under_shift.least_r(n)
    assert pearsonr(x, r * x + np.sqrt(1 - r**2) * noise).pvalue == pytest.approx(0.05)


def test_conditions_hold_what_the_claims_compare(acts):
    table = under_shift.alignments(acts, ["procrustes"], nulls=0)
    accuracy = pd.DataFrame([(name, i, 0.5) for name, i in acts], columns=["shift", "network", "accuracy"])
    size = pd.DataFrame({"shift": [WITHIN, "same", "noise"], "pixels": [0, 1, 2], "statistics": [0, 1, 2]})
    found = under_shift.conditions(under_shift.together(table, accuracy, size))
    means = found.groupby("condition").value.mean()
    assert means["familiar images"] == pytest.approx(1, abs=1e-6)
    assert means["shifted images"] == pytest.approx(
        table[(table.layer == "late") & (table["shift"] != WITHIN)].value.mean()
    )
    assert means["r of drop with distance of statistics, later layers"] == pytest.approx(1)
    assert means["drop, later layers"] > means["drop, earlier layers"]
