"""Where a comparison takes pairs of layers from: activations in memory, or two networks that are read once."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from . import folds, inputs, kernels, representations, ridge
from .moments import Layer, Pair
from .shuffled import ShuffledPair
from .stream import Moments

ROTATED = {"linear", "procrustes", "cka", "cka_debiased", "shape_cosine", "cca", "svcca"}
KERNELS = {"rsa", "mutual_knn", "cknna"}
BY_ROUGH_PRODUCTS = {"permutation", "soft_matching", "semi_matching", "cka", "cka_debiased"} | KERNELS
CANONICAL = {"cca", "svcca", "pwcca"}


class Activations:
    """Pairs of layers from activations in memory."""

    def __init__(self, a, b, layers, plan, images):
        if not isinstance(a, Mapping) or not isinstance(b, Mapping):
            raise ValueError(
                "a and b must both be networks, or both map layers to activations: representations.extract gives those"
            )
        if images is not None:
            raise ValueError("images go with two networks; activations are of images already")
        raw = [_chosen(side, layers, name) for side, name in ((a, "a"), (b, "b"))]
        first = next(iter(raw[0].items()))
        raw = [
            {name: _checked(rows, name, side, first) for name, rows in layers.items()}
            for layers, side in zip(raw, "ab", strict=True)
        ]
        n = len(next(iter(raw[0].values())))
        self.plan, self.counts = plan, folds.fold_sizes(n, plan["folds"], plan["positions"])
        if plan["shuffle"] is not None:
            seed = inputs.whole(plan["shuffle"], "shuffle", 0)
            order = torch.from_numpy(folds.shuffled_images(n, plan["positions"], seed))
            raw = [{name: rows[order.to(rows.device)] for name, rows in layers.items()} for layers in raw]
        self.raw, self.geometries = raw, {}
        self.sides = [
            {name: Layer.of(rows, self.counts, f"layer {name} of {side}") for name, rows in layers.items()}
            for layers, side in zip(raw, "ab", strict=True)
        ]
        _warn(self.sides)
        self.layers_a, self.layers_b = (list(layers) for layers in raw)
        self.device = next(iter(raw[0].values())).device

    def content(self):
        """What a file must have been made from, for a hash."""
        for side in self.raw:
            for name, rows in side.items():
                yield f"{name} {tuple(rows.shape)} {rows.dtype}".encode()
                yield np.ascontiguousarray(rows.cpu().numpy())

    def prepare(self, each, alpha: float | None) -> None:
        """What belongs to one layer alone, once, before two threads ask for it at the same time."""

        def work(layer: Layer) -> None:
            layer = layer.compact() if set(self.plan["metrics"]) & ROTATED else layer
            if "linear" in self.plan["metrics"] and alpha is not None:
                ridge.prepare(layer, alpha)
            # Read, so that they are known before several threads ask.
            if set(self.plan["metrics"]) & {"cka", "cka_debiased"}:
                _ = layer.scatter_square
            if set(self.plan["metrics"]) & CANONICAL:
                _ = layer.total

        list(each(work, [layer for side in self.sides for layer in side.values()]))
        names = [(side, name) for side, layers in enumerate(self.raw) for name in layers]
        for metric in set(self.plan["metrics"]) & set(KERNELS):
            list(each(lambda one, m=metric: self._geometry(m, *one), names))

    def pair(self, la: str, lb: str) -> Pair:
        """The moments of two layers."""
        pair = Pair(self.sides[0][la], self.sides[1][lb])
        if set(self.plan["metrics"]) - BY_ROUGH_PRODUCTS:
            _ = pair.products  # once for all metrics, exact where one of them needs it
        return pair

    def shuffles(self, lb: str, nulls: int) -> list[tuple[int, Tensor, Layer]]:
        """(fold, order, layer of b in that order) for each null."""
        layer, found = self.sides[1][lb], []
        for i in range(nulls):
            rng = np.random.default_rng((self.plan["seed"], i))
            parts = [
                start + folds.shuffled_images(count, self.plan["positions"], int(rng.integers(2**31)))
                for start, count in zip(layer.starts, layer.counts, strict=False)
            ]
            order = torch.from_numpy(np.concatenate(parts)).to(layer.rows.device)
            found.append((i % len(self.counts), order, layer.reordered(order)))
        return found

    def shuffled(self, pair: Pair, la: str, lb: str, shuffle) -> ShuffledPair:
        """The same two layers, their stimuli no longer belonging together."""
        return ShuffledPair(pair.x, shuffle[2], shuffle[0])

    def of_activations(self, metric: str, la: str, lb: str, shuffle=None, flipped: bool = False) -> float:
        """A metric of neighbours or distances, also for shuffled stimuli, or from b to a."""
        x = self._geometry(metric, 0, la)
        if shuffle is None:
            y = self._geometry(metric, 1, lb)
        else:
            y = kernels.geometry(metric, self.raw[1][lb][shuffle[1]], f"layer {lb} of b")
        return kernels.of_geometries(metric, *((y, x) if flipped else (x, y)))

    def _geometry(self, metric: str, side: int, layer: str):
        if (metric, side, layer) not in self.geometries:
            made = kernels.geometry(metric, self.raw[side][layer], f"layer {layer} of {'ab'[side]}")
            self.geometries[metric, side, layer] = made
        return self.geometries[metric, side, layer]

    def resampled_rows(self, la: str, lb: str, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images drawn with replacement within each fold, `n` times."""
        X, Y, p = self.raw[0][la], self.raw[1][lb], self.plan["positions"]
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        for i in range(n):
            rng = np.random.default_rng((self.plan["seed"], 1, i))
            images = [
                s + p * rng.integers(0, count // p, count // p) for s, count in zip(starts, self.counts, strict=True)
            ]
            order = torch.from_numpy((np.concatenate(images)[:, None] + np.arange(p)).ravel()).to(X.device)
            yield X[order], Y[order]

    def resampled(self, la: str, lb: str, n: int) -> Iterator[Pair]:
        """The moments of `resampled_rows`."""
        for X, Y in self.resampled_rows(la, lb, n):
            yield Pair(Layer.of(X, self.counts, la), Layer.of(Y, self.counts, lb))


class Collected:
    """Pairs of layers of two networks from moments that were collected, here or on many machines."""

    def __init__(self, moments: Moments, plan: dict):
        self.moments, self.plan = moments, plan
        self.layers_a, self.layers_b = list(moments.a.slices), list(moments.b.slices)
        self.device = moments.a.device
        self.sides = [{name: side.layer(name) for name in side.slices} for side in (moments.a, moments.b)]
        _warn(self.sides, stacklevel=6)

    def prepare(self, each, alpha: float | None) -> None:
        """Nothing: a stream collects what belongs to one layer while it reads."""
        layers = [layer for side in self.sides for layer in side.values()]
        if "linear" in self.plan["metrics"] and alpha is not None:
            list(each(lambda layer: ridge.prepare(layer, alpha), layers))

    def pair(self, la: str, lb: str) -> Pair:
        """The moments of two layers."""
        return self.moments.pair(la, lb, self.sides[0][la], self.sides[1][lb])

    def shuffles(self, lb: str, nulls: int) -> range:
        """Numbers of the shuffles that were collected."""
        return range(nulls)

    def shuffled(self, pair: Pair, la: str, lb: str, i: int) -> ShuffledPair:
        """The same two layers, their stimuli no longer belonging together."""
        return self.moments.shuffled(pair, la, lb, i)


class Stream(Collected):
    """Pairs of layers of two networks from one pass over the images."""

    def __init__(self, a, b, images, layers, plan, reading, progress):
        if images is None:
            raise ValueError("two networks need images=, a tensor (n_images, 3, height, width)")
        self.networks, self.images, self.reading = (a, b), images, reading
        positions = reading["n_positions"] if reading["spatial"] == "positions" else 1
        seed, n_images, size = plan["seed"], len(images), reading["batch_size"]
        moments = Moments(n_images * positions, plan["folds"], positions, plan["shuffle"], plan["nulls"], seed)
        both = of_both((a, b), images, {"layers": layers, "seed": seed, **reading})
        for first, rows_a, rows_b in tqdm(
            both, total=-(-n_images // size), disable=not progress, desc="batches of images"
        ):
            moments.update(rows_a, rows_b, first)
        super().__init__(moments, plan)

    def content(self):
        """What a file must have been made from, for a hash."""
        for network in self.networks:
            for name, tensor in network.state_dict().items():
                yield name.encode()
                yield np.ascontiguousarray(tensor.cpu().numpy())
        yield str(self.reading).encode()
        yield np.ascontiguousarray(self.images.cpu().numpy())


def of_both(pair: tuple, images: Tensor, reading: dict, first: int = 0) -> Iterator[tuple[int, dict, dict]]:
    """(number of the first stimulus, layer -> rows of a, layer -> rows of b), a batch of images at a time.

    Parameters
    ----------
    pair : two networks
    reading : as for `representations.batches`, with `batch_size`
    first : number of images[0], where `images` are a part of more
    """
    positions = reading["n_positions"] if reading["spatial"] == "positions" else 1
    read = {"as_numpy": False, "first": first, **reading}
    both = zip(*(representations.batches(network, images, **read) for network in pair), strict=True)
    for (start, rows_a), (_, rows_b) in both:
        n = min(reading["batch_size"], len(images) - start)
        yield (first + start) * positions, *(_repeated(rows, n, positions) for rows in (rows_a, rows_b))


def _repeated(rows: dict[str, Tensor], n_images: int, positions: int) -> dict[str, Tensor]:
    """A layer without places says the same of each place."""
    return {
        name: values.repeat_interleave(positions, 0) if len(values) == n_images and positions > 1 else values
        for name, values in rows.items()
    }


def _warn(sides: list[dict[str, Layer]], stacklevel: int = 5) -> None:
    inputs.warn_of_constant(
        {
            f"layer {n} of {side}": (x.n_units, x.n_all)
            for layers, side in zip(sides, "ab", strict=True)
            for n, x in layers.items()
        },
        stacklevel=stacklevel,
    )


def _chosen(side: Mapping, layers, name: str) -> dict:
    missing = [layer for layer in layers or [] if layer not in side]
    if missing or not side:
        raise ValueError(
            f"{name} has no layer {', '.join(map(repr, missing))}: it has {', '.join(map(str, side)) or 'none'}"
        )
    if layers is not None and len(set(layers)) != len(layers):
        raise ValueError(f"layers={list(layers)}: name each once")
    chosen = {layer: side[layer] for layer in (side if layers is None else layers)}
    names = [str(layer) for layer in chosen]
    if len(set(names)) != len(names):
        raise ValueError(f"{name} has two layers of one name: {', '.join(names)}")
    return dict(zip(names, chosen.values(), strict=True))


def _checked(rows, name: str, side: str, first) -> Tensor:
    tensor = inputs.representation(rows, f"layer {name} of {side}")
    n = len(first[1])
    if len(tensor) != n:
        raise ValueError(
            f"layer {name} of {side} has {len(tensor)} stimuli and layer {first[0]} of a has {n}: row i of all must be "
            "the same stimulus"
        )
    return tensor
