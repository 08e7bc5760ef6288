"""Maps from one layer's units to another's, fitted on the training moments of each fold and scored on the fold.

Every function takes a `moments.Pair` and gives `Scores`, one row a fold and one column a unit of y. Correlations are
Pearson's over the stimuli of the fold. A unit of y that is silent in a fold has none there (NaN); a prediction that
does not vary explains nothing (0).
"""

from typing import NamedTuple

import numpy as np
import ot
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .linear_algebra import eigh, eigvalsh, product
from .moments import Pair


class Scores(NamedTuple):
    """Scores of units by fold (n_folds, n_units_y), the weight of each in its fold, and of each fold (n_folds,)."""

    values: Tensor
    weights: Tensor
    fold_weights: Tensor

    def value(self) -> float:
        """The score: mean over units, then over folds."""
        return float((self.per_fold() * self.fold_weights).sum() / self.fold_weights.sum())

    def per_fold(self) -> Tensor:
        """Weighted mean over units that have a score (n_folds,).

        Raises
        ------
        ValueError for a fold in which no unit has one.
        """
        weights = torch.where(self.values.isnan(), 0.0, self.weights)
        total = weights.sum(1)
        if (total == 0).any():
            k = int((total == 0).nonzero()[0])
            raise ValueError(f"no unit varies in fold {k + 1}: use fewer folds, or shuffle the images into folds")
        return (weights * self.values.nan_to_num()).sum(1) / total

    def per_unit(self) -> Tensor:
        """Weighted mean over folds (n_units_y,); NaN for a unit that has no score in any."""
        weights = torch.where(self.values.isnan(), 0.0, self.weights) * self.fold_weights[:, None]
        return (weights * self.values.nan_to_num()).sum(0) / weights.sum(0)


def rank_floor(eigenvalues: Tensor, noise: float = 0.0) -> float:
    """Below this, eigenvalues (in ascending order) are rounding: of their computation, or of the input (`noise`)."""
    computed = 8 * torch.finfo(eigenvalues.dtype).eps * len(eigenvalues) ** 0.5 * float(eigenvalues[-1])
    return max(computed, noise)


def procrustes(pair: Pair, score: str = "pearson") -> Scores:
    """The orthogonal map of Schönemann (1966), zero-padded where the layers differ in units.

    Directions that do not covary at all have no best rotation; they are mapped to zero, not to an arbitrary one.
    """
    pair = pair.compact()
    values = []
    for k in pair.folds:
        rotation = pair.once("rotation", k, _rotation)
        if score == "r2":
            scale = (rotation * pair.train_cross(k)).sum() / pair.x.train_squares(k).sum()
            rotation = rotation * scale.to(rotation.dtype)
        values.append(score_map(pair, k, rotation, score))
    return evenly(values, pair, score)


def _rotation(pair: Pair, k: int) -> Tensor:
    rotation = polar_factor(pair.train_cross(k), cross_noise(pair))
    # Its elements are at most 1 and its columns of length 1: applying it needs no more digits than the rows have.
    return rotation if pair.x.rows is None else rotation.to(pair.x.rows.dtype)


def cross_noise(pair: Pair) -> float:
    """The largest squared singular value that rounding of the input may have put into the cross scatter."""
    x, y = pair.x, pair.y
    # Rows of rounding errors e, seen from n_x directions of x: |x'e|^2 <= |x|^2 var(e) (sqrt n_x + sqrt n_y)^2 or so.
    directions = 2 * (x.n_units**0.5 + y.n_units**0.5) ** 2
    return directions * (x.largest * y.error + y.largest * x.error)


