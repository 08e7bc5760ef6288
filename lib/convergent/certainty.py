"""How far to trust an alignment: what few stimuli, noise, the choice of axes and few networks do to it."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from . import cave, compare, metrics

IN_SAMPLE, HELD_OUT = "in sample", "held out or debiased"
# The same questions asked twice: of the stimuli that a map was fitted to, and fairly.
SCORES: dict[str, dict[str, Callable]] = {
    IN_SAMPLE: {
        "linear": partial(metrics.linear, folds=None),
        "procrustes": partial(metrics.procrustes, folds=None),
        "permutation": partial(metrics.permutation, folds=None),
        "cka": metrics.cka,
        "cca": metrics.cca,
    },
    HELD_OUT: {
        "linear": metrics.linear,
        "procrustes": metrics.procrustes,
        "permutation": metrics.permutation,
        "cka_debiased": partial(metrics.cka, debiased=True),
    },
}
_FAIR = SCORES[IN_SAMPLE] | SCORES[HELD_OUT]  # each name once, held out where there is such a value


@contextmanager
def silent_units_expected() -> Iterator[None]:
    """Drop the warning of constant units: among few stimuli some unit is always silent."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="constant units")
        yield


def unrelated(ratios: Sequence[float], n_stimuli: int = 100, draws: int = 3, seed: int = 0) -> pd.DataFrame:
    """All `SCORES` of pairs of representations that have nothing to do with each other: Gaussian noise.

    Parameters
    ----------
    ratios : numbers of units of each representation, as multiples of `n_stimuli`
    draws : pairs for each ratio

    Returns
    -------
    DataFrame with columns ratio, draw, how ("in sample", "held out or debiased"), metric, value
    """
    found = []
    for ratio in ratios:
        for draw in range(draws):
            rng = np.random.default_rng([seed, draw, round(1000 * ratio)])
            X, Y = rng.standard_normal((2, n_stimuli, max(2, round(ratio * n_stimuli))))
            found += [(ratio, draw, how, metric, value) for how, metric, value in _measured(X, Y)]
    return pd.DataFrame(found, columns=["ratio", "draw", "how", "metric", "value"])


def against_stimuli(X: np.ndarray, Y: np.ndarray, sizes: Sequence[int], seed: int = 0) -> pd.DataFrame:
    """All `SCORES` of growing samples of stimuli, and of the same samples with the stimuli of Y shuffled.

    Parameters
    ----------
    X, Y : (n_stimuli, n_units_x), (n_stimuli, n_units_y)
    sizes : numbers of stimuli; a larger sample holds the smaller ones

    Returns
    -------
    DataFrame with columns n_stimuli, images ("the same", "shuffled"), how, metric, value

    Raises
    ------
    ValueError for a size beyond the number of stimuli.
    """
    if max(sizes) > len(X):
        raise ValueError(f"a sample of {max(sizes)} was asked of {len(X)} stimuli: ask for at most that many")
    rng, found = np.random.default_rng(seed), []
    order = rng.permutation(len(X))
    for size in sizes:
        x, y = X[order[:size]], Y[order[:size]]
        for images, other in (("the same", y), ("shuffled", y[rng.permutation(size)])):
            found += [(size, images, how, metric, value) for how, metric, value in _measured(x, other)]
    return pd.DataFrame(found, columns=["n_stimuli", "images", "how", "metric", "value"])


def _measured(X, Y) -> Iterator[tuple[str, str, float]]:
    with silent_units_expected():
        for how, scores in SCORES.items():
            for metric, score in scores.items():
                yield how, metric, score(X, Y)


