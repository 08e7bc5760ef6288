"""Is the most similar layer of another network the corresponding one? Statistics, and what chance gives them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from . import networks
from .certainty import silent_units_expected
from .compare import compare
from .populations import Acts, Member, corresponding, interval, kind, relative_depth

# Statistic -> whether larger means better correspondence.
STATISTICS = {
    "best match corresponds": True,
    "best match corresponds, or is next to it": True,
    "rank of the corresponding layer": False,
    "distance of the best match": False,
}


def matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Scores (layers of a, layers of b), in the order of their depths; whatever else varies in the table is averaged.

    Parameters
    ----------
    table : columns layer_a, layer_b, depth_a, depth_b, value
    """
    wide = table.pivot_table(index=["depth_a", "layer_a"], columns=["depth_b", "layer_b"], values="value")
    return wide.sort_index(axis=0).sort_index(axis=1).droplevel("depth_a").droplevel("depth_b", axis=1)


def statistics(scores: np.ndarray) -> dict[str, float]:
    """`STATISTICS` of one pair of networks, means over the layers of both.

    Parameters
    ----------
    scores : (n_layers_a, n_layers_b), higher for more alike

    Returns
    -------
    dict with, over the layers of a and those of b, each looking for its match in the other network:
        the share whose best match is the corresponding layer (the nearest in relative depth);
        the share whose best match is that layer or one next to it;
        the mean rank of the corresponding layer among all, from 1 for the best;
        the mean distance in relative depth between a layer and its best match, from 0 to 1

    Notes
    -----
    Of equal scores the first is the best match; ranks of equal scores are averaged.
    """
    scores = np.asarray(scores, dtype=np.float64)
    each = [one for side in (scores, scores.T) for one in _of_rows(side)]
    return dict(zip(STATISTICS, np.mean(each, axis=0).tolist(), strict=True))


def _of_rows(scores: np.ndarray) -> np.ndarray:
    """The four statistics of each row (n_rows, 4)."""
    n_rows, n_columns = scores.shape
    target, best, rows = corresponding(n_rows, n_columns), scores.argmax(1), np.arange(n_rows)
    rank = rankdata(-scores, axis=1)[rows, target]
    distance = np.abs(relative_depth(n_rows) - relative_depth(n_columns)[best])
    return np.stack([best == target, np.abs(best - target) <= 1, rank, distance], 1).astype(float)


def permuted(scores: Mapping[tuple, np.ndarray], n: int = 999, seed: int = 0) -> pd.DataFrame:
    """What the statistics give when the layers of each network lie in a random order: the chance level.

    Parameters
    ----------
    scores : (network, other network) -> (n_layers, n_layers of the other), for all pairs of one comparison
    n : random orders; in each, a network has one order, whatever pairs it stands in

    Returns
    -------
    DataFrame (n, 4), the statistics, means over pairs

    Notes
    -----
    Of two networks, only the order of one relative to the other matters, so this permutes "the layers of one network"
    in every pair, and keeps that pairs share networks.
    """
    rng, found = np.random.default_rng(seed), []
    sizes = {pair[side]: values.shape[side] for pair, values in scores.items() for side in (0, 1)}
    for _ in range(n):
        order = {network: rng.permutation(size) for network, size in sizes.items()}
        drawn = [statistics(values[np.ix_(order[a], order[b])]) for (a, b), values in scores.items()]
        found.append({name: np.mean([one[name] for one in drawn]) for name in STATISTICS})
    return pd.DataFrame(found)


def order(scores: np.ndarray) -> float:
    """Do best matches keep the order of the layers? Needs no rule for which layers correspond.

    Parameters
    ----------
    scores : (n_layers_a, n_layers_b), higher for more alike

    Returns
    -------
    Spearman's correlation of a layer's place with that of its best match in the other network, the mean over both
    networks: 1 for best matches in order, about 0 for random ones, and 0 where one layer is the best for all
    """
    return float(np.mean([_kept_order(side.argmax(1)[None])[0] for side in (scores, scores.T)]))


def least_order(scores: np.ndarray, n: int = 199, seed: int = 0) -> float:
    """The `order` that only one in twenty random orders of the layers exceeds: what cannot be told from none."""
    rng = np.random.default_rng(seed)
    layers = [np.array([rng.permutation(size) for _ in range(n)]) for size in scores.shape]  # (n, n_layers), by place
    places, found = [each.argsort(1) for each in layers], np.zeros(n)
    for side, best in enumerate((scores.argmax(1), scores.argmax(0))):
        found += _kept_order(np.take_along_axis(places[1 - side], best[layers[side]], axis=1)) / 2
    return float(np.quantile(found, 0.95))


