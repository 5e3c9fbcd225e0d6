import math

import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats

import bmtl
from bmtl.distributions import LogNormal, Weibull

INF = math.inf
LAWS = {
    "weibull": (lambda a, b: Weibull(a, b), lambda a, b: stats.weibull_min(math.exp(b), scale=math.exp(a))),
    "log-normal": (lambda a, b: LogNormal(a, b.exp()), lambda a, b: stats.lognorm(math.exp(b), scale=math.exp(a))),
}
PARAMETERS = [(0.0, 0.0), (2.0, 0.7), (-3.0, -0.9), (9.0, 1.5)]


def values(a, b, dtype=torch.float64):
    return [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (a, b)]


def log_probability(law, lower, upper):
    """On the side of the median where the interval lies."""
    if math.isinf(upper):
        return law.logsf(lower)
    if lower > law.median():
        return law.logsf(lower) + math.log(-math.expm1(law.logsf(upper) - law.logsf(lower)))
    return math.log(law.cdf(upper) - law.cdf(lower))


def labels(law):
    """Observed, right-, left- and interval-censored times around the law's own quantiles."""
    q = law.ppf([1e-4, 0.1, 0.5, 0.8, 0.999])
    exact = [(t, t) for t in q]
    return [
        *exact,
        *((t, INF) for t in q),
        *((0.0, t) for t in q),
        (q[0], q[1]),
        (q[1], q[3]),
        (q[3], q[4]),
        (q[2], q[2] * 1.001),
    ]


@pytest.mark.parametrize("case", PARAMETERS)
@pytest.mark.parametrize("name", LAWS)
class TestAgainstScipy:
    def test_densities_and_probabilities(self, name, case):
        make, law = LAWS[name][0], LAWS[name][1](*case)
        ends = labels(law)
        p = make(*values(*case)).expand([len(ends)])
        found = p.log_prob(torch.tensor(ends, dtype=torch.float64))
        for value, (lower, upper) in zip(found.tolist(), ends, strict=True):
            expected = law.logpdf(lower) if lower == upper else log_probability(law, lower, upper)
            assert value == pytest.approx(expected, rel=1e-8, abs=1e-9), (lower, upper)

    def test_gradients(self, name, case):
        make, law = LAWS[name][0], LAWS[name][1](*case)
        ends = torch.tensor(labels(law), dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda a, b: make(a, b).expand([len(ends)]).log_prob(ends), values(*case))

    def test_moments_quantiles_and_draws(self, name, case):
        make, law = LAWS[name][0], LAWS[name][1](*case)
        p = make(*values(*case))
        assert p.mean.item() == pytest.approx(law.mean(), rel=1e-8)
        assert p.variance.item() == pytest.approx(law.var(), rel=1e-6)
        u = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
        torch.testing.assert_close(p.icdf(u).detach(), torch.tensor(law.ppf(u)), rtol=1e-8, atol=0)
        torch.testing.assert_close(p.cdf(p.icdf(u)).detach(), u, rtol=1e-8, atol=1e-10)
        torch.manual_seed(0)
        assert stats.kstest(p.sample((4000,)).numpy(), law.cdf).pvalue > 1e-3
        assert torch.autograd.grad(p.rsample((3,)).sum(), p.log_scale if name == "weibull" else p.loc)[0].isfinite()


@pytest.mark.parametrize("name", LAWS)
def test_its_law_is_named(name):
    found, parameters = LAWS[name][0](*values(2.0, 0.7)).law()
    assert found == name
    names = ("scale", "concentration") if name == "weibull" else ("loc", "scale")
    assert tuple(parameters) == names
    first = math.exp(2.0) if name == "weibull" else 2.0
    assert [v.item() for v in parameters.values()] == pytest.approx([first, math.exp(0.7)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAWS)
def test_hours_and_centuries_have_finite_losses_and_gradients(name, dtype):
    make = LAWS[name][0]
    ends = torch.tensor(
        [[1e-12, 1e-12], [0.0, 1e-9], [1e12, INF], [3e9, 3e9], [1e-9, 1e9], [2.0, 2.0000002]], dtype=dtype
    )
    for a in (-20.0, 0.0, 20.0):
        parameters = values(a, -1.0, dtype)
        p = make(*parameters).expand([len(ends)])
        found = p.log_prob(ends)
        assert found.isfinite().all(), a
        assert all(slope.isfinite() for slope in torch.autograd.grad(found.sum(), parameters))


@pytest.mark.parametrize("name", LAWS)
def test_missing_times_add_nothing(name):
    y = torch.tensor([[2.0, 2.0], [math.nan, math.nan], [1.0, INF]], dtype=torch.float64)
    parameters = values(0.3, 0.2)

    def program(rows):
        with pyro.plate("rows", len(rows)):
            bmtl.observe("y", LAWS[name][0](*parameters).expand([len(rows)]), y[rows])

    totals = [poutine.trace(program).get_trace(rows).log_prob_sum() for rows in ([0, 1, 2], [0, 2])]
    torch.testing.assert_close(*totals)
    torch.testing.assert_close(*(torch.autograd.grad(total, parameters) for total in totals))
