"""What the claims of chapter 10 compare: tables of conditions for `claims.weigh`, made from the chapter's tables.

Each gives columns pair (or network), condition, value. Where a claim is about layers, every layer of every pair counts
for itself ("0 × 1, layer3"), because two seeds alone make one pair.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from . import claims, claims_ledger
from . import encoding_activations as activations
from .encoding_networks import ACROSS, FEW_TRUE, RANDOMS, SAME, TRUE_RANDOM
from .encoding_similarity import ALIGNED, UNALIGNED

Runs = Mapping[str, pd.DataFrame]
HALF, CHANCE, FIRST_HALF, SECOND_HALF = "half the ceiling", "chance", "first half of layers", "second half of layers"


def by_layer(similarities: pd.DataFrame, role: str = SAME) -> pd.DataFrame:
    """Conditions "aligned", "not aligned", "half the ceiling" and "chance" (twice the error of the scale) for every
    layer after the first of the pairs of one role."""
    rows = similarities[similarities.role == role]
    rows = rows[rows.layer != rows.layer.iloc[0]] if len(rows) else rows
    rows = rows.assign(pair=rows.a + " × " + rows.b + ", " + rows.layer)
    aligned = rows[rows.condition == ALIGNED]
    parts = [rows[["pair", "condition", "value"]]]
    parts += [aligned.assign(condition=HALF, value=aligned.ceiling / 2)[["pair", "condition", "value"]]]
    parts += [aligned.assign(condition=CHANCE, value=2 * aligned.error)[["pair", "condition", "value"]]]
    return pd.concat(parts, ignore_index=True)


def leading(cosines: pd.DataFrame) -> pd.DataFrame:
    """Of two seeds, every layer after the first: the best cosine of the leading eigenvector with the other network's,
    aligned and not, and five times the base level."""
    rows = cosines[(cosines.role == SAME) & (cosines["rank"] == 1)]
    rows = rows[rows.layer != rows.layer.iloc[0]]
    best = rows.filter(regex=r"^c\d+$").max(axis=1)
    found = rows.assign(pair=rows.kind + ", " + rows.layer, value=best)
    bars = found[found.condition == ALIGNED].assign(condition="5 base levels", value=5 * found.base)
    return pd.concat([found, bars], ignore_index=True)[["pair", "condition", "value"]]


def fading(similarities: pd.DataFrame) -> pd.DataFrame:
    """Similarity across image sets in the first and in the second half of the layers, for every pair of networks."""
    rows = similarities[(similarities.role == ACROSS) & (similarities.condition == ALIGNED)]
    return _halves(rows.assign(pair=rows.a + " × " + rows.b))


def growing(dimensions: pd.DataFrame) -> pd.DataFrame:
    """Effective rank in the first and in the second half of the layers, for every network on true labels."""
    rows = dimensions[~dimensions.task.isin(["random labels", "few images"])]
    return _halves(rows.assign(pair=rows.network, value=rows.effective_rank))


def _halves(rows: pd.DataFrame) -> pd.DataFrame:
    layers = list(dict.fromkeys(rows.layer))
    late = rows.layer.isin(layers[len(layers) // 2 :])
    return rows.assign(condition=np.where(late, SECOND_HALF, FIRST_HALF))[["pair", "condition", "value"]]


def classes(dimensions: pd.DataFrame) -> pd.DataFrame:
    """Effective rank, averaged over layers, of networks with more and with fewer classes: for every two tasks that
    differ in it, and every seed. Empty where all tasks have as many."""
    rows = dimensions[~dimensions.task.isin(["random labels", "few images", "your own"])]
    means = rows.groupby(["task", "seed", "classes"], sort=False).effective_rank.mean().reset_index()
    both = means.merge(means, on="seed", suffixes=("_more", "_fewer"))
    both = both[both.classes_more > both.classes_fewer]
    pair = both.task_more + " and " + both.task_fewer + ", seed " + both.seed.astype(int).astype(str)
    more = pd.DataFrame({"pair": pair, "condition": "more classes", "value": both.effective_rank_more})
    fewer = pd.DataFrame({"pair": pair, "condition": "fewer classes", "value": both.effective_rank_fewer})
    return pd.concat([more, fewer], ignore_index=True)


def labels(similarities: pd.DataFrame) -> pd.DataFrame:
    """Similarity by layer, after the first, for each role that concerns labels; layers take the place of pairs."""
    rows = similarities[similarities.role.isin([SAME, RANDOMS, TRUE_RANDOM, FEW_TRUE])]
    rows = rows[(rows.condition == ALIGNED) & (rows.layer != rows.layer.iloc[0])]
    means = rows.groupby(["layer", "role"], sort=False).value.mean().reset_index()
    return means.rename(columns={"layer": "pair", "role": "condition"})


def accuracies(plain: pd.DataFrame) -> pd.DataFrame:
    """Accuracy above guessing of the factorised network, and nine tenths of the plain one's, for every seed.

    `plain` has columns seed, network ("factorised", "plain"), accuracy, guess."""
    wide = plain.assign(value=plain.accuracy - plain.guess).pivot_table(index="seed", columns="network", values="value")
    parts = {"factorised": wide.factorised, "nine tenths of plain": 0.9 * wide.plain}
    return pd.concat(
        [pd.DataFrame({"network": wide.index, "condition": name, "value": part}) for name, part in parts.items()],
        ignore_index=True,
    )


def explained(sources: pd.DataFrame, metric: str = "procrustes") -> pd.DataFrame:
    """Alignment of outputs above that with neurons that learned nothing, per pair and layer: conditions of
    `encoding_activations.sources`, and "half way" between fresh and trained neurons."""
    rows = sources[(sources.metric == metric) & (sources.role == SAME)]
    rows = rows.assign(pair=rows.a + " × " + rows.b + ", " + rows.layer)
    wide = rows.pivot_table(index="pair", columns="condition", values="value", sort=False)
    half = (wide[activations.OUTPUTS] + wide[activations.FRESH]) / 2
    extra = pd.DataFrame({"pair": wide.index, "condition": "half way", "value": half.to_numpy()})
    return pd.concat([rows[["pair", "condition", "value"]], extra], ignore_index=True)


def rank_correlation(table: pd.DataFrame, first: str, second: str) -> float:
    """Spearman's correlation of two columns; 0 where one of them does not vary."""
    if table[first].nunique() < 2 or table[second].nunique() < 2:
        return 0.0
    return float(table[[first, second]].rank().corr().iloc[0, 1])


