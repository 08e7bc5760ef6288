"""The cave: same seed same bytes, known latents, exact masks, and observers whose truth is known."""

import hashlib
import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2_contingency, chisquare

from convergent import cave, cave_pictures

# What the photographs of scikit-image and scikit-learn and version 0.1 of the renderer give.
# A change here changes every data set, network and number of the book: note it in the changelog.
HASH_OF_1000 = "6fd1aa2a552ff5a9b14ee39ec96419dacf81f22a232da464badc12ecb9597207"


def sha256(images):
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def many():
    return cave.sample(20_000, seed=3)


# --- the same bytes everywhere ---------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_thousand_scenes_have_the_recorded_bytes():
    assert sha256(cave.render(1000, seed=0)[0]) == HASH_OF_1000


def test_another_process_with_one_core_draws_the_same_bytes():
    code = (
        "import os; os.cpu_count = lambda: 1\n"
        "import hashlib; from convergent import cave\n"
        "print(hashlib.sha256(cave.render(1000, seed=0)[0].numpy().tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == HASH_OF_1000


def test_twenty_thousand_pictures_take_two_cores_less_than_three_seconds():
    # Processor time, so that a busy machine does not fail it; without the photographs kept from other tests.
    cave_pictures._photographs.cache_clear()
    start = time.process_time()
    cave.render(20_000)
    assert time.process_time() - start < 6


@pytest.mark.smoke
def test_other_seeds_draw_other_scenes():
    assert sha256(cave.render(100, seed=1)[0]) != sha256(cave.render(100, seed=0)[0])


@pytest.mark.smoke
def test_a_longer_draw_begins_with_the_shorter_one():
    images, latents = cave.render(300, seed=5)
    first_images, first_latents = cave.render(70, seed=5)
    assert torch.equal(images[:70], first_images)
    pd.testing.assert_frame_equal(latents[:70], first_latents)


@pytest.mark.smoke
def test_a_picture_depends_on_its_own_row_only():
    images, latents = cave.render(200, seed=2)
    shuffled = latents.sample(frac=1, random_state=0)
    assert torch.equal(cave.draw(shuffled), images[shuffled.index.tolist()])
    assert torch.equal(cave.draw(latents[17:18]), images[17:18])


@pytest.mark.smoke
@pytest.mark.parametrize("size", [8, 16, 33, 64])
def test_drawing_the_returned_latents_gives_the_returned_images(size):
    images, latents = cave.render(50, seed=4, size=size)
    assert images.dtype == torch.uint8
    assert images.shape == (50, 3, size, size)
    assert torch.equal(cave.draw(latents, size), images)


def test_latents_survive_a_csv_file(tmp_path):
    images, latents = cave.render(50, seed=4)
    latents.to_csv(tmp_path / "latents.csv", index=False)
    assert torch.equal(cave.draw(pd.read_csv(tmp_path / "latents.csv")), images)


@pytest.mark.smoke
@pytest.mark.parametrize(("large", "small", "off"), [(64, 32, 12), (128, 64, 12), (32, 16, 30)])
def test_every_size_shows_the_same_scene(large, small, off):
    # At 16 pixels a crop may lie half a pixel off: its corners are on the grid of 32.
    images, latents = cave.render(200, seed=6, size=large)
    shrunk = F.avg_pool2d(images.float(), large // small)
    same = (shrunk - cave.draw(latents, small).float()).abs().mean(dim=(1, 2, 3))
    other = (shrunk - cave.draw(latents, small).float().roll(1, 0)).abs().mean(dim=(1, 2, 3))
    assert (same < off).all(), f"the worst picture is {same.max():.1f} grey levels off"
    assert same.mean() < 0.15 * other.mean()
    cover = F.avg_pool2d(cave.masks(latents, large)[:, None], large // small)[:, 0]
    assert (cover - cave.masks(latents, small)).abs().mean() < 0.01


# --- latents ---------------------------------------------------------------------------------------------


def test_categories_are_equally_frequent(many):
    for name, classes in cave.CATEGORIES.items():
        assert tuple(many[name].cat.categories) == classes
        assert chisquare(np.bincount(many[name].cat.codes)).pvalue > 1e-3, name


def test_numbers_fill_their_ranges_evenly(many):
    for name, (low, high) in cave.RANGES.items():
        assert many[name].between(low, high).all(), name
        counts, _ = np.histogram(many[name], bins=20, range=(low, high))
        assert chisquare(counts).pvalue > 1e-3, name


def test_latents_are_independent_but_for_the_background(many):
    binned = {
        name: many[name].cat.codes if name in cave.CATEGORIES else pd.cut(many[name], 8, labels=False)
        for name in cave.LATENTS + cave.CROPS
    }
    names = list(binned)
    for i, first in enumerate(names):
        for second in names[:i]:
            if {first, second} != {"surface", "background"}:
                table = pd.crosstab(binned[first], binned[second])
                # 90 pairs: a true independence fails this for one seed in about a thousand.
                assert chi2_contingency(table).pvalue > 1e-5, f"{first} and {second} depend on each other"


def test_the_background_is_evenly_one_of_the_other_fifteen(many):
    table = pd.crosstab(many["surface"], many["background"]).to_numpy()
    assert (np.diag(table) == 0).all()
    for row, counts in enumerate(table):
        assert chisquare(np.delete(counts, row)).pvalue > 1e-4


@pytest.mark.smoke
def test_fixing_a_latent_leaves_the_others_alone():
    free, held = cave.sample(100), cave.sample(100, fixed={"shape": "ring", "x": 0.0})
    assert (held["shape"] == "ring").all()
    assert (held["x"] == 0).all()
    others = [name for name in free if name not in ("shape", "x")]
    pd.testing.assert_frame_equal(free[others], held[others])


@pytest.mark.smoke
def test_a_fixed_photograph_keeps_surface_and_background_apart():
    for name, other in (("surface", "background"), ("background", "surface")):
        latents = cave.sample(400, fixed={name: "brick"})
        assert (latents[name] == "brick").all()
        assert set(latents[other]) == set(cave.SURFACES) - {"brick"}
    both = cave.sample(5, fixed={"surface": "brick", "background": "brick"})
    assert (both["surface"] == both["background"]).all()


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cave.sample(0), "n is 0"),
        (lambda: cave.sample(2.5), "n is 2.5"),
        (lambda: cave.sample(5, seed=-1), "seed is -1"),
        (lambda: cave.render(5, size=7), "size is 7"),
        (lambda: cave.masks(cave.sample(5), size=0), "size is 0"),
        (lambda: cave.sample(5, fixed={"shpe": "disc"}), "unknown latent 'shpe'.*Did you mean 'shape'"),
        (lambda: cave.sample(5, fixed={"shape": "disk"}), "unknown shape 'disk'.*Did you mean 'disc'"),
        (lambda: cave.sample(5, fixed={"tint": 3}), "unknown tint 3.*red, yellow"),
        (lambda: cave.sample(5, fixed={"size": 0}), "size is 0.*above 0"),
        (lambda: cave.sample(5, fixed={"x": "left"}), "x is 'left'"),
        (lambda: cave.sample(5, fixed={"x": float("nan")}), "x is nan"),
        (lambda: cave.sample(5, fixed={"surface_u": 1.5}), r"surface_u is 1.5.*\[0, 1\]"),
        (lambda: cave.draw(cave.sample(5).drop(columns="light")), "lacks the columns.*light"),
        (lambda: cave.draw(cave.sample(5).assign(surface="bricks")), "unknown surface 'bricks'.*'brick'"),
        (lambda: cave.draw(cave.sample(5).assign(y=np.inf)), "y is .*inf"),
        (lambda: cave.draw(cave.sample(5)[:0]), "at least one row"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_missing_photograph_is_named_with_its_package(monkeypatch):
    module, folder, files = cave_pictures._PHOTOGRAPHS["scikit-image"]
    absent = {"scikit-image": (module, folder, {**files, "brick": "absent.png"})}
    monkeypatch.setattr(cave_pictures, "_PHOTOGRAPHS", absent)
    with pytest.raises(FileNotFoundError, match=r"'brick' .*absent.png.* scikit-image \d"):
        cave_pictures._photograph_paths()


# --- pictures and masks ----------------------------------------------------------------------------------


@pytest.mark.smoke
def test_images_are_exactly_surface_and_background_blended_by_the_mask():
    images, latents = cave.render(300, seed=7)
    surface, background, mask = cave.components(latents)
    assert torch.equal(mask, cave.masks(latents))
    blend = background + mask[:, None] * (surface - background)
    assert torch.equal(torch.floor(blend.clamp(max=255) + 0.5).to(torch.uint8), images)


@pytest.mark.smoke
def test_changing_the_surface_changes_the_object_only_and_the_background_the_rest_only():
    images, latents = cave.render(300, seed=8)
    mask = cave.masks(latents)[:, None].expand_as(images)
    # 0.98 and 0.02: an edge pixel may be covered so little that rounding hides it.
    other_surface = cave.draw(latents.assign(surface="chelsea", tint="white"))
    assert torch.equal(other_surface[mask == 0], images[mask == 0])
    assert (other_surface[mask > 0.98] != images[mask > 0.98]).float().mean() > 0.9
    other_background = cave.draw(latents.assign(background="gravel"))
    assert torch.equal(other_background[mask == 1], images[mask == 1])
    assert (other_background[mask < 0.02] != images[mask < 0.02]).float().mean() > 0.8


@pytest.mark.smoke
def test_masks_cover_between_nothing_and_all_of_a_pixel():
    mask = cave.masks(cave.sample(500))
    assert mask.dtype == torch.float32
    assert mask.min() == 0
    assert mask.max() == 1
    assert ((mask > 0) & (mask < 1)).any(dim=(1, 2)).all(), "every outline is antialiased"


@pytest.mark.smoke
def test_areas_are_those_of_geometry():
    centred = {"x": 0.0, "y": 0.0, "size": 0.6, "rotation": 20.0}
    area = {
        shape: float(cave.masks(cave.sample(1, fixed={**centred, "shape": shape}), size=256).mean()) * 4 / 0.36
        for shape in cave.SHAPES
    }
    expected = {
        "disc": np.pi * 0.86**2,
        "square": 1.4**2,
        "triangle": 3 * np.sqrt(3) / 4,
        "star": np.pi * (0.64**2 + 0.34**2 / 2),
        "ring": np.pi * (0.96**2 - 0.5**2),
        "cross": 4 * 0.95 * 0.28 * 2 - 4 * 0.28**2,
        "bar": 4 * 0.96 * 0.26,
        "hexagon": 2 * np.sqrt(3) * 0.82**2,
        "half_disc": np.pi * 0.92**2 / 2,
    }
    for shape, value in expected.items():
        assert area[shape] == pytest.approx(value, rel=0.01), shape
    assert 0.2 * area["disc"] < area["crescent"] < 0.7 * area["disc"]


@pytest.mark.smoke
def test_no_shape_can_be_turned_into_another():
    def turned(shape):
        scenes = pd.concat(
            [cave.sample(1, fixed={"shape": shape, "x": 0.0, "y": 0.0, "size": 0.6, "rotation": float(angle)})
             for angle in range(0, 360, 10)]
        )  # fmt: skip
        return cave.masks(scenes).flatten(1)

    shapes = {shape: turned(shape) for shape in cave.SHAPES}
    for first in cave.SHAPES:
        for second in cave.SHAPES[: cave.SHAPES.index(first)]:
            a, b = shapes[first][:1], shapes[second]
            overlap = torch.minimum(a, b).sum(1) / torch.maximum(a, b).sum(1)
            assert overlap.max() < 0.93, f"{first} and {second} overlap by {overlap.max():.2f}"


@pytest.mark.smoke
def test_x_points_right_y_points_up_and_rotation_is_counter_clockwise():
    def centre(**fixed):
        mask = cave.masks(cave.sample(1, fixed={"shape": "disc", "size": 0.5, "x": 0.0, "y": 0.0, **fixed}))[0]
        axis = (2 * torch.arange(32) + 1) / 32 - 1
        return float((mask.sum(0) * axis).sum() / mask.sum()), float((mask.sum(1) * -axis).sum() / mask.sum())

    assert centre(x=0.4) == pytest.approx((0.4, 0), abs=0.01)
    assert centre(y=0.4) == pytest.approx((0, 0.4), abs=0.01)
    # The crescent is thick on its left: a quarter turn counter-clockwise puts that side at the bottom.
    assert centre(shape="crescent", rotation=0.0)[0] < -0.1
    assert centre(shape="crescent", rotation=90.0)[1] < -0.1


@pytest.mark.smoke
def test_nearly_all_of_every_object_is_in_the_picture():
    latents = cave.sample(2000)
    inside = cave.masks(latents).sum(dim=(1, 2))
    whole = cave.masks(latents.assign(x=0.0, y=0.0)).sum(dim=(1, 2))
    assert (inside > 0.85 * whole).all()


@pytest.mark.smoke
def test_light_brightens_the_side_it_comes_from_and_gain_everything():
    lit = {"shape": "disc", "x": 0.0, "y": 0.0, "size": 0.65, "light": 0.0, "gain": 0.6}
    _, latents = cave.render(100, fixed=lit)
    images = cave.draw(latents).float()
    assert (images[:, :, 8:24, 18:24].mean(dim=(1, 2, 3)) / images[:, :, 8:24, 8:14].mean(dim=(1, 2, 3))).mean() > 1.2
    brighter = cave.draw(latents.assign(gain=0.9)).float()
    assert brighter.mean() / images.mean() == pytest.approx(1.5, rel=0.02)


def test_objects_stand_out_from_their_backgrounds():
    _, latents = cave.render(2000)
    surface, background, mask = cave.components(latents)
    difference = ((surface - background).abs().amax(dim=1) * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
    hidden = (difference < 20).float().mean()
    assert hidden < 0.03, f"{hidden:.1%} of the objects differ from their background by less than 20 of 255"


# --- captions --------------------------------------------------------------------------------------------


def read(caption):
    """The inverse of the grammar: which words stand where."""
    words = {name: [c.replace("_", " ") for c in classes] for name, classes in cave.CATEGORIES.items()}
    words |= {"size": cave.SIZES, "place": cave.PLACES}
    group = {name: f"(?P<{name}>{'|'.join(map(re.escape, choices))})" for name, choices in words.items()}
    matches = [re.fullmatch(template.format(**group), caption) for template in cave.TEMPLATES]
    (found,) = [match for match in matches if match]
    return found.groupdict()


@pytest.mark.smoke
def test_latents_can_be_read_back_from_captions():
    latents = cave.sample(2000)
    words = pd.DataFrame([read(caption) for caption in cave.captions(latents)])
    for name in cave.CATEGORIES:
        assert (words[name].str.replace(" ", "_") == latents[name].astype(str)).all(), name
    size = pd.cut(latents["size"], np.linspace(0.3, 0.65, 4), labels=cave.SIZES)
    assert (words["size"] == size.astype(str)).all()
    assert latents["y"][words["place"].str.contains("upper|top")].min() > 0.13
    assert latents["y"][words["place"].str.contains("lower|bottom")].max() < -0.13
    assert latents["x"][words["place"].str.contains("left")].max() < -0.13
    assert latents["x"][words["place"].str.contains("right")].min() > 0.13
    assert latents.loc[words["place"] == "centre", ["x", "y"]].abs().to_numpy().max() < 0.14


@pytest.mark.smoke
def test_captions_paraphrase_by_seed():
    latents = cave.sample(200)
    first, second = cave.captions(latents), cave.captions(latents, seed=1)
    assert first == cave.captions(latents)
    assert first[:50] == cave.captions(latents[:50])
    assert first != second
    assert [read(caption) for caption in first] == [read(caption) for caption in second]


# --- voxels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("early", "noise"), [(0.0, 1.0), (0.5, 2.0), (1.0, 0.5)])
def test_the_stated_noise_ceiling_is_what_the_signal_reaches(early, noise):
    images, latents = cave.render(4000, seed=1)
    brain = cave.voxels(latents, images, n_voxels=40, noise=noise, n_repeats=4, early=early)
    assert brain.responses.shape == (4, 4000, 40)
    mean = brain.responses.mean(axis=0)
    reached = [np.corrcoef(brain.signal[:, i], mean[:, i])[0, 1] for i in range(40)]
    np.testing.assert_allclose(reached, brain.noise_ceiling, atol=0.03)
    assert np.mean(reached - brain.noise_ceiling) == pytest.approx(0, abs=0.005)
    residual = brain.responses - brain.signal
    assert residual.std() == pytest.approx(noise, rel=0.01)
    assert np.corrcoef(residual[:2].reshape(2, -1))[0, 1] == pytest.approx(0, abs=0.02)


def test_a_voxel_is_the_same_voxel_for_other_scenes():
    images, latents = cave.render(300, seed=1)
    everything = cave.voxels(latents, images, n_voxels=10).signal
    part = cave.voxels(latents[100:150], images[100:150], n_voxels=10).signal
    np.testing.assert_allclose(part, everything[100:150], atol=1e-4)


def test_the_same_call_repeats_its_noise_and_other_scenes_have_their_own():
    images, latents = cave.render(200, seed=1)
    others, other_latents = cave.render(200, seed=2)
    first, again = (cave.voxels(latents, images, n_voxels=20) for _ in range(2))
    second = cave.voxels(other_latents, others, n_voxels=20)
    np.testing.assert_array_equal(first.responses, again.responses)
    noises = [(brain.responses - brain.signal).ravel() for brain in (first, second)]
    assert np.corrcoef(noises)[0, 1] == pytest.approx(0, abs=0.05)


def test_early_weighs_what_is_seen_against_what_is_known():
    images, latents = cave.render(1000, seed=1)
    elsewhere, _ = cave.render(1000, seed=2)
    seen = cave.voxels(latents, images, early=1.0).signal
    known = cave.voxels(latents, images, early=0.0).signal
    np.testing.assert_array_equal(cave.voxels(latents, elsewhere, early=0.0).signal, known)
    assert not np.allclose(cave.voxels(latents, elsewhere, early=1.0).signal, seen)
    both = cave.voxels(latents, images, early=0.25).signal
    shares = [np.mean([np.corrcoef(both[:, i], part[:, i])[0, 1] ** 2 for i in range(200)]) for part in (seen, known)]
    assert shares == pytest.approx([0.25, 0.75], abs=0.05)


def test_without_noise_the_ceiling_is_one_and_without_signal_zero():
    images, latents = cave.render(100)
    assert cave.voxels(latents, images, noise=0.0).noise_ceiling == pytest.approx(1)
    same = latents.assign(shape="disc")
    assert cave.voxels(same, images, early=0.0, of=["shape"]).noise_ceiling == pytest.approx(0, abs=1e-6)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"early": 1.5}, "early is 1.5"),
        ({"noise": -1.0}, "noise must be"),
        ({"noise": [1.0, 2.0]}, "noise must be.*200"),
        ({"n_repeats": 0}, "n_repeats is 0"),
        ({"of": "shape"}, "give a list"),
        ({"of": ["shapes"]}, "unknown latent 'shapes'.*'shape'"),
        ({"images": torch.zeros(5, 3, 32, 32)}, "not torch.float32"),
        ({"images": torch.zeros(4, 3, 32, 32, dtype=torch.uint8)}, "5 scenes need uint8 images"),
    ],
)
def test_impossible_voxels_are_refused(arguments, words):
    images, latents = cave.render(5)
    with pytest.raises(ValueError, match=words):
        cave.voxels(latents, **{"images": images, **arguments})
