"""What networks have learned in their weights."""

import numpy as np
from torch import Tensor, nn


def first_filters(network: nn.Module) -> Tensor:
    """Weights of a network's first convolution, (n_filters, n_channels, height, width), on the CPU.

    Raises ValueError for a network without convolutions.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight.detach().cpu()
    raise ValueError(f"{type(network).__name__} has no convolution, so it has no filters to look at")


def orientation_selectivity(filters) -> np.ndarray:
    """How far each filter prefers one orientation over the others.

    The power spectrum of the filter, summed over its channels, as a distribution over orientations θ: the length of
    its mean vector, |Σ P exp(2iθ)| / Σ P (one minus the circular variance; Ringach et al. 2002, eq. 1). A grating
    of many stripes has nearly 1, a spot 0; small random filters lie between, so compare with untrained ones.

    Parameters
    ----------
    filters : (n_filters, n_channels, height, width)

    Returns
    -------
    (n_filters,) array in [0, 1]

    Raises
    ------
    ValueError for filters of one pixel, or one that is constant zero.
    """
    filters = np.asarray(filters, dtype=np.float64)
    if filters.ndim != 4 or min(filters.shape[2:]) < 2:
        raise ValueError(
            f"filters have shape {filters.shape}: expected (n_filters, n_channels, height, width), over 1x1"
        )
    size = 32  # zero-padded: a fine grid of frequencies
    power = (np.abs(np.fft.fft2(filters, (size, size))) ** 2).sum(1)
    down, across = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    # Frequencies inside the circle only: the corners of the square would favour diagonals.
    ring = (np.hypot(down, across) <= 0.5) & (np.hypot(down, across) > 0)
    weight = power[:, ring]
    if not (weight.sum(1) > 0).all():
        raise ValueError("a filter has no power at any frequency: is it constant zero?")
    doubled = np.exp(2j * np.arctan2(down, across)[ring])
    return np.abs(weight @ doubled) / weight.sum(1)
