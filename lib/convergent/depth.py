"""What may lie behind a fall or a rise of alignment with depth: classes, directions, and the layer's own redundancy."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from . import certainty, compare, populations
from .populations import METRICS, Acts, Member
from .transformations import within_classes

AS_IT_IS, WITHIN, SWAPPED = "as it is", "class means removed", "swapped within classes"
WORDS = {"linear": "linear map", "procrustes": "rotation", "soft_matching": "soft matching"}


def between_classes(rows: np.ndarray, labels: np.ndarray) -> float:
    """Share of a layer's variance that lies between the means of the classes.

    Parameters
    ----------
    rows : (n_stimuli, n_units)
    labels : (n_stimuli,)

    Returns
    -------
    float in [0, 1]: 0 where all classes have one mean, 1 where every stimulus lies at the mean of its class. Without
    any relation to the classes it is (n_classes - 1) / (n_stimuli - 1) on average.

    Notes
    -----
    Sums over all units, so directions with much variance count for more. 1 is the first sign of neural collapse
    (Papyan et al. 2020).
    """
    rows = np.asarray(rows, dtype=np.float64)
    total = ((rows - rows.mean(0)) ** 2).sum()
    return float(1 - (without_classes(rows, labels) ** 2).sum() / total)


def without_classes(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows (n_stimuli, n_units) less the mean of their class: what tells images of one class from each other."""
    _, which = np.unique(labels, return_inverse=True)
    sums = np.zeros((which.max() + 1, rows.shape[1]))
    np.add.at(sums, which, rows)
    return rows - (sums / np.bincount(which)[:, None])[which]


def no_classes(labels: np.ndarray | None) -> float | None:
    """What `between_classes` is on average of rows (n_stimuli,) that know nothing of their labels; None without any."""
    return None if labels is None else (len(np.unique(labels)) - 1) / (len(labels) - 1)


def structure(members: Iterable[Member], acts: Acts, labels: np.ndarray | None) -> pd.DataFrame:
    """Effective dimension and share of variance between classes of every layer.

    Parameters
    ----------
    acts : of `populations.activations`
    labels : (n_stimuli,), one a row; None leaves out what needs them

    Returns
    -------
    DataFrame with columns architecture, network, layer, depth, quantity ("effective dimension", "units", "variance
    between classes"), value
    """
    found = []
    for member in members:
        layers = acts[member.name]
        for (layer, rows), depth in zip(layers.items(), populations.relative_depth(len(layers)), strict=True):
            values = {
                "effective dimension": certainty.dimension(rows),
                "units": rows.shape[1],
            }
            if labels is not None:
                values["variance between classes"] = between_classes(rows, labels)
            for quantity, value in values.items():
                found.append((member.architecture, member.seed, layer, depth, quantity, float(value)))
    return pd.DataFrame(found, columns=["architecture", "network", "layer", "depth", "quantity", "value"])


def with_and_without_classes(
    who: Sequence[tuple[Member, Member]],
    acts: Acts,
    labels: np.ndarray | None,
    positions: int = 1,
    metrics: Sequence[str] = METRICS,
    seed: int = 0,
) -> pd.DataFrame:
    """Alignment of corresponding layers in full, without the classes, and by the classes alone.

    Parameters
    ----------
    who, acts : as in `populations.same_layers`
    labels : (n_stimuli,), one a row; rows of one image lie together. None leaves only what is in full
    positions : rows of one image

    Returns
    -------
    DataFrame as of `populations.both_ways`, with a column `kept`: "as it is"; "class means removed", in both networks;
    "swapped within classes", every image of the second network swapped with another one of its class
    """
    versions = {AS_IT_IS: (acts, acts)} | ({} if labels is None else _without(acts, labels, positions, seed))
    tables = []
    for kept, (mine, others) in versions.items():
        table = populations.same_layers(who, mine, metrics, others, positions=positions, nulls=0, progress=False)
        tables.append(populations.both_ways(table).assign(kept=kept))
    return pd.concat(tables, ignore_index=True)


def _without(acts: Acts, labels: np.ndarray, positions: int, seed: int) -> dict[str, tuple[Acts, Acts]]:
    labels = np.asarray(labels)
    order = (within_classes(labels[::positions], seed)[:, None] * positions + np.arange(positions)).ravel()
    residuals = _each(acts, lambda rows: without_classes(rows, labels))
    return {WITHIN: (residuals, residuals), SWAPPED: (acts, _each(acts, lambda r: r[order]))}


