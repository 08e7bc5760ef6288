"""What is done to representations in chapter 2, what metrics and uses make of it, and the figures that show it."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

from conftest import ROOT
from convergent import interactive, metrics, plots_metrics, transformations, uses
from convergent.results import read_records

smoke = pytest.mark.smoke
NAMES = list(transformations.TRANSFORMATIONS)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def layer():
    """Responses (150, 12) of correlated units of different scale, in four classes, away from the origin."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(150) % 4)
    centres = 3 * rng.normal(size=(4, 5))
    hidden = centres[labels] + rng.normal(size=(150, 5))
    X = hidden @ rng.normal(size=(5, 12)) + 0.7 * rng.normal(size=(150, 12))
    return X * np.exp(rng.uniform(-1, 1, 12)) + 2, labels


# --- transformations ---------------------------------------------------------------------------------


@smoke
@pytest.mark.parametrize("name", NAMES)
def test_no_strength_changes_nothing(layer, name):
    np.testing.assert_allclose(transformations.transform(layer[0], name, 0), layer[0], atol=1e-12)


@smoke
@pytest.mark.parametrize("name", NAMES)
def test_every_transformation_changes_the_responses_and_a_seed_repeats_it(layer, name):
    X = layer[0]
    once, again = (transformations.transform(X, name, 0.8, seed=3) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert len(once) == len(X)
    assert once.shape != X.shape or not np.allclose(once, X)


@smoke
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"isotropic scale", "squashing"}))
def test_another_seed_is_another_draw(layer, name):
    one, other = (transformations.transform(layer[0], name, 1, seed) for seed in (0, 1))
    assert not np.allclose(one, other)


@smoke
@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("name", transformations.ISOMETRIES)
def test_an_isometry_keeps_every_distance(layer, name, strength):
    moved = transformations.transform(layer[0], name, strength)
    np.testing.assert_allclose(pdist(moved), pdist(layer[0]), rtol=1e-9)


@smoke
def test_half_a_rotation_done_twice_is_the_whole():
    half, whole = (transformations.transform(np.eye(7), "rotation", strength, seed=5) for strength in (0.5, 1))
    np.testing.assert_allclose(half @ half, whole, atol=1e-10)


@smoke
def test_a_linear_map_is_undone_by_a_linear_map(layer):
    moved = transformations.transform(layer[0], "linear map")
    back = np.linalg.lstsq(moved, layer[0], rcond=None)[0]
    np.testing.assert_allclose(moved @ back, layer[0], atol=1e-9)


@smoke
def test_squashing_cannot_be_undone_by_a_linear_map_but_keeps_the_order_in_each_unit(layer):
    squashed = transformations.transform(layer[0], "squashing")
    assert (squashed.argsort(0) == layer[0].argsort(0)).all()
    assert np.abs(np.corrcoef(squashed[:, 0], layer[0][:, 0])[0, 1]) < 0.99


@smoke
@pytest.mark.parametrize(("strength", "moved"), [(0.25, 3), (0.5, 6), (1, 12)])
def test_a_permutation_moves_the_share_of_units_that_it_says(layer, strength, moved):
    permuted = transformations.transform(layer[0], "permutation", strength)
    assert (permuted != layer[0]).any(0).sum() == moved
    assert {tuple(unit) for unit in permuted.T} == {tuple(unit) for unit in layer[0].T}


@smoke
@pytest.mark.parametrize(("strength", "left"), [(0.5, 9), (1, 6)])
def test_dropped_units_leave_the_others_as_they_were(layer, strength, left):
    kept = transformations.transform(layer[0], "dropped units", strength)
    assert kept.shape == (150, left)
    assert {tuple(unit) for unit in kept.T} <= {tuple(unit) for unit in layer[0].T}


@smoke
def test_noise_is_as_strong_as_the_unit():
    X = np.random.default_rng(0).normal(size=(20_000, 2)) * [1, 10]
    added = transformations.transform(X, "noise", 0.5) - X
    np.testing.assert_allclose(added.std(0), 0.5 * X.std(0), rtol=0.03)


