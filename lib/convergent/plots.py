"""The house style, and the figures that chapters draw.

Figures have no background of their own and grey text, so that they read on a light and on a dark page. Colours are
those of Okabe & Ito (2008), which colour-blind readers can tell apart; one condition keeps one colour everywhere.
"""

import re
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.lines import Line2D
from torch import Tensor

GREY = "#7a7a7a"
WIDTH = 6.5  # inches: at the width of a page, text of 11 points is then no smaller than 9
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
# One colour for one metric in every chapter; kin share one (they are told apart by line or marker).
METRIC_COLOURS = {
    "linear": PALETTE[0],
    "procrustes": PALETTE[1],
    "permutation": PALETTE[2],
    "soft_matching": "#999933",
    "semi_matching": "#999933",
    "cka": PALETTE[3],
    "cka_debiased": PALETTE[3],
    "shape_cosine": PALETTE[1],
    "cca": "#8C564B",
    "svcca": "#8C564B",
    "pwcca": "#8C564B",
    "rsa": PALETTE[4],
    "mutual_knn": PALETTE[5],
    "cknna": PALETTE[5],
}
COLOURS = {
    "trained": "#0072B2",
    "untrained": "#E69F00",
    "best partner": "#0072B2",
    "best partner, untrained": "#E69F00",
    "same index": "#CC79A7",
    "shuffled images": GREY,
    "chance": GREY,
}


def use_style() -> None:
    """Set the house style for all figures drawn afterwards."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE)
    grey = {f"{part}color": GREY for part in ("axes.edge", "axes.label", "xtick.", "ytick.", "text.")}
    sizes = {f"{part}size": 11 for part in ("font.", "axes.title", "axes.label", "xtick.label", "ytick.label")}
    clear = {"figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none"}
    boxes = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 11}
    plt.rcParams.update(grey | sizes | clear | boxes | {"axes.titlecolor": GREY, "legend.labelcolor": GREY})
    plt.rcParams.update({"figure.dpi": 110, "savefig.dpi": 200, "svg.fonttype": "none"})


def wrapped(title: str, width: int = 24) -> str:
    """A run's title on lines of at most `width` characters, the first of which says whose run it is."""
    whose, colon, what = title.rpartition(": ")
    # "(80 classes)" and "part 1 of 2" stay whole: a space that does not break.
    what = re.sub(r"\([^)]*\)|part \d+ of \d+", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), what)
    return "\n".join([whose + colon.strip()] * bool(colon) + textwrap.wrap(what, width))


