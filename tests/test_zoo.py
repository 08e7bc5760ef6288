import hashlib
import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from convergent import images, networks, paths, training, zoo
from convergent.training import Recipe
from tiny import RECIPE, assert_same_weights, dataset

smoke = pytest.mark.smoke
ZOO = paths.data() / "zoo"
MANIFEST = json.loads((ZOO / "manifest.json").read_text()) if (ZOO / "manifest.json").is_file() else []


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch):
    """An empty cache and no shipped networks."""
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "data", lambda: tmp_path / "data")


@pytest.fixture
def no_training(monkeypatch):
    """A function: from its call on, training fails the test."""

    def refuse(*args, **options):
        raise AssertionError("trained although the network was there")

    return lambda: monkeypatch.setattr(training, "train", refuse)


@pytest.fixture
def trainings(monkeypatch):
    """Seeds in the order in which they are trained."""
    seeds, original = [], training.train

    def train(network, data, recipe, seed, *args, **options):
        seeds.append(seed)
        return original(network, data, recipe, seed, *args, **options)

    monkeypatch.setattr(training, "train", train)
    return seeds


def get(data=None, seeds=(0,), **options):
    defaults = {"recipe": RECIPE, "width": 0.1, "progress": False}
    return zoo.get("cnn6", data or dataset(), seeds, **defaults | options)


def the_file(entry, kind="file"):
    return entry.folder / entry.record[kind]


def make_folder(root, shade):
    for split, n in (("train", 16), ("test", 4)):
        for level, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                pixels = np.full((16, 16, 3), shade + 100 * level + i, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return str(root)


# --- once --------------------------------------------------------------------------------------------


@smoke
def test_a_network_is_trained_once_and_then_taken_from_the_cache(trainings):
    first = get(seeds=(0, 1))
    again = get(seeds=(1, 0))
    assert trainings == [0, 1]
    assert [entry.seed for entry in again] == [1, 0]
    assert again[1].record == first[0].record
    assert_same_weights(again[1].network.state_dict(), first[0].network.state_dict())
    assert any(not torch.equal(*pair) for pair in zip(*(e.network.state_dict().values() for e in first), strict=True))


@smoke
def test_an_entry_says_how_it_came_about():
    data = dataset()
    [entry] = get(data)
    assert entry.accuracy == training.accuracy(entry.network, data.test) > 0.5
    assert not entry.network.training
    assert entry.record["data_hash"] == data.hash
    assert entry.record["classes"] == data.classes
    assert Recipe(**entry.record["recipe"]) == RECIPE
    assert entry.history.epoch.tolist() == [1, 2]
    assert entry.history.test_accuracy.iloc[-1] == entry.accuracy
    assert entry.record["trained_with"]["torch"] == torch.__version__


@smoke
def test_nothing_is_left_of_the_training_but_the_network_and_its_record():
    [entry] = get(trajectory=True)
    left = {path.name for path in entry.folder.iterdir()} - {".lock"}
    assert left == {"record.json", "network.safetensors", "trajectory.safetensors"}


OTHER_PROCESS = """
import sys, time
from pathlib import Path
import torch
from convergent import training, zoo
from tiny import RECIPE, dataset

torch.set_num_threads(1)
original = training.train

def train(*args, **options):
    Path(sys.argv[1]).touch()
    time.sleep(1)  # long enough for this process to come and want it too
    return original(*args, **options)

training.train = train
[entry] = zoo.get("cnn6", dataset(), [0], recipe=RECIPE, width=0.1, progress=False)
print(entry.record["file_sha256"])
"""


@smoke
def test_two_processes_that_want_one_network_train_it_once(tmp_path, no_training):
    begun = tmp_path / "begun"
    command = [sys.executable, "-c", OTHER_PROCESS, str(begun)]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) as other:
        while not begun.exists():
            assert other.poll() is None, "it ended before it trained"
            time.sleep(0.01)
        no_training()
        [entry] = get()
        assert other.communicate(timeout=60)[0].strip() == entry.record["file_sha256"]
    assert other.returncode == 0


# --- what makes a network another one ----------------------------------------------------------------


