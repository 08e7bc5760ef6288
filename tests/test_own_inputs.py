"""Networks and activations of the reader's own: what they stand for, and one clear message for what cannot work."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convergent import (
    depth,
    layer_choice,
    named_networks,
    networks,
    own_activations,
    own_networks,
    populations,
    representations,
    survey,
    under_shift,
)
from tiny import assert_same_weights, dataset

pytestmark = pytest.mark.smoke

FILE = """
import torch
from torch import nn
from torch.nn.functional import batch_norm, dropout

open({witness!r}, "a").write("ran")


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Net(nn.Module):
    def __init__(self, change=None):
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()
        self.block1 = nn.Sequential(nn.Conv2d(8, 6, 3, 2, 1), nn.ReLU())
        self.block2 = Pair() if change == "tuple" else nn.Identity()
        self.alias = self.block1 if change == "alias" else None
        self.last, self.change = nn.Conv2d(6, 4, 3, 2, 1), change
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        assert x.dtype == torch.float32 and 0 <= x.min() and x.max() <= 1, "images in [0, 1]"
        x = self.block1(self.act(self.stem(x)))
        x = self.act(x) if self.change == "shared" else x
        x = dropout(x) if self.change == "dropout" else x
        x = batch_norm(x, None, None, training=True) if self.change == "batch" else x
        x = self.block2(x)
        return self.last(x[0] if isinstance(x, tuple) else x)


def make():
    return Net()


def large():
    network = Net()
    network.stem, network.input_size = nn.Conv2d(3, 8, 50), 64
    return network


def unprepared():
    return nn.Sequential(nn.Conv2d(3, 8, 50), nn.Conv2d(8, 4, 1))


def own_start(pretrained=True):
    torch.manual_seed(5 if pretrained else 6)
    return Net()


def unrestartable():
    network = Net()
    network.token = nn.Parameter(torch.ones(1))
    return network


def broken():
    return Net(1 / 0)


def wants(something):
    return Net()


def words():
    return "a network"


def weights_gone():
    network = Net()
    network.last.weight.data.fill_(float("nan"))
    return network


tuples, alias, shared = (lambda: Net("tuple")), (lambda: Net("alias")), (lambda: Net("shared"))
dropped, batched = (lambda: Net("dropout")), (lambda: Net("batch"))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(witness=str(tmp_path / "witness")))
    return path


def rows(n=40, widths=(6, 8, 5), seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 4))
    noise = np.random.default_rng(seed + 1)
    return {f"l{i}": shared @ noise.normal(size=(4, k)) + noise.normal(size=(n, k)) for i, k in enumerate(widths)}


def npz(path, **arrays):
    np.savez(path, **arrays)
    return f"activations:{path}"


