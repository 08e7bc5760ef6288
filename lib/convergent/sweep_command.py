"""`python -m convergent sweep NOTEBOOK GRID --out FOLDER`: what the reader types and is told."""

import sys
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
    parser.set_defaults(run=run)


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
    from . import sweep

    say = partial(print, flush=True)
    tls = {name: value for name in ("ca", "cert", "key") if (value := getattr(options, f"tls_{name}"))}
    try:
        fixed = {name: yaml.safe_load(value) for name, value in options.fixed}
        sets = sweep_grid.read(options.grid, fixed)
    except (ValueError, FileNotFoundError) as error:
        return _stopped(error, 2)
    where = Options(
        scheduler=options.scheduler,
        workers=options.workers,
        threads=options.threads,
        gpus=options.gpus,
        resources=dict(options.resource),
        timeout=options.timeout,
        dashboard=options.dashboard,
        tls=tls,
        source=options.grid.name,
    )
    try:
        outcome = sweep.sweep(options.notebook, sets, options.out, where, say)
    except SweepError as error:
        return _stopped(error, error.code)
    except KeyboardInterrupt:
        return _stopped("stopped. Finished runs are kept: give the same command again to go on", 130)
    if outcome.failures:
        say(f"{len(outcome.failures)} of {outcome.n_runs} runs failed; the same command tries them again.")
        return 1
    say(
        f"All {outcome.n_runs} runs are done"
        + (f", {outcome.made} of them now." if outcome.made else "; nothing to do.")
    )
    return 0


def _stopped(error, code: int) -> int:
    print(f"convergent sweep: {error}", file=sys.stderr, flush=True)
    return code
