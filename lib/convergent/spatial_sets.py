"""Whether two layers' filters are built from the same set of patterns: eigenvectors compared, with what chance gives.

A covariance here is that of a layer's filters over their k x k pixels (`spatial_filters.spatial_covariance`). Its
eigenvectors are the patterns, its eigenvalues how much each is used. All statistics ignore the sign of an eigenvector
and the scale of a covariance.
"""

from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from .spatial_filters import eigenvectors

SYMMETRIES = ("any", "mirror", "square")  # what random bases share with the square grid of pixels


def _checked(C) -> np.ndarray:
    C = np.asarray(C, dtype=np.float64)
    if C.ndim != 2 or C.shape[0] != C.shape[1] or round(len(C) ** 0.5) ** 2 != len(C) or len(C) < 4:
        raise ValueError(f"a covariance of k x k filters has shape (k², k²) with k of 2 or more, not {C.shape}")
    if not np.isfinite(C).all():
        raise ValueError("the covariance holds values that are not finite: did training diverge?")
    return C


def spectrum(C) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (k²,) from the largest, and eigenvectors (k², k²) in the columns.

    Raises ValueError for anything but a finite (k², k²) matrix.
    """
    values, vectors = eigenvectors(torch.from_numpy(_checked(C)))
    return values.numpy(), vectors.numpy().T


def effective_dimension(C) -> float:
    """(Σλ)² / Σλ²: the number of patterns if all were used alike; between 1 and k²."""
    values = spectrum(C)[0]
    if values[0] == 0:
        raise ValueError("all filters are zero: they have no dimension")
    return float(values.sum() ** 2 / (values**2).sum())


def centre(C, k: int = 3) -> np.ndarray:
    """The covariance of the filters' central k x k pixels: a block of C, so exact, without any interpolation.

    Raises ValueError where the filters are smaller, or k is even and their size odd (or the reverse): no centre.
    """
    C = _checked(C)
    size = round(len(C) ** 0.5)
    if size < k or (size - k) % 2:
        raise ValueError(f"filters of {size}x{size} pixels have no central {k}x{k}")
    edge = (size - k) // 2
    kept = np.arange(size * size).reshape(size, size)[edge : edge + k, edge : edge + k].ravel()
    return C[np.ix_(kept, kept)]


def fit_sizes(A, B) -> tuple[np.ndarray, np.ndarray]:
    """Both covariances at the size of the smaller: the larger filters' centre."""
    k = round(min(len(A), len(B)) ** 0.5)
    return tuple(C if len(C) == k * k else centre(C, k) for C in (np.asarray(A), np.asarray(B)))


def _deviation(C) -> np.ndarray:
    """C less its mean eigenvalue: what a flat spectrum would have is diagonal in every basis, and says nothing."""
    C = _checked(C)
    left = C - np.eye(len(C)) * np.trace(C) / len(C)
    if np.linalg.norm(left) <= 1e-12 * np.linalg.norm(C):
        raise ValueError("the covariance is a multiple of the identity: it prefers no pattern")
    return left


def diagonality(A, B) -> float:
    """How nearly two covariances have one set of eigenvectors, whatever their eigenvalues.

    The share of B (less its mean eigenvalue, in squares of its entries) that is diagonal in the eigenvectors of A,
    averaged with the share of A that is diagonal in those of B. Order and sign of eigenvectors do not matter, and
    those with equal eigenvalues in both may be mixed. Larger filters are cut to the centre of the smaller.

    Returns
    -------
    float in [0, 1]; 1 when the two commute. A random basis has 2 / (k² + 2) on average.

    Raises
    ------
    ValueError for shapes other than (k², k²), non-finite values, or a multiple of the identity.
    """
    A, B = fit_sizes(A, B)
    return (_share(spectrum(A)[1], _deviation(B)) + _share(spectrum(B)[1], _deviation(A))) / 2


def _share(vectors: np.ndarray, C: np.ndarray) -> float:
    return float(((vectors * (C @ vectors)).sum(0) ** 2).sum() / (C**2).sum())


def overlap(A, B, rank: int) -> float:
    """Share of the leading `rank`-dimensional subspace that two covariances have in common, in [0, 1].

    ‖V_A' V_B‖² / rank, the mean squared cosine of the principal angles. Random subspaces have rank / k².
    """
    A, B = fit_sizes(A, B)
    if not 1 <= rank <= len(A):
        raise ValueError(f"rank {rank}: filters of {len(A)} pixels have ranks 1 to {len(A)}")
    return float(((spectrum(A)[1][:, :rank].T @ spectrum(B)[1][:, :rank]) ** 2).sum() / rank)


