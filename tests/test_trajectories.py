"""Alignment through training: shares of it, networks at their checkpoints, and seeds that can be told apart."""

import json
from dataclasses import replace
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convergent import plots, plots_training, training, trajectories, zoo
from convergent.trajectories import ACCURACY, ALL, OTHERS_END, OWN_END, TOGETHER, Reading
from tiny import RECIPE, assert_same_weights, dataset

pytestmark = pytest.mark.smoke
DATA = dataset(n_test=60)
EPOCH, END = 6, 12


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVERGENT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def get(seeds, **options):
    return zoo.get("cnn6", DATA, seeds, **{"recipe": RECIPE, "width": 0.25, "progress": False} | options)


@pytest.fixture(scope="module")
def entries(cache):
    return get(range(3), trajectory=True)


@pytest.fixture(scope="module")
def courses(entries):
    return {entry.seed: trajectories.follow(entry, DATA.test) for entry in entries}


@pytest.fixture(scope="module")
def table(courses):
    return trajectories.course(courses, EPOCH, ("procrustes", "linear"), nulls=3)


@pytest.fixture(scope="module")
def shares(courses):
    return trajectories.shares(courses, EPOCH, nulls=3, resamples=8)


def readings(before, after_one, after_all, n=200):
    """Two networks of one layer and five units that have the stated shares of their responses in common."""
    rng = np.random.default_rng(0)
    common, *own = rng.standard_normal((3, n, 5))
    steps = dict(zip((0, 5, 10), (before, after_one, after_all), strict=True))
    correct = rng.random(n)
    return {
        seed: {
            step: Reading({"layer": w * common + (1 - w) * own[seed]}, correct < w, 0.1) for step, w in steps.items()
        }
        for seed in (0, 1)
    }


def of(table, layer="layer"):
    return table.set_index("layer").loc[layer]


# --- shares ------------------------------------------------------------------------------------------


def test_the_share_is_one_where_nothing_happens_after_the_first_epoch():
    found = trajectories.shares(readings(0.3, 0.7, 0.7), 5, nulls=5, resamples=8)
    for layer in ("layer", ALL, ACCURACY):
        assert of(found, layer).above_start == pytest.approx(1)
        assert of(found, layer).later == of(found, layer).later_error == 0
        assert of(found, layer).above_start_error == pytest.approx(0, abs=1e-12)
    assert of(found).above_chance == pytest.approx(1, abs=0.05), "chance levels are of other shuffles"


def test_the_share_above_the_start_is_zero_where_nothing_happens_in_the_first_epoch():
    found = trajectories.shares(readings(0.5, 0.5, 0.8), 5, nulls=5, resamples=8)
    assert of(found).above_start == 0
    assert 0 < of(found).above_chance < 1, "what the start has above chance counts"


@pytest.mark.parametrize("ends", [(0.5, 0.6, 0.5), (0.7, 0.5, 0.4)], ids=["no gain", "a loss"])
def test_a_share_of_nothing_is_undefined_and_its_differences_are_not(ends):
    found = of(trajectories.shares(readings(*ends), 5, nulls=5, resamples=8))
    assert np.isnan(found.above_start)
    assert np.isnan(found.above_start_error)
    assert np.isfinite([found.gain, found.gain_error, found.later, found.later_error, found.above_chance]).all()
    assert found.gain <= found.gain_error


def test_a_share_above_chance_is_undefined_where_nothing_is_shared_in_the_end():
    undefined = []
    for seed in range(8):  # noise exceeds its own error in one case of forty
        rng = np.random.default_rng(seed)
        noise = {
            s: {t: Reading({"layer": rng.standard_normal((100, 3))}, np.ones(100, bool), 1) for t in (0, 5, 10)}
            for s in (0, 1)
        }
        undefined.append(np.isnan(of(trajectories.shares(noise, 5, nulls=2, resamples=8)).above_chance))
    assert sum(undefined) >= 6


