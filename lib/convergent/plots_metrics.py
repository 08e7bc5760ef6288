"""Figures of chapter 2: what metrics say of pairs, of transformed layers and of clouds, and what uses make of these."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from pandas.io.formats.style import Styler

from .plots import GREY, METRIC_COLOURS, PALETTE, WIDTH

COLOURS = {
    "linear": METRIC_COLOURS["linear"],
    "linear map": METRIC_COLOURS["linear"],
    "Procrustes": METRIC_COLOURS["procrustes"],
    "rotation": METRIC_COLOURS["procrustes"],
    "permutation": METRIC_COLOURS["permutation"],
    "CKA": METRIC_COLOURS["cka"],
    "RSA": METRIC_COLOURS["rsa"],
    "mutual k-NN": METRIC_COLOURS["mutual_knn"],
    "own responses": GREY,
    "no map": GREY,
}
LUMINANCE = (0.2126, 0.7152, 0.0722)
TABLE = {
    "": "margin-inline: auto; border-collapse: separate; border-spacing: 1px",
    "td": "text-align: center; padding: 0.3em 0.35em; line-height: 1.15; white-space: nowrap",
    "th": "font-weight: normal; white-space: nowrap",
    "th.row_heading": "text-align: right",
    "th.col_heading": "writing-mode: vertical-rl; transform: rotate(180deg); padding: 0.4em 0.2em",
}
MARKERS = dict(zip(COLOURS, "oossDX^vP.", strict=True))
NULLS = {
    "same class": {"marker": "D", "color": PALETTE[1], "markersize": 6, "markeredgewidth": 0},
    "shuffled images": {"marker": "|", "color": GREY, "markersize": 12, "markeredgewidth": 2},
}


def verdicts(tables: dict[str, pd.DataFrame]) -> plt.Figure:
    """A bar for each metric, mean over pairs of networks, with their range, and two nulls as markers; a panel a run.

    Parameters
    ----------
    tables : title -> columns pair, condition ("pair" and the keys of `NULLS`), metric, value
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 3.6), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        by = table.groupby(["condition", "metric"], sort=False).value
        mean, low, high = (by.agg(how).unstack("condition") for how in ("mean", "min", "max"))
        mean, low, high = (part.reindex(table.metric.unique()) for part in (mean, low, high))
        where = np.arange(len(mean))
        ax.barh(where, mean["pair"], height=0.6, color=PALETTE[0])
        ax.hlines(where, low["pair"], high["pair"], color=GREY, linewidth=2)
        for null, look in NULLS.items():
            ax.plot(mean[null], where, linestyle="none", **look)
        for i, value in enumerate(mean["pair"]):
            ax.text(max(high["pair"].iloc[i], value) + 0.03, i, f"{value:.2f}", va="center")
        ax.set(xlim=(min(-0.05, ax.get_xlim()[0]), 1.2), title=title, xticks=[0, 0.5, 1])
        ax.set_yticks(where, mean.index)
    axes[0, 0].invert_yaxis()
    handles = [Line2D([], [], color=PALETTE[0], linewidth=8, label="pair of networks")]
    names = {"same class": "images swapped within their class", "shuffled images": "shuffled images: chance"}
    handles += [Line2D([], [], linestyle="none", label=names[null], **look) for null, look in NULLS.items()]
    _legend(figure, handles, rows=0.14, ncols=2)
    return figure


