"""Products and factorisations: by torch on a GPU, by NumPy and SciPy on a CPU.

On the AMD processor where this was measured, torch takes up to three times as long for a product and one and a
half times for eigenvectors as the OpenBLAS in NumPy and SciPy, which share their memory with tensors.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b for matrices, written to `out` where one is given."""
    if a.device.type != "cpu":
        return torch.matmul(a, b, out=out)
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy(), out=None if out is None else out.numpy()))


def products_by_fold(a: Tensor, b: Tensor, counts: list[int]) -> Tensor:
    """a'b of each fold of rows (n_folds, n_units_a, n_units_b)."""
    found = torch.empty(len(counts), a.shape[1], b.shape[1], dtype=a.dtype, device=a.device)
    for x, y, out in zip(a.split(counts), b.split(counts), found, strict=True):
        product(x.T, y, out)
    return found


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in ascending order and eigenvectors of a symmetric matrix."""
    if matrix.device.type != "cpu" or matrix.dtype != torch.float64:
        return torch.linalg.eigh(matrix)
    # Not SciPy's: it would keep other threads of Python waiting. And OpenBLAS slows down here with a second thread.
    with _controller().limit(limits=1):
        values, vectors = np.linalg.eigh(matrix.numpy())
    return torch.from_numpy(values), torch.from_numpy(vectors)


def eigvalsh(matrix: Tensor) -> Tensor:
    """Eigenvalues of a symmetric matrix in ascending order."""
    if matrix.device.type != "cpu" or matrix.dtype != torch.float64:
        return torch.linalg.eigvalsh(matrix)
    with _controller().limit(limits=1):
        return torch.from_numpy(np.linalg.eigvalsh(matrix.numpy()))


@cache
def _controller() -> ThreadpoolController:
    """Of the threads of NumPy's and SciPy's libraries; to find them takes a thousand times longer than to set them."""
    return ThreadpoolController()


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """matrix^-1 right, for a symmetric positive definite matrix, by Cholesky's factorisation."""
    if matrix.device.type != "cpu":
        return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
    factor = scipy.linalg.cho_factor(matrix.numpy(), check_finite=False)
    return torch.from_numpy(scipy.linalg.cho_solve(factor, right.numpy(), check_finite=False))


class _Threads:
    """torch's threads while someone asked for one only: how many ask, how many were set before, how many share."""

    def __init__(self):
        self.lock, self.asking, self.before, self.sharing = Lock(), 0, 1, 0


_threads = _Threads()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One thread inside each call of torch, also as a decorator; afterwards as many as before.

    torch's threads keep their core busy for a while after each call, waiting for the next. Between products of
    NumPy's threads that made a comparison three times slower where it was measured.
    """
    with _threads.lock:
        if not _threads.asking:
            _threads.before = torch.get_num_threads()
            torch.set_num_threads(1)
        _threads.asking += 1
    try:
        yield
    finally:
        with _threads.lock:
            _threads.asking -= 1
            if not _threads.asking:
                torch.set_num_threads(_threads.before)


@contextmanager
def workers(device: torch.device) -> Iterator[Callable]:
    """A map over tasks: on a CPU in as many threads as torch has, with one thread inside each.

    Factorisations, assignments and transport gain little from two threads, and twice from two at once. Inside another
    such map there is nothing to share.
    """
    n = _threads.before if _threads.asking else torch.get_num_threads()
    if n == 1 or device.type != "cpu" or _threads.sharing:
        yield map
        return
    with one_thread(), ThreadPoolExecutor(n) as pool:
        yield pool.map


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside each call, so that several calls may run in threads of their own."""
    with one_torch_thread(), _controller().limit(limits=1):
        with _threads.lock:
            _threads.sharing += 1
        try:
            yield
        finally:
            with _threads.lock:
                _threads.sharing -= 1
