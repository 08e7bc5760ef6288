"""What networks of any kind say about image sets, and whether they name what they see."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import geirhos, representations

if TYPE_CHECKING:
    from .under_shift import Set

POSITIONS = 4  # places of an image that count as stimuli
HEAD = "head"  # the classifier of every network of the zoo


def responses(
    networks: Sequence[nn.Module],
    groups: "Mapping[str, Set]",
    layers: Sequence[str] | Sequence[Mapping[str, str]],
    n_classes: int | None = None,
) -> tuple[dict[tuple[str, int], dict[str, np.ndarray]], pd.DataFrame]:
    """What the layers of networks say about every set, and how often they are right about it.

    Parameters
    ----------
    layers : names; or, for each network, name -> its own layer (`populations.SideBySide`)
    n_classes : of the data set: a network with another number of answers has no accuracy. None: all have as many

    Returns
    -------
    dict (set, number of the network) -> layer -> activations (n_stimuli, n_units), four places of an image
    DataFrame with columns shift, network, accuracy (share of the labelled images; NaN where there are none), n_labelled
    """
    acts, right, several = {}, [], isinstance(layers[0], Mapping)
    for name, group in groups.items():
        labels = group.split.labels.numpy()
        labelled = labels != geirhos.NO_CLASS
        for i, network in enumerate(networks):
            own = layers[i] if several else dict(zip(layers, layers, strict=True))
            acts[name, i], answers = _answers(network, group.split.images, own, n_classes)
            if several:  # kinds differ in where places end: a layer without any says the same of each
                n = POSITIONS * len(labels)
                acts[name, i] = {k: v if len(v) == n else v.repeat(POSITIONS, 0) for k, v in acts[name, i].items()}
            correct = labelled[:0] if answers is None else (answers == labels)[labelled]
            right.append((name, i, correct.mean() if len(correct) else np.nan, len(correct)))
    return acts, pd.DataFrame(right, columns=["shift", "network", "accuracy", "n_labelled"])


def _answers(network: nn.Module, pictures: Tensor, own: Mapping[str, str], n_classes: int | None):
    """Layer -> rows, and the class that is named for each image (None where the network has other classes)."""
    ours = hasattr(network, "layer_names")
    small = getattr(network, "input_size", 0) > pictures.shape[-1]  # enlarged images fill the memory sooner
    options = {"n_positions": POSITIONS, "batch_size": 16 if small else 250}
    rows = representations.extract(network, pictures, [*own.values(), *([HEAD] if ours else [])], **options)
    said = rows.pop(HEAD) if ours else _outputs(network, pictures, options["batch_size"], n_classes)
    known = said is not None and n_classes in (None, said.shape[1])
    return {name: rows[one] for name, one in own.items()}, said.argmax(1) if known else None


@torch.inference_mode()
def _outputs(network: nn.Module, pictures: Tensor, size: int, n_classes: int | None) -> np.ndarray | None:
    """What a network answers (n_images, n_classes); None where it is no such matrix."""
    where = next((p.device for p in network.parameters()), pictures.device)
    first = network(pictures[:1].to(where))
    if not isinstance(first, Tensor) or first.ndim != 2 or first.shape[1] != n_classes:
        return None
    return torch.cat([network(pictures[i : i + size].to(where)) for i in range(0, len(pictures), size)]).cpu().numpy()
