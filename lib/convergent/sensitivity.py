"""How a metric answers to damage, to unrelated data and to size: the curves and the times of the metric cards."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import special_ortho_group

from . import cards
from .cards import Card
from .transformations import TRANSFORMATIONS


def turn(X: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Every direction turned by one angle, in random planes; with an odd number of units one direction stays.

    Parameters
    ----------
    X : (n_stimuli, n_units)
    """
    n = X.shape[1]
    basis, turned = special_ortho_group.rvs(n, random_state=rng), np.eye(n)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    for i in range(0, n - 1, 2):
        turned[i : i + 2, i : i + 2] = [[cosine, -sine], [sine, cosine]]
    return X @ basis @ turned @ basis.T


@dataclass(frozen=True)
class Damage:
    """A growing change to a layer.

    Attributes
    ----------
    apply : function of X (n_stimuli, n_units), a strength and a random generator
    levels : how much, on the axis of a figure
    unit : in which the levels count
    strength : of `apply`, for a level of 1
    """

    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    levels: tuple[float, ...]
    unit: str
    strength: float = 1.0


DAMAGE: dict[str, Damage] = {
    "noise": Damage(TRANSFORMATIONS["noise"], (0, 0.25, 0.5, 1, 1.5, 2), "noise SD"),
    "rotation": Damage(turn, (0, 10, 20, 40, 60, 90), "degrees"),
    "dropped units": Damage(TRANSFORMATIONS["dropped units"], (0, 0.25, 0.5, 0.75, 0.9), "share", strength=2),
    "squashing": Damage(TRANSFORMATIONS["squashing"], (0, 0.5, 1, 2, 4, 8), "gain", strength=1 / 3),
}
"""What is done to a layer before it is compared with itself. Noise counts in standard deviations of each unit, and
squashing is a tanh of growing gain of each unit, in its own standard deviations about its mean."""

RATIOS = (0.5, 1, 2, 4, 8, 16)  # stimuli for each unit


def measure_sensitivity(card: Card, X: np.ndarray, draws: int, seed: int = 0) -> pd.DataFrame:
    """Value of a damaged copy of a layer (as X) against the layer (as Y), for growing damage.

    Parameters
    ----------
    X : (n_stimuli, n_units), no unit of which is constant

    Returns
    -------
    DataFrame with columns damage, level, draw, value; "shuffled stimuli" (level 0) gives the chance level
    """
    rows = []
    for draw in range(draws):
        rows.append(("shuffled stimuli", 0, draw, card(np.random.default_rng([seed, draw]).permutation(X), X)))
    for name, damage in DAMAGE.items():
        for draw in range(draws):
            for level in damage.levels:
                damaged = damage.apply(X, damage.strength * level, np.random.default_rng([seed, draw]))
                rows.append((name, level, draw, card(damaged, X)))
    return pd.DataFrame(rows, columns=["damage", "level", "draw", "value"])


def measure_chance(card: Card, draws: int, n_units: int = 24, seed: int = 0) -> pd.DataFrame:
    """Value of two representations that have nothing in common, for more and more stimuli.

    Independent normal responses of equally many units. Metrics that are fitted on folds are measured in sample as well.

    Returns
    -------
    DataFrame with columns ratio (stimuli for each unit), fit ("held out", "in sample"; others "as it is"), draw, value
    """
    fits = {"held out": {}, "in sample": {"folds": None}} if card.held_out else {"as it is": {}}
    rows = []
    for ratio in RATIOS:
        for draw in range(draws):
            rng = np.random.default_rng([seed, draw])
            X, Y = rng.normal(size=(2, round(ratio * n_units), n_units))
            rows += [(ratio, fit, draw, card(X, Y, **options)) for fit, options in fits.items()]
    return pd.DataFrame(rows, columns=["ratio", "fit", "draw", "value"])


