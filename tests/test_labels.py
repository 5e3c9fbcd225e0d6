"""Labels under any distribution: replaced where they are missing, and what a distribution says of its own labels."""

import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.distributions import constraints
from torch.testing import assert_close

import bmtl
from bmtl.labels import read_labels

NAN, INF = math.nan, math.inf
ROWS = 4
REAL = torch.linspace(-1.0, 1.0, ROWS)


def normals(loc, dim=0):
    return dist.Normal(loc, 1.0).to_event(dim)


def mixture(components):
    batch = components.batch_shape
    return dist.MixtureSameFamily(dist.Categorical(logits=torch.arange(float(batch[-1])).expand(batch)), components)


# Distributions of four rows from a free parameter (4,), whose support no transform leads to, or another than it says.
SUPPORTS = {
    "mixture of normals": lambda a: mixture(dist.Normal(torch.stack([a, a + 1, -a], -1), 1.0)),
    "mixture of positives": lambda a: mixture(dist.LogNormal(torch.stack([a, a + 1], -1), 1.0)),
    "mixture of intervals": lambda a: mixture(dist.Uniform(torch.stack([a - 9, a, -a], -1), 5.0)),
    "mixture of counts": lambda a: mixture(dist.Poisson(torch.stack([a.exp(), a.exp() + 3], -1))),
    "mixture of vectors": lambda a: mixture(normals(torch.stack([a, -a], -1)[..., None].expand(ROWS, 2, 3), 1)),
    "mixture of simplices": lambda a: mixture(dist.Dirichlet(a.exp()[:, None, None].expand(ROWS, 2, 3))),
    "mixture of either kind": lambda a: dist.MaskedMixture(a > 0, dist.LogNormal(a, 1.0), dist.HalfNormal(a.exp())),
    "sum of normals": lambda a: dist.TransformedDistribution(
        normals(a), [dist.transforms.AffineTransform(1.0, 2.0), dist.transforms.ExpTransform()]
    ),
    "shifted gamma": lambda a: dist.TransformedDistribution(
        dist.Gamma(a.exp(), 1.0), [dist.transforms.AffineTransform(1.0, 2.0)]
    ),
    "negative gamma": lambda a: dist.TransformedDistribution(
        dist.Gamma(a.exp(), 1.0), [dist.transforms.AffineTransform(0.0, -1.0)]
    ),
    "relaxed classes": lambda a: dist.RelaxedOneHotCategorical(torch.tensor(1.0), logits=torch.stack([a, -a], -1)),
    "correlations": lambda a: dist.LKJCholesky(3, a.exp()),
    "covariances": lambda a: dist.Wishart(40 + a.exp(), torch.eye(2).expand(ROWS, 2, 2)),
    "directions": lambda a: dist.ProjectedNormal(torch.stack([a, a, a + 1], -1)),
    "no support": lambda a: NoSupport(a, 1.0, validate_args=False),
}


class NoSupport(dist.Normal):
    """A distribution that does not know its support."""

    @property
    def support(self):
        raise NotImplementedError


class NeitherSupportNorDraws(NoSupport):
    def sample(self, *args):
        raise NotImplementedError


def terms(program, *parameters):
    """Log density of a program, and its gradients."""
    total = poutine.trace(program).get_trace().log_prob_sum()
    return total, torch.autograd.grad(total, parameters)


def in_rows(fn, y):
    def program():
        with pyro.plate("rows", len(y)):
            return bmtl.observe("y", fn, y)

    return program


