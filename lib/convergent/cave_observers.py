"""Other observers of the cave's scenes: a describer that speaks in captions, a scanner with noisy voxels.

Both see the very scenes that `convergent.cave.draw` paints, so that pictures, captions and voxels can be
compared scene by scene.
"""

import hashlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from convergent.cave_latents import CATEGORIES, LATENTS, RANGES, columns, known, sample, whole
from convergent.cave_pictures import draw

SIZES = ("small", "medium", "large")
PLACES = (
    "upper left", "top", "upper right", "left", "centre", "right", "lower left", "bottom", "lower right",
)  # fmt: skip
TEMPLATES = (
    "a {size} {tint} {shape} of {surface} on {background}, {place}",
    "{place}: a {tint} {shape} made of {surface}, {size}, in front of {background}",
    "on {background}, {place}, lies a {size} {shape} in {tint} {surface}",
    "a picture of {background} with a {size} {tint} {surface} {shape}, {place}",
    "{size} {tint} {shape} with {surface} all over it, {place}, against {background}",
)

_REFERENCE = 2000  # scenes on which voxels are standardised


class Voxels(NamedTuple):
    """What `voxels` returns; all arrays float64."""

    responses: np.ndarray
    """(n_repeats, n_stimuli, n_voxels), signal plus fresh noise in every repeat."""
    signal: np.ndarray
    """(n_stimuli, n_voxels), about zero mean and unit variance over the scenes of `cave.sample`."""
    noise_ceiling: np.ndarray
    """(n_voxels,), the correlation of the signal, hence of a perfect model, with the mean over repeats."""


def captions(latents, seed=0):
    """One sentence for each scene: "a small red star of brick on grass, upper left".

    Every caption names shape, tint, surface, background, size (small, medium or large: thirds of the range)
    and place (a three by three grid); its form is one of TEMPLATES, chosen by the seed.

    Parameters
    ----------
    latents : DataFrame (n, 14)
    seed : int

    Returns
    -------
    list of n str

    Raises
    ------
    ValueError
        As `cave.draw`.
    """
    whole("seed", seed, 0)
    scenes = columns(latents)
    form = np.floor(np.random.default_rng(int(seed)).random(len(latents)) * len(TEMPLATES)).astype(int)
    row, column = 2 - _third(scenes["y"], *RANGES["y"]), _third(scenes["x"], *RANGES["x"])
    words = {name: np.array(classes)[scenes[name]] for name, classes in CATEGORIES.items()}
    words["size"] = np.array(SIZES)[_third(scenes["size"], *RANGES["size"])]
    words["place"] = np.array(PLACES)[3 * row + column]
    return [
        TEMPLATES[form[i]].format(**{name: word[i].replace("_", " ") for name, word in words.items()})
        for i in range(len(latents))
    ]


def voxels(latents, images, n_voxels=200, noise=1.0, n_repeats=3, seed=0, early=0.5, of=("shape", "surface", "x", "y")):
    """A simulated brain measurement of the scenes, whose noise ceiling is known.

    Each voxel mixes, with Gaussian weights, codes of latents (one-hot for categories, cosine and sine for
    angles, standardised numbers) and responses of fixed image filters (luminance on a 4 x 4 grid; energy of
    Gabor pairs at 4 orientations and 2 wavelengths, in 4 quadrants). The weights belong to `seed`
    and everything is standardised on one reference sample, so that voxel i is the same voxel for training and
    for test scenes. Noise is Gaussian and independent between stimuli, voxels and repeats; it belongs to
    `seed` and the scenes together, so that training and test scenes never share it.

    Parameters
    ----------
    latents : DataFrame (n_stimuli, 14)
    images : uint8 tensor or array (n_stimuli, 3, size, size)
        The pictures that the filters look at.
    n_voxels, n_repeats : int
    noise : float or array (n_voxels,)
        Standard deviation of one repeat's noise, in standard deviations of the signal.
    seed : int
    early : float in [0, 1]
        Share of the image filters: 0 is a voxel of latents only ("late" cortex), 1 of filters only.
    of : names from LATENTS
        The latents that the voxels care about.

    Returns
    -------
    Voxels (responses, signal, noise_ceiling)

    Raises
    ------
    ValueError
        For images that are not uint8 or not as many as scenes, unknown latents, and numbers out of their ranges.
    """
    for name, value in {"n_voxels": n_voxels, "n_repeats": n_repeats}.items():
        whole(name, value, 1)
    whole("seed", seed, 0)
    noise = np.asarray(noise, np.float64)
    if noise.shape not in ((), (n_voxels,)) or not np.all(np.isfinite(noise) & (noise >= 0)):
        raise ValueError(f"noise must be a number of at least 0, or {n_voxels} of them, one for each voxel.")
    if not 0 <= early <= 1:
        raise ValueError(f"early is {early!r}: it is the share of the image filters, in [0, 1].")
    if isinstance(of, str) or not of:
        raise ValueError(f"of is {of!r}: give a list of at least one latent, such as ['shape', 'x'].")
    for name in of:
        known("latent", name, LATENTS)
    images = torch.as_tensor(images)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or len(images) != len(latents):
        raise ValueError(
            f"{len(latents)} scenes need uint8 images ({len(latents)}, 3, size, size), "
            f"not {images.dtype} {tuple(images.shape)}: "
            f"row i of both must be the same scene."
        )

    signal = _signal(latents, images, n_voxels, early, tuple(of), seed)
    scenes = hashlib.sha256(b"".join(column.tobytes() for column in columns(latents).values())).digest()
    # A stream apart from the weights', which begins with [seed, 0].
    fresh = np.random.default_rng([int(seed), 1, *scenes]).standard_normal((n_repeats, *signal.shape))
    variance = signal.var(axis=0)
    # Without any signal there is nothing to predict: a ceiling of 0, also where there is no noise.
    total = np.where(variance > 0, variance + noise**2 / n_repeats, 1)
    return Voxels(signal + noise * fresh, signal, np.sqrt(variance / total))


