import math

import mpmath
import numpy as np
import pyro
import pytest
import torch
from scipy import integrate, stats

import bmtl
from bmtl.distributions import NormalInverseGamma, StudentT

CASES = [(0.7, 0.0, 1.0), (3.0, -1.5, 0.2), (40.0, 3.0, 10.0), (1e5, 0.3, 2.0)]


def make(df, loc, scale, dtype=torch.float64):
    return StudentT(*(torch.tensor(v, dtype=dtype) for v in (df, loc, scale))), stats.t(df, loc, scale)


def tensor(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_it_is_scipys(case):
    p, exact = make(*case)
    y = tensor(case[1] + case[2] * np.linspace(-8, 8, 33))
    torch.testing.assert_close(p.log_prob(y), tensor(exact.logpdf(y)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.cdf(y), tensor(exact.cdf(y)), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(p.log_survival(y), tensor(exact.logsf(y)), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(p.entropy(), tensor(exact.entropy()))
    variance = exact.var() if case[0] > 2 else math.inf
    assert p.variance.item() == pytest.approx(variance)
    assert p.law() == ("student-t", {"loc": p.loc, "scale": p.scale, "df": p.df})


@pytest.mark.parametrize("case", CASES[1:])
def test_scores_and_partial_means(case):
    p, exact = make(*case)
    for z in (-3.0, 0.2, 5.0):
        y = case[1] + z * case[2]
        crps, _ = integrate.quad(lambda t, y=y: (exact.cdf(t) - (t >= y)) ** 2, -np.inf, np.inf, limit=400, epsabs=1e-9)
        assert p.crps(tensor(y)).item() == pytest.approx(crps, rel=1e-5)
        beyond, _ = integrate.quad(lambda t: (t - case[1]) * exact.pdf(t), y, np.inf, limit=400, epsabs=1e-12)
        assert p.partial_mean(tensor(y)).item() == pytest.approx(beyond, rel=1e-6)


def test_draws_follow_it_and_gradients_reach_its_parameters():
    torch.manual_seed(0)
    p, exact = make(*CASES[1])
    assert stats.kstest(p.sample((4000,)).numpy(), exact.cdf).pvalue > 1e-3
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in CASES[1]]
    y = tensor([-4.0, -1.5, 0.0, 2.0])
    for method in ("log_prob", "log_cdf", "log_survival"):
        assert torch.autograd.gradcheck(lambda *v, method=method: getattr(StudentT(*v), method)(y), values)


def test_shapes_and_bad_parameters():
    p = StudentT(torch.full((3, 1), 4.0), torch.zeros(2))
    assert p.batch_shape == (3, 2)
    assert p.expand([5, 3, 2]).rsample((7,)).shape == (7, 5, 3, 2)
    with pytest.raises(ValueError, match="df"):
        StudentT(-1.0, 0.0, 1.0, validate_args=True)


# ---- Far errors and low precision ------------------------------------------------------------------------------------


def exact_log_density(alpha, w, e):
    with mpmath.workdps(50):
        alpha, w, e = map(mpmath.mpf, (alpha, w, e))
        step = mpmath.loggamma(alpha + 0.5) - mpmath.loggamma(alpha)
        return float(step - mpmath.log(mpmath.pi * w) / 2 - (alpha + 0.5) * mpmath.log1p(e * e / w))


FAR = [
    (torch.float64, 1e160),
    (torch.float64, 1e300),
    (torch.float32, 1e18),
    (torch.float32, 1e25),
    (torch.float32, 1e38),
]


@pytest.mark.parametrize("nu", [1e-4, 2.0, 1e4])
@pytest.mark.parametrize(("dtype", "error"), [*FAR, (torch.float16, 1e4), (torch.float16, 6e4), (torch.bfloat16, 1e30)])
def test_no_error_is_too_large(dtype, error, nu):
    """The square of an error of 1e20 is infinite in float32, that of 1e3 in float16: density, tails and slopes are not."""
    values = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (0.5, nu, 1.75, 0.25)]
    p = NormalInverseGamma(*values)
    y = torch.tensor(error, dtype=dtype)
    w = 2 * values[3].item() * (1 + values[1].item()) / values[1].item()
    tolerance = 1e-12 if dtype is torch.float64 else 2e-6
    for label in (y, -y):
        e = label.item() - 0.5
        expected = exact_log_density(1.75, w, e)
        found = p.log_prob(label)
        assert found.item() == pytest.approx(expected, rel=tolerance)
        slopes = torch.autograd.grad(found, values)
        assert all(slope.isfinite() for slope in slopes)
        assert slopes[0].item() == pytest.approx((2 * 1.75 + 1) / e, rel=1e-2, abs=1e-7)
        tail = p.log_survival(label) if e > 0 else p.log_cdf(label)
        assert tail.item() == pytest.approx(expected + math.log(abs(e) / 3.5), rel=1e-5)  # f(y) |y| / n, far out
        assert p.crps(label).item() == pytest.approx(abs(e), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_heads_become_float32(dtype):
    raw = torch.tensor([0.3, -14.0, -20.0, -16.0], dtype=dtype)
    p = NormalInverseGamma.from_raw(raw)
    wide = NormalInverseGamma.from_raw(raw.float())
    y = torch.tensor(2.0, dtype=dtype)
    assert p.log_prob(y).dtype == torch.float32
    torch.testing.assert_close(p.log_prob(y), wide.log_prob(y.float()))
    torch.testing.assert_close(p.variance, wide.variance)
    assert p.variance.isfinite()
    assert p.rsample().isfinite()


def test_it_can_be_observed():
    y = torch.tensor([0.3, math.nan, 1e30])
    scale = torch.tensor(0.5, requires_grad=True)

    def program():
        with pyro.plate("rows", 3):
            bmtl.observe("y", StudentT(4.0, torch.zeros(3), scale), y)

    total = pyro.poutine.trace(program).get_trace().log_prob_sum()
    expected = stats.t(4, 0, 0.5).logpdf([0.3, 1e30]).sum()
    assert total.item() == pytest.approx(expected, rel=1e-6)
    assert torch.autograd.grad(total, scale)[0].isfinite()
