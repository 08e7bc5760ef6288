"""The comparisons as a careful user writes them with other packages.

Every function takes two networks (layer -> activations (n_stimuli, n_units)) and gives name -> values (n_layers_a,
n_layers_b). Where a package has no held-out comparison of layers, the protocol around it is written to be fast: slices,
means and standardised units are computed once for a layer and fold, not once for a pair; scores are array expressions.
"""

import warnings

import numpy as np


def _folds(layers: dict, n_folds: int | None):
    """(train, test) slices of every layer for each fold, contiguous as `KFold` cuts them; all and all without folds."""
    from sklearn.model_selection import KFold

    n_stimuli = len(next(iter(layers.values())))
    if n_folds is None:
        yield list(layers.values()), list(layers.values())
        return
    for train, test in KFold(n_folds).split(np.empty(n_stimuli)):
        yield [X[train] for X in layers.values()], [X[test] for X in layers.values()]


def _both_folds(a: dict, b: dict, folds: int | None):
    for (train_a, test_a), (train_b, test_b) in zip(_folds(a, folds), _folds(b, folds), strict=True):
        yield train_a, test_a, train_b, test_b


def _pearson(predicted: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Correlations unit by unit (n_units,)."""
    predicted, Y = predicted - predicted.mean(0), Y - Y.mean(0)
    products = np.einsum("ij,ij->j", predicted, Y)
    return products / np.sqrt(np.einsum("ij,ij->j", predicted, predicted) * np.einsum("ij,ij->j", Y, Y))


def _standardised(X: np.ndarray) -> np.ndarray:
    """Units with mean 0 and norm 1, so that products of two are correlations."""
    X = X - X.mean(0)
    norms = np.sqrt(np.einsum("ij,ij->j", X, X))
    return X / np.where(norms > 0, norms, 1)


def _grid(a: dict, b: dict) -> np.ndarray:
    return np.zeros((len(a), len(b)))


# --- scikit-learn ----------------------------------------------------------------------------------


def linear_by_pair(a, b, alpha=1.0, folds=5):
    """scikit-learn's `Ridge`, fitted for each pair of layers, fold and direction."""
    from sklearn.linear_model import Ridge

    forth, back = _grid(a, b), _grid(a, b)
    for train_a, test_a, train_b, test_b in _both_folds(a, b, folds):
        for i in range(len(a)):
            for j in range(len(b)):
                predicted = Ridge(alpha=alpha).fit(train_a[i], train_b[j]).predict(test_a[i])
                forth[i, j] += _pearson(predicted, test_b[j]).mean() / folds
                predicted = Ridge(alpha=alpha).fit(train_b[j], train_a[i]).predict(test_b[j])
                back[i, j] += _pearson(predicted, test_a[i]).mean() / folds
    return {"linear a to b": forth, "linear b to a": back}


def linear_stacked(a, b, alpha=1.0, folds=5):
    """scikit-learn's `Ridge`, fitted once a layer, fold and direction: the other network's layers are its targets."""
    from sklearn.linear_model import Ridge

    def one_way(train_x, test_x, train_y, test_y):
        targets, truth = np.hstack(train_y), np.hstack(test_y)
        ends = np.cumsum([Y.shape[1] for Y in test_y])[:-1]
        scores = [
            _pearson(Ridge(alpha=alpha).fit(X, targets).predict(new), truth)
            for X, new in zip(train_x, test_x, strict=True)
        ]
        return np.array([[part.mean() for part in np.split(score, ends)] for score in scores])

    forth, back = _grid(a, b), _grid(a, b)
    for train_a, test_a, train_b, test_b in _both_folds(a, b, folds):
        forth += one_way(train_a, test_a, train_b, test_b) / folds
        back += one_way(train_b, test_b, train_a, test_a).T / folds
    return {"linear a to b": forth, "linear b to a": back}


def _mean_pearson(Y, predicted) -> float:
    return float(_pearson(predicted, Y).mean())


def _nested(a, b, folds, fit):
    """Held-out score of each pair; `fit` chooses its alpha inside the training folds and gives a predictor."""
    value = _grid(a, b)
    for train_a, test_a, train_b, test_b in _both_folds(a, b, folds):
        for i in range(len(a)):
            for j in range(len(b)):
                value[i, j] += _mean_pearson(test_b[j], fit(train_a[i], train_b[j])(test_a[i])) / folds
    return {"linear a to b": value}


def nested_grid_search(a, b, alphas, folds=5):
    """scikit-learn's `GridSearchCV` over `Ridge`, by held-out correlation in the inner folds."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GridSearchCV, KFold

    search = GridSearchCV(Ridge(), {"alpha": alphas}, scoring=make_scorer(_mean_pearson), cv=KFold(folds - 1))
    return _nested(a, b, folds, lambda X, Y: search.fit(X, Y).predict)


def nested_ridge_cv(a, b, alphas, folds=5):
    """scikit-learn's `RidgeCV`, which leaves out one stimulus at a time in closed form and chooses by squared error."""
    from sklearn.linear_model import RidgeCV

    return _nested(a, b, folds, lambda X, Y: RidgeCV(alphas=np.asarray(alphas)).fit(X, Y).predict)


# --- himalaya --------------------------------------------------------------------------------------


def nested_himalaya(a, b, alphas, folds=5, backend="numpy"):
    """himalaya's `RidgeCV`: one decomposition for all alphas, one alpha for all units, by correlation."""
    from himalaya.backend import set_backend
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import correlation_score
    from sklearn.model_selection import KFold

    tools = set_backend(backend)
    chosen = {"local_alpha": False, "score_func": correlation_score}

    def fit(X, Y):
        model = RidgeCV(alphas=np.asarray(alphas), fit_intercept=True, cv=KFold(folds - 1), solver_params=chosen)
        model.fit(tools.asarray(X), tools.asarray(Y))
        return lambda new: tools.to_numpy(model.predict(tools.asarray(new)))

    return _nested(a, b, folds, fit)


# --- SciPy and POT ---------------------------------------------------------------------------------


def procrustes_padded(a, b, folds=5):
    """SciPy's `orthogonal_procrustes` on units padded with zeros to equal number; its rotation scored both ways."""
    from scipy.linalg import orthogonal_procrustes

    def rotation(X, Y):
        n = max(X.shape[1], Y.shape[1])
        X, Y = (np.pad(Z, ((0, 0), (0, n - Z.shape[1]))) if Z.shape[1] < n else Z for Z in (X, Y))
        return orthogonal_procrustes(X, Y)[0]

    return _procrustes(a, b, folds, rotation)


def procrustes_svd(a, b, folds=5):
    """The same rotation from SciPy's `svd` of X'Y, which needs no padding."""
    from scipy.linalg import svd

    def rotation(X, Y):
        U, _, Vt = svd(X.T @ Y, full_matrices=False)
        return U @ Vt

    return _procrustes(a, b, folds, rotation)


def _procrustes(a, b, folds, rotation):
    forth, back = _grid(a, b), _grid(a, b)
    for train_a, test_a, train_b, test_b in _both_folds(a, b, folds):
        train_a, train_b = ([X - X.mean(0) for X in layers] for layers in (train_a, train_b))
        for i, X in enumerate(train_a):
            for j, Y in enumerate(train_b):
                R = rotation(X, Y)[: X.shape[1], : Y.shape[1]]
                forth[i, j] += _pearson(test_a[i] @ R, test_b[j]).mean() / folds
                back[i, j] += _pearson(test_b[j] @ R.T, test_a[i]).mean() / folds
    return {"procrustes a to b": forth, "procrustes b to a": back}


def permutation(a, b, folds=5):
    """SciPy's `linear_sum_assignment` on training correlations."""
    from scipy.optimize import linear_sum_assignment

    def score(fitted, held_out):
        i, j = linear_sum_assignment(fitted, maximize=True)
        return held_out(i, j).mean()

    return {"permutation": _matching(a, b, folds, score)}


def soft_matching(a, b, folds=5):
    """POT's exact `emd` on training correlations."""
    import ot

    def score(fitted, held_out):
        n_x, n_y = fitted.shape
        cost = 1 - fitted.astype(np.float64)
        plan = ot.emd(np.full(n_x, 1 / n_x), np.full(n_y, 1 / n_y), cost, numItermax=10_000_000)
        i, j = plan.nonzero()
        return (plan[i, j] * held_out(i, j)).sum()

    return {"soft_matching": _matching(a, b, folds, score)}


def _matching(a, b, folds, score):
    value = _grid(a, b)
    for parts in _both_folds(a, b, folds):
        train_a, test_a, train_b, test_b = ([_standardised(X) for X in layers] for layers in parts)
        for i in range(len(a)):
            for j in range(len(b)):
                X, Y = test_a[i], test_b[j]

                def held_out(rows, columns, X=X, Y=Y):
                    return np.einsum("ij,ij->j", X[:, rows], Y[:, columns])

                value[i, j] += score(train_a[i].T @ train_b[j], held_out) / (folds or 1)
    return value


def shape_cosine(a, b):
    """SciPy's `svdvals` of X'Y, as netrep takes them."""
    from scipy.linalg import svdvals

    a, b = ([X - X.mean(0) for X in layers.values()] for layers in (a, b))
    norms_a, norms_b = ([np.linalg.norm(X) for X in layers] for layers in (a, b))
    values = [[svdvals(X.T @ Y).sum() for Y in b] for X in a]
    return {"shape_cosine": np.array(values) / np.outer(norms_a, norms_b)}


# --- packages for CKA and RSA ----------------------------------------------------------------------


def cka_pytorch_cka(a, b):
    """pytorch-cka's `cka_from_features`: debiased, all stimuli at once."""
    import torch
    from cka import cka_from_features

    a, b = ([torch.from_numpy(X) for X in layers.values()] for layers in (a, b))
    return {"cka_debiased": cka_from_features(a, b).numpy()}


def cka_pytorch_cka_batches(a, b, batch_size=256):
    """pytorch-cka's `compute_cka`: mean over batches of stimuli, which is another estimate of the same quantity."""
    from cka import compute_cka

    models, loader, names = _replayed(a, b, batch_size)
    return {"cka_debiased": compute_cka(*models, [loader], layers=names, device="cpu", progress=False)[0].numpy()}


def cka_torch_cka(a, b):
    """torch-cka's `CKA.compare` with all stimuli in one batch: debiased."""
    import torch
    from torch_cka import CKA

    models, loader, names = _replayed(a, b, len(next(iter(a.values()))))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # both models are called Replay
        comparison = CKA(*models, model1_layers=names, model2_layers=names)
        comparison.compare(loader)
    return {"cka_debiased": comparison.export()["CKA"].numpy()}


def _replayed(a, b, batch_size):
    """Two modules that give stored activations, layer by layer, for packages that only take models and a loader."""
    import torch
    from torch import nn

    class Replay(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.recorded = {name: torch.from_numpy(X) for name, X in layers.items()}
            self.layers = nn.ModuleDict({name: nn.Identity() for name in layers})

        def forward(self, stimuli):
            for name, layer in self.layers.items():
                layer(self.recorded[name][stimuli])

    stimuli = torch.utils.data.TensorDataset(torch.arange(len(next(iter(a.values())))))
    # A last batch of a few stimuli would count as much as the others.
    loader = torch.utils.data.DataLoader(stimuli, batch_size, drop_last=len(stimuli) > batch_size)
    return (Replay(a), Replay(b)), loader, [f"layers.{name}" for name in a]


def cka_ckatorch(a, b):
    """ckatorch's `cka_base` for each pair: biased, in float64."""
    import torch
    from ckatorch.core import cka_base

    a, b = ([torch.from_numpy(X) for X in layers.values()] for layers in (a, b))
    return {"cka": np.array([[float(cka_base(X, Y)) for Y in b] for X in a])}


def rsa_rsatoolbox(a, b):
    """rsatoolbox: dissimilarities by `calc_rdm`, rank correlations by `compare`."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm, compare

    a, b = (calc_rdm([Dataset(X) for X in layers.values()], method="correlation") for layers in (a, b))
    return {"rsa": compare(a, b, method="spearman")}


def rsa_scipy(a, b):
    """SciPy's `pdist` for each layer and `spearmanr`'s ranks once a layer."""
    from scipy.spatial.distance import pdist
    from scipy.stats import rankdata

    a, b = (
        np.array([_standardised(rankdata(pdist(X, "correlation"))[:, None])[:, 0] for X in layers.values()])
        for layers in (a, b)
    )
    return {"rsa": a @ b.T}
