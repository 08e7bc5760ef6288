"""Products and factorisations: by torch on a GPU, by NumPy and SciPy on a CPU.

On processors without Intel's name torch's own CPU library takes up to three times as long for a product and one and a
half times for eigenvectors as the OpenBLAS in NumPy and SciPy, which share their memory with tensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for matrices."""
    if a.device.type != "cpu":
        return a @ b
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in ascending order and eigenvectors of a symmetric matrix."""
    if matrix.device.type != "cpu":
        return torch.linalg.eigh(matrix)
    values, vectors = scipy.linalg.eigh(matrix.numpy(), driver="evd", check_finite=False)
    return torch.from_numpy(values), torch.from_numpy(vectors)


def eigvalsh(matrix: Tensor) -> Tensor:
    """Eigenvalues of a symmetric matrix in ascending order."""
    if matrix.device.type != "cpu":
        return torch.linalg.eigvalsh(matrix)
    return torch.from_numpy(scipy.linalg.eigvalsh(matrix.numpy(), driver="evd", check_finite=False))


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
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
