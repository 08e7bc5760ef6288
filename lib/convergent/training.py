"""One training loop: fast on a laptop's processor, the same on a GPU, and safe to kill.

The whole data set lies on the device as uint8; a batch is cut, cropped and flipped by tensor operations. Where the
processor multiplies bfloat16 natively (and on GPUs), the network runs in mixed precision, channels last.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from tqdm import tqdm

from .tasks import CLASSES, Task
from .training_state import Run, State, snapshot


class Step(NamedTuple):
    """Where a training run is.

    number : steps done before this one
    chosen : (n,) positions of the batch's images among the training images
    """

    number: int
    chosen: Tensor


ExtraLoss = Callable[[nn.Module, Tensor, Tensor, Tensor, Step], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Two runs with one recipe, seed, data set and machine end with the same weights.

    Attributes
    ----------
    epochs, batch_size : passes over the training images; images a step
    optimiser : "sgd" (momentum 0.9) or "adam"
    learning_rate : its highest value
    schedule : "onecycle" (linear up over the first fifth, linear down to 0), "step" (divided by 10 after each third)
        or "constant"
    weight_decay : of weights; not of batch norm's parameters or biases
    crop : pixels by which an image is shifted at random, mirrored at the border; 0 for none
    flip : whether images are mirrored left-right at random
    random_labels : share of training images whose label is replaced by a random one, drawn once from the seed (0 to 1)
    n_train : images used at most, balanced over classes; None for all
    """

    epochs: int = 10
    batch_size: int = 128
    optimiser: str = "sgd"
    learning_rate: float = 0.1
    schedule: str = "onecycle"
    weight_decay: float = 5e-4
    crop: int = 4
    flip: bool = True
    random_labels: float = 0.0
    n_train: int | None = None

    def __post_init__(self):
        checks = {
            "epochs": _whole(self.epochs, 1),
            "batch_size": _whole(self.batch_size, 2),
            "optimiser": self.optimiser in ("sgd", "adam"),
            "learning_rate": 0 < self.learning_rate < math.inf,
            "schedule": self.schedule in ("onecycle", "step", "constant"),
            "weight_decay": 0 <= self.weight_decay < 1,
            "crop": _whole(self.crop, 0),
            "flip": isinstance(self.flip, bool),
            "random_labels": 0 <= self.random_labels <= 1,
            "n_train": self.n_train is None or _whole(self.n_train, 2),
        }
        for name, valid in checks.items():
            if not valid:
                raise ValueError(f"Recipe: {name}={getattr(self, name)!r} is not possible; see Recipe's docstring")


def _whole(value, least: int) -> bool:
    return type(value) is int and value >= least


