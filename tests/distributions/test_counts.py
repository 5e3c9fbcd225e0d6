import math

import mpmath
import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats

import bmtl
from bmtl.distributions import NegativeBinomial, Poisson, ZeroInflatedPoisson

Y = torch.tensor([0.0, 1.0, 2.0, 7.0, 40.0, 1000.0], dtype=torch.float64)


def values(*numbers, dtype=torch.float64):
    return [torch.tensor(v, dtype=dtype, requires_grad=True) for v in numbers]


def zero_inflated(log_rate, logit):
    gate, law = 1 / (1 + math.exp(-logit)), stats.poisson(math.exp(log_rate))
    return lambda y: np.log(gate * (y == 0) + (1 - gate) * law.pmf(y))


CASES = {
    "poisson": (Poisson, (1.2,), lambda m: stats.poisson(math.exp(m)).logpmf),
    "rare poisson": (Poisson, (-6.0,), lambda m: stats.poisson(math.exp(m)).logpmf),
    "negative binomial": (
        NegativeBinomial,
        (1.2, 0.4),
        lambda m, r: stats.nbinom(math.exp(r), 1 / (1 + math.exp(m - r))).logpmf,
    ),
    "small concentration": (
        NegativeBinomial,
        (2.0, -3.0),
        lambda m, r: stats.nbinom(math.exp(r), 1 / (1 + math.exp(m - r))).logpmf,
    ),
    "nearly poisson": (
        NegativeBinomial,
        (1.0, 5.0),
        lambda m, r: stats.nbinom(math.exp(r), 1 / (1 + math.exp(m - r))).logpmf,
    ),
    "zero-inflated": (ZeroInflatedPoisson, (1.2, -0.5), zero_inflated),
    "hardly inflated": (ZeroInflatedPoisson, (0.3, -9.0), zero_inflated),
}


@pytest.mark.parametrize("case", CASES)
def test_densities_are_scipys_with_their_gradients(case):
    make, parameters, exact = CASES[case]
    y = Y if "zero" not in case and "rare" not in case and "hardly" not in case else Y[:4]
    found = make(*values(*parameters)).log_prob(y)
    torch.testing.assert_close(found.detach(), torch.tensor(exact(*parameters)(y.numpy())), rtol=1e-8, atol=1e-9)
    assert torch.autograd.gradcheck(lambda *v: make(*v).log_prob(y), values(*parameters))


@pytest.mark.parametrize("case", CASES)
def test_probabilities_sum_to_1_and_have_its_mean_and_variance(case):
    make, parameters, _ = CASES[case]
    p = make(*values(*parameters))
    y = torch.arange(4000, dtype=torch.float64)
    mass = p.log_prob(y).exp()
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-8)
    mean = (mass * y).sum()
    assert p.mean.item() == pytest.approx(mean.item(), rel=1e-7)
    assert p.variance.item() == pytest.approx((mass * (y - mean).square()).sum().item(), rel=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if "rare" not in c])
def test_draws_have_its_mean_and_zeros(case):
    make, parameters, _ = CASES[case]
    p = make(*values(*parameters))
    torch.manual_seed(0)
    drawn = p.sample((20_000,))
    assert drawn.dtype == torch.float64
    error = (p.variance / 20_000).sqrt()
    assert (drawn.mean() - p.mean).abs() < 5 * error
    zero = p.log_prob(torch.zeros((), dtype=torch.float64)).exp().item()
    assert abs((drawn == 0).double().mean().item() - zero) < 5 * math.sqrt(zero * (1 - zero) / 20_000)


def test_laws():
    for case, name, expected in (
        ("poisson", "poisson", {"rate": math.exp(1.2)}),
        ("negative binomial", "negative-binomial", {"mean": math.exp(1.2), "concentration": math.exp(0.4)}),
        ("zero-inflated", "zero-inflated-poisson", {"rate": math.exp(1.2), "gate": 1 / (1 + math.exp(0.5))}),
    ):
        make, parameters, _ = CASES[case]
        found, law = make(*values(*parameters)).law()
        assert found == name
        assert {k: v.item() for k, v in law.items()} == pytest.approx(expected)