def test_differences_add_up_and_shares_are_those_of_the_scores(shares):
    early = shares["first"] - shares.start
    np.testing.assert_allclose(shares.gain, early + shares.later, atol=1e-12)
    defined = shares.above_start.notna()
    assert defined.any()
    np.testing.assert_allclose((shares.above_start * shares.gain)[defined], early[defined])
    above = (shares["first"] - shares.first_chance) / (shares["last"] - shares.last_chance)
    np.testing.assert_allclose(shares.above_chance.dropna(), above[shares.above_chance.notna()])


def test_all_layers_are_the_mean_over_layers(shares):
    columns = ["start", "first", "last", "last_chance", "gain", "later"]
    for _, rows in shares.groupby("pair"):
        layers = rows[~rows.layer.isin([ALL, ACCURACY])]
        np.testing.assert_allclose(of(rows, ALL)[columns].astype(float), layers[columns].mean(), atol=1e-12)


def test_shares_hold_the_same_scores_as_the_whole_course(shares, table):
    rows = table[(table.what == TOGETHER) & (table.metric == "procrustes") & (table.pair == "0-2")]
    for name, step in (("start", 0), ("first", EPOCH), ("last", END)):
        expected = rows[rows.step == step].set_index("layer").value
        found = shares[shares.pair == "0-2"].set_index("layer")[name].loc[expected.index]
        np.testing.assert_allclose(found, expected)


def made_up(gains, early_shares):
    """A table of `shares` with one layer for all pairs of networks, from each pair's gain and share of it."""
    n = int((1 + np.sqrt(1 + 8 * len(gains))) / 2)
    pairs = [f"{i}-{j}" for i in range(n) for j in range(i + 1, n)]
    table = pd.DataFrame({"pair": pairs, "layer": "layer", "start": 0.2, "gain": gains})
    table["first"], table["last"] = table.start + table.gain * early_shares, table.start + table.gain
    table[["start_chance", "first_chance", "last_chance"]] = 0.0
    table["later"] = table["last"] - table["first"]
    table["above_start"], table["above_chance"] = early_shares, table["first"] / table["last"]
    return table.assign(gain_error=0.01, later_error=0.01, above_start_error=0.1, above_chance_error=0.1)


def quantity(table, name):
    return trajectories.summary(table).set_index("quantity").loc[name]


@given(st.floats(0.05, 0.9), st.floats(-0.5, 1.5))
def test_one_pair_is_summed_up_by_its_own_numbers_over_images(gain, share):
    found = quantity(made_up(np.array([gain]), np.array([share])), "above_start")
    assert found["mean"] == pytest.approx(share)
    assert (found.low, found.high, found.over) == (pytest.approx(share - 0.1), pytest.approx(share + 0.1), "images")


def test_over_several_networks_it_is_the_share_of_means_and_not_the_mean_of_shares():
    gains, parts = np.array([0.5, 0.4, 0.45]), np.array([0.8, 0.5, 0.6])
    found = quantity(made_up(gains, parts), "above_start")
    assert found["mean"] == pytest.approx((gains * parts).sum() / gains.sum())
    assert found.low < found["mean"] < found.high
    assert found.over == "networks"


def test_equal_pairs_leave_no_uncertainty_and_small_mean_gains_no_share():
    same = quantity(made_up(np.full(3, 0.4), np.full(3, 0.7)), "above_start")
    assert (same.low, same["mean"], same.high) == pytest.approx((0.7, 0.7, 0.7))
    unsure = quantity(made_up(np.array([0.01, -0.2, 0.3]), np.full(3, 0.7)), "above_start")
    assert unsure[["mean", "low", "high"]].isna().all()