def _each(acts: Acts, change) -> dict[str, dict[str, np.ndarray]]:
    return {name: {layer: change(rows) for layer, rows in layers.items()} for name, layers in acts.items()}


def leading(rows: np.ndarray, n: int) -> np.ndarray:
    """The `n` principal components (n_stimuli, n) of a layer with the largest variance, largest first."""
    rows = np.asarray(rows, dtype=np.float64)
    centred = rows - rows.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, ::-1][:, :n]


def of_directions(
    who: Sequence[tuple[Member, Member]], acts: Acts, n: int, positions: int = 1, **options
) -> pd.DataFrame:
    """How well a linear map from all units of a layer predicts the other network's units, and its strongest directions.

    Parameters
    ----------
    n : directions of each layer, from the strongest on; every direction counts alike

    Returns
    -------
    DataFrame with columns architecture, pair, layer, depth, target ("units", "directions"), value (directions averaged)
    """
    targets = {"units": acts, "directions": _each(acts, lambda rows: leading(rows, n))}
    options = {"positions": positions, "nulls": 0, "progress": False} | options
    tables = []
    for target, others in targets.items():
        for pairs in (who, [(b, a) for a, b in who]):
            table = populations.same_layers(pairs, acts, ["linear"], others, **options)
            table = table[table.direction == "a to b"]
            back = pairs is not who
            table = table.assign(pair=table.pair.map(lambda p: "-".join(p.split("-")[::-1]))) if back else table
            tables.append(table.assign(target=target))
    keys = ["architecture", "pair", "layer", "depth", "target"]
    return pd.concat(tables).groupby(keys, sort=False).value.mean().reset_index()


def of_halves(
    who: Sequence[tuple[Member, Member]],
    acts: Acts,
    positions: int = 1,
    metrics: Sequence[str] = ("linear", "semi_matching"),
    seed: int = 0,
) -> pd.DataFrame:
    """Half of a layer's units, predicted from its own other half, and from as many units of the other network.

    What the layer's own other half cannot say is no disagreement of two networks: nobody repeats it.

    Parameters
    ----------
    who, acts, positions : as in `populations.same_layers`
    seed : of the halves

    Returns
    -------
    DataFrame with columns architecture, pair, layer, depth, source ("own other half", "half of the other network",
    "all of the other network"), metric, value (the mean over predicting the one and the other)
    """
    found = []
    for one, other in who:
        for a, b in ((one, other), (other, one)):
            sources, names = acts[a.name], list(acts[a.name])
            depths = populations.relative_depth(len(acts[b.name]))
            nearest = populations.corresponding(len(depths), len(names))
            for (layer, rows), depth, j in zip(acts[b.name].items(), depths, nearest, strict=True):
                table = _halves(sources[names[j]], rows, metrics, positions, seed)
                keys = {"architecture": populations.kind(one, other), "pair": f"{one.seed}-{other.seed}"}
                found.append(table.assign(**keys, layer=layer, depth=depth))
    keys = ["architecture", "pair", "layer", "depth", "source", "metric"]
    return pd.concat(found).groupby(keys, sort=False).value.mean().reset_index()


def _halves(source: np.ndarray, target: np.ndarray, metrics: Sequence[str], positions: int, seed: int) -> pd.DataFrame:
    chosen = np.random.default_rng(seed).permutation(target.shape[1])
    first, second = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
    some = np.random.default_rng([seed, 1]).permutation(source.shape[1])[: len(first)]
    sources: Mapping[str, np.ndarray] = {
        "own other half": target[:, first],
        "half of the other network": source[:, some],
        "all of the other network": source,
    }
    with certainty.silent_units_expected():
        table = compare.compare(
            sources, {"half": target[:, second]}, metrics, nulls=0, positions=positions, progress=False
        )
    table = table[table.direction == "a to b"]
    return table.rename(columns={"layer_a": "source"})[["source", "metric", "value"]]


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """Where alignment is high and where it is low, for claims about depth.

    Parameters
    ----------
    table : columns architecture, pair, layer, depth, metric, value (one row each)

    Returns
    -------
    DataFrame with columns pair (with its architecture), metric, condition, value: "first layer", "all later layers"
    (mean), "first half", "second half" (means, the middle layer in neither), "last layer", "the layer before"
    """
    found = []
    for (architecture, pair, metric), rows in table.groupby(["architecture", "pair", "metric"], sort=False):
        values = rows.sort_values("depth").value.to_numpy()
        half = len(values) // 2
        for condition, value in {
            "first layer": values[0],
            "all later layers": values[1:].mean(),
            "first half": values[:half].mean(),
            "second half": values[-half:].mean(),
            "last layer": values[-1],
            "the layer before": values[-2],
        }.items():
            found.append((f"{architecture} {pair}", metric, condition, float(value)))
    return pd.DataFrame(found, columns=["pair", "metric", "condition", "value"])


