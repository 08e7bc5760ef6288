import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from convergent import alignment_loss, metrics
from convergent.alignment_loss import METRICS, alignment, loss

pytestmark = pytest.mark.smoke


def rows(n=40, p=6, q=9, noise=0.5, seed=0, dtype=torch.float64):
    """Two representations that share three directions."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    made = []
    for units in (p, q):
        mixed = shared @ torch.randn(3, units, generator=generator, dtype=torch.float64)
        made.append((mixed + noise * torch.randn(n, units, generator=generator, dtype=torch.float64)).to(dtype))
    return made


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(16, 5, 4), (12, 9, 14)], ids=["more stimuli", "more units"])
def test_the_gradient_is_that_of_finite_differences(metric, shape):
    X, Y = rows(*shape)
    assert torch.autograd.gradcheck(
        lambda x, y: alignment(x, y, metric, 2 if metric == "linear" else 1),
        (X.requires_grad_(), Y.requires_grad_()),
        eps=1e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("shape", [(40, 6, 9), (24, 30, 20)], ids=["more stimuli", "more units"])
@pytest.mark.parametrize("positions", [1, 4])
def test_linear_is_the_r2_of_scikit_learn_fitted_on_one_half_and_scored_on_the_other(shape, positions):
    X, Y = (z.numpy() for z in rows(*shape))
    middle = len(X) // positions // 2 * positions
    halves, found = (slice(0, middle), slice(middle, None)), []
    for a, b in ((X, Y), (Y, X)):
        predicted = np.empty_like(b)
        for fitted, scored in (halves, halves[::-1]):
            centred = a[fitted] - a[fitted].mean(0)
            alpha = 0.1 * (centred**2).sum() / min(centred.shape)
            predicted[scored] = Ridge(alpha).fit(a[fitted], b[fitted]).predict(a[scored])
        found.append(r2_score(b, predicted))
    assert float(alignment(*rows(*shape), positions=positions)) == pytest.approx(np.mean(found), abs=1e-9)


def test_linear_is_the_mean_of_both_directions_of_the_librarys_two_folds():
    X, Y = rows(200)
    tiny = 1e-9
    ours = alignment_loss.linear(X, Y, ridge=tiny, positions=2)
    theirs = [metrics.linear(*pair, alpha=tiny, folds=2, score="r2", positions=2) for pair in ((X, Y), (Y, X))]
    assert float(ours) == pytest.approx(np.mean(theirs), abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "theirs"),
    [
        ("cka", lambda X, Y: metrics.cka(X, Y, debiased=True)),
        ("procrustes", metrics.shape_cosine),
        ("rsa", lambda X, Y: metrics.rsa(X, Y, compare="pearson")),
    ],
)
def test_values_are_those_of_the_librarys_metrics(metric, theirs):
    X, Y = rows()
    assert float(alignment(X, Y, metric)) == pytest.approx(theirs(X, Y), abs=1e-8)


@pytest.mark.parametrize("metric", METRICS)
def test_alignment_is_symmetric_and_blind_to_the_scale_of_either_side(metric):
    X, Y = rows()
    value = float(alignment(X, Y, metric))
    assert float(alignment(Y, X, metric)) == pytest.approx(value)
    assert float(alignment(X * 1e-3, Y * 1e3, metric)) == pytest.approx(value)


def test_alignment_is_blind_to_rotation_and_shift_but_for_the_units_that_linear_predicts():
    X, Y = rows()
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    halves = [slice(0, 20), slice(20, 40)]
    for score in (alignment_loss.cka, alignment_loss.procrustes, lambda a, b: alignment_loss._r2(a, b, halves, 0.1)):
        assert float(score(X @ turn + 5, Y)) == pytest.approx(float(score(X, Y)))


@pytest.mark.parametrize("metric", METRICS)
def test_float32_gives_what_float64_gives_also_far_from_zero_and_for_units_that_repeat_each_other(metric):
    X, Y = rows(noise=1e-3)
    X = torch.cat([X, X], 1) + 20
    exact = float(alignment(X, Y, metric))
    assert float(alignment(X.float(), Y.float(), metric)) == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_a_silent_layer_has_a_finite_alignment_and_a_finite_gradient(metric):
    _, Y = rows(dtype=torch.float32)
    X = torch.zeros(len(Y), 5, requires_grad=True)
    value = loss(X, Y, metric)
    value.backward()
    assert value.isfinite()
    assert X.grad.isfinite().all()


@pytest.mark.parametrize("metric", METRICS)
def test_following_the_gradient_up_raises_alignment_and_down_lowers_it(metric):
    X, Y = rows(n=60)
    start, ends = float(alignment(X, Y, metric)), []
    for sign in (1, -1):
        moved = X.clone().requires_grad_()
        optimiser = torch.optim.Adam([moved], lr=0.02)
        for _ in range(30):
            optimiser.zero_grad()
            (sign * loss(moved, Y, metric)).backward()
            optimiser.step()
        ends.append(float(alignment(moved.detach(), Y, metric)))
    assert ends[1] < start < ends[0]


def test_a_unit_that_never_varies_does_not_count():
    X, Y = rows()
    padded = torch.cat([Y, torch.full((len(Y), 1), 3.0, dtype=Y.dtype)], 1)
    predictions = alignment_loss._r2(X, Y, [slice(0, 20), slice(20, 40)], 0.1)
    assert float(alignment_loss._r2(X, padded, [slice(0, 20), slice(20, 40)], 0.1)) == pytest.approx(float(predictions))


def test_mixed_precision_is_left_for_the_loss():
    X, Y = rows(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = alignment(X, Y)
    assert inside.dtype is torch.float32
    assert float(inside) == float(alignment(X, Y))


def test_what_cannot_be_compared_is_refused():
    X, Y = rows()
    with pytest.raises(ValueError, match="40 rows and the reference 39"):
        alignment(X, Y[:-1])
    with pytest.raises(ValueError, match="not one of linear, cka, procrustes, rsa"):
        alignment(X, Y, "cca")
    with pytest.raises(ValueError, match="at least 4 whole images"):
        alignment(X, Y, positions=11)
    with pytest.raises(ValueError, match="debiased CKA needs at least 4"):
        alignment(X[:3], Y[:3], "cka")
