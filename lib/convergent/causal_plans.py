"""Which runs answer the question of chapter 8: the published sweeps, and the paper's own at full scale."""

import argparse
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from . import causal, causal_sweep, causal_tables, networks, paths, sweep_command
from .causal import Setting
from .training import Recipe

# (reference, layer) -> strengths, pushed with either sign; 0 comes for all. From too weak to matter to both ends of
# what can be reached, found on one seed of the cave.
_STRENGTHS = {
    "cnn6": {
        ("gabor", "layer1"): (0.02, 0.1, 0.5, 5),
        ("trained", "layer1"): (0.02, 0.1, 0.5, 5),
        ("trained", "layer5"): (0.03, 0.1, 0.4, 2),
        ("responses-early", "layer1"): (0.02, 0.1, 0.5, 5),
        ("responses-late", "layer6"): (0.03, 0.1, 0.4, 2),
    },
    # As the paper's second architecture: the ends of its first and of its last stage, fewer strengths.
    "resnet18": {
        ("responses-early", "block2"): (0.1, 3),
        ("responses-late", "block8"): (0.1, 2),
    },
}
_WIDTHS = {"cnn6": 0.5, "resnet18": 0.125}
SEEDS = 3


def pushes(architecture: str, dataset: str = "cave") -> dict[tuple[str, str], list[float]]:
    """(reference, layer) -> alphas of the published sweep, in order.

    Of pictures of several objects the responses only, as the paper has that task for its brain data only.

    Raises ValueError for an architecture without one.
    """
    if architecture not in _STRENGTHS:
        raise ValueError(f"there is no published sweep of {architecture!r}, only of {', '.join(_STRENGTHS)}")
    return {
        pushed: sorted({0.0, *strengths, *(-strength for strength in strengths)})
        for pushed, strengths in _STRENGTHS[architecture].items()
        if dataset != "cave-scenes" or pushed[0].startswith("responses")
    }


