"""Alignment through training: networks at their checkpoints, beside each other and beside what they become."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import certainty, compare, networks, representations
from .zoo import Entry

POSITIONS = 4  # places that are looked at in each image
TOGETHER, OWN_END, OTHERS_END = "with each other", "with its own end", "with the other's end"
ALL, ACCURACY = "all layers", "accuracy"
# What two networks of one grid share, by whether their initial weights and their order of images are the same.
SHARED = {(False, False): "nothing", (True, False): "initial weights", (False, True): "order of images"}


class Reading(NamedTuple):
    """What a network says about images at one step of its training.

    activations : layer -> (n_images * 4, n_units), rows of one image together; (n_images, n_units) without places
    correct : (n_images,) of bool, whether it names the class
    chance : its expected accuracy if its answers were dealt out to the images at random
    """

    activations: dict[str, np.ndarray]
    correct: np.ndarray
    chance: float


Course = Mapping[int, Reading]  # step -> what the network said then


def read(network: nn.Module, split) -> Reading:
    """One pass over the images of `split` through one of our networks, for its layers and its answers."""
    rows = representations.extract(
        network, split.images, [*networks.layers(network), "head"], n_positions=POSITIONS, batch_size=250
    )
    answers, labels = rows.pop("head").argmax(1), split.labels.numpy()
    n = 1 + max(answers.max(), labels.max())
    dealt = np.bincount(answers, minlength=n) @ np.bincount(labels, minlength=n) / len(labels) ** 2
    return Reading(rows, answers == labels, float(dealt))


def with_averages(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy of the network whose batch normalisation has taken its running averages anew, over all of `images`.

    The averages that a network keeps lag behind its weights; before the first step nobody has taken any, and its units
    are not normalised at all. No weight is changed.
    """
    network = copy.deepcopy(network).train()
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()
            part.momentum = None  # a plain average over all batches
    with torch.no_grad():
        network(images)
    return network.eval()


def follow(
    entry: Entry, split, steps: Iterable[int] | None = None, averages: Tensor | None = None
) -> dict[int, Reading]:
    """`read` a network at its checkpoints, or at some of them.

    Parameters
    ----------
    averages : images from which `with_averages` takes running averages anew at every step; None leaves those kept

    Raises
    ------
    ValueError where no checkpoints were kept.
    """
    wanted = entry.checkpoints if steps is None else {step: entry.checkpoints[step] for step in steps}
    if averages is not None:
        wanted = {step: with_averages(network, averages) for step, network in wanted.items()}
    return {step: read(network, split) for step, network in wanted.items()}


def first_epoch(entry: Entry) -> int:
    """The step with which the first epoch ends."""
    return int(entry.history.step.iloc[0])


def same_layers(a: Reading, b: Reading, metrics: Sequence[str] = ("procrustes",), nulls: int = 10) -> pd.DataFrame:
    """Held-out scores of corresponding layers, both directions averaged.

    Parameters
    ----------
    metrics, nulls : as `compare.compare` takes them

    Returns
    -------
    DataFrame with columns metric, layer, value, spread (standard deviation over folds), chance (mean over shuffled
    images)
    """
    found = []
    with certainty.silent_units_expected():
        for layer, rows in a.activations.items():
            scores = compare.compare(
                {layer: rows},
                {layer: b.activations[layer]},
                metrics,
                nulls=nulls,
                positions=len(rows) // len(a.correct),
                progress=False,
            )
            both = scores.groupby("metric", sort=False)[["value", "spread", "chance"]].mean().reset_index()
            found.append(both.assign(layer=layer))
    return pd.concat(found, ignore_index=True)[["metric", "layer", "value", "spread", "chance"]]


