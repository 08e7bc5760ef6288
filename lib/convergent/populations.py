"""Several networks at once: who they are, what their layers say about the same images, and how alike that is.

Networks of one architecture are compared in all pairs. Networks of two architectures are compared one to one, the first
of one with the first of the other, so that no network stands in two of these pairs; their layers correspond by
relative depth.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor, nn
from tqdm import tqdm

from . import certainty, compare, images, networks, representations, zoo

METRICS = ("linear", "procrustes", "soft_matching")
Acts = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Member:
    """One network of a population.

    Attributes
    ----------
    architecture : as `networks.load` names it, without weights
    seed : number among the networks of its architecture; of ours, the seed that it was trained from
    accuracy : share of test images classified correctly; NaN where the network has classes of its own
    make : "network" | "untrained" -> the network, ready for the images
    """

    architecture: str
    seed: int
    accuracy: float
    make: Callable[[str], nn.Module]

    @property
    def name(self) -> str:
        """Architecture and seed: unique in a population."""
        return f"{self.architecture} {self.seed}"

    @cached_property
    def network(self) -> nn.Module:
        """As it was trained, or as its weights file has it."""
        return self.make("network")

    @cached_property
    def untrained(self) -> nn.Module:
        """The same architecture with the initial weights of this seed."""
        return self.make("untrained")


def check_models(models: str) -> None:
    """Raise what `gather` would for names that it does not know, before any work.

    Raises
    ------
    ValueError, FileNotFoundError as `networks.check`; ValueError for no name at all, or one that comes twice.
    """
    names = _names(models)
    if not names:
        raise ValueError('models="": name at least one network, such as "cnn6,resnet18"')
    for name, _ in names:
        networks.check(name)
    plain = [name for name, _ in names]
    again = {name for name in plain if plain.count(name) > 1 and not name.endswith("?weights=random")}
    if again:
        raise ValueError(f"models={models!r} has {', '.join(sorted(again))} twice: a network is its own best match")


def gather(models: str, data: str | images.Dataset, seeds: int = 4, tier: str = "laptop") -> list[Member]:
    """The networks that a string names.

    Parameters
    ----------
    models : names with commas between them. One of `networks.ARCHITECTURES` stands for `seeds` networks trained on
        `data` (from the zoo), "cnn6?seeds=8" for eight; any other name that `networks.load` takes
        ("torchvision:alexnet", "timm:NAME", either with "?weights=FILE.safetensors" or "?weights=random") for one
    data : what the zoo's networks were trained on, as in `zoo.get`
    seeds, tier : of the zoo's networks

    Returns
    -------
    list of Member, in the order of the names

    Raises
    ------
    as `check_models`, `zoo.get` and `networks.load`.

    Notes
    -----
    Networks of other packages were made for larger images than ours: what is smaller than `network.input_size` is
    enlarged to it, bilinearly, so that their filters meet edges of the size that they were made for.
    """
    check_models(models)
    members: list[Member] = []
    for name, own in _names(models):
        if name in networks.ARCHITECTURES:
            for entry in zoo.get(name, data, seeds=range(own or seeds), tier=tier):
                members.append(Member(name, entry.seed, entry.accuracy, lambda part, e=entry: getattr(e, part)))
            continue
        architecture = networks.split(name)[0]
        seed = sum(member.architecture == architecture for member in members)
        make = {"network": (name, True), "untrained": (architecture, False)}
        members.append(
            Member(architecture, seed, float("nan"), lambda part, m=make, s=seed: _enlarging(*m[part], seed=s))
        )
    return members


def _names(models: str) -> list[tuple[str, int | None]]:
    """Each name, and its number of seeds where it says one."""
    found = []
    for name in (part.strip() for part in models.split(",") if part.strip()):
        model, mark, number = name.partition("?seeds=")
        if mark and (model not in networks.ARCHITECTURES or not number.isdecimal() or int(number) < 2):
            ours = ", ".join(networks.ARCHITECTURES)
            raise ValueError(f"models has {name!r}: '?seeds=' takes a number of networks, 2 or more, of {ours}")
        found.append((model, int(number)) if mark else (name, None))
    return found


def _enlarging(name: str, pretrained: bool, seed: int) -> nn.Module:
    network = networks.load(name, seed=seed, pretrained=pretrained)
    return networks.enlarge(network) if hasattr(network, "input_size") else network


def activations(
    members: Iterable[Member],
    pictures: Tensor,
    part: str = "network",
    most_layers: int = 12,
    n_positions: int = 4,
    **options,
) -> dict[str, dict[str, np.ndarray]]:
    """What the layers of each network say about the same images: read once a network.

    Parameters
    ----------
    pictures : (n_images, 3, height, width)
    part : "network", or "untrained" for the same networks before their first step
    most_layers : of a network with more layers, so many are taken, evenly over its depth, first and last among them
    n_positions, options : `spatial`, `grid`, `seed` as in `representations.extract`

    Returns
    -------
    name of the network -> layer -> (n_stimuli, n_units). With spatial="positions" every layer has `n_positions` rows
    an image; those of a layer without places are repeated.
    """
    rows_per_image = n_positions if options.get("spatial", "positions") == "positions" else 1
    found = {}
    for member in members:
        network = getattr(member, part)
        names = spread(networks.layers(network), most_layers)
        # Enlarged images fill the memory sooner.
        size = 16 if getattr(network, "input_size", 0) > pictures.shape[-1] else 250
        rows = representations.extract(network, pictures, names, n_positions=n_positions, batch_size=size, **options)
        n = len(pictures) * rows_per_image
        found[member.name] = {k: v if len(v) == n else v.repeat(rows_per_image, 0) for k, v in rows.items()}
    return found


def spread(names: Sequence[str], most: int) -> list[str]:
    """At most `most` of the names, evenly spaced, first and last among them."""
    if len(names) <= most:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]


def relative_depth(n_layers: int) -> np.ndarray:
    """Depth of each layer (n_layers,), from 0 for the first to 1 for the last."""
    return np.linspace(0, 1, n_layers) if n_layers > 1 else np.zeros(1)


def corresponding(n_a: int, n_b: int) -> np.ndarray:
    """For each of `n_a` layers the layer, of `n_b`, nearest in relative depth (n_a,); the earlier of two as near."""
    return np.abs(relative_depth(n_a)[:, None] - relative_depth(n_b)).round(9).argmin(1)


def pairs(members: Sequence[Member], across: bool = False) -> list[tuple[Member, Member]]:
    """Whom to compare with whom.

    Parameters
    ----------
    across : False for all pairs within each architecture; True for pairs of networks of two architectures, the first
        with the first, the second with the second
    """
    kinds: dict[str, list[Member]] = {}
    for member in members:
        kinds.setdefault(member.architecture, []).append(member)
    if not across:
        return [pair for kind in kinds.values() for pair in combinations(kind, 2)]
    return [pair for one, other in combinations(kinds.values(), 2) for pair in zip(one, other, strict=False)]


def same_layers(
    who: Iterable[tuple[Member, Member]],
    acts: Acts,
    metrics: Sequence[str] = METRICS,
    others: Acts | None = None,
    progress: bool = True,
    **options,
) -> pd.DataFrame:
    """Corresponding layers of pairs of networks.

    Parameters
    ----------
    who : of `pairs`
    acts : of `activations`
    others : those of the second network of each pair, where they are to differ: other units, another order of images
    options : of `compare.compare`: `positions` (rows of one image), `nulls`, `folds`, `alpha`, ...

    Returns
    -------
    DataFrame with columns architecture (of two: "one x other"), pair ("0-1", the seeds), layer (of the first network),
    depth (0 to 1, of that layer), and those of `compare.compare`

    Notes
    -----
    Units that are silent on all images are left out, without a warning.
    """
    found = []
    for a, b in tqdm(list(who), disable=not progress, desc="pairs of networks"):
        mine, theirs = acts[a.name], (acts if others is None else others)[b.name]
        names = list(theirs)
        for (layer, rows), depth, j in zip(
            mine.items(), relative_depth(len(mine)), corresponding(len(mine), len(names)), strict=True
        ):
            table = _compared({layer: rows}, {names[j]: theirs[names[j]]}, metrics, options)
            found.append(_labelled(table, a, b, layer=layer, depth=depth))
    return pd.concat(found, ignore_index=True)


def all_layers(
    who: Iterable[tuple[Member, Member]],
    acts: Acts,
    metrics: Sequence[str] = METRICS[1:],
    progress: bool = True,
    **options,
) -> pd.DataFrame:
    """Every layer of one network with every layer of the other, for pairs of networks.

    Parameters
    ----------
    as in `same_layers`; a network may be paired with itself

    Returns
    -------
    DataFrame with columns architecture, pair, depth_a, depth_b, and those of `compare.compare`
    """
    found = []
    for a, b in tqdm(list(who), disable=not progress, desc="pairs of networks"):
        table = _compared(acts[a.name], acts[b.name], metrics, options)
        for side, member in (("a", a), ("b", b)):
            layers = list(acts[member.name])
            table[f"depth_{side}"] = table[f"layer_{side}"].map(
                dict(zip(layers, relative_depth(len(layers)), strict=True))
            )
        found.append(_labelled(table, a, b))
    return pd.concat(found, ignore_index=True)


def _compared(a: Mapping, b: Mapping, metrics: Sequence[str], options: dict) -> pd.DataFrame:
    with certainty.silent_units_expected():
        return compare.compare(a, b, metrics, progress=False, **options)


def kind(a: Member, b: Member) -> str:
    """What two networks are: their architecture, or both of them, "one x other"."""
    return a.architecture if a.architecture == b.architecture else f"{a.architecture} x {b.architecture}"


def _labelled(table: pd.DataFrame, a: Member, b: Member, **more) -> pd.DataFrame:
    first = {"architecture": kind(a, b), "pair": f"{a.seed}-{b.seed}"} | more
    return pd.DataFrame({name: [value] * len(table) for name, value in first.items()}).join(table)


def both_ways(table: pd.DataFrame) -> pd.DataFrame:
    """A table of comparisons with its two directions averaged, and without what belongs to one of them."""
    numbers = ["value", "spread", "chance", "chance_sd"]
    lost = [*numbers, "direction", "z", "p", "low", "high"]
    keys = [name for name in table if name not in lost]
    return table.groupby(keys, sort=False, dropna=False)[numbers].mean().reset_index()


def summary(table: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Means over pairs of networks with their 95 % intervals over networks.

    Parameters
    ----------
    table : columns pair, `value` and those in `by`; several rows of one pair are averaged first
    by : a row of the result for each of their combinations

    Returns
    -------
    DataFrame with columns of `by`, and mean, low, high (NaN for fewer than three networks), n_pairs
    """
    rows = []
    for key, group in table.groupby(list(by), sort=False):
        mean, low, high = interval(group.groupby("pair", sort=False)[value].mean().to_dict())
        about = dict(zip(by, key, strict=True))
        rows.append(about | {"mean": mean, "low": low, "high": high, "n_pairs": group.pair.nunique()})
    return pd.DataFrame(rows)


