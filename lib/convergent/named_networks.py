"""The networks that a reader names, and the images that they are shown.

A string of names with commas between them stands for the networks of a chapter:

    cnn6, cnn6?seeds=8                      ours: `seeds` networks trained on the data set, or eight
    torchvision:NAME, timm:NAME             one, with its makers' weights; ?weights=FILE.safetensors or ?weights=random
    checkpoint:FILE.safetensors?architecture=NAME, python:FILE.py:FUNCTION      see `own_networks`
    activations:FILE.npz                    no network, only what its layers said: see `own_activations`
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from . import images, networks, own_activations, own_networks, zoo
from .own_activations import Activations

PLACES = 4  # of each image that count as stimuli


@dataclass(frozen=True)
class Member:
    """One network of a population.

    Attributes
    ----------
    architecture : the kind of network: as `networks.load` names it, without weights
    seed : number among the networks of its kind; of ours, the seed that it was trained from
    accuracy : share of test images classified correctly; NaN where the network has classes of its own
    make : "network" | "untrained" -> the network, ready for the images; None where there are only activations
    activations : where there is no network
    restarts : whether `make("untrained")` is possible
    """

    architecture: str
    seed: int
    accuracy: float
    make: Callable[[str], nn.Module] | None
    activations: Activations | None = None
    restarts: Callable[[], bool] = lambda: True

    @property
    def name(self) -> str:
        """Architecture and seed: unique in a population."""
        return f"{self.architecture} {self.seed}"

    def has(self, part: str) -> bool:
        """Whether there is a "network", or an "untrained" one, that can be shown images."""
        return self.make is not None and (part == "network" or self.restarts())

    @cached_property
    def network(self) -> nn.Module:
        """As it was trained, or as its weights file has it."""
        return self._made("network")

    @cached_property
    def untrained(self) -> nn.Module:
        """The same architecture with the initial weights of this seed."""
        return self._made("untrained")

    def _made(self, part: str) -> nn.Module:
        if self.make is None:
            raise ValueError(f"{self.name} is a file of activations: there is no network that could be shown images")
        return self.make(part)


@dataclass(frozen=True)
class Stimuli:
    """What the networks were shown.

    Attributes
    ----------
    title, hash : of the data set, or of files of activations
    images : uint8 (n_images, 3, height, width); None where there are only activations
    labels : (n_images,) numbers of classes; None where nobody says
    places : rows of one image in a layer
    n : number of images
    """

    title: str
    hash: str
    images: Tensor | None
    labels: np.ndarray | None
    places: int
    n: int

    def __len__(self):
        return self.n

    @property
    def reading(self) -> dict:
        """Options of `populations.activations` that give as many rows an image."""
        return {"n_positions": self.places} if self.places > 1 else {"spatial": "pool"}


def names(listed: str) -> list[tuple[str, int | None]]:
    """Each name of a string, and its number of seeds where it says one.

    Raises
    ------
    ValueError for "?seeds=" after a name that is not one of ours, or without a number from 2.
    """
    found = []
    for name in (part.strip() for part in listed.split(",") if part.strip()):
        model, mark, number = name.partition("?seeds=")
        if mark and (model not in networks.ARCHITECTURES or not number.isdecimal() or int(number) < 2):
            ours = ", ".join(networks.ARCHITECTURES)
            raise ValueError(f"networks has {name!r}: '?seeds=' takes a number of networks, 2 or more, of {ours}")
        found.append((model, int(number)) if mark else (name, None))
    return found


def source(name: str) -> str:
    """ "ours", "torchvision", "timm", "checkpoint", "python" or "activations"."""
    return name.partition(":")[0] if ":" in name.partition("?")[0] else "ours"


def check(listed: str, without: Mapping[str, str] | None = None) -> None:
    """Raise what `gather` would for names that it does not know, before any work and without running any code.

    Parameters
    ----------
    without : source (see `source`) -> why a chapter cannot take networks from there

    Raises
    ------
    ValueError, FileNotFoundError as `networks.check` and `own_activations.check`; ValueError for no name at all, one
    that comes twice, or one of a source that the chapter cannot take.
    """
    found = names(listed)
    if not found:
        raise ValueError('networks="": name at least one network, such as "cnn6,resnet18"')
    for name, _ in found:
        if without and source(name) in without:
            raise ValueError(f"networks has {name!r}, which this chapter cannot take: {without[source(name)]}")
        if source(name) == "activations":
            own_activations.check(name)
        else:
            networks.check(name)
    plain = [name for name, _ in found]
    again = {name for name in plain if plain.count(name) > 1 and not name.endswith("?weights=random")}
    if again:
        raise ValueError(f"networks={listed!r} has {', '.join(sorted(again))} twice: a network is its own best match")


def check_shown(listed: str) -> None:
    """`check` for a chapter that shows its networks images of its own choice, which activations cannot be."""
    why = "it shows its networks stimuli of its own, and activations cannot be shown any. Chapters 2, 4 and 5 take them"
    check(listed, {"activations": why})


def check_weights(listed: str) -> None:
    """`check` for a chapter that reads weights, of which a file of activations has none."""
    check(listed, {"activations": "it reads weights, and a file of activations has none"})


def check_followed(name: str) -> None:
    """Raise ValueError for anything but one of our architectures: what is followed through training is trained here.

    A file of weights or of activations has no past, and a function in a file has no recipe.
    """
    if name not in networks.ARCHITECTURES:
        check(name)
        raise ValueError(
            f"networks={name!r}: this chapter follows networks from their first step on, so it trains them itself, "
            f"one of {', '.join(networks.ARCHITECTURES)}. Weights and activations have no past: chapters 2, 4 and 5 "
            "take them"
        )


def gather(listed: str, data: str | images.Dataset, seeds: int = 4, tier: str = "laptop") -> list[Member]:
    """The networks that a string names.

    Parameters
    ----------
    listed : see above. One of `networks.ARCHITECTURES` stands for `seeds` networks trained on `data` (from the zoo)
    data : what the zoo's networks were trained on, as in `zoo.get`
    seeds, tier : of the zoo's networks

    Returns
    -------
    list of Member, in the order of the names

    Raises
    ------
    as `check`, `zoo.get`, `networks.load` and `own_activations.read`.

    Notes
    -----
    Networks of other packages were made for larger images than ours: what is smaller than `network.input_size` is
    enlarged to it, bilinearly, so that their filters meet edges of the size that they were made for.
    """
    check(listed)
    members: list[Member] = []
    for name, own in names(listed):
        if name in networks.ARCHITECTURES:
            for entry in zoo.get(name, data, seeds=range(own or seeds), tier=tier):
                members.append(Member(name, entry.seed, entry.accuracy, lambda part, e=entry: getattr(e, part)))
            continue
        activations = own_activations.read(name) if source(name) == "activations" else None
        known = [(member.architecture, member.activations) for member in members if member.activations is not None]
        architecture = kind(name) if activations is None else own_activations.kind(activations, known)
        seed = sum(member.architecture == architecture for member in members)
        make = None if activations is not None else lambda part, n=name, s=seed: enlarging(n, part, s)
        restarts = _restarts(name) if source(name) == "python" else lambda: True
        members.append(Member(architecture, seed, float("nan"), make, activations, restarts))
    return members


def kind(name: str) -> str:
    """What tables and figures call the network of a name, whatever its weights."""
    return own_networks.label(name) if source(name) in networks.OWN else networks.split(name)[0]


def _restarts(name: str) -> Callable[[], bool]:
    return lambda: own_networks.can_start_anew(name, networks.load(name))


def enlarging(name: str, part: str, seed: int) -> nn.Module:
    """The "network" of a name, or the "untrained" one; images that are too small for it are enlarged."""
    start = name if source(name) in networks.OWN else networks.split(name)[0]
    network = networks.load(name if part == "network" else start, seed=seed, pretrained=part == "network")
    return networks.enlarge(network) if hasattr(network, "input_size") else network


def stimuli(members: Sequence[Member], data: images.Dataset, n: int, seed: int = 0) -> Stimuli:
    """The images that all members are compared on.

    Parameters
    ----------
    data : `n` of its test images, balanced over classes, chosen by `seed`. Where some members are activations, the
        images that those were taken from, by their `image_ids`; one row an image then. Where all are, the rows of the
        files

    Raises
    ------
    ValueError for files whose rows are not the same stimuli, and, beside networks, files without whole numbers as
    `image_ids`, ids that `data` does not have, or labels that are not those of its images.
    """
    files = [member.activations for member in members if member.activations is not None]
    if not files:
        chosen = data.test.sample(min(n, len(data.test)), seed=seed)
        return Stimuli(data.title, data.hash, chosen.images, chosen.labels.numpy(), PLACES, len(chosen))
    own_activations.agree(files)
    if len(files) == len(members):
        labels = next((file.labels for file in files if file.labels is not None), None)
        digest = hashlib.sha256("".join(file.hash for file in files).encode()).hexdigest()
        title = "activations of " + ", ".join(file.path.stem for file in files)
        return Stimuli(title, digest, None, labels, 1, len(files[0]))
    for file in files:
        check_ids(file, data)
    ids = files[0].image_ids
    return Stimuli(data.title, data.hash, data.test.images[ids], data.test.labels[ids].numpy(), 1, len(ids))


def check_ids(file: Activations, data: images.Dataset | None = None) -> None:
    """Refuse activations that do not say which images they are of, or not of `data`.

    Raises
    ------
    ValueError for no whole numbers as `image_ids`; and, with `data`, for numbers that it does not have, or labels that
    are not those of its images.
    """
    ids = file.image_ids
    if ids is None or ids.dtype.kind != "i":
        raise ValueError(
            f"{file.path} is compared with networks, which must see the same images: give `image_ids`, the number of "
            "each row's image among the test images of the data set"
        )
    if data is None:
        return
    n = len(data.test)
    if ids.min() < 0 or ids.max() >= n:
        raise ValueError(
            f"{file.path}: image_ids go from {ids.min()} to {ids.max()}, and {data.title} has images 0 to {n - 1}"
        )
    if file.labels is not None:
        ours = data.test.labels[ids].numpy()
        if len(set(zip(file.labels.tolist(), ours.tolist(), strict=True))) != len(set(ours.tolist())):
            raise ValueError(f"{file.path}: labels and image_ids do not fit the classes of {data.title}: other images?")