def equivalents(cloud: np.ndarray, groups: np.ndarray, others: dict, worst: dict[str, tuple[str, float]]) -> plt.Figure:
    """A cloud (n_stimuli, 2), and others that some metric calls the same.

    Parameters
    ----------
    groups : (n_stimuli,) small whole numbers, for colours
    others : name -> (points (n_stimuli, 2), metric), as `transformations.equivalents` gives them
    worst : name -> (another metric, what it says)
    """
    figure, axes = plt.subplots(2, -(-(len(others) + 1) // 2), figsize=(WIDTH, 5.4), squeeze=False)
    panels = {"the cloud": (cloud, None)} | others
    for ax, (name, (points, metric)) in zip(axes.flat, panels.items(), strict=True):
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.axvline(0, color=GREY, linewidth=0.6)
        ax.scatter(*points.T, c=[PALETTE[group] for group in groups], s=9, linewidths=0, alpha=0.8)
        reach = 1.1 * np.abs(points).max()
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
        sns.despine(ax=ax, left=True, bottom=True)
        ax.set_title(name if metric is None else f"{name}: {metric(cloud, points):.2f}")
        if name in worst:
            ax.set_xlabel(f"but {worst[name][0]}: {worst[name][1]:.2f}")
    figure.tight_layout(h_pad=2)
    return figure


def grid(table: pd.DataFrame, breaks: tuple[int, ...] = ()) -> Styler:
    """A table of metrics (or uses) by transformations, coloured by value: means over networks, and the spread where
    there is one. A table rather than a picture, so that it can be scrolled on a phone and read aloud.

    Parameters
    ----------
    table : columns network, transformation, metric, value, in the order to be shown
    breaks : rows before which a line is drawn
    """
    by = table.groupby(["metric", "transformation"], sort=False).value
    mean = by.mean().unstack("transformation").reindex(table.metric.unique())[table.transformation.unique()]
    spread = by.std().unstack("transformation").reindex_like(mean)
    text = mean.map("{:.2f}".format).replace("-0.00", "0.00")
    text += spread.map(lambda sd: f"<br><small>±{sd:.2f}</small>" if sd >= 0.005 else "")
    styles = [{"selector": name, "props": props} for name, props in TABLE.items()]
    styles += [{"selector": f"tr:nth-child({row + 1}) > *", "props": f"border-top: 3px solid {GREY}"} for row in breaks]
    shown = text.rename_axis(index=None, columns=None).style.apply(lambda _: mean.map(_shade), axis=None)
    return shown.set_table_styles(styles).set_table_attributes('class="dataframe"')


def _shade(value: float) -> str:
    """A cell's colour, and black or white text, whichever can be read better on it (WCAG's relative luminance)."""
    colour = np.array(colormaps["cividis"](np.clip(value, 0, 1))[:3])
    luminance = np.where(colour <= 0.03928, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4) @ LUMINANCE
    return f"background: {to_hex(colour)}; color: {'#000000' if luminance > 0.18 else '#ffffff'}"


def following(tables: dict[str, pd.DataFrame]) -> plt.Figure:
    """Heat maps of metrics by uses, rank correlations averaged over networks; a panel a run, a dash where undefined."""
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 4.3), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        order = {"index": "metric", "columns": "use", "values": "value", "sort": False}
        mean = table.pivot_table(**order, dropna=False)
        text = mean.map(lambda value: f"{value:.2f}".replace("0.", "."))
        look = {"vmin": 0, "vmax": 1, "cmap": "cividis", "annot": text, "fmt": "", "annot_kws": {"size": 10}}
        sns.heatmap(mean, ax=ax, cbar=False, **look)
        for row, column in np.argwhere(mean.isna().to_numpy()):
            ax.text(column + 0.5, row + 0.5, "–", ha="center", va="center", size=10)
        ax.set(xlabel="", ylabel="", title=title)
        ax.tick_params(axis="x", rotation=40, length=0)
        plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
        ax.tick_params(axis="y", rotation=0, length=0)
    figure.tight_layout()
    return figure


def depth(tables: dict[str, pd.DataFrame], metrics: tuple[str, ...]) -> plt.Figure:
    """Metrics against layers, a panel a run: means over pairs, 95 % bootstrap intervals, chance as dashes.

    Parameters
    ----------
    tables : title -> columns pair, layer, condition ("pair", "shuffled images"), metric, value
    metrics : which of them, in the order of the legend
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 3.8), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        for name in metrics:
            rows = table[table.metric == name]
            look = {"x": "layer", "y": "value", "color": COLOURS[name], "seed": 0, "ax": ax, "markeredgewidth": 0}
            sns.lineplot(rows[rows.condition == "pair"], marker=MARKERS[name], errorbar=("ci", 95), **look)
            sns.lineplot(rows[rows.condition == "shuffled images"], linestyle="--", errorbar=None, linewidth=1, **look)
        ax.set(xlabel="", ylabel="score of a pair of networks", title=title, ylim=(-0.1, 1.02))
        ax.tick_params(axis="x", rotation=45)
    handles = [Line2D([], [], color=COLOURS[n], marker=MARKERS[n], label=n) for n in metrics]
    handles.append(Line2D([], [], color=GREY, linestyle="--", label="shuffled images"))
    _legend(figure, handles, rows=0.2, ncols=3)
    return figure


def carried(tables: dict[str, pd.DataFrame]) -> plt.Figure:
    """What is left of responses moved to another network's space, against layers: a column a run, a row a use.

    Parameters
    ----------
    tables : title -> columns pair, layer, map, use ("class", "image"), value
    """
    wanted = {"class": "right classes (share)", "image": "images found (share)"}
    size = (WIDTH, 5.4)
    figure, axes = plt.subplots(2, len(tables), figsize=size, sharex="col", sharey=True, squeeze=False)
    for column, (title, table) in enumerate(tables.items()):
        for ax, (use, label) in zip(axes[:, column], wanted.items(), strict=True):
            for name, rows in table[table.use == use].groupby("map", sort=False):
                look = {"color": COLOURS[name], "linestyle": "--" if name == "no map" else "-"}
                look["marker"] = None if COLOURS[name] == GREY else MARKERS[name]
                sns.lineplot(rows, x="layer", y="value", errorbar=("ci", 95), seed=0, ax=ax, markeredgewidth=0, **look)
            ax.set(xlabel="", ylabel=label, ylim=(-0.02, 1.04))
            ax.tick_params(axis="x", rotation=45)
        axes[0, column].set_title(title)
    names = table["map"].unique()
    handles = [
        Line2D([], [], color=COLOURS[n], marker=None if COLOURS[n] == GREY else MARKERS[n], label=n,
               linestyle="--" if n == "no map" else "-")
        for n in names
    ]  # fmt: skip
    _legend(figure, handles, rows=0.1, ncols=3)
    return figure


def _legend(figure, handles, rows: float, ncols: int) -> None:
    """Above the panels, where it covers none of them."""
    figure.tight_layout(rect=(0, 0, 1, 1 - rows))
    figure.legend(
        handles=handles, loc="upper center", ncols=ncols, columnspacing=1.2, handlelength=1.8, handletextpad=0.5
    )
