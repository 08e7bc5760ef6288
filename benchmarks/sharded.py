"""Moments in shards: seconds and memory with one and two workers, and what the model of their cost needs.

python benchmarks/sharded.py [--publish]

The stimuli are those of `arrays`, drawn block by block on the workers.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # before NumPy
import dask
import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster, WorkerPlugin
from tqdm import tqdm

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lib")]
import arrays  # noqa: E402

from convergent import paths, sharded  # noqa: E402
from convergent.stream import Moments  # noqa: E402

WIDTHS = (64, 128, 256)
SIZES = (10_000, 20_000, 50_000, 100_000, 200_000)
TIMED = 200_000  # stimuli with which one worker is compared with two
SHARD = 5_000
FOLDS = 5
# Dask has its workers give every freed piece of memory back, and many small products then wait for fresh pages. As soon
# as one of the two thresholds is set, glibc no longer raises the other by itself: so both.
KEEP_MEMORY = {f"distributed.nanny.pre-spawn-environ.MALLOC_{name}_THRESHOLD_": 2**25 for name in ("TRIM", "MMAP")}


class Rows:
    """Blocks of `arrays.Networks` as batches; the networks are made again where they arrive."""

    positions = 1

    def __init__(self, widths=WIDTHS):
        self.widths, self.made = widths, None

    def __getstate__(self):
        return {"widths": self.widths, "made": None}

    def __call__(self, start, stop):
        self.made = self.made or arrays.Networks(self.widths)
        for first in range(start, stop, arrays.BLOCK):
            yield first, *self.made.block(first // arrays.BLOCK)


def _usage() -> tuple[float, float]:
    """(most MiB that this process held, seconds of processor time it took)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), used.ru_utime + used.ru_stime


def collections(n_workers: int, sizes: list[int]) -> Iterator[dict]:
    """One collection after another on one cluster; `memory_mib` is the most that a worker held until then.

    So give sizes in ascending order: what is flat then is flat.
    """
    about = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "host": "127.0.0.1"}
    with dask.config.set(KEEP_MEMORY), LocalCluster(n_workers=n_workers, **about) as cluster, Client(cluster) as client:
        client.register_plugin(_Path(str(HERE), str(HERE.parent / "lib")))
        sharded.collect(Rows(), SHARD * n_workers, client, shard=SHARD)  # nothing is loaded on the clock
        for n in sizes:
            before = client.run(_usage)
            start = time.perf_counter()
            sharded.collect(Rows(), n, client, folds=FOLDS, shard=SHARD)
            seconds = time.perf_counter() - start
            after = client.run(_usage)
            yield {
                "what": "collection",
                "stimuli": n,
                "workers": n_workers,
                "shards": -(-n // SHARD),
                "seconds": seconds,
                "busy_seconds": sum(after[worker][1] - before[worker][1] for worker in after),
                "memory_mib": max(most for most, _ in after.values()),
            }


class _Path(WorkerPlugin):
    """A plugin of Dask: lets a worker import what lies beside this file."""

    def __init__(self, *folders):
        self.folders = folders

    def setup(self, worker):
        sys.path[:0] = self.folders


def parts(repeats: int = 5) -> list[dict]:
    """Seconds of processor time of what a collection is made of, each alone: the model's constants."""
    rows, n = Rows(), 5 * arrays.BLOCK
    batches = list(rows(0, n))
    read, products, additions = [], [], []
    for _ in range(repeats):
        start = time.process_time()
        list(rows(0, n))
        read.append((time.process_time() - start) / n)
        moments = [Moments(2 * n, folds=FOLDS) for _ in range(2)]
        moments[0].update(*batches[0][1:], 0)  # the first batch allocates
        start = time.process_time()
        for first, a, b in batches[1:]:
            moments[0].update(a, b, first)
        products.append((time.process_time() - start) / (n - arrays.BLOCK))
        moments[1].update(*batches[0][1:], n)
        start = time.process_time()
        moments[0].merge(moments[1])
        additions.append(time.process_time() - start)
    return [
        {"what": "read a stimulus", "seconds": float(np.median(read))},
        {"what": "products of a stimulus", "seconds": float(np.median(products))},
        {"what": "addition of two shards", "seconds": float(np.median(additions))},
    ]


def main() -> None:
    """Measure; print, and write the table with --publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--publish", action="store_true", help="renew data/published/sharded.csv")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison of one worker with two, in turn")
    options = parser.parse_args()
    rows = parts()
    plan = [(1, [TIMED] * options.rounds), (2, sorted([*SIZES, *[TIMED] * (options.rounds - 1)]))]
    with tqdm(total=sum(len(sizes) for _, sizes in plan), desc="collections") as bar:
        for workers, sizes in plan:
            for row in collections(workers, sizes):
                rows.append(row)
                bar.update()
    table = pd.DataFrame(rows).assign(widths="-".join(map(str, WIDTHS)), folds=FOLDS, shard=SHARD)
    print(table.to_string(index=False))
    if options.publish:
        told = json.loads(subprocess.run([sys.executable, HERE / "machine.py"], capture_output=True, check=True).stdout)
        told["repeat"] = "python benchmarks/sharded.py --publish"
        path = paths.data() / "published" / "sharded.csv"
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
        path.with_suffix(".json").write_text(json.dumps({"provenance": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
