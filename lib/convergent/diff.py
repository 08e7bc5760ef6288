"""Does a run reproduce another? What agrees within its tolerance, what does not, and what was different about the runs.

Two numbers are *the same* when they differ by rounding only (a millionth of the larger), and *agree* when they differ
by at most their tolerance: a share of the larger one, one that is named for them, or, for a row of a table with a
`spread`, the root of the summed squares of both spreads (over folds). Everything else *differs*.
"""

import math
from dataclasses import dataclass, field
from fnmatch import fnmatch

import pandas as pd

from .diff_sides import Side

ROUNDING = 1e-6
RELATIVE = 1e-3
SAME, AGREES, DIFFERS, FIRST, SECOND = "same", "agrees", "differs", "only in the first", "only in the second"
_SEEDS = ("seed", "seeds")
_RESULTS = ("value", "spread", "chance", "chance_sd", "z", "p", "low", "high")  # never what tells rows apart


@dataclass(frozen=True)
class Difference:
    """What comparing two runs found.

    Attributes
    ----------
    a, b : names of the runs
    circumstances : data frame (what, a, b, same): True, False, or None where one run does not say
    values : data frame (name, a, b, difference, tolerance, verdict) of recorded numbers and texts
    tables : data frame (table, column, rows, same, agree, differ, largest, where, unmatched), a row for each column
    """

    a: str
    b: str
    circumstances: pd.DataFrame
    values: pd.DataFrame
    tables: pd.DataFrame
    rules: dict = field(default_factory=dict)

    @property
    def reproduced(self) -> bool:
        """Whether all that both runs hold agrees, and neither lacks a value of the other."""
        return bool(self.values.verdict.isin([SAME, AGREES]).all() and not self.tables.differ.sum()) and not bool(
            self.tables.unmatched.sum()
        )


def compare(a: Side, b: Side, relative: float = RELATIVE, tolerances: dict[str, float] | None = None) -> Difference:
    """Compare two runs.

    Parameters
    ----------
    relative : difference that is tolerated, as a share of the larger number
    tolerances : name of a value, or a pattern such as "*_slope" -> difference that is tolerated instead
    """
    tolerances = tolerances or {}
    rows = []
    # A published run has tables only: what it does not hold is not missing.
    names = dict.fromkeys([*a.values, *b.values]) if a.values and b.values else {}
    for name in names:
        x, y = a.values.get(name), b.values.get(name)
        allowed = next((width for pattern, width in tolerances.items() if fnmatch(name, pattern)), None)
        verdict, tolerance = judge(x, y, relative, allowed)
        number = _number(x) and _number(y)
        rows.append((name, x, y, y - x if number else None, tolerance, verdict))
    values = pd.DataFrame(rows, columns=["name", "a", "b", "difference", "tolerance", "verdict"], dtype=object)
    tables = [row for name in a.tables if name in b.tables for row in _table(name, a, b, relative)]
    columns = ["table", "column", "rows", "same", "agree", "differ", "largest", "where", "unmatched"]
    rules = {"rounding": ROUNDING, "relative": relative, **tolerances}
    return Difference(a.name, b.name, circumstances(a, b), values, pd.DataFrame(tables, columns=columns), rules)


def judge(x, y, relative: float, allowed: float | None = None) -> tuple[str, float | None]:
    """(verdict, tolerance) of two values, None standing for one that is not there; texts agree or do not."""
    if x is None or y is None:
        return (SECOND if x is None else FIRST), None
    if not (_number(x) and _number(y)):
        return (SAME if x == y else DIFFERS), None
    if math.isnan(x) or math.isnan(y):
        return (SAME if math.isnan(x) and math.isnan(y) else DIFFERS), None
    largest = max(abs(x), abs(y))
    tolerance = relative * largest if allowed is None else allowed
    gap = abs(x - y)
    return (SAME if gap <= ROUNDING * largest else AGREES if gap <= tolerance else DIFFERS), tolerance


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- circumstances -----------------------------------------------------------------------------------


