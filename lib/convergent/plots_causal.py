"""Figures of chapter 8: the framework, and what it costs a network to be pushed towards a reference or away from it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from .causal_claims import ALIGNED, ALONE, BRANCHES, METRICS, MISALIGNED, correlations, costs, named, plain
from .plots import GREY, METRIC_COLOURS, PALETTE, WIDTH, _bare, tile, wrapped
from .plots_compare import METRIC_NAMES

AWAY, TOWARDS, TASK = PALETTE[4], PALETTE[0], PALETTE[2]  # one colour for what was done to the network, everywhere
CONTROL_MARKERS = {"shuffled": "s", "step size": "^"}
METRIC_WORDS = METRIC_NAMES | {"alignment": "linear map, R² (pushed)", "cka": METRIC_NAMES["cka_debiased"]}
_SHORT = {"mean average precision": "mean av. precision"}
_LEAST_HEIGHT = 0.15  # of a vertical axis, in accuracy: smaller ones would make a landscape of the scatter of seeds
_COLOURS = METRIC_COLOURS | {"alignment": METRIC_COLOURS["linear"]}


def colour_of(alpha: float) -> str:
    """Of a run: away from the reference, the task alone, or towards the reference."""
    return AWAY if alpha < 0 else TOWARDS if alpha > 0 else TASK


def framework() -> plt.Figure:
    """The experiment as a drawing: one network, two losses, and a sign."""
    figure, ax = plt.subplots(figsize=(WIDTH, 3.9))
    ax.set(xlim=(0, 100), ylim=(0, 62))
    _bare(ax)
    for i, (name, height) in enumerate(zip(("layer 1", "…", "layer 6"), (26, 21, 16), strict=True)):
        _box(ax, (20 + 13 * i, 41 - height / 2, 10, height), name, PALETTE[5], size=10)
    _box(ax, (0, 35, 13, 12), "images", GREY)
    _box(ax, (71, 35, 27, 12), "task loss\n" + r"$\mathcal{L}_{\mathrm{task}}$", TASK)
    _box(ax, (0, 1, 53, 14), "reference\ntheory · another network · voxels", GREY)
    _box(ax, (71, 3, 27, 13), "alignment loss\n" + r"$\mathcal{L}_{\mathrm{align}}=-R^2$", GREY)
    for start, end in (((13, 41), (20, 41)), ((30, 41), (33, 41)), ((43, 41), (46, 41)), ((56, 41), (71, 41))):
        _arrow(ax, start, end)
    _arrow(ax, (6.5, 35), (6.5, 15))
    _arrow(ax, (53, 7), (71, 7))
    _arrow(ax, (25, 28), (71, 14), bend=0.12)
    ax.text(48, 24.5, "responses to the\nsame images", ha="center", va="center", fontsize=10)
    ax.text(84.5, 50, r"weight $\beta$", ha="center", color=TASK)
    ax.text(84.5, 26.5, r"$\alpha>0$: towards", ha="center", color=TOWARDS)
    ax.text(84.5, 20.5, r"$\alpha<0$: away", ha="center", color=AWAY)
    total = r"$\mathcal{L}=\alpha\,\mathcal{L}_{\mathrm{align}}+\beta\,\mathcal{L}_{\mathrm{task}}$"
    ax.text(30, 58, f"one network, {total}", ha="center", va="center")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.01)
    return figure


def _box(ax, place: tuple[float, float, float, float], text: str, colour: str, size: float = 11) -> None:
    x, y, width, height = place
    look = {"boxstyle": "round,pad=0,rounding_size=2", "facecolor": colour, "alpha": 0.18, "linewidth": 0}
    ax.add_patch(FancyBboxPatch((x, y), width, height, **look))
    ax.add_patch(FancyBboxPatch((x, y), width, height, **look | {"facecolor": "none", "alpha": 1,
                                "edgecolor": colour, "linewidth": 1.2}))  # fmt: skip
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, linespacing=1.4)


def _arrow(ax, start, end, bend: float = 0.0) -> None:
    look = {"arrowstyle": "-|>", "mutation_scale": 11, "color": GREY, "shrinkA": 1, "shrinkB": 1, "linewidth": 1.2}
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **look))


def _grid(tables: dict[str, pd.DataFrame], height: float):
    """Figure, and axes by (push, run): a row a push and a column a run; of a single push, runs in rows of two."""
    kept = {run: named(table) for run, table in tables.items()}
    pushes = list(dict.fromkeys(push for table in kept.values() for push in table.push))
    one = len(pushes) == 1
    across = min(len(kept), 2) if one else len(kept)
    down = -(-len(kept) // across) if one else len(pushes)
    size = (WIDTH, height * down + 0.9)
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, sharex=True)
    places = {}
    for i, push in enumerate(pushes):
        for j, run in enumerate(kept):
            places[push, run] = axes[divmod(j, across)] if one else axes[i, j]
    for i in range(len(kept) if one else axes.size, axes.size):
        axes.flat[i].set_visible(False)
        axes.flat[i - across].tick_params(labelbottom=True)  # nothing stands below it
    return figure, axes, places, kept


def pareto(tables: dict[str, pd.DataFrame]) -> plt.Figure:
    """Accuracy against achieved alignment on held-out images: a row a push, a column a run.

    Points are means over seeds, bars reach from the lowest to the highest seed, in both directions; lines join
    neighbouring strengths, markers grow with strength, the strongest are labelled by their alpha. Open markers are
    controls, dashes the accuracy (where the axis reaches so far) and the alignment of chance, the thin line is the task
    alone. Each panel has a vertical axis of its own, of at least `_LEAST_HEIGHT`.

    Parameters
    ----------
    tables : title of the run -> table of a sweep, with columns chance and score
    """
    figure, axes, places, kept = _grid(tables, 1.95)
    for (push, run), ax in places.items():
        rows = kept[run][kept[run].push == push]
        if rows.empty:
            ax.text(0.5, 0.5, "not made", transform=ax.transAxes, ha="center", va="center")
            ax.tick_params(
                left=False, bottom=False, labelleft=False, labelbottom=False
            )  # ticks are shared: not removed
            ax.spines[:].set_visible(False)
            continue
        _curve(ax, plain(rows))
        _controls(ax, rows[rows.control != "none"])
        ax.axhline(rows.chance.iloc[0], color=GREY, linestyle="--", linewidth=1)
        ax.axhline(rows[rows.alpha == 0].accuracy.mean(), color=TASK, linewidth=0.8, alpha=0.5)
        ax.axvline(0, color=GREY, linestyle="--", linewidth=1)
        ax.margins(x=0.15 if axes.shape[1] < 3 else 0.3)  # room for the labels of both ends
        ax.set_ylim(_heights(rows))
    single = len({push for push, _ in places}) == 1
    for (push, run), ax in places.items():
        score, place = _SHORT.get(kept[run].score.iloc[0], kept[run].score.iloc[0]), ax.get_subplotspec()
        if single or place.is_first_col():
            ax.set_ylabel(score if single else f"{push.replace(', ', chr(10))}\n{score}", fontsize=10)
        elif ax.lines and kept[run].score.iloc[0] != next(iter(kept.values())).score.iloc[0]:
            ax.set_ylabel(score, fontsize=10)
        if single or place.is_first_row():
            ax.set_title(wrapped(run, 20), fontsize=10)
        if ax.xaxis.get_tick_params()["labelbottom"]:
            ax.set_xlabel("alignment (R²)", fontsize=10)
    controls = [name for name in CONTROL_MARKERS if any((table.control == name).any() for table in kept.values())]
    _legend(figure, controls)
    return figure


def _heights(rows: pd.DataFrame) -> tuple[float, float]:
    """Limits of the vertical axis around the runs and the means of controls, with guessing if it is near."""
    controls = rows[rows.control != "none"].groupby(["control", "alpha"]).accuracy.mean()
    values = [*plain(rows).accuracy, *controls]
    low, high = min(values), max(values)
    if low - rows.chance.iloc[0] < 0.25 * (high - low):
        low = min(low, rows.chance.iloc[0])
    centre, reach = (low + high) / 2, 0.58 * max(high - low, _LEAST_HEIGHT)
    return centre - reach, centre + reach


def _curve(ax, runs: pd.DataFrame) -> None:
    by = runs.groupby("alpha")[["alignment", "accuracy"]]
    mean, low, high = by.mean(), by.min(), by.max()
    ax.plot(mean.alignment, mean.accuracy, color=GREY, linewidth=1, alpha=0.7, zorder=1)
    ranks = {strength: i for i, strength in enumerate(sorted(set(np.abs(mean.index))))}
    for alpha, (x, y) in mean.iterrows():
        reach = np.maximum([mean.loc[alpha] - low.loc[alpha], high.loc[alpha] - mean.loc[alpha]], 0)
        bars = {"xerr": reach[:, :1], "yerr": reach[:, 1:]}
        size = 8 if alpha == 0 else 2.5 + 4.5 * ranks[abs(alpha)] / (len(ranks) - 1)
        look = {"marker": "*" if alpha == 0 else "o", "markersize": size, "zorder": 3 if alpha == 0 else 2}
        ax.errorbar(x, y, **bars, color=colour_of(alpha), elinewidth=1, markeredgewidth=0, **look)
    for alpha in {mean.index.min(), mean.index.max()} - {0.0}:
        side = {"xytext": (-6, 0), "ha": "right"} if alpha < 0 else {"xytext": (6, 0), "ha": "left"}
        look = {"color": colour_of(alpha), "fontsize": 9, "va": "center", "textcoords": "offset points"}
        place = (low if alpha < 0 else high).alignment[alpha], mean.accuracy[alpha]  # outside the bar
        ax.annotate(f"{alpha:g}".replace("-", "−"), place, **look, **side)


def _controls(ax, rows: pd.DataFrame) -> None:
    for (name, alpha), runs in rows.groupby(["control", "alpha"]):
        look = {"marker": CONTROL_MARKERS[name], "markersize": 6, "markerfacecolor": "none"}
        ax.plot(runs.alignment.mean(), runs.accuracy.mean(), linestyle="none", color=colour_of(alpha), **look)


def _legend(figure, controls: list[str]) -> None:
    dot = {"marker": "o", "linestyle": "none", "markeredgewidth": 0}
    handles = [
        Line2D([], [], color=AWAY, label="pushed away", **dot),
        Line2D([], [], color=TOWARDS, label="pushed towards", **dot),
        Line2D([], [], color=TASK, label="task alone", **dot | {"marker": "*", "markersize": 9}),
        *(
            Line2D([], [], color=GREY, marker=CONTROL_MARKERS[n], linestyle="none", fillstyle="none", label=n)
            for n in controls
        ),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="chance"),
    ]
    rows = -(-len(handles) // 3)
    figure.tight_layout(rect=(0, 0, 1, 1 - (0.1 + 0.22 * rows) / figure.get_figheight()), h_pad=0.5, w_pad=0.5)
    look = {"columnspacing": 1.2, "handletextpad": 0.3, "fontsize": 10}
    figure.legend(handles=handles, loc="upper center", ncols=3, **look)


def ends(tables: dict[str, pd.DataFrame]) -> plt.Figure:
    """Accuracy at both ends of every push and of its controls, less that of the task alone: a panel a run.

    Bars are 95 % intervals over seeds, of differences within a seed.

    Parameters
    ----------
    tables : title of the run -> table of a sweep
    """
    found = {run: costs(table) for run, table in tables.items()}
    pushes = list(dict.fromkeys(push for table in tables.values() for push in named(table).push))
    size = (WIDTH, 0.8 * len(pushes) + 1.7)
    figure, axes = plt.subplots(1, len(found), figsize=size, squeeze=False, sharey=True)
    offsets = {(MISALIGNED, "none"): -0.3, (MISALIGNED, "shuffled"): -0.18, (MISALIGNED, "step size"): -0.06,
               (ALIGNED, "none"): 0.06, (ALIGNED, "shuffled"): 0.18, (ALIGNED, "step size"): 0.3}  # fmt: skip
    for ax, (run, table) in zip(axes[0], found.items(), strict=True):
        for row in table.itertuples():
            colour, y = AWAY if row.end == MISALIGNED else TOWARDS, pushes.index(row.push)
            y += offsets[row.end, row.control]
            ax.hlines(y, row.low, row.high, color=colour, linewidth=1, alpha=0.6)
            filled = {} if row.control == "none" else {"markerfacecolor": "none"}
            ax.plot(row.mean, y, color=colour, marker=CONTROL_MARKERS.get(row.control, "o"), markersize=5, **filled)
        ax.axvline(0, color=TASK, linewidth=1)
        lowest, highest = table["mean"].min(), max(table["mean"].max(), 0)
        margin = 0.25 * max(highest - lowest, 0.02)  # an interval over few seeds may reach far beyond its panel
        gained = wrapped(f"{tables[run].score.iloc[0]} gained", 16)  # panels are narrow
        ax.set(xlim=(lowest - margin, highest + margin), xlabel=gained)
        ax.set_title(wrapped(run, 20), fontsize=10)
    axes[0, 0].set(yticks=range(len(pushes)), ylim=(len(pushes) - 0.5, -0.5))
    axes[0, 0].set_yticklabels([push.replace(", ", "\n") for push in pushes], fontsize=10)
    handles = [
        Line2D([], [], color=AWAY, marker="o", linestyle="none", label=MISALIGNED),
        Line2D([], [], color=TOWARDS, marker="o", linestyle="none", label=ALIGNED),
        Line2D([], [], color=TASK, label=ALONE),
        *(
            Line2D([], [], color=GREY, marker=m, linestyle="none", fillstyle="none", label=f"control: {n}")
            for n, m in CONTROL_MARKERS.items()
        ),
    ]
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.55 / size[1]), w_pad=0.5)
    figure.legend(handles=handles, loc="upper center", ncols=3, columnspacing=1.2, handletextpad=0.3, fontsize=10)
    return figure


def rank_correlations(tables: dict[str, pd.DataFrame], permutations: int = 4_999) -> plt.Figure:
    """Spearman's correlation of accuracy with alignment over runs: a row of panels a run, a panel a branch.

    Filled where fewer than one in twenty permutations within seeds give as much, open otherwise.

    Parameters
    ----------
    tables : title of the run -> table of a sweep
    """
    found = {run: correlations(table, permutations=permutations) for run, table in tables.items()}
    pushes = {run: list(dict.fromkeys(table.push)) for run, table in found.items()}
    heights = [0.42 * len(own) + 0.5 for own in pushes.values()]
    size, ratios = (WIDTH, sum(heights) + 0.9), {"height_ratios": heights}
    figure, axes = plt.subplots(
        len(found), 3, figsize=size, squeeze=False, sharex=True, sharey="row", gridspec_kw=ratios
    )
    for ax, name in zip(axes[0], BRANCHES, strict=True):
        ax.set_title(name, fontsize=10)
    for row, (run, table) in zip(axes, found.items(), strict=True):
        for ax, name in zip(row, BRANCHES, strict=True):
            for point in table[table.branch == name].dropna(subset="rho").itertuples():
                i = METRICS.index(point.metric)
                filled = {} if point.p < 0.05 else {"markerfacecolor": "none"}
                y = pushes[run].index(point.push) + 0.22 * (i - 1)
                ax.plot(point.rho, y, color=_COLOURS[point.metric], marker="osD"[i], markersize=5, **filled)
            ax.axvline(0, color=GREY, linestyle="--", linewidth=1)
        row[0].set_ylabel(wrapped(run, 20), fontsize=10)
        n = len(pushes[run])
        row[0].set(xlim=(-1.1, 1.1), yticks=range(n), ylim=(n - 0.5, -0.5), xticks=[-1, 0, 1])
        row[0].set_yticklabels([push.replace(", ", "\n") for push in pushes[run]])
    for ax in axes.flat:
        ax.tick_params(axis="y", labelsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("rank correlation", fontsize=10)
    handles = [
        Line2D([], [], color=_COLOURS[metric], marker="osD"[i], linestyle="none", label=METRIC_WORDS[metric])
        for i, metric in enumerate(METRICS)
    ]
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.32 / size[1]), w_pad=0.5, h_pad=0.6)
    figure.legend(handles=handles, loc="upper center", ncols=3, columnspacing=1.2, handletextpad=0.3, fontsize=10)
    return figure


STATES = {
    "norm": "activation norm\n(task alone: 1)",
    "dimension": "effective\ndimension",
    "dead": "share of\ndead units",
    "task_share": "task's share\nof the gradient",
}


def states(tables: dict[str, pd.DataFrame]) -> plt.Figure:
    """The pushed layer against alpha: its norm, effective dimension, dead units, and what the task has left.

    Points are means over seeds, bars from the lowest to the highest seed; a column a run, a colour a push.

    Parameters
    ----------
    tables : title of the run -> table of a sweep
    """
    kept = {run: plain(named(table)) for run, table in tables.items()}
    pushes = list(dict.fromkeys(push for table in kept.values() for push in table.push))
    size = (WIDTH, 1.35 * len(STATES) + 1.5)
    figure, axes = plt.subplots(len(STATES), len(kept), figsize=size, squeeze=False, sharex=True, sharey="row")
    for j, (run, table) in enumerate(kept.items()):
        for push, rows in table.groupby("push", sort=False):
            k = pushes.index(push)
            alone = rows[rows.alpha == 0].set_index("seed").norm
            rows = rows.assign(norm=rows.norm / rows.seed.map(alone))
            for ax, column in zip(axes[:, j], STATES, strict=True):
                by = rows.dropna(subset=column).groupby("alpha")[column]
                mean = by.mean()
                reach = np.maximum([mean - by.min(), by.max() - mean], 0)  # rounding: a mean below the least
                look = {"color": PALETTE[k % 6], "marker": "osD^v"[k % 5], "markersize": 4, "linewidth": 1}
                ax.errorbar(mean.index, mean, reach, elinewidth=1, markeredgewidth=0, **look)
        axes[0, j].set_title(wrapped(run, 20), fontsize=10)
        axes[-1, j].set_xlabel("α", fontsize=10)
    smallest = min(table.alpha[table.alpha != 0].abs().min() for table in kept.values())
    largest = max(table.alpha.abs().max() for table in kept.values())
    for ax, words in zip(axes[:, 0], STATES.values(), strict=True):
        ax.set_ylabel(words, fontsize=10)
    for ax in axes.flat:
        ax.set_xscale("symlog", linthresh=smallest)
        ax.set_xticks([-largest, 0, largest], [f"−{largest:g}", "0", f"{largest:g}"])
        ax.minorticks_off()
        ax.axvline(0, color=GREY, linestyle="--", linewidth=1)
        ax.set_ylim(0, None)
    handles = [
        Line2D([], [], color=PALETTE[k % 6], marker="osD^v"[k % 5], label=push, markersize=5)
        for k, push in enumerate(pushes)
    ]
    rows = -(-len(handles) // 2)
    figure.tight_layout(rect=(0, 0, 1, 1 - (0.1 + 0.22 * rows) / size[1]), w_pad=0.5, h_pad=0.4)
    figure.legend(handles=handles, loc="upper center", ncols=2, columnspacing=1.2, handlelength=1.4, fontsize=10)
    return figure


def filters(sheets: dict[float, Tensor], bank: Tensor) -> plt.Figure:
    """First-layer filters in each condition, beside the Gabor bank; each scaled to its own largest weight.

    Parameters
    ----------
    sheets : alpha -> (n_filters, 3, height, width); of more than five, `five`
    bank : (108, kernel, kernel) of `gabor.GaborBank.filters`, a row a frequency
    """
    shown = five(sorted(sheets))
    panels = [
        (_words(alpha, shown), sheets[alpha], 4 if len(sheets[alpha]) <= 16 else 8, colour_of(alpha)) for alpha in shown
    ]
    panels.append(("Gabor bank", bank[:, None].expand(-1, 3, -1, -1), 12, GREY))
    down = -(-len(panels) // 3)
    figure, axes = plt.subplots(down, 3, figsize=(WIDTH, 2.15 * down), squeeze=False)
    for ax, (title, weights, columns, colour) in zip(axes.flat, panels, strict=False):
        largest = weights.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
        ax.imshow(tile(((weights / largest + 1) * 127.5).byte(), columns, gap=1), interpolation="nearest")
        ax.set_title(title, fontsize=10, color=colour)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    _bare(axes)
    figure.tight_layout(h_pad=0.6)
    return figure


def pictures(images: Tensor, columns: int = 8) -> plt.Figure:
    """A sheet of images (n, 3, height, width)."""
    sheet = tile(images, columns)
    figure, ax = plt.subplots(figsize=(WIDTH, WIDTH * sheet.shape[0] / sheet.shape[1]))
    ax.imshow(sheet, interpolation="nearest")
    _bare(ax)
    figure.subplots_adjust(left=0, right=1, top=1, bottom=0)
    return figure


def five(alphas: list[float]) -> list[float]:
    """At most five of sorted alphas: both ends, 0, and one between on either side."""
    away, towards = [a for a in alphas if a < 0], [a for a in alphas if a > 0]
    # Of four strengths the third, of two the weaker: the strongest two may lie close together.
    middle = [side[len(side) // 2] for side in (away, towards[::-1]) if len(side) > 1]
    return sorted({*away[:1], *towards[-1:], *middle, *(a for a in alphas if a == 0)})


def _words(alpha: float, shown: list[float]) -> str:
    name = ALONE if alpha == 0 else MISALIGNED if alpha == shown[0] else ALIGNED if alpha == shown[-1] else ""
    name = name or ("misaligned" if alpha < 0 else "aligned")
    return f"{name}\nα = {alpha:g}".replace("-", "−")
