"""`python -m convergent sweep NOTEBOOK GRID --out FOLDER`: what the reader types and is told."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from . import sweep_grid
from .sweep_cluster import Options
from .sweep_runs import SweepError

CODES = """exit codes: 0 all runs are done; 1 some failed (each keeps its notebook with the error);
2 nothing was run, for a mistake in what was asked; 3 the sweep could not go on; 130 stopped by Ctrl-C"""


def add_to(commands) -> None:
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser(
        "sweep",
        help="a run of a notebook for every set of parameters in a file",
        description="Run a notebook for every set of parameters, on all cores or on a cluster. Give the same command "
        "again after anything went wrong: only what is missing is made.",
        epilog=CODES,
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("grid", type=Path, help="YAML: `grid:` or `runs:`, and `fixed:`")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs, tables and report")
    parser.add_argument("-p", dest="fixed", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    add_where(parser)
    parser.set_defaults(run=run)


def add_where(parser) -> None:
    """Add what says where and how runs are made; `where` reads it."""
    parser.add_argument("--workers", type=_positive(int), help="processes on this machine; one a core unless said")
    parser.add_argument("--threads", type=_positive(int), help="threads of one run")
    parser.add_argument(
        "--gpus", type=_positive(int), default=0, help="GPUs of this machine, each for one run at a time"
    )
    parser.add_argument("--timeout", type=_positive(float), metavar="SECONDS", help="end a run that takes longer")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="a Dask scheduler, tcp://… or tls://…, for many machines"
    )
    parser.add_argument(
        "--resource", type=_resource, action="append", default=[], metavar="NAME=N", help="such as GPU=1"
    )
    parser.add_argument(
        "--dashboard", default="127.0.0.1:8787", metavar="HOST:PORT", help="seen from this machine only"
    )
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--tls-{name}", metavar="FILE", help="for a scheduler at tls://")


def _positive(kind):
    def number(text: str):
        value = kind(text)
        if value <= 0:
            raise ValueError(text)
        return value

    number.__name__ = "positive number"  # argparse names it in its error
    return number


def _resource(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, _positive(float)(value)


def run(options) -> int:
    """Make the sweep; the exit code."""
    say = partial(print, flush=True)
    try:
        fixed = {name: yaml.safe_load(value) for name, value in options.fixed}
        sets = sweep_grid.read(options.grid, fixed)
    except (ValueError, FileNotFoundError) as error:
        return _stopped("convergent sweep", error, 2)
    return stopped_in_words("convergent sweep", lambda: _made(options, sets, say))


def _made(options, sets: list[dict], say: Callable) -> int:
    from . import sweep

    outcome = sweep.sweep(options.notebook, sets, options.out, where(options, options.grid.name), say)
    if outcome.failures:
        say(f"{len(outcome.failures)} of {outcome.n_runs} runs failed; the same command tries them again.")
        return 1
    say(
        f"All {outcome.n_runs} runs are done"
        + (f", {outcome.made} of them now." if outcome.made else "; nothing to do.")
    )
    return 0


def where(options, source: str = "") -> Options:
    """What the flags of `add_where` say; `source` is what to call the parameter sets in messages."""
    return Options(
        scheduler=options.scheduler,
        workers=options.workers,
        threads=options.threads,
        gpus=options.gpus,
        resources=dict(options.resource),
        timeout=options.timeout,
        dashboard=options.dashboard,
        tls={name: value for name in ("ca", "cert", "key") if (value := getattr(options, f"tls_{name}"))},
        source=source,
    )


def where_if_asked(parser, options) -> Options | None:
    """The same for a command that works in its own process unless workers are asked for."""
    if options.workers or options.scheduler or options.gpus:
        return where(options)
    tls = (options.tls_ca, options.tls_cert, options.tls_key)
    if options.threads or options.timeout or options.resource or any(tls):
        parser.error("--threads, --timeout, --resource and --tls-… go with --workers, --gpus or --scheduler")
    return None


def stopped_in_words(name: str, do: Callable[[], int]) -> int:
    """The exit code of `do`; what keeps it from going on is one message of the command `name`."""
    try:
        return do()
    except SweepError as error:
        return _stopped(name, error, error.code)
    except KeyboardInterrupt:
        return _stopped(name, "stopped. Finished runs are kept: give the same command again to go on", 130)


def _stopped(name: str, error, code: int) -> int:
    print(f"{name}: {error}", file=sys.stderr, flush=True)
    return code
