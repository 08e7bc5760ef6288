"""What a layer's neurons have learned in common: the covariance of their weights, its learned and its random part.

Weights of a layer are rows, one a neuron: (C_out, C_in), or the (C_out, C_in, 1, 1) of a pointwise convolution. All
functions work in float64, on the device of their input.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .linear_algebra import eigh, product
from .mappings import polar_factor


class Covariance(NamedTuple):
    """A covariance of weights by its eigenvectors: only those with an eigenvalue above zero are held.

    Attributes
    ----------
    values : (rank,) float64, descending
    vectors : (C_in, rank) float64, a column an eigenvector
    n_neurons : C_out, how many neurons it was estimated from
    """

    values: Tensor
    vectors: Tensor
    n_neurons: int

    @property
    def gamma(self) -> float:
        """C_in / C_out, the sampling noise."""
        return len(self.vectors) / self.n_neurons

    @property
    def dense(self) -> Tensor:
        """(C_in, C_in)."""
        return product(self.vectors * self.values, self.vectors.T.contiguous())

    def seen_by(self, rotation: Tensor) -> "Covariance":
        """The same neurons in the other network's axes: A C A', for the A of `alignment`, (C_in', C_in)."""
        return self._replace(vectors=product(rotation, self.vectors))


def weight_covariance(weights: Tensor, initial_variance: float | None = None) -> Covariance:
    """Second moments of a layer's neurons, W'W / C_out, in units of the variance that the weights began with.

    The mean is not taken off: neurons begin around zero, and what they have in common is part of what they learned. The
    eigenvectors come from the smaller of W'W and WW', so that 2,560 inputs and 256 neurons take a fraction of a second.

    Parameters
    ----------
    weights : (C_out, C_in) or (C_out, C_in, 1, 1)
    initial_variance : of one weight before training; None takes PyTorch's default for a convolution or a linear layer,
        uniform with variance 1 / (3 C_in)

    Raises
    ------
    ValueError for another shape, values that are not finite, or an initial variance that is not positive.
    """
    neurons = weights.detach().double()
    if neurons.ndim == 4 and neurons.shape[2:] == (1, 1):
        neurons = neurons[:, :, 0, 0]
    if neurons.ndim != 2 or 0 in neurons.shape:
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}: expected (C_out, C_in), or (C_out, C_in, 1, 1) of a pointwise"
            " convolution; filters over several pixels mix space and channels"
        )
    if not torch.isfinite(neurons).all():
        raise ValueError("weights hold values that are not finite: did training diverge?")
    variance = 1 / (3 * neurons.shape[1]) if initial_variance is None else initial_variance
    if not variance > 0:
        raise ValueError(
            f"initial_variance={initial_variance!r} must be positive: the variance of one untrained weight"
        )
    n_neurons, n_inputs = neurons.shape
    neurons = neurons / math.sqrt(variance * n_neurons)
    wide = n_inputs > n_neurons
    values, vectors = eigh(product(neurons, neurons.T) if wide else product(neurons.T, neurons))
    values, vectors = values.flip(0), vectors.flip(1)
    kept = values > 1e-13 * len(values) * values[0].clamp_min(torch.finfo(torch.float64).tiny)
    values, vectors = values[kept], vectors[:, kept]
    if wide:
        vectors = product(neurons.T, vectors) / values.sqrt()
    return Covariance(values, vectors, n_neurons)


def of_dense(matrix: Tensor, n_neurons: int) -> Covariance:
    """A covariance given as a matrix (C_in, C_in). Eigenvalues that are rounding of the largest are left out.

    Raises
    ------
    ValueError for a matrix that is not square, symmetric and finite, or has a negative eigenvalue.
    """
    matrix = matrix.double()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not torch.isfinite(matrix).all():
        raise ValueError(f"a covariance is a square matrix of finite numbers, not {tuple(matrix.shape)}")
    largest = float(matrix.abs().max())
    if float((matrix - matrix.T).abs().max()) > 1e-9 * largest:
        raise ValueError("the matrix is not symmetric, so it is no covariance: give W'W / C_out")
    values, vectors = eigh((matrix + matrix.T) / 2)
    floor = 1e-12 * len(values) * max(float(values.abs().max()), torch.finfo(torch.float64).tiny)
    if float(values[0]) < -floor:
        raise ValueError(f"the matrix has the eigenvalue {float(values[0]):.3g} below zero, so it is no covariance")
    kept = values.flip(0) > floor
    return Covariance(values.flip(0)[kept], vectors.flip(1)[:, kept], n_neurons)