def test_conditions_give_the_halves_that_claims_are_weighed_against(shares):
    found = trajectories.conditions(shares).pivot_table(index=["pair", "layer"], columns="condition", values="value")
    row = shares[(shares.pair == "0-1") & (shares.layer == "layer3")].iloc[0]
    here = found.loc["0-1", "layer3"]
    assert here["epoch 1, above start"] == pytest.approx(row["first"] - row.start)
    assert 2 * here["half the end, above start"] == pytest.approx(row.gain)
    assert 2 * here["half the end, above chance"] == pytest.approx(row["last"] - row.last_chance)
    accuracy = shares[(shares.pair == "0-1") & (shares.layer == ACCURACY)].iloc[0]
    assert found.loc[("0-1", ALL), "accuracy, above chance"] == pytest.approx(accuracy.above_chance)


# --- checkpoints -------------------------------------------------------------------------------------


def test_step_0_is_the_untrained_network_and_the_last_step_the_trained_one(entries, courses):
    for entry in entries:
        ends = ((0, entry.untrained), (END, entry.network))
        for step, network in ends:
            kept, whole = courses[entry.seed][step], trajectories.read(network, DATA.test)
            for layer, rows in whole.activations.items():  # weights were kept in half precision
                np.testing.assert_allclose(kept.activations[layer], rows, rtol=0.02, atol=0.02 * np.abs(rows).max())
            assert (kept.correct == whole.correct).mean() > 0.95


def test_accuracy_is_that_of_training_and_its_chance_what_shuffled_answers_get(entries, courses):
    entry, reading = entries[0], courses[0][END]
    assert trajectories.read(entry.network, DATA.test).correct.mean() == training.accuracy(entry.network, DATA.test)
    answers = entry.checkpoints[END](DATA.test.images).argmax(1).numpy()
    rng = np.random.default_rng(0)
    dealt = [(rng.permutation(answers) == DATA.test.labels.numpy()).mean() for _ in range(2000)]
    assert reading.chance == pytest.approx(np.mean(dealt), abs=0.01)