# --- weights of a known architecture ---------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "width"), [("cnn6", 0.3), ("resnet18", 0.125), ("alexnet", 0.11)])
def test_width_and_classes_are_read_from_the_file(tmp_path, architecture, width):
    network = networks.load(architecture, n_classes=7, width=width, seed=1)
    save_file({f"module.{key}": value for key, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    again = networks.load(f"checkpoint:{tmp_path / 'w.safetensors'}?architecture={architecture}")
    assert_same_weights(network.state_dict(), again.state_dict())
    assert not again.training


def test_a_checkpoint_of_another_package_keeps_its_number_of_classes(tmp_path):
    network = networks.bare("torchvision:squeezenet1_1").state_dict()
    save_file(network, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="a last linear layer, which tells the number of classes"):
        networks.load(f"checkpoint:{tmp_path / 'w.safetensors'}?architecture=torchvision:squeezenet1_1")
    network = networks.bare("torchvision:shufflenet_v2_x0_5", 12).state_dict()
    save_file(network, tmp_path / "w.safetensors")
    again = networks.load(f"checkpoint:{tmp_path / 'w.safetensors'}?architecture=torchvision:shufflenet_v2_x0_5")
    assert_same_weights(network, again.state_dict())
    assert again.input_size == 224


def test_a_checkpoint_has_an_untrained_twin_of_the_same_size(tmp_path):
    network = networks.load("cnn6", n_classes=5, width=0.25, seed=1)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    [member] = named_networks.gather(f"checkpoint:{tmp_path / 'w.safetensors'}?architecture=cnn6", dataset())
    assert member.name == "checkpoint:cnn6 0"
    assert_same_weights(member.untrained.state_dict(), networks.load("cnn6", 5, 0.25, seed=0).state_dict())


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "say which architecture"),
        ("?architecture=cnn7", "Did you mean 'cnn6'"),
        ("?architecture=python:a.py:f", "say which architecture"),
        ("?architecture=alexnet", "is it this architecture"),
        ("?architecture=torchvision:resnet18", "the file has no fc.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, query, says):
    save_file(networks.load("cnn6", width=0.1).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=says):
        networks.load(f"checkpoint:{tmp_path / 'w.safetensors'}{query}")


def test_a_pickle_is_never_opened(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"w.pt is a pickle.*safetensors.torch.save_file"):
        networks.check(f"checkpoint:{tmp_path / 'w.pt'}?architecture=cnn6")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        networks.check(f"checkpoint:{tmp_path / 'none.safetensors'}?architecture=cnn6")


# --- functions in Python files ---------------------------------------------------------------------


def test_code_of_the_reader_runs_when_a_network_is_loaded_and_not_when_it_is_named(file, tmp_path, capsys):
    named_networks.check(f"python:{file}:make,cnn6")
    members = named_networks.gather(f"python:{file}:make", dataset())
    assert not (tmp_path / "witness").exists()
    assert members[0].network(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).shape == (1, 4, 2, 2)
    assert f"Running the code in {file}" in capsys.readouterr().out
    _ = named_networks.gather(f"python:{file}:large", dataset())[0].network
    assert (tmp_path / "witness").read_text() == "ran", "once for each content of the file"


def test_a_network_of_a_file_is_enlarged_to_filled_and_started_anew(file, tmp_path):
    [large] = named_networks.gather(f"python:{file}:large", dataset())
    assert large.network(torch.zeros(1, 3, 16, 16)).shape[0] == 1
    state = {
        key: torch.full_like(value, 0.5) for key, value in networks.load(f"python:{file}:make").state_dict().items()
    }
    save_file(state, tmp_path / "w.safetensors")
    [filled] = named_networks.gather(f"python:{file}:make?weights={tmp_path / 'w.safetensors'}", dataset())
    assert_same_weights(filled.network.state_dict(), state)
    one, same = (own_networks.load(f"python:{file}:make", seed=3, trained=False).state_dict() for _ in range(2))
    assert_same_weights(one, same)
    assert not torch.equal(one["stem.weight"], filled.untrained.state_dict()["stem.weight"])
    [own] = named_networks.gather(f"python:{file}:own_start", dataset())
    assert not torch.equal(own.network.stem.weight, own.untrained.stem.weight)


def test_a_network_that_cannot_be_started_anew_has_no_untrained_twin(file):
    [member] = named_networks.gather(f"python:{file}:unrestartable", dataset())
    assert member.has("network")
    assert not member.has("untrained")
    with pytest.raises(ValueError, match="give unrestartable an argument `pretrained`"):
        _ = member.untrained
    assert populations.activations([member], dataset().test.images, "untrained") == {}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("mak", "has no function 'mak'. Did you mean 'make'"),
        ("broken", "ZeroDivisionError: division by zero"),
        ("wants", "missing 1 required positional argument.*called without arguments"),
        ("words", "gives str, not a torch.nn.Module"),
        ("unprepared", "cannot be shown images of 32 by 32 pixels.*input_size"),
        ("tuples", "layer 'block2' gives a tuple, not a tensor.*Choose a layer inside it"),
        ("dropped", "answers the same image differently each time.*Is dropout left on"),
        ("batched", "depends on the other images beside it"),
        ("shared", "'act' is one module that runs 2 times in one pass"),
        ("weights_gone", "layer 'last' gives numbers that are not finite"),
    ],
)
def test_a_network_that_cannot_be_read_is_answered_with_what_is_wrong(file, function, says):
    everything = "stem,act,block1,block2,last"
    with pytest.raises(ValueError, match=says):
        survey.survey(f"python:{file}:{function},cnn6", "" if function == "unprepared" else f"{everything},layer*")


