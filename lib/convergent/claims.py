"""What a paper says, what a run finds, and a verdict by a rule that was written down before the number."""

import html
import math
import re
from collections.abc import Iterable, Mapping

import pandas as pd
from IPython.display import display
from scipy import stats

from . import claims_ledger, results
from .certainty import over_networks
from .claims_ledger import ids

__all__ = ["compared", "ids", "interval", "row", "show", "tosses", "verdict", "weigh"]

VERDICTS = ("reproduced", "partly", "not reproduced")
ENDS = ("high", "low")  # of a claim


def verdict(holds: Iterable[bool]) -> str:
    """The rule of this book: "reproduced" when a claim holds in every network (or pair of networks) that was
    measured, "partly" when it holds in more than half of them, otherwise "not reproduced".

    Raises ValueError when nothing was measured.
    """
    holds = [bool(one) for one in holds]
    if not holds:
        raise ValueError("no measurement, no verdict: give one truth value for each network or pair")
    return VERDICTS[0] if all(holds) else VERDICTS[1] if sum(holds) > len(holds) / 2 else VERDICTS[2]


# --- weighing --------------------------------------------------------------------------------------


def weigh(claim: str, *about) -> dict:
    """How a claim fares in each run: a row for `show`.

    `weigh(id, runs)` takes the claim from `claims.yml`, and the ledger of the book shows what is found.
    `weigh(claim, source, runs, high, low)` weighs a claim of your own, that condition `high` exceeds condition `low`.

    Parameters
    ----------
    id : of a claim in `claims.yml`
    claim, source : in words; who says so, and where
    runs : title -> tidy table with columns condition, value, and network or pair: values are averaged within each
        network (pair) before the two conditions are compared in it. A run without one of the two gets no verdict.

    Raises
    ------
    ValueError for an id that is not in `claims.yml`, and when no run has both conditions.
    """
    if len(about) == 1:
        known = claims_ledger.get(claim)
        words, source, runs, high, low, margin = known.claim, known.source, *about, known.high, known.low, known.margin
    else:
        known, words, margin = None, claim, 0.0
        source, runs, high, low = about
    if not any({high, low} <= set(table.condition) for table in runs.values()):
        raise ValueError(f"claim {words!r}: no run has both {high!r} and {low!r}")
    found = {run: compared(table, high, low, margin) or "not measured" for run, table in runs.items()}
    return row(words, source, found, known and known.id)


def row(claim: str, source: str, found: Mapping[str, dict | str], name: str | None = None) -> dict:
    """A row for `show` of what `compared` gave for each run, or of why there is nothing in it.

    Parameters
    ----------
    claim, source : in words
    found : title of the run -> what `compared` gave, or why nothing was compared
    name : id of the claim in `claims.yml`, None for a claim that is not in it
    """
    made: dict = {"claim": claim, "who says so": source}
    for run, one in found.items():
        if isinstance(one, str):
            made[run] = one
            continue
        shown = [
            f"{one[at]} {one[f'{at}_mean']:.2f} [{one[f'{at}_least']:.2f}, {one[f'{at}_most']:.2f}]" for at in ENDS
        ]
        more = f" by more than {one['margin']:g}" if one["margin"] else ""
        made[run] = f"{'; '.join(shown)}; in {one['n_holds']} of {one['n']} {one['by']}s{more}"
        made[f"{run}: verdict"] = one["verdict"]
    return made | ({"id": name, "runs": dict(found)} if name else {})


def compared(table: pd.DataFrame, high: str, low: str, margin: float = 0.0) -> dict | None:
    """Whether condition `high` exceeds `low` by more than `margin` in every network (pair); None if one is missing.

    Parameters
    ----------
    table : columns condition, value, and network or pair; several values of one network (pair) are averaged first

    Returns
    -------
    dict of by ("network" or "pair"), n, n_holds, verdict, margin; high and low (their names), each with _mean, _least
    and _most over networks (pairs); difference (high less low, mean), difference_low and difference_high (`interval`;
    NaN where there is none), and n_independent, see `tosses`
    """
    if not {high, low} <= set(table.condition):
        return None
    by = "pair" if "pair" in table else "network"
    values = table.groupby([by, "condition"]).value.mean().unstack("condition")
    holds = values[high] > values[low] + margin
    found = {"by": by, "n": len(holds), "n_holds": int(holds.sum()), "verdict": verdict(holds), "margin": margin}
    for at, name in zip(ENDS, (high, low), strict=True):
        part = values[name]
        found |= {at: name, f"{at}_mean": part.mean(), f"{at}_least": part.min(), f"{at}_most": part.max()}
    less = (values[high] - values[low]).dropna()
    below, above, independent = interval(less, by)
    found |= {"difference": less.mean(), "difference_low": below, "difference_high": above}
    found |= {name: float(value) for name, value in found.items() if isinstance(value, float)}  # NumPy's, to record
    return found | {"n_independent": independent}


# --- how sure --------------------------------------------------------------------------------------

_LONG, _SHORT = re.compile(r"()(.+) [×–] (.+?)(?:, \w+)?"), re.compile(r"(?:(.*) )?(\w+)-(\w+)(?: .*)?")


