"""Covariances of weights: shrinkage, effective rank, the random bulk and alignment, each against known truth."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from convergent import weight_covariances as wc
from strategies import orthogonal

pytestmark = pytest.mark.smoke
REPETITIONS = 200


def planted(spikes, n_inputs, n_neurons, seed):
    """Neurons (n_neurons, n_inputs) of covariance Id plus `spikes` along the first axes."""
    drawn = torch.randn(n_neurons, n_inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    stretch = torch.ones(n_inputs, dtype=torch.float64)
    stretch[: len(spikes)] = (1 + torch.tensor(spikes)).sqrt()
    return drawn * stretch


def covariance(neurons):
    return wc.weight_covariance(neurons, initial_variance=1.0)


# --- covariance --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30), (1, 7), (7, 1)])
def test_the_covariance_is_that_of_numpy_whichever_side_is_smaller(shape):
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = wc.weight_covariance(weights)
    rows = weights.double().numpy()
    np.testing.assert_allclose(found.dense.numpy(), 3 * shape[1] * rows.T @ rows / shape[0], atol=1e-10)
    gram = (found.vectors.T @ found.vectors).numpy()
    np.testing.assert_allclose(gram, np.eye(len(found.values)), atol=1e-9)
    assert found.gamma == shape[1] / shape[0]


def test_untrained_pointwise_weights_have_variance_one_in_its_units():
    torch.manual_seed(0)
    weights = torch.nn.Conv2d(640, 128, 1, bias=False).weight
    found = wc.weight_covariance(weights)
    assert float(found.values.sum()) / 640 == pytest.approx(1, abs=0.01)


def test_an_eigenvalue_of_zero_is_not_held():
    weights = torch.zeros(6, 10)
    weights[0, 3] = 2.0
    found = wc.weight_covariance(weights, initial_variance=1.0)
    assert found.values.tolist() == pytest.approx([4 / 6])
    assert len(wc.weight_covariance(torch.zeros(6, 10)).values) == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(4, 3, 3, 3), "expected .C_out, C_in."),
        (torch.zeros(4, 0), "expected"),
        (torch.full((4, 3), math.nan), "not finite"),
    ],
)
def test_what_is_no_matrix_of_weights_is_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        wc.weight_covariance(weights)


def test_a_matrix_that_is_no_covariance_is_refused():
    with pytest.raises(ValueError, match="below zero"):
        wc.of_dense(torch.diag(torch.tensor([1.0, -1.0])), 5)
    with pytest.raises(ValueError, match="symmetric"):
        wc.of_dense(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), 5)


# --- shrinkage (eq. 3) -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_inputs", "n_neurons"), [(200, 100), (100, 200), (150, 150)], ids=["gamma 2", "gamma 1/2", "gamma 1"]
)
def test_planted_spikes_are_recovered_by_shrinkage_within_the_theory_of_their_spread(n_inputs, n_neurons):
    spikes, gamma = (25.0, 12.0, 6.0), n_inputs / n_neurons
    found, overlaps = [], []
    for seed in range(REPETITIONS):
        learned, _ = wc.learned_and_random(covariance(planted(spikes, n_inputs, n_neurons, seed)))
        found.append(learned.values[:3].numpy())
        overlaps.append([float(learned.vectors[i, i] ** 2) for i in range(3)])
    found, overlaps = np.array(found), np.array(overlaps)
    for i, spike in enumerate(spikes):
        # Central limit theorem of Paul (2007), carried through eq. 3.
        spread = math.sqrt(2 / n_neurons) * (1 + spike) / math.sqrt(1 - gamma / spike**2)
        # Neighbouring spikes repel one another: a bias of order 1 / n_neurons, computed to first order.
        ells = [1 + other for other in spikes]
        bias = sum(ells[i] * ell / (ells[i] - ell) for j, ell in enumerate(ells) if j != i) / n_neurons
        error = 4 * spread / math.sqrt(REPETITIONS)
        assert found[:, i].mean() == pytest.approx(spike + bias, abs=error + 0.02 * spike), f"spike {spike}"
        assert found[:, i].std() == pytest.approx(spread, rel=0.25)
        cosine = (1 - gamma / spike**2) / (1 + gamma / spike)
        assert overlaps[:, i].mean() == pytest.approx(cosine, abs=0.04), "the eigenvector's squared cosine"


def test_unshrunk_eigenvalues_would_be_wrong_by_the_amount_that_theory_says():
    spike, gamma = 10.0, 2.0
    tops = [float(covariance(planted((spike,), 200, 100, seed)).values[0]) for seed in range(REPETITIONS)]
    expected = (1 + spike) * (1 + gamma / spike)
    assert np.mean(tops) == pytest.approx(expected, abs=4 * np.std(tops) / math.sqrt(REPETITIONS) + 0.1)
    assert wc.shrink(torch.tensor([expected]), gamma).item() == pytest.approx(spike, abs=1e-6)


def test_spikes_below_the_threshold_are_not_found():
    """As often as the largest eigenvalue of pure noise lies above the bulk's edge: 0.168, the Tracy-Widom law."""
    counts = {
        spike: np.mean(
            [
                len(wc.learned_and_random(covariance(planted((spike,), 200, 100, seed)))[0].values) > 0
                for seed in range(REPETITIONS)
            ]
        )
        for spike in (0.0, 0.3 * math.sqrt(2))
    }
    for share in counts.values():
        assert share == pytest.approx(0.168, abs=4 * math.sqrt(0.168 * 0.832 / REPETITIONS)), counts