@pytest.mark.parametrize("log_concentration", [-2.0, 2.0, 3.0, 8.0, 14.0, 25.0])
def test_the_negative_binomial_keeps_its_digits_in_float32(log_concentration):
    """Differences of lgamma have lost all at a concentration of 1e6."""
    for log_mean, y in ((0.0, 0), (2.0, 11), (5.0, 170), (9.0, 8000)):
        with mpmath.workdps(40):
            r, m = mpmath.exp(mpmath.mpf(log_concentration)), mpmath.exp(mpmath.mpf(log_mean))
            exact = mpmath.loggamma(r + y) - mpmath.loggamma(r) - mpmath.loggamma(y + 1)
            exact += r * mpmath.log(r / (r + m)) + y * mpmath.log(m / (r + m))
        p = NegativeBinomial(*values(log_mean, log_concentration, dtype=torch.float32))
        found = p.log_prob(torch.tensor(float(y)))
        assert found.item() == pytest.approx(float(exact), rel=2e-6, abs=2e-6 * (1 + y * max(log_mean, 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [Poisson, NegativeBinomial, ZeroInflatedPoisson])
def test_extreme_heads_have_finite_losses_and_gradients(make, dtype):
    others = () if make is Poisson else (torch.tensor([-80.0, -20.0, 0.0, 20.0, 60.0], dtype=dtype),)
    first = torch.tensor([-300.0, -100.0, 0.0, 40.0], dtype=dtype)
    grid = [part.clone().requires_grad_() for part in torch.meshgrid(first, *others, indexing="ij")]
    for y in (0.0, 3.0, 1e4):
        found = make(*grid).log_prob(torch.tensor(y, dtype=dtype))
        assert found.isfinite().all(), y
        for slope in torch.autograd.grad(found.sum(), grid, retain_graph=True):
            assert slope.isfinite().all(), y


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
@pytest.mark.parametrize("case", ["poisson", "negative binomial", "zero-inflated"])
def test_missing_counts_add_nothing(case, dtype):
    make, parameters, exact = CASES[case]
    y = torch.tensor([3.0, 0.0, 2.0], dtype=torch.float64).to(dtype)
    y[1] = math.nan if dtype.is_floating_point else -1
    leaves = values(*parameters)

    def program():
        with pyro.plate("rows", 3):
            bmtl.observe("y", make(*leaves).expand([3]), y)

    total = poutine.trace(program).get_trace().log_prob_sum()
    assert total.item() == pytest.approx(exact(*parameters)(np.array([3.0, 2.0])).sum())
    assert all(slope.isfinite() for slope in torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("y", [0.0, 3.0, 9.0, 40.0, 1e3, 1e5, 1e7])
@pytest.mark.parametrize("r", [0.05, 1.0, 30.0, 2e3, 1e6])
def test_large_counts_keep_their_digits_in_float32(y, r):
    """At 1e5, terms of a million nearly cancel: the log probability was off by a tenth."""
    means = torch.tensor([0.2, 0.9, 1.0, 1.1, 3.0]) * max(y, 1.0)
    log_mean = means.log().requires_grad_()
    exact = log_mean.detach().double().exp().numpy()
    found = Poisson(log_mean).log_prob(torch.full((5,), y))
    np.testing.assert_allclose(found.detach(), stats.poisson.logpmf(y, exact), rtol=3e-5, atol=3e-5)
    (slope,) = torch.autograd.grad(found.sum(), log_mean)
    np.testing.assert_allclose(slope, y - exact, rtol=1e-4, atol=2e-6 * max(y, 1.0))
    log_r = torch.tensor(r).log().requires_grad_()
    found = NegativeBinomial(log_mean, log_r).log_prob(torch.full((5,), y))
    size = float(log_r.detach().double().exp())
    wide = NegativeBinomial(log_mean.detach().double(), log_r.detach().double()).log_prob(torch.full((5,), y).double())
    np.testing.assert_allclose(wide, stats.nbinom.logpmf(y, size, size / (size + exact)), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(found.detach(), wide, rtol=1e-4, atol=2e-6 * min(size, y) + 3e-5)
    for of in (log_mean, log_r):
        assert torch.autograd.grad(found.sum(), of, retain_graph=True)[0].isfinite().all()
