"""The cave with company: several objects in one picture, for tasks that name all of them.

Each scene is one to four of `convergent.cave`'s objects, each in a quarter of its own, painted over one background in
order. The label of a picture says of every shape whether it is there.
"""

import numpy as np
import pandas as pd
import torch

from . import images
from .cave_latents import CATEGORIES, SHAPES, sample, whole
from .cave_pictures import components

QUARTERS = ("lower left", "lower right", "upper left", "upper right")
MOST = len(QUARTERS)  # objects in one picture
_SIZE = (0.28, 0.4)  # in half-widths of the picture
_JITTER = 0.1  # of an object about the centre of its quarter
N_IMAGES = (20_000, 4_000)  # training and test images of `load`


def objects(n: int, seed: int = 0) -> pd.DataFrame:
    """Latents of the objects of `n` scenes, one row each.

    How many a scene has is uniform from 1 to 4, and so is which quarters they lie in; the rest as `cave.sample`, but
    smaller. All objects of a scene share background, gain and direction of light.

    Returns
    -------
    DataFrame with the columns of `cave.sample` after `scene` (0 to n - 1, in order)

    Raises
    ------
    ValueError for an `n` below 1 or a negative seed.
    """
    whole("n", n, 1)
    whole("seed", seed, 0)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(seed), 1])))
    present = rng.random((n, MOST)).argsort(1) < rng.integers(1, MOST + 1, n)[:, None]
    drawn = sample(n * MOST, seed)
    quarter = np.tile(np.arange(MOST), n)
    for name, side in (("x", quarter % 2), ("y", quarter // 2)):
        drawn[name] = np.round(side - 0.5 + _JITTER * rng.uniform(-1, 1, n * MOST), 6)
    drawn["size"] = np.round(rng.uniform(*_SIZE, n * MOST), 6)
    first = np.repeat(np.arange(n) * MOST, MOST)
    for name in ("background", "background_u", "background_v", "gain", "light"):
        drawn[name] = drawn[name].iloc[first].to_numpy()
    drawn["background"] = pd.Categorical(drawn["background"], CATEGORIES["background"])
    drawn.insert(0, "scene", np.repeat(np.arange(n), MOST))
    return drawn[present.ravel()].reset_index(drop=True)


def draw(scenes: pd.DataFrame, size: int = 32) -> torch.Tensor:
    """Pictures uint8 (n, 3, size, size) of what `objects` describes; the same bytes for the same latents.

    Raises
    ------
    ValueError as `cave.draw`, or for scenes that are not numbered 0, 1, 2, ... in order.
    """
    numbers = scenes["scene"].to_numpy(copy=True)
    if numbers[0] != 0 or not np.isin(np.diff(numbers), (0, 1)).all():
        raise ValueError("scenes must be numbered 0, 1, 2, ... in order: start from cave_scenes.objects(n)")
    surface, background, mask = components(scenes.drop(columns="scene"), size)
    order = pd.Series(numbers).groupby(numbers).cumcount().to_numpy()
    pictures = background[torch.from_numpy(np.flatnonzero(order == 0))]
    for k in range(order.max() + 1):
        rows = torch.from_numpy(np.flatnonzero(order == k))
        where = torch.from_numpy(numbers)[rows]
        pictures[where] += mask[rows][:, None] * (surface[rows] - pictures[where])
    return (pictures.clamp_max(255) + 0.5).to(torch.uint8)  # floor(x + 0.5), as nothing is negative


def labels(scenes: pd.DataFrame) -> torch.Tensor:
    """Which shapes are in each scene: float (n_scenes, 10) of 0 and 1, in the order of `cave.SHAPES`."""
    there = torch.zeros(int(scenes["scene"].iloc[-1]) + 1, len(SHAPES))
    rows, shapes = scenes["scene"].to_numpy(copy=True), scenes["shape"].cat.codes.to_numpy()
    there[torch.from_numpy(rows), torch.from_numpy(shapes.astype(np.int64))] = 1
    return there


def codes(scenes: pd.DataFrame) -> pd.DataFrame:
    """Of every shape whether it is in each quarter of each scene (n_scenes, 40) of 0.0 and 1.0.

    Columns are called "disc lower left" and so on: what late voxels see of a scene.
    """
    found = np.zeros((int(scenes["scene"].iloc[-1]) + 1, len(SHAPES), MOST))
    quarter = (scenes["x"] > 0).astype(int) + 2 * (scenes["y"] > 0)
    found[scenes["scene"].to_numpy(), scenes["shape"].cat.codes.to_numpy(), quarter.to_numpy()] = 1
    names = [f"{shape} {place}" for shape in SHAPES for place in QUARTERS]
    return pd.DataFrame(found.reshape(len(found), -1), columns=names)


def load(size: int = 32, n_train: int = N_IMAGES[0], n_test: int = N_IMAGES[1]) -> images.Dataset:
    """Training and test pictures; the `labels` of a split are float (n, 10), its `latents` what `codes` gives."""
    splits = []
    for seed, n in enumerate((n_train, n_test)):
        scenes = objects(n, seed)
        splits.append(images.Split(draw(scenes, size), labels(scenes), codes(scenes)))
    classes = list(SHAPES)
    digest = images.content_hash(*splits, classes)
    return images.Dataset("cave-scenes", "The cave, several objects", *splits, classes, digest, size)