def circumstances(a: Side, b: Side) -> pd.DataFrame:
    """Which of data, seed, tier, parameters, notebook, library, versions and device differ."""
    rows = [_row("data", a.told.get("data"), b.told.get("data"))]
    seeds = [", ".join(f"{name}={s.parameters[name]}" for name in _SEEDS if name in s.parameters) for s in (a, b)]
    rows.append(_row("seed", *(s.told.get("seed") or seed for s, seed in zip((a, b), seeds, strict=True))))
    rows.append(_row("tier", a.parameters.get("tier"), b.parameters.get("tier")))
    others = dict.fromkeys(name for s in (a, b) for name in s.parameters if name not in ("tier", *_SEEDS))
    rows += [_row(f"parameter {name}", a.parameters.get(name), b.parameters.get(name)) for name in others]
    rows.append(_row("notebook", a.notebook, b.notebook))
    rows.append(_row("library", *(_library(s, a.library and b.library) for s in (a, b))))
    rows.append(_row("versions", *(_versions(s, a.versions and b.versions) for s in (a, b))))
    rows.append(_row("device", a.told.get("device"), b.told.get("device")))
    return pd.DataFrame(rows, columns=["what", "a", "b", "same"])


def _library(side: Side, by_hash) -> str | None:
    return side.library if by_hash else side.told.get("code")


def _versions(side: Side, all_known) -> str | None:
    if all_known:
        return ", ".join(f"{name} {version}" for name, version in side.versions.items())
    return side.told.get("software")


def _row(what: str, a, b) -> tuple:
    return what, a or "", b or "", (a == b) if a and b else None


# --- tables ------------------------------------------------------------------------------------------


def _table(name: str, a: Side, b: Side, relative: float) -> list[tuple]:
    """A row for each column of numbers that both have."""
    first, second = a.tables[name], b.tables[name]
    shared = [column for column in first if column in second]
    measures = [c for c in shared if _measure(first[c]) or c.startswith("n_")]
    keys = [c for c in shared if c not in measures]
    for column in [c for c in measures if c not in _RESULTS]:  # such as alpha, where a row is not known without
        if keys and not (first.duplicated(keys).any() or second.duplicated(keys).any()):
            break
        measures.remove(column)
        keys.append(column)
    sides = [
        t[shared].assign(**{c: t[c].map(str) for c in keys}).assign(copy=_copies(t, keys)) for t in (first, second)
    ]
    both = sides[0].merge(sides[1], on=[*keys, "copy"], suffixes=("_a", "_b"), how="inner")
    unmatched = len(first) + len(second) - 2 * len(both)
    rows = []
    for column in measures:
        spread = [None] * len(both)
        if column == "value" and "spread" in measures:
            spread = (both.spread_a**2 + both.spread_b**2) ** 0.5
        pairs = zip(both[f"{column}_a"], both[f"{column}_b"], spread, strict=True)
        verdicts = pd.Series(
            [
                judge(x, y, relative, None if s is None or math.isnan(s) else max(s, relative * abs(x)))[0]
                for x, y, s in pairs
            ]
        )
        gaps = (both[f"{column}_b"] - both[f"{column}_a"]).abs()
        where, largest = "", 0.0
        if gaps.notna().any():
            worst = both.loc[gaps.idxmax()]
            largest, where = float(gaps.max()), ", ".join(str(worst[key]) for key in keys)
        counts = [int((verdicts == verdict).sum()) for verdict in (SAME, AGREES, DIFFERS)]
        rows.append((name, column, len(both), *counts, largest, where, unmatched if column == measures[0] else 0))
    return rows


def _measure(column: pd.Series) -> bool:
    return pd.api.types.is_float_dtype(column)


def _copies(table: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Which of several rows with one key: their order tells them apart."""
    return table.groupby(keys).cumcount() if keys else pd.Series(range(len(table)), index=table.index)