def numbers(
    dimensions: pd.DataFrame,
    similarities: pd.DataFrame,
    cosines: pd.DataFrame,
    shares: pd.DataFrame,
    sources: pd.DataFrame,
) -> dict[str, float]:
    """What the prose of the chapter reads of one run, from its tables (`shares` as `above_guessing` gives them).

    Means over pairs and over all layers but the first, whose inputs are the same for all networks.
    """
    late = similarities[similarities.layer != similarities.layer.iloc[0]]
    by = late.groupby(["role", "condition"]).value.mean()
    of_true = dimensions[dimensions.task == dimensions.task.iloc[0]].groupby("layer", sort=False)
    found = {
        "aligned": by[SAME, ALIGNED],
        "unaligned": by[SAME, UNALIGNED],
        "ceiling": late[(late.role == SAME) & (late.condition == ALIGNED)].ceiling.mean(),
        "randoms": by[RANDOMS, ALIGNED],
        "true_random": by[TRUE_RANDOM, ALIGNED],
        "few_true": by[FEW_TRUE, ALIGNED],
        "first": similarities[(similarities.role == SAME) & (similarities.condition == ALIGNED)].value.iloc[0],
        "learned_least": of_true.learned.mean().min(),
        "learned_most": of_true.learned.mean().max(),
        "rank_second": of_true.effective_rank.mean().iloc[1],
        "rank_last": of_true.effective_rank.mean().iloc[-1],
        "share": of_true.share.mean().mean(),
        # A layer in which every direction was learned has no others to average.
        "random_ratio": (dimensions.random / dimensions.expected)[dimensions.random > 0].mean(),
    }
    lead = leading(cosines).groupby("condition").value.mean()
    found |= {"lead_aligned": lead[ALIGNED], "lead_unaligned": lead[UNALIGNED], "lead_base": lead["5 base levels"] / 5}
    kept = shares.groupby("condition").value.mean()
    found |= {"kept_retuned": kept["agreed ranks"], "kept": kept["agreed ranks, not retuned"]}
    found |= {"kept_others": kept["the other ranks"]}
    same = explained(sources).groupby("condition").value.mean()
    found |= {
        "outputs": same[activations.OUTPUTS],
        "inputs": same[activations.INPUTS],
        "redrawn": same[activations.LEARNED],
        "fresh": same[activations.FRESH],
    }
    crossed = sources[(sources.metric == "procrustes") & (sources.role == TRUE_RANDOM)]
    for name, condition in (("outputs", activations.OUTPUTS), ("fresh", activations.FRESH)):
        found[f"{name}_true_random"] = crossed[crossed.condition == condition].value.mean()
    return {name: float(value) for name, value in found.items()}


def rows(
    ids: Iterable[str], plain: Runs, dimensions: Runs, similarities: Runs, cosines: Runs, shares: Runs, sources: Runs
) -> list[dict]:
    """The chapter's claims, as `claims.show` takes them; what no run has measured is marked so.

    Parameters
    ----------
    ids : of claims; the second word says which table holds what they compare
    plain, dimensions, similarities, cosines, sources : title of the run -> the chapter's tables
    shares : title of the run -> as `encoding_truncation.above_guessing` gives it
    """
    kinds = {  # the second word of a claim's id -> what it compares
        "keeps": (accuracies, plain),
        "lead": (leading, cosines),
        "by": (by_layer, similarities),
        "apart": (lambda table: by_layer(table, ACROSS), similarities),
        "fades": (fading, similarities),
        "marked": (labels, similarities),
        "grows": (growing, dimensions),
        "more": (classes, dimensions),
        "why": (explained, sources),
    }
    told = {kind: {run: made(table) for run, table in tables.items()} for kind, (made, tables) in kinds.items()}
    told["shares"] = shares
    found = []
    for name in ids:
        claim, runs = claims_ledger.get(name), told[name.split("_")[1]]
        if any({claim.high, claim.low} <= set(table.condition) for table in runs.values()):
            found.append(claims.weigh(name, runs))
        else:
            found.append(claims.row(claim.claim, claim.source, dict.fromkeys(runs, "not measured"), name))
    return found
