"""Several networks at once: who they are, what their layers say about the same images, and how alike that is.

Networks of one architecture are compared in all pairs. Networks of two architectures are compared one to one, the first
of one with the first of the other, so that no network stands in two of these pairs; their layers correspond by
relative depth.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor, nn
from tqdm import tqdm

from . import certainty, compare, networks, representations
from .layer_choice import MOST, spread
from .named_networks import Member

METRICS = ("linear", "procrustes", "soft_matching")
Acts = Mapping[str, Mapping[str, np.ndarray]]


def activations(
    members: Iterable[Member],
    pictures: Tensor | None,
    part: str = "network",
    layers: Mapping[str, Sequence[str]] | None = None,
    most_layers: int = MOST,
    n_positions: int = 4,
    **options,
) -> dict[str, dict[str, np.ndarray]]:
    """What the layers of each network say about the same images: read once a network.

    Parameters
    ----------
    pictures : (n_images, 3, height, width); None where all members are activations already
    part : "network", or "untrained" for the same networks before their first step
    layers : architecture -> names, of `layer_choice.choose`
    most_layers : without `layers`, so many of a network that has more, evenly over its depth, first and last among them
    n_positions, options : `spatial`, `grid`, `seed` as in `representations.extract`

    Returns
    -------
    name of the network -> layer -> (n_stimuli, n_units). With spatial="positions" every layer has `n_positions` rows
    an image; those of a layer without places are repeated. Members without that part (`Member.has`) are left out,
    except that activations stand for the part "network" as they are.
    """
    found = {}
    for member in members:
        if member.activations is not None and part == "network":
            held = member.activations.layers
            names = spread(list(held), most_layers) if layers is None else layers[member.architecture]
            found[member.name] = {name: held[name] for name in names}
        if not member.has(part):
            continue
        network = getattr(member, part)
        names = spread(networks.layers(network), most_layers) if layers is None else layers[member.architecture]
        found[member.name] = _read(network, pictures, names, n_positions=n_positions, **options)
    return found


def _read(network: nn.Module, pictures: Tensor, names: Sequence[str], **options) -> dict[str, np.ndarray]:
    """`representations.extract`, rows of layers without places repeated where others have several an image."""
    places = options.get("n_positions", 4) if options.get("spatial", "positions") == "positions" else 1
    # Enlarged images fill the memory sooner.
    size = 16 if getattr(network, "input_size", 0) > pictures.shape[-1] else 250
    rows = representations.extract(network, pictures, names, batch_size=size, **options)
    n = len(pictures) * places
    return {name: values if len(values) == n else values.repeat(places, 0) for name, values in rows.items()}


class SideBySide:
    """Networks of any kinds, layer by layer: as many layers of each as the shallowest has, by relative depth.

    Attributes
    ----------
    layers : names of the layers, those of the first network
    own : for each network, name -> its own layer
    """

    def __init__(self, members: Sequence[Member], looked_at: Mapping[str, Sequence[str]]):
        n = min(len(looked_at[member.architecture]) for member in members)
        self.layers = spread(list(looked_at[members[0].architecture]), n)
        each = [spread(list(looked_at[member.architecture]), n) for member in members]
        self.members, self.own = list(members), [dict(zip(self.layers, own, strict=True)) for own in each]

    def some(self, layers: Sequence[str], n: int | None = None) -> list[dict[str, str]]:
        """`own` of the first `n` networks, of some layers."""
        return [{name: own[name] for name in layers} for own in self.own[:n]]

    def read(
        self, i: int, pictures: Tensor, layers: Sequence[str] | None = None, part: str = "network", **options
    ) -> dict[str, np.ndarray]:
        """Activations of network i, by the names in `layers`; `options` as in `representations.extract`."""
        wanted = {name: self.own[i][name] for name in (self.layers if layers is None else layers)}
        if self.members[i].activations is not None:
            return {name: self.members[i].activations.layers[own] for name, own in wanted.items()}
        rows = _read(getattr(self.members[i], part), pictures, list(wanted.values()), **options)
        return {name: rows[own] for name, own in wanted.items()}


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


def matched(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    """All pairs within each kind; a network that is alone of its kind is paired across kinds instead, as in `pairs`."""
    kinds = [member.architecture for member in members]
    across = [pair for pair in pairs(members, across=True) if any(kinds.count(m.architecture) == 1 for m in pair)]
    return pairs(members) + across


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
    Units that are silent on all images are left out, without a warning. So are pairs of which `acts` lacks one: the
    table may be empty.
    """
    found = []
    others = acts if others is None else others
    for a, b in tqdm(_known(who, acts, others), disable=not progress, desc="pairs of networks"):
        mine, theirs = acts[a.name], others[b.name]
        names = list(theirs)
        for (layer, rows), depth, j in zip(
            mine.items(), relative_depth(len(mine)), corresponding(len(mine), len(names)), strict=True
        ):
            table = _compared({layer: rows}, {names[j]: theirs[names[j]]}, metrics, options)
            found.append(_labelled(table, a, b, layer=layer, depth=depth))
    return pd.concat(found, ignore_index=True) if found else _empty("layer", "depth")


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
    DataFrame with columns architecture, pair, depth_a, depth_b, and those of `compare.compare`; empty as `same_layers`
    """
    found = []
    for a, b in tqdm(_known(who, acts, acts), disable=not progress, desc="pairs of networks"):
        table = _compared(acts[a.name], acts[b.name], metrics, options)
        for side, member in (("a", a), ("b", b)):
            layers = list(acts[member.name])
            table[f"depth_{side}"] = table[f"layer_{side}"].map(
                dict(zip(layers, relative_depth(len(layers)), strict=True))
            )
        found.append(_labelled(table, a, b))
    return pd.concat(found, ignore_index=True) if found else _empty("depth_a", "depth_b")


def _known(who: Iterable[tuple[Member, Member]], acts: Acts, others: Acts) -> list[tuple[Member, Member]]:
    return [(a, b) for a, b in who if a.name in acts and b.name in others]


def _empty(*more: str) -> pd.DataFrame:
    """A table of no pairs, with the columns and types of one of many."""
    text = ("architecture", "pair", "layer", "metric", "layer_a", "layer_b", "direction")
    names = ["architecture", "pair", *more, "metric", "layer_a", "layer_b", "direction", "value", "spread", "chance"]
    names += ["chance_sd", "z", "p", "low", "high", "n_stimuli", "n_units_a", "n_units_b"]
    return pd.DataFrame({name: pd.Series(dtype=str if name in text else float) for name in names})


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