def _signal(latents, images, n_voxels, early, of, seed):
    reference = sample(_REFERENCE)
    weights = np.random.default_rng([int(seed), 0])
    mixed, mixed_reference = 0.0, 0.0
    spread = _filtered_reference().std(axis=0)
    for share, features, features_reference in (
        (1 - early, _codes(latents, of), _codes(reference, of)),
        (early, filtered(images) / spread, _filtered_reference() / spread),
    ):
        mean = features_reference.mean(axis=0)
        mixture = weights.standard_normal((features.shape[1], n_voxels))
        # Each part has the same variance in every voxel, so that `early` is a share of variance.
        mixture *= np.sqrt(share) / ((features_reference - mean) @ mixture).std(axis=0)
        mixed = mixed + (features - mean) @ mixture
        mixed_reference = mixed_reference + (features_reference - mean) @ mixture
    return mixed / mixed_reference.std(axis=0)


def _codes(latents, names):
    """Latents as numbers that a linear map can use (n_stimuli, n_codes), each latent of about unit variance."""
    scenes = columns(latents)
    codes = []
    for name in names:
        if name in CATEGORIES:
            codes.append(np.eye(len(CATEGORIES[name]))[scenes[name]])
        elif name in ("rotation", "light"):
            angle = np.deg2rad(scenes[name])
            codes.append(np.stack([np.cos(angle), np.sin(angle)], axis=1))
        else:
            low, high = RANGES[name]
            codes.append(np.sqrt(12) * (scenes[name][:, None] - (low + high) / 2) / (high - low))
    return np.concatenate(codes, axis=1)


def filtered(images):
    """Responses of the voxels' image filters to uint8 images (n_stimuli, 3, size, size), of the cave or any others.

    Returns float64 (n_stimuli, 48): 16 of luminance on a 4 x 4 grid and 32 of Gabor energy in quadrants.
    """
    return torch.cat([_filter_block(block) for block in images.split(256)]).double().numpy()


def _filter_block(images):
    luminance = images.float().mean(dim=1, keepdim=True) / 255
    # At one resolution whatever the size of the pictures: the voxels' receptive fields are parts of the scene.
    luminance = F.adaptive_avg_pool2d(luminance, 32)
    pairs = F.conv2d(luminance, _gabor_pairs(), padding=7)
    energy = (pairs[:, ::2] ** 2 + pairs[:, 1::2] ** 2).sqrt()
    return torch.cat([F.adaptive_avg_pool2d(luminance, 4).flatten(1), F.adaptive_avg_pool2d(energy, 2).flatten(1)], 1)


@lru_cache(maxsize=1)
def _filtered_reference():
    return filtered(draw(sample(_REFERENCE)))


@lru_cache(maxsize=1)
def _gabor_pairs():
    """Even and odd Gabor filters (16, 1, 15, 15): wavelengths 4 and 8 pixels, 4 orientations, zero mean."""
    y, x = torch.meshgrid(torch.arange(-7.0, 8), torch.arange(-7.0, 8), indexing="ij")
    filters = []
    for wavelength in (4.0, 8.0):
        window = torch.exp(-(x**2 + y**2) / (2 * (wavelength / 2) ** 2))
        for turn in torch.arange(4) * torch.pi / 4:
            phase = 2 * torch.pi * (x * turn.cos() + y * turn.sin()) / wavelength
            for wave in (phase.cos(), phase.sin()):
                gabor = window * wave
                gabor = gabor - window * gabor.sum() / window.sum()
                filters.append(gabor / gabor.norm())
    return torch.stack(filters)[:, None]


def _third(values, low, high):
    """0, 1 or 2: which third of the range a value is in; beyond the range counts as its end."""
    return np.clip(np.floor(3 * (values - low) / (high - low)), 0, 2).astype(int)
