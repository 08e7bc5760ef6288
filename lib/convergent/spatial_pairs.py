"""Which layers of which networks are compared, and how alike their patterns are.

A table of layers is as `spatial_layers.of_network` gives it, with columns image_set, labels ("true", "few" or
"random"), architecture, seed and trained in front, for one or many networks.
"""

import re
from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
import pandas as pd

from . import spatial_forms
from .spatial_layers import later
from .spatial_sets import chance, diagonality

HALVES = "two halves of one layer's filters"
SEEDS, SETS, SIZES = "two seeds", "two image sets", "two filter sizes"
LABELS, KINDS_OF_NETWORK = "true and random labels", "two architectures"
LAYERS, FIRST = "two layers of one network", "the first layer and a later one"
UNTRAINED = "two layers of one untrained network"
KINDS = (HALVES, SEEDS, SETS, SIZES, LABELS, KINDS_OF_NETWORK, LAYERS, FIRST, UNTRAINED)
BY_CHANCE = {"any": "random bases", "mirror": "mirror-symmetric bases"}
HIGH = "95 % of mirror-symmetric bases"  # what a claim has to exceed: 95th percentile
BETWEEN = " – "  # the names of two networks that are compared
NETWORK = ["image_set", "labels", "architecture", "seed"]


def networks(layers: pd.DataFrame) -> dict[tuple, pd.DataFrame]:
    """The layers of each network, by (image_set, labels, architecture, seed)."""
    return dict(list(layers.groupby(NETWORK, sort=False)))


def called(key: tuple) -> str:
    """A network in words."""
    image_set, labels, architecture, seed = key
    return f"{architecture}, {image_set}, {labels} labels, seed {seed}"


def brief(key: tuple) -> str:
    """A network in as few words as a figure has room for."""
    image_set, labels, architecture, _ = key
    image_set = re.sub(r" \([^)]*\)", "", image_set).replace(", part ", " ").replace(" of ", "/")
    return f"{architecture}, {image_set}" + (f", {labels}" if labels != "true" else "")


def family(architecture: str) -> str:
    """An architecture without the size of its filters: "vgg11" of "vgg11-7x7"."""
    return architecture.partition("-")[0]


def _partners(one: tuple, two: tuple, few: set, n_seeds: int) -> str | None:
    """What two networks differ in, if in one thing only besides their seeds.

    Networks of one architecture are compared across seeds: with one seed they would have the same initial weights, and
    what is left of these would count as a shared set. Each network has one partner of each other kind: the next seed.
    """
    (sets, labels, kinds, seeds) = zip(one, two, strict=True)
    same = [len(set(pair)) == 1 for pair in (sets, labels, kinds, seeds)]
    following = seeds[1] == (seeds[0] + 1) % n_seeds and not same[3]
    if same == [True, True, True, False]:
        return SEEDS
    if same[:3] == [False, True, True] and following:
        return SETS
    if same[0] and same[1] and same[3] and family(kinds[0]) == family(kinds[1]):
        return SIZES
    if same[0] and same[2] and following and "random" in labels:
        # Beside the true labels of the same images where there are such networks, else beside those of all images.
        true_seed = seeds[labels.index("random") - 1]
        other = "few" if (sets[0], "few", kinds[0], true_seed) in few else "true"
        return LABELS if other in labels else None
    if same[0] and same[1] and same[3]:
        return KINDS_OF_NETWORK
    return None


def _comparisons(layers: pd.DataFrame) -> Iterator[tuple]:
    """(kind, unit, row of a layer, row of another)."""
    trained = networks(layers[layers.trained])
    for key, own in trained.items():
        rows = list(later(own).itertuples())
        for a, b in combinations(rows, 2):
            yield LAYERS, called(key), a, b
        if own.position.min() == 1:
            for b in rows:
                yield FIRST, called(key), next(own[own.position == 1].itertuples()), b
    for key, own in networks(layers[~layers.trained]).items():
        for a, b in combinations(list(later(own).itertuples()), 2):
            yield UNTRAINED, called(key), a, b
    n_seeds = int(layers.seed.max()) + 1 if len(layers) else 0
    few = {key for key in trained if key[1] == "few"}
    for (one, own), (two, others) in combinations(trained.items(), 2):
        kind = _partners(one, two, few, n_seeds)
        if kind is None:
            continue
        unit = f"{called(one)}{BETWEEN}{called(two)}"
        if kind == KINDS_OF_NETWORK:  # their layers do not correspond
            for a, b in product(later(own).itertuples(), later(others).itertuples()):
                yield kind, unit, a, b
        else:
            by = {row.position: row for row in later(others).itertuples()}
            for a in later(own).itertuples():
                if a.position in by:
                    yield kind, unit, a, by[a.position]


