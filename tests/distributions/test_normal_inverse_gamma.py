import math

import numpy as np
import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import Trace_ELBO
from scipy import integrate, stats

from bmtl.distributions import NormalInverseGamma

CASES = [(0.0, 1.0, 2.0, 1.0), (-1.5, 0.05, 1.2, 0.3), (3.0, 20.0, 50.0, 7.0), (0.2, 2.0, 1e4, 2e4)]


def nig(gamma, nu, alpha, beta, dtype=torch.float64, requires_grad=False):
    values = [torch.tensor(v, dtype=dtype, requires_grad=requires_grad) for v in (gamma, nu, alpha, beta)]
    return NormalInverseGamma(*values)


def scipys(gamma, nu, alpha, beta):
    return stats.t(2 * alpha, loc=gamma, scale=math.sqrt(beta * (1 + nu) / (alpha * nu)))


def tensor(value):
    return torch.as_tensor(value, dtype=torch.float64)


# ---- The marginal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_it_is_scipys_student_t(case):
    p, exact = nig(*case), scipys(*case)
    y = tensor(case[0]) + p.scale * torch.linspace(-8, 8, 33, dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(y), tensor(exact.logpdf(y)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.cdf(y), tensor(exact.cdf(y)), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(p.log_cdf(y), tensor(exact.logcdf(y)), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(p.log_survival(y), tensor(exact.logsf(y)), rtol=1e-8, atol=1e-10)
    u = torch.linspace(0.001, 0.999, 41, dtype=torch.float64)
    torch.testing.assert_close(p.icdf(u), tensor(exact.ppf(u)), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(p.cdf(p.icdf(u)), u, rtol=1e-11, atol=0)
    torch.testing.assert_close(p.mean, tensor(exact.mean()))
    torch.testing.assert_close(p.variance, tensor(exact.var()))
    torch.testing.assert_close(p.entropy(), tensor(exact.entropy()))
    assert (p.loc.item(), p.df.item(), p.scale.item()) == pytest.approx((case[0], 2 * case[2], exact.kwds["scale"]))


@pytest.mark.parametrize("case", CASES)
def test_the_marginal_is_the_hierarchical_program_integrated(case):
    """Quadrature over s2 of InverseGamma(s2) Normal(y; gamma, s2 (1 + 1/nu)): mu integrates in closed form."""
    gamma, nu, alpha, beta = case
    p, latent = nig(*case), stats.invgamma(alpha, scale=beta)
    for z in (-6.0, -1.0, 0.0, 2.5):
        y = gamma + z * p.scale.item()
        ends = latent.ppf([1e-14, 1 - 1e-14])

        def integrand(t, y=y):  # over t = log s2
            s2 = math.exp(t)
            return latent.pdf(s2) * stats.norm(gamma, math.sqrt(s2 * (1 + 1 / nu))).pdf(y) * s2

        exact, _ = integrate.quad(integrand, *np.log(ends), epsabs=0, epsrel=1e-10, limit=200)
        assert p.log_prob(tensor(y)).item() == pytest.approx(math.log(exact), abs=1e-6)


@pytest.mark.parametrize("case", CASES[:3])
def test_moments_of_the_latents(case):
    """Aleatoric is E[s2], epistemic is Var[mu] = E[s2] / nu."""
    _, nu, alpha, beta = case
    p = nig(*case)
    assert p.aleatoric.item() == pytest.approx(stats.invgamma(alpha, scale=beta).mean())
    assert p.epistemic.item() == pytest.approx(p.aleatoric.item() / nu)
    assert p.variance.item() == pytest.approx(p.aleatoric.item() + p.epistemic.item())


@pytest.mark.parametrize("case", CASES)
def test_the_crps_is_its_integral(case):
    p, exact = nig(*case), scipys(*case)
    for z in (-4.0, 0.0, 0.3, 9.0):
        y = case[0] + z * p.scale.item()
        parts = [
            integrate.quad(f, *ends, epsabs=1e-11, epsrel=1e-10, limit=400)[0]
            for f, ends in (
                (lambda t: exact.cdf(t) ** 2, (-np.inf, y)),
                (lambda t: exact.sf(t) ** 2, (y, np.inf)),
            )
        ]
        assert p.crps(tensor(y)).item() == pytest.approx(sum(parts), rel=1e-6)


# ---- Draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_draws_follow_the_cdf(case):
    torch.manual_seed(0)
    drawn = nig(*case).sample((4000,))
    assert stats.kstest(drawn.numpy(), scipys(*case).cdf).pvalue > 1e-3


def test_the_programs_draws_follow_the_marginal():
    torch.manual_seed(0)
    p = nig(*CASES[1]).expand([4000])
    with pyro.plate("rows", 4000):
        trace = poutine.trace(p.joint).get_trace("y")
    assert trace.stochastic_nodes == ["y_s2", "y_mu", "y"]
    drawn = {name: trace.nodes[name]["value"].numpy() for name in ("y_s2", "y")}
    _, _, alpha, beta = CASES[1]
    assert stats.kstest(drawn["y_s2"], stats.invgamma(alpha, scale=beta).cdf).pvalue > 1e-3
    assert stats.kstest(drawn["y"], scipys(*CASES[1]).cdf).pvalue > 1e-3


def test_draws_are_reparameterised():
    """The gradient of a mean of draws is that of the expectation: of the mean in gamma, of |y - gamma| in the scale."""
    torch.manual_seed(0)
    p = nig(0.5, 1.5, 4.0, 2.0, requires_grad=True)
    y = p.rsample((200_000,))
    (slope,) = torch.autograd.grad(y.mean(), p.gamma, retain_graph=True)
    assert slope.item() == pytest.approx(1.0)
    found = torch.autograd.grad((y - 0.5).square().mean(), (p.nu, p.alpha, p.beta))
    expected = torch.autograd.grad(p.variance, (p.nu, p.alpha, p.beta))
    for one, other in zip(found, expected, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=0.1)


# ---- The exact guide -------------------------------------------------------------------------------------------------


def test_one_sample_of_the_exact_guide_is_the_marginal_likelihood():
    """Value and gradients: log p(y, latents) - log q(latents) is log p(y) for every draw, where q is the posterior."""
    torch.manual_seed(0)
    raw = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(6, dtype=torch.float64)

    def model():
        with pyro.plate("rows", 6):
            NormalInverseGamma.from_raw(raw).joint("y", y)

    def guide():
        with pyro.plate("rows", 6):
            NormalInverseGamma.from_raw(raw).posterior(y).latents("y")

    loss = Trace_ELBO().differentiable_loss(model, guide)
    exact = -NormalInverseGamma.from_raw(raw).log_prob(y).sum()
    torch.testing.assert_close(loss, exact, rtol=1e-11, atol=1e-11)
    (found,), (expected,) = torch.autograd.grad(loss, raw), torch.autograd.grad(exact, raw)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


# ---- The paper's theorems --------------------------------------------------------------------------------------------

positive = st.floats(-2, 2).map(lambda v: 10**v)
cases = st.tuples(st.floats(-3, 3), positive, positive.map(lambda v: 1 + v), positive)
errors = st.floats(-3, 3).map(lambda v: 10**v)


def slopes(case, y):
    """d NLL / d (gamma, nu, alpha, beta)."""
    p = nig(*case, requires_grad=True)
    return p, torch.autograd.grad(-p.log_prob(tensor(y)), (p.gamma, p.nu, p.alpha, p.beta))


@settings(deadline=None, max_examples=60)
@given(cases, errors, st.sampled_from([-1, 1]))
def test_the_likelihoods_slope_in_the_prediction_has_the_sign_of_the_squared_errors(case, error, sign):
    """Proposition 1 for one row, with its closed form -(2 alpha + 1) e / (w + e^2)."""
    _, nu, alpha, beta = case
    _, (slope, *_) = slopes(case, case[0] + sign * error)
    e = case[0] + sign * error - case[0]  # as rounded
    assert slope.item() * -2 * e > 0
    w = 2 * beta * (1 + nu) / nu
    assert slope.item() == pytest.approx(-(2 * alpha + 1) * e / (w + e**2), rel=1e-9)
    assert abs(slope.item()) <= (alpha + 0.5) / math.sqrt(w) * (1 + 1e-9)


@settings(deadline=None, max_examples=60)
@given(cases, st.floats(0.01, 100.0))
def test_evidence_falls_just_where_the_squared_error_is_above_its_threshold(case, ratio):
    """Proposition 2, as an equivalence; beta has nu's threshold and the opposite sign."""
    p = nig(*case)
    for name, threshold in (("nu", p.u_nu), ("alpha", p.u_alpha), ("beta", p.u_nu)):
        error = math.sqrt(ratio * threshold.item())
        e2 = (case[0] + error - case[0]) ** 2 / threshold.item()  # as rounded
        if abs(e2 - 1) < 1e-6:
            continue
        _, (_, *rest) = slopes(case, case[0] + error)
        slope = dict(zip(("nu", "alpha", "beta"), rest, strict=True))[name].item()
        assert (slope > 0) == ((e2 > 1) != (name == "beta"))


@settings(deadline=None)
@given(cases)
def test_the_smaller_threshold_is_always_that_of_nu(case):
    p = nig(*case)
    assert p.u_nu < p.u_alpha
    assert p.u_nu.item() == pytest.approx(p.scale.item() ** 2)


def test_the_thresholds_ratio():
    assert [
        (p.u_alpha / p.u_nu).item() for p in (nig(0.0, 1.0, a, 1.0) for a in (1 + 1e-9, 2.0, 50.0))
    ] == pytest.approx([1.69, 1.29, 1.01], abs=5e-3)


@settings(deadline=None)
@given(cases, errors)
def test_the_slope_in_the_prediction_vanishes_with_nu(case, error):
    """Theorem 1, with a rate: |slope| <= (2 alpha + 1) |e| nu / (2 beta)."""
    gamma, _, alpha, beta = case
    for nu in (1e-2, 1e-5, 1e-8, 1e-11):
        _, (slope, *_) = slopes((gamma, nu, alpha, beta), gamma + error)
        assert abs(slope.item()) <= (2 * alpha + 1) * error * nu / (2 * beta) * (1 + 1e-6) + 1e-300


def test_along_the_ridge_nothing_changes_but_the_split():
    gamma, nu, alpha, beta = CASES[1]
    y = torch.linspace(-4, 4, 9, dtype=torch.float64)
    p = nig(gamma, nu, alpha, beta)
    for other in (0.01, 1.0, 300.0):
        moved = nig(gamma, other, alpha, beta * (1 + nu) / nu * other / (1 + other))
        torch.testing.assert_close(moved.log_prob(y), p.log_prob(y))
        torch.testing.assert_close(moved.variance, p.variance)
        assert (moved.epistemic / moved.aleatoric).item() == pytest.approx(1 / other)


# ---- Heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("min_scale", [0.0, 1e-3])
def test_any_head_has_a_finite_loss_and_gradient(dtype, min_scale):
    """Raw outputs from -1e4 to 1e4 in every combination, labels likewise; moments too."""
    ends = torch.tensor([-1e4, -110.0, -17.0, 0.0, 17.0, 110.0, 1e4], dtype=dtype)
    raw = torch.cartesian_prod(ends, ends, ends, ends).requires_grad_()
    p = NormalInverseGamma.from_raw(raw, min_scale)
    for moment in (p.aleatoric, p.epistemic, p.scale, p.entropy(), p.u_alpha):
        assert moment.isfinite().all()
        assert not moment.isnan().any()
    assert (p.alpha > 1).all()
    assert (p.scale >= min_scale * (1 - 1e-6)).all()
    for y in (-1e4, 0.0, 0.3, 1e4):
        value = torch.tensor(y, dtype=dtype)
        for loss in (p.log_prob(value), p.log_cdf(value), p.log_survival(value)):
            assert loss.isfinite().all()
            (slope,) = torch.autograd.grad(loss.sum(), raw, retain_graph=True)
            assert slope.isfinite().all()


def test_a_head_keeps_the_digits_of_alpha_minus_1():
    raw = torch.tensor([0.0, 1.0, -12.0, 1.0])
    p = NormalInverseGamma.from_raw(raw)
    exact = math.log1p(math.exp(-12)) + 1e-6
    assert p.excess.item() == pytest.approx(exact, rel=1e-5)
    assert p.aleatoric.item() == pytest.approx((math.log1p(math.e) + 1e-6) / exact, rel=1e-5)
    assert p.expand([3]).aleatoric.tolist() == [p.aleatoric.item()] * 3


def test_raw_outputs_map_in_order():
    raw = torch.tensor([[-3.0, 0.5, 2.0, -1.0]], dtype=torch.float64)
    p = NormalInverseGamma.from_raw(raw)
    softplus = torch.nn.functional.softplus(raw[0]) + 1e-6
    found = [p.gamma.item(), p.nu.item(), p.alpha.item(), p.beta.item()]
    assert found == pytest.approx([-3.0, softplus[1].item(), 1 + softplus[2].item(), softplus[3].item()])


# ---- Shapes and limits -----------------------------------------------------------------------------------------------


def test_shapes():
    p = NormalInverseGamma(torch.zeros(3, 1), torch.ones(4), 2.0, 1.0)
    assert (p.batch_shape, p.event_shape, p.has_rsample) == ((3, 4), (), True)
    wide = p.expand([2, 3, 4])
    assert isinstance(wide, NormalInverseGamma)
    for q, shape in ((p, (3, 4)), (wide, (2, 3, 4)), (p.expand_by([5]), (5, 3, 4))):
        y = q.rsample()
        assert y.shape == shape
        assert q.rsample((6,)).shape == (6, *shape)
        for found in (q.log_prob(y), q.cdf(y), q.icdf(torch.full(shape, 0.2)), q.crps(y), q.mean, q.variance):
            assert found.shape == shape
        for found in (q.entropy(), q.loc, q.scale, q.df, q.aleatoric, q.epistemic, q.posterior(y).mean):
            assert found.shape == shape
    assert p.to_event(1).log_prob(p.sample()).shape == (3,)
    assert p.mask(torch.tensor([True, False, False, True])).log_prob(p.sample())[:, 1:3].abs().sum() == 0


def test_it_stays_on_its_device():
    """On a device that is not the host's nothing is mixed in from the host; "meta" stands for any."""
    raw = torch.zeros(5, 4, device="meta", requires_grad=True)
    y = torch.zeros(5, device="meta")
    one = raw[:, 0]
    p = NormalInverseGamma(one, one, one, one, validate_args=False)
    found = (p.log_prob(y), p.log_cdf(y), p.cdf(y), p.icdf(y), p.crps(y), p.entropy(), p.u_alpha, p.variance)
    for value in found:
        assert (value.shape, value.device.type, value.dtype) == ((5,), "meta", torch.float32)
        assert torch.autograd.grad(value.sum(), raw, retain_graph=True)[0].device.type == "meta"


@pytest.mark.parametrize(
    "case", [(0.0, 0.0, 2.0, 1.0), (0.0, 1.0, 1.0, 1.0), (0.0, 1.0, 2.0, 0.0), (math.nan, 1.0, 2.0, 1.0)]
)
def test_parameters_outside_their_range_are_refused(case):
    with pytest.raises(ValueError, match="to satisfy the constraint"):
        NormalInverseGamma(*map(torch.tensor, case), validate_args=True)


def test_what_is_no_head_is_refused():
    for raw in (torch.zeros(4, 3), torch.tensor(0.0)):
        with pytest.raises(ValueError, match=r"raw is \(..., 4\)"):
            NormalInverseGamma.from_raw(raw)
    with pytest.raises(ValueError, match=r"evidence is \(..., 3\)"):
        NormalInverseGamma.from_outputs(torch.zeros(4), torch.zeros(4))
    for scale in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="min_scale is a scale"):
            NormalInverseGamma.from_raw(torch.zeros(4), scale)


def test_many_degrees_of_freedom_are_a_normal():
    p = nig(0.3, 2.0, 1e7, 4e7)
    normal = stats.norm(0.3, math.sqrt(6.0))
    y = torch.linspace(-8, 8, 17, dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(y), tensor(normal.logpdf(y)), rtol=0, atol=1e-5)
    torch.testing.assert_close(p.cdf(y), tensor(normal.cdf(y)), rtol=0, atol=1e-7)
    assert p.entropy().item() == pytest.approx(normal.entropy(), abs=1e-6)
