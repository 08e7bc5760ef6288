"""The networks of chapters 9 and 10: one architecture, many things to learn.

`python -m convergent.encodings` trains those that are shipped (or takes them from the cache) into `data/zoo/`.
Guth & Ménard (2024) train on several image sets, and on labels that mean nothing. Here every network of one
architecture sees about as many images in training, whatever its image set.
"""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

from . import images, paths, zoo
from .training import Recipe

# What data/zoo/ holds of them: image set, labels, seed.
SHIPPED = [
    *((dataset, labels, seed) for dataset in ("cave", "cifar10") for labels in ("true", "random") for seed in (0, 1)),
    ("cave", "few", 0),
]

LABELS = ("true", "few", "random")  # few: the true labels of the images that random labels are learned on
N_FEW = {"smoke": 500, "laptop": 3_000, "full": 50_000}
# Images seen in training. Random labels take longer to learn (appendix B.3): every image is an exception.
_SEEN = {"smoke": 4_000, "laptop": 200_000, "full": 4_500_000}
_SEEN_FEW = {"smoke": 6_000, "laptop": 180_000, "full": 18_000_000}
_N_TRAIN = {"cave": images.CAVE_SIZES[0], "cifar10": 50_000}
_SEEN_VGG = {"smoke": 4_000, "laptop": 160_000, "full": 4_500_000}
WIDTHS = {"smoke": {"factorised_vgg": 0.5, "": 0.125}, "laptop": {"factorised_vgg": 1.0, "": 0.25}, "full": {"": 1.0}}


def recipe(architecture: str, n_images: int, labels: str, tier: str, cave: bool) -> Recipe:
    """How a network that sees `n_images` is trained.

    No weight decay, as in the paper: what training leaves alone keeps the variance of its initial weights, which is
    what the shrinkage of chapter 10 takes as noise. Random labels are mirrored but not shifted: they fit too slowly.
    """
    seen = _SEEN_FEW if labels != "true" else _SEEN if architecture == "factorised_vgg" else _SEEN_VGG
    return Recipe(
        epochs=max(1, round(seen[tier] / n_images)),
        batch_size=32 if tier == "smoke" else 128,
        learning_rate=0.02 if architecture != "factorised_vgg" else 0.05,
        weight_decay=0.0,
        crop=0 if labels != "true" else 2 if cave else 4,
        random_labels=1.0 if labels == "random" else 0.0,
        n_train=n_images,
    )


def trained(
    architecture: str,
    dataset: str = "cave",
    labels: str = "true",
    seed: int = 0,
    tier: str = "laptop",
    trajectory: bool = False,
    progress: bool = True,
) -> zoo.Entry:
    """One trained network: shipped, from the cache, or trained now.

    Parameters
    ----------
    architecture : "factorised_vgg", "vgg11", "vgg11-5x5", "vgg11-7x7", or any other of `networks.ARCHITECTURES`
    dataset : what `images.load` understands
    labels : "true", "random" (another draw for each seed, on the same few images) or "few" (the true labels of these)
    seed : of initial weights, order of images, augmentation and random labels
    trajectory : whether `Entry.checkpoints` must be there

    Raises
    ------
    ValueError for unknown labels, architecture or tier; and what `images.load` raises where images are needed.
    """
    if labels not in LABELS:
        raise ValueError(f"labels {labels!r}: must be one of {', '.join(LABELS)}")
    if tier not in zoo.RECIPES:
        raise ValueError(f"tier {tier!r} is not one of {', '.join(zoo.RECIPES)}")
    # Shipped networks of whole sets are found without their images, which a reader may not have.
    by_name = tier == "laptop" and labels == "true" and dataset in _N_TRAIN
    data = dataset if by_name else images.load(dataset)
    n_images = _N_TRAIN[dataset] if by_name else len(data.train)
    if labels != "true":
        data = _fewer(data, N_FEW[tier], 1_000)
        n_images = len(data.train)
    elif tier == "smoke":
        data = _fewer(data, 2_000, 500)
        n_images = len(data.train)
    elif tier == "laptop" and architecture != "factorised_vgg":
        n_images = min(n_images, 20_000)
    widths = WIDTHS[tier]
    return zoo.get(
        architecture,
        data,
        [seed],
        tier,
        trajectory,
        recipe(architecture, n_images, labels, tier, cave=dataset.startswith("cave")),
        widths.get(architecture, widths.get("", 1.0)),
        progress,
    )[0]


def _fewer(data: images.Dataset, n_train: int, n_test: int) -> images.Dataset:
    """A part of the images. They are tested after every epoch, which for a few takes longer than to train on them."""
    train, test = data.train.sample(min(n_train, len(data.train))), data.test.sample(min(n_test, len(data.test)))
    title = f"{data.title}, {len(train):,} images"
    return replace(data, train=train, test=test, title=title, hash=images.content_hash(train, test, data.classes))


def build(folder: Path) -> None:
    """Add the factorised networks of `SHIPPED`, in half precision, to the files and the manifest in `folder`."""
    manifest = folder / "manifest.json"
    records = {record["file"]: record for record in (json.loads(manifest.read_text()) if manifest.exists() else [])}
    for dataset, labels, seed in SHIPPED:
        entry = trained("factorised_vgg", dataset, labels, seed)
        name = re.sub(r"[^\w-]+", "-", f"factorised_vgg-{dataset}{'' if labels == 'true' else f'-{labels}'}-seed{seed}")
        if entry.folder != folder:  # shipped before
            record = zoo.ship(entry, folder, name, half=True)
            records[record["file"]] = record
        print(f"{name}: {entry.accuracy:.1%} of test images", flush=True)
    manifest.write_text(json.dumps(list(records.values()), indent=1) + "\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else paths.data() / "zoo")
