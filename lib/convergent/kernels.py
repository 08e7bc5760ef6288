"""Similarities of geometry among stimuli that are no functions of second moments, in blocks of stimuli.

No matrix (n_stimuli, n_stimuli) is formed, except by rank correlations, which need every distance at once.
"""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from . import inputs
from .linear_algebra import one_torch_thread, product

BLOCK = 1000  # stimuli: a block of similarities to 20,000 others takes 160 MB
MAX_RANKED = 20_000  # stimuli: 200 million distances a side, 8 bytes each and as much again for their ranks


@one_torch_thread()
def rsa(X, Y, distance="correlation", compare="spearman", center=False) -> float:
    """Representational similarity analysis: do the same pairs of stimuli lie far apart in both?

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    distance : between two stimuli, over units: "correlation" (1 - Pearson), "cosine", "euclidean" or "sqeuclidean"
    compare : between the distances of all pairs of stimuli: "spearman", "pearson" or "cosine"
    center : centre units over stimuli first

    Returns
    -------
    float in [-1, 1]; symmetric. With Euclidean distances unchanged by rotation, isotropic scale and shift; with
    "correlation" by the order of units and by scale and offset of each stimulus' responses.

    Raises
    ------
    ValueError
        as in `metrics`; for a stimulus that has no correlation or cosine with others because its responses are all
        equal or all zero; for distances that are all equal; for more than 20,000 stimuli with "spearman".

    Notes
    -----
    Kriegeskorte, Mur & Bandettini (2008).
    """
    inputs.one_of(distance, "distance", ("correlation", "cosine", "euclidean", "sqeuclidean"))
    inputs.one_of(compare, "compare", ("spearman", "pearson", "cosine"))
    X, Y = _responses(X, Y, center)
    if compare == "spearman":
        ranks = [_ranks(rows, distance, name) for rows, name in ((X, "X"), (Y, "Y"))]
        return float(np.clip(ranks[0] @ ranks[1], -1, 1))
    sides = [_Distances(rows, distance, name) for rows, name in ((X, "X"), (Y, "Y"))]
    blocks = zip(*(side.condensed() for side in sides), strict=True)
    # Around the first block's mean: distances can lie far from zero and close to one another.
    sums, origin = torch.zeros(6, dtype=torch.float64), None
    for a, b in blocks:
        if origin is None:
            origin = (0.0, 0.0) if compare == "cosine" else (a.mean(), b.mean())
        a, b = a - origin[0], b - origin[1]
        sums += torch.stack([torch.tensor(float(len(a))), a.sum(), b.sum(), a @ a, b @ b, a @ b]).cpu()
    n, a, b, aa, bb, ab = sums.tolist()
    if compare == "cosine":
        a = b = 0.0
    spread = aa - a * a / n, bb - b * b / n
    for side in sides:
        side.refuse_equal(compare)
    return float(np.clip((ab - a * b / n) / (spread[0] * spread[1]) ** 0.5, -1, 1))


