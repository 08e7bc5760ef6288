"""The figures of chapter 6: alignment and accuracy through training, shares, ends, axes and controls."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from . import certainty, trajectories
from .plots import GREY, PALETTE, WIDTH, wrapped
from .plots_certainty import AXES
from .plots_compare import METRIC_COLOURS, METRIC_NAMES

_ACCURACY = {"color": GREY, "linestyle": "-", "linewidth": 1.8}
WHAT = {
    trajectories.TOGETHER: {"color": METRIC_COLOURS["procrustes"], "marker": "o"},
    trajectories.OTHERS_END: {"color": PALETTE[2], "marker": "s", "linestyle": "-."},
    trajectories.OWN_END: {"color": PALETTE[0], "marker": "^", "linestyle": ":"},
}
SHARED = {
    "nothing": {"color": METRIC_COLOURS["procrustes"], "marker": "o"},
    "initial weights": {"color": PALETTE[0], "marker": "^", "linestyle": ":"},
    "order of images": {"color": PALETTE[2], "marker": "s", "linestyle": "-."},
}
_MARKS = {"markersize": 4.5, "markeredgewidth": 0}


def some(layers: Sequence[str]) -> list[str]:
    """The first, a middle and the last of the layers."""
    return list(dict.fromkeys([layers[0], layers[(len(layers) - 1) // 2], layers[-1]]))


def _line(ax, rows: pd.DataFrame, look: dict) -> None:
    """Mean over pairs against the step. Bands: 95 % intervals over networks where all pairs of three or more are there;
    otherwise from the lowest to the highest pair.
    """
    by = rows.groupby("step").value.mean()
    ax.plot(by, **_MARKS | look)
    tables = [t.set_index("pair").value for _, t in rows.groupby("step")]
    low, high = (rows.groupby("step").value.agg(how) for how in ("min", "max"))
    if len(tables[0]) > 2 and all("-" in pair for pair in tables[0].index):
        pairs = [{tuple(pair.split("-")): value for pair, value in table.items()} for table in tables]
        _, low, high = np.array([certainty.over_networks(values) for values in pairs]).T
    if len(tables[0]) > 1:
        ax.fill_between(by.index, low, high, color=look["color"], alpha=0.18, linewidth=0)


def _steps(ax, steps: Sequence[int], epoch: int | None) -> None:
    """A logarithmic axis that has a place for step 0."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = [0, *(10**k for k in (1, 3, 5) if 10**k <= max(steps))]  # every second decade: three fit a small panel
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set_xlim(-0.25, 1.25 * max(steps))
    ax.minorticks_off()
    if epoch is not None:
        ax.axvline(epoch, color=GREY, linewidth=0.9, zorder=0)


def _epoch(table: pd.DataFrame) -> int:
    return int(table[table.epoch == 1].step.iloc[0])


def _legend(figure, handles: list[Line2D], columns: int, inches: float = 0.45) -> None:
    figure.tight_layout(rect=(0, 0, 1, 1 - inches / figure.get_figheight()))
    figure.legend(
        handles=handles, loc="upper center", ncols=columns, columnspacing=1.1, handlelength=2, handletextpad=0.5
    )


