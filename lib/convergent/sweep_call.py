"""One task of a sweep that is a function: called in a process of its own, `python -m convergent.sweep_call`.

`call` is what a worker of Dask does. It neither unpickles the task nor loads torch: its child does both.
"""

import base64
import json
import logging
import os
import pickle
import platform
import sys
import time
from pathlib import Path

from filelock import FileLock

from . import execution, paths, sweep_child

WANTED = "wanted"  # a file beside those of the tasks: while it is there, the workers go on


def order(name: str, task, folder: Path, timeout: float | None, threads: int) -> dict:
    """What a worker has to know to do a task; plain text and numbers, so that it travels.

    Parameters
    ----------
    name : of its files in `folder`
    task : a `sweep_tasks.Task`
    folder : that leader and workers share
    timeout, threads : seconds after which it is ended, threads that it may use
    """
    import cloudpickle

    return {
        "name": name,
        "task": base64.b64encode(cloudpickle.dumps((task.function, task.arguments))).decode(),
        "folder": str(folder),
        "cwd": str(Path.cwd()),
        "library": execution.library_hash(),
        "environment": {"CONVERGENT_CACHE": str(paths.cache().resolve())},  # what is made must be found again
        "timeout": timeout,
        "threads": threads,
    }


def call(order: dict) -> dict:
    """Do a task in a child process; called by Dask on a worker.

    Returns
    -------
    dict with `status` ("done", "failed", "stopped", "full" for a full disk, "changed" for a library that is not that of
    the sweep), `seconds`, `error`, one paragraph, and the `value` that the function gave
    """
    folder, name, started = Path(order["folder"]), order["name"], time.monotonic()
    ended = {"status": "failed", "seconds": 0.0, "error": "", "value": None}
    wanted = folder / WANTED
    if not wanted.exists():
        lacks = f"the worker on {platform.node()} does not see {folder.parent}: it must lie on a file system "
        return ended | {"error": f"{lacks}that all workers share"}
    try:
        log = (folder / f"{name}.log").open("ab")
    except OSError as error:
        return ended | {"status": "full", "error": error.strerror}
    with log:
        line = json.dumps(order).encode() + b"\n"
        options = {name: order[name] for name in ("threads", "timeout", "environment")}
        options["stopped"] = lambda: not wanted.exists()
        code, why = sweep_child.run("convergent.sweep_call", line, log, order["cwd"], **options)
    ended["seconds"] = time.monotonic() - started
    if why:
        return ended | {"status": "stopped" if why == "stopped" else "failed", "error": why}
    if code == sweep_child.FULL:
        return ended | {"status": "full", "error": "No space left on device"}
    if code == sweep_child.CHANGED:
        return ended | {"status": "changed", "error": platform.node()}
    answer = folder / f"{name}.json"
    if answer.exists():
        return ended | json.loads(answer.read_text(encoding="utf-8"))
    said = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    return ended | {"error": sweep_child.last_words(code, said)}


def main() -> None:
    """Do the task that standard input orders, and leave its answer beside its log."""
    order = json.loads(sweep_child.ordered())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    folder, name = Path(order["folder"]), order["name"]
    if execution.library_hash() != order["library"]:
        os._exit(sweep_child.CHANGED)
    try:
        with FileLock(folder / f"{name}.lock"):  # the worker before this one may not be quite gone
            function, arguments = pickle.loads(base64.b64decode(order["task"]))
            answer = json.dumps({"status": "done", "value": function(*arguments)})
    except Exception as error:  # every failure is told
        if sweep_child.disk_is_full(error):
            os._exit(sweep_child.FULL)
        logging.exception("failed")
        answer = json.dumps({"status": "failed", "error": f"{type(error).__name__}: {error}"})
    unfinished = folder / f"{name}.unfinished"
    unfinished.write_text(answer, encoding="utf-8")
    os.replace(unfinished, folder / f"{name}.json")


if __name__ == "__main__":
    main()
