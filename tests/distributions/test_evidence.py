import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from bmtl.distributions import Censored, NormalInverseGamma, evidence_penalty, lipschitz_mse


def head(rows=32, seed=0, **options):
    raw = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    return raw, NormalInverseGamma.from_raw(raw, **options)


def labels(rows=32, seed=1):
    return 2 * torch.randn(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equation_6_at_the_least_threshold_of_the_batch():
    _, p = head()
    y = labels()
    square = (y - p.gamma) ** 2
    u = torch.minimum(p.u_nu, p.u_alpha).min()
    expected = torch.where(square < u, square, 2 * u.sqrt() * (y - p.gamma).abs() - u)
    assert (square < u).any()
    assert (square > u).any()
    torch.testing.assert_close(lipschitz_mse(y, p), expected)


@pytest.mark.parametrize("threshold", ["batch_min", "sample"])
def test_it_is_twice_hubers_loss_in_value_and_gradient(threshold):
    raw, p = head()
    y = labels()
    delta = p.scale.detach().min().expand(32) if threshold == "batch_min" else p.scale.detach()
    expected = torch.stack(
        [2 * F.huber_loss(*pair, delta=d.item()) for *pair, d in zip(p.gamma, y, delta, strict=True)]
    )
    found = lipschitz_mse(y, p, threshold)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss.sum(), raw, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("threshold", ["batch_min", "sample", "inf"])
def test_it_trains_the_prediction_alone_with_a_bounded_slope(threshold):
    raw, p = head()
    (slope,) = torch.autograd.grad(lipschitz_mse(labels(), p, threshold).sum(), raw)
    assert not slope[:, 1:].any()
    if threshold != "inf":
        bound = 2 * (p.scale.min() if threshold == "batch_min" else p.scale)
        assert (slope[:, 0].abs() <= bound * (1 + 1e-12)).all()


def test_without_a_threshold_it_is_the_squared_error():
    _, p = head()
    y = labels()
    torch.testing.assert_close(lipschitz_mse(y, p, "inf"), (y - p.gamma) ** 2)


@settings(deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e3))
def test_it_is_continuous_and_between_its_limits(error, scale):
    """Never above the squared error nor above the line 2 delta |e|, and equal to the first inside."""
    p = NormalInverseGamma(*map(torch.tensor, (0.0, 1.0, 1.5, 0.75 * scale**2)))
    y = torch.tensor(error)
    loss, delta = lipschitz_mse(y, p, "sample").item(), p.scale.item()
    error, least = y.item(), torch.finfo(torch.float32).tiny  # squares below it have few digits
    assert 0 <= loss <= error**2 * (1 + 1e-5) + least
    assert loss <= 2 * delta * abs(error) * (1 + 1e-5)
    if abs(error) <= delta:
        assert loss == pytest.approx(error**2, rel=1e-5, abs=least)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_head_has_finite_losses_and_gradients(dtype):
    ends = torch.tensor([-1e4, -110.0, 0.0, 110.0, 1e4], dtype=dtype)
    raw = torch.cartesian_prod(ends, ends, ends, ends).requires_grad_()
    p = NormalInverseGamma.from_raw(raw)
    for value in (-1e4, 0.0, 1e4):
        y = torch.full((len(raw),), value, dtype=dtype)
        for loss in (*(lipschitz_mse(y, p, t) for t in ("batch_min", "sample", "inf")), evidence_penalty(y, p)):
            (slope,) = torch.autograd.grad(loss.sum(), raw, retain_graph=True)
            assert loss.isfinite().all()
            assert slope.isfinite().all()


@pytest.mark.parametrize("loss", [lipschitz_mse, evidence_penalty])
def test_an_exact_prediction_has_loss_and_gradient_0(loss):
    raw = torch.full((3, 4), -200.0, requires_grad=True)  # all scales at their floor
    value = loss(torch.full((3,), -200.0), NormalInverseGamma.from_raw(raw))
    (slope,) = torch.autograd.grad(value.sum(), raw)
    assert not value.any()
    assert not slope.any()


def test_the_penalty_is_error_times_evidence():
    _, p = head()
    y = labels()
    torch.testing.assert_close(evidence_penalty(y, p), (y - p.gamma).abs() * (2 * p.nu + p.alpha))


@pytest.mark.parametrize("threshold", ["batch_min", "sample", "inf"])
def test_missing_rows_do_not_count(threshold):
    """They have loss and gradient 0, and the least scale is that of the labelled rows."""
    raw, p = head()
    y = labels()
    missing = torch.arange(32) % 3 == 0
    missing[p.scale.argmin()] = True
    found = lipschitz_mse(torch.where(missing, math.nan, y), p, threshold)
    rest = NormalInverseGamma.from_raw(raw[~missing])
    torch.testing.assert_close(found[~missing], lipschitz_mse(y[~missing], rest, threshold))
    assert not found[missing].any()
    penalty = evidence_penalty(torch.where(missing, math.nan, y), p)
    torch.testing.assert_close(penalty[~missing], evidence_penalty(y, p)[~missing])
    for loss in (found, penalty):
        (slope,) = torch.autograd.grad(loss.sum(), raw, retain_graph=True)
        assert slope.isfinite().all()
        assert not slope[missing].any()


@pytest.mark.parametrize("threshold", ["batch_min", "sample", "inf"])
def test_a_batch_without_labels_has_loss_0(threshold):
    raw, p = head()
    loss = lipschitz_mse(torch.full((32,), math.nan), p, threshold)
    (slope,) = torch.autograd.grad(loss.sum(), raw)
    assert not loss.any()
    assert not slope.any()


def test_each_particle_has_a_least_scale_of_its_own():
    raws = torch.stack([head(seed=seed)[0].detach() for seed in (0, 1)])
    y = labels()
    both = lipschitz_mse(y, NormalInverseGamma.from_raw(raws))
    one_by_one = [lipschitz_mse(y, NormalInverseGamma.from_raw(raw)) for raw in raws]
    torch.testing.assert_close(both, torch.stack(one_by_one))


@pytest.mark.parametrize("threshold", ["batch_min", "sample", "inf"])
def test_beyond_its_bound_a_censored_prediction_has_no_error(threshold):
    _, base = head()
    p = Censored(base, lower=-0.5)
    y = labels()
    found = lipschitz_mse(y, p, threshold)
    error = torch.where(y <= -0.5, (base.gamma + 0.5).clamp_min(0.0), (y - base.gamma).abs())
    assert (found[(y <= -0.5) & (base.gamma < -0.5)] == 0).all()
    delta = {"batch_min": base.scale.min(), "sample": base.scale, "inf": torch.tensor(torch.inf)}[threshold]
    torch.testing.assert_close(found, torch.where(error < delta, error**2, 2 * delta * error - delta**2))
    torch.testing.assert_close(evidence_penalty(y, p), error * (2 * base.nu + base.alpha))


def test_what_does_not_fit_is_told():
    _, p = head()
    for loss in (lipschitz_mse, evidence_penalty):
        for y in (labels(31), labels()[:, None], torch.zeros(2, 32)):
            with pytest.raises(ValueError, match="were given for predictions of"):
                loss(y, p)
    with pytest.raises(ValueError, match="threshold is one of 'batch_min', 'sample', 'inf', and 'batch-min' was given"):
        lipschitz_mse(labels(), p, "batch-min")
