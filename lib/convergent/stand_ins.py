"""Simulated voxels that stand in for a brain's, with early and late areas, where no brain saw the images.

On the cave the early voxels mix responses of image filters and the late ones codes of shape, surface and place
(`convergent.cave.voxels`); on its pictures of several objects the late ones mix which shape is where. On any other
images the early ones mix the same filters; the late ones mix the last layer of a network that was trained on these
images, which is neither the pushed one nor the reference "trained".
"""

import numpy as np
from torch import nn

from . import cave, representations
from .cave_observers import filtered
from .images import Dataset
from .responses import Responses

AREAS = ("early", "late")
N_VOXELS = 100
NOISE = 0.5  # standard deviation of the noise in the mean over presentations, in those of the signal


def of(
    data: Dataset, area: str, network: nn.Module | None = None, n_voxels: int = N_VOXELS, seed: int = 0
) -> Responses:
    """Voxels of one area for the training images of `data`; their `on_test` for its test images.

    Parameters
    ----------
    area : "early" or "late"
    network : for late voxels of images without known latents, the network whose last layer they mix
    n_voxels, seed : their number, and which voxels they are

    Raises
    ------
    ValueError for an unknown area, or late voxels of images without latents and without a network.
    """
    if area not in AREAS:
        raise ValueError(f"area {area!r} is not one of {', '.join(AREAS)}")
    known = data.train.latents
    if known is not None and "shape" in known:
        return _of_the_cave(data, area, n_voxels, seed)
    if area == "early":
        features = [filtered(part.images) for part in (data.train, data.test)]
    elif known is not None:
        features = [part.latents.to_numpy() for part in (data.train, data.test)]
    elif network is None:
        raise ValueError(f"late voxels for {data.title}: give a trained network whose last layer they mix")
    else:
        layer = representations.networks.layers(network)[-1]
        parts = (representations.extract(network, part.images, [layer], "pool") for part in (data.train, data.test))
        features = [part[layer] for part in parts]
    return mixed(*features, n_voxels, seed)


def _of_the_cave(data: Dataset, area: str, n_voxels: int, seed: int) -> Responses:
    shares, found = {"early": 1.0, "late": 0.0}, []
    for part in (data.train, data.test):
        # Four presentations with twice the noise each: their mean has NOISE.
        seen = cave.voxels(part.latents, part.images, n_voxels, 2 * NOISE, 4, seed, early=shares[area])
        found.append((seen.responses.mean(0), seen.noise_ceiling))
    return Responses(*found[0], test=Responses(*found[1]))


def mixed(train: np.ndarray, test: np.ndarray, n_voxels: int = N_VOXELS, seed: int = 0) -> Responses:
    """Voxels that each mix features with Gaussian weights, standardised on the training stimuli, plus fresh noise.

    Parameters
    ----------
    train, test : (n_stimuli, n_features) of the training and the test images

    Returns
    -------
    Responses with `n_voxels` voxels whose noise ceiling is known
    """
    rng = np.random.default_rng([seed, 0])
    mean, spread = train.mean(0), train.std(0)
    kept = spread > 0
    weights = rng.standard_normal((kept.sum(), n_voxels))
    signals = [((part - mean)[:, kept] / spread[kept]) @ weights for part in (train, test)]
    scale = signals[0].std(0)
    parts = [signal / scale + NOISE * rng.standard_normal(signal.shape) for signal in signals]
    ceilings = [np.sqrt(v / (v + NOISE**2)) for v in ((signal / scale).var(0) for signal in signals)]
    return Responses(parts[0], ceilings[0], test=Responses(parts[1], ceilings[1]))
