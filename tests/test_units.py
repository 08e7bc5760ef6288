import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from convergent import cave, images, networks, readout, units, weights
from convergent.readout import linear_readout
from convergent.units import attributes, correlations, partners, rosetta, selectivity, shuffle_images
from convergent.weights import first_filters, orientation_selectivity
from tiny import split

pytestmark = pytest.mark.smoke
quickly = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)


def responses(seed, n_stimuli=60, n_units=5):
    """Units that prefer some of four categories, more or less, and the categories."""
    rng = np.random.default_rng(seed)
    category = rng.permutation(np.arange(n_stimuli) % 4)
    return rng.normal(size=(4, n_units))[category] + rng.normal(size=(n_stimuli, n_units)), category


def photographs(*pictures):
    return images.Split(torch.stack([torch.as_tensor(p) for p in pictures]).to(torch.uint8), torch.zeros(len(pictures)))


# --- selectivity -------------------------------------------------------------------------------------


def test_a_unit_that_tells_its_category_has_selectivity_one():
    category = np.repeat(["disc", "ring", "star"], 20)
    unit = np.repeat([1.0, 5.0, 2.0], 20)
    assert selectivity(unit[:, None], category) == pytest.approx([1])


def test_a_unit_that_does_not_vary_has_selectivity_zero():
    rows = np.column_stack([np.full(40, 7.0), np.full(40, 0.1), np.zeros(40)])
    assert selectivity(rows, np.repeat(["a", "b"], 20)).tolist() == [0, 0, 0]


def test_a_unit_that_differs_inside_categories_only_scores_at_most_zero():
    rows = np.tile([0.0, 1.0], 20)[:, None]
    assert selectivity(rows, np.repeat(["a", "b"], 20))[0] == pytest.approx(-1 / 38)


@quickly
@given(seed=seeds, scale=st.floats(1e-8, 1e8), sign=st.sampled_from([-1, 1]), shift=st.floats(-100, 100))
def test_scale_and_shift_of_a_unit_do_not_change_its_selectivity(seed, scale, sign, shift):
    rows, category = responses(seed)
    category = category.astype(str)
    changed = sign * scale * (rows + shift)
    assert selectivity(changed, category) == pytest.approx(selectivity(rows, category), abs=1e-6)


@quickly
@given(seed=seeds, names=st.permutations(["disc", "ring", "star", "bar"]))
def test_the_names_of_categories_do_not_matter(seed, names):
    rows, category = responses(seed)
    renamed = pd.Categorical(np.array(names)[category])
    assert selectivity(rows, renamed) == pytest.approx(selectivity(rows, category.astype(str)), abs=1e-12)


