"""What a paper says, what a run finds, and a verdict by a rule that was written down before the number."""

import html
from collections.abc import Iterable

import pandas as pd
from IPython.display import display

from . import results

VERDICTS = ("reproduced", "partly", "not reproduced")


def verdict(holds: Iterable[bool]) -> str:
    """The rule of this book: "reproduced" when a claim holds in every network (or pair of networks) that was
    measured, "partly" when it holds in more than half of them, otherwise "not reproduced".

    Raises ValueError when nothing was measured.
    """
    holds = [bool(one) for one in holds]
    if not holds:
        raise ValueError("no measurement, no verdict: give one truth value for each network or pair")
    return VERDICTS[0] if all(holds) else VERDICTS[1] if sum(holds) > len(holds) / 2 else VERDICTS[2]


def weigh(claim: str, source: str, runs: dict[str, pd.DataFrame], high: str, low: str) -> dict[str, str]:
    """How the claim that condition `high` exceeds condition `low` fares in each run: a row for `show`.

    Parameters
    ----------
    claim, source : in words; who says so, and where
    runs : title -> tidy table with columns condition, value, and network or pair: values are averaged within each
        network (pair) before the two conditions are compared in it. A run without one of the two gets no verdict.

    Raises
    ------
    ValueError when no run has both conditions.
    """
    row = {"claim": claim, "who says so": source}
    if not any({high, low} <= set(table.condition) for table in runs.values()):
        raise ValueError(f"claim {claim!r}: no run has both {high!r} and {low!r}")
    for run, table in runs.items():
        if not {high, low} <= set(table.condition):
            row[run] = "not measured"
            continue
        by = "pair" if "pair" in table else "network"
        values = table.groupby([by, "condition"]).value.mean().unstack("condition")
        shown = [
            f"{name} {values[name].mean():.2f} [{values[name].min():.2f}, {values[name].max():.2f}]"
            for name in (high, low)
        ]
        holds = values[high] > values[low]
        row[run] = f"{'; '.join(shown)}; in {int(holds.sum())} of {len(holds)} {by}s"
        row[f"{run}: verdict"] = verdict(holds)
    return row


def show(rows: list[dict[str, str]], name: str = "claims") -> None:
    """Show claims as a table, and record the verdicts as `<name>_<i>_<run>`.

    Parameters
    ----------
    rows : as `weigh` gives them
    """
    columns = [key for key in rows[0] if not key.endswith(": verdict")]
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = ""
    for i, row in enumerate(rows, start=1):
        cells = ""
        for j, column in enumerate(columns):
            text, decision = html.escape(row[column]), row.get(f"{column}: verdict")
            if decision:
                text = f'<strong class="verdict {decision.split()[0]}">{decision}</strong><br>{text}'
                results.record(f"{name}_{i}_run{j - 1}", decision, show=False)
            cells += f"<td>{text}</td>"
        body += f"<tr>{cells}</tr>"
    plain = "\n".join("; ".join(f"{key}: {value}" for key, value in row.items()) for row in rows)
    table = f'<div class="claims"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    display({"text/html": table, "text/plain": plain}, raw=True)
