"""Which networks chapter 10 compares: of several image sets, labels and seeds, and two of the reader's own."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd
from torch import nn

from . import encodings, images, networks, zoo
from .training import Recipe
from .zoo import Entry

RANDOM, FEW, OWN = "random labels", "few images", "your own"
SAME, RANDOMS, TRUE_RANDOM = "true labels, two seeds", "two random labellings", "true × random labels"
FEW_TRUE, FEW_RANDOM = "few images × all images, true labels", "few images, true × random labels"
ACROSS, ELSEWHERE = "different images", "true labels of other images, two seeds"
N_IMAGES = {"smoke": 40, "laptop": 400, "full": 4000}  # that representations are aligned on
# What the tests train: enough to run everything, too little to learn much.
_TINY = Recipe(epochs=2, batch_size=32, learning_rate=0.05, weight_decay=0.0, crop=0, n_train=400)
_TINY_WIDTH = 0.25


class Member(NamedTuple):
    """One network of the comparison.

    name : unique; task : what it learned (a title of images, or "random labels", "few images", "your own")
    seed : of its initial weights; None for the reader's own
    accuracy, fitted, guess : share of test images right, of training images in the last epoch, and of guessing; NaN for
        the reader's own
    """

    name: str
    task: str
    seed: int | None
    network: nn.Module
    accuracy: float
    fitted: float
    guess: float
    n_classes: int


def members(
    tier: str, data: images.Dataset, seeds: int, others: str = "", own_ones: str = "", progress: bool = True
) -> list[Member]:
    """The networks: `seeds` on true labels, two on random labels, one on few images with true labels, all of `data`;
    `seeds` on each of `others`; and the reader's own. Shipped, from the cache, or trained now."""
    found = [_member(trained(tier, data, seed=seed), short(data.title)) for seed in range(seeds)]
    found += [_member(trained(tier, data, "random", seed), RANDOM) for seed in range(2)]
    found += [_member(trained(tier, data, "few", 0), FEW)]
    for name in names(others):
        other = images.load(name)
        found += [_member(trained(tier, other, seed=seed), short(other.title)) for seed in range(seeds)]
    return found + own(own_ones)


def trained(tier: str, data: images.Dataset, labels: str = "true", seed: int = 0, trajectory: bool = False) -> Entry:
    """A factorised network, as `encodings.trained` makes it; at smoke a tiny one on a few hundred images."""
    if tier != "smoke":
        return encodings.trained("factorised_vgg", data.name, labels, seed, tier, trajectory)
    return _tiny("factorised_vgg", data, labels, seed, trajectory)


def plain(tier: str, data: images.Dataset, seed: int = 0) -> Entry:
    """The plain counterpart: as wide and as deep, its 3x3 filters learned, trained with the same recipe."""
    if tier == "smoke":
        return _tiny("plain_vgg", data, "true", seed)
    recipe = encodings.recipe("factorised_vgg", len(data.train), "true", tier, cave=data.name.startswith("cave"))
    return zoo.get("plain_vgg", data.name, [seed], tier, recipe=recipe, width=1.0)[0]


def _tiny(architecture: str, data: images.Dataset, labels: str, seed: int, trajectory: bool = False) -> Entry:
    few, test = data.train.sample(min(_TINY.n_train, len(data.train))), data.test.sample(min(100, len(data.test)))
    small = images.Dataset(
        data.name, data.title, few, test, data.classes, images.content_hash(few, test, data.classes), data.size
    )
    recipe = Recipe(**vars(_TINY) | {"random_labels": 1.0 if labels == "random" else 0.0})
    if labels == "few":  # others than those of true labels, or it would be the same network
        seed += 100
    width = {"recipe": recipe, "width": _TINY_WIDTH, "progress": False}
    return zoo.get(architecture, small, [seed], "smoke", trajectory, **width)[0]


def _member(entry: Entry, task: str) -> Member:
    n_classes, last = len(entry.record["classes"]), entry.history.iloc[-1]
    name, fitted = f"{task}, seed {entry.seed}", float(last.train_accuracy)
    return Member(name, task, entry.initial, entry.network, entry.accuracy, fitted, 1 / n_classes, n_classes)


