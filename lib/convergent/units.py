"""Single units: what they respond to, and where they are found again in another network."""

import warnings

import numpy as np
import pandas as pd
from torch import nn

from . import cave, images, networks
from .representations import extract


def attributes(split: images.Split) -> pd.DataFrame:
    """What is known, or can be measured, about each image: one row a stimulus; the first column is the class.

    Of the cave: its ten latents (the class is the shape). Of photographs: the class, and six properties of the
    pixels: luminance, contrast, red against green, blue against yellow, sharpness (share of the luminance variance
    that is lost by averaging 2x2 pixels) and whether its edges are vertical (+) or horizontal (-).
    """
    if split.latents is not None:
        return split.latents[list(cave.LATENTS)]
    red, green, blue = (split.images[:, c].double() / 255 for c in range(3))
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    coarse = luminance.unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
    variance = luminance.var((1, 2)) + 1e-6
    across, down = (luminance.diff(dim=axis).square().mean((1, 2)) + 1e-6 for axis in (2, 1))
    measured = {
        "luminance": luminance.mean((1, 2)),
        "contrast": luminance.std((1, 2)),
        "red-green": (red - green).mean((1, 2)),
        "blue-yellow": (blue - (red + green) / 2).mean((1, 2)),
        "sharpness": 1 - coarse.var((1, 2)) / variance,
        "edges": (across / down).log(),
    }
    classes = pd.Categorical(split.labels.numpy())
    return pd.DataFrame({"class": classes} | {name: value.numpy() for name, value in measured.items()})


def selectivity(rows: np.ndarray, attribute, n_bins: int = 8) -> np.ndarray:
    """How much of each unit's variance over stimuli an attribute explains.

    The share of variance between the groups of stimuli that agree in the attribute, corrected for the share that any
    grouping takes by chance (epsilon squared, Kelley 1935): 1 when the attribute decides the response, on average 0
    when the two have nothing to do with each other (single values may be negative).

    Parameters
    ----------
    rows : (n_stimuli, n_units)
    attribute : (n_stimuli,) categories, or numbers, which are cut into `n_bins` groups of equal size where they take
        more values than that

    Returns
    -------
    (n_units,) array; 0 for a unit that does not vary

    Raises
    ------
    ValueError for different numbers of stimuli, or an attribute that takes a single value.
    """
    rows, attribute = np.asarray(rows, dtype=np.float64), pd.Series(attribute).reset_index(drop=True)
    if len(rows) != len(attribute):
        raise ValueError(f"{len(rows)} rows of responses but {len(attribute)} values: row i must be the same stimulus")
    numeric = pd.api.types.is_numeric_dtype(attribute) and attribute.nunique() > n_bins
    codes = pd.qcut(attribute, n_bins, duplicates="drop").cat.codes if numeric else pd.factorize(attribute)[0]
    groups, codes = np.unique(codes, return_inverse=True)
    n, k = len(rows), len(groups)
    if k < 2 or n <= k:
        raise ValueError(f"{n} stimuli fall into {k} groups: selectivity needs 2 groups and more stimuli than groups")
    centred = rows - rows.mean(0)
    total = (centred**2).sum(0)
    membership = np.eye(k)[codes]  # (n_stimuli, n_groups)
    counts = membership.sum(0)
    between = ((membership.T @ centred) ** 2 / counts[:, None]).sum(0)
    varies = total > 1e-20 * (rows**2).sum(0)  # relative: rounding alone leaves some 1e-30
    explained = np.divide(between, total, out=np.zeros_like(total), where=varies)
    return np.where(varies, 1 - (1 - explained) * (n - 1) / (n - k), 0.0)


def selectivity_by_layer(network: nn.Module, split: images.Split, n_shuffles: int = 0, seed: int = 0) -> pd.DataFrame:
    """Selectivity of the most selective unit of each layer for each attribute, units averaged over places.

    Parameters
    ----------
    n_shuffles : when positive, the images' attributes are shuffled so often, and `value` is the mean over shuffles of
        the same statistic: the chance level of a *best* unit, which is above zero

    Returns
    -------
    DataFrame with columns layer, attribute, unit (the most selective one), value
    """
    known, rng = attributes(split), np.random.default_rng(seed)
    found = []
    for layer, rows in extract(network, split.images, spatial="pool").items():
        for name in known:
            orders = [rng.permutation(len(known)) for _ in range(n_shuffles)] or [np.arange(len(known))]
            scores = [selectivity(rows, known[name].iloc[order]) for order in orders]
            value = float(np.mean([score.max() for score in scores]))
            found.append((layer, name, int(scores[0].argmax()), value))
    return pd.DataFrame(found, columns=["layer", "attribute", "unit", "value"])


