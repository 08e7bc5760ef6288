"""Image sets as npz files, and pairs of original and shifted images: what they give, and what is refused."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from convergent import geirhos, images, own_images, shifts, under_shift
from convergent.under_shift import WITHIN
from tiny import dataset

pytestmark = pytest.mark.smoke


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / "cache"))


def pixels(n, size=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def whole(**changed):
    held = {
        "train_images": pixels(12),
        "train_labels": np.arange(12) % 3,
        "test_images": pixels(6, seed=1),
        "test_labels": np.arange(6) % 3,
    }
    return {name: value for name, value in (held | changed).items() if value is not None}


# --- data sets -------------------------------------------------------------------------------------


def test_an_npz_is_a_data_set_wherever_its_channels_stand(tmp_path):
    np.savez(tmp_path / "last.npz", **whole())
    first = {name: whole()[name].transpose(0, 3, 1, 2) for name in ("train_images", "test_images")}
    np.savez(tmp_path / "first.npz", **whole(**first), classes=np.array(["a", "b", "c"]))
    plain, named = images.load(tmp_path / "last.npz", size=16), images.load(tmp_path / "first.npz", size=16)
    assert (plain.title, plain.classes, named.classes) == ("last", ["0", "1", "2"], ["a", "b", "c"])
    for data in (plain, named):
        np.testing.assert_array_equal(data.test.images.numpy(), pixels(6, seed=1).transpose(0, 3, 1, 2))
        assert data.train.labels.tolist() == [i % 3 for i in range(12)]
    assert images.load(tmp_path / "last.npz", size=8).train.images.shape == (12, 3, 8, 8)


def test_labels_of_an_npz_may_be_words(tmp_path):
    words = np.array(["cat", "ant", "dog"])
    np.savez(tmp_path / "a.npz", **whole(train_labels=words[np.arange(12) % 3], test_labels=words[np.arange(6) % 3]))
    data = images.load(tmp_path / "a.npz", size=16)
    assert data.classes == ["ant", "cat", "dog"]
    assert data.test.labels.tolist() == [1, 0, 2, 1, 0, 2]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"test_labels": None}, "has no test_labels"),
        ({"train_images": pixels(12).astype(float)}, "train_images is float64 .*255 . images"),
        ({"train_images": pixels(12)[..., 0]}, r"train_images is uint8 \(12, 16, 16\)"),
        ({"train_labels": np.arange(11)}, "train_labels has shape .11,. for 12 images"),
        ({"test_images": pixels(6, 18)}, r"differ in size \(\(16, 16, 3\) and \(18, 18, 3\)\): bring them to one"),
        ({"test_labels": np.arange(6)}, "test images of class '3', of which there is no training image"),
        ({"train_labels": np.arange(12) % 3 - 1}, "labels go from -1 to 2"),
        ({"train_labels": np.arange(12) / 3}, "labels are float64"),
        ({"classes": np.array(["a", "b"])}, "labels go from 0 to 2, and there are 2 classes"),
    ],
)
def test_an_npz_that_is_no_data_set_is_refused(tmp_path, changed, says):
    np.savez(tmp_path / "a.npz", **whole(**changed))
    with pytest.raises(ValueError, match=says):
        images.load(tmp_path / "a.npz", size=16)


def test_images_of_mixed_sizes_have_no_array_and_pickles_are_not_opened(tmp_path):
    mixed = np.empty(2, dtype=object)
    mixed[:] = [pixels(1)[0], pixels(1, 20)[0]]
    np.savez(tmp_path / "a.npz", **whole(train_images=mixed))
    with pytest.raises(ValueError, match="is not an npz file of plain arrays"):
        images.load(tmp_path / "a.npz", size=16)


# --- pairs -----------------------------------------------------------------------------------------


def write(folder, side, name, image):
    path = folder / side / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def fog(tmp_path):
    """Nine images in three folders of classes, one of them unknown; the shifted ones are half as bright."""
    for i, image in enumerate(pixels(9)):
        name = ("class 0", "class 2", "stranger")[i % 3]
        write(tmp_path / "fog", "original", f"{name}/{i}.png", image)
        write(tmp_path / "fog", "shifted", f"{name}/{i}.bmp", image // 2)
    return tmp_path / "fog"


def test_a_folder_and_a_zip_of_pairs_give_images_before_and_after_with_labels(fog, tmp_path):
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for file in fog.rglob("*.*"):
            archive.write(file, file.relative_to(fog).as_posix())
    folder, packed = (own_images.pair(path, 16, dataset().classes) for path in (fog, tmp_path / "packed.zip"))
    for pair in (folder, packed):
        assert torch.equal(pair.original // 2, pair.shifted)
        assert sorted(pair.labels.tolist()) == [geirhos.NO_CLASS] * 3 + [0] * 3 + [2] * 3
    assert torch.equal(folder.original, packed.original)


def test_an_npz_of_pairs_takes_labels_by_number_or_name(tmp_path):
    np.savez(tmp_path / "a.npz", original=pixels(4), shifted=pixels(4, seed=1), labels=["class 1", "?"] * 2)
    np.savez(tmp_path / "b.npz", original=pixels(4), shifted=pixels(4, seed=1), labels=[0, 1, 2, 0])
    classes = dataset().classes
    assert own_images.pair(tmp_path / "a.npz", 16, classes).labels.tolist() == [1, -1, 1, -1]
    assert own_images.pair(tmp_path / "b.npz", 16, classes).labels.tolist() == [0, 1, 2, 0]


def test_pairs_without_partners_or_of_two_sizes_are_refused(fog, tmp_path):
    write(fog, "original", "class 0/x.png", pixels(1)[0])
    with pytest.raises(ValueError, match=r"class 0/x is missing in shifted/ \(1 without partner in all\)"):
        own_images.pair(fog, 16)
    write(fog, "shifted", "class 0/x.png", pixels(1, 20)[0])
    with pytest.raises(ValueError, match="class 0/x has 16 x 16 pixels in original/ and 20 x 20 pixels in shifted/"):
        own_images.pair(fog, 16)
    np.savez(tmp_path / "a.npz", original=pixels(4), shifted=pixels(3))
    with pytest.raises(ValueError, match="row i of both is one image"):
        own_images.pair(tmp_path / "a.npz", 16)
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="neither a folder nor a whole zip"):
        own_images.pair(tmp_path / "a.zip", 16)


def test_names_of_shifts_are_checked_before_any_work(fog, tmp_path):
    assert own_images.paths(f" {fog} ,") == {"fog": fog.resolve()}
    with pytest.raises(FileNotFoundError, match="shift 'nowhere' is not here"):
        own_images.paths("nowhere")
    with pytest.raises(ValueError, match="holds no folders original/ and shifted/"):
        own_images.paths(str(tmp_path))
    with pytest.raises(ValueError, match="two shifts are called 'fog'"):
        own_images.paths(f"{fog},{fog}")


def test_a_shift_of_ones_own_is_held_against_its_own_originals(fog):
    cave = images.load("cave")  # which draws all shifts by itself
    data = replace(cave, test=cave.test[:40])
    pair = own_images.pair(fog, data.size, data.classes)
    groups = under_shift.sets(data, 30, own={"fog": pair})
    assert list(groups)[-2:] == ["fog, original", "fog"]
    assert under_shift.originals(groups) == {"fog": "fog, original"}
    size = under_shift.sizes(groups).set_index("shift")
    assert "fog, original" not in size.index
    assert size.pixels["fog"] == shifts.distance(groups["fog"].split.images, groups["fog"].familiar)
    rng = np.random.default_rng(0)
    acts = {}
    for name, n in ((WITHIN, 120), ("noise", 120), ("fog, original", 80), ("fog", 80)):
        rows = rng.normal(size=(n, 5))
        for i in (0, 1):
            acts[name, i] = {"a": rows + 0.1 * rng.normal(size=(n, 5)), "b": rows + rng.normal(size=(n, 5))}
    table = under_shift.alignments(acts, ["procrustes"], nulls=0, against={"fog": "fog, original"})
    assert list(dict.fromkeys(table["shift"])) == ["noise", "fog", WITHIN]
    alone = {key: rows for key, rows in acts.items() if "fog" in key[0]}
    expected = under_shift.alignments(alone, ["procrustes"], nulls=0).set_index(["shift", "layer"])
    found = table.set_index(["shift", "layer"])
    for layer in ("a", "b"):
        assert found.within["fog", layer] == pytest.approx(expected.value["fog, original", layer])
        assert found["drop"]["fog", layer] == pytest.approx(found.within["fog", layer] - found.value["fog", layer])
