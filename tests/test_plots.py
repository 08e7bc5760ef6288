"""Figures hold what they are given, and read on light and on dark pages."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb

from convergent import plots, plots_compare
from convergent.compare import compare

pytestmark = pytest.mark.smoke


@pytest.fixture(autouse=True)
def _house_style():
    plots.use_style()
    yield
    plt.close("all")


def luminance(colour):
    channels = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(channels, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_grey_text_reads_on_a_light_and_on_a_dark_page(page):
    low, high = sorted((luminance(plots.GREY), luminance(page)))
    assert (high + 0.05) / (low + 0.05) > 4, "WCAG asks for 4.5 for small text, 3 for large"


def test_a_sheet_holds_every_image_in_order_and_is_clear_between_them():
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 4, 4) * 10
    sheet = plots.tile(images, columns=3, gap=2)
    assert sheet.shape == (10, 16, 4)
    corners = [sheet[top, left, 0] for top in (0, 6) for left in (0, 6, 12)]
    assert corners[:5] == [0, 10, 20, 30, 40]
    assert sheet[6, 12, 3] == 0, "the place of a sixth image is empty"
    assert not sheet[4:6, :, 3].any()
    assert not sheet[:, 4:6, 3].any()


def test_lines_by_layer_go_through_the_means():
    rows = [(layer, "trained", n + v) for n, layer in enumerate(("a", "b")) for v in (0.0, 0.2)]
    figure = plots.by_layer({"run": pd.DataFrame(rows, columns=["layer", "condition", "value"])}, "share", (0, 2))
    [line] = [line for line in figure.axes[0].lines if len(line.get_ydata()) == 2]
    np.testing.assert_allclose(line.get_ydata(), [0.1, 1.1])


def test_selectivity_shows_the_largest_value_of_shuffled_images_as_chance():
    rows = [(c, layer, "shape", v) for c, vs in {"trained": (0.3, 0.5), "shuffled images": (0.02, 0.01)}.items()
            for layer, v in zip("ab", vs, strict=True)]  # fmt: skip
    figure = plots.selectivity(pd.DataFrame(rows, columns=["condition", "layer", "attribute", "value"]))
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == [".30", ".50", ".02"]


def test_the_strongest_stimuli_come_first():
    rows = np.array([[0.0, 5.0], [3.0, 1.0], [2.0, 9.0]])
    assert plots.strongest(rows, 0, 2).tolist() == [1, 2]
    assert plots.strongest(rows, 1, 3).tolist() == [2, 0, 1]


def test_the_mean_colour_of_an_image_is_its_three_channel_means():
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    image[0, 0], image[0, 2, 0] = 255, 255
    np.testing.assert_allclose(plots.mean_colours(image), [[1, 0, 0.5]])


def test_the_walk_starts_and_ends_where_its_stages_do_and_passes_half_way_between():
    start, end = np.zeros((4, 3)), np.ones((4, 3))
    figure = plots.walk({"start": start, "end": end}, np.full((4, 3), 0.5), steps=2)
    assert [frame.name for frame in figure.frames] == ["start", "start → end 1", "end"]
    assert [float(np.mean(frame.data[0].x)) for frame in figure.frames] == [0, 0.5, 1]
    labels = [step["label"] for step in json.loads(figure.to_json())["layout"]["sliders"][0]["steps"]]
    assert labels == ["start", "", "end"]


def test_favourites_and_clouds_draw_a_panel_for_each_row_and_layer():
    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    assert len(plots.favourites({"unit 1": images, "unit 2": images}, ["r = 1", "r = 0"], split=3).axes) == 2
    view = np.random.default_rng(0).normal(size=(20, 2))
    figure = plots.clouds({"input": view, "output": view}, np.arange(20) % 2, ["a", "b"], {"input": 0.5, "output": 1})
    assert [ax.get_title() for ax in figure.axes if ax.get_visible()] == ["input: 50%", "output: 100%"]


@pytest.fixture(scope="module")
def comparison():
    rng = np.random.default_rng(0)
    a = {f"layer{i}": rng.normal(size=(60, 5 + i)) for i in range(3)}
    b = {name: rows @ rng.normal(size=(rows.shape[1],) * 2) for name, rows in a.items()}
    return compare(a, b, ("linear", "cka"), nulls=3, progress=False)


def test_a_heat_map_holds_the_mean_score_of_every_pair_and_marks_the_best(comparison):
    figure = plots_compare.heat_map(comparison, ["linear", "cka"])
    shown = figure.axes[0].images[0].get_array()
    rows = comparison[(comparison.metric == "linear") & (comparison.layer_a == "layer1")]
    means = rows.groupby("layer_b").value.mean()
    np.testing.assert_allclose(shown[1], means.loc[["layer0", "layer1", "layer2"]])
    assert figure.axes[0].collections[0].get_offsets().tolist() == [[i, i] for i in range(3)]
    with pytest.raises(ValueError, match="metric 'rsa' is not in the table"):
        plots_compare.heat_map(comparison, ["rsa"])


def test_alignment_over_depth_is_drawn_with_its_chance_level(comparison):
    figure = plots_compare.depth({"here": comparison})
    lines = figure.axes[0].get_lines()
    same = comparison[(comparison.layer_a == comparison.layer_b) & (comparison.metric == "linear")]
    np.testing.assert_allclose(lines[0].get_ydata(), same.groupby("layer_a").value.mean())
    np.testing.assert_allclose(lines[1].get_ydata(), same.groupby("layer_a").chance.mean())
    assert lines[1].get_linestyle() == "--"


def test_a_long_title_breaks_after_whose_run_it_is_and_not_inside_brackets():
    assert plots.wrapped("this run: The cave") == "this run:\nThe cave"
    lines = plots.wrapped("published: Tiny-ImageNet (80 classes), part 1 of 2", 20).splitlines()
    assert [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines] == [
        "published:",
        "Tiny-ImageNet",
        "(80 classes),",
        "part 1 of 2",
    ]
    assert plots.wrapped("The cave") == "The cave"