@pytest.mark.filterwarnings("ignore:Singular sample detected")  # torch's Wishart says so of every sample that is not
@pytest.mark.parametrize("case", SUPPORTS)
def test_supports_without_a_transform_are_observed_and_missing_labels_add_nothing(case):
    torch.manual_seed(0)
    y = SUPPORTS[case](REAL).sample()
    if case == "mixture of intervals":
        y = y.clamp(2.0, 4.0)  # torch wants a value inside the supports of all components
    a = REAL.clone().requires_grad_()
    complete, slope = terms(in_rows(SUPPORTS[case](a), y), a)
    expected = SUPPORTS[case](a).log_prob(y)
    assert_close(complete, expected.sum())

    gaps = y.clone()
    gaps[1], gaps[3] = NAN, NAN
    before = torch.get_rng_state()
    total, (gradient,) = terms(in_rows(SUPPORTS[case](a), gaps), a)
    assert torch.equal(torch.get_rng_state(), before), "a replacement must not shift the random numbers of training"
    assert_close(total, expected[[0, 2]].sum())
    assert_close(gradient[[0, 2]], slope[0][[0, 2]])
    assert (gradient[[1, 3]] == 0).all()


def test_a_support_that_nothing_is_known_of_is_observed_where_all_labels_are_there():
    fn, y = NeitherSupportNorDraws(REAL, 1.0, validate_args=False), REAL.cos()
    total = poutine.trace(in_rows(fn, y)).get_trace().log_prob_sum()
    assert_close(total, dist.Normal(REAL, 1.0).log_prob(y).sum())
    y[2] = NAN
    with pytest.raises(ValueError, match=r"'y' has missing labels.*NeitherSupportNorDraws.*feasible\(value\)"):
        in_rows(fn, y)()


