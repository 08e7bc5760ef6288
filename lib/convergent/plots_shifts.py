"""Figures of chapter 7: what the shifts look like, and what they do to alignment."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.lines import Line2D

from . import shifts
from .plots import GREY, METRIC_COLOURS, WIDTH, _bare, tile, wrapped
from .plots_compare import METRIC_NAMES
from .under_shift import WITHIN, halves


def contact_sheet(data, own=None, n_cells: int = 14, seed: int = 0) -> plt.Figure:
    """Every shift at every level, a row a shift: image after image, from untouched to the severest level.

    Parameters
    ----------
    data : images.Dataset
    own : name -> `own_images.Pair`, shifts of the reader's own: originals and shifted images by turns
    n_cells : images in a row
    seed : of the choice of images, and of the shifts

    Notes
    -----
    Where the stimuli of Geirhos et al. (2019) stand for a shift, the row shows fourteen of these alone.
    """
    few = replace(data, test=data.test.sample(n_cells, seed))
    own = own or {}
    n_rows = len(shifts.SHIFTS) + len(own)
    figure, axes = plt.subplots(n_rows, 1, figsize=(WIDTH, 0.36 * n_rows))
    for ax, (name, pair) in zip(axes[len(shifts.SHIFTS) :], own.items(), strict=True):
        ax.imshow(tile(torch.stack([pair.original, pair.shifted], 1).flatten(0, 1)[:n_cells], n_cells))
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    for ax, (name, shift) in zip(axes, shifts.SHIFTS.items(), strict=False):
        levels = [shifts.shifted(few, name, level, seed) for level in range(len(shift.levels) + 1)]
        if shift.drawn and data.test.latents is None:
            cells = levels[1].sample(n_cells, seed, balanced=False).images
        else:
            cells = torch.stack([split.images for split in levels], 1).flatten(0, 1)[:n_cells]
        ax.imshow(tile(cells, n_cells), interpolation="nearest", aspect="equal")
        ax.set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center", fontsize=10)
    _bare(axes)
    figure.subplots_adjust(left=0.22, right=0.995, top=0.995, bottom=0.005, hspace=0.08)
    return figure


def _of(table: pd.DataFrame, metric: str = "procrustes") -> pd.DataFrame:
    return table[table.metric == metric]


def matrix(tables: dict[str, pd.DataFrame], metric: str = "procrustes") -> plt.Figure:
    """Alignment of every layer on every set, means over pairs: a panel a run, a row a set.

    The sets have one order in all panels: that of the last layer in the first run.

    Parameters
    ----------
    tables : title of the run -> of `under_shift.alignments`
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 5.6), squeeze=False)
    rows = None
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        means = _of(table, metric).pivot_table(index="shift", columns="layer", values="value", sort=False)
        if rows is None:
            rest = means.drop(index=WITHIN).sort_values(means.columns[-1], ascending=False)
            rows = [WITHIN, *rest.index]
        means = means.reindex(rows)  # a shift of the reader's own is not in other runs
        numbers = means.map(lambda value: "" if np.isnan(value) else f"{max(value, 0):.2f}".removeprefix("0"))
        look = {"vmin": 0, "vmax": 1, "cmap": "cividis", "fmt": "", "annot_kws": {"size": 8}}
        sns.heatmap(means, ax=ax, annot=numbers, cbar=False, **look)
        ax.axhline(1, color="white", linewidth=3)
        names = [name.replace("_", " ") for name in rows] if ax is axes[0, 0] else []
        ax.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=9)
        ax.set(xlabel="", ylabel="")
        ax.set_title(wrapped(title, 20), fontsize=10)
        ax.tick_params(axis="x", rotation=60, length=0)
        ax.tick_params(axis="y", rotation=0, length=0)
    figure.tight_layout()
    return figure


