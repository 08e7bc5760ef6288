"""The published table of spatial covariances: one row a network and layer.

`python -m convergent.spatial_table` adds the networks that are not in it yet, training those that are nowhere. It goes
on where it was stopped; `--only-cached` takes only networks that need not be trained, `--workers 2` or `--scheduler`
trains several at a time.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from . import encodings, networks, paths, published, spatial_pairs, sweep_command, zoo, zoo_workers
from .spatial_layers import about, of_network
from .sweep_cluster import Options

NAME = "spatial_covariances"
COMMAND = "python -m convergent.spatial_table"
UNITS = 1_000_000  # a covariance with trace 1 is written in millionths


class Wanted(NamedTuple):
    """One network of the table; `labels` as in `encodings.trained`."""

    architecture: str
    dataset: str
    labels: str
    seed: int


SETS = ("cave", "cifar10", "cifar10:0-4", "tiny-imagenet:1/2", "tiny-imagenet:2/2")
NETWORKS = [
    *(Wanted("cnn6", dataset, "true", seed) for dataset in ("cave", "cifar10") for seed in range(4)),
    *(Wanted("resnet18", "cave", "true", seed) for seed in range(4)),
    *(
        Wanted(architecture, dataset, "true", seed)
        for seed in range(2)
        for architecture in ("vgg11", "vgg11-5x5", "vgg11-7x7")
        for dataset in SETS
    ),
    *(
        Wanted("vgg11", dataset, labels, seed)
        for seed in range(2)
        for dataset in ("cave", "cifar10")
        for labels in ("random", "few")
    ),
]


def encode(C: np.ndarray) -> str:
    """A covariance (k², k²) with trace 1 as text: its upper triangle by rows, in millionths."""
    upper = np.asarray(C)[np.triu_indices(len(C))]
    return " ".join(map(str, np.rint(upper * UNITS).astype(int)))


def decode(text: str) -> np.ndarray:
    """What `encode` wrote, exact to half a millionth.

    Raises ValueError for a number of entries that no k x k filter has.
    """
    upper = np.array(text.split(), dtype=np.float64) / UNITS
    p = round((np.sqrt(8 * len(upper) + 1) - 1) / 2)
    if p * (p + 1) // 2 != len(upper) or round(p**0.5) ** 2 != p:
        raise ValueError(f"{len(upper)} numbers are no upper triangle of a k² x k² covariance: is the table cut off?")
    C = np.zeros((p, p))
    C[np.triu_indices(p)] = upper
    return C + np.triu(C, 1).T


def read() -> pd.DataFrame:
    """The published covariances, decoded; without rows where nothing was published yet.

    Columns: image_set (title), dataset, labels, architecture, seed, classes, width, accuracy, epochs, n_images, trained
    (True throughout), and those of `spatial_layers.of_network`.
    """
    path = paths.data() / "published" / f"{NAME}.csv"
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(path, dtype=published.WORDS)
    return table.assign(covariance=[decode(text) for text in table.covariance], trained=True)


def untrained(table: pd.DataFrame) -> pd.DataFrame:
    """The networks of a published table before their first step, drawn anew from their seeds."""
    found = []
    by = ["image_set", "labels", "architecture", "seed", "classes", "width"]
    for key, _ in table.groupby(by, sort=False):
        told = dict(zip(by, key, strict=True))
        network = networks.load(told["architecture"], int(told["classes"]), told["width"], seed=int(told["seed"]))
        found.append(about(of_network(network, splits=0), **told, trained=False))
    return pd.concat(found, ignore_index=True) if found else table.head(0)


def runs(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The networks of a published table that belong together, by title; VGG-11 first, and none that is empty."""
    is_vgg = table.architecture.str.startswith("vgg11").astype(bool)
    parts = {"VGG-11": table[is_vgg], "cnn6 and resnet18": table[~is_vgg]}
    return {title: part.reset_index(drop=True) for title, part in parts.items() if len(part)}


def derived(name: str, run: str) -> pd.DataFrame:
    """What was computed from the published covariances of one of `runs`: "pairs" or "forms" of `spatial_pairs`."""
    table = pd.read_csv(paths.data() / "published" / f"spatial_{name}.csv", dtype=published.WORDS)
    return table[table.run == run].drop(columns="run").reset_index(drop=True)


COLUMNS = ["image_set", *Wanted._fields, "classes", "width", "accuracy", "epochs", "n_images", "layer", "position", "k"]
COLUMNS += ["n_in", "n_out", "height", "variance", "halves", "covariance"]


