"""Trained networks, kept by the recipe that made them.

`get` looks in `data/zoo/` (shipped with the book), then in the cache, and trains what is in neither. What a file is
follows from what made it: architecture, width, image set, recipe and seeds. A file whose SHA-256 is not the recorded
one is never used. `python -m convergent.zoo` trains the shipped networks anew; a killed run goes on where it was.
"""

import hashlib
import json
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import __version__, images, networks, paths, training
from .training import Recipe

# How the zoo trains for each tier: by image set, else by architecture ("": any other). A narrow residual network has
# 85 % on CIFAR-10 after 12 epochs, 87.5 % after 30 and 88.5 % after 45 (of twice the width 87 % after 12; with less
# weight decay, less).
RECIPES: dict[str, dict[str, Recipe]] = {
    "smoke": {"": Recipe(epochs=2, batch_size=64, crop=2, n_train=2_000)},
    "laptop": {"cave": Recipe(epochs=8, crop=2), "resnet18": Recipe(epochs=45), "": Recipe(epochs=12)},
    "full": {"cave": Recipe(epochs=60, crop=2), "": Recipe(epochs=60)},
}
LONG = 100_000  # images seen in training above which its time is estimated and said first
# Factors on channels, by tier and architecture ("": any other): narrow enough to train in minutes on two cores.
WIDTHS = {
    "smoke": {"resnet18": 0.125, "": 0.5},
    "laptop": {"resnet18": 0.25, "alexnet": 0.5, "vgg11": 0.5, "": 1.0},
    "full": {"": 1.0},
}

# What data/zoo/ holds: architecture, image set, seed, whether with its trajectory.
SHIPPED = [("cnn6", name, seed, seed < 2) for name in ("cave", "cifar10") for seed in range(4)]
SHIPPED += [("resnet18", "cave", seed, False) for seed in range(4)]


_may_train: ContextVar[bool] = ContextVar("may_train", default=True)


class NotTrainedError(LookupError):
    """A network that is neither shipped nor in the cache was asked for where none may be trained."""


@contextmanager
def without_training() -> Iterator[None]:
    """In this block `get` raises `NotTrainedError` for what it would train, or wait for while it is being trained."""
    before = _may_train.set(False)
    try:
        yield
    finally:
        _may_train.reset(before)


