"""Gabor filters: what theory says the first stage of vision computes (Jones & Palmer 1987)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from .oracles import Reference

NYQUIST = 0.5  # cycles per pixel: a finer wave looks like a coarser one


class GaborBank(Reference):
    """Filters of several orientations and spatial frequencies that look at an image's luminance.

    Each is a cosine under a round Gaussian window, without mean and of unit length. The window's standard deviation is
    half a wavelength, so that all filters have the same bandwidth in octaves, but at most `kernel` / 5, so that it ends
    before the filter does: the coarsest waves have fewer cycles. The default is the bank of Srivastava, Soni & Khosla
    (2025, section 3.1), 12 orientations at 15 degrees and 9 frequencies, within Nyquist: theirs reach 2 cycles per
    pixel, which no image can hold.

    Parameters
    ----------
    size : height and width of the images in pixels
    orientations : number of orientations, evenly spaced over 180 degrees from 0 (vertical stripes) on
    frequencies : number of spatial frequencies, evenly spaced in octaves from `lowest` to `highest`
    lowest, highest : cycles per pixel; None: two cycles an image, and 0.4
    kernel : side of the filters in pixels, odd; None: a third of the image, from 7 to 21
    quadrature : give the energy of each filter and its sine partner, the length of the pair of responses, as complex
        cells do, instead of the linear response of a simple cell

    Attributes
    ----------
    filters : (n_units, kernel, kernel); with `quadrature` (2, n_units, kernel, kernel)
    angles, waves : (n_units,) orientation in degrees, and cycles per pixel

    Raises
    ------
    ValueError for frequencies above Nyquist or not in order, counts below 1, or a kernel that is even or larger than
    the image.
    """

    def __init__(
        self,
        size: int = 32,
        orientations: int = 12,
        frequencies: int = 9,
        lowest: float | None = None,
        highest: float = 0.4,
        kernel: int | None = None,
        quadrature: bool = False,
    ):
        lowest = 2 / size if lowest is None else lowest
        kernel = min(max(size // 3 | 1, 7), 21) if kernel is None else kernel
        if not 0 < lowest <= highest <= NYQUIST:
            raise ValueError(f"frequencies from {lowest} to {highest}: expected 0 < lowest <= highest <= {NYQUIST}")
        if orientations < 1 or frequencies < 1:
            raise ValueError(f"{orientations} orientations and {frequencies} frequencies: give at least 1 of each")
        if kernel % 2 == 0 or not 3 <= kernel <= size:
            raise ValueError(f"kernel={kernel}: expected an odd number of pixels from 3 to the image's {size}")
        self.size, self.kernel, self.quadrature = size, kernel, quadrature
        spaced = torch.logspace(math.log2(lowest), math.log2(highest), frequencies, base=2, dtype=torch.float64)
        turns = torch.arange(orientations, dtype=torch.float64) * 180 / orientations
        self.waves, self.angles = spaced.repeat_interleave(orientations), turns.repeat(frequencies)
        even, odd = (_filters(self.angles, self.waves, kernel, phase) for phase in (0.0, math.pi / 2))
        self.filters = (torch.stack([even, odd]) if quadrature else even).float()
        self.n_units = orientations * frequencies

    def __call__(self, images: Tensor, which: Tensor | None = None, shape: tuple[int, int] | None = None) -> Tensor:
        """Response maps, one value a pixel or, with `shape`, at the centres of the cells of a layer's map."""
        padded = self._padded(images)
        maps = self._pooled(conv2d(padded[:, None], self._weights(images.device)))
        if shape is None:
            return maps
        rows, columns = (_centres(n, maps.shape[2 + i]) for i, n in enumerate(shape))
        return maps[:, :, rows][:, :, :, columns]

    def at(self, images: Tensor, points: Tensor, which: Tensor | None = None) -> Tensor:
        # Of the places that are looked at only: a thirtieth of the work of whole maps.
        windows = self._padded(images).unfold(1, self.kernel, 1).unfold(2, self.kernel, 1)
        cells = (points.to(images.device) * torch.tensor(images.shape[2:], device=images.device)).long()
        image = torch.arange(len(images), device=images.device)[:, None].expand(cells.shape[:2])
        patches = windows[image, cells[..., 0], cells[..., 1]].flatten(0, 1).flatten(1)
        answers = patches @ self._weights(images.device).flatten(1).T
        return self._pooled(answers)

    def _weights(self, where) -> Tensor:
        self.filters = self.filters.to(where)
        return self.filters.reshape(-1, 1, self.kernel, self.kernel)

    def _pooled(self, answers: Tensor) -> Tensor:
        if not self.quadrature:
            return answers
        even, odd = answers[:, : self.n_units], answers[:, self.n_units :]
        return (even.square() + odd.square()).sqrt()

    def _padded(self, images: Tensor) -> Tensor:
        """Luminance (n, height, width), mirrored at the border by half a filter, so that maps are as large as images.

        Raises
        ------
        ValueError for images of another size.
        """
        if images.shape[2:] != (self.size, self.size):
            raise ValueError(f"these filters are for images of {self.size} pixels, not {tuple(images.shape[2:])}")
        luminance = images.float().mean(1) / (255 if images.dtype == torch.uint8 else 1)
        return pad(luminance, (self.kernel // 2,) * 4, mode="reflect")


def _centres(n: int, size: int) -> Tensor:
    """Pixels at the centres of n equal cells of `size` pixels."""
    return ((torch.arange(n) + 0.5) * size / n).long()


def _filters(angles: Tensor, waves: Tensor, kernel: int, phase: float) -> Tensor:
    """(n, kernel, kernel), of zero mean and unit length."""
    half = kernel // 2
    y, x = torch.meshgrid(*[torch.arange(-half, half + 1, dtype=torch.float64)] * 2, indexing="ij")
    turns, waves = torch.deg2rad(angles)[:, None, None], waves[:, None, None]
    spread = (0.5 / waves).clamp_max(kernel / 5)
    window = torch.exp(-(x**2 + y**2) / (2 * spread**2))
    filters = window * torch.cos(2 * math.pi * waves * (x * turns.cos() + y * turns.sin()) - phase)
    filters = filters - window * (filters.sum((1, 2)) / window.sum((1, 2)))[:, None, None]
    return filters / filters.square().sum((1, 2), keepdim=True).sqrt()
