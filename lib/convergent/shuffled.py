"""Pairs of layers whose stimuli were shuffled: what chance gives."""

import torch
from torch import Tensor

from .lazy import cached_property
from .linear_algebra import product
from .moments import Pair, about_mean


class ShuffledPair(Pair):
    """A pair whose stimuli no longer belong together, to be scored on one fold only: what chance gives.

    In single precision: a chance level is known to its second digit. `train` and `test` are sums of products
    (n_units_x, n_units_y) where they were collected from a stream.
    """

    dtype = torch.float32

    def __init__(self, x, y, fold: int, train: Tensor | None = None, test: Tensor | None = None, origin=None):
        super().__init__(x, y, origin=origin)
        self.fold, self._test = fold, test
        if train is not None:
            self._train = train

    @property
    def folds(self) -> range:
        """The one fold on which this pair is scored."""
        return range(self.fold, self.fold + 1)

    @cached_property
    def _train(self) -> Tensor:
        if self.origin is not None:
            return self.origin._train.T
        start, stop = self.x.starts[self.fold], self.x.starts[self.fold + 1]
        a, b = self.x.rows.float(), self.y.rows.float()
        if not self.x.held_out:
            return product(a.T, b)
        return product(a[:start].T, b[:start]) + product(a[stop:].T, b[stop:])

    def _train_cross(self, k: int) -> Tensor:
        sums = self.x.train_sums(k).float(), self.y.train_sums(k).float()
        return about_mean(self._train.float(), *sums, self.x.train_count(k))

    def rough_cross(self, k: int) -> Tensor:
        """`train_cross`: single precision is all there is."""
        return self.train_cross(k).double()

    @cached_property
    def total(self) -> Tensor:
        """Cross scatter of all stimuli (n_units_x, n_units_y)."""
        products = self._train.double()
        if self.x.held_out:
            start, stop = self.x.starts[self.fold], self.x.starts[self.fold + 1]
            streamed = self._test is not None
            products = products + (
                self._test if streamed else product(self.x.exact_rows[start:stop].T, self.y.exact_rows[start:stop])
            )
        return about_mean(products, self.x.sums.sum(0), self.y.sums.sum(0), sum(self.x.counts))

    def test_cross(self, k: int) -> Tensor:
        """Cross scatter of the stimuli of fold `k`, in single precision."""
        return self.once("test_cross", k, lambda pair, k: pair._test_cross(k))

    def _test_cross(self, k: int) -> Tensor:
        if not self.x.held_out:
            return self._train_cross(k)
        if self._test is not None:
            return about_mean(self._test, self.x.sums[k], self.y.sums[k], self.x.counts[k]).float()
        return product(self.x.test_rows(k, self.dtype).T, self.y.test_rows(k, self.dtype))

    def test_cross_at(self, k: int, i: Tensor, j: Tensor) -> Tensor:
        """`test_cross(k)[i, j]` in float64."""
        return self.test_cross(k)[i, j].double()

    def flipped(self) -> "ShuffledPair":
        """The same from y to x."""
        return ShuffledPair(self.y, self.x, self.fold, test=None if self._test is None else self._test.T, origin=self)

    def compact(self) -> "ShuffledPair":
        """With x in at most as many columns as stimuli."""
        return self if self.x.compact() is self.x else ShuffledPair(self.x.compact(), self.y, self.fold)

    def compact_both(self) -> "ShuffledPair":
        """With both in at most as many columns as stimuli."""
        x, y = self.x.compact(), self.y.compact()
        return self if x is self.x and y is self.y else ShuffledPair(x, y, self.fold)
