"""Chapter 7: alignment of networks on images unlike those that they were trained on.

`sets` makes the seventeen shifted image sets, `alignments` measures every pair of networks on each of them,
`accuracies` how well the networks still name what they see, `sizes` how large the shifts are for somebody who has no
network. The other functions put these tables together.

**Maps are fitted anew on each set** and scored on held-out images of the same set, which is how we read Kapoor et al.
(2025): an alignment score belongs to the responses to one set of stimuli, and theirs are computed for each set.
`carried` asks the other question, whether the map found on familiar images still holds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import linalg, stats
from torch import Tensor, nn
from tqdm import tqdm

from . import colour, compare, images, metrics, shifts
from .certainty import silent_units_expected
from .own_images import Pair
from .shift_responses import POSITIONS, responses
from .shifts_spectrum import blurs

WITHIN = "within distribution"
METRICS = ("linear", "procrustes", "soft_matching")
SEVERITIES = 6


class Set(NamedTuple):
    """One image set: its stimuli, the familiar images from which they were made (None where they were made from
    others), the level of the shift, and the name of the set that it is held against."""

    split: images.Split
    familiar: Tensor | None
    level: int
    against: str = WITHIN


def level(name: str, severity: int) -> int:
    """The level of a shift for a severity from 1 to 6, so that 6 is the last of however many levels it has."""
    return int(np.ceil(severity * len(shifts.SHIFTS[name].levels) / SEVERITIES))


def sets(
    data: images.Dataset, n: int, severity: int = 3, seed: int = 0, own: Mapping[str, Pair] | None = None
) -> dict[str, Set]:
    """The familiar test images, and the same images under each shift.

    Every set has one level. In the sets of Geirhos et al. (2018), which the paper takes, levels are mixed.

    Parameters
    ----------
    data : images.Dataset; `n` of its test images are taken, balanced over classes
    severity : 1 to 6, see `level`
    own : name -> shifts of the reader's own, of `own_images.pair`; at most `n` images of each. The originals make a set
        of their own ("<name>, original"), against which the shifted ones are held

    Returns
    -------
    dict name -> Set; first "within distribution". Where the stimuli of Geirhos et al. (2019) stand for a shift, all of
    them up to `n`, in random order.
    """
    chosen = replace(data, test=data.test.sample(n, seed))
    found = {WITHIN: Set(chosen.test, chosen.test.images, 0)}
    for name in shifts.SHIFTS:
        at = level(name, severity)
        split = shifts.shifted(chosen, name, at, seed)
        if shifts.SHIFTS[name].drawn and data.test.latents is None:
            found[name] = Set(split.sample(min(n, len(split)), seed, balanced=False), None, at)
        else:
            found[name] = Set(split, chosen.test.images, at)
    for name, pair in (own or {}).items():
        some = np.random.default_rng(seed).permutation(len(pair.labels))[:n]
        before, after = (images.Split(pictures, pair.labels)[some] for pictures in (pair.original, pair.shifted))
        found[f"{name}, original"] = Set(before, before.images, 0)
        found[name] = Set(after, before.images, 1, f"{name}, original")
    return found


def originals(groups: Mapping[str, Set]) -> dict[str, str]:
    """Shift of the reader's own -> the set of its original images."""
    return {name: group.against for name, group in groups.items() if group.against != WITHIN}