@dataclass(frozen=True)
class Entry:
    """One trained network and how it came about.

    Attributes
    ----------
    record : dict with architecture, width, dataset, title, data_hash, classes, recipe, seed, accuracy (share of test
        images), epochs (one dict an epoch), seconds, and what it was trained with
    folder : where its files lie
    """

    record: dict
    folder: Path

    @cached_property
    def network(self) -> nn.Module:
        """The trained network, in evaluation mode, on the CPU."""
        return self._with(load_file(self.folder / self.record["file"]))

    @cached_property
    def untrained(self) -> nn.Module:
        """The same network before its first step: what the architecture and chance had given it."""
        record = self.record
        return networks.load(record["architecture"], len(record["classes"]), record["width"], seed=self.initial)

    @property
    def seed(self) -> int:
        """Seed of the order of images, augmentation and random labels; `initial` is that of the weights."""
        return self.record["seed"]

    @property
    def initial(self) -> int:
        """Seed of its initial weights."""
        return _initial(self.record)

    @property
    def accuracy(self) -> float:
        """Share of the test images that it classified correctly when it had been trained."""
        return self.record["accuracy"]

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch: epoch, step, loss, train_accuracy, test_accuracy, seconds, test_seconds."""
        return pd.DataFrame(self.record["epochs"])

    @cached_property
    def checkpoints(self) -> dict[int, nn.Module]:
        """Step -> the network as it was then; step 0 is untrained. Weights were kept in half precision.

        Raises ValueError when the network was trained without `trajectory=True`.
        """
        if "trajectory_file" not in self.record:
            raise ValueError(f"no trajectory was kept of {self.record['file']}: ask zoo.get for trajectory=True")
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in load_file(self.folder / self.record["trajectory_file"]).items():
            step, key = name.split("/", 1)
            states.setdefault(int(step), {})[key] = value.float() if value.is_floating_point() else value
        return {step: self._with(state) for step, state in sorted(states.items())}

    def _with(self, state: dict[str, Tensor]) -> nn.Module:
        record = self.record
        network = networks.load(record["architecture"], len(record["classes"]), record["width"])
        network.load_state_dict(state)
        return network


def get(
    architecture: str = "cnn6",
    dataset: str | images.Dataset = "cave",
    seeds: Iterable[int] = range(4),
    tier: str = "laptop",
    trajectory: bool = False,
    recipe: Recipe | None = None,
    width: float | None = None,
    progress: bool = True,
    initial: Iterable[int] | None = None,
) -> list[Entry]:
    """One trained network a seed: shipped, from the cache, or trained now.

    Parameters
    ----------
    architecture : one of `networks.ARCHITECTURES`
    dataset : a name or path that `images.load` understands, or a `Dataset`: then networks of exactly these images
    seeds : of initial weights, order of images, augmentation and random labels
    tier : "smoke", "laptop" or "full": chooses `recipe` and `width` where these are None
    trajectory : whether `Entry.checkpoints` must be there
    initial : seeds of the initial weights, one for each of `seeds`, which then decide the rest: order of images,
        augmentation, random labels. None: the same seeds.

    Raises
    ------
    ValueError for an unknown architecture or tier, no seeds, or another number of initial ones; and what `images.load`
    raises where a network must be trained and its images are not here.
    """
    if tier not in RECIPES:
        raise ValueError(f"tier {tier!r} is not one of {', '.join(RECIPES)}")
    if architecture not in networks.ARCHITECTURES:
        raise ValueError(
            f"the zoo trains {', '.join(networks.ARCHITECTURES)}, not {architecture!r}."
            " Use networks.load for pretrained networks of other packages."
        )
    if not (seeds := [int(seed) for seed in seeds]):
        raise ValueError("no seeds: ask for at least one, such as seeds=range(4)")
    starts = seeds if initial is None else [int(seed) for seed in initial]
    if len(starts) != len(seeds):
        raise ValueError(f"{len(starts)} initial seeds for {len(seeds)} networks: give one for each, or none")
    named = dataset if isinstance(dataset, str) else dataset.name
    recipe = recipe or _default(RECIPES[tier], named, architecture)
    wanted = {
        "architecture": architecture,
        "width": float(_default(WIDTHS[tier], architecture) if width is None else width),
        "recipe": asdict(recipe),
    }
    if dataset in images.NAMES if isinstance(dataset, str) else _ships(dataset):
        wanted["dataset"] = named
    else:  # Two folders may share a name, a folder may change, a part has the name of the whole: the content counts.
        dataset = images.load(dataset) if isinstance(dataset, str) else dataset
        words = Path(named).stem if Path(named).exists() else re.sub(r"[^\w-]+", "-", named)
        wanted["dataset"] = f"{words}-{dataset.hash[:12]}"
    pairs = zip(seeds, starts, strict=True)
    each = [wanted | {"seed": seed} | ({"initial": start} if start != seed else {}) for seed, start in pairs]
    found = [_shipped(one, trajectory) for one in each]
    for i, one in enumerate(each):
        if found[i] is None:
            dataset, found[i] = _cached_or_trained(one, dataset, recipe, trajectory, progress, n_left=found.count(None))
    return found


def _default(table: dict, *names: str):
    """The entry of the first of the names that has one."""
    return next(table[name] for name in [*names, ""] if name in table)


def seconds_to_train(architecture: str, data: images.Dataset, recipe: Recipe, width: float = 1.0) -> float:
    """How long training one network will take here, from a few timed steps and one pass over the test images."""
    n_probe = min(8 * recipe.batch_size, len(data.train))
    probe = replace(recipe, epochs=2, n_train=n_probe)
    network = networks.load(architecture, len(data.classes), width)
    epoch = training.train(network, data, probe, progress=False).epochs[1]  # the first one warms up
    per_image = epoch["seconds"] / (n_probe // recipe.batch_size * recipe.batch_size)
    return recipe.epochs * (per_image * min(recipe.n_train or len(data.train), len(data.train)) + epoch["test_seconds"])


def _initial(record: dict) -> int:
    """Seed of the initial weights: one of its own only where the record says so."""
    return record.get("initial", record["seed"])


def _manifest() -> list[dict]:
    path = paths.data() / "zoo" / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else []


def _ships(dataset: images.Dataset) -> bool:
    """Whether shipped networks were trained on exactly these images."""
    return any((record["dataset"], record["data_hash"]) == (dataset.name, dataset.hash) for record in _manifest())


def _shipped(wanted: dict, trajectory: bool) -> Entry | None:
    for record in _manifest():
        same = all(record.get(key) == value for key, value in wanted.items() if key not in ("recipe", "initial"))
        same = same and _initial(record) == _initial(wanted)
        # Through Recipe, so that a recipe written before an option existed still means what it meant.
        if same and Recipe(**record["recipe"]) == Recipe(**wanted["recipe"]):
            if trajectory and "trajectory_file" not in record:
                return None
            return _verified(record, paths.data() / "zoo", trajectory)
    return None


def _cached_or_trained(
    wanted: dict, dataset, recipe: Recipe, trajectory: bool, progress: bool, n_left: int = 1
) -> tuple:
    """The images come back too, so that training several seeds loads them once."""
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    folder = paths.cache() / "zoo" / f"{wanted['architecture']}-{wanted['dataset']}-{wanted['seed']}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    may_train = _may_train.get()
    try:  # Whoever comes second waits here, and then finds the network made.
        held = FileLock(folder / ".lock").acquire(timeout=-1 if may_train else 0)
    except Timeout as error:
        raise NotTrainedError(f"{folder.name} is being trained by another process") from error
    with held:
        record = _record(folder / "record.json")
        if record and ("trajectory_file" in record or not trajectory):
            entry = _verified(record, folder, trajectory)
            if entry is not None:
                return dataset, entry
        if not may_train:
            raise NotTrainedError(f"{folder.name} is neither shipped nor in {paths.cache() / 'zoo'}")
        if isinstance(dataset, str):
            dataset = images.load(dataset)
        if progress and recipe.epochs * min(recipe.n_train or len(dataset.train), len(dataset.train)) > LONG:
            minutes = seconds_to_train(wanted["architecture"], dataset, recipe, wanted["width"]) / 60
            print(
                f"training {wanted['architecture']} on {dataset.title}, seed {wanted['seed']}:"
                f" about {minutes:.0f} min on {training.device()};"
                f" up to {n_left} such networks from here, {n_left * minutes:.0f} min",
                flush=True,
            )
        return dataset, _train(wanted, dataset, recipe, folder, trajectory, progress)


def _record(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except json.JSONDecodeError as error:
        warnings.warn(f"{path} is damaged ({error}): it is not used, the network is trained anew", stacklevel=4)
        return None


def _train(wanted: dict, data: images.Dataset, recipe: Recipe, folder: Path, trajectory: bool, progress: bool) -> Entry:
    network = networks.load(wanted["architecture"], len(data.classes), wanted["width"], seed=_initial(wanted))
    state = folder / f"training-{'with' if trajectory else 'without'}-trajectory"
    run = training.train(network, data, recipe, wanted["seed"], state, checkpoints=trajectory, progress=progress)
    half = training.mixed_precision(training.device())
    record = wanted | {
        "title": data.title,
        "data_hash": data.hash,
        "classes": data.classes,
        "accuracy": run.accuracy,
        "seconds": round(sum(epoch["seconds"] for epoch in run.epochs), 1),
        "epochs": run.epochs,
        "trained_with": {
            "convergent": __version__,
            "torch": torch.__version__,
            "device": str(training.device()),
            "precision": str(half or torch.float32).removeprefix("torch."),
            "machine": platform.machine(),
        },
        "file": "network.safetensors",
    }
    _save(network.state_dict(), folder / record["file"])
    if trajectory:
        # The weights in half precision (they are looked at, not trained on); running statistics may exceed its range.
        states = {
            f"{step}/{name}": value.half() if name.endswith("weight") else value
            for step, kept in run.checkpoints.items()
            for name, value in kept.items()
        }
        record["trajectory_file"] = "trajectory.safetensors"
        _save(states, folder / record["trajectory_file"])
    for name in ("file", "trajectory_file"):
        if name in record:
            record[f"{name}_sha256"] = _sha256(folder / record[name])
    unfinished = folder / "record.json.unfinished"
    unfinished.write_text(json.dumps(record, indent=1))
    unfinished.replace(folder / "record.json")
    shutil.rmtree(state)
    return Entry(record, folder)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    unfinished = path.with_suffix(".unfinished")
    save_file({name: value.contiguous() for name, value in tensors.items()}, unfinished)
    unfinished.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(record: dict, folder: Path, trajectory: bool) -> Entry | None:
    for name in ("file", *(["trajectory_file"] if trajectory else [])):
        path = folder / record[name]
        if not path.exists() or _sha256(path) != record[f"{name}_sha256"]:
            state = "is not what was saved there (SHA-256 differs)" if path.exists() else "is missing"
            warnings.warn(f"{path} {state}: it is not used, the network is trained anew", stacklevel=4)
            return None
    return Entry(record, folder)


def ship(entry: Entry, folder: Path, name: str, trajectory: bool = False, half: bool = False) -> dict:
    """Copy the files of a trained network to `folder` as `name`, with weights in half precision or as they are.

    Returns the record for the manifest, with the files' hashes.
    """
    record = dict(entry.record)
    for kind in ("file", "trajectory_file"):
        if kind == "trajectory_file" and not trajectory:  # the cache may have one
            record = {key: value for key, value in record.items() if not key.startswith(kind)}
        elif kind in record:
            suffix = "-trajectory" if kind == "trajectory_file" else ""
            record[kind] = f"{name}{suffix}.safetensors"
            shutil.copyfile(entry.folder / entry.record[kind], folder / record[kind])
    if half:
        state = load_file(folder / record["file"])
        weights = {key: value.half() if key.endswith("weight") else value for key, value in state.items()}
        _save(weights, folder / record["file"])
        record["file_sha256"] = _sha256(folder / record["file"])
    return record


def build(folder: Path) -> None:
    """Train every network of `SHIPPED` (or take it from the cache) and write files and manifest to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for architecture, name, seed, trajectory in SHIPPED:
        recipe, width = _default(RECIPES["laptop"], name, architecture), _default(WIDTHS["laptop"], architecture)
        wanted = {"architecture": architecture, "width": width, "recipe": asdict(recipe), "dataset": name, "seed": seed}
        _, entry = _cached_or_trained(wanted, name, recipe, trajectory, progress=True)
        records.append(record := ship(entry, folder, f"{architecture}-{name}-seed{seed}", trajectory))
        print(f"{record['file']}: {record['accuracy']:.1%} of test images, {record['seconds']:.0f} s", flush=True)
    (folder / "manifest.json").write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else paths.data() / "zoo")