@smoke
@pytest.mark.parametrize(
    ("X", "name", "strength", "says"),
    [
        (np.eye(3), "rotate", 1, "'rotate' is not one of permutation"),
        (np.eye(3), "rotation", 1.5, "from 0 .nothing. to 1"),
        (np.eye(3), "noise", -0.1, "from 0 .nothing. to 1"),
        (np.ones(3), "noise", 1, r"shape \(3,\)"),
    ],
)
def test_what_cannot_be_done_is_refused(X, name, strength, says):
    with pytest.raises(ValueError, match=says):
        transformations.transform(X, name, strength)


@smoke
@pytest.mark.parametrize("name", NAMES)
def test_a_single_unit_can_be_transformed_too(name):
    X = np.random.default_rng(0).normal(size=(10, 1))
    assert transformations.transform(X, name, 0.4).shape == (10, 1)


# --- what metrics say --------------------------------------------------------------------------------

FORGIVEN = {
    "linear": {"permutation", "unit scales", "isotropic scale", "rotation", "translation", "linear map"},
    "Procrustes": {"permutation", "isotropic scale", "rotation", "translation"},
    "permutation": {"permutation", "unit scales", "isotropic scale", "translation", "dropped units"},
    "soft matching": {"permutation", "unit scales", "isotropic scale", "translation"},
    "CKA": {"permutation", "isotropic scale", "rotation", "translation"},
    "RSA": {"permutation", "isotropic scale"},
    "mutual k-NN": {"permutation", "isotropic scale", "rotation"},
}


@smoke
@pytest.mark.parametrize("metric", FORGIVEN)
def test_each_metric_forgives_what_the_chapter_says_and_nothing_else(layer, metric):
    said = transformations.measure({0: layer[0]}, lambda X, Y: transformations.scores(X, Y, [metric]))
    said = said.set_index("transformation").value
    unchanged = {name for name in NAMES if said[name] > said["nothing"] - 1e-4}
    assert unchanged - {"dropped units"} == FORGIVEN[metric] - {"dropped units"}
    if metric in ("permutation", "soft matching"):
        assert ("dropped units" in unchanged) == ("dropped units" in FORGIVEN[metric])


@smoke
def test_the_table_holds_the_layer_itself_every_transformation_and_shuffled_images(layer):
    table = transformations.measure({0: layer[0], 1: layer[0]}, strengths=(0.5, 1))
    assert list(table.transformation.unique()) == ["nothing", *NAMES, "shuffled images"]
    assert (table.groupby("network").size() == (2 * len(NAMES) + 2) * len(transformations.METRICS)).all()
    both = table.set_index(["network", "transformation", "metric", "strength"]).value
    assert both[0, "noise", "CKA", 1.0] != both[1, "noise", "CKA", 1.0], "each network draws its own"
    assert table[table.transformation == "nothing"].value.min() > 0.999
    assert table[table.transformation == "shuffled images"].value.abs().max() < 0.3
    assert set(transformations.full(table).strength) == {0.0, 1.0}


@smoke
def test_images_swapped_within_classes_keep_their_class_and_little_else(layer):
    X, labels = layer
    order = transformations.within_classes(labels)
    assert sorted(order) == list(range(150))
    np.testing.assert_array_equal(labels[order], labels)
    assert (order != np.arange(150)).mean() > 0.9
    found = transformations.chances(X, X, labels)
    for metric in transformations.METRICS:
        assert found["pair"][metric] > 0.999
    assert found["pair"]["CKA"] > found["same class"]["CKA"] > found["shuffled images"]["CKA"] + 0.1


@smoke
def test_every_pair_of_networks_is_compared_in_every_layer(layer):
    X, labels = layer
    table = transformations.pairs({seed: {"a": X, "b": X[:, :6]} for seed in (4, 5, 6)}, labels)
    assert sorted(table.pair.unique()) == ["4-5", "4-6", "5-6"]
    assert (table.groupby(["pair", "layer", "condition"]).size() == len(transformations.METRICS)).all()
    assert set(table.condition) == {"pair", "same class", "shuffled images"}


@smoke
def test_units_that_do_not_vary_are_left_out():
    X = np.array([[1, 2, 0], [1, 3, 0], [1, 5, 1]], dtype=np.float32)
    np.testing.assert_array_equal(transformations.varying(X), X[:, 1:])


