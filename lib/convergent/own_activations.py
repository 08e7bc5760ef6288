"""Activations without their network: an npz file with one array a layer, from anywhere.

    activations:PATH.npz

Every array is a layer (n_stimuli, n_units), in the file's order from input to output, and row i of all is the same
stimulus. Two names are set apart: `labels` (n_stimuli,), the classes, and `image_ids` (n_stimuli,), which say what the
rows are. Whole numbers count the test images of the chapter's `dataset`, and only these can be compared with networks,
which are then shown the same images; names serve to see that two files speak of the same stimuli.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from . import representations

APART = ("labels", "image_ids")


@dataclass(frozen=True)
class Activations:
    """What one file holds.

    Attributes
    ----------
    path : of the file
    layers : layer -> float32 (n_stimuli, n_units), input to output
    labels : (n_stimuli,) numbers of classes, or None
    classes : their names, in order
    image_ids : (n_stimuli,) int64 or text, or None
    hash : SHA-256 of the file
    """

    path: Path
    layers: dict[str, np.ndarray]
    labels: np.ndarray | None
    classes: list[str]
    image_ids: np.ndarray | None
    hash: str

    def __len__(self):
        return len(next(iter(self.layers.values())))


def path_of(name: str) -> Path:
    """The file that "activations:PATH.npz" names."""
    return Path(name.removeprefix("activations:")).expanduser()


def check(name: str) -> None:
    """Raise FileNotFoundError or ValueError for a file that is not there or is no npz by name; does not read it."""
    path = path_of(name)
    if path.suffix != ".npz":
        raise ValueError(f"{name!r}: give an npz file, 'activations:path/to/file.npz', written with numpy.savez")
    if not path.is_file():
        raise FileNotFoundError(f"{name!r}: there is no file {str(path)!r} here ({Path.cwd()})")


def read(name: str) -> Activations:
    """The layers, labels and ids of "activations:PATH.npz".

    Raises
    ------
    as `check` and `representations.load`; ValueError for labels or ids that are not one for each row, an id that comes
    twice, or a single class.
    """
    check(name)
    path = path_of(name).resolve()
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _read(path: Path, _written: int) -> Activations:
    held = representations.arrays(path)
    layers = representations.checked(path, {k: rows for k, rows in held.items() if k not in APART})
    n = len(next(iter(layers.values())))
    for key in APART:
        if key in held and held[key].shape != (n,):
            raise ValueError(f"{path}: {key} has shape {held[key].shape} and the layers have {n} rows: give one a row")
    labels, classes = None, []
    if "labels" in held:
        names, labels = np.unique(held["labels"], return_inverse=True)
        classes = [str(one) for one in names]
        if len(classes) < 2:
            raise ValueError(f"{path}: all labels are {classes[0]!r}: leave `labels` out, or give two classes or more")
    ids = held.get("image_ids")
    if ids is not None:
        if ids.dtype.kind not in "iuU":
            raise ValueError(f"{path}: image_ids are {ids.dtype}: give whole numbers or text")
        names, counts = np.unique(ids, return_counts=True)
        if counts.max() > 1:
            raise ValueError(
                f"{path}: image_ids has {names[counts.argmax()].item()!r} {counts.max()} times: one row an image"
            )
        ids = ids if ids.dtype.kind == "U" else ids.astype(np.int64)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Activations(path, layers, labels, classes, ids, digest)


def agree(files: list[Activations]) -> None:
    """Refuse files whose rows cannot be the same stimuli.

    Raises
    ------
    ValueError for different numbers of rows, other ids or another order of them, or other labels.
    """
    for first, other in ((files[0], one) for one in files[1:]):
        here, there = first.path.name, other.path.name
        if len(first) != len(other):
            raise ValueError(
                f"{here} has {len(first)} rows and {there} has {len(other)}: row i must be the same stimulus in both. "
                "Did one data loader drop its last batch?"
            )
        if first.image_ids is not None and other.image_ids is not None:
            if not np.array_equal(first.image_ids, other.image_ids):
                same = set(first.image_ids.tolist()) == set(other.image_ids.tolist())
                what = "the same images in another order" if same else "other images"
                remedy = "sort the rows of both by image_ids" if same else "show both networks the same images"
                raise ValueError(f"{there} has {what} than {here}: {remedy}")
        if first.labels is not None and other.labels is not None and not np.array_equal(first.labels, other.labels):
            raise ValueError(f"{there} has other labels than {here}: row i must be the same stimulus in both")


def kind(file: Activations, earlier: list[tuple[str, Activations]]) -> str:
    """What tables call it: files with the same layers of the same widths are two networks of one kind."""

    def signature(one: Activations):
        return [(name, rows.shape[1]) for name, rows in one.layers.items()]

    for known, other in earlier:
        if signature(other) == signature(file):
            return known
    return f"activations:{file.path.stem}"