def rows(entry: zoo.Entry, wanted: Wanted) -> pd.DataFrame:
    """The table's rows of one network, as text that goes into the file."""
    record = entry.record
    table = about(
        of_network(entry.network),
        image_set=re.sub(r", [\d,]+ images$", "", record["title"]),  # "few" and "random" are of the same set
        **wanted._asdict(),
        classes=len(record["classes"]),
        width=record["width"],
        accuracy=f"{record['accuracy']:.4f}",
        epochs=record["recipe"]["epochs"],
        n_images=record["recipe"]["n_train"] or "all",
    )
    numbers = {name: [f"{value:.5g}" for value in table[name]] for name in ("variance", "halves")}
    return table.assign(covariance=[encode(C) for C in table.covariance], **numbers)[COLUMNS].astype(str)


def _trained(wanted: Wanted, tier: str) -> zoo.Entry:
    if wanted.architecture.startswith("vgg11"):
        return encodings.trained(*wanted, tier)
    return zoo.get(wanted.architecture, wanted.dataset, [wanted.seed], tier)[0]  # those of the other chapters


def fill(
    path: Path,
    networks_: Iterable[Wanted] = NETWORKS,
    only_cached: bool = False,
    tier: str = "laptop",
    options: Options | None = None,
) -> list[Wanted]:
    """Add to the table at `path` what it lacks, a network at a time.

    A killed run loses the network that it was at. Rows that are there are left as they are, to the last digit.

    Parameters
    ----------
    networks_ : the networks of the table, in its order
    only_cached : leave out networks that would have to be trained
    tier : whose networks; the published ones are of "laptop"
    options : train those that are nowhere on workers, and leave out those whose training failed; None trains them here

    Returns
    -------
    The networks that were left out

    Raises
    ------
    With `options`, as `zoo_workers.train`.
    """
    networks_, left_out, get = list(networks_), [], partial(_trained, tier=tier)
    if options and not only_cached:
        missing = published.missing(path, Wanted._fields, networks_)
        zoo_workers.train(missing, get, options, partial(print, flush=True))

    def of_one(wanted: Wanted) -> pd.DataFrame | None:
        try:
            with zoo.without_training() if only_cached or options else nullcontext():
                entry = get(wanted)
        except zoo.NotTrainedError as error:
            print(f"left out: {error}", flush=True)
            left_out.append(wanted)
            return None
        print(f"{', '.join(map(str, wanted))}: {entry.accuracy:.1%} of test images", flush=True)
        return rows(entry, wanted)

    title = "Spatial covariances: upper triangle by rows, in millionths of the trace"
    with published.said_where_from(path, title, COMMAND):
        published.complete(path, Wanted._fields, networks_, of_one)
    return left_out


def derive(folder: Path) -> None:
    """Write to `folder` what takes long to compute from the published covariances: all comparisons, all fits."""
    found: dict[str, list[pd.DataFrame]] = {"spatial_pairs": [], "spatial_forms": []}
    for run, layers in runs(read()).items():
        both = pd.concat([layers, untrained(layers)], ignore_index=True)
        found["spatial_pairs"].append(spatial_pairs.pairs(both).assign(run=run))
        found["spatial_forms"].append(spatial_pairs.forms(layers).assign(run=run))
    for name, tables in found.items():
        path, title = folder / f"{name}.csv", f"{name.replace('_', ' ')}, from {NAME}.csv".capitalize()
        with published.said_where_from(path, title, COMMAND):
            pd.concat(tables).to_csv(path, index=False, float_format="%.4g", lineterminator="\n")


def main(arguments: list[str] | None = None) -> int:
    """Add the networks that the published table lacks, and compare all of them."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument("--only-cached", action="store_true", help="leave out networks that would have to be trained")
    sweep_command.add_where(parser)
    options = parser.parse_args(arguments)
    where = sweep_command.where_if_asked(parser, options)
    if options.only_cached and where:
        parser.error("--only-cached trains nothing: leave out --workers, --scheduler and --gpus")

    def made() -> int:
        folder = paths.data() / "published"
        left = fill(folder / f"{NAME}.csv", only_cached=options.only_cached, options=where)
        derive(folder)
        print(f"{len(NETWORKS) - len(left)} of {len(NETWORKS)} networks are in the table")
        return int(bool(left) and not options.only_cached)

    return sweep_command.stopped_in_words(parser.prog, made)


if __name__ == "__main__":
    from .spatial_table import main as imported  # what travels to workers must not belong to `__main__`

    sys.exit(imported())