@smoke
def test_gains_and_the_last_step_are_differences_within_a_pair():
    values = {"linear": (0.9, 0.8), "Procrustes": (0.7, 0.75), "permutation": (0.4, 0.7)}
    rows = [("0-1", layer, "pair", m, v) for m, both in values.items() for layer, v in zip("ab", both, strict=True)]
    rows.append(("0-1", "a", "shuffled images", "linear", 5.0))
    table = pd.DataFrame(rows, columns=["pair", "layer", "condition", "metric", "value"])
    gains = transformations.gains(table).set_index(["pair", "condition"]).value
    assert gains["0-1 a", "linear over rotation"] == pytest.approx(0.2)
    assert gains["0-1 b", "rotation over permutation"] == pytest.approx(0.05)
    last = transformations.last_step(table).set_index("condition").value
    assert last["permutation"] == pytest.approx(0.3)
    assert last["linear"] == pytest.approx(-0.1)


@smoke
def test_clouds_that_a_metric_calls_the_same_look_different_to_another():
    cloud, groups = transformations.flower()
    others = transformations.equivalents(cloud, groups)
    assert len(others) == 5
    for name, (points, metric) in others.items():
        assert metric(cloud, points) > 1 - 1e-6, name
        judges = transformations.scores(cloud, points, ["Procrustes", "permutation", "CKA", "mutual k-NN"])
        assert min(judges.values()) < 0.85, name


# --- uses --------------------------------------------------------------------------------------------


@smoke
@pytest.mark.parametrize("name", transformations.ISOMETRIES)
def test_every_use_survives_an_isometry(layer, name):
    X, labels = layer
    assert uses.kept(X, transformations.transform(X, name), labels) == dict.fromkeys(uses.USES, 1.0)


@smoke
def test_only_least_squares_from_plenty_survives_a_linear_map(layer):
    X, labels = layer
    shares = uses.kept(X, transformations.transform(X, "linear map"), labels, n_few=10)
    assert shares["least squares"] == 1
    assert max(shares["retrieval"], shares["few examples"]) < 1


@smoke
def test_a_fixed_ridge_penalty_minds_the_scale_and_distance_does_not(layer):
    X, labels = layer
    shares = uses.kept(X, X / 1000, labels)
    assert shares["ridge"] < 1
    assert shares["retrieval"] == shares["k-NN"] == shares["few examples"] == 1


@smoke
def test_shuffled_images_leave_chance(layer):
    X, labels = layer
    shares = uses.kept(X, np.random.default_rng(0).permutation(X), labels)
    assert shares["retrieval"] < 0.35, "10 of 75 by chance"
    assert shares["k-NN"] < 0.6


@smoke
def test_few_examples_are_fitted_perfectly(layer):
    X, labels = layer
    known = np.concatenate([X[:6], X[:6]])  # six examples in twelve units, and the same six as queries
    answers = uses.answers(known, np.concatenate([labels[:6]] * 2), n_few=6, k=1)
    np.testing.assert_array_equal(answers["few examples"], labels[:6])
    np.testing.assert_array_equal(answers["k-NN"], labels[:6])
    np.testing.assert_array_equal(answers["retrieval"][:, 0], np.arange(6))


@smoke
def test_too_few_stimuli_are_refused(layer):
    with pytest.raises(ValueError, match="10 stimuli leave 5 to learn from"):
        uses.answers(layer[0][:10], layer[1][:10], n_few=3)


@smoke
def test_accuracies_are_those_of_the_second_representation(layer):
    X, labels = layer
    found = uses.accuracies(X, X, labels)
    assert set(found) == set(uses.USES[1:])
    assert min(found.values()) > 0.6
    nothing = uses.accuracies(X, np.random.default_rng(0).normal(size=X.shape), labels)
    assert max(nothing.values()) < 0.5


