"""Second moments by fold: the sufficient statistics of most metrics.

For stimuli cut into folds, the sums of the units and of their products, fold by fold, hold everything that linear maps,
rotations, unit matching, CKA, CCA and shape distances need, in sample and held out: training moments are the total
minus the fold. `of` takes them from activations in memory, `stream.Moments` collects them from batches.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from . import inputs
from .folds import fold_sizes, shuffled_images
from .lazy import cached_property
from .linear_algebra import product, products_by_fold


class Layer:
    """One layer's part in a comparison: sums by fold of its varying units, in units of `scale` around a pilot mean.

    Attributes
    ----------
    counts : list of int, stimuli of each fold
    sums, squares : (n_folds, n_units) float64; their totals over folds are of no account for a centred layer
    rows : (n_stimuli, n_units) or None where the activations were not kept
    scale : float, what the activations were divided by: second moments of any magnitude stay finite
    error : float, variance of what rounding of the input did to each value
    kept, n_all : which of all `n_all` units these are; the others are constant
    held_out : False where the one fold is both fitted and scored
    rotated : True where columns are directions of stimuli, no longer units
    """

    def __init__(self, counts, sums, squares, scale, error, kept, n_all, rows=None, products=None):
        self.counts, self.sums, self.squares, self.scale, self.error = counts, sums, squares, scale, error
        self.kept, self.n_all, self.rows = kept, n_all, rows
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.order, self.solutions, self.rotated = None, {}, False
        if products is not None:
            self.products = products

    @classmethod
    def of(cls, X: Tensor, counts: list[int], name: str = "X") -> "Layer":
        """From activations (n_stimuli, n_units), whose rows are in the order of the folds."""
        kept = inputs.varying((X != X[:1]).any(0), name)
        n_all = X.shape[1]
        X = X if len(kept) == n_all else X[:, kept]
        rows, magnitude = X.double(), 1.0
        peaks = X.abs().amax(0).double()
        if not 1e-100 < float(peaks.max()) < 1e100:
            # By the exponent of the largest value, so that neither 1e300 nor 1e-300 leaves the range when squared.
            magnitude = _power_of_two(X)
            rows = rows / magnitude
        rows = rows - rows.mean(0)
        spread = _power_of_two(rows)
        rows = rows.div_(spread).to(X.dtype)
        error = rounding(float(peaks.median()) / magnitude / spread, X.dtype)
        return cls._from_rows(rows, counts, magnitude * spread, error, kept, n_all)

    @classmethod
    def _from_rows(cls, rows, counts, scale, error, kept, n_all):
        folds = rows.split(counts)
        sums = torch.stack([fold.sum(0, dtype=torch.float64) for fold in folds])
        squares = torch.stack([fold.double().square().sum(0) for fold in folds])
        return cls(counts, sums, squares, scale, error, kept, n_all, rows=rows)

    @property
    def n_units(self) -> int:
        """Units that vary."""
        return self.sums.shape[1]

    @property
    def held_out(self) -> bool:
        """Whether fitting and scoring use different stimuli."""
        return len(self.counts) > 1

    @property
    def noise(self) -> float:
        """The largest eigenvalue that rounding of the input alone may have put into the scatter.

        A layer whose mean is 100 times its spread, in float32, has directions that are nothing but rounding.
        """
        return 4 * max(sum(self.counts), self.n_all) * self.error

    @cached_property
    def largest(self) -> float:
        """The largest eigenvalue of the scatter, to a few per cent."""
        vector = self.squares.sum(0).sqrt()
        for _ in range(12):
            vector = vector / vector.norm()
            if self.rows is None:
                vector = self.total @ vector
            else:
                vector = (self.rows.T @ (self.rows @ vector.to(self.rows.dtype))).double()
        return float(vector.norm())

    @cached_property
    def products(self) -> Tensor:
        """(n_folds, n_units, n_units) float64: sums of products of units."""
        return products_by_fold(self.exact_rows, self.exact_rows, self.counts)

    @cached_property
    def exact_rows(self) -> Tensor:
        """`rows` in float64: float32 products err by 1e-7 of the largest eigenvalue, the size of the small ones."""
        return self.rows.double()

    @cached_property
    def total(self) -> Tensor:
        """Scatter of all stimuli about their mean (n_units, n_units)."""
        return about_mean(self.sum_of_products, self.sums.sum(0), self.sums.sum(0), sum(self.counts))

    @cached_property
    def norms(self) -> Tensor:
        """Squared distance of each stimulus from the mean (n_stimuli,)."""
        return self.rows.double().square().sum(1)

    @cached_property
    def norm_sums(self) -> tuple[float, float]:
        """Sum of `norms`, and of their squares."""
        return float(self.norms.sum()), float(self.norms @ self.norms)

    @cached_property
    def scatter_square(self) -> float:
        """Sum of squares of the scatter's elements."""
        if self.rows is None or "products" in self.__dict__:
            return float(self.total.square().sum())
        return float(product(self.rows.T, self.rows).square().sum(dtype=torch.float64))

    def compact(self) -> "Layer":
        """This layer in as many columns as stimuli where it has more units: a rotation of it, hence the same to every
        metric that rotations leave alone. Costs n_units * n_stimuli^2 once, and saves n_units^3."""
        if self.rows is None or self.n_units <= len(self.rows):
            return self
        return self._compacted

    @cached_property
    def _compacted(self) -> "Layer":
        rows = torch.linalg.qr(self.rows.double().T, mode="r").R.T.contiguous().to(self.rows.dtype)
        unknown = torch.arange(rows.shape[1])
        compacted = Layer._from_rows(rows, self.counts, self.scale, self.error, unknown, self.n_all)
        compacted.rotated = True
        return compacted

    def reordered(self, order: Tensor) -> "Layer":
        """The same layer with its rows in another order that keeps every row in its fold: all sums stay."""
        other = object.__new__(Layer)
        other.__dict__.update(self.__dict__)
        for name in ("norms", "exact_rows"):  # what goes by stimuli, not by units
            other.__dict__.pop(name, None)
        other.rows, other.order = self.rows[order], order
        if "_compacted" in self.__dict__:
            other._compacted = self._compacted.reordered(order)
        return other

    def train_count(self, k: int) -> int:
        """Stimuli outside fold `k`; with one fold only, all of them."""
        return sum(self.counts) - self.counts[k] if self.held_out else self.counts[0]

    def train_sums(self, k: int) -> Tensor:
        """Sums over the stimuli outside fold `k` (n_units,)."""
        return self.sums.sum(0) - self.sums[k] if self.held_out else self.sums[0]

    def train_mean(self, k: int) -> Tensor:
        """Mean over the stimuli outside fold `k` (n_units,)."""
        return self.train_sums(k) / self.train_count(k)

    def test_mean(self, k: int) -> Tensor:
        """Mean over the stimuli of fold `k` (n_units,)."""
        return self.sums[k] / self.counts[k]

    def train_scatter(self, k: int) -> Tensor:
        """Scatter about their mean of the stimuli outside fold `k` (n_units, n_units)."""
        products = self.sum_of_products - self.products[k] if self.held_out else self.products[0]
        return about_mean(products, self.train_sums(k), self.train_sums(k), self.train_count(k))

    @cached_property
    def sum_of_products(self) -> Tensor:
        """`products` of all folds together."""
        return self.products.sum(0)

    def test_scatter(self, k: int) -> Tensor:
        """Scatter about their mean of the stimuli of fold `k`."""
        return about_mean(self.products[k], self.sums[k], self.sums[k], self.counts[k])

    def train_squares(self, k: int) -> Tensor:
        """Diagonal of `train_scatter` (n_units,); exactly 0 where a unit does not vary."""
        squares = self.squares.sum(0) - self.squares[k] if self.held_out else self.squares[0]
        return floored(squares - self.train_sums(k) ** 2 / self.train_count(k), self.squares.sum(0))

    def test_squares(self, k: int) -> Tensor:
        """Diagonal of `test_scatter` (n_units,); exactly 0 where a unit does not vary."""
        return floored(self.squares[k] - self.sums[k] ** 2 / self.counts[k], self.squares.sum(0))

    def test_rows(self, k: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Activations of fold `k` about their mean."""
        return self.rows[self.starts[k] : self.starts[k + 1]].to(dtype) - self.test_mean(k).to(dtype)

    def fold_order(self, k: int) -> Tensor | None:
        """Where the rows of fold `k` stood in the layer that this one reorders."""
        if self.order is None:
            return None
        return self.order[self.starts[k] : self.starts[k + 1]] - int(self.starts[k])


class Pair:
    """Two layers and the products of their units (n_folds, n_units_x, n_units_y), float64.

    `memo` keeps what several metrics ask for; a flipped pair takes it from its `origin`.
    """

    dtype = torch.float64

    def __init__(self, x: Layer, y: Layer, products: Tensor | None = None, origin: "Pair | None" = None):
        self.x, self.y, self.origin, self.memo = x, y, origin, {}
        if products is not None:
            self.products = products

    @cached_property
    def products(self) -> Tensor:
        """(n_folds, n_units_x, n_units_y) float64: sums of products of units of x and y."""
        if self.origin is not None:
            return self.origin.products.transpose(1, 2)
        return products_by_fold(self.x.exact_rows, self.y.exact_rows, self.x.counts)

    @cached_property
    def sum_of_products(self) -> Tensor:
        """`products` of all folds together."""
        return self.products.sum(0)

    @property
    def folds(self) -> range:
        """Folds on which this pair is scored."""
        return range(len(self.x.counts))

    @cached_property
    def total(self) -> Tensor:
        """Cross scatter of all stimuli (n_units_x, n_units_y)."""
        return about_mean(self.sum_of_products, self.x.sums.sum(0), self.y.sums.sum(0), sum(self.x.counts))

    @cached_property
    def norm_product(self) -> float:
        """Sum over stimuli of the product of the two layers' `norms`."""
        return float(self.x.norms @ self.y.norms)

    def once(self, what: str, k: int, compute: Callable[["Pair", int], Tensor]) -> Tensor:
        """`compute(self, k)`, a matrix (n_units_x, n_units_y) that the flipped pair has transposed; computed once."""
        if (what, k) not in self.memo:
            matrix = compute(self, k) if self.origin is None else self.origin.once(what, k, compute).T
            self.memo[what, k] = matrix
        return self.memo[what, k]

    def train_cross(self, k: int) -> Tensor:
        """Cross scatter of the stimuli outside fold `k` (n_units_x, n_units_y), in `dtype`."""
        return self.once("train_cross", k, lambda pair, k: pair._train_cross(k))

    def _train_cross(self, k: int) -> Tensor:
        products = self.sum_of_products - self.products[k] if self.x.held_out else self.products[0]
        return about_mean(products, self.x.train_sums(k), self.y.train_sums(k), self.x.train_count(k))

    @cached_property
    def rough_products(self) -> Tensor:
        """`products` in the precision of the activations, which is enough to match units; the exact ones if known."""
        rows = self.x.rows, self.y.rows
        if "products" in self.__dict__ or any(r is None or r.dtype != torch.float32 for r in rows):
            return self.products
        if self.origin is not None:
            return self.origin.rough_products.transpose(1, 2)
        return products_by_fold(*rows, self.x.counts)

    def rough_cross(self, k: int) -> Tensor:
        """`train_cross` from `rough_products`."""
        products = self.rough_products
        products = products.sum(0) - products[k] if self.x.held_out else products[0]
        return about_mean(products.double(), self.x.train_sums(k), self.y.train_sums(k), self.x.train_count(k))

    def test_cross(self, k: int) -> Tensor:
        """Cross scatter of the stimuli of fold `k`."""
        return about_mean(self.products[k], self.x.sums[k], self.y.sums[k], self.x.counts[k])

    def test_cross_at(self, k: int, i: Tensor, j: Tensor) -> Tensor:
        """`test_cross(k)[i, j]` from `rough_products`, without the rest of the matrix."""
        return self.rough_products[k][i, j] - self.x.sums[k][i] * self.y.sums[k][j] / self.x.counts[k]

    def flipped(self) -> "Pair":
        """The same from y to x."""
        return Pair(self.y, self.x, origin=self)

    def compact(self) -> "Pair":
        """With x in at most as many columns as stimuli."""
        return self if self.x.compact() is self.x else Pair(self.x.compact(), self.y)

    def compact_both(self) -> "Pair":
        """With both in at most as many columns as stimuli."""
        x, y = self.x.compact(), self.y.compact()
        return self if x is self.x and y is self.y else Pair(x, y)


def of(X, Y, folds: int | None = 5, positions: int = 1, shuffle: int | None = None) -> Pair:
    """Moments of two representations in memory.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y), row by row the same stimuli
    folds : None for in-sample values
    positions : rows of an image; they lie together and share a fold
    shuffle : seed of a random order of the images before they are cut into folds; None leaves the order

    Raises
    ------
    ValueError as `inputs.pair` and `fold_sizes`.
    """
    X, Y = inputs.pair(X, Y)
    counts = fold_sizes(len(X), folds, positions)
    if shuffle is not None:
        order = torch.from_numpy(shuffled_images(len(X), positions, inputs.whole(shuffle, "shuffle", 0)))
        X, Y = X[order.to(X.device)], Y[order.to(Y.device)]
    x, y = Layer.of(X, counts, "X"), Layer.of(Y, counts, "Y")
    inputs.warn_of_constant({"X": (x.n_units, x.n_all), "Y": (y.n_units, y.n_all)})
    return Pair(x, y)


def rounding(peak: float, dtype: torch.dtype) -> float:
    """Variance of errors of up to half a unit in the last place of values of the order of `peak`."""
    return (torch.finfo(dtype).eps / 2 * max(peak, 1.0)) ** 2 / 3


def about_mean(products: Tensor, sums_x: Tensor, sums_y: Tensor, count: int) -> Tensor:
    """Scatter about the mean, of sums of products and sums about another point."""
    return torch.addr(products, sums_x, sums_y, alpha=-1 / count)


def floored(squares: Tensor, total: Tensor) -> Tensor:
    """Rounding leaves a unit that is constant in a part a variance of about 1e-16 of the whole: that is none."""
    return torch.where(squares > 1e-12 * total, squares, torch.zeros_like(squares))


def _power_of_two(values: Tensor) -> float:
    """The power of two just above the largest magnitude; 1 where all values are 0."""
    largest = float(values.abs().max())
    return float(2.0 ** min(np.frexp(largest)[1], 1023)) if largest > 0 else 1.0
