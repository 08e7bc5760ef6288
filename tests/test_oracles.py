import numpy as np
import pytest
import torch

from convergent import cave, cave_scenes, gabor, images, networks, oracles, representations, responses, stand_ins
from convergent.gabor import GaborBank
from convergent.responses import Dissimilarities, Responses
from tiny import dataset

pytestmark = pytest.mark.smoke


def grating(angle, wave, size=32, phase=0.0):
    """A grey sine wave as one image (1, 3, size, size) of floats in [0, 1]; vertical stripes at 0 degrees."""
    y, x = torch.meshgrid(*[torch.arange(size) - size / 2.0] * 2, indexing="ij")
    turn = torch.deg2rad(torch.tensor(float(angle)))
    wave = 0.5 + 0.5 * torch.cos(2 * torch.pi * wave * (x * turn.cos() + y * turn.sin()) + phase)
    return wave.expand(1, 3, size, size)


# --- Gabor filters -----------------------------------------------------------------------------------


def test_the_default_bank_has_twelve_orientations_fifteen_degrees_apart_at_nine_frequencies_below_nyquist():
    bank = GaborBank()
    assert bank.n_units == len(bank.filters) == 108
    assert np.diff(np.unique(bank.angles)) == pytest.approx(15)
    waves = np.unique(bank.waves)
    assert len(waves) == 9
    assert 0 < waves.min() < waves.max() < gabor.NYQUIST
    assert np.diff(np.log2(waves)) == pytest.approx(np.log2(waves[1] / waves[0]))


def test_filters_have_no_mean_and_unit_length_and_are_the_same_turned_by_half_a_circle():
    filters = GaborBank().filters
    assert filters.sum((1, 2)).abs().max() < 1e-5
    assert filters.square().sum((1, 2)).numpy() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(filters, filters.flip(1, 2), atol=1e-6), "cosines are even"
    odd = GaborBank(quadrature=True).filters[1]
    assert torch.allclose(odd, -odd.flip(1, 2), atol=1e-6), "sines are odd"


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
@pytest.mark.parametrize("which", [4, 7])
def test_a_grating_excites_the_filters_of_its_own_orientation_and_frequency_most(angle, which):
    bank = GaborBank(quadrature=True)
    wave = float(np.unique(bank.waves)[which])
    energy = bank(grating(angle, wave))[0, :, 10:22, 10:22].mean((1, 2))
    best = int(energy.argmax())
    assert float(bank.angles[best]) == angle
    assert abs(np.log2(float(bank.waves[best]) / wave)) < 0.4


def test_energy_does_not_depend_on_phase_and_a_linear_response_does():
    spread = {}
    for quadrature in (True, False):
        bank = GaborBank(quadrature=quadrature)
        unit = int(((bank.angles == 0) & (bank.waves == bank.waves.unique()[6])).nonzero()[0])
        wave = float(bank.waves[unit])
        found = [float(bank(grating(0, wave, phase=p))[0, unit, 16, 16]) for p in np.linspace(0, 2 * np.pi, 9)]
        spread[quadrature] = np.std(found) / np.max(np.abs(found))
    assert spread[True] < 0.05 < 0.5 < spread[False]


def test_a_uniform_image_excites_no_filter_not_even_at_its_border():
    assert GaborBank()(torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)).abs().max() < 1e-4


def test_colour_has_no_say_and_bytes_mean_the_same_as_floats():
    bank, pictures = GaborBank(), cave.render(4, seed=0)[0]
    assert torch.allclose(bank(pictures), bank(pictures.float() / 255), atol=1e-5)
    assert torch.allclose(bank(pictures), bank(pictures[:, [2, 0, 1]]), atol=1e-5)


@pytest.mark.parametrize("quadrature", [False, True])
def test_points_give_what_the_maps_have_there(quadrature):
    bank, pictures = GaborBank(quadrature=quadrature), cave.render(3, seed=1)[0]
    points = oracles.points(3, 5, seed=0)
    assert torch.allclose(bank.at(pictures, points), oracles.rows_at(bank(pictures), points), atol=1e-5)


def test_maps_are_as_large_as_the_layer_and_taken_at_the_centres_of_its_places():
    bank, pictures = GaborBank(), cave.render(2, seed=0)[0]
    whole, small = bank(pictures), bank(pictures, shape=(8, 8))
    assert whole.shape[2:] == (32, 32)
    assert torch.equal(small, whole[:, :, 2::4, 2::4])
    assert bank(pictures, shape=(32, 32)).equal(whole)