def _ranks(rows: Tensor, distance: str, name: str) -> np.ndarray:
    """Ranks of all distances, centred and of length 1: their inner products are Spearman's correlations."""
    n = len(rows)
    if n > MAX_RANKED:
        raise ValueError(
            f'{n} stimuli have {n * (n - 1) // 2:,} distances to rank: use at most {MAX_RANKED:,}, or compare="pearson"'
        )
    side = _Distances(rows, distance, name)
    distances = torch.cat(list(side.condensed())).cpu().numpy()
    side.refuse_equal("spearman")
    # What scipy.stats.rankdata does; but that sorts stably, which takes three times as long, and order within ties
    # does not matter to their mean rank.
    order = np.argsort(distances)
    ordered = distances[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.append(first.nonzero()[0], len(ordered))
    mean = (starts[:-1] + starts[1:] - 1) / 2 - (len(ordered) - 1) / 2
    ranks = np.empty_like(distances)
    ranks[order] = mean if len(mean) == len(ordered) else mean[np.cumsum(first) - 1]
    return ranks / np.linalg.norm(ranks)


@one_torch_thread()
def mutual_knn(X, Y, k=10, distance="cosine", center=False) -> float:
    """Mean share of a stimulus' k nearest neighbours that are the same in both representations.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    k : number of neighbours, the stimulus itself not among them
    distance : "cosine", "dot" (the largest inner products) or "euclidean"
    center : centre units over stimuli first

    Returns
    -------
    float in [0, 1], k / (n_stimuli - 1) by chance; symmetric; unchanged by rotation and isotropic scale.

    Raises
    ------
    ValueError
        as in `metrics`; for k that is not between 1 and n_stimuli - 2; for a stimulus without any response under
        "cosine".

    Notes
    -----
    Huh et al. (2024). Of equally near neighbours those with the lower number come first.
    """
    inputs.one_of(distance, "distance", ("cosine", "dot", "euclidean"))
    X, Y = _responses(X, Y, center)
    k = _neighbours(k, len(X))
    return _shared(*(_nearest(*_comparable(rows, distance, name), k)[0] for rows, name in ((X, "X"), (Y, "Y"))))


def _shared(first: Tensor, second: Tensor) -> float:
    """Mean share of common neighbours, from those of each stimulus (n_stimuli, k)."""
    shared = sum((first[:, i : i + 1] == second).any(1).sum() for i in range(first.shape[1]))
    return float(shared) / first.numel()


@one_torch_thread()
def cknna(X, Y, k=10, center=False) -> float:
    """Debiased linear CKA that looks only at pairs of stimuli that are near neighbours in both representations.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)
    k : number of neighbours, by the largest inner products
    center : centre units over stimuli first

    Returns
    -------
    float, about 0 by chance and 1 for equal neighbourhoods; unchanged by rotation and isotropic scale. Not quite
    symmetric: being a near neighbour is not.

    Raises
    ------
    ValueError as in `metrics`, for k that is not between 2 and n_stimuli - 2, or an undefined value.

    Notes
    -----
    Huh et al. (2024), appendix A, unbiased.
    """
    X, Y = _responses(X, Y, center)
    n, k = len(X), _neighbours(k, len(X), least=2)
    if n < 4:
        raise ValueError(f"{n} stimuli are too few for an unbiased estimate: at least 4 are needed, better hundreds")
    return _local_cka(*(_nearest(*_comparable(rows, "dot", name), k) for rows, name in ((X, "X"), (Y, "Y"))))


def _local_cka(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> float:
    """CKNNA, from the neighbours of each stimulus and the inner products with them (n_stimuli, k)."""
    kernels = [_sparse(*side) for side in (x, y)]
    near = [_sparse(indices, torch.ones_like(values)) for indices, values in (x, y)]
    both = near[0].multiply(near[1])
    K, L = (kernel.multiply(both).tocsr() for kernel in kernels)
    own = _hsic1(kernels[0], kernels[0]), _hsic1(kernels[1], kernels[1])
    if min(own) <= 0:
        raise ValueError(
            f"the local similarity of {'X' if own[0] <= 0 else 'Y'} with itself is not positive: use more neighbours "
            f"than k={x[0].shape[1]}, more stimuli, or center=True"
        )
    return float(_hsic1(K, L) / (own[0] * own[1]) ** 0.5)


def geometry(metric: str, rows, name: str):
    """What `rsa`, `mutual_knn` or `cknna` with their usual options need of one side: computed once for many others."""
    rows = _responses(rows, rows, False)[0]
    if metric == "rsa":
        return _ranks(rows, "correlation", name)
    k = _neighbours(10, len(rows), least=2)
    nearest = _nearest(*_comparable(rows, "cosine" if metric == "mutual_knn" else "dot", name), k)
    return nearest[0] if metric == "mutual_knn" else nearest


def of_geometries(metric: str, x, y) -> float:
    """The value of the metric for two sides' `geometry`."""
    if metric == "rsa":
        return float(np.clip(x @ y, -1, 1))
    return _shared(x, y) if metric == "mutual_knn" else _local_cka(x, y)


def kernel_cka(X, Y, debiased: bool, bandwidth: float) -> float:
    """CKA with Gaussian kernels of variance `bandwidth` times the median of the non-zero squared distances."""
    X, Y = inputs.pair(X, Y)
    n = len(X)
    if debiased and n < 4:
        raise ValueError(f"{n} stimuli are too few to debias CKA: at least 4 are needed, better hundreds")
    sides = [_Distances(_scaled(rows, name), "sqeuclidean", name) for rows, name in ((X, "X"), (Y, "Y"))]
    for side in sides:
        side.set_bandwidth(bandwidth)
    sums = {name: 0.0 for name in ("xx", "yy", "xy")}
    rows = {name: [] for name in "xy"}
    for start in range(0, n, BLOCK):
        K, L = (torch.exp(side.block(start) / (-2 * side.variance)) for side in sides)
        if debiased:
            for kernel in (K, L):
                kernel.diagonal(start).zero_()
        sums["xx"] += float((K * K).sum())
        sums["yy"] += float((L * L).sum())
        sums["xy"] += float((K * L).sum())
        rows["x"].append(K.sum(1))
        rows["y"].append(L.sum(1))
    rows = {name: torch.cat(parts) for name, parts in rows.items()}
    values = {}
    for name, square in sums.items():
        a, b = rows[name[0]], rows[name[1]]
        product, totals = float(a @ b), float(a.sum()) * float(b.sum())
        if debiased:
            values[name] = square + totals / ((n - 1) * (n - 2)) - 2 * product / (n - 2)
        else:
            values[name] = square - 2 * product / n + totals / n**2
    if min(values["xx"], values["yy"]) <= 0:
        name = "X" if values["xx"] <= 0 else "Y"
        raise ValueError(
            f"HSIC of {name} with itself is not positive: use more stimuli, another bandwidth or debiased=False"
        )
    return values["xy"] / (values["xx"] * values["yy"]) ** 0.5


def _responses(X, Y, center) -> tuple[Tensor, Tensor]:
    """Responses in float64 as they are, or centred; only checked to vary, constant units stay."""
    if not isinstance(center, (bool, np.bool_)):
        raise ValueError(f"center={center!r}: expected True or False")
    X, Y = inputs.pair(X, Y)
    for rows, name in ((X, "X"), (Y, "Y")):
        if not (rows != rows[:1]).any():
            raise ValueError(f"{name} does not vary: all stimuli are identical to it. Leave this layer out")
    X, Y = X.double(), Y.double()
    return (_scaled(X, "X"), _scaled(Y, "Y")) if center else (X, Y)


def _scaled(rows: Tensor, name: str) -> Tensor:
    """Centred units in float64, in a unit of the order of the largest."""
    if not (rows != rows[:1]).any():
        raise ValueError(f"{name} does not vary: all stimuli are identical to it. Leave this layer out")
    rows = _in_range(rows.double(), name)
    rows = torch.where((rows != rows[:1]).any(0), rows - rows.mean(0), 0.0)
    return _in_range(rows, name)


def _in_range(rows: Tensor, name: str) -> Tensor:
    """Divided by a power of two, so that squares of 1e-200 and 1e200 stay in range; no metric here sees the scale."""
    return torch.ldexp(rows, torch.tensor(-int(np.frexp(float(rows.abs().max()))[1])))


def _comparable(rows: Tensor, distance: str, name: str) -> tuple[Tensor, Tensor]:
    """(rows, penalty): the nearest stimuli to x are those y of the largest x.y - penalty(y)."""
    none = torch.zeros(len(rows), dtype=rows.dtype, device=rows.device)
    if distance == "cosine":
        return _unit_length(rows, name, "cosine", "is all zero"), none
    if distance == "euclidean":
        rows = _scaled(rows, name)
        return rows, rows.square().sum(1) / 2
    return _in_range(rows, name), none


def _unit_length(rows: Tensor, name: str, distance: str, fault: str) -> Tensor:
    lengths = rows.abs().amax(1, keepdim=True)
    if (lengths == 0).any():
        raise ValueError(
            f"stimulus {int((lengths == 0).nonzero()[0, 0])} {fault} in {name}, so it has no {distance} with others: "
            'leave it out, or use distance="euclidean"'
        )
    rows = rows / lengths
    return rows / rows.norm(dim=1, keepdim=True)


def _neighbours(k, n: int, least: int = 1) -> int:
    return inputs.whole(
        k, "k", least, max(n - 2, least), f"there are {n} stimuli, and more neighbours than that are all"
    )


def _nearest(rows: Tensor, penalty: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Neighbours of each stimulus (n_stimuli, k) and the inner products with them; ties go to the lower number."""
    indices, values = [], []
    for start in range(0, len(rows), BLOCK):
        products = product(rows[start : start + BLOCK], rows.T)
        score = products - penalty
        score.diagonal(start).fill_(-torch.inf)
        # Sorted in full only where a tie crosses the k-th place: a stable sort of everything is many times slower.
        best = score.topk(k + 1, dim=1)
        chosen = best.indices[:, :k]
        tied = (best.values[:, k - 1] == best.values[:, k]).nonzero()[:, 0]
        if len(tied):
            chosen[tied] = score[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
        indices.append(chosen)
        values.append(products.gather(1, chosen))
    return torch.cat(indices), torch.cat(values)


def _sparse(indices: Tensor, values: Tensor) -> csr_array:
    """(n_stimuli, n_stimuli) with `values` (n_stimuli, k) in the columns `indices`."""
    n, k = indices.shape
    pointers = np.arange(0, n * k + 1, k)
    return csr_array((values.flatten().cpu().numpy(), indices.flatten().cpu().numpy(), pointers), shape=(n, n))


def _hsic1(K: csr_array, L: csr_array) -> float:
    """Unbiased HSIC (Song et al. 2012, eq. 5) times n (n - 3), of matrices with empty diagonals."""
    n = K.shape[0]
    totals = K.sum() * L.sum() / ((n - 1) * (n - 2))
    return float(K.multiply(L.T).sum() + totals - 2 * (K.sum(0) @ L.sum(1)) / (n - 2))


class _Distances:
    """Distances between stimuli, a block of rows at a time."""

    def __init__(self, rows: Tensor, distance: str, name: str):
        self.distance, self.name, self.nearest, self.farthest = distance, name, np.inf, 0.0
        if distance == "correlation":
            flat = (rows == rows[:, :1]).all(1)
            rows = torch.where(flat[:, None], 0.0, _in_range(rows, name))
            rows = rows - rows.mean(1, keepdim=True)
            rows = torch.where(flat[:, None], 0.0, rows)
        if distance in ("correlation", "cosine"):
            fault = "is the same in all units" if distance == "correlation" else "is all zero"
            self.rows, self.squares = _unit_length(rows, name, distance, fault), None
        else:
            self.rows = _scaled(rows, name)
            self.squares = self.rows.square().sum(1)

    def block(self, start: int, first: int = 0) -> Tensor:
        """Distances of stimuli from `start` on, a block of them, to those from `first` on."""
        products = product(self.rows[start : start + BLOCK], self.rows[first:].T)
        if self.squares is None:
            return 1 - products
        squared = self.squares[start : start + BLOCK, None] + self.squares[first:] - 2 * products
        # What is below rounding is zero: copies of a stimulus lie at no distance.
        floor = 1e-14 * (self.squares[start : start + BLOCK, None] + self.squares[first:])
        squared = torch.where(squared > floor, squared, 0.0)
        return squared if self.distance == "sqeuclidean" else squared.sqrt()

    def condensed(self):
        """Each pair of stimuli once, in blocks."""
        for start in range(0, len(self.rows) - 1, BLOCK):
            block = self.block(start, start)
            distances = torch.cat([row[i + 1 :] for i, row in enumerate(block)])
            self.nearest = min(self.nearest, float(distances.min()))
            self.farthest = max(self.farthest, float(distances.max()))
            yield distances

    def refuse_equal(self, compare: str) -> None:
        """Once all distances are known: those that are equal, or by cosine zero, to rounding cannot be compared."""
        rounding = 1e-14 * (1.0 if self.squares is None else self.farthest)
        if self.farthest - (0.0 if compare == "cosine" else self.nearest) <= rounding:
            raise ValueError(f"all stimuli are equally far apart in {self.name}: there is no geometry to compare")

    def set_bandwidth(self, multiple: float) -> None:
        """The variance of a Gaussian kernel: `multiple` times the median of the distances that are not zero.

        Exact without holding them all: their histogram says in which bin the middle ones are, and only those are kept.
        """
        largest = max(float(block.max()) for block in self.condensed())
        edges = np.linspace(0, largest, 2**14 + 1)
        counts = np.zeros(len(edges) - 1, int)
        for block in self.condensed():
            block = block[block > 0].cpu().numpy()
            counts += np.histogram(block, edges)[0]
        below, n = counts.cumsum(), int(counts.sum())
        middle = [(n - 1) // 2, n // 2]
        bins = [int(np.searchsorted(below, rank, side="right")) for rank in middle]
        low, high = edges[bins[0]], edges[bins[1] + 1]
        last = bins[1] + 1 == len(counts)
        kept = []
        for block in self.condensed():
            kept.append(block[(block > 0) & (block >= low) & ((block <= high) if last else (block < high))].cpu())
        kept, skipped = torch.cat(kept).sort().values, int(below[bins[0] - 1]) if bins[0] else 0
        self.variance = multiple * float(kept[[rank - skipped for rank in middle]].mean())
