"""Ridge regression between layers from fold moments: one factorisation of a source layer serves every target."""

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from .linear_algebra import eigh, product, solve, workers
from .mappings import Scores, evenly, rank_floor, score_map, score_predictions
from .moments import Layer, Pair, about_mean, floored

N_ALPHAS = 17
LARGE = 128**2  # pairs of units


def linear(pair: Pair, alpha: float | list[float], score: str = "pearson") -> Scores:
    """Ridge regression with intercept (Hoerl & Kennard 1970) from x to y.

    `alpha`, or one alpha for each fold, is in the units of x's scatter, as in scikit-learn's `Ridge`.
    """
    pair = pair.compact()
    alphas = [alpha] * len(pair.x.counts) if np.isscalar(alpha) else alpha
    if len(pair.folds) > 1:
        _ = pair.sum_of_products, pair.x.sum_of_products  # before several threads ask for them
    with _workers(pair) as each:
        values = list(each(lambda k: _fold(pair, k, _in_units(pair.x, alphas[k]), score), pair.folds))
    return evenly(values, pair, score)


def _workers(pair: Pair):
    """A map over folds: in threads where a fold takes longer than to start them."""
    return workers(pair.x.sums.device) if pair.x.n_units * pair.y.n_units >= LARGE else nullcontext(map)


def _fold(pair: Pair, k: int, penalty: float, score: str) -> Tensor:
    """Scores of the units of y in fold k (n_units_y,)."""
    x, cross = pair.x, pair.train_cross(k)
    if x.rows is None or x.counts[k] >= 2 * x.n_units:
        inverse, unit = _inverse(x, k, penalty)
        weights = product(inverse.to(cross.dtype), cross)
        return score_map(pair, k, weights / unit if score == "r2" else weights, score)
    # Solve for the fold's stimuli, not for the targets: one solution serves every y, and is smaller.
    solution, unit = _solution(x, k, penalty, cross.dtype)
    predicted, shift = product(solution[:, :-1].T, cross), None
    if x.order is not None:  # the solution is for the stimuli where they stood
        predicted = predicted[x.fold_order(k)]
    if score == "r2":
        predicted, shift = predicted / unit, (solution[:, -1] @ cross / unit).double()
    return score_predictions(pair, k, predicted, shift, score)


def prepare(x: Layer, alpha: float) -> None:
    """Factorise a source layer for every fold, once for all its targets."""
    for k in range(len(x.counts)):
        if x.rows is not None and x.counts[k] < 2 * x.n_units:
            _solution(x, k, _in_units(x, alpha), torch.float64)
        else:
            _inverse(x, k, _in_units(x, alpha))


def fit(pair: Pair, alpha: float) -> Tensor:
    """The map of all stimuli (n_units_x, n_units_y), in the units of the layers that it was given."""
    x = pair.x
    identity = torch.eye(x.n_units, dtype=torch.float64, device=x.sums.device)
    inverse, unit = _solve(x.total, _in_units(x, alpha), x.noise, identity)
    return inverse @ pair.total / unit * (pair.y.scale / x.scale)


def _in_units(x: Layer, alpha: float) -> float:
    """`alpha` for the scaled activations; the largest float stands for what is larger."""
    return min(alpha / x.scale / x.scale, 1e300) if alpha else 0.0


def _solution(x: Layer, k: int, alpha: float, dtype: torch.dtype) -> tuple[Tensor, float]:
    """The inverse applied to the fold's stimuli, and to the way from the training mean to the fold's."""
    if (dtype, k, alpha) not in x.solutions:
        if dtype == torch.float64:
            rows = x.test_rows(k) if x.order is None else x.test_rows(k)[torch.argsort(x.fold_order(k))]
            shift = x.test_mean(k) - x.train_mean(k)
            x.solutions[dtype, k, alpha] = _solve(x.train_scatter(k), alpha, x.noise, torch.cat([rows, shift[None]]).T)
        else:
            solution, unit = _solution(x, k, alpha, torch.float64)
            x.solutions[dtype, k, alpha] = solution.to(dtype), unit
    return x.solutions[dtype, k, alpha]


def _inverse(x: Layer, k: int, alpha: float) -> tuple[Tensor, float]:
    if ("inverse", k, alpha) not in x.solutions:
        identity = torch.eye(x.n_units, dtype=torch.float64, device=x.sums.device)
        x.solutions["inverse", k, alpha] = _solve(x.train_scatter(k), alpha, x.noise, identity)
    return x.solutions["inverse", k, alpha]


def _solve(scatter: Tensor, alpha: float, noise: float, right: Tensor) -> tuple[Tensor, float]:
    """(scatter + alpha I)^-1 right, times a number that is given too: an alpha of 1e40 would else leave the range.

    The least-norm solution where that matrix is singular to rounding.
    """
    mean = float(scatter.diagonal().mean())
    if mean == 0:
        return torch.zeros_like(right), 1.0
    if alpha > 1e-10 * mean:
        unit = mean + alpha
        matrix = scatter / unit
        matrix.diagonal().add_(alpha / unit)
        return solve(matrix, right), unit
    values, vectors = eigh(scatter)
    return product(vectors, _inverted(values, alpha, noise)[:, None] * product(vectors.T, right)), 1.0


def _inverted(values: Tensor, alpha: float, noise: float) -> Tensor:
    return torch.where(values > rank_floor(values, noise), 1 / (values + alpha), 0.0)


def default_alphas(pair: Pair) -> np.ndarray:
    """Eight decades around the mean eigenvalue of x's scatter, so that the choice does not depend on x's scale."""
    squares = float(pair.x.squares.sum()) - float((pair.x.sums.sum(0) ** 2).sum()) / sum(pair.x.counts)
    mean = squares / pair.x.n_units * pair.x.scale**2
    return mean * np.logspace(-4, 4, N_ALPHAS)


