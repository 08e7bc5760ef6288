"""Second moments of two networks' layers from a stream of batches: memory does not grow with the number of stimuli."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import inputs
from .folds import fold_sizes, shuffled_images
from .linear_algebra import one_torch_thread, product
from .moments import Layer, Pair, rounding
from .rows import Rows
from .shuffled import ShuffledPair


class Moments:
    """Second moments by fold of named layers of two networks, in float64 around a pilot mean.

    The pilot mean is that of the first batch: ReLU layers have means many times their spread.

    Parameters
    ----------
    n_stimuli : rows that will come in all
    folds, positions, shuffle : as in `moments.of`; a stimulus' fold follows from its row number, whenever it comes
    nulls : shuffled pairings to collect too, each for one fold in turn; a null shuffles the images of each batch within
        their fold, so use batches of a hundred images or more
    seed : of those shuffles

    Memory is 8 bytes times (folds + 2 nulls) * n_units_a * n_units_b, and folds * n_units^2 for each layer; with
    `shuffle` also 4 bytes a stimulus.

    Raises
    ------
    ValueError for folds that do not fit.
    """

    def __init__(self, n_stimuli, folds=5, positions=1, shuffle=None, nulls=0, seed=0):
        self.n_stimuli = inputs.whole(n_stimuli, "n_stimuli", 3)
        self.sizes = fold_sizes(self.n_stimuli, folds, positions)
        self.positions, self.seed = positions, inputs.whole(seed, "seed", 0)
        self.nulls = inputs.whole(nulls, "nulls", 0)
        self.shuffle, self.fold_of, self.seen = shuffle, None, Rows()
        if shuffle is not None:
            order = shuffled_images(self.n_stimuli, positions, inputs.whole(shuffle, "shuffle", 0))
            self.fold_of = np.empty(self.n_stimuli, np.int32)
            self.fold_of[order] = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self.a = self.b = None

    def _folds(self, rows: slice) -> np.ndarray:
        """The fold of each of some rows: without a shuffle, from their numbers alone, however many there are in all."""
        if self.fold_of is not None:
            return self.fold_of[rows]
        return np.searchsorted(np.cumsum(self.sizes), np.arange(rows.start, rows.stop), side="right")

    @one_torch_thread()
    def update(self, batch_a: Mapping, batch_b: Mapping, start: int | None = None) -> None:
        """Add stimuli.

        Parameters
        ----------
        batch_a, batch_b : layer -> (n_rows, n_units), row i of both the same stimulus
        start : number of the first row; by default the one after the last that came

        Raises
        ------
        ValueError for rows that do not fit together, came before or exceed `n_stimuli`, or layers that changed; the
        moments are then as before.
        """
        a, b = _checked(batch_a, "a"), _checked(batch_b, "b")
        n_rows = len(next(iter(a.values())))
        if n_rows != len(next(iter(b.values()))):
            raise ValueError(
                f"the batch has {n_rows} rows of a and other of b: row i of both must be the same stimulus"
            )
        start = self.seen.end if start is None else inputs.whole(start, "start", 0)
        rows = slice(start, start + n_rows)
        if rows.stop > self.n_stimuli or self.seen.shared(Rows.of(rows)):
            raise ValueError(
                f"rows {start} to {rows.stop} came before or exceed n_stimuli={self.n_stimuli}: each counts once"
            )
        for side, batch in ((self.a, a), (self.b, b)):
            if side is not None:
                side.check(batch)
        if self.a is None:
            self.a, self.b = _Side(a, len(self.sizes)), _Side(b, len(self.sizes))
            self._allocate()
        scaled_a, scaled_b = self.a.scaled(a), self.b.scaled(b)
        folds = self._folds(rows)
        for k in np.unique(folds).tolist():
            chosen = torch.from_numpy((folds == k).nonzero()[0]).to(scaled_a.device)
            rows_a, rows_b = scaled_a[chosen], scaled_b[chosen]
            self.a.add(k, rows_a)
            self.b.add(k, rows_b)
            self.cross[k] += product(rows_a.T, rows_b)
            self._add_nulls(k, rows_a, rows_b, start)
        self.seen = self.seen | Rows.of(rows)

    def _allocate(self) -> None:
        shape, where = (self.a.n_columns, self.b.n_columns), {"dtype": torch.float64, "device": self.a.device}
        self.cross = torch.zeros(len(self.sizes), *shape, **where)
        self.null_train, self.null_test = (torch.zeros(self.nulls, *shape, **where) for _ in range(2))

    def _null_fold(self, i: int) -> int:
        return i % len(self.sizes)

    def _add_nulls(self, k: int, rows_a: Tensor, rows_b: Tensor, start: int) -> None:
        rows_a, rows_b = rows_a.float(), rows_b.float()  # a chance level needs no more
        for i in range(self.nulls):
            seed = int(np.random.SeedSequence((self.seed, i, start, k)).generate_state(1)[0])
            order = torch.from_numpy(shuffled_images(len(rows_b), self.positions, seed)).to(rows_b.device)
            held_out = len(self.sizes) > 1 and k == self._null_fold(i)
            (self.null_test if held_out else self.null_train)[i] += product(rows_a.T, rows_b[order])

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both: two parts of a data set, collected apart, give those of the whole.

        Raises
        ------
        ValueError where settings or layers differ, or a stimulus is in both.
        """
        mine, theirs = ((m.n_stimuli, m.positions, m.nulls, m.seed, m.sizes, m.shuffle) for m in (self, other))
        if mine != theirs:
            raise ValueError(
                "the two parts differ in their number of stimuli, positions, folds, shuffle, nulls or seed"
            )
        if shared := self.seen.shared(other.seen):
            raise ValueError(f"{shared} stimuli are in both parts: each counts once")
        if self.a is None or other.a is None:
            return other if self.a is None else self
        merged = object.__new__(Moments)
        merged.__dict__.update(self.__dict__, seen=self.seen | other.seen)
        merged.a, merged.b = self.a.merged(other.a), self.b.merged(other.b)
        of_a, of_b = self.a.moved_from(other.a), self.b.moved_from(other.b)

        def moved(products, counts, sums_a, sums_b):
            sums_a, sums_b = of_a.columns(sums_a), of_b.columns(sums_b) + counts * of_b.shift
            return of_a.rows(of_b.columns(products)) + sums_a[:, None] * of_b.shift + of_a.shift[:, None] * sums_b

        sides = other.a.sums, other.b.sums
        merged.cross = self.cross + torch.stack(
            [moved(p, c, x, y) for p, c, x, y in zip(other.cross, other.a.counts, *sides, strict=True)]
        )
        merged.null_train, merged.null_test = self.null_train.clone(), self.null_test.clone()
        for i in range(self.nulls):
            k = self._null_fold(i) if len(self.sizes) > 1 else -1
            for target, source, folds in (
                (merged.null_train, other.null_train, [f for f in range(len(self.sizes)) if f != k]),
                (merged.null_test, other.null_test, [k] if k >= 0 else []),
            ):
                counts = float(sum(other.a.counts[f] for f in folds))
                target[i] += moved(source[i], counts, *(side[folds].sum(0) for side in sides))
        return merged

    def pair(self, layer_a: str, layer_b: str, x: Layer | None = None, y: Layer | None = None) -> Pair:
        """The moments of two layers; `x` and `y` are what `layer` gave for each, to share what belongs to one alone.

        Raises
        ------
        ValueError while stimuli are missing, or for a layer that did not come or does not vary.
        """
        if missing := self.n_stimuli - len(self.seen):
            raise ValueError(f"{missing} of {self.n_stimuli} stimuli did not come yet")
        x, y = x or self.a.layer(layer_a), y or self.b.layer(layer_b)
        products, corner = self._block(self.cross, layer_a, layer_b, x, y)
        pair = Pair(x, y, products)
        pair.norm_product = self._norm_product(layer_a, layer_b, corner)
        return pair

    def shuffled(self, pair: Pair, layer_a: str, layer_b: str, i: int) -> ShuffledPair:
        """The `i`-th null of two layers, given their `pair`."""
        (train, one), (test, other) = (
            self._block(part[i : i + 1], layer_a, layer_b, pair.x, pair.y) for part in (self.null_train, self.null_test)
        )
        shuffled = ShuffledPair(pair.x, pair.y, self._null_fold(i), train[0], test[0])
        shuffled.norm_product = self._norm_product(layer_a, layer_b, one + other)
        return shuffled

    def _block(self, cross: Tensor, layer_a: str, layer_b: str, x: Layer, y: Layer) -> tuple[Tensor, Tensor]:
        """Products of the varying units of two layers, and all sums with the columns of squared norms."""
        block = cross[:, self.a.slices[layer_a], self.b.slices[layer_b]]
        return block[:, x.kept][:, :, y.kept], block

    def _norm_product(self, layer_a: str, layer_b: str, block: Tensor) -> float:
        (u, t), (v, s) = self.a.centring(layer_a), self.b.centring(layer_b)
        sums_a, sums_b = self.a.sums[:, self.a.slices[layer_a]].sum(0), self.b.sums[:, self.b.slices[layer_b]].sum(0)
        return float(u @ block.sum(0) @ v + (u @ sums_a) * s + t * (v @ sums_b) + self.n_stimuli * t * s)


