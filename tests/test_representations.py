import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from convergent import networks
from convergent.representations import extract, load, recording, save

pytestmark = pytest.mark.smoke


@pytest.fixture
def pixels():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (10, 3, 16, 16), dtype=np.uint8))


@pytest.fixture
def network():
    return networks.load("cnn6", width=0.1, seed=0)  # channels 3, 3, 6, 6, 10, 10; maps of 16, 16, 8, 8, 4, 4 pixels


def n_hooks(network):
    return sum(len(module._forward_hooks) for module in network.modules())


class Places(nn.Module):
    """Its layer says where it is: unit 0 the image's number, unit 1 the place."""

    def __init__(self, n_units=2):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.where = nn.Identity()
        self.n_units = n_units

    def forward(self, images):
        n, _, height, width = images.shape
        place = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width).expand(n, -1, -1, -1)
        image = images[:, :1].float().amax((2, 3), keepdim=True).expand_as(place)
        return self.where(torch.cat([image, place] + [place] * (self.n_units - 2), 1))


def numbered(n, size=8):
    """Image i is i everywhere."""
    return torch.arange(n).view(n, 1, 1, 1).expand(n, 3, size, size).to(torch.uint8)


# --- what comes out ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spatial", "first", "last", "head"),
    [
        ("positions", (40, 3), (40, 10), (10, 10)),
        ("pool", (10, 3), (10, 10), (10, 10)),
        ("flatten", (10, 3 * 256), (10, 10 * 16), (10, 10)),
    ],
)
def test_each_layer_is_a_matrix_of_stimuli_and_units(network, pixels, spatial, first, last, head):
    rows = extract(network, pixels, [*networks.layers(network), "head"], spatial=spatial)
    assert list(rows) == ["layer1", "layer2", "layer3", "layer4", "layer5", "layer6", "head"]
    assert (rows["layer1"].shape, rows["layer6"].shape, rows["head"].shape) == (first, last, head)
    assert {values.dtype for values in rows.values()} == {np.dtype(np.float32)}
    assert all(values.std() > 0 for values in rows.values())


def test_the_layers_of_the_network_are_taken_when_none_are_named(network, pixels):
    assert list(extract(network, pixels)) == networks.layers(network)


def test_a_layer_is_what_the_forward_pass_gives(network, pixels):
    with torch.inference_mode():
        expected = network.layer1(network.normalise(pixels))
    assert np.array_equal(extract(network, pixels, ["layer1"], "flatten")["layer1"], expected.flatten(1).numpy())
    with torch.inference_mode():
        assert np.array_equal(extract(network, pixels, ["head"])["head"], network(pixels).numpy())


def test_pool_is_the_mean_of_flatten_over_places(network, pixels):
    pooled, flat = (extract(network, pixels, ["layer4"], spatial)["layer4"] for spatial in ("pool", "flatten"))
    np.testing.assert_allclose(flat.reshape(10, 6, 64).mean(2), pooled, rtol=1e-4, atol=1e-6)


def test_a_grid_averages_larger_maps_over_its_cells_and_leaves_smaller_ones(network, pixels):
    layers = ["layer1", "layer5", "head"]
    flat, coarse = (extract(network, pixels, layers, "flatten", grid=grid) for grid in (None, 8))
    cells = flat["layer1"].reshape(10, 3, 8, 2, 8, 2).mean((3, 5))
    np.testing.assert_allclose(coarse["layer1"].reshape(10, 3, 8, 8), cells, rtol=1e-4, atol=1e-6)
    assert np.array_equal(coarse["layer5"], flat["layer5"])
    assert np.array_equal(coarse["head"], flat["head"])


def test_a_sampled_position_is_a_column_of_the_map(network, pixels):
    sampled = extract(network, pixels, ["layer3"], n_positions=3)["layer3"].reshape(10, 3, 6)
    flat = extract(network, pixels, ["layer3"], "flatten")["layer3"].reshape(10, 6, 64)
    for image in range(10):
        for row in sampled[image]:
            assert (np.abs(flat[image] - row[:, None]).max(0) < 1e-6).any()


def test_the_positions_of_one_image_lie_together_and_are_all_different():
    rows = extract(Places(), numbered(20), ["where"], n_positions=5)["where"]
    assert rows[:, 0].tolist() == [i for i in range(20) for _ in range(5)]
    places = rows[:, 1].reshape(20, 5)
    assert {len(set(image)) for image in places.tolist()} == {5}
    assert len({tuple(image) for image in places.tolist()}) > 10, "other places in other images"
    assert (np.diff(np.bincount(rows[:, 1].astype(int), minlength=64)) != 0).any()
    assert rows[:, 1].min() < 8 < 56 <= rows[:, 1].max(), "from the whole map"


