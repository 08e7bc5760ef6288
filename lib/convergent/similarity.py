"""Similarities of two layers that are functions of their second moments over all stimuli."""

import torch
from torch import Tensor

from .linear_algebra import eigh, product
from .mappings import nuclear_norm, rank_floor
from .moments import Layer, Pair


def cka(pair: Pair) -> float:
    """Linear CKA (Kornblith et al. 2019, eq. 3)."""
    pair = pair.compact_both()
    return _cross_square(pair) / (pair.x.scatter_square * pair.y.scatter_square) ** 0.5


def _cross_square(pair: Pair) -> float:
    """Sum of squares of the cross scatter. It bears rounding, so one product in the precision of the input will do."""
    if pair.x.rows is None or "products" in pair.__dict__:
        return float(pair.total.square().sum())
    dtype = torch.promote_types(pair.x.rows.dtype, pair.y.rows.dtype)
    cross = product(pair.x.rows.T.to(dtype), pair.y.rows.to(dtype))
    return float(cross.square().sum(dtype=torch.float64))


def shape_cosine(pair: Pair) -> float:
    """Nuclear norm of the cross scatter over the Frobenius norms (Williams et al. 2021, eq. 5)."""
    pair = pair.compact_both()
    x, y = (float((z.squares.sum(0) - z.sums.sum(0) ** 2 / sum(z.counts)).sum()) for z in (pair.x, pair.y))
    return min(nuclear_norm(pair.total / (x * y) ** 0.5), 1.0)


def debiased_cka(pair: Pair) -> float:
    """CKA with HSIC1 (Song et al. 2012, eq. 5) in numerator and denominators.

    Raises
    ------
    ValueError for fewer than 4 stimuli, or where the estimate of a layer's own HSIC is not positive.
    """
    pair = pair.compact_both()
    n_stimuli = sum(pair.x.counts)
    if n_stimuli < 4:
        raise ValueError(f"{n_stimuli} stimuli are too few to debias CKA: at least 4 are needed, better hundreds")
    own = [
        _hsic1(z.scatter_square, z.norm_sums[1], z.norm_sums[0], z.norm_sums[0], n_stimuli) for z in (pair.x, pair.y)
    ]
    if min(own) <= 0:
        raise ValueError(
            f"the unbiased HSIC of {'X' if own[0] <= 0 else 'Y'} with itself is not positive: its stimuli are too "
            "alike to debias CKA; use more stimuli, or debiased=False"
        )
    cross = _hsic1(_cross_square(pair), pair.norm_product, pair.x.norm_sums[0], pair.y.norm_sums[0], n_stimuli)
    return cross / (own[0] * own[1]) ** 0.5


def _hsic1(squares: float, diagonal: float, trace_x: float, trace_y: float, m: int) -> float:
    """Unbiased HSIC times m (m - 3), for centred linear kernels K and L with their diagonals set to zero.

    `squares` is tr KL, `diagonal` the sum of k_ii l_ii, `trace` that of k_ii; rows of centred kernels sum to zero.
    """
    return squares - diagonal * (1 + 2 / (m - 2)) + trace_x * trace_y / ((m - 1) * (m - 2))


def cca(pair: Pair) -> float:
    """Mean of the min(rank x, rank y) canonical correlations (Hotelling 1936)."""
    return float(_canonical(pair.compact_both())[0].mean())


def svcca(pair: Pair, variance: float) -> float:
    """`cca` between the components that keep `variance` of each side (Raghu et al. 2017)."""
    return float(_canonical(pair.compact_both(), variance)[0].mean())


def pwcca(pair: Pair) -> float:
    """Canonical correlations, weighted by how much of x each direction accounts for (Morcos et al. 2018, eq. 4)."""
    correlations, loadings = _canonical(pair)
    weights = loadings.abs().sum(0)
    return float((correlations * weights).sum() / weights.sum())


def _canonical(pair: Pair, variance: float = 1.0) -> tuple[Tensor, Tensor]:
    """Canonical correlations (n,), and the covariances of x's units with its canonical variates (n_units_x, n)."""
    (root_x, whiten_x), (_, whiten_y) = (_whitening(z, variance) for z in (pair.x, pair.y))
    between = product(whiten_x.T, product(pair.total, whiten_y))
    left, correlations, _ = torch.linalg.svd(between, full_matrices=False)
    return correlations.clamp(max=1), root_x @ left


def _whitening(layer: Layer, variance: float) -> tuple[Tensor, Tensor]:
    """Square root and inverse square root of a scatter on its leading directions, (n_units, n_kept) each."""
    # All directions count alike unless only leading ones are kept: then units of very different size are brought to
    # one, so that a small one is not taken for rounding of a large one.
    alike = variance == 1 and not layer.rotated
    sizes = layer.total.diagonal().sqrt() if alike else torch.ones_like(layer.total[0])
    noise = layer.noise / float(sizes.median()) ** 2
    values, vectors = eigh(layer.total / sizes[:, None] / sizes)
    kept = values > rank_floor(values, noise)
    if variance < 1:
        # Without the smallest directions whose variance together is less than what may go; rounding must not decide.
        below = values.clamp_min(0).cumsum(0) / values.clamp_min(0).sum()
        kept &= below > (1 - variance) * (1 - 1e-12)
    vectors, values = vectors[:, kept], values[kept].sqrt()
    return vectors * values * sizes[:, None], vectors / values / sizes[:, None]
