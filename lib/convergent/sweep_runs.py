"""One run of a sweep: what it is, whether it is done, and making it in a process of its own that can be ended.

A run is made by a task of Dask in a child process (`convergent.sweep_one`), as `convergent.sweep_child` explains.
"""

import json
import os
import platform
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import sweep_child


class SweepError(Exception):
    """What keeps a sweep from going on, and what the reader can do about it."""

    code = 3  # with which the command ends


class GridError(SweepError):
    """What was asked cannot be run; nothing was."""

    code = 2


@dataclass(frozen=True)
class Run:
    """One set of parameters and all that its numbers depend on.

    Attributes
    ----------
    parameters : every parameter of the notebook, defaults filled in
    chosen : those that the sweep set, which name the folder
    parts : name -> hash of parameters, notebook, library, shipped data, versions and what the parameters name
    """

    parameters: dict
    chosen: dict
    parts: dict

    @property
    def key(self) -> str:
        """Twelve digits that change with anything that the run depends on."""
        from .execution import hash_of

        return hash_of(self.parts)[:12]

    @property
    def name(self) -> str:
        """Folder of the run: the chosen parameters as far as they fit, and the key."""
        told = ",".join(f"{name}={value}" for name, value in self.chosen.items())
        return f"{re.sub(r'[^A-Za-z0-9._,=+-]', '_', told)[:90]}-{self.key}".lstrip("-,.")

    @property
    def title(self) -> str:
        """The chosen parameters, for people."""
        return ", ".join(f"{name}={value}" for name, value in self.chosen.items()) or "the notebook's defaults"


@dataclass(frozen=True)
class Order:
    """What a worker has to know to make a run; plain text and numbers, so that it travels."""

    name: str
    out: str  # folder of the sweep, which driver and workers share
    notebook: str  # the copy that all runs of the sweep execute
    folder: str  # in which the notebook runs: where the command was given
    parameters: dict
    chosen: dict
    parts: dict
    key: str
    timeout: float | None
    threads: int
    stop: str  # a file: when it appears, running notebooks are ended


def done(out: Path) -> dict[str, Path]:
    """Key -> folder of each run that is whole."""
    folders = (out / "runs").glob("*/run.json")
    return {path.parent.name.rsplit("-", 1)[-1]: path.parent for path in sorted(folders)}


def make(order: dict) -> dict:
    """Make a run, in a child process; called by Dask on a worker.

    Returns
    -------
    dict with `status` ("done", "failed", "stopped", "full" for a full disk, "changed" for a library that is not that of
    the sweep), `seconds` and `error`, one paragraph
    """
    out, name = Path(order["out"]), order["name"]
    if not Path(order["notebook"]).is_file():
        lacks = f"the worker on {platform.node()} does not see {order['notebook']}: --out must lie on a file system "
        return {"status": "failed", "seconds": 0.0, "error": f"{lacks}that all workers share"}
    if Path(order["stop"]).exists():
        return {"status": "stopped", "seconds": 0.0, "error": "stopped"}
    started = time.monotonic()
    try:
        log = (out / "unfinished" / f"{name}.log").open("ab")
    except OSError as error:
        return {"status": "full", "seconds": 0.0, "error": f"{error.strerror}: {out}"}
    with log:
        line = json.dumps(order).encode() + b"\n"
        options = {"threads": order["threads"], "timeout": order["timeout"], "stopped": Path(order["stop"]).exists}
        code, why = sweep_child.run("convergent.sweep_one", line, log, order["folder"], **options)
    seconds = time.monotonic() - started
    if why == "stopped":
        return {"status": "stopped", "seconds": seconds, "error": "stopped"}
    if why:
        return failed(order, why) | {"seconds": seconds}
    return _outcome(order, code) | {"seconds": seconds}


def _outcome(order: dict, code: int) -> dict:
    out, name = Path(order["out"]), order["name"]
    if (out / "runs" / name / "run.json").is_file():
        return {"status": "done", "error": ""}
    if code == sweep_child.FULL:
        return {"status": "full", "error": f"No space left on device: {out}"}
    if code == sweep_child.CHANGED:
        return {"status": "changed", "error": platform.node()}
    said = out / "unfinished" / f"{name}.outcome.json"
    if said.is_file():
        error = json.loads(said.read_text(encoding="utf-8"))["error"]
        said.unlink()
        return failed(order, error)
    log = (out / "unfinished" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    return failed(order, sweep_child.last_words(code, log))


def failed(order: dict, error: str) -> dict:
    """Keep what there is of a failed run in `failed/`, with the error; the outcome for the driver."""
    out, name = Path(order["out"]), order["name"]
    unfinished, kept = out / "unfinished" / name, out / "failed" / name
    outcome = {"status": "failed", "seconds": 0.0, "error": error}
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        told = {name: order[name] for name in ("parameters", "chosen", "parts", "key")}
        (unfinished / "run.json").write_text(json.dumps(told | outcome, indent=1) + "\n", encoding="utf-8")
        log = out / "unfinished" / f"{name}.log"
        if log.exists():
            os.replace(log, unfinished / "log.txt")
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(exist_ok=True)
        os.replace(unfinished, kept)
    except OSError as trouble:
        return {"status": "full", "seconds": 0.0, "error": f"{trouble.strerror}: {out}"}
    return outcome


def order(run: Run, out: Path, notebook: Path, folder: Path, timeout: float | None, threads: int, stop: Path) -> dict:
    """An `Order` as a plain dict."""
    made = Order(
        run.name,
        str(out),
        str(notebook),
        str(folder),
        run.parameters,
        run.chosen,
        run.parts,
        run.key,
        timeout,
        threads,
        str(stop),
    )
    return asdict(made)
