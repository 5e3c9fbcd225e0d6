import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bmtl.distributions.t_functions import digamma_step, log_density, log_gamma_step, log_tail, quantile

ALPHAS = [1.0, 1.0001, 1.3, 2.0, 5.0, 20.0, 300.0, 1e3, 1e4, 1e5, 1e6, 1e7]
DISTANCES = [0.0, 1e-9, 1e-3, 0.3, 1.0, 3.0, 10.0, 1e3, 1e6]  # in scales


def exact_log_tail(alpha, w, e):
    """By the regularised incomplete beta function, 40 digits."""
    alpha, w, e = map(mpmath.mpf, (alpha, w, e))
    return mpmath.log(mpmath.betainc(alpha, mpmath.mpf(1) / 2, 0, 1 / (1 + e * e / w), regularized=True) / 2)


@pytest.fixture(autouse=True, scope="module")
def digits():
    with mpmath.workdps(40):
        yield


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 4e-7)])
def test_steps_of_gamma_functions(dtype, tolerance):
    alpha = torch.tensor(ALPHAS, dtype=dtype)
    half = mpmath.mpf(1) / 2
    for a, h, d in zip(alpha.tolist(), log_gamma_step(alpha).tolist(), digamma_step(alpha).tolist(), strict=True):
        assert h == pytest.approx(float(mpmath.loggamma(a + half) - mpmath.loggamma(a)), rel=tolerance, abs=tolerance)
        assert d == pytest.approx(float(mpmath.digamma(a + half) - mpmath.digamma(a)), rel=tolerance)


def test_one_step_is_the_derivative_of_the_other():
    alpha = torch.tensor(ALPHAS, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_gamma_step(alpha).sum(), alpha)
    torch.testing.assert_close(slope, digamma_step(alpha).detach(), rtol=1e-11, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_the_density_keeps_its_digits(dtype, tolerance):
    """An error below 1e-3 nats at alpha = 1e5 in float32, up to 10 scales out (50 nats below the mode)."""
    for a in [a for a in ALPHAS if a <= 1e5]:
        alpha = torch.tensor(a, dtype=dtype)
        z = torch.linspace(-10, 10, 41, dtype=dtype)
        w = 2 * alpha * 0.49
        exact = stats.t(2 * alpha.double().item(), scale=(w.double() / 2 / alpha.double()).sqrt().item())
        found = log_density(alpha, w, 0.7 * z).double()
        torch.testing.assert_close(found, torch.tensor(exact.logpdf((0.7 * z).double())), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_tails_are_those_of_the_incomplete_beta_function(dtype, tolerance):
    for a in [a for a in ALPHAS if a <= 1e5]:  # beyond, mpmath's series does not converge
        for z in [z for z in DISTANCES if z < 1e5 or a < 1e3]:
            alpha = torch.tensor(a, dtype=dtype)
            e = torch.tensor(z, dtype=dtype)
            w = 2 * alpha
            exact = float(exact_log_tail(alpha.item(), w.item(), e.item()))
            assert log_tail(alpha, w, e).item() == pytest.approx(exact, rel=tolerance, abs=tolerance), (a, z)
            assert torch.equal(log_tail(alpha, w, e), log_tail(alpha, w, -e))


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 5), st.floats(0.0, 8.0), st.floats(-3, 3))
def test_gradients_of_the_tail(log_alpha, z, log_w):
    """In alpha, w and e, against derivatives of the exact tail."""
    values = (1 + 10**log_alpha, 10**log_w, z * (10**log_w / (2 + 2 * 10**log_alpha)) ** 0.5)
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
    found = torch.autograd.grad(log_tail(*inputs), inputs)
    with mpmath.workdps(40):
        for i, slope in enumerate(found):
            if i == 2 and values[2] < 1e-30:
                continue  # one-sided at 0: the tail is of |e|
            exact = mpmath.diff(lambda v, i=i: exact_log_tail(*values[:i], v, *values[i + 1 :]), values[i])
            scale = abs(values[i]) or 1.0  # of a relative change
            assert slope.item() * scale == pytest.approx(float(exact) * scale, rel=1e-7, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 7), st.floats(-280, 0), st.booleans())
def test_a_quantile_is_where_the_tail_has_that_probability(log_alpha, log_p, upper):
    alpha = torch.tensor(1 + 10.0**log_alpha, dtype=torch.float64)
    p = torch.tensor(0.5 * 10.0**log_p, dtype=torch.float64)
    e = quantile(alpha, 2 * alpha, 1 - p if upper else p)
    if upper and p < 1e-3:
        return  # 1 - p has lost the digits
    assert (e > -1e-12) if upper else (e < 1e-12)
    assert log_tail(alpha, 2 * alpha, e).item() == pytest.approx(p.log().item(), rel=1e-10, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_at_the_edges(dtype):
    alpha = torch.tensor([1.5, 4e4], dtype=dtype)
    p = torch.tensor([[0.0], [0.5], [1.0], [-0.1], [1.1], [torch.nan]], dtype=dtype)
    found = quantile(alpha, 2 * alpha, p)
    expected = torch.tensor([-torch.inf, 0.0, torch.inf, torch.nan, torch.nan, torch.nan], dtype=dtype)
    torch.testing.assert_close(found, expected[:, None].expand(6, 2), equal_nan=True, rtol=0, atol=1e-6)


@pytest.mark.parametrize("p", [1e-10, 0.02, 0.5, 0.7, 0.999])
@pytest.mark.parametrize("a", [1.01, 3.0, 1e3])
def test_gradients_of_a_quantile(a, p):
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a, 2.6 * a, p)]
    found = torch.autograd.grad(quantile(*inputs), inputs)
    with torch.no_grad():
        for i, slope in enumerate(found):
            step = 1e-5 * inputs[i].item() * (1 if i < 2 else min(1, 1 / p - 1))
            ends = [
                quantile(*(v + sign * step if j == i else v.detach() for j, v in enumerate(inputs))) for sign in (1, -1)
            ]
            numeric = ((ends[0] - ends[1]) / (2 * step)).item()
            assert slope.item() == pytest.approx(numeric, rel=1e-5, abs=1e-8)


def test_everything_broadcasts():
    alpha, w, e = torch.full((3, 1), 2.0), torch.tensor(1.0), torch.zeros(4)
    for fn in (log_density, log_tail):
        assert fn(alpha, w, e).shape == (3, 4)
    assert quantile(alpha, w, torch.full((4,), 0.3)).shape == (3, 4)
