"""Fill the page on scaling with the published measurements: `python book/scaling_page.py FOLDER`, from build.py.

The model has three measured constants (reading a stimulus, its products, adding two shards) and is checked against
collections of other sizes and numbers of workers. For machines that were not measured its constants are assumptions,
all of which stand here and are shown on the page.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "book")]
from convergent import published, sharded  # noqa: E402  # this checkout's, whatever is installed
from filling import fill, markdown, provenance  # noqa: E402

# The outputs of the 16 blocks of a ResNet-50 (He et al. 2016), of each of two networks.
UNITS = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
POSITIONS, FOLDS, SHARD = 4, 5, 100_000
# Assumed, not measured: what one GPU of a data centre keeps up, and what feeds it.
PRODUCTS = 20e12  # operations a second in double precision
FORWARD = 100e12  # operations a second of a network, in half precision
NETWORK = 8.2e9  # operations of one image through a ResNet-50
READING = 1e9  # bytes a second of images that reach one GPU
IMAGE = 110e3  # bytes of one compressed photograph
LINK = 10e9  # bytes a second between two machines
MEMORY = 2e12  # bytes a second of a GPU's own memory
CASES = [(1e6, 1), (1e8, 8), (1e9, 64), (1e9, 1000)]


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of a collection: an image read and run, its products, an addition, a moving of moments."""

    read: float
    products: float
    addition: float
    moving: float = 0.0

    def busy(self, n: float, shard: int) -> float:
        """Seconds of all workers together."""
        return n * (self.read + self.products) + (math.ceil(n / shard) - 1) * self.addition

    def seconds(self, n: float, workers: int, shard: int) -> float:
        """Seconds until the tree is done: the busiest worker's shards and additions, then the levels above workers."""
        shards = math.ceil(n / shard)
        mine = math.ceil(shards / workers)
        work = mine * min(shard, n) * (self.read + self.products) + (mine - 1) * self.addition
        return work + math.ceil(math.log2(min(workers, shards))) * (self.addition + self.moving)


def operations(units: list[int]) -> float:
    """Multiplications and additions for the products of one stimulus: within each layer, and across the networks."""
    layers = np.asarray(units, float) + 1
    return float(2 * (2 * (layers**2).sum() + layers.sum() ** 2))


def gpu() -> Costs:
    """The constants of a GPU that was not measured, from the assumptions above."""
    size = 1e6 * sharded.megabytes(UNITS, UNITS, FOLDS)
    # Both are read and one is written, and products pass through four times as they are moved to a common pilot.
    return Costs(
        IMAGE / READING + 2 * NETWORK / FORWARD,
        POSITIONS * operations(UNITS) / PRODUCTS,
        6 * size / MEMORY,
        size / LINK,
    )


def constants(table: pd.DataFrame) -> Costs:
    """What was measured of the parts."""
    seconds = table.set_index("what").seconds
    return Costs(*(seconds[name] for name in ("read a stimulus", "products of a stimulus", "addition of two shards")))


def of_collections(table: pd.DataFrame) -> str:
    """What the model says and what was measured, for each number of stimuli and workers."""
    costs, rows = constants(table), []
    runs = table[table.what == "collection"].groupby(["stimuli", "workers"])
    for (n, workers), group in runs:
        said, found = costs.busy(n, group["shard"].iloc[0]), group.busy_seconds.median()
        rows.append(
            [
                f"{n:,.0f}",
                f"{workers:.0f}",
                f"{group.shards.iloc[0]:.0f}",
                f"{said:.1f}",
                f"{found:.1f}",
                f"{found / said:.2f}",
                f"{group.seconds.median():.1f}",
                f"{group.memory_mib.max():.0f}",
            ]
        )
    header = ["stimuli", "workers", "shards", "model, s", "measured, s", "ratio", "elapsed, s", "memory, MiB"]
    return markdown(header, rows, numeric=8)


def of_cases() -> str:
    """What the model says of sizes that nobody measured here."""
    costs, rows = gpu(), []
    for n, gpus in CASES:
        shards = math.ceil(n / SHARD)
        moved = sharded.megabytes(UNITS, UNITS, FOLDS) * 1e6 * min(gpus - 1, shards)
        work = n * POSITIONS * operations(UNITS)
        seconds = costs.seconds(n, min(gpus, shards), SHARD)
        rows.append(
            [
                f"{n:,.0f}",
                f"{gpus:,}",
                f"{n * IMAGE / 1e12:.3g}",
                f"{work:.1e}",
                f"{moved / 1e12:.3g}",
                duration(seconds),
            ]
        )
    header = ["images", "GPUs", "images read, TB", "operations of products", "moments moved, TB", "time"]
    return markdown(header, rows, numeric=6)


def duration(seconds: float) -> str:
    """In the unit that fits."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def values(table: pd.DataFrame, told: dict) -> dict:
    """Everything that the page can ask for, by name."""
    costs, runs = constants(table), table[table.what == "collection"]
    widths = [int(width) for width in table.widths.iloc[0].split("-")]
    ratios = [
        group.busy_seconds.median() / costs.busy(n, group["shard"].iloc[0])
        for (n, _), group in runs.groupby(["stimuli", "workers"])
    ]
    memory = runs[runs.workers == runs.workers.max()].groupby("stimuli").memory_mib.median()
    both = runs.groupby(["stimuli", "workers"]).seconds.median().unstack().dropna()
    assumed = gpu()
    return {
        "collections": of_collections(table),
        "cases": of_cases(),
        "provenance": provenance(told),
        "widths": ", ".join(map(str, widths)),
        "read_us": 1e6 * costs.read,
        "products_us": 1e6 * costs.products,
        "addition_ms": 1e3 * costs.addition,
        "gflops": operations(widths) / costs.products / 1e9,
        "size_mb": sharded.megabytes(widths, widths, FOLDS),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "few": int(memory.index[0]),
        "many": int(memory.index[-1]),
        "memory_few": memory.iloc[0],
        "memory_many": memory.iloc[-1],
        "speed_up": float((both[1] / both[2]).iloc[0]),
        "timed": int(both.index[0]),
        "large_gb": sharded.megabytes(UNITS, UNITS, FOLDS) / 1e3,
        "gpu_read_us": 1e6 * assumed.read,
        "gpu_products_us": 1e6 * assumed.products,
        "gpu_addition_ms": 1e3 * assumed.addition,
        "gpu_moving_s": assumed.moving,
        "products_tflops": PRODUCTS / 1e12,
        "forward_tflops": FORWARD / 1e12,
        "reading_gb": READING / 1e9,
        "link_gb": LINK / 1e9,
        "image_kb": IMAGE / 1e3,
        "shard": SHARD,
    }


def main(folder: Path) -> None:
    table, about = published.read("sharded")
    page = folder / "scaling.md"
    page.write_text(fill(page.read_text(encoding="utf-8"), values(table, about["provenance"])), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
