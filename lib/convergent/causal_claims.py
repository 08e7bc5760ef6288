"""What the runs of a sweep say: does accuracy go with achieved alignment, and what does either end cost?

A table has a row a run, as `causal_sweep.sweep` gives it. The conditions of a push are named by what was done: the
strongest suppression ("most misaligned"), nothing ("task alone"), the strongest promotion ("most aligned").
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from . import claims, claims_ledger
from .under_shift import least_r

# What is pushed towards what, in the order of figures; whatever else a reader pushes comes after.
PUSHES = {
    ("gabor", "layer1"): "Gabor filters, first layer",
    ("trained", "layer1"): "trained network, first layer",
    ("trained", "layer5"): "trained network, fifth layer",
    ("responses-early", "layer1"): "early voxels, first layer",
    ("responses-late", "layer6"): "late voxels, last layer",
    ("responses-early", "block2"): "early voxels, first stage",
    ("responses-late", "block8"): "late voxels, last stage",
}
MISALIGNED, ALONE, ALIGNED = ENDS = ("most misaligned", "task alone", "most aligned")
BRANCHES = ("all runs", "suppressing", "promoting")  # the task alone belongs to both branches
OPTIMISED, OTHERS = "alignment", ("procrustes", "cka")  # scores that a loss of the sweep pushes, and that none does
METRICS = (OPTIMISED, *OTHERS)
LEAST = "least r to be told from none"
# Share of what the task alone has above guessing, below which two scores say nothing about each other any more.
FLOOR = 0.1


def named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `push`, what is pushed towards what in words, and its rows in the order of `PUSHES`."""
    pairs = [*zip(table.reference, table.layer, strict=True)]
    names = [PUSHES.get(pair, f"{pair[0].rpartition('/')[2]}, {pair[1]}") for pair in pairs]
    order = {name: i for i, name in enumerate(dict.fromkeys([*PUSHES.values(), *names]))}
    found = table.assign(push=names)
    return found.sort_values("push", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The runs without control, at the weight of the task that most runs have: one curve for each push."""
    found = table[table.control == "none"]
    return found[found.beta == found.beta.mode()[0]]


def branch(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Runs of one of `BRANCHES`."""
    return {"all runs": table, "suppressing": table[table.alpha <= 0], "promoting": table[table.alpha >= 0]}[name]


def rank_correlation(
    table: pd.DataFrame, metric: str = OPTIMISED, permutations: int = 4_999, seed: int = 0
) -> tuple[float, float]:
    """Spearman's correlation over runs of accuracy with achieved alignment, and how often chance gives as much.

    Parameters
    ----------
    table : columns seed, accuracy, and `metric`
    permutations : of the accuracies among the runs of one seed. What seeds differ in is left as it is: networks with
        the same initial weights are not independent of each other.

    Returns
    -------
    (rho, p) ; p two-sided, the true order counted among the permuted ones, so that it is at least
    1 / (permutations + 1). Both NaN for fewer than three runs, or where one of the two does not vary.
    """
    x, y = (stats.rankdata(table[name]) for name in (metric, "accuracy"))
    if len(table) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), float("nan")
    x, y = ((z - z.mean()) / np.sqrt(((z - z.mean()) ** 2).sum()) for z in (x, y))
    rng, permuted = np.random.default_rng(seed), np.empty((permutations, len(y)))
    for rows in table.reset_index(drop=True).groupby("seed").indices.values():
        permuted[:, rows] = rng.permuted(np.tile(y[rows], (permutations, 1)), axis=1)
    rho = float(x @ y)
    as_much = np.abs(permuted @ x) >= abs(rho) - 1e-12
    return rho, float((1 + as_much.sum()) / (1 + permutations))


