"""What the claims of chapter 9 compare, network by network, and the rows of its boxes."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from . import claims, claims_ledger, spatial_forms
from .spatial_layers import dimensions, later
from .spatial_pairs import BETWEEN, HIGH, called, networks

COSINES, GAUSS = spatial_forms.FORMS


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


def weigh(name: str, runs: Mapping[str, pd.DataFrame]) -> dict:
    """A row for `claims.show`: a claim of the ledger within the networks (or pairs) that have both of its conditions.

    A run without any is marked as not measured.

    Parameters
    ----------
    name : of the claim, one of `claims.ids`
    runs : title -> `conditions`
    """
    claim, found = claims_ledger.get(name), {}
    for run, table in runs.items():
        both = table[table.condition.isin([claim.high, claim.low])]
        whole = both.groupby("network").condition.nunique()
        both = both[both.network.isin(whole[whole == 2].index)]
        if len(both) and both.network.str.contains(BETWEEN, regex=False).all():
            both = both.rename(columns={"network": "pair"})
        found[run] = claims.compared(both, claim.high, claim.low, claim.margin) or "not measured"
    return claims.row(claim.claim, claim.source, found, name)
