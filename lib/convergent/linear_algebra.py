"""Products and factorisations: by torch on a GPU, by NumPy and SciPy on a CPU.

On the AMD processor where this was measured, torch takes up to three times as long for a product and one and a
half times for eigenvectors as the OpenBLAS in NumPy and SciPy, which share their memory with tensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for matrices."""
    if a.device.type != "cpu":
        return a @ b
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))


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


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside each call, so that several calls may run in threads of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _controller().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(before)
