"""The figures of chapter 10: weights by rank and depth, spectra, truncation, training, activations."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.lines import Line2D

from . import encoding_activations as activations
from . import encoding_networks as members
from . import encoding_truncation as truncation
from .encoding_similarity import ALIGNED, UNALIGNED
from .plots import GREY, PALETTE, WIDTH, wrapped
from .weight_covariances import marchenko_pastur_density, marchenko_pastur_edges

ROLES = {
    members.SAME: (PALETTE[0], "o"),
    members.RANDOMS: (PALETTE[4], "s"),
    members.TRUE_RANDOM: (PALETTE[2], "D"),
    members.FEW_TRUE: (PALETTE[5], "^"),
    members.FEW_RANDOM: (PALETTE[3], "v"),
}
_MIXED = [members.ACROSS, members.SAME, members.ELSEWHERE, members.OWN]
_SOURCES = {
    activations.OUTPUTS: (PALETTE[1], "o", "-"),
    activations.INPUTS: (GREY, "s", "-"),
    activations.LEARNED: (PALETTE[0], "^", "--"),
    activations.FRESH: (PALETTE[3], "v", ":"),
}
_SMALL = {"fontsize": 9}


def _said(text: str) -> plt.Figure:
    """In place of a figure whose table neither this run nor a published one holds."""
    figure, ax = plt.subplots(figsize=(WIDTH, 1.0))
    ax.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    ax.set_axis_off()
    return figure


def _legend(figure, handles, columns: int, inches: float) -> None:
    figure.tight_layout(rect=(0, 0, 1, 1 - inches / figure.get_figheight()))
    figure.legend(handles=handles, loc="upper center", ncols=columns, columnspacing=1, handlelength=2, fontsize=9)


def _numbers(layers) -> list[str]:
    return [str(layer).removeprefix("layer") for layer in layers]


def cosines(table: pd.DataFrame, n: int = 20) -> plt.Figure:
    """|Cosine| of eigenvectors by rank: a row a pair (and condition), a column a layer; white is the base level 1/√C_in
    or less, black five times that or more. Triangles at the axes: effective ranks.

    Parameters
    ----------
    table : as `encoding_tables.cosines` gives it
    """
    rows = list(table.groupby(["kind", "condition"], sort=False))
    layers = list(dict.fromkeys(table.layer))
    shape = {"figsize": (WIDTH, 1.18 * len(rows) + 0.5), "squeeze": False, "sharex": True, "sharey": True}
    figure, axs = plt.subplots(len(rows), len(layers), **shape)
    for axes, ((kind, condition), part) in zip(axs, rows, strict=True):
        for ax, layer in zip(axes, layers, strict=True):
            one = part[part.layer == layer]
            base, count = one.base.iloc[0], min(n, len(one))
            shown = one[[f"c{k}" for k in range(1, count + 1)]].to_numpy()[:count]
            limits = {"vmin": base, "vmax": 5 * base, "extent": (0.5, count + 0.5, count + 0.5, 0.5)}
            ax.imshow(shown, cmap="Greys", interpolation="nearest", aspect="equal", **limits)
            marks = {"color": PALETTE[4], "markersize": 5, "clip_on": False, "linestyle": "none"}
            ax.plot(0.5, min(one.effective_a.iloc[0], count), marker=5, **marks)
            ax.plot(min(one.effective_b.iloc[0], count), 0.5, marker=7, **marks)
            ax.set(xticks=[1, count], yticks=[1, count])
            ax.tick_params(labelsize=8, length=2)
        name = kind.replace(" × ", " ×\n") + (f"\n({condition})" if condition != ALIGNED else "")
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", **_SMALL)
    for ax, layer in zip(axs[0], layers, strict=True):
        ax.set_title(layer, **_SMALL)
    figure.subplots_adjust(left=0.2, right=0.99, top=1 - 0.35 / figure.get_figheight(), bottom=0.06, wspace=0.15)
    return figure


def dimensions(runs: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Effective rank against the layer, a line a task: mean over seeds, bars from the lowest to the highest."""
    height = 3.0 + 0.26 * max(table.task.nunique() for table in runs.values())
    figure, axs = plt.subplots(1, len(runs), figsize=(WIDTH, height), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axs[0], runs.items(), strict=True):
        layers = list(dict.fromkeys(table.layer))
        for k, (task, rows) in enumerate(table.groupby("task", sort=False)):
            by = rows.groupby("layer", sort=False).effective_rank.agg(["mean", "min", "max"]).loc[layers]
            reach = [by["mean"] - by["min"], by["max"] - by["mean"]]
            look = {"color": PALETTE[k % 6], "marker": "osD^vP"[k % 6], "markersize": 4.5, "label": wrapped(task, 26)}
            ax.errorbar(np.arange(len(layers)), by["mean"], reach, **look, linewidth=1.3)
        ax.set(xlabel="layer", title=wrapped(title, 26))
        ax.set_xticks(range(len(layers)), _numbers(layers))
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(-0.1, -0.2), frameon=False)
    axs[0, 0].set_ylabel("effective rank")
    figure.tight_layout()
    return figure