def test_layers_that_share_a_module_or_do_not_run_are_refused(file):
    with pytest.raises(ValueError, match="layers 'block1' and 'alias' are one module"):
        survey.survey(f"python:{file}:alias,cnn6", "block1,alias,layer*")
    with pytest.raises(ValueError, match="layer 'spare' does not run"):
        survey.survey(f"python:{file}:make,cnn6", "stem,spare,layer*")


def test_a_file_that_is_no_python_is_refused_unrun(tmp_path):
    (tmp_path / "bad.py").write_text("def make(:\n")
    with pytest.raises(ValueError, match="is not a Python file that can be read"):
        networks.check(f"python:{tmp_path / 'bad.py'}:make")
    with pytest.raises(ValueError, match="name a file and a function"):
        networks.check(f"python:{tmp_path / 'bad.py'}")


# --- activations -----------------------------------------------------------------------------------


def test_files_of_activations_are_networks_of_one_kind_where_their_layers_are_the_same(tmp_path, capsys):
    labels = np.arange(40) % 4
    first = npz(tmp_path / "a.npz", **rows(), labels=labels)
    second, other = npz(tmp_path / "b.npz", **rows(seed=1)), npz(tmp_path / "c.npz", **rows(widths=(6, 8)))
    listed = ",".join([first, second, other])
    members = named_networks.gather(listed, dataset())
    assert [m.name for m in members] == ["activations:a 0", "activations:a 1", "activations:c 0"]
    assert [[a.name, b.name] for a, b in populations.matched(members)] == [
        ["activations:a 0", "activations:a 1"],
        ["activations:a 0", "activations:c 0"],
    ]
    chosen = survey.survey(listed, left_out="what needs a network")
    assert chosen == {"activations:a": ["l0", "l1", "l2"], "activations:c": ["l0", "l1"]}
    said = capsys.readouterr().out
    assert "activations:a: 2 networks, 3 layers (l0 … l2, 5 to 8 units), 40 stimuli; 4 classes; left out: what" in said
    stimuli = named_networks.stimuli(members, dataset(), 30)
    assert (len(stimuli), stimuli.places, stimuli.images) == (40, 1, None)
    np.testing.assert_array_equal(stimuli.labels, labels)
    acts = populations.activations(members, None, layers=chosen)
    np.testing.assert_array_equal(acts["activations:a 0"]["l1"], rows()["l1"].astype(np.float32))
    with pytest.raises(ValueError, match="there is no network that could be shown images"):
        _ = members[0].network


def test_what_needs_networks_or_labels_is_left_out_for_activations(tmp_path):
    listed = f"{npz(tmp_path / 'a.npz', **rows())},{npz(tmp_path / 'b.npz', **rows(seed=1))}"
    members = named_networks.gather(listed, dataset())
    stimuli = named_networks.stimuli(members, dataset(), 30)
    assert stimuli.labels is None
    assert len(stimuli) == 40
    acts, who = populations.activations(members, None), populations.matched(members)
    before = populations.activations(members, None, "untrained")
    empty = populations.both_ways(populations.same_layers(who, before, progress=False))
    full = populations.both_ways(populations.same_layers(who, acts, nulls=0, progress=False))
    assert len(empty) == 0
    assert list(empty) == list(full)
    assert set(depth.structure(members, acts, None).quantity) == {"effective dimension", "units"}
    assert set(depth.with_and_without_classes(who, acts, None).kept) == {depth.AS_IT_IS}