def short(title: str) -> str:
    """A title for labels in figures: without what stands in brackets."""
    return title.split(" (")[0] + (title.split(")")[-1] if ")" in title else "")


def names(text: str) -> list[str]:
    """Names of image sets in a comma-separated text."""
    return [part.strip() for part in text.split(",") if part.strip()]


def check_others(text: str) -> bool:
    """Refuse unknown image sets, before any work. Raises ValueError as `images.check_name`."""
    for name in names(text):
        images.check_name(name)
    return True


def check_own(listed: str) -> bool:
    """Refuse, before any work, what are not two files of weights of factorised networks.

    Raises
    ------
    ValueError for another number of networks, another kind, or files that hold something else.
    FileNotFoundError for a file that is not there.
    """
    own(listed)
    return True


def own(listed: str) -> list[Member]:
    """The reader's own networks: none, or two names "checkpoint:FILE.safetensors?architecture=factorised_vgg".

    Width and number of classes are read off the weights. Raises as `check_own`.
    """
    files = names(listed)
    if len(files) not in (0, 2):
        raise ValueError(f"networks={listed!r} names {len(files)}: give two, separated by a comma, or none")
    found = []
    for letter, name in zip("ab", files, strict=False):
        if not (name.startswith("checkpoint:") and name.endswith("?architecture=factorised_vgg")):
            raise ValueError(
                f"networks has {name!r}, which this chapter cannot take: it compares how channels are mixed, and only "
                "in a factorised network does that stand apart from the spatial filters. Give files of weights, "
                "'checkpoint:FILE.safetensors?architecture=factorised_vgg'. Chapter 9 takes any convolutional network"
            )
        network = networks.load(name)
        n_classes = network.head.out_features
        unknown = float("nan")
        found.append(Member(f"{OWN}, {letter}", OWN, None, network, unknown, unknown, 1 / n_classes, n_classes))
    return found


def pairs(everyone: Sequence[Member]) -> list[tuple[str, str]]:
    """Pairs of names that are compared: all but those that began with the same weights.

    Networks of one seed share their initial weights whatever they learn, and part of these stays: they are similar for
    a reason that has nothing to do with learning. Networks of random labels and of few images are compared with one
    another and with those that learned the same images' true labels; the reader's own with each other and with these.
    """
    main, found = everyone[0].task, []
    for one, other in combinations(everyone, 2):
        tasks = {one.task, other.task}
        apart = tasks & {RANDOM, FEW} and not tasks <= {RANDOM, FEW, main}
        if not apart and (one.seed is None or one.seed != other.seed):
            found.append((one.name, other.name))
    return found


def described(everyone: Sequence[Member]) -> pd.DataFrame:
    """One row a network: network, task, seed, classes, accuracy, fitted, guess."""
    rows = [(m.name, m.task, m.seed, m.n_classes, m.accuracy, m.fitted, m.guess) for m in everyone]
    return pd.DataFrame(rows, columns=["network", "task", "seed", "classes", "accuracy", "fitted", "guess"])


def kinds(table: pd.DataFrame, everyone: Sequence[Member]) -> pd.DataFrame:
    """A table with columns a and b, with the columns kind (the two tasks: "cave × CIFAR-10") and role.

    The role is one of `SAME` (true labels of the chapter's images), `RANDOMS`, `TRUE_RANDOM`, `FEW_TRUE`, `FEW_RANDOM`,
    `ACROSS` (true labels of different images), `ELSEWHERE` (true labels of other images, twice), `OWN`.
    """
    task, main = {member.name: member.task for member in everyone}, everyone[0].task
    both = [(task[a], task[b]) for a, b in zip(table.a, table.b, strict=True)]
    roles = [_role(set(pair), main) for pair in both]
    return table.assign(kind=[" × ".join(pair) for pair in both], role=roles)


def _role(tasks: set[str], main: str) -> str:
    if OWN in tasks:
        return OWN if len(tasks) == 1 else ACROSS
    known = {frozenset({main}): SAME, frozenset({RANDOM}): RANDOMS, frozenset({main, RANDOM}): TRUE_RANDOM}
    known |= {frozenset({main, FEW}): FEW_TRUE, frozenset({FEW, RANDOM}): FEW_RANDOM}
    return known.get(frozenset(tasks), ELSEWHERE if len(tasks) == 1 else ACROSS)
