"""The process that executes one run of a sweep: `python -m convergent.sweep_one`, started by `sweep_runs.make`.

Its order comes as one line of JSON.
"""

import json
import logging
import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from . import execution, results, sweep_child


def main() -> None:
    """Execute the run that standard input orders."""
    order = json.loads(sweep_child.ordered())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    out, name = Path(order["out"]), order["name"]
    try:
        with FileLock(out / "unfinished" / f"{name}.lock"):  # the worker before this one may not be quite gone
            if not (out / "runs" / name / "run.json").exists():
                _make(order, out / "unfinished" / name)
    except Exception as error:  # every failure is told, with the notebook kept as far as it got
        if sweep_child.disk_is_full(error):
            os._exit(sweep_child.FULL)  # nothing can be written, not even why
        logging.exception("failed")
        path = out / "unfinished" / f"{name}.outcome.json"
        path.write_text(json.dumps({"error": _told(error)}), encoding="utf-8")
        sys.exit(1)


def _make(order: dict, folder: Path) -> None:
    """Execute the notebook and write all files of the run, then give its folder the final name at once."""
    execution.skip_grammar_of_addresses()
    import papermill

    library = execution.library_hash()
    if library != order["parts"]["library"]:
        os._exit(sweep_child.CHANGED)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    started, clock = datetime.now(UTC), time.monotonic()
    executed = folder / "notebook.ipynb"
    with execution.kernel_of_this_python():
        papermill.execute_notebook(
            order["notebook"],
            executed,
            order["parameters"],
            kernel_name="python3",
            cwd=order["folder"],
            progress_bar=False,
        )
    seconds = time.monotonic() - clock
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    where = {
        "started": started.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "machine": platform.platform(),
        "threads": order["threads"],
        "versions": execution.versions(),
        "library": library,
    }
    _write(folder / "values.json", results.read_records(notebook))
    _write(folder / "provenance.json", results.read_stamp(notebook) | where)
    told = {name: order[name] for name in ("parameters", "chosen", "parts", "key")}
    _write(folder / "run.json", told | {"status": "done", "seconds": round(seconds, 2), "error": ""})
    _finish(order, folder)


def _finish(order: dict, folder: Path) -> None:
    out, name = Path(order["out"]), order["name"]
    log = folder.with_name(f"{name}.log")
    if log.exists():
        os.replace(log, folder / "log.txt")
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    (out / "runs").mkdir(exist_ok=True)
    os.replace(folder, out / "runs" / name)
    shutil.rmtree(out / "failed" / name, ignore_errors=True)


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _told(error: Exception) -> str:
    """One paragraph on an error: of a cell, what the cell said."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        return f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}"[:600]
    if isinstance(error, DeadKernelError):
        return "its kernel was ended from outside, most often for want of memory"
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