def over_depth(tables: dict[str, pd.DataFrame]) -> plt.Figure:
    """Alignment against depth within distribution and under shift: a row a run, a panel a metric.

    Bands and bars are the standard error over shifts, each shift being the mean over pairs; grey dashes are chance.

    Parameters
    ----------
    tables : title of the run -> of `under_shift.alignments`
    """
    metrics = list(dict.fromkeys(metric for table in tables.values() for metric in table.metric))
    size = (WIDTH, 2.5 * len(tables) + 0.5)
    figure, axes = plt.subplots(len(tables), len(metrics), figsize=size, squeeze=False, sharex=True, sharey=True)
    for row, (title, table) in zip(axes, tables.items(), strict=True):
        for ax, metric in zip(row, metrics, strict=True):
            chosen = _of(table, metric)
            colour = METRIC_COLOURS[metric]
            familiar = chosen[chosen["shift"] == WITHIN].groupby("depth").value.mean()
            shifted = chosen[chosen["shift"] != WITHIN].groupby(["depth", "shift"]).value.mean().groupby("depth")
            mean, error, chance = shifted.mean(), shifted.sem(), chosen.groupby("depth").chance.mean()
            ax.plot(familiar.index, familiar, color=colour, marker="o", markersize=4)
            look = {"linestyle": ":", "marker": "s", "markersize": 4, "capsize": 2}
            ax.errorbar(mean.index, mean, error, color=colour, **look)
            ax.plot(chance.index, chance, color=GREY, linestyle="--", linewidth=1)
            ax.set(title=METRIC_NAMES[metric], ylim=(-0.05, 1))
        row[0].set_ylabel(f"{wrapped(title)}\nheld-out correlation", fontsize=10)
    for ax in axes[-1]:
        ax.set(xlabel="depth", xticks=[0, 0.5, 1])
    handles = [
        Line2D([], [], color=GREY, marker="o", label="familiar images"),
        Line2D([], [], color=GREY, marker="s", linestyle=":", label="shifted, mean of the shifts"),
        Line2D([], [], color=GREY, linestyle="--", label="shuffled images"),
    ]
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / size[1]))
    figure.legend(handles=handles, loc="upper center", ncols=3, columnspacing=1, handlelength=1.6)
    return figure


HALVES = {"earlier layers": ("#56B4E9", "o"), "later layers": ("#D55E00", "s")}


def against_size(tables: dict[str, pd.DataFrame], metric: str = "procrustes") -> plt.Figure:
    """Drop of alignment against the size of the shift, one point a shift and half of the network: a row a run.

    Parameters
    ----------
    tables : title of the run -> of `under_shift.together`
    """
    sizes = {"pixels": "pixel distance (grey levels)", "statistics": "distance of statistics (s.d.)"}
    shape = (WIDTH, 2.7 * len(tables) + 0.4)
    figure, axes = plt.subplots(len(tables), 2, figsize=shape, squeeze=False, sharey=True, sharex="col")
    for row, (title, table) in zip(axes, tables.items(), strict=True):
        chosen = halves(_of(table[table["shift"] != WITHIN], metric))
        for ax, (size, label) in zip(row, sizes.items(), strict=True):
            for half, (colour, marker) in HALVES.items():
                points = chosen[chosen.condition == half].groupby("shift")[[size, "drop"]].mean().dropna()
                ax.scatter(points[size], points["drop"], color=colour, marker=marker, s=22, linewidths=0)
                line = np.polynomial.Polynomial.fit(points[size], points["drop"], 1)
                ends = np.array([points[size].min(), points[size].max()])
                ax.plot(ends, line(ends), color=colour, linewidth=1)
            ax.axhline(0, color=GREY, linestyle="--", linewidth=1)
            ax.set_xlabel(label if ax in axes[-1] else "")
        row[0].set_ylabel(f"{wrapped(title)}\ndrop of alignment", fontsize=10)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=half)
        for half, (colour, marker) in HALVES.items()
    ]
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / shape[1]))
    figure.legend(handles=handles, loc="upper center", ncols=2)
    return figure


