"""Processes of Dask that tests start, find and kill."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def until(true: Callable, seconds: float = 120):
    """What `true` gives once that is something; fails when it takes too long."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"waited {seconds} seconds in vain"
        time.sleep(0.1)
    return found


def running(module: str, process: psutil.Process | None = None) -> list[psutil.Process]:
    """The processes below one (this one when None) that run `python -m MODULE`."""
    found = []
    for child in (process or psutil.Process()).children(recursive=True):
        try:
            if module in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def worker_of(module: str) -> psutil.Process:
    """The worker process of this test's cluster that started first to run `python -m MODULE`."""
    return until(lambda: running(module))[0].parent()


def gone(processes: list[psutil.Process], seconds: float = 20) -> bool:
    """Whether processes have ended, or do so in time."""
    _, alive = psutil.wait_procs([p for p in processes if p.is_running()], timeout=seconds)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


@contextmanager
def scheduler_and_worker(folder: Path) -> Iterator[tuple[str, subprocess.Popen, psutil.Process]]:
    """A scheduler and a worker in processes of their own: address, scheduler, worker; killed at the end."""
    folder.mkdir()
    dask, where = [sys.executable, "-m", "dask"], folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    on = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", where]
    scheduler = subprocess.Popen([*dask, "scheduler", *on], **quiet)
    of = ["--scheduler-file", where, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    worker = subprocess.Popen([*dask, "worker", *of], **quiet)
    try:
        address = json.loads(until(lambda: where.exists() and where.read_text()))["address"]
        until(lambda: workers_of(address))
        yield address, scheduler, psutil.Process(worker.pid)
    finally:
        for process in (scheduler, worker):
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()
            process.wait()


def workers_of(address: str) -> int:
    """How many workers a scheduler has."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        return len(client.nthreads())