def last_step(table: pd.DataFrame) -> dict[str, float]:
    """By how much the last layer exceeds the one before it, by pair of networks; see `populations.written`.

    Parameters
    ----------
    table : as in `ends`, of one architecture and one metric
    """
    wide = ends(table.assign(architecture="")).pivot_table(index="pair", columns="condition", values="value")
    return (wide["last layer"] - wide["the layer before"]).rename(str.strip).to_dict()


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What each step of flexibility adds, layer by layer.

    Parameters
    ----------
    table : columns architecture, pair, layer, depth, metric ("linear", "procrustes", "soft_matching"), value

    Returns
    -------
    DataFrame with columns architecture, pair, layer, depth, step ("rotation − soft matching", "linear map − rotation"),
    value
    """
    keys = ["architecture", "pair", "layer", "depth"]
    wide = table.pivot_table(index=keys, columns="metric", values="value", sort=False)
    steps = {
        "rotation − soft matching": wide.procrustes - wide.soft_matching,
        "linear map − rotation": wide.linear - wide.procrustes,
    }
    return pd.concat([values.rename("value").reset_index().assign(step=step) for step, values in steps.items()])


def conditions(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that claims about depth weigh.

    Parameters
    ----------
    table : columns state ("trained", "untrained"), spatial, kept, architecture, pair, layer, depth, metric, value,
        chance, chance_sd; of `spatial`, places alone count

    Returns
    -------
    DataFrame with columns pair (with its architecture), condition, value. Conditions are "<metric>: first half",
    "second half", "last layer", "the layer before", "mean", "untrained" (mean); "soft matching: chance + 3 sd"
    (mean); what the two steps of `gains` add ("rotation gains", "linear map gains"); and by how much the last layer
    exceeds the one before it under a rotation ("last step"), also "class means removed"
    """
    table = table[table.spatial == "positions"]
    whole = table[table.kept == AS_IT_IS]
    plain, start = whole[whole.state == "trained"], whole[whole.state == "untrained"]
    found = []
    for metric, words in WORDS.items():
        found += _named(plain[plain.metric == metric], lambda rows, w=words: _parts(rows, w))
        found += _named(start[start.metric == metric], lambda rows, w=words: {f"{w}: untrained": rows.value.mean()})
    soft = plain[plain.metric == "soft_matching"]
    high = soft.assign(value=soft.chance + 3 * soft.chance_sd)
    found += _named(high, lambda rows: {"soft matching: chance + 3 sd": rows.value.mean()})
    for step, rows in gains(plain).groupby("step"):
        words = f"{step.partition(' − ')[0]} gains"
        found += _named(rows, lambda rows, w=words: {w: rows.value.mean()})
    for kept, words in ((AS_IT_IS, "last step"), (WITHIN, "last step, class means removed")):
        rows = table[(table.kept == kept) & (table.state == "trained") & (table.metric == "procrustes")]
        found += _named(rows, lambda rows, w=words: {w: _steps(rows)[-1]})
    return pd.DataFrame(found, columns=["pair", "condition", "value"])


def _named(table: pd.DataFrame, measure) -> list[tuple[str, str, float]]:
    groups = table.groupby(["architecture", "pair"], sort=False)
    return [
        (f"{architecture} {pair}", condition, float(value))
        for (architecture, pair), rows in groups
        for condition, value in measure(rows.sort_values("depth")).items()
    ]


def _steps(rows: pd.DataFrame) -> np.ndarray:
    return np.diff(rows.sort_values("depth").value.to_numpy())


def _parts(rows: pd.DataFrame, words: str) -> dict[str, float]:
    values = rows.value.to_numpy()
    half = len(values) // 2
    return {
        f"{words}: first half": values[:half].mean(),
        f"{words}: second half": values[-half:].mean(),
        f"{words}: the layer before": values[-2],
        f"{words}: last layer": values[-1],
        f"{words}: mean": values.mean(),
    }
