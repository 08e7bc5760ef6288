"""What the claims of chapter 9 compare, network by network, and the rows of its boxes."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from . import claims, spatial_forms
from .spatial_layers import dimensions, later
from .spatial_pairs import (
    BETWEEN,
    FIRST,
    HIGH,
    KINDS_OF_NETWORK,
    LABELS,
    LAYERS,
    SEEDS,
    SETS,
    SIZES,
    UNTRAINED,
    called,
    networks,
)

COSINES, GAUSS = spatial_forms.FORMS
PAPER = "Guth & Ménard 2024, "


def conditions(layers: pd.DataFrame, table: pd.DataFrame, fits: pd.DataFrame) -> pd.DataFrame:
    """What claims compare: columns network (a network, or two), condition, value.

    Parameters
    ----------
    layers, table, fits : a table of layers, its `spatial_pairs.pairs` and its `spatial_pairs.forms`

    Notes
    -----
    Conditions are the kinds of comparison, each with its chance level; the effective dimension as a share of the number
    of pixels; what each form explains, and its width at both ends of a network. Widths, and which form is better, are
    asked of filters over 3x3 only: in 3x3 pixels either form is a choice of one angle.
    """
    parts = [pd.DataFrame(columns=["network", "condition", "value"])]
    for kind, rows in table.dropna(subset=HIGH).groupby("kind", sort=False):
        shown = rows.rename(columns={"unit": "network"})
        parts.append(shown[["network", "value"]].assign(condition=kind))
        parts.append(shown[["network"]].assign(value=shown[HIGH], condition=f"{kind}: {HIGH}"))
    for key, own in networks(later(dimensions(layers[layers.trained]))).items():
        measured = {"effective dimension / pixels": own.dimension / own.k**2, "half": 0.5 + 0 * own.k}
        parts += [pd.DataFrame({"network": called(key), "condition": c, "value": v}) for c, v in measured.items()]
    for name, rows in fits.groupby("form", sort=False):
        shown = rows.rename(columns={"unit": "network"})
        parts.append(shown[["network"]].assign(value=shown.explained, condition=name))
        parts.append(shown[["network"]].assign(value=shown[HIGH], condition=f"{name}: {HIGH}"))
        large = shown[shown.k > 3]
        parts.append(large[["network"]].assign(value=large.explained, condition=f"{name}, over 3x3"))
        for end, places in (("second", large.groupby("network").position.idxmin()),
                            ("last", large.groupby("network").position.idxmax())):  # fmt: skip
            ends = large.loc[places]
            width = ends.width.where(np.isfinite(ends.width), spatial_forms.WIDEST * ends.k)
            parts.append(ends[["network"]].assign(value=width, condition=f"width in the {end} layer: {name}"))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def weigh(claim: str, source: str, runs: Mapping[str, pd.DataFrame], high: str, low: str) -> dict[str, str]:
    """As `claims.weigh`, within the networks (or pairs) that have both; a run without any is marked as not measured."""
    row = {"claim": claim, "who says so": source}
    for run, table in runs.items():
        both = table[table.condition.isin([high, low])]
        whole = both.groupby("network").condition.nunique()
        both = both[both.network.isin(whole[whole == 2].index)]
        if both.empty:
            row[run] = "not measured"
            continue
        if both.network.str.contains(BETWEEN, regex=False).any():
            both = both.rename(columns={"network": "pair"})
        row |= {k: v for k, v in claims.weigh(claim, source, {run: both}, high, low).items() if k.startswith(run)}
    return row


def of_the_paper(runs: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    """Rows for `claims.show`: the paper's claims.

    Parameters
    ----------
    runs : title -> `conditions`
    """
    tests = [
        ("one set of patterns in all layers from the second on", "Fig. 1a", LAYERS, f"{LAYERS}: {HIGH}"),
        ("the first layer is another matter", "Fig. 1a", LAYERS, FIRST),
        ("the same set for other filter sizes", "Fig. 1a", SIZES, f"{SIZES}: {HIGH}"),
        ("the same set on other image sets", "Fig. 1c", SETS, f"{SETS}: {HIGH}"),
        ("the same set with random labels", "Fig. 1b", LABELS, f"{LABELS}: {HIGH}"),
        ("low-dimensional", "section 2.2", "half", "effective dimension / pixels"),
        ("patterns widen with depth", "section 2.2", f"width in the last layer: {GAUSS}",
         f"width in the second layer: {GAUSS}"),
    ]  # fmt: skip
    return [weigh(claim, PAPER + where, runs, high, low) for claim, where, high, low in tests]


def of_ours(runs: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    """Rows for `claims.show`: what we ask besides, to know what the paper's claims are worth."""
    tests = [
        ("the same set for another seed", SEEDS, f"{SEEDS}: {HIGH}"),
        ("the same set in another architecture", KINDS_OF_NETWORK, f"{KINDS_OF_NETWORK}: {HIGH}"),
        ("more alike than layers of the untrained network", LAYERS, UNTRAINED),
        ("the first layer too exceeds chance", FIRST, f"{FIRST}: {HIGH}"),
        ("cosines explain the patterns", COSINES, f"{COSINES}: {HIGH}"),
        ("derivatives of a Gaussian explain them", GAUSS, f"{GAUSS}: {HIGH}"),
        ("… better than cosines do", f"{GAUSS}, over 3x3", f"{COSINES}, over 3x3"),
    ]
    return [weigh(claim, "(the control)", runs, high, low) for claim, high, low in tests]