def course(table: pd.DataFrame, metrics: Sequence[str] = ("procrustes",)) -> plt.Figure:
    """Alignment of every layer, and accuracy, against the step; dashes for chance, a vertical line after epoch 1.

    Parameters
    ----------
    table : as `trajectories.course` gives it
    """
    together = table[table.what == trajectories.TOGETHER]
    layers, columns = list(dict.fromkeys(together.layer)), 3
    rows = -(-len(layers) // columns)
    shape = {"figsize": (WIDTH, 2.1 * rows + 0.8), "sharex": True, "sharey": True, "squeeze": False}
    figure, axs = plt.subplots(rows, columns, **shape)
    answers = table[table.what == trajectories.ACCURACY]
    for ax, layer in zip(axs.flat, layers, strict=False):
        _line(ax, answers, _ACCURACY)
        ax.plot(answers.groupby("step").chance.mean(), color=GREY, linestyle="--", linewidth=1)
        for metric in metrics:
            one = together[(together.layer == layer) & (together.metric == metric)]
            _line(ax, one, {"color": METRIC_COLOURS[metric], "marker": "o"})
            chance = one.groupby("step").chance.mean()
            ax.plot(chance, color=METRIC_COLOURS[metric], linestyle="--", linewidth=1)
        _steps(ax, table.step.unique(), _epoch(table))
        ax.set(title=layer, ylim=(-0.05, 1.02))
    for ax in axs.flat[len(layers) :]:
        ax.set_visible(False)
    for ax in axs[:, 0]:
        ax.set_ylabel("correlation, share")
    for ax in axs[-1]:
        ax.set_xlabel("step")
    handles = [
        Line2D([], [], color=METRIC_COLOURS[m], marker="o", label=f"alignment ({METRIC_NAMES[m]})", **_MARKS)
        for m in metrics
    ]
    handles += [Line2D([], [], label="accuracy", **_ACCURACY)]
    handles += [Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="chance")]
    _legend(figure, handles, columns=len(handles))
    return figure


