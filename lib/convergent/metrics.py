"""How alike are two representations? Every metric of the book, one function each.

`X` (n_stimuli, n_units_x) and `Y` (n_stimuli, n_units_y) are NumPy arrays or tensors on any device, row i of both the
same stimulus. Every function returns a Python float and raises a ValueError that says what to do for values that are
not finite, different numbers of stimuli, fewer than 3 stimuli, or a representation that does not vary. Units are
centred over stimuli first; `rsa`, `mutual_knn` and `cknna` take the responses as they are, as their authors do.

Mappings (`linear`, `procrustes`, `permutation`, `soft_matching`, `semi_matching`) are fitted on all folds but one and
scored on that one; the score is the mean over units, then over folds, of the Pearson correlation. Constant units are
left out of the mean, with one warning. Their common keyword arguments:

folds : number of contiguous folds, or None for the in-sample value
positions : rows of one image, which lie together; they never straddle folds
shuffle : seed of a random order of the images before they are cut into folds; None keeps the order
details : give `Details` instead of the float
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import inputs, mappings, moments, ridge, similarity
from .kernels import cknna, kernel_cka, mutual_knn, rsa
from .linear_algebra import one_torch_thread

__all__ = [
    "Details",
    "cca",
    "cka",
    "cknna",
    "linear",
    "mutual_knn",
    "permutation",
    "procrustes",
    "pwcca",
    "rsa",
    "semi_matching",
    "shape_cosine",
    "soft_matching",
    "svcca",
]


class Details(NamedTuple):
    """What a mapping metric found.

    value : float, what the function returns without `details`
    per_fold : (n_folds,) scores of the folds; the value is their mean, for "r2" weighted by the stimuli of each
    per_unit : (n_units_y,) mean score of each unit of Y over folds; NaN for a unit that has none
    mapping : the map fitted on all stimuli. `linear` and `procrustes`: (n_units_x, n_units_y), from centred X to
        centred Y (for Procrustes without a scale). `soft_matching`: the plan (n_units_x, n_units_y).
        `permutation`, `semi_matching`: (n_units_y,) the unit of X that each unit of Y got, -1 for none
    alpha : what `linear` used in each fold (n_folds,), otherwise None
    """

    value: float
    per_fold: np.ndarray
    per_unit: np.ndarray
    mapping: np.ndarray
    alpha: np.ndarray | None = None


@one_torch_thread()
def linear(
    X, Y, alpha=1.0, folds=5, *, score="pearson", alphas=None, positions=1, shuffle=None, details=False
) -> float | Details:
    """How well a linear map of X predicts the units of Y on held-out stimuli: ridge regression with an intercept.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    alpha : penalty, as in scikit-learn's `Ridge`; "cv" chooses it for each fold by cross-validation over the others
    score : "pearson", or "r2" for the coefficient of determination of the out-of-fold predictions put together
    alphas : what "cv" chooses from; by default 17 values over eight decades around the mean eigenvalue of X's scatter
    folds, positions, shuffle, details : see the module

    Returns
    -------
    float, at most 1; about 0 where X says nothing of Y. Unchanged by rotations of X and scales of single units of Y,
    and, as alpha goes to 0, by every invertible linear map of X.

    Raises
    ------
    ValueError as the module says, for folds that do not fit, a negative alpha, or an unknown score.

    Notes
    -----
    Hoerl & Kennard (1970); as a measure of alignment Yamins et al. (2014). Exact, from fold moments: equal to `Ridge`
    refitted on every fold. `alpha` counts in the units of X: multiply X by 10 and the same alpha means 100 times less.
    """
    inputs.one_of(score, "score", ("pearson", "r2"))
    chosen = alpha if isinstance(alpha, str) else inputs.number(alpha, "alpha", 0)
    pair = moments.of(X, Y, folds, positions, shuffle)
    if isinstance(chosen, str):
        inputs.one_of(chosen, "alpha", ("cv",))
        alphas = ridge.default_alphas(pair) if alphas is None else [inputs.number(a, "alphas", 0) for a in alphas]
        if not len(alphas):
            raise ValueError("alphas=[]: expected at least one to choose from")
        chosen = ridge.choose_alphas(pair, np.asarray(alphas, float), score)
    scores = ridge.linear(pair, chosen, score)
    if not details:
        return scores.value()
    used = np.broadcast_to(np.asarray(chosen, float), (len(pair.x.counts),)).copy()
    return _details(scores, pair, _spread(ridge.fit(pair, float(np.median(used))), pair), used)


@one_torch_thread()
def procrustes(X, Y, folds=5, *, score="pearson", positions=1, shuffle=None, details=False) -> float | Details:
    """How well a rotation of X predicts the units of Y on held-out stimuli.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y); the smaller of the two is padded with zeros
    score : "pearson", or "r2" for that of the rotated and scaled X
    folds, positions, shuffle, details : see the module

    Returns
    -------
    float in [-1, 1] (at most 1 for "r2"); unchanged by rotation, reflection and isotropic scale of X.

    Raises
    ------
    ValueError as the module says, for folds that do not fit or an unknown score.

    Notes
    -----
    Schönemann (1966), eq. 2.8. The orthogonal factor of X'Y on the training stimuli; directions in which the two do
    not covary have no best rotation and are mapped to zero.
    """
    inputs.one_of(score, "score", ("pearson", "r2"))
    pair = moments.of(X, Y, folds, positions, shuffle)
    scores = mappings.procrustes(pair, score)
    if not details:
        return scores.value()
    return _details(
        scores,
        pair,
        _spread(mappings.polar_factor(pair.total, mappings.cross_noise(pair)), pair),
    )


@one_torch_thread()
def permutation(X, Y, folds=5, *, positions=1, shuffle=None, details=False) -> float | Details:
    """How well single units of X match single units of Y, one to one, on held-out stimuli.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y); as many units are matched as the smaller layer has
    folds, positions, shuffle, details : see the module

    Returns
    -------
    float in [-1, 1], mean over matched units; symmetric; unchanged by the order and the (positive) scales of units.

    Raises
    ------
    ValueError as the module says, or for folds that do not fit.

    Notes
    -----
    Li et al. (2015). The assignment that maximises the sum of training correlations, exactly (Crouse 2016).
    """
    pair = moments.of(X, Y, folds, positions, shuffle)
    scores = mappings.permutation(pair)
    if not details:
        return scores.value()
    i, j = mappings.assignment(mappings.all_correlations(pair))
    return _details(scores, pair, _matched(i, j, pair))


@one_torch_thread()
def soft_matching(X, Y, folds=5, *, positions=1, shuffle=None, details=False) -> float | Details:
    """`permutation` for layers of different sizes: every unit may spread its mass over several units of the other.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    folds, positions, shuffle, details : see the module

    Returns
    -------
    float in [-1, 1], the expected correlation under the optimal plan; symmetric; equal to `permutation` for equally
    many units; unchanged by the order and the (positive) scales of units.

    Raises
    ------
    ValueError as the module says, or for folds that do not fit.

    Notes
    -----
    Khosla & Williams (2024), eq. 4, on correlations; the exact plan by network simplex, without entropy.
    """
    pair = moments.of(X, Y, folds, positions, shuffle)
    scores = mappings.soft_matching(pair)
    if not details:
        return scores.value()
    correlations = mappings.all_correlations(pair)
    return _details(scores, pair, _spread(torch.from_numpy(mappings.transport(correlations)), pair))


@one_torch_thread()
def semi_matching(X, Y, folds=5, *, positions=1, shuffle=None, details=False) -> float | Details:
    """How well each unit of Y is matched by its best unit of X, which may serve several, on held-out stimuli.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    folds, positions, shuffle, details : see the module

    Returns
    -------
    float in [-1, 1]; not symmetric; unchanged by the order and the (positive) scales of units.

    Raises
    ------
    ValueError as the module says, or for folds that do not fit.

    Notes
    -----
    Li et al. (2015), "semi-matching".
    """
    pair = moments.of(X, Y, folds, positions, shuffle)
    scores = mappings.semi_matching(pair)
    if not details:
        return scores.value()
    i = mappings.all_correlations(pair).argmax(0)
    return _details(scores, pair, _matched(i, torch.arange(len(i)), pair))


@one_torch_thread()
def cka(X, Y, kernel="linear", debiased=False, bandwidth=None) -> float:
    """Centred kernel alignment: the cosine between two matrices of similarities among stimuli.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    kernel : "linear", or "rbf" for exp(-d^2 / (2 s^2))
    debiased : take the unbiased estimate HSIC1 in numerator and denominators; it may be negative
    bandwidth : for "rbf", s^2 as a multiple of the median of the non-zero squared distances (default 1)

    Returns
    -------
    float in [0, 1] (debiased: in [-1, 1], about 0 for unrelated representations); symmetric;
    unchanged by rotation and isotropic scale.

    Raises
    ------
    ValueError as the module says, for an unknown kernel, a bandwidth with the linear one, fewer than 4 stimuli or an
    undefined value when debiased.

    Notes
    -----
    Kornblith et al. (2019), eq. 3; HSIC1 of Song et al. (2012), eq. 5.
    """
    inputs.one_of(kernel, "kernel", ("linear", "rbf"))
    if not isinstance(debiased, (bool, np.bool_)):
        raise ValueError(f"debiased={debiased!r}: expected True or False")
    if kernel == "rbf":
        return kernel_cka(X, Y, debiased, 1.0 if bandwidth is None else inputs.number(bandwidth, "bandwidth", 1e-12))
    if bandwidth is not None:
        raise ValueError(f'bandwidth={bandwidth!r} has no meaning for the linear kernel: leave it out, or kernel="rbf"')
    pair = moments.of(X, Y, None)
    return similarity.debiased_cka(pair) if debiased else similarity.cka(pair)


@one_torch_thread()
def shape_cosine(X, Y) -> float:
    """Cosine of the angular shape distance between two representations.

    The largest cosine that rotating, reflecting and scaling `X` can reach with `Y`: the nuclear norm of X'Y over the
    product of the Frobenius norms, units centred.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)

    Returns
    -------
    float in [0, 1]; 1 when the representations differ by rotation, reflection, scale and shift only; symmetric.

    Raises
    ------
    ValueError as the module says.

    Notes
    -----
    Williams et al. (2021), eq. 5; equal to the normalised Bures similarity of the Gram matrices (Harvey et al. 2024).
    Computed from the smaller Gram matrix in float64: float32 is wrong in the third digit for rank-deficient layers.
    """
    return similarity.shape_cosine(moments.of(X, Y, None))


@one_torch_thread()
def cca(X, Y) -> float:
    """Mean canonical correlation.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)

    Returns
    -------
    float in [0, 1], the mean of the min(rank X, rank Y) canonical correlations; symmetric; unchanged by invertible
    linear maps. It is 1 for any two representations whose ranks reach n_stimuli - 1: use several times more stimuli
    than units.

    Raises
    ------
    ValueError as the module says.

    Notes
    -----
    Hotelling (1936); the mean as in Raghu et al. (2017).
    """
    return similarity.cca(moments.of(X, Y, None))


@one_torch_thread()
def svcca(X, Y, variance=0.99) -> float:
    """`cca` between the leading principal components of each representation.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    variance : share of the variance (not of the singular values) that the components of each side keep at least

    Returns
    -------
    float in [0, 1]; symmetric; unchanged by rotation and isotropic scale.

    Raises
    ------
    ValueError as the module says, or for a variance outside (0, 1].

    Notes
    -----
    Raghu et al. (2017).
    """
    kept = inputs.number(variance, "variance", 0)
    if not 0 < kept <= 1:
        raise ValueError(f"variance={variance!r}: expected a share above 0 and up to 1")
    return similarity.svcca(moments.of(X, Y, None), kept)


@one_torch_thread()
def pwcca(X, Y) -> float:
    """Canonical correlations, weighted by how much of X each canonical direction accounts for.

    Parameters
    ----------
    X : (n_stimuli, n_units_x), whose directions weigh
    Y : (n_stimuli, n_units_y)

    Returns
    -------
    float in [0, 1]; not symmetric; unchanged by invertible linear maps of Y, and by order and isotropic scale of X.

    Raises
    ------
    ValueError as the module says.

    Notes
    -----
    Morcos et al. (2018), eq. 4.
    """
    return similarity.pwcca(moments.of(X, Y, None))


def _details(scores, pair, mapping: Tensor, alpha=None) -> Details:
    """With units as the caller counts them: constant ones have no score."""
    per_unit = torch.full((pair.y.n_all,), torch.nan, dtype=torch.float64)
    per_unit[pair.y.kept.cpu()] = scores.per_unit().cpu()
    return Details(scores.value(), scores.per_fold().cpu().numpy(), per_unit.numpy(), mapping.cpu().numpy(), alpha)


def _spread(mapping: Tensor, pair: moments.Pair) -> Tensor:
    """With rows and columns of zeros for constant units."""
    full = torch.zeros(pair.x.n_all, pair.y.n_all, dtype=torch.float64)
    full[pair.x.kept.cpu()[:, None], pair.y.kept.cpu()] = mapping.cpu()
    return full


def _matched(i: Tensor, j: Tensor, pair: moments.Pair) -> Tensor:
    partner = torch.full((pair.y.n_all,), -1, dtype=torch.int64)
    partner[pair.y.kept.cpu()[j.cpu()]] = pair.x.kept.cpu()[i.cpu()]
    return partner