def device() -> torch.device:
    """The fastest device here: cuda, then mps, then cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def mixed_precision(where: torch.device) -> torch.dtype | None:
    """The half-precision type in which `where` multiplies faster than in float32, or None.

    A CPU counts only with bfloat16 instructions of its own (AVX-512 BF16 or AMX); emulated bfloat16 is slower.
    """
    if where.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if where.type == "cpu":
        has = [getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile")]
        return torch.bfloat16 if any(check() for check in has) else None
    return None


def checkpoint_steps(steps_per_epoch: int, epochs: int) -> list[int]:
    """Steps at which a trajectory is kept: 0, 1, 2, 4, 8, ... inside the first epoch, then the end of every epoch."""
    inside = [2**i for i in range(steps_per_epoch.bit_length()) if 2**i < steps_per_epoch]
    return [0, *inside, *(steps_per_epoch * (epoch + 1) for epoch in range(epochs))]


@torch.inference_mode()
def evaluate(network: nn.Module, split, task: Task = CLASSES, batch_size: int = 500) -> float:
    """Score of `network` at `task` on the images of `split`, in float32."""
    where = next(network.parameters()).device
    was_training = network.training
    network.eval()
    parts = split.images.split(batch_size)
    logits = [network(batch.to(where, memory_format=torch.channels_last)).cpu() for batch in parts]
    network.train(was_training)
    return task.score(torch.cat(logits), split.labels)


def accuracy(network: nn.Module, split, batch_size: int = 500) -> float:
    """Share of the images of `split` that `network` classifies correctly, in float32."""
    return evaluate(network, split, CLASSES, batch_size)


def train(
    network: nn.Module,
    data,
    recipe: Recipe,
    seed: int = 0,
    folder: str | Path | None = None,
    checkpoints: bool = False,
    extra_loss: ExtraLoss | None = None,
    task: Task = CLASSES,
    rates: Mapping[str, float] | None = None,
    progress: bool = True,
) -> Run:
    """Train `network` in place on `data.train`, testing on `data.test` after every epoch.

    Parameters
    ----------
    network : takes (n, 3, h, w) images, gives (n, n_classes) logits; it is moved to the fastest device and back
    data : `images.Dataset`
    recipe : how
    seed : of the order of images, augmentation, dropout and random labels
    folder : where state is kept after every epoch, whole or not at all. A run that finds the state of an
        interrupted one there goes on from it and ends with the same weights, bit for bit on one device.
    checkpoints : keep the trajectory, at `checkpoint_steps`
    extra_loss : callable (network, images, logits, labels, `Step`) -> scalar, added to the task's loss; the images are
        those that the network saw, shifted and mirrored
    task : what is learned: cross-entropy on one label an image unless told otherwise
    rates : name of a module -> factor on the learning rate of its parameters

    Raises
    ------
    ValueError
        for labels outside the network's classes, a module in `rates` that the network does not have, fewer images than
        a batch, images smaller than the crop, a loss or weights that are no longer finite (with the step), or a folder
        that holds the state of another recipe or seed.
    """
    where = device()
    split = data.train
    if recipe.n_train is not None:
        split = split.sample(min(recipe.n_train, len(split)), seed=seed)
    labels = _training_labels(split.labels, len(data.classes), recipe, seed)
    _check(network, split, labels, recipe)
    network.to(where, memory_format=torch.channels_last)
    stream = _Batches(split.images.to(where), labels.to(where), recipe, seed)
    total = stream.steps_per_epoch * recipe.epochs
    optimiser = _optimiser(network, recipe, rates or {})
    keep = set(checkpoint_steps(stream.steps_per_epoch, recipe.epochs)) if checkpoints else set()
    state = State(folder, {"recipe": asdict(recipe), "seed": seed, "data": data.hash, "checkpoints": checkpoints})
    half = mixed_precision(where)
    scaler = torch.amp.GradScaler(where.type, enabled=half is torch.float16)
    run, step = state.restore(network, optimiser, scaler)
    if 0 in keep and not run.checkpoints:
        run.checkpoints[0] = snapshot(network)
    bar = tqdm(total=total, initial=step, unit="step", disable=not progress, desc=f"seed {seed}", mininterval=1)
    with (
        bar,
        torch.random.fork_rng(devices=[where] if where.type == "cuda" else []),
        _repeatable(),
        _handed_back(network),
    ):
        for epoch in range(step // stream.steps_per_epoch, recipe.epochs):
            network.train()
            torch.manual_seed(_mix(seed, epoch))  # dropout draws from the global generator
            start, losses, hits = perf_counter(), [], []
            for batch, targets, chosen in stream.epoch(epoch):
                rate = _learning_rate(recipe, step, total)
                for group in optimiser.param_groups:
                    group["lr"] = group["factor"] * rate
                with torch.autocast(where.type, dtype=half) if half else nullcontext():
                    logits = network(batch)
                    loss = task.weight * task.loss(logits.float(), targets)
                    if extra_loss is not None:
                        loss = loss + extra_loss(network, batch, logits, targets, Step(step, chosen))
                optimiser.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimiser)
                scaler.update()
                step += 1
                losses.append(loss.detach())
                hits.append(task.correct(logits.detach(), targets))
                if step in keep:
                    run.checkpoints[step] = snapshot(network)
                bar.update()
            seconds, start = perf_counter() - start, perf_counter()
            row = {
                "epoch": epoch + 1,
                "step": step,
                "loss": float(torch.stack(losses).mean()),
                "train_accuracy": float(torch.stack(hits).mean()),
                "test_accuracy": evaluate(network, data.test, task),
                "seconds": seconds,
            }
            row["test_seconds"] = perf_counter() - start
            # The last step's loss was computed before its update, which may have been the one too many.
            if not math.isfinite(row["loss"]) or not all(p.isfinite().all() for p in network.parameters()):
                raise ValueError(
                    f"the loss is {row['loss']} after step {step} (epoch {epoch + 1}) or the weights are not finite:"
                    f" lower learning_rate={recipe.learning_rate} or look at extra_loss."
                    " The state of the epoch before is kept."
                )
            run.epochs.append(row)
            state.save(network, optimiser, scaler, run, step)
            bar.set_postfix(loss=f"{row['loss']:.3f}", test=f"{row['test_accuracy']:.1%}")
    return run


@contextmanager
def _handed_back(network: nn.Module) -> Iterator[None]:
    """Whatever happens, the network comes back from the device, in evaluation mode."""
    try:
        yield
    finally:
        network.eval().to("cpu", memory_format=torch.contiguous_format)


def _check(network: nn.Module, split, labels: Tensor, recipe: Recipe) -> None:
    n_outputs = network.eval()(split.images[:2].to(next(network.parameters()).device)).shape[1]
    if labels.ndim == 2 and labels.shape[1] != n_outputs:
        raise ValueError(f"labels of {labels.shape[1]} classes at once, but the network has {n_outputs} outputs")
    if labels.ndim == 1 and (int(labels.min()) < 0 or int(labels.max()) >= n_outputs):
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the network has {n_outputs} outputs:"
            f" load it with n_classes={int(labels.max()) + 1} or mend the labels"
        )
    if len(split) < recipe.batch_size:
        raise ValueError(f"{len(split)} training images do not fill one batch of batch_size={recipe.batch_size}")
    if recipe.crop >= min(split.images.shape[2:]):
        raise ValueError(f"crop={recipe.crop} shifts images of {tuple(split.images.shape[2:])} pixels out of sight")


def _training_labels(labels: Tensor, n_classes: int, recipe: Recipe, seed: int) -> Tensor:
    if recipe.random_labels == 0:
        return labels
    generator = torch.Generator().manual_seed(_mix(seed, -1))
    replaced = torch.rand(len(labels), generator=generator) < recipe.random_labels
    return torch.where(replaced, torch.randint(n_classes, labels.shape, generator=generator), labels)


def _mix(seed: int, epoch: int) -> int:
    """One generator seed for each (seed, epoch): an epoch can be replayed without the ones before it."""
    return (seed * 1_000_003 + epoch + 1) % 2**63


class _Batches:
    """The training images on the device, and their batches of an epoch in random order, shifted and mirrored."""

    def __init__(self, images: Tensor, labels: Tensor, recipe: Recipe, seed: int):
        self.labels, self.recipe, self.seed = labels, recipe, seed
        self.steps_per_epoch = len(labels) // recipe.batch_size
        height, width = images.shape[2:]
        if recipe.crop:
            # uint8 has no reflection padding on every device; floats of 0..255 are exact.
            padded = [pad(chunk.float(), (recipe.crop,) * 4, mode="reflect").byte() for chunk in images.split(5000)]
            images = torch.cat(padded)
        # (n, 3, shifts, shifts, h, w) is a view: indexing it cuts every image at its own place in one call.
        self.windows = images.unfold(2, height, 1).unfold(3, width, 1)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images, labels and positions of each batch."""
        # Drawn on the CPU, so that every device sees the same order.
        generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
        n, size, where = len(self.labels), self.recipe.batch_size, self.labels.device
        order = torch.randperm(n, generator=generator).to(where)
        shifts = torch.randint(2 * self.recipe.crop + 1, (2, n), generator=generator).to(where)
        mirrored = (torch.rand(n, generator=generator) < 0.5).to(where)
        for start in range(0, self.steps_per_epoch * size, size):
            chosen, (dy, dx) = order[start : start + size], shifts[:, start : start + size]
            batch = self.windows[chosen, :, dy, dx]
            if self.recipe.flip:
                mirror = mirrored[start : start + size].view(-1, 1, 1, 1)
                batch = torch.where(mirror, batch.flip(3), batch)
            yield batch.contiguous(memory_format=torch.channels_last), self.labels[chosen], chosen


def _optimiser(network: nn.Module, recipe: Recipe, rates: Mapping[str, float]) -> torch.optim.Optimizer:
    if unknown := rates.keys() - dict(network.named_modules()).keys():
        raise ValueError(f"rates: this network has no module {', '.join(sorted(unknown))}")
    kinds: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            factor = next((rate for module, rate in rates.items() if name.startswith(f"{module}.")), 1.0)
            kinds.setdefault((parameter.ndim <= 1, factor), []).append(parameter)
    groups = [
        {"params": kinds[free, factor], "weight_decay": 0.0 if free else recipe.weight_decay, "factor": factor}
        for free, factor in sorted(kinds)
    ]
    if recipe.optimiser == "adam":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)


def _learning_rate(recipe: Recipe, step: int, total: int) -> float:
    progress = step / total
    if recipe.schedule == "onecycle":
        return recipe.learning_rate * min((step + 1) / (0.2 * total + 1), (1 - progress) / 0.8)
    if recipe.schedule == "step":
        return recipe.learning_rate / 10 ** int(3 * progress)
    return recipe.learning_rate


@contextmanager
def _repeatable() -> Iterator[None]:
    """cuDNN picks its algorithm by timing unless told not to: then two runs of one seed would differ."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before
