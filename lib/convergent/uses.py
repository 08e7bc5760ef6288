"""What can be done with a representation: retrieve, classify by neighbours, read along straight lines, translate.

A metric is worth what it says about these. `kept` asks what a change of the representation does to them, `carry_over`
what is left of them when the responses of one network are moved into the space of another.
"""

import warnings
from collections.abc import Mapping
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from . import metrics

USES = ("retrieval", "k-NN", "few examples", "least squares", "ridge")


def answers(X, labels, n_few: int, k: int = 10, alpha: float = 100.0) -> dict[str, np.ndarray]:
    """What each use answers for the second half of the stimuli, when the first half is known.

    Parameters
    ----------
    X : (n_stimuli, n_units)
    labels : (n_stimuli,) classes
    n_few : known stimuli for "few examples", a linear readout: fewer than units, so that many maps fit them perfectly,
        and least squares takes the smallest (the minimum-norm solution)
    k : neighbours in "retrieval" and "k-NN" (a classifier), by Euclidean distance
    alpha : penalty of "ridge", a linear readout of all known stimuli, the same whatever the scale of X

    Returns
    -------
    dict use -> (n_queries, k) numbers of the retrieved stimuli for "retrieval", (n_queries,) classes for the others

    Raises
    ------
    ValueError for fewer known stimuli than k or than n_few.
    """
    X, labels = np.asarray(X, dtype=np.float64), np.asarray(labels)
    half = len(X) // 2
    if half < max(k, n_few):
        raise ValueError(f"{len(X)} stimuli leave {half} to learn from: at least k={k} and n_few={n_few} are needed")
    known, queries, given = X[:half], X[half:], labels[:half]
    readouts = {"few examples": (n_few, None), "least squares": (half, None), "ridge": (half, alpha)}
    found = {
        "retrieval": NearestNeighbors(n_neighbors=k).fit(known).kneighbors(queries, return_distance=False),
        "k-NN": KNeighborsClassifier(k).fit(known, given).predict(queries),
    }
    for name, (n, penalty) in readouts.items():
        found[name] = _readout(known[:n], given[:n], queries, penalty)
    return found


def _readout(known, given, queries, penalty) -> np.ndarray:
    """Classes (n_queries,) by linear regression on one column a class, with an intercept."""
    classes = np.unique(given)
    targets = (given[:, None] == classes).astype(float)
    if penalty is not None:
        return classes[Ridge(penalty).fit(known, targets).predict(queries).argmax(1)]
    # Centred rows are dependent: their last direction is rounding, and must not be divided by.
    centre, mean = known.mean(0), targets.mean(0)
    weights = np.linalg.lstsq(known - centre, targets - mean, rcond=1e-10)[0]
    return classes[((queries - centre) @ weights + mean).argmax(1)]