def correlations(tables: dict[str, dict[str, pd.DataFrame]], ylabel: str) -> plt.Figure:
    """A correlation over shifts against depth, with its interval: a panel a run, a line a metric.

    Parameters
    ----------
    tables : title of the run -> metric -> of `under_shift.correlation_by_layer`
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 3.6), squeeze=False, sharey=True)
    for ax, (title, by_metric) in zip(axes[0], tables.items(), strict=True):
        for k, (metric, table) in enumerate(by_metric.items()):
            at = table.depth + 0.015 * (k - (len(by_metric) - 1) / 2)  # side by side, so that bars can be told apart
            colour, marker = METRIC_COLOURS[metric], "osD^v"[k]
            ax.vlines(at, table.low, table.high, color=colour, alpha=0.5)
            ax.plot(at, table.r, color=colour, marker=marker, markersize=4, label=METRIC_NAMES[metric])
        ax.axhline(0, color=GREY, linestyle="--", linewidth=1)
        ax.set(xlabel="depth", ylim=(-1, 1), xticks=[0, 0.5, 1])
        ax.set_title(wrapped(title, 20), fontsize=10)
    axes[0, 0].set_ylabel(ylabel)
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    lines, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="upper center", ncols=len(names))
    return figure


def doses(table: pd.DataFrame) -> plt.Figure:
    """Alignment against the level of graded shifts: a panel a shift, a line a layer (light: first, dark: last).

    Parameters
    ----------
    table : columns shift, level (0 is none), layer, value; in the order of the layers
    """
    names = list(dict.fromkeys(table["shift"]))
    figure, axes = plt.subplots(1, len(names), figsize=(WIDTH, 2.7), squeeze=False, sharey=True)
    layers = list(dict.fromkeys(table.layer))
    shades = plt.get_cmap("viridis_r")(np.linspace(0.15, 0.95, len(layers)))
    for ax, name in zip(axes[0], names, strict=True):
        for layer, shade in zip(layers, shades, strict=True):
            line = table[(table["shift"] == name) & (table.layer == layer)].groupby("level").value.mean()
            ax.plot(line.index, line, color=shade, marker="o", markersize=3, label=layer)
        ax.set(title=name.replace("_", " "), xlabel="level", ylim=(-0.05, 1))
    axes[0, 0].set_ylabel("held-out correlation")
    figure.tight_layout(rect=(0, 0, 1, 0.86))
    lines, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="upper center", ncols=min(len(labels), 8), handlelength=1, columnspacing=0.8)
    return figure


def controls(table: pd.DataFrame) -> plt.Figure:
    """Alignment against depth for several ways to measure it, a panel each, familiar and shifted images.

    Parameters
    ----------
    table : columns condition, images ("familiar" or "shifted"), shift, depth, value
    """
    names = list(dict.fromkeys(table.condition))
    figure, axes = plt.subplots(1, len(names), figsize=(WIDTH, 2.9), squeeze=False, sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        for kind, look in {"familiar": {"marker": "o"}, "shifted": {"marker": "s", "linestyle": ":"}}.items():
            rows = table[(table.condition == name) & (table.images == kind)]
            by = rows.groupby(["depth", "shift"]).value.mean().groupby("depth")
            error = by.sem().fillna(0)
            ax.errorbar(by.mean().index, by.mean(), error, color=METRIC_COLOURS["procrustes"], markersize=4, **look)
        ax.set(xlabel="depth", xticks=[0, 0.5, 1], ylim=(-0.05, 1))
        ax.set_title(name, fontsize=10)
    axes[0, 0].set_ylabel("held-out correlation")
    handles = [
        Line2D([], [], color=GREY, marker="o", label="familiar images"),
        Line2D([], [], color=GREY, marker="s", linestyle=":", label="shifted, mean of the shifts"),
    ]
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    figure.legend(handles=handles, loc="upper center", ncols=2)
    return figure
