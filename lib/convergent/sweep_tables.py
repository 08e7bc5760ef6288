"""What the runs of a sweep recorded, as tidy tables: CSV for everybody, Parquet for pandas."""

import json
import os
from pathlib import Path

from . import claims_ledger, sweep_runs
from .sweep_runs import Run

_OWN = ("run", "name", "value", "text", "status", "seconds", "error", "folder")


def renew(title: str, runs: list[Run], out: Path, drawn: bool = True) -> None:
    """Write all tables and, where `drawn`, the report, unless they hold these runs as they are now."""
    done, state = sweep_runs.done(out), {}
    for run in runs:
        failed = out / "failed" / run.name / "run.json"
        state[run.key] = (
            "done" if run.key in done else str(failed.stat().st_mtime_ns) if failed.is_file() else "missing"
        )
    kept, report = out / ".tables.json", out / "report.html"
    files = [out / f"{name}.{ending}" for name in ("results", "runs") for ending in ("csv", "parquet")]
    if kept.is_file() and kept.read_text() == json.dumps(state) and all(path.is_file() for path in (*files, report)):
        return
    about, results, tables = of_runs(runs, out), values(runs, out), kept_tables(runs, out)
    _write(about, out / "runs")
    _write(results, out / "results")
    for name, table in tables.items():
        (out / "tables").mkdir(exist_ok=True)
        _write(table, out / "tables" / name)
    if not drawn:
        return
    from . import sweep_report

    whole(report, sweep_report.page(title, about, results, sorted(tables)).encode())
    whole(kept, json.dumps(state).encode())


def columns(runs: list[Run]) -> dict[str, str]:
    """Parameter that the sweep set -> its column."""
    names = dict.fromkeys(name for run in runs for name in run.chosen)
    return {name: f"parameter_{name}" if name in _OWN else name for name in names}


def of_runs(runs: list[Run], out: Path):
    """Data frame, a row for each run: run, parameters, status (done, failed or missing), seconds, error, folder."""
    import pandas as pd

    done, named, rows = sweep_runs.done(out), columns(runs), []
    for run in runs:
        folder = done.get(run.key, out / "failed" / run.name)
        about = {"status": "missing", "seconds": float("nan"), "error": ""}
        if (folder / "run.json").is_file():
            about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        rows.append(
            {"run": run.name}
            | {column: run.parameters[name] for name, column in named.items()}
            | {name: about[name] for name in ("status", "seconds", "error")}
            | {"folder": folder.relative_to(out).as_posix()}
        )
    return pd.DataFrame(rows)


def values(runs: list[Run], out: Path):
    """Data frame, a row for each recorded number or text of each run that is done.

    Columns: run, parameters, name, value (NaN for a text), text (empty for a number). Tables that a chapter keeps are
    in `kept_tables`; of claims the verdicts are here.
    """
    import pandas as pd

    rows = []
    for run, shared, recorded in _recorded(runs, out):
        for name, value in recorded.items():
            if not name.startswith(("table_", claims_ledger.RECORD)):
                number = not isinstance(value, str)
                told = {"value": float(value) if number else float("nan"), "text": "" if number else value}
                rows.append({"run": run.name} | shared | {"name": name} | told)
    return pd.DataFrame(rows, columns=["run", *columns(runs).values(), "name", "value", "text"])


def kept_tables(runs: list[Run], out: Path) -> dict:
    """Name -> data frame of a table that the notebook keeps, of all runs, each row with its run's parameters.

    A parameter whose name the table itself uses has the column `parameter_NAME`.
    """
    import io

    import pandas as pd

    found = {}
    for run, shared, recorded in _recorded(runs, out):
        for name, text in recorded.items():
            if name.startswith("table_"):
                table = pd.read_csv(io.StringIO(text))
                own = {
                    f"parameter_{k}" if k in table and not k.startswith("parameter_") else k: v
                    for k, v in shared.items()
                }
                front = pd.DataFrame([{"run": run.name} | own] * len(table), index=table.index)
                found.setdefault(name.removeprefix("table_"), []).append(pd.concat([front, table], axis=1))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def _recorded(runs: list[Run], out: Path):
    done, named = sweep_runs.done(out), columns(runs)
    for run in runs:
        if run.key in done:
            recorded = json.loads((done[run.key] / "values.json").read_text(encoding="utf-8"))
            yield run, {column: run.parameters[name] for name, column in named.items()}, recorded


def _write(table, path: Path) -> None:
    whole(path.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n").encode())
    # One type a column, as Parquet wants: a parameter may be a number in one run and a text in another.
    mixed = {c: table[c].map(str) for c in table if len({type(v) for v in table[c]}) > 1}
    whole(path.with_suffix(".parquet"), table.assign(**mixed).to_parquet(index=False))


def whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