def test_impossible_banks_are_refused():
    with pytest.raises(ValueError, match=r"expected 0 < lowest <= highest <= 0.5"):
        GaborBank(highest=2.0)
    with pytest.raises(ValueError, match="at least 1 of each"):
        GaborBank(orientations=0)
    with pytest.raises(ValueError, match="odd number of pixels"):
        GaborBank(kernel=8)
    with pytest.raises(ValueError, match="for images of 32 pixels"):
        GaborBank()(torch.zeros(1, 3, 16, 16))


# --- networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["layer1", "layer5", "layer3.2", "head"])
def test_a_trained_network_says_what_its_layer_says(layer):
    network, pictures = networks.load("cnn6", 3, 0.1, seed=0), dataset().test.images
    known = oracles.TrainedNetwork(network, layer)
    found = known(pictures)
    with representations.recording(network, [layer]) as outputs, torch.no_grad():
        network(pictures)
    assert torch.allclose(found, outputs[layer], atol=1e-6)
    assert known.n_units == found.shape[1]
    assert known.places == (layer != "head")
    assert not found.requires_grad


def test_rows_of_a_layer_are_those_that_representations_finds_at_the_same_points():
    maps = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    points = torch.tensor([[[0.0, 0.0], [0.99, 0.3]], [[0.5, 0.5], [0.2, 0.8]]])
    expected = [maps[0, :, 0, 0], maps[0, :, 3, 1], maps[1, :, 2, 2], maps[1, :, 0, 3]]
    assert torch.equal(oracles.rows_at(maps, points), torch.stack(expected))


def test_points_of_one_image_lie_in_different_cells_and_belong_to_their_seed():
    points = oracles.points(50, 4, seed=3)
    assert ((points >= 0) & (points < 1)).all()
    cells = (points * 2).long()
    assert all(len({tuple(cell) for cell in image.tolist()}) == 4 for image in cells)
    assert torch.equal(points, oracles.points(50, 4, seed=3))
    assert not torch.equal(points, oracles.points(50, 4, seed=4))


def test_what_is_remembered_of_a_reference_is_what_it_said_and_of_test_images_it_is_asked_again():
    data, bank = dataset(), GaborBank(16)
    kept = oracles.Remembered(bank, data.train.images)
    which = torch.tensor([5, 0, 17])
    assert torch.allclose(kept(data.train.images[which], which), bank(data.train.images[which]), rtol=0.01, atol=0.01)
    assert kept.on_test is bank
    assert len(kept) == 96


# --- responses ---------------------------------------------------------------------------------------


def measured(n=20, n_voxels=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n_voxels))


def write(tmp_path, **arrays):
    np.savez(tmp_path / "brain.npz", **arrays)
    return tmp_path / "brain.npz"


def test_responses_belong_to_images_by_position():
    voxels = measured()
    brain = Responses(voxels)
    which = torch.tensor([3, 0, 3])
    assert brain(torch.zeros(3, 3, 8, 8), which).numpy() == pytest.approx(voxels[[3, 0, 3]], abs=1e-6)
    with pytest.raises(ValueError, match="one position for each image"):
        brain(torch.zeros(3, 3, 8, 8))
    with pytest.raises(ValueError, match="no responses to the test images"):
        _ = brain.on_test