def partners(values: np.ndarray, vectors: np.ndarray, reference: np.ndarray, ratio: float = 2.0) -> np.ndarray:
    """Which eigenvector stands for which of a reference: the one-to-one match of the largest sum of |cosines|.

    An eigenvector may take another's rank only where the two eigenvalues are within a factor `ratio`: the order of
    eigenvectors whose eigenvalues are close is a matter of chance, that of others is not.

    Parameters
    ----------
    values, vectors, reference : (k²,), (k², k²), (k², k²), from the largest eigenvalue on

    Returns
    -------
    (k²,) index into `vectors` for each rank of the reference
    """
    floor = np.maximum(values, 1e-12 * values[0])
    near = np.abs(np.log(floor[:, None] / floor[None, :])) <= np.log(ratio) + 1e-12
    gain = np.where(near, np.abs(reference.T @ vectors), -len(values))  # rank of the reference, eigenvector
    return linear_sum_assignment(gain, maximize=True)[1]


def aligned(C, reference: np.ndarray, ratio: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors in the order and with the signs of a reference (k², k²), and their ranks (from 0) in C."""
    values, vectors = spectrum(C)
    order = partners(values, vectors, reference, ratio)
    vectors = vectors[:, order]
    signs = np.where((vectors * reference).sum(0) < 0, -1.0, 1.0)
    return vectors * signs, order


def matched_cosines(A, B, ratio: float = 2.0) -> np.ndarray:
    """|cosine| (k²,) of each eigenvector of B with its partner in A, by the rank in B; rank swaps as in `partners`."""
    A, B = fit_sizes(A, B)
    reference = spectrum(B)[1]
    return np.abs((aligned(A, reference, ratio)[0] * reference).sum(0)).clip(max=1)


# --- chance ------------------------------------------------------------------------------------------


def _turned(k: int, symmetry: str) -> list[np.ndarray]:
    """The pixels' order (k²,) after each operation of a group of the square."""
    grid = np.arange(k * k).reshape(k, k)
    mirrored = [grid, grid[:, ::-1], grid[::-1], grid[::-1, ::-1]]
    groups = {"any": [grid], "mirror": mirrored, "square": mirrored + [one.T for one in mirrored]}
    if symmetry not in groups:
        raise ValueError(f"symmetry {symmetry!r} is not one of {', '.join(SYMMETRIES)}")
    return [one.ravel() for one in groups[symmetry]]


@lru_cache(maxsize=32)
def random_bases(k: int, symmetry: str = "any", n: int = 100, seed: int = 0) -> np.ndarray:
    """Random orthonormal bases of k x k filters, in random order.

    Parameters
    ----------
    symmetry : "any", uniform over all bases; "mirror", bases whose patterns are each even or odd under left-right and
        under up-down reflection; "square", those that a covariance with all eight symmetries of the square has

    Returns
    -------
    (n, k², k²), eigenvectors in the columns: those of Gaussian symmetric matrices, averaged over the group. They are
    shared between calls, so do not write into them.
    """
    rng, group, p = np.random.default_rng([seed, k]), _turned(k, symmetry), k * k
    noise = rng.standard_normal((n, p, p))
    noise = noise + noise.transpose(0, 2, 1)
    return np.linalg.eigh(sum(noise[:, one][:, :, one] for one in group))[1]


def chance(A, B, symmetry: str = "any", n: int = 100, seed: int = 0) -> np.ndarray:
    """Diagonality (n,) of B and of A after its eigenvectors were replaced by random ones; eigenvalues stay."""
    A, B = fit_sizes(A, B)
    U = random_bases(round(len(A) ** 0.5), symmetry, n, seed)
    values, D = spectrum(A)[0], _deviation(B)
    values = values - values.mean()
    in_U = (((U * (D @ U)).sum(1) ** 2).sum(-1)) / (D**2).sum()
    in_B = (((spectrum(B)[1].T @ U) ** 2 @ values) ** 2).sum(-1) / (values**2).sum()
    return (in_U + in_B) / 2


def matched_chance(A, B, symmetry: str = "any", n: int = 100, seed: int = 0, ratio: float = 2.0) -> np.ndarray:
    """`matched_cosines` (n, k²) of B and of A with random eigenvectors, matched by the same rule."""
    A, B = fit_sizes(A, B)
    values, reference = spectrum(A)[0], spectrum(B)[1]
    found = []
    for U in random_bases(round(len(A) ** 0.5), symmetry, n, seed):
        order = partners(values, U, reference, ratio)
        found.append(np.abs((U[:, order] * reference).sum(0)))
    return np.array(found)


def overlap_chance(A, B, rank: int, symmetry: str = "mirror", n: int = 100, seed: int = 0) -> np.ndarray:
    """`overlap` (n,) of the leading eigenvectors of B with the first `rank` of random bases."""
    A, B = fit_sizes(A, B)
    U = random_bases(round(len(A) ** 0.5), symmetry, n, seed)
    return ((spectrum(B)[1][:, :rank].T @ U[:, :, :rank]) ** 2).sum((1, 2)) / rank


def marchenko_pastur_edges(n_pixels: int, n_filters: int) -> tuple[float, float]:
    """Smallest and largest eigenvalue that independent filters of unit variance have, for many pixels and filters.

    (1 ± √(n_pixels / n_filters))² (Marchenko & Pastur 1967). What chance alone gives to untrained filters.
    """
    root = np.sqrt(n_pixels / n_filters)
    return float(max(1 - root, 0) ** 2), float((1 + root) ** 2)
