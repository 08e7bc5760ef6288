"""What the spatial filters of a network have in common: eigenvectors of their covariance."""

import torch
from torch import Tensor


def spatial_covariance(filters: Tensor) -> Tensor:
    """Covariance of the filters of one layer over pixels, averaged over input and output channels.

    Not centred, as in Trockman et al. (2023): the mean filter is part of what a layer does to space.

    Parameters
    ----------
    filters : (n_out, n_in, k, k)

    Returns
    -------
    (k², k²) tensor, float64

    Raises
    ------
    ValueError for another number of dimensions, or filters that are not square.
    """
    if filters.ndim != 4 or filters.shape[2] != filters.shape[3]:
        raise ValueError(f"filters have shape {tuple(filters.shape)}: expected (n_out, n_in, k, k)")
    rows = filters.detach().double().flatten(2).flatten(0, 1)
    return rows.T @ rows / len(rows)


def eigenvectors(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues from large to small, (d,), and the unit eigenvectors as rows, (d, d), of a covariance (d, d)."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return values.flip(0).clamp_min(0), vectors.flip(1).T
