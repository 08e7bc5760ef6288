"""The metrics against other packages: seconds, memory, and whether the values agree.

    python benchmarks/metrics.py [--quick] [--publish] [--only GROUP ...] [--dtype float64] [--rounds 5] [--threads 2]

Each side of a comparison has its own process and the same arrays; sides take turns, so that a drift of the machine's
speed hits all of them. Reported are medians over rounds, and the median over rounds of the ratio to ours in the same
round: absolute times on shared machines mean little. Results go to `_build/benchmarks/`; `--publish` writes them to
`data/published/`, from where the book's page takes them.
"""

import argparse
import csv
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent
COLUMNS = (
    "group work side kind dtype variable size n_stimuli n_layers n_pairs n_units rounds "
    "seconds low high ratio memory_mib difference note"
).split()
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 1024, 1024)
MAPPINGS = ("linear", "procrustes", "permutation", "soft_matching")
IN_SAMPLE = ("cka_debiased", "shape_cosine", "permutation", "soft_matching")
LONG = 60  # seconds: a peer that took longer is not asked for the next larger size
SAME = 1e-3  # values that differ by more are another estimate, whose time is no match
ENOUGH = 120  # seconds: after so many, no further round


@dataclass(frozen=True)
class Side:
    """One way of doing the work: a function of ours.py, floor.py or peers.py, and its options."""

    name: str
    function: str
    options: dict = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return {"ours": "ours", "floor": "floor"}.get(self.function.split(".")[0], "peer")


@dataclass(frozen=True)
class Work:
    """What is timed, on which arrays; the first side is ours, and the others are compared with it."""

    group: str
    work: str
    sides: tuple[Side, ...]
    widths: tuple = WIDTHS
    n_stimuli: int = 2000
    variable: str = ""
    size: int = 0
    rounds: int | None = None
    needs_arrays: bool = True


def ours(metrics, folds=5, nulls=0) -> Side:
    return Side("ours", "ours.grid", {"metrics": list(metrics), "folds": folds, "nulls": nulls})


def floor_of(metrics, folds=5) -> Side:
    return Side("floor", "floor.grid", {"metrics": list(metrics), "folds": folds})


# --- what is timed ---------------------------------------------------------------------------------

HELD_OUT_PEERS = {
    "linear": (
        Side("scikit-learn Ridge, pair by pair", "peers.linear_by_pair"),
        Side("scikit-learn Ridge, targets stacked", "peers.linear_stacked"),
    ),
    "procrustes": (
        Side("SciPy orthogonal_procrustes", "peers.procrustes_padded"),
        Side("SciPy svd, unpadded", "peers.procrustes_svd"),
    ),
    "permutation": (Side("SciPy linear_sum_assignment", "peers.permutation"),),
    "soft_matching": (Side("POT emd", "peers.soft_matching"),),
}
IN_SAMPLE_PEERS = {
    "cka_debiased": (
        Side("pytorch-cka", "peers.cka_pytorch_cka"),
        Side("torch-cka", "peers.cka_torch_cka"),
        Side("pytorch-cka, batches of 256", "peers.cka_pytorch_cka_batches"),
    ),
    "cka": (Side("ckatorch", "peers.cka_ckatorch"),),
    "shape_cosine": (Side("SciPy svdvals", "peers.shape_cosine"),),
    "permutation": (Side("SciPy linear_sum_assignment", "peers.permutation", {"folds": None}),),
    "soft_matching": (Side("POT emd", "peers.soft_matching", {"folds": None}),),
}


def held_out() -> list[Work]:
    parts = [Work("held out", m, (ours([m]), floor_of([m]), *HELD_OUT_PEERS[m])) for m in MAPPINGS]
    return [*parts, Work("held out", "all", (ours(MAPPINGS), floor_of(MAPPINGS)))]


