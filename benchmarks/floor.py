"""What our comparisons cannot do without: their matrix products, factorisations and solvers, and nothing else.

These calls, on matrices of the shapes, precision and number that a comparison needs, with the libraries that ours uses
and as many at once: pairs of layers run in threads, each with one thread inside. All that stands between the calls
(centring, scores, tables) has been done before the clock starts, and costs nothing here.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import ot
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from convergent.linear_algebra import eigh, eigvalsh, one_thread, product, solve

Calls = list[tuple[Callable, tuple]]


class Layer:
    """A layer's centred rows by fold and its products, in float64 as in the library, where float32 errs too much."""

    def __init__(self, X: np.ndarray, folds: int | None):
        self.dtype = torch.from_numpy(X).dtype
        rows = torch.from_numpy(X).double()
        self.parts = (rows - rows.mean(0)).tensor_split(folds or 1)
        self.products = [_product(part, part) for part in self.parts]
        self.spread = [part.square().sum(0) for part in self.parts]

    @property
    def n_units(self) -> int:
        return self.parts[0].shape[1]


def _product(x: Tensor, y: Tensor) -> Tensor:
    return product(x.T, y)


def _training(parts: list[Tensor], k: int) -> Tensor:
    """Sum over the other folds; of the only one, itself."""
    return parts[0] if len(parts) == 1 else sum(part for n, part in enumerate(parts) if n != k)


def _by_stimuli(layer: Layer, k: int) -> bool:
    """Whether a ridge map is cheaper to solve for the stimuli of the fold than for the targets."""
    return len(layer.parts[k]) < 2 * layer.n_units


def _of_layer(layer: Layer, metrics, alpha: float) -> Calls:
    """What belongs to one layer: its second moments, and the factorisations that serve all of its targets."""
    if not {"linear", "cka", "cka_debiased"} & set(metrics):
        return []
    calls = [(_product, (part, part)) for part in layer.parts]
    if "linear" in metrics:
        layer.solved = []
        for k, part in enumerate(layer.parts):
            identity = torch.eye(layer.n_units, dtype=torch.float64)
            scatter = _training(layer.products, k) + alpha * identity
            right = part.T if _by_stimuli(layer, k) else identity
            calls.append((solve, (scatter, right)))
            layer.solved.append(solve(scatter, right))
    return calls


def _of_pair(x: Layer, y: Layer, metrics) -> Calls:
    """What belongs to a pair of layers, fold by fold."""
    pairs = list(zip(x.parts, y.parts, strict=True))
    products = [_product(*pair) for pair in pairs]
    calls = [(_product, pair) for pair in pairs]
    for k in range(len(pairs)):
        cross = _training(products, k)
        if "linear" in metrics:
            calls += _ridge(x, k, cross) + _ridge(y, k, cross.T)
        if "procrustes" in metrics:
            calls += _rotation(x, y, k, cross)
        if "shape_cosine" in metrics:
            calls += _nuclear_norm(cross)
        if {"permutation", "soft_matching"} & set(metrics):
            norms = [_training(layer.spread, k).sqrt() for layer in (x, y)]
            calls += _matching((cross / norms[0][:, None] / norms[1]).clamp(-1, 1).numpy(), metrics)
    return calls


def _ridge(source: Layer, k: int, cross: Tensor) -> Calls:
    """Predictions from the solution, or, where units are few, weights and the variance that they predict."""
    solved = source.solved[k]
    if _by_stimuli(source, k):
        return [(product, (solved.T, cross))]
    return [(product, (solved, cross)), (product, (source.products[k], solved @ cross))]


def _rotation(x: Layer, y: Layer, k: int, cross: Tensor) -> Calls:
    """The polar factor from the Gram matrix of the smaller side, and predictions of the fold one way and back."""
    if cross.shape[0] < cross.shape[1]:
        x, y, cross = y, x, cross.T
    calls, rotation = _polar(cross)
    rotation = rotation.to(x.dtype)  # applied in the precision of the rows
    ways = ((x, rotation), (y, rotation.T))
    return calls + [(product, (layer.parts[k].to(layer.dtype), turned)) for layer, turned in ways]