def course(
    courses: Mapping[int, Course], epoch: int, metrics: Sequence[str] = ("procrustes",), nulls: int = 10
) -> pd.DataFrame:
    """Every pair of networks at every checkpoint: with each other, with their own ends, with the other's end.

    Parameters
    ----------
    courses : seed -> step -> `Reading`, of the same images and steps
    epoch : steps in one epoch
    metrics, nulls : as `compare.compare` takes them

    Returns
    -------
    DataFrame with columns pair ("0-1"), step, epoch (steps / `epoch`), what ("with each other", "with its own end",
    "with the other's end", "accuracy"), metric, layer, value, spread, chance. Of what concerns one network, the two of
    a pair are averaged. Rows of accuracy have metric and layer "accuracy", and no spread.

    Raises
    ------
    ValueError for fewer than two networks, or networks with different steps.
    """
    steps = _steps(courses)
    found, own = [], {}
    for seed, readings in courses.items():
        own[seed] = {step: same_layers(readings[step], readings[steps[-1]], metrics, nulls) for step in steps}
    for i, j in combinations(courses, 2):
        last_i, last_j = courses[i][steps[-1]], courses[j][steps[-1]]
        for step in steps:
            a, b = courses[i][step], courses[j][step]
            across = [same_layers(a, last_j, metrics, nulls), same_layers(last_i, b, metrics, nulls)]
            tables = {
                TOGETHER: [same_layers(a, b, metrics, nulls)],
                OWN_END: [own[i][step], own[j][step]],
                OTHERS_END: across,
                ACCURACY: [_answers(a), _answers(b)],
            }
            for what, parts in tables.items():
                mean = pd.concat(parts).groupby(["metric", "layer"], sort=False).mean().reset_index()
                found.append(mean.assign(pair=f"{i}-{j}", step=step, epoch=step / epoch, what=what))
    columns = ["pair", "step", "epoch", "what", "metric", "layer", "value", "spread", "chance"]
    return pd.concat(found, ignore_index=True)[columns]


def _steps(courses: Mapping[object, Course]) -> list[int]:
    steps = {tuple(readings) for readings in courses.values()}
    if len(courses) < 2 or len(steps) != 1:
        raise ValueError(f"{len(courses)} networks with {len(steps)} sets of steps: give two or more with the same one")
    return list(steps.pop())


def _answers(reading: Reading) -> pd.DataFrame:
    found = {"metric": ACCURACY, "layer": ACCURACY, "value": reading.correct.mean(), "spread": np.nan}
    return pd.DataFrame([found | {"chance": reading.chance}])


def shares(
    courses: Mapping[int, Course], epoch: int, metric: str = "procrustes", nulls: int = 20, resamples: int = 30
) -> pd.DataFrame:
    """What share of the final alignment, and of the final accuracy, is there at the end of the first epoch.

    With a the score before training (0), after the first epoch (1) and at the end, and a_0 its chance level at the same
    step: (a(1) - a(0)) / (a(end) - a(0)) above the start, (a(1) - a_0(1)) / (a(end) - a_0(end)) above chance.

    Parameters
    ----------
    courses : seed -> step -> `Reading`; steps 0, `epoch` and the last are used
    resamples : bootstrap samples of images, the same for all steps and layers

    Returns
    -------
    DataFrame, one row a pair and layer, and one each for layer "all layers" (their mean) and "accuracy" (of both
    networks): pair, layer, start, first, last, start_chance, first_chance, last_chance, gain (last - start),
    later (last - first), above_start, above_chance, and the last four again with `_error`: half the width of a 95 %
    interval over images. Shares are NaN where gain, or the final score above chance, is not above its own error.

    Raises
    ------
    ValueError as `course`.
    """
    _steps(courses)
    rows = []
    for i, j in combinations(courses, 2):
        readings = [(courses[i][step], courses[j][step]) for step in (0, epoch, max(courses[i]))]
        tables = [same_layers(a, b, [metric], nulls).set_index("layer") for a, b in readings]
        values = pd.concat([table.value for table in tables], axis=1).to_numpy().T
        chances = pd.concat([table.chance for table in tables], axis=1).to_numpy().T
        drawn = np.array([[_resampled(a, b, layer, metric, resamples) for layer in tables[0].index]
                          for a, b in readings])  # (steps, layers, resamples)  # fmt: skip
        named = np.array([(a.correct + 0.0 + b.correct) / 2 for a, b in readings])  # (steps, n_images)
        dealt = np.array([(a.chance + b.chance) / 2 for a, b in readings])
        images = np.random.default_rng(0).integers(named.shape[1], size=(200, named.shape[1]))
        each = [(layer, values[:, k], chances[:, k], drawn[:, k]) for k, layer in enumerate(tables[0].index)]
        each += [
            (ALL, values.mean(1), chances.mean(1), drawn.mean(1)),
            (ACCURACY, named.mean(1), dealt, named[:, images].mean(2)),
        ]
        rows += [{"pair": f"{i}-{j}", "layer": layer} | _share(*found) for layer, *found in each]
    return pd.DataFrame(rows)