def test_every_place_is_taken_once_where_there_are_as_many_as_points_and_often_where_there_are_fewer():
    rows = extract(Places(), numbered(3, size=2), ["where"], n_positions=4)["where"]
    assert rows[:, 1].tolist() == [0, 1, 2, 3] * 3
    rows = extract(Places(), numbered(3, size=2), ["where"], n_positions=9)["where"].reshape(3, 9, -1)
    assert [set(image[:, 1]) for image in rows] == [{0, 1, 2, 3}] * 3


def test_maps_of_different_sizes_are_sampled_at_the_same_points_of_the_image():
    fine, coarse = (extract(Places(), numbered(20, size=size), ["where"])["where"][:, 1] for size in (16, 4))
    rows, columns = np.divmod(fine.astype(int), 16)
    assert np.array_equal(coarse, rows // 4 * 4 + columns // 4)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_the_batch_size_does_not_matter(network, pixels, batch_size):
    for spatial in ("positions", "pool", "flatten"):
        whole = extract(network, pixels, spatial=spatial)
        parts = extract(network, pixels, spatial=spatial, batch_size=batch_size)
        for layer in whole:
            np.testing.assert_allclose(parts[layer], whole[layer], rtol=1e-4, atol=1e-5)


def test_networks_with_maps_of_one_size_are_sampled_at_the_same_positions():
    first, second = (extract(Places(n), numbered(10), ["where"])["where"] for n in (2, 5))
    assert np.array_equal(first[:, 1], second[:, 1])


def test_another_seed_samples_other_positions():
    first, again, other = (extract(Places(), numbered(10), ["where"], seed=seed)["where"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_tensors_hold_the_same_numbers_as_arrays_and_can_be_learned_from(network, pixels):
    arrays = extract(network, pixels)
    tensors = extract(network, pixels, as_numpy=False)
    assert all(np.array_equal(arrays[layer], tensors[layer].numpy()) for layer in arrays)
    probe = nn.Linear(10, 2)
    probe(tensors["layer6"]).sum().backward()  # inference tensors would refuse
    assert probe.weight.grad.abs().sum() > 0


def test_token_sequences_are_treated_as_places():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 7, 4, 4)
            self.tokens = nn.Identity()

        def forward(self, images):
            return self.tokens(self.embed(images.float()).flatten(2).transpose(1, 2)).mean(1)

    network, images = Tokens(), torch.rand(6, 3, 16, 16)
    shapes = {spatial: extract(network, images, ["tokens"], spatial)["tokens"].shape for spatial in ("pool", "flatten")}
    assert shapes == {"pool": (6, 7), "flatten": (6, 7 * 16)}
    assert extract(network, images, ["tokens"], n_positions=3)["tokens"].shape == (18, 7)
    as_map, as_tokens = (extract(network, images, [name], n_positions=16)[name] for name in ("embed", "tokens"))
    assert np.array_equal(as_map, as_tokens)


def test_an_in_place_relu_does_not_overwrite_the_layer_before_it(pixels):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    rows = extract(network, pixels.float() - 128, ["0", "1"], "flatten")
    assert rows["0"].min() < 0
    assert np.array_equal(rows["1"], rows["0"].clip(min=0))


def test_a_layer_named_twice_comes_once(network, pixels):
    assert list(extract(network, pixels, ["layer2", "layer1", "layer2"])) == ["layer2", "layer1"]


# --- leaving no trace --------------------------------------------------------------------------------


def test_hooks_are_removed_when_all_went_well(network, pixels):
    with recording(network, ["layer1", "layer2"]):
        assert n_hooks(network) == 2
    extract(network, pixels)
    assert n_hooks(network) == 0


@pytest.mark.parametrize("training", [True, False])
def test_hooks_are_removed_and_the_mode_restored_after_an_exception_inside_the_network(network, training):
    network.train(training)
    with pytest.raises(RuntimeError):
        extract(network, torch.zeros(2, 5, 16, 16))  # five channels
    assert n_hooks(network) == 0
    assert network.training == training


def test_hooks_that_were_set_are_removed_when_a_later_layer_is_unknown(network):
    with pytest.raises(ValueError, match="layer9"), recording(network, iter(["layer1", "layer9"])):
        pass
    assert n_hooks(network) == 0


def test_each_part_of_the_network_goes_back_to_its_mode(network, pixels):
    network.train()
    network.layer1.eval()  # frozen
    before = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    extract(network, pixels)
    assert [module.training for module in network.modules()] == before
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items()), "statistics moved"


def test_recording_takes_layers_from_an_iterator_and_follows_each_pass(network, pixels):
    with recording(network, iter(["layer6"])) as outputs, torch.inference_mode():
        network(pixels)
        first = outputs["layer6"]
        network(pixels[:3])
        assert (len(first), len(outputs["layer6"])) == (10, 3)


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": ["layre3"]}, "layer 'layre3' is not in this network. Near names: .*layer3"),
        ({"layers": ["nothing like it"]}, "Near names: layer1, layer2"),
        ({"layers": [""]}, "layer '' is not in this network"),
        ({"spatial": "mean"}, "spatial='mean' is not one of positions, pool, flatten"),
        ({"n_positions": 0}, "n_positions=0.*keep at least one"),
        ({"grid": 0, "spatial": "flatten"}, "grid=0: keep at least one"),
        ({"grid": 4}, "a grid needs spatial='flatten'"),
    ],
)
def test_what_cannot_be_extracted_is_refused(network, pixels, options, says):
    with pytest.raises(ValueError, match=says):
        extract(network, pixels, **options)
    assert n_hooks(network) == 0


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (3, 16, 16)])
def test_images_that_are_none_are_refused(network, shape):
    with pytest.raises(ValueError, match="expected .n_images, 3, height, width., at least one"):
        extract(network, torch.zeros(shape))


