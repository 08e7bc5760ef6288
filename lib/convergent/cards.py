"""Metric cards: one table of what every metric promises, and functions that measure whether it keeps its promises.

The page of cards and the tests read the same table. A promise is a change to the responses that leaves the value as it
is; what is not promised changes the value, and that is measured as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from . import metrics
from .transformations import TRANSFORMATIONS

KEPT = 1e-6  # a value that moves by less has not moved: what the reference packages differ by among themselves


# --- changes to responses ----------------------------------------------------------------------------


def _signs(X, rng):
    signs = rng.choice([-1.0, 1.0], X.shape[1])
    signs[rng.integers(len(signs))] = -1
    return X * signs


def _in_full(name: str) -> Callable:
    return lambda X, rng: TRANSFORMATIONS[name](X, 1.0, rng)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "permutation": _in_full("permutation"),
    "every unit twice": lambda X, rng: np.concatenate([X, X], 1),
    "isotropic scale": _in_full("isotropic scale"),
    "unit scales": _in_full("unit scales"),
    "unit signs": _signs,
    "translation": _in_full("translation"),
    "rotation": _in_full("rotation"),
    "linear map": _in_full("linear map"),
}
"""What is done to the responses (n_stimuli, n_units) of one representation: those of chapter 2, and two more."""

STIMULI = "order of stimuli"  # done to both representations alike

_RELABELLED = {"permutation", "every unit twice"}
_ROTATED = {"permutation", "every unit twice", "isotropic scale", "unit signs", "translation", "rotation"}
_UNIT_BY_UNIT = {"permutation", "every unit twice", "isotropic scale", "unit scales", "translation"}
_ANYTHING = set(CHANGES)


# --- the table ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """What one metric, with some options, promises.

    Attributes
    ----------
    function, options : `getattr(metrics, function)(X, Y, **options)`
    title : as the page calls it
    of_x, of_y : names of CHANGES to X and to Y that leave the value as it is
    of_both : whether the same new order of the stimuli in both leaves it, too
    symmetric : whether X and Y may be exchanged
    low, high : between what every value lies; None where there is no bound
    grows : how time grows with M stimuli, N units, K folds
    """

    function: str
    title: str
    of_x: frozenset[str]
    of_y: frozenset[str]
    symmetric: bool
    low: float | None
    high: float | None
    grows: str
    of_both: bool = True
    options: dict = field(default_factory=dict)

    def __call__(self, X, Y, **more) -> float:
        return getattr(metrics, self.function)(X, Y, **{**self.options, **more})

    @property
    def held_out(self) -> bool:
        """Whether the metric is fitted on folds: then `folds=None` gives its in-sample value."""
        fitted = ("linear", "procrustes", "permutation", "soft_matching", "semi_matching")
        return self.function in fitted and self.options.get("folds", 5) is not None

    def promises(self) -> list[tuple[str, str]]:
        """Every promise as (change, to what: "X", "Y" or "both")."""
        made = [(change, "X") for change in CHANGES if change in self.of_x]
        made += [(change, "Y") for change in CHANGES if change in self.of_y]
        return made + ([(STIMULI, "both")] if self.of_both else [])

    def exceptions(self) -> list[tuple[str, str]]:
        """Every change that is not promised to leave the value."""
        every = [(change, side) for side in "XY" for change in CHANGES] + [(STIMULI, "both")]
        made = self.promises()
        return [one for one in every if one not in made]


def _card(
    function, title, of_x, of_y=None, low=0.0, high=1.0, grows="", symmetric=None, of_both=True, **options
) -> Card:
    of_x, of_y = frozenset(of_x), frozenset(of_x if of_y is None else of_y)
    symmetric = of_x == of_y if symmetric is None else symmetric
    return Card(function, title, of_x, of_y, symmetric, low, high, grows, of_both, options)


_FOLDS = {"low": -1.0, "of_both": False}
_FITTED = _UNIT_BY_UNIT | {"unit signs"}  # targets that are predicted one by one
_KNN = _ROTATED - {"translation"}

CARDS: dict[str, Card] = {
    "linear": _card(
        "linear",
        "Linear map",
        _ROTATED - {"every unit twice", "isotropic scale"},
        _FITTED,
        **_FOLDS,
        grows="M N² + K N³",
    ),
    "procrustes": _card("procrustes", "Procrustes", _ROTATED, _ROTATED - {"rotation"}, **_FOLDS, grows="M N² + K N³"),
    "permutation": _card(
        "permutation", "Permutation", _UNIT_BY_UNIT - {"every unit twice"}, **_FOLDS, grows="M N² + K N³"
    ),
    "soft_matching": _card("soft_matching", "Soft matching", _UNIT_BY_UNIT, **_FOLDS, grows="M N² + K N³ log N"),
    "semi_matching": _card(
        "semi_matching", "Semi-matching", _UNIT_BY_UNIT, symmetric=False, **_FOLDS, grows="M N² + K N²"
    ),
    "cka": _card("cka", "CKA, linear", _ROTATED, grows="M N²"),
    "cka_debiased": _card("cka", "CKA, debiased", _ROTATED, low=-1.0, grows="M N²", debiased=True),
    "cka_rbf": _card("cka", "CKA, RBF", _ROTATED, grows="M² N", kernel="rbf"),
    "shape_cosine": _card("shape_cosine", "Shape cosine", _ROTATED, grows="M N² + N³"),
    "cca": _card("cca", "CCA", _ANYTHING, grows="M N² + N³"),
    "svcca": _card("svcca", "SVCCA", _ROTATED, grows="M N² + N³"),
    "pwcca": _card("pwcca", "PWCCA", _ROTATED - {"rotation"}, _ANYTHING, grows="M N² + N³"),
    "rsa": _card("rsa", "RSA", _RELABELLED | {"isotropic scale"}, low=-1.0, grows="M² N + M² log M"),
    "mutual_knn": _card("mutual_knn", "Mutual k-NN", _KNN, grows="M² N"),
    "cknna": _card("cknna", "CKNNA", _KNN, symmetric=False, low=None, high=None, grows="M² N"),
}
"""One card for each row of the page, by name."""

VARIANTS: dict[str, Card] = {
    "linear(alpha=0)": _card("linear", "no penalty", _ANYTHING, _FITTED, **_FOLDS, alpha=0),
    'linear(score="r2")': _card("linear", "R²", CARDS["linear"].of_x, _FITTED, low=None, of_both=False, score="r2"),
    'procrustes(score="r2")': _card(
        "procrustes", "R²", _ROTATED, CARDS["procrustes"].of_y, low=None, of_both=False, score="r2"
    ),
    "permutation(folds=None)": _card("permutation", "in sample", CARDS["permutation"].of_x, low=-1.0, folds=None),
    'rsa(distance="cosine")': _card("rsa", "cosine", _KNN, low=-1.0, distance="cosine"),
    'rsa(distance="euclidean")': _card("rsa", "Euclidean", _ROTATED, low=-1.0, distance="euclidean"),
    "rsa(center=True)": _card("rsa", "centred", CARDS["rsa"].of_x | {"translation"}, low=-1.0, center=True),
    'mutual_knn(distance="euclidean")': _card("mutual_knn", "Euclidean", _ROTATED, distance="euclidean"),
    "mutual_knn(center=True)": _card("mutual_knn", "centred", _ROTATED, center=True),
    "cknna(center=True)": _card("cknna", "centred", _ROTATED, symmetric=False, low=None, high=None, center=True),
}
"""Options that change what a metric promises, by the call that sets them."""


# --- measuring promises ------------------------------------------------------------------------------


def draw_pair(
    rng: np.random.Generator, n_stimuli: int | None = None, n_x: int | None = None, n_y: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Two random representations (n_stimuli, n_x), (n_stimuli, n_y) that share part of what they encode.

    Units differ in mean and scale, as in a layer; every second draw has passed a leaky ReLU. Sizes not given are drawn.
    """
    n_stimuli = int(rng.integers(40, 100)) if n_stimuli is None else n_stimuli
    n_x, n_y = (int(rng.integers(4, 13)) if n is None else n for n in (n_x, n_y))
    shared, rectified = rng.normal(size=(n_stimuli, 6)), rng.random() < 0.5
    pair = []
    for n in (n_x, n_y):
        latents = shared + 0.5 * rng.normal(size=shared.shape)
        units = latents @ rng.normal(size=(6, n)) / np.sqrt(6) + 0.3 * rng.normal(size=(n_stimuli, n))
        units += rng.uniform(0, 1, n)
        pair.append((np.where(units > 0, units, 0.1 * units) if rectified else units) * np.exp(rng.normal(0, 0.5, n)))
    return pair[0], pair[1]