def test_beside_networks_activations_say_which_images_they_are_of(tmp_path):
    data, ids = dataset(), np.arange(47, 7, -1)
    network = networks.load("cnn6", 3, 0.1, seed=0)
    seen = representations.extract(network, data.test.images[ids], spatial="pool")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    same = npz(tmp_path / "same.npz", **seen, labels=data.test.labels[ids].numpy(), image_ids=ids)
    listed = f"checkpoint:{tmp_path / 'w.safetensors'}?architecture=cnn6,{same}"
    members = named_networks.gather(listed, data)
    stimuli = named_networks.stimuli(members, data, 10)
    acts = populations.activations(members, stimuli.images, **stimuli.reading)
    for one, other in zip(*(acts[member.name].values() for member in members), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for arrays, says in (
        ({}, "give `image_ids`, the number of each row's image among the test images"),
        ({"image_ids": ids.astype(str)}, "give `image_ids`"),
        ({"image_ids": ids + 10}, "image_ids go from 18 to 57, and Tiny has images 0 to 47"),
        ({"image_ids": ids, "labels": np.arange(40) % 2}, "do not fit the classes"),
    ):
        wrong = npz(tmp_path / "wrong.npz", **seen, **arrays)
        both = named_networks.gather(f"checkpoint:{tmp_path / 'w.safetensors'}?architecture=cnn6,{wrong}", data)
        with pytest.raises(ValueError, match=says):
            named_networks.stimuli(both, data, 10)
        if "image_ids`" in says:
            with pytest.raises(ValueError, match=says):
                survey.survey(f"cnn6,{wrong}")
        own_activations._read.cache_clear()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({**rows(), "l3": np.zeros((39, 2))}, "layers differ in stimuli"),
        ({**rows(), "l3": np.zeros((40, 2, 3, 3))}, r"average over places.*l3.reshape\(40, 2, -1\).mean\(2\)"),
        ({**rows(), "labels": np.arange(39)}, "labels has shape .39,. and the layers have 40 rows"),
        ({**rows(), "labels": np.zeros(40)}, "all labels are"),
        ({**rows(), "image_ids": np.arange(40) // 2}, "image_ids has 0 2 times"),
        ({**rows(), "image_ids": np.arange(40.0)}, "give whole numbers or text"),
        ({"labels": np.arange(40)}, "holds no layers"),
        (rows(n=12), "12 stimuli: held-out scores need 20"),
        ({"l0": np.full((40, 3), np.nan)}, "not finite"),
    ],
)
def test_a_file_that_is_no_set_of_layers_is_refused(tmp_path, arrays, says):
    listed = f"{npz(tmp_path / 'a.npz', **arrays)},{npz(tmp_path / 'b.npz', **rows())}"
    if "12 stimuli" in says:
        listed = f"{npz(tmp_path / 'a.npz', **arrays)},{npz(tmp_path / 'b.npz', **rows(n=12, seed=1))}"
    with pytest.raises(ValueError, match=f"(?i){says}"):
        survey.survey(listed)


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ({}, {"n": 39}, "a.npz has 40 rows and b.npz has 39"),
        ({"image_ids": np.arange(40)}, {"image_ids": np.arange(40)[::-1]}, "the same images in another order"),
        ({"image_ids": np.arange(40)}, {"image_ids": np.arange(1, 41)}, "other images"),
        ({"labels": np.arange(40) % 2}, {"labels": np.arange(40) % 3}, "other labels"),
    ],
)
def test_files_whose_rows_are_not_the_same_stimuli_are_refused(tmp_path, one, other, says):
    other = dict(other)
    n = other.pop("n", 40)
    listed = f"{npz(tmp_path / 'a.npz', **rows(), **one)},{npz(tmp_path / 'b.npz', **rows(n=n), **other)}"
    with pytest.raises(ValueError, match=says):
        survey.survey(listed)


def test_a_file_of_activations_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="there is no file 'none.npz'"):
        named_networks.check("activations:none.npz")
    with pytest.raises(ValueError, match="give an npz file"):
        named_networks.check("activations:acts.csv")


# --- layers ----------------------------------------------------------------------------------------