def best_detectors(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table of `selectivity_by_layer`s, the best value of any layer, for every attribute but the class.

    Parameters
    ----------
    table : columns condition, network, attribute, layer, value, the class first among the attributes

    Returns
    -------
    DataFrame with columns condition, network, attribute, value
    """
    best = table.groupby(["condition", "network", "attribute"], sort=False).value.max().reset_index()
    return best[best.attribute != table.attribute.iloc[0]]


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of every unit of `a` with every unit of `b`, (n_units_a, n_units_b); NaN for constant units.

    Parameters
    ----------
    a, b : (n_stimuli, n_units_a), (n_stimuli, n_units_b)
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} stimuli and b has {len(b)}: row i of both must be the same stimulus")
    standard = []
    for rows in (a, b):
        rows = np.asarray(rows, dtype=np.float64)
        size = np.sqrt((rows**2).sum(0))
        rows = rows - rows.mean(0)
        norms = np.sqrt((rows**2).sum(0))
        constant = norms <= 1e-10 * size
        if constant.any():
            warnings.warn(f"{constant.sum()} of {len(norms)} units do not vary and are left out", stacklevel=2)
        standard.append(rows / np.where(constant, np.nan, norms))
    return standard[0].T @ standard[1]


def partners(a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    """For each unit of `a` its most correlated unit of `b`: chosen on the first half of the stimuli, measured on the
    second, as a choice among many would flatter itself on the stimuli that it was made on.

    Parameters
    ----------
    a, b : (n_stimuli, n_units_a), (n_stimuli, n_units_b), stimuli in random order

    Returns
    -------
    DataFrame, one row for each unit of `a` that varies: unit, partner, chosen (correlation on the first half),
    held_out (on the second half), mutual (whether `unit` is in turn the best unit of `a` for `partner`)
    """
    half = len(a) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # units silent in one half are dropped below
        first, second = correlations(a[:half], b[:half]), correlations(a[half:], b[half:])
    units = np.flatnonzero(np.isfinite(first).any(1))
    first = np.where(np.isfinite(first), first, -2.0)
    best = first.argmax(1)[units]
    found = pd.DataFrame({"unit": units, "partner": best, "chosen": first[units, best]})
    found["held_out"] = second[units, best]
    found["mutual"] = first.argmax(0)[best] == units
    return found.dropna(ignore_index=True)


def shuffle_images(rows: np.ndarray, n_images: int, seed: int = 0) -> np.ndarray:
    """Rows with the images in another order, the places of one image kept together: the null of all comparisons."""
    order = np.random.default_rng(seed).permutation(n_images)
    return rows.reshape(n_images, -1, rows.shape[1])[order].reshape(rows.shape)


def rosetta(first: nn.Module, second: nn.Module, stimuli: images.Split, seed: int = 0) -> pd.DataFrame:
    """`partners` in every layer of two networks, with chance level and with the unit of the same index.

    After the Rosetta neurons of Dravid et al. (2023). Stimuli are places in images (`spatial="positions"`).

    Returns
    -------
    DataFrame with columns layer, condition ("best partner", "same index", "shuffled images"), value: the held-out
    correlation averaged over the units of the layer
    """
    a, b = (extract(network, stimuli.images, spatial="positions", seed=seed) for network in (first, second))
    found = []
    for layer in networks.layers(first):
        shuffled = shuffle_images(b[layer], len(stimuli), seed)
        found.append((layer, "best partner", partners(a[layer], b[layer]).held_out.mean()))
        found.append((layer, "shuffled images", partners(a[layer], shuffled).held_out.mean()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append((layer, "same index", np.nanmean(np.diag(correlations(a[layer], b[layer])))))
    return pd.DataFrame(found, columns=["layer", "condition", "value"])