def choose_alphas(pair: Pair, alphas: np.ndarray, score: str) -> list[float]:
    """For each fold the alpha with the best score in cross-validation over the other folds.

    The training sets without folds k and l are the same for (outer k, inner l) and (outer l, inner k): one
    eigendecomposition serves both, and every alpha.

    Raises
    ------
    ValueError for fewer than 3 folds.
    """
    pair = pair.compact()
    n_folds = len(pair.x.counts)
    if n_folds < 3:
        folds = None if n_folds == 1 else n_folds
        raise ValueError(f'alpha="cv" chooses alpha inside the training folds: folds={folds}, use at least 3')
    penalties = torch.tensor([_in_units(pair.x, float(alpha)) for alpha in alphas], dtype=torch.float64)
    left_out = [(k, l) for k in range(n_folds) for l in range(k)]  # noqa: E741
    totals = torch.zeros(n_folds, len(alphas), dtype=torch.float64)
    _ = pair.x.sum_of_products, pair.sum_of_products  # before several threads ask for them
    with _workers(pair) as each:
        found = each(lambda two: _inner(pair, *two, penalties, score), left_out)
        for two, scores in zip(left_out, found, strict=True):
            totals[list(two)] += scores
    return [float(alphas[i]) for i in totals.argmax(1)]


def _inner(pair: Pair, k: int, l: int, penalties: Tensor, score: str) -> Tensor:  # noqa: E741
    """Scores (2, n_alphas) of maps fitted without folds k and l: on l, where k is the outer fold, and on k."""
    values, vectors, rotated, means = _without(pair, k, l)
    inverses = torch.stack([_inverted(values, float(penalty), pair.x.noise) for penalty in penalties])
    return torch.stack([_Rotated(pair, test, vectors, rotated, means).scores(inverses, score) for test in (l, k)]).cpu()


def _without(pair: Pair, k: int, l: int):  # noqa: E741
    """Eigenvalues and eigenvectors of x's scatter without folds k and l, the cross scatter in them, and x's mean."""
    x, y = pair.x, pair.y
    count = sum(x.counts) - x.counts[k] - x.counts[l]
    sums_x, sums_y = (z.sums.sum(0) - z.sums[k] - z.sums[l] for z in (x, y))
    scatter = about_mean(x.sum_of_products - x.products[k] - x.products[l], sums_x, sums_x, count)
    cross = about_mean(pair.sum_of_products - pair.products[k] - pair.products[l], sums_x, sums_y, count)
    squares = y.squares.sum(0) - y.squares[k] - y.squares[l] - sums_y**2 / count
    cross = torch.where(floored(squares, y.squares.sum(0)) > 0, cross, 0.0)  # what was silent taught nothing
    values, vectors = eigh(scatter)
    return values, vectors, product(vectors.T, cross), (sums_x / count, sums_y / count)


class _Rotated:
    """A fold to be predicted, in the eigenvectors of its training scatter: an alpha then costs one product.

    In the precision of the activations: to tell good alphas from bad ones takes no more digits than those have.
    """

    def __init__(self, pair: Pair, k: int, vectors: Tensor, rotated: Tensor, means):
        x, y = pair.x, pair.y
        self.y, self.k, self.rotated = y, k, rotated
        self.shift = (x.test_mean(k) - means[0]) @ vectors
        self.offset = y.test_mean(k) - means[1]
        self.squares = y.test_squares(k)
        if x.rows is not None and x.counts[k] < x.n_units:
            factor = product(x.test_rows(k, x.rows.dtype), vectors.to(x.rows.dtype))
            cross = product(factor.T, y.test_rows(k, factor.dtype))
        else:
            values, turn = eigh(product(vectors.T, product(x.test_scatter(k), vectors)))
            factor = values.clamp_min(0).sqrt()[:, None] * turn.T
            factor = factor if x.rows is None else factor.to(x.rows.dtype)
            cross = product(vectors.T, pair.test_cross(k))
        self.factor, self.covariance = factor, rotated * cross

    def scores(self, inverses: Tensor, score: str) -> Tensor:
        """Mean over units for each of `inverses` (n_alphas, n_units_x)."""
        seen = self.squares > 0
        if not seen.any():
            raise ValueError(f"no unit varies in fold {self.k + 1}: use fewer folds, or shuffle the images into folds")
        sizes = inverses.amax(1, keepdim=True)
        sizes = torch.where(sizes > 0, sizes, 1.0)  # taken out, or a large alpha's would leave float32's range
        shares = inverses / sizes
        covariance = product(shares, self.covariance)
        rotated = self.rotated.to(self.factor.dtype)
        scaled, predicted = torch.empty_like(rotated), rotated.new_empty(len(self.factor), rotated.shape[1])
        lengths = []
        for share in shares.to(rotated.dtype):  # into the same memory each time: to get new takes as long
            product(self.factor, torch.mul(rotated, share[:, None], out=scaled), predicted)
            lengths.append(torch.linalg.vector_norm(predicted, dim=0))
        variance = torch.stack(lengths).double().square()
        if score == "r2":
            missed = self.offset - product(inverses * self.shift, self.rotated)
            residual = self.squares - 2 * sizes * covariance + sizes**2 * variance + self.y.counts[self.k] * missed**2
            return (1 - residual / self.squares)[:, seen].mean(1)
        spread = self.squares * variance
        return torch.where(spread > 0, covariance * spread.rsqrt(), 0.0)[:, seen].mean(1)