def in_sample() -> list[Work]:
    parts = [
        Work("in sample", m, (ours([m], None), floor_of([m], None), *peers)) for m, peers in IN_SAMPLE_PEERS.items()
    ]
    rsa = (ours(["rsa"], None), Side("rsatoolbox", "peers.rsa_rsatoolbox"), Side("SciPy pdist", "peers.rsa_scipy"))
    together = Work("in sample", "all", (ours(IN_SAMPLE, None), floor_of(IN_SAMPLE, None)))
    return [*parts, Work("in sample", "rsa", rsa), together]


def nested() -> list[Work]:
    options = {"alphas": np.logspace(-1, 7, 17).tolist()}
    sides = [
        Side("ours", "ours.nested", options),
        Side("floor", "floor.nested", options),
        Side("himalaya RidgeCV", "peers.nested_himalaya", options),
        Side("himalaya RidgeCV, torch", "peers.nested_himalaya", options | {"backend": "torch"}),
        Side("scikit-learn GridSearchCV", "peers.nested_grid_search", options),
        Side("scikit-learn RidgeCV, leave one out", "peers.nested_ridge_cv", options),
    ]
    return [Work("nested", "17 alphas", tuple(sides), widths=(512,))]


def chance() -> list[Work]:
    default = ("linear", "procrustes", "soft_matching")
    return [Work("chance", "20 shuffles", (ours(default), replace(ours(default, nulls=20), name="ours, 20 shuffles")))]


def memory() -> list[Work]:
    sizes, widths = (4000, 8000, 16000, 32000, 64000), (64, 128, 256, 512)
    work = []
    for n in sizes:
        options = {"widths": list(widths), "n_stimuli": n}
        sides = Side("ours, streaming", "ours.streamed", options), Side("activations held", "ours.held", options)
        work.append(Work("memory", "procrustes", sides, widths, n, "stimuli", n, rounds=1, needs_arrays=False))
    return work