def similarity(runs: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Normalised similarity against the layer, a panel a run: networks of the same images, by their labels.

    Marks are means over pairs of networks; bars go from the lowest to the highest pair, for a single pair over twice
    the error of the scale. Grey dashes: ceiling, two samples of one population. Dotted: not aligned.
    """
    figure, axs = plt.subplots(1, len(runs), figsize=(WIDTH, 4.2), sharey=True, squeeze=False)
    for ax, (title, table) in zip(axs[0], runs.items(), strict=True):
        layers = list(dict.fromkeys(table.layer))
        aligned, same = table[table.condition == ALIGNED], table[table.role == members.SAME]
        for role, (colour, marker) in ROLES.items():
            _depth(ax, aligned[aligned.role == role], layers, role, color=colour, marker=marker)
        plain = same[same.condition == UNALIGNED].groupby("layer").value.mean().reindex(layers)
        ax.plot(range(len(layers)), plain, color=PALETTE[0], linestyle=":", label="true labels, not aligned")
        _ends(ax, same, layers)
        ax.set(xlabel="layer", title=wrapped(title, 30))
    axs[0, 0].set_ylabel("normalised similarity")
    named = {name: line for ax in axs[0] for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.tight_layout(rect=(0, 0.19, 1, 1))
    figure.legend(named.values(), named, loc="lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def tasks(runs: Mapping[str, pd.DataFrame], columns: int = 4) -> plt.Figure:
    """Normalised similarity against the layer, a panel for each pair of image sets, of every run that has several.

    Marks, bars and dashes as in `similarity`; the ceiling is that of the run's own images.
    """
    panels = []
    for title, table in runs.items():
        if table.role.isin((members.ACROSS, members.OWN)).any():
            wanted = table[(table.condition == ALIGNED) & table.role.isin(_MIXED)]
            panels += [(title, table, kind, rows) for kind, rows in wanted.groupby("kind", sort=False)]
    n_rows = max(1, -(-len(panels) // columns))
    shape = {"figsize": (WIDTH, 1.9 * n_rows), "sharex": True, "sharey": True, "squeeze": False}
    figure, axs = plt.subplots(n_rows, columns, **shape)
    for ax in axs.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, table, kind, rows) in zip(axs.flat, panels, strict=False):
        layers = list(dict.fromkeys(table.layer))
        _depth(ax, rows, layers, kind, color=PALETTE[0], marker="o")
        _ends(ax, table[table.role == members.SAME], layers)
        words = kind.replace("Tiny-ImageNet, part ", "Tiny ").replace(" of 2", "").replace(", classes ", ", ")
        run = f"{title}:\n" if len({name for name, *_ in panels}) > 1 else ""
        ax.set_title(run + words.replace(" × ", "\n× "), fontsize=8.5)
    figure.supxlabel("layer", fontsize=10)
    figure.supylabel("normalised similarity", fontsize=10)
    figure.tight_layout()
    return figure


def _ends(ax, same: pd.DataFrame, layers: list) -> None:
    """The two ends of the scale: a random rotation, and two samples of one population."""
    top = same[same.condition == ALIGNED].groupby("layer").ceiling.mean().reindex(layers)
    ax.plot(range(len(layers)), top, color=GREY, linestyle="--", linewidth=1, label="one population")
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_xticks(range(len(layers)), _numbers(layers))
    ax.set_ylim(-0.2, 1.15)


def _depth(ax, rows: pd.DataFrame, layers, label: str, **look) -> None:
    if not len(rows):
        return
    groups = rows.groupby("layer")
    mean, low, high = (groups.value.agg(how).reindex(layers).to_numpy() for how in ("mean", "min", "max"))
    if (groups.size() == 1).all():
        error = 2 * groups.error.mean().reindex(layers).to_numpy()
        low, high = mean - error, mean + error
    ax.errorbar(
        np.arange(len(layers)), mean, [mean - low, high - mean], **look, markersize=4.5, label=wrapped(label, 34)
    )


def spectrum(table: pd.DataFrame) -> plt.Figure:
    """Eigenvalues by rank, a panel a layer: learned ones (dots), the rest (rings), what random weights would have
    (line, quantiles of Marchenko and Pastur), and the edge of the bulk (dashes)."""
    layers = list(dict.fromkeys(table.layer))
    rows = -(-len(layers) // 3)
    figure, axs = plt.subplots(rows, 3, figsize=(WIDTH, 2.1 * rows + 0.5), squeeze=False)
    for ax, layer in zip(axs.flat, layers, strict=False):
        one = table[table.layer == layer]
        gamma, learned = one.gamma.iloc[0], one.learned > 0
        dots = {"markersize": 4, "linestyle": "none"}
        ax.plot(one["rank"][learned], one.eigenvalue[learned], "o", color=PALETTE[0], **dots)
        ax.plot(one["rank"][~learned], one.eigenvalue[~learned], "o", color=PALETTE[1], markerfacecolor="none", **dots)
        ax.plot(one["rank"], quantiles(gamma, len(one)), color=GREY, linewidth=1.4)
        ax.axhline(marchenko_pastur_edges(gamma)[1], color=GREY, linestyle="--", linewidth=1)
        ax.set(yscale="log", title=layer)
        low, high = max(float(one.eigenvalue.min()), 0.02) * 0.7, float(one.eigenvalue.max()) * 1.4
        ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000) if low <= tick <= high]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_yticks([], minor=True)
        ax.set_ylim(low, max(high, 1.2 * marchenko_pastur_edges(gamma)[1]))
    for ax in axs.flat[len(layers) :]:
        ax.set_visible(False)
    for ax in axs[-1]:
        ax.set_xlabel("rank")
    for ax in axs[:, 0]:
        ax.set_ylabel("eigenvalue")
    handles = [
        Line2D([], [], marker="o", color=PALETTE[0], linestyle="none", label="learned"),
        Line2D([], [], marker="o", color=PALETTE[1], markerfacecolor="none", linestyle="none", label="the rest"),
        Line2D([], [], color=GREY, label="random weights (Marchenko–Pastur)"),
        Line2D([], [], color=GREY, linestyle="--", label="edge"),
    ]
    _legend(figure, handles, 4, 0.35)
    return figure


def quantiles(gamma: float, n: int) -> np.ndarray:
    """The n eigenvalues, descending, that random weights are expected to have (quantiles of their density)."""
    low, high = marchenko_pastur_edges(gamma)
    angles = np.linspace(0, np.pi, 4001)
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angles)
    heights = marchenko_pastur_density(torch.from_numpy(x), gamma).numpy() * np.sin(angles)
    below = np.concatenate([[0], np.cumsum((heights[1:] + heights[:-1]) / 2)])
    return np.interp((n - np.arange(n) - 0.5) / n, below / below[-1], x)


def truncations(runs: Mapping[str, pd.DataFrame], agreements: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Accuracy against the number of directions that are left; a row a run: three single layers, and all at once.

    Vertical line: up to which rank two networks agree. Dashes: guessing and the untouched network.
    """
    looks = {
        (truncation.LEADING, truncation.RETUNED): {"color": PALETTE[0], "marker": "o"},
        (truncation.LEADING, truncation.KEPT): {"color": PALETTE[1], "marker": "s", "linestyle": "-."},
        (truncation.OTHERS, truncation.RETUNED): {"color": PALETTE[3], "marker": "^", "linestyle": ":"},
    }
    figure, axs = plt.subplots(len(runs), 4, figsize=(WIDTH, 2.2 * len(runs) + 0.7), sharey=True, squeeze=False)
    for row, (title, table) in zip(axs, runs.items(), strict=True):
        table = table[table.network == table.network.iloc[0]]
        names = [name for name in dict.fromkeys(table.layer) if name != truncation.ALL]
        shown = [*names[-3:], truncation.ALL]
        whole = table[(table["rank"] == -1) & ~table.agreed].accuracy.iloc[0]
        agreed = agreements[title].set_index("layer").agreed
        for ax, layer in zip(row, shown, strict=False):
            one = table[(table.layer == layer) & (table["rank"] >= 0)]
            for (part, how), look in looks.items():
                by = one[(one.part == part) & (one.normalisation == how)].set_index("rank").accuracy
                ax.plot(by, markersize=4, linewidth=1.3, **look)
            for level in (whole, table.guess.iloc[0]):
                ax.axhline(level, color=GREY, linestyle="--", linewidth=1)
            if layer in agreed and agreed[layer] > 0:  # a logarithmic axis has no place for none
                ax.axvline(agreed[layer], color=GREY, linewidth=1)
            ax.set_xscale("log", base=2)
            ax.set_xticks([1, 8, 64], ["1", "8", "64"])
            ax.set_xlim(0.8, 160)
            ax.minorticks_off()
            ax.set_title(layer, fontsize=10)
            ax.set_ylim(0, 1)
        row[0].set_ylabel(wrapped(title, 22) + "\naccuracy", fontsize=9)
    for ax in axs[-1]:
        ax.set_xlabel("directions", fontsize=10)
    names = ["leading, normalisation retuned", "leading, normalisation kept", "without them, retuned"]
    handles = [Line2D([], [], label=name, **look) for name, look in zip(names, looks.values(), strict=True)]
    _legend(figure, handles, 3, 0.35)
    return figure


def course(runs: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Similarity of weights and alignment of activations against the step, for three layers, with accuracy."""
    if not runs:
        return _said("Not measured in this run: ask for it with through_training.")
    looks = {
        "similarity of weights": {"color": PALETTE[0], "marker": "o"},
        "alignment of activations": {"color": PALETTE[1], "marker": "s", "linestyle": "-."},
    }
    figure, axs = plt.subplots(len(runs), 3, figsize=(WIDTH, 2.2 * len(runs) + 0.7), sharey=True, squeeze=False)
    for row, (title, table) in zip(axs, runs.items(), strict=True):
        names = [name for name in dict.fromkeys(table.layer) if name != "accuracy"]
        right = table[table.what == "accuracy"].set_index("step").value
        for ax, layer in zip(row, (names[1], names[len(names) // 2], names[-1]), strict=True):
            for what, look in looks.items():
                by = table[(table.layer == layer) & (table.what == what)].set_index("step").value
                ax.plot(by, markersize=4, **look)
            ax.plot(right, color=GREY)
            ax.axhline(0, color=GREY, linewidth=0.8, linestyle="--")
            ax.set_xscale("symlog", linthresh=1, linscale=0.4)
            ticks = [0, *(10**k for k in (1, 3) if 10**k <= table.step.max())]
            ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            ax.minorticks_off()
            ax.set(title=layer, ylim=(-0.2, 1.05))
        row[0].set_ylabel(wrapped(title, 24), fontsize=9)
    for ax in axs[-1]:
        ax.set_xlabel("step")
    handles = [Line2D([], [], label=what, **look) for what, look in looks.items()]
    _legend(figure, [*handles, Line2D([], [], color=GREY, label="accuracy")], 3, 0.35)
    return figure


def sources(runs: Mapping[str, pd.DataFrame], metric: str = "procrustes") -> plt.Figure:
    """Alignment of activations against the layer: of outputs, inputs, and outputs of redrawn neurons; a row a run, a
    column each for two seeds and for true against random labels. Bars: from the lowest to the highest pair."""
    roles = [members.SAME, members.TRUE_RANDOM]
    figure, axs = plt.subplots(len(runs), 2, figsize=(WIDTH, 2.6 * len(runs) + 0.9), sharey=True, squeeze=False)
    for row, (title, table) in zip(axs, runs.items(), strict=True):
        layers = list(dict.fromkeys(table.layer))
        for ax, role in zip(row, roles, strict=True):
            part = table[(table.metric == metric) & (table.role == role)]
            for condition, (colour, marker, line) in _SOURCES.items():
                groups = part[part.condition == condition].groupby("layer").value
                mean, low, high = (groups.agg(how).reindex(layers).to_numpy() for how in ("mean", "min", "max"))
                look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4.5}
                ax.errorbar(np.arange(len(layers)), mean, [mean - low, high - mean], **look)
            chance = part.groupby("layer").chance.mean().reindex(layers)
            ax.plot(range(len(layers)), chance, color=GREY, linestyle="--", linewidth=1)
            ax.set_xticks(range(len(layers)), _numbers(layers))
            ax.set(xlabel="layer", title=role, ylim=(-0.05, 1.05))
        row[0].set_ylabel(wrapped(title, 26) + "\nheld-out correlation", fontsize=9)
    handles = [Line2D([], [], color=c, marker=m, linestyle=line, label=name) for name, (c, m, line) in _SOURCES.items()]
    _legend(figure, [*handles, Line2D([], [], color=GREY, linestyle="--", label="chance")], 2, 0.75)
    return figure


def scatter(runs: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Alignment of a layer's outputs against similarity of its weights; a dot a pair of networks and layer.

    Parameters
    ----------
    runs : title -> as `encoding_activations.together` gives it
    """
    figure, axs = plt.subplots(1, len(runs), figsize=(WIDTH, 3.2), sharex=True, sharey=True, squeeze=False)
    for ax, (title, table) in zip(axs[0], runs.items(), strict=True):
        for role, rows in table.groupby("role", sort=False):
            colour, marker = ROLES.get(role, (GREY, "x"))
            ax.plot(rows.weights, rows[activations.OUTPUTS], marker, color=colour, label=role, markersize=5)
            for row in rows.itertuples():
                at = (row.weights, rows[activations.OUTPUTS][row.Index])
                ax.annotate(_numbers([row.layer])[0], at, xytext=(3, 2), textcoords="offset points", fontsize=8)
        ax.set(xlabel="similarity of weights", title=wrapped(title, 28))
    axs[0, 0].set_ylabel("alignment of outputs")
    handles, labels = axs[0, 0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1, 0.86))
    figure.legend(handles, labels, loc="upper center", ncols=3, fontsize=9)
    return figure
