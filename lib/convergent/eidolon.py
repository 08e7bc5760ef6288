"""Eidolons: images whose parts, scale by scale, have been moved a little from where they were.

Koenderink, Valsecchi, van Doorn, Wagemans & Gegenfurtner (2017), "Eidolons: Novel stimuli for vision research".
An image is cut into layers of scale that add up to it; each layer is warped by a random displacement field; the warped
layers are added up again. *Reach* is how far things are moved, *grain* how smoothly the field changes from place to
place, *coherence* how far all layers are moved together: at 1 the whole image is warped as if painted on rubber, at
0 every layer goes its own way.

Ours is written from that description. The Eidolon factory, the authors' program, differs in how it mixes the two fields
and lets displacements grow with scale.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .shifts_spectrum import blurs, smooth_noise

REFERENCE_SIZE = 224  # pixels of the images for which Geirhos et al. (2018) give reach and grain


def sigmas(size: int) -> list[float]:
    """Blurs (pixels) between the layers of an image: from 1/sqrt(2) in steps of sqrt(2) to a quarter of its size."""
    steps = math.floor(2 * math.log2(size / 4 * math.sqrt(2)) + 1e-9)
    return [2 ** ((step - 1) / 2) for step in range(steps + 1)]


def scale_space(pixels: Tensor) -> Tensor:
    """Differences of Gaussians, finest first, and what is left of the image after the last blur.

    Parameters
    ----------
    pixels : (n, channels, size, size)

    Returns
    -------
    (n_layers, n, channels, size, size); their sum is the image. There is one layer more than `sigmas`.
    """
    stack = [pixels, *blurs(pixels, sigmas(pixels.shape[-1]))]
    return torch.stack([fine - coarse for fine, coarse in zip(stack, stack[1:], strict=False)] + [stack[-1]])


def displaced(pixels: Tensor, field: Tensor) -> Tensor:
    """Every pixel takes the value that lies `field` away from it, between pixels linearly, mirrored at the borders.

    Parameters
    ----------
    pixels : (n, channels, size, size)
    field : (n, 2, size, size), to the right and down, in pixels
    """
    size = pixels.shape[-1]
    centres = (2 * torch.arange(size, dtype=pixels.dtype, device=pixels.device) + 1) / size - 1
    down, right = torch.meshgrid(centres, centres, indexing="ij")
    grid = torch.stack([right, down]) + field * (2 / size)
    return grid_sample(pixels, grid.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False)


def eidolon(pixels: Tensor, common: Tensor, own: Tensor, reach: float, coherence: float, grain: float) -> Tensor:
    """The eidolons of images.

    Parameters
    ----------
    pixels : (n, channels, size, size)
    common : (n, 2, size, size), white noise of variance 1 for the displacement that all layers share
    own : (n, n_layers, 2, size, size), likewise for that of each layer of `scale_space`
    reach : standard deviation of a displacement, along each axis, in pixels of a 224-pixel image
    coherence : weight of the common displacement against the layer's own, 0 to 1; the variance of their sum is the
        same at every coherence
    grain : blur of the displacement fields, in pixels of a 224-pixel image

    Returns
    -------
    (n, channels, size, size)
    """
    scale = pixels.shape[-1] / REFERENCE_SIZE
    common, own = smooth_noise(common, grain * scale), smooth_noise(own, grain * scale)
    share = reach * scale / math.hypot(coherence, 1 - coherence)
    total = torch.zeros_like(pixels)
    for k, layer in enumerate(scale_space(pixels)):
        total += displaced(layer, share * (coherence * common + (1 - coherence) * own[:, k]))
    return total