@smoke
@pytest.mark.parametrize(
    "other",
    [
        {"recipe": replace(RECIPE, epochs=1)},
        {"recipe": replace(RECIPE, random_labels=0.5)},
        {"width": 0.2},
        {"seeds": (1,)},
        {"data": dataset(seed=1)},
        {"data": dataset(n_train=64)},
    ],
    ids=["epochs", "labels", "width", "seed", "pixels", "part"],
)
def test_another_recipe_width_seed_or_content_is_another_network(trainings, other):
    [first] = get()
    [second] = get(**other)
    assert len(trainings) == 2
    assert first.folder != second.folder
    get()
    get(**other)
    assert len(trainings) == 2


@smoke
def test_equal_numbers_written_otherwise_are_the_same_network(trainings):
    get(recipe=Recipe(**asdict(RECIPE)), width=1, seeds=range(1))
    get(width=1.0, seeds=np.arange(1))
    assert trainings == [0]


@smoke
def test_a_folder_whose_images_changed_is_another_set(tmp_path, trainings):
    folder = make_folder(tmp_path / "mine", shade=0)
    [first] = get(folder)
    assert get(folder)[0].record == first.record
    assert trainings == [0]
    make_folder(tmp_path / "mine", shade=30)
    [second] = get(folder)
    assert trainings == [0, 0]
    assert first.record["data_hash"] != second.record["data_hash"]
    assert first.record["classes"] == second.record["classes"] == ["dark", "light"]


@smoke
def test_two_folders_of_one_name_are_two_sets_and_a_copy_is_the_same_set(tmp_path, trainings):
    for place, shade in (("a", 0), ("b", 30), ("c", 0)):
        get(make_folder(tmp_path / place / "mine", shade))
    assert trainings == [0, 0]


@smoke
def test_the_tier_chooses_recipe_and_width(monkeypatch):
    recipes = {"": RECIPE, "tiny": replace(RECIPE, epochs=1), "vgg11": replace(RECIPE, epochs=3)}
    monkeypatch.setitem(zoo.RECIPES, "smoke", recipes)
    monkeypatch.setitem(zoo.WIDTHS, "smoke", {"": 0.2})
    asked = [("cnn6", "tiny"), ("cnn6", "x"), ("vgg11", "tiny"), ("vgg11", "x")]
    found = [zoo.get(kind, dataset(name=name), [0], tier="smoke", progress=False)[0].record for kind, name in asked]
    epochs = [record["recipe"]["epochs"] for record in found]
    assert epochs == [1, 2, 1, 3], "by the image set, else by the architecture, else as any other"
    assert {record["width"] for record in found} == {0.2}


@smoke
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tier": "lap"}, "tier 'lap' is not one of smoke, laptop, full"),
        ({"architecture": "cnn7"}, "the zoo trains cnn6, vgg11, .*, factorised_vgg, plain_vgg, not 'cnn7'"),
        ({"architecture": "torchvision:resnet18"}, "Use networks.load for pretrained networks"),
        ({"seeds": []}, "no seeds"),
        ({"width": 0}, "needs width > 0"),
    ],
)
def test_what_the_zoo_cannot_train_is_refused(no_training, options, says):
    no_training()
    with pytest.raises(ValueError, match=says):
        zoo.get(**{"dataset": dataset(), "progress": False} | options)


# --- damage ------------------------------------------------------------------------------------------


