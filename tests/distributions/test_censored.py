import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import integrate, special, stats

import bmtl
from bmtl.distributions import Censored, NormalInverseGamma, StudentT, tails

BASES = [(0.3, 0.5, 1.3, 0.4), (-1.0, 3.0, 4.0, 2.0), (0.5, 1.0, 3e3, 2e3)]
BOUNDS = [(0.0, math.inf), (-math.inf, 0.4), (-1.5, 0.9)]


def make(base, bounds):
    gamma, nu, alpha, beta = base
    p = NormalInverseGamma(*(torch.tensor(v, dtype=torch.float64) for v in base))
    scale = math.sqrt(beta * (1 + nu) / (alpha * nu))
    return Censored(p, *bounds), stats.t(2 * alpha, loc=gamma, scale=scale)


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
            p = Censored(NormalInverseGamma.from_raw(raw), *bounds)
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
    p = Censored(base, lower=torch.zeros(4))
    assert p.batch_shape == (3, 4)
    for q, shape in ((p, (3, 4)), (p.expand([2, 3, 4]), (2, 3, 4))):
        y = q.rsample((5,))
        assert y.shape == (5, *shape)
        for found in (q.log_prob(y), q.cdf(y), q.residual(y)):
            assert found.shape == (5, *shape)
        assert q.mean.shape == shape


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)])
def test_bounds_out_of_order_are_refused(bounds):
    with pytest.raises(ValueError, match="A lower bound is below the upper one"):
        make(BASES[0], bounds)


# ---- Labels that are intervals ---------------------------------------------------------------------------------------

LOC, SCALE = 0.4, 0.7
FAMILIES = {
    "normal": (lambda loc, scale: dist.Normal(loc, scale), stats.norm(LOC, SCALE)),
    "laplace": (lambda loc, scale: dist.Laplace(loc, scale), stats.laplace(LOC, SCALE)),
    "student-t": (lambda loc, scale: StudentT(3.0, loc, scale), stats.t(3, LOC, SCALE)),
    "evidential": (
        lambda loc, scale: NormalInverseGamma(loc, 2.0, 2.5, scale.square() * 2.5 * 2 / 3),
        stats.t(5, LOC, SCALE),
    ),
}
ENDS = [-40.0, -8.0, -1.5, 0.1, 0.4, 0.40001, 0.9, 1.4, 3.0, 9.0, 60.0]
INTERVALS = [
    *((-math.inf, end) for end in ENDS),
    *((end, math.inf) for end in ENDS),
    *((a, b) for a in ENDS for b in ENDS if a < b),
]


def parameters(dtype=torch.float64):
    return torch.tensor(LOC, dtype=dtype, requires_grad=True), torch.tensor(SCALE, dtype=dtype, requires_grad=True)


def exact_log_probability(law, lower, upper):
    """By scipy on the side where the interval lies; by quadrature where that cancels."""
    middle = min(max(lower, LOC), upper)
    if math.isinf(lower):
        return law.logcdf(upper)
    if math.isinf(upper):
        return law.logsf(lower)
    found, _ = integrate.quad(lambda y: np.exp(law.logpdf(y) - law.logpdf(middle)), lower, upper, points=[middle])
    return math.log(found) + law.logpdf(middle)


