"""Two factorised networks, layer by layer: are their weights alike once their inputs are aligned?

A layer of `networks.load("factorised_vgg")` is frozen filters, ReLU, batch norm (module `norm`, whose output is the
layer's input representation φ, ten responses a channel) and a learned 1x1 convolution (`pointwise`), whose rows are the
neurons. Guth & Ménard (2024, section 3.1): align φ of the two networks, and compare neurons in aligned axes.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import weight_similarity as similarity
from .linear_algebra import product, workers
from .representations import recording
from .weight_covariances import Covariance, alignment, effective_rank, learned_and_random, weight_covariance

ALIGNED, UNALIGNED = "aligned", "not aligned"
TOGETHER = 12  # pairs of networks whose moments are held at once: some 400 MB for six layers of up to 1,280 inputs
Pair = tuple[str, str]


class Encoding(NamedTuple):
    """What one layer has learned: the covariance of its neurons, its learned part, the other eigenvalues, its scale."""

    whole: Covariance
    learned: Covariance
    random: Tensor
    scale: similarity.Scale


class Inputs(NamedTuple):
    """Second moments of two networks' inputs to one layer, over images and all positions.

    cross : (C_in_b, C_in_a), E[φ_b φ_a']
    power : E|φ_a|² and E|φ_b|²
    """

    cross: Tensor
    power: tuple[float, float]

    def cosine(self, rotation: Tensor) -> float:
        """How well the inputs coincide after `rotation`: 1 for perfectly, 0 for not at all."""
        return float((rotation * self.cross).sum()) / (self.power[0] * self.power[1]) ** 0.5


def layers(network: nn.Module) -> list[str]:
    """Names of the layers with a `norm` and a learned `pointwise` convolution, from input to output.

    Raises ValueError for a network without any.
    """
    parts = dict(network.named_modules())
    found = [name.removesuffix(".pointwise") for name in parts if name.endswith(".pointwise")]
    found = [name for name in found if f"{name}.norm" in parts]
    if not found:
        raise ValueError(
            f"{type(network).__name__} has no layer of frozen filters and a pointwise convolution: channel weights are"
            ' compared between networks.load("factorised_vgg", ...)'
        )
    return found


def neurons(network: nn.Module, layer: str) -> Tensor:
    """The learned weights of a layer (C_out, C_in): one neuron a row."""
    return network.get_submodule(f"{layer}.pointwise").weight.detach().flatten(1)


def encode(network: nn.Module, draws: int = 10, seed: int = 0) -> dict[str, Encoding]:
    """Layer -> its `Encoding`. `draws` and `seed` are those of `weight_similarity.scale`."""
    found = {}
    for layer in layers(network):
        whole = weight_covariance(neurons(network, layer))
        learned, random = learned_and_random(whole)
        found[layer] = Encoding(whole, learned, random, similarity.scale(learned, draws=draws, seed=seed))
    return found


def dimensions(encodings: Mapping[str, Mapping[str, Encoding]]) -> pd.DataFrame:
    """How many directions were learned.

    Returns
    -------
    DataFrame with columns network, layer, inputs (C_in), neurons (C_out), learned (number of directions), effective
    rank (eq. 4), share (of the variance of the weights that was learned), random (mean eigenvalue of the rest, where
    initial weights have `expected`)
    """
    rows = []
    for name, encoded in encodings.items():
        for layer, one in encoded.items():
            n_inputs, n_neurons = len(one.whole.vectors), one.whole.n_neurons
            rest, total = one.random, float(one.whole.values.sum())
            rows.append(
                {
                    "network": name,
                    "layer": layer,
                    "inputs": n_inputs,
                    "neurons": n_neurons,
                    "learned": len(one.learned.values),
                    "effective_rank": effective_rank(one.learned.values),
                    "share": float(one.learned.values.sum()) / total if total else 0.0,
                    "random": float(rest.mean()) if len(rest) else 0.0,
                    # The trace of an untrained covariance is C_in, on as many eigenvalues as are not zero.
                    "expected": n_inputs / min(n_inputs, n_neurons),
                }
            )
    return pd.DataFrame(rows)


def input_moments(
    networks: Mapping[str, nn.Module], images: Tensor, pairs: Iterable[Pair], batch_size: int = 50
) -> dict[Pair, dict[str, Inputs]]:
    """Second moments of the inputs to every layer, for pairs of networks that see the same images.

    Every position of every image is a sample. Only the responses to one batch are in memory at a time, so that memory
    does not grow with the number of images; products are in float32, their sums in float64.

    Parameters
    ----------
    networks : name -> network; all on one device
    images : (n_images, 3, height, width), as the networks take them

    Raises
    ------
    ValueError for no images, or networks with different layers or resolutions.
    """
    pairs = list(pairs)
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}: expected (n_images, 3, height, width), some")
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    names_of_layers = {tuple(layers(networks[name])) for name in names}
    if len(names_of_layers) != 1:
        raise ValueError(f"the networks {', '.join(names)} differ in their layers: compare networks of one depth")
    (each,) = names_of_layers
    cross: dict[tuple, Tensor] = {}
    power = {(name, layer): 0.0 for name in names for layer in each}
    count = dict.fromkeys(each, 0)
    for batch in images.split(batch_size):
        rows = {name: _inputs(networks[name], batch, each) for name in names}
        for layer in each:
            counts = {len(rows[name][layer]) for name in names}
            if len(counts) != 1:
                raise ValueError(f"{layer} has different numbers of positions in {', '.join(names)}")
            count[layer] += counts.pop()
            for name in names:
                power[name, layer] += float(rows[name][layer].square().sum(dtype=torch.float64))
            for a, b in pairs:
                found = product(rows[b][layer].T, rows[a][layer]).double()
                key = (a, b, layer)
                cross[key] = cross[key].add_(found) if key in cross else found
    return {
        (a, b): {
            layer: Inputs(
                cross[a, b, layer] / count[layer], tuple(power[name, layer] / count[layer] for name in (a, b))
            )
            for layer in each
        }
        for a, b in pairs
    }


@torch.inference_mode()
def _inputs(network: nn.Module, images: Tensor, each: Iterable[str]) -> dict[str, Tensor]:
    """Layer -> what its neurons see, (n_images * positions, C_in) float32."""
    network.eval()
    where = next(network.parameters()).device
    with recording(network, [f"{layer}.norm" for layer in each]) as outputs:
        network(images.to(where))
    # Channels first within the batch, so that one copy puts positions in rows.
    return {name.removesuffix(".norm"): z.float().permute(0, 2, 3, 1).flatten(0, 2) for name, z in outputs.items()}


def align(moments: Mapping[str, Inputs]) -> dict[str, Tensor]:
    """Layer -> A (C_in_b, C_in_a) that maps the first network's axes onto the second's (eq. 1)."""
    device = next(iter(moments.values())).cross.device
    with workers(device) as each:
        return dict(zip(moments, each(lambda one: alignment(one.cross), moments.values()), strict=True))


class Comparison(NamedTuple):
    """Tables of a comparison of networks, and what they were made from.

    similarities : a, b, layer, condition ("aligned", "not aligned"), value (eq. 6, both directions averaged), error,
        cosine (eq. 5), zero, one, inputs (cosine of the aligned inputs)
    turned : (a, b) -> layer -> the learned covariance of a in the axes of b, for pairs that were asked to be kept
    """

    similarities: pd.DataFrame
    turned: dict[Pair, dict[str, Covariance]]


def compare(
    networks: Mapping[str, nn.Module],
    images: Tensor,
    encodings: Mapping[str, Mapping[str, Encoding]] | None = None,
    pairs: Iterable[Pair] | None = None,
    batch_size: int = 50,
    progress: bool = True,
) -> Comparison:
    """Similarity of the learned weights of every layer, for pairs of networks, with and without alignment.

    Parameters
    ----------
    networks : name -> network
    images : that the alignment is measured on; where they have fewer positions than a layer has inputs, some axes
        cannot be aligned, and similarities come out too low
    encodings : of the networks, where they are there already
    pairs : of names; None compares each with each

    Raises
    ------
    ValueError as `input_moments` and `layers`.
    """
    encodings = encodings or {name: encode(network) for name, network in networks.items()}
    pairs = list(combinations(networks, 2)) if pairs is None else list(pairs)
    rows, turned = [], {}
    with tqdm(total=len(pairs), desc="pairs of networks", disable=not progress) as bar:
        for start in range(0, len(pairs), TOGETHER):
            some = pairs[start : start + TOGETHER]
            moments = input_moments(networks, images, some, batch_size)
            for a, b in some:
                found = moments.pop((a, b))
                rotations = align(found)
                turned[a, b] = {}
                for layer, rotation in rotations.items():
                    one, other = encodings[a][layer], encodings[b][layer]
                    seen = one.learned.seen_by(rotation)
                    turned[a, b][layer] = seen
                    about = {"a": a, "b": b, "layer": layer, "inputs": found[layer].cosine(rotation)}
                    rows.append(about | {"condition": ALIGNED} | _both_ways(one, other, seen))
                    if rotation.shape[0] == rotation.shape[1]:
                        rows.append(about | {"condition": UNALIGNED} | _both_ways(one, other, one.learned))
                bar.update()
    columns = ["a", "b", "layer", "condition", "value", "error", "cosine", "zero", "one", "inputs"]
    return Comparison(pd.DataFrame(rows, columns=columns), turned)


def _both_ways(one: Encoding, other: Encoding, seen: Covariance) -> dict[str, float]:
    """Eq. 6 on the scale of either network, averaged: pairs of the book have no order."""
    to = similarity.normalised_similarity(seen, other.learned, on=one.scale)
    back = similarity.normalised_similarity(other.learned, seen, on=other.scale)
    return {
        "value": (to.value + back.value) / 2,
        "error": (to.error**2 + back.error**2) ** 0.5 / 2,
        "cosine": to.cosine,
        "zero": (one.scale.zero + other.scale.zero) / 2,
        "one": (one.scale.one + other.scale.one) / 2,
    }


def ceilings(encodings: Mapping[str, Mapping[str, Encoding]], draws: int = 5, seed: int = 0) -> pd.DataFrame:
    """What eq. 6 gives for two layers whose neurons are drawn from one and the same distribution, perfectly aligned.

    Below 1: in eq. 6 the covariance is the truth in one place and an estimate in the other, while of two networks both
    are estimates. Columns network, layer, value (mean over draws), spread (standard deviation).
    """
    rows = []
    for name, encoded in encodings.items():
        for layer, one in encoded.items():
            found = similarity.same_population(one.learned, draws=draws, seed=seed)
            rows.append({"network": name, "layer": layer, "value": np.mean(found), "spread": np.std(found)})
    return pd.DataFrame(rows)


def cosines(seen: Mapping[str, Covariance], other: Mapping[str, Encoding], n: int = 24) -> pd.DataFrame:
    """|Cosines| of leading learned eigenvectors by rank.

    Parameters
    ----------
    seen : layer -> learned covariance of one network, in the axes of `other` (or not, to see what that does)
    n : ranks

    Returns
    -------
    DataFrame with a row for each layer and rank: layer, rank (from 1, of `seen`), base (1/√C_in), and the cosines with
    ranks 1 to n of `other` in columns c1, c2, ...; zero for ranks that were not learned
    """
    found = []
    for layer, one in seen.items():
        matrix = similarity.eigenvector_cosines(one, other[layer].learned, n).cpu().numpy()
        table = pd.DataFrame(matrix, columns=[f"c{k}" for k in range(1, n + 1)])
        table.insert(0, "base", len(one.vectors) ** -0.5)
        table.insert(0, "rank", range(1, n + 1))
        table.insert(0, "layer", layer)
        found.append(table)
    return pd.concat(found, ignore_index=True)


def agreement(seen: Covariance, other: Covariance) -> int:
    """Up to which rank two covariances agree: the largest k such that most of the k leading eigenvectors of `seen` have
    one among the learned eigenvectors of `other` with a cosine above five times the base level, 5 / √C_in, or above
    one half where that is less.

    Five base levels are the darkest colour of Guth & Ménard (2024, Fig. 3). With 30 inputs, as in a first layer, that
    would be a cosine of 0.91, which hardly any estimate from few neurons reaches.
    """
    if 0 in (len(seen.values), len(other.values)):
        return 0
    best = product(seen.vectors.T, other.vectors).abs().amax(1)
    found = (best > min(5 / len(other.vectors) ** 0.5, 0.5)).double()
    ranks = torch.arange(1, len(found) + 1, device=found.device)
    most = (found.cumsum(0) > ranks / 2).nonzero()
    return int(most[-1]) + 1 if len(most) else 0
