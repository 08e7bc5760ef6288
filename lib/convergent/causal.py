"""Does alignment matter? Training one network again and again, pushed towards or away from a reference.

A `Condition` says what is pushed and how hard, a `Setting` on which images and in which network; `train` makes one run.
`convergent.causal_sweep` makes many. After Srivastava, Soni & Khosla (2025).

`python -m convergent.causal --dataset cave` makes the published tables (`convergent.causal_plans`).
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import nn

from . import (
    achieved,
    cave_scenes,
    gabor,
    images,
    networks,
    oracles,
    paths,
    push,
    responses,
    stand_ins,
    tasks,
    training,
    zoo,
)
from .oracles import Reference
from .training import Recipe

CONTROLS = ("none", "shuffled", "step size")
KINDS = ("gabor", "gabor-energy", "trained", "responses-early", "responses-late", "npz", "it92")  # of references
# As they come from a data set, so that every response belongs to exactly the picture that the network sees.
AS_THEY_ARE = {"crop": 0, "flip": False}


@dataclass(frozen=True)
class Setting:
    """What all runs of a sweep share.

    Attributes
    ----------
    dataset : "cave", "cave-scenes" (several objects, scored by mean average precision), or what `images.load` takes
    architecture, width : the network that is trained
    recipe : how. Without augmentation: a mirrored picture has no measured response, and all references shall be
        compared with one and the same baseline.
    n_train, n_test : images; None for all
    n_looked_at : test images on which alignment is validated
    size : of the images in pixels
    """

    dataset: str = "cave"
    architecture: str = "cnn6"
    width: float = 0.5
    recipe: Recipe = field(
        default_factory=lambda: Recipe(
            epochs=3, batch_size=128, optimiser="adam", learning_rate=5e-3, weight_decay=0.0, **AS_THEY_ARE
        )
    )
    n_train: int | None = 20_000
    n_test: int | None = 2_000
    n_looked_at: int = 1_000
    size: int = 32

    @cached_property
    def data(self) -> images.Dataset:
        """The images."""
        if self.dataset == "cave-scenes":
            return cave_scenes.load(self.size, self.n_train, self.n_test)
        return images.load(self.dataset, self.size, self.n_train, self.n_test)

    @property
    def task(self) -> tasks.Task:
        """What is learned."""
        return tasks.MANY_CLASSES if self.data.train.labels.ndim == 2 else tasks.CLASSES

    @property
    def score(self) -> str:
        """How well it is done, in words."""
        return "accuracy" if self.data.train.labels.ndim == 1 else "mean average precision"

    @property
    def chance(self) -> float:
        """The score of guessing: one class in so many, or the mean share of images with a class."""
        labels = self.data.test.labels
        return 1 / len(self.data.classes) if labels.ndim == 1 else float(labels.mean())

    @property
    def n_steps(self) -> int:
        """Steps of one run."""
        return self.recipe.epochs * (len(self.data.train) // self.recipe.batch_size)


@dataclass(frozen=True)
class Condition:
    """One run.

    Attributes
    ----------
    reference : a name that `reference` understands
    layer : the layer that is pushed
    alpha, beta : weights of alignment and task; alpha > 0 promotes alignment, alpha < 0 suppresses it
    seed : of initial weights and order of images
    control : "none"; "shuffled": as many steps and at each step the same norm of the alignment's gradient as the run
        without control, but towards (or away from) the reference's responses to other images; "step size": the task
        alone, the layers up to the pushed one at the learning rate that the task had left in the run without control
    metric : that alpha pushes, one of `alignment_loss.METRICS`
    """

    reference: str
    layer: str
    alpha: float
    beta: float = 1.0
    seed: int = 0
    control: str = "none"
    metric: str = "linear"

    def __post_init__(self):
        if self.control not in CONTROLS:
            raise ValueError(f"control {self.control!r} is not one of {', '.join(CONTROLS)}")
        if not (np.isfinite(self.alpha) and np.isfinite(self.beta) and self.beta >= 0):
            raise ValueError(f"alpha={self.alpha}, beta={self.beta}: expected finite numbers, beta not negative")
        if self.control != "none" and self.alpha == 0:
            raise ValueError(f"control {self.control!r} of alpha=0: without a push there is nothing to control for")

    def key(self, setting: Setting) -> str:
        """A short name of this run in this setting. The task alone is one run for all references and layers."""
        told = asdict(self)
        if self.alpha == 0:
            told |= {"reference": "", "layer": "", "metric": ""}
        text = json.dumps([asdict(setting), told], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_dataset(name: str) -> None:
    """Raise what `Setting.data` would for an unknown image set, before any work."""
    if name != "cave-scenes":
        images.check_name(name)


def check_reference(name: str) -> None:
    """Raise what `reference` would for a name of no kind or a file that is not there, before any work."""
    kind, _, path = name.partition(":")
    if kind not in KINDS:
        raise ValueError(
            f"reference {name!r} is not gabor, gabor-energy, trained, responses-early, responses-late,"
            " npz:PATH[:ROI,ROI] or it92:PATH"
        )
    path = path.partition(":")[0] if kind == "npz" else path
    if kind in ("npz", "it92") and not Path(path).is_file():
        raise FileNotFoundError(f"reference {name!r}: {path or 'a path'} is not here: give the path of an npz file")


def reference(name: str, setting: Setting, layer: str) -> Reference:
    """A reference by name.

    Parameters
    ----------
    name : "gabor", "gabor-energy"; "trained" (the same architecture, trained on the same images, its layer of the same
        name); "responses-early", "responses-late" (simulated voxels, `stand_ins`); "npz:PATH" or "npz:PATH:ROI,ROI"
        (`Responses.load`); "it92:PATH" (`responses.kriegeskorte92`)
    layer : that will be pushed

    Raises
    ------
    ValueError for an unknown name, or what the kinds raise.
    """
    check_reference(name)
    kind, _, path = name.partition(":")
    size = setting.data.size
    if kind in ("gabor", "gabor-energy"):
        return gabor.GaborBank(size, quadrature=kind == "gabor-energy")
    if kind == "npz":
        path, _, regions = path.partition(":")
        return responses.Responses.load(path, regions.split(",") if regions else None)
    if kind == "it92":
        return responses.kriegeskorte92(path, size)
    if kind == "trained":
        known = oracles.TrainedNetwork(_trained(setting, 0), layer)
        if setting.recipe.crop or setting.recipe.flip or layer == networks.layers(known.network)[0]:
            return known  # a first layer takes less time than memory
        return oracles.Remembered(known, setting.data.train.images)
    needed = kind == "responses-late" and setting.data.train.latents is None
    return stand_ins.of(setting.data, kind.removeprefix("responses-"), _trained(setting, 1) if needed else None)


def _trained(setting: Setting, seed: int) -> nn.Module:
    """A network of the zoo; for pictures of several objects, which it does not know, one trained as the sweep's own."""
    if setting.dataset in images.NAMES and setting.architecture == "cnn6":
        return zoo.get("cnn6", setting.dataset, [seed])[0].network
    start = 1_000 + seed  # a seed that no run of a sweep has
    folder = paths.cache() / "causal" / "references"
    told = json.dumps([asdict(setting), start], sort_keys=True)
    path = folder / f"{hashlib.sha256(told.encode()).hexdigest()[:16]}.safetensors"
    found = network(setting, start)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # whoever comes second waits here, and then finds it made
        if path.exists():
            found.load_state_dict(load_file(path))
        else:
            training.train(found, setting.data, setting.recipe, start, task=setting.task, progress=False)
            save(found, path)
    return found


