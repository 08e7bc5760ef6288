"""The cave's scenes as pictures: photographs cut to shape, tinted, lit, and laid over other photographs.

The same latents give the same bytes in every process and on every processor. For this, sines and cosines are
taken of single latents only, in float64 and rounded to 1e-6, and pixels see nothing but additions,
multiplications, divisions, square roots, minima and maxima, which IEEE 754 fixes to the last bit.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image

from convergent.cave_latents import SHAPES, SURFACES, columns, sample, whole

_PHOTOGRAPHS = {
    "scikit-image": (
        "skimage", "data",
        {"astronaut": "astronaut.png", "chelsea": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg",
         "retina": "retina.jpg", "motorcycle": "motorcycle_left.png", "brick": "brick.png", "grass": "grass.png",
         "gravel": "gravel.png", "immunohistochemistry": "ihc.png", "camera": "camera.png", "coins": "coins.png",
         "moon": "moon.png", "hubble_deep_field": "hubble_deep_field.jpg"},
    ),
    "scikit-learn": ("sklearn", "datasets/images", {"china": "china.jpg", "flower": "flower.jpg"}),
}  # fmt: skip
# A picture shows a quarter of the width of a photograph's central square: at 32 pixels, bricks are still bricks.
_ZOOM = 4
_TINTS = np.array(
    [[1.30, 0.55, 0.50], [1.20, 1.05, 0.40], [0.55, 1.10, 0.55],
     [0.50, 0.70, 1.40], [1.05, 0.55, 1.20], [1.05, 1.05, 1.05]], np.float32,
)  # fmt: skip
_LIGHT = np.float32(0.4)  # the lit side of an object is 40 % brighter, the far side 40 % darker
_BLOCK_PIXELS = 2**16  # pixels worked on at a time: what stays in a processor's cache
_LOADING = Lock()  # the first thread reads the photographs, the others wait for them


def render(n, seed=0, size=32, fixed=None):
    """Draw `n` scenes and their pictures; see `sample` for `n`, `seed` and `fixed`, `draw` for `size`.

    Returns
    -------
    images : torch.uint8 (n, 3, size, size)
    latents : DataFrame (n, 14)
    """
    whole("size", size, 8)
    latents = sample(n, seed, fixed)
    return draw(latents, size), latents


def draw(latents, size=32):
    """Pictures of the scenes that a latents frame describes: change a column and draw again.

    Parameters
    ----------
    latents : DataFrame (n, 14)
        From `sample` or `render`, perhaps edited. Each row alone decides its picture.
    size : int
        Height and width in pixels, at least 8. Above 128 the photographs have no more detail to show.

    Returns
    -------
    torch.uint8 (n, 3, size, size)

    Raises
    ------
    ValueError
        For missing columns, unknown categories, impossible numbers, and a size below 8.
    FileNotFoundError
        When an installed scikit-image or scikit-learn lacks one of the photographs.
    """

    def paint(scenes):
        surface, background, mask = _components(scenes, size)
        surface -= background
        surface *= mask[:, None]
        surface += background
        np.minimum(surface, 255, out=surface)
        surface += np.float32(0.5)
        return (surface.astype(np.uint8),)  # floor(x + 0.5), as nothing is negative

    return _in_blocks(latents, size, paint, [(3, np.uint8)])[0]


def masks(latents, size=32):
    """How much of each pixel the object covers: 1 inside, 0 outside, between on the edge.

    Returns torch.float32 (n, size, size) in [0, 1], the very numbers that `draw` blends with.
    Same parameters and errors as `draw`.
    """
    return _in_blocks(latents, size, lambda scenes: (_mask(scenes, size),), [(None, np.float32)])[0]


def components(latents, size=32):
    """What `draw` blends, before it is rounded: for silhouettes, texture swaps and cue conflicts of your own.

    Returns
    -------
    surface, background : torch.float32 (n, 3, size, size)
        Brightness, 0 to 255 and above where it will be clipped. The surface fills the picture.
    mask : torch.float32 (n, size, size)
        ``floor(min(background + mask * (surface - background), 255) + 0.5)`` is the picture.

    Same parameters and errors as `draw`.
    """
    parts = [(3, np.float32), (3, np.float32), (None, np.float32)]
    return tuple(_in_blocks(latents, size, lambda scenes: _components(scenes, size), parts))


def _in_blocks(latents, size, work, parts):
    """Apply `work` to blocks of scenes of one shape on all cores; `parts` are (channels, dtype) of its results."""
    whole("size", size, 8)
    scenes = columns(latents)
    n = len(latents)
    results = [np.empty((n, *([channels] if channels else []), size, size), dtype) for channels, dtype in parts]
    step = max(1, _BLOCK_PIXELS // size**2)
    blocks = []
    for shape in range(len(SHAPES)):
        rows = np.flatnonzero(scenes["shape"] == shape)
        blocks += [rows[start : start + step] for start in range(0, len(rows), step)]

    def fill(rows):
        for result, part in zip(results, work({name: column[rows] for name, column in scenes.items()}), strict=True):
            result[rows] = part

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, blocks))
    return [torch.from_numpy(result) for result in results]


def _components(scenes, size):
    with _LOADING:
        surfaces, backgrounds = _photographs(size)
    surface = _crop(surfaces, scenes, "surface", size)
    background = _crop(backgrounds, scenes, "background", size)
    gain = scenes["gain"].astype(np.float32)[:, None, None, None]
    surface *= _TINTS[scenes["tint"]][:, :, None, None] * gain
    background *= gain
    x, y = _object_coordinates(scenes, size, "light")
    shade = x * _LIGHT
    shade += np.float32(1)
    # Far from the object the light would turn negative or glare; there only `components` can see it.
    surface *= np.clip(shade, 1 - _LIGHT, 1 + _LIGHT)[:, None]
    return surface, background, _mask(scenes, size)


def _crop(photographs, scenes, name, size):
    free = photographs.shape[-1] - size
    left = np.floor(scenes[f"{name}_u"] * free + 0.5).astype(np.int64)
    top = np.floor(scenes[f"{name}_v"] * free + 0.5).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(photographs, (size, size), axis=(2, 3))
    return windows[scenes[name], :, top, left].astype(np.float32)


def _object_coordinates(scenes, size, angle):
    """Pixel centres in units of the object's size around its centre, turned by a latent angle."""
    centres = (2 * np.arange(size) + 1) / size - 1
    radians = np.deg2rad(scenes[angle])
    cosine = (np.round(np.cos(radians), 6) / scenes["size"])[:, None]
    sine = (np.round(np.sin(radians), 6) / scenes["size"])[:, None]
    right = centres[None] - scenes["x"][:, None]
    up = -centres[None] - scenes["y"][:, None]

    def sum_of(along_row, along_column):
        return along_row.astype(np.float32)[:, None, :] + along_column.astype(np.float32)[:, :, None]

    return sum_of(cosine * right, sine * up), sum_of(-sine * right, cosine * up)