def enough(table: pd.DataFrame, tolerance: float = 0.05) -> pd.Series:
    """From how many stimuli on the mean score stays within `tolerance` of that of the most stimuli.

    Parameters
    ----------
    table : columns layer, how, metric, n_stimuli, value; repetitions (pairs, draws) are averaged

    Returns
    -------
    Series of int, by layer, how and metric
    """
    by = ["layer", "how", "metric"]
    means = table.groupby([*by, "n_stimuli"], sort=False).value.mean().unstack("n_stimuli").sort_index(axis=1)
    far = means.sub(means.iloc[:, -1], axis=0).abs() > tolerance
    first = [int(far.columns[0 if not row.any() else np.flatnonzero(row)[-1] + 1]) for row in far.to_numpy()]
    return pd.Series(first, index=far.index, name="n_stimuli")


def coverage(
    X: np.ndarray, Y: np.ndarray, names: Sequence[str], n_stimuli: int, repeats: int, resamples: int, seed: int = 0
) -> pd.DataFrame:
    """Bootstrap intervals of many samples of one large set of stimuli, whose value is known.

    Two intervals a sample: from percentile to percentile of the resampled values; and the sample's own value, give or
    take 1.96 standard deviations of the resampled ones.

    Parameters
    ----------
    X, Y : (n_all, n_units_x), (n_all, n_units_y)
    names : of metrics, as in `compare.METRICS`
    n_stimuli, repeats : size and number of the samples
    resamples : for each of them

    Returns
    -------
    DataFrame, one row a metric, sample and kind of interval: metric, sample, kind ("percentiles", "value ± 1.96 sd"),
    value, sd (of the resampled values), low, high, large (the value of all stimuli), typical (mean over the samples)
    """
    rows = []
    samples = [np.random.default_rng([seed, i]).choice(len(X), n_stimuli, replace=False) for i in range(repeats)]
    for name in names:
        with silent_units_expected():
            large = _FAIR[name](X, Y)
            values = [_FAIR[name](X[sample], Y[sample]) for sample in samples]
            resampled = [compare.bootstrap(name, X[s], Y[s], resamples, seed=i) for i, s in enumerate(samples)]
        for i, (value, others) in enumerate(zip(values, resampled, strict=True)):
            sd = others.std(ddof=1)
            about = {"metric": name, "sample": i, "value": value, "sd": sd, "large": large, "typical": np.mean(values)}
            low, high = np.percentile(others, [2.5, 97.5])
            rows.append(about | {"kind": "percentiles", "low": low, "high": high})
            rows.append(about | {"kind": "value ± 1.96 sd", "low": value - 1.96 * sd, "high": value + 1.96 * sd})
    return pd.DataFrame(rows)