@pytest.mark.parametrize("family", FAMILIES)
class TestIntervals:
    def test_each_has_its_probability(self, family):
        make_base, law = FAMILIES[family]
        p = Censored(make_base(*parameters()).expand([len(INTERVALS)]))
        found = p.log_prob(torch.tensor(INTERVALS, dtype=torch.float64))
        for value, ends in zip(found.tolist(), INTERVALS, strict=True):
            assert value == pytest.approx(exact_log_probability(law, *ends), rel=1e-8, abs=1e-9), ends

    def test_equal_ends_have_their_density(self, family):
        make_base, law = FAMILIES[family]
        y = torch.tensor(ENDS, dtype=torch.float64)
        p = Censored(make_base(*parameters()).expand([len(y)]))
        torch.testing.assert_close(p.log_prob(torch.stack([y, y], -1)), torch.tensor(law.logpdf(y)))
        torch.testing.assert_close(p.log_prob(y), torch.tensor(law.logpdf(y)))

    def test_gradients_are_those_of_finite_differences(self, family):
        make_base, _ = FAMILIES[family]
        values = parameters()
        smooth = [ends for ends in INTERVALS if family != "laplace" or LOC not in ends]
        assert torch.autograd.gradcheck(
            lambda loc, scale: Censored(make_base(loc, scale).expand([len(smooth)])).log_prob(
                torch.tensor(smooth, dtype=torch.float64)
            ),
            values,
            rtol=1e-5,
            atol=1e-7,
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_far_and_narrow_intervals_have_finite_values_and_gradients(self, family, dtype):
        make_base, law = FAMILIES[family]
        ends = [(5e3, 5e3 + 1), (-2e3, -1e3), (1e3, math.inf), (0.4, 0.4 + 1e-5), (30.0, 30.001), (0.3, 0.3)]
        values = parameters(dtype)
        found = Censored(make_base(*values).expand([len(ends)])).log_prob(torch.tensor(ends, dtype=dtype))
        slopes = torch.autograd.grad(found.sum(), values)
        assert found.isfinite().all()
        assert all(slope.isfinite() for slope in slopes)
        narrow = law.logpdf(0.400005) + math.log(float(np.float32(0.40001)) - float(np.float32(0.4)))
        assert found[3].item() == pytest.approx(narrow, abs=0.02 if dtype is torch.float32 else 1e-2)

    def test_missing_labels_add_nothing_through_observe(self, family):
        make_base, _ = FAMILIES[family]
        y = torch.tensor([[0.2, 0.2], [math.nan, math.nan], [1.0, math.inf]], dtype=torch.float64)
        values = parameters()

        def program(rows):
            with pyro.plate("rows", len(rows)):
                bmtl.observe("y", Censored(make_base(*values).expand([len(rows)])), y[rows])

        totals = [poutine.trace(program).get_trace(rows).log_prob_sum() for rows in ([0, 1, 2], [0, 2])]
        slopes = [torch.autograd.grad(total, values) for total in totals]
        torch.testing.assert_close(*totals)
        torch.testing.assert_close(*slopes)


def test_intervals_and_exact_values_are_told_apart_under_particles():
    """Particles stand left of the rows; draws of two rows are no interval."""
    for rows, particles in ((2, 5), (3, 2), (2, 1), (1, 4)):
        p = Censored(dist.Normal(torch.zeros(particles, rows), 1.0))
        intervals = torch.tensor([[0.3, 0.3]]).expand(rows, 2)
        torch.testing.assert_close(p.log_prob(intervals), p.log_prob(torch.full((particles, rows), 0.3)))
        one = Censored(dist.Normal(torch.zeros(rows), 1.0))
        assert one.log_prob(one.sample()).shape == (rows,)


def test_intervals_at_bounds_reach_beyond_them():
    p = Censored(dist.Normal(torch.zeros(4, dtype=torch.float64), 1.0), -1.0, 2.0, intervals=True)
    found = p.log_prob(torch.tensor([[-3.0, 0.5], [0.5, 9.0], [-1.0, -1.0], [0.5, 0.5]], dtype=torch.float64))
    expected = [stats.norm.logcdf(0.5), stats.norm.logsf(0.5), stats.norm.logcdf(-1.0), stats.norm.logpdf(0.5)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert p.law() is None


def test_the_law_is_that_of_the_label_itself():
    loc, scale = parameters()
    for base, name in ((dist.Normal(loc, scale), "student-t"), (dist.Laplace(loc, scale), "laplace")):
        law, values = Censored(base).law()
        assert law == name
        assert values["loc"].item() == base.loc.item()
    assert Censored(StudentT(3.0, loc, scale)).law()[1]["df"].item() == 3.0
    assert Censored(dist.Normal(loc, scale)).law()[1]["df"].item() == math.inf


def test_residuals_of_intervals_are_distances_to_them():
    p = Censored(dist.Normal(torch.zeros(4), 1.0))
    ends = torch.tensor([[1.0, 2.0], [-3.0, -2.0], [-1.0, 1.0], [0.5, 0.5]])
    assert p.residual(ends).tolist() == [1.0, -2.0, 0.0, 0.5]


def test_a_base_without_known_tails_is_refused():
    with pytest.raises(TypeError, match="The tails of Cauchy are not known"):
        Censored(dist.Cauchy(torch.zeros(2), 1.0)).log_prob(torch.tensor([[0.0, 1.0]] * 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_a_normal_tail_hold_far_out(dtype):
    """Torch's own is 955 for 1000 at -1000 in float32, and 0.4 for 1e5 at -1e5."""
    z = torch.tensor([-1e8, -1e5, -1e4, -1e3, -30.0, -3.0, -1e-3, 0.0, 2.0, 9.0], dtype=dtype, requires_grad=True)
    found = tails.log_cdf(dist.Normal(torch.zeros_like(z), 1.0), z)
    at = z.detach().double().numpy()
    np.testing.assert_allclose(found.detach(), special.log_ndtr(at), rtol=5e-6)
    (slope,) = torch.autograd.grad(found.sum(), z)
    exact = np.where(at < 5, math.sqrt(2 / math.pi) / special.erfcx(-at / math.sqrt(2)), stats.norm.pdf(at))
    np.testing.assert_allclose(slope, exact, rtol=5e-6)
    loc = torch.zeros(1, dtype=dtype, requires_grad=True)
    far = Censored(dist.Normal(loc, 1e-3)).log_prob(torch.tensor([[-1e5, -1e4]], dtype=dtype))
    assert torch.autograd.grad(far.sum(), loc)[0].isfinite()