def _resampled(a: Reading, b: Reading, layer: str, metric: str, n: int) -> np.ndarray:
    """Scores of resampled images (n,), both directions averaged; the same images whatever the layer and the step."""
    X, Y = a.activations[layer], b.activations[layer]
    positions = len(X) // len(a.correct)
    with certainty.silent_units_expected():
        return np.mean([compare.bootstrap(metric, *xy, n, positions=positions) for xy in ((X, Y), (Y, X))], axis=0)


def _share(values, chances, drawn) -> dict[str, float]:
    """One row of `shares` from scores (3,), chance levels (3,) and resampled scores (3, n)."""
    names = ("start", "first", "last")
    row = dict(zip(names, values, strict=True)) | {f"{n}_chance": c for n, c in zip(names, chances, strict=True)}

    def reach(differences) -> float:
        return 1.96 * float(np.std(differences, ddof=1))

    for name, before in (("gain", 0), ("later", 1)):
        row[name] = values[2] - values[before]
        row[f"{name}_error"] = reach(drawn[2] - drawn[before])
    early = {"above_start": values[1] - values[0], "above_chance": values[1] - chances[1]}
    whole = {"above_start": row["gain"], "above_chance": values[2] - chances[2]}
    for name, zero in (("above_start", drawn[0]), ("above_chance", 0)):
        share = early[name] / whole[name] if whole[name] else float("nan")
        if whole[name] <= reach(drawn[2] - zero):
            share = float("nan")
        # Of a ratio: how far its numerator scatters about its share of the denominator (the delta method).
        row[name], row[f"{name}_error"] = share, reach((drawn[1] - zero) - share * (drawn[2] - zero)) / whole[name]
    return row


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means of a table of `shares` over pairs, with 95 % intervals: over networks where there are at least three.

    Returns
    -------
    DataFrame with columns layer, quantity (start, first, last, last_chance, gain, later, above_start, above_chance),
    mean, low, high, over ("networks", or "images" for a single pair; what has no interval over images has NaN). A
    share is that of the means over pairs, not the mean of their shares: a pair with a small denominator does not rule
    it. It is NaN where the interval of its denominator reaches zero.
    """
    found = []
    for layer, rows in table.groupby("layer", sort=False):
        rows = rows.set_index("pair")
        parts = {name: rows[name] for name in ("start", "first", "last", "last_chance", "gain", "later")}
        for name, values in parts.items():
            error = rows[f"{name}_error"].iloc[0] if f"{name}_error" in rows else float("nan")
            found.append((layer, name, *_interval(values, error)))
        early = {"above_start": rows["first"] - rows.start, "above_chance": rows["first"] - rows.first_chance}
        whole = {"above_start": rows.gain, "above_chance": rows["last"] - rows.last_chance}
        for name in early:
            found.append((layer, name, *_share_of_means(early[name], whole[name], rows[name], rows[f"{name}_error"])))
    return pd.DataFrame(found, columns=["layer", "quantity", "mean", "low", "high", "over"])


def _interval(values: pd.Series, error: float) -> tuple[float, float, float, str]:
    """(mean, low, high, over what) of values by pair."""
    if len(values) == 1:
        return float(values.iloc[0]), values.iloc[0] - error, values.iloc[0] + error, "images"
    return *certainty.over_networks({tuple(p.split("-")): v for p, v in values.items()}), "networks"


def _share_of_means(early: pd.Series, whole: pd.Series, share: pd.Series, error: pd.Series):
    if len(early) == 1:
        return _interval(share, error.iloc[0])
    _, low, _, over = _interval(whole, float("nan"))
    if low <= 0:
        return float("nan"), float("nan"), float("nan"), over
    ratio = early.mean() / whole.mean()
    return _interval(ratio + (early - ratio * whole) / whole.mean(), float("nan"))


def conditions(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `shares` as claims compare it, one row a pair, layer and condition.

    Returns
    -------
    DataFrame with columns pair, layer, condition, value. Differences in every layer: "start, above chance", "epoch 1,
    above chance", "half the end, above chance", "epoch 1, above start", "half the end, above start". Shares of the
    mean over layers, and of accuracy, under layer "all layers": "alignment, above start" and "above chance",
    "accuracy, above start" and "above chance".
    """
    found = []
    for row in table[~table.layer.isin([ALL, ACCURACY])].itertuples():
        values = {
            "start, above chance": row.start - row.start_chance,
            "epoch 1, above chance": row.first - row.first_chance,
            "half the end, above chance": (row.last - row.last_chance) / 2,
            "epoch 1, above start": row.first - row.start,
            "half the end, above start": row.gain / 2,
        }
        found += [(row.pair, row.layer, condition, value) for condition, value in values.items()]
    for row in table[table.layer.isin([ALL, ACCURACY])].itertuples():
        name = "alignment" if row.layer == ALL else "accuracy"
        for zero in ("start", "chance"):
            found.append((row.pair, ALL, f"{name}, above {zero}", getattr(row, f"above_{zero}")))
    return pd.DataFrame(found, columns=["pair", "layer", "condition", "value"])


