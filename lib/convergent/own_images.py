"""Images of the reader's own beyond folders and zips of classes: npz files, and pairs of original and shifted images.

**A data set as npz**: arrays `train_images`, `train_labels`, `test_images`, `test_labels` and, if wanted, `classes`
(their names). Images are uint8, (n, height, width, 3) or (n, 3, height, width); labels whole numbers from 0, or text.

**A distribution shift**: a folder or zip that holds `original/` and `shifted/` with the same file names in both (in
folders of classes, or not), or an npz with arrays `original`, `shifted` and, if wanted, `labels` (whole numbers of the
data set's classes, or their names).
"""

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import geirhos, image_files, representations

SIDES = ("original", "shifted")


class Pair(NamedTuple):
    """Images before and after a shift, uint8 (n, 3, size, size) each; labels (n,), `geirhos.NO_CLASS` where unknown."""

    original: Tensor
    shifted: Tensor
    labels: Tensor


# --- data sets -------------------------------------------------------------------------------------


def read(path: Path, size: int) -> image_files.Decoded:
    """A data set from an npz file.

    Raises
    ------
    ValueError for arrays that lack, are no images, differ in number from their labels, or labels out of range.
    """
    held = representations.arrays(path)
    wanted = ("train_images", "train_labels", "test_images", "test_labels")
    if missing := [name for name in wanted if name not in held]:
        raise ValueError(
            f"{path} has no {', '.join(missing)} (it has {', '.join(held) or 'nothing'}): a data set as npz holds "
            f"{', '.join(wanted)}, and classes if you have names"
        )
    parts = [_pixels(path, name, held[name], size) for name in wanted[::2]]
    for name, images in zip(wanted[1::2], parts, strict=True):
        if held[name].shape != (len(images),):
            raise ValueError(f"{path}: {name} has shape {held[name].shape} for {len(images)} images: one for each")
    if len({held[name].shape[1:] for name in wanted[::2]}) > 1:
        shapes = " and ".join(str(held[name].shape[1:]) for name in wanted[::2])
        raise ValueError(f"{path}: training and test images differ in size ({shapes}): bring them to one")
    both = np.concatenate([held["train_labels"], held["test_labels"]])
    classes = [str(one) for one in held["classes"]] if "classes" in held else None
    labels, classes = _numbered(path, both, classes)
    if unknown := sorted(set(labels[len(parts[0]) :].tolist()) - set(labels[: len(parts[0])].tolist())):
        raise ValueError(f"{path}: test images of class {classes[unknown[0]]!r}, of which there is no training image")
    n = len(parts[0])
    return image_files.Decoded(parts[0], labels[:n], parts[1], labels[n:], classes, "")


def _numbered(path: Path, labels: np.ndarray, classes: list[str] | None) -> tuple[np.ndarray, list[str]]:
    if labels.dtype.kind in "US":
        names = [str(one) for one in np.unique(labels)] if classes is None else classes
        if unknown := sorted(set(labels.astype(str).tolist()) - set(names)):
            raise ValueError(f"{path}: label {unknown[0]!r} is not one of the classes {', '.join(names)}")
        return np.array([names.index(str(one)) for one in labels], dtype=np.int64), names
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: labels are {labels.dtype}: give whole numbers from 0, or text")
    names = [str(i) for i in range(int(labels.max()) + 1)] if classes is None else classes
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"{path}: labels go from {labels.min()} to {labels.max()}, and there are {len(names)} classes")
    if len(names) < 2:
        raise ValueError(f"{path} has one class only: there is nothing to tell apart")
    return labels.astype(np.int64), names


def _pixels(path: Path, name: str, images: np.ndarray, size: int) -> np.ndarray:
    """uint8 (n, 3, size, size)."""
    if images.ndim != 4 or images.dtype != np.uint8 or 3 not in (images.shape[1], images.shape[3]) or not len(images):
        raise ValueError(
            f"{path}: {name} is {images.dtype} {images.shape}: images are uint8, (n, height, width, 3) or "
            "(n, 3, height, width). Floats in [0, 1] become (255 * images).round().astype('uint8')"
        )
    channels_last = images if images.shape[3] == 3 else images.transpose(0, 2, 3, 1)
    if channels_last.shape[1:3] == (size, size):
        return np.ascontiguousarray(channels_last.transpose(0, 3, 1, 2))
    whole = [Image.fromarray(np.ascontiguousarray(image)) for image in channels_last]
    return image_files.decode_all(path, range(len(whole)), lambda i: image_files.fit(whole[i], size), size)


# --- pairs of original and shifted -----------------------------------------------------------------


