"""The tables of chapter 10, from its networks; and where published ones stand beside the reader's own."""

import os
from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from . import encoding_activations as activations
from . import encoding_networks as members
from . import encoding_similarity as es
from . import encoding_truncation as truncation
from . import paths, published
from .encoding_networks import Member
from .images import Dataset
from .weight_covariances import effective_rank, shrink

Encodings = Mapping[str, Mapping[str, es.Encoding]]
SHOWN = [members.SAME, members.RANDOMS, members.TRUE_RANDOM]  # roles whose activations are looked at


def beside(title: str, table: pd.DataFrame | None, name: str) -> dict[str, pd.DataFrame]:
    """As `published.beside`, where `table` is None if this run has not measured it, and none may be published yet."""
    if table is not None:
        published.keep(name, table)
    if os.environ.get("CONVERGENT_PUBLISHING") == "1":
        return {} if table is None else {title: table}
    there = (paths.data() / "published" / f"{name}.csv").exists()
    others = {f"published: {other}": run for other, run in published.load(name).items()} if there else {}
    return ({} if table is None else {f"this run: {title}": table}) | others


def dimensions(everyone: Sequence[Member], encoded: Encodings, draws: int = 5) -> pd.DataFrame:
    """`encoding_similarity.dimensions` with what is known of each network, and its ceiling."""
    ceilings = es.ceilings(encoded, draws).rename(columns={"value": "ceiling", "spread": "ceiling_spread"})
    found = es.dimensions(encoded).merge(ceilings, on=["network", "layer"])
    return members.described(everyone).merge(found, on="network")


def similarities(comparison: es.Comparison, everyone: Sequence[Member], told: pd.DataFrame) -> pd.DataFrame:
    """Similarities of a comparison with kind, role and ceiling (the mean of the two networks') of each pair."""
    top = told.set_index(["network", "layer"]).ceiling
    table = members.kinds(comparison.similarities, everyone)
    both = [(top[row.a, row.layer] + top[row.b, row.layer]) / 2 for row in table.itertuples()]
    return table.assign(ceiling=both)


def cosines(comparison: es.Comparison, everyone: Sequence[Member], encoded: Encodings, n: int = 20) -> pd.DataFrame:
    """Cosines by rank for the first pair of each kind, aligned; of the first pair of all also without alignment.

    Kinds that have nothing to do with the chapter's own images are left out: the figure would not fit a page. Columns
    kind, role, condition, layer, rank, base, effective_a, effective_b, c1, c2, ...
    """
    found, done, main = [], set(), everyone[0].task
    pairs = members.kinds(pd.DataFrame(list(comparison.turned), columns=["a", "b"]), everyone)
    for row in pairs.itertuples():
        elsewhere = row.role in (members.ELSEWHERE, members.ACROSS) and main not in row.kind.split(" × ")
        if row.kind in done or elsewhere:
            continue
        seen = {es.ALIGNED: comparison.turned[row.a, row.b]}
        same_width = all(
            len(one.vectors) == len(encoded[row.a][k].whole.vectors) for k, one in seen[es.ALIGNED].items()
        )
        if not done and same_width:
            seen[es.UNALIGNED] = {layer: one.learned for layer, one in encoded[row.a].items()}
        done.add(row.kind)
        for condition, covariances in seen.items():
            table = es.cosines(covariances, encoded[row.b], n).round(3)
            ranks = {
                f"effective_{which}": table.layer.map(
                    {layer: effective_rank(one.learned.values) for layer, one in encoded[name].items()}
                )
                for which, name in (("a", row.a), ("b", row.b))
            }
            found.append(table.assign(kind=row.kind, role=row.role, condition=condition, **ranks))
    first = ["kind", "role", "condition", "layer", "rank", "base", "effective_a", "effective_b"]
    return pd.concat(found, ignore_index=True)[[*first, *(f"c{k}" for k in range(1, n + 1))]]


