"""The figures of chapter 9: patterns of filters as small images, their spectra, and how alike the sets are."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from . import spatial_forms
from .plots import GREY, PALETTE, WIDTH, _bare, wrapped
from .spatial_pairs import BY_CHANCE, HALVES, HIGH, KINDS
from .spatial_sets import aligned, marchenko_pastur_edges, overlap, overlap_chance, spectrum

FORM_COLOURS = dict(zip(spatial_forms.FORMS, (PALETTE[0], PALETTE[4]), strict=True))
RANDOM, MIRROR = BY_CHANCE.values()
SHOWN = 9  # patterns of a layer in a figure, as many as 3x3 filters have


def reference(layers: pd.DataFrame) -> np.ndarray:
    """Eigenvectors (k², k²) of the mean covariance: the order and the signs that a figure's rows are given.

    Raises ValueError for layers with filters of several sizes.
    """
    if layers.k.nunique() != 1:
        raise ValueError(f"filters of sizes {sorted(set(layers.k))}: one reference cannot serve them all")
    return spectrum(sum(layers.covariance) / len(layers))[1]


def _sheet(rows: Sequence[np.ndarray], k: int, gap: int = 1, scale: int = 4) -> np.ndarray:
    """Patterns (k², n) of several layers, a row a layer, as one picture in [-1, 1] with NaN between them."""
    cell = k * scale
    step = cell + gap * scale
    n = max(row.shape[1] for row in rows)
    sheet = np.full((len(rows) * step - gap * scale, n * step - gap * scale), np.nan)
    for i, row in enumerate(rows):
        for j, pattern in enumerate(row.T):
            image = (pattern / np.abs(pattern).max()).reshape(k, k)
            sheet[i * step : i * step + cell, j * step : j * step + cell] = np.kron(image, np.ones((scale, scale)))
    return sheet


def patterns(panels: Mapping[str, pd.DataFrame], columns: int = 3, shown: int = SHOWN) -> plt.Figure:
    """The leading eigenvectors of every layer as small images: a row a layer, a column a rank, a panel a network.

    Filters of one size have the order and the signs of one reference, the eigenvectors of the mean over all panels'
    later layers; a rank may be taken by a pattern of a near eigenvalue (`spatial_sets.partners`).

    Parameters
    ----------
    panels : title -> layers of one network
    """
    everything = pd.concat(panels.values())
    own = everything[everything.position > 1] if (everything.position > 1).any() else everything
    references = {k: reference(rows) for k, rows in own.groupby("k")}
    down, columns = -(-len(panels) // columns), min(columns, len(panels))
    most = max(len(layers) for layers in panels.values())
    size = (WIDTH, down * (0.45 + (WIDTH / columns - 0.6) / shown * most * 1.02))
    figure, axes = plt.subplots(down, columns, figsize=size, squeeze=False)
    for ax, (title, layers) in zip(axes.flat, panels.items(), strict=False):
        # A first layer may have filters of a size of its own: a panel of pictures has one scale for each row.
        rows, extent = list(layers.itertuples()), len(layers)
        for i, row in enumerate(rows):
            basis = references[row.k] if row.k in references else spectrum(row.covariance)[1]
            sheet = _sheet([aligned(row.covariance, basis)[0][:, :shown]], row.k)
            n = min(shown, row.k**2)
            box = (0, n - 1 / (row.k + 1), i + 1 - 1 / (row.k + 1), i)
            ax.imshow(sheet, cmap="RdBu_r", vmin=-1, vmax=1, extent=box, interpolation="nearest", aspect="auto")
        ax.set(xlim=(0, shown), ylim=(extent, 0), aspect="equal")
        ax.set_title(wrapped(title, 60 // columns), fontsize=10)
        names = [row.layer.replace("layer", "").replace("block", "b").replace(".conv", ".") for row in rows]
        ax.set_yticks(np.arange(extent) + 0.45, names, fontsize=9 if extent < 12 else 7)
        ax.set_xticks([])
        ax.tick_params(length=0, pad=2)
        for side in ax.spines.values():
            side.set_visible(False)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    figure.supylabel("layer", fontsize=10, color=GREY)
    figure.tight_layout(h_pad=0.6, w_pad=0.4)
    return figure


def spectra(panels: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Eigenvalues by rank in units of the initial variance of a weight; what untrained filters have lies in the band.

    Parameters
    ----------
    panels : title -> layers of a network, with `initial` of `spatial_layers.beside_initial`
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.4), squeeze=False, sharey=True)
    for ax, (title, layers) in zip(axes[0], panels.items(), strict=True):
        colours = plt.get_cmap("viridis")(np.linspace(0.05, 0.9, len(layers)))
        for i, (row, colour) in enumerate(zip(layers.itertuples(), colours, strict=True)):
            p = row.k**2
            values = spectrum(row.covariance)[0] * p * row.variance / row.initial
            at = (np.arange(p) + 1) / p
            look = {"linestyle": "--", "marker": "s"} if row.position == 1 else {"marker": "o"}
            ax.plot(at, values.clip(1e-4), color=colour, markersize=3, linewidth=1.2, **look)
            if i == len(layers) // 2:
                ax.axhspan(*marchenko_pastur_edges(p, row.n_in * row.n_out), color=GREY, alpha=0.5, linewidth=0)
        ax.axhline(1, color=GREY, linewidth=1, linestyle="--")
        ax.set(yscale="log", xlabel="rank / number of pixels", title=wrapped(title))
    axes[0, 0].set_ylabel("eigenvalue / initial variance")
    handles = [
        Line2D(
            [], [], color=plt.get_cmap("viridis")(0.05), linestyle="--", marker="s", markersize=4, label="first layer"
        ),
        Line2D([], [], color=plt.get_cmap("viridis")(0.4), marker="o", markersize=4, label="middle"),
        Line2D([], [], color=plt.get_cmap("viridis")(0.9), marker="o", markersize=4, label="last"),
        Line2D([], [], color=GREY, linestyle="--", label="untrained"),
    ]
    figure.tight_layout(rect=(0, 0, 1, 0.91))
    figure.legend(handles=handles, loc="upper center", ncols=4, columnspacing=1, fontsize=10)
    return figure


def matrix(found: np.ndarray, names: Sequence[str], begins: Sequence[int], chance: float, high: float) -> plt.Figure:
    """Diagonality of every layer with every other, a block a network; chance is marked on the colour bar.

    Parameters
    ----------
    found, begins : of `spatial_pairs.alike`
    names : of the networks
    chance, high : of mirror-symmetric bases, the mean and the 95th percentile
    """
    many = len(names) > 8
    figure, ax = plt.subplots(figsize=(WIDTH, WIDTH * (0.62 if many else 0.7)), layout="constrained")
    shown = ax.imshow(found, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    ends = [*begins[1:], len(found)]
    for edge in begins[1:]:
        ax.axhline(edge - 0.5, color="white", linewidth=1)
        ax.axvline(edge - 0.5, color="white", linewidth=1)
    centres = [(a + b - 1) / 2 for a, b in zip(begins, ends, strict=True)]
    ax.set_yticks(centres, names if many else [wrapped(name, 26) for name in names], fontsize=8)
    ax.set_xticks(centres, range(1, len(names) + 1), fontsize=8)
    ax.tick_params(length=0)
    bar = figure.colorbar(shown, ax=ax, shrink=0.8, label="diagonality")
    for level, style in ((chance, "--"), (high, ":")):
        bar.ax.axhline(level, color="white", linewidth=2, linestyle=style)
    return figure


def same_set(summaries: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """How alike the sets of patterns are, by what differs: a row a kind of comparison, a panel a run.

    Parameters
    ----------
    summaries : title -> `spatial_pairs.summary`
    """
    kinds = [kind for kind in KINDS if any(kind in set(table.kind) for table in summaries.values())]
    size = (WIDTH, 0.42 * len(kinds) + 1.6)
    figure, axes = plt.subplots(1, len(summaries), figsize=size, squeeze=False, sharey=True, sharex=True)
    for ax, (title, table) in zip(axes[0], summaries.items(), strict=True):
        for row in table.itertuples(index=False):
            y = kinds.index(row.kind)
            ax.plot(row.mean, y, "o", color=PALETTE[2] if row.kind == HALVES else PALETTE[0], markersize=6)
            ax.hlines(y, row.low, row.high, color=PALETTE[0], linewidth=1.5)
            own = table[table.kind == row.kind].iloc[0]
            if row.kind != HALVES:
                ax.plot(own[RANDOM], y, "|", color=GREY, markersize=11, markeredgewidth=2)
                ax.hlines(y, own[MIRROR], own[HIGH], color=PALETTE[1], linewidth=5, alpha=0.6)
        ax.set(xlim=(0, 1.02), xlabel="diagonality")
        ax.set_title(wrapped(title, 22), fontsize=10)
        ax.grid(axis="y", alpha=0.2)
    axes[0, 0].set_yticks(range(len(kinds)), [kind.replace(" of one ", "\nof one ") for kind in kinds], fontsize=9)
    axes[0, 0].set_ylim(len(kinds) - 0.5, -0.5)
    handles = [
        Line2D([], [], color=PALETTE[0], marker="o", label="measured, 95 % interval"),
        Line2D([], [], color=GREY, marker="|", linestyle="none", markersize=11, markeredgewidth=2, label=RANDOM),
        Line2D([], [], color=PALETTE[1], linewidth=5, alpha=0.6, label=f"{MIRROR}:\nmean to 95th percentile"),
    ]
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.5 / size[1]))
    figure.legend(handles=handles, loc="upper center", ncols=3, columnspacing=1.2, fontsize=9)
    return figure


def subspaces(panels: Mapping[str, Sequence[tuple]]) -> plt.Figure:
    """Overlap of leading subspaces against their dimension: mean over pairs of layers, band from least to most.

    Parameters
    ----------
    panels : title -> pairs of covariances, all of one size
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.0), squeeze=False, sharey=True)
    for ax, (title, both) in zip(axes[0], panels.items(), strict=True):
        p = min(len(both[0][0]), len(both[0][1]))
        ranks = np.arange(1, p + 1)
        curves = np.array([[overlap(A, B, r) for r in ranks] for A, B in both])
        null = np.array([overlap_chance(*both[0], r) for r in ranks])
        ax.fill_between(ranks, curves.min(0), curves.max(0), color=PALETTE[0], alpha=0.25, linewidth=0)
        ax.plot(ranks, curves.mean(0), color=PALETTE[0], marker="o", markersize=4, label="measured")
        ax.plot(ranks, ranks / p, color=GREY, linestyle="--", label=RANDOM)
        ax.plot(ranks, np.quantile(null, 0.95, axis=1), color=PALETTE[1], label=f"{MIRROR}, 95 %")
        ax.set(xlabel="dimension", title=wrapped(title), ylim=(0, 1.03))
    axes[0, 0].set_ylabel("overlap")
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center", ncols=3, fontsize=10)
    return figure


