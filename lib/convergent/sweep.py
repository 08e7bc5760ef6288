"""Many runs of a notebook on Dask: a laptop's cores, or any number of machines.

`python -m convergent sweep notebooks/04_depth.ipynb grid.yaml --out runs/` makes a run for every set of parameters.
A run is done when its folder has its final name, so a sweep that was stopped, or lost a machine, goes on where it was.
"""

import json
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from . import execution, sweep_child, sweep_cluster, sweep_grid, sweep_runs, sweep_tasks
from .sweep_runs import GridError, Run, SweepError
from .sweep_tasks import Ended, Task


@dataclass
class Outcome:
    """What became of the runs of a sweep: each by its title, with the error of those that failed."""

    n_runs: int
    made: int = 0
    already: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def plan(notebook: Path, sets: list[dict], source: str = "the grid") -> list[Run]:
    """The runs for parameter sets, checked, with the hashes of all that each depends on.

    Parameters
    ----------
    notebook : with a cell tagged `parameters`
    sets : parameters of each run that are not the notebook's defaults
    source : what to call the sets in an error

    Raises
    ------
    GridError for a notebook that cannot be read or has no parameters, or sets that do not fit it.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))
        declared = execution.declared(cells)
        filled = sweep_grid.check(sets, declared, source)
    except FileNotFoundError as error:
        raise GridError(f"{notebook} is not here: give the path of a notebook") from error
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError) as error:
        raise GridError(f"{notebook} is no notebook") from error
    except ValueError as error:
        raise GridError(f"{notebook.name}: {error}" if "nothing was run" not in str(error) else str(error)) from error
    shared = {
        "notebook": execution.source_hash(cells),
        "library": execution.library_hash(),
        "shipped data": execution.shipped_hash(),
        "versions": execution.hash_of(execution.versions())[:16],
    }
    known, runs = {}, []
    for chosen, parameters in zip(sets, filled, strict=True):
        named = {name: execution.hash_of_named(value, known) for name, value in parameters.items()}
        parts = {"parameters": execution.hash_of(parameters)[:16], **shared}
        parts |= {f"files of {name}": digest for name, digest in named.items() if digest}
        runs.append(Run(parameters, chosen, parts))
    first = {}
    for run in runs:
        same = first.setdefault(run.parts["parameters"], run)
        if same is not run:
            raise GridError(f"{source}: {same.title} and {run.title} are one run: each set once")
    return runs


def sweep(
    notebook: Path, sets: list[dict], out: Path, options: "sweep_cluster.Options", say: Callable = print
) -> Outcome:
    """Make every run that `out` does not hold yet, and the tables and the report of all.

    Parameters
    ----------
    notebook, sets : as for `plan`
    out : folder of the results; made when missing
    options : where and how runs are made
    say : takes a line of text for the reader

    Raises
    ------
    SweepError before any run for parameters that do not fit, another sweep in `out` or a scheduler out of reach;
    later for a full disk or a lost scheduler. What is finished stays.
    KeyboardInterrupt when the reader stops it; running notebooks are ended first.
    """
    runs = plan(notebook, sets, options.source)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "unfinished").mkdir(exist_ok=True)
    except OSError as error:
        raise SweepError(f"--out {out} cannot be written ({error.strerror}): choose another folder") from error
    with _alone(out):
        done = sweep_runs.done(out)
        missing = [run for run in runs if run.key not in done]
        outcome = Outcome(len(runs), already=len(runs) - len(missing))
        say(f"{len(runs)} runs of {notebook.stem}: {outcome.already} done before, {len(missing)} to do")
        for line in changes(missing, out):
            say(line)
        if missing:
            _check_values(notebook, missing, options.source)
        try:
            if missing:
                _make(notebook, missing, out, options, outcome, say)
        except BaseException:
            _report(notebook, runs, out, say, drawn=False)  # who stops a sweep does not want to wait for figures
            raise
        _report(notebook, runs, out, say)
    return outcome


@contextmanager
def _alone(out: Path):
    """Hold the folder of a sweep, or say who does."""
    told, lock = out / ".sweep.json", FileLock(out / ".sweep.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = told.read_text(encoding="utf-8").strip() if told.is_file() else "another process"
        raise SweepError(
            f"{out} belongs to another sweep that is running ({who}): wait for it, or use another --out"
        ) from None
    with lock:
        try:
            about = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M')}"
            told.write_text(about + "\n", encoding="utf-8")
        except OSError as error:
            raise SweepError(
                f"--out {out} cannot be written ({error.strerror}): make room, or choose another"
            ) from error
        yield


def changes(missing: list[Run], out: Path) -> list[str]:
    """What has changed since runs with the same parameters were made, a line for each kind of change."""
    earlier = {}
    for folder in sweep_runs.done(out).values():
        parts = json.loads((folder / "run.json").read_text(encoding="utf-8"))["parts"]
        earlier[parts["parameters"]] = parts
    found = Counter()
    for run in missing:
        before = earlier.get(run.parts["parameters"])
        if before:
            differ = [part for part in {**before, **run.parts} if before.get(part) != run.parts.get(part)]
            found[", ".join(differ)] += 1
    return [
        f"{n} of them were made before {what} changed: made again; the earlier runs stay" for what, n in found.items()
    ]


def _check_values(notebook: Path, missing: list[Run], source: str) -> None:
    from . import sweep_check

    refused = sweep_check.refused(notebook, [run.parameters for run in missing])
    if refused:
        told = "\n  ".join(f"{missing[i].title}: {error}" for i, error in refused.items())
        raise GridError(f"{source}: nothing was run.\n  {told}")


def _make(notebook: Path, missing: list[Run], out: Path, options, outcome: Outcome, say: Callable) -> None:
    """Make runs on a cluster; raises SweepError and KeyboardInterrupt as `sweep`."""
    copy = out / "notebooks" / f"{notebook.stem}-{missing[0].parts['notebook']}.ipynb"
    try:
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(notebook.read_bytes())  # all runs execute this one, whatever happens to the notebook meanwhile
    except OSError as error:
        raise SweepError(sweep_tasks.full(out, error.strerror)) from error
    stop = out / f".stop-{uuid.uuid4().hex[:8]}"
    with sweep_cluster.client(options, len(missing), say) as cluster:
        here = (out.resolve(), copy.resolve(), Path.cwd())
        orders = [sweep_runs.order(run, *here, options.timeout, cluster[2], stop.resolve()) for run in missing]
        tasks = [Task(run.title, sweep_runs.make, (order,)) for run, order in zip(missing, orders, strict=True)]

        def settle(task: Task, given: dict | None, error: str) -> Ended:
            ended = _settled(task.arguments[0], given, error, out)
            outcome.made += not ended.error
            if ended.error:
                outcome.failures[task.title] = ended.error
            return ended

        sweep_tasks.follow(tasks, cluster, options.resources, settle, lambda: _end(stop), say)


def _settled(order: dict, given: dict | None, error: str, out: Path) -> Ended:
    """How a run ended; of one that could not keep what there is of it, that is done here."""
    sweep_tasks.refuse_what_concerns_all(given, out)
    kept = out / "failed" / order["name"]
    if given is None or (given["status"] == "failed" and not kept.exists()):
        given = sweep_runs.failed(order, error or given["error"])
        sweep_tasks.refuse_what_concerns_all(given, out)
    return Ended(given["seconds"], given["error"], f"kept: {kept}")


def _end(stop: Path) -> None:
    """Have workers end the notebooks that still run, and wait until they have."""
    try:
        stop.touch()
        time.sleep(4 * sweep_child.POLL)
    except OSError:  # a full disk: the workers are ended with their cluster, and their notebooks with them
        return
    finally:
        stop.unlink(missing_ok=True)


def _report(notebook: Path, runs: list[Run], out: Path, say: Callable, drawn: bool = True) -> None:
    """Write tables and report, where they are not those of these runs already."""
    from . import sweep_tables

    try:
        sweep_tables.renew(notebook.stem, runs, out, drawn)
    except OSError as error:
        raise SweepError(sweep_tasks.full(out, error.strerror)) from error
    say(f"Table: {out / 'results.csv'} (and .parquet)" + (f"; report: {out / 'report.html'}" if drawn else ""))
