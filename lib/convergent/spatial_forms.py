"""Closed forms that may explain the patterns of filters: cosines, and derivatives of a Gaussian.

Both are separable, products of a function down and one across, and both have one free number, a width in pixels:

- cosines: the Karhunen-Loève basis of a first-order stationary process whose correlation falls to 1/e over the width
  (Ahmed, Natarajan & Rao 1974); for an endless width exactly the discrete cosine transform DCT-II;
- derivatives of a Gaussian of standard deviation `width`, sampled at the pixels and made orthogonal from the lowest
  order up (sampled Hermite functions; Koenderink & van Doorn 1987). For an endless width they are polynomials.

Patterns (i, j) and (j, i) have equal variance wherever down and across are alike, so any mixture of the two is as good:
either form may mix them.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import toeplitz
from scipy.optimize import linear_sum_assignment

from .spatial_sets import _deviation, random_bases, spectrum

FORMS = ("cosines", "derivatives of a Gaussian")
N_WIDTHS = 24
WIDEST = 10  # filters: beyond it a width makes no difference


def widths(k: int) -> np.ndarray:
    """The widths in pixels that are tried for filters of k x k: from a third of a pixel to ten filters, and endless."""
    return np.append(np.geomspace(0.35, WIDEST * k, N_WIDTHS - 1), np.inf)


def along(form: str, k: int, width: float) -> np.ndarray:
    """The k orthonormal functions of a form along one axis, in columns, from slow to fast.

    Raises ValueError for a form that is not one of `FORMS`, or a width that is not positive.
    """
    if form not in FORMS:
        raise ValueError(f"form {form!r} is not one of {', '.join(FORMS)}")
    if not width > 0:
        raise ValueError(f"width {width}: a number of pixels above 0")
    x = np.arange(k) - (k - 1) / 2
    if form == FORMS[1]:
        return _orthogonal_from(np.exp(-((x / width) ** 2) / 2), x)
    if np.isinf(width):
        basis = np.cos(np.pi * np.outer(np.arange(k) + 0.5, np.arange(k)) / k)
        return basis / np.linalg.norm(basis, axis=0)
    return np.linalg.eigh(toeplitz(np.exp(-np.arange(k) / width)))[1][:, ::-1]


def _orthogonal_from(start: np.ndarray, x: np.ndarray) -> np.ndarray:
    """start, x start, x² start, ..., orthonormal: by Lanczos, since powers of x are nearly parallel."""
    columns = [start / np.linalg.norm(start)]
    while len(columns) < len(x):
        following = x * columns[-1]
        for _ in range(2):  # once is not enough where the Gaussian is narrow
            for column in columns:
                following = following - (column @ following) * column
        columns.append(following / np.linalg.norm(following))
    return np.stack(columns, axis=1)


def orders(k: int) -> np.ndarray:
    """(k², 2): order down and order across of each pattern of `basis`."""
    return np.stack(np.divmod(np.arange(k * k), k), axis=1)


def basis(form: str, k: int, width: float) -> np.ndarray:
    """The k² separable patterns of a form as columns, (k², k²); their orders are `orders(k)`."""
    one = along(form, k, width)
    return np.kron(one, one)


@lru_cache(maxsize=16)
def _bases(form: str, k: int) -> np.ndarray:
    return np.stack([basis(form, k, width) for width in widths(k)])


def _swapped(k: int) -> np.ndarray:
    """Index of pattern (j, i) for each (i, j)."""
    return np.arange(k * k).reshape(k, k).T.ravel()


def _explained(D: np.ndarray, F: np.ndarray) -> np.ndarray:
    """Share of D (..., p, p) that lies in the patterns of F, and in the mixtures of (i, j) with (j, i)."""
    p = F.shape[-1]
    inside = F.T @ D @ F
    here, there = np.arange(p), _swapped(round(p**0.5))
    off = here != there
    kept = (inside[..., here, here] ** 2).sum(-1) + (inside[..., here[off], there[off]] ** 2).sum(-1)
    return kept / (D**2).sum((-2, -1))


@dataclass(frozen=True)
class Fit:
    """How well a form explains a covariance.

    Attributes
    ----------
    form, width : which, and its width in pixels
    explained : share of the covariance (less its mean eigenvalue) that is diagonal in the form's patterns
    patterns : (k², k²), mixtures of (i, j) and (j, i) chosen, in the order of the eigenvectors that they match
    orders : (k², 2), order down and across of each
    cosines : (k²,) |cosine| of each with its eigenvector
    captured : (k²,) variance of the form's best r patterns over that of the best r there are, for r = 1 to k²
    """

    form: str
    width: float
    explained: float
    patterns: np.ndarray
    orders: np.ndarray
    cosines: np.ndarray
    captured: np.ndarray


def fit(C, form: str) -> Fit:
    """The width of a form that explains a covariance (k², k²) best, and how well it does.

    Raises
    ------
    ValueError for another shape, a multiple of the identity, or an unknown form.
    """
    if form not in FORMS:
        raise ValueError(f"form {form!r} is not one of {', '.join(FORMS)}")
    D = _deviation(C)
    k = round(len(D) ** 0.5)
    shares = np.array([_explained(D, F) for F in _bases(form, k)])
    best = int(shares.argmax())
    patterns = _mixed(C, _bases(form, k)[best])
    values, vectors = spectrum(C)
    variance = np.sort(((np.asarray(C) @ patterns) * patterns).sum(0))[::-1]
    chosen = linear_sum_assignment(np.abs(vectors.T @ patterns), maximize=True)[1]
    matched = patterns[:, chosen]
    cosines = np.abs((matched * vectors).sum(0)).clip(max=1)
    captured = variance.cumsum() / values.cumsum()
    return Fit(
        form, float(widths(k)[best]), float(shares[best]), matched, orders(k)[chosen], cosines, captured.clip(max=1)
    )


def _mixed(C, F: np.ndarray) -> np.ndarray:
    """F with each pair (i, j), (j, i) turned in its plane to where C is diagonal."""
    F, k = F.copy(), round(len(F) ** 0.5)
    for i in range(k):
        for j in range(i + 1, k):
            pair = [i * k + j, j * k + i]
            F[:, pair] = F[:, pair] @ np.linalg.eigh(F[:, pair].T @ np.asarray(C) @ F[:, pair])[1]
    return F


def chance(C, form: str, symmetry: str = "any", n: int = 40, seed: int = 0) -> np.ndarray:
    """What the best width of a form explains (n,) of a covariance with the eigenvalues of C and random eigenvectors."""
    values = spectrum(_deviation(C) + np.eye(len(C)) * np.trace(C) / len(C))[0]
    k = round(len(values) ** 0.5)
    U = random_bases(k, symmetry, n, seed)
    D = (U * (values - values.mean())) @ U.transpose(0, 2, 1)
    return np.max([_explained(D, F) for F in _bases(form, k)], axis=0)