def deviation(card: Card, change: str, side: str, X, Y, rng: np.random.Generator) -> float:
    """By how much a change to X, to Y or to both moves the value."""
    if change == STIMULI:
        order = rng.permutation(len(X))
        changed = X[order], Y[order]
    else:
        changed = (CHANGES[change](X, rng), Y) if side == "X" else (X, CHANGES[change](Y, rng))
    return abs(card(*changed) - card(X, Y))


def measure_promises(card: Card, draws: int, seed: int = 0) -> pd.DataFrame:
    """Largest deviation over random pairs, for every change.

    Returns
    -------
    DataFrame with columns change, side, promised (bool), largest (float), kept (bool: largest is at most KEPT)
    """
    rows = []
    for change, side in card.promises() + card.exceptions():
        moved = []
        for draw in range(draws):
            rng = np.random.default_rng([seed, draw])
            moved.append(deviation(card, change, side, *draw_pair(rng), rng))
        promised = (change, side) in card.promises()
        rows.append((change, side, promised, max(moved), max(moved) <= KEPT))
    return pd.DataFrame(rows, columns=["change", "side", "promised", "largest", "kept"])


def measure_symmetry(card: Card, draws: int, seed: int = 0) -> float:
    """Largest difference between the value of (X, Y) and that of (Y, X) over random pairs."""
    pairs = [draw_pair(np.random.default_rng([seed, draw])) for draw in range(draws)]
    return max(abs(card(X, Y) - card(Y, X)) for X, Y in pairs)


def extreme_pairs(card: Card, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs that reach for the ends of the range: the same, opposite, shifted, unrelated, few stimuli and units."""
    fewest = 3 if card.function in ("rsa", "mutual_knn", "cknna") else 1  # patterns of one unit have no correlation
    X, Y = draw_pair(rng)
    few = draw_pair(rng, n_stimuli=12)
    one = draw_pair(rng, n_x=fewest, n_y=fewest)
    return [
        (X, Y),
        (X, X),
        (X, -X),
        (X, CHANGES["translation"](X, rng)),
        (X, rng.permutation(Y)),
        few,
        (few[0], -few[0]),
        one,
        (one[0], -one[0]),
    ]


def measure_range(card: Card, draws: int, seed: int = 0) -> tuple[float, float]:
    """Smallest and largest value over the extreme pairs of every draw."""
    values = [card(X, Y) for draw in range(draws) for X, Y in extreme_pairs(card, np.random.default_rng([seed, draw]))]
    return min(values), max(values)