class _Move(NamedTuple):
    """Columns z become `factors` z + `shift`, and a squared norm also the product of z with a vector of its layer.

    Written out as a matrix this would cost the cube of the number of units at every addition of two parts.
    """

    factors: Tensor
    shift: Tensor
    norms: dict[str, tuple[slice, Tensor]]  # layer -> its columns, the vector

    def of(self, name: str) -> "_Move":
        """The same for the columns of one layer alone."""
        columns, vector = self.norms[name]
        alone = slice(0, columns.stop - columns.start)
        return _Move(self.factors[columns], self.shift[columns], {name: (alone, vector)})

    def columns(self, values: Tensor) -> Tensor:
        """The linear part, of the last dimension."""
        moved = values * self.factors
        for columns, vector in self.norms.values():
            moved[..., columns.stop - 1] += values[..., columns.start : columns.stop - 1] @ vector
        return moved

    def rows(self, values: Tensor) -> Tensor:
        """The linear part, of the last dimension but one."""
        return self.columns(values.mT).mT


class _Side:
    """One network's sums. Each layer has one column more than units, for the squared norm of the stimulus."""

    def __init__(self, batch: dict[str, Tensor], n_folds: int):
        self.sizes = {name: rows.shape[1] for name, rows in batch.items()}
        self.device = next(iter(batch.values())).device
        self.dtype = {name: rows.dtype for name, rows in batch.items()}
        ends = np.cumsum([n + 1 for n in self.sizes.values()])
        self.slices = {
            name: slice(int(e) - n - 1, int(e)) for (name, n), e in zip(self.sizes.items(), ends, strict=True)
        }
        self.n_columns = int(ends[-1])
        self.first = {name: rows[0].clone() for name, rows in batch.items()}
        self.varies = {name: torch.zeros(n, dtype=torch.bool, device=self.device) for name, n in self.sizes.items()}
        self.peaks = {name: torch.zeros(n, dtype=torch.float64, device=self.device) for name, n in self.sizes.items()}
        self.pilot, self.scale = {}, {}
        for name, rows in batch.items():
            # Half of it twice: the sum of two values of 1e308 is out of range.
            self.pilot[name] = (rows.double() / len(rows)).sum(0)
            spread = float((rows.double() / 2 - self.pilot[name] / 2).abs().max())
            self.scale[name] = float(2.0 ** min(np.frexp(spread)[1] + 1, 1023)) if spread > 0 else 1.0
        self.counts = [0] * n_folds
        where = {"dtype": torch.float64, "device": self.device}
        self.sums = torch.zeros(n_folds, self.n_columns, **where)
        self.within = {name: torch.zeros(n_folds, n + 1, n + 1, **where) for name, n in self.sizes.items()}

    def check(self, batch: dict[str, Tensor]) -> None:
        """Refuse a batch whose layers or units differ from those of the first."""
        sizes = {name: rows.shape[1] for name, rows in batch.items()}
        if sizes != self.sizes:
            raise ValueError(f"the batch has layers {sizes}, those before had {self.sizes}")

    def scaled(self, batch: dict[str, Tensor]) -> Tensor:
        """(n_rows, n_columns) float64, and what must be known of the rows beyond their moments."""
        parts = []
        for name in self.sizes:  # the batch may name its layers in another order
            rows = batch[name]
            self.varies[name] |= (rows != self.first[name]).any(0)
            self.peaks[name] = torch.maximum(self.peaks[name], rows.abs().amax(0).double() / self.scale[name])
            rows = (rows.double() - self.pilot[name]) / self.scale[name]
            parts += [rows, rows.square().sum(1, keepdim=True)]
        return torch.cat(parts, 1)

    def add(self, k: int, rows: Tensor) -> None:
        """Add scaled rows to the sums of fold `k`."""
        self.counts[k] += len(rows)
        self.sums[k] += rows.sum(0)
        for name, columns in self.slices.items():
            self.within[name][k] += product(rows[:, columns].T, rows[:, columns])

    def moved_from(self, other: "_Side") -> "_Move":
        """How columns of `other` become columns around the pilot of this side.

        With z = r z' + d, the squared norm is r^2 |z'|^2 + 2 r d.z' + |d|^2: linear in z' and its squared norm.
        """
        self.check({name: torch.empty(0, n) for name, n in other.sizes.items()})
        if list(self.sizes) != list(other.sizes):
            raise ValueError("the two parts name the same layers in another order: collect them in one order")
        where = {"dtype": torch.float64, "device": self.device}
        move = _Move(torch.zeros(self.n_columns, **where), torch.zeros(self.n_columns, **where), {})
        for name, columns in self.slices.items():
            ratio = other.scale[name] / self.scale[name]
            shift = (other.pilot[name] - self.pilot[name]) / self.scale[name]
            move.factors[columns], move.factors[columns.stop - 1] = ratio, ratio**2
            move.norms[name] = columns, 2 * ratio * shift
            move.shift[columns] = torch.cat([shift, (shift @ shift)[None]])
        return move

    def merged(self, other: "_Side") -> "_Side":
        """The sums of both, around the pilot of this side."""
        move = self.moved_from(other)
        merged = object.__new__(_Side)
        merged.__dict__.update(self.__dict__)
        counts = torch.tensor(other.counts, dtype=torch.float64, device=self.device)
        merged.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        merged.sums = self.sums + move.columns(other.sums) + counts[:, None] * move.shift
        merged.within, merged.varies, merged.peaks = {}, {}, {}
        for name, columns in self.slices.items():
            alone, shift = move.of(name), move.shift[columns]
            moved = alone.rows(alone.columns(other.within[name]))
            sums = alone.columns(other.sums[:, columns])
            moved += sums[:, :, None] * shift + shift[:, None] * (sums + counts[:, None] * shift)[:, None, :]
            merged.within[name] = self.within[name] + moved
            differs = self.first[name] != other.first[name]
            merged.varies[name] = self.varies[name] | other.varies[name] | differs
            ratio = other.scale[name] / self.scale[name]
            merged.peaks[name] = torch.maximum(self.peaks[name], other.peaks[name] * ratio)
        return merged

    def centring(self, name: str) -> tuple[Tensor, Tensor]:
        """(u, t): the squared norm about the mean is u z + t, z being a stimulus' columns."""
        mean = self.sums[:, self.slices[name]].sum(0)[:-1] / sum(self.counts)
        return torch.cat([-2 * mean, torch.ones_like(mean[:1])]), mean @ mean

    def layer(self, name: str) -> Layer:
        """One layer's moments as `moments.Layer`."""
        if name not in self.slices:
            raise ValueError(f"layer {name!r} did not come; there are {', '.join(self.slices)}")
        kept = inputs.varying(self.varies[name], f"layer {name}")
        products = self.within[name][:, kept][:, :, kept]
        squares = products.diagonal(dim1=1, dim2=2)
        error = rounding(float(self.peaks[name][kept].median()), self.dtype[name])
        sums = self.sums[:, self.slices[name]][:, kept]
        layer = Layer(self.counts, sums, squares, self.scale[name], error, kept, self.sizes[name], products=products)
        u, t = self.centring(name)
        block, all_sums = self.within[name].sum(0), self.sums[:, self.slices[name]].sum(0)
        trace = float(u @ all_sums + sum(self.counts) * t)
        layer.norm_sums = trace, float(u @ block @ u + 2 * t * (u @ all_sums) + sum(self.counts) * t * t)
        return layer


def _checked(batch: Mapping, side: str) -> dict[str, Tensor]:
    """Layers of a batch as tensors of one device and equally many rows; a batch may have fewer than three."""
    if not batch:
        raise ValueError(f"the batch of {side} has no layers")
    checked = {str(name): inputs.representation(rows, f"{side}: {name}", least=1) for name, rows in batch.items()}
    if len({len(rows) for rows in checked.values()}) != 1:
        counts = ", ".join(f"{name}: {len(rows)}" for name, rows in checked.items())
        raise ValueError(f"layers of {side} differ in stimuli ({counts}): row i must be the same stimulus in all")
    return checked