def _mask(scenes, size):
    x, y = _object_coordinates(scenes, size, "rotation")
    distance = _DISTANCES[SHAPES[scenes["shape"][0]]](x, y)
    distance *= (scenes["size"] * (-size / 2)).astype(np.float32)[:, None, None]
    distance += np.float32(0.5)
    return np.clip(distance, 0, 1, out=distance)


# Signed distances to the outlines of the shapes, negative inside; each fits the unit circle.
# Polygons are intersections of half-planes: exact along the edges, which is all that antialiasing needs.


def _circle(x, y, radius):
    return np.sqrt(x * x + y * y) - np.float32(radius)


def _box(x, y, half_width, half_height):
    return np.maximum(np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height))


def _triangle(x, y):
    side = np.float32(0.8660254) * np.abs(x) + np.float32(0.5) * y
    return np.maximum(side, -y) - np.float32(0.5)


def _star(x, y):
    # Five petals: the radius is 0.64 + 0.34 cos(5 angle), with the cosine as a polynomial of x/r and y/r.
    radius = np.maximum(np.sqrt(x * x + y * y), np.float32(1e-3))
    cosine, sine = y / radius, x / radius
    c2, s2 = cosine * cosine, sine * sine
    cosine5 = cosine * (c2 * c2 - 10 * (c2 * s2) + 5 * (s2 * s2))
    sine5 = sine * (s2 * s2 - 10 * (c2 * s2) + 5 * (c2 * c2))
    slope = np.float32(1.7) * sine5 / np.maximum(radius, np.float32(0.3))
    return (radius - np.float32(0.64) - np.float32(0.34) * cosine5) / np.sqrt(slope * slope + 1)


