"""Sameness up to a transformation, measured: what is done to a representation, and what every metric says of it.

A transformation takes responses X (n_stimuli, n_units) and a strength, 0 for none and 1 for full; what is random in it
follows from a seed. `scores` compares before with after under the metrics of chapter 2, `measure` does so for several
networks, transformations and strengths.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import special_ortho_group

from . import metrics

METRICS: dict[str, Callable] = {
    "linear": partial(metrics.linear, alpha="cv"),
    "linear, back": lambda X, Y: metrics.linear(Y, X, alpha="cv"),
    "Procrustes": metrics.procrustes,
    "permutation": metrics.permutation,
    "soft matching": metrics.soft_matching,
    "CKA": metrics.cka,
    "RSA": metrics.rsa,
    "mutual k-NN": metrics.mutual_knn,
}
"""What chapter 2 compares: five maps, scored held out, and three ways to compare without a map.

The ridge penalty is chosen inside the training folds, since a fixed one means something else in every layer.
"""

MAPS, KERNELS = tuple(METRICS)[:5], tuple(METRICS)[5:]


# --- transformations ---------------------------------------------------------------------------------


def _permutation(X, strength, rng):
    order, moved = np.arange(X.shape[1]), rng.permutation(X.shape[1])[: round(strength * X.shape[1])]
    order[moved] = np.roll(moved, 1)
    return X[:, order]


def _unit_scales(X, strength, rng):
    return X * 4 ** (strength * rng.standard_normal(X.shape[1]))


def _isotropic_scale(X, strength, rng):
    return X * 10**strength


def _rotation(X, strength, rng):
    return X @ _turn(X.shape[1], strength, rng)


def _translation(X, strength, rng):
    direction = rng.standard_normal(X.shape[1])
    return X + strength * direction / np.linalg.norm(direction) * np.sqrt((X**2).sum(1).mean())


def _linear_map(X, strength, rng):
    n = X.shape[1]
    axes = special_ortho_group.rvs(n, random_state=rng) if n > 1 else np.eye(1)
    stretch = 10 ** (strength * np.linspace(-1, 1, n)) if n > 1 else np.array([10**strength])
    return X @ (axes * stretch) @ axes.T @ _turn(n, strength, rng)


def _squashing(X, strength, rng):
    if strength == 0:
        return X
    centre, spread = X.mean(0), X.std(0)
    spread = np.where(spread > 0, spread, 1)
    return centre + spread * np.tanh(3 * strength * (X - centre) / spread) / (3 * strength)


def _noise(X, strength, rng):
    return X + strength * X.std(0) * rng.standard_normal(X.shape)


def _dropped_units(X, strength, rng):
    n = X.shape[1]
    return X[:, np.sort(rng.permutation(n)[: n - round(strength * n / 2)])]


def _turn(n: int, strength: float, rng) -> np.ndarray:
    """A power of a random rotation (n, n): by a share `strength` of each of its angles."""
    if n == 1:
        return np.eye(1)
    values, vectors = np.linalg.eig(special_ortho_group.rvs(n, random_state=rng))
    return ((vectors * np.exp(1j * strength * np.angle(values))) @ np.linalg.inv(vectors)).real


TRANSFORMATIONS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "permutation": _permutation,
    "unit scales": _unit_scales,
    "isotropic scale": _isotropic_scale,
    "rotation": _rotation,
    "translation": _translation,
    "linear map": _linear_map,
    "squashing": _squashing,
    "noise": _noise,
    "dropped units": _dropped_units,
}
ISOMETRIES = ("permutation", "rotation", "translation")


def transform(X, name: str, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """Responses after a transformation.

    Parameters
    ----------
    X : (n_stimuli, n_units)
    name : at full strength,
        "permutation" : all units in another order
        "unit scales" : each unit times its own factor, log-normal, typically 4 or 1/4
        "isotropic scale" : all units times 10
        "rotation" : a random rotation of the space
        "translation" : every stimulus moved by the same random vector, as long as stimuli are typically from the origin
        "linear map" : stretched along random axes by factors between 1/10 and 10, then rotated: invertible
        "squashing" : each unit, in its own standard deviations around its mean, through tanh(3 z) / 3: nonlinear
        "noise" : independent Gaussian noise, as strong as the unit itself
        "dropped units" : a random half of the units is gone
    strength : from 0, nothing, to 1; factors and angles grow evenly, shares of units and noise in proportion
    seed : of what is random; one seed gives one path from 0 to 1

    Returns
    -------
    float64 (n_stimuli, n_units), or fewer units for "dropped units"

    Raises
    ------
    ValueError for an unknown name, a strength outside [0, 1], or X that is not two-dimensional.
    """
    X = np.asarray(X, dtype=np.float64)
    if name not in TRANSFORMATIONS:
        raise ValueError(f"transformation {name!r} is not one of {', '.join(TRANSFORMATIONS)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength!r}: expected a number from 0 (nothing) to 1 (full)")
    if X.ndim != 2:
        raise ValueError(f"X has shape {X.shape}: expected (n_stimuli, n_units)")
    return TRANSFORMATIONS[name](X, float(strength), np.random.default_rng(seed))


# --- what the metrics say ----------------------------------------------------------------------------


def scores(X, Y, names: Iterable[str] = tuple(METRICS)) -> dict[str, float]:
    """Every metric of chapter 2 on one pair of representations.

    Parameters
    ----------
    X, Y : (n_stimuli, n_units_x), (n_stimuli, n_units_y); five folds are cut from the stimuli in their order
    names : keys of `METRICS`
    """
    return {name: METRICS[name](X, Y) for name in names}


def varying(X) -> np.ndarray:
    """Responses in float64 without the units that are the same for all stimuli."""
    X = np.asarray(X, dtype=np.float64)
    return X[:, (X != X[:1]).any(0)]


def within_classes(labels, seed: int = 0) -> np.ndarray:
    """An order of the stimuli (n_stimuli,) that swaps each with another of its class: all that is left is the class."""
    labels, order = np.asarray(labels), np.arange(len(labels))
    rng = np.random.default_rng(seed)
    for one in np.unique(labels):
        order[labels == one] = rng.permutation(np.flatnonzero(labels == one))
    return order


def chances(X, Y, labels, seed: int = 0) -> dict[str, dict[str, float]]:
    """Two nulls beside the scores of a pair: the stimuli of Y shuffled, and shuffled within their classes only.

    Parameters
    ----------
    X, Y : (n_stimuli, n_units_x), (n_stimuli, n_units_y)
    labels : (n_stimuli,) classes

    Returns
    -------
    dict "pair" | "same class" | "shuffled images" -> `scores`
    """
    orders = {"same class": within_classes(labels, seed)}
    orders["shuffled images"] = np.random.default_rng(seed).permutation(len(X))
    return {"pair": scores(X, Y)} | {name: scores(X, np.asarray(Y)[order]) for name, order in orders.items()}


def pairs(clouds: Mapping[int, Mapping[str, np.ndarray]], labels, seed: int = 0) -> pd.DataFrame:
    """`chances` of every layer of every two networks.

    Parameters
    ----------
    clouds : seed -> layer -> (n_stimuli, n_units)
    labels : (n_stimuli,) classes

    Returns
    -------
    DataFrame with columns pair, layer, condition, metric, value
    """
    rows = []
    for one, two in combinations(clouds, 2):
        for layer in clouds[one]:
            for condition, values in chances(clouds[one][layer], clouds[two][layer], labels, seed).items():
                rows += [(f"{one}-{two}", layer, condition, metric, value) for metric, value in values.items()]
    return pd.DataFrame(rows, columns=["pair", "layer", "condition", "metric", "value"])


def measure(
    layers: Mapping[int, np.ndarray],
    compare: Callable[[np.ndarray, np.ndarray], dict[str, float]] = scores,
    names: Iterable[str] = tuple(TRANSFORMATIONS),
    strengths: Iterable[float] = (1.0,),
) -> pd.DataFrame:
    """What `compare` says of each layer and the same layer transformed: the table metric x transformation.

    Beside the transformations stand "nothing", the layer against itself, and "shuffled images", its stimuli in
    another order: the values that a transformation can at best keep, and those that chance gives.

    Parameters
    ----------
    layers : seed -> (n_stimuli, n_units); each network draws its own random transformations, from its seed
    compare : of before and after, values by name

    Returns
    -------
    DataFrame with columns network, transformation, strength, metric, value
    """
    rows = []
    for seed, X in layers.items():
        X = np.asarray(X, dtype=np.float64)
        changed = {("nothing", 0.0): X}
        changed |= {(name, strength): transform(X, name, strength, seed) for name in names for strength in strengths}
        changed["shuffled images", 1.0] = X[np.random.default_rng(seed).permutation(len(X))]
        for (name, strength), Y in changed.items():
            rows += [(seed, name, strength, metric, value) for metric, value in compare(X, Y).items()]
    return pd.DataFrame(rows, columns=["network", "transformation", "strength", "metric", "value"])


def full(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table of `measure`, what was done at full strength, or not at all."""
    return table[table.strength.isin([0.0, 1.0])]


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What each step to a more flexible family of maps adds, in every pair and layer of a table of `pairs`.

    Returns
    -------
    DataFrame with columns pair (with its layer), condition ("rotation over permutation", "linear over rotation"), value
    """
    wide = table[table.condition == "pair"].set_index(["pair", "layer", "metric"]).value.unstack("metric")
    steps = {
        "rotation over permutation": wide["Procrustes"] - wide["permutation"],
        "linear over rotation": wide["linear"] - wide["Procrustes"],
    }
    found = pd.DataFrame(steps).melt(ignore_index=False, var_name="condition").reset_index()
    return found.assign(pair=found.pair + " " + found.layer).drop(columns="layer")


def last_step(table: pd.DataFrame) -> pd.DataFrame:
    """How much each metric changes from the last layer but one to the last, in every pair of a table of `pairs`.

    Returns
    -------
    DataFrame with columns pair, condition (the metric), value
    """
    before, last = table.layer.unique()[-2:]
    wide = table[table.condition == "pair"].set_index(["pair", "metric", "layer"]).value.unstack("layer")
    return (wide[last] - wide[before]).rename("value").rename_axis(["pair", "condition"]).reset_index()


# --- clouds that look different and are called the same ----------------------------------------------


def flower(n_groups: int = 5, per_group: int = 30, seed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A made-up cloud in two dimensions: groups of stimuli like petals of different length around the origin.

    Returns (points (n_stimuli, 2), group of each (n_stimuli,)).
    """
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(n_groups), per_group))
    angle = 2 * np.pi * (groups / n_groups + 0.05 * rng.uniform(-1, 1, len(groups)))
    radius = np.linspace(1, 2.2, n_groups)[groups] * rng.uniform(0.45, 1, len(groups))
    return radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]), groups