def swap_a_weight(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x40  # still a network, only not this one
    path.write_bytes(content)


@smoke
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (swap_a_weight, "SHA-256 differs"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "SHA-256 differs"),
        (lambda path: path.write_bytes(b""), "SHA-256 differs"),
        (Path.unlink, "is missing"),
    ],
    ids=["one bit", "truncated", "empty", "missing"],
)
def test_a_damaged_network_is_never_used_but_trained_anew_with_a_warning(trainings, damage, says):
    [whole] = get()
    before = whole.network.state_dict()
    damage(the_file(whole))
    with pytest.warns(UserWarning, match=f"network.safetensors .*{says}.*trained anew"):
        [anew] = get()
    assert trainings == [0, 0]
    assert_same_weights(anew.network.state_dict(), before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get()
    assert trainings == [0, 0]


@smoke
def test_a_damaged_trajectory_matters_to_those_who_ask_for_it(trainings):
    [entry] = get(trajectory=True)
    swap_a_weight(the_file(entry, "trajectory_file"))
    get()
    assert trainings == [0]
    with pytest.warns(UserWarning, match="trajectory.safetensors .*trained anew"):
        get(trajectory=True)
    assert trainings == [0, 0]


@smoke
@pytest.mark.parametrize("content", ["", '{"architecture": "cn'], ids=["empty", "truncated"])
def test_a_damaged_record_is_made_anew_with_a_warning(trainings, content):
    [entry] = get()
    (entry.folder / "record.json").write_text(content)
    with pytest.warns(UserWarning, match="record.json is damaged.*trained anew"):
        [anew] = get()
    assert trainings == [0, 0]
    assert anew.record["file_sha256"] == entry.record["file_sha256"]


@smoke
def test_files_without_a_record_are_not_taken_for_a_network(trainings):
    [entry] = get()
    (entry.folder / "record.json").rename(entry.folder / "record.json.unfinished")
    [anew] = get()
    assert trainings == [0, 0]
    assert anew.record["file_sha256"] == entry.record["file_sha256"]


@smoke
def test_a_training_that_was_stopped_goes_on_where_it_was(monkeypatch):
    expected = get()[0].record["file_sha256"]
    folder = get()[0].folder
    for path in folder.iterdir():
        path.unlink()
    epochs, original = [], training.evaluate

    def stops_after_the_first_epoch(*args):
        epochs.append(0)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(training, "evaluate", stops_after_the_first_epoch)
    with pytest.raises(KeyboardInterrupt):
        get()
    assert (folder / "training-without-trajectory" / "state.safetensors").exists()
    assert get()[0].record["file_sha256"] == expected
    assert len(epochs) == 3, "the first epoch was not trained again"


# --- trajectories ------------------------------------------------------------------------------------


@smoke
def test_a_trajectory_leads_from_the_untrained_network_to_the_trained_one():
    data = dataset()
    [entry] = get(data, trajectory=True)
    assert list(entry.checkpoints) == training.checkpoint_steps(6, RECIPE.epochs)
    first, last = entry.checkpoints[0], entry.checkpoints[12]
    untrained = networks.load("cnn6", 3, width=0.1, seed=0).state_dict()
    assert_same_weights(entry.untrained.state_dict(), untrained)
    for found, expected in ((first, entry.untrained), (last, entry.network)):
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-3, atol=1e-6)
        with torch.inference_mode():
            torch.testing.assert_close(found(data.test.images), expected(data.test.images), rtol=0.02, atol=0.02)
    assert {p.dtype for p in last.parameters()} == {torch.float32}
    assert not last.training
    kept = load_file(the_file(entry, "trajectory_file"))
    assert {value.dtype for name, value in kept.items() if name.endswith("weight")} == {torch.float16}, "half the size"


@smoke
def test_checkpoints_of_a_network_without_trajectory_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="ask zoo.get for trajectory=True"):
        _ = get()[0].checkpoints


@smoke
def test_asking_for_a_trajectory_later_trains_once_more_to_the_same_weights(trainings):
    [without] = get()
    [with_one] = get(trajectory=True)
    assert trainings == [0, 0]
    assert without.record["file_sha256"] == with_one.record["file_sha256"]
    get()
    get(trajectory=True)
    assert trainings == [0, 0]


# --- shipping ----------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A small zoo in place of the book's: two seeds on an image set that is called the cave, one with trajectory."""
    data = dataset(name="cave")
    monkeypatch.setattr(images, "load", lambda name: data)
    monkeypatch.setitem(zoo.RECIPES, "laptop", {"": replace(RECIPE, epochs=1)})
    monkeypatch.setattr(zoo, "SHIPPED", [("cnn6", "cave", 0, True), ("cnn6", "cave", 1, False)])
    zoo.get("cnn6", "cave", [1], trajectory=True, progress=False)  # the cache may hold more than is shipped
    zoo.build(tmp_path / "data" / "zoo")
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / "another cache"))
    return tmp_path / "data" / "zoo"