def test_averages_taken_anew_change_no_weight_and_leave_the_network_as_it_was(entries):
    network = entries[0].untrained
    before = {name: value.clone() for name, value in network.state_dict().items()}
    anew = trajectories.with_averages(network, DATA.train.images)
    assert_same_weights(network.state_dict(), before)
    assert_same_weights(dict(anew.named_parameters()), dict(network.named_parameters()))
    assert not anew.training
    convolved = network.layer1[0](network.normalise(DATA.train.images))
    torch.testing.assert_close(anew.layer1[1].running_mean, convolved.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(anew.layer1[1].running_var, convolved.var((0, 2, 3)), rtol=1e-3, atol=1e-5)


def test_following_with_averages_differs_before_the_first_step_and_hardly_at_the_end(entries, courses):
    anew = trajectories.follow(entries[0], DATA.test, [0, END], averages=DATA.train.images)

    def differs(step):
        kept, new = courses[0][step].activations["layer2"], anew[step].activations["layer2"]
        return 1 - np.corrcoef(kept.ravel(), new.ravel())[0, 1]

    assert differs(0) > differs(END)


def test_the_first_epoch_ends_where_the_history_says_so(entries):
    assert trajectories.first_epoch(entries[0]) == EPOCH
    assert EPOCH in entries[0].checkpoints


def test_only_the_steps_that_were_asked_for_are_read(entries):
    assert list(trajectories.follow(entries[0], DATA.test, steps=[0, END])) == [0, END]


def test_the_course_has_every_step_pair_layer_and_comparison_once(table):
    keys = ["pair", "step", "what", "metric", "layer"]
    assert not table.duplicated(keys).any()
    alignments = table[table.what != ACCURACY]
    assert len(alignments) == 3 * len(training.checkpoint_steps(EPOCH, 2)) * 3 * 6 * 2
    assert len(table) - len(alignments) == 3 * len(training.checkpoint_steps(EPOCH, 2))
    assert table[table.step == EPOCH].epoch.eq(1).all()


def test_at_the_end_a_network_is_its_own_end_and_the_other_is_the_others_end(table):
    last = table[table.step == END].set_index(["what", "metric", "pair", "layer"]).sort_index().value
    assert last[OWN_END, "procrustes"].to_numpy() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(last[OTHERS_END], last[TOGETHER], atol=1e-6)


def test_what_is_shared_with_the_others_end_is_weighed_against_half_the_end(table):
    found = trajectories.futures(table).pivot_table(index=["pair", "layer"], columns="condition", values="value")
    rows = table[(table.metric == "procrustes") & (table.pair == "1-2") & (table.layer == "layer2")]
    rows = rows.assign(above=rows.value - rows.chance).set_index(["what", "step"]).above
    assert found.loc[("1-2", "layer2"), "half the end"] == pytest.approx(rows[TOGETHER, END] / 2)
    assert found.loc[("1-2", "layer2"), "epoch 1, with the other's end"] == pytest.approx(rows[OTHERS_END, EPOCH])
    assert len(found) == 3 * 6


def test_a_linear_map_predicts_at_least_about_as_well_as_a_rotation_of_the_same_networks(table):
    means = table[table.what == TOGETHER].groupby("metric").value.mean()
    assert means["linear"] > means["procrustes"] - 0.05


def test_shuffled_images_align_about_nothing(courses):
    found = trajectories.same_layers(courses[0][END], courses[1][END], nulls=20)
    assert found.chance.abs().max() < 0.2
    assert found.layer.tolist() == list(courses[0][END].activations)


def test_networks_with_other_steps_and_a_network_alone_are_refused(courses):
    with pytest.raises(ValueError, match="2 networks with 2 sets of steps"):
        trajectories.course({0: courses[0], 1: {0: courses[1][0]}}, EPOCH)
    with pytest.raises(ValueError, match="1 networks"):
        trajectories.shares({0: courses[0]}, EPOCH)


def test_axes_are_compared_at_every_step_that_was_asked_for(courses):
    found = trajectories.axes(courses, steps=[0, END], turns=1)
    assert set(found.step) == {0, END}
    assert {"own axes", "one turned", "both turned"} <= set(found.condition)
    assert not found.duplicated(["pair", "step", "layer", "condition"]).any()


# --- seeds of the initial weights and of all the rest ------------------------------------------------


@pytest.fixture(scope="module")
def grid(cache):
    """Networks by (seed of the initial weights, seed of the order)."""
    places = list(product((0, 1), (0, 1)))
    entries = get([order for _, order in places], initial=[start for start, _ in places], trajectory=True)
    return dict(zip(places, entries, strict=True))


def test_the_same_initial_seed_gives_the_same_untrained_network_whatever_the_order(grid):
    for start in (0, 1):
        one, other = grid[start, 0], grid[start, 1]
        assert (one.initial, other.initial, one.seed, other.seed) == (start, start, 0, 1)
        assert_same_weights(one.untrained.state_dict(), other.untrained.state_dict())
        assert_same_weights(one.checkpoints[0].state_dict(), other.checkpoints[0].state_dict())
        assert not torch.equal(one.network.head.weight, other.network.head.weight), "other batches, other networks"
    assert not torch.equal(grid[0, 0].untrained.head.weight, grid[1, 0].untrained.head.weight)


def test_the_same_order_seed_gives_the_same_batches_whatever_the_initial_weights(cache, monkeypatch):
    seen, original = {}, training._Batches.epoch

    def epoch(self, number):
        for images, labels, chosen in original(self, number):
            seen.setdefault(current, []).append((images.clone(), labels.clone()))
            yield images, labels, chosen

    monkeypatch.setattr(training._Batches, "epoch", epoch)
    recipe = replace(RECIPE, random_labels=0.5)
    for start, order in ((2, 5), (3, 5), (2, 6)):
        current = start, order
        get([order], initial=[start], recipe=recipe)
    pairs = zip(seen[2, 5], seen[3, 5], strict=True)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs), "images, crops, random labels"
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(seen[2, 5], seen[2, 6], strict=True))