def futures(table: pd.DataFrame, metric: str = "procrustes") -> pd.DataFrame:
    """How much of what two networks share in the end is there after epoch 1, from a table of `course`.

    Returns
    -------
    DataFrame with columns pair, layer, condition, value, all above chance: "epoch 1, with the other's end", and "half
    the end", half of what the two networks share with each other at the end
    """
    seen = table[table.metric == metric].assign(value=table.value - table.chance)
    after = seen[(seen.epoch == 1) & (seen.what == OTHERS_END)].assign(condition="epoch 1, with the other's end")
    end = seen[(seen.step == seen.step.max()) & (seen.what == TOGETHER)]
    end = end.assign(condition="half the end", value=end.value / 2)
    return pd.concat([after, end], ignore_index=True)[["pair", "layer", "condition", "value"]]


def controls(grid: Mapping[tuple[int, int], Course], metric: str = "procrustes", nulls: int = 10) -> pd.DataFrame:
    """Pairs of networks that share their initial weights, their order of images, or neither, at every checkpoint.

    Parameters
    ----------
    grid : (seed of the initial weights, seed of the order) -> step -> `Reading`

    Returns
    -------
    DataFrame with columns shared ("nothing", "initial weights", "order of images"), pair (numbered within `shared`),
    step, layer, value, spread, chance

    Raises
    ------
    ValueError as `course`.
    """
    steps, found, counts = _steps(grid), [], dict.fromkeys(SHARED.values(), 0)
    for one, other in combinations(grid, 2):
        shared = SHARED[one[0] == other[0], one[1] == other[1]]
        counts[shared] += 1
        for step in steps:
            scores = same_layers(grid[one][step], grid[other][step], [metric], nulls)
            found.append(scores.assign(shared=shared, pair=str(counts[shared]), step=step))
    return pd.concat(found, ignore_index=True)[["shared", "pair", "step", "layer", "value", "spread", "chance"]]


def axes(courses: Mapping[int, Course], steps: Iterable[int] | None = None, turns: int = 2) -> pd.DataFrame:
    """`certainty.axes` of every pair of networks at every checkpoint, or at some: columns pair, step, and its own."""
    found = []
    for i, j in combinations(courses, 2):
        for step in _steps(courses) if steps is None else steps:
            both = (courses[seed][step].activations for seed in (i, j))
            found.append(certainty.axes(*both, POSITIONS, turns, nulls=3).assign(pair=f"{i}-{j}", step=step))
    return pd.concat(found, ignore_index=True)[["pair", "step", "layer", "condition", "value"]]


def outcomes(table: pd.DataFrame) -> pd.DataFrame:
    """What claims compare in a table of `controls` with the column labels ("true", "random").

    Returns
    -------
    DataFrame with columns pair, layer, condition, value: "untrained" (nothing shared, before the first step), and at
    the end "true labels" and "random labels" (nothing shared), the same with ", same start" and ", same order".
    """
    names = {"nothing": "", "initial weights": ", same start", "order of images": ", same order"}
    last = table[table.step == table.step.max()]
    last = last.assign(condition=last.labels + " labels" + last.shared.map(names))
    untrained = table[(table.step == 0) & (table.shared == "nothing") & (table.labels == "true")]
    found = pd.concat([untrained.assign(condition="untrained"), last], ignore_index=True)
    return found[["pair", "layer", "condition", "value"]]
