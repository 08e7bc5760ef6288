"""What a straight line can read from a representation: class labels, and the view in which they part best."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from torch import nn

from . import images, networks
from .representations import extract


class Readout(NamedTuple):
    """A linear readout fitted on some stimuli and tried on others.

    Attributes
    ----------
    accuracy : share of the new stimuli whose class it reads correctly
    view : (n_new, 2) the new stimuli in the two directions that part the classes of the *fitted* stimuli best
    """

    accuracy: float
    view: np.ndarray


def linear_readout(rows, labels, new_rows, new_labels, n_components: int = 50) -> Readout:
    """Linear discriminant analysis (Fisher 1936) on the leading principal components.

    Parameters
    ----------
    rows, new_rows : (n_stimuli, n_units), (n_new, n_units); nothing is fitted to the new ones
    labels, new_labels : (n_stimuli,), (n_new,) classes
    n_components : at most so many directions are kept before the classes are looked at, so that representations
        of 10 and of 30,000 units are read with the same freedom

    Raises
    ------
    ValueError for fewer stimuli than classes, or a single class.
    """
    n_components = min(n_components, *rows.shape)
    model = make_pipeline(PCA(n_components, random_state=0), LinearDiscriminantAnalysis())
    model.fit(rows, labels)
    view = model.transform(new_rows)[:, :2]
    if view.shape[1] < 2:  # two classes have one discriminating direction
        view = np.column_stack([view, np.zeros(len(view))])
    return Readout(float(model.score(new_rows, new_labels)), view)


def by_layer(trained: nn.Module, fit: images.Split, new: images.Split) -> dict[str, Readout]:
    """A readout of the input's pixels, of every layer (all units at all places), and of the network's output.

    `fit` and `new` are the images to fit on and the images to try on. Layers are taken one at a time, so that memory
    holds one layer, not all.
    """
    outputs = {"input": (fit.images.flatten(1).numpy() / 255.0, new.images.flatten(1).numpy() / 255.0)}
    found = {"input": linear_readout(outputs["input"][0], fit.labels, outputs["input"][1], new.labels)}
    final = [name for name, _ in trained.named_modules()][-1]
    for name in dict.fromkeys([*networks.layers(trained), final]):
        rows, new_rows = (extract(trained, s.images, [name], spatial="flatten")[name] for s in (fit, new))
        found["output" if name == final else name] = linear_readout(rows, fit.labels, new_rows, new.labels)
    return found


def table(readouts: dict[tuple[str, int], dict[str, Readout]]) -> pd.DataFrame:
    """Accuracies as a tidy table, from (condition, network) -> layer -> readout.

    Returns columns condition, network, layer, value.
    """
    rows = [
        (condition, network, layer, readout.accuracy)
        for (condition, network), layers in readouts.items()
        for layer, readout in layers.items()
    ]
    return pd.DataFrame(rows, columns=["condition", "network", "layer", "value"])
