"""Moments of two networks over more images than one machine can read: shards on many workers, added in a tree.

Each task of Dask reads one shard of the images, a batch at a time, and gives its moments, whose size does not depend on
how many images there are; they are added two by two. The tree follows from the shards alone: the result is the same to
the last digit however many workers there are, and equals the single pass to rounding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import inputs
from .comparison_sources import of_both
from .stream import Moments

Batches = Iterator[tuple[int, Mapping, Mapping]]  # (number of the first stimulus, layer -> rows of a, the same of b)


@dataclass(frozen=True)
class OfNetworks:
    """Activations of two networks for images that each worker reads by itself.

    Attributes
    ----------
    a, b : networks; they travel to the workers once, pickled, so keep the cluster to yourself
    images : (start, stop) -> uint8 tensor (stop - start, 3, height, width), the same on every worker: `OfArray`, or a
        function of a module that the workers can import
    layers : names to read in both; None takes all
    spatial, n_positions, batch_size, seed : as in `representations.extract`
    """

    a: nn.Module
    b: nn.Module
    images: Callable[[int, int], Tensor]
    layers: Sequence[str] | None = None
    spatial: str = "positions"
    n_positions: int = 4
    batch_size: int = 250
    seed: int = 0

    @property
    def positions(self) -> int:
        """Stimuli of one image."""
        return self.n_positions if self.spatial == "positions" else 1

    def __call__(self, start: int, stop: int) -> Batches:
        """The batches of images `start` to `stop`."""
        about = {"layers": self.layers, "spatial": self.spatial, "n_positions": self.n_positions, "seed": self.seed}
        for first in range(start, stop, self.batch_size):  # read as they are needed: a shard need not fit into memory
            images = self.images(first, min(first + self.batch_size, stop))
            yield from of_both((self.a, self.b), images, about | {"batch_size": self.batch_size}, first)


@dataclass(frozen=True)
class OfArray:
    """Images of an npy file, uint8 (n_images, 3, height, width), that all workers see; only what is asked is read."""

    path: str

    def __call__(self, start: int, stop: int) -> Tensor:
        """Images `start` to `stop`."""
        return torch.from_numpy(np.array(np.load(Path(self.path), mmap_mode="r")[start:stop]))


def collect(
    rows: Callable[[int, int], Batches],
    n_images: int,
    client,
    *,
    positions: int | None = None,
    folds: int | None = 5,
    shuffle: int | None = None,
    nulls: int = 0,
    seed: int = 0,
    shard: int = 10_000,
) -> Moments:
    """Moments over all images, each shard of them read by a task of Dask; `compare.of_moments` compares from them.

    Parameters
    ----------
    rows : (start, stop) -> batches of images start to stop, such as `OfNetworks`. A batch of `nulls` is what its
        images are shuffled within, so let a shard be whole batches
    n_images : in all
    client : of `dask.distributed`
    positions : stimuli of one image; taken from `rows` where it says
    folds, shuffle, nulls, seed : as for `stream.Moments`; a shuffle takes 4 bytes a stimulus on every worker
    shard : images of one task: what is done again when a worker is lost

    Raises
    ------
    ValueError as `stream.Moments`; also for a shard that is no positive number.
    RuntimeError when the workers that tried a shard died, most often for want of memory.
    """
    from dask import delayed
    from distributed.scheduler import KilledWorker

    shard = inputs.whole(shard, "shard", 1)
    positions = getattr(rows, "positions", 1) if positions is None else positions
    about = {"n_stimuli": n_images * positions, "folds": folds, "positions": positions, "shuffle": shuffle}
    about |= {"nulls": nulls, "seed": seed}
    Moments(**about)  # refuses what does not fit before anything is sent
    source = delayed(rows, pure=False)  # in the graph, not scattered: what a lost worker held is sent again
    of_shard, add = delayed(_of_shard, pure=False), delayed(Moments.merge, pure=False)
    level = [of_shard(source, about, start, min(start + shard, n_images)) for start in range(0, n_images, shard)]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [add(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    try:
        return client.compute(level[0]).result()
    except KilledWorker as error:
        raise RuntimeError(
            f"a shard of {shard} images was given up: {error.allowed_failures + 1} workers that tried it died, most "
            "often for want of memory. Give workers more, or compare fewer layers at once"
        ) from error


def _of_shard(rows: Callable, about: dict, start: int, stop: int) -> Moments:
    moments = Moments(**about)
    for first, rows_a, rows_b in rows(start, stop):
        moments.update(rows_a, rows_b, first)
    return moments


def megabytes(units_a: Sequence[int], units_b: Sequence[int], folds: int = 5, nulls: int = 0) -> float:
    """Size of one shard's moments for layers of so many units, in 10^6 bytes: what travels at each addition."""
    a, b = (np.asarray(units, float) + 1 for units in (units_a, units_b))
    within = (a**2).sum() + (b**2).sum()
    sums = a.sum() + b.sum()
    return float(8 * (folds * (within + sums) + (folds + 2 * nulls) * a.sum() * b.sum()) / 1e6)
