"""Folders and archives of images, decoded to uint8 arrays. Nothing is ever unpacked to disk.

Three layouts are understood, in a folder or a zip, at the top or below one enclosing folder:

- ImageFolder order: `train/<class>/*` and `test/<class>/*` (or `val/<class>/*`);
- Tiny-ImageNet's own: `train/<class>/images/*` and `val/images/*` with `val/val_annotations.txt`;
- the binary version of CIFAR-10 and CIFAR-100 (Krizhevsky 2009), also as `.tar.gz`.
"""

import gzip
import hashlib
import io
import os
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

LOSSY = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP", ".gif": "GIF", ".avif": "AVIF"}
IMAGES = {".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", *LOSSY}
NOTES = {"", ".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".mat", ".db", ".ini"}  # beside images, not images
LAYOUT = (
    "Lay it out as train/<class>/* and test/<class>/* (or val/<class>/*), "
    "one folder of images for each class, at least two classes."
)
_MARKS = {"train", "train.bin", "data_batch_1.bin"}  # what lies at the top of a data set
_LARGEST_MEMBER = 256 * 2**20  # bytes; refuses zip bombs before they fill the memory
_LARGEST_TAR = 2**31


class Decoded(NamedTuple):
    """Arrays of a data set: images uint8 (n, 3, size, size), labels int64 (n,), labels index `classes`."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: list[str]
    lossy: str  # "" for untouched pixels, else the kinds of compression met, such as "JPEG"


class Files(NamedTuple):
    """Files of a folder or archive by name relative to the top of the data set."""

    path: Path
    names: list[str]
    read: Callable[[str], bytes]

    def lines(self, name):
        """Lines of a text file that are not blank."""
        try:
            text = self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: {name} is not text in UTF-8 ({error}). Save it as UTF-8.") from error
        return [line for line in text.splitlines() if line.strip()]


def fingerprint(path):
    """Hexadecimal key of a folder or archive that changes when a file of it is added, removed or written.

    Built from names, sizes and times of modification, so that asking costs no decoding.
    """
    key = hashlib.sha256(str(path.resolve()).encode())
    names = _folder_names(path) if path.is_dir() else [""]
    for name in names:
        about = (path / name).stat()
        key.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return key.hexdigest()


def read(path, size):
    """Every image of a folder, zip or CIFAR archive as a `Decoded` of `size` x `size` pixels.

    Labels follow the sorted names of the class folders. Readable names come from `classes.tsv` or `words.txt`
    (class folder, tab, words) where one lies at the top.

    Raises
    ------
    ValueError
        For a layout that is not one of those above, a damaged archive, a member that would leave its folder, fewer
        than two classes, test classes without training images, labels out of range, and images that cannot be read.
    """
    path = Path(path)
    with _open(path) as files:
        if "data_batch_1.bin" in files.names:
            batches = [f"data_batch_{i}.bin" for i in range(1, 6)]
            return _read_cifar(files, batches, "test_batch.bin", "batches.meta.txt", 1, size)
        if "train.bin" in files.names:
            # Each record starts with the coarse label (20 kinds), then the fine one (100 classes): we use the latter.
            return _read_cifar(files, ["train.bin"], "test.bin", "fine_label_names.txt", 2, size)
        return _read_image_folders(files, size)


def _cut(pixels, labels, n_train, classes, lossy):
    return Decoded(
        pixels[:n_train], labels[:n_train], pixels[n_train:], labels[n_train:], classes, " and ".join(sorted(lossy))
    )


def read_zip(path, folder, size):
    """Names below `folder` of a zip and its images there: (list of names, uint8 (n, 3, size, size)), sorted by name.

    Raises
    ------
    ValueError for a damaged archive, no images there, or images that cannot be read.
    """
    with _open(path) as files:
        names = [n for n in files.names if n.startswith(f"{folder}/") and PurePosixPath(n).suffix.lower() in IMAGES]
        if not names:
            raise ValueError(f"{path} has no images in {folder}/: is it the right archive?")
        pixels = decode_all(files.path, names, lambda name: decode(files.read(name), size), size)
    return [name[len(folder) + 1 :] for name in names], pixels


# Where the bytes come from


@contextmanager
def _open(path) -> Iterator[Files]:
    """`Files` of a folder, zip or tar archive; damage found while reading becomes a ValueError naming the file."""
    if path.is_dir():
        root = path / _top(_two_levels(path), path)
        names = [Path(name).relative_to(root.relative_to(path)).as_posix() for name in _folder_names(path)]
        yield Files(path, names, lambda name: (root / name).read_bytes())
        return
    if zipfile.is_zipfile(path):
        kind, files = "zip", zip_files
    elif path.name.endswith((".tar.gz", ".tgz", ".tar")):
        kind, files = "tar", _tar_files
    elif path.suffix == ".zip":
        raise ValueError(
            f"{path} is not a whole zip archive (cut off, or another kind of file). Remove it and fetch it again."
        )
    else:
        raise ValueError(f"{path} is neither a folder nor a zip nor a .tar.gz of images. {LAYOUT}")
    try:
        with files(path) as (names, read):
            top = _top(names, path)
            inside = [name[len(top) :] for name in names if name.startswith(top)]
            yield Files(path, inside, lambda name: read(top + name))
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is a damaged {kind} archive ({error}). Remove it and fetch it again.") from error


@contextmanager
def zip_files(path):
    """(names, name -> bytes) of a zip, none of which is hidden, encrypted, too large or outside of it."""
    with zipfile.ZipFile(path) as archive:
        members = {_inside(path, member.filename): member for member in archive.infolist() if not member.is_dir()}
        members = {name: member for name, member in members.items() if not _hidden(name)}
        for name, member in members.items():
            if member.flag_bits & 1:
                raise ValueError(f"{path}: {name} is encrypted. Make the zip again without a password.")
            _refuse_giant(path, name, member.file_size)
        yield sorted(members), lambda name: archive.read(members[name])


@contextmanager
def _tar_files(path):
    """All of a tar in memory: gzip streams have no random access, and only CIFAR's 180 MB come this way."""
    contents, total = {}, 0
    with tarfile.open(path) as archive:
        for member in archive:
            name = _inside(path, member.name)
            if member.isfile() and not _hidden(name):
                _refuse_giant(path, name, member.size)
                total += member.size
                if total > _LARGEST_TAR:
                    raise ValueError(f"{path} unpacks to more than 2 GB. Unpack it, and give the path to the folder.")
                contents[name] = archive.extractfile(member).read()
        while archive.fileobj.read(2**20):  # gzip checks its sum at the very end, past the last member
            pass
    yield sorted(contents), contents.__getitem__


def _folder_names(path):
    """Sorted names, relative to `path`, of the files at the top of the data set and in its image folders."""
    root = path / _top(_two_levels(path), path)
    found = [file for file in root.iterdir() if file.is_file()]
    for split in ("train", "test", "val"):
        for folder, _, files in os.walk(root / split, followlinks=True):
            found += [Path(folder, file) for file in files]
    names = (file.relative_to(path).as_posix() for file in found)
    return sorted(name for name in names if not _hidden(name))


def _two_levels(path):
    return [file.relative_to(path).as_posix() for pattern in ("*", "*/*") for file in path.glob(pattern)]


def _top(names, path):
    """The one enclosing folder in which the data set lies, with its slash; empty where there is none."""
    parts = [name.split("/") for name in names if not _hidden(name)]
    if any(part[0] in _MARKS for part in parts):
        return ""
    tops = sorted({part[0] for part in parts if len(part) > 1 and part[1] in _MARKS})
    if len(tops) > 1:
        raise ValueError(f"{path} holds several data sets ({', '.join(tops)}). Name one of them.")
    return tops[0] + "/" if tops else ""


def _inside(path, name):
    """Name of an archive's member with forward slashes; one that would leave its folder is an error."""
    plain = name.replace("\\", "/").removeprefix("./")  # some Windows programs write backslashes
    if plain.startswith("/") or PureWindowsPath(name).drive or ".." in plain.split("/"):
        raise ValueError(
            f"{path}: the member {name!r} points outside the archive. "
            "An archive of images has no reason to do that: do not use it, or pack the images again."
        )
    return plain


def _hidden(name):
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _refuse_giant(path, name, n_bytes):
    if n_bytes > _LARGEST_MEMBER:
        raise ValueError(f"{path}: {name} unpacks to {n_bytes / 2**20:.0f} MB, more than an image may (256 MB).")


# Class folders


def _read_image_folders(files, size):
    n_other = {}
    images = {"train": {}, "test": {}, "val": {}}  # split -> class folder -> names
    for name in files.names:
        split, *rest = name.split("/")
        if split not in images or len(rest) < 2:
            continue
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in IMAGES:
            images[split].setdefault(rest[0], []).append(name)
        elif suffix not in NOTES:
            n_other[suffix] = n_other.get(suffix, 0) + 1
    ignored = ", ".join(f"{n} {suffix}" for suffix, n in sorted(n_other.items()))

    if not images["train"]:
        also = f" It has files of kinds that are not read: {ignored}." if ignored else ""
        raise ValueError(f"{files.path} has no images in train/<class>/.{also} {LAYOUT}")
    if ignored:
        warnings.warn(f"{files.path}: left out files that are not images by name: {ignored}.", stacklevel=4)
    folders = sorted(images["train"])
    if len(folders) < 2:
        raise ValueError(f"{files.path} has one class only ({folders[0]}): there is nothing to tell apart. {LAYOUT}")

    if "val/val_annotations.txt" in files.names:
        held_out = _tiny_imagenet_validation(files)
    else:
        held_out = images["test"] or images["val"]
    if not held_out:
        raise ValueError(
            f"{files.path} has train/ but no images in test/<class>/ or val/<class>/, and accuracy must be measured "
            f"on images that were not trained on. Move a tenth of each class there. {LAYOUT}"
        )
    unknown = sorted(set(held_out) - set(folders))
    if unknown:
        raise ValueError(
            f"{files.path}: test images of {len(unknown)} class(es) that train/ lacks ({', '.join(unknown[:5])}). "
            "Give both folders the same class names."
        )
    splits = (images["train"], held_out)
    names = [name for split in splits for folder in folders for name in split.get(folder, [])]
    labels = [label for split in splits for label, folder in enumerate(folders) for _ in split.get(folder, [])]
    pixels = decode_all(files.path, names, lambda name: decode(files.read(name), size), size)
    lossy = {LOSSY.get(PurePosixPath(name).suffix.lower()) for name in names} - {None}
    return _cut(pixels, np.array(labels), sum(map(len, images["train"].values())), _words(files, folders), lossy)


def _tiny_imagenet_validation(files):
    present, held_out = set(files.names), {}
    for line in files.lines("val/val_annotations.txt"):
        image, folder, *_ = line.split("\t") + [""]
        if f"val/images/{image}" not in present:
            raise ValueError(f"{files.path}: val/val_annotations.txt lists {image}, which val/images/ lacks.")
        held_out.setdefault(folder, []).append(f"val/images/{image}")
    return held_out


def _words(files, folders):
    """Readable names of the class folders, such as n02124075 -> Egyptian cat, where a table has them."""
    table = next((name for name in ("classes.tsv", "words.txt") if name in files.names), None)
    rows = [line.split("\t", 1) for line in files.lines(table)] if table else []
    words = {row[0]: row[1].strip() for row in rows if len(row) == 2}
    names = [words.get(folder, folder) for folder in folders]
    # WordNet has a crane that flies and a crane that lifts.
    return [f"{n} ({f})" if names.count(n) > 1 else n for n, f in zip(names, folders, strict=True)]


# CIFAR


def _read_cifar(files, train, test, meta, n_label_bytes, size):
    missing = [name for name in (*train, test, meta) if name not in files.names]
    if missing:
        raise ValueError(f"{files.path} lacks {', '.join(missing)} of the CIFAR binary version. Unpack it again.")
    classes = [line.strip() for line in files.lines(meta)]
    parts = [_cifar_records(files, name, n_label_bytes, len(classes)) for name in (*train, test)]
    pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    if size != 32:
        whole = [Image.fromarray(image.transpose(1, 2, 0)) for image in pixels]
        pixels = decode_all(files.path, range(len(whole)), lambda i: fit(whole[i], size), size)
    return _cut(pixels, labels, len(pixels) - len(parts[-1][0]), classes, lossy=())


def _cifar_records(files, name, n_label_bytes, n_classes):
    records = np.frombuffer(files.read(name), dtype=np.uint8)
    length = n_label_bytes + 3 * 32 * 32
    if len(records) == 0 or len(records) % length:
        raise ValueError(
            f"{files.path}: {name} has {len(records)} bytes, not a multiple of {length} (label and 32x32 colours): "
            "it is cut off. Remove it and fetch it again."
        )
    records = records.reshape(-1, length)
    labels = records[:, n_label_bytes - 1].astype(np.int64)
    if labels.max() >= n_classes:
        worst = int(labels.argmax())
        raise ValueError(
            f"{files.path}: record {worst} of {name} has label {labels[worst]}, out of range for {n_classes} classes "
            f"(0 to {n_classes - 1}). The file is damaged, or of another data set: fetch it again."
        )
    return records[:, n_label_bytes:].reshape(-1, 3, 32, 32), labels


# Pixels


def decode_all(path, names, decode, size):
    """uint8 (n, 3, size, size). All unreadable images are named in one error, not one at a time."""
    images = np.empty((len(names), 3, size, size), dtype=np.uint8)
    problems = {}

    def decode_into(i):
        try:
            images[i] = decode(names[i])
        except Exception as error:  # decoders of damaged files raise nearly everything; all of it is reported below
            problems[names[i]] = error

    # PIL and zlib release the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        done = pool.map(decode_into, range(len(names)))
        try:
            for _ in tqdm(done, f"decoding {path.name}", total=len(names), unit=" images", leave=False, mininterval=1):
                pass
        except KeyboardInterrupt:  # else leaving the block would first decode all the rest
            pool.shutdown(cancel_futures=True)
            raise
    if problems:
        first = "; ".join(f"{name} ({problems[name]})" for name in sorted(problems)[:5])
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"{path}: {len(problems)} image(s) cannot be read: {first}{more}. Replace or remove them."
        ) from problems[min(problems)]
    return images


def decode(encoded, size):
    """uint8 (3, size, size) of the bytes of an image file."""
    with Image.open(io.BytesIO(encoded)) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit and image.width * image.height > limit:
            raise ValueError(f"{image.width} x {image.height} pixels, more than the limit of {limit}")
        image.draft("RGB", (4 * size, 4 * size))  # lets libjpeg leave out detail that resizing would average away
        image = ImageOps.exif_transpose(image)
        return fit(_to_rgb(image), size)


def _to_rgb(image):
    if image.mode.startswith("I"):  # 16-bit grey; convert("RGB") would clip all that is brighter than 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("grey values outside 0 to 65535; save it with 8 or 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.has_transparency_data:  # what lies under full transparency is arbitrary: show it on white
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def fit(image, size):
    """uint8 (3, size, size): the central square, antialiased to `size`; pixels stay as they are where they fit."""
    side = min(image.size)
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, upper, left + side, upper + side))
    if side != size:
        square = square.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(square).transpose(2, 0, 1)