def _hexagon(x, y):
    x = np.abs(x)
    side = np.float32(0.5) * x + np.float32(0.8660254) * np.abs(y)
    return np.maximum(side, x) - np.float32(0.82)


_DISTANCES = {
    "disc": lambda x, y: _circle(x, y, 0.86),
    "square": lambda x, y: _box(x, y, 0.7, 0.7),
    "triangle": lambda x, y: _triangle(x, y),
    "star": _star,
    "ring": lambda x, y: np.abs(_circle(x, y, 0.73)) - np.float32(0.23),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95)),
    "crescent": lambda x, y: np.maximum(_circle(x + np.float32(0.12), y, 0.92),
                                        -_circle(x - np.float32(0.38), y, 0.75)),
    "bar": lambda x, y: _box(x, y, 0.96, 0.26),
    "hexagon": _hexagon,
    "half_disc": lambda x, y: np.maximum(_circle(x, y + np.float32(0.38), 0.92), -(y + np.float32(0.38))),
}  # fmt: skip


@lru_cache(maxsize=4)
def _photographs(size):
    """The photographs as surfaces and as backgrounds, each uint8 (16, 3, zoom * size, zoom * size)."""
    paths = _photograph_paths()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        backgrounds = np.stack(list(pool.map(lambda name: _shrunk(paths[name], _ZOOM * size), SURFACES)))
    # A surface keeps its texture, loses half of its own colour to the tint, and is nowhere black,
    # so that an object of stars at night still has a shape and a colour.
    photo = backgrounds.astype(np.int32)
    grey = (photo[:, :1] * 299 + photo[:, 1:2] * 587 + photo[:, 2:] * 114 + 500) // 1000
    surfaces = (2 * 40 * 255 + (255 - 40) * (photo + grey)) // (2 * 255)
    return surfaces.astype(np.uint8), backgrounds


def _photograph_paths():
    paths = {}
    for package, (module, folder, files) in _PHOTOGRAPHS.items():
        # Found without importing the package, which takes longer than all the drawing.
        home = Path(next(iter(find_spec(module).submodule_search_locations)))
        for name, file in files.items():
            paths[name] = home / folder / file
            if not paths[name].is_file():
                raise FileNotFoundError(
                    f"the photograph {name!r} ({folder}/{file}) is not in the installed {package} {version(package)}. "
                    f"The cave needs the pictures that come with its wheel: reinstall it with pip."
                )
    return paths


def _shrunk(path, pixels):
    """The central square of a photograph by averaging areas, in whole numbers: uint8 (3, pixels, pixels)."""
    photo = np.asarray(Image.open(path).convert("RGB"))
    side = min(photo.shape[:2])
    if path.stem == "retina":
        side = side * 2 // 3  # inside the black surround
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    photo = photo[top : top + side, left : left + side]
    area = _sums_over_length(_sums_over_length(photo, pixels).swapaxes(0, 1), pixels)
    return ((2 * area + side * side) // (2 * side * side)).astype(np.uint8).transpose(2, 1, 0)


def _sums_over_length(photo, pixels):
    """Rows of a photograph (side, ...) added up to `pixels` rows, side / pixels of them each, times `pixels`."""
    side = len(photo)
    until = np.zeros((side + 2, *photo.shape[1:]), np.int64)
    np.cumsum(photo, axis=0, out=until[1:-1])
    until[-1] = until[-2]
    # Edge i of the small picture lies part / pixels of the way through a row of the photograph.
    row, part = np.divmod(np.arange(pixels + 1) * side, pixels)
    part = part.reshape(-1, *[1] * (photo.ndim - 1))
    return np.diff(until[row] * (pixels - part) + until[row + 1] * part, axis=0)