def interval(values: pd.Series, by: str = "network", level: float = 0.95) -> tuple[float, float, int | None]:
    """Interval of a mean over networks, or over pairs of them, and how many of the values are independent.

    Parameters
    ----------
    values : by name of the network, or of the pair. Of networks "0" and "1" a pair is called "0-1"; words before it
        ("cnn6 0-1") say of which architecture, words after it ("0-1 layer3") which part, and parts of a pair are
        averaged first. Networks with longer names make a pair "one × other" (or "one – other"), or "one × other,
        layer3"; such names are of pairs in a column `network`, too

    Returns
    -------
    (low, high, n_independent) : networks, or pairs no two of which share a network. All pairs of one architecture:
        `certainty.over_networks`. Networks, and pairs that share none: Student's t. Architectures are independent of
        each other, and their variances add. The limits are NaN for fewer than three networks (pairs that share none) of
        any architecture and where pairs are missing. They are NaN, and n_independent None, where nothing was measured
        or names do not tell who is in a pair
    """
    if values.empty:
        return math.nan, math.nan, None
    names = values.index.map(str)
    if by == "network" and not any(map(_LONG.fullmatch, names)):
        mean, half, _ = _student(values, level)
        return mean - half, mean + half, len(values)
    named = [_LONG.fullmatch(name) or _SHORT.fullmatch(name) for name in names]
    if not all(named):
        return math.nan, math.nan, None
    keys = pd.MultiIndex.from_tuples([(one[1] or "", one[2], one[3]) for one in named])
    pairs = pd.Series(values.to_numpy(), keys).groupby(level=[0, 1, 2]).mean()
    whole, errors, freedoms, independent = 0.0, [], [], 0
    for kind in pairs.index.unique(0):
        mean, half, df, apart = _of_one_architecture(pairs[kind], level)
        share = len(pairs[kind]) / len(pairs)
        whole += share * mean
        errors.append(share * half / stats.t.ppf((1 + level) / 2, df))
        freedoms.append(df)
        independent += apart
    reach = float(stats.t.ppf((1 + level) / 2, min(freedoms))) * math.hypot(*errors)  # of all, the widest tail
    return float(whole - reach), float(whole + reach), independent


def _of_one_architecture(pairs: pd.Series, level: float) -> tuple[float, float, int, int]:
    """Mean, half its interval, degrees of freedom, and pairs that share no network, of values by (one, other)."""
    if all(a == b for a, b in pairs.index):  # the first of one architecture with the first of another, and so on
        return *_student(pairs, level), len(pairs)
    seen, apart = set(), 0
    for one, other in pairs.index:
        if not {one, other} & seen:
            seen |= {one, other}
            apart += 1
    names = {name for pair in pairs.index for name in pair}
    if len(names) < 3 or len(pairs) != len(names) * (len(names) - 1) // 2:
        return float(pairs.mean()), math.nan, 1, apart
    mean, low, _ = over_networks(pairs.to_dict(), level)
    return mean, mean - low, len(names) - 1, apart


def _student(values: pd.Series, level: float) -> tuple[float, float, int]:
    n = len(values)
    if n < 3:
        return float(values.mean()), math.nan, 1
    return float(values.mean()), float(stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(values)), n - 1


def tosses(n_independent: int | None) -> float | None:
    """The chance level of "reproduced": how often it is the verdict, at most, when coins are tossed for a claim.

    Networks are tossed for one by one. Pairs that share a network do not fall independently; but when all pairs support
    a claim, those do that share none, and for them coins give 2^-n. None where it is not known how many those are.
    """
    return None if n_independent is None else 0.5**n_independent


# --- showing ---------------------------------------------------------------------------------------


def show(rows: list[dict], name: str = "claims") -> None:
    """Show claims as a table, and record the verdicts as `<name>_<id, or number from 1>_run<number from 1>`.

    Of claims that are in `claims.yml` all that was found is recorded, for the book's ledger.

    Parameters
    ----------
    rows : as `weigh` gives them
    """
    columns = [key for key in rows[0] if not key.endswith(": verdict") and key not in ("id", "runs")]
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = ""
    for i, row in enumerate(rows, start=1):
        cells, key = "", row.get("id", i)
        for j, column in enumerate(columns):
            text, decision = html.escape(row[column]), row.get(f"{column}: verdict")
            if decision:
                text = f'<strong class="verdict {decision.split()[0]}">{decision}</strong><br>{text}'
                results.record(f"{name}_{key}_run{j - 1}", decision, show=False)
            cells += f"<td>{text}</td>"
        place = f' id="{name}-{key}"' if "id" in row else ""  # where the ledger's links lead
        body += f"<tr{place}>{cells}</tr>"
        if "id" in row:
            claims_ledger.record(name, row["id"], row["runs"])
    plain = "\n".join("; ".join(f"{key}: {row[key]}" for key in row if key not in ("id", "runs")) for row in rows)
    table = f'<div class="claims"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    display({"text/html": table, "text/plain": plain}, raw=True)