def network(setting: Setting, seed: int) -> nn.Module:
    """The untrained network of a setting."""
    return networks.load(setting.architecture, len(setting.data.classes), setting.width, seed)


def save(network: nn.Module, path: Path) -> None:
    """Write a network's weights, whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    save_file(network.state_dict(), unfinished)
    unfinished.replace(path)


def train(
    condition: Condition,
    setting: Setting,
    ref: Reference,
    folder: Path | None = None,
    pushed: dict | None = None,
    progress: bool = False,
) -> tuple[nn.Module, dict]:
    """One run: a network, and the row that the manifest keeps.

    Parameters
    ----------
    ref : what `condition.reference` names
    folder : where the run's state and its `push.Ledger` are kept; a run that was killed goes on from there. A control
        needs the folder of the run that it controls, and reads that one's ledger.
    pushed : for a control, the row of the run that it controls

    Returns
    -------
    network : trained, in evaluation mode
    row : the condition; accuracy (or mean average precision) on test images, train_accuracy, task_share (of the
        gradient's norm at the layer, mean over steps), alignment_gradient (its norm times alpha, mean over steps),
        seconds; and what `achieved.look` tells, on test images

    Raises
    ------
    ValueError for responses that are known by position with a recipe that shifts or mirrors images, for a number of
    responses other than that of training images, for a control without the run that it controls, and as `push.Push`.
    """
    trained = network(setting, condition.seed)
    check(condition, setting, ref, trained, folder, pushed)
    task = replace(setting.task, weight=condition.beta)
    options = {"folder": None if folder is None else folder / name(condition), "task": task, "progress": progress}
    run_of = (trained, setting.data, setting.recipe, condition.seed)
    row = asdict(condition)
    if condition.alpha == 0:
        run = training.train(*run_of, **options)
    elif condition.control == "step size":
        run = training.train(*run_of, rates=_rates(trained, condition.layer, pushed["task_share"]), **options)
    else:
        ledger = push.Ledger(setting.n_steps, None if folder is None else folder / f"{name(condition)}.npy")
        norms = None
        if condition.control == "shuffled":
            norms = push.Ledger(setting.n_steps, folder / f"{name(replace(condition, control='none'))}.npy").rows[:, 1]
        extra = push.Push(
            trained,
            condition.layer,
            ref,
            condition.alpha,
            condition.metric,
            condition.control == "shuffled",
            norms,
            ledger,
            condition.seed,
        )
        with extra.listening():
            run = training.train(*run_of, extra_loss=extra, **options)
        known = ledger.rows[np.isfinite(ledger.rows[:, 2]), 2]
        row["task_share"] = float(known.mean()) if len(known) else float("nan")
        row["alignment_gradient"] = float(ledger.rows[:, 1].mean())
    row |= {
        "accuracy": run.accuracy,
        "train_accuracy": run.epochs[-1]["train_accuracy"],
        "seconds": sum(epoch["seconds"] for epoch in run.epochs),
    }
    return trained, row | achieved.look(trained, condition.layer, ref, setting.data.test.images[: setting.n_looked_at])


def check(
    condition: Condition,
    setting: Setting,
    ref: Reference,
    network: nn.Module,
    folder: Path | None,
    pushed: dict | None,
) -> None:
    """Raise what `train` would, before any step."""
    push.check(network, condition.layer, ref, condition.metric)
    if ref.by_index and getattr(ref, "images", None) is None:
        if setting.recipe.crop or setting.recipe.flip:
            raise ValueError(
                f"{condition.reference}: responses belong to pictures as they are, and the recipe shifts or mirrors"
                " them: set crop=0 and flip=False"
            )
        if len(ref) != len(setting.data.train):
            raise ValueError(
                f"{condition.reference}: responses to {len(ref)} stimuli and {len(setting.data.train)} training images:"
                " row i must be image i, or bring the stimuli along as `images`"
            )
        _ = ref.on_test  # raises where alignment could not be validated
    if condition.control != "none" and (pushed is None or folder is None):
        raise ValueError(f"control {condition.control!r} needs the row and the folder of the run that it controls")
    if condition.control == "step size" and not np.isfinite(pushed["task_share"]):
        raise ValueError("control 'step size': the task's share is not known for stimuli of a reference's own")


def name(condition: Condition) -> str:
    """What a run's files are called, in the folder of the run that it controls, or its own."""
    return f"{condition.control.replace(' ', '-')}-{condition.alpha:g}-{condition.seed}"


def _rates(network: nn.Module, layer: str, share: float) -> dict[str, float]:
    """The task's share as a factor on the learning rate, from the first layer to the pushed one.

    Adam makes steps of one size, whatever the size of the gradient: what the push takes of the gradient's length, the
    task loses of its step.
    """
    names = networks.layers(network)
    return dict.fromkeys(names[: names.index(layer) + 1], min(share, 1.0))


if __name__ == "__main__":
    from .causal_plans import main

    sys.exit(main())
