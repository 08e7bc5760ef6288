"""Pushing a layer towards or away from a reference while the network learns its task.

L = alpha * L_alignment + beta * L_task (Srivastava, Soni & Khosla 2025, section 2): `Push` is the first term, as an
extra loss for `training.train`; beta is the weight of the `Task`. A positive alpha promotes alignment, a negative one
suppresses it. `look` measures what came of it on images that were not trained on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from . import alignment_loss, certainty, metrics, oracles
from .oracles import Reference
from .responses import Dissimilarities
from .training import Step

POSITIONS = 8  # places of an image that one step compares
GRID = 2  # a layer is averaged over so many rows and columns of places before responses without places are compared
_LOOKED_AT = 4  # places of an image in validation
_SHARE_EVERY = 8  # steps: whole maps of gradients take long to add up
COLUMNS = ("alignment", "alignment_gradient", "task_share")


class Ledger:
    """What happened at each step of a run, in a file that outlives the process.

    Parameters
    ----------
    n_steps : of the whole run
    path : of a `.npy` file, used further where it exists; None keeps it in memory

    Attributes
    ----------
    rows : float32 (n_steps, 3), NaN where no step was made: alignment in the batch; norm of the alignment's gradient at
        the layer's output, times alpha; at some of the steps the norm of the task's gradient there as a share of the
        norm of both together
    """

    def __init__(self, n_steps: int, path: str | Path | None = None):
        shape, path = (n_steps, len(COLUMNS)), None if path is None else Path(path)
        if path is None:
            self.rows = np.full(shape, np.nan, np.float32)
            return
        if path.exists() and (found := np.load(path, mmap_mode="r+")).shape == shape:
            self.rows = found
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        self.rows[:] = np.nan


class Push:
    """alpha times the negative alignment of a layer with a reference, as an extra loss for `training.train`.

    The gradient is computed at the layer's output and handed down from there, so that its norm is known, and can be
    set.

    Parameters
    ----------
    network, layer : what is trained, and the name of the module that is pushed
    reference : towards which, or away from which
    alpha : strength and direction
    metric : one of `alignment_loss.METRICS`
    shuffled : pair each image with the reference's response to another image of the batch. What is then pushed means
        nothing; a control for pushing as such.
    norms : (n_steps,) norms that the gradient at the layer's output is given instead of its own
    ledger : where each step is written down
    seed : of the places that are compared, and of stimuli that a reference brings

    Raises
    ------
    ValueError for a module that the network does not have, an unknown metric, or dissimilarities with another metric
    than "rsa".
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        reference: Reference,
        alpha: float,
        metric: str = "linear",
        shuffled: bool = False,
        norms: np.ndarray | None = None,
        ledger: Ledger | None = None,
        seed: int = 0,
    ):
        check(network, layer, reference, metric)
        self.module, self.reference, self.alpha, self.metric = network.get_submodule(layer), reference, alpha, metric
        self.shuffled, self.norms, self.ledger, self.seed = shuffled, norms, ledger, seed
        self._output: Tensor | None = None

    @contextmanager
    def listening(self) -> Iterator["Push"]:
        """While open, forward passes leave the layer's output here; a training run must lie inside."""

        def keep(module, inputs, output):
            if torch.is_grad_enabled():
                self._output = output

        handle = self.module.register_forward_hook(keep)
        try:
            yield self
        finally:
            handle.remove()
            self._output = None

    def __call__(self, network: nn.Module, images: Tensor, logits: Tensor, labels: Tensor, step: Step) -> Tensor:
        """The extra loss of one step."""
        which = step.chosen
        own = getattr(self.reference, "images", None)
        if own is not None:
            which = self._stimuli(len(own), len(images), step.number)
            images = own[which].to(images.device)
            network(images)
        if self._output is None:
            raise RuntimeError("nothing was heard of the layer: train inside `with push.listening():`")
        output, self._output = self._output, None
        X, Y, positions = compared(output, self.reference, images, which, (self.seed, step.number), POSITIONS)
        value, gradient = self._gradient(X, self._paired(Y, positions), positions, step.number)
        # A scalar whose value is the loss and whose gradient at the compared rows is `gradient`.
        handed = (X.float() * gradient).sum()
        if self.ledger is not None:
            self._write(step.number, value, gradient, X, output, handed)
        return handed - handed.detach() - self.alpha * value

    def _paired(self, Y: Tensor, positions: int) -> Tensor:
        if not self.shuffled:
            return Y
        return Y.roll((1, 1), (0, 1)) if isinstance(self.reference, Dissimilarities) else Y.roll(positions, 0)

    def _gradient(self, X: Tensor, Y: Tensor, positions: int, number: int) -> tuple[Tensor, Tensor]:
        """Alignment in the batch, and the gradient of alpha times its negative at the layer's rows."""
        heard = X.detach().float().requires_grad_()
        with torch.enable_grad():
            if isinstance(self.reference, Dissimilarities):
                value = alignment_loss.rsa_to(heard, Y)
            else:
                value = alignment_loss.alignment(heard, Y, self.metric, positions)
            (gradient,) = torch.autograd.grad(-self.alpha * value, heard)
        if self.norms is not None:
            gradient = gradient * (float(self.norms[number]) / gradient.norm().clamp_min(1e-30))
        return value.detach(), gradient

    def _stimuli(self, n: int, batch: int, number: int) -> Tensor:
        shown, _ = shown_and_held_out(n)
        order = np.random.default_rng([self.seed, number]).permutation(len(shown))
        return torch.from_numpy(shown[order[: max(batch, 4)]])

    def _write(self, number: int, value: Tensor, gradient: Tensor, X: Tensor, output: Tensor, handed: Tensor) -> None:
        row = self.ledger.rows[number]
        row[:2] = float(value), float(gradient.norm())
        if number % _SHARE_EVERY:
            return
        (pushed,) = torch.autograd.grad(handed, output, retain_graph=True)
        scale = []  # in float16 backpropagation carries everything multiplied by one large number

        def share(total: Tensor) -> None:
            task = total.float() - scale[0] * pushed.float()
            row[2] = float(task.norm() / total.float().norm().clamp_min(1e-30))

        X.register_hook(lambda arrived: scale.append(arrived.float().norm() / gradient.norm().clamp_min(1e-30)))
        output.register_hook(share)


