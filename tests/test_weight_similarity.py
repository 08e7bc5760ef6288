"""Similarity of covariances (eqs. 5 and 6) against known truth: rotations, resamples, SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from convergent import weight_covariances as wc
from convergent import weight_similarity as ws
from strategies import orthogonal

pytestmark = pytest.mark.smoke
REPETITIONS = 200


def learned(values, n_inputs, n_neurons, seed=0):
    """A learned covariance with these eigenvalues and random eigenvectors."""
    vectors = torch.from_numpy(orthogonal(np.random.default_rng(seed), n_inputs)[:, : len(values)])
    return wc.Covariance(torch.tensor(values, dtype=torch.float64), vectors.contiguous(), n_neurons)


NOTHING = wc.Covariance(torch.zeros(0, dtype=torch.float64), torch.zeros(60, 0, dtype=torch.float64), 30)
SPECTRUM = (40.0, 20.0, 12.0, 8.0)


# --- Bures cosine (eq. 5) ----------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [(4, 4), (2, 6), (8, 3), (12, 12)])
def test_the_bures_cosine_is_that_of_matrix_roots(ranks):
    random = np.random.default_rng(sum(ranks))
    C1, C2 = ((X.T @ X) for X in (random.standard_normal((rank, 12)) for rank in ranks))
    root = np.real(sqrtm(C1) @ sqrtm(C2))
    expected = np.linalg.svd(root, compute_uv=False).sum() / math.sqrt(np.trace(C1) * np.trace(C2))
    found = ws.bures_cosine(torch.from_numpy(C1), torch.from_numpy(C2))
    assert found == pytest.approx(expected, abs=1e-6)
    assert ws.bures_cosine(torch.from_numpy(C2), torch.from_numpy(C1)) == pytest.approx(found, abs=1e-9)


def test_the_bures_cosine_gives_the_transport_distance_of_gaussians():
    """Against the closed form of POT, an independent package."""
    ot = pytest.importorskip("ot")
    random = np.random.default_rng(0)
    C1, C2 = ((X.T @ X) / 20 for X in random.standard_normal((2, 20, 7)))
    distance = float(ot.gaussian.bures_wasserstein_distance(np.zeros(7), np.zeros(7), C1, C2))
    cosine = ws.bures_cosine(torch.from_numpy(C1), torch.from_numpy(C2))
    mine = np.trace(C1) + np.trace(C2) - 2 * cosine * math.sqrt(np.trace(C1) * np.trace(C2))
    assert mine == pytest.approx(distance**2, rel=1e-6)


def test_a_covariance_has_cosine_one_with_its_multiples_and_zero_with_what_is_orthogonal_to_it():
    one = learned((5.0, 2.0), 10, 5)
    assert ws.bures_cosine(one, one._replace(values=7 * one.values)) == pytest.approx(1)
    whole = torch.from_numpy(orthogonal(np.random.default_rng(0), 10))
    assert ws.bures_cosine(one, one._replace(vectors=whole[:, 2:4].contiguous())) == pytest.approx(0, abs=1e-9)


def test_the_cosine_does_not_see_a_common_rotation_and_alignment_undoes_a_rotation_of_one():
    one, other = learned(SPECTRUM, 60, 30, 1), learned(SPECTRUM, 60, 30, 2)
    turn = torch.from_numpy(orthogonal(np.random.default_rng(5), 60))
    before = ws.bures_cosine(one, other)
    assert ws.bures_cosine(one.seen_by(turn), other.seen_by(turn)) == pytest.approx(before)
    assert ws.bures_cosine(one, one.seen_by(turn)) < 0.9
    assert ws.bures_cosine(one.seen_by(turn).seen_by(turn.T.contiguous()), one) == pytest.approx(1)


def test_covariances_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="align the first"):
        ws.bures_cosine(learned((1.0,), 10, 5), learned((1.0,), 12, 5))


# --- normalised similarity (eq. 6) -------------------------------------------------------------------


@pytest.mark.parametrize(("n_inputs", "n_neurons"), [(60, 30), (30, 60)], ids=["gamma 2", "gamma 1/2"])
def test_it_is_zero_for_random_rotations_and_one_for_resamples(n_inputs, n_neurons):
    one = learned(SPECTRUM, n_inputs, n_neurons)
    on = ws.scale(one, draws=REPETITIONS)
    random = torch.Generator().manual_seed(1)
    turned, drawn = [], []
    for seed in range(REPETITIONS):
        turn = torch.from_numpy(orthogonal(np.random.default_rng(1000 + seed), n_inputs))
        turned.append(ws.normalised_similarity(one, one.seen_by(turn), on=on).value)
        again = ws.resample(one, n_neurons, random)
        drawn.append(ws.normalised_similarity(one, again, on=on).value)
    for found, expected in ((turned, 0), (drawn, 1)):
        # The scale's ends were drawn as often as they are tested here: the difference has twice the variance.
        error = math.sqrt(2) * np.std(found) / math.sqrt(REPETITIONS)
        assert np.mean(found) == pytest.approx(expected, abs=4 * error)


def test_its_error_is_how_far_values_from_other_draws_scatter():
    one, other = learned(SPECTRUM, 60, 30, 1), learned(SPECTRUM, 60, 30, 1).seen_by(_nearly_identity(60))
    found = [ws.normalised_similarity(one, other, draws=8, seed=seed) for seed in range(REPETITIONS)]
    scatter = np.std([one.value for one in found])
    assert np.mean([one.error for one in found]) == pytest.approx(scatter, rel=0.25)


def _nearly_identity(n):
    skew = 0.05 * torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.matrix_exp(skew - skew.T)


def test_a_resample_has_the_covariance_that_was_asked_for():
    one = learned((9.0, 4.0), 6, 6)
    drawn = ws.neurons(one, 200_000, torch.Generator().manual_seed(0))
    found = drawn.T @ drawn / len(drawn)
    torch.testing.assert_close(found, one.dense + torch.eye(6, dtype=torch.float64), atol=0.1, rtol=0)


def test_the_same_seed_gives_the_same_similarity():
    one, other = learned(SPECTRUM, 60, 30, 1), learned(SPECTRUM, 60, 30, 2)
    assert ws.normalised_similarity(one, other, seed=3) == ws.normalised_similarity(one, other, seed=3)
    assert ws.normalised_similarity(one, other, seed=3) != ws.normalised_similarity(one, other, seed=4)


def test_matrices_are_taken_as_well_with_the_number_of_neurons():
    one, other = learned(SPECTRUM, 60, 30, 1), learned(SPECTRUM, 60, 30, 2)
    low = ws.normalised_similarity(one, other, draws=50)
    full = ws.normalised_similarity(one.dense, other.dense, n_neurons=30, draws=50)
    assert full.cosine == pytest.approx(low.cosine, abs=1e-7)
    assert full.value == pytest.approx(low.value, abs=1e-6)
    with pytest.raises(ValueError, match="give n_neurons"):
        ws.scale(one.dense)


def test_nothing_learned_is_similar_to_nothing_and_never_nan():
    one = learned(SPECTRUM, 60, 30)
    for pair in ((NOTHING, one), (one, NOTHING), (NOTHING, NOTHING)):
        assert ws.bures_cosine(*pair) == 0
        found = ws.normalised_similarity(*pair)
        assert math.isfinite(found.value)
        assert math.isfinite(found.error)
    assert ws.normalised_similarity(NOTHING, one).value == 0
    assert not ws.normalised_similarity(NOTHING, one).scale.resolved
    # Compared with nothing, a covariance is less similar than with its own rotation.
    assert ws.normalised_similarity(one, NOTHING).value < 0
    assert ws.eigenvector_cosines(NOTHING, one, 5).abs().max() == 0


def test_a_covariance_that_looks_the_same_after_every_rotation_has_no_similarity():
    sphere = wc.Covariance(torch.full((5,), 3.0, dtype=torch.float64), torch.eye(5, dtype=torch.float64), 10)
    found = ws.normalised_similarity(sphere, sphere)
    assert found.cosine == pytest.approx(1)
    assert not found.scale.resolved
    assert (found.value, found.error) == (0, 0)


def test_one_draw_has_no_error_and_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        ws.scale(learned(SPECTRUM, 60, 30), draws=1)


# --- eigenvectors by rank ----------------------------------------------------------------------------


def test_cosines_by_rank_are_one_on_the_diagonal_for_the_same_and_small_for_a_random_rotation():
    one = learned(SPECTRUM, 400, 100)
    torch.testing.assert_close(ws.eigenvector_cosines(one, one, 4), torch.eye(4, dtype=torch.float64))
    other = learned(SPECTRUM, 400, 100, seed=9)
    squares = ws.eigenvector_cosines(one, other, 4).square().mean()
    assert float(squares) == pytest.approx(1 / 400, rel=1)
    assert ws.eigenvector_cosines(one, other, 6)[4:].abs().max() == 0