def correlations(table: pd.DataFrame, metrics=METRICS, permutations: int = 4_999) -> pd.DataFrame:
    """`rank_correlation` for every push, branch and metric.

    Returns
    -------
    DataFrame with columns push, branch, metric, rho, p, n_runs; without rows for a metric that was not measured
    """
    rows = []
    for push, runs in plain(named(table)).groupby("push", sort=False):
        for name in BRANCHES:
            part = branch(runs, name)
            for metric in metrics:
                if metric in part and part[metric].notna().all():
                    rows.append((push, name, metric, *rank_correlation(part, metric, permutations), len(part)))
    return pd.DataFrame(rows, columns=["push", "branch", "metric", "rho", "p", "n_runs"])


def over_seeds(values, level: float = 0.95) -> tuple[float, float, float]:
    """Mean over seeds and its interval by Student's t; without limits (NaN) for one seed."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    reach = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - reach), float(values.mean() + reach)


def at_ends(table: pd.DataFrame, column: str = "accuracy") -> pd.DataFrame:
    """A quantity at the ends of every push and of its controls, by seed.

    An end is the strongest alpha of its sign, whatever alignment came of it: that is what was done to the network.

    Returns
    -------
    DataFrame with columns push, control, end (one of `ENDS`), seed, value
    """
    found = []
    kept = named(table)
    for _, runs in kept[kept.beta == kept.beta.mode()[0]].groupby("push", sort=False):
        ends = dict(zip(ENDS, (runs.alpha.min(), 0.0, runs.alpha.max()), strict=True))
        for end, alpha in ends.items():
            if (end == ALONE) == (alpha == 0):
                rows = runs[runs.alpha == alpha]
                found.append(rows[["push", "control", "seed"]].assign(end=end, value=rows[column]))
    return pd.concat(found, ignore_index=True)[["push", "control", "end", "seed", "value"]]


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of both ends, and of their controls, less that of the task alone with the same seed.

    Returns
    -------
    DataFrame with columns push, end, control, mean, low, high (95 % interval over seeds), n_seeds
    """
    ends, rows = at_ends(table), []
    alone = ends[ends.end == ALONE].set_index(["push", "seed"]).value
    for (push, end, control), part in ends[ends.end != ALONE].groupby(["push", "end", "control"], sort=False):
        lost = (part.set_index(["push", "seed"]).value - alone).dropna()
        if len(lost):
            rows.append((push, end, control, *over_seeds(lost), len(lost)))
    return pd.DataFrame(rows, columns=["push", "end", "control", "mean", "low", "high", "n_seeds"])


def reached(table: pd.DataFrame) -> pd.DataFrame:
    """Validated alignment at the ends: mean over seeds, a row a push and a column each of `ENDS`."""
    ends = at_ends(table, OPTIMISED)
    means = ends[ends.control == "none"].pivot_table(index="push", columns="end", values="value", sort=False)
    return means.reindex(columns=list(ENDS))


def conditions(table: pd.DataFrame) -> pd.DataFrame:
    """What claims compare, for each push and each network (seed): columns push, network, condition, value.

    Conditions: `ENDS` and their controls (", shuffled", ", step size"), accuracies; "cost of misalignment", the task
    alone less the most misaligned, and "cost per R² given up", the same divided by the alignment that was lost;
    "r of accuracy with alignment", by rank over all runs of the network, in all and in each branch, and the least r to
    be told from none; "oriented filters, ...", the mean orientation selectivity of the first filters at both ends.
    """
    found = [_at_ends(table), _correlated(table), _oriented(table)]
    return pd.concat(found, ignore_index=True).dropna(subset="value")


def _at_ends(table: pd.DataFrame) -> pd.DataFrame:
    ends = at_ends(table).rename(columns={"seed": "network"})
    control = ends.control.map(lambda name: "" if name == "none" else f", {name}")
    parts = [ends.assign(condition=ends.end + control)]
    value, alignment = (_wide(at_ends(table, column)) for column in ("accuracy", OPTIMISED))
    if {ALONE, MISALIGNED} <= set(value):
        cost, lost = (wide[ALONE] - wide[MISALIGNED] for wide in (value, alignment))
        for name, values in (("cost of misalignment", cost), ("cost per R² given up", cost / lost.where(lost > 0))):
            parts.append(values.rename("value").reset_index().assign(condition=name))
    return pd.concat(parts)[["push", "network", "condition", "value"]]


