"""Does what networks share in their weights explain what they share in their activations?"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import certainty, compare, representations
from .encoding_similarity import ALIGNED, Encoding, Pair, encode, input_moments, layers, neurons
from .encoding_similarity import align as aligned_axes
from .trajectories import POSITIONS, with_averages
from .weight_similarity import neurons as drawn_neurons
from .weight_similarity import normalised_similarity

INPUTS, OUTPUTS = "inputs", "outputs"
LEARNED, FRESH = "outputs, neurons redrawn from the learned covariance", "outputs, neurons redrawn at random"
METRICS = ("procrustes", "cka")


def sources(
    networks: Mapping[str, nn.Module],
    encodings: Mapping[str, Mapping[str, Encoding]],
    images: Tensor,
    pairs: Iterable[Pair],
    nulls: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Alignment of the outputs of each layer, beside that of its inputs and of what other neurons make of these.

    The outputs of a layer are linear in its inputs. Both networks' neurons are replaced by as many Gaussian ones, in
    two ways: of the layer's own learned covariance plus the initial one (what chapter 10 says was learned, without
    the neurons themselves), or of the initial one alone (nothing learned in this layer; what aligns is its inputs').

    Returns
    -------
    DataFrame with columns a, b, layer, condition, metric ("procrustes", held out; "cka"), value, chance
    """
    random, rows = torch.Generator().manual_seed(seed), []
    seen = {name: _seen(networks[name], images) for name in dict.fromkeys(n for pair in pairs for n in pair)}
    variants = {
        name: {
            layer: _variants(seen[name][layer], neurons(networks[name], layer).cpu(), one, random)
            for layer, one in encodings[name].items()
        }
        for name in seen
    }
    for a, b in pairs:
        for layer in encodings[a]:
            for condition, X in variants[a][layer].items():
                found = scores(X, variants[b][layer][condition], METRICS, nulls)
                rows.append(found.assign(a=a, b=b, layer=layer, condition=condition))
    return pd.concat(rows, ignore_index=True)[["a", "b", "layer", "condition", "metric", "value", "chance"]]


def _seen(network: nn.Module, images: Tensor) -> dict[str, np.ndarray]:
    """Layer -> its inputs at four places of each image (n_images * 4, C_in)."""
    names = [f"{layer}.norm" for layer in layers(network)]
    found = representations.extract(network, images, names, n_positions=POSITIONS, batch_size=50)
    return {name.removesuffix(".norm"): rows for name, rows in found.items()}


def _variants(inputs: np.ndarray, trained: Tensor, one: Encoding, random: torch.Generator) -> dict[str, np.ndarray]:
    n_neurons = one.whole.n_neurons
    learned = one.learned._replace(values=one.learned.values.cpu(), vectors=one.learned.vectors.cpu())
    nothing = learned._replace(values=learned.values[:0], vectors=learned.vectors[:, :0])
    weights = {
        OUTPUTS: trained,
        LEARNED: drawn_neurons(learned, n_neurons, random),
        FRESH: drawn_neurons(nothing, n_neurons, random),
    }
    return {INPUTS: inputs} | {name: inputs @ found.numpy().astype(inputs.dtype).T for name, found in weights.items()}


def scores(X: np.ndarray, Y: np.ndarray, metrics: Iterable[str], nulls: int) -> pd.DataFrame:
    """Scores of two matrices with four rows an image, directions averaged: metric, value, chance."""
    with certainty.silent_units_expected():
        found = compare.compare({"x": X}, {"x": Y}, metrics, nulls=nulls, positions=POSITIONS, progress=False)
    return found.groupby("metric", sort=False)[["value", "chance"]].mean().reset_index()


def course(
    checkpoints: Mapping[int, Mapping[int, nn.Module]], test, averages: Tensor, steps: Iterable[int], nulls: int = 1
) -> pd.DataFrame:
    """Two networks through training: their weights, aligned, and their activations, beside each other.

    Batch norm's averages are taken anew at every step, as in chapter 6.

    Parameters
    ----------
    checkpoints : seed -> step -> network; two seeds
    test : Split
    averages : training images for the averages

    Returns
    -------
    DataFrame with columns step, layer, what ("similarity of weights", "learned directions", "alignment of
    activations", "accuracy"), value
    """
    rows, (first, second) = [], checkpoints
    for step in steps:
        now = {str(seed): with_averages(checkpoints[seed][step], averages) for seed in (first, second)}
        encoded, pair = {name: encode(network, draws=5) for name, network in now.items()}, (str(first), str(second))
        moments = input_moments(now, test.images, [pair])[pair]
        for layer, rotation in aligned_axes(moments).items():
            one, other = (encoded[name][layer] for name in pair)
            turned = one.learned.seen_by(rotation)
            both = (
                normalised_similarity(turned, other.learned, on=one.scale).value,
                normalised_similarity(other.learned, turned, on=other.scale).value,
            )
            rows.append((step, layer, "similarity of weights", sum(both) / 2))
            rows.append((step, layer, "learned directions", (len(one.learned.values) + len(other.learned.values)) / 2))
        outputs = [
            representations.extract(network, test.images, n_positions=POSITIONS, batch_size=50)
            for network in now.values()
        ]
        for layer in encoded[pair[0]]:
            value = float(scores(outputs[0][layer], outputs[1][layer], ("procrustes",), nulls).value.iloc[0])
            rows.append((step, layer, "alignment of activations", value))
        right = [_accuracy(network, test) for network in now.values()]
        rows.append((step, "accuracy", "accuracy", sum(right) / 2))
    return pd.DataFrame(rows, columns=["step", "layer", "what", "value"])


@torch.inference_mode()
def _accuracy(network: nn.Module, test) -> float:
    return float((network(test.images).argmax(1) == test.labels).double().mean())


def some_steps(steps: Iterable[int], n: int = 8) -> list[int]:
    """The first, the last and some steps between them, evenly on a logarithmic axis."""
    steps = sorted(steps)
    wanted = np.geomspace(1, steps[-1] + 1, n) - 1
    return sorted({min(steps, key=lambda step, w=w: abs(np.log1p(step) - np.log1p(w))) for w in wanted})


def together(similarities: pd.DataFrame, activations: pd.DataFrame, metric: str = "procrustes") -> pd.DataFrame:
    """Similarity of weights beside alignment of inputs and outputs, for the same pairs and layers.

    Returns
    -------
    DataFrame with columns a, b, kind, layer, weights, and the conditions of `sources` as columns
    """
    wide = activations[activations.metric == metric].pivot_table(
        index=["a", "b", "layer"], columns="condition", values="value", sort=False
    )
    weights = similarities[similarities.condition == ALIGNED][["a", "b", "kind", "layer", "value"]]
    return weights.rename(columns={"value": "weights"}).merge(wide.reset_index(), on=["a", "b", "layer"])
