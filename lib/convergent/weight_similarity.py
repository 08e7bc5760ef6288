"""How alike two layers' covariances of weights are (Guth & Ménard 2024, section 3.2)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .linear_algebra import product
from .mappings import nuclear_norm
from .weight_covariances import Covariance, learned_and_random, of_dense, weight_covariance


class Scale(NamedTuple):
    """The two ends of eq. 6 for one covariance: cosines with a rotation of it, and with a resample of it.

    `zero`, `one` are means over draws, `zero_error`, `one_error` standard errors of these means.
    """

    zero: float
    zero_error: float
    one: float
    one_error: float

    @property
    def resolved(self) -> bool:
        """Whether the two ends lie apart by more than twice their error: otherwise no similarity can be read off."""
        return self.one - self.zero > 2 * math.hypot(self.zero_error, self.one_error)


class Similarity(NamedTuple):
    """Normalised similarity (eq. 6), its standard error from the draws, the cosine behind it, and its `Scale`.

    `value` is 0 and `error` 0 where the scale is not resolved: where nothing was learned, or where what was learned
    looks the same after any rotation.
    """

    value: float
    error: float
    cosine: float
    scale: Scale


def bures_cosine(first: Covariance | Tensor, second: Covariance | Tensor) -> float:
    """‖C₁^½ C₂^½‖₁ / √(tr C₁ tr C₂), in [0, 1]; 1 for proportional covariances (Guth & Ménard 2024, eq. 5).

    Parameters
    ----------
    first, second : `Covariance`, or matrices (C_in, C_in). Not centred, not shrunk here: give learned parts.

    Returns
    -------
    float; 0 where one of them is zero: with nothing learned, nothing is shared.

    Raises
    ------
    ValueError for different C_in, or matrices that are no covariances.

    Notes
    -----
    The Bures-Wasserstein distance (Bhatia et al. 2019) is tr C₁ + tr C₂ - 2 ‖C₁^½ C₂^½‖₁. Between eigenvectors the
    nuclear norm needs a matrix of rank x rank only.
    """
    first, second = _eigen(first), _eigen(second)
    if len(first.vectors) != len(second.vectors):
        raise ValueError(
            f"covariances of {len(first.vectors)} and of {len(second.vectors)} inputs: align the first with the second"
        )
    weight = float(first.values.sum() * second.values.sum())
    if weight == 0:
        return 0.0
    between = product(first.vectors.T, second.vectors)
    return min(nuclear_norm(between * first.values.sqrt()[:, None] * second.values.sqrt()) / math.sqrt(weight), 1.0)


def scale(learned: Covariance | Tensor, n_neurons: int | None = None, draws: int = 20, seed: int = 0) -> Scale:
    """Zero and one of eq. 6: random rotations of the learned covariance, and what would be estimated from a resample.

    A resample draws as many Gaussian neurons as the layer has from C + Id (in units of the initial variance) and
    shrinks their covariance. Rotations are uniform; only what they do to the eigenvectors is drawn.

    Parameters
    ----------
    learned : a learned covariance, or one as a matrix; then n_neurons must be given
    draws : of each kind, at least 2

    Raises
    ------
    ValueError for fewer than 2 draws, or a matrix without n_neurons.
    """
    if draws < 2:
        raise ValueError(f"draws={draws}: an error needs at least 2 of them")
    if n_neurons is None and isinstance(learned, Tensor):
        raise ValueError("a matrix does not say from how many neurons it was estimated: give n_neurons")
    learned = _eigen(learned)
    if len(learned.values) == 0:
        return Scale(0.0, 0.0, 0.0, 0.0)
    n_neurons = n_neurons or learned.n_neurons
    random = torch.Generator().manual_seed(seed)
    # In the eigenvectors' own basis: cosines do not change when both are turned.
    own = _own_basis(learned)
    zeros = torch.tensor([bures_cosine(own, own._replace(vectors=frame)) for frame in _frames(own, draws, random)])
    ones = torch.tensor([bures_cosine(own, resample(own, n_neurons, random)) for _ in range(draws)])
    errors = [float(found.std() / math.sqrt(draws)) for found in (zeros, ones)]
    return Scale(float(zeros.mean()), errors[0], float(ones.mean()), errors[1])


def same_population(learned: Covariance, draws: int = 5, scale_draws: int = 10, seed: int = 0) -> list[float]:
    """Eq. 6 for two layers whose neurons come from one distribution, of covariance C + Id: what two networks that had
    learned exactly the same would score. One value a draw; [0.0] where nothing was learned."""
    if len(learned.values) == 0:
        return [0.0]
    random, own, found = torch.Generator().manual_seed(seed), _own_basis(learned), []
    for draw in range(draws):
        one, other = (resample(own, learned.n_neurons, random) for _ in range(2))
        found.append(normalised_similarity(one, other, draws=scale_draws, seed=seed + draw).value)
    return found


def resample(learned: Covariance, n_neurons: int, random: torch.Generator) -> Covariance:
    """The learned covariance that `n_neurons` Gaussian neurons of covariance C + Id would be found to have."""
    return learned_and_random(weight_covariance(neurons(learned, n_neurons, random), initial_variance=1.0))[0]


def neurons(learned: Covariance, n_neurons: int, random: torch.Generator) -> Tensor:
    """`n_neurons` Gaussian neurons (n_neurons, C_in) of covariance C + Id."""
    n_inputs = len(learned.vectors)
    drawn = torch.randn(n_neurons, n_inputs, generator=random, dtype=torch.float64).to(learned.values.device)
    stretch = (1 + learned.values).sqrt() - 1
    along = product(drawn, learned.vectors)
    return drawn + product(along * stretch, learned.vectors.T.contiguous())


def normalised_similarity(
    first: Covariance | Tensor,
    second: Covariance | Tensor,
    n_neurons: int | None = None,
    draws: int = 20,
    seed: int = 0,
    on: Scale | None = None,
) -> Similarity:
    """Bures cosine on a scale from a random rotation of C₁ (0) to a resample of C₁ (1) (Guth & Ménard 2024, eq. 6).

    Not symmetric: the scale is that of `first`. It can exceed 1 by chance and lie below 0.

    Parameters
    ----------
    first, second : learned covariances in the same axes
    n_neurons : of the layer, for the resample; None takes what `first` knows
    on : the scale of `first`, where it is known already

    Raises
    ------
    ValueError as `bures_cosine` and `scale`.
    """
    cosine = bures_cosine(first, second)
    on = scale(first, n_neurons, draws, seed) if on is None else on
    if not on.resolved:
        return Similarity(0.0, 0.0, cosine, on)
    length = on.one - on.zero
    value = (cosine - on.zero) / length
    error = math.hypot((1 - value) * on.zero_error, value * on.one_error) / length
    return Similarity(value, error, cosine, on)


def eigenvector_cosines(first: Covariance, second: Covariance, n: int) -> Tensor:
    """|cosine| between the n leading eigenvectors of each (n, n): row = rank in `first`, column = rank in `second`.

    Ranks that a covariance does not have are zero. Between random directions of C_in inputs about 1/√C_in is expected.
    """
    a, b = first.vectors[:, :n], second.vectors[:, :n]
    found = torch.zeros(n, n, dtype=torch.float64, device=a.device)
    found[: a.shape[1], : b.shape[1]] = product(a.T, b).abs()
    return found


def _eigen(covariance: Covariance | Tensor) -> Covariance:
    return of_dense(covariance, len(covariance)) if isinstance(covariance, Tensor) else covariance


def _own_basis(learned: Covariance) -> Covariance:
    """The same covariance with its eigenvectors as the first axes."""
    n_inputs, rank = learned.vectors.shape
    axes = torch.eye(n_inputs, rank, dtype=torch.float64, device=learned.values.device)
    return learned._replace(vectors=axes)


def _frames(learned: Covariance, draws: int, random: torch.Generator):
    """What uniformly random rotations make of the eigenvectors: the Q of Gaussian columns."""
    for _ in range(draws):
        drawn = torch.randn(learned.vectors.shape, generator=random, dtype=torch.float64)
        yield torch.linalg.qr(drawn)[0].to(learned.values.device)
