import hashlib
import http.server
import io
import os
import stat
import tarfile
import threading
import time
import warnings
import zipfile
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convergent import image_files, images, paths

REAL = os.environ.get("CONVERGENT_DATA")
smoke = pytest.mark.smoke


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch):
    """No test reads or writes the real cache, finds the real data, or leaves this machine."""
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVERGENT_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    nowhere = {name: replace(known, url=f"http://127.0.0.1:9/{known.archive}") for name, known in images._KNOWN.items()}
    monkeypatch.setattr(images, "_KNOWN", nowhere)


def noise(seed, size=(32, 32), mode="RGB"):
    channels = len(mode) if mode != "L" else 0
    shape = size[::-1] + ((channels,) if channels else ())
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode=None)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def make_folder(root, classes=("cat", "dog", "eel"), n_train=4, n_test=2, test="test", suffix=".png"):
    for split, n in (("train", n_train), (test, n_test)):
        for c, name in enumerate(classes):
            for i in range(n):
                save(noise(1000 * (split == "train") + 100 * c + i), root / split / name / f"{i}{suffix}")
    return root


def make_zip(folder, archive, top=""):
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                z.write(file, top + file.relative_to(folder).as_posix())
    return archive


def cifar_bytes(labels, n_label_bytes=1, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    heads = np.zeros((len(labels), n_label_bytes), dtype=np.uint8)
    heads[:, -1] = labels
    return np.hstack([heads, pixels]).tobytes(), pixels.reshape(-1, 3, 32, 32)


def make_cifar10(folder, labels=(3, 9)):
    folder.mkdir(parents=True)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(cifar_bytes(labels, seed=i)[0])
    (folder / "test_batch.bin").write_bytes(cifar_bytes(labels, seed=6)[0])
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    return folder


def make_tar(folder, archive, top=None):
    with tarfile.open(archive, "w:gz") as t:
        t.add(folder, top or folder.name)
    return archive


def same(a, b):
    return all(
        torch.equal(getattr(getattr(a, split), part), getattr(getattr(b, split), part))
        for split in ("train", "test")
        for part in ("images", "labels")
    )


# Folders and zips


@smoke
def test_a_folder_becomes_tensors_with_labels_in_the_order_of_the_sorted_class_names(tmp_path):
    data = images.load(make_folder(tmp_path / "mine"))
    assert data.title == "mine"
    assert data.classes == ["cat", "dog", "eel"]
    assert data.train.images.shape == (12, 3, 32, 32)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.test.labels.dtype == torch.int64
    expected = np.asarray(noise(1000 + 100 + 2)).transpose(2, 0, 1)  # train/dog/2.png
    assert np.array_equal(data.train.images[6], expected), "an image that fits already must keep its pixels"


@smoke
@pytest.mark.parametrize("top", ["", "enclosing/", "./"])
def test_folder_and_zip_of_the_same_images_give_identical_tensors_and_hash(tmp_path, top):
    folder = make_folder(tmp_path / "mine")
    from_folder = images.load(folder)
    from_zip = images.load(make_zip(folder, tmp_path / "packed.zip", top))
    assert same(from_folder, from_zip)
    assert from_folder.hash == from_zip.hash
    assert from_zip.title == "packed"


@smoke
def test_the_hash_depends_on_pixels_labels_names_and_size(tmp_path):
    hashes = {images.load(make_folder(tmp_path / "a")).hash, images.load(tmp_path / "a", size=16).hash}
    hashes.add(images.load(make_folder(tmp_path / "b", classes=("cat", "dog", "elk"))).hash)
    save(noise(77), make_folder(tmp_path / "c") / "train/cat/0.png")
    hashes.add(images.load(tmp_path / "c").hash)
    (make_folder(tmp_path / "d") / "train/cat/3.png").rename(tmp_path / "d/train/dog/!.png")
    hashes.add(images.load(tmp_path / "d").hash)
    assert len(hashes) == 5


@smoke
def test_val_is_accepted_for_test_and_test_goes_first(tmp_path):
    folder = make_folder(tmp_path / "mine", test="val")
    assert len(images.load(folder).test) == 6
    save(noise(5), folder / "test/cat/0.png")
    assert len(images.load(folder).test) == 1


@smoke
def test_hidden_files_and_resource_forks_are_left_out(tmp_path):
    folder = make_folder(tmp_path / "mine")
    clean = images.load(folder).hash
    for hidden in ("train/cat/._0.png", "train/.DS_Store", "train/.hidden/a.png", "__MACOSX/train/cat/0.png"):
        (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
        (folder / hidden).write_bytes(b"not an image")
    assert images.load(folder).hash == clean
    assert images.load(make_zip(folder, tmp_path / "mine.zip")).hash == clean


@smoke
def test_a_table_of_words_gives_readable_and_distinct_class_names(tmp_path):
    folder = make_folder(tmp_path / "mine", classes=("n01", "n02", "n03"))
    (folder / "classes.tsv").write_text("n02\tcrane\nn01\tking penguin, Aptenodytes\nn03\tcrane\n")
    assert images.load(folder).classes == ["king penguin, Aptenodytes", "crane (n02)", "crane (n03)"]


@smoke
def test_a_table_of_words_in_another_encoding_is_named(tmp_path):
    folder = make_folder(tmp_path / "mine")
    (folder / "classes.tsv").write_bytes("cat\tKätzchen\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes.tsv is not text in UTF-8.*Save it as UTF-8"):
        images.load(folder)


@smoke
def test_files_of_unknown_kinds_among_the_images_are_left_out_with_a_warning(tmp_path):
    folder = make_folder(tmp_path / "mine")
    (folder / "train/cat/phone.heic").write_bytes(b"x")
    (folder / "train/cat/notes.txt").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"left out files.*1 \.heic\."):
        assert len(images.load(folder).train) == 12


# Pixels


@smoke
def test_images_are_cut_to_their_central_square_and_averaged_down(tmp_path):
    folder = make_folder(tmp_path / "mine")
    wide = np.zeros((64, 128, 3), dtype=np.uint8)
    wide[:, 32:96] = np.tile(np.indices((64, 64)).sum(0)[..., None] % 2 * 255, 3)  # a chequerboard between black bars
    save(Image.fromarray(wide), folder / "train/cat/0.png")
    small = images.load(folder).train.images[0].float()
    assert small[:, 4:-4, 4:-4].sub(127.5).abs().max() < 3, "skipping pixels would leave black or white"


@smoke
@pytest.mark.parametrize(("mode", "kept"), [("L", True), ("RGBA", True), ("CMYK", False), ("LA", True), ("P", False)])
def test_other_colour_modes_become_rgb(tmp_path, mode, kept):
    folder = make_folder(tmp_path / "mine", suffix=".tif")
    original = noise(3).convert("L").convert("RGB") if mode in ("L", "LA") else noise(3)
    save(original.convert(mode), folder / "train/cat/0.tif")
    image = images.load(folder).train.images[0]
    expected = torch.from_numpy(np.array(original.convert(mode).convert("RGB")).transpose(2, 0, 1))
    assert torch.equal(image, expected)
    assert not kept or torch.equal(image, torch.from_numpy(np.array(original).transpose(2, 0, 1)))


@smoke
def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    folder = make_folder(tmp_path / "mine")
    ramp = (np.arange(32 * 32).reshape(32, 32) * 64).astype(np.uint16)
    save(Image.fromarray(ramp), folder / "train/cat/0.png")
    image = images.load(folder).train.images[0]
    assert np.array_equal(image, np.stack([ramp >> 8] * 3)), "clipping at 255 would make nearly all of it white"


@smoke
def test_transparent_pixels_show_white_whatever_lies_beneath(tmp_path):
    folder = make_folder(tmp_path / "mine")
    save(Image.new("RGBA", (32, 32), (200, 0, 0, 0)), folder / "train/cat/0.png")
    assert (images.load(folder).train.images[0] == 255).all()


@smoke
def test_photographs_are_turned_as_their_camera_noted(tmp_path):
    folder = make_folder(tmp_path / "mine")
    left_white = Image.new("RGB", (32, 32))
    left_white.paste("white", (0, 0, 16, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise: the left side comes to the top
    save(left_white, folder / "train/cat/0.jpg", exif=exif, quality=95)
    image = images.load(folder).train.images[0].float()
    assert image[:, :12].min() > 240
    assert image[:, 20:].max() < 15


# The cache


def no_decoding(*_):
    raise AssertionError("decoded again")


@smoke
def test_the_second_load_comes_from_the_cache(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "mine")
    first = images.load(folder)
    monkeypatch.setattr(image_files, "read", no_decoding)
    second = images.load(folder)
    assert same(first, second)
    assert (first.hash, first.classes, first.title) == (second.hash, second.classes, second.title)
    with pytest.raises(AssertionError, match="decoded again"):
        images.load(folder, size=16)


@smoke
@pytest.mark.parametrize("change", ["add", "remove", "rewrite"])
def test_a_changed_folder_is_decoded_again(tmp_path, change):
    folder = make_folder(tmp_path / "mine")
    before = images.load(folder).hash
    file = folder / "train/cat/0.png"
    if change == "add":
        save(noise(50), folder / "train/cat/9.png")
    elif change == "remove":
        file.unlink()
    else:
        save(noise(51), file)
    assert images.load(folder).hash != before


def flip_a_pixel(file):
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["train_images"][0, 0, 0, 0] ^= 1
    np.savez(file, **arrays)


def swap_a_label(file):
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["test_labels"][0] += 1
    np.savez(file, **arrays)


def cut_short(file):
    file.write_bytes(file.read_bytes()[:1000])


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[5000] ^= 255
    file.write_bytes(content)


def drop_a_field(file):
    with np.load(file) as stored:
        arrays = {field: stored[field] for field in stored if field != "classes"}
    np.savez(file, **arrays)


def hide_a_pickle(file):
    with np.load(file) as stored:
        arrays = dict(stored)
    np.savez(file, **arrays | {"classes": np.array([{"code": 1}], dtype=object)})


@smoke
@pytest.mark.parametrize(
    "damage",
    [flip_a_pixel, swap_a_label, cut_short, flip_a_byte, drop_a_field, hide_a_pickle, lambda f: f.write_bytes(b"")],
)
def test_a_damaged_cache_file_is_noticed_and_made_anew(tmp_path, damage):
    folder = make_folder(tmp_path / "mine")
    first = images.load(folder)
    (cached,) = (tmp_path / "cache/decoded").glob("*.npz")
    damage(cached)
    with pytest.warns(UserWarning, match="damaged.*decoding them anew"):
        again = images.load(folder)
    assert same(first, again)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.load(folder).hash == first.hash


@smoke
def test_a_failed_write_leaves_no_file_behind(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    folder = make_folder(tmp_path / "mine")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        images.load(folder)
    assert [f.suffix for f in (tmp_path / "cache/decoded").iterdir()] in ([".lock"], [])


@smoke
def test_what_a_killed_process_left_does_no_harm(tmp_path):
    folder = make_folder(tmp_path / "mine")
    first = images.load(folder)
    (cached,) = (tmp_path / "cache/decoded").glob("*.npz")
    cached.rename(cached.with_suffix(".tmp"))
    cut_short(cached.with_suffix(".tmp"))
    assert images.load(folder).hash == first.hash
    assert not list(cached.parent.glob("*.tmp"))


@smoke
def test_an_interrupt_ends_decoding_at_once(tmp_path, monkeypatch):
    def interrupted(done, *_, **__):
        next(done)
        raise KeyboardInterrupt
        yield

    decodings = []
    monkeypatch.setattr(image_files, "tqdm", interrupted)
    monkeypatch.setattr(image_files, "decode", lambda *_: decodings.append(time.sleep(0.005)) or 0)
    folder = make_folder(tmp_path / "mine", n_train=100)
    with pytest.raises(KeyboardInterrupt):
        images.load(folder)
    assert len(decodings) < 100, "the other images were decoded although nobody wants them"
    assert not list((tmp_path / "cache/decoded").glob("*.npz"))


def test_two_processes_that_want_one_set_decode_it_once(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "mine", n_train=30)
    decodings, real = [], image_files.read
    monkeypatch.setattr(image_files, "read", lambda *a: decodings.append(1) or real(*a))
    # Threads that each open the lock file anew exclude one another as processes do.
    hashes = []
    workers = [threading.Thread(target=lambda: hashes.append(images.load(folder).hash)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(decodings) == 1
    assert len(hashes) == 4
    assert len(set(hashes)) == 1


# Splits and samples


@smoke
def test_subsets_are_balanced_seeded_and_nested(tmp_path):
    folder = make_folder(tmp_path / "mine", n_train=20, n_test=4)
    data = images.load(folder, n_train=30, n_test=4, seed=1)
    assert data.train.labels.bincount().tolist() == [10, 10, 10]
    assert sorted(data.test.labels.bincount().tolist()) == [1, 1, 2]
    assert torch.equal(data.train.images, images.load(folder, n_train=30, seed=1).train.images)
    assert not torch.equal(data.train.images, images.load(folder, n_train=30, seed=2).train.images)
    assert torch.equal(data.train.images[:12], images.load(folder, n_train=12, seed=1).train.images)
    assert data.train[:9].labels.bincount().tolist() == [3, 3, 3], "every prefix must be balanced"
    assert len({image.numpy().tobytes() for image in data.train.images}) == 30, "an image was drawn twice"
    assert data.hash != images.load(folder).hash


@smoke
def test_parts_of_the_classes_have_none_in_common_and_make_up_the_whole(tmp_path):
    folder = make_folder(tmp_path / "mine", classes=("ant", "bee", "cat", "dog", "eel"))
    whole, parts = images.load(folder), [images.load(f"{folder}:{i}/2") for i in (1, 2)]
    assert [part.classes for part in parts] == [["ant", "cat", "eel"], ["bee", "dog"]]
    assert parts[1].title == "mine, part 2 of 2"
    for split in ("train", "test"):
        for i, part in enumerate(parts):
            ours, every = getattr(part, split), getattr(whole, split)
            assert torch.equal(ours.images, every.images[every.labels % 2 == i])
            assert torch.equal(2 * ours.labels + i, every.labels[every.labels % 2 == i])
    assert len({whole.hash, parts[0].hash, parts[1].hash}) == 3


@smoke
@pytest.mark.parametrize(
    ("part", "says"),
    [("3/2", "no part 3 of 2"), ("0/2", "no part 0 of 2"), ("1/3", "fewer than 2 of 3 classes")],
)
def test_a_part_that_cannot_be_is_refused(tmp_path, part, says):
    with pytest.raises(ValueError, match=says):
        images.load(f"{make_folder(tmp_path / 'mine')}:{part}")


@smoke
def test_a_class_that_runs_out_gives_all_it_has():
    labels = torch.tensor([0] * 2 + [1] * 50 + [2] * 50)
    split = images.Split(torch.zeros(102, 3, 2, 2, dtype=torch.uint8), labels)
    assert split.sample(32).labels.bincount().tolist() == [2, 15, 15]
    assert split.sample(102).labels.bincount().tolist() == [2, 50, 50]


@smoke
def test_a_plain_sample_follows_the_class_sizes():
    labels = torch.tensor([0] * 900 + [1] * 100)
    split = images.Split(torch.zeros(1000, 3, 1, 1, dtype=torch.uint8), labels)
    assert 60 < split.sample(500, seed=3, balanced=False).labels.bincount()[0].item() / 500 * 100 < 100
    assert split.sample(200, seed=3).labels.bincount().tolist() == [100, 100]


@smoke
@pytest.mark.parametrize("n", [0, -1, 13, 2.5])
def test_a_sample_of_an_impossible_size_is_refused(tmp_path, n):
    with pytest.raises(ValueError, match=f"{n} stimuli asked of a split that has 12: ask for 1 to 12"):
        images.load(make_folder(tmp_path / "mine"), n_train=n)


@smoke
def test_a_split_can_be_cut_by_slice_mask_list_and_position():
    split = images.Split(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10))
    assert split[2:4].labels.tolist() == [2, 3]
    assert split[[5, 1]].images.flatten().tolist() == [5, 1]
    assert split[split.labels > 7].labels.tolist() == [8, 9]
    image, label = split[-1]
    assert (image.item(), label.item()) == (9, 9)


@smoke
@pytest.mark.parametrize("size", [0, -3, 2.5, "32"])
def test_a_size_that_is_no_number_of_pixels_is_refused(size):
    with pytest.raises(ValueError, match=r"size=.*whole pixels"):
        images.load("cave", size=size)


@smoke
def test_the_cave_comes_with_latents_that_follow_its_subsets(monkeypatch):
    monkeypatch.setattr(images, "CAVE_SIZES", (200, 100))
    data = images.load("cave", n_train=50)
    assert (len(data.train), len(data.test), data.title) == (50, 100, "The cave")
    assert data.train.images.shape == (50, 3, 32, 32)
    for split in (data.train, data.test):
        assert [data.classes[i] for i in split.labels] == split.latents["shape"].astype(str).tolist()
    assert data.train.labels.bincount(minlength=10).tolist() == [5] * 10
    assert not torch.equal(data.train.images[:50], data.test.images[:50])


# CIFAR's own files


@smoke
@pytest.mark.parametrize("packed", [False, True])
def test_the_binary_version_of_cifar10_is_read_from_folder_and_archive(tmp_path, monkeypatch, packed):
    folder = make_cifar10(tmp_path / "supply/cifar-10-batches-bin")
    if packed:
        make_tar(folder, tmp_path / "supply/cifar-10-binary.tar.gz")
        folder.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("CONVERGENT_DATA", str(tmp_path / "supply"))
    data = images.load("cifar10")
    assert data.title == "CIFAR-10"
    assert data.train.labels.tolist() == [3, 9] * 5
    assert data.classes[3] == "cat"
    assert np.array_equal(data.train.images[2:4], cifar_bytes((3, 9), seed=2)[1])
    assert np.array_equal(data.test.images, cifar_bytes((3, 9), seed=6)[1])
    assert images.load("cifar10", size=16).train.images.shape == (10, 3, 16, 16)


@smoke
def test_cifar100_uses_the_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.bin").write_bytes(cifar_bytes((99, 42), n_label_bytes=2)[0])
    (folder / "fine_label_names.txt").write_text("\n".join(f"class{i}" for i in range(100)))
    data = images.load(folder)
    assert data.train.labels.tolist() == [99, 42]
    assert data.classes[42] == "class42"


@smoke
def test_a_label_out_of_range_is_named_with_its_record(tmp_path):
    folder = make_cifar10(tmp_path / "mine")
    (folder / "data_batch_3.bin").write_bytes(cifar_bytes((1, 200))[0])
    with pytest.raises(ValueError, match=r"record 1 of data_batch_3.bin has label 200, out of range for 10 classes"):
        images.load(folder)


@smoke
def test_a_cifar_file_that_is_cut_off_is_refused(tmp_path):
    folder = make_cifar10(tmp_path / "mine")
    (folder / "test_batch.bin").write_bytes(cifar_bytes((1, 2))[0][:-1])
    with pytest.raises(ValueError, match=r"test_batch.bin has 6145 bytes, not a multiple of 3073"):
        images.load(folder)


@smoke
def test_a_cifar_folder_that_lacks_a_file_is_refused(tmp_path):
    folder = make_cifar10(tmp_path / "mine")
    (folder / "data_batch_4.bin").unlink()
    with pytest.raises(ValueError, match=r"lacks data_batch_4.bin"):
        images.load(folder)


@smoke
def test_a_cifar_archive_that_is_cut_off_is_refused(tmp_path):
    archive = make_tar(make_cifar10(tmp_path / "mine"), tmp_path / "mine.tar.gz")
    archive.write_bytes(archive.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"mine\.tar\.gz is a damaged tar archive.*fetch it again"):
        images.load(archive)


@smoke
def test_a_cifar_archive_with_a_wrong_byte_is_refused(tmp_path):
    archive = make_tar(make_cifar10(tmp_path / "mine"), tmp_path / "mine.tar.gz")
    content = bytearray(archive.read_bytes())
    content[-6] ^= 255  # in the checksum at the end of the stream
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.tar\.gz is a damaged tar archive.*fetch it again"):
        images.load(archive)


@smoke
def test_a_tar_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_LARGEST_TAR", 20_000)
    archive = make_tar(make_cifar10(tmp_path / "mine"), tmp_path / "mine.tar.gz")
    with pytest.raises(ValueError, match=r"mine\.tar\.gz unpacks to more than 2 GB\. Unpack it"):
        images.load(archive)


# Tiny-ImageNet's own layout


def make_tiny_imagenet(root):
    for folder in ("n02", "n01"):
        for i in range(3):
            save(noise(i, (64, 64)), root / f"train/{folder}/images/{folder}_{i}.JPEG")
        (root / f"train/{folder}/{folder}_boxes.txt").write_text("x\t0\t0\t1\t1\n")
    for i in range(4):
        save(noise(10 + i, (64, 64)), root / f"val/images/val_{i}.JPEG")
    rows = [f"val_{i}.JPEG\t{('n02', 'n01')[i % 2]}\t0\t0\t63\t63" for i in range(4)]
    (root / "val/val_annotations.txt").write_text("\n".join(rows) + "\n")
    save(noise(99, (64, 64)), root / "test/images/test_0.JPEG")  # has no label
    (root / "words.txt").write_text("n00\tentity\nn01\tgoldfish\nn02\tkoala, koala bear\n")
    return root


@smoke
@pytest.mark.parametrize("packed", [False, True])
def test_tiny_imagenet_is_read_in_its_own_layout(tmp_path, monkeypatch, packed):
    root = make_tiny_imagenet(tmp_path / "supply/tiny-imagenet-200")
    if packed:
        make_zip(root, tmp_path / "supply/tiny-imagenet-200.zip", top="tiny-imagenet-200/")
        root.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("CONVERGENT_DATA", str(tmp_path / "supply"))
    data = images.load("tiny-imagenet", size=64)
    assert data.title == "Tiny-ImageNet (2 classes)"
    assert data.classes == ["goldfish", "koala, koala bear"]
    assert data.train.images.shape == (6, 3, 64, 64)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    val_1 = Image.open(next(tmp_path.rglob("val_1.JPEG"))).convert("RGB")
    assert np.array_equal(data.test.images[0], np.asarray(val_1).transpose(2, 0, 1))


@smoke
def test_an_annotation_without_its_image_is_refused(tmp_path):
    root = make_tiny_imagenet(tmp_path / "tiny")
    (root / "val/images/val_2.JPEG").unlink()
    with pytest.raises(ValueError, match=r"val_annotations.txt lists val_2.JPEG, which val/images/ lacks"):
        images.load(root)


# Where a named set is looked for


@smoke
def test_supplied_data_go_before_the_cache_and_the_cache_before_the_network(tmp_path, monkeypatch):
    make_folder(paths.cache() / "cifar10")
    assert images.load("cifar10").classes == ["cat", "dog", "eel"]
    make_folder(tmp_path / "supply/cifar10", classes=("ant", "bee"))
    monkeypatch.setenv("CONVERGENT_DATA", str(tmp_path / "supply"))
    assert images.load("cifar10").classes == ["ant", "bee"]


@smoke
def test_a_supplied_folder_without_the_set_leaves_it_to_the_cache(tmp_path, monkeypatch):
    make_folder(paths.cache() / "cifar10")
    monkeypatch.setenv("CONVERGENT_DATA", str(tmp_path))
    assert images.load("cifar10").classes == ["cat", "dog", "eel"]


@smoke
def test_the_original_goes_before_a_copy_and_a_copy_is_titled_so(tmp_path, monkeypatch):
    supply = tmp_path / "supply"
    monkeypatch.setenv("CONVERGENT_DATA", str(supply))
    supply.mkdir()
    classes = tuple("abcdefghij")
    make_zip(make_folder(tmp_path / "copy", classes, n_train=1, suffix=".jpg"), supply / "cifar10_jpegs.zip")
    assert images.load("cifar10").title == "CIFAR-10 (JPEG copy)"
    make_folder(supply / "cifar10", classes, n_train=1)
    assert images.load("cifar10").title == "CIFAR-10"
    make_cifar10(supply / "cifar-10-batches-bin")
    assert images.load("cifar10").classes[0] == "airplane"


@smoke
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny-imagenet"])
def test_a_set_that_is_absent_offline_is_one_error_with_places_and_remedies(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        images.load(name)
    message = str(caught.value)
    assert message.startswith(f"{name} is not here. Looked in $CONVERGENT_DATA (not set) and {tmp_path / 'cache'}")
    for remedy in ("With a network connection", " MB)", "train/<class>/*", images._KNOWN[name].archive, '"cave"'):
        assert remedy in message


@smoke
def test_a_mistyped_data_folder_is_refused_before_any_download(monkeypatch):
    monkeypatch.setattr(images, "_download", no_decoding)
    monkeypatch.setenv("CONVERGENT_DATA", "/no/such/folder")
    with pytest.raises(FileNotFoundError, match=r"\$CONVERGENT_DATA is /no/such/folder, which is not a folder"):
        images.load("cifar10")


@smoke
def test_an_unknown_name_is_met_with_near_ones():
    with pytest.raises(ValueError, match=r"'cifar-10' is no image set\. Did you mean cifar10 or cifar100\?"):
        images.load("cifar-10")
    with pytest.raises(ValueError, match=r"'photos' is no image set\. Choose one of cave, cifar10"):
        images.load("photos")


@smoke
@pytest.mark.parametrize("name", ["my/photos", "photos.zip"])
def test_a_path_that_does_not_exist_is_named(name):
    with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
        images.load(name)


# Downloads


@pytest.fixture
def server(tmp_path):
    """(folder, address) of a web server on this machine, with the requests it got."""
    folder = tmp_path / "served"
    folder.mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, _, *about):
            requests.append(about[0])

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}", requests
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def serve_cifar10(server, monkeypatch, tmp_path, sha256=None):
    folder, address, _ = server
    archive = make_tar(make_cifar10(tmp_path / "cifar-10-batches-bin"), folder / "cifar-10-binary.tar.gz")
    sha256 = sha256 or hashlib.sha256(archive.read_bytes()).hexdigest()
    known = replace(images._KNOWN["cifar10"], url=f"{address}/{archive.name}", sha256=sha256)
    monkeypatch.setitem(images._KNOWN, "cifar10", known)


def test_an_absent_set_is_downloaded_once_and_kept(server, monkeypatch, tmp_path):
    serve_cifar10(server, monkeypatch, tmp_path)
    first = images.load("cifar10")
    assert first.title == "CIFAR-10"
    assert (tmp_path / "cache/cifar-10-binary.tar.gz").is_file()
    assert images.load("cifar10", size=16).size == 16
    assert len(server[2]) == 1


def test_a_download_with_a_wrong_hash_is_refused_and_not_kept(server, monkeypatch, tmp_path):
    serve_cifar10(server, monkeypatch, tmp_path, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"is not the file it should be and was not kept(.|\n)*0000"):
        images.load("cifar10")
    assert [f.name for f in (tmp_path / "cache").iterdir() if f.suffix != ".lock"] == []


def test_a_download_that_the_server_lacks_says_so(server, monkeypatch):
    known = replace(images._KNOWN["cifar10"], url=f"{server[1]}/cifar-10-binary.tar.gz")
    monkeypatch.setitem(images._KNOWN, "cifar10", known)
    with pytest.raises(FileNotFoundError, match=r"cifar10 is not here.*404"):
        images.load("cifar10")


@smoke
def test_addresses_and_hashes_are_well_formed_and_no_archive_holds_pickles():
    for known in images._KNOWN.values():
        assert known.archive in known.usual
        assert len(known.sha256) == 64
        assert set(known.sha256) <= set("0123456789abcdef")
        assert "python" not in known.url


# What data/README.md says of them

README = (paths.data() / "README.md").read_text(encoding="utf-8")


@smoke
def test_the_data_readme_lists_every_public_set_as_the_code_fetches_it():
    for name, known in images._KNOWN.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        for fact in (known.archive, known.sha256, f"{known.megabytes} MB"):
            assert fact in row
        places = next(line for line in README.splitlines() if line.strip().startswith(f"- `{name}`: "))
        listed = [place.rstrip("/") for place in places.split("`")[3::2]]
        assert tuple(listed) == known.usual


@smoke
@pytest.mark.parametrize(("package", "folder", "n"), [("skimage", "data", 14), ("sklearn", "datasets/images", 2)])
def test_the_data_readme_gives_the_hash_of_every_installed_photograph(package, folder, n):
    section = README.split(f"`{package}/{folder}/`")[1].split("\nIn scikit-learn")[0].split("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.count("`") == 4]
    assert len(rows) == n
    home = Path(find_spec(package).submodule_search_locations[0]) / folder
    for *_, file, digest in rows:
        content = (home / file.strip("` ")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest.strip("`| "), file


# Bad sources: each its own clear error


@smoke
@pytest.mark.parametrize(
    "member", ["../outside.png", "train/cat/../../../x.png", "/etc/x.png", "C:\\x.png", "a\\..\\x.png"]
)
def test_a_zip_member_that_would_leave_its_folder_is_refused_by_name(tmp_path, member):
    archive = make_zip(make_folder(tmp_path / "mine"), tmp_path / "evil.zip")
    with zipfile.ZipFile(archive, "a") as z:
        z.writestr(member, b"x")
    with pytest.raises(ValueError, match="points outside the archive") as caught:
        images.load(archive)
    assert repr(member) in str(caught.value)
    assert not (tmp_path / "outside.png").exists()


@smoke
@pytest.mark.parametrize("member", ["../outside.bin", "/outside.bin"])
def test_a_tar_member_that_would_leave_its_folder_is_refused_by_name(tmp_path, member):
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as t:
        t.addfile(tarfile.TarInfo(member), io.BytesIO())
    with pytest.raises(ValueError, match=f"'{member}' points outside the archive"):
        images.load(archive)


@smoke
def test_a_link_inside_a_zip_is_not_followed(tmp_path):
    save(noise(1), tmp_path / "secret.png")
    archive = make_zip(make_folder(tmp_path / "mine"), tmp_path / "evil.zip")
    link = zipfile.ZipInfo("train/cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as z:
        z.writestr(link, str(tmp_path / "secret.png"))
    with pytest.raises(ValueError, match=r"1 image\(s\) cannot be read: train/cat/link.png"):
        images.load(archive)


@smoke
def test_a_zip_written_with_backslashes_is_read(tmp_path):
    folder = make_folder(tmp_path / "mine")
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as z:
        for file in folder.rglob("*.png"):
            z.writestr(str(file.relative_to(folder)).replace("/", "\\"), file.read_bytes())
    assert images.load(tmp_path / "windows.zip").hash == images.load(folder).hash


@smoke
def test_a_zip_that_is_cut_off_is_refused(tmp_path):
    archive = make_zip(make_folder(tmp_path / "mine"), tmp_path / "mine.zip")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"mine.zip is not a whole zip archive.*fetch it again"):
        images.load(archive)


@smoke
def test_a_damaged_zip_member_is_named(tmp_path):
    archive = make_zip(make_folder(tmp_path / "mine"), tmp_path / "mine.zip")
    with zipfile.ZipFile(archive) as z:
        start = z.getinfo("train/dog/1.png").header_offset
    content = bytearray(archive.read_bytes())
    content[start + 500 : start + 600] = bytes(100)
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"1 image\(s\) cannot be read: train/dog/1.png"):
        images.load(archive)


@smoke
def test_a_zip_with_a_giant_member_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_LARGEST_MEMBER", 5000)
    archive = make_zip(make_folder(tmp_path / "mine"), tmp_path / "mine.zip")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as z:
        z.writestr("train/cat/bomb.png", bytes(6000))
    with pytest.raises(ValueError, match=r"train/cat/bomb.png unpacks to .* more than an image may"):
        images.load(archive)


@smoke
def test_an_encrypted_zip_is_refused(tmp_path):
    archive = make_zip(make_folder(tmp_path / "mine"), tmp_path / "mine.zip")
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the flag in the last entry of the directory
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"is encrypted\. Make the zip again without a password"):
        images.load(archive)


@smoke
def test_unreadable_images_are_named_together_and_nothing_is_kept(tmp_path):
    folder = make_folder(tmp_path / "mine")
    (folder / "train/cat/1.png").write_bytes(b"no image at all")
    whole = (folder / "test/eel/0.png").read_bytes()
    (folder / "test/eel/0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"2 image\(s\) cannot be read: test/eel/0.png \(.*train/cat/1.png \(.*Replace"
    ):
        images.load(folder)
    assert not list((tmp_path / "cache/decoded").glob("*.npz"))


@smoke
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "mine")
    save(Image.new("RGB", (60, 60)), folder / "train/cat/0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(ValueError, match=r"train/cat/0.png \(60 x 60 pixels, more than the limit of 3000\)"):
        images.load(folder)


@smoke
def test_pixels_without_an_agreed_range_are_refused(tmp_path):
    folder = make_folder(tmp_path / "mine")
    save(Image.fromarray(np.ones((32, 32), dtype=np.float32)), folder / "train/cat/0.tif")
    save(Image.fromarray(np.full((32, 32), 70000, dtype=np.int32)), folder / "train/dog/0.tif")
    with pytest.raises(ValueError, match=r"cat/0.tif \(floating-point.*dog/0.tif \(grey values outside 0 to 65535"):
        images.load(folder)


@smoke
def test_one_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one class only \(cat\).*Lay it out as train/<class>/\*"):
        images.load(make_folder(tmp_path / "mine", classes=("cat",)))


@smoke
def test_a_test_class_that_training_lacks_is_named(tmp_path):
    folder = make_folder(tmp_path / "mine")
    save(noise(1), folder / "test/fox/0.png")
    with pytest.raises(ValueError, match=r"test images of 1 class\(es\) that train/ lacks \(fox\)"):
        images.load(folder)


@smoke
def test_a_set_without_test_images_says_how_to_lay_it_out(tmp_path):
    with pytest.raises(ValueError, match=r"has train/ but no images in test/<class>/ or val/<class>/.*Lay it out as"):
        images.load(make_folder(tmp_path / "mine", n_test=0))


@smoke
@pytest.mark.parametrize("files", [[], ["cat/0.png", "dog/0.png"], ["train/0.png"], ["train/cat/0.heic"]])
def test_a_folder_without_class_folders_of_images_says_how_to_lay_it_out(tmp_path, files):
    (tmp_path / "mine").mkdir()
    for file in files:
        (tmp_path / "mine" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / file).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"has no images in train/<class>/.*Lay it out as train/<class>/\*") as caught:
        images.load(tmp_path / "mine")
    assert ("heic" in str(caught.value)) == any("heic" in file for file in files)


@smoke
def test_a_folder_of_several_sets_asks_for_one(tmp_path):
    make_folder(tmp_path / "all/one")
    make_folder(tmp_path / "all/two")
    with pytest.raises(ValueError, match=r"holds several data sets \(one, two\)"):
        images.load(tmp_path / "all")


@smoke
def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"photo.png is neither a folder nor a zip nor a .tar.gz of images"):
        images.load(tmp_path / "photo.png")


# The real thing


@pytest.fixture
def supply_real(tmp_path, monkeypatch):
    """Makes one file of the reader's own $CONVERGENT_DATA, and no other, the supplied data."""

    def supply(file):
        if not REAL or not (Path(REAL) / file).is_file():
            pytest.skip(f"{file} is not in $CONVERGENT_DATA ({REAL or 'not set'})")
        (tmp_path / "supply").mkdir()
        (tmp_path / "supply" / file).symlink_to((Path(REAL) / file).resolve())
        monkeypatch.setenv("CONVERGENT_DATA", str(tmp_path / "supply"))

    return supply


def test_the_jpeg_copy_of_cifar10_loads_like_any_zip(supply_real):
    supply_real("cifar10_jpegs.zip")
    data = images.load("cifar10")
    assert data.title == "CIFAR-10 (JPEG copy)"
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert " ".join(data.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    # Channel means of the original training images, as widely quoted (0.4914, 0.4822, 0.4465).
    means = data.train.images.float().mean((0, 2, 3))
    assert torch.allclose(means, torch.tensor([125.3, 123.0, 113.9]), atol=0.5)


def test_eighty_classes_of_tiny_imagenet_load_at_their_own_size(supply_real):
    supply_real("tinyimagenet_80classes_jpegs.zip")
    data = images.load("tiny-imagenet", size=64)
    assert data.title == "Tiny-ImageNet (80 classes)"
    assert data.train.labels.bincount().tolist() == [500] * 80
    assert data.test.labels.bincount().tolist() == [50] * 80
    assert data.classes[0] == "goldfish, Carassius auratus"
