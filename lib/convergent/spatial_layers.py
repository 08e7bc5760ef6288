"""The spatial covariances of every convolution of a network, as a table with a row a layer.

Covariances are not centred: averages over all pairs of input and output channels of products of weights, as in
Trockman et al. (2023) and Guth & Ménard (2024). The mean filter is small beside the spread, and part of what is asked.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn

from .spatial_filters import spatial_covariance
from .spatial_sets import diagonality, effective_dimension

SPLITS = 10  # of a layer's filters in two halves: how well so many filters determine the covariance at all
SMALLEST_MAP = 4  # pixels; on smaller maps most weights of a filter see only padding
SMALL_IMAGE = 32


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Convolutions with square filters of 3x3 or more that mix all channels, by name, in the order in which they run.

    Depthwise and grouped convolutions are left out: their filters see a part of the channels.

    Raises ValueError for a network without any.
    """
    return {name: module for name, (module, _) in _run(network).items()}


def _run(network: nn.Module) -> dict[str, tuple[nn.Conv2d, int]]:
    """Each convolution that counts, and the height of the map that it is given."""
    found: dict[str, tuple[nn.Conv2d, int]] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.kernel_size[0] == module.kernel_size[1] > 2:

            def note(module, inputs, name=name):
                found.setdefault(name, (module, inputs[0].shape[-2]))

            hooks.append(module.register_forward_pre_hook(note))
    if not hooks:
        raise ValueError(f"{type(network).__name__} has no convolution of 3x3 or more over all channels to look at")
    was_training = network.training
    size = getattr(network, "input_size", SMALL_IMAGE)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, size, size, device=next(network.parameters()).device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return found


def of_network(network: nn.Module, splits: int = SPLITS, seed: int = 0) -> pd.DataFrame:
    """The spatial covariances of a network.

    Parameters
    ----------
    network : any torch network; ours, or of another package through `networks.load`
    splits, seed : random splits of each layer's filters in two halves, for `halves`; without any it is NaN

    Returns
    -------
    DataFrame with a row a convolution, in the order in which they run, and columns
        layer : its name, without the number inside a block of ours
        position : from 1
        k, n_in, n_out, height : size of its filters, channels in and out, height of the maps that it sees
        variance : mean square of a weight
        halves : `spatial_sets.diagonality` of two halves of its filters, mean over splits
        covariance : (k², k²) array with trace 1

    Raises
    ------
    ValueError for a network without convolutions of 3x3 or more, or with weights that are zero or not finite.
    """
    rows, rng = [], np.random.default_rng(seed)
    for position, (name, (module, height)) in enumerate(_run(network).items(), start=1):
        filters, k = module.weight.detach().double().cpu(), module.kernel_size[0]
        C = spatial_covariance(filters).numpy()
        if not np.isfinite(C).all() or np.trace(C) == 0:
            raise ValueError(f"layer {name}: its filters are zero or not finite; did training diverge?")
        head, _, last = name.rpartition(".")
        rows.append(
            {
                "layer": head if head and last.isdecimal() and hasattr(network, "layer_names") else name,
                "position": position,
                "k": k,
                "n_in": module.in_channels,
                "n_out": module.out_channels,
                "height": height,
                "variance": np.trace(C) / k**2,
                "halves": _halves(filters.numpy().reshape(-1, k * k), splits, rng) if splits else float("nan"),
                "covariance": C / np.trace(C),
            }
        )
    return pd.DataFrame(rows)


def _halves(rows: np.ndarray, splits: int, rng) -> float:
    scores = []
    for _ in range(splits):
        order = rng.permutation(len(rows))
        scores.append(diagonality(*(half.T @ half for half in (rows[order[::2]], rows[order[1::2]]))))
    return float(np.mean(scores))


def about(layers: pd.DataFrame, **columns) -> pd.DataFrame:
    """The table of a network with constant columns in front, such as its seed and image set."""
    return pd.DataFrame({name: [value] * len(layers) for name, value in columns.items()}).join(layers)


def of_members(members, image_set: str) -> pd.DataFrame:
    """The table of several networks, trained and before their first step.

    Parameters
    ----------
    members : `named_networks.Member` of each
    image_set : title of what they were trained on

    Returns
    -------
    DataFrame with the columns of `of_network`, and before them image_set, labels ("true"), architecture, seed, accuracy
    and trained (whether the row is of the trained network)
    """
    found = []
    for member in members:
        told = {"image_set": image_set, "labels": "true", "architecture": member.architecture, "seed": member.seed}
        told["accuracy"] = member.accuracy
        found.append(about(of_network(member.network), **told, trained=True))
        found.append(about(of_network(member.untrained, splits=0), **told, trained=False))
    return pd.concat(found, ignore_index=True)


def later(layers: pd.DataFrame) -> pd.DataFrame:
    """The layers that the claims are about: from the second on, on maps of 4x4 or more."""
    return layers[(layers.position > 1) & (layers.height >= SMALLEST_MAP)]


def beside_initial(layers: pd.DataFrame, untrained: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `initial`: the mean square of a weight of the same layer before training.

    Raises ValueError where a layer has no untrained counterpart (same network, layer and size of filters).
    """
    by = ["image_set", "labels", "architecture", "seed", "position", "k"]
    found = layers.merge(untrained[[*by, "variance"]].rename(columns={"variance": "initial"}), on=by, how="left")
    if found.initial.isna().any():
        lacking = found[found.initial.isna()].iloc[0]
        raise ValueError(f"{lacking.architecture}, layer {lacking.layer}: no untrained network to compare it with")
    return found


def dimensions(layers: pd.DataFrame, leading: int = 5) -> pd.DataFrame:
    """The table with what its spectra say, layer by layer.

    Returns
    -------
    DataFrame with the columns of `layers` and
        dimension : effective number of patterns (`effective_dimension`), between 1 and k²
        leading : share of variance of the first five patterns, as many as Guth & Ménard (2024) freeze
    """
    shares = [float(np.linalg.eigvalsh(C)[::-1][:leading].sum() / np.trace(C)) for C in layers.covariance]
    return layers.assign(dimension=[effective_dimension(C) for C in layers.covariance], leading=shares)
