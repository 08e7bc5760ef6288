"""A process of its own for one task of a sweep, which can be ended: both ends of it.

Only a process can be ended when what it does hangs in C code, and only before NumPy and torch are loaded can its
threads be limited. Its order comes as one line on standard input, which stays open: when it ends, the worker that asked
was killed, and the child ends itself and all that it started, so that nothing goes on that nobody waits for.
"""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

POLL = 0.5  # seconds between two looks at a running child
FULL = 28  # how a child ends whose disk is full, when it cannot write down why
CHANGED = 29  # how it ends where the library is not that of the sweep: so will every other task
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


# --- the worker's end ----------------------------------------------------------------------------------


def run(
    module: str,
    order: bytes,
    log,
    folder: str | Path,
    threads: int,
    timeout: float | None,
    stopped: Callable[[], bool],
    environment: dict[str, str] | None = None,
) -> tuple[int, str]:
    """Run `python -m MODULE` to its end, or end it.

    Parameters
    ----------
    order : one line for its standard input
    log : open file for what it says
    folder, threads, environment : where it runs, with how many threads, and variables of its environment
    timeout : seconds after which it is ended; None waits
    stopped : whether it is to be ended, asked every now and then

    Returns
    -------
    code : its exit code
    why : why it had to be ended: "stopped", a sentence on the time limit, or nothing
    """
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=_inherited() | dict.fromkeys(_THREADS, str(threads)) | (environment or {}),
        cwd=folder,
        start_new_session=True,  # Ctrl-C is the driver's: it ends its tasks itself
    )
    why = ""
    try:
        child.stdin.write(order)
        child.stdin.flush()  # kept open: its end tells the child that the worker is gone
        while child.poll() is None and not why:
            if timeout and time.monotonic() - started > timeout:
                why = f"took longer than --timeout {timeout:g} seconds and was ended"
            elif stopped():
                why = "stopped"
            else:
                _wait(child)
    finally:
        end(child.pid)
        child.wait()
        child.stdin.close()
    return child.returncode, why


def _inherited() -> dict[str, str]:
    """The worker's environment without what Dask put there: freed memory given back at once costs much more time."""
    return {name: value for name, value in os.environ.items() if name != "MALLOC_TRIM_THRESHOLD_"}


def _wait(child: subprocess.Popen) -> None:
    try:
        child.wait(POLL)
    except subprocess.TimeoutExpired:
        return


def end(pid: int) -> None:
    """End a process and all that it started, kernels too, which are in sessions of their own."""
    import psutil

    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def last_words(code: int, log: str) -> str:
    """What to tell of a child that ended without saying why."""
    return f"its process ended with code {code}, most often for want of memory. Its last words: {log.strip()[-400:]}"


# --- the child's end -----------------------------------------------------------------------------------


def ordered() -> bytes:
    """The order, from standard input; from then on this process ends with the worker that gave it."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:
            sys.exit("no order on standard input")
        line += part
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    return line


def _end_with_the_worker() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock Python wants back when it shuts down
        pass
    end(os.getpid())


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False