@smoke
def test_a_metric_that_orders_changes_as_a_use_does_follows_it():
    index = [(0, name, 1.0) for name in "abcde"]
    keys = ["network", "transformation", "strength"]

    def table(**columns):
        wide = pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(index, names=keys))
        return wide.melt(ignore_index=False, var_name="metric").reset_index()

    rising = [0.1, 0.2, 0.5, 0.7, 0.9]
    scores = table(same=rising, opposite=rising[::-1], rounding=[0.3, 0.3004, 0.2999, 0.8, 0.9])
    shares = table(use=[0.2, 0.3, 0.6, 0.8, 1.0], flat=[0.5, 0.5, 0.5, 0.6, 0.7], unmoved=[1.0, 1.0, 0.998, 1.0, 1.0])
    found = uses.following(scores, shares).set_index(["metric", "use"]).value
    assert found["same", "use"] == pytest.approx(1)
    assert found["opposite", "use"] == pytest.approx(-1)
    assert found["rounding", "flat"] == pytest.approx(1), "differences below two decimals are ties"
    assert np.isnan(found["same", "unmoved"]), "a use that nothing changes sets no order to follow"


@smoke
@pytest.mark.parametrize("change", ["rotation", "permutation", "linear map"])
def test_a_map_of_the_right_family_carries_every_image_over(layer, change):
    X, labels = layer
    found = uses.carry_over(X, transformations.transform(X, change), labels).set_index(["map", "use"]).value
    assert found[change, "image"] == 1
    assert found[change, "class"] == found["own responses", "class"] > 0.8
    assert found["no map", "image"] < 0.2


@smoke
def test_layers_of_different_size_are_carried_over_too(layer):
    X, labels = layer
    for other in (X[:, :7], np.concatenate([X, X[:, :3] ** 2], 1)):
        found = uses.carried({0: {"a": X}, 1: {"a": other}}, labels)
        assert len(found) == 10
        assert found.value.between(0, 1).all()


# --- figures -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def knobs(layer):
    cloud = layer[0][:60, :3] / 5
    states = interactive.transformed(cloud, (0, 0.5, 1))
    chance = transformations.scores(cloud, cloud[::-1])
    return cloud, states, interactive.knobs(cloud, layer[1][:60], states, chance)


@smoke
def test_the_knobs_show_every_state_with_what_the_library_says_of_it(knobs):
    cloud, states, figure = knobs
    assert [frame.name for frame in figure.frames] == [f"{name} {s:g}" for name in NAMES for s in (0, 0.5, 1)]
    for frame, (name, strength) in zip(figure.frames, ((n, s) for n in NAMES for s in (0, 0.5, 1)), strict=True):
        points, values = states[name][strength]
        np.testing.assert_allclose(np.column_stack([frame.data[0][axis] for axis in "xyz"]), points, atol=0.006)
        bars = dict(zip(frame.data[1].y, frame.data[1].x, strict=True))
        assert bars == {metric: round(value, 3) for metric, value in values.items()}
    reach = interactive.REACH["unit scales"]
    moved = transformations.transform(cloud, "unit scales", reach)
    np.testing.assert_allclose(states["unit scales"][1][0], moved)
    assert states["unit scales"][1][1]["CKA"] == pytest.approx(metrics.cka(cloud, moved))


@smoke
def test_a_dropped_unit_lies_flat_in_the_picture(knobs):
    cloud, states, _ = knobs
    points, _ = states["dropped units"][1]
    flat = np.ptp(points, axis=0) == 0
    assert flat.sum() == 1
    np.testing.assert_array_equal(points[:, ~flat], cloud[:, ~flat])


@smoke
def test_choosing_a_transformation_shows_its_strongest_state_and_its_own_slider(knobs):
    _, states, figure = knobs
    [menu] = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == NAMES
    assert [slider.visible for slider in figure.layout.sliders] == [name == "rotation" for name in NAMES]
    assert menu.active == NAMES.index("rotation")
    for i, (name, button) in enumerate(zip(NAMES, menu.buttons, strict=True)):
        data, layout, traces = button.args
        assert [layout[f"sliders[{j}].visible"] for j in range(len(NAMES))] == [j == i for j in range(len(NAMES))]
        assert list(traces) == [1, 2]
        np.testing.assert_allclose(data["x"][0], states[name][1][0][:, 0], atol=0.006)
        assert [step.args[0][0] for step in figure.layout.sliders[i].steps] == [f"{name} {s:g}" for s in (0, 0.5, 1)]


