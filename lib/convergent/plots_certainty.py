"""The figures of chapter 3: chance levels, few stimuli, intervals, ceilings and axes."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from . import certainty
from .plots import COLOURS, GREY, METRIC_COLOURS, PALETTE, WIDTH

WORDS = {
    "linear": "linear map",
    "procrustes": "rotation",
    "permutation": "one-to-one matching",
    "soft_matching": "soft matching",
    "semi_matching": "best partners",
    "cka": "CKA",
    "cka_debiased": "debiased CKA",
    "shape_cosine": "shape cosine",
    "cca": "CCA",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "rsa": "RSA",
    "mutual_knn": "mutual k-NN",
    "cknna": "CKNNA",
}
_MARKERS = {"linear": "o", "procrustes": "s", "permutation": "D", "cka": "X", "cka_debiased": "X", "cca": "^"}


def _colour(metric: str) -> str:
    return METRIC_COLOURS[metric]


def _look(metric: str) -> dict:
    return {"color": _colour(metric), "marker": _MARKERS[metric], "markersize": 5, "markeredgewidth": 0}


def _legend(figure, metrics, extra: list[Line2D], columns: int = 4, top: float = 0.9) -> None:
    words = WORDS | {"cka": "CKA (right: debiased)"}
    handles = [Line2D([], [], label=words[m], **_look(m)) for m in metrics] + extra
    figure.tight_layout(rect=(0, 0, 1, top))
    figure.legend(
        handles=handles, loc="upper center", ncols=columns, columnspacing=1, handlelength=1.5, handletextpad=0.4
    )


def nulls(panels: Mapping[tuple[str, str], tuple[float, np.ndarray]]) -> plt.Figure:
    """Values, and what shuffled images give, as histograms: a row a score, a column a measurement.

    Parameters
    ----------
    panels : (score, measurement) -> (value, values of shuffled images (n,))
    """
    rows, columns = (list(dict.fromkeys(key[i] for key in panels)) for i in (0, 1))
    shape = {"figsize": (WIDTH, 1.75 * len(rows) + 0.3), "sharex": "row", "squeeze": False}
    figure, axs = plt.subplots(len(rows), len(columns), **shape)
    for (row, column), (value, shuffled) in panels.items():
        ax = axs[rows.index(row), columns.index(column)]
        ax.hist(shuffled, bins=20, color=GREY, alpha=0.6, linewidth=0)
        ax.axvline(value, color=PALETTE[0], linewidth=2.5)
        ax.set(yticks=[], xlabel=row)
        ax.spines["left"].set_visible(False)
        ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the number above the bars
        place = {"xytext": (-4, 0), "textcoords": "offset points", "ha": "right"}
        ax.annotate(f"{value:.2f}", (value, 0.98 * ax.get_ylim()[1]), color=PALETTE[0], va="top", **place)
    for ax, column in zip(axs[0], columns, strict=True):
        ax.set_title(column)
    figure.tight_layout()
    return figure


def chances(table: pd.DataFrame) -> plt.Figure:
    """Value and chance level of every metric: one panel for each way of scoring.

    Parameters
    ----------
    table : columns how, metric, value, chance, chance_sd, as `compare.compare` gives them, one row a metric
    """
    groups = dict(list(table.groupby("how", sort=False)))
    heights = [len(group) for group in groups.values()]
    size = (WIDTH, 0.3 * sum(heights) + 1.4)
    figure, axs = plt.subplots(len(groups), 1, figsize=size, sharex=True, height_ratios=heights, squeeze=False)
    for ax, (how, group) in zip(axs[:, 0], groups.items(), strict=True):
        y = np.arange(len(group))[::-1]
        ax.hlines(y, group.chance - 1.96 * group.chance_sd, group.chance + 1.96 * group.chance_sd, GREY, linewidth=5)
        ax.plot(group.chance, y, "|", color=GREY, markersize=12, markeredgewidth=2.5)
        ax.plot(group.value, y, "o", color=PALETTE[0], markersize=7)
        ax.set_yticks(y, [WORDS[name] for name in group.metric])
        ax.set_ylim(-0.7, len(group) - 0.3)
        ax.set_title(how, loc="left")
        ax.axvline(0, color=GREY, linewidth=0.6)
    axs[-1, 0].set_xlabel("score")
    axs[-1, 0].set_xlim(min(-0.2, axs[-1, 0].get_xlim()[0]), 1.02)
    handles = [
        Line2D([], [], color=PALETTE[0], marker="o", linestyle="none", label="the two networks"),
        Line2D([], [], color=GREY, linewidth=5, label="shuffled images"),
    ]
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.legend(handles=handles, loc="upper center", ncols=2)
    return figure


def with_units(table: pd.DataFrame, n_stimuli: int) -> plt.Figure:
    """Scores of unrelated representations against units per stimulus, in sample and fairly.

    Parameters
    ----------
    table : as `certainty.unrelated` gives it, for `n_stimuli`
    """
    figure, axs = plt.subplots(1, 2, figsize=(WIDTH, 3.4), sharey=True)
    for ax, (how, group) in zip(axs, table.groupby("how", sort=False), strict=True):
        for metric, rows in group.groupby("metric", sort=False):
            by = rows.groupby("ratio").value
            ax.plot(by.mean(), **_look(metric))
            ax.fill_between(by.mean().index, by.min(), by.max(), color=_colour(metric), alpha=0.2, linewidth=0)
        ax.axvline(1, color=GREY, linewidth=0.8)
        ax.axhline(0, color=GREY, linewidth=1, linestyle="--")
        ratios = sorted(group.ratio.unique())
        ax.set(xscale="log", title=how, xlabel="units per stimulus", ylim=(-0.15, 1.05))
        ax.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        ax.minorticks_off()
    units = np.array(sorted(table.ratio.unique())) * n_stimuli
    theory = {"color": GREY, "linestyle": ":", "linewidth": 2.2, "zorder": 5}
    axs[0].plot(units / n_stimuli, np.sqrt(np.minimum(units / (n_stimuli - 1), 1)), **theory)
    axs[0].plot(units / n_stimuli, units / (units + n_stimuli - 1), **theory)
    axs[0].set_ylabel("score of unrelated noise")
    _legend(figure, ["linear", "procrustes", "permutation", "cka", "cca"], [], columns=5)
    return figure


def with_stimuli(table: pd.DataFrame) -> plt.Figure:
    """Scores against the number of stimuli, a row a layer, in sample and fairly; dashes for shuffled images.

    Parameters
    ----------
    table : columns layer, pair and those of `certainty.against_stimuli`
    """
    layers, hows = (list(dict.fromkeys(table[name])) for name in ("layer", "how"))
    shape = {"figsize": (WIDTH, 2.45 * len(layers) + 0.7), "sharex": True, "sharey": True, "squeeze": False}
    figure, axs = plt.subplots(len(layers), len(hows), **shape)
    for (layer, how, metric, images), rows in table.groupby(["layer", "how", "metric", "images"], sort=False):
        ax, by = axs[layers.index(layer), hows.index(how)], rows.groupby("n_stimuli").value
        if images == "shuffled":
            ax.plot(by.mean(), color=_colour(metric), linestyle="--", linewidth=1.2)
            continue
        ax.plot(by.mean(), **_look(metric))
        ax.fill_between(by.mean().index, by.min(), by.max(), color=_colour(metric), alpha=0.2, linewidth=0)
    sizes = sorted(table.n_stimuli.unique())
    for ax in axs.flat:
        ax.set(xscale="log", ylim=(-0.12, 1.05))
        ax.set_xticks(sizes[::2], [f"{size:,}" for size in sizes[::2]])
        ax.minorticks_off()
        ax.axhline(0, color=GREY, linewidth=0.6)
    for ax, how in zip(axs[0], hows, strict=True):
        ax.set_title(how)
    for ax in axs[-1]:
        ax.set_xlabel("images")
    for ax, layer in zip(axs[:, 0], layers, strict=True):
        ax.set_ylabel(f"score, {layer}")
    dashes = [Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="shuffled images")]
    _legend(figure, ["linear", "procrustes", "permutation", "cka", "cca"], dashes, columns=3, top=0.89)
    return figure


def intervals(table: pd.DataFrame, shown: int = 40) -> plt.Figure:
    """Intervals of many samples, a column a metric and a row a kind; those that miss the large-sample value stand out.

    Parameters
    ----------
    table : as `certainty.coverage` gives it
    shown : of the samples
    """
    names, kinds = (list(dict.fromkeys(table[name])) for name in ("metric", "kind"))
    shape = {"figsize": (WIDTH, 2.6 * len(kinds)), "sharex": "col", "sharey": True, "squeeze": False}
    figure, axs = plt.subplots(len(kinds), len(names), **shape)
    share = certainty.covered(table)
    for (name, kind), rows in table[table["sample"] < shown].groupby(["metric", "kind"], sort=False):
        ax, one = axs[kinds.index(kind), names.index(name)], rows.iloc[0]
        holds = rows.large.between(rows.low, rows.high)
        for held, colour in ((True, GREY), (False, PALETTE[4])):
            part = rows[holds == held]
            ax.hlines(part["sample"], part.low, part.high, colour, linewidth=1.6, alpha=0.9)
        ax.axvline(one.large, color=PALETTE[0], linewidth=2)
        ax.axvline(one.typical, color=PALETTE[0], linewidth=1.5, linestyle=":")
        typical, large = (100 * share.loc[name, kind][to] for to in ("typical", "large"))
        ax.set_xlabel(f"large: {large:.0f} %\nsame size: {typical:.0f} %")
        ax.set_yticks([])
        ax.tick_params(axis="x", labelbottom=True)
        ax.xaxis.set_major_locator(plt.MaxNLocator(3))
    for ax, name in zip(axs[0], names, strict=True):
        ax.set_title(WORDS[name].replace("one-to-one", "1-to-1").replace("debiased", "deb."))
    for ax, kind in zip(axs[:, 0], kinds, strict=True):
        ax.set_ylabel(kind)
    figure.tight_layout(w_pad=0.4)
    return figure


def ceilings(tables: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """A layer's prediction of voxels against the noise on them, a panel for each number of images.

    Parameters
    ----------
    tables : title -> as `certainty.beneath_ceilings` gives it
    """
    looks = {
        "ceiling": {"color": GREY, "linestyle": "-"},
        "measured": {"color": PALETTE[0], "marker": "o"},
        "measured / ceiling": {"color": PALETTE[1], "marker": "s"},
        "clean fit / ceiling": {"color": PALETTE[2], "marker": "D"},
        "without noise": {"color": GREY, "linestyle": "--"},
    }
    figure, axs = plt.subplots(1, len(tables), figsize=(WIDTH, 3.4), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axs[0], tables.items(), strict=True):
        for quantity, look in looks.items():
            rows = table[table.quantity == quantity]
            ax.plot(rows.noise, rows.value, markersize=5, markeredgewidth=0, **look)
        noises = sorted(table.noise.unique())
        ax.set(title=title, xscale="log", ylim=(0, 1.02), xlabel="noise (sd of the signal)")
        ax.set_xticks(noises, [f"{noise:g}" for noise in noises])
        ax.minorticks_off()
    axs[0, 0].set_ylabel("correlation")
    handles = [Line2D([], [], label=quantity, **look) for quantity, look in looks.items()]
    figure.tight_layout(rect=(0, 0, 1, 0.84))
    figure.legend(handles=handles, loc="upper center", ncols=3, columnspacing=1, handlelength=1.8)
    return figure


AXES = {
    "own axes": {"linestyle": "-", "marker": "o"},
    "both turned": {"linestyle": ":", "marker": "^"},
    "one turned": {"linestyle": "-.", "marker": "s"},
    "shuffled images": {"linestyle": "--", "color": GREY},
}


def axes(tables: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """One-to-one matching by layer, before and after rotations: a row a run, a column a state of the networks.

    Parameters
    ----------
    tables : title of the run -> columns state ("trained", "untrained"), pair ("0-1"), layer, condition, value
    """
    states = list(dict.fromkeys(next(iter(tables.values())).state))
    shape = {"figsize": (WIDTH, 2.7 * len(tables) + 0.5), "sharey": True, "squeeze": False}
    figure, axs = plt.subplots(len(tables), len(states), **shape)
    for row, (title, table) in zip(axs, tables.items(), strict=True):
        for ax, state in zip(row, states, strict=True):
            for condition, look in AXES.items():
                rows = table[(table.state == state) & (table.condition == condition)]
                _band(ax, rows, {"color": COLOURS[state], "markersize": 5, "markeredgewidth": 0} | look)
            ax.set(ylim=(-0.05, 1), title=f"{title.split(':')[0]}, {state}" if len(tables) > 1 else state)
            ax.tick_params(axis="x", rotation=45)
        row[0].set_ylabel("held-out correlation")
    handles = [Line2D([], [], label=name, **{"color": COLOURS["trained"]} | look) for name, look in AXES.items()]
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.legend(handles=handles, loc="upper center", ncols=4, columnspacing=1, handlelength=2)
    return figure


def _band(ax, rows: pd.DataFrame, look: dict) -> None:
    layers = list(dict.fromkeys(rows.layer))
    found = []
    for layer in layers:
        values = rows[rows.layer == layer].set_index("pair").value
        found.append(certainty.over_networks({tuple(pair.split("-")): value for pair, value in values.items()}))
    mean, low, high = np.array(found).T
    ax.plot(layers, mean, **look)
    ax.fill_between(layers, low, high, color=look["color"], alpha=0.15, linewidth=0)


def room(X: np.ndarray, y: np.ndarray):
    """An interactive figure: four images leave three dimensions, and every unit of X takes one more of them.

    Parameters
    ----------
    X : (4, 3) responses of three units to four images
    y : (4,) responses of the unit that is to be predicted

    Returns
    -------
    plotly Figure, with a slider for the number of units that predict
    """
    import plotly.graph_objects as go

    plane = np.linalg.svd(np.eye(4) - 0.25)[0][:, :3]  # three axes at right angles to (1, 1, 1, 1): the centred vectors
    target, units = ((z - z.mean(0)) / np.linalg.norm(z - z.mean(0), axis=0) for z in (y, X))
    target, units = plane.T @ target, plane.T @ units
    frames, labels = [], []
    for n in range(4):
        fit = units[:, :n] @ np.linalg.lstsq(units[:, :n], target, rcond=None)[0]
        frames.append(go.Frame(name=str(n), data=_room(go, target, units[:, :n], fit)))
        labels.append(f"{n} unit{'s' * (n != 1)}: r = {np.linalg.norm(fit):.2f}")
    now = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    slider = {
        "steps": [{"label": label, "method": "animate", "args": [[str(n)], now]} for n, label in enumerate(labels)],
        "active": 2,  # the picture that says most
        "currentvalue": {"offset": 8, "font": {"size": 15, "color": GREY}},
        "pad": {"t": 10, "b": 10},
        "x": 0.05,
        "len": 0.9,
        "ticklen": 4,
        "font": {"size": 1, "color": "rgba(0,0,0,0)"},  # the value above says it; on a phone four labels collide
    }
    axis = {"range": [-1.05, 1.05], "showbackground": False, "gridcolor": "rgba(128,128,128,.35)", "zeroline": True}
    axis |= {"zerolinecolor": GREY, "color": GREY, "nticks": 3, "showticklabels": False, "title": ""}
    scene = {f"{name}axis": axis for name in "xyz"} | {"aspectmode": "cube"}
    scene["camera"] = {"eye": {"x": 1.2, "y": 1.2, "z": 0.7}}
    figure = go.Figure(frames[2].data, frames=frames)
    margin = {"l": 0, "r": 0, "t": 0, "b": 0}
    legend = {"x": 0.02, "y": 0.99, "font": {"size": 13, "color": GREY}, "bgcolor": "rgba(0,0,0,0)"}
    return figure.update_layout(scene=scene, sliders=[slider], margin=margin, height=520, legend=legend)


def _room(go, target, units, fit) -> list:
    """Traces of one state: the target, its best prediction, what is missing, the units, the plane that two span."""

    def line(name, points, colour, width, **more):
        x, y, z = np.round(np.array(points, dtype=float), 3).T
        look = {"color": colour, "width": width} | more
        return go.Scatter3d(x=x, y=y, z=z, mode="lines", line=look, name=name, hoverinfo="skip")

    zero, missing = np.zeros(3), [np.nan] * 3
    spokes = [point for unit in units.T for point in (zero, 1.05 * unit, missing)] or [zero, zero]
    corners = np.zeros((4, 3))
    if units.shape[1] == 2:
        basis = 1.05 * np.linalg.qr(units)[0].T
        corners = np.array([a * basis[0] + b * basis[1] for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))])
    sheet = {"i": [0, 0], "j": [1, 2], "k": [2, 3], "color": PALETTE[1], "opacity": 0.25, "hoverinfo": "skip"}
    return [
        line("unit to be predicted", [zero, target], PALETTE[0], 8),
        line("best prediction", [zero, fit], PALETTE[2], 8),
        line("what is missing", [fit, target], GREY, 4, dash="dash"),
        line("units that predict", spokes, PALETTE[1], 5),
        go.Mesh3d(x=corners[:, 0], y=corners[:, 1], z=corners[:, 2], showlegend=False, **sheet),
    ]
