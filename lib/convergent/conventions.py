"""From this library's numbers to those that other packages and papers give for "the same" metric, and back.

A metric has one idea and many conventions: a cosine or its angle, correlations or covariances, both directions or one.
What can be had from the number alone takes the number; the rest takes the responses again.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment

from . import inputs, metrics


def angle(similarity: float) -> float:
    """Angle in radians whose cosine is `similarity`.

    From `shape_cosine` it is the angular shape distance, from `cka` angular CKA. Both satisfy the triangle inequality,
    as one minus the cosine does not (Williams et al. 2021, eq. 5 and supplement).

    Raises
    ------
    ValueError for a similarity that is not between -1 and 1.
    """
    return math.acos(_share(similarity, "similarity", -1))


def from_angle(radians: float) -> float:
    """The cosine of which `angle` is the angle.

    Raises
    ------
    ValueError for an angle that is not between 0 and pi.
    """
    radians = inputs.number(radians, "radians", 0)
    if radians > math.pi:
        raise ValueError(
            f"radians={radians!r}: angles between representations lie between 0 and pi; were these degrees?"
        )
    return math.cos(radians)


def chord(similarity: float) -> float:
    """Distance between two unit vectors whose inner product is `similarity`: sqrt(2 - 2 similarity).

    From `shape_cosine` it is the Procrustes distance of centred representations of unit Frobenius norm (its square is
    that of Ding et al. 2021), from `soft_matching` and `permutation` in sample the soft matching distance between units
    scaled to unit norm (Khosla & Williams 2024), from `cka` the distance between the centred kernels of unit norm.

    Raises
    ------
    ValueError for a similarity that is not between -1 and 1.
    """
    return math.sqrt(2 - 2 * _share(similarity, "similarity", -1))


def from_chord(distance: float) -> float:
    """The inner product of which `chord` is the distance.

    Raises
    ------
    ValueError for a distance that is not between 0 and 2.
    """
    distance = inputs.number(distance, "distance", 0)
    if distance > 2:
        raise ValueError(
            f"distance={distance!r}: unit vectors are at most 2 apart; were these representations unscaled?"
        )
    return 1 - distance**2 / 2


def size_and_shape(cosine: float, X, Y) -> float:
    """Procrustes distance between centred representations that keep their size, from their `shape_cosine`.

    sqrt(|X|^2 + |Y|^2 - 2 cosine |X| |Y|), Frobenius norms of the centred responses: "size and shape" in the words of
    Williams et al. (2021). It is in the units of the responses and grows with the root of the number of stimuli.

    Parameters
    ----------
    cosine : `metrics.shape_cosine(X, Y)`
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)

    Raises
    ------
    ValueError as `metrics.shape_cosine`, and for a cosine that is not between 0 and 1.
    """
    cosine = _share(cosine, "cosine", 0)
    x, y = (float(np.linalg.norm(Z)) for Z in _centred(X, Y))
    return math.sqrt(max((x - y) ** 2 + 2 * (1 - cosine) * x * y, 0.0))


def permutation_by_covariance(X, Y) -> float:
    """Cosine between two representations after the matching of units that makes it largest, in sample.

    Units are centred but not scaled, so strong units decide; `metrics.permutation` matches on correlations, where each
    unit counts alike. The `angle` of it is the permutation shape distance of Williams et al. (2021).

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)

    Returns
    -------
    float in [-1, 1]

    Raises
    ------
    ValueError as `metrics.permutation`.
    """
    X, Y = _centred(X, Y)
    cross = X.T @ Y
    i, j = linear_sum_assignment(cross, maximize=True)
    return float(cross[i, j].sum() / (np.linalg.norm(X) * np.linalg.norm(Y)))


def cka_off_diagonal(X, Y) -> float:
    """Linear CKA without the diagonals of the centred kernels: a debiasing other than that of Song et al. (2012).

    `metrics.cka(X, Y, debiased=True)` zeroes the diagonals first and centres so that the expectation is exact; here
    the order is the other way round. The two differ by terms of the order of one over the number of stimuli.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)

    Returns
    -------
    float in [-1, 1]

    Raises
    ------
    ValueError as `metrics.cka`.
    """
    kernels = [Z @ Z.T for Z in _centred(X, Y)]
    for kernel in kernels:
        np.fill_diagonal(kernel, 0)
    return float((kernels[0] * kernels[1]).sum() / math.prod(map(np.linalg.norm, kernels)))


def both_ways(metric: Callable[..., float], X, Y, **options) -> float:
    """Mean of a metric from X to Y and from Y to X: for `linear`, `procrustes`, `semi_matching` and `pwcca`."""
    return (metric(X, Y, **options) + metric(Y, X, **options)) / 2


def canonical_correlations(X, Y) -> np.ndarray:
    """All canonical correlations (min of the two ranks,), largest first: packages summarise them in different ways.

    Their mean is `metrics.cca`; their sum over the smaller number of units another package's mean where a layer is
    rank-deficient; the mean of their squares is the R2 of CCA of Kornblith et al. (2019).

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)

    Raises
    ------
    ValueError as `metrics.cca`.
    """
    bases = []
    for Z in _centred(X, Y):
        left, values, _ = np.linalg.svd(Z, full_matrices=False)
        bases.append(left[:, values > 1e-10 * values[0]])
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).clip(0, 1)


def svcca_by_singular_values(X, Y, share: float = 0.99) -> float:
    """SVCCA that keeps components until their singular values, not their variances, sum to `share`.

    Singular values are square roots of variances, so that small components weigh more and many more are kept than by
    `metrics.svcca(X, Y, variance=share)`.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    share : above 0, at most 1

    Raises
    ------
    ValueError as `metrics.svcca`.
    """
    share = _share(share, "share", 0)
    kept = []
    for Z in _centred(X, Y):
        left, values, _ = np.linalg.svd(Z, full_matrices=False)
        n = int(np.searchsorted(np.cumsum(values), (1 - 1e-12) * share * values.sum())) + 1
        kept.append(left[:, :n] * values[:n])
    return metrics.cca(*kept)


def counting_self(overlap: float, k: int) -> float:
    """Overlap of the `k` nearest with the stimulus itself among them, from `mutual_knn(..., k=k - 1)` without.

    Raises
    ------
    ValueError for an overlap that is not between 0 and 1, or k below 2.
    """
    k = inputs.whole(k, "k", 2)
    return (1 + (k - 1) * _share(overlap, "overlap", 0)) / k


def jaccard_bounds(overlap: float) -> tuple[float, float]:
    """Between what the mean Jaccard similarity of neighbourhoods lies, given `mutual_knn` with the same k and distance.

    A stimulus that shares the share s of its neighbours has the Jaccard similarity s / (2 - s), which is convex in s:
    the mean is at least that of the mean, and at most the mean itself.

    Raises
    ------
    ValueError for an overlap that is not between 0 and 1.
    """
    overlap = _share(overlap, "overlap", 0)
    return overlap / (2 - overlap), overlap


def ridge_alpha(penalty: float, n_train: int) -> float:
    """`alpha` of `metrics.linear` for a penalty beside the *mean* squared error over `n_train` training stimuli.

    Ours stands beside the sum, as in scikit-learn; a penalty beside the mean is multiplied by the number of stimuli.

    Raises
    ------
    ValueError for a negative penalty or no stimuli.
    """
    return inputs.number(penalty, "penalty", 0) * inputs.whole(n_train, "n_train", 1)


def cut_and_scaled(X, quantile: float = 0.95) -> np.ndarray:
    """Responses as Huh et al. (2024) prepare them for `mutual_knn` and `cknna`: outliers cut off, stimuli scaled.

    Values beyond the `quantile` of all magnitudes are set to it, then each stimulus' responses get unit length: inner
    products become cosines. `mutual_knn` takes cosines by itself; `cknna` takes what it is given.

    Parameters
    ----------
    X : (n_stimuli, n_units)
    quantile : above 0, at most 1, which cuts nothing

    Raises
    ------
    ValueError as `metrics.cknna`, or where nothing but zeros is left of a stimulus.
    """
    quantile = _share(quantile, "quantile", 0)
    rows = inputs.representation(X).double().cpu().numpy()
    limit = np.quantile(np.abs(rows), quantile)
    rows = rows.clip(-limit, limit)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise ValueError(f"stimulus {int(np.argmin(lengths))} is all zero in X and cannot be scaled: leave it out")
    return rows / lengths


def _share(value, name: str, least: float) -> float:
    value = inputs.number(value, name, least)
    if value > 1 + 1e-9:
        raise ValueError(f"{name}={value!r}: expected a number between {least} and 1")
    return min(value, 1.0)


def _centred(X, Y) -> list[np.ndarray]:
    """Both in float64 with each unit's mean taken off."""
    arrays = [Z.double().cpu().numpy() for Z in inputs.pair(X, Y)]
    for Z, name in zip(arrays, "XY", strict=True):
        if (Z == Z[0]).all():
            raise ValueError(f"{name} does not vary: all stimuli are identical to it. Leave this layer out")
    return [Z - Z.mean(0) for Z in arrays]
