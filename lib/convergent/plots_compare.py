"""Figures of a comparison table: a layer by layer heat map, and alignment over depth."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from .plots import GREY, PALETTE, WIDTH

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
# One colour for one metric in every chapter.
METRIC_COLOURS = dict(zip(METRIC_NAMES, (*PALETTE, "#F0E442", "#000000"), strict=False))


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
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(WIDTH, WIDTH / len(metrics) + 0.9), squeeze=False, sharey=True
    )
    for ax, metric in zip(axes[0], metrics, strict=True):
        chosen = table[table.metric == metric]
        if chosen.empty:
            raise ValueError(f"metric {metric!r} is not in the table: it has {', '.join(table.metric.unique())}")
        order = [list(dict.fromkeys(chosen[side])) for side in ("layer_a", "layer_b")]
        scores = chosen.pivot_table(index="layer_a", columns="layer_b", values="value", aggfunc="mean", sort=False)
        scores = scores.loc[order[0], order[1]]
        sns.heatmap(
            scores, ax=ax, cmap="cividis", square=True, linewidths=0, cbar_kws={"shrink": 0.55, "location": "bottom"}
        )
        best = scores.to_numpy().argmax(1)
        ax.scatter(best + 0.5, np.arange(len(best)) + 0.5, s=14, color="white", edgecolor="black", linewidth=0.6)
        ax.set(title=METRIC_NAMES.get(metric, metric), xlabel=f"layer of {names[1]}", ylabel="")
        ax.tick_params(length=0)
    axes[0, 0].set_ylabel(f"layer of {names[0]}")
    figure.tight_layout()
    return figure


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
    axes[0, -1].legend(loc="best")
    figure.tight_layout()
    return figure