@smoke
def test_build_writes_what_the_manifest_says_and_nothing_else(shipped):
    records = json.loads((shipped / "manifest.json").read_text())
    assert [(r["architecture"], r["dataset"], r["seed"]) for r in records] == [("cnn6", "cave", 0), ("cnn6", "cave", 1)]
    named = {}
    for record in records:
        named |= {record[kind]: record[f"{kind}_sha256"] for kind in ("file", "trajectory_file") if kind in record}
    assert len(named) == 3
    assert {path.name for path in shipped.iterdir()} == {*named, "manifest.json"}
    for name, digest in named.items():
        assert hashlib.sha256((shipped / name).read_bytes()).hexdigest() == digest


@smoke
def test_shipped_networks_are_used_without_images_and_without_training(shipped, no_training, monkeypatch):
    no_training()
    monkeypatch.setattr(images, "load", None)
    entries = zoo.get("cnn6", "cave", range(2), progress=False)
    assert [entry.folder for entry in entries] == [shipped, shipped]
    assert [entry.seed for entry in entries] == [0, 1]
    assert entries[0].network(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    assert 0 in zoo.get("cnn6", "cave", [0], trajectory=True)[0].checkpoints


@smoke
def test_a_shipped_network_without_trajectory_is_trained_for_one(shipped, trainings):
    [entry] = zoo.get("cnn6", "cave", [1], trajectory=True, progress=False)
    assert trainings == [1]
    assert 0 in entry.checkpoints
    assert entry.folder != shipped


@smoke
def test_a_shipped_file_with_another_hash_is_not_used(shipped, trainings):
    swap_a_weight(shipped / "cnn6-cave-seed0.safetensors")
    with pytest.warns(UserWarning, match="seed0.safetensors .*SHA-256 differs.*trained anew"):
        [entry] = zoo.get("cnn6", "cave", [0], progress=False)
    assert trainings == [0]
    assert entry.folder != shipped


@smoke
def test_a_recipe_from_before_an_option_existed_still_means_what_it_meant(shipped, no_training):
    records = json.loads((shipped / "manifest.json").read_text())
    for record in records:
        del record["recipe"]["random_labels"]
    (shipped / "manifest.json").write_text(json.dumps(records))
    no_training()
    assert len(zoo.get("cnn6", "cave", range(2), progress=False)) == 2


@smoke
def test_a_given_data_set_gets_the_shipped_networks_of_exactly_these_images_only(shipped, trainings):
    assert zoo.get("cnn6", dataset(name="cave"), [0], progress=False)[0].folder == shipped
    assert trainings == []
    part = dataset(name="cave", n_train=64)
    [entry] = zoo.get("cnn6", part, [0], progress=False)
    assert trainings == [0]
    assert entry.record["data_hash"] == part.hash


# --- the book's zoo ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cave():
    return images.load("cave")


def name_of(record):
    return record["file"].removesuffix(".safetensors")


def of(dataset, needs="file"):
    return pytest.mark.parametrize(
        "record", [r for r in MANIFEST if r["dataset"] == dataset and needs in r], ids=name_of
    )


@smoke
def test_the_zoo_is_shipped_with_four_good_networks_and_two_trajectories_of_each_image_set():
    assert MANIFEST, f"{ZOO / 'manifest.json'} is missing: python -m convergent.zoo makes it"
    for name, accuracy in (("cave", 0.80), ("cifar10", 0.75)):
        records = [r for r in MANIFEST if (r["architecture"], r["dataset"]) == ("cnn6", name)]
        good = {r["seed"] for r in records if r["accuracy"] >= accuracy}
        assert len(good) >= 4, f"{name}: {[r['accuracy'] for r in records]}"
        assert len({r["seed"] for r in records if "trajectory_file" in r}) >= 2


@smoke
def test_the_shipped_zoo_is_at_most_60_mb():
    assert MANIFEST
    assert sum(path.stat().st_size for path in ZOO.iterdir()) <= 60e6


@smoke
def test_every_shipped_file_is_the_one_of_the_manifest():
    named = {
        record[kind]: record[f"{kind}_sha256"]
        for record in MANIFEST
        for kind in ("file", "trajectory_file")
        if kind in record
    }
    assert named
    assert {path.name for path in ZOO.glob("*.safetensors")} == set(named)
    for name, digest in named.items():
        assert hashlib.sha256((ZOO / name).read_bytes()).hexdigest() == digest, name


@smoke
def test_the_shipped_networks_are_those_that_the_laptop_tier_asks_for(monkeypatch, no_training):
    monkeypatch.undo()  # the shipped zoo itself
    no_training()
    assert MANIFEST
    for name in ("cave", "cifar10"):
        assert [e.folder for e in zoo.get("cnn6", name)] == [ZOO] * 4
        assert [len(e.checkpoints) > 10 for e in zoo.get("cnn6", name, range(2), trajectory=True)] == [True, True]


@of("cave")
def test_a_shipped_network_names_cave_shapes_as_well_as_recorded(record, cave):
    assert record["data_hash"] == cave.hash
    assert training.accuracy(zoo.Entry(record, ZOO).network, cave.test) == pytest.approx(record["accuracy"], abs=0.005)


@of("cave", needs="trajectory_file")
def test_the_last_checkpoint_of_a_shipped_trajectory_is_the_network(record, cave):
    entry = zoo.Entry(record, ZOO)
    last = entry.checkpoints[entry.record["epochs"][-1]["step"]]
    assert training.accuracy(last, cave.test) == pytest.approx(record["accuracy"], abs=0.005)
    assert training.accuracy(entry.checkpoints[0], cave.test) < 0.25, "untrained: near 1 in 10"


@pytest.fixture(scope="module")
def cifar10():
    if not os.environ.get("CONVERGENT_DATA"):
        pytest.skip("CONVERGENT_DATA names no folder of image sets")
    if not any((Path(os.environ["CONVERGENT_DATA"]) / usual).exists() for usual in images._KNOWN["cifar10"].usual):
        pytest.skip("no CIFAR-10 in CONVERGENT_DATA")
    return images.load("cifar10")


@of("cifar10")
def test_a_shipped_network_names_photographs_as_well_as_recorded(record, cifar10):
    if cifar10.hash != record["data_hash"]:
        pytest.skip(f"trained on {record['title']}; here is {cifar10.title}")
    test = cifar10.test
    assert training.accuracy(zoo.Entry(record, ZOO).network, test) == pytest.approx(record["accuracy"], abs=0.005)


def test_a_small_network_trained_twice_from_its_recipe_is_the_same_network(cave, tmp_path, monkeypatch):
    data, entries = replace(cave, test=cave.test.sample(400)), []
    for place in ("one", "two"):
        monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / place))
        entries += zoo.get("cnn6", data, [0], tier="smoke", progress=False)
    assert entries[0].folder != entries[1].folder
    assert entries[0].accuracy == entries[1].accuracy
    assert entries[0].history.loss.iloc[-1] < entries[0].history.loss.iloc[0]
    assert_same_weights(*(entry.network.state_dict() for entry in entries))


@pytest.mark.smoke
def test_long_training_says_first_how_long_it_will_take(monkeypatch, capsys):
    monkeypatch.setattr(zoo, "LONG", 10)
    monkeypatch.setattr(zoo, "seconds_to_train", lambda *_: 600.0)
    get(seeds=[0, 1], progress=True)
    said = capsys.readouterr().out.splitlines()
    assert "about 10 min" in said[0], f"the first network's estimate is missing: {said}"
    assert "up to 2 such networks from here, 20 min" in said[0], f"the whole is not estimated: {said[0]}"
    assert "up to 1 such networks from here, 10 min" in said[1], f"what is left is not estimated: {said[1]}"


@pytest.mark.smoke
def test_the_estimate_of_training_time_grows_with_epochs_and_images():
    short = zoo.seconds_to_train("cnn6", dataset(), RECIPE, 0.1)
    longer = zoo.seconds_to_train("cnn6", dataset(), replace(RECIPE, epochs=100), 0.1)
    assert 0 < short < longer
