"""The figures of chapters 4 and 5: quantities against layers, layers against layers, and how sure these are."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from . import correspondence, populations
from .depth import AS_IT_IS, SWAPPED, WITHIN
from .plots import GREY, METRIC_COLOURS, PALETTE, WIDTH, wrapped
from .plots_compare import METRIC_NAMES, matrix


def _look(colour: str, marker: str, label: str, **more) -> dict:
    return {"color": colour, "marker": marker, "label": label, "markersize": 5, "markeredgewidth": 0} | more


METRICS = {
    name: _look(METRIC_COLOURS[name], marker, METRIC_NAMES[name])
    for name, marker in {"linear": "o", "procrustes": "s", "soft_matching": "D"}.items()
}
STEPS = {
    "rotation − soft matching": _look(PALETTE[4], "s", "rotation over soft matching"),
    "linear map − rotation": _look(PALETTE[0], "o", "linear map over rotation"),
}
KEPT = {
    AS_IT_IS: _look(PALETTE[1], "s", "as it is"),
    WITHIN: _look(PALETTE[5], "v", "class means removed", linestyle="-."),
    SWAPPED: _look(PALETTE[3], "X", "swapped within classes", linestyle=":"),
}
SOURCES = {
    "all of the other network": _look(PALETTE[0], "o", "all of the other network"),
    "half of the other network": _look(PALETTE[5], "v", "half of the other network"),
    "own other half": _look(PALETTE[4], "X", "own other half", linestyle="-."),
}
TARGETS = {
    "directions": _look(PALETTE[2], "^", "strongest directions"),
    "units": _look(PALETTE[0], "o", "units"),
}
NEIGHBOURS = {
    "same layer, other network": _look(PALETTE[1], "s", "same layer of the other network"),
    "next layer, same network": _look(PALETTE[2], "^", "next layer of its own network", linestyle="-."),
    "next layer, other network": _look(PALETTE[3], "v", "next layer of the other network", linestyle=":"),
}
CHANCE = Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="chance")


def by_layer(
    panels: Mapping[str, pd.DataFrame],
    by: str,
    looks: Mapping[str, dict],
    ylabel: str = "held-out correlation",
    dotted: Mapping[str, pd.DataFrame] | None = None,
    columns: int = 2,
    ylim: tuple[float, float] | None = None,
) -> plt.Figure:
    """A quantity against layers, in small multiples: means over pairs of networks, bands their 95 % intervals over
    networks, chance in dashes.

    Parameters
    ----------
    panels : title -> columns layer, depth, pair, value, `by`, and where it was measured chance
    by : the column that tells the lines of a panel from each other
    looks : name in that column -> how it is drawn, with its label
    dotted : title -> a second table, drawn dotted and without bands (untrained networks)
    """
    n_rows = -(-len(panels) // columns)
    size = (WIDTH, 2.75 * n_rows + 0.55)
    figure, axes = plt.subplots(n_rows, min(columns, len(panels)), figsize=size, sharey=True, squeeze=False)
    has_chance = False
    for ax, (title, table) in zip(axes.flat, panels.items(), strict=False):
        for name, look in looks.items():
            rows = table[table[by] == name]
            if rows.empty:
                continue
            drawn = _line(ax, rows, look)
            if "chance" in rows and rows.chance.notna().any():
                has_chance = True
                chance = rows.groupby("layer", sort=False).chance.mean().loc[drawn.layer]
                ax.plot(chance.to_numpy(), color=look["color"], linestyle="--", linewidth=1)
            if dotted is not None and title in dotted:
                other = dotted[title]
                _line(ax, other[other[by] == name], look | {"linestyle": ":", "marker": None}, band=False)
        layers = table.sort_values("depth").layer.drop_duplicates()
        ax.set_xticks(range(len(layers)), layers, rotation=90)
        ax.set_title(wrapped(title, 60 // columns))
        ax.axhline(0, color=GREY, linewidth=0.5)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    axes[0, 0].set(ylim=ylim)
    for row in axes:
        row[0].set_ylabel(ylabel)
    shown = {name for table in panels.values() for name in table[by]}
    handles = [Line2D([], [], **look) for name, look in looks.items() if name in shown]
    if dotted is not None:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="untrained"))
    _legend(figure, [*handles, CHANCE] if has_chance else handles)
    return figure


def _line(ax, rows: pd.DataFrame, look: dict, band: bool = True) -> pd.DataFrame:
    found = populations.summary(rows.sort_values("depth", kind="stable"), ["layer"])
    ax.plot(found["mean"].to_numpy(), **{key: value for key, value in look.items() if key != "label"})
    if band and found.low.notna().all():
        x = np.arange(len(found))
        ax.fill_between(x, found.low, found.high, color=look["color"], alpha=0.2, linewidth=0)
    return found


def _legend(figure, handles: Sequence[Line2D]) -> None:
    columns = len(handles) if sum(len(str(h.get_label())) + 6 for h in handles) < 62 else min(3, -(-len(handles) // 2))
    lines = -(-len(handles) // columns)
    height = figure.get_figheight()
    figure.tight_layout(rect=(0, 0, 1, 1 - (0.27 * lines + 0.05) / height))
    figure.legend(
        handles=handles, loc="upper center", ncols=columns, columnspacing=1.2, handlelength=1.8, handletextpad=0.5
    )


def structure(table: pd.DataFrame, chance: float | None) -> plt.Figure:
    """Effective dimension and share of variance between classes against depth, a line an architecture.

    Parameters
    ----------
    table : of `depth.structure`; dots are networks, lines their means
    chance : share of variance between classes of a layer that knows nothing of them; None where there are no classes
    """
    quantities = {"effective dimension": "effective dimension", "variance between classes": "share of the variance"}
    quantities = {quantity: label for quantity, label in quantities.items() if (table.quantity == quantity).any()}
    figure, axes = plt.subplots(1, len(quantities), figsize=(WIDTH, 3.2), squeeze=False)
    axes = axes[0]
    markers = "osD^vX"
    handles = []
    for i, (architecture, own) in enumerate(table.groupby("architecture", sort=False)):
        look = _look(PALETTE[i % 6], markers[i % 6], architecture)
        handles.append(Line2D([], [], **look))
        for ax, quantity in zip(axes, quantities, strict=True):
            rows = own[own.quantity == quantity]
            mean = rows.groupby("depth").value.mean()
            ax.plot(mean.index, mean, color=look["color"])
            ax.scatter(rows.depth, rows.value, s=16, color=look["color"], marker=look["marker"], linewidth=0, alpha=0.7)
    for ax, (quantity, label) in zip(axes, quantities.items(), strict=True):
        ax.set(title=quantity, xlabel="relative depth", ylabel=label)
    axes[0].set_yscale("log")
    low, high = axes[0].get_ylim()
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= tick <= high]
    axes[0].set_yticks(ticks, [str(tick) for tick in ticks])
    axes[0].set_yticks([], minor=True)
    if chance is not None:
        axes[1].set_ylim(bottom=0)
        axes[1].axhline(chance, **{key: getattr(CHANCE, f"get_{key}")() for key in ("color", "linestyle", "linewidth")})
        handles.append(CHANCE)
    _legend(figure, handles)
    return figure


def matrices(panels: Mapping[str, Mapping[str, pd.DataFrame]]) -> plt.Figure:
    """Layers by layers, a row a metric, a column a comparison; dots mark the largest of each row, rings of each column.

    Parameters
    ----------
    panels : metric -> title -> scores (layers of one network, layers of the other), as of `correspondence.matrix`. A
        title is an architecture or two of them, "one x other", after a comma what else is to be said of the column
    """
    titles = list(next(iter(panels.values())))
    width = WIDTH if len(titles) > 1 else 0.62 * WIDTH
    shape = {"figsize": (width, (0.85 * width / len(titles) + 0.6) * len(panels)), "layout": "constrained"}
    figure, axes = plt.subplots(len(panels), len(titles), squeeze=False, **shape)
    for line, (metric, row) in zip(axes, panels.items(), strict=True):
        limits = min(0, *(p.to_numpy().min() for p in row.values())), max(p.to_numpy().max() for p in row.values())
        for ax, title in zip(line, titles, strict=True):
            image = matrix(ax, row[title], limits, columns=True)
            who, _, what = title.partition(", ")
            one, _, other = who.partition(" x ")
            if metric == next(iter(panels)):
                ax.set_title(what)
            ax.set(ylabel=f"layer of {one}", xlabel=f"layer of {other or one}")
            ax.tick_params(labelsize=9)
            for label in (ax.xaxis.label, ax.yaxis.label):
                label.set_fontsize(10)
        bar = figure.colorbar(image, ax=line, shrink=0.75, aspect=16)
        bar.outline.set_visible(False)
        bar.set_label(METRIC_NAMES[metric])
    return figure


def tests(table: pd.DataFrame) -> plt.Figure:
    """The statistics of correspondence with their intervals, beside what chance gives them.

    Parameters
    ----------
    table : of `correspondence.against_chance`, with a column `row`: the name of the comparison
    """
    rows = list(dict.fromkeys(table.row))
    metrics = list(dict.fromkeys(table.metric))
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 2 * (0.42 * len(rows) + 1.1)), sharey=True)
    limits = {"rank of the corresponding layer": None}
    for ax, statistic in zip(axes.flat, correspondence.STATISTICS, strict=True):
        for i, metric in enumerate(metrics):
            chosen = table[(table.statistic == statistic) & (table.metric == metric)].set_index("row").loc[rows]
            y = np.arange(len(rows)) + 0.16 * (2 * i - len(metrics) + 1)
            reach = np.abs(chosen[["low", "high"]].to_numpy().T - chosen.value.to_numpy())
            look = METRICS[metric]
            ax.errorbar(
                chosen.value, y, xerr=reach, color=look["color"], marker=look["marker"], linestyle="", markersize=5
            )
            ax.scatter(chosen.chance, y, marker="|", s=60, color=GREY)
        # An interval may reach beyond what a statistic can be.
        ax.set(title=statistic.replace(", or", ",\nor"), xlim=limits.get(statistic, (-0.05, 1.05)))
        ax.set_yticks(range(len(rows)), rows)
    axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    axes[1, 0].set_xlim(left=0.8)
    handles = [Line2D([], [], linestyle="", **METRICS[metric]) for metric in metrics]
    chance = Line2D([], [], linestyle="", marker="|", markersize=9, color=GREY, label="chance")
    _legend(figure, [*handles, chance])
    return figure


def architectures(table: pd.DataFrame) -> plt.Figure:
    """Shares of best matches that correspond, architecture by architecture: above exactly, below up to one layer off.

    Parameters
    ----------
    table : of `correspondence.against_chance`; each cell shows the mean over pairs of networks, in a field of
        [0, 1], and beneath it in brackets what random orders give
    """
    statistics, metrics = list(correspondence.STATISTICS)[:2], list(dict.fromkeys(table.metric))
    names = list(dict.fromkeys(name for kind in table.architecture for name in kind.split(" x ")))
    figure, axes = plt.subplots(
        2, len(metrics), figsize=(WIDTH, 0.72 * WIDTH + 1.3), sharex=True, sharey=True, layout="constrained"
    )
    for line, statistic in zip(np.reshape(axes, (2, -1)), statistics, strict=True):
        for ax, metric in zip(line, metrics, strict=True):
            field = np.full((len(names), len(names)), np.nan)
            for row in table[(table.statistic == statistic) & (table.metric == metric)].itertuples():
                one, _, other = row.architecture.partition(" x ")
                i, j = sorted((names.index(one), names.index(other or one)))
                field[j, i] = row.value
                dark = row.value < 0.5
                ax.text(i, j, f"{row.value:.2f}\n({row.chance:.2f})", ha="center", va="center", fontsize=9,
                        color="white" if dark else "black")  # fmt: skip
            image = ax.imshow(field, cmap="cividis", vmin=0, vmax=1)
            ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
            ax.set_yticks(range(len(names)), names)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            if statistic == statistics[0]:
                ax.set_title(METRIC_NAMES[metric])
        line[0].set_ylabel(statistic.replace(", or", ",\nor"), fontsize=10)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=24)
    bar.outline.set_visible(False)
    bar.set_label("share of layers")
    return figure
