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
    ValueError for a single class, or no more stimuli than classes.
    """
    n_classes = len(np.unique(np.asarray(labels)))
    if not 1 < n_classes < len(rows):
        raise ValueError(f"{len(rows)} stimuli of {n_classes} classes: a readout takes 2 classes and more stimuli")
    n_components = min(n_components, *rows.shape)
    model = make_pipeline(PCA(n_components, random_state=0), LinearDiscriminantAnalysis())
    model.fit(rows, labels)
    view = model.transform(new_rows)[:, :2]
    if view.shape[1] < 2:  # two classes have one discriminating direction
        view = np.column_stack([view, np.zeros(len(view))])
    return Readout(float(model.score(new_rows, new_labels)), view)


def by_layer(network: nn.Module, fit: images.Split, new: images.Split) -> dict[str, Readout]:
    """A readout of the input's pixels, of every layer, and of the network's output.

    Layers keep their places, averaged down to 8 x 8 where there are more: fifty leading components of a layer are
    smooth over places anyway, and so all layers fit into memory at once.

    Parameters
    ----------
    fit, new : the images to fit on, and the images to try on
    """
    output = [name for name, _ in network.named_modules()][-1]
    names = dict.fromkeys([*networks.layers(network), output])
    rows, new_rows = (extract(network, split.images, names, spatial="flatten", grid=8) for split in (fit, new))
    found = {
        "input": linear_readout(fit.images.flatten(1) / 255.0, fit.labels, new.images.flatten(1) / 255.0, new.labels)
    }
    for name in names:
        label = "output" if name == output else name
        found[label] = linear_readout(rows.pop(name), fit.labels, new_rows.pop(name), new.labels)
    return found


def table(readouts: dict[tuple[str, int], dict[str, Readout]], chance: float) -> pd.DataFrame:
    """Accuracies as a tidy table, from (condition, network) -> layer -> readout, with the chance level as a condition.

    Returns columns condition, network, layer, value.
    """
    rows = [
        (condition, network, layer, readout.accuracy)
        for (condition, network), layers in readouts.items()
        for layer, readout in layers.items()
    ]
    layers = next(iter(readouts.values()))
    rows += [("chance", network, layer, chance) for network in {key[1] for key in readouts} for layer in layers]
    return pd.DataFrame(rows, columns=["condition", "network", "layer", "value"])
