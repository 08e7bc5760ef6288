"""Where the runs of a sweep are made: processes of this machine, or the workers of any Dask scheduler."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec

from .sweep_runs import SweepError


@dataclass(frozen=True)
class Options:
    """Where and how runs are made.

    Attributes
    ----------
    scheduler : address of a running scheduler ("tcp://…", "tls://…"); None starts workers on this machine
    workers : processes of a local cluster, each making one run at a time; None is one a core
    threads : threads of one run; None shares the cores among the workers, and is 1 with a scheduler
    gpus : GPUs of this machine; with them there is one worker a GPU, which sees only its own
    resources : what a run takes of its worker's resources, as {"GPU": 1}
    timeout : seconds after which a run is ended
    dashboard : address of a local cluster's dashboard; this machine only, unless another is named
    tls : paths "ca", "cert" and "key" of PEM files for "tls://"
    source : what to call the parameter sets in messages
    """

    scheduler: str | None = None
    workers: int | None = None
    threads: int | None = None
    gpus: int = 0
    resources: dict[str, float] = field(default_factory=dict)
    timeout: float | None = None
    dashboard: str = "127.0.0.1:8787"
    tls: dict[str, str] = field(default_factory=dict)
    source: str = "the grid"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def client(options: Options, n_runs: int, say: Callable) -> Iterator[tuple]:
    """(client, runs at a time, threads of a run) of a cluster, which is closed afterwards where it was started here.

    Raises
    ------
    SweepError for a scheduler that does not answer or has no worker with the resources asked for.
    """
    with _joined(options) if options.scheduler else _started(options, n_runs) as (connected, slots, threads):
        link = connected.dashboard_link if options.scheduler else connected.cluster.dashboard_link
        pages = "" if find_spec("bokeh") else " (its pages need `pip install bokeh`)"
        at_a_time = f"{slots} run{'s' * (slots > 1)} at a time, {threads} thread{'s' * (threads > 1)} each"
        say(f"{at_a_time}; dashboard: {link}{pages}")
        yield connected, slots, threads


@contextmanager
def _joined(options: Options) -> Iterator[tuple]:
    from distributed import Client
    from distributed.security import Security

    security = None
    if options.tls:
        ca, cert, key = (options.tls.get(name) for name in ("ca", "cert", "key"))
        security = Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # losing a scheduler is told in our words
    try:
        connected = Client(options.scheduler, security=security, timeout=15, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        raise SweepError(
            f"no scheduler answers at {options.scheduler} ({type(error).__name__}): start one with `dask scheduler`, "
            "and see that the address, the protocol (tcp or tls) and the certificates are right"
        ) from error
    try:
        fit = _slots(connected, options.resources)
        if not fit:
            asked = f" with {options.resources}" if options.resources else ""
            raise SweepError(f"the scheduler at {options.scheduler} has no worker{asked}: start one, then try again")
        yield connected, fit, options.threads or 1
    finally:
        connected.close(timeout=10)


def _slots(connected, resources: dict[str, float]) -> int:
    """Runs that the workers can make at a time."""
    workers = connected.scheduler_info(n_workers=-1)["workers"].values()
    return sum(
        int(min([worker["nthreads"], *(worker["resources"].get(name, 0) // n for name, n in resources.items())]))
        for worker in workers
    )


@contextmanager
def _started(options: Options, n_runs: int) -> Iterator[tuple]:
    from distributed import Client, Nanny, Scheduler, SpecCluster

    n = options.gpus or min(options.workers or cores(), n_runs)
    threads = options.threads or max(1, cores() // n)
    about = {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL, "dashboard_address": None}
    about |= {"host": "127.0.0.1", "resources": options.resources}
    workers = {i: {"cls": Nanny, "options": dict(about)} for i in range(n)}
    for i in range(options.gpus):
        workers[i]["options"]["env"] = {"CUDA_VISIBLE_DEVICES": str(i)}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": options.dashboard}}
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with deaf_to_ctrl_c():  # a terminal sends it to all processes; the workers leave it to this one, which ends them
        cluster = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL, name="sweep")
    try:
        with Client(cluster, set_as_default=False) as connected:
            yield connected, n, threads
    finally:
        cluster.close(timeout=10)


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Do not hear Ctrl-C in this block; nor do processes that are started in it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