def covered(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table of `coverage`, the share of intervals that hold the two values that they might be meant to hold.

    Returns
    -------
    DataFrame with index metric, kind and columns typical, large
    """
    holds = pd.DataFrame({to: table[to].between(table.low, table.high) for to in ("typical", "large")})
    return holds.groupby([table.metric, table.kind], sort=False).mean()


def ceiling_from_repeats(responses: np.ndarray) -> np.ndarray:
    """Noise ceiling of the mean over repeats, estimated without knowing the signal.

    Parameters
    ----------
    responses : (n_repeats, n_stimuli, n_voxels), at least two repeats

    Returns
    -------
    (n_voxels,) the correlation that the true signal would have with the mean over repeats; 0 where the repeats have
    nothing in common

    Raises
    ------
    ValueError for anything but three dimensions and two repeats.

    Notes
    -----
    What repeats share is signal: the mean covariance of two repeats estimates its variance (Spearman 1904;
    Lage-Castellanos et al. 2019).
    """
    responses = np.asarray(responses, dtype=np.float64)
    if responses.ndim != 3 or len(responses) < 2:
        raise ValueError(
            f"responses have shape {responses.shape}: give (n_repeats, n_stimuli, n_voxels), two repeats or more"
        )
    n = len(responses)
    mean = responses.mean(0).var(0, ddof=1)
    signal = (n * mean - responses.var(1, ddof=1).mean(0)) / (n - 1)
    return np.sqrt(np.clip(signal / np.where(mean > 0, mean, 1), 0, 1))


def beneath_ceilings(
    rows: np.ndarray, latents: pd.DataFrame, images, noises: Sequence[float], n_voxels: int = 100, seed: int = 0
) -> pd.DataFrame:
    """A layer predicts voxels of the cave that are measured with more and more noise.

    Parameters
    ----------
    rows : (n_stimuli, n_units), the layer's responses to the images
    latents, images : as `cave.voxels` takes them
    noises : standard deviations of the noise, in those of the signal

    Returns
    -------
    DataFrame with columns noise, quantity, value: means over voxels of the held-out correlation ("measured"), the
    "ceiling", their ratio ("measured / ceiling"), the ratio for a map that was fitted without noise and tested with it
    ("clean fit / ceiling"), and the correlation "without noise"
    """
    found = []
    for noise in noises:
        seen = cave.voxels(latents, images, n_voxels, noise, n_repeats=1, seed=seed)
        measured = metrics.linear(rows, seen.responses[0], alpha="cv", details=True).per_unit
        clean, tested = _clean_fit(rows, seen.signal, seen.responses[0])
        values = {
            "measured": measured.mean(),
            "ceiling": seen.noise_ceiling.mean(),
            "measured / ceiling": (measured / seen.noise_ceiling).mean(),
            "clean fit / ceiling": (tested / seen.noise_ceiling).mean(),
            "without noise": clean.mean(),
        }
        found += [(noise, quantity, float(value)) for quantity, value in values.items()]
    return pd.DataFrame(found, columns=["noise", "quantity", "value"])


def _clean_fit(rows, signal, noisy, folds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Held-out correlations (n_voxels,) of maps fitted to the signal: with the signal, and with noise on it."""
    clean, tested = [], []
    for test in np.array_split(np.arange(len(rows)), folds):
        train = np.setdiff1d(np.arange(len(rows)), test)
        fitted = metrics.linear(rows[train], signal[train], alpha="cv", details=True).mapping
        predicted = rows[test] @ fitted
        clean.append(_paired(predicted, signal[test]))
        tested.append(_paired(predicted, noisy[test]))
    return np.mean(clean, 0), np.mean(tested, 0)


def _paired(a, b) -> np.ndarray:
    a, b = (z - z.mean(0) for z in (a, b))
    return (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))


def dimension(rows: np.ndarray) -> float:
    """In how many directions a cloud extends: (sum of variances)^2 / sum of squared variances over its principal
    components, also called participation ratio.

    Parameters
    ----------
    rows : (n_stimuli, n_units)

    Returns
    -------
    float between 1 (a line) and n_units (a ball)
    """
    variances = np.linalg.eigvalsh(np.cov(np.asarray(rows, dtype=np.float64), rowvar=False))
    return float(variances.sum() ** 2 / (variances**2).sum())