def polar_factor(cross: Tensor, noise: float = 0.0) -> Tensor:
    """The orthogonal polar factor of `cross`, from the Gram of the smaller side.

    Singular values whose square is below `noise`, or that are rounding of the largest, are taken for zero.
    """
    if cross.shape[0] < cross.shape[1]:
        return polar_factor(cross.T, noise).T
    values, vectors = eigh(product(cross.T, cross))
    if cross.dtype == torch.float32:  # for a chance level, where small directions are as random as the others
        kept = values > rank_floor(values, noise)
        return product(product(cross, vectors[:, kept] / values[kept].sqrt()), vectors[:, kept].T)
    # The Gram squares singular values, so that small ones drown in the rounding of large ones. Large ones are taken
    # from it, and the others from what they leave of `cross`.
    eps = torch.finfo(cross.dtype).eps
    kept = values > eps**0.5 * values[-1]
    left = product(cross, vectors[:, kept] / values[kept].sqrt())
    rotation = product(left, vectors[:, kept].T)
    rest = product(cross, vectors[:, ~kept])
    rest = rest - product(left, product(left.T, rest))
    noise = max(noise, (eps * len(cross)) ** 2 * float(values[-1]))
    if float(rest.square().sum()) <= noise:
        return rotation
    return rotation + product(polar_factor(rest, noise), vectors[:, ~kept].T)


def nuclear_norm(cross: Tensor) -> float:
    """Sum of singular values, from the Gram of the smaller side in float64."""
    cross = cross.T if cross.shape[0] < cross.shape[1] else cross
    return float(eigvalsh(product(cross.T, cross)).clamp_min(0).sqrt().sum())


def permutation(pair: Pair) -> Scores:
    """One-to-one matching of units that maximises the sum of training correlations (Li et al. 2015)."""
    return _by_matches(_at_units(pair, k, *assignment(train_correlations(pair, k)), 1.0) for k in pair.folds)


def soft_matching(pair: Pair) -> Scores:
    """Optimal transport between units on training correlations (Khosla & Williams 2024), each unit with equal mass."""
    if pair.x.n_units == pair.y.n_units:
        return permutation(pair)
    values = []
    for k in pair.folds:
        plan = transport(train_correlations(pair, k))
        i, j = plan.nonzero()
        values.append(_at_units(pair, k, torch.from_numpy(i), torch.from_numpy(j), torch.from_numpy(plan[i, j])))
    return _by_matches(values)


def semi_matching(pair: Pair) -> Scores:
    """Each unit of y takes the unit of x that correlates most with it in training (Li et al. 2015)."""
    values = []
    for k in pair.folds:
        i = train_correlations(pair, k).argmax(0)
        values.append(_at_units(pair, k, i, torch.arange(len(i), device=i.device), 1.0))
    return _by_matches(values)


def train_correlations(pair: Pair, k: int) -> Tensor:
    """Pearson correlations over the stimuli outside fold `k` (n_units_x, n_units_y); 0 for a unit that is silent."""
    return pair.once("train_correlations", k, _train_correlations)


def _train_correlations(pair: Pair, k: int) -> Tensor:
    return _correlations(pair.rough_cross(k), pair.x.train_squares(k), pair.y.train_squares(k))


def all_correlations(pair: Pair) -> Tensor:
    """Pearson correlations over all stimuli (n_units_x, n_units_y)."""
    x, y = (z.squares.sum(0) - z.sums.sum(0) ** 2 / sum(z.counts) for z in (pair.x, pair.y))
    return _correlations(pair.total, x, y)


def _correlations(cross: Tensor, x: Tensor, y: Tensor) -> Tensor:
    x, y = torch.where(x > 0, x.rsqrt(), 0.0), torch.where(y > 0, y.rsqrt(), 0.0)
    return (cross * x[:, None] * y).clamp(-1, 1)


def assignment(correlations: Tensor) -> tuple[Tensor, Tensor]:
    """Matched units of x and of y, as many as the smaller layer has."""
    i, j = linear_sum_assignment(correlations.cpu().numpy(), maximize=True)
    return torch.from_numpy(i), torch.from_numpy(j)


def transport(correlations: Tensor) -> np.ndarray:
    """The plan (n_units_x, n_units_y) of uniform margins that maximises the expected correlation: network simplex."""
    n_x, n_y = correlations.shape
    cost = 1 - correlations.cpu().numpy()
    masses = np.full(n_x, 1 / n_x), np.full(n_y, 1 / n_y)
    plan, log = ot.emd(*masses, cost, numItermax=10_000_000, log=True, center_dual=False, check_marginals=False)
    if log["warning"]:
        raise RuntimeError(f"the transport between {n_x} and {n_y} units did not converge: {log['warning']}")
    return plan


