"""Populations of networks, what lies behind depth, and the statistics of correspondence."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PathCollection
from safetensors.torch import save_file

from convergent import (
    certainty,
    correspondence,
    depth,
    metrics,
    named_networks,
    networks,
    plots,
    plots_depth,
    populations,
)
from convergent.compare import compare
from convergent.named_networks import Member
from tiny import assert_same_weights

pytestmark = pytest.mark.smoke
N_IMAGES, P = 40, 2


def member(architecture, seed):
    return Member(architecture, seed, 0.5, lambda part: None)


@pytest.fixture(scope="module")
def small():
    """Three networks of three layers and two of five, as activations: a layer and those after it share a source."""
    rng = np.random.default_rng(0)
    acts = {}
    for architecture, seeds, n_layers in (("three", 3, 3), ("five", 2, 5)):
        for seed in range(seeds):
            acts[f"{architecture} {seed}"] = {
                f"l{i}": _walk(i / (n_layers - 1)) @ rng.normal(size=(12, 8 + i)) for i in range(n_layers)
            }
    members = [member("three", seed) for seed in range(3)] + [member("five", seed) for seed in range(2)]
    return members, acts


def _walk(depth):
    """(80, 12) responses that turn with depth from one set of sources to another, the same for every network."""
    one, other = np.random.default_rng(7).normal(size=(2, N_IMAGES * P, 12))
    return np.cos(np.pi * depth / 2) * one + np.sin(np.pi * depth / 2) * other


# --- weights of one's own ----------------------------------------------------------------------------


def test_a_weights_file_gives_back_the_network_that_it_was_saved_from(tmp_path):
    network = networks.load("torchvision:squeezenet1_1?weights=random", seed=3)
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    again = networks.load(f"torchvision:squeezenet1_1?weights={tmp_path / 'own.safetensors'}", seed=4)
    assert_same_weights(network.state_dict(), again.state_dict())


def test_our_own_architectures_take_a_weights_file_too(tmp_path):
    network = networks.load("cnn6", n_classes=4, width=0.1, seed=3)
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    again = networks.load(f"cnn6?weights={tmp_path / 'own.safetensors'}", n_classes=4, width=0.1)
    assert_same_weights(network.state_dict(), again.state_dict())


def test_weights_that_do_not_fit_are_refused_with_what_does_not_fit(tmp_path):
    path = tmp_path / "own.safetensors"
    save_file(networks.load("cnn6", n_classes=4, width=0.1).state_dict(), path)
    with pytest.raises(ValueError, match="weights of another network: it differs in shape at head.bias, head.weight$"):
        networks.load(f"cnn6?weights={path}", n_classes=5, width=0.1)
    with pytest.raises(ValueError, match="it lacks .* and 49 more; has head.bias"):
        networks.load(f"torchvision:squeezenet1_1?weights={path}")
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        networks.load(f"cnn6?weights={path}")


@pytest.mark.parametrize(
    ("models", "error", "says"),
    [
        ("cnn6?weights=nowhere.safetensors", FileNotFoundError, "there is no file 'nowhere.safetensors'"),
        ("cnn6?weight=a.safetensors", ValueError, "after the name comes"),
        ("cnn6?weights=", ValueError, "after the name comes"),
        ("cnn6,cnn7", ValueError, "Did you mean 'cnn6'"),
        ("torchvision:resnet181", ValueError, "torchvision has no network 'resnet181'. Did you mean"),
        ("cnn6,resnet18,cnn6", ValueError, "cnn6 twice"),
        (" , ", ValueError, "name at least one network"),
        ("cnn6?seeds=1", ValueError, "a number of networks, 2 or more"),
        ("torchvision:resnet18?seeds=4", ValueError, "a number of networks, 2 or more, of cnn6"),
    ],
)
def test_names_that_cannot_be_gathered_are_refused_before_any_work(models, error, says):
    with pytest.raises(error, match=says):
        named_networks.check(models)


def test_two_random_networks_of_one_architecture_are_two_networks():
    members = named_networks.gather("torchvision:alexnet?weights=random,torchvision:alexnet?weights=random", "cave")
    assert [m.name for m in members] == ["torchvision:alexnet 0", "torchvision:alexnet 1"]
    first, second = (m.network.features[0].weight for m in members)
    assert not torch.equal(first, second)
    torch.testing.assert_close(members[0].untrained.features[0].weight, first)
    assert np.isnan(members[0].accuracy)


def test_an_architecture_may_have_its_own_number_of_networks(monkeypatch):
    asked = {}

    def get(name, data, seeds, tier):
        asked[name] = list(seeds)
        return []

    monkeypatch.setattr(named_networks.zoo, "get", get)
    named_networks.gather("cnn6?seeds=3, resnet18", "cave", seeds=2)
    assert asked == {"cnn6": [0, 1, 2], "resnet18": [0, 1]}


def test_small_images_are_enlarged_to_what_a_foreign_network_was_made_for():
    [alexnet] = named_networks.gather("torchvision:alexnet?weights=random", "cave")
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    acts = populations.activations([alexnet], pictures, most_layers=4, n_positions=2)["torchvision:alexnet 0"]
    names = networks.layers(alexnet.network)
    assert list(acts)[0] == names[0]
    assert list(acts)[-1] == names[-1]
    assert {rows.shape[0] for rows in acts.values()} == {6}, "layers without places are repeated for each place"
    last = acts[names[-1]]
    np.testing.assert_array_equal(last[::2], last[1::2])
    large = torch.nn.functional.interpolate(pictures / 255, (224, 224), mode="bilinear", align_corners=False)
    plain = networks.load("torchvision:alexnet?weights=random", seed=0)
    with torch.inference_mode():
        np.testing.assert_allclose(last[::2], plain(large), atol=1e-4)
        torch.testing.assert_close(alexnet.network(large), plain(large), msg="large images stay as they are")


# --- who is compared with whom -----------------------------------------------------------------------


def test_layers_correspond_by_relative_depth():
    assert populations.corresponding(6, 6).tolist() == list(range(6))
    assert populations.corresponding(3, 5).tolist() == [0, 2, 4]
    assert populations.corresponding(5, 3).tolist() == [0, 0, 1, 1, 2], "of two as near, the earlier"
    assert populations.corresponding(1, 4).tolist() == [0]


@given(st.integers(1, 30), st.integers(1, 30))
def test_correspondence_never_goes_back_and_keeps_the_ends(n_a, n_b):
    found = populations.corresponding(n_a, n_b)
    assert (np.diff(found) >= 0).all()
    assert found[0] == 0
    assert found[-1] == (n_b - 1 if n_a > 1 else 0)


def test_pairs_are_all_within_an_architecture_and_share_no_network_across(small):
    members, _ = small
    within = [(a.name, b.name) for a, b in populations.pairs(members)]
    assert within == [*combinations([f"three {i}" for i in range(3)], 2), ("five 0", "five 1")]
    across = [(a.name, b.name) for a, b in populations.pairs(members, across=True)]
    assert across == [("three 0", "five 0"), ("three 1", "five 1")]


def test_at_most_so_many_layers_are_spread_over_the_whole_depth():
    names = [str(i) for i in range(21)]
    assert populations.spread(names, 5) == ["0", "5", "10", "15", "20"]
    assert populations.spread(names[:4], 5) == names[:4]


# --- tables ------------------------------------------------------------------------------------------


def test_the_same_layers_are_the_diagonal_of_all_layers(small):
    members, acts = small
    who = populations.pairs(members)
    same = populations.same_layers(who, acts, positions=P, nulls=3, progress=False)
    whole = populations.all_layers(who, acts, populations.METRICS, positions=P, nulls=3, progress=False)
    diagonal = whole[whole.layer_a == whole.layer_b]
    keys = ["architecture", "pair", "layer_a", "metric", "direction"]
    columns = ["value", "spread", "chance", "depth"]
    first = same.set_index(keys).sort_index()[columns]
    second = diagonal.assign(depth=diagonal.depth_a).set_index(keys).sort_index()[columns]
    pd.testing.assert_frame_equal(first, second)


def test_a_table_holds_what_compare_gives(small):
    members, acts = small
    same = populations.same_layers(populations.pairs(members), acts, positions=P, nulls=2, progress=False)
    rows = same[(same.architecture == "three") & (same.pair == "1-2") & (same.layer == "l2")]
    alone = compare({"l2": acts["three 1"]["l2"]}, {"l2": acts["three 2"]["l2"]}, nulls=2, positions=P, progress=False)
    pd.testing.assert_frame_equal(rows[alone.columns].reset_index(drop=True), alone)
    assert set(rows.depth) == {1.0}


def test_across_architectures_a_layer_meets_the_one_of_its_relative_depth(small):
    members, acts = small
    who = populations.pairs(members, across=True)
    table = populations.same_layers(who, acts, ["cka"], positions=P, nulls=0, progress=False)
    assert set(table.architecture) == {"three x five"}
    assert table[["layer_a", "layer_b"]].drop_duplicates().to_numpy().tolist() == [
        ["l0", "l0"],
        ["l1", "l2"],
        ["l2", "l4"],
    ]


def test_both_ways_is_the_mean_of_the_two_directions(small):
    members, acts = small
    table = populations.same_layers(populations.pairs(members)[:1], acts, positions=P, nulls=2, progress=False)
    both = populations.both_ways(table)
    assert len(both) == 3 * 3
    linear = table[(table.metric == "linear") & (table.layer == "l1")].value.to_numpy()
    found = both[(both.metric == "linear") & (both.layer == "l1")].value.item()
    assert found == pytest.approx(linear.mean())


def test_intervals_are_over_networks_and_missing_where_they_are_too_few():
    values = {"0-1": 0.3, "0-2": 0.5, "1-2": 0.4}
    expected = certainty.over_networks({tuple(k.split("-")): v for k, v in values.items()})
    assert populations.interval(values) == pytest.approx(expected)
    for some in ({"0-1": 0.3}, {"0-1": 0.2, "2-3": 0.4}):
        mean, low, high = populations.interval(some)
        assert mean == pytest.approx(0.3)
        assert np.isnan([low, high]).all()
    # Independent pairs: Student's t, by hand for 1, 2, 3: 2 +- 4.303 / sqrt(3).
    mean, low, high = populations.interval({"0-0": 1.0, "1-1": 2.0, "2-2": 3.0})
    assert (mean, low, high) == pytest.approx((2, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


# --- what lies behind depth --------------------------------------------------------------------------


def test_variance_within_and_between_classes_add_up():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    rows = rng.normal(size=(60, 5)) + 2 * rng.normal(size=(4, 5))[labels]
    share = depth.between_classes(rows, labels)
    means = np.stack([rows[labels == c].mean(0) for c in range(4)])[labels]
    assert share == pytest.approx(((means - rows.mean(0)) ** 2).sum() / ((rows - rows.mean(0)) ** 2).sum())
    assert depth.between_classes(means, labels) == pytest.approx(1)
    assert depth.between_classes(depth.without_classes(rows, labels), labels) == pytest.approx(0, abs=1e-12)


def test_variance_between_classes_of_noise_is_what_the_docstring_says():
    rng, labels = np.random.default_rng(0), np.arange(200) % 10
    shares = [depth.between_classes(rng.normal(size=(200, 30)), labels) for _ in range(30)]
    assert np.mean(shares) == pytest.approx(9 / 199, rel=0.05)


def test_what_networks_share_by_classes_alone_is_kept_by_swaps_and_lost_without_class_means():
    rng, labels = np.random.default_rng(0), np.arange(120) % 6
    acts = {f"n {i}": {"l": rng.normal(size=(6, 8))[labels] + 0.3 * rng.normal(size=(120, 8))} for i in range(2)}
    who = populations.pairs([member("n", 0), member("n", 1)])
    table = depth.with_and_without_classes(who, acts, labels, metrics=["linear"]).set_index("kept").value
    assert table[depth.AS_IT_IS] > 0.8
    assert table[depth.SWAPPED] > 0.8
    assert abs(table[depth.WITHIN]) < 0.15


def test_swaps_within_classes_keep_the_places_of_an_image_together():
    labels = np.repeat(np.arange(30) % 3, 2)
    place = np.tile([[0.0], [1.0]], (30, 1))
    image = np.random.default_rng(0).normal(size=(30, 1)).repeat(2, 0)
    acts = {f"n {i}": {"l": np.hstack([place, image])} for i in range(2)}
    who = populations.pairs([member("n", 0), member("n", 1)])
    found = depth.with_and_without_classes(who, acts, labels, 2, ["permutation"]).set_index("kept").value
    assert found[depth.AS_IT_IS] == pytest.approx(1)
    assert found[depth.SWAPPED] > 0.4, "the place of a row is kept, one of the two units"


def test_leading_directions_are_principal_components():
    rows = np.random.default_rng(0).normal(size=(50, 4)) * [1, 5, 2, 0.1]
    found = depth.leading(rows, 2)
    _, s, vt = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs((rows - rows.mean(0)) @ vt[:2].T), atol=1e-9)
    assert found.std(0)[0] > found.std(0)[1]


def test_strong_directions_that_are_shared_are_found_where_units_are_mostly_noise():
    rng = np.random.default_rng(0)
    shared = 10 * rng.normal(size=(200, 2))
    acts = {f"n {i}": {"l": shared @ rng.normal(size=(2, 10)) + 12 * rng.normal(size=(200, 10))} for i in range(2)}
    who = populations.pairs([member("n", 0), member("n", 1)])
    table = depth.of_directions(who, acts, 2).set_index("target").value
    back = [metrics.linear(acts[f"n {i}"]["l"], depth.leading(acts[f"n {1 - i}"]["l"], 2)) for i in range(2)]
    assert table["directions"] == pytest.approx(np.mean(back))
    assert table["directions"] > table["units"] + 0.1


def test_halves_are_scored_as_the_metric_scores_them(small):
    members, acts = small
    [table] = [depth.of_halves([tuple(members[:2])], acts, P, ["linear"])]
    chosen = np.random.default_rng(0).permutation(8)
    first, second, some = chosen[:4], chosen[4:], np.random.default_rng([0, 1]).permutation(8)[:4]
    a, b = acts["three 0"]["l0"], acts["three 1"]["l0"]
    own = np.mean([metrics.linear(x[:, first], x[:, second], positions=P) for x in (a, b)])
    other = np.mean([metrics.linear(x[:, some], y[:, second], positions=P) for x, y in ((a, b), (b, a))])
    found = table[table.layer == "l0"].set_index("source").value
    assert found["own other half"] == pytest.approx(own)
    assert found["half of the other network"] == pytest.approx(other)


def test_gains_add_up_to_the_difference_of_the_extremes():
    table = pd.DataFrame(
        [("n", "0-1", "l", 0.0, m, v) for m, v in {"linear": 0.9, "procrustes": 0.7, "soft_matching": 0.2}.items()],
        columns=["architecture", "pair", "layer", "depth", "metric", "value"],
    )
    assert depth.gains(table).set_index("step").value.to_dict() == pytest.approx(
        {"rotation − soft matching": 0.5, "linear map − rotation": 0.2}
    )


def test_ends_read_the_layers_in_the_order_of_their_depth():
    values = [0.9, 0.7, 0.5, 0.3, 0.6]
    table = pd.DataFrame({"layer": list("abcde"), "depth": np.linspace(0, 1, 5), "value": values})
    table = table.assign(architecture="n", pair="0-1", metric="linear").sample(frac=1, random_state=0)
    assert depth.ends(table).set_index("condition").value.to_dict() == pytest.approx(
        {
            "first layer": 0.9,
            "all later layers": 0.525,
            "first half": 0.8,
            "second half": 0.45,
            "last layer": 0.6,
            "the layer before": 0.3,
        }
    )
    both = pd.concat([table, table.assign(pair="0-2", value=table.value**2)])
    assert depth.last_step(both) == pytest.approx({"0-1": 0.3, "0-2": 0.36 - 0.09})


# --- correspondence ----------------------------------------------------------------------------------


def test_a_perfect_hierarchy_has_the_best_statistics():
    gaps = np.abs(np.arange(6)[:, None] - np.arange(6))
    assert correspondence.statistics(-gaps) == pytest.approx(
        dict(zip(correspondence.STATISTICS, (1, 1, 1, 0), strict=True))
    )


def test_the_statistics_of_a_small_matrix_are_those_counted_by_hand():
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.7], [0.1, 0.2, 0.6]])
    # Rows find 0, 0, 2 (wanted 0, 1, 2), columns 0, 1, 1; ranks of the wanted are 1, 3, 1 and 1, 1, 2.
    expected = (4 / 6, 1, (1 + 3 + 1 + 1 + 1 + 2) / 6, (0.5 + 0.5) / 6)
    assert list(correspondence.statistics(scores).values()) == pytest.approx(expected)


@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 50))
def test_ranks_are_what_counting_the_better_layers_gives(n_a, n_b, seed):
    scores = np.random.default_rng(seed).normal(size=(n_a, n_b))
    ranks = [
        1 + sum(row > row[target]) for row, target in zip(scores, populations.corresponding(n_a, n_b), strict=True)
    ]
    ranks += [1 + sum(c > c[t]) for c, t in zip(scores.T, populations.corresponding(n_b, n_a), strict=True)]
    assert correspondence.statistics(scores)["rank of the corresponding layer"] == pytest.approx(np.mean(ranks))


@pytest.mark.parametrize(("n_a", "n_b"), [(6, 6), (6, 9), (2, 5)])
def test_chance_is_what_random_matrices_and_random_orders_give(n_a, n_b):
    rng, expected = np.random.default_rng(0), correspondence.chance(n_a, n_b)
    random = pd.DataFrame([correspondence.statistics(rng.normal(size=(n_a, n_b))) for _ in range(3000)])
    assert random.mean().to_dict() == pytest.approx(expected, abs=0.03)
    ordered = np.subtract.outer(np.linspace(0, 1, n_a), np.linspace(0, 1, n_b))
    orders = correspondence.permuted({("a", "b"): -np.abs(ordered) + 1e-6 * rng.random((n_a, n_b))}, 2000)
    assert orders.mean().to_dict() == pytest.approx(expected, abs=0.04)


def test_a_network_has_one_order_in_all_its_pairs():
    scores = {pair: -np.abs(np.subtract.outer(np.arange(5), np.arange(5))) for pair in combinations("abc", 2)}
    same = correspondence.permuted({("a", "b"): scores["a", "b"], ("a ", "b "): scores["a", "b"]}, 200)
    assert len(correspondence.permuted(scores, 50)) == 50
    # One network against itself: whatever the order, both sides have it, so that nothing is lost.
    own = correspondence.permuted({("a", "a"): scores["a", "b"]}, 20)
    assert own["best match corresponds"].tolist() == [1.0] * 20
    assert same["best match corresponds"].mean() < 0.5


def test_p_is_large_for_random_layers_and_small_for_a_hierarchy():
    rng = np.random.default_rng(0)

    def table(make):
        rows = [
            ("n", f"{i}-{j}", "procrustes", f"l{a}", f"l{b}", a / 5, b / 5, make(a, b))
            for i, j in combinations(range(4), 2)
            for a in range(6)
            for b in range(6)
        ]
        names = ["architecture", "pair", "metric", "layer_a", "layer_b", "depth_a", "depth_b", "value"]
        return pd.DataFrame(rows, columns=names)

    noise = correspondence.against_chance(table(lambda a, b: rng.normal()), 199)
    real = correspondence.against_chance(table(lambda a, b: -abs(a - b) + 0.1 * rng.normal()), 199)
    assert (noise.p > 0.01).all()
    assert (real.p == 1 / 200).all()
    assert real.value.tolist() == pytest.approx([1, 1, 1, 0])
    assert (real.n_pairs == 6).all()


def test_single_pairs_come_with_the_chance_level_of_their_size(small):
    members, acts = small
    table = populations.all_layers(
        populations.pairs(members, True), acts, ["cka"], positions=P, nulls=0, progress=False
    )
    found = correspondence.conditions(table.assign(state="trained"))
    assert set(found.pair) == {"three x five 0-0", "three x five 1-1"}
    values = found.set_index("condition").value
    expected = correspondence.chance(3, 5)["best match corresponds"]
    assert values["two architectures, cka, trained: chance"].tolist() == pytest.approx([expected] * 2)
    first = correspondence.matrix(table[table.pair == "0-0"]).to_numpy()
    share = values["two architectures, cka, trained: best match corresponds"].iloc[0]
    assert share == correspondence.statistics(first)["best match corresponds"]
    # Only a share of one exceeds "all but one": eight layers look for a match.
    assert values["two architectures, cka, trained: all but one match"].tolist() == [7 / 8] * 2


def test_neighbours_are_the_diagonal_and_what_is_beside_it(small):
    members, acts = small
    found = correspondence.neighbours(populations.pairs(members)[:1], acts, "procrustes", P)
    a, b = acts["three 0"], acts["three 1"]
    both = lambda x, y: np.mean([metrics.procrustes(x, y, positions=P), metrics.procrustes(y, x, positions=P)])  # noqa: E731
    values = found.set_index(["what", "layer"]).value
    assert values["same layer, other network", "l2"] == pytest.approx(both(a["l2"], b["l2"]))
    own = (both(a["l0"], a["l1"]) + both(b["l0"], b["l1"])) / 2
    assert values["next layer, same network", "l0"] == pytest.approx(own)
    other = (both(a["l1"], b["l2"]) + both(b["l1"], a["l2"])) / 2
    assert values["next layer, other network", "l1"] == pytest.approx(other)
    assert ("next layer, same network", "l2") not in values.index


def test_neighbours_across_architectures_are_layers_of_the_first_and_what_corresponds_to_them(small):
    members, acts = small
    one, other = populations.pairs(members, across=True)[0]
    found = correspondence.neighbours([(one, other)], acts, "procrustes", P)
    mine, theirs = list(acts[one.name]), list(acts[other.name])
    at = populations.corresponding(len(mine), len(theirs))
    assert list(found.layer.unique()) == mine
    both = lambda x, y: np.mean([metrics.procrustes(x, y, positions=P), metrics.procrustes(y, x, positions=P)])  # noqa: E731
    values = found.set_index(["what", "layer"]).value
    a, b = acts[one.name], acts[other.name]
    for i, layer in enumerate(mine):
        expected = both(a[layer], b[theirs[at[i]]])
        assert values["same layer, other network", layer] == pytest.approx(expected)
    assert values["next layer, same network", mine[0]] == pytest.approx(both(a[mine[0]], a[mine[1]]))
    assert values["next layer, other network", mine[0]] == pytest.approx(both(a[mine[0]], b[theirs[at[1]]]))


# --- figures -----------------------------------------------------------------------------------------


@pytest.fixture
def _style():
    plots.use_style()
    yield
    plt.close("all")


def test_order_is_one_for_a_hierarchy_of_any_shape_and_turns_with_the_layers():
    near = -np.abs(np.linspace(0, 1, 5)[:, None] - np.linspace(0, 1, 9))
    assert correspondence.order(near) == pytest.approx(1, abs=0.03)  # nine places among five: ties
    assert correspondence.order(near[::-1]) == pytest.approx(-correspondence.order(near))
    late = -np.abs(np.linspace(0, 1, 8)[:, None] ** 3 - np.linspace(0, 1, 8))  # late in the one, early in the other
    assert correspondence.statistics(late)["best match corresponds"] < 0.5
    assert correspondence.order(late) > 0.9
    same_for_all = np.tile(np.arange(4.0), (3, 1))
    assert correspondence.order(same_for_all) == 0


def test_one_random_order_in_twenty_keeps_more_of_it_than_the_least_that_is_told_from_none():
    rng = np.random.default_rng(0)
    scores = -np.abs(np.linspace(0, 1, 6)[:, None] - np.linspace(0, 1, 8)) + 0.1 * rng.standard_normal((6, 8))
    least = correspondence.least_order(scores, n=2_000)
    drawn = [correspondence.order(scores[np.ix_(rng.permutation(6), rng.permutation(8))]) for _ in range(2_000)]
    assert np.mean(np.array(drawn) > least) == pytest.approx(0.05, abs=0.02)
    assert correspondence.order(scores) > least


def test_resolutions_are_where_an_architecture_halves_its_maps():
    assert list(correspondence.resolutions("cnn6").items())[1:4] == [("layer2", 32), ("layer3", 16), ("layer4", 16)]
    assert list(correspondence.resolutions("alexnet").values()) == [32, 16, 8, 8, 8, 1, 1]


def test_best_matches_at_one_resolution_are_counted_in_both_networks():
    a, b = correspondence.resolutions("cnn6"), correspondence.resolutions("alexnet")
    rows = [
        ("cnn6 x alexnet", "0-0", "m", la, lb, i, j, float(ra == rb) + 0.01 * (j == 6))
        for i, (la, ra) in enumerate(a.items())
        for j, (lb, rb) in enumerate(b.items())
    ]
    names = ["architecture", "pair", "metric", "layer_a", "layer_b", "depth_a", "depth_b", "value"]
    [found] = correspondence.at_same_resolution(pd.DataFrame(rows, columns=names)).itertuples()
    # All six of the one network have a fellow; of the other, its two layers without a map have none.
    assert found.share == pytest.approx((6 + 5) / 13)
    assert found.chance == pytest.approx((2 * 1 / 7 + 2 * 1 / 7 + 2 * 3 / 7 + 2 / 6 + 2 / 6 + 3 * 2 / 6) / 13)


@pytest.mark.usefixtures("_style")
def test_marks_of_a_matrix_lie_on_its_maxima():
    scores = pd.DataFrame(np.random.default_rng(0).random((4, 6)), index=list("abcd"), columns=list("uvwxyz"))
    figure = plots_depth.matrices({"procrustes": {"one x other": scores}})
    dots, *rings = (c for c in figure.axes[0].collections if isinstance(c, PathCollection))
    assert dots.get_offsets().tolist() == [[scores.to_numpy()[i].argmax(), i] for i in range(4)]
    for ring in rings:
        assert ring.get_offsets().tolist() == [[j, scores.to_numpy()[:, j].argmax()] for j in range(6)]
    assert len(rings) == 2


@pytest.mark.usefixtures("_style")
def test_a_line_goes_through_the_means_over_pairs_and_its_band_is_the_interval(small):
    members, acts = small
    table = populations.same_layers(populations.pairs(members), acts, positions=P, nulls=2, progress=False)
    table = table[table.architecture == "three"]
    figure = plots_depth.by_layer({"three": table}, "metric", plots_depth.METRICS)
    line, chance = figure.axes[0].lines[:2]
    rows = table[table.metric == "linear"]
    np.testing.assert_allclose(line.get_ydata(), rows.groupby("layer").value.mean())
    np.testing.assert_allclose(chance.get_ydata(), rows.groupby("layer").chance.mean())
    expected = populations.summary(rows, ["layer"])
    heights = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(expected.low.min())
    assert heights.max() == pytest.approx(expected.high.max())


@pytest.mark.usefixtures("_style")
def test_the_figure_of_statistics_shows_value_and_chance_of_each(small):
    members, acts = small
    table = populations.all_layers(
        populations.pairs(members), acts, ["procrustes"], positions=P, nulls=0, progress=False
    )
    found = correspondence.against_chance(table, 19)
    figure = plots_depth.tests(found.assign(row=found.architecture))
    first = figure.axes[0]
    shown = found[found.statistic == "best match corresponds"]
    np.testing.assert_allclose(np.asarray(first.lines[0].get_xdata(), float), shown.value)
    [chances] = [c for c in first.collections if isinstance(c, PathCollection)]
    np.testing.assert_allclose(np.asarray(chances.get_offsets(), float)[:, 0], shown.chance)


@pytest.mark.usefixtures("_style")
def test_the_table_of_architectures_says_each_share_once_in_its_place():
    rows = [("one", 0.9), ("one x two", 0.4), ("two", 0.8), ("three x two", 0.3)]
    statistics = list(correspondence.STATISTICS)
    table = pd.DataFrame(
        [(kind, "procrustes", s, value + 0.05 * (s == statistics[1]), 0.2) for kind, value in rows for s in statistics],
        columns=["architecture", "metric", "statistic", "value", "chance"],
    )
    exact, near = plots_depth.architectures(table).axes[:2]
    said = {text.get_position(): text.get_text() for text in exact.texts}
    assert said == {(0, 0): "0.90\n(0.20)", (0, 1): "0.40\n(0.20)", (1, 1): "0.80\n(0.20)", (1, 2): "0.30\n(0.20)"}
    assert [label.get_text() for label in exact.get_yticklabels()] == ["one", "two", "three"]
    field = near.images[0].get_array()
    assert field[1, 0] == pytest.approx(0.45)
    assert field.mask[2, 0], "one and three were not compared"
