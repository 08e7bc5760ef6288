"""The causes behind the cave: which latents a scene has, how they are drawn, and how they are checked.

`convergent.cave` turns them into pictures, `convergent.cave_observers` into captions and voxels.
"""

from difflib import get_close_matches
from numbers import Integral, Real

import numpy as np
import pandas as pd

SHAPES = (
    "disc", "square", "triangle", "star", "ring", "cross", "crescent", "bar", "hexagon", "half_disc",
)  # fmt: skip
SURFACES = (
    "astronaut", "chelsea", "coffee", "rocket", "retina", "motorcycle", "brick", "grass", "gravel",
    "immunohistochemistry", "camera", "coins", "moon", "hubble_deep_field", "china", "flower",
)  # fmt: skip
TINTS = ("red", "yellow", "green", "blue", "purple", "white")

CATEGORIES = {"shape": SHAPES, "surface": SURFACES, "background": SURFACES, "tint": TINTS}
# Lengths are in half-widths of the picture (its edges are at -1 and 1, y points up), angles in degrees
# counter-clockwise from the right. A shape of size 0.65 at x = 0.35 just touches the edge.
RANGES = {
    "size": (0.3, 0.65),
    "x": (-0.4, 0.4),
    "y": (-0.4, 0.4),
    "rotation": (0.0, 360.0),
    "gain": (0.6, 1.2),
    "light": (0.0, 360.0),
}
LATENTS = (*CATEGORIES, *RANGES)
CROPS = ("surface_u", "surface_v", "background_u", "background_v")
# Crop corners lie on a grid, so that pictures of 32, 64, 96, ... pixels show the very same crop.
CROP_STEPS = 96


def sample(n, seed=0, fixed=None):
    """Draw the latents of `n` scenes.

    The latents are independent and uniform (RANGES, CATEGORIES) with one exception: the background is
    uniform over the 15 photographs that are not the surface's, so that an object is never hidden in its own
    texture unless `fixed` says so. Each latent has a random stream of its own: the first k scenes of
    `sample(n, seed)` are `sample(k, seed)`, and fixing one latent leaves all others as they were
    (a fixed background redraws the surface, which must differ from it).

    Parameters
    ----------
    n : int
        Number of scenes, at least 1.
    seed : int
        Non-negative.
    fixed : dict, optional
        Latents held at one value, e.g. ``{"shape": "disc", "x": 0.0}``. Numbers outside RANGES are welcome.

    Returns
    -------
    DataFrame (n, 14): LATENTS (the first four categorical, with all categories in order, so that
    ``.cat.codes`` is a label), then CROPS, the places in [0, 1] where the two photographs were cut.

    Raises
    ------
    ValueError
        For an `n` or a `seed` that is no such whole number, and for a latent or a value that does not exist.
    """
    whole("n", n, 1)
    whole("seed", seed, 0)
    fixed = dict(fixed or {})
    for name in fixed:
        known("latent", name, LATENTS + CROPS)
    streams = np.random.SeedSequence(int(seed)).spawn(len(LATENTS + CROPS))
    uniform = {
        name: np.random.Generator(np.random.PCG64(stream)).random(n)
        for name, stream in zip(LATENTS + CROPS, streams, strict=True)
    }

    drawn = {name: _choose(uniform[name], len(classes)) for name, classes in CATEGORIES.items()}
    # One of the other 15: a step of 1 to 15 around the circle of photographs.
    step = 1 + _choose(uniform["background"], len(SURFACES) - 1)
    if "background" in fixed:
        held = _code("background", fixed["background"])
        step = 1 + _choose(uniform["surface"], len(SURFACES) - 1)
        drawn["surface"] = (held + step) % len(SURFACES)
    else:
        surface = _code("surface", fixed["surface"]) if "surface" in fixed else drawn["surface"]
        drawn["background"] = (surface + step) % len(SURFACES)
    for name, (low, high) in RANGES.items():
        drawn[name] = np.round(low + (high - low) * uniform[name], 6)
    for name in CROPS:
        drawn[name] = _choose(uniform[name], CROP_STEPS + 1) / CROP_STEPS

    for name, value in fixed.items():
        held = _code(name, value) if name in CATEGORIES else _number(name, value)
        drawn[name] = np.full(n, held)
    return pd.DataFrame(
        {
            name: pd.Categorical.from_codes(drawn[name], CATEGORIES[name]) if name in CATEGORIES else drawn[name]
            for name in LATENTS + CROPS
        }
    )


def columns(latents):
    """A latents frame, perhaps edited by hand, as checked arrays: codes for categories, float64 for numbers.

    Raises ValueError for a missing column, an unknown category, and a number that is not finite or makes no
    scene (size <= 0, gain < 0, a crop outside [0, 1]).
    """
    if not isinstance(latents, pd.DataFrame) or len(latents) == 0:
        raise ValueError("latents must be a DataFrame with at least one row, as cave.sample makes it.")
    missing = [name for name in LATENTS + CROPS if name not in latents]
    if missing:
        raise ValueError(f"latents lacks the columns {missing}. Start from cave.sample(n) and edit what you need.")
    arrays = {}
    for name, classes in CATEGORIES.items():
        codes = pd.Index(classes).get_indexer(latents[name].astype(object))
        for row in np.flatnonzero(codes < 0)[:1]:
            known(name, latents[name].iloc[row], classes)
        arrays[name] = codes
    for name in (*RANGES, *CROPS):
        values = pd.to_numeric(latents[name]).to_numpy(np.float64)
        for row in np.flatnonzero(~_possible(name, values))[:1]:
            _number(name, values[row])
        arrays[name] = np.round(values, 6) if name in RANGES else values
    return arrays


def whole(name, value, least):
    """Raise ValueError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}: it must be a whole number of at least {least}.")


def known(kind, value, allowed):
    """Raise ValueError, with the nearest names, unless `value` is one of `allowed`."""
    if value in allowed:
        return
    near = get_close_matches(str(value), allowed, n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"unknown {kind} {value!r}: one of {', '.join(allowed)}.{hint}")


def _code(name, value):
    known(name, value, CATEGORIES[name])
    return CATEGORIES[name].index(value)


def _number(name, value):
    if not isinstance(value, Real) or isinstance(value, bool) or not _possible(name, np.float64(value)):
        wanted = {"size": "above 0", "gain": "of at least 0"}.get(name, "finite")
        wanted = "in [0, 1]" if name in CROPS else wanted
        raise ValueError(f"{name} is {value!r}: it must be a number {wanted}.")
    return float(value)


def _possible(name, values):
    fine = np.isfinite(values)
    if name == "size":
        fine &= values > 0
    if name == "gain":
        fine &= values >= 0
    if name in CROPS:
        fine &= (values >= 0) & (values <= 1)
    return fine


def _choose(uniform, n_classes):
    return np.floor(uniform * n_classes).astype(np.int64)
