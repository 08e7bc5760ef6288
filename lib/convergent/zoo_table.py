"""The networks behind the published results, as one table.

`python -m convergent.zoo_table` trains those that are not here yet, which takes half a day on two cores and goes on
where it was stopped, and writes `data/published/networks.csv`. Most of them are too large to be shipped.
"""

import json

import pandas as pd

from . import paths, results, zoo

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


def summary(entry: zoo.Entry) -> dict:
    """One network's row: what it is, how it was trained, and how well it does (shares of images, not per cent)."""
    record, last = entry.record, entry.record["epochs"][-1]
    return {
        "image_set": record["title"],
        "architecture": record["architecture"],
        "seed": record["seed"],
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


def table(networks: list[tuple[str, str, int, int]] = NETWORKS, tier: str = "laptop") -> pd.DataFrame:
    """One row a network; networks that are neither shipped nor in the cache are trained.

    Columns: see `summary`. Raises what `zoo.get` raises.
    """
    rows = []
    for architecture, dataset, n_seeds, n_kept in networks:
        for seed in range(n_seeds):
            rows += map(summary, zoo.get(architecture, dataset, [seed], tier, trajectory=seed < n_kept))
            print(f"{architecture} on {dataset}, seed {seed}: {rows[-1]['test_accuracy']:.1%}", flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """Write the table and where it came from."""
    folder = paths.data() / "published"
    found = table()
    found.to_csv(folder / "networks.csv", index=False, float_format="%.6g", lineterminator="\n")
    told = results.provenance("networks") | {"repeat": "python -m convergent.zoo_table"}
    told = {key: said for key, said in told.items() if key not in ("duration", "memory")}  # of reading, not of training
    (folder / "networks.json").write_text(json.dumps({"title": "Networks", "provenance": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