def rotation(n_units: int, seed) -> np.ndarray:
    """An orthogonal matrix (n_units, n_units), all being equally likely (Mezzadri 2007)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((n_units, n_units)))
    return q * np.sign(np.diag(r))


def axes(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], positions: int = 4, turns: int = 4, nulls: int = 20
) -> pd.DataFrame:
    """Do the units of two networks match because their axes do? One-to-one matching, before and after rotations.

    Parameters
    ----------
    a, b : layer -> activations (n_stimuli, n_units), the same layers and stimuli
    positions : rows of one image
    turns : random rotations to average over
    nulls : shuffles of the images of b

    Returns
    -------
    DataFrame with columns layer, condition, value, the held-out score of `metrics.permutation`: "own axes" (as the
    networks are), "one turned" (the units of b rotated), "both turned" (by different rotations), "shuffled images"
    (mean), "shuffled, largest"

    Notes
    -----
    Khosla et al. (2024) rotate one of the two.
    """
    found = []
    for k, layer in enumerate(a):
        x, y = (np.asarray(side[layer], dtype=np.float64) for side in (a, b))
        with silent_units_expected():
            match = partial(metrics.permutation, positions=positions)
            spun = [(x @ rotation(x.shape[1], [k, i, 0]), y @ rotation(y.shape[1], [k, i, 1])) for i in range(turns)]
            chance = compare.null("permutation", x, y, nulls, positions=positions)
            values = {
                "own axes": match(x, y),
                "one turned": np.mean([match(x, turned) for _, turned in spun]),
                "both turned": np.mean([match(*both) for both in spun]),
                "shuffled images": chance.mean(),
                "shuffled, largest": chance.max(),
            }
        found += [(layer, condition, float(value)) for condition, value in values.items()]
    return pd.DataFrame(found, columns=["layer", "condition", "value"])


def falls(table: pd.DataFrame) -> pd.DataFrame:
    """By how much matching falls when one network is turned, for claims about trained and untrained networks.

    Parameters
    ----------
    table : columns state, pair and those of `axes`

    Returns
    -------
    DataFrame with columns pair, layer, condition (the state), value
    """
    by = table.pivot_table(index=["pair", "layer", "state"], columns="condition", values="value", sort=False)
    fall = (by["own axes"] - by["one turned"]).rename("value").reset_index()
    return fall.rename(columns={"state": "condition"})


def errors_of_few(table: pd.DataFrame, layer: int = -1) -> pd.DataFrame:
    """What the fewest images do to CKA, against debiased CKA of the most images.

    Parameters
    ----------
    table : columns layer, pair and those of `against_stimuli`
    layer : which of the table's layers, by its place among them

    Returns
    -------
    DataFrame with columns pair, condition ("CKA, few images", "CKA, most images", "error of CKA", "error of debiased
    CKA"), value
    """
    seen = table[(table.layer == table.layer.unique()[layer]) & (table.images == "the same")]
    ways = {"cka": IN_SAMPLE, "cka_debiased": HELD_OUT}
    found = []
    for pair, rows in seen.groupby("pair", sort=False):
        size = rows.n_stimuli.min(), rows.n_stimuli.max()
        value = {(m, n): rows[(rows.metric == m) & (rows.how == how) & (rows.n_stimuli == n)].value.item()
                 for m, how in ways.items() for n in size}  # fmt: skip
        few, most = ({m: value[m, n] for m in ways} for n in size)
        found += [
            (pair, "CKA, few images", few["cka"]),
            (pair, "CKA, most images", most["cka"]),
            (pair, "error of CKA", abs(few["cka"] - most["cka_debiased"])),
            (pair, "error of debiased CKA", abs(few["cka_debiased"] - most["cka_debiased"])),
        ]
    return pd.DataFrame(found, columns=["pair", "condition", "value"])


def over_networks(values: Mapping[tuple, float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean over pairs of networks, with an interval over *networks*: pairs that share one are not independent.

    Parameters
    ----------
    values : (network, other network) -> value, for all pairs of at least three networks

    Returns
    -------
    (mean, low, high)

    Raises
    ------
    ValueError for fewer than three networks, or pairs that are missing.

    Notes
    -----
    The mean over pairs is a U-statistic; its spread from leaving out one network at a time (Arvesen 1969), with
    Student's t for as many degrees of freedom as networks less one.
    """
    names = sorted({name for pair in values for name in pair})
    n = len(names)
    if n < 3 or len(values) != n * (n - 1) // 2:
        raise ValueError(f"{len(values)} pairs of {n} networks: give all pairs of at least three")
    mean = float(np.mean(list(values.values())))
    without = [np.mean([value for pair, value in values.items() if name not in pair]) for name in names]
    spread = np.sqrt((n - 1) / n * np.sum((np.array(without) - np.mean(without)) ** 2))
    reach = float(stats.t.ppf((1 + level) / 2, n - 1) * spread)
    return mean, mean - reach, mean + reach
