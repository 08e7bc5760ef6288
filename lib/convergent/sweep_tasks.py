"""The engine of every sweep: tasks on the workers of a cluster, followed until all have ended.

`follow` gives tasks to Dask and tells of each as it ends; a failed one stops no other. `run` does it for functions of
the library, each in a process of its own (`convergent.sweep_call`): training networks, the causal sweep.
"""

import os
import queue
import re
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import sweep_child, sweep_cluster
from .sweep_runs import SweepError

HEARTBEAT = 60  # seconds after which a sweep says that it still runs


@dataclass(frozen=True)
class Task:
    """A function and what to call it with; all of it travels pickled, so let the function be of a module.

    Attributes
    ----------
    title : for people; each task has its own
    """

    title: str
    function: Callable
    arguments: tuple = ()


@dataclass(frozen=True)
class Ended:
    """How a task ended: seconds that it took; where it failed, the error in one paragraph and what is kept of it."""

    seconds: float
    error: str = ""
    kept: str = ""


def follow(
    tasks: Sequence[Task],
    cluster: tuple,
    resources: dict[str, float],
    settle: Callable[[Task, dict | None, str], Ended],
    end: Callable[[], None],
    say: Callable,
) -> dict[str, str]:
    """Give tasks to the workers and tell of each as it ends, until all have. A lost worker's task is done again.

    Parameters
    ----------
    cluster : what `sweep_cluster.client` gives
    resources : what a task takes of its worker's
    settle : takes a task, what its function gave, and the error of a task that gave nothing; raises SweepError for what
        concerns all tasks
    end : has the workers end what still runs, and waits until they have; called where tasks are left running
    say : takes a line of text for the reader

    Returns
    -------
    title -> error of those that failed

    Raises
    ------
    SweepError for a lost scheduler, and as `settle`.
    KeyboardInterrupt when the reader stops it.
    """
    client, slots, _ = cluster
    prefix, arrived, futures = uuid.uuid4().hex[:8], queue.Queue(), {}
    for i, task in enumerate(tasks):
        about = {"key": f"{prefix}/{i}-{_as_a_name(task.title)}", "resources": resources or None}
        future = client.submit(task.function, *task.arguments, pure=False, **about)
        futures[future.key] = (task, future)
        future.add_done_callback(arrived.put)
    try:
        return _until_all_have(dict(futures), arrived, min(slots, len(tasks)), settle, say)
    finally:
        if any(future.status == "pending" for _, future in futures.values()):
            with sweep_cluster.deaf_to_ctrl_c():
                end()


def _until_all_have(waiting: dict, arrived: queue.Queue, slots: int, settle: Callable, say: Callable) -> dict[str, str]:
    seconds, n, failures = [], len(waiting), {}
    while waiting:
        try:
            future = arrived.get(timeout=HEARTBEAT)
        except queue.Empty:
            say(f"    {n - len(waiting)} of {n} ended, others are running or waiting{_left(seconds, waiting, slots)}")
            continue
        task, _ = waiting.pop(future.key)
        ended = settle(task, *_given(future))
        if ended.error:
            failures[task.title] = ended.error
            said = "FAILED"
        else:
            seconds.append(ended.seconds)
            said = f"done in {_duration(ended.seconds)}"
        say(f"[{n - len(waiting)} of {n}] {said}: {task.title}{_left(seconds, waiting, slots)}")
        if ended.error:
            say(f"    {ended.error}\n    {ended.kept}")
    return failures


def _given(future) -> tuple[dict | None, str]:
    """What a task gave, or the error of one whose worker could not tell."""
    if future.status in ("cancelled", "lost"):
        raise SweepError(
            "the scheduler is gone: finished runs are kept. Start it and its workers again and give the same command; "
            "only what is missing will be made"
        )
    if future.status == "error":
        error = future.exception()
        if type(error).__name__ == "KilledWorker":
            return None, f"every worker that tried it died ({error}); most often for want of memory"
        return None, f"{type(error).__name__}: {error}"
    return future.result(), ""


