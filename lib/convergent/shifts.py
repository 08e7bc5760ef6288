"""Seventeen ways to leave the distribution that a network was trained on.

After Geirhos et al. (2018), "Generalisation in humans and deep neural networks" (twelve degradations), and Geirhos et
al. (2019), "ImageNet-trained CNNs are biased towards texture" (sketch, stylised, silhouette, edge, cue conflict): the
sets with which Kapoor et al. (2025) measure alignment out of distribution.

>>> harder = apply("contrast", images, level=3)          # uint8 (n, 3, size, size), like the images
>>> moved = shifted(data, "cue_conflict", level=1)       # a Split, with labels: what a chapter needs

**Levels.** Level 0 leaves images as they are; level k takes the k-th of a shift's `levels`, mild to severe where it is
`graded`. Frequencies count in cycles an image, and lengths in pixels of a 224-pixel image (the size of the papers'
images), shrunk with the image: at 32 and at 64 pixels a level takes away the same details of the same objects.

**Differences from the papers**, which turn most images grey before they degrade them: here each shift changes one
thing, and colour stays (power equalisation works channel by channel, so it also moves hues). Noise is added at full
contrast, where theirs is lowered to 30 % first. Of their levels we take those that still differ at 32 pixels.

**Chance.** The randomness of image i depends on the seed, the shift and i only: not on the level (a harder level is
more of the same), nor on what else is in the batch.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import colour, geirhos, inputs, shifts_drawn
from . import shifts_spectrum as spectrum
from .eidolon import eidolon, sigmas

GRAIN = 10  # of eidolons, in pixels of a 224-pixel image (Geirhos et al. 2018)


class About(NamedTuple):
    """What a shift may need beside the pixels of a batch.

    rngs : one generator an image
    latents : rows of the cave's latents, or None
    reference : uint8 images of the set, for statistics of the whole
    numbers : (n,) numbers of the images in the set
    amplitude : mean amplitude spectrum of `reference`, for the shift that needs it
    """

    rngs: list[np.random.Generator]
    latents: pd.DataFrame | None
    reference: Tensor
    numbers: np.ndarray
    amplitude: Tensor | None

    def noise(self, draw: Callable, like: Tensor) -> Tensor:
        """`draw(rng)` for every image, as a tensor beside `like`."""
        return torch.from_numpy(np.stack([draw(rng) for rng in self.rngs])).to(like)


@dataclass(frozen=True)
class Shift:
    """One way to change images.

    Attributes
    ----------
    function : (pixels float64 (n, 3, size, size) in 0 to 255, value of the level, `About`) -> pixels, to be rounded and
        clipped
    levels : values of level 1, 2, ...
    unit : what the values mean; "" where there is one level
    description : one line
    source : author and year
    graded : whether a higher level is further from the image
    drawn : whether it is drawn from the cave's latents, so that other images do not have it
    """

    function: Callable[[Tensor, float, About], Tensor]
    levels: tuple
    unit: str
    description: str
    source: str
    graded: bool = False
    drawn: bool = False


def _greyscale(pixels, value, about):
    return colour.luma(pixels).expand_as(pixels)


def _contrast(pixels, percent, about):
    return 127.5 + (pixels - 127.5) * (percent / 100)


def _high_pass(pixels, cutoff, about):
    return spectrum.high_pass(pixels, cutoff)


def _low_pass(pixels, cutoff, about):
    return spectrum.low_pass(pixels, cutoff)


def _phase_scrambling(pixels, width, about):
    uniform = about.noise(lambda rng: rng.uniform(-1, 1, pixels.shape[2:]), pixels)
    return spectrum.phase_scrambled(pixels, uniform, width)


def _power_equalisation(pixels, value, about):
    return spectrum.power_equalised(pixels, about.amplitude)


def _false_colour(pixels, value, about):
    return 255 * colour.opponent(pixels / 255)


def _rotation(pixels, degrees, about):
    return pixels.rot90(degrees // 90, (2, 3))


def _eidolon(coherence):
    def function(pixels, reach, about):
        size, layers = pixels.shape[-1], len(sigmas(pixels.shape[-1])) + 1
        noise = about.noise(lambda rng: rng.standard_normal((1 + layers, 2, size, size)), pixels)
        return eidolon(pixels, noise[:, 0], noise[:, 1:], reach, coherence, GRAIN)

    return function


def _uniform_noise(pixels, width, about):
    return pixels + 255 * width * about.noise(lambda rng: rng.uniform(-1, 1, (1, *pixels.shape[2:])), pixels)


def _sketch(pixels, value, about):
    if about.latents is not None:
        return shifts_drawn.cave_sketch(about.latents, pixels.shape[-1])
    return shifts_drawn.sketch(pixels)


def _stylised(pixels, value, about):
    if about.latents is not None:
        return shifts_drawn.cave_stylised(about.latents, pixels.shape[-1], about.rngs)
    n = len(about.reference)
    # Any image of the set but the one with the same number.
    others = [(i + int(rng.integers(1, n))) % n for i, rng in zip(about.numbers, about.rngs, strict=True)]
    return shifts_drawn.stylised(pixels, about.reference[others].to(pixels))


def _silhouette(pixels, value, about):
    return shifts_drawn.silhouette(about.latents, pixels.shape[-1])


def _edge(pixels, value, about):
    return shifts_drawn.edge(about.latents, pixels.shape[-1])


def _cue_conflict(pixels, value, about):
    return shifts_drawn.cave_cue_conflict(about.latents, pixels.shape[-1], about.rngs)


_G18, _G19 = "Geirhos et al. 2018", "Geirhos et al. 2019"
_EIDOLON = f"Koenderink et al. 2017; {_G18}"
_REACH = (2, 4, 8, 16, 32, 64), "reach, pixels of 224"
_ONE = (1,), ""

SHIFTS: dict[str, Shift] = {
    "greyscale": Shift(_greyscale, *_ONE, "luma instead of colour", _G18),
    "contrast": Shift(_contrast, (50, 30, 15, 10, 5, 3), "% of contrast", "less contrast around mid-grey", _G18, True),
    "high_pass": Shift(
        _high_pass, (1.7, 3.4, 5.1, 7.3, 9.3, 11.3), "cycles an image", "coarse structure taken away", _G18, True
    ),
    "low_pass": Shift(_low_pass, (12, 7, 5, 3.5, 2.4, 0.9), "cycles an image", "fine structure taken away", _G18, True),
    "phase_scrambling": Shift(
        _phase_scrambling, (30, 60, 90, 120, 150, 180), "degrees", "phases moved at random, amplitudes kept",
        f"Wichmann et al. 2006; {_G18}", True,
    ),
    "power_equalisation": Shift(
        _power_equalisation, *_ONE, "all images with the mean amplitude spectrum", f"Wichmann et al. 2010; {_G18}"
    ),
    "false_colour": Shift(_false_colour, *_ONE, "opponent colours of the same luminance", _G18),
    "rotation": Shift(_rotation, (90, 180, 270), "degrees", "turned counter-clockwise", _G18),
    "eidolon_1": Shift(_eidolon(1.0), *_REACH, "parts moved, all scales together", _EIDOLON, True),
    "eidolon_2": Shift(_eidolon(0.3), *_REACH, "parts moved, scales partly together", _EIDOLON, True),
    "eidolon_3": Shift(_eidolon(0.0), *_REACH, "parts moved, each scale by itself", _EIDOLON, True),
    "uniform_noise": Shift(
        _uniform_noise, (0.05, 0.1, 0.2, 0.35, 0.6, 0.9), "half-width, share of full range",
        "uniform noise, the same in all channels", _G18, True,
    ),
    "sketch": Shift(_sketch, *_ONE, "a line drawing with hatching", _G19),
    "stylised": Shift(_stylised, *_ONE, "texture and colours of another image", _G19),
    "silhouette": Shift(_silhouette, *_ONE, "the object in black on white", _G19, drawn=True),
    "edge": Shift(_edge, *_ONE, "outlines in black on white", _G19, drawn=True),
    "cue_conflict": Shift(_cue_conflict, *_ONE, "shape of one class, texture of another", _G19, drawn=True),
}  # fmt: skip


def apply(
    name: str,
    images: Tensor,
    level: int,
    seed: int = 0,
    *,
    first: int = 0,
    latents: pd.DataFrame | None = None,
    reference: Tensor | None = None,
    batch_size: int = 250,
) -> Tensor:
    """Shifted images.

    Parameters
    ----------
    name : of `SHIFTS`
    images : uint8 (n, 3, size, size), 8 pixels or more, on any device
    level : 0 (none) to the number of the shift's levels
    seed : of what is random
    first : number of the first image, for images that come a part at a time
    latents : of the images where they are the cave's, one row an image. Sketch, stylised, silhouette, edge and cue
        conflict are then drawn from it; the last three need it
    reference : the whole set, for its mean amplitude spectrum (power equalisation) and as the source of styles
        (stylised, where there are no latents); by default the images themselves

    Returns
    -------
    uint8 (n, 3, size, size), on the device of the images

    Raises
    ------
    ValueError for an unknown name (with the nearest ones), a level or images that are not of that kind, latents that
    are missing or do not match.
    """
    shift = _known(name)
    level = inputs.whole(level, f"level of {name}", 0, len(shift.levels))
    seed, first = inputs.whole(seed, "seed", 0), inputs.whole(first, "first", 0)
    _check_images(images, "images")
    reference = images if reference is None else reference
    _check_images(reference, "reference")
    if latents is not None and len(latents) != len(images):
        raise ValueError(f"{len(latents)} rows of latents for {len(images)} images: give one for each, in order")
    if level == 0:
        return images.clone()
    if shift.drawn and latents is None:
        raise ValueError(f"{name} is drawn from the cave's latents: give them, or use shifts.shifted with real images")
    if name == "stylised" and latents is None and len(reference) < 2:
        raise ValueError("stylised takes the style of another image: give at least two, or a reference")
    mean = spectrum.mean_amplitude(reference) if name == "power_equalisation" else None
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        numbers = first + start + np.arange(len(batch))
        rngs = _rngs(name, seed, numbers)
        rows = None if latents is None else latents.iloc[start : start + batch_size].reset_index(drop=True)
        about = About(rngs, rows, reference, numbers, mean)
        # float64: the same image gives the same bytes in every batch
        pixels = shift.function(batch.double(), shift.levels[level - 1], about)
        parts.append(pixels.round().clamp(0, 255).to(torch.uint8).to(images.device))
    return torch.cat(parts)


def check_stimuli(data) -> None:
    """Raise FileNotFoundError, as `geirhos.find`, where a shift of these images needs stimuli that are not here.

    So that a chapter can say so before it trains a network.
    """
    if data.test.latents is None:
        geirhos.find()


def shifted(data, name: str, level: int, seed: int = 0):
    """The test images of a data set under a shift.

    The cave's are exact, from its latents. Of real images the stimuli of Geirhos et al. (2019) stand for silhouette,
    edge and cue conflict: other images, with labels where the set has a class for them (`geirhos.load`). Sketch and
    stylised real images are computed, see `shifts_drawn`.

    Parameters
    ----------
    data : images.Dataset
    name, level, seed : as in `apply`

    Returns
    -------
    images.Split: labels as in `data`, -1 for the images that have none; level 0 is `data.test`. The latents of a cue
    conflict of the cave have one more column, `element`, the shape of which its texture is made.

    Raises
    ------
    ValueError as `apply`; FileNotFoundError where the stimuli of Geirhos et al. are needed and not here.
    """
    shift, test = _known(name), data.test
    level = inputs.whole(level, f"level of {name}", 0, len(shift.levels))
    if level == 0:
        return test
    if shift.drawn and test.latents is None:
        return geirhos.load(name, data.size, data.classes)
    latents = test.latents
    if name == "cue_conflict":
        latents = latents.assign(element=shifts_drawn.elements(latents, _rngs(name, seed, range(len(test)))))
    return replace(test, images=apply(name, test.images, level, seed, latents=latents), latents=latents)


def _rngs(name: str, seed: int, numbers) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, list(SHIFTS).index(name), int(i))) for i in numbers]


def distance(images: Tensor, others: Tensor) -> float:
    """How far apart two lists of images (n, 3, size, size) are: root mean squared difference of a pixel, in grey levels
    (0 to 255), averaged over images."""
    differences = (images.double() - others.double()).flatten(1)
    return float(differences.square().mean(1).sqrt().mean())


def _known(name: str) -> Shift:
    if name not in SHIFTS:
        near = difflib.get_close_matches(str(name), SHIFTS, n=3) or list(SHIFTS)
        raise ValueError(f"{name!r} is no shift. Near names: {', '.join(near)}")
    return SHIFTS[name]


def _check_images(images: Tensor, what: str) -> None:
    known = isinstance(images, Tensor) and images.dtype == torch.uint8
    if not known or images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        about = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"{what}: {about}; expected a uint8 tensor (n, 3, size, size), n at least 1")
    if images.shape[2] != images.shape[3] or images.shape[2] < 8:
        raise ValueError(f"{what}: {images.shape[2]} x {images.shape[3]} pixels; expected a square of at least 8 x 8")
