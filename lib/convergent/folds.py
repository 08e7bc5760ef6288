"""How stimuli are cut into folds: between images, never within one."""

import numpy as np

from . import inputs


def fold_sizes(n_stimuli: int, folds: int | None, positions: int = 1) -> list[int]:
    """Rows of each fold: contiguous, cut between images, the first ones larger by an image where it does not come out.

    Raises
    ------
    ValueError for rows that are no multiple of `positions`, or folds that are not between 2 and the number of images.
    """
    positions = inputs.whole(positions, "positions", 1)
    if n_stimuli % positions:
        raise ValueError(f"{n_stimuli} stimuli are no multiple of positions={positions}: each image needs as many rows")
    n_images = n_stimuli // positions
    if folds is None:
        return [n_stimuli]
    folds = inputs.whole(folds, "folds", 2, n_images, f"there are {n_images} images; None gives the in-sample value")
    return [positions * (n_images // folds + (k < n_images % folds)) for k in range(folds)]


def shuffled_images(n_stimuli: int, positions: int, seed: int) -> np.ndarray:
    """Row numbers in a random order of the images; the rows of an image stay together and in order."""
    images = np.random.default_rng(seed).permutation(n_stimuli // positions)
    return (images[:, None] * positions + np.arange(positions)).ravel()