def pairs(layers: pd.DataFrame, n: int = 100) -> pd.DataFrame:
    """Every comparison that the claims need, with chance.

    Parameters
    ----------
    layers : a table of layers of one or many networks
    n : random bases for a chance level

    Returns
    -------
    DataFrame with columns kind (one of `KINDS`), unit (the network, or the two), layer_a, layer_b, position_a,
    position_b, value (`diagonality`), and the mean of the same with random bases ("random bases"), with bases that have
    the mirror symmetries of the grid ("mirror-symmetric bases"), and the 95th percentile of these. Comparisons are of
    layers from the second on, except where the first is meant; networks differ in one thing at a time.
    """
    rows = []
    for kind, unit, a, b in _comparisons(layers):
        nulls = {name: chance(a.covariance, b.covariance, symmetry, n) for symmetry, name in BY_CHANCE.items()}
        value = diagonality(a.covariance, b.covariance)
        rows.append(
            {"kind": kind, "unit": unit, "layer_a": a.layer, "layer_b": b.layer}
            | {"position_a": a.position, "position_b": b.position, "value": value}
            | {name: null.mean() for name, null in nulls.items()}
            | {HIGH: np.quantile(nulls[BY_CHANCE["mirror"]], 0.95)}
        )
    for key, own in networks(later(layers[layers.trained])).items():
        rows += [
            {"kind": HALVES, "unit": called(key), "layer_a": row.layer, "layer_b": row.layer, "value": row.halves}
            | {"position_a": row.position, "position_b": row.position}
            for row in own.itertuples()
        ]
    columns = ["kind", "unit", "layer_a", "layer_b", "position_a", "position_b", "value", *BY_CHANCE.values(), HIGH]
    return pd.DataFrame(rows, columns=columns)


def summary(table: pd.DataFrame, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean over units of every kind of comparison, with a 95 % bootstrap interval over networks and the chance levels.

    Networks are drawn, not pairs: pairs that share a network are not independent. A pair counts as often as both of its
    networks were drawn.

    Returns
    -------
    DataFrame with columns kind, mean, low, high (NaN for fewer than three networks), n_units, n, and those of
    `BY_CHANCE` and `HIGH`
    """
    rows, rng = [], np.random.default_rng(seed)
    for kind in KINDS:
        part = table[table.kind == kind]
        if part.empty:
            continue
        units = part.groupby("unit").value.mean()
        low, high = _interval(units, draws, rng)
        own = {"kind": kind, "mean": units.mean(), "low": low, "high": high, "n_units": len(units), "n": len(part)}
        rows.append(own | {name: part[name].mean() for name in (*BY_CHANCE.values(), HIGH)})
    return pd.DataFrame(rows)


def _interval(units: pd.Series, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """The middle 95 % of the means of networks drawn with replacement; NaN for fewer than three."""
    within = [unit.split(BETWEEN) for unit in units.index]
    names = sorted({name for unit in within for name in unit})
    if len(names) < 3:
        return np.nan, np.nan
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    often = np.stack([drawn[:, [names.index(name) for name in unit]].prod(1) for unit in within], 1)
    often = often[often.any(1)]  # no pair has both of its networks drawn
    means = often @ units.to_numpy() / often.sum(1)
    return tuple(np.quantile(means, [0.025, 0.975]))


def written(table: pd.DataFrame, kind: str) -> str:
    """The mean of a kind of comparison with its interval, from a `summary`; "not measured" where it has none."""
    rows = table[table.kind == kind]
    if rows.empty:
        return "not measured"
    row = rows.iloc[0]
    return f"{row['mean']:.2f}" + ("" if np.isnan(row.low) else f" [{row.low:.2f}, {row.high:.2f}]")


def alike(layers: pd.DataFrame) -> tuple[np.ndarray, list[str], list[int]]:
    """Diagonality of every layer with every other: (n, n), a label for each row, and where a network begins."""
    labels, begins, Cs = [], [], []
    for own in networks(layers).values():
        begins.append(len(labels))
        labels += list(own.layer)
        Cs += list(own.covariance)
    found = np.eye(len(Cs))
    for i, j in combinations(range(len(Cs)), 2):
        found[i, j] = found[j, i] = diagonality(Cs[i], Cs[j])
    return found, labels, begins


def forms(layers: pd.DataFrame, n: int = 40) -> pd.DataFrame:
    """How well each closed form explains each layer from the second on.

    Returns
    -------
    DataFrame with columns image_set, labels, architecture, seed, unit, layer, position, k, form, width, explained (see
    `spatial_forms.Fit`), captured (by the best five patterns), cosine (mean over the first five eigenvectors), and what
    `n` random bases give for `explained`, fitted alike (those of `BY_CHANCE`, and `HIGH`)
    """
    rows = []
    for key, own in networks(later(layers[layers.trained])).items():
        for row in own.itertuples():
            about = dict(zip(NETWORK, key, strict=True)) | {"layer": row.layer, "position": row.position, "k": row.k}
            for form in spatial_forms.FORMS:
                found = spatial_forms.fit(row.covariance, form)
                nulls = {name: spatial_forms.chance(row.covariance, form, s, n) for s, name in BY_CHANCE.items()}
                rows.append(
                    about
                    | {"unit": called(key), "form": form, "width": found.width, "explained": found.explained}
                    | {"captured": found.captured[4], "cosine": found.cosines[:5].mean()}
                    | {name: null.mean() for name, null in nulls.items()}
                    | {HIGH: np.quantile(nulls[BY_CHANCE["mirror"]], 0.95)}
                )
    columns = [*NETWORK, "unit", "layer", "position", "k", "form", "width", "explained", "captured", "cosine", HIGH]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