def paths(listed: str) -> dict[str, Path]:
    """Name of each shift -> its folder, zip or npz, of a string with commas between them.

    Raises
    ------
    FileNotFoundError, ValueError for what is not there, holds no pair, or has a name that comes twice.
    """
    found: dict[str, Path] = {}
    for part in (one.strip() for one in listed.split(",") if one.strip()):
        path = Path(part).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"shift {part!r} is not here (looked from {Path.cwd()}). Give a folder, zip or npz")
        if path.stem in found:
            raise ValueError(f"two shifts are called {path.stem!r}: rename one of them")
        found[path.stem] = path.resolve()
        if path.is_dir() and not all((path / side).is_dir() for side in SIDES):
            raise ValueError(f"{part} holds no folders original/ and shifted/, with the same file names in both")
    return found


def pair(path: Path, size: int, classes: Sequence[str] = ()) -> Pair:
    """Images before and after a shift.

    Parameters
    ----------
    classes : of the data set; labels are told from folders of these names, or from `labels`

    Raises
    ------
    ValueError for a file that has no partner, partners of different sizes, or what is no image.
    """
    if path.suffix == ".npz":
        return _pair_of_arrays(path, size, list(classes))
    with _opened(path) as (files, read_bytes):
        names = {side: _names(files, side) for side in SIDES}
        keys = _partners(path, names)
        for key in keys:
            sizes = [Image.open(io.BytesIO(read_bytes(names[side][key]))).size for side in SIDES]
            if sizes[0] != sizes[1]:
                before, after = (f"{width} x {height} pixels" for width, height in sizes)
                raise ValueError(
                    f"{path}: {key} has {before} in original/ and {after} in shifted/: bring both to one size, or "
                    "cropping them is a shift of its own"
                )
        own = [[names[side][key] for key in keys] for side in SIDES]
        pixels = [
            image_files.decode_all(path, some, lambda name: image_files.decode(read_bytes(name), size), size)
            for some in own
        ]
    folders = [PurePosixPath(key).parts[0] if "/" in key else "" for key in keys]
    return Pair(*map(torch.from_numpy, pixels), _labels(folders, list(classes)))


def _labels(names: Iterable[str], classes: list[str]) -> Tensor:
    return torch.tensor([classes.index(name) if name in classes else geirhos.NO_CLASS for name in names])


def _names(files: Sequence[str], side: str) -> dict[str, str]:
    """Name below original/ or shifted/ without its ending -> the whole name."""
    images = [n for n in files if n.startswith(f"{side}/") and PurePosixPath(n).suffix.lower() in image_files.IMAGES]
    return {PurePosixPath(name).with_suffix("").as_posix()[len(side) + 1 :]: name for name in images}


def _partners(path: Path, names: dict[str, dict[str, str]]) -> list[str]:
    """Names that both sides have. Raises ValueError where one lacks its partner, or there are none."""
    before, after = (set(names[side]) for side in SIDES)
    if not before | after:
        raise ValueError(f"{path} has no images in original/ and shifted/")
    if alone := sorted(before ^ after):
        side = "shifted" if alone[0] in before else "original"
        raise ValueError(
            f"{path}: {alone[0]} is missing in {side}/ ({len(alone)} without partner in all). original/ and shifted/ "
            "need the same file names; endings may differ"
        )
    return sorted(before)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Sorted names of all files of a folder or zip, and name -> bytes."""
    if path.is_dir():
        files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        yield files, lambda name: (path / name).read_bytes()
        return
    try:
        with image_files.zip_files(path) as opened:
            yield opened
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is neither a folder nor a whole zip nor an npz ({error})") from error


def _pair_of_arrays(path: Path, size: int, classes: list[str]) -> Pair:
    held = representations.arrays(path)
    if missing := [side for side in SIDES if side not in held]:
        raise ValueError(f"{path} has no array {' and no '.join(missing)}: a shift as npz holds original and shifted")
    if held["original"].shape != held["shifted"].shape:
        raise ValueError(
            f"{path}: original is {held['original'].shape} and shifted {held['shifted'].shape}: row i of both is one "
            "image, before and after"
        )
    pixels = [torch.from_numpy(_pixels(path, side, held[side], size)) for side in SIDES]
    labels = held.get("labels", np.full(len(pixels[0]), geirhos.NO_CLASS))
    if labels.shape != (len(pixels[0]),):
        raise ValueError(f"{path}: labels has shape {labels.shape} for {len(pixels[0])} images: one for each")
    if labels.dtype.kind in "US":
        return Pair(*pixels, _labels(labels.astype(str).tolist(), classes))
    return Pair(*pixels, torch.from_numpy(labels.astype(np.int64)))