def alignments(
    acts: Mapping[tuple[str, int], Mapping[str, np.ndarray]],
    names: Sequence[str] = METRICS,
    nulls: int = 3,
    progress: bool = False,
    against: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Held-out alignment of corresponding layers, for every pair of networks on every set.

    Parameters
    ----------
    acts : of `responses`
    names : of metrics
    nulls : shuffles of images for the chance level, of the first pair of networks only
    against : of `originals`: sets that are held against others than the first; those others get no rows

    Returns
    -------
    DataFrame with columns shift, pair ("i-j"), layer, depth (0 first layer to 1 last), metric, value (mean of both
    directions), spread (standard deviation over folds), within (the value on as many familiar images), drop (within -
    value), chance (of the shift, NaN but for the first pair), n_images
    """
    shown, seeds = (list(dict.fromkeys(key[i] for key in acts)) for i in (0, 1))
    layers = list(acts[shown[0], seeds[0]])
    # A layer without places has one row an image; some layer of each set has four.
    count = {name: max(len(rows) for rows in acts[name, seeds[0]].values()) // POSITIONS for name in shown}
    wanted = [(name, count[name]) for name in shown[1:]] + [(shown[0], n) for n in sorted(set(count.values()))]
    todo = [(name, n, pair) for name, n in wanted for pair in combinations(seeds, 2)]
    found = []
    for name, n, (i, j) in tqdm(todo, "sets and pairs", disable=not progress):
        for layer in layers:
            shuffles = nulls if (i, j) == tuple(seeds[:2]) else 0
            scores = _corresponding(acts[name, i][layer], acts[name, j][layer], n, count[name], names, shuffles)
            about = {"shift": name, "pair": f"{i}-{j}", "layer": layer, "n_images": n}
            found += [about | {"metric": metric} | row for metric, row in scores.items()]
    table = pd.DataFrame(found)
    against = against or {}
    familiar = table[table["shift"].isin([shown[0], *against.values()])].drop(columns=["spread", "chance"])
    familiar = familiar.rename(columns={"value": "within", "shift": "against"})
    table = table[(table["shift"] != shown[0]) | (table.n_images == count[shown[0]])]
    table = table[~table["shift"].isin(list(against.values()))]
    table = table.assign(against=[against.get(name, shown[0]) for name in table["shift"]])
    table = table.merge(familiar, on=["against", "pair", "layer", "n_images", "metric"]).drop(columns="against")
    at = {layer: k / max(1, len(layers) - 1) for k, layer in enumerate(layers)}
    return table.assign(drop=table.within - table.value, depth=table.layer.map(at))


def _corresponding(a, b, n: int, n_all: int, names: Sequence[str], nulls: int) -> dict[str, dict]:
    """Metric -> value, spread and chance of one layer in two networks, on the first n of n_all images."""
    positions = len(a) // n_all
    a, b = a[: n * positions], b[: n * positions]
    with silent_units_expected():
        table = compare.compare({"": a}, {"": b}, names, nulls=nulls, positions=positions, progress=False)
    return table.groupby("metric", sort=False)[["value", "spread", "chance"]].mean().to_dict("index")


def carried(
    acts: Mapping[tuple[str, int], Mapping[str, np.ndarray]], fitted: Mapping[int, Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """Rotations fitted on other familiar images and scored on every set: does the map itself hold?

    Parameters
    ----------
    acts : of `responses`, the sets to be scored on
    fitted : number of the network -> layer -> activations of familiar images that are in none of the sets

    Returns
    -------
    DataFrame with columns shift, pair, layer, value: mean correlation over the units that vary, both directions
    """
    found = []
    names, seeds = (list(dict.fromkeys(key[i] for key in acts)) for i in (0, 1))
    for i, j in combinations(seeds, 2):
        for layer in fitted[i]:
            with silent_units_expected():
                maps = {
                    (x, y): metrics.procrustes(fitted[x][layer], fitted[y][layer], folds=None, details=True).mapping
                    for x, y in ((i, j), (j, i))
                }
            for name in names:
                scores = [_correlation(acts[name, x][layer] @ w, acts[name, y][layer]) for (x, y), w in maps.items()]
                about = {"shift": name, "pair": f"{i}-{j}", "layer": layer}
                found.append(about | {"value": float(np.mean(scores))})
    return pd.DataFrame(found)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over units of the correlation of a unit of a with the same of b, where both vary."""
    a, b = (np.asarray(x, np.float64) - x.mean(0, dtype=np.float64) for x in (a, b))
    norms = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    varies = norms > 1e-9 * norms.max()
    return float(((a * b).sum(0)[varies] / norms[varies]).mean())


# How large is a shift, without asking a network?


def statistics(pictures: Tensor) -> np.ndarray:
    """What simple channels see of each image, (n, 15): means of brightness and of two colour differences, and for each
    of them the logarithm of the contrast in four octaves of scale.

    Parameters
    ----------
    pictures : uint8 (n, 3, size, size)
    """
    pixels = pictures.float()
    bright = colour.luma(pixels)
    channels = [bright, pixels[:, :1] - pixels[:, 1:2], pixels[:, 2:] - bright]
    unit, columns = pixels.shape[-1] / 32, []
    for channel in channels:
        stack = [channel, *blurs(channel, [unit, 2 * unit, 4 * unit, 8 * unit])]
        columns.append(channel.mean((1, 2, 3)))
        # One grey level is added: below it, a contrast is the rounding of eight bits.
        columns += [((a - b).square().mean((1, 2, 3)).sqrt() + 1).log() for a, b in zip(stack, stack[1:], strict=False)]
    return np.stack([column.double().cpu().numpy() for column in columns], 1)


def statistical_distance(familiar: np.ndarray, others: np.ndarray) -> float:
    """How far apart the `statistics` of two image sets are: Fréchet distance of Gaussians (Dowson & Landau 1982).

    Parameters
    ----------
    familiar, others : (n, n_statistics), (m, n_statistics); the images need not correspond

    Returns
    -------
    float, in standard deviations of the familiar images
    """
    centre, spread = familiar.mean(0), familiar.std(0) + 1e-9
    x, y = (familiar - centre) / spread, (others - centre) / spread
    root = linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    squared = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    return float(np.sqrt(max(squared, 0)))


def sizes(groups: Mapping[str, Set]) -> pd.DataFrame:
    """How large each shift is: columns shift, pixels (`shifts.distance`, in grey levels; NaN where a set was made from
    other images), statistics (`statistical_distance` to the familiar images)."""
    found, bases = [], {WITHIN, *originals(groups).values()}
    familiar = {name: statistics(groups[name].split.images) for name in bases}
    for name, group in groups.items():
        if name in bases - {WITHIN}:
            continue
        pictures = group.split.images
        pixels = np.nan if group.familiar is None else shifts.distance(pictures, group.familiar)
        found.append((name, pixels, statistical_distance(familiar[group.against], statistics(pictures))))
    return pd.DataFrame(found, columns=["shift", "pixels", "statistics"])


# Putting it together


def correlation_by_layer(
    table: pd.DataFrame, against: str, column: str = "value", resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Correlation over shifts, layer by layer, with a bootstrap interval over shifts.

    Parameters
    ----------
    table : one row a shift, pair and layer, with columns `column` and `against`; pairs are averaged first
    against, column : what is correlated with what; shifts in which either is missing are left out

    Returns
    -------
    DataFrame with columns layer, depth, r, low, high (95 %), n_shifts

    Notes
    -----
    Percentiles of 2,000 resamples of the shifts (Efron & Tibshirani 1993). Seventeen shifts that somebody chose are no
    random sample of all shifts: the interval says how much hangs on single ones.
    """
    rng, found = np.random.default_rng(seed), []
    means = table.groupby(["layer", "depth", "shift"], sort=False)[[column, against]].mean().dropna()
    for (layer, depth), rows in means.groupby(["layer", "depth"], sort=False):
        x, y = rows[column].to_numpy(), rows[against].to_numpy()
        drawn = rng.integers(len(x), size=(resamples, len(x)))
        low, high = np.nanpercentile(_paired(x[drawn], y[drawn]), [2.5, 97.5])
        found.append((layer, depth, float(_paired(x, y)), low, high, len(x)))
    return pd.DataFrame(found, columns=["layer", "depth", "r", "low", "high", "n_shifts"])


def correlation_by_pair(table: pd.DataFrame, against: str, column: str = "value") -> pd.DataFrame:
    """The same correlations for each pair of networks by itself: columns pair, layer, depth, value."""
    kept = table.dropna(subset=[column, against])
    groups = kept.groupby(["pair", "layer", "depth"], sort=False)
    found = [(*key, float(_paired(rows[column].to_numpy(), rows[against].to_numpy()))) for key, rows in groups]
    return pd.DataFrame(found, columns=["pair", "layer", "depth", "value"])


def _paired(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlations along the last axis; NaN where one side does not vary."""
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))


