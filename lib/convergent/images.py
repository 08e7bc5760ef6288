"""Image sets as tensors: the cave, CIFAR-10 and -100, Tiny-ImageNet, and any folder or zip of images."""

import difflib
import hashlib
import os
import re
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from . import image_files, own_images, paths

CAVE_SIZES = (20_000, 4_000)  # training and test images of load("cave")
_FORMAT = "1"  # of the decoded arrays: raise it when decoding changes, so that older caches are not used


@dataclass(frozen=True)
class Split:
    """Images with labels, in the order of the source (for folders: sorted by class, then by file name).

    Because that order is by class, take a part with `sample`, not with `split[:n]`.

    Attributes
    ----------
    images : uint8 tensor (n_stimuli, 3, height, width)
    labels : int64 tensor (n_stimuli,), positions in the data set's `classes`
    latents : DataFrame with n_stimuli rows where the images' causes are known (the cave), else None
    """

    images: torch.Tensor
    labels: torch.Tensor
    latents: pd.DataFrame | None = None

    def __len__(self):
        return len(self.images)

    def __getitem__(self, which):
        """A `Split` for a slice, mask or list of positions; (image, label) for a single position."""
        if isinstance(which, (int, np.integer)):
            return self.images[which], self.labels[which]
        positions = np.arange(len(self))[np.asarray(which) if not isinstance(which, slice) else which]
        latents = None if self.latents is None else self.latents.iloc[positions].reset_index(drop=True)
        positions = torch.from_numpy(positions)
        return Split(self.images[positions], self.labels[positions], latents)

    def sample(self, n, seed=0, balanced=True):
        """`n` stimuli without repetition, in random order.

        Balanced over classes: their counts differ by at most one, unless a class has run out. That holds for every
        prefix too, and a smaller sample with the same seed is a prefix of a larger one.

        Raises
        ------
        ValueError
            When `n` is not a whole number between 1 and the number of stimuli.
        """
        if not isinstance(n, (int, np.integer)) or not 1 <= n <= len(self):
            raise ValueError(f"{n} stimuli asked of a split that has {len(self)}: ask for 1 to {len(self)}.")
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self))
        if balanced:
            # The r-th stimulus of each class, in random class order, for r = 0, 1, 2, ...
            turn = pd.Series(self.labels.numpy()[order]).groupby(self.labels.numpy()[order]).cumcount()
            order = order[np.argsort(turn.to_numpy(), kind="stable")]
        return self[order[:n]]


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one source.

    Attributes
    ----------
    name : what `load` was asked for
    title : for figures and tables; says when the images are not the original ones, as in "CIFAR-10 (JPEG copy)"
    train, test : Split
    classes : names of the labels, in order
    hash : SHA-256 of all pixels, labels and class names, the same wherever the images came from
    size : height and width in pixels
    """

    name: str
    title: str
    train: Split
    test: Split
    classes: list[str]
    hash: str
    size: int


@dataclass(frozen=True)
class _Known:
    """A public image set: the folders and archives that usually hold it, and where to fetch it."""

    title: str
    n_classes: int
    usual: tuple[str, ...]
    url: str
    sha256: str
    megabytes: int

    @property
    def archive(self):
        """Name of the file that the address leads to."""
        return self.url.rsplit("/", 1)[1]


# Python versions of the CIFAR archives hold pickles, which can run code; the binary versions cannot.
_KNOWN = {
    "cifar10": _Known(
        "CIFAR-10",
        10,
        ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", "cifar10", "cifar10.zip", "cifar10_jpegs.zip"),
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        170,
    ),
    "cifar100": _Known(
        "CIFAR-100",
        100,
        ("cifar-100-binary", "cifar-100-binary.tar.gz", "cifar100", "cifar100.zip", "cifar100_jpegs.zip"),
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        169,
    ),
    "tiny-imagenet": _Known(
        "Tiny-ImageNet",
        200,
        (
            "tiny-imagenet-200",
            "tiny-imagenet-200.zip",
            "tiny-imagenet",
            "tiny-imagenet.zip",
            "tinyimagenet_80classes_jpegs.zip",
        ),
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
        248,
    ),
}
NAMES = ("cave", *_KNOWN)


def load(name, size=32, n_train=None, n_test=None, seed=0):
    """Training and test images as uint8 tensors, with labels and class names.

    A named real set is taken from `$CONVERGENT_DATA` (a folder that holds its usual folder or archive), else from the
    cache, else downloaded into the cache and checked against its SHA-256. Decoding is done once and kept in the cache.

    Parameters
    ----------
    name : "cave", "cifar10", "cifar100", "tiny-imagenet", or a path
        A path leads to a folder or zip with `train/<class>/*` and `test/<class>/*` (or `val/<class>/*`), or to an npz
        (see `own_images`); a folder that has the name of a public set is "./cifar10". With ":1/2" or ":2/2" behind it
        (or thirds, …), one part of the classes: every second, from the first or the second on. Parts have no class in
        common. With ":0-4" the classes at these positions, the first and the last included.
    size : int
        Height and width in pixels: the central square of each image, antialiased. Images of that size stay as they are.
    n_train, n_test : int, optional
        Take that many only, balanced over classes, chosen by `seed` (see `Split.sample`).

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        When the set is in none of the places and cannot be downloaded, or the path does not exist.
    ValueError
        For an unknown name, images in another order than the above, or a damaged source; the message says which file.
    """
    name = os.fspath(name)
    if not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"size={size!r}: give the height and width of the images in whole pixels, such as 32.")
    whole, part = _part(name)
    data = _cave(size) if whole == "cave" else _from_files(whole, size)
    if part is not None:
        data = _of_classes(data, name, part)
    if n_train is None and n_test is None:
        return data
    train = data.train if n_train is None else data.train.sample(n_train, seed)
    test = data.test if n_test is None else data.test.sample(n_test, seed)
    return replace(data, train=train, test=test, hash=content_hash(train, test, data.classes))


def check_name(name):
    """Raise what `load` would for a name that is neither a public set nor a path that exists, before any work."""
    whole, _ = _part(name)
    if whole not in NAMES:
        _user_path(whole)


def _part(name):
    """("tiny-imagenet", "1/2") of "tiny-imagenet:1/2", ("cifar10", "0-4") of "cifar10:0-4"; (name, None) of a whole."""
    found = re.fullmatch(r"(.+):(\d+)([/-])(\d+)", name)
    if found is None:
        return name, None
    first, last = int(found[2]), int(found[4])
    if found[3] == "/" and not 1 <= first <= last:
        raise ValueError(f"{name!r}: there is no part {first} of {last}; write {found[1]}:1/{max(last, 2)}")
    if found[3] == "-" and not first < last:
        raise ValueError(
            f"{name!r}: classes {first} to {last} are fewer than 2; write {found[1]}:0-4 for the first five"
        )
    return found[1], f"{first}{found[3]}{last}"


def _of_classes(data, name, part):
    """Of "1/2" the classes 0, 2, …: neighbours in an ordered list go to different parts. Of "0-4" the first five."""
    n = len(data.classes)
    if "/" in part:
        number, parts = map(int, part.split("/"))
        kept, words = list(range(number - 1, n, parts)), f"part {number} of {parts}"
        if len(kept) < 2:
            raise ValueError(f"{name!r}: {parts} parts leave fewer than 2 of {n} classes: use fewer parts")
    else:
        first, last = map(int, part.split("-"))
        kept, words = list(range(first, last + 1)), f"classes {first} to {last}"
        if last >= n:
            raise ValueError(f"{name!r}: {data.title} has {n} classes, 0 to {n - 1}")
    splits = []
    for split in (data.train, data.test):
        chosen = split[torch.isin(split.labels, torch.tensor(kept)).numpy()]
        splits.append(replace(chosen, labels=torch.searchsorted(torch.tensor(kept), chosen.labels)))
    classes = [data.classes[i] for i in kept]
    return Dataset(name, f"{data.title}, {words}", *splits, classes, content_hash(*splits, classes), data.size)


def content_hash(train, test, classes):
    """SHA-256 of the pixels, labels and class names of two splits, as hexadecimal text."""
    digest = hashlib.sha256("\n".join(classes).encode())
    for part in (train.images, train.labels, test.images, test.labels):
        digest.update(f"|{part.dtype} {tuple(part.shape)}|".encode())
        digest.update(part.contiguous().numpy())
    return digest.hexdigest()


def _cave(size):
    from . import cave

    splits = []
    for seed, n in enumerate(CAVE_SIZES):
        images, latents = cave.render(n, seed=seed, size=size)
        splits.append(Split(images, torch.tensor(latents["shape"].cat.codes.to_numpy(), dtype=torch.int64), latents))
    classes = list(cave.SHAPES)
    return Dataset("cave", "The cave", *splits, classes, content_hash(*splits, classes), size)


# Where a set lies


def _from_files(name, size):
    known = _KNOWN.get(name)
    path = _find(name, known) if known else _user_path(name)
    decoded, digest = _decoded(path, size)
    train = Split(torch.from_numpy(decoded.train_images), torch.from_numpy(decoded.train_labels))
    test = Split(torch.from_numpy(decoded.test_images), torch.from_numpy(decoded.test_labels))
    title = _title(known, decoded) if known else path.name.split(".")[0] if path.is_file() else path.name
    return Dataset(name, title, train, test, decoded.classes, digest, size)


def _title(known, decoded):
    notes = []
    if len(decoded.classes) != known.n_classes:
        notes.append(f"{len(decoded.classes)} classes")
    if decoded.lossy and known.title.startswith("CIFAR"):  # Tiny-ImageNet itself is made of JPEGs
        notes.append(f"{decoded.lossy} copy")
    return f"{known.title} ({', '.join(notes)})" if notes else known.title


def _user_path(name):
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve()
    if path.name != name or path.suffix:
        raise FileNotFoundError(f"{name} does not exist (looked from {Path.cwd()}). {image_files.LAYOUT}")
    near = difflib.get_close_matches(name.lower(), NAMES, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(
        f"{name!r} is no image set.{hint} Choose one of {', '.join(NAMES)}, "
        "or give the path to a folder or zip of images."
    )


def source(name):
    """Path of the folder or archive that a public set other than the cave is read from; downloaded where absent.

    Raises
    ------
    FileNotFoundError as `load`.
    """
    return _find(name, _KNOWN[name])


def _find(name, known):
    """Path of a named set: in $CONVERGENT_DATA, else in the cache, else downloaded there."""
    supplied = os.environ.get("CONVERGENT_DATA")
    places = [paths.cache()]
    if supplied:
        places.insert(0, Path(supplied).expanduser())
        if not places[0].is_dir():
            raise FileNotFoundError(f"$CONVERGENT_DATA is {supplied}, which is not a folder. Correct or unset it.")
    for place in places:
        for usual in known.usual:
            if (place / usual).exists():
                return (place / usual).resolve()
    try:
        return _download(known)
    except OSError as error:
        raise FileNotFoundError(
            f"{name} is not here. Looked in $CONVERGENT_DATA ({supplied or 'not set'}) and {paths.cache()} for "
            f"{', '.join(known.usual)}; the download from {known.url} failed ({error}). "
            f"With a network connection it is downloaded ({known.megabytes} MB); otherwise set CONVERGENT_DATA to a "
            f"folder that holds {known.archive}, or a folder or zip called {known.usual[2]} with train/<class>/* and "
            'test/<class>/*; or use dataset="cave".'
        ) from error


def _download(known):
    import pooch  # here, as its progress bar warns of missing widgets as soon as it is imported

    with FileLock(paths.cache() / f"{known.archive}.lock"):  # two processes that want one set fetch it once
        try:
            file = pooch.retrieve(
                known.url, f"sha256:{known.sha256}", fname=known.archive, path=paths.cache(), progressbar=True
            )
        except ValueError as error:
            raise ValueError(
                f"The download from {known.url} is not the file it should be and was not kept: {error} "
                f"Try again; if it stays so, supply the set through $CONVERGENT_DATA."
            ) from error
    return Path(file)


# Decoded once


def _decoded(path, size):
    """(Decoded, hash) of a source, from the cache where the source has not changed since."""
    folder = paths.cache() / "decoded"
    folder.mkdir(exist_ok=True)
    key = hashlib.sha256(f"{_FORMAT} {size} {image_files.fingerprint(path)}".encode()).hexdigest()[:24]
    file = folder / f"{key}.npz"
    with FileLock(folder / f"{key}.lock"):  # two processes that want one set decode it once
        if file.exists():
            cached = _read_cache(file)
            if cached is not None:
                return cached
        decoded = (own_images if path.suffix == ".npz" else image_files).read(path, size)
        digest = _decoded_hash(decoded)
        _write_cache(file, decoded, digest)
    return decoded, digest


def _decoded_hash(decoded):
    splits = [
        Split(torch.from_numpy(images), torch.from_numpy(labels))
        for images, labels in ((decoded[0], decoded[1]), (decoded[2], decoded[3]))
    ]
    return content_hash(*splits, decoded.classes)


def _write_cache(file, decoded, digest):
    """Atomic: a process killed here leaves no half file under the final name. Not compressed: reading is 10x faster."""
    temporary = file.with_suffix(".tmp")  # ours alone, as we hold the lock: a killed process's is overwritten
    try:
        with temporary.open("wb") as stream:
            np.savez(stream, **decoded._asdict(), hash=digest)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _read_cache(file):
    """(Decoded, hash), or None with a warning when the file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            fields = {field: stored[field] for field in image_files.Decoded._fields}
            digest = str(stored["hash"])
        decoded = image_files.Decoded(**fields)
        decoded = decoded._replace(classes=decoded.classes.tolist(), lossy=str(decoded.lossy))
        if _decoded_hash(decoded) == digest:
            return decoded, digest
        problem = "its content does not match its hash"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        problem = str(error)
    warnings.warn(f"The cached images in {file} are damaged ({problem}): decoding them anew.", stacklevel=5)
    return None