class Odd(nn.Module):
    """A layer that gives a tuple, one that never runs, one with five dimensions."""

    def __init__(self):
        super().__init__()
        self.pair, self.idle, self.five = nn.LSTM(3, 4, batch_first=True), nn.Linear(3, 3), nn.Identity()

    def forward(self, images):
        self.five(images.unsqueeze(0))
        return self.pair(images.float().mean(3).transpose(1, 2))[0]


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("pair", "layer 'pair' gives a tuple, not a tensor: choose a layer inside it"),
        ("idle", "layer 'idle' did not run in the forward pass"),
        ("five", r"layer 'five' gives \(1, 10, 3, 16, 16\): choose one of 2 to 4 dimensions"),
    ],
)
def test_a_layer_that_gives_no_matrix_is_refused(pixels, layer, says):
    network = Odd()
    with pytest.raises(ValueError, match=says):
        extract(network, pixels, [layer])
    assert n_hooks(network) == 0


# --- files -------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(tmp_path, network, pixels):
    rows = extract(network, pixels)
    save(tmp_path / "mine.npz", rows)
    loaded = load(tmp_path / "mine.npz")
    assert list(loaded) == list(rows)
    assert all(np.array_equal(loaded[layer], rows[layer]) for layer in rows)
    save(str(tmp_path / "tensors.npz"), extract(network, pixels, as_numpy=False))
    assert all(np.array_equal(load(str(tmp_path / "tensors.npz"))[layer], rows[layer]) for layer in rows)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.npz", "tensors.npz"}


def test_a_file_of_ones_own_is_welcome_in_any_number_type(tmp_path):
    np.savez_compressed(tmp_path / "own.npz", V1=np.arange(6).reshape(3, 2), IT=np.ones((3, 4)))
    loaded = load(tmp_path / "own.npz")
    assert {name: (rows.shape, rows.dtype.name) for name, rows in loaded.items()} == {
        "V1": ((3, 2), "float32"),
        "IT": ((3, 4), "float32"),
    }


def test_saving_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no layers to save"):
        save(tmp_path / "none.npz", {})
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    path = tmp_path / "kept.npz"
    save(path, {"a": np.ones((2, 2))})
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        save(path, {"a": np.zeros((2, 2))})
    assert np.array_equal(load(path)["a"], np.ones((2, 2)))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": np.ones(3)}, r"'a' is float64 \(3,\); a layer is numbers \(n_stimuli, n_units\)"),
        ({"a": np.ones((3, 2, 2))}, r"'a' has shape \(3, 2, 2\)"),
        ({"a": np.array([["x"]])}, "'a' is <U1"),
        ({"a": np.ones((3, 2), complex)}, "'a' is complex128"),
        ({"a": np.array([[1.0, np.nan]])}, "'a' holds values that are not finite"),
        ({"a": np.array([[1.0, np.inf]])}, "'a' holds values that are not finite"),
        ({"a": np.array([[1e300]])}, "'a' holds values that are not finite"),
        ({"a": np.ones((3, 2)), "b": np.ones((2, 2))}, r"layers differ in stimuli \(a: 3, b: 2\)"),
        ({"a": np.array([[{"pickled": 1}]], dtype=object)}, "is not an npz file of plain arrays"),
        ({}, "holds no layers"),
    ],
)
def test_arrays_that_are_no_layers_are_refused(tmp_path, arrays, says):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=says):
        load(tmp_path / "bad.npz")


def truncated(path):
    save(path, {"a": np.random.default_rng(0).random((100, 10))})
    path.write_bytes(path.read_bytes()[:2000])


def altered(path):
    save(path, {"a": np.random.default_rng(0).random((100, 10))})
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)


def other_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("note.txt", "hello")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("hello"),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path.open("wb"), np.ones((2, 2))),
        truncated,
        altered,
        other_zip,
    ],
    ids=["text", "empty", "npy", "truncated", "altered", "another zip"],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path, write):
    write(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match=r"bad.npz.* (is not an npz file of plain arrays|a layer is numbers)"):
        load(tmp_path / "bad.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npz is not here: give the path of an npz file"):
        load(tmp_path / "nowhere.npz")