def forms(panels: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Share of the covariance that each closed form explains, by layer: means over networks, and chance.

    Parameters
    ----------
    panels : title -> `spatial_pairs.forms` of networks with filters of one size
    """
    columns = min(3, len(panels))
    down = -(-len(panels) // columns)
    figure, axes = plt.subplots(down, columns, figsize=(WIDTH, 2.4 * down + 0.6), squeeze=False, sharey=True)
    for ax, (title, table) in zip(axes.flat, panels.items(), strict=False):
        for i, (form, rows) in enumerate(table.groupby("form", sort=False)):
            by, colour = rows.groupby("position"), FORM_COLOURS[form]
            mean = by.explained.mean()
            ax.fill_between(mean.index, by.explained.min(), by.explained.max(), color=colour, alpha=0.2, linewidth=0)
            ax.plot(mean.index, mean, color=colour, marker="os"[i], markersize=5, label=form)
            ax.plot(mean.index, by[HIGH].mean(), color=colour, linestyle=":", linewidth=1.2)
            ax.plot(mean.index, by[RANDOM].mean(), color=colour, linestyle="--", linewidth=1)
        ax.set(ylim=(0, 1.03), xlabel="layer")
        ax.set_title(wrapped(title, 60 // columns), fontsize=10)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("share explained")
    handles, _ = axes[0, 0].get_legend_handles_labels()
    handles += [Line2D([], [], color=GREY, linestyle=":", label="95 % of mirror-symm."),
                Line2D([], [], color=GREY, linestyle="--", label="random bases")]  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.55 / figure.get_figheight()))
    figure.legend(handles=handles, loc="upper center", ncols=2, columnspacing=1, fontsize=10)
    return figure


def beside_forms(C: np.ndarray, shown: int = SHOWN) -> plt.Figure:
    """The eigenvectors of a covariance above the patterns of each closed form that match them, with |cosines|."""
    k, vectors = round(len(C) ** 0.5), spectrum(C)[1]
    rows = {"measured": (vectors, None)}
    for form in spatial_forms.FORMS:
        found = spatial_forms.fit(C, form)
        signs = np.where((found.patterns * vectors).sum(0) < 0, -1, 1)
        rows[form] = (found.patterns * signs, found.cosines)
    figure, axes = plt.subplots(len(rows), shown, figsize=(WIDTH, 2.9))
    for line, (title, (basis, cosines)) in zip(axes, rows.items(), strict=True):
        for j, ax in enumerate(line):
            image = basis[:, j].reshape(k, k)
            ax.imshow(image / np.abs(image).max(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            ax.set_title(str(j + 1) if cosines is None else f"{cosines[j]:.2f}", fontsize=9, pad=2)
        line[0].set_ylabel(wrapped(title, 14), rotation=0, ha="right", va="center", fontsize=9)
    _bare(axes)
    figure.subplots_adjust(left=0.17, right=0.995, top=0.93, bottom=0.01, hspace=0.25, wspace=0.12)
    return figure
