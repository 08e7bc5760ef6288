"""How much of a factorised network's accuracy lies in the leading directions of its layers' weights."""

import copy
from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor, nn

from .encoding_similarity import layers, neurons
from .linear_algebra import product
from .weight_covariances import weight_covariance

LEADING, OTHERS = "leading directions", "without them"
KEPT, RETUNED = "normalisation kept", "normalisation retuned"
ALL = "all layers"


def truncated(network: nn.Module, ranks: Mapping[str, int], part: str = LEADING) -> nn.Module:
    """A copy of the network whose weights lie in the leading eigenvectors of their covariance, or in the others.

    Parameters
    ----------
    ranks : layer -> how many eigenvectors; other layers are left as they are
    part : `LEADING`, or `OTHERS` for what the leading ones leave

    Raises
    ------
    ValueError for a rank below 0, or an unknown part.
    """
    if part not in (LEADING, OTHERS):
        raise ValueError(f"part {part!r}: must be {LEADING!r} or {OTHERS!r}")
    network = copy.deepcopy(network)
    for layer, rank in ranks.items():
        if rank < 0:
            raise ValueError(f"{layer}: rank {rank} must be 0 or more")
        weights = neurons(network, layer).double()
        leading = weight_covariance(weights).vectors[:, :rank]
        kept = product(product(weights, leading), leading.T.contiguous())
        target = network.get_submodule(f"{layer}.pointwise").weight
        with torch.no_grad():
            target.copy_((kept if part == LEADING else weights - kept).view_as(target))
    return network


def retune(network: nn.Module, start: str, inputs: Tensor) -> nn.Module:
    """The network with running averages of batch norm taken anew from layer `start` on, in place.

    Parameters
    ----------
    inputs : what layer `start` is given for some training images, as `upto` gives it
    """
    for name in _from(network, start):
        for module in network.get_submodule(name).modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_running_stats()
                module.momentum = None  # one plain average
                module.train()
    rest(network, start, inputs)
    return network.eval()


@torch.inference_mode()
def upto(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Layer -> what it is given for these images, so that a change in a layer costs only the layers after it."""
    network.eval()
    z, found = network.normalise(images), {}
    for name in network.layer_names:
        found[name] = z
        z = network.get_submodule(name)(z)
    return found


@torch.inference_mode()
def rest(network: nn.Module, start: str, inputs: Tensor) -> Tensor:
    """Scores of the classes from what layer `start` is given."""
    z = inputs
    for name in _from(network, start):
        z = network.get_submodule(name)(z)
    return network.head(z.mean((2, 3)))


def _from(network: nn.Module, start: str) -> list[str]:
    return network.layer_names[network.layer_names.index(start) :]


def curves(
    network: nn.Module,
    test,
    tuning: Tensor,
    ranks: Iterable[int],
    agreed: Mapping[str, int] | None = None,
    single: Iterable[str] = (),
) -> pd.DataFrame:
    """Accuracy against the number of directions that are kept, in one layer at a time and in all at once.

    Parameters
    ----------
    test : Split, on which accuracy is measured
    tuning : training images, from which averages of batch norm are taken anew
    ranks : to be kept, the same in all layers where all are truncated
    agreed : layer -> up to which rank two networks agree; then a further row for `ALL` has each layer at its own, with
        `agreed` True
    single : layers that are also truncated alone

    Returns
    -------
    DataFrame with columns layer (a name, or "all layers"), rank, part ("leading directions", "without them"),
    normalisation ("normalisation kept", "normalisation retuned"), accuracy, agreed. Ranks beyond a layer's neurons are
    left out; "without them" is always retuned. The untouched network is the row with layer "all layers", rank -1.
    """
    single = list(single)
    names, (shown, tune) = layers(network), (upto(network, part) for part in (test.images, tuning))
    labels = test.labels.to(next(iter(shown.values())).device)

    def right(changed: nn.Module, start: str) -> float:
        return float((rest(changed, start, shown[start]).argmax(1) == labels).double().mean())

    def measured(layer: str, chosen: Mapping[str, int], about: dict) -> list[dict]:
        start, rows = next(iter(chosen)), []
        for part in (LEADING, OTHERS):
            changed = truncated(network, chosen, part)
            found = {KEPT: right(changed, start)} if part == LEADING else {}
            found[RETUNED] = right(retune(changed, start, tune[start]), start)
            for how, value in found.items():
                rows.append({"layer": layer, "part": part, "normalisation": how, "accuracy": value} | about)
        return rows

    whole = {"layer": ALL, "rank": -1, "part": LEADING, "agreed": False}
    rows = [whole | {"normalisation": KEPT, "accuracy": right(network, names[0])}]
    most = {layer: len(neurons(network, layer)) for layer in names}
    for rank in ranks:
        if rank <= max(most.values()):
            chosen = {layer: min(rank, most[layer]) for layer in names}
            rows += measured(ALL, chosen, {"rank": rank, "agreed": False})
        for layer in single:
            if rank <= most[layer]:
                rows += measured(layer, {layer: rank}, {"rank": rank, "agreed": False})
    if agreed is not None:
        rows += measured(ALL, {layer: agreed[layer] for layer in names}, {"rank": -1, "agreed": True})
    return pd.DataFrame(rows)[["layer", "rank", "part", "normalisation", "accuracy", "agreed"]]


def above_guessing(table: pd.DataFrame, guess: float) -> pd.DataFrame:
    """What claims compare: shares of the untouched network's accuracy above guessing that are left at agreed ranks.

    Returns
    -------
    DataFrame with columns network, condition, value: "agreed ranks" (retuned), "agreed ranks, not retuned", "the other
    ranks" (retuned), "nine tenths" (0.9)
    """
    found = []
    for name, rows in table.groupby("network", sort=False):
        whole = rows[(rows["rank"] == -1) & ~rows.agreed].accuracy.iloc[0] - guess
        at = rows[rows.agreed].set_index(["part", "normalisation"]).accuracy
        named = {
            "agreed ranks": at[LEADING, RETUNED],
            "agreed ranks, not retuned": at[LEADING, KEPT],
            "the other ranks": at[OTHERS, RETUNED],
        }
        # A network that is no better than guessing has nothing to keep.
        shares = {name: (value - guess) / whole if whole > 0 else 0.0 for name, value in named.items()}
        found += [(name, condition, value) for condition, value in (shares | {"nine tenths": 0.9}).items()]
    return pd.DataFrame(found, columns=["network", "condition", "value"])