def spectra(name: str, encoded: Mapping[str, es.Encoding]) -> pd.DataFrame:
    """All eigenvalues of one network: network, layer, gamma, rank, eigenvalue, learned (after shrinkage)."""
    found = []
    for layer, one in encoded.items():
        shrunk = shrink(one.whole.values, one.whole.gamma)
        rows = zip(one.whole.values.tolist(), shrunk.tolist(), strict=True)
        found += [(name, layer, one.whole.gamma, rank, *both) for rank, both in enumerate(rows, 1)]
    return pd.DataFrame(found, columns=["network", "layer", "gamma", "rank", "eigenvalue", "learned"])


def truncations(
    everyone: Sequence[Member], comparison: es.Comparison, encoded: Encodings, data: Dataset, tier: str
) -> pd.DataFrame:
    """`encoding_truncation.curves` of the two first networks of the chapter's images; of the first also an early, a
    middle and the last layer alone.

    Columns network, guess, then those of `curves`.
    """
    first, second = (one.name for one in everyone[:2])
    n = {"smoke": 40, "laptop": 250, "full": 4000}[tier]
    shown, tuning = data.test.sample(min(n, len(data.test)), seed=1), data.train.sample(min(n, len(data.train)), seed=1)
    turned = comparison.turned[first, second]
    agreed = {layer: max(es.agreement(one, encoded[second][layer].learned), 1) for layer, one in turned.items()}
    ranks = [1, 4, 16] if tier == "smoke" else [1, 2, 4, 8, 16, 32, 64, 128]
    found = []
    for one in everyone[:2]:
        names = list(agreed)
        alone = (names[1], names[len(names) // 2], names[-1]) if one.name == first else ()
        table = truncation.curves(one.network, shown, tuning.images, ranks, agreed, alone)
        found.append(table.assign(network=one.name, guess=one.guess))
    return pd.concat(found, ignore_index=True)


def agreements(everyone: Sequence[Member], comparison: es.Comparison, encoded: Encodings) -> pd.DataFrame:
    """Up to which rank the two first networks agree, by layer: layer, agreed, learned (of the first)."""
    first, second = (one.name for one in everyone[:2])
    turned = comparison.turned[first, second]
    rows = [
        (layer, es.agreement(one, encoded[second][layer].learned), len(one.values)) for layer, one in turned.items()
    ]
    return pd.DataFrame(rows, columns=["layer", "agreed", "learned"])


def sources(everyone: Sequence[Member], encoded: Encodings, shown: torch.Tensor, nulls: int) -> pd.DataFrame:
    """`encoding_activations.sources` with kind and role, for pairs of true and of random labels."""
    pairs = pd.DataFrame(members.pairs(everyone), columns=["a", "b"])
    chosen = members.kinds(pairs, everyone)
    chosen = chosen[chosen.role.isin(SHOWN)]
    nets = {one.name: one.network for one in everyone}
    found = activations.sources(nets, encoded, shown, list(zip(chosen.a, chosen.b, strict=True)), nulls)
    return members.kinds(found, everyone)


def course(tier: str, data: Dataset, nulls: int = 1) -> pd.DataFrame:
    """`encoding_activations.course` of two networks of the chapter's images, from their trajectories."""
    entries = [members.trained(tier, data, seed=seed, trajectory=True) for seed in range(2)]
    checkpoints = {entry.seed: entry.checkpoints for entry in entries}
    steps = activations.some_steps(checkpoints[0], 3 if tier == "smoke" else 9)
    n = {"smoke": 40, "laptop": 200, "full": 1000}[tier]
    shown, averages = (
        data.test.sample(min(n, len(data.test)), seed=2),
        data.train.sample(min(n, len(data.train)), seed=2),
    )
    return activations.course(checkpoints, shown, averages.images, steps, nulls)


def plain(tier: str, data: Dataset, everyone: Sequence[Member], seeds: int) -> pd.DataFrame:
    """Accuracy of the factorised networks and of their plain counterparts: seed, network, accuracy, guess."""
    rows = [(one.seed, "factorised", one.accuracy, one.guess) for one in everyone[:seeds]]
    rows += [(seed, "plain", members.plain(tier, data, seed).accuracy, everyone[0].guess) for seed in range(seeds)]
    return pd.DataFrame(rows, columns=["seed", "network", "accuracy", "guess"])