@quickly
@given(seed=seeds)
def test_the_order_of_stimuli_does_not_matter(seed):
    rows, category = responses(seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    assert selectivity(rows[order], category[order]) == pytest.approx(selectivity(rows, category), abs=1e-12)


@quickly
@given(seed=seeds)
def test_selectivity_is_epsilon_squared_of_an_analysis_of_variance(seed):
    rows, category = responses(seed)
    n, k = len(rows), 4
    f = np.array([stats.f_oneway(*(unit[category == c] for c in range(k))).statistic for unit in rows.T])
    assert selectivity(rows, category.astype(str)) == pytest.approx((k - 1) * (f - 1) / ((k - 1) * f + n - k))


def test_shuffled_categories_score_zero_on_average():
    rows, category = responses(0, n_stimuli=60, n_units=200)
    rng = np.random.default_rng(0)
    scores = [selectivity(rows, rng.permutation(category).astype(str)) for _ in range(50)]
    assert np.mean(scores) == pytest.approx(0, abs=0.005)
    assert selectivity(rows, category.astype(str)).mean() > 0.2


def test_numbers_are_cut_into_groups_of_equal_size():
    size = np.random.default_rng(0).uniform(size=800)
    steps, line = np.floor(size * 8), size
    scores = selectivity(np.column_stack([steps, line, np.abs(size - 0.5)]), size, n_bins=8)
    assert scores[0] > 0.9
    assert scores[1] == pytest.approx(1 - 1 / 64, abs=0.01), "within an eighth a unit's line still varies"
    assert scores[2] > 0.9, "a response need not grow with the attribute"


def test_cyclic_responses_need_more_groups_than_periods():
    size = np.linspace(0, 1, 800)
    unit = np.sin(2 * np.pi * 8 * size)[:, None]
    assert abs(selectivity(unit, size, n_bins=8)[0]) < 0.05 < 0.9 < selectivity(unit, size, n_bins=80)[0]


@pytest.mark.parametrize("kind", [bool, int, float])
def test_numbers_of_few_values_are_categories(kind):
    attribute = np.repeat([0, 1], [36, 24]).astype(kind)  # eighths of the stimuli would all begin at 0 or 1
    assert selectivity(attribute[:, None].astype(float), attribute) == pytest.approx([1])


@pytest.mark.parametrize(
    ("n_rows", "attribute", "says"),
    [
        (10, ["a", "b"] * 4, "10 rows of responses but 8 values"),
        (10, ["a"] * 10, "10 stimuli fall into 1 groups"),
        (10, [0.5] * 10, "10 stimuli fall into 1 groups"),
        (4, list("abcd"), "4 stimuli fall into 4 groups"),
    ],
)
def test_selectivity_needs_two_groups_and_one_value_for_each_row(n_rows, attribute, says):
    with pytest.raises(ValueError, match=says):
        selectivity(np.random.default_rng(0).normal(size=(n_rows, 2)), attribute)


# --- attributes --------------------------------------------------------------------------------------


def test_attributes_of_the_cave_are_its_latents_class_first():
    pictures, latents = cave.render(30, seed=0)
    known = attributes(images.Split(pictures, torch.zeros(30), latents))
    assert tuple(known.columns) == cave.LATENTS
    assert (len(known), len(known.columns), known.columns[0]) == (30, 10, "shape")


def gradient(axis, period=4, size=32):
    wave = (torch.arange(size) // (period // 2) % 2) * 200.0 + 20
    return (wave.view(1, -1) if axis == "vertical" else wave.view(-1, 1)).expand(3, size, size)


def flat(red, green, blue, size=32):
    return torch.tensor([red, green, blue]).view(3, 1, 1).expand(3, size, size)


def test_edges_are_positive_for_vertical_stripes_and_negative_for_horizontal_ones():
    edges = attributes(photographs(gradient("vertical"), gradient("horizontal"), flat(9, 9, 9))).edges
    assert edges[0] > 5 > 0 > -5 > edges[1]
    assert edges[0] == pytest.approx(-edges[1])
    assert edges[2] == 0


def test_luminance_and_contrast_are_of_the_grey_picture():
    known = attributes(photographs(flat(0, 0, 0), flat(255, 255, 255), flat(255, 0, 0), gradient("vertical")))
    assert known.luminance.tolist() == pytest.approx([0, 1, 0.299, 120 / 255])
    assert known.contrast.tolist() == pytest.approx([0, 0, 0, 100 / 255], rel=1e-3)


def test_colours_lie_on_two_opponent_axes():
    colours = [flat(255, 0, 0), flat(0, 255, 0), flat(0, 0, 255), flat(255, 255, 0), flat(90, 90, 90)]
    known = attributes(photographs(*colours))
    assert known["red-green"].tolist() == pytest.approx([1, -1, 0, 0, 0])
    assert known["blue-yellow"].tolist() == pytest.approx([-0.5, -0.5, 1, -1, 0])


def test_sharpness_is_what_averaging_four_pixels_destroys():
    checks = ((torch.arange(32).view(-1, 1) + torch.arange(32)) % 2 * 200.0).expand(3, 32, 32)
    ramp = (torch.arange(32.0) * 8).expand(3, 32, 32)
    sharpness = attributes(photographs(checks, gradient("vertical", period=8), ramp)).sharpness
    assert sharpness[0] == pytest.approx(1, abs=0.01)
    assert sharpness[2] < 0.02
    assert sharpness[0] > sharpness[1]


def test_attributes_of_photographs_start_with_the_class():
    known = attributes(split(12))
    names = ["class", "luminance", "contrast", "red-green", "blue-yellow", "sharpness", "edges"]
    assert list(known.columns) == names
    assert known["class"].tolist() == [0, 1, 2] * 4
    assert isinstance(known["class"].dtype, pd.CategoricalDtype), "labels are names, not quantities"
    assert np.isfinite(known[names[1:]]).all(axis=None)


def test_the_most_selective_unit_of_each_layer_is_found_for_each_attribute():
    network, stimuli = networks.load("cnn6", width=0.1, seed=0), split(60)
    found = units.selectivity_by_layer(network, stimuli)
    assert list(found.columns) == ["layer", "attribute", "unit", "value"]
    assert len(found) == 6 * 7
    row = found.query("layer == 'layer3' and attribute == 'luminance'").iloc[0]
    rows = units.extract(network, stimuli.images, ["layer3"], spatial="pool")["layer3"]
    scores = selectivity(rows, attributes(stimuli).luminance)
    assert (row.unit, row.value) == (scores.argmax(), pytest.approx(scores.max()))
    chance = units.selectivity_by_layer(network, stimuli, n_shuffles=10)
    assert chance.value.mean() < found.value.mean()
    assert 0 < chance.value.mean() < 0.3, "the best of several units is above zero by chance"


# --- units across networks ---------------------------------------------------------------------------


@quickly
@given(seed=seeds)
def test_correlations_are_those_of_numpy(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(30, 4)) * rng.uniform(1e-6, 1e6, 4), rng.normal(size=(30, 3)) + rng.uniform(-1e3, 1e3, 3)
    np.testing.assert_allclose(correlations(a, b), np.corrcoef(a.T, b.T)[:4, 4:], rtol=1e-6, atol=1e-9)


def test_constant_units_have_no_correlation_and_a_warning_counts_them():
    a = np.random.default_rng(0).normal(size=(20, 3))
    a[:, 1] = 0.1
    b = a.copy()
    with pytest.warns(UserWarning, match="1 of 3 units do not vary and are left out"):
        found = correlations(a, b)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    assert np.isfinite(found[np.ix_([0, 2], [0, 2])]).all()


def test_units_of_tiny_responses_still_vary():
    a = np.random.default_rng(0).normal(size=(20, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.diag(correlations(1e-12 * a, a)) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("function", [correlations, partners])
def test_different_numbers_of_stimuli_are_refused(function):
    with pytest.raises(ValueError, match="row i of both must be the same stimulus"):
        function(np.random.default_rng(0).normal(size=(20, 3)), np.random.default_rng(1).normal(size=(22, 3)))


def test_partners_find_a_planted_permutation():
    rng = np.random.default_rng(0)
    a, order = rng.normal(size=(1000, 20)), rng.permutation(20)
    noise = 0.5
    b = a[:, order] + noise * rng.normal(size=a.shape)
    found = partners(a, b)
    assert found.unit.tolist() == list(range(20))
    assert (order[found.partner] == found.unit).all()
    assert found.mutual.all()
    assert found.held_out.mean() == pytest.approx(1 / np.sqrt(1 + noise**2), abs=0.02)


def test_a_unit_of_opposite_sign_is_no_partner():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(1000, 2))
    b = np.column_stack([-a[:, 0], a[:, 0] + 2 * rng.normal(size=1000), a[:, 1]])
    assert partners(a, b).partner.tolist() == [1, 2]


def test_a_choice_among_strangers_flatters_itself_until_held_out():
    rng = np.random.default_rng(0)
    found = partners(rng.normal(size=(200, 60)), rng.normal(size=(200, 60)))
    assert found.chosen.mean() > 0.15
    assert abs(found.held_out.mean()) < 0.05


def test_mutual_says_whether_the_partner_would_choose_back():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=400)
    a = np.column_stack([shared, shared + rng.normal(size=400)])  # both like the one unit of b; it prefers the first
    found = partners(a, shared[:, None] + 0.1 * rng.normal(size=(400, 1)))
    assert found.partner.tolist() == [0, 0]
    assert found.mutual.tolist() == [True, False]


def test_units_that_are_silent_in_either_half_are_left_out_without_noise():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(100, 4)), rng.normal(size=(100, 4))
    b[:, :] = a
    a[:, 0], a[:50, 1], b[50:, 2] = 0, 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = partners(a, b)
    assert found.unit.tolist() == [3]
    assert np.isfinite(found.held_out).all()


def test_shuffling_images_keeps_the_places_of_an_image_together():
    rows = np.column_stack([np.repeat(np.arange(30), 4), np.tile(np.arange(4), 30)])
    shuffled = shuffle_images(rows, 30, seed=1)
    assert shuffled[:, 1].tolist() == rows[:, 1].tolist()
    blocks = shuffled[:, 0].reshape(30, 4)
    assert (blocks == blocks[:, :1]).all()
    assert sorted(blocks[:, 0]) == list(range(30))
    assert blocks[:, 0].tolist() != list(range(30))
    assert np.array_equal(shuffled, shuffle_images(rows, 30, seed=1))
    assert not np.array_equal(shuffled, shuffle_images(rows, 30, seed=2))


def test_a_network_is_found_again_in_itself():
    network = networks.load("cnn6", width=0.2, seed=0)
    found = rosetta(network, network, split(80)).pivot(index="layer", columns="condition", values="value")
    assert list(found.index) == networks.layers(network)
    assert found["best partner"].to_numpy() == pytest.approx(np.ones(6), abs=1e-6)
    assert found["same index"].to_numpy() == pytest.approx(np.ones(6), abs=1e-6)
    assert found["shuffled images"].abs().max() < 0.5


def test_in_another_network_the_best_partner_beats_the_same_index():
    first, second = (networks.load("cnn6", width=0.5, seed=seed) for seed in (0, 1))
    found = rosetta(first, second, split(100)).pivot(index="layer", columns="condition", values="value")
    assert (found["best partner"] > found["same index"]).all()


# --- weights -----------------------------------------------------------------------------------------


def grating(angle, size=15, frequency=0.25):
    """Stripes that fade towards the border, so that the square window adds no orientation of its own."""
    y, x = np.mgrid[:size, :size] - size // 2
    stripes = np.cos(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))
    return (stripes * spot(size / 5, size)) * np.ones((3, 1, 1))