def test_the_smallest_spike_that_is_kept_is_the_root_of_gamma():
    for gamma in (0.1, 1.0, 10.0):
        edge = wc.marchenko_pastur_edges(gamma)[1]
        below, above = wc.shrink(torch.tensor([edge * (1 - 1e-12), edge * (1 + 1e-9)], dtype=torch.float64), gamma)
        assert below == 0
        assert above.item() == pytest.approx(math.sqrt(gamma), rel=1e-3)


def test_shrinkage_is_the_formula_of_the_paper():
    values, gamma = torch.tensor([30.0, 12.0, 6.1], dtype=torch.float64), 2.0
    paper = (values - 1 - gamma) / 2 + (((values + 1 - gamma) / 2) ** 2 - values).sqrt()
    torch.testing.assert_close(wc.shrink(values, gamma), paper)


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_gamma_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma"):
        wc.shrink(torch.ones(3), gamma)


def test_impossible_eigenvalues_are_refused():
    for values in ([-1.0], [math.nan]):
        with pytest.raises(ValueError, match="finite and not negative"):
            wc.shrink(torch.tensor(values), 1.0)
        with pytest.raises(ValueError, match="finite and not negative"):
            wc.effective_rank(torch.tensor(values))


# --- effective rank (eq. 4) --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [([5.0], 1), ([1.0] * 9, 5), ([3.0, 1.0], 1.25), ([1.0, 3.0], 1.25), ([2.0, 0.0, 0.0], 1), ([], 0), ([0.0], 0)],
)
def test_the_effective_rank_of_known_spectra(values, expected):
    assert wc.effective_rank(torch.tensor(values)) == pytest.approx(expected)


def test_the_effective_rank_of_a_power_law_is_its_sum():
    ranks = np.arange(1, 101)
    values = ranks**-1.5
    assert wc.effective_rank(torch.from_numpy(values)) == pytest.approx((ranks * values).sum() / values.sum())


# --- Marchenko-Pastur --------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.25, 0.9, 3.0, 10.0])
def test_the_density_of_the_bulk_has_integral_one_and_ends_at_its_edges(gamma):
    low, high = wc.marchenko_pastur_edges(gamma)
    # Half circles at both edges: in this variable the integrand is smooth.
    angles = np.linspace(0, np.pi, 2001)
    x = torch.from_numpy((low + high) / 2 - (high - low) / 2 * np.cos(angles))
    height = wc.marchenko_pastur_density(x, gamma).numpy() * (high - low) / 2 * np.sin(angles)
    assert integrate.simpson(height, x=angles) == pytest.approx(1, abs=1e-5)
    outside = wc.marchenko_pastur_density(torch.tensor([0.0, low / 2, high + 0.1]), gamma)
    assert outside.abs().max() < 1e-12


@pytest.mark.parametrize(("n_inputs", "n_neurons"), [(400, 100), (100, 400)])
def test_eigenvalues_of_random_weights_follow_the_density(n_inputs, n_neurons):
    gamma = n_inputs / n_neurons
    values = torch.cat([covariance(planted((), n_inputs, n_neurons, seed)).values for seed in range(10)]).numpy()
    low, high = wc.marchenko_pastur_edges(gamma)
    for x in np.linspace(low, high, 7)[1:-1]:
        below = integrate.quad(lambda v: float(wc.marchenko_pastur_density(torch.tensor(v), gamma)), low, x)[0]
        assert np.mean(values < x) == pytest.approx(below, abs=0.02)


# --- alignment (eq. 1) -------------------------------------------------------------------------------


def test_a_rotation_between_two_representations_is_recovered():
    random = np.random.default_rng(0)
    phi = torch.from_numpy(random.standard_normal((500, 40)) * np.linspace(0.01, 3, 40))
    rotation = torch.from_numpy(orthogonal(np.random.default_rng(1), 40))
    found = wc.alignment((phi @ rotation.T).T @ phi)
    torch.testing.assert_close(found, rotation, atol=1e-8, rtol=0)


@pytest.mark.parametrize(("n_first", "n_second"), [(30, 50), (50, 30)])
def test_different_widths_are_aligned_as_if_padded_with_zeros(n_first, n_second):
    random = torch.Generator().manual_seed(0)
    first, second = (torch.randn(400, n, generator=random, dtype=torch.float64) for n in (n_first, n_second))
    found = wc.alignment(second.T @ first)
    assert found.shape == (n_second, n_first)
    narrow = found.T @ found if n_first < n_second else found @ found.T
    torch.testing.assert_close(narrow, torch.eye(30, dtype=torch.float64))
    padded = [torch.nn.functional.pad(part, (0, 50 - part.shape[1])) for part in (first, second)]
    left, _, right = torch.linalg.svd(padded[1].T @ padded[0])
    best = (left @ right * (padded[1].T @ padded[0])).sum()
    torch.testing.assert_close((found * (second.T @ first)).sum(), best)


def test_a_dead_channel_is_mapped_to_zero_and_nothing_is_nan():
    phi = torch.randn(100, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phi[:, 3] = 0
    found = wc.alignment(phi.T @ phi)
    expected = torch.eye(8, dtype=torch.float64)
    expected[3, 3] = 0
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


def test_representations_without_common_moments_are_refused():
    for cross in (torch.zeros(3, 3), torch.full((3, 3), math.nan)):
        with pytest.raises(ValueError, match="not all of them zero"):
            wc.alignment(cross)