def growth() -> list[Work]:
    peers = {
        "linear": HELD_OUT_PEERS["linear"][1],
        "procrustes": HELD_OUT_PEERS["procrustes"][1],
        "soft_matching": HELD_OUT_PEERS["soft_matching"][0],
    }
    work = []
    for metric, peer in peers.items():
        sides = ours([metric]), peer
        for n in (1000, 2000, 4000, 8000, 16000, 32000, 64000):
            work.append(Work("growth", metric, sides, ((256, 192),), n, "stimuli", n, rounds=1))
        for n in (64, 128, 256, 512, 1024, 2048):
            work.append(Work("growth", metric, sides, ((n, 3 * n // 4),), 2000, "units", n, rounds=1))
        for n in (1, 2, 4, 8, 16):
            work.append(Work("growth", metric, sides, ((128, 96),) * n, 2000, "layers", n, rounds=1))
    return work


GROUPS = {
    "held out": held_out,
    "in sample": in_sample,
    "nested": nested,
    "chance": chance,
    "memory": memory,
    "growth": growth,
}


def small(work: Work) -> Work:
    """The same in a fraction of a second: to see whether it runs, not how fast."""
    widths, n_stimuli = ((20, 20), (16, 12)), 200
    options = {"widths": widths, "n_stimuli": 1000, "alphas": [1.0, 100.0]}
    sides = tuple(replace(side, options={k: options.get(k, v) for k, v in side.options.items()}) for side in work.sides)
    return replace(work, widths=widths, n_stimuli=n_stimuli, sides=sides, rounds=1, needs_arrays=True)


def _pair(width) -> tuple:
    return width if isinstance(width, tuple) else (width, width)


# --- running it ------------------------------------------------------------------------------------


class Worker:
    """A process that works for one side."""

    def __init__(self, arrays: Path, folder: Path, threads: int, trial: bool):
        self.folder, self.warm, self.trial = folder, set(), trial
        self.log = open(folder / "workers.log", "a")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), str(arrays)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment(threads),
        )

    def run(self, side: Side) -> tuple[dict, dict]:
        """What it took, and the values that came out."""
        out = self.folder / "values.npz"
        order = {
            "function": side.function,
            "options": side.options,
            "out": str(out),
            "trial": self.trial and side.name not in self.warm,
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            said = (self.folder / "workers.log").read_text(encoding="utf-8").strip().splitlines()[-15:]
            raise SystemExit(f"{side.name} ({side.function}) stopped:\n" + "\n".join(said))
        self.warm.add(side.name)
        answer = json.loads(answer)
        if "missing" in answer:
            return answer, {}
        with np.load(out, allow_pickle=False) as values:
            return answer, dict(values)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def environment(threads: int) -> dict[str, str]:
    """That of this process, with one number of threads for all libraries, no progress bars, and OpenBLAS free to choose
    its kernels: where a shell fixes them for old versions, NumPy and SciPy would be slowed and torch not."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return own | limits | {"TQDM_DISABLE": "1"}


def run(work: Work, folder: Path, rounds: int, threads: int, dtype: str, skip: set, workers: dict | None) -> list[dict]:
    """Rows of the table for one piece of work. Each side has a new process, unless there are `workers` to share."""
    arrays = _arrays(work, folder, dtype)
    sides = [side for side in work.sides if side.name not in skip]
    own = {} if workers is None else workers
    times, memory, values, notes = {}, {}, {}, {}
    started = time.perf_counter()
    for i in range(work.rounds or rounds):
        if i and time.perf_counter() - started > ENOUGH:
            break
        turn = i % len(sides)
        for side in sides[turn:] + sides[:turn]:
            if side.name in notes:
                continue
            key = arrays if workers is not None else side.name
            if key not in own:
                own[key] = Worker(arrays, folder, threads, trial=work.needs_arrays and workers is None)
            answer, found = own[key].run(side)
            if "missing" in answer:
                if side.kind != "peer":
                    raise SystemExit(f"{answer['missing']} is missing, without which nothing can be timed")
                notes[side.name] = "not installed"
                continue
            times.setdefault(side.name, []).append(answer["seconds"])
            memory[side.name] = max(memory.get(side.name, 0), answer["memory_mib"])
            values[side.name] = found
    if workers is None:
        for worker in own.values():
            worker.stop()
    skip |= {name for name, seconds in times.items() if median(seconds) > LONG and name != work.sides[0].name}
    return [_row(work, side, dtype, times, memory, values, notes) for side in sides]


def _arrays(work: Work, folder: Path, dtype: str) -> Path:
    widths, n_stimuli = (work.widths, work.n_stimuli) if work.needs_arrays else ((2,), 10)  # it makes its own
    settings = json.dumps({"widths": widths, "n_stimuli": n_stimuli, "dtype": dtype})
    path = folder / f"arrays-{hashlib.sha256(settings.encode()).hexdigest()[:12]}.npz"
    if not path.exists():
        for old in folder.glob("arrays-*.npz"):
            old.unlink()
        subprocess.run([sys.executable, str(HERE / "arrays.py"), str(path), settings], check=True)
    return path


def _row(work, side, dtype, times, memory, values, notes) -> dict:
    pairs = [_pair(width) for width in work.widths]
    row = dict.fromkeys(COLUMNS, "") | {
        "group": work.group,
        "work": work.work,
        "side": side.name,
        "kind": side.kind,
        "dtype": dtype,
        "variable": work.variable,
        "size": work.size or "",
        "n_stimuli": work.n_stimuli,
        "n_layers": len(pairs),
        "n_pairs": len(pairs) ** 2,
        "n_units": sum(a for a, _ in pairs),
        "note": notes.get(side.name, ""),
    }
    if side.name not in times:
        return row
    seconds, reference = times[side.name], work.sides[0].name
    row |= {"rounds": len(seconds), "seconds": median(seconds), "low": min(seconds), "high": max(seconds)}
    row["ratio"] = median(theirs / mine for theirs, mine in zip(seconds, times[reference], strict=False))
    row["memory_mib"] = memory[side.name]
    shared = values[side.name].keys() & values[reference].keys()
    if shared and side.name != reference:
        row["difference"] = max(float(np.abs(values[side.name][k] - values[reference][k]).max()) for k in shared)
    return row


# --- telling ---------------------------------------------------------------------------------------


def line(row: dict) -> str:
    """A row of the table as it is printed while the benchmark runs."""
    what = f"{row['group']:<9} {row['work']:<13} {row['size']:>6} {row['side']:<36}"
    if not row["rounds"]:
        return f"{what} {row['note']}"
    agreement = f"differs by {row['difference']:.0e}" if row["difference"] != "" else ""
    return (
        f"{what} {row['seconds']:9.3f} s [{row['low']:.3f}, {row['high']:.3f}] {row['ratio']:7.2f} x ours"
        f" {row['memory_mib']:7.0f} MiB  {agreement}"
    )


def totals(rows: list[dict]) -> list[dict]:
    """What the parts of the two comparisons take together, by the peer named first and by the fastest of each."""
    found = []
    for group, parts in (("held out", MAPPINGS), ("in sample", IN_SAMPLE)):
        [mine] = [r for r in rows if (r["group"], r["work"], r["kind"]) == (group, "all", "ours")] or [None]
        peers = [[r for r in rows if (r["group"], r["work"], r["kind"]) == (group, p, "peer")] for p in parts]
        if mine is None or not all(part and all(r["rounds"] for r in part) for part in peers):
            continue
        usual = [part[0] for part in peers]
        best = [min((r for r in part if r["difference"] < SAME), key=lambda r: r["seconds"]) for part in peers]
        for name, chosen in (("sum of the first-named", usual), ("sum of the fastest", best)):
            row = dict(mine) | {"side": name, "kind": "peer", "difference": max(r["difference"] for r in chosen)}
            row |= {key: sum(r[key] for r in chosen) for key in ("seconds", "low", "high")}
            row["rounds"] = min(r["rounds"] for r in chosen)
            row["ratio"] = row["seconds"] / mine["seconds"]
            row["memory_mib"] = max(r["memory_mib"] for r in chosen)
            found.append(row)
    return found


def write(rows: list[dict], about: dict, folder: Path) -> Path:
    """`benchmarks.csv` and, as for every published table, `benchmarks.json` on where it came from."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "benchmarks.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
    (folder / "benchmarks.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return folder / "benchmarks.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny arrays, one round: does it run?")
    parser.add_argument("--publish", action="store_true", help="write to data/published, for the book's page")
    parser.add_argument(
        "--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS)
    )
    parser.add_argument("--dtype", nargs="+", choices=("float32", "float64"), default=["float32"])
    parser.add_argument("--rounds", type=int, default=5, help="as far as two minutes go")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "benchmarks")
    options = parser.parse_args()
    if options.publish and (options.quick or set(options.only) != set(GROUPS)):
        parser.error("--publish is for the whole benchmark: leave out --quick and --only")
    started = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shared = {} if options.quick else None
        for dtype, group in itertools.product(options.dtype, options.only):
            skip, curve = set(), None
            for work in GROUPS[group]():
                if (work.work, work.variable) != curve:  # the sizes of one curve follow one another
                    skip, curve = set(), (work.work, work.variable)
                elif options.quick:
                    continue
                work = small(work) if options.quick else work
                new = run(work, Path(folder), options.rounds, options.threads, dtype, skip, shared)
                rows += new
                print("\n".join(line(row) for row in new), flush=True)
        for worker in (shared or {}).values():
            worker.stop()
    for dtype in options.dtype:
        found = totals([row for row in rows if row["dtype"] == dtype])
        rows += found
        print("\n".join(line(row) for row in found))
    told = subprocess.run(
        [sys.executable, str(HERE / "machine.py")],
        check=True,
        capture_output=True,
        text=True,
        env=environment(options.threads),
    )
    about = json.loads(told.stdout) | {
        "size": "quick: the times mean nothing" if options.quick else "full",
        "duration": f"{(time.monotonic() - started) / 60:.0f} min",
        "repeat": "make bench",
    }
    about = {"title": "Benchmarks of the metrics", "provenance": about}
    out = ROOT / "data" / "published" if options.publish else options.out
    print(f"written to {os.path.relpath(write(rows, about, out))}")


if __name__ == "__main__":
    main()
