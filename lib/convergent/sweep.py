"""Many runs of a notebook on Dask: a laptop's cores, or any number of machines.

`python -m convergent sweep notebooks/04_depth.ipynb grid.yaml --out runs/` makes a run for every set of parameters.
A run is done when its folder has its final name, so a sweep that was stopped, or lost a machine, goes on where it was.
"""

import json
import os
import queue
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from . import execution, sweep_cluster, sweep_grid, sweep_runs
from .sweep_runs import GridError, Run, SweepError

HEARTBEAT = 60  # seconds after which a sweep says that it still runs


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
        raise SweepError(_full(out, error.strerror)) from error
    stop = out / f".stop-{uuid.uuid4().hex[:8]}"
    with sweep_cluster.client(options, len(missing), say) as (client, slots, threads):
        orders = [
            sweep_runs.order(run, out.resolve(), copy.resolve(), Path.cwd(), options.timeout, threads, stop.resolve())
            for run in missing
        ]
        arrived = queue.Queue()
        futures = {}
        for made in orders:
            future = client.submit(
                sweep_runs.make,
                made,
                key=f"{stop.name}/{made['name']}",
                pure=False,
                resources=options.resources or None,
            )
            futures[future.key] = made
            future.add_done_callback(arrived.put)
        try:
            _follow(futures, arrived, min(slots, len(missing)), out, outcome, say)
        finally:
            with _deaf():
                _end(stop, client, futures)


def _follow(futures: dict, arrived: queue.Queue, slots: int, out: Path, outcome: Outcome, say: Callable) -> None:
    """Tell of each run as it ends, until all have."""
    seconds, n, waiting = [], len(futures), dict(futures)
    while waiting:
        try:
            future = arrived.get(timeout=HEARTBEAT)
        except queue.Empty:
            say(f"    {n - len(waiting)} of {n} ended, others are running or waiting{_left(seconds, waiting, slots)}")
            continue
        order = waiting.pop(future.key)
        ended = _ended(future, order)
        if ended["status"] == "full":
            raise SweepError(_full(out, ended["error"]))
        if ended["status"] == "changed":
            raise SweepError(
                f"the library on {ended['error']} is not the one that the sweep was started with: it changed since, or "
                "that worker has another version. Finished runs are kept; install the same one everywhere and give the "
                "command again"
            )
        title = ", ".join(f"{name}={value}" for name, value in order["chosen"].items()) or "the notebook's defaults"
        if ended["status"] == "done":
            outcome.made += 1
            seconds.append(ended["seconds"])
            said = f"done in {_duration(ended['seconds'])}"
        else:
            outcome.failures[title] = ended["error"]
            said = "FAILED"
        say(f"[{n - len(waiting)} of {n}] {said}: {title}{_left(seconds, waiting, slots)}")
        if said == "FAILED":
            say(f"    {ended['error']}\n    kept: {out / 'failed' / order['name']}")


def _ended(future, order: dict) -> dict:
    """The outcome of a run, also of one whose worker could not tell."""
    if future.status in ("cancelled", "lost"):
        raise SweepError(
            "the scheduler is gone: finished runs are kept. Start it and its workers again and give the same command; "
            "only what is missing will be made"
        )
    if future.status == "error":
        error = future.exception()
        if type(error).__name__ == "KilledWorker":
            return sweep_runs.failed(order, f"every worker that tried it died ({error}); most often for want of memory")
        return sweep_runs.failed(order, f"{type(error).__name__}: {error}")
    ended = future.result()
    kept = Path(order["out"]) / "failed" / order["name"]
    return sweep_runs.failed(order, ended["error"]) if ended["status"] == "failed" and not kept.exists() else ended


def _end(stop: Path, client, futures: dict) -> None:
    """Have workers end what still runs, and wait until they have."""
    open_ones = [future for key in futures if (future := client.futures.get(key)) and future.status == "pending"]
    if not open_ones:
        return
    try:
        stop.touch()
        time.sleep(4 * sweep_runs.POLL)
    except OSError:  # a full disk: the workers are ended with their cluster, and their notebooks with them
        return
    finally:
        stop.unlink(missing_ok=True)


@contextmanager
def _deaf():
    """Do not hear Ctrl-C while running notebooks are being ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _report(notebook: Path, runs: list[Run], out: Path, say: Callable, drawn: bool = True) -> None:
    """Write tables and report, where they are not those of these runs already."""
    from . import sweep_tables

    try:
        sweep_tables.renew(notebook.stem, runs, out, drawn)
    except OSError as error:
        raise SweepError(_full(out, error.strerror)) from error
    say(f"Table: {out / 'results.csv'} (and .parquet)" + (f"; report: {out / 'report.html'}" if drawn else ""))


def _full(out: Path, error: str) -> str:
    return f"{error or 'cannot write'}: {out}. Finished runs are kept; make room and give the same command again"


def _left(seconds: list[float], waiting: dict, slots: int) -> str:
    if not seconds or not waiting:
        return ""
    return f"; about {_duration(sum(seconds) / len(seconds) * len(waiting) / slots)} left"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if seconds >= 120 else f"{seconds:.0f} s"