def shares(runs: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Left, alignment at the start, after epoch 1 and at the end, by layer; right, the share that epoch 1 had reached.

    Parameters
    ----------
    runs : title of the run -> as `trajectories.shares` gives it; a row a run
    """
    figure, axs = plt.subplots(len(runs), 2, figsize=(WIDTH, 3.0 * len(runs) + 0.9), squeeze=False)
    for row, (title, table) in zip(axs, runs.items(), strict=True):
        found = trajectories.summary(table).set_index(["quantity", "layer"])
        layers = [layer for layer in table.layer.unique() if layer != trajectories.ACCURACY]
        _stages(row[0], found, layers)
        _shares(row[1], found, layers)
        row[0].set_title(wrapped(title, 30), loc="left")
        for ax in row:
            ax.set_xticks(range(len(layers)), ["all" if one == trajectories.ALL else one for one in layers])
            ax.tick_params(axis="x", rotation=55)
    colour = METRIC_COLOURS["procrustes"]
    dots = {"linestyle": "none", "markersize": 7}
    handles = [
        Line2D([], [], marker="o", markerfacecolor="none", color=colour, label="start", **dots),
        Line2D([], [], marker="D", color=colour, label="after epoch 1", **dots | {"markersize": 6}),
        Line2D([], [], marker="_", color=colour, label="end", **dots | {"markersize": 12, "markeredgewidth": 2.5}),
        Line2D([], [], marker="o", color=PALETTE[0], label="share above start", **dots),
        Line2D([], [], marker="s", color=PALETTE[2], label="share above chance", **dots),
        Line2D([], [], color=GREY, label="the same of accuracy"),
    ]
    _legend(figure, handles, columns=3, inches=0.65)
    return figure


def _stages(ax, found: pd.DataFrame, layers: list[str]) -> None:
    colour, x = METRIC_COLOURS["procrustes"], np.arange(len(layers))
    start, first, last, chance = (
        found.loc[name].loc[layers, "mean"].to_numpy() for name in ("start", "first", "last", "last_chance")
    )
    ax.vlines(x, start, last, colour, linewidth=1, alpha=0.6)
    ax.plot(x, start, "o", markerfacecolor="none", color=colour, markersize=7)
    ax.plot(x, first, "D", color=colour, markersize=6)
    ax.plot(x, last, "_", color=colour, markersize=14, markeredgewidth=2.5)
    ax.plot(x, chance, linestyle="--", color=colour, linewidth=1)
    ax.set(ylabel="alignment", ylim=(-0.06, 1.02))


def _shares(ax, found: pd.DataFrame, layers: list[str]) -> None:
    looks = {"above_start": (PALETTE[0], "o", -0.14, "-"), "above_chance": (PALETTE[2], "s", 0.14, ":")}
    for name, (colour, marker, shift, line) in looks.items():
        one = found.loc[name].loc[layers]
        x = np.arange(len(layers)) + shift
        reach = np.abs(one[["low", "high"]].sub(one["mean"], axis=0)).to_numpy().T
        ax.errorbar(x, one["mean"], reach, fmt=marker, color=colour, markersize=6, linewidth=1.6, capsize=0)
        accuracy = found.loc[(name, trajectories.ACCURACY)]
        ax.axhline(accuracy["mean"], color=GREY, linestyle=line, linewidth=1.4)
        for k in np.flatnonzero(one["mean"].isna()):
            ax.annotate("×", (x[k], 0.04), color=colour, ha="center", va="center", fontsize=12)
    ax.axhline(1, color=GREY, linewidth=0.6, linestyle="--")
    # A share of little has a wide interval: its ends may lie outside.
    ax.set(ylabel="share reached in epoch 1", ylim=(0, 1.6), xlim=(-0.6, len(layers) - 0.4))


def ends(runs: Mapping[str, pd.DataFrame], metric: str = "procrustes") -> plt.Figure:
    """Three layers against the step: two networks with each other, with their own ends, with the other's end.

    Parameters
    ----------
    runs : title of the run -> as `trajectories.course` gives it; a row a run
    """
    return _three(
        runs,
        lambda table: table[table.metric == metric],
        "what",
        WHAT,
        {name: f"a network {name}" if "end" in name else f"the two {name}" for name in WHAT},
        columns=2,
    )


def axes(runs: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """One-to-one matching of three layers against the step, with the networks' own axes and with turned ones.

    Parameters
    ----------
    runs : title of the run -> as `trajectories.axes` gives it with the column epoch; a row a run
    """
    looks = {name: {"color": METRIC_COLOURS["permutation"]} | look for name, look in AXES.items()}
    return _three(runs, lambda table: table, "condition", looks, dict(zip(looks, looks, strict=True)), columns=4)


def controls(runs: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Three layers against the step, for networks that share one thing or nothing.

    Parameters
    ----------
    runs : title of the row -> as `trajectories.controls` gives it
    """
    names = {name: f"share {name}" for name in SHARED}
    return _three(runs, lambda table: table, "shared", SHARED, names, columns=3)


def _three(runs, chosen, by: str, looks: dict, names: dict, columns: int) -> plt.Figure:
    """A row a run, a column each for the first, a middle and the last layer; a line for each value of column `by`."""
    layers = [some([one for one in table.layer.unique() if one != trajectories.ACCURACY]) for table in runs.values()]
    shape = {"figsize": (WIDTH, 2.3 * len(runs) + 0.9), "sharey": True, "sharex": "row", "squeeze": False}
    figure, axs = plt.subplots(len(runs), max(map(len, layers)), **shape)
    for row, own, (title, table) in zip(axs, layers, runs.items(), strict=True):
        table = chosen(table)
        for ax, layer in zip(row, own, strict=False):
            rows = table[table.layer == layer]
            for name, look in looks.items():
                _line(ax, rows[rows[by] == name], look)
            if "chance" in table:
                ax.plot(rows.groupby("step").chance.mean(), color=GREY, linestyle="--", linewidth=1)
            _steps(ax, table.step.unique(), _epoch(table) if "epoch" in table else None)
            ax.set(title=layer, ylim=(-0.05, 1.05))
        row[0].set_ylabel(wrapped(title) if len(runs) > 1 else "held-out correlation")
    for ax in axs[-1]:
        ax.set_xlabel("step")
    handles = [Line2D([], [], label=names[name], **_MARKS | look) for name, look in looks.items()]
    if not any(look.get("color") == GREY for look in looks.values()):
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="chance"))
    _legend(figure, handles, columns, inches=0.65 if len(handles) > columns else 0.4)
    return figure