def measure_cost(card: Card, n_stimuli: int = 1000, n_units: int = 128, seed: int = 0) -> dict[str, float]:
    """Seconds of one call (the fastest of 3 to 20), and how many times as long it takes for twice as much.

    The second representation has three quarters of the units, so that unit matching has no short cut.

    Returns
    -------
    dict with seconds, twice_stimuli and twice_units (ratios of time)
    """
    rng = np.random.default_rng(seed)

    def seconds(n_stimuli, n_units):
        X, Y = rng.normal(size=(n_stimuli, n_units)), rng.normal(size=(n_stimuli, 3 * n_units // 4))
        card(X, Y)  # what is set up at the first call is not the metric's
        taken = []
        while len(taken) < 3 or (len(taken) < 20 and sum(taken) < 0.3):
            started = time.perf_counter()
            card(X, Y)
            taken.append(time.perf_counter() - started)
        return min(taken)

    base = seconds(n_stimuli, n_units)
    return {
        "seconds": base,
        "twice_stimuli": seconds(2 * n_stimuli, n_units) / base,
        "twice_units": seconds(n_stimuli, 2 * n_units) / base,
    }


def hub(X: np.ndarray, k: int = 10) -> int:
    """Of how many stimuli the most popular stimulus is among the `k` nearest by inner product.

    Parameters
    ----------
    X : (n_stimuli, n_units)
    """
    products = X @ X.T
    np.fill_diagonal(products, -np.inf)
    return int(np.bincount(np.argsort(-products, axis=1)[:, :k].ravel()).max())


@dataclass(frozen=True)
class Measured:
    """All that was measured of one card: as the functions `measure_...` give it, and from how many draws."""

    card: Card
    draws: int
    promises: pd.DataFrame
    asymmetry: float
    seen: tuple[float, float]
    sensitivity: pd.DataFrame
    chance: pd.DataFrame
    cost: dict[str, float]
    cost_at: tuple[int, int]

    def after(self, damage: str, level: float) -> float:
        """Mean value at one level of a damage."""
        rows = self.sensitivity[(self.sensitivity.damage == damage) & (self.sensitivity.level == level)]
        return float(rows.value.mean())

    def unrelated(self, ratio: float, fit: str | None = None) -> float:
        """Mean value of unrelated responses at `ratio` stimuli for each unit; `fit` may be "in sample"."""
        rows = self.chance[(self.chance.ratio == ratio) & (self.chance.fit == (fit or self.chance.fit.iloc[0]))]
        return float(rows.value.mean())

    def surprises(self) -> list[str]:
        """What was measured against the card: promises that were broken, and changes that moved nothing after all."""
        rows = self.promises[self.promises.promised != self.promises.kept]
        said = [f"{row.change} of {row.side} moves it by {row.largest:.2g}" for row in rows.itertuples()]
        if (self.asymmetry <= cards.KEPT) != self.card.symmetric:
            said.append(f"exchanging X and Y moves it by {self.asymmetry:.2g}")
        low, high = self.card.low, self.card.high
        if (low is not None and self.seen[0] < low - cards.KEPT) or (
            high is not None and self.seen[1] > high + cards.KEPT
        ):
            said.append(f"it ranges from {self.seen[0]:.3g} to {self.seen[1]:.3g}")
        return [f"{self.card.title}: {one}" for one in said]


def measure(card: Card, X: np.ndarray, draws: int, cost_at: tuple[int, int] = (1000, 128), seed: int = 0) -> Measured:
    """Everything about a card; a fifth of the draws, at least 2, for each point of a curve.

    Parameters
    ----------
    X : (n_stimuli, n_units) the layer that is damaged, no unit of which is constant
    draws : random pairs for every change
    cost_at : stimuli and units of the calls that are timed
    """
    few = max(2, draws // 5)
    return Measured(
        card,
        draws,
        cards.measure_promises(card, draws, seed),
        cards.measure_symmetry(card, draws, seed),
        cards.measure_range(card, draws, seed),
        measure_sensitivity(card, X, few, seed),
        measure_chance(card, few, seed=seed),
        measure_cost(card, *cost_at, seed=seed),
        cost_at,
    )
