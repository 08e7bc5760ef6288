"""The seventeen shifts: what each must leave alone, and that what is random depends on the image and the seed only."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2gray

from convergent import cave, colour, eidolon, geirhos, images, shifts, shifts_drawn
from convergent import shifts_spectrum as spectrum

NAMES = list(shifts.SHIFTS)
GRADED = [name for name in NAMES if shifts.SHIFTS[name].graded]
PAPER = [
    "greyscale", "contrast", "high_pass", "low_pass", "phase_scrambling", "power_equalisation", "false_colour",
    "rotation", "eidolon_1", "eidolon_2", "eidolon_3", "uniform_noise", "sketch", "stylised", "silhouette", "edge",
    "cue_conflict",
]  # fmt: skip


@pytest.fixture(scope="module")
def scenes():
    return cave.render(24, seed=5)


@pytest.fixture(scope="module")
def photographs():
    """Crops of photographs without objects: the backgrounds of the cave."""
    return cave.components(cave.sample(24, seed=6))[1].round().clamp(0, 255).to(torch.uint8)


def of_cave(scenes, name, level=1, **more):
    pictures, latents = scenes
    return shifts.apply(name, pictures, level, latents=latents, **more)


def small_set(scenes):
    pictures, latents = scenes
    labels = torch.tensor(latents["shape"].cat.codes.to_numpy(), dtype=torch.int64)
    split = images.Split(pictures, labels, latents)
    return images.Dataset("cave", "The cave", split, split, list(cave.SHAPES), "", 32)


# All of them


def test_the_names_are_those_of_the_paper():
    assert NAMES == PAPER
    assert all(shift.description and shift.source and shift.levels for shift in shifts.SHIFTS.values())


@pytest.mark.parametrize("name", NAMES)
def test_images_stay_images_of_their_size_and_are_changed(scenes, name):
    for level in range(1, len(shifts.SHIFTS[name].levels) + 1):
        moved = of_cave(scenes, name, level)
        assert (moved.dtype, moved.shape) == (torch.uint8, scenes[0].shape)
        assert shifts.distance(moved, scenes[0]) > 1, f"level {level} is no shift"


@pytest.mark.parametrize("name", NAMES)
def test_level_0_leaves_images_as_they_are(scenes, name):
    assert torch.equal(of_cave(scenes, name, 0), scenes[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_images(scenes, name):
    assert torch.equal(of_cave(scenes, name, seed=3), of_cave(scenes, name, seed=3))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(scenes, name):
    pictures, latents = scenes
    whole = of_cave(scenes, name, seed=1)
    assert torch.equal(of_cave(scenes, name, seed=1, batch_size=7), whole)
    tail = shifts.apply(name, pictures[20:], 1, 1, first=20, latents=latents[20:], reference=pictures)
    assert torch.equal(tail, whole[20:])


@pytest.mark.parametrize("name", ["sketch", "stylised"])
def test_without_latents_an_image_does_not_depend_on_its_batch_either(photographs, name):
    whole = shifts.apply(name, photographs, 1)
    assert torch.equal(shifts.apply(name, photographs, 1, batch_size=5), whole)
    assert torch.equal(shifts.apply(name, photographs[9:], 1, first=9, reference=photographs), whole[9:])


@pytest.mark.parametrize("name", [n for n in NAMES if n in (*GRADED[3:], "stylised", "cue_conflict")])
def test_another_seed_gives_other_images(scenes, name):
    assert not torch.equal(of_cave(scenes, name, seed=1), of_cave(scenes, name, seed=2))


@pytest.mark.parametrize("name", GRADED)
@pytest.mark.parametrize("size", [32, 64])
def test_every_level_is_further_from_the_image_than_the_one_before(name, size):
    pictures, latents = cave.render(8, seed=5, size=size)
    photographs = cave.components(latents, size)[1].round().clamp(0, 255).to(torch.uint8)
    for kind, originals in (("cave", pictures), ("photographs", photographs)):
        levels = range(len(shifts.SHIFTS[name].levels) + 1)
        far = [shifts.distance(shifts.apply(name, originals, level), originals) for level in levels]
        assert np.all(np.diff(far) > 0), f"{kind}: {np.round(far, 1)} grey levels"


@pytest.mark.parametrize(
    ("name", "level"), [("low_pass", 4), ("contrast", 3), ("eidolon_1", 4), ("sketch", 1), ("edge", 1)]
)
def test_a_shift_is_about_as_large_at_64_pixels_as_at_32(name, level):
    far = {}
    for size in (32, 64):
        pictures, latents = cave.render(40, seed=5, size=size)
        far[size] = shifts.distance(shifts.apply(name, pictures, level, latents=latents), pictures)
    assert far[64] == pytest.approx(far[32], rel=0.35)


# One by one


def test_greyscale_has_equal_channels_of_the_right_brightness(photographs):
    grey = shifts.apply("greyscale", photographs, 1)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    expected = rgb2gray(photographs.permute(0, 2, 3, 1).numpy()) * 255
    assert np.abs(grey[:, 0].numpy() - expected).max() < 0.6


def test_contrast_shrinks_differences_from_mid_grey(photographs):
    half = shifts.apply("contrast", photographs, 1).double() - 127.5
    assert (half - (photographs.double() - 127.5) / 2).abs().max() <= 0.5


@given(st.floats(0.5, 14), st.integers(0, 9))
@settings(deadline=None, max_examples=20)
def test_what_the_two_filters_keep_is_the_image(cutoff, seed):
    pixels = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (2, 3, 16, 16)))
    both = spectrum.low_pass(pixels, cutoff) + spectrum.high_pass(pixels, cutoff, grey=0)
    assert torch.allclose(both, pixels, atol=1e-9)


def test_a_blur_is_that_of_scipy():
    from scipy.ndimage import gaussian_filter

    pixels = np.random.default_rng(0).uniform(0, 255, (32, 32))
    expected = gaussian_filter(pixels, 2.0, mode="reflect", truncate=8)
    assert np.abs(spectrum.blurred(torch.from_numpy(pixels)[None, None], 2.0)[0, 0].numpy() - expected).max() < 0.05


@pytest.mark.parametrize("size", [15, 32])
@pytest.mark.parametrize("width", [60, 180])
def test_scrambled_phases_keep_every_amplitude(size, width):
    rng = np.random.default_rng(size)
    pixels, uniform = torch.from_numpy(rng.uniform(0, 255, (3, 3, size, size))), rng.uniform(-1, 1, (3, size, size))
    moved = spectrum.phase_scrambled(pixels, torch.from_numpy(uniform), width)
    assert torch.allclose(spectrum.amplitude(moved), spectrum.amplitude(pixels), rtol=1e-9, atol=1e-7)
    turned = torch.fft.fft2(moved) / torch.fft.fft2(pixels)
    assert torch.allclose(turned[:, 0], turned[:, 2]), "the channels' phases must be turned alike"
    assert turned.angle().abs().max() <= np.deg2rad(width) + 1e-9


def test_equalised_images_have_one_amplitude_spectrum_and_their_own_phases(photographs):
    wanted = spectrum.mean_amplitude(photographs)
    moved = spectrum.power_equalised(photographs.double(), wanted)
    assert torch.allclose(spectrum.amplitude(moved), wanted.expand(len(moved), -1, -1, -1), rtol=1e-9, atol=1e-6)
    before, after = torch.fft.fft2(photographs.double()), torch.fft.fft2(moved)
    assert (before * after.conj() / (before.abs() * after.abs()).clamp(min=1e-9)).real.min() > 1 - 1e-6


def test_an_image_without_a_spectrum_can_be_equalised():
    flat = torch.full((2, 3, 16, 16), 90, dtype=torch.uint8)
    assert torch.equal(shifts.apply("power_equalisation", flat, 1), flat)


def test_false_colours_keep_luminance_and_turn_hues_round(photographs):
    screen = photographs.double() / 255
    false = colour.opponent(screen)
    assert false.min() >= 0
    assert false.max() <= 1 + 1e-9
    light, opposite = colour.to_light(screen), colour.to_light(false)
    grey = colour.luma(light)
    assert torch.allclose(colour.luma(opposite), grey, atol=1e-6)
    assert ((light - grey) * (opposite - grey)).sum(1).max() <= 1e-9, "a colour went to its own side of grey"


def test_grey_has_no_other_false_colour():
    grey = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(shifts.apply("false_colour", grey, 1), grey)


def test_four_quarter_turns_are_none(photographs):
    turned = photographs
    for _ in range(4):
        turned = shifts.apply("rotation", turned, 1)
    assert torch.equal(turned, photographs)
    twice = shifts.apply("rotation", shifts.apply("rotation", photographs, 1), 1)
    assert torch.equal(twice, shifts.apply("rotation", photographs, 2))


def test_the_layers_of_an_image_add_up_to_it(photographs):
    pixels = photographs.double()
    layers = eidolon.scale_space(pixels)
    assert len(layers) == len(eidolon.sigmas(32)) + 1
    assert torch.allclose(layers.sum(0), pixels)


def test_a_coherent_eidolon_is_one_warp_of_the_whole_image(photographs):
    pixels, rng = photographs.double(), np.random.default_rng(0)
    common = torch.from_numpy(rng.standard_normal((24, 2, 32, 32)))
    own = torch.from_numpy(rng.standard_normal((24, len(eidolon.sigmas(32)) + 1, 2, 32, 32)))
    warped = eidolon.displaced(pixels, spectrum.smooth_noise(common, 10 * 32 / 224) * 8 * 32 / 224)
    assert torch.allclose(eidolon.eidolon(pixels, common, own, 8, 1.0, 10), warped)


def test_a_displacement_by_whole_pixels_moves_pixels():
    pixels = torch.arange(64.0).double().reshape(1, 1, 8, 8)
    field = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    field[:, 0], field[:, 1] = 2, 1
    assert torch.allclose(eidolon.displaced(pixels, field)[0, 0, :7, :6], pixels[0, 0, 1:, 2:])


@pytest.mark.parametrize("sigma", [0.5, 1.5, 4])
def test_smooth_noise_keeps_its_variance(sigma):
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((400, 32, 32)))
    assert spectrum.smooth_noise(noise, sigma).var() == pytest.approx(1, abs=0.08)


def test_uniform_noise_is_grey_and_as_wide_as_its_level_says():
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    noise = shifts.apply("uniform_noise", grey, 3).int() - 128
    assert torch.equal(noise[:, 0], noise[:, 2])
    assert 50 <= noise.abs().max() <= 51
    assert noise.double().std() == pytest.approx(51 / 3**0.5, rel=0.02)


# The cave's own


def test_silhouettes_of_the_cave_are_its_masks(scenes):
    moved = of_cave(scenes, "silhouette").double() / 255
    assert (1 - moved - cave.masks(scenes[1])[:, None]).abs().max() <= 0.5 / 255 + 1e-9


def test_edges_of_the_cave_lie_on_the_border_of_its_masks(scenes):
    ink = 255 - of_cave(scenes, "edge")[:, 0].double()
    masks = cave.masks(scenes[1]).double()
    near = torch.nn.functional.max_pool2d(masks[:, None], 3, 1, 1)[:, 0]
    far = -torch.nn.functional.max_pool2d(-masks[:, None], 3, 1, 1)[:, 0]
    assert ink[near == far].max() < 255 * 0.3, "ink away from every border"
    assert (ink.flatten(1).max(1).values > 150).all(), "an object without an outline"


def test_stylised_cave_has_one_photograph_in_object_and_background(scenes):
    _, latents = scenes
    moved = of_cave(scenes, "stylised")
    rngs = [np.random.default_rng((0, NAMES.index("stylised"), i)) for i in range(24)]
    assert torch.equal(shifts_drawn.cave_stylised(latents, 32, rngs).to(torch.uint8), moved)
    untouched = latents.assign(surface="brick", background="grass")
    others = shifts.apply("stylised", scenes[0], 1, latents=untouched)
    assert not torch.equal(others, moved), "the photographs that it avoids are those of the image"


def test_cue_conflicts_of_the_cave_change_the_object_only_and_name_their_elements(scenes):
    pictures, _ = scenes
    moved = shifts.shifted(small_set(scenes), "cue_conflict", 1)
    outside = (cave.masks(scenes[1]) == 0)[:, None].expand_as(pictures)
    assert torch.equal(moved.images[outside], pictures[outside])
    assert (moved.latents["element"] != moved.latents["shape"].astype(str)).all()
    assert set(moved.latents["element"]) <= set(cave.SHAPES)


@pytest.mark.parametrize("name", ["contrast", "sketch", "silhouette", "cue_conflict"])
def test_a_shifted_cave_keeps_its_labels(scenes, name):
    data = small_set(scenes)
    moved = shifts.shifted(data, name, 1)
    assert torch.equal(moved.labels, data.test.labels)
    assert torch.equal(moved.images, of_cave(scenes, name))
    assert shifts.shifted(data, name, 0) is data.test


# Real images


def test_the_stand_in_for_style_takes_the_colours_of_the_other_image(photographs):
    pixels = photographs.double()
    styles = pixels.roll(1, 0)
    moved = shifts_drawn.stylised(pixels, styles)
    assert torch.allclose(moved.mean((2, 3)), styles.mean((2, 3)), atol=2)
    nearer = (moved.std((2, 3)) - styles.std((2, 3))).abs() < (pixels.std((2, 3)) - styles.std((2, 3))).abs()
    assert nearer.double().mean() > 0.8


def test_ranked_values_have_the_wanted_distribution_and_their_own_order():
    rng = np.random.default_rng(0)
    values, wanted = (torch.from_numpy(rng.normal(size=(2, 3, 8, 8))) for _ in range(2))
    moved = shifts_drawn._ranked(values, wanted)
    assert torch.equal(moved.flatten(2).sort(2).values, wanted.flatten(2).sort(2).values)
    assert torch.equal(moved.flatten(2).argsort(2), values.flatten(2).argsort(2))


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A zip like that of Geirhos et al. with three things and one image of each kind."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    names = [
        "style-transfer-preprocessed-512/boat/boat1-bear1.png", "style-transfer-preprocessed-512/bear/bear2-car3.png",
        "style-transfer-preprocessed-512/car/car1-car2.png", "edges/boat/boat1.png", "filled-silhouettes/cat/cat1.png",
    ]  # fmt: skip
    with zipfile.ZipFile(folder / geirhos.ARCHIVE, "w") as archive:
        archive.writestr("DATASET_LICENSE", "CC BY 4.0")
        for name in names:
            with archive.open(name, "w") as file:
                Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
    monkeypatch.setenv("CONVERGENT_DATA", str(folder))
    return folder


def test_stimuli_carry_the_labels_of_their_shape_where_there_is_such_a_class(archive):
    split = geirhos.load("cue_conflict", size=32)
    assert (split.images.dtype, split.images.shape) == (torch.uint8, (3, 3, 32, 32))
    assert split.latents["shape"].tolist() == ["bear", "boat", "car"]
    assert split.latents["texture"].tolist() == ["car", "bear", "car"]
    assert split.labels.tolist() == [-1, geirhos.CIFAR10.index("ship"), geirhos.CIFAR10.index("automobile")]
    assert geirhos.load("edge", 64).images.shape == (1, 3, 64, 64)
    assert geirhos.load("silhouette").latents["texture"].tolist() == [None]
    assert geirhos.load("silhouette", classes=["dog", "cat"]).labels.tolist() == [1]


def test_real_silhouettes_are_those_of_the_archive(archive, photographs):
    split = images.Split(photographs, torch.zeros(24, dtype=torch.int64))
    real = images.Dataset("cifar10", "CIFAR-10", split, split, list(geirhos.CIFAR10), "", 32)
    assert torch.equal(shifts.shifted(real, "silhouette", 1).images, geirhos.load("silhouette").images)
    assert len(shifts.shifted(real, "stylised", 1)) == 24


def test_absent_stimuli_are_asked_for_by_name(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVERGENT_DATA", str(tmp_path))
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / "cache"))
    asked = r"geirhos_shape_texture_64px\.zip.*dataset='cave'"
    with pytest.raises(FileNotFoundError, match=asked):
        geirhos.load("edge")
    split = images.Split(photographs, torch.zeros(24, dtype=torch.int64))
    with pytest.raises(FileNotFoundError, match=asked):
        shifts.check_stimuli(images.Dataset("cifar10", "CIFAR-10", split, split, list(geirhos.CIFAR10), "", 32))
    shifts.check_stimuli(images.load("cave"))  # draws its own


def test_a_kind_that_the_archive_does_not_have_is_refused(archive):
    with pytest.raises(ValueError, match="kind='sketch' is not one of cue_conflict, edge, silhouette"):
        geirhos.load("sketch")


# Bad input


def test_an_unknown_shift_is_refused_with_near_names(photographs):
    with pytest.raises(ValueError, match=r"'lowpass' is no shift.*low_pass"):
        shifts.apply("lowpass", photographs, 1)


@pytest.mark.parametrize("level", [-1, 7, 1.5, True])
def test_a_level_that_does_not_exist_is_refused(photographs, level):
    with pytest.raises(ValueError, match="level of contrast=.*between 0 and 6"):
        shifts.apply("contrast", photographs, level)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 3, 16, 16), torch.zeros(2, 1, 16, 16, dtype=torch.uint8),
        torch.zeros(3, 16, 16, dtype=torch.uint8), torch.zeros(0, 3, 16, 16, dtype=torch.uint8),
        np.zeros((2, 3, 16, 16), np.uint8), torch.zeros(2, 3, 16, 20, dtype=torch.uint8),
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
    ],
    ids=["floats", "one channel", "one image", "none", "array", "oblong", "tiny"],
)  # fmt: skip
def test_what_is_no_image_is_refused(wrong):
    with pytest.raises(ValueError, match="^images: .*expected"):
        shifts.apply("greyscale", wrong, 1)


def test_what_needs_latents_says_so(scenes):
    with pytest.raises(ValueError, match="edge is drawn from the cave's latents"):
        shifts.apply("edge", scenes[0], 1)
    with pytest.raises(ValueError, match="23 rows of latents for 24 images"):
        shifts.apply("edge", scenes[0], 1, latents=scenes[1][:23])
    with pytest.raises(ValueError, match="style of another image"):
        shifts.apply("stylised", scenes[0][:1], 1)


def test_a_data_set_is_not_changed_by_its_shift(scenes):
    data = small_set(scenes)
    before = data.test.images.clone()
    shifts.shifted(replace(data, test=data.test[:5]), "rotation", 2)
    assert torch.equal(data.test.images, before)