def together(table: pd.DataFrame, accuracy: pd.DataFrame, size: pd.DataFrame) -> pd.DataFrame:
    """`alignments` with columns accuracy (mean of the two networks), pixels and statistics."""
    by = accuracy.set_index(["shift", "network"]).accuracy
    pairs = table.pair.str.split("-", expand=True).astype(int)
    means = [by[list(zip(table["shift"], pairs[side], strict=True))].to_numpy() for side in (0, 1)]
    return table.assign(accuracy=np.mean(means, 0)).merge(size, on="shift")


def halves(table: pd.DataFrame, names: Iterable[str] = ("earlier layers", "later layers")) -> pd.DataFrame:
    """A table with a column `condition`: to which half of the network a layer belongs; a middle layer to neither."""
    first, last = names
    half = np.select([table.depth < 0.5, table.depth > 0.5], [first, last], "")
    return table.assign(condition=half)[half != ""]


def by_level(
    networks: Sequence[nn.Module], data: images.Dataset, names: Sequence[str], n: int, layers: Sequence[str]
) -> pd.DataFrame:
    """Held-out alignment by a rotation at every level of graded shifts: columns shift, level, layer, pair, value."""
    found = []
    chosen = replace(data, test=data.test.sample(n, 0))
    for name in names:
        for at in range(len(shifts.SHIFTS[name].levels) + 1):
            group = {name: Set(shifts.shifted(chosen, name, at), None, at)}
            table = alignments(responses(networks, group, layers)[0], ["procrustes"], nulls=0)
            found.append(table[["shift", "layer", "pair", "value"]].assign(level=at))
    return pd.concat(found)


