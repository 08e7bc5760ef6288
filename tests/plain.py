"""The metrics as their definitions read, in NumPy, SciPy, scikit-learn and POT: slow, plain, and not our code.

Arrays are (n_stimuli, n_units), float64. A unit of Y that is silent in a test fold has no correlation there and is left
out; a prediction that does not vary scores 0.
"""

import numpy as np
import ot
from scipy.linalg import orthogonal_procrustes, qr, sqrtm, subspace_angles
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import KFold
from sklearn.neighbors import NearestNeighbors


def centred(X):
    return X - X.mean(0)


def correlation(a, b):
    """Of one unit with another; NaN where b is silent, 0 where only a is, to rounding."""
    if np.ptp(b) == 0:
        return np.nan
    return 0.0 if np.ptp(a) <= 1e-12 * np.ptp(b) else float(np.corrcoef(a, b)[0, 1])


def correlations(X, Y):
    """(n_units_x, n_units_y)"""
    return np.corrcoef(X, Y, rowvar=False)[: X.shape[1], X.shape[1] :]


def splits(n_stimuli, folds):
    """(train, test) rows; without folds, all stimuli are both."""
    if folds is None:
        return [(np.arange(n_stimuli), np.arange(n_stimuli))]
    return list(KFold(folds).split(np.zeros(n_stimuli)))


def predictions(X, Y, fit, folds):
    """For each fold: what `fit(X_train, Y_train)` predicts from X_test, and Y_test."""
    return [(fit(X[train], Y[train])(X[test]), Y[test]) for train, test in splits(len(X), folds)]


def score(predicted, by="pearson"):
    """Mean over units, then over folds, of Pearson; or R2 of the predictions of all folds put together."""
    if by == "r2":
        whole, truth = (np.concatenate(part) for part in zip(*predicted, strict=True))
        return r2_score(truth, whole)
    per_unit = [[correlation(p, y) for p, y in zip(P.T, Y.T, strict=True)] for P, Y in predicted]
    return np.mean([np.nanmean(units) for units in per_unit])


def ridge(alpha):
    return lambda X, Y: Ridge(alpha=alpha, solver="svd").fit(X, Y).predict


def linear(X, Y, alpha=1.0, folds=5, by="pearson"):
    return score(predictions(X, Y, ridge(alpha), folds), by)


def rotation(X, Y, scaled=False):
    """Fits SciPy's orthogonal Procrustes to centred units, zero-padded to one size."""
    n = max(X.shape[1], Y.shape[1])
    padded = [np.pad(centred(Z), ((0, 0), (0, n - Z.shape[1]))) for Z in (X, Y)]
    R, size = orthogonal_procrustes(*padded)
    R = R[: X.shape[1], : Y.shape[1]] * (size / (padded[0] ** 2).sum() if scaled else 1)
    return lambda new: (new - X.mean(0)) @ R + Y.mean(0)


def procrustes(X, Y, folds=5, by="pearson"):
    return score(predictions(X, Y, lambda x, y: rotation(x, y, scaled=by == "r2"), folds), by)


def permutation(X, Y, folds=5):
    values = []
    for train, test in splits(len(X), folds):
        matched = zip(*linear_sum_assignment(correlations(X[train], Y[train]), maximize=True), strict=True)
        values.append(np.mean([correlation(X[test, i], Y[test, j]) for i, j in matched]))
    return np.mean(values)


def plan(r):
    return ot.emd(np.full(len(r), 1 / len(r)), np.full(r.shape[1], 1 / r.shape[1]), 1 - r)


def soft_matching(X, Y, folds=5):
    values = []
    for train, test in splits(len(X), folds):
        values.append((plan(correlations(X[train], Y[train])) * correlations(X[test], Y[test])).sum())
    return np.mean(values)


def semi_matching(X, Y, folds=5):
    values = []
    for train, test in splits(len(X), folds):
        best = correlations(X[train], Y[train]).argmax(0)
        values.append(np.mean([correlation(X[test, i], Y[test, j]) for j, i in enumerate(best)]))
    return np.mean(values)


def hsic(K, L):
    """Gretton et al. (2005), without its factor."""
    H = np.eye(len(K)) - 1 / len(K)
    return np.trace(H @ K @ H @ L)


