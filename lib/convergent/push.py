"""Pushing a layer towards or away from a reference while the network learns its task.

L = alpha * L_alignment + beta * L_task (Srivastava, Soni & Khosla 2025, section 2): `Push` is the first term, as an
extra loss for `training.train`; beta is the weight of the `Task`. A positive alpha promotes alignment, a negative one
suppresses it. What came of it on images that were not trained on is told by `convergent.achieved`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import alignment_loss
from .oracles import Reference, compared, shown_and_held_out
from .responses import Dissimilarities
from .training import Step

POSITIONS = 8  # places of an image that one step compares
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
        norm of both together (NaN where the reference brings stimuli of its own: the two do not meet there)
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
        self._own = getattr(reference, "images", None)
        self._output: Tensor | None = None
        self._awaited: tuple | None = None

    @contextmanager
    def listening(self) -> Iterator["Push"]:
        """While open, forward passes leave the layer's output here; a training run must lie inside."""

        def keep(module, inputs, output):
            if torch.is_grad_enabled():
                # A copy: an in-place ReLU after the layer would otherwise overwrite what it said.
                self._output = output.clone()
                if self._own is None and self.ledger is not None:
                    output.register_hook(self._arrived)

        handle = self.module.register_forward_hook(keep)
        try:
            yield self
        finally:
            handle.remove()
            self._output = None

    def __call__(self, network: nn.Module, images: Tensor, logits: Tensor, labels: Tensor, step: Step) -> Tensor:
        """The extra loss of one step."""
        which = step.chosen
        if self._own is not None:
            which = self._stimuli(len(self._own), len(images), step.number)
            images = self._own[which].to(images.device)
            with _averages_used(network):
                network(images)
        if self._output is None:
            raise RuntimeError("nothing was heard of the layer: train inside `with push.listening():`")
        output, self._output = self._output, None
        X, Y, positions = compared(output, self.reference, images, which, (self.seed, step.number), POSITIONS)
        value, gradient = self._gradient(X, self._paired(Y, positions), positions, step.number)
        # A scalar whose value is the loss and whose gradient at the compared rows is `gradient`.
        handed = (X.float() * gradient).sum()
        if self.ledger is not None:
            self.ledger.rows[step.number, :2] = value.item(), gradient.norm().item()
            if self._own is None and step.number % _SHARE_EVERY == 0:
                self._await(step.number, gradient, X, output, handed)
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

    def _await(self, number: int, gradient: Tensor, X: Tensor, output: Tensor, handed: Tensor) -> None:
        """Be ready for what backpropagation brings to the layer's output."""
        (pushed,) = torch.autograd.grad(handed, output, retain_graph=True)
        scale = []  # in float16 backpropagation carries everything multiplied by one large number
        X.register_hook(lambda arrived: scale.append(arrived.float().norm() / gradient.norm().clamp_min(1e-30)))
        self._awaited = number, pushed.float(), scale

    def _arrived(self, total: Tensor) -> None:
        if self._awaited is None:
            return
        number, pushed, scale = self._awaited
        self._awaited = None
        task = total.float() - scale[0] * pushed
        self.ledger.rows[number, 2] = float(task.norm() / total.float().norm().clamp_min(1e-30))


@contextmanager
def _averages_used(network: nn.Module) -> Iterator[None]:
    """While open, batch normalisation uses its running averages and leaves them as they are.

    They belong to the task's images. By a batch of a reference's own stimuli a layer would be normalised as it never is
    afterwards, and the alignment that was pushed would be gone on the day it is validated.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [norm.training for norm in norms]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm, was in zip(norms, before, strict=True):
            norm.train(was)


def check(network: nn.Module, layer: str, reference: Reference, metric: str) -> None:
    """Raise what `Push` would, before any work."""
    names = dict(network.named_modules())
    if layer not in names or layer == "":
        raise ValueError(f"layer {layer!r} is not in this network; it has {', '.join(list(names)[1:12])}")
    if metric not in alignment_loss.METRICS:
        raise ValueError(f"metric {metric!r} is not one of {', '.join(alignment_loss.METRICS)}")
    if isinstance(reference, Dissimilarities) and metric != "rsa":
        raise ValueError(f"dissimilarities are compared by metric 'rsa', not {metric!r}")
