"""Representations to test metrics on, and the metrics with the options under which they are tested."""

from functools import partial

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from convergent import metrics

quickly = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**31)

# Every metric once, in each of the forms that computes something else.
ALL = {
    "linear": metrics.linear,
    "linear, r2": partial(metrics.linear, score="r2"),
    "linear, alpha 0": partial(metrics.linear, alpha=0),
    "linear, cv": partial(metrics.linear, alpha="cv"),
    "linear, in sample": partial(metrics.linear, folds=None),
    "procrustes": metrics.procrustes,
    "procrustes, r2": partial(metrics.procrustes, score="r2"),
    "procrustes, in sample": partial(metrics.procrustes, folds=None),
    "permutation": metrics.permutation,
    "permutation, in sample": partial(metrics.permutation, folds=None),
    "soft_matching": metrics.soft_matching,
    "soft_matching, in sample": partial(metrics.soft_matching, folds=None),
    "semi_matching": metrics.semi_matching,
    "semi_matching, in sample": partial(metrics.semi_matching, folds=None),
    "cka": metrics.cka,
    "cka, debiased": partial(metrics.cka, debiased=True),
    "cka, rbf": partial(metrics.cka, kernel="rbf"),
    "cka, rbf, debiased": partial(metrics.cka, kernel="rbf", debiased=True),
    "shape_cosine": metrics.shape_cosine,
    "cca": metrics.cca,
    "svcca": metrics.svcca,
    "pwcca": metrics.pwcca,
    "rsa": metrics.rsa,
    "rsa, centred": partial(metrics.rsa, center=True),
    "rsa, cosine": partial(metrics.rsa, distance="cosine", compare="pearson"),
    "rsa, euclidean": partial(metrics.rsa, distance="euclidean", compare="pearson"),
    "rsa, sqeuclidean": partial(metrics.rsa, distance="sqeuclidean", compare="cosine"),
    "mutual_knn": metrics.mutual_knn,
    "mutual_knn, centred": partial(metrics.mutual_knn, center=True),
    "mutual_knn, dot": partial(metrics.mutual_knn, distance="dot"),
    "mutual_knn, euclidean": partial(metrics.mutual_knn, distance="euclidean"),
    "cknna": metrics.cknna,
    "cknna, centred": partial(metrics.cknna, center=True),
}
MAPPINGS = {name: metric for name, metric in ALL.items() if name.startswith(("linear", "proc", "perm", "soft", "semi"))}
HELD_OUT = {name: metric for name, metric in MAPPINGS.items() if "in sample" not in name}
# Kept by a shift of all stimuli: these centre the units.
CENTRING = [
    name
    for name in ALL
    if not name.startswith(("rsa", "mutual_knn", "cknna"))
    or name in ("rsa, centred", "mutual_knn, centred", "cknna, centred")
    or "euclidean" in name
]
DIRECTED = [name for name in ALL if name.startswith(("linear", "procrustes", "semi", "pwcca", "cknna"))]
SYMMETRIC = [name for name in ALL if name not in DIRECTED]


def orthogonal(rng, n):
    """A random orthogonal matrix (n, n); half of them reflect."""
    Q, R = np.linalg.qr(rng.normal(size=(n, n)))
    return Q * np.sign(np.diag(R))


def invertible(rng, n):
    """A random matrix (n, n) that squeezes no direction more than ten times as much as another."""
    return orthogonal(rng, n) * rng.uniform(0.3, 3, n) @ orthogonal(rng, n)


def alike(seed, n_stimuli=60, n_x=6, n_y=9, rank=None, noise=1.0):
    """Two representations (n_stimuli, n_x), (n_stimuli, n_y) of the same latents, each with noise of its own.

    With a `rank`, of X, there is no noise in X: its other directions are silent.
    """
    rng = np.random.default_rng(seed)
    n_latents = rank or min(n_x, n_y)
    Z = rng.normal(size=(n_stimuli, n_latents)) * np.linspace(2, 0.5, n_latents)
    X, Y = (Z @ rng.normal(size=(n_latents, n)) / np.sqrt(n_latents) + rng.normal(size=n) for n in (n_x, n_y))
    if rank is None:
        X = X + noise * rng.normal(size=X.shape)
    return X, Y + noise * rng.normal(size=Y.shape)


# Three units at least: a correlation across two is 1 or -1.
few = st.integers(3, 9)
some = st.integers(40, 70)


class Case:
    """X, Y and a random generator, made anew each time, and shown by what they are made from."""

    def __init__(self, **made_from):
        self.made_from = made_from

    def __iter__(self):
        return iter((*alike(**self.made_from), np.random.default_rng(self.made_from["seed"] + 1)))

    def __repr__(self):
        return f"alike({', '.join(f'{name}={value}' for name, value in self.made_from.items())})"


@st.composite
def pairs(draw, n_units=few, n_stimuli=some, equal=False):
    """(X, Y, rng), full rank unless there are more units than stimuli; `equal` for as many units in Y as in X."""
    n_x = draw(n_units)
    n_y = n_x if equal else draw(n_units)
    noise = draw(st.sampled_from([0.1, 1.0]))
    return Case(seed=draw(seeds), n_stimuli=draw(n_stimuli), n_x=n_x, n_y=n_y, noise=noise)