def _polar(cross: Tensor) -> tuple[Calls, Tensor]:
    """Large singular values from the Gram matrix, small ones from what those leave."""
    gram = product(cross.T, cross)
    values, vectors = eigh(gram)
    kept = values > 1e-8 * values[-1]
    half, small = vectors[:, kept] / values[kept].sqrt(), vectors[:, ~kept]
    left = product(cross, half)
    calls = [(product, (cross.T, cross)), (eigh, (gram,)), (product, (cross, half))]
    calls.append((product, (left, vectors[:, kept].T)))
    rotation = product(left, vectors[:, kept].T)
    if small.shape[1]:
        rest = product(cross, small)
        calls += [(product, (cross, small)), (product, (left.T, rest)), (product, (left, product(left.T, rest)))]
        rest = rest - product(left, product(left.T, rest))
        if float(rest.norm()) > 1e-13 * float(values[-1]) ** 0.5:
            more, rotated = _polar(rest)
            calls += [*more, (product, (rotated, small.T))]
            rotation = rotation + product(rotated, small.T)
    return calls, rotation


def _nuclear_norm(cross: Tensor) -> Calls:
    cross = cross.T if cross.shape[0] < cross.shape[1] else cross
    return [(product, (cross.T, cross)), (eigvalsh, (cross.T @ cross,))]


def _matching(correlations: np.ndarray, metrics) -> Calls:
    """For equally many units one assignment serves permutation and soft matching."""
    n_x, n_y = correlations.shape
    calls = []
    if "permutation" in metrics or n_x == n_y:
        calls.append((_assign, (correlations,)))
    if "soft_matching" in metrics and n_x != n_y:
        calls.append((_transport, (np.full(n_x, 1 / n_x), np.full(n_y, 1 / n_y), 1 - correlations)))
    return calls


def _assign(correlations: np.ndarray):
    return linear_sum_assignment(correlations, maximize=True)


def _transport(*problem):
    return ot.emd(*problem, numItermax=10_000_000)


def _run(calls: Calls) -> None:
    for call, arguments in calls:
        call(*arguments)


def _seconds(tasks: list[Calls]) -> float:
    """Of all tasks, as many at once as torch has threads, with one thread inside each."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, one_thread():
        start = perf_counter()
        list(pool.map(_run, tasks))
        return perf_counter() - start


def grid(a, b, metrics, folds=5, alpha=1.0):
    """Of all layers of a with all layers of b, both directions where they differ; `folds` None is in sample."""
    x, y = ([Layer(X, folds) for X in layers.values()] for layers in (a, b))
    seconds = _seconds([_of_layer(layer, metrics, alpha) for layer in (*x, *y)])
    for other in y:  # not all at once: what the calls are made on takes memory
        seconds += _seconds([_of_pair(layer, other, metrics) for layer in x])
    return {"seconds": seconds}


def nested(a, b, alphas, folds=5):
    """Of ridge with its alpha chosen inside the training folds, for each pair of layers."""
    seconds = 0.0
    for X in a.values():
        for Y in b.values():
            seconds += sum(_seconds(tasks) for tasks in _nested(Layer(X, folds), Layer(Y, folds), alphas))
    return {"seconds": seconds}


def _nested(x: Layer, y: Layer, alphas) -> list[list[Calls]]:
    """Moments; a decomposition for each two folds left out, and one product for each alpha and inner fold; maps."""
    pairs = list(zip(x.parts, y.parts, strict=True))
    crosses = [_product(*pair) for pair in pairs]
    left_out = [(k, inner) for k in range(len(pairs)) for inner in range(k)]
    moments = [_of_layer(x, ["linear"], alphas[0]), [(_product, pair) for pair in pairs]]
    maps = [_ridge(x, k, _training(crosses, k)) for k in range(len(pairs))]
    return [moments, [_inner(x, crosses, two, alphas) for two in left_out], maps]


def _inner(x: Layer, crosses: list[Tensor], left_out: tuple[int, int], alphas) -> Calls:
    scatter, cross = (sum(part for n, part in enumerate(parts) if n not in left_out) for parts in (x.products, crosses))
    values, vectors = eigh(scatter)
    rotated = vectors.T @ cross
    calls = [(eigh, (scatter,)), (product, (vectors.T, cross))]
    for test in left_out:
        rows = x.parts[test]
        calls += [(product, (rows, vectors)), (product, (vectors.T, crosses[test]))]
        weights = (rotated / (values + alphas[0])[:, None]).to(x.dtype)
        calls += [(product, ((rows @ vectors).to(x.dtype), weights))] * len(alphas)
    return calls