@smoke
def test_the_figure_of_the_chapter_is_light_enough_for_a_page(layer):
    cloud = np.random.default_rng(0).normal(size=(200, 3))
    values = dict.fromkeys(transformations.METRICS, 0.5)
    states = {name: {s: (cloud, values) for s in interactive.STRENGTHS} for name in NAMES}
    figure = interactive.knobs(cloud, np.zeros(200, int), states, values)
    assert len(json.dumps(figure.to_plotly_json(), default=lambda a: a.tolist())) < 2e6
    assert len(figure.to_json()) < 1e6


@smoke
def test_the_table_shows_means_over_networks_and_their_spread_where_there_is_one():
    rows = [(n, t, 1.0, "CKA", v) for t, both in {"noise": (0.5, 0.7), "nothing": (1.0, 1.0)}.items()
            for n, v in enumerate(both)]  # fmt: skip
    columns = ["network", "transformation", "strength", "metric", "value"]
    page = plots_metrics.grid(pd.DataFrame(rows, columns=columns)).to_html()
    assert "0.60<br><small>±0.14</small>" in page
    assert ">1.00<" in page
    assert 'class="dataframe"' in page


@smoke
def test_text_in_the_table_can_be_read_on_every_colour():
    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.21, 0.72, 0.07]

    for value in np.linspace(0, 1, 41):
        look = dict(part.split(": ") for part in plots_metrics._shade(value).split("; "))
        low, high = sorted(map(luminance, look.values()))
        assert (high + 0.05) / (low + 0.05) > 4.4, f"text on {look['background']} cannot be read"


@smoke
def test_lines_over_depth_go_through_the_means_over_pairs():
    heights = {("0-1", "a"): 0.5, ("0-1", "b"): 0.7, ("0-2", "a"): 0.4, ("0-2", "b"): 0.6}
    rows = [(*at, c, "CKA", v) for at, v in heights.items() for c in ("pair", "shuffled images")]
    table = pd.DataFrame(rows, columns=["pair", "layer", "condition", "metric", "value"])
    figure = plots_metrics.depth({"run": table, "other": table}, ("CKA",))
    assert [ax.get_title() for ax in figure.axes] == ["run", "other"]
    lines = [line for line in figure.axes[0].lines if len(line.get_ydata()) == 2]
    assert len(lines) == 2, "the pairs and their chance level"
    np.testing.assert_allclose(lines[0].get_ydata(), [0.45, 0.65])


@smoke
def test_verdicts_have_a_bar_for_each_metric_and_both_nulls():
    rows = [(p, c, m, v) for p in ("0-1", "0-2") for m in ("linear", "CKA")
            for c, v in (("pair", 0.8), ("same class", 0.5), ("shuffled images", 0.0))]  # fmt: skip
    figure = plots_metrics.verdicts({"run": pd.DataFrame(rows, columns=["pair", "condition", "metric", "value"])})
    [ax] = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [0.8, 0.8]
    assert [list(line.get_xdata()) for line in ax.lines] == [[0.5, 0.5], [0.0, 0.0]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["linear", "CKA"]


# --- the chapter -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(execute_at_smoke):
    return read_records(execute_at_smoke(ROOT / "notebooks" / "02_metrics.ipynb"))


def test_from_scratch_and_library_agree_in_the_chapter(recorded):
    assert recorded["largest_difference"] < 1e-4


def test_what_mathematics_promises_holds_on_the_chapters_networks(recorded):
    kept = ("linear_linear_map", "CKA_rotation", "CKA_translation", "permutation_unit_scales", "mutual_k_NN_rotation")
    for name in kept:
        assert recorded[f"of_{name}"] == pytest.approx(1, abs=2e-3), name
    assert recorded["isometry_least"] == 1
    assert recorded["of_permutation_noise"] == pytest.approx(0.5**0.5, abs=0.03)
    assert recorded["same_at_least"] == pytest.approx(1, abs=1e-6)
    assert {recorded[f"claims_metrics_{i}_run1"] for i in ("cka_losses", "map_losses", "uses_survive")} == {
        "reproduced"
    }
