"""Figures of a comparison table: a layer by layer heat map, and alignment over depth."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from .plots import GREY, METRIC_COLOURS, WIDTH

METRIC_NAMES = {
    "linear": "linear map",
    "procrustes": "rotation",
    "permutation": "permutation",
    "soft_matching": "soft matching",
    "semi_matching": "semi-matching",
    "cka": "CKA",
    "cka_debiased": "CKA, debiased",
    "shape_cosine": "shape cosine",
    "cca": "CCA",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "rsa": "RSA",
    "mutual_knn": "mutual k-NN",
    "cknna": "CKNNA",
}


def heat_map(
    table: pd.DataFrame, metrics: list[str], names: tuple[str, str] = ("network A", "network B")
) -> plt.Figure:
    """Score of every pair of layers, one panel a metric; a dot marks the best layer of b for each layer of a.

    Parameters
    ----------
    table : of `compare.compare`; directions are averaged, and so are several pairs of networks
    metrics : names of metrics in the table
    names : of the two networks, for the axes
    """
    panels = {}
    for metric in metrics:
        chosen = table[table.metric == metric]
        if chosen.empty:
            raise ValueError(f"metric {metric!r} is not in the table: it has {', '.join(table.metric.unique())}")
        order = [list(dict.fromkeys(chosen[side])) for side in ("layer_a", "layer_b")]
        scores = chosen.pivot_table(index="layer_a", columns="layer_b", values="value", aggfunc="mean")
        panels[metric] = scores.loc[order[0], order[1]]
    limits = min(0, *(p.to_numpy().min() for p in panels.values())), max(p.to_numpy().max() for p in panels.values())
    size = (WIDTH, (WIDTH - 1.6) / len(metrics) + 1.3)
    figure, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for ax, (metric, scores) in zip(axes[0], panels.items(), strict=True):
        image = matrix(ax, scores, limits)
        ax.set(title=METRIC_NAMES.get(metric, metric), xlabel=f"layer of {names[1]}")
    axes[0, 0].set_ylabel(f"layer of {names[0]}")
    figure.colorbar(image, ax=axes[0], shrink=0.6, aspect=14).outline.set_visible(False)
    return figure


def matrix(ax, scores: pd.DataFrame, limits: tuple[float, float], columns: bool = False):
    """Draw scores (layers, layers of the other network) with a dot at the largest of each row.

    Parameters
    ----------
    columns : whether a ring marks the largest of each column too

    Returns
    -------
    the image, for a colour bar
    """
    image = ax.imshow(scores, cmap="cividis", vmin=limits[0], vmax=limits[1])
    values = scores.to_numpy()
    best = values.argmax(1)
    ax.scatter(best, np.arange(len(best)), s=14, color="white", edgecolor="black", linewidth=0.6)
    if columns:
        best = values.argmax(0)
        # A white ring within a black one reads on every colour of the map.
        for colour, width in (("black", 2.4), ("white", 1.2)):
            ax.scatter(np.arange(len(best)), best, s=62, facecolor="none", edgecolor=colour, linewidth=width)
    ax.set_xticks(range(scores.shape[1]), scores.columns, rotation=90)
    ax.set_yticks(range(scores.shape[0]), scores.index)
    ax.tick_params(length=0)
    sns.despine(ax=ax, left=True, bottom=True)
    return image


def depth(tables: dict[str, pd.DataFrame], ylabel: str = "held-out correlation") -> plt.Figure:
    """Score of corresponding layers over depth, one panel a run, with chance as dashes.

    Parameters
    ----------
    tables : title of the run -> rows of `compare.compare` for corresponding layers (layer_a equals layer_b), from one
        or several pairs of networks; bands span the pairs, lines are their means
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(WIDTH, 3.4), squeeze=False, sharey=True)
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        same = table[table.layer_a == table.layer_b]
        if same.empty:
            raise ValueError(f"{title}: no row compares a layer with the layer of the same name")
        layers = list(dict.fromkeys(same.layer_a))
        for metric in dict.fromkeys(same.metric):
            chosen = same[same.metric == metric].groupby("layer_a", sort=False)
            colour, x = METRIC_COLOURS.get(metric, GREY), np.arange(len(layers))
            mean, low, high, chance = (
                getattr(chosen[column], how)().loc[layers]
                for column, how in (("value", "mean"), ("value", "min"), ("value", "max"), ("chance", "mean"))
            )
            ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            ax.plot(x, mean, color=colour, marker="o", markersize=4, label=METRIC_NAMES.get(metric, metric))
            ax.plot(x, chance, color=colour, linestyle="--", linewidth=1)
        ax.set(title=title, xlabel="layer", xticks=range(len(layers)))
        ax.set_xticklabels(layers, rotation=45, ha="right")
    axes[0, 0].set_ylabel(ylabel)
    lines = {line.get_label(): line for ax in axes[0] for line in ax.get_lines() if line.get_marker() == "o"}
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    figure.legend(lines.values(), lines.keys(), loc="upper center", ncols=min(len(lines), 4), handlelength=1.4)
    return figure
