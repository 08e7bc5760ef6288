"""Shifts that draw an image anew: sketch, edge, silhouette, stylised, cue conflict.

Of the cave they are exact, from its latents. Of other images only `sketch` and a stand-in for `stylised` can be
computed; their silhouettes, edges and cue conflicts are those of Geirhos et al. (2019), see `convergent.geirhos`.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from . import cave
from .cave_latents import columns
from .colour import luma
from .shifts_spectrum import blurred, blurs

_FINER = 4  # outlines are drawn on a grid so much finer, then averaged
_TILES = 4  # elements of a cue conflict along an image's side


def _three(grey: Tensor) -> Tensor:
    return grey.expand(-1, 3, -1, -1)


# The cave, from its latents


def silhouette(latents: pd.DataFrame, size: int) -> Tensor:
    """The object in black on white: 255 times what `cave.masks` leaves uncovered. (n, 3, size, size), float64."""
    return 255 * (1 - _three(cave.masks(latents, size)[:, None].double()))


def outline(latents: pd.DataFrame, size: int) -> Tensor:
    """How much of each pixel the object's outline covers, (n, 1, size, size) in [0, 1]; the line is about a
    32nd of the image wide."""
    fine = cave.masks(latents, size * _FINER)[:, None].double()
    reach = max(1, round(size * _FINER / 64))
    window = {"kernel_size": 2 * reach + 1, "stride": 1, "padding": reach}
    border = max_pool2d(fine, **window) + max_pool2d(-fine, **window)
    return avg_pool2d(border, _FINER)


def edge(latents: pd.DataFrame, size: int) -> Tensor:
    """The object's outline in black on white, (n, 3, size, size)."""
    return 255 * (1 - _three(outline(latents, size)))


def cave_sketch(latents: pd.DataFrame, size: int) -> Tensor:
    """The object's outline, and the object hatched where it is dark; the paper stays white. (n, 3, size, size)."""
    surface, _, mask = (part.double() for part in cave.components(latents, size))
    hatched = _hatching(luma(surface.clamp(max=255)))
    ink = torch.maximum(outline(latents, size), hatched * (mask[:, None] > 0.5))
    return 255 * (1 - _three(ink))


def cave_stylised(latents: pd.DataFrame, size: int, rngs: list[np.random.Generator]) -> Tensor:
    """Object and background both take the texture of one photograph, which was in neither. (n, 3, size, size).

    Two crops of it, so that the object shows by its outline, tint and light only. In the cave no object has the texture
    of its own background: that is what makes it a shift, since the photographs themselves are those of the cave.
    """
    codes = np.stack([columns(latents)[name] for name in ("surface", "background")], 1)
    photos = len(cave.SURFACES)
    new = [rng.choice(np.setdiff1d(np.arange(photos), own)) for rng, own in zip(rngs, codes, strict=True)]
    style = pd.Categorical.from_codes(new, list(cave.SURFACES))
    crops = pd.DataFrame([rng.random(len(cave.CROPS)) for rng in rngs], columns=list(cave.CROPS), index=latents.index)
    return cave.draw(latents.assign(surface=style, background=style, **crops), size).double()


def elements(latents: pd.DataFrame, rngs: list[np.random.Generator]) -> list[str]:
    """The shape of which each object will be made: another than its own. The first thing that is drawn from `rngs`."""
    others = [[shape for shape in cave.SHAPES if shape != own] for own in latents["shape"].astype(str)]
    return [str(rng.choice(names)) for rng, names in zip(rngs, others, strict=True)]