def equivalents(cloud: np.ndarray, groups: np.ndarray, seed: int = 0) -> dict[str, tuple[np.ndarray, Callable]]:
    """Clouds that look different from `flower`'s and that a metric calls the same, with that metric.

    Two units are too few for the correlation over units that `metrics.rsa` uses by default: here it goes by angles.

    Returns
    -------
    dict name -> (points (n_stimuli, 2), metric)
    """
    rng = np.random.default_rng(seed)
    length, angle = np.hypot(*cloud.T), np.arctan2(cloud[:, 1], cloud[:, 0])
    turn = np.array([[np.cos(2.2), -np.sin(2.2)], [np.sin(2.2), np.cos(2.2)]])
    gain = np.exp(rng.uniform(-1.6, 0.6, len(cloud)))[:, None]
    n = groups.max() + 1
    # Each group takes another group's direction; what is inside a group keeps its angles.
    moved = angle + 2 * np.pi / n * ((2 * np.arange(n)) % n - np.arange(n))[groups]
    return {
        "linear": (cloud @ np.array([[1.1, 0.5], [0.9, 0.7]]), lambda X, Y: metrics.linear(X, Y, alpha=1e-9)),
        "Procrustes, CKA": (0.6 * cloud @ turn * [1, -1] + [0.7, 0.5], metrics.cka),
        "permutation": (cloud[:, ::-1] * [1.2, 0.3], metrics.permutation),
        "RSA (angles)": (cloud * gain, lambda X, Y: metrics.rsa(X, Y, distance="cosine")),
        "mutual k-NN": (length[:, None] * np.column_stack([np.cos(moved), np.sin(moved)]), metrics.mutual_knn),
    }