def _kept_order(places: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row with 0, 1, 2, ...; 0 for a row of one value."""
    ranks = rankdata(places, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    along = np.arange(places.shape[1]) - (places.shape[1] - 1) / 2
    size = np.sqrt((ranks**2).sum(1) * (along**2).sum())
    return np.divide(ranks @ along, size, out=np.zeros(len(places)), where=size > 0)


def chance(n_a: int, n_b: int) -> dict[str, float]:
    """Means of the statistics over all orders of the layers: every layer is as likely the best match as any other."""
    gap = np.abs(relative_depth(n_a)[:, None] - relative_depth(n_b)).mean()
    each = []
    for n, others in ((n_a, n_b), (n_b, n_a)):
        beside = np.abs(np.arange(others) - corresponding(n, others)[:, None]) <= 1
        each += [(1 / others, row.mean(), (others + 1) / 2, gap) for row in beside]
    return dict(zip(STATISTICS, np.mean(each, axis=0).tolist(), strict=True))


def against_chance(table: pd.DataFrame, n: int = 999, seed: int = 0) -> pd.DataFrame:
    """The statistics of all pairs of each architecture (or two) under each metric, with chance and p.

    Parameters
    ----------
    table : of `populations.all_layers`: columns architecture, pair, metric, layer_a, layer_b, depth_a, depth_b, value;
        directions are averaged

    Returns
    -------
    DataFrame with columns architecture, metric, statistic, value (mean over pairs), low, high (95 % interval over
    networks), chance (mean over random orders), p (share of orders that do at least as well, the true one counted),
    n_pairs
    """
    rows = []
    for (architecture, metric), chosen in table.groupby(["architecture", "metric"], sort=False):
        scores = {pair: matrix(one).to_numpy() for pair, one in chosen.groupby("pair", sort=False)}
        own = {pair: statistics(values) for pair, values in scores.items()}
        # Networks of two architectures may have the same number and are two networks nevertheless.
        crossed = " x " in architecture
        named = {_names(pair, crossed): values for pair, values in scores.items()}
        nulls = permuted(named, n, seed)
        for name, high_is_good in STATISTICS.items():
            value, low, high = interval({pair: one[name] for pair, one in own.items()})
            # Rounding must not decide about orders that give the same statistic.
            better = nulls[name] >= value - 1e-9 if high_is_good else nulls[name] <= value + 1e-9
            about = {"architecture": architecture, "metric": metric, "statistic": name, "value": value}
            about |= {"low": low, "high": high, "chance": float(nulls[name].mean())}
            rows.append(about | {"p": float((1 + better.sum()) / (1 + n)), "n_pairs": len(scores)})
    names = ["architecture", "metric", "statistic", "value", "low", "high", "chance", "p", "n_pairs"]
    return pd.DataFrame(rows, columns=names)


def _names(pair: str, crossed: bool) -> tuple[str, str]:
    a, b = pair.split("-")
    return (f"first {a}", f"second {b}") if crossed else (a, b)


def conditions(table: pd.DataFrame) -> pd.DataFrame:
    """How many best matches correspond in single pairs, and what to weigh that against, for claims.

    Parameters
    ----------
    table : as in `against_chance`, with a column state ("trained", "untrained")

    Returns
    -------
    DataFrame with columns pair (with its architecture), condition, value. A condition is named
    "<one architecture | two architectures>, <metric>, <state>: <what>", where <what> is "best match corresponds" (the
    share), "chance" (the mean over all orders), "half of the layers", "all but one match" (the largest share that is
    not all), "order of best matches" (`order`) or "order told from none" (`least_order`)
    """
    found = []
    keys = ["state", "architecture", "metric", "pair"]
    for (state, architecture, metric, pair), chosen in table.groupby(keys, sort=False):
        scores = matrix(chosen).to_numpy()
        sort = "two architectures" if " x " in architecture else "one architecture"
        name = "best match corresponds"
        values = {name: statistics(scores)[name], "chance": chance(*scores.shape)[name]}
        values |= {"half of the layers": 0.5, "all but one match": 1 - 1 / sum(scores.shape)}
        values |= {"order of best matches": order(scores), "order told from none": least_order(scores)}
        for what, value in values.items():
            found.append((f"{architecture} {pair}", f"{sort}, {metric}, {state}: {what}", float(value)))
    return pd.DataFrame(found, columns=["pair", "condition", "value"])


def resolutions(architecture: str) -> dict[str, int]:
    """Places a side of the map that each layer answers with, 1 for one that has no map: layer -> pixels.

    Parameters
    ----------
    architecture : a name that `networks.load` takes; images are of the size that it was made for, ours of 32 pixels
    """
    network, found = networks.load(architecture, pretrained=False), {}
    layers, size = networks.layers(network), getattr(network, "input_size", 32)
    for name in layers:
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: output.shape[-1] if output.ndim == 4 else 1})
        )
    with torch.inference_mode():
        network(torch.zeros(1, 3, size, size))
    return {name: found[name] for name in layers}


def at_same_resolution(table: pd.DataFrame) -> pd.DataFrame:
    """How often a best match answers on a map of as many places a side.

    Parameters
    ----------
    table : as in `against_chance`

    Returns
    -------
    DataFrame with columns architecture, metric, share (of the layers of both networks, mean over pairs) and chance
    (every layer as likely the best match as any other)
    """
    found, known = [], {}
    for (architecture, metric, _), rows in table.groupby(["architecture", "metric", "pair"], sort=False):
        one, *rest = architecture.split(" x ")
        scores, other = matrix(rows), rest[0] if rest else one
        for name in (one, other):
            known[name] = known.get(name) or resolutions(name)
        a, b = (
            np.array([known[n][layer] for layer in axis]) for n, axis in zip((one, other), scores.axes, strict=True)
        )
        values, same = scores.to_numpy(), a[:, None] == b
        hits = np.concatenate([b[values.argmax(1)] == a, a[values.argmax(0)] == b])
        by_chance = np.concatenate([same.mean(1), same.mean(0)])
        found.append((architecture, metric, hits.mean(), by_chance.mean()))
    each = pd.DataFrame(found, columns=["architecture", "metric", "share", "chance"])
    return each.groupby(["architecture", "metric"], sort=False).mean().reset_index()


def neighbours(
    who: Sequence[tuple[Member, Member]], acts: Acts, metric: str = "procrustes", positions: int = 1, **options
) -> pd.DataFrame:
    """Is a layer more like the same layer of another network, or like the next layer of its own?

    Parameters
    ----------
    who : pairs of networks. Of two architectures, the layers are those of the first network, and "the same layer" of
        the other is the corresponding one
    acts, positions, options : as in `populations.same_layers`

    Returns
    -------
    DataFrame with columns architecture, pair, layer, depth, what ("same layer, other network", "next layer, same
    network", "next layer, other network"; the last layer has no next one), value: the mean over directions and, within
    one architecture, over both networks of the pair
    """
    options = {"positions": positions, "nulls": 0, "folds": 5} | options
    known: dict[tuple, float] = {}

    def score(a: str, i: str, b: str, j: str) -> float:
        key = (a, i, b, j)
        if key not in known:
            with silent_units_expected():
                table = compare({i: acts[a][i]}, {j: acts[b][j]}, [metric], progress=False, **options)
            known[key] = float(table.value.mean())
        return known[key]

    found = []
    for one, other in who:
        a, b, about = one.name, other.name, (kind(one, other), f"{one.seed}-{other.seed}")
        layers, there = list(acts[a]), list(acts[b])
        fellow = [there[j] for j in corresponding(len(layers), len(there))]
        alike = one.architecture == other.architecture
        for i, depth in enumerate(relative_depth(len(layers))):
            values = {"same layer, other network": score(a, layers[i], b, fellow[i])}
            if i + 1 < len(layers):
                here, later = layers[i], layers[i + 1]
                home = [(a, here, a, later)] + [(b, here, b, later)] * alike
                away = [(a, here, b, fellow[i + 1])] + [(b, here, a, later)] * alike
                values["next layer, same network"] = np.mean([score(*one) for one in home])
                values["next layer, other network"] = np.mean([score(*one) for one in away])
            found += [(*about, layers[i], depth, what, float(value)) for what, value in values.items()]
    return pd.DataFrame(found, columns=["architecture", "pair", "layer", "depth", "what", "value"])