def interval(values: Mapping[str, float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean over pairs with an interval over networks.

    Parameters
    ----------
    values : pair ("0-1") -> value. All pairs of at least three networks: `certainty.over_networks`. Pairs of networks
        of two architectures ("0-0", "1-1", ...) are independent: Student's t over pairs

    Returns
    -------
    (mean, low, high); low and high are NaN for fewer than three networks or pairs, and where pairs are missing
    """
    keys = {tuple(pair.split("-")): value for pair, value in values.items()}
    mean = float(np.mean(list(values.values())))
    if all(a == b for a, b in keys):
        if len(keys) < 3:
            return mean, float("nan"), float("nan")
        reach = float(stats.t.ppf((1 + level) / 2, len(keys) - 1) * stats.sem(list(values.values())))
        return mean, mean - reach, mean + reach
    n = len({name for pair in keys for name in pair})
    if n < 3 or len(keys) != n * (n - 1) // 2:
        return mean, float("nan"), float("nan")
    return certainty.over_networks(keys, level)


def written(values: Mapping[str, float], digits: int = 2) -> str:
    """A mean over pairs and its `interval`, as text: "0.05 [0.04, 0.06]"; without brackets where there is none.

    Parameters
    ----------
    values : as in `interval`
    """
    mean, low, high = interval(values)
    return f"{mean:.{digits}f}" + ("" if np.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]")


def curves(table: pd.DataFrame, by: Sequence[str], value: str = "value") -> dict[tuple, pd.Series]:
    """Means by layer, for numbers that a text speaks of.

    Parameters
    ----------
    table : columns layer, depth, `value` and those in `by`

    Returns
    -------
    combination of `by` -> Series by layer, first to last
    """
    ordered = table.sort_values("depth", kind="stable")
    return {key: rows.groupby("layer", sort=False)[value].mean() for key, rows in ordered.groupby(list(by))}
