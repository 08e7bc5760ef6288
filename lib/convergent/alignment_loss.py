"""Alignment as a loss: how alike a layer and a reference are on one batch, with a gradient.

Every function takes the rows of a layer `X` (n_stimuli, n_units_x) and of a reference `Y` (n_stimuli, n_units_y), row i
of both the same stimulus and the rows of one image together, and gives a scalar tensor that grows with alignment and is
symmetric in its arguments. The loss is its negative (Srivastava, Soni & Khosla 2025, section 2): `loss`.

None of them sees the scale of `X`: a network cannot hide from its reference by answering more quietly.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Penalty of the ridge regression, in mean eigenvalues of the scatter of its predictors.
RIDGE = 0.1
# Scatter of a unit, in shares of the mean over units, below which it counts as silent.
_SILENT = 1e-6
_FLOOR = 1e-12  # of denominators: a silent layer has a finite gradient


def linear(X: Tensor, Y: Tensor, ridge: float = RIDGE, positions: int = 1) -> Tensor:
    """Held-out R2 of ridge regression inside the batch, averaged over both directions.

    The images are cut in two halves; a map fitted on the one is scored on the other, and the other way round.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    ridge : penalty, as a share of the mean of the eigenvalues that can differ from zero (as many as stimuli or units,
        whichever are fewer) of the predictors' scatter in the half that is fitted. A share, because a network could
        escape a fixed penalty by making its activations larger.
    positions : rows of one image, which lie together and stay in one half

    Returns
    -------
    scalar tensor, at most 1; below 0 where a prediction misses by more than the units vary

    Raises
    ------
    ValueError for fewer than 4 images, or for rows that do not make whole images.

    Notes
    -----
    The mean of `metrics.linear(X, Y, alpha, folds=2, score="r2")` and of its reverse, with alpha set by `ridge` in each
    half. In float32 a Cholesky factorisation of the smaller of scatter and Gram matrix, to which the penalty is added.
    """
    halves = _halves(X, Y, positions)
    directions = [_r2(X, Y, halves, ridge), _r2(Y, X, halves, ridge)]
    return torch.stack(directions).mean()


def cka(X: Tensor, Y: Tensor, positions: int = 1) -> Tensor:
    """Debiased linear CKA of the batch: `metrics.cka(X, Y, debiased=True)`, in [-1, 1] but for few stimuli.

    Debiased (Song et al. 2012, eq. 5), because in a batch with hardly more stimuli than units plain CKA is high for
    any two representations.

    Raises
    ------
    ValueError for fewer than 4 stimuli.
    """
    if len(X) < 4:
        raise ValueError(f"{len(X)} stimuli: debiased CKA needs at least 4")
    grams = [_centred(rows) @ _centred(rows).T for rows in (X, Y)]
    grams = [gram - torch.diag(gram.diagonal()) for gram in grams]
    cross, own_x, own_y = (_hsic(a, b) for a, b in ((grams[0], grams[1]), (grams[0],) * 2, (grams[1],) * 2))
    return cross / (own_x * own_y).clamp_min(_FLOOR**2).sqrt()


def procrustes(X: Tensor, Y: Tensor, positions: int = 1) -> Tensor:
    """Cosine of the angular shape distance (Williams et al. 2021, eq. 5): `metrics.shape_cosine`, in [0, 1]."""
    X, Y = _centred(X), _centred(Y)
    nuclear = torch.linalg.svdvals(X.T @ Y).sum()
    return nuclear / (X.norm() * Y.norm()).clamp_min(_FLOOR)


def rsa(X: Tensor, Y: Tensor, positions: int = 1) -> Tensor:
    """Correlation of correlation distances: `metrics.rsa(X, Y, compare="pearson")`, in [-1, 1].

    Pearson's instead of Spearman's coefficient, which has no useful gradient (Kriegeskorte et al. 2008).
    """
    return rsa_to(X, distances(Y))


def rsa_to(X: Tensor, dissimilarities: Tensor) -> Tensor:
    """`rsa` with dissimilarities (n_stimuli, n_stimuli) that were measured rather than computed."""
    above = torch.triu_indices(len(X), len(X), 1, device=X.device)
    a, b = (square[above[0], above[1]] for square in (distances(X), dissimilarities))
    a, b = a - a.mean(), b - b.mean()
    return (a @ b) / (a.norm() * b.norm()).clamp_min(_FLOOR)


def distances(X: Tensor) -> Tensor:
    """1 - Pearson's correlation over units between all stimuli (n_stimuli, n_stimuli)."""
    X = X - X.mean(1, keepdim=True)
    X = X / X.norm(dim=1, keepdim=True).clamp_min(torch.finfo(X.dtype).eps)
    return 1 - X @ X.T


