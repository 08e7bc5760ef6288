"""Is the most similar layer of another network the corresponding one? Statistics, and what chance gives them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

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
    return pd.DataFrame(rows)


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
    share), "chance" (the mean over all orders), "half of the layers", or "all but one match" (the largest share that
    is not all)
    """
    found = []
    keys = ["state", "architecture", "metric", "pair"]
    for (state, architecture, metric, pair), chosen in table.groupby(keys, sort=False):
        scores = matrix(chosen).to_numpy()
        sort = "two architectures" if " x " in architecture else "one architecture"
        name = "best match corresponds"
        values = {name: statistics(scores)[name], "chance": chance(*scores.shape)[name]}
        values |= {"half of the layers": 0.5, "all but one match": 1 - 1 / sum(scores.shape)}
        for what, value in values.items():
            found.append((f"{architecture} {pair}", f"{sort}, {metric}, {state}: {what}", float(value)))
    return pd.DataFrame(found, columns=["pair", "condition", "value"])


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