def shrink(eigenvalues: Tensor, gamma: float) -> Tensor:
    """What of each eigenvalue was learned: the spike that most likely produced it, 0 inside the random bulk.

    Weights are taken for samples of a covariance C + Id with C of low rank. Their empirical eigenvalue λ is then
    larger than 1 + c by a known amount; this undoes it (Donoho, Gavish & Johnstone 2018; Guth & Ménard 2024, eq. 3).
    What is kept is at least √γ: smaller spikes cannot be told from the bulk.

    Parameters
    ----------
    eigenvalues : (n,), of a covariance whose initial variance is 1
    gamma : C_in / C_out, below, at or above 1

    Returns
    -------
    (n,) float64

    Raises
    ------
    ValueError for a gamma that is not positive, or negative or infinite eigenvalues.
    """
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma={gamma!r}: C_in / C_out is positive")
    values = torch.as_tensor(eigenvalues).double()
    if not (torch.isfinite(values).all() and (values >= 0).all()):
        raise ValueError("eigenvalues of a covariance are finite and not negative")
    excess = (values - 1 - gamma) / 2
    # The root of eq. 3 in other words: ((λ + 1 - γ) / 2)² - λ = ((λ - 1 - γ) / 2)² - γ.
    spikes = excess + (excess.square() - gamma).clamp_min(0).sqrt()
    return torch.where(values > marchenko_pastur_edges(gamma)[1], spikes, torch.zeros_like(values))


def learned_and_random(covariance: Covariance) -> tuple[Covariance, Tensor]:
    """The learned part (shrunk eigenvalues with their eigenvectors; perhaps none), and the eigenvalues of the rest."""
    shrunk = shrink(covariance.values, covariance.gamma)
    kept = shrunk > 0
    return covariance._replace(values=shrunk[kept], vectors=covariance.vectors[:, kept]), covariance.values[~kept]


def effective_rank(eigenvalues: Tensor) -> float:
    """Mean rank of the eigenvalues, weighted by them: Σ k λ_k / Σ λ_k (Guth & Ménard 2024, eq. 4).

    From 1 (one direction) to (n + 1) / 2 (n equal ones); 0 where nothing was learned.

    Raises
    ------
    ValueError for negative or infinite eigenvalues.
    """
    values = torch.as_tensor(eigenvalues).double().sort(descending=True).values
    if not (torch.isfinite(values).all() and (values >= 0).all()):
        raise ValueError("eigenvalues of a covariance are finite and not negative")
    total = float(values.sum())
    ranks = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)
    return float((ranks * values).sum()) / total if total > 0 else 0.0


def marchenko_pastur_edges(gamma: float) -> tuple[float, float]:
    """Where the non-zero eigenvalues of random weights lie: (1 - √γ)² to (1 + √γ)² (Marchenko & Pastur 1967)."""
    return (1 - math.sqrt(gamma)) ** 2, (1 + math.sqrt(gamma)) ** 2


def marchenko_pastur_density(values: Tensor, gamma: float) -> Tensor:
    """Density of the non-zero eigenvalues of random weights, with integral 1 also where γ > 1.

    For γ > 1 there are C_in - C_out further eigenvalues, all zero, which `Covariance` does not hold either.
    """
    values = torch.as_tensor(values).double()
    low, high = marchenko_pastur_edges(gamma)
    inside = ((high - values) * (values - low)).clamp_min(0).sqrt()
    safe = torch.where(inside > 0, values, torch.ones_like(values))
    return inside / (2 * math.pi * min(gamma, 1.0) * safe)


def alignment(cross: Tensor) -> Tensor:
    """The A that brings one network's representation nearest to the other's: min E|A φ(x) - φ'(x)|² (eq. 1).

    Parameters
    ----------
    cross : (C_in', C_in) second moments E[φ'(x) φ(x)'], over images and all their positions

    Returns
    -------
    (C_in', C_in) float64: the orthogonal polar factor of `cross` (Schönemann 1966). Where widths differ it is the
    orthogonal matrix of the narrower one padded with zeros, without the padding. Directions in which the two do not
    covary at all, such as those of dead channels, have no best rotation and are mapped to zero.

    Raises
    ------
    ValueError for moments that are not finite, or zero throughout.
    """
    cross = cross.double()
    if cross.ndim != 2 or not torch.isfinite(cross).all() or not (cross != 0).any():
        raise ValueError("second moments of two representations are a matrix of finite numbers, not all of them zero")
    return polar_factor(cross / cross.abs().max())