METRICS: dict[str, Callable[..., Tensor]] = {"linear": linear, "cka": cka, "procrustes": procrustes, "rsa": rsa}


def alignment(X: Tensor, Y: Tensor, metric: str = "linear", positions: int = 1) -> Tensor:
    """Alignment of a batch by the metric's name, in float32 also inside `torch.autocast`.

    Raises
    ------
    ValueError for a metric that is not one of `METRICS`, or different numbers of rows.
    """
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} is not one of {', '.join(METRICS)}")
    if len(X) != len(Y):
        raise ValueError(f"the layer has {len(X)} rows and the reference {len(Y)}: row i must be the same stimulus")
    with torch.autocast(X.device.type, enabled=False):
        X, Y = (rows.float() if rows.dtype != torch.float64 else rows for rows in (X, Y))
        return METRICS[metric](X, Y, positions=positions)


def loss(X: Tensor, Y: Tensor, metric: str = "linear", positions: int = 1) -> Tensor:
    """The negative of `alignment`: adding it, times a positive alpha, to a loss promotes alignment."""
    return -alignment(X, Y, metric, positions)


def _centred(X: Tensor) -> Tensor:
    return X - X.mean(0)


def _hsic(K: Tensor, L: Tensor) -> Tensor:
    """Unbiased HSIC of two Gram matrices without diagonals (Song et al. 2012, eq. 5), up to a factor."""
    n = len(K)
    trace = (K * L).sum()
    sums = K.sum() * L.sum() / ((n - 1) * (n - 2))
    return trace + sums - 2 * (K.sum(0) @ L.sum(0)) / (n - 2)


def _halves(X: Tensor, Y: Tensor, positions: int) -> list[slice]:
    n_images, rest = divmod(len(X), positions)
    if rest or n_images < 4:
        raise ValueError(f"{len(X)} rows at {positions} positions an image: give at least 4 whole images")
    middle = -(-n_images // 2) * positions
    return [slice(0, middle), slice(middle, len(X))]


def _r2(X: Tensor, Y: Tensor, halves: list[slice], ridge: float) -> Tensor:
    """Of the predictions of Y from X in both halves together; the mean over the units of Y that vary."""
    missed = 0
    for fitted, scored in (halves, halves[::-1]):
        mean_x, mean_y = X[fitted].mean(0), Y[fitted].mean(0)
        predicted = _predictions(X[fitted] - mean_x, Y[fitted] - mean_y, X[scored] - mean_x, ridge)
        missed = missed + (Y[scored] - mean_y - predicted).square().sum(0)
    total = (Y - Y.mean(0)).square().sum(0)
    varies = (total > _SILENT * total.mean()).detach()  # its R2 would be a ratio of two roundings
    share = missed / torch.where(varies, total, torch.ones_like(total))
    return 1 - torch.where(varies, share, 0.0).sum() / varies.sum().clamp_min(1)


def _predictions(X: Tensor, Y: Tensor, new: Tensor, ridge: float) -> Tensor:
    """Y predicted for the rows `new`, by ridge regression from centred X to centred Y."""
    penalty = ridge * X.square().sum() / min(X.shape)
    if X.shape[1] <= len(X):
        return new @ _solve(X.T @ X, penalty, X.T @ Y)
    return (new @ X.T) @ _solve(X @ X.T, penalty, Y)


def _solve(matrix: Tensor, penalty: Tensor, right: Tensor) -> Tensor:
    """(matrix + penalty I)^-1 right; the floor keeps a silent layer's matrix, which is zero, positive definite."""
    floor = 4 * torch.finfo(matrix.dtype).eps * matrix.diagonal().sum().detach()
    floor = floor + torch.finfo(matrix.dtype).tiny ** 0.5
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    factor = torch.linalg.cholesky(matrix + (penalty + floor) * identity)
    return torch.cholesky_solve(right, factor)