def spot(width, size=15):
    y, x = np.mgrid[:size, :size] - size // 2
    return np.exp(-(x**2 + y**2) / (2 * width**2))[None]


@pytest.mark.parametrize("degrees", range(0, 180, 15))
def test_a_grating_of_any_orientation_prefers_it(degrees):
    [found], [upright] = (orientation_selectivity(grating(np.radians(angle))[None]) for angle in (degrees, 0))
    assert 0.9 < found <= 1
    assert found == pytest.approx(upright, abs=0.01)


@pytest.mark.parametrize("width", [1.0, 1.5, 2.0])
def test_a_round_spot_prefers_no_orientation(width):
    assert orientation_selectivity(spot(width)[None]) == pytest.approx([0], abs=0.01)


def test_crossed_gratings_prefer_no_orientation():
    crossed = grating(0.3) + grating(0.3 + np.pi / 2)
    assert orientation_selectivity(crossed[None]) == pytest.approx([0], abs=0.01)


@quickly
@given(seed=seeds, scale=st.floats(1e-6, 1e6), sign=st.sampled_from([-1, 1]), turns=st.integers(0, 3))
def test_scale_sign_and_quarter_turns_do_not_change_orientation_selectivity(seed, scale, sign, turns):
    filters = np.random.default_rng(seed).normal(size=(4, 3, 5, 5))
    changed = sign * scale * np.rot90(filters, turns, axes=(2, 3))
    before = orientation_selectivity(filters)
    assert orientation_selectivity(changed) == pytest.approx(before, abs=1e-9)
    assert ((before >= 0) & (before <= 1)).all()


