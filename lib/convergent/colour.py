"""Brightness and opponent colours of images (n, 3, size, size)."""

import torch
from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709, for screen values as in scikit-image's rgb2gray, and for linear light


def luma(pixels: Tensor) -> Tensor:
    """Brightness (n, 1, size, size): the weighted mean of red, green and blue, in the unit of `pixels`."""
    return (pixels * pixels.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def opponent(screen: Tensor) -> Tensor:
    """Every colour of sRGB images in [0, 1] becomes its opponent of the same luminance.

    In linear light a colour is its luminance along the grey axis, and a chromatic rest that has no luminance. The
    rest changes sign: that is what inverting both chromatic axes of any opponent space does, also of that of Derrington
    et al. (1984), which Geirhos et al. (2018) use. Where the opponent is no colour of a screen, it is taken less
    saturated.
    """
    linear = to_light(screen)
    grey = luma(linear)
    rest = grey - linear
    # The largest share of the rest that keeps all channels between 0 and 1.
    room = torch.where(rest > 0, 1 - grey, grey) / rest.abs().clamp(min=1e-12)
    return _to_screen(grey + rest * room.amin(1, keepdim=True).clamp(max=1))


def to_light(screen: Tensor) -> Tensor:
    """sRGB values in [0, 1] to linear light (IEC 61966-2-1)."""
    return torch.where(screen <= 0.04045, screen / 12.92, ((screen + 0.055) / 1.055) ** 2.4)


def _to_screen(linear: Tensor) -> Tensor:
    bright = linear.clamp(min=0)
    return torch.where(bright <= 0.0031308, 12.92 * bright, 1.055 * bright ** (1 / 2.4) - 0.055)