def test_layers_are_chosen_by_number_name_and_pattern():
    kinds = {"cnn6": networks.bare("cnn6", width=0.1), "file": ["a", "b.0", "b.1", "c"]}
    assert layer_choice.choose(kinds)["file"] == ["a", "b.0", "b.1", "c"]
    assert layer_choice.choose(kinds, "3") == {"cnn6": ["layer1", "layer3", "layer6"], "file": ["a", "b.1", "c"]}
    chosen = layer_choice.choose(kinds, "layer6, layer1 ,b.*,c")
    assert chosen == {"cnn6": ["layer1", "layer6"], "file": ["b.0", "b.1", "c"]}, "in the network's order"
    inside = layer_choice.choose({"cnn6": kinds["cnn6"]}, "layer?.0")["cnn6"]
    assert inside == [f"layer{i}.0" for i in range(1, 7)]


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("layer1,layr2", "no network has a layer 'layr2'. Did you mean 'layer2'"),
        ("layer1", r"leaves cnn6 with 1 layer\(s\)"),
        ("1", "look at two layers or more"),
    ],
)
def test_a_choice_that_leaves_no_curve_is_refused(choice, says):
    with pytest.raises(ValueError, match=says):
        layer_choice.choose({"cnn6": networks.bare("cnn6", width=0.1)}, choice)


def test_a_chapter_says_how_many_networks_it_needs_and_what_it_cannot_take(tmp_path):
    one = npz(tmp_path / "a.npz", **rows())
    with pytest.raises(ValueError, match="names 1 network.*compares 2 or more"):
        survey.survey(one)
    with pytest.raises(ValueError, match="this chapter cannot take: they cannot be shown shifted images"):
        named_networks.check(f"cnn6,{one}", {"activations": "they cannot be shown shifted images"})
    with pytest.raises(
        ValueError, match="use one of 'torchvision:', 'timm:', 'checkpoint:', 'python:', 'activations:'"
    ):
        named_networks.check("huggingface:vit")


def test_the_survey_of_our_own_networks_leaves_the_random_numbers_alone(capsys):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    chosen = survey.survey("cnn6,resnet18", seeds=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert chosen["cnn6"] == networks.layers(networks.bare("cnn6", width=0.1))
    assert "resnet18: 2 networks, 9 layers (stem … block8)" in capsys.readouterr().out


# --- several kinds in one chapter ------------------------------------------------------------------


def test_networks_of_several_kinds_stand_side_by_side_under_the_first_ones_names(file, tmp_path):
    data = dataset()
    save_file(networks.load("cnn6", 3, 0.1, seed=1).state_dict(), tmp_path / "w.safetensors")
    listed = f"checkpoint:{tmp_path / 'w.safetensors'}?architecture=cnn6,python:{file}:make"
    chosen = survey.survey(listed, "layer?,stem,act,last")
    members = named_networks.gather(listed, data)
    both = populations.SideBySide(members, chosen)
    assert both.layers == ["layer1", "layer3", "layer6"], "as many as the shallowest has, evenly"
    assert both.own[1] == {"layer1": "stem", "layer3": "act", "layer6": "last"}
    read = both.read(1, data.test.images, ["layer6"], spatial="pool")
    expected = representations.extract(members[1].network, data.test.images, ["last"], spatial="pool")
    np.testing.assert_array_equal(read["layer6"], expected["last"])
    assert both.some(["layer3"], 1) == [{"layer3": "layer3"}]
    fresh = both.read(0, data.test.images, ["layer1"], part="untrained")["layer1"]
    assert len(fresh) == 4 * len(data.test)
    assert not np.array_equal(fresh, both.read(0, data.test.images, ["layer1"])["layer1"])


def test_only_networks_with_the_classes_of_the_images_have_an_accuracy(file):
    split = dataset(n_classes=4).test
    sets = {"familiar": under_shift.Set(split, None, 0)}
    ours, other = networks.load("cnn6", 4, 0.1, seed=0), networks.load("cnn6", 5, 0.1, seed=0)
    linear = torch.nn.Sequential(
        networks.load(f"python:{file}:make"), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    own = [{"a": "layer1", "b": "layer6"}] * 2 + [{"a": "0.stem", "b": "2"}, {"a": "stem", "b": "last"}]
    acts, table = under_shift.responses([ours, other, linear, linear[0]], sets, own, n_classes=4)
    assert np.isnan(table.accuracy).tolist() == [False, True, False, True]
    answers = linear(split.images).argmax(1)
    assert table.accuracy[2] == (answers == split.labels).float().mean().item()
    assert {rows.shape[0] for layers in acts.values() for rows in layers.values()} == {4 * len(split)}