# --- the paper's runs -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A set of runs of one kind at full scale.

    Attributes
    ----------
    what, layer : reference and pushed layer (names of torchvision's AlexNet)
    alphas, betas : every alpha with every beta
    images, epochs : of one run
    """

    what: str
    layer: str
    alphas: tuple[float, ...]
    betas: tuple[float, ...]
    images: int
    epochs: int

    @property
    def n_runs(self) -> int:
        """Networks to train with one seed."""
        return len(self.alphas) * len(self.betas)


def _both(*strengths: float) -> tuple[float, ...]:
    return (*(-s for s in reversed(strengths)), *strengths)


IMAGENET, NSD = 1_281_167, 49_424  # training images; of NSD's 61,780 four fifths
FULL = (
    Plan("nothing (task alone)", "features.0", (0.0,), (1, 2, 4, 8), IMAGENET, 50),
    Plan("gabor", "features.0", _both(1, 2, 4, 8), (1, 2, 4, 8), IMAGENET, 50),
    Plan("trained", "features.0", _both(1, 2, 4, 8), (1,), IMAGENET, 50),
    Plan("trained", "features.10", _both(1, 2, 4, 8), (1,), IMAGENET, 50),
    Plan("NSD, nothing (task alone)", "features.0", (0.0,), (1,), NSD, 100),
    Plan("NSD, V1", "features.0", _both(0.1, 0.2, 0.4, 0.8), (1,), NSD, 100),
    Plan("NSD, ventral stream", "classifier.1", _both(0.01, 0.02, 0.04, 0.08, 0.1, 0.2), (1,), NSD, 100),
)


def full(dataset: str) -> Setting:
    """The paper's training on a folder of ImageNet: torchvision's AlexNet, Adam at 1e-4, batches of 1,000, 50 epochs.

    The paper names no augmentation; this shifts and mirrors, as its pretrained AlexNet was trained.
    """
    recipe = Recipe(50, 1_000, "adam", 1e-4, "constant", weight_decay=0.0, crop=16)
    return Setting(dataset, "torchvision:alexnet?weights=random", 1.0, recipe, None, None, 5_000, size=224)


def estimate(teraflops: float = 20.0, overhead: float = 1.3) -> pd.DataFrame:
    """The paper's runs, and how long they take.

    Parameters
    ----------
    teraflops : operations per second that the GPU reaches in training, in 1e12. An assumption: a few tens of per cent
        of its peak in mixed precision, if images arrive fast enough
    overhead : factor of the alignment loss on the time of a step

    Returns
    -------
    DataFrame with columns reference, layer, alphas, betas, runs, images, epochs, gpu_hours (one GPU, one seed)
    """
    network = networks.load("torchvision:alexnet?weights=random").train()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 224, 224)).sum().backward()
    rows = []
    for plan in FULL:
        seconds = plan.images * plan.epochs * counter.get_total_flops() / (teraflops * 1e12)
        rows.append(
            {
                "reference": plan.what,
                "layer": plan.layer,
                "alphas": " ".join(f"{alpha:g}" for alpha in plan.alphas),
                "betas": " ".join(map(str, plan.betas)),
                "runs": plan.n_runs,
                "images": plan.images,
                "epochs": plan.epochs,
                "gpu_hours": plan.n_runs * seconds * (1 if plan.alphas == (0.0,) else overhead) / 3600,
            }
        )
    return pd.DataFrame(rows)


# --- a sweep while the reader waits -----------------------------------------------------------------


def live(tier: str, dataset: str) -> Setting:
    """The setting of the chapter's own sweep; at `full` that of the published ones."""
    if tier == "full":
        return Setting(dataset)
    if tier == "smoke":
        tiny = replace(Setting().recipe, epochs=2, batch_size=32)
        return Setting(dataset, width=0.25, recipe=tiny, n_train=512, n_test=256, n_looked_at=128)
    # Half as wide, and more steps on fewer images: below some hundreds of steps next to nothing is learned, and a
    # curve would show when learning set in rather than what it came to.
    recipe = replace(Setting().recipe, batch_size=64)
    return Setting(dataset, width=0.25, recipe=recipe, n_train=15_000, n_test=1_000, n_looked_at=500)


def strengths(alphas: str, tier: str) -> list[float]:
    """The numbers in a text, with 0 and in order; at `smoke` the ends and 0 only.

    Raises ValueError for what is not numbers with spaces between, or nothing but 0.
    """
    try:
        found = sorted({0.0, *map(float, alphas.split())})
    except ValueError as error:
        raise ValueError(f"alphas = {alphas!r}: give numbers with spaces between, such as '-1 1'") from error
    if len(found) < 2:
        raise ValueError(f"alphas = {alphas!r}: give at least one number that is not 0")
    return sorted({found[0], 0.0, found[-1]}) if tier == "smoke" else found


def _kept(setting: Setting) -> Path:
    named = setting.dataset if setting.dataset.replace("-", "").isalnum() else Path(setting.dataset).stem
    return paths.cache() / "causal" / f"{named}-{causal_tables.as_a_name(setting.architecture)}"


@contextmanager
def place(tier: str, setting: Setting) -> Iterator[Path]:
    """Where the chapter's own runs lie: of a long sweep in the cache, so that it can be resumed; else in passing."""
    if tier == "full":
        yield _kept(setting)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


# --- from the command line --------------------------------------------------------------------------


def _repeated(options: argparse.Namespace) -> str:
    """The command that gives the same numbers; where runs are made and kept does not change them."""
    words = ["--dataset", options.dataset, "--architecture", options.architecture]
    if options.reference:
        strengths = map("{:g}".format, options.alphas)
        words += ["--reference", options.reference, "--layer", options.layer, "--alphas", *strengths]
    words += ["--seeds", str(options.seeds)] * (options.seeds != SEEDS)
    words += ["--metric", options.metric] * (options.metric != "linear")
    words += ["--no-controls"] * options.no_controls
    return shlex.join(["python", "-m", "convergent.causal", *words])


def main(arguments: list[str] | None = None) -> int:
    """Push networks towards and away from references, and publish what it cost them."""
    parser = argparse.ArgumentParser(prog="python -m convergent.causal", description=main.__doc__)
    parser.add_argument("--dataset", default="cave", help="cave, cave-scenes, cifar10, or a folder or zip of images")
    parser.add_argument("--architecture", default="cnn6", help=f"one of {', '.join(_STRENGTHS)}")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--reference", help="only this one: gabor, trained, responses-early, npz:PATH, ...")
    parser.add_argument("--layer", help="the layer that --reference pushes")
    parser.add_argument("--alphas", type=float, nargs="+", help="strengths and directions for --reference")
    parser.add_argument("--metric", default="linear", help="linear, cka, procrustes or rsa")
    parser.add_argument("--no-controls", action="store_true")
    parser.add_argument("--folder", type=Path, help="where runs are kept; by default in the cache")
    parser.add_argument(
        "--publish",
        type=Path,
        help="folder of the tables; by default the book's own for its own sweep, and --folder for any other",
    )
    parser.add_argument("--dry-run", action="store_true", help="say which runs there are, and make none")
    parser.add_argument("--full", action="store_true", help="the paper's runs on ImageNet and NSD; with --dry-run")
    sweep_command.add_where(parser)
    options = parser.parse_args(arguments)
    where = sweep_command.where_if_asked(parser, options)
    if options.full:
        if not options.dry_run:
            parser.error("--full is a plan: add --dry-run, then run its lines with convergent.causal.train")
        table = estimate()
        print(table.to_string(index=False, float_format="{:.1f}".format))
        print(f"{table.runs.sum()} networks, {table.gpu_hours.sum():.0f} GPU hours a seed at 20 TFLOP/s")
        return 0
    own = (options.reference, options.layer, options.alphas)
    if any(own) and not all(own):
        parser.error("--reference, --layer and --alphas go together")
    wanted = {own[:2]: sorted({0.0, *own[2]})} if all(own) else pushes(options.architecture, options.dataset)
    setting = Setting(options.dataset, options.architecture, _WIDTHS.get(options.architecture, 1.0))
    controls = () if options.no_controls else causal.CONTROLS[1:]
    is_the_books = not any(own) and controls and options.seeds == SEEDS and options.metric == "linear"
    if controls and all(own):
        controls = causal_sweep.controls_of(causal.reference(options.reference, setting, options.layer))
    runs = causal_sweep.conditions(wanted, range(options.seeds), controls=controls, metric=options.metric)
    if options.dry_run:
        count = len({run.key(setting) for run in runs})
        print(f"{len(runs)} rows from {count} networks of {setting.recipe.epochs} epochs of {setting.n_train} images")
        return 0
    folder = options.folder or _kept(setting)
    # Others must not take the place of the rows that the chapter shows.
    tables = options.publish or (paths.data() / "published" if is_the_books else folder)

    def made() -> int:
        table = causal_sweep.sweep(runs, setting, folder, options=where)
        print(f"tables: {causal_tables.publish(table, setting, folder, tables, _repeated(options))}")
        return 0

    return sweep_command.stopped_in_words(parser.prog, made)