def test_an_initial_seed_equal_to_the_seed_is_the_network_that_has_always_been(grid):
    [usual] = get([1], trajectory=True)
    assert usual.folder == grid[1, 1].folder
    assert "initial" not in usual.record
    assert usual.initial == usual.seed == 1
    assert grid[0, 1].record["initial"] == 0


def test_each_combination_is_kept_as_a_network_of_its_own(grid, monkeypatch):
    assert len({entry.folder for entry in grid.values()}) == 4
    monkeypatch.setattr(training, "train", None)  # all from the cache
    again = get([1], initial=[0], trajectory=True)[0]
    assert again.record == json.loads((grid[0, 1].folder / "record.json").read_text())


def test_initial_seeds_that_do_not_pair_with_the_seeds_are_refused(cache):
    with pytest.raises(ValueError, match="1 initial seeds for 2 networks"):
        get([0, 1], initial=[0])


def test_controls_name_what_two_networks_share(grid):
    courses = {place: trajectories.follow(entry, DATA.test, [0, END]) for place, entry in grid.items()}
    found = trajectories.controls(courses, nulls=2)
    counts = found.groupby("shared").pair.nunique()
    assert counts.to_dict() == {"initial weights": 2, "nothing": 2, "order of images": 2}
    start = found[found.step == 0].groupby("shared").value
    assert start.median()["initial weights"] == pytest.approx(1, abs=1e-6)
    assert start.min()["initial weights"] > 0.9, "a unit that is silent in all but one fold cannot be predicted there"
    assert start.max()["order of images"] < 0.999
    twice = found[(found.step == 0) & (found.layer == "layer1")].groupby("shared").value.apply(sorted)
    assert twice["nothing"] == pytest.approx(twice["order of images"]), "before training, the order has done nothing"


# --- figures -----------------------------------------------------------------------------------------


@pytest.fixture
def style():
    plots.use_style()
    yield
    plt.close("all")


def texts(figure):
    found = [text.get_text() for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    return found + [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_the_figure_of_the_course_has_a_panel_a_layer_and_draws_chance_and_accuracy(table, style):
    figure = plots_training.course(table)
    assert {f"layer{i}" for i in range(1, 7)} <= set(texts(figure))
    assert {"alignment (rotation)", "accuracy", "chance"} <= set(texts(figure))
    dashed = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "--"]
    assert len(dashed) == 2, "chance of the alignment and of the accuracy"


def test_the_figure_of_shares_marks_undefined_ones_with_a_cross(style):
    one = made_up(np.array([0.001]), np.array([0.5])).assign(above_start=np.nan, above_start_error=np.nan)
    both = pd.concat([one, one.assign(layer=ALL), made_up(np.array([0.5]), np.array([0.6])).assign(layer=ACCURACY)])
    figure = plots_training.shares({"this run: Tiny": both, "published: Tiny": both})
    assert len(figure.axes) == 4
    assert [text.get_text() for text in figure.axes[1].texts] == ["×", "×"]


def test_ends_axes_and_controls_show_the_first_a_middle_and_the_last_layer(table, courses, style):
    turned = trajectories.axes(courses, steps=[0, EPOCH, END], turns=1).assign(epoch=lambda t: t.step / EPOCH)
    three = {0: (0, 0), 1: (1, 1), 2: (0, 1)}
    controls = trajectories.controls({three[s]: {t: c[t] for t in (0, END)} for s, c in courses.items()}, nulls=2)
    for draw, runs in (
        (plots_training.ends, {"this run: Tiny": table, "published: Tiny": table}),
        (plots_training.axes, {"this run: Tiny": turned}),
        (plots_training.controls, {"true labels": controls}),
    ):
        figure = draw(runs)
        assert [ax.get_title() for ax in figure.axes[:3]] == ["layer1", "layer3", "layer6"]
        assert "chance" in texts(figure) or "shuffled images" in texts(figure)
