"""Many layers by many layers by many metrics, each with its chance level and its spread."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor, nn
from tqdm import tqdm

from . import inputs, kernels, mappings, ridge, similarity
from .comparison_file import ComparisonFile
from .comparison_sources import Activations, Collected, Stream
from .linear_algebra import one_torch_thread, workers
from .moments import Pair
from .shuffled import ShuffledPair
from .stream import Moments

BOTH = "both"
DIRECTIONS = ("a to b", "b to a")
# A null of a mapping is scored on one fold only; similarities know no folds.
_MAPPINGS: dict[str, Callable] = {
    "linear": lambda pair, options: ridge.linear(pair, options.alphas(pair), options.score),
    "procrustes": lambda pair, options: mappings.procrustes(pair, options.score),
    "permutation": lambda pair, options: mappings.permutation(pair),
    "soft_matching": lambda pair, options: mappings.soft_matching(pair),
    "semi_matching": lambda pair, options: mappings.semi_matching(pair),
}
_SIMILARITIES: dict[str, Callable] = {
    "cka": similarity.cka,
    "cka_debiased": similarity.debiased_cka,
    "shape_cosine": similarity.shape_cosine,
    "cca": similarity.cca,
    "svcca": lambda pair: similarity.svcca(pair, 0.99),
    "pwcca": similarity.pwcca,
}
_KERNELS = ("rsa", "mutual_knn", "cknna")
METRICS = (*_MAPPINGS, *_SIMILARITIES, *_KERNELS)
_DIRECTED = ("linear", "procrustes", "semi_matching", "pwcca", "cknna")


@dataclass(frozen=True)
class _Options:
    alpha: float | str
    score: str

    def alphas(self, pair: Pair) -> float | list[float]:
        """The penalty for this pair, or one a fold, chosen once and kept for its shuffles."""
        if self.alpha != "cv":
            return self.alpha
        if isinstance(pair, ShuffledPair):
            return [pair.alpha] * len(pair.x.counts)
        pair.chosen = ridge.choose_alphas(pair, ridge.default_alphas(pair), self.score)
        return pair.chosen


def compare(
    a: Mapping | nn.Module,
    b: Mapping | nn.Module,
    metrics: Sequence[str] = ("linear", "procrustes", "soft_matching"),
    folds: int | None = 5,
    nulls: int = 20,
    *,
    images: Tensor | None = None,
    layers: Sequence[str] | None = None,
    alpha: float | str = 1.0,
    score: str = "pearson",
    positions: int = 1,
    shuffle: int | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    file=None,
    progress: bool = True,
    spatial: str = "positions",
    n_positions: int = 4,
    batch_size: int = 250,
) -> pd.DataFrame:
    """Compare every layer of a with every layer of b.

    Parameters
    ----------
    a, b : layer -> activations (n_stimuli, n_units), the same stimuli in each; or two networks, with `images`: then
        activations are not kept, and memory does not grow with the number of images
    metrics : names of `METRICS`; those of neighbours and distances need activations
    folds : for the mappings; None gives in-sample values
    nulls : shuffles for the chance level; 0 leaves it out
    images : (n_images, 3, height, width) for two networks
    layers : those to compare, in both; None takes all
    alpha, score : of `linear` (and `score` of `procrustes`), as in `metrics`
    positions : rows of one image in activations; they lie together
    shuffle : seed of a random order of the images before they are cut into folds
    bootstrap : resamples for the columns `low` and `high`, the value -/+ 1.96 standard deviations over resampled
        images; needs activations
    seed : of shuffles, resamples and places
    file : a CSV file to which finished pairs are written; the same call goes on where it stopped
    spatial, n_positions, batch_size : of two networks, as in `representations.extract`; a layer without places is
        repeated for each place of the others

    Returns
    -------
    data frame, one row for each metric, pair of layers and direction: metric, layer_a, layer_b, direction ("a to b",
    "b to a" or "both"), value, spread (standard deviation over folds), chance, chance_sd (mean and standard deviation
    over nulls), z, p (share of values at least as large among nulls and the value itself), low, high, n_stimuli,
    n_units_a, n_units_b. What was not asked for is NaN.

    Raises
    ------
    ValueError as in `metrics`, naming the layer, before any comparison; for a file of another comparison.

    Notes
    -----
    A null shuffles the images of b within each fold, so that everything within a network stays. Mappings are then
    scored on one fold, in turn: chance is the same, and its spread is an upper bound of that of a mean over folds, so
    z and p err on the safe side. Of two networks, images are shuffled within their batch: `batch_size` should not be
    small.
    """
    metrics = [inputs.one_of(name, "metrics", METRICS) for name in ([metrics] if isinstance(metrics, str) else metrics)]
    if not metrics or len(set(metrics)) != len(metrics):
        raise ValueError(f"metrics={metrics}: name at least one, each once")
    inputs.one_of(score, "score", ("pearson", "r2"))
    options = _Options(alpha if alpha == "cv" else inputs.number(alpha, "alpha", 0), score)
    nulls, bootstrap = inputs.whole(nulls, "nulls", 0), inputs.whole(bootstrap, "bootstrap", 0)
    seed = inputs.whole(seed, "seed", 0)
    if bootstrap:
        _no_copies(metrics)
    if layers is not None and not list(layers):
        raise ValueError("layers=[]: name at least one, or leave it out to compare all")
    plan = {
        "metrics": metrics,
        "folds": folds,
        "nulls": nulls,
        "positions": positions,
        "shuffle": shuffle,
        "seed": seed,
    }
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):
        if positions != 1:
            raise ValueError(f"positions={positions} is for activations: with two networks n_positions says it")
        _needs_activations([name for name in metrics if name in _KERNELS], bootstrap)
        reading = {"spatial": spatial, "n_positions": n_positions, "batch_size": batch_size}
        source = Stream(a, b, images, layers, plan, reading, progress)
    else:
        source = Activations(a, b, layers, plan, images)
    settings = {**plan, "alpha": alpha, "score": score, "bootstrap": bootstrap, "source": type(source).__name__}
    store = ComparisonFile(file, settings, source.content) if file is not None else None
    return _table(source, plan, options, bootstrap, store, progress)


def of_moments(
    moments: Moments,
    metrics: Sequence[str] = ("linear", "procrustes", "soft_matching"),
    *,
    alpha: float | str = 1.0,
    score: str = "pearson",
    progress: bool = True,
) -> pd.DataFrame:
    """`compare` of two networks whose moments were collected before, with their folds and shuffles.

    Parameters
    ----------
    moments : complete, as `sharded.collect` or `stream.Moments` gives them
    metrics, alpha, score : as in `compare`; metrics of neighbours and distances need activations

    Raises
    ------
    ValueError as `compare`, and while stimuli are missing.
    """
    metrics = [inputs.one_of(name, "metrics", METRICS) for name in ([metrics] if isinstance(metrics, str) else metrics)]
    _needs_activations([name for name in metrics if name in _KERNELS], 0)
    inputs.one_of(score, "score", ("pearson", "r2"))
    options = _Options(alpha if alpha == "cv" else inputs.number(alpha, "alpha", 0), score)
    plan = {"metrics": metrics, "nulls": moments.nulls}
    return _table(Collected(moments, plan), plan, options, 0, None, progress)


def _table(source, plan, options, bootstrap, store, progress) -> pd.DataFrame:
    metrics, rows = plan["metrics"], [] if store is None else store.rows
    done = {(row["layer_a"], row["layer_b"]) for row in rows}
    todo = [(la, lb) for lb in source.layers_b for la in source.layers_a if (la, lb) not in done]
    with workers(source.device) as each, tqdm(total=len(todo), disable=not progress, desc="pairs of layers") as bar:
        if todo:
            source.prepare(each, None if options.alpha == "cv" else options.alpha)
        for lb in source.layers_b:
            names = [la for la, other in todo if other == lb]
            shuffled = source.shuffles(lb, plan["nulls"]) if names else None
            work = [(la, lb) for la in names]
            for found in each(
                lambda pair, s=shuffled: _compare_pair(source, *pair, s, metrics, options, bootstrap), work
            ):
                rows.extend(found)
                if store is not None:
                    store.write(rows)
                bar.update()
    order = {(la, lb): i for i, (la, lb) in enumerate((la, lb) for la in source.layers_a for lb in source.layers_b)}
    rows = sorted(rows, key=lambda row: (metrics.index(row["metric"]), order[row["layer_a"], row["layer_b"]]))
    return pd.DataFrame(rows)


@one_torch_thread()
def null(
    metric: str, X, Y, n: int = 20, positions: int = 1, seed: int = 0, folds: int | None = 5, **options
) -> np.ndarray:
    """Values of a metric for shuffled images of Y (n,): what chance gives.

    Parameters
    ----------
    metric : name of `METRICS`; a mapping is scored on one fold of each shuffle, see `compare`
    options : `alpha`, `score`, `shuffle` as in `compare`

    Raises
    ------
    ValueError as `compare`.
    """
    source, chosen = _single(metric, X, Y, folds, n, positions, seed, options)
    pair = source.pair("X", "Y")
    if metric in _MAPPINGS:
        _score(metric, pair, chosen, {})
    return np.array(
        [_null(metric, source, pair, s, chosen, BOTH) for s in source.shuffles("Y", inputs.whole(n, "n", 1))]
    )


@one_torch_thread()
def bootstrap(
    metric: str, X, Y, n: int = 200, positions: int = 1, seed: int = 0, folds: int | None = 5, **options
) -> np.ndarray:
    """Values of a metric over resampled images (n,).

    Images are drawn with replacement within each fold, so that no copy of a test image is among the training images.

    Parameters
    ----------
    metric : name of `METRICS` but "mutual_knn" and "cknna", for which a copy would be the nearest neighbour
    options : `alpha`, `score`, `shuffle` as in `compare`

    Raises
    ------
    ValueError as `compare`, and for those two metrics.
    """
    _no_copies([metric])
    source, chosen = _single(metric, X, Y, folds, 0, positions, seed, options)
    return _resampled(source, "X", "Y", metric, chosen, inputs.whole(n, "n", 1))


def _single(metric, X, Y, folds, nulls, positions, seed, options):
    inputs.one_of(metric, "metric", METRICS)
    unknown = set(options) - {"alpha", "score", "shuffle"}
    if unknown:
        raise ValueError(f"unknown options {', '.join(sorted(unknown))}: alpha, score and shuffle are known")
    alpha, shuffle = options.get("alpha", 1.0), options.get("shuffle")
    alpha = alpha if alpha == "cv" else inputs.number(alpha, "alpha", 0)
    chosen = _Options(alpha, inputs.one_of(options.get("score", "pearson"), "score", ("pearson", "r2")))
    plan = {
        "metrics": [metric],
        "folds": folds,
        "nulls": nulls,
        "positions": positions,
        "shuffle": shuffle,
        "seed": seed,
    }
    return Activations({"X": X}, {"Y": Y}, None, plan, None), chosen


def _needs_activations(metrics: list[str], bootstrap: int) -> None:
    if metrics or bootstrap:
        what = f"{', '.join(metrics)} need" if metrics else "bootstrap needs"
        raise ValueError(f"{what} the activations themselves: give those of representations.extract, not networks")


def _no_copies(metrics: list[str]) -> None:
    refused = [name for name in metrics if name in ("mutual_knn", "cknna")]
    if refused:
        raise ValueError(
            f"{', '.join(refused)} cannot be bootstrapped: a copy of a stimulus would be its nearest neighbour; "
            "compare random halves of the stimuli instead"
        )


def _compare_pair(source, la, lb, shuffles, metrics, options, n_bootstrap) -> list[dict]:
    pair, rows, known = source.pair(la, lb), [], {}
    about = {"n_stimuli": sum(pair.x.counts), "n_units_a": pair.x.n_all, "n_units_b": pair.y.n_all}
    for metric in metrics:
        for direction in DIRECTIONS if metric in _DIRECTED else (BOTH,):
            seen = pair
            if direction == DIRECTIONS[1]:
                seen = known.setdefault("flipped", pair.flipped())
            if metric in _KERNELS:
                value, spread = source.of_activations(metric, la, lb, flipped=seen is not pair), float("nan")
            else:
                value, spread = _score(metric, seen, options, known)
            row = {"metric": metric, "layer_a": la, "layer_b": lb, "direction": direction, "value": value}
            rows.append(row | {"spread": spread})
            known.setdefault("pairs", []).append(seen)
    _add_chance(rows, source, pair, shuffles, options, known)
    for row in rows:
        low = high = float("nan")
        if n_bootstrap:
            flipped = row["direction"] == DIRECTIONS[1]
            values = _resampled(source, la, lb, row["metric"], options, n_bootstrap, flipped)
            # Not their percentiles: copies leave fewer different images, which moves every fitted score.
            margin = 1.96 * float(values.std(ddof=1)) if n_bootstrap > 1 else float("nan")
            low, high = row["value"] - margin, row["value"] + margin
        row.update(low=low, high=high, **about)
    return rows


def _score(metric, pair, options, known) -> tuple[float, float]:
    """(value, spread over folds) of a metric that is a function of moments."""
    if metric in _SIMILARITIES:
        return _SIMILARITIES[metric](pair), float("nan")
    if metric == "soft_matching" and "permutation" in known and pair.x.n_units == pair.y.n_units:
        return known["permutation"]
    scores = _MAPPINGS[metric](pair, options)
    per_fold = scores.per_fold()
    spread = float(per_fold.std()) if len(per_fold) > 1 else float("nan")
    known[metric] = scores.value(), spread
    return known[metric]


def _add_chance(rows, source, pair, shuffles, options, known) -> None:
    values = {i: [] for i in range(len(rows))}
    for shuffle in shuffles:
        shuffled, flipped, cache = None, None, {}
        for i, row in enumerate(rows):
            metric = row["metric"]
            if metric in _KERNELS:
                flipped_too = row["direction"] == DIRECTIONS[1]
                values[i].append(source.of_activations(metric, row["layer_a"], row["layer_b"], shuffle, flipped_too))
                continue
            shuffled = source.shuffled(pair, row["layer_a"], row["layer_b"], shuffle) if shuffled is None else shuffled
            if row["direction"] == DIRECTIONS[1]:
                flipped = shuffled.flipped() if flipped is None else flipped
            seen = flipped if row["direction"] == DIRECTIONS[1] else shuffled
            chosen = getattr(known["pairs"][i], "chosen", None)
            seen.alpha = None if chosen is None else chosen[seen.fold]
            values[i].append(_score(metric, seen, options, cache)[0])
    for i, row in enumerate(rows):
        found = np.array(values[i])
        chance = float(found.mean()) if len(found) else float("nan")
        sd = float(found.std(ddof=1)) if len(found) > 1 else float("nan")
        p = float((1 + (found >= row["value"]).sum()) / (1 + len(found))) if len(found) else float("nan")
        z = (row["value"] - chance) / sd if sd > 0 else float("nan")
        row.update(chance=chance, chance_sd=sd, z=z, p=p)


def _null(metric, source, pair, shuffle, options, direction) -> float:
    if metric in _KERNELS:
        return source.of_activations(metric, "X", "Y", shuffle)
    shuffled = source.shuffled(pair, "X", "Y", shuffle)
    shuffled.alpha = pair.chosen[shuffled.fold] if hasattr(pair, "chosen") else None
    return _score(metric, shuffled, options, {})[0]


def _resampled(source, la, lb, metric, options, n, flipped=False) -> np.ndarray:
    if metric in _KERNELS:
        return np.array([getattr(kernels, metric)(X, Y) for X, Y in source.resampled_rows(la, lb, n)])
    pairs = source.resampled(la, lb, n)
    return np.array([_score(metric, pair.flipped() if flipped else pair, options, {})[0] for pair in pairs])