def _at_units(pair: Pair, k: int, i: Tensor, j: Tensor, mass) -> tuple[Tensor, Tensor]:
    """Held-out correlations of units i with units j, averaged by `mass` for each unit of y: (scores, weights)."""
    device = pair.x.sums.device
    i, j = i.to(device), j.to(device)
    x, y = pair.x.test_squares(k)[i], pair.y.test_squares(k)[j]
    defined = (x > 0) & (y > 0)
    correlation = torch.where(defined, pair.test_cross_at(k, i, j) * (x * y).rsqrt(), 0.0).clamp(-1, 1)
    mass = torch.as_tensor(mass, dtype=torch.float64, device=device).expand(len(j)) * defined
    weight = torch.zeros(pair.y.n_units, dtype=torch.float64, device=device).index_add_(0, j, mass)
    value = torch.zeros_like(weight).index_add_(0, j, mass * correlation) / weight
    return value, weight


def _by_matches(folds) -> Scores:
    values, weights = zip(*folds, strict=True)
    values = torch.stack(values)
    return Scores(values, torch.stack(weights), torch.ones_like(values[:, 0]))


def score_map(pair: Pair, k: int, weights: Tensor, score: str) -> Tensor:
    """Score of predictions x @ weights in fold `k`, from its rows where they are fewer than its units."""
    x, shift = pair.x, None
    if score == "r2":
        shift = (x.test_mean(k) - x.train_mean(k)) @ weights.double()
    if x.rows is not None and x.counts[k] < 2 * x.n_units:
        return score_predictions(pair, k, product(x.test_rows(k, weights.dtype), weights), shift, score)
    weights = weights.double()
    covariance = (weights * pair.test_cross(k)).sum(0)
    variance = (weights * product(x.test_scatter(k), weights)).sum(0)
    return _score(pair, k, covariance, variance, shift, score)


def score_predictions(pair: Pair, k: int, predicted: Tensor, shift: Tensor | None, score: str) -> Tensor:
    """Score of predictions (stimuli of the fold about their mean, n_units_y)."""
    covariance = (predicted * pair.y.test_rows(k, predicted.dtype)).sum(0, dtype=torch.float64)
    variance = predicted.square().sum(0, dtype=torch.float64)
    return _score(pair, k, covariance, variance, shift, score)


def _score(pair: Pair, k: int, covariance: Tensor, variance: Tensor, shift: Tensor | None, score: str) -> Tensor:
    y = pair.y
    squares = y.test_squares(k)
    if score == "r2":
        # About the training mean, which the intercept predicts; over the variance of all stimuli, so that the mean
        # over folds is the R2 of the out-of-fold predictions put together.
        offset = (y.test_mean(k) - y.train_mean(k) if y.held_out else 0.0) - shift
        residual = squares - 2 * covariance + variance + y.counts[k] * offset**2
        n = sum(y.counts)
        everything = y.squares.sum(0) - y.sums.sum(0) ** 2 / n
        return 1 - residual * n / (y.counts[k] * everything)
    product = torch.where(y.train_squares(k) > 0, squares * variance, 0.0)  # what was silent in training taught nothing
    correlation = torch.where(product > 0, covariance * product.rsqrt(), 0.0).clamp(-1, 1)
    return torch.where(squares > 0, correlation, torch.nan)


def evenly(values: list[Tensor], pair: Pair, score: str) -> Scores:
    """Every unit counts alike; in R2 a fold counts by its stimuli, so that it is R2 of all predictions together."""
    values = torch.stack(values)
    counts = [pair.x.counts[k] if score == "r2" else 1 for k in pair.folds]
    return Scores(values, torch.ones_like(values), torch.tensor(counts, dtype=torch.float64, device=values.device))