def cave_cue_conflict(latents: pd.DataFrame, size: int, rngs: list[np.random.Generator]) -> Tensor:
    """The object is made of many small objects of another shape: its outline says one class, its texture another.

    The cave's classes are shapes, and its photographs go with all of them alike, so that exchanging a photograph
    sets no cue against another. What stands for a class locally is a small shape. So the texture is a tiling of those,
    as in Navon (1977): bright elements in the colours of the object's own surface, with darker gaps, so that the
    outline stays whole.
    (n, 3, size, size), float64.
    """
    made_of = elements(latents, rngs)
    turns = [360 * rng.random() for rng in rngs]
    tile = max(8, size // _TILES)
    place = {"x": 0.0, "y": 0.0, "size": 0.95}
    small = latents.assign(shape=pd.Categorical(made_of, list(cave.SHAPES)), rotation=turns, **place)
    tiles = cave.masks(small, tile).double().numpy()
    at = np.arange(size)
    starts = [rng.integers(tile, size=2) for rng in rngs]
    pattern = [one[np.ix_((at + i) % tile, (at + j) % tile)] for one, (i, j) in zip(tiles, starts, strict=True)]
    surface, background, mask = (part.double() for part in cave.components(latents, size))
    surface = surface * (0.4 + 0.8 * torch.from_numpy(np.stack(pattern)))[:, None]
    return (background + mask[:, None] * (surface - background)).clamp(max=255)


# Any image


def sketch(pixels: Tensor) -> Tensor:
    """A line drawing of images (n, 3, size, size): strokes on the dark side of edges, hatching where it is dark.

    Strokes are where a difference of Gaussians of the brightness is negative, the classical model of a line drawing
    (Marr & Hildreth 1980; Winnemöller et al. 2012). It keeps strong edges and drops faint ones. Drawings of people
    leave out far more, and choose better.
    """
    bright, unit = luma(pixels), pixels.shape[-1] / 32
    narrow, wide = blurs(bright, [0.5 * unit, 1.0 * unit])
    strokes = ((wide - narrow - 5) / 12).clamp(0, 1)
    return 255 * (1 - _three(torch.maximum(strokes, _hatching(blurred(bright, unit)))))


def _hatching(bright: Tensor) -> Tensor:
    """Ink (n, 1, size, size): one set of diagonal strokes where brightness is below 110, crossed by another below 55.

    Strokes lie an eighth of the image apart and are a 32nd wide.
    """
    size = bright.shape[-1]
    down, right = torch.meshgrid(*2 * [torch.arange(size, device=bright.device)], indexing="ij")
    period, width = max(4, size // 8), max(1, size // 32)
    falling, rising = ((down + sign * right) % period < width for sign in (1, -1))
    return 0.6 * ((falling & (bright < 110)) | (rising & (bright < 55))).double()


def stylised(pixels: Tensor, styles: Tensor) -> Tensor:
    """The layout of one image in colours and texture of another: a stand-in for style transfer. (n, 3, size, size).

    Geirhos et al. (2019) repaint images by a network (AdaIN, Huang & Belongie 2017) in the style of paintings. Here
    no network takes part. The image gets the mean colour and the colour covariance of `styles`; then, scale by scale,
    the values of each difference of Gaussians are exchanged for those of the style, rank by rank (the first step of
    Heeger & Bergen 1995); in the two finest scales, half of the variance is the style's own detail where it is.
    So the style's statistics are matched one scale at a time only, and no painting is involved.

    Parameters
    ----------
    pixels, styles : (n, 3, size, size)
    """
    unit = pixels.shape[-1] / 32
    recoloured = _recoloured(pixels, styles)
    blur = [unit, 2 * unit, 4 * unit, 8 * unit]
    ours, theirs = ([x, *blurs(x, blur)] for x in (recoloured, styles))
    total = _ranked(ours[-1], theirs[-1])
    for k in range(len(blur)):
        layer = theirs[k] - theirs[k + 1]
        matched = _ranked(ours[k] - ours[k + 1], layer)
        total = total + ((matched + layer) / 2**0.5 if k < 2 else matched)
    return total


def _ranked(values: Tensor, wanted: Tensor) -> Tensor:
    """`values` with the distribution of `wanted`, image by image and channel by channel: the order stays."""
    ranks = values.flatten(2).argsort(dim=2, stable=True).argsort(2)
    return wanted.flatten(2).sort(2).values.gather(2, ranks).reshape(values.shape)


def _recoloured(pixels: Tensor, styles: Tensor) -> Tensor:
    """The linear map of colours with the least change that gives an image the style's mean and covariance of colours
    (Pitié & Kokaram 2007)."""
    points = [x.flatten(2) for x in (pixels, styles)]
    means = [x.mean(2, keepdim=True) for x in points]
    eye = 0.1 * torch.eye(3, dtype=pixels.dtype, device=pixels.device)  # grey levels squared: grey images are flat
    ours, theirs = ((x - m) @ (x - m).mT / x.shape[2] + eye for x, m in zip(points, means, strict=True))
    root = _power(ours, 0.5)
    back = _power(ours, -0.5)
    change = back @ _power(root @ theirs @ root, 0.5) @ back
    return (change @ (points[0] - means[0]) + means[1]).reshape(pixels.shape)


def _power(matrices: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp(min=1e-12).pow(exponent)[:, None]) @ vectors.mT