def check(network: nn.Module, layer: str, reference: Reference, metric: str) -> None:
    """Raise what `Push` would, before any work."""
    names = dict(network.named_modules())
    if layer not in names or layer == "":
        raise ValueError(f"layer {layer!r} is not in this network; it has {', '.join(list(names)[1:12])}")
    if metric not in alignment_loss.METRICS:
        raise ValueError(f"metric {metric!r} is not one of {', '.join(alignment_loss.METRICS)}")
    if isinstance(reference, Dissimilarities) and metric != "rsa":
        raise ValueError(f"dissimilarities are compared by metric 'rsa', not {metric!r}")


def shown_and_held_out(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the stimuli that a reference brings, four of five are shown in training and every fifth is validated on."""
    numbers = np.arange(n)
    return numbers[numbers % 5 != 4], numbers[numbers % 5 == 4]


def compared(
    output: Tensor, reference: Reference, images: Tensor, which: Tensor, seed: tuple[int, ...], n_positions: int
) -> tuple[Tensor, Tensor, int]:
    """Rows of a layer and of a reference that belong together, and how many of them an image has.

    Where both have places, `n_positions` random ones of each image; a reference without places is compared with the
    whole layer, averaged over `GRID` x `GRID` parts of the image.

    Parameters
    ----------
    output : (n, channels, rows, columns) or (n, units)

    Raises
    ------
    ValueError for a reference with places and a layer without.
    """
    if reference.places and output.ndim == 4:
        points = oracles.points(len(output), n_positions, seed)
        size = torch.tensor(output.shape[2:])
        points = ((points * size).floor() + 0.5) / size  # the centres of the layer's own places
        return oracles.rows_at(output, points), reference.at(images, points, which), n_positions
    if reference.places:
        raise ValueError("this layer has no places and its reference has: choose a layer of maps")
    rows = adaptive_avg_pool2d(output, GRID).flatten(1) if output.ndim == 4 else output
    return rows, reference(images, which), 1


@torch.inference_mode()
def responses_of(
    network: nn.Module, layer: str, reference: Reference, images: Tensor, which: Tensor
) -> tuple[np.ndarray, np.ndarray, int, dict[str, float]]:
    """What a layer and a reference say about images, and the state of the layer.

    Returns
    -------
    X, Y : float32 (n_images * positions, n_units)
    positions : rows of one image
    state : norm (root mean square of the activations), weight_norm (of the layer's weights), dead (share of units that
        never vary)
    """
    heard, rows, squares, count = {}, ([], []), 0.0, 0
    lows, highs = [], []
    handle = network.get_submodule(layer).register_forward_hook(lambda module, _, output: heard.update(output=output))
    try:
        for start in range(0, len(images), 250):
            network(images[start : start + 250])
            output = heard.pop("output")
            part = images[start : start + 250], which[start : start + 250]
            *both, positions = compared(output, reference, *part, (0, start), _LOOKED_AT)
            for kept, found in zip(rows, both, strict=True):
                kept.append(found.float().numpy())
            squares, count = squares + float(output.square().sum()), count + output.numel()
            units = output.transpose(0, 1).flatten(1)
            lows.append(units.amin(1))
            highs.append(units.amax(1))
    finally:
        handle.remove()
    silent = torch.stack(highs).amax(0) == torch.stack(lows).amin(0)
    weights = [p for p in network.get_submodule(layer).parameters() if p.ndim > 1]
    state = {
        "norm": (squares / count) ** 0.5,
        "weight_norm": float(torch.stack([p.square().sum() for p in weights]).sum().sqrt()) if weights else 0.0,
        "dead": float(silent.float().mean()),
    }
    return np.concatenate(rows[0]), np.concatenate(rows[1]), positions, state


def look(network: nn.Module, layer: str, reference: Reference, images: Tensor) -> dict[str, float]:
    """Alignment of a layer with a reference on held-out images, and the state of the layer.

    Parameters
    ----------
    reference : a reference that brings stimuli of its own is compared on those of them that training did not show
    images : test images, as many as are to be looked at from the first on

    Returns
    -------
    dict of float: alignment (R2 of ridge regression, penalty chosen by cross-validation, 5 folds, mean of both
    directions), forward (from the layer to the reference), backward, pearson (mean of both directions); the two that
    no loss of the sweep optimises, procrustes (held-out correlation of a rotation, mean of both directions) and cka
    (debiased); dimension (participation ratio), and norm, weight_norm, dead as in `responses_of`. A layer that says the
    same of every image has alignment 0 in each.
    """
    which = torch.arange(len(images))
    if (own := getattr(reference, "images", None)) is not None:
        which = torch.from_numpy(shown_and_held_out(len(own))[1])
        images, seen = own[which], reference
    else:
        seen = reference.on_test
    X, Y, positions, state = responses_of(network, layer, seen, images, which)
    if isinstance(reference, Dissimilarities):
        found = float(alignment_loss.rsa_to(torch.from_numpy(X), torch.from_numpy(Y)))
        return state | {"alignment": found, "dimension": certainty.dimension(X)}
    if np.ptp(X, axis=0).max() == 0:
        names = ("alignment", "forward", "backward", "pearson", "procrustes", "cka", "dimension")
        return state | dict.fromkeys(names, 0.0)
    return state | scores(X, Y, positions) | {"dimension": certainty.dimension(X)}


def scores(X: np.ndarray, Y: np.ndarray, positions: int) -> dict[str, float]:
    """The scores of `look` for rows (n_images * positions, n_units) of a layer and a reference."""
    with certainty.silent_units_expected():
        pairs = ((X, Y), (Y, X))
        forward, backward = (metrics.linear(*p, alpha="cv", score="r2", positions=positions) for p in pairs)
        pearson = [metrics.linear(*p, alpha="cv", positions=positions) for p in pairs]
        turned = [metrics.procrustes(*p, positions=positions) for p in pairs]
        return {
            "alignment": (forward + backward) / 2,
            "forward": forward,
            "backward": backward,
            "pearson": float(np.mean(pearson)),
            "procrustes": float(np.mean(turned)),
            "cka": metrics.cka(X, Y, debiased=True),
        }