def kept(X, Y, labels, n_few: int | None = None) -> dict[str, float]:
    """The share of answers that stay the same when representation X is replaced by Y, and nothing else is changed.

    Parameters
    ----------
    X, Y : (n_stimuli, n_units_x), (n_stimuli, n_units_y)
    labels : (n_stimuli,) classes
    n_few : as in `answers`; by default a third of the units of X

    Returns
    -------
    dict use -> share in [0, 1]: of retrieved stimuli that are retrieved by both, of queries that get the same class
    """
    n_few = max(2, np.shape(X)[1] // 3) if n_few is None else n_few
    before, after = answers(X, labels, n_few), answers(Y, labels, n_few)
    shares = {}
    for use in before:
        if before[use].ndim == 2:
            shares[use] = float(np.mean([np.isin(a, b).mean() for a, b in zip(before[use], after[use], strict=True)]))
        else:
            shares[use] = float((before[use] == after[use]).mean())
    return shares


def accuracies(X, Y, labels, n_few: int | None = None) -> dict[str, float]:
    """The share of correct answers in Y for each use that names a class; `n_few` as in `kept`, from X."""
    n_few = max(2, np.shape(X)[1] // 3) if n_few is None else n_few
    labels = np.asarray(labels)
    found = answers(Y, labels, n_few)
    return {use: float((found[use] == labels[len(labels) // 2 :]).mean()) for use in USES[1:]}


def following(scores: pd.DataFrame, shares: pd.DataFrame) -> pd.DataFrame:
    """How well each metric orders the transformations as each use does: Spearman's correlation in each network.

    Values that agree to two decimals count as equal: what lies below would be an order of rounding errors.

    Parameters
    ----------
    scores, shares : as `transformations.measure` gives them, with metrics and with uses in the column `metric`

    Returns
    -------
    DataFrame with columns network, metric, use, value; NaN where the metric, or the share of answers, is the same for
    all transformations, so that there is no order to follow
    """
    keys = ["network", "transformation", "strength"]
    wide = [table.set_index([*keys, "metric"]).value.unstack("metric") for table in (scores, shares)]
    rows = []
    for network in scores.network.unique():
        one, other = (table.xs(network, level="network") for table in wide)
        for metric in scores.metric.unique():
            for use in shares.metric.unique():
                said, share = one[metric].round(2), other[use].reindex(one.index).round(2)
                ordered = said.nunique() > 1 and share.nunique() > 1
                value = float(spearmanr(said, share).statistic) if ordered else np.nan
                rows.append((network, metric, use, value))
    return pd.DataFrame(rows, columns=["network", "metric", "use", "value"])


def carry_over(A, B, labels, k: int = 10) -> pd.DataFrame:
    """Move the responses of network B into the space of network A, and use them there as if they were A's.

    A map of each family is fitted to the first half of the stimuli. For each stimulus of the second half we then ask
    with B's responses, in A's space: what class do the k nearest stimuli of A's first half have, and which stimulus of
    A's second half is nearest?

    Parameters
    ----------
    A, B : (n_stimuli, n_units_a), (n_stimuli, n_units_b), row i the same stimulus
    labels : (n_stimuli,) classes

    Returns
    -------
    DataFrame with columns map ("no map", "permutation", "rotation", "linear map", "own responses"), use ("class":
    share of right classes; "image": share of stimuli found), value. "own responses" are those of A itself.
    """
    A, B, labels = np.asarray(A, np.float64), np.asarray(B, np.float64), np.asarray(labels)
    half = len(A) // 2
    centre, origin = B[:half].mean(0), A[:half].mean(0)
    moved = {"no map": _fitted(B[half:], A.shape[1])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # units that are silent in the first half get no partner and no weight
        for name, metric in (("rotation", metrics.procrustes), ("linear map", partial(metrics.linear, alpha="cv"))):
            mapping = metric(B[:half], A[:half], details=True).mapping  # of all its stimuli, whatever the folds
            moved[name] = (B[half:] - centre) @ mapping + origin
        partner = metrics.permutation(B[:half], A[:half], details=True).mapping
    moved["permutation"] = np.where(partner >= 0, (B[half:] - centre)[:, partner], 0) + origin
    moved["own responses"] = A[half:]
    classifier, finder = KNeighborsClassifier(k).fit(A[:half], labels[:half]), NearestNeighbors(n_neighbors=1)
    finder.fit(A[half:])
    rows = []
    for name in ("no map", "permutation", "rotation", "linear map", "own responses"):
        nearest = finder.kneighbors(moved[name], return_distance=False)[:, 0]
        rows.append((name, "class", float(classifier.score(moved[name], labels[half:]))))
        rows.append((name, "image", float((nearest == np.arange(len(nearest))).mean())))
    return pd.DataFrame(rows, columns=["map", "use", "value"])


def carried(clouds: Mapping[int, Mapping[str, np.ndarray]], labels) -> pd.DataFrame:
    """`carry_over` in every layer, from the second network of every pair to the first.

    Parameters
    ----------
    clouds : seed -> layer -> (n_stimuli, n_units)
    labels : (n_stimuli,) classes

    Returns
    -------
    DataFrame with columns map, use, value, pair, layer
    """
    return pd.concat(
        [
            carry_over(clouds[one][layer], clouds[two][layer], labels).assign(pair=f"{one}-{two}", layer=layer)
            for one, two in combinations(clouds, 2)
            for layer in clouds[one]
        ]
    )


def _fitted(rows: np.ndarray, n_units: int) -> np.ndarray:
    """With units of zeros appended, or the last left out, so that there are `n_units`."""
    return np.pad(rows, ((0, 0), (0, max(0, n_units - rows.shape[1]))))[:, :n_units]