def least_r(n: int) -> float:
    """The smallest correlation over `n` points that differs from none at p = 0.05 (two-sided t test)."""
    limit = stats.t.ppf(0.975, n - 2)
    return float(limit / np.sqrt(n - 2 + limit**2))


def conditions(table: pd.DataFrame, metric: str = "procrustes") -> pd.DataFrame:
    """What claims about shifts compare, for each pair of networks: columns pair, condition, value.

    Parameters
    ----------
    table : of `together`

    Notes
    -----
    "Earlier" and "later" layers are the two halves of the network. Correlations are over the shifts.
    """
    table = table[table.metric == metric]
    moved = table[table["shift"] != WITHIN]
    first, last = (moved[moved.depth == end] for end in (0, 1))
    by_half = halves(moved)
    parts = {
        "familiar images": last.assign(value=last.within),
        "shifted images": last,
        "half of the last layer's drop": last.assign(value=last["drop"] / 2),
        "the first layer's drop": first.assign(value=first["drop"]),
        **{f"drop, {half}": rows.assign(value=rows["drop"]) for half, rows in by_half.groupby("condition")},
        "none": first.assign(value=0.0),
        # Shifts whose images have no class of the data set say nothing about accuracy.
        "least r to be told from none": first.assign(value=least_r(first.dropna(subset="accuracy")["shift"].nunique())),
    }
    for words, against, column in (
        ("drop with distance of statistics", "statistics", "drop"),
        ("alignment with accuracy", "accuracy", "value"),
    ):
        rows = correlation_by_pair(moved, against, column)
        split = halves(rows)
        parts |= {f"r of {words}, {half}": part for half, part in split.groupby("condition")}
        parts |= {f"r of {words}, {name} layer": rows[rows.depth == end] for end, name in ((0, "first"), (1, "last"))}
    return pd.concat([rows[["pair", "value"]].assign(condition=name) for name, rows in parts.items()])