def refuse_what_concerns_all(given: dict | None, folder: Path) -> None:
    """Raise SweepError for a full disk, or for a worker that has another library: no other task would fare better.

    Parameters
    ----------
    given : what a task gave, with `status` and `error`
    folder : where it writes
    """
    status = given and given["status"]
    if status == "full":
        raise SweepError(full(folder, given["error"]))
    if status == "changed":
        raise SweepError(
            f"the library on {given['error']} is not the one that the sweep was started with: it changed since, or "
            "that worker has another version. Finished runs are kept; install the same one everywhere and give the "
            "command again"
        )


def full(folder: Path, error: str | None) -> str:
    """What to say where `folder` cannot be written."""
    return f"{error or 'cannot write'}: {folder}. Finished runs are kept; make room and give the same command again"


def _left(seconds: list[float], waiting: dict, slots: int) -> str:
    if not seconds or not waiting:
        return ""
    return f"; about {_duration(sum(seconds) / len(seconds) * len(waiting) / slots)} left"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if seconds >= 120 else f"{seconds:.0f} s"


# --- functions of the library --------------------------------------------------------------------------


def run(
    tasks: Sequence[Task],
    cluster: tuple,
    options: "sweep_cluster.Options",
    shared: Path,
    say: Callable = print,
    done: Callable = lambda task, value: None,
) -> dict[str, str]:
    """Call functions on the workers, each in a process of its own that sees the leader's cache and folder.

    Parameters
    ----------
    tasks : whose functions give what JSON can hold
    cluster : what `sweep_cluster.client` gives
    options : from which `resources` and `timeout` are taken
    shared : folder that all workers see, where the tasks keep what they make
    done : takes each task and what its function gave, in this process and one at a time

    Returns
    -------
    title -> error of those that failed; what they said is kept in `shared/failed/`

    Raises
    ------
    SweepError for a full disk, a worker with another library, or a lost scheduler.
    KeyboardInterrupt when the reader stops it; what runs is ended first.
    """
    from . import sweep_call

    if not tasks:
        return {}
    here = shared.resolve() / f".tasks-{uuid.uuid4().hex[:8]}"
    wanted = here / sweep_call.WANTED
    try:
        here.mkdir(parents=True)
        wanted.touch()
    except OSError as error:
        raise SweepError(full(shared, error.strerror)) from error
    orders = [sweep_call.order(f"{i}", task, here, options.timeout, cluster[2]) for i, task in enumerate(tasks)]
    sent = [Task(task.title, sweep_call.call, (made,)) for task, made in zip(tasks, orders, strict=True)]
    whose = {task.title: task for task in tasks}

    def settle(task: Task, given: dict | None, error: str) -> Ended:
        refuse_what_concerns_all(given, shared)
        if given and given["status"] == "done":
            done(whose[task.title], given["value"])
            return Ended(given["seconds"])
        kept = _keep_log(here / f"{task.arguments[0]['name']}.log", shared / "failed", task.title)
        return Ended(0.0, error or given["error"], f"what it said: {kept}")

    try:
        return follow(sent, cluster, options.resources, settle, lambda: _stop(wanted), say)
    finally:
        wanted.unlink(missing_ok=True)
        shutil.rmtree(here, ignore_errors=True)


def _stop(wanted: Path) -> None:
    wanted.unlink()
    time.sleep(4 * sweep_child.POLL)


def _keep_log(log: Path, folder: Path, title: str) -> Path:
    kept = folder / f"{_as_a_name(title)}.log"
    try:
        folder.mkdir(exist_ok=True)
        log.touch()  # of a task that no worker could begin
        os.replace(log, kept)
    except OSError as error:
        raise SweepError(full(folder, error.strerror)) from error
    return kept


def _as_a_name(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9._,=+-]", "_", title)[:90]