def test_bad_responses_are_refused_with_the_first_fault():
    voxels = measured()
    voxels[7, 2] = np.nan
    with pytest.raises(ValueError, match="1 values are missing or not finite, the first in row 7, column 2"):
        Responses(voxels)
    silent = measured()
    silent[:, 3] = 5
    with pytest.raises(ValueError, match="1 of 4 voxels answer all stimuli alike, the first is number 3"):
        Responses(silent)
    with pytest.raises(ValueError, match=r"20 rows of voxels need uint8 images \(20, 3, height, width\)"):
        Responses(measured(), images=torch.zeros(19, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="4 voxels answer training images and 3 answer test images"):
        Responses(measured(), test=Responses(measured(n_voxels=3)))
    with pytest.raises(ValueError, match="noise_ceiling must be 4 correlations"):
        Responses(measured(), noise_ceiling=[0.5, 0.5, 2.0, 0.5])


def test_a_file_gives_the_voxels_of_the_regions_that_are_asked_for(tmp_path):
    voxels, names = measured(), np.array(["V1v", "hV4", "V1d", "V2v"])
    shown = np.zeros((20, 3, 8, 8), np.uint8)
    path = write(tmp_path, voxels=voxels, roi=names, images=shown, noise_ceiling=np.array([0.1, 0.2, 0.3, 0.4]))
    brain = Responses.load(path, ["V1v", "V1d"])
    assert brain.voxels.numpy() == pytest.approx(voxels[:, [0, 2]], abs=1e-6)
    assert brain.noise_ceiling.tolist() == [0.1, 0.3]
    assert brain.images.shape == (20, 3, 8, 8)
    assert Responses.load(path).n_units == 4
    with pytest.raises(ValueError, match="no region 'V3'; it has V1d, V1v, V2v, hV4"):
        Responses.load(path, "V3")
    with pytest.raises(ValueError, match="it is missing"):
        Responses.load(write(tmp_path, voxels=voxels), "V1v")


def test_a_file_may_hold_the_responses_to_the_test_images(tmp_path):
    names, test = np.array(["V1", "V2", "V1", "V2"]), measured(8, seed=1)
    brain = Responses.load(write(tmp_path, voxels=measured(), test_voxels=test, roi=names), "V2")
    assert brain.on_test.voxels.numpy() == pytest.approx(test[:, [1, 3]], abs=1e-6)


def test_repeated_presentations_are_averaged_in_the_order_of_the_stimuli(tmp_path):
    trials = np.array([[1.0, 0], [5, 1], [3, 2], [9, 3], [7, 1], [0, 9], [2, 9]])
    stimulus = np.array([10, 2, 10, 30, 2, 44, 44])
    found = Responses.load(write(tmp_path, trials=trials, stimulus=stimulus))
    assert found.voxels.tolist() == [[6, 1], [2, 1], [9, 3], [1, 9]]
    with pytest.raises(ValueError, match="7 trials need as many whole numbers"):
        Responses.load(write(tmp_path, trials=trials, stimulus=stimulus[:-1]))


def test_the_estimated_noise_ceiling_is_the_correlation_with_the_true_signal():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((4000, 3))
    noise = np.array([0.5, 1.0, 3.0])
    trials = np.concatenate([signal + noise * rng.standard_normal(signal.shape) for _ in range(3)])
    means, ceiling = responses.average_presentations(trials, np.tile(np.arange(4000), 3))
    true = [np.corrcoef(signal[:, i], means[:, i])[0, 1] for i in range(3)]
    assert ceiling == pytest.approx(true, abs=0.04)  # both are estimates from a sample
    assert responses.average_presentations(trials[:4000], np.arange(4000))[1] is None


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not here"):
        Responses.load(tmp_path / "nothing.npz")
    with pytest.raises(ValueError, match="needed: voxels, or trials and stimulus"):
        Responses.load(write(tmp_path, betas=measured()))
    (tmp_path / "text.npz").write_text("not a zip")
    with pytest.raises(ValueError, match="not an npz file of plain arrays"):
        Responses.load(tmp_path / "text.npz")
    pickled = write(tmp_path, voxels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="not an npz file of plain arrays"):
        Responses.load(pickled)


def test_dissimilarities_are_square_and_symmetric_and_go_with_their_images(tmp_path):
    shown = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
    matrix = 1 - np.corrcoef(measured(5, 20))
    which = torch.tensor([4, 1])
    found = Dissimilarities(matrix, shown)(shown[which], which)
    assert found.numpy() == pytest.approx(matrix[[4, 1]][:, [4, 1]], abs=1e-6)
    with pytest.raises(ValueError, match="must be symmetric"):
        Dissimilarities(np.triu(matrix) + 0.1, shown)
    with pytest.raises(ValueError, match="5 images need dissimilarities"):
        Dissimilarities(matrix[:4, :4], shown)


def test_the_92_images_are_shrunk_and_come_with_the_dissimilarities_of_either_species(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "it.npz"
    human, monkey = (1 - np.corrcoef(rng.standard_normal((92, 30))) for _ in range(2))
    shown = rng.integers(0, 256, (92, 70, 70, 3), dtype=np.uint8)
    np.savez(path, images=shown, rdm_humanIT=human, rdm_monkeyIT=monkey)
    found = responses.kriegeskorte92(path, size=16, species="monkey")
    assert found.images.shape == (92, 3, 16, 16)
    assert found.matrix.numpy() == pytest.approx(monkey, abs=1e-6)
    with pytest.raises(ValueError, match="needed: images and one of rdm_humanIT, rdm_monkeyIT"):
        responses.kriegeskorte92(path, species="cat")


# --- stand-ins and scenes ----------------------------------------------------------------------------


def cave_data(n=120):
    parts = [cave.render(count, seed) for seed, count in enumerate((n, 60))]
    splits = [images.Split(p, torch.tensor(x["shape"].cat.codes.to_numpy(), dtype=torch.int64), x) for p, x in parts]
    return images.Dataset("cave", "The cave", *splits, list(cave.SHAPES), "0", 32)


def test_the_caves_voxels_are_the_same_voxels_for_training_and_test_images_and_know_their_ceiling():
    data = cave_data(600)
    brain = stand_ins.of(data, "late", n_voxels=20)
    codes = [np.eye(10)[part.labels] for part in (data.train, data.test)]
    weights, *_ = np.linalg.lstsq(codes[0], brain.voxels.numpy(), rcond=None)
    r = [np.corrcoef(codes[1] @ weights[:, i], brain.on_test.voxels[:, i])[0, 1] for i in range(20)]
    assert np.mean(r) > 0.25, "what shape tells of voxels on training images, it tells on test images"
    assert brain.noise_ceiling.mean() == pytest.approx(1 / np.sqrt(1 + stand_ins.NOISE**2), abs=0.03)


def test_mixed_voxels_are_predictable_up_to_their_ceiling_and_no_further():
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((2000, 5)), rng.standard_normal((500, 5))
    brain = stand_ins.mixed(train, test, n_voxels=30)
    weights, *_ = np.linalg.lstsq(train, brain.voxels.numpy(), rcond=None)
    r = [np.corrcoef(test @ weights[:, i], brain.on_test.voxels[:, i])[0, 1] for i in range(30)]
    assert np.mean(r) == pytest.approx(brain.on_test.noise_ceiling.mean(), abs=0.02)


def test_early_voxels_of_any_images_follow_the_caves_filters_and_late_ones_need_a_network():
    data = dataset()
    early = stand_ins.of(data, "early", n_voxels=7)
    assert (early.n_units, len(early), len(early.on_test)) == (7, 96, 48)
    with pytest.raises(ValueError, match="give a trained network"):
        stand_ins.of(data, "late")
    late = stand_ins.of(data, "late", networks.load("cnn6", 3, 0.1, seed=0))
    assert late.n_units == stand_ins.N_VOXELS
    with pytest.raises(ValueError, match="not one of early, late"):
        stand_ins.of(data, "V1")


def test_scenes_hold_one_to_four_objects_each_in_its_own_quarter_before_one_background():
    scenes = cave_scenes.objects(300, seed=0)
    counts = scenes.groupby("scene").size()
    assert set(counts) == {1, 2, 3, 4}
    assert counts.mean() == pytest.approx(2.5, abs=0.2)
    assert len(counts) == 300
    quarters = scenes.assign(quarter=(scenes.x > 0) + 2 * (scenes.y > 0)).groupby("scene").quarter
    assert (quarters.nunique() == counts).all()
    assert (scenes.groupby("scene").background.nunique() == 1).all()


def test_pictures_of_scenes_are_the_same_bytes_for_a_seed_and_show_every_object():
    scenes = cave_scenes.objects(40, seed=1)
    pictures = cave_scenes.draw(scenes)
    assert torch.equal(pictures, cave_scenes.draw(scenes))
    assert not torch.equal(pictures, cave_scenes.draw(cave_scenes.objects(40, seed=2)))
    alone = scenes.groupby("scene").head(1)
    single, counts = cave_scenes.draw(alone), scenes.groupby("scene").size().to_numpy()
    differ = (pictures != single).flatten(1).any(1).numpy()
    assert (differ == (counts > 1)).all()
    one = counts == 1
    assert torch.equal(pictures[one], cave.draw(alone[one].drop(columns="scene")))


def test_labels_and_codes_of_scenes_say_which_shapes_are_there_and_where():
    data = cave_scenes.load(n_train=50, n_test=20)
    assert data.train.labels.shape == (50, 10)
    scenes = cave_scenes.objects(50, seed=0)
    for number, there in enumerate(data.train.labels):
        shapes = set(scenes[scenes.scene == number]["shape"])
        assert {name for name, seen in zip(cave.SHAPES, there, strict=True) if seen} == shapes
    codes = data.train.latents
    assert (codes.to_numpy().sum(1) == scenes.groupby("scene").size().to_numpy()).all()
    assert list(codes.columns[:2]) == ["disc lower left", "disc lower right"]
    with pytest.raises(ValueError, match="numbered 0, 1, 2"):
        cave_scenes.draw(scenes[scenes.scene > 0])