@quickly
@given(seed=seeds)
def test_the_order_of_channels_does_not_change_orientation_selectivity(seed):
    filters = np.random.default_rng(seed).normal(size=(4, 3, 5, 5))
    assert orientation_selectivity(filters[:, ::-1]) == pytest.approx(orientation_selectivity(filters))


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        (np.ones((4, 3, 1, 1)), "expected .n_filters, n_channels, height, width., over 1x1"),
        (np.ones((3, 5, 5)), r"filters have shape \(3, 5, 5\)"),
        (np.stack([grating(0), np.zeros((3, 15, 15))]), "a filter has no power at any frequency"),
        (np.full((1, 3, 5, 5), np.nan), "a filter has no power"),
    ],
)
def test_filters_without_an_orientation_are_refused(filters, says):
    with pytest.raises(ValueError, match=says):
        orientation_selectivity(filters)


def test_first_filters_are_those_of_the_first_convolution():
    network = networks.load("cnn6", width=0.25, seed=0)
    filters = first_filters(network)
    assert filters.shape == (8, 3, 5, 5)
    assert not filters.requires_grad
    assert torch.equal(filters, network.layer1[0].weight.detach())
    assert weights.orientation_selectivity(filters).shape == (8,)


def test_a_network_without_convolutions_has_no_filters():
    with pytest.raises(ValueError, match="Sequential has no convolution"):
        first_filters(nn.Sequential(nn.Linear(2, 2)))


