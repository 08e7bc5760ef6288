"""Networks with a known relation: alignment recognises a rotated copy; truncation and redrawing do what they say."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tiny
from convergent import encoding_activations as activations
from convergent import encoding_networks as members
from convergent import encoding_similarity as es
from convergent import encoding_truncation as truncation
from convergent import networks
from convergent import weight_covariances as wc
from strategies import orthogonal

smoke = pytest.mark.smoke
IMAGES = torch.randint(0, 256, (60, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def learned_network(seed=0, width=0.25, spikes=3, strength=6.0):
    """A factorised network into whose layers a few directions were planted, as if learned; batch norm has averages."""
    network = networks.load("factorised_vgg", 3, width, seed=seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in es.layers(network):
            weight = network.get_submodule(f"{layer}.pointwise").weight
            n_out, n_in = weight.shape[:2]
            directions = torch.linalg.qr(torch.randn(n_in, spikes, generator=random))[0]
            amounts = strength * torch.randn(n_out, spikes, generator=random) * math.sqrt(n_in / n_out / 3 / n_in)
            weight += (amounts @ directions.T).view_as(weight) * math.sqrt(2)
        network.train()(IMAGES)
    return network.eval()


class Turned(nn.Module):
    """A module whose output channels are rotated."""

    def __init__(self, part, rotation):
        super().__init__()
        self.part, self.rotation = part, rotation

    def forward(self, x):
        return torch.einsum("ij,njhw->nihw", self.rotation, self.part(x))


def rotated_copy(network, seed=1):
    """The same function with the inputs of every layer in other axes, and the rotations (C_in, C_in)."""
    network, rotations = copy.deepcopy(network), {}
    for layer in es.layers(network):
        block = network.get_submodule(layer)
        n_in = block.pointwise.in_channels
        rotation = torch.from_numpy(orthogonal(np.random.default_rng(seed), n_in)).float()
        block.norm = Turned(block.norm, rotation)
        with torch.no_grad():
            block.pointwise.weight.copy_((block.pointwise.weight.flatten(1) @ rotation.T).view(-1, n_in, 1, 1))
        rotations[layer] = rotation.double()
    return network, rotations


@pytest.fixture(scope="module")
def copies():
    network = learned_network()
    other, rotations = rotated_copy(network)
    return {"one": network, "copy": other}, rotations


# --- alignment and similarity ------------------------------------------------------------------------


@smoke
def test_a_rotated_copy_is_the_same_network_in_other_axes(copies):
    nets, _ = copies
    torch.testing.assert_close(nets["one"](IMAGES), nets["copy"](IMAGES), atol=1e-3, rtol=1e-3)


@smoke
def test_alignment_with_a_rotated_copy_recovers_the_rotation(copies):
    nets, rotations = copies
    found = es.align(es.input_moments(nets, IMAGES, [("one", "copy")])["one", "copy"])
    for layer, rotation in rotations.items():
        covariance = es.input_moments({"one": nets["one"]}, IMAGES, [("one", "one")])["one", "one"][layer].cross
        values, vectors = torch.linalg.eigh(covariance)
        off = found[layer] - rotation
        assert float(((off @ covariance) * off).sum()) < 1e-4 * float(values.sum()), layer
        seen = vectors[:, values > 1e-3 * values[-1]]  # a direction without variance cannot be aligned
        torch.testing.assert_close(found[layer] @ seen, rotation @ seen, atol=2e-2, rtol=0)


def test_a_rotated_copy_has_the_same_weights_when_aligned_and_unrelated_ones_otherwise(copies):
    nets, _ = copies
    table = es.compare(nets, IMAGES, progress=False).similarities.set_index(["layer", "condition"])
    for layer in es.layers(nets["one"]):
        aligned, other = table.loc[(layer, es.ALIGNED)], table.loc[(layer, es.UNALIGNED)]
        assert aligned.inputs == pytest.approx(1, abs=1e-3)
        # The last two layers have 240 positions for 320 inputs: a quarter of the axes cannot be aligned.
        least = 0.9 if layer < "layer5" else 0.7
        assert aligned.cosine > least, layer
        assert aligned.value > least, layer
        assert other.value < 0.35, layer


@smoke
def test_moments_do_not_depend_on_the_batches(copies):
    nets, _ = copies
    whole, parts = (es.input_moments(nets, IMAGES, [("one", "copy")], size)["one", "copy"] for size in (60, 7))
    for layer, one in whole.items():
        torch.testing.assert_close(one.cross, parts[layer].cross, atol=1e-4, rtol=1e-4)
        assert one.power == pytest.approx(parts[layer].power, rel=1e-5)


@smoke
def test_moments_are_those_of_all_positions():
    network = learned_network()
    with torch.no_grad():
        phi = network.layer1.norm(network.layer1.responses(network.normalise(IMAGES)))
    rows = phi.permute(0, 2, 3, 1).reshape(-1, phi.shape[1]).double()
    found = es.input_moments({"one": network}, IMAGES, [("one", "one")])["one", "one"]["layer1"]
    torch.testing.assert_close(found.cross, rows.T @ rows / len(rows), atol=1e-5, rtol=1e-5)


@smoke
def test_networks_of_different_widths_are_compared_and_have_no_unaligned_row():
    nets = {"narrow": learned_network(0, 0.25), "wide": learned_network(1, 0.375)}
    table = es.compare(nets, IMAGES[:20], progress=False).similarities
    assert np.isfinite(table[["value", "error", "cosine", "inputs"]]).all(axis=None)
    assert set(table[table.condition == es.UNALIGNED].layer) == {"layer1"}  # whose inputs are the colours


@smoke
def test_untrained_networks_have_learned_next_to_nothing_and_nothing_is_nan():
    nets = {str(seed): networks.load("factorised_vgg", 3, 0.25, seed=seed) for seed in range(2)}
    encoded = {name: es.encode(network, draws=3) for name, network in nets.items()}
    told = es.dimensions(encoded)
    assert told.learned.max() <= 2  # the largest eigenvalue of noise may just exceed the edge
    assert told.random.to_numpy() == pytest.approx(told.expected.to_numpy(), rel=0.25)
    table = es.compare(nets, IMAGES[:10], encoded, progress=False).similarities
    assert np.isfinite(table.drop(columns=["a", "b", "layer", "condition"])).all(axis=None)
    assert np.isfinite(es.ceilings(encoded, draws=2)[["value", "spread"]]).all(axis=None)


@smoke
def test_a_network_without_pointwise_layers_is_refused():
    with pytest.raises(ValueError, match="factorised_vgg"):
        es.layers(networks.load("cnn6"))


@smoke
def test_agreement_is_the_rank_up_to_which_most_eigenvectors_have_a_partner():
    axes = torch.eye(400, 6, dtype=torch.float64)
    one = wc.Covariance(torch.arange(6.0, 0, -1).double(), axes, 50)
    mixed = axes.clone()
    mixed[:, 3:] = torch.eye(400, dtype=torch.float64)[:, 10:13]  # the last three have no partner
    other = one._replace(vectors=mixed)
    assert es.agreement(one, one) == 6
    assert es.agreement(one, other) == 5  # three of five are most, three of six are not
    assert es.agreement(one, one._replace(values=one.values[:0], vectors=axes[:, :0])) == 0
    swapped = one._replace(vectors=axes[:, [1, 0, 2, 3, 5, 4]].contiguous())
    assert es.agreement(one, swapped) == 6  # ranks may change places
    few = wc.Covariance(torch.ones(1, dtype=torch.float64), torch.eye(16, 1, dtype=torch.float64), 50)
    for cosine, rank in ((0.6, 1), (0.4, 0)):  # five base levels of 16 inputs would be more than one
        vector = torch.eye(16, 2, dtype=torch.float64) @ torch.tensor([[cosine], [(1 - cosine**2) ** 0.5]]).double()
        assert es.agreement(few, few._replace(vectors=vector)) == rank


@smoke
def test_cosines_by_rank_are_a_row_for_each_layer_and_rank(copies):
    nets, _ = copies
    encoded = es.encode(nets["one"], draws=2)
    table = es.cosines({layer: one.learned for layer, one in encoded.items()}, encoded, n=4)
    assert len(table) == 4 * 6
    first = table[(table.layer == "layer2") & (table["rank"] == 1)].iloc[0]
    assert first.c1 == pytest.approx(1)
    assert first.base == pytest.approx(80**-0.5)


# --- truncation --------------------------------------------------------------------------------------


@smoke
def test_all_directions_leave_a_network_as_it_is_and_both_parts_add_up():
    network = learned_network()
    whole = truncation.truncated(network, {"layer2": 10_000})
    torch.testing.assert_close(es.neurons(whole, "layer2"), es.neurons(network, "layer2"), atol=1e-6, rtol=1e-4)
    parts = [truncation.truncated(network, {"layer3": 5}, part) for part in (truncation.LEADING, truncation.OTHERS)]
    torch.testing.assert_close(sum(es.neurons(p, "layer3") for p in parts), es.neurons(network, "layer3"))
    assert np.linalg.matrix_rank(es.neurons(parts[0], "layer3").numpy(), tol=1e-5) == 5
    with pytest.raises(ValueError, match="rank -1"):
        truncation.truncated(network, {"layer2": -1})


@smoke
def test_running_from_a_layer_on_is_running_the_network():
    network = learned_network()
    given = truncation.upto(network, IMAGES)
    for layer in es.layers(network):
        torch.testing.assert_close(truncation.rest(network, layer, given[layer]), network(IMAGES), atol=1e-4, rtol=1e-4)


@smoke
def test_retuned_averages_are_those_of_the_images_that_were_given():
    network = learned_network()
    given = truncation.upto(network, IMAGES)
    changed = truncation.retune(truncation.truncated(network, {"layer3": 2}), "layer3", given["layer3"])
    assert torch.equal(changed.layer2.norm.running_mean, network.layer2.norm.running_mean)
    after = {}
    changed.layer4.norm.register_forward_hook(lambda m, i, o: after.update(z=o))
    truncation.rest(changed, "layer3", given["layer3"])
    assert after["z"].mean((0, 2, 3)).abs().max() < 1e-3


@smoke
def test_the_curve_ends_at_the_untouched_networks_accuracy():
    network, data = learned_network(), tiny.dataset(n_test=60)
    agreed = dict.fromkeys(es.layers(network), 10_000)
    table = truncation.curves(network, data.test, IMAGES, [1, 1000], agreed, single=["layer1"])
    whole = table[(table["rank"] == -1) & ~table.agreed].accuracy.iloc[0]
    kept = table[table.agreed & (table.part == truncation.LEADING) & (table.normalisation == truncation.KEPT)]
    assert kept.accuracy.item() == pytest.approx(whole, abs=0.02)
    assert set(table[table.layer == "layer1"]["rank"]) == {1}
    shares = truncation.above_guessing(table.assign(network="n"), guess=0.0)
    assert set(shares.condition) == {"agreed ranks", "agreed ranks, not retuned", "the other ranks", "nine tenths"}


# --- activations -------------------------------------------------------------------------------------


def test_redrawn_neurons_of_the_learned_covariance_align_outputs_better_than_random_ones(copies):
    """Where few directions were planted strongly, and both networks have the same: a rotated copy."""
    nets, _ = copies
    encoded = {name: es.encode(network, draws=2) for name, network in nets.items()}
    found = activations.sources(nets, encoded, IMAGES, [("one", "copy")], nulls=1)
    value = found[found.metric == "cka"].groupby("condition").value.mean()
    assert value[activations.OUTPUTS] == pytest.approx(1, abs=1e-3)
    assert value[activations.INPUTS] == pytest.approx(1, abs=1e-3)
    assert value[activations.LEARNED] > value[activations.FRESH]


@smoke
def test_steps_to_look_at_have_both_ends():
    assert activations.some_steps([0, 1, 2, 4, 8, 16, 100, 200, 300], 4)[::3] == [0, 300]


# --- which networks ----------------------------------------------------------------------------------


def member(name, task, seed):
    return members.Member(name, task, seed, None, 0.5, 0.5, 0.1, 10)


@smoke
def test_networks_that_began_with_the_same_weights_are_not_compared():
    everyone = [member("t0", "cave", 0), member("t1", "cave", 1), member("r1", members.RANDOM, 1)]
    everyone += [member("o0", "CIFAR-10", 0), member("own a", members.OWN, None), member("own b", members.OWN, None)]
    found = members.pairs(everyone)
    own = [(name, f"own {letter}") for name in ("t0", "t1", "o0") for letter in "ab"]
    assert sorted(found) == sorted([("t0", "t1"), ("t0", "r1"), ("t1", "o0"), *own, ("own a", "own b")])
    table = members.kinds(pd.DataFrame(found, columns=["a", "b"]), everyone).set_index(["a", "b"])
    assert table.role["t0", "t1"] == members.SAME
    assert table.role["t0", "r1"] == members.TRUE_RANDOM
    assert table.role["t1", "o0"] == members.ACROSS
    assert table.role["own a", "own b"] == members.OWN
    assert table.kind["t1", "o0"] == "cave × CIFAR-10"


def named(*files):
    return ",".join(f"checkpoint:{file}?architecture=factorised_vgg" for file in files)


@smoke
def test_own_checkpoints_are_read_and_their_width_is_read_off(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        save_file(networks.load("factorised_vgg", 7, 0.25).state_dict(), tmp_path / name)
    found = members.own(named(tmp_path / "a.safetensors", tmp_path / "b.safetensors"))
    assert [one.name for one in found] == ["your own, a", "your own, b"]
    assert found[0].n_classes == 7
    assert found[0].network.layer1.pointwise.weight.shape[0] == 8
    assert members.own("") == []


@smoke
def test_wrong_checkpoints_are_refused_before_any_work(tmp_path):
    other, text = tmp_path / "cnn6.safetensors", tmp_path / "text.safetensors"
    save_file(networks.load("cnn6").state_dict(), other)
    text.write_text("no tensors")
    with pytest.raises(ValueError, match="names 1: give two"):
        members.check_own("one")
    with pytest.raises(ValueError, match="which this chapter cannot take.*Chapter 9 takes any"):
        members.check_own("cnn6,resnet18")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        members.check_own(named(tmp_path / "one", tmp_path / "two"))
    with pytest.raises(ValueError, match="is it this architecture"):
        members.check_own(named(other, other))
    with pytest.raises(ValueError, match="safetensors"):
        members.check_own(named(text, text))
    with pytest.raises(ValueError, match="cifar10"):
        members.check_others("cifar11")
