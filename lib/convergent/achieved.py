"""What pushing a layer achieved: its alignment with the reference on held-out images, and the state it is in."""

import numpy as np
import torch
from torch import Tensor, nn

from . import alignment_loss, certainty, metrics
from .oracles import Reference, compared, shown_and_held_out
from .responses import Dissimilarities

_LOOKED_AT = 4  # places of an image


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
    module = network.get_submodule(layer)
    handle = module.register_forward_hook(lambda module, _, output: heard.update(output=output.clone()))
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
    weights = [p for p in module.parameters() if p.ndim > 1]
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
    X, Y, positions, state = _held_out(network, layer, reference, images)
    if isinstance(reference, Dissimilarities):
        found = float(alignment_loss.rsa_to(torch.from_numpy(X), torch.from_numpy(Y)))
        return state | {"alignment": found, "dimension": certainty.dimension(X)}
    if np.ptp(X, axis=0).max() == 0:
        names = ("alignment", "forward", "backward", "pearson", "procrustes", "cka", "dimension")
        return state | dict.fromkeys(names, 0.0)
    return state | scores(X, Y, positions) | {"dimension": certainty.dimension(X)}


def _held_out(network: nn.Module, layer: str, reference: Reference, images: Tensor) -> tuple:
    which = torch.arange(len(images))
    if (own := getattr(reference, "images", None)) is not None:
        which = torch.from_numpy(shown_and_held_out(len(own))[1])
        images, seen = own[which], reference
    else:
        seen = reference.on_test
    return responses_of(network, layer, seen, images, which)


def chance(network: nn.Module, layer: str, reference: Reference, images: Tensor, nulls: int = 5) -> float:
    """The chance level of `look`'s alignment: its mean after the reference's images were shuffled, `nulls` times."""
    X, Y, positions, _ = _held_out(network, layer, reference, images)
    found, n = [], len(Y) // positions
    for i in range(nulls):
        order = np.random.default_rng(i).permutation(n)
        if isinstance(reference, Dissimilarities):
            found.append(float(alignment_loss.rsa_to(torch.from_numpy(X), torch.from_numpy(Y[order][:, order]))))
        else:
            found.append(scores(X, Y.reshape(n, positions, -1)[order].reshape(Y.shape), positions)["alignment"])
    return float(np.mean(found))


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