def hsic_unbiased(K, L):
    """Song et al. (2012), eq. 5, with the diagonal zeroed."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    # With L' as in Huh et al.'s code: CKNNA's matrices are not symmetric.
    terms = (K * L.T).sum() + K.sum() * L.sum() / (n - 1) / (n - 2) - 2 * (K @ L).sum() / (n - 2)
    return terms / (n * (n - 3))


def cka(X, Y, kernel="linear", debiased=False, bandwidth=1.0):
    """Kornblith et al. (2019)."""
    K, L = (gram(Z, kernel, bandwidth) for Z in (X, Y))
    h = hsic_unbiased if debiased else hsic
    return h(K, L) / np.sqrt(h(K, K) * h(L, L))


def gram(X, kernel, bandwidth):
    X = centred(X)
    if kernel == "linear":
        return X @ X.T
    squares = pdist(X, "sqeuclidean")
    return rbf_kernel(X, gamma=1 / (2 * bandwidth * np.median(squares[squares > 0])))


def shape_cosine(X, Y):
    X, Y = centred(X), centred(Y)
    return np.linalg.svd(X.T @ Y, compute_uv=False).sum() / np.linalg.norm(X) / np.linalg.norm(Y)


def bures_cosine(X, Y):
    """Normalised Bures similarity of the Gram matrices (Harvey et al. 2023), with SciPy's matrix square root."""
    K, L = (centred(Z) @ centred(Z).T for Z in (X, Y))
    root = sqrtm(K).real
    return np.trace(sqrtm(root @ L @ root).real) / np.sqrt(np.trace(K) * np.trace(L))


def canonical_correlations(X, Y):
    """Cosines of the principal angles between the column spaces of the centred units, from SciPy."""
    return np.sort(np.cos(subspace_angles(basis(X), basis(Y))))[::-1]


def basis(X, tolerance=1e-10):
    """Orthonormal columns that span the centred units."""
    Q, R, _ = qr(centred(X), mode="economic", pivoting=True)
    size = np.abs(np.diag(R))
    return Q[:, size > tolerance * size[0]]


def cca(X, Y):
    return canonical_correlations(X, Y).mean()


def principal(X, variance):
    """Scores on the fewest principal components that hold this share of the variance."""
    U, S, _ = np.linalg.svd(centred(X), full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(S**2) / (S**2).sum(), variance) + 1)
    return U[:, :kept] * S[:kept]


def svcca(X, Y, variance=0.99):
    return cca(principal(X, variance), principal(Y, variance))


def pwcca(X, Y):
    """Morcos et al. (2018), eq. 4: correlations weighted by what the canonical variables of X say of its units."""
    Qx, Qy = basis(X), basis(Y)
    U, S, _ = np.linalg.svd(Qx.T @ Qy, full_matrices=False)
    weights = np.abs((Qx @ U).T @ centred(X)).sum(1)
    return (weights * S).sum() / weights.sum()


def rsa(X, Y, distance="correlation", compare="spearman"):
    a, b = pdist(X, distance), pdist(Y, distance)
    if compare == "cosine":
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return {"spearman": spearmanr, "pearson": pearsonr}[compare](a, b).statistic


def neighbours(X, k, distance):
    """Boolean (n_stimuli, n_stimuli): row i marks the k nearest to stimulus i, itself excluded."""
    if distance == "dot":
        similarity = X @ X.T
        np.fill_diagonal(similarity, -np.inf)
        found = np.argsort(-similarity, axis=1)[:, :k]
    else:
        found = NearestNeighbors(n_neighbors=k, metric=distance).fit(X).kneighbors(return_distance=False)
    mask = np.zeros((len(X), len(X)), bool)
    np.put_along_axis(mask, found, True, axis=1)
    return mask


def mutual_knn(X, Y, k=10, distance="cosine"):
    """Huh et al. (2024)."""
    return (neighbours(X, k, distance) & neighbours(Y, k, distance)).sum() / (k * len(X))


def cknna(X, Y, k=10):
    """Huh et al. (2024), appendix A, unbiased, inner products."""
    (K, a), (L, b) = ((Z @ Z.T, neighbours(Z, k, "dot")) for Z in (X, Y))
    local = hsic_unbiased((a & b) * K, (a & b) * L)
    return local / np.sqrt(hsic_unbiased(a * K, a * K) * hsic_unbiased(b * L, b * L))