# --- readout -----------------------------------------------------------------------------------------


def clouds(seed, n=200, n_units=20, n_classes=4, distance=20.0):
    centres = np.random.default_rng(0).normal(size=(n_classes, n_units)) * distance
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    return centres[labels] + rng.normal(size=(n, n_units)), labels


def test_separable_classes_are_read_without_error():
    found = linear_readout(*clouds(1), *clouds(2))
    assert found.accuracy == 1
    assert found.view.shape == (200, 2)


def test_random_labels_are_read_at_chance():
    rng = np.random.default_rng(0)
    rows, new = rng.normal(size=(2, 1000, 10))
    labels, new_labels = rng.integers(4, size=(2, 1000))
    assert linear_readout(rows, labels, new, new_labels).accuracy == pytest.approx(0.25, abs=0.06)


def test_two_classes_are_viewed_in_two_directions_too():
    found = linear_readout(*clouds(1, n_classes=2), *clouds(2, n_classes=2))
    assert found.accuracy == 1
    assert found.view.shape == (200, 2)
    assert found.view[:, 0].std() > 0


def test_tensors_are_read_as_arrays_are():
    fit, new = clouds(1, distance=1.0), clouds(2, distance=1.0)
    tensors = [torch.from_numpy(part) for part in (*fit, *new)]
    assert linear_readout(*tensors).accuracy == linear_readout(*fit, *new).accuracy


def test_the_view_separates_classes_that_were_never_fitted():
    view, labels = linear_readout(*clouds(1), *clouds(2)).view, clouds(2)[1]
    centres = np.stack([view[labels == c].mean(0) for c in range(4)])
    distances = np.linalg.norm(view[:, None] - centres, axis=2)
    assert (distances.argmin(1) == labels).all()


def test_only_so_many_leading_components_are_read():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    rows = np.column_stack([10 * rng.normal(size=(400, 3)), labels + 0.1 * rng.normal(size=400)])
    few, all_of_them = (linear_readout(rows, labels, rows, labels, n).accuracy for n in (3, 50))
    assert few < 0.65 < 0.99 < all_of_them


def test_more_units_than_stimuli_can_be_read():
    assert linear_readout(*clouds(1, n=60, n_units=300), *clouds(2, n=60, n_units=300)).accuracy == 1


@pytest.mark.parametrize("labels", [[0] * 20, list(range(20))], ids=["one class", "as many as stimuli"])
def test_labels_that_cannot_be_fitted_are_refused(labels):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(ValueError, match="class"):
        linear_readout(rows, labels, rows, labels)


def test_pixels_every_layer_and_the_output_are_read():
    network = networks.load("cnn6", 3, width=0.1, seed=0)
    found = readout.by_layer(network, split(90, seed=0), split(60, seed=1))
    assert list(found) == ["input", *networks.layers(network), "output"]
    assert all(0 <= layer.accuracy <= 1 and layer.view.shape == (60, 2) for layer in found.values())
    assert found["layer1"].accuracy > 0.6, "the classes differ in colour: chance is 1 in 3"


def test_readouts_become_a_tidy_table_with_the_chance_level_as_a_condition():
    one = {"input": readout.Readout(0.5, None), "layer1": readout.Readout(0.75, None)}
    table = readout.table({("trained", 0): one, ("trained", 1): one, ("untrained", 0): one}, chance=0.1)
    assert list(table.columns) == ["condition", "network", "layer", "value"]
    assert sorted(table.query("condition == 'trained' and layer == 'layer1'").value) == [0.75, 0.75]
    assert table.query("condition == 'chance'").value.unique().tolist() == [0.1]
    assert not table.duplicated(["condition", "network", "layer"]).any()
