"""The networks behind the published results, as one table.

`python -m convergent.zoo_table` adds to `data/published/networks.csv` those that are not in it yet, and trains those
that are nowhere. To train all of them anew, move the table away first: half a day on two cores. It goes on where it was
stopped; `--workers 2` or `--scheduler` trains several at a time. Most networks are too large to be shipped.
"""

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pandas as pd

from . import encoding_networks, encodings, images, paths, published, sweep_command, zoo, zoo_workers
from .sweep_cluster import Options

# Architecture, image set, number of seeds, of which the first so many were kept through their training.
NETWORKS = [
    ("cnn6", "cave", 8, 4),
    ("resnet18", "cave", 4, 0),
    ("alexnet", "cave", 4, 0),
    ("vgg11", "cave", 4, 0),
    ("cnn6", "cifar10", 8, 4),
    ("resnet18", "cifar10", 4, 0),
    ("alexnet", "cifar10", 4, 0),
    ("vgg11", "cifar10", 4, 0),
    ("cnn6", "tiny-imagenet:1/2", 4, 4),
    ("cnn6", "tiny-imagenet:2/2", 4, 0),
]

# Of chapters 9 and 10, with another recipe. Architecture, image set, labels, number of seeds, of which kept.
ENCODINGS = [
    *(("factorised_vgg", dataset, "true", 2, 2) for dataset in ("cave", "cifar10")),
    *(
        ("factorised_vgg", dataset, "true", 2, 0)
        for dataset in ("cifar10:0-4", "tiny-imagenet:1/2", "tiny-imagenet:2/2")
    ),
    *(("factorised_vgg", dataset, "random", 2, 0) for dataset in ("cave", "cifar10")),
    *(("factorised_vgg", dataset, "few", 1, 0) for dataset in ("cave", "cifar10")),
    *(("plain_vgg", dataset, "true", 2, 0) for dataset in ("cave", "cifar10")),
]
KEY = ["architecture", "dataset", "labels", "seed"]


def summary(entry: zoo.Entry) -> dict:
    """One network's row: what it is, how it was trained, and how well it does (shares of images, not per cent)."""
    record, last = entry.record, entry.record["epochs"][-1]
    return {
        "image_set": record["title"],
        "width": record["width"],
        "weights": sum(value.numel() for value in entry.network.parameters()),
        "classes": len(record["classes"]),
        **{name: record["recipe"][name] for name in ("epochs", "batch_size", "learning_rate", "weight_decay")},
        "steps": last["step"],
        "train_accuracy": last["train_accuracy"],
        "test_accuracy": record["accuracy"],
        "chance": 1 / len(record["classes"]),
        "through_training": "trajectory_file" in record,
        "minutes": record["seconds"] / 60,
        "device": record["trained_with"]["device"],
        "precision": record["trained_with"]["precision"],
        "images_sha256": record["data_hash"][:12],
    }


def wanted() -> list[tuple[str, str, str, int, bool]]:
    """All networks of the table, in its order: architecture, image set, labels, seed, whether it was kept."""
    kinds = [(architecture, dataset, "true", *numbers) for architecture, dataset, *numbers in NETWORKS] + ENCODINGS
    return [(*kind, seed, seed < n_kept) for *kind, n_seeds, n_kept in kinds for seed in range(n_seeds)]


def trained(architecture: str, dataset: str, labels: str, seed: int, kept: bool, tier: str = "laptop") -> zoo.Entry:
    """One of them: shipped, from the cache, or trained now. Raises what `zoo.get` raises."""
    if architecture == "plain_vgg":
        return encoding_networks.plain(tier, images.load(dataset), seed)
    if architecture == "factorised_vgg":
        return encodings.trained(architecture, dataset, labels, seed, tier, trajectory=kept)
    return zoo.get(architecture, dataset, [seed], tier, trajectory=kept)[0]


def _one(wanted: tuple, tier: str) -> zoo.Entry:
    return trained(*wanted, tier)


def fill(
    path: Path,
    networks: list[tuple[str, str, str, int, bool]],
    tier: str = "laptop",
    options: Options | None = None,
) -> list[tuple]:
    """Add to the table at `path` the networks that it lacks; rows that are there stay as they are.

    Columns: `KEY`, then those of `summary`.

    Parameters
    ----------
    tier : whose networks; the published ones are of "laptop"
    options : train those that are nowhere on workers, and leave out those whose training failed; None trains them here

    Returns
    -------
    The networks that were left out, as values of `KEY`

    Raises
    ------
    What `zoo.get` raises; with `options` also as `zoo_workers.train`.
    """
    asked, left_out, get = {tuple(one[:-1]): one for one in networks}, [], partial(_one, tier=tier)
    if options:
        missing = [asked[key] for key in published.missing(path, KEY, list(asked))]
        zoo_workers.train(missing, get, options, partial(print, flush=True))

    def of_one(key: tuple) -> pd.DataFrame | None:
        try:
            with zoo.without_training() if options else nullcontext():
                entry = get(asked[key])
        except zoo.NotTrainedError as error:
            print(f"left out: {error}", flush=True)
            left_out.append(key)
            return None
        print(f"{', '.join(map(str, key))}: {entry.accuracy:.1%}", flush=True)
        row = dict(zip(KEY, key, strict=True)) | summary(entry)
        return pd.DataFrame([{name: _text(value) for name, value in row.items()}])

    published.complete(path, KEY, list(asked), of_one)
    return left_out


def _text(value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def main(arguments: list[str] | None = None) -> int:
    """Add the networks that the published table lacks, and say where it came from."""
    parser = argparse.ArgumentParser(prog="python -m convergent.zoo_table", description=main.__doc__)
    sweep_command.add_where(parser)
    where = sweep_command.where_if_asked(parser, parser.parse_args(arguments))

    def made() -> int:
        path = paths.data() / "published" / "networks.csv"
        with published.said_where_from(path, "Networks", parser.prog):
            left = fill(path, wanted(), options=where)
        print(f"{len(wanted()) - len(left)} of {len(wanted())} networks are in the table")
        return int(bool(left))

    return sweep_command.stopped_in_words(parser.prog, made)


if __name__ == "__main__":
    from .zoo_table import main as imported  # what travels to workers must not belong to `__main__`

    sys.exit(imported())