def _wide(ends: pd.DataFrame) -> pd.DataFrame:
    ends = ends[ends.control == "none"].rename(columns={"seed": "network"})
    return ends.pivot_table(index=["push", "network"], columns="end", values="value", sort=False)


def _correlated(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (push, network), runs in plain(named(table)).groupby(["push", "seed"], sort=False):
        for name in BRANCHES:
            part, suffix = branch(runs, name), "" if name == BRANCHES[0] else f", {name}"
            if len(part) > 2:
                rho, _ = rank_correlation(part, permutations=0)
                rows.append((push, network, f"r of accuracy with alignment{suffix}", rho))
                rows.append((push, network, f"{LEAST}{suffix}", least_r(len(part))))
    return pd.DataFrame(rows, columns=["push", "network", "condition", "value"])


def _oriented(table: pd.DataFrame) -> pd.DataFrame:
    columns = ["push", "network", "condition", "value"]
    if "orientation" not in table:
        return pd.DataFrame(columns=columns)
    ends = at_ends(table, "orientation").query("control == 'none'").rename(columns={"seed": "network"})
    return ends.assign(condition="oriented filters, " + ends.end)[columns]


def sieve(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What is left of "suppression costs accuracy" once controls are asked: a row a run and push.

    Parameters
    ----------
    tables : title of the run -> table of a sweep

    Returns
    -------
    DataFrame with columns run, push; costs, whether the most misaligned network does worse than the task alone for
    every seed; shuffled, step size, whether it does worse than that control for every seed (None where the control was
    not made); above_guessing, of the task alone's distance to guessing the share that is kept by the better of the most
    misaligned networks and their shuffled twins, means over seeds; left, whether all three hold and above_guessing is
    at least `FLOOR`
    """
    rows = []
    for run, table in tables.items():
        chance = named(table).groupby("push").chance.first()
        for push, ends in at_ends(table).groupby("push", sort=False):
            by = ends.set_index("seed").groupby(["end", "control"]).value
            scores = {condition: values for condition, values in by}
            alone, away = scores[ALONE, "none"], scores.get((MISALIGNED, "none"))
            if away is None:  # pushed towards it only
                continue
            twins = {name: scores.get((MISALIGNED, name)) for name in ("shuffled", "step size")}
            worse = [None if twin is None else bool((away < twin.reindex(away.index)).all()) for twin in twins.values()]
            best = max(values.mean() for values in (away, twins["shuffled"]) if values is not None)
            kept = (best - chance[push]) / (alone.mean() - chance[push])
            costs_it = bool((away < alone.reindex(away.index)).all())
            rows.append((run, push, costs_it, *worse, kept, costs_it and all(worse) and kept >= FLOOR))
    return pd.DataFrame(rows, columns=["run", "push", "costs", "shuffled", "step size", "above_guessing", "left"])


def weigh(name: str, runs: Mapping[str, pd.DataFrame]) -> dict:
    """How a claim fares in each run, network by network: a row for `claims.show`.

    Parameters
    ----------
    name : id of a claim in `claims.yml` whose `high` and `low` are (push, condition)
    runs : title -> `conditions` of its table; a run that lacks one of the two is marked as not made
    """
    claim, found = claims_ledger.get(name), {}
    high, low = claim.high, claim.low
    for run, table in runs.items():
        names = [condition if high[0] == low[0] else f"{condition} ({push})" for push, condition in (high, low)]
        parts = [table[(table.push == push) & (table.condition == what)] for push, what in (high, low)]
        both = pd.concat([part.assign(condition=what) for part, what in zip(parts, names, strict=True)])
        shared = set(parts[0].network) & set(parts[1].network)
        both = both[both.network.isin(shared)]
        found[run] = claims.compared(both, *names, claim.margin) or "not made"
    return claims.row(claim.claim, claim.source, found, name)