COUNTS = {
    "poisson": lambda a: dist.Poisson(a.exp()),
    "negative binomial": lambda a: dist.NegativeBinomial(a.exp(), logits=a),
    "gamma-poisson": lambda a: dist.GammaPoisson(a.exp(), a.exp()),
    "zero-inflated": lambda a: dist.ZeroInflatedPoisson(a.exp(), gate=a.sigmoid()),
    "zero-inflated negative binomial": lambda a: dist.ZeroInflatedNegativeBinomial(a.exp(), logits=a, gate=a.sigmoid()),
    "geometric": lambda a: dist.Geometric(logits=a),
    "binomial": lambda a: dist.Binomial(5, logits=a),
    "bernoulli": lambda a: dist.Bernoulli(logits=a),
    "masked bernoulli": lambda a: dist.Bernoulli(logits=a).mask(torch.tensor([True, True, False, True])),
    "mixture": lambda a: mixture(dist.Poisson(torch.stack([a.exp(), a.exp() + 3], -1))),
    "vectors": lambda a: dist.Poisson(a.exp()[:, None].expand(ROWS, 2)).to_event(1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("case", COUNTS)
def test_counts_are_floats_or_integers_of_any_kind(case, dtype):
    fn = COUNTS[case](REAL)
    y = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(-1, *[1] * len(fn.event_shape)).expand(fn.shape()).clone()
    given, gap = y.to(dtype, copy=True), dtype not in (torch.uint8, torch.bool)
    if gap:
        given[1] = NAN if given.is_floating_point() else -1
    rows = [0, 2, 3] if gap else [0, 1, 2, 3]
    total = poutine.trace(in_rows(fn, given)).get_trace().log_prob_sum()
    assert_close(total, fn.log_prob(y)[rows].sum(), check_dtype=False)


@pytest.mark.parametrize(
    "fn",
    [
        dist.Categorical(logits=torch.zeros(ROWS, 3)),
        dist.OrderedLogistic(REAL, torch.tensor([-1.0, 1.0])),
        dist.Categorical(logits=torch.zeros(ROWS, 3)).mask(REAL > 0),
        dist.Categorical(logits=torch.zeros(3)).expand((ROWS,)),
        mixture(dist.Categorical(logits=torch.zeros(ROWS, 2, 3))),
    ],
    ids=["categorical", "ordered", "masked", "expanded", "mixture"],
)
def test_class_indices_are_integers_whatever_they_are_wrapped_in(fn):
    with pytest.raises(TypeError, match="Give class indices as integers"):
        in_rows(fn, torch.zeros(ROWS))()
    y = torch.tensor([0, -1, 2, -1])
    total = poutine.trace(in_rows(fn, y)).get_trace().log_prob_sum()
    assert_close(total, fn.log_prob(y.clamp(0))[[0, 2]].sum())


def test_classes_of_an_event_are_integers():
    fn = dist.Categorical(logits=torch.zeros(ROWS, 5, 3)).to_event(1)
    with pytest.raises(TypeError, match="Give class indices as integers"):
        in_rows(fn, torch.zeros(ROWS, 5))()


@pytest.mark.parametrize("width", [1, 3])
def test_an_event_of_another_length_is_refused_even_if_it_broadcasts(width):
    fn = dist.Normal(torch.zeros(ROWS, width), 1.0).to_event(1)
    with pytest.raises(ValueError, match=rf"shape \(4, 5\).*\({width},\) numbers an entry"):
        in_rows(fn, torch.zeros(ROWS, 5))()


# ---- What a distribution says of its own labels ----------------------------------------------------------------------


class Interval(dist.Normal):
    """A normal observed as an interval (lower, upper): exactly, or only as lying in it."""

    label_shape = (2,)

    def log_prob(self, value):
        lower, upper = value.unbind(-1)
        exact = lower == upper
        point = super().log_prob(torch.where(exact, lower, 0.0))
        below = torch.where(upper.isfinite(), self.cdf(torch.where(upper.isfinite(), upper, 0.0)), 1.0)
        above = torch.where(lower.isfinite(), self.cdf(torch.where(lower.isfinite(), lower, 0.0)), 0.0)
        return torch.where(exact, point, torch.where(exact, 1.0, below - above).log())

    def expand(self, batch_shape, _instance=None):
        return super().expand(batch_shape, self._get_checked_instance(type(self), _instance))


class OpenInterval(Interval):
    """The same, of which the whole line says nothing and is missing, and where 0 is not feasible."""

    def missing(self, value):
        nothing = (value[..., :1] == -INF) & (value[..., 1:] == INF)
        return value.isnan() | nothing

    def feasible(self, value):
        return torch.full_like(value, 7.0)


INTERVALS = torch.tensor([[0.3, 0.3], [NAN, NAN], [-INF, 0.5], [0.0, NAN], [-INF, INF], [-1.0, 1.0]])


@pytest.mark.parametrize(("family", "labelled"), [(Interval, [0, 2, 4, 5]), (OpenInterval, [0, 2, 5])])
def test_intervals_are_labels_of_a_number(family, labelled):
    loc = torch.linspace(-1, 1, 6).requires_grad_()
    total, (gradient,) = terms(in_rows(family(loc, 1.0), INTERVALS), loc)
    assert_close(total, family(loc, 1.0).log_prob(INTERVALS.nan_to_num(0.0))[labelled].sum())
    assert gradient.isfinite().all()
    assert [k for k in range(6) if gradient[k] != 0] == [k for k in labelled if k != 4]
    trace = poutine.trace(in_rows(family(loc, 1.0), INTERVALS)).get_trace()
    assert trace.nodes["y"]["mask"].tolist() == [k in labelled for k in range(6)]
    if family is OpenInterval:
        assert (trace.nodes["y"]["value"][[1, 3, 4]] == 7).all()


def test_a_number_is_drawn_where_intervals_are_observed():
    def program():
        with pyro.plate("rows", 6):
            return bmtl.observe("y", Interval(torch.zeros(6), 1.0), None)

    assert program().shape == (6,)


@pytest.mark.parametrize("shape", [(6,), (6, 3), (2, 6), (6, 1)])
def test_labels_that_are_no_intervals_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(2,\) numbers an entry"):
        in_rows(Interval(torch.zeros(6), 1.0), torch.zeros(shape))()


def test_one_distribution_and_particles_see_the_same_intervals():
    y = INTERVALS[[0, 1, 2]]
    total = poutine.trace(in_rows(Interval(torch.tensor(0.2), 1.0), y)).get_trace().log_prob_sum()
    assert_close(total, Interval(torch.tensor(0.2), 1.0).log_prob(y[[0, 2]]).sum())

    def program():
        with pyro.plate("rows", 3, dim=-1):
            bmtl.observe("y", Interval(torch.arange(5.0)[:, None].expand(5, 3), 1.0), y)

    trace = poutine.trace(pyro.plate("num_particles_vectorized", 5, dim=-2)(program)).get_trace()
    expected = Interval(torch.arange(5.0)[:, None], 1.0).log_prob(y[[0, 2]]).sum()
    assert_close(trace.log_prob_sum(), expected)


class Joint(dist.MultivariateNormal):
    """A multivariate normal that knows its marginals; `entries` (B, d) are those that a row has."""

    entries = None

    def marginal(self, mask):
        new = Joint(self.loc, self.covariance_matrix, validate_args=False)
        new.entries = mask
        return new

    def expand(self, batch_shape, _instance=None):
        new = super().expand(batch_shape, self._get_checked_instance(type(self), _instance))
        new.entries = self.entries
        return new

    def log_prob(self, value):
        if self.entries is None:
            return super().log_prob(value)
        rows = []
        for loc, cov, mask, y in zip(self.loc, self.covariance_matrix, self.entries, value, strict=True):
            part = dist.MultivariateNormal(loc[mask], cov[mask][:, mask]) if mask.any() else None
            rows.append(loc.sum() * 0.0 if part is None else part.log_prob(y[mask]))
        return torch.stack(rows)


VECTORS = torch.tensor([[0.3, 1.0], [NAN, 2.0], [0.5, NAN], [NAN, NAN]])


def test_a_distribution_with_marginals_uses_the_entries_that_are_there():
    covariance = torch.tensor([[2.0, 0.6], [0.6, 1.0]])
    loc = torch.zeros(ROWS, 2).requires_grad_()
    total, (gradient,) = terms(in_rows(Joint(loc, covariance.expand(ROWS, 2, 2)), VECTORS), loc)
    expected = (
        dist.MultivariateNormal(torch.zeros(2), covariance).log_prob(VECTORS[0])
        + dist.Normal(0.0, 1.0).log_prob(torch.tensor(2.0))
        + dist.Normal(0.0, 2.0**0.5).log_prob(torch.tensor(0.5))
    )
    assert_close(total, expected)
    assert gradient.isfinite().all()
    assert (gradient != 0).tolist() == (~VECTORS.isnan()).tolist()
    trace = poutine.trace(in_rows(Joint(loc, covariance.expand(ROWS, 2, 2)), VECTORS)).get_trace()
    assert trace.nodes["y"]["mask"].tolist() == [True, True, True, False]  # a row with any label is labelled
    assert not trace.nodes["y"]["value"].isnan().any()


def test_without_marginals_an_event_with_a_missing_entry_is_missing():
    fn = dist.MultivariateNormal(torch.zeros(ROWS, 2), torch.eye(2))
    assert read_labels("y", fn, VECTORS).labelled.tolist() == [True, False, False, False]


def test_a_masked_distribution_keeps_what_its_labels_are():
    seen = torch.tensor([True, True, False, True])
    joint = Joint(torch.zeros(ROWS, 2), torch.eye(2).expand(ROWS, 2, 2))
    trace = poutine.trace(in_rows(joint.mask(seen), VECTORS)).get_trace()
    expected = dist.Normal(0.0, 1.0).log_prob(torch.tensor([0.3, 1.0, 2.0])).sum()
    assert_close(trace.log_prob_sum(), expected)
    total = poutine.trace(in_rows(Interval(torch.zeros(4), 1.0).mask(seen), INTERVALS[:4])).get_trace().log_prob_sum()
    assert_close(total, dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.3)))


def test_an_interval_of_positive_times_is_replaced_by_positive_times():
    class Survival(dist.Weibull):
        label_shape = (2,)

        def log_prob(self, value):
            return super().log_prob(value[..., 0])

        def expand(self, batch_shape, _instance=None):
            return super().expand(batch_shape, self._get_checked_instance(type(self), _instance))

    fn = Survival(torch.ones(2), torch.ones(2))
    assert fn.support is constraints.positive or fn.support.check(torch.tensor(1.0))
    labels = read_labels("y", fn, torch.tensor([[2.0, 2.0], [NAN, NAN]]))
    assert (labels.value > 0).all()
    assert labels.labelled.tolist() == [True, False]
