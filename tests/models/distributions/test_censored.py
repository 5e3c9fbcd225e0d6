import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from bmtl.models import CensoredNormalInverseGamma, NormalInverseGamma

BASES = [(0.3, 0.5, 1.3, 0.4), (-1.0, 3.0, 4.0, 2.0), (0.5, 1.0, 3e3, 2e3)]
BOUNDS = [(0.0, math.inf), (-math.inf, 0.4), (-1.5, 0.9)]


def make(base, bounds):
    gamma, nu, alpha, beta = base
    p = NormalInverseGamma(*(torch.tensor(v, dtype=torch.float64) for v in base))
    scale = math.sqrt(beta * (1 + nu) / (alpha * nu))
    return CensoredNormalInverseGamma(p, *bounds), stats.t(2 * alpha, loc=gamma, scale=scale)


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("base", BASES)
class TestAgainstScipy:
    def test_labels_at_a_bound_have_its_probability_and_others_their_density(self, base, bounds):
        p, exact = make(base, bounds)
        y = torch.linspace(-4, 4, 41, dtype=torch.float64)
        expected = exact.logpdf(y)
        expected = np.where(y <= bounds[0], exact.logcdf(bounds[0]), expected)
        expected = np.where(y >= bounds[1], exact.logsf(bounds[1]), expected)
        torch.testing.assert_close(p.log_prob(y), torch.tensor(expected), rtol=1e-8, atol=1e-9)

    def test_mass_and_density_sum_to_1(self, base, bounds):
        p, exact = make(base, bounds)
        ends = [exact.ppf(1e-13) if math.isinf(bounds[0]) else bounds[0], bounds[1]]
        ends[1] = exact.isf(1e-13) if math.isinf(bounds[1]) else bounds[1]

        def density(y):
            return p.log_prob(torch.tensor(y, dtype=torch.float64)).exp().item()

        total, _ = integrate.quad(density, *ends, epsrel=1e-9, limit=400, points=[base[0]])
        total += sum(density(b) for b in bounds if math.isfinite(b))
        assert total == pytest.approx(1.0, abs=1e-6)

    def test_the_mean_is_that_of_the_clipped_label(self, base, bounds):
        p, exact = make(base, bounds)
        centre = next(b for b in bounds if math.isfinite(b))
        below, _ = integrate.quad(exact.cdf, bounds[0], centre, epsabs=1e-11, limit=400)
        above, _ = integrate.quad(exact.sf, centre, bounds[1], epsabs=1e-11, limit=400)
        assert p.mean.item() == pytest.approx(centre - below + above, abs=1e-7)

    def test_cdf_quantiles_and_draws(self, base, bounds):
        p, exact = make(base, bounds)
        y = torch.linspace(-4, 4, 41, dtype=torch.float64)
        cdf = np.where(y >= bounds[1], 1.0, np.where(y < bounds[0], 0.0, exact.cdf(y)))
        torch.testing.assert_close(p.cdf(y), torch.tensor(cdf), rtol=0, atol=1e-10)
        u = torch.linspace(0.01, 0.99, 23, dtype=torch.float64)
        torch.testing.assert_close(p.icdf(u), torch.tensor(exact.ppf(u)).clip(*bounds), rtol=1e-7, atol=1e-7)
        torch.manual_seed(0)
        drawn = p.sample((4000,))
        assert drawn.min() >= bounds[0]
        assert drawn.max() <= bounds[1]
        for bound, mass in ((bounds[0], exact.cdf(bounds[0])), (bounds[1], exact.sf(bounds[1]))):
            share = (drawn == bound).double().mean().item()
            assert abs(share - mass) < 4 * math.sqrt(mass * (1 - mass) / 4000) + 1e-12


def test_extreme_heads_have_a_finite_loss_mean_and_gradient():
    for dtype in (torch.float32, torch.float64):
        ends = torch.tensor([-1e4, -110.0, -1.0, 0.0, 17.0, 1e4], dtype=dtype)
        raw = torch.cartesian_prod(ends, ends, ends, ends).requires_grad_()
        for bounds in ((5.0, math.inf), (-math.inf, 5.0), (-5.0, 5.0)):
            p = CensoredNormalInverseGamma(NormalInverseGamma.from_raw(raw), *bounds)
            for y in (-5.0, 0.0, 5.0, 7.0):
                for value in (p.log_prob(torch.tensor(y, dtype=dtype)), p.mean):
                    assert value.isfinite().all()
                    (slope,) = torch.autograd.grad(value.sum(), raw, retain_graph=True)
                    assert slope.isfinite().all()


def test_a_bound_far_away_changes_nothing():
    _, exact = make(BASES[1], (-1e6, 1e6))
    p, _ = make(BASES[1], (-1e6, 1e6))
    y = torch.linspace(-4, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(y), torch.tensor(exact.logpdf(y)))
    assert p.mean.item() == pytest.approx(exact.mean(), abs=1e-9)
    assert (p.aleatoric + p.epistemic).item() == pytest.approx(exact.var())


def test_shapes():
    base = NormalInverseGamma(torch.zeros(3, 1), 1.0, 2.0, 1.0)
    p = CensoredNormalInverseGamma(base, lower=torch.zeros(4))
    assert p.batch_shape == (3, 4)
    for q, shape in ((p, (3, 4)), (p.expand([2, 3, 4]), (2, 3, 4))):
        y = q.rsample((5,))
        assert y.shape == (5, *shape)
        for found in (q.log_prob(y), q.cdf(y), q.residual(y)):
            assert found.shape == (5, *shape)
        assert q.mean.shape == shape


@pytest.mark.parametrize("bounds", [(-math.inf, math.inf), (1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match="Give lower, upper or both, lower below upper"):
        make(BASES[0], bounds)