def _picture(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def _bare(axes) -> None:
    for ax in np.ravel(axes):
        ax.set(xticks=[], yticks=[])
        sns.despine(ax=ax, left=True, bottom=True)


def tile(images: Tensor, columns: int, gap: int = 2) -> np.ndarray:
    """Images (n, 3, h, w) in rows of `columns`, as one picture (height, width, 4) with clear gaps between them."""
    n, _, h, w = images.shape
    rows = -(-n // columns)
    sheet = np.zeros((rows * (h + gap) - gap, columns * (w + gap) - gap, 4), np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[top : top + h, left : left + w, :3] = _picture(image)
        sheet[top : top + h, left : left + w, 3] = 255
    return sheet


def photographs(split, classes: list[str], per_class: int = 8) -> plt.Figure:
    """Some images of each class (the first ten), a row a class."""
    shown = classes[:10]
    figure, axes = plt.subplots(len(shown), 1, figsize=(WIDTH, 0.62 * len(shown) + 0.2), squeeze=False)
    for label, ax in enumerate(axes[:, 0]):
        chosen = split.images[split.labels == label][:per_class]
        ax.imshow(tile(chosen, per_class), interpolation="nearest", aspect="equal")
        ax.set_ylabel(shown[label].split(",")[0].replace("_", " "), rotation=0, ha="right", va="center")
    _bare(axes)
    figure.subplots_adjust(left=0.25, right=0.99, top=0.99, bottom=0.01, hspace=0.06)
    return figure


def clouds(views: dict[str, np.ndarray], labels, classes: list[str], accuracies: dict[str, float]) -> plt.Figure:
    """Small multiples of point clouds (n, 2), one a layer, coloured by class; the classes named in the last."""
    figure, axes = plt.subplots(2, -(-len(views) // 2), figsize=(WIDTH, 4.1), squeeze=False)
    labels = np.asarray(labels)
    for ax, (name, view) in zip(axes.flat, views.items(), strict=False):
        for label in np.unique(labels):
            points = view[labels == label]
            ax.scatter(*points.T, s=5, color=PALETTE[label % 6], alpha=0.55, linewidths=0, rasterized=True)
        # The bulk of the cloud, whatever a few far points do.
        low, high = np.percentile(view, [0.5, 99.5], axis=0)
        margin = 0.08 * (high - low) + 1e-9
        ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
        ax.set_title(f"{name}: {accuracies[name]:.0%}")
    for label in np.unique(labels):
        centre = np.median(view[labels == label], axis=0)
        box = {"boxstyle": "round,pad=0.15", "facecolor": PALETTE[label % 6], "edgecolor": "none", "alpha": 0.9}
        ax.text(
            *centre,
            classes[label].split(",")[0].replace("_", " "),
            ha="center",
            va="center",
            fontsize=9,
            color="white",
            bbox=box,
        )
    for ax in axes.flat[len(views) :]:
        ax.set_visible(False)
    _bare(axes)
    figure.tight_layout(w_pad=0.6)
    return figure


def by_layer(tables: dict[str, pd.DataFrame], ylabel: str, ylim: tuple[float, float]) -> plt.Figure:
    """A quantity against layers, a panel for each run; means and 95 % bootstrap intervals over networks or pairs.

    Parameters
    ----------
    tables : title of the run -> DataFrame with columns layer, condition, value, in the order of the layers
    ylabel : the quantity, with its unit
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 3.4), sharey=True, squeeze=False)
    conditions = list(dict.fromkeys(name for table in tables.values() for name in table.condition))
    markers = dict(zip(conditions, "osDX^v", strict=False))
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        for name, rows in table.groupby("condition", sort=False):
            null = COLOURS[name] == GREY
            look = {
                "color": COLOURS[name],
                "marker": None if null else markers[name],
                "linestyle": "--" if null else "-",
            }
            sns.lineplot(rows, x="layer", y="value", errorbar=("ci", 95), seed=0, ax=ax, markeredgewidth=0, **look)
        ax.set(xlabel="", ylabel=ylabel, title=title, ylim=ylim)
        ax.tick_params(axis="x", rotation=45)
    handles = [
        Line2D([], [], color=COLOURS[name], marker=None if COLOURS[name] == GREY else markers[name], label=name)
        for name in conditions
    ]
    for handle in handles:
        handle.set_linestyle("--" if handle.get_color() == GREY else "-")
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    figure.legend(
        handles=handles, loc="upper center", ncols=len(handles), columnspacing=1, handlelength=1.6, handletextpad=0.4
    )
    return figure


def filters(sheets: dict[str, Tensor], columns: int = 8) -> plt.Figure:
    """First-layer filters (n, 3, k, k) of several networks, each filter scaled to its own largest weight."""
    figure, axes = plt.subplots(1, len(sheets), figsize=(WIDTH, 2.0), squeeze=False)
    for ax, (title, weights) in zip(axes[0], sheets.items(), strict=True):
        largest = weights.abs().amax((1, 2, 3), keepdim=True)
        ax.imshow(tile(((weights / largest + 1) * 127.5).byte(), columns, gap=1), interpolation="nearest")
        ax.set_title(title)
    _bare(axes)
    figure.tight_layout()
    return figure


def distributions(tables: dict[str, pd.DataFrame], xlabel: str) -> plt.Figure:
    """One dot an observation, the mean as a bar, a row a condition, a panel a run."""
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 1.9), sharex=True, sharey=True, squeeze=False)
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        conditions = list(dict.fromkeys(table.condition))
        colours = {name: COLOURS[name] for name in conditions}
        shown = {"x": "value", "y": "condition", "hue": "condition", "palette": colours, "order": conditions, "ax": ax}
        sns.stripplot(table, size=4, alpha=0.5, jitter=0.25, legend=False, **shown)
        sns.pointplot(table, errorbar=None, markers="|", markersize=26, linestyle="none", legend=False, **shown)
        ax.set(xlabel=xlabel, ylabel="", title=title)
    figure.tight_layout()
    return figure


def selectivity(table: pd.DataFrame) -> plt.Figure:
    """Heat maps of attributes by layers, one a condition, in one colour scale; numbers are in the cells.

    Of shuffled images only the largest value of any layer is shown: the chance level.

    Parameters
    ----------
    table : columns condition, layer, attribute, value (several networks are averaged), in the order to be shown
    """
    order = {"index": "attribute", "columns": "layer", "values": "value", "sort": False}
    panels = {name: rows.pivot_table(**order) for name, rows in table.groupby("condition", sort=False)}
    if "shuffled images" in panels:
        panels["shuffled"] = panels.pop("shuffled images").max(axis=1).to_frame("largest")
    widths = [len(panel.columns) for panel in panels.values()]
    size = (WIDTH, 1.1 + 0.29 * max(len(panel) for panel in panels.values()))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, width_ratios=widths, squeeze=False)
    top = max(panel.to_numpy().max() for panel in panels.values())
    for ax, (title, panel) in zip(axes[0], panels.items(), strict=True):
        numbers = panel.map(lambda value: f"{max(value, 0):.2f}".removeprefix("0"))
        look = {"vmin": 0, "vmax": top, "cmap": "cividis", "annot": numbers, "fmt": "", "annot_kws": {"size": 10}}
        sns.heatmap(panel, ax=ax, cbar=False, **look)
        ax.set(xlabel="", ylabel="")
        ax.set_title(title, loc="left")
        ax.tick_params(axis="x", rotation=60, length=0)
        ax.tick_params(axis="y", rotation=0, length=0)
    figure.tight_layout(w_pad=0.5)
    return figure


def favourites(rows: dict[str, Tensor], notes: list[str] | None = None, split: int | None = None) -> plt.Figure:
    """Images that activate units most, a row a unit.

    Parameters
    ----------
    rows : name of the row -> its images (n, 3, h, w), strongest first
    notes : what is written at the end of each row
    split : leave a gap after so many images
    """
    left, right = 0.12, 0.87 if notes else 0.99
    sheets = {}
    for name, images in rows.items():
        parts = [tile(part, len(part)) for part in (images.split(split) if split else [images])]
        gap = np.zeros((parts[0].shape[0], 12, 4), np.uint8)
        sheets[name] = np.concatenate([piece for part in parts for piece in (part, gap)][:-1], axis=1)
    height = (right - left) * WIDTH * max(sheet.shape[0] / sheet.shape[1] for sheet in sheets.values())
    figure, axes = plt.subplots(len(rows), 1, figsize=(WIDTH, 1.1 * height * len(rows)), squeeze=False)
    for i, (ax, (name, sheet)) in enumerate(zip(axes[:, 0], sheets.items(), strict=True)):
        ax.imshow(sheet, interpolation="nearest")
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        if notes:
            ax.text(1.01, 0.5, notes[i], transform=ax.transAxes, va="center")
    _bare(axes)
    figure.subplots_adjust(left=left, right=right, top=0.99, bottom=0.01, hspace=0.1)
    return figure


def responses(panels: dict[str, tuple[np.ndarray, np.ndarray, str, str]]) -> plt.Figure:
    """Scatter plots of one unit's responses against another's, the correlation in the title.

    Parameters
    ----------
    panels : title -> (responses (n_stimuli,), responses of the other (n_stimuli,), name, name of the other)
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.2), squeeze=False)
    for ax, (title, (x, y, one, other)) in zip(axes[0], panels.items(), strict=True):
        ax.scatter(x, y, s=6, alpha=0.35, color=PALETTE[0], linewidths=0, rasterized=True)
        ax.set(xlabel=one, ylabel=other, title=f"{title}: r = {np.corrcoef(x, y)[0, 1]:.2f}")
    figure.tight_layout()
    return figure


def mean_colours(images: Tensor) -> np.ndarray:
    """The mean red, green and blue of each image, in [0, 1]: a representation with three units, (n_images, 3)."""
    return images.double().mean((2, 3)).numpy() / 255


def walk(stages: dict[str, np.ndarray], colours: np.ndarray, steps: int = 6):
    """An interactive figure: a cloud of points (n, 3) that moves from stage to stage at a slider's touch.

    Parameters
    ----------
    stages : name -> (n, 3), the same points after one more operation each
    colours : (n, 3) in [0, 1], of the points
    steps : pictures between two stages

    Returns
    -------
    plotly Figure
    """
    import plotly.graph_objects as go

    names = list(stages)
    ways = [(names[0], stages[names[0]])]
    for before, after in zip(names, names[1:], strict=False):
        for i in range(1, steps + 1):
            here = stages[before] + (stages[after] - stages[before]) * i / steps
            ways.append((after if i == steps else f"{before} → {after} {i}", here))
    paint = [f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in colours * 255]
    marker = {"size": 4, "color": paint, "line": {"width": 0.5, "color": GREY}}

    def points(cloud, **more):
        x, y, z = np.round(cloud, 3).astype(np.float32).T
        return go.Scatter3d(x=x, y=y, z=z, mode="markers", hoverinfo="skip", **more)

    frames = [go.Frame(name=name, data=[points(cloud)]) for name, cloud in ways]
    now = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    play = {"frame": {"duration": 90, "redraw": True}, "fromcurrent": True, "transition": {"duration": 0}}
    slider = {
        "steps": [
            {"label": name if name in stages else "", "method": "animate", "args": [[name], now]} for name, _ in ways
        ],
        "currentvalue": {"offset": 4, "font": {"size": 14, "color": GREY}},  # on a phone its labels have no room
        "pad": {"t": 10, "b": 30},
        "x": 0.12,
        "len": 0.82,
        "ticklen": 4,
        "font": {"size": 12},
    }
    button = {"label": "▶ play", "method": "animate", "args": [None, play]}
    buttons = {"type": "buttons", "buttons": [button], "x": 0.09, "y": -0.02, "xanchor": "right", "yanchor": "top"}
    buttons |= {"bgcolor": "rgba(0,0,0,0)", "bordercolor": GREY, "font": {"color": GREY}}
    reach = 1.05 * max(np.abs(cloud).max() for cloud in stages.values())
    axis = {"range": [-reach, reach], "showbackground": False, "gridcolor": "rgba(128,128,128,.35)", "zeroline": True}
    axis |= {"zerolinecolor": GREY, "color": GREY, "nticks": 5}
    scene = {f"{name}axis": axis | {"title": f"unit {i}"} for i, name in enumerate("xyz", start=1)}
    scene["camera"] = {"eye": {"x": 1.3, "y": 1.3, "z": 0.8}}
    figure = go.Figure(points(stages[names[0]], marker=marker), frames=frames)
    return figure.update_layout(
        scene=scene | {"aspectmode": "cube"},
        sliders=[slider],
        updatemenus=[buttons],
        margin=dict(l=0, r=0, t=0, b=0),
        height=520,
    )


def strongest(rows: np.ndarray, unit: int, n: int = 9) -> torch.Tensor:
    """Positions of the `n` stimuli to which a unit responds most, strongest first."""
    return torch.from_numpy(np.argsort(rows[:, unit])[::-1][:n].copy())
