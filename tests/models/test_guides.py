import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch.nn import functional as F

import bmtl
from bmtl.models import MeanField, PointMass

START = {"w": torch.tensor([[0.5, -1.0, 2.0]]), "s": torch.tensor(0.25)}


def program(x, y=None):
    """Latents w, s of task "a", in the order of START; their density pulls w and s upwards."""
    with bmtl.task("a"):
        w = pyro.sample("w", dist.Normal(torch.zeros(1, 3), 1.0).to_event(2))
        s = pyro.sample("s", dist.Normal(0.0, 2.0))
        with pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Normal(w.sum() + s, 1.0).expand([len(x)]), None if y is None else y["a"])


def sites(guide):
    return poutine.trace(guide).get_trace(torch.zeros(1, 1)).nodes


@pytest.mark.parametrize("kind", [MeanField, PointMass])
def test_sites_come_in_the_models_order_at_the_starting_values(kind):
    guide = kind(START) if kind is PointMass else kind(START, scale=1e-8)
    drawn = {name: site["value"] for name, site in sites(guide).items() if site["type"] == "sample"}
    assert list(drawn) == list(START)
    for name, value in drawn.items():
        torch.testing.assert_close(value, START[name])


@pytest.mark.parametrize("scale", [1e-8, 0.005, 1.0, 200.0])
def test_a_normal_starts_at_the_given_scale(scale):
    guide = MeanField(START, scale=scale)
    for _, q in guide.items():
        torch.testing.assert_close(F.softplus(q.rho), torch.full_like(q.rho, scale))


def test_draws_of_the_mean_field_guide_fit_its_normals():
    torch.manual_seed(0)
    guide = MeanField(START, scale=0.7, lr_multiplier={"s": 10.0})
    with pyro.plate("draws", 4000):
        trace = poutine.trace(guide).get_trace()
    for name, start in START.items():
        drawn = trace.nodes[name]["value"].detach().reshape(4000, -1)
        for column, location in zip(drawn.T, start.reshape(-1), strict=True):
            assert stats.kstest(column, stats.norm(location.item(), 0.7).cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", [MeanField, PointMass])
def test_the_pace_changes_how_fast_a_location_moves_and_nothing_else(kind):
    """Adam's first step is lr for every parameter, so a location moves lr_multiplier times as far; starts agree."""
    x, y = torch.zeros(4, 1), {"a": torch.full((4,), 9.0)}
    lr, moved, started, spread = 0.01, {}, {}, {}
    for lr_multiplier in (1.0, 10.0):
        torch.manual_seed(0)
        guide = kind(START, lr_multiplier={"s": lr_multiplier})
        svi = bmtl.BalancedSVI(
            program, guide, functools.partial(torch.optim.Adam, lr=lr), elbo=bmtl.TaskELBO("analytic")
        )
        before = {name: site["fn"].mean for name, site in sites(guide).items() if name in START}
        record = svi.step(x, y)
        started[lr_multiplier] = (record.losses.item(), record.shared)
        after = {name: site["fn"].mean for name, site in sites(guide).items() if name in START}
        moved[lr_multiplier] = {name: (after[name] - before[name]).detach() for name in START}
        spread[lr_multiplier] = [site["fn"].variance.detach() for name, site in sites(guide).items() if name in START]
    assert started[1.0] == pytest.approx(started[10.0])
    torch.testing.assert_close(moved[1.0]["s"].item(), lr, rtol=1e-3, atol=0)
    torch.testing.assert_close(moved[10.0]["s"].item(), 10 * lr, rtol=1e-3, atol=0)
    torch.testing.assert_close(moved[1.0]["w"], moved[10.0]["w"], rtol=1e-3, atol=0)
    torch.testing.assert_close(spread[1.0], spread[10.0])


def test_the_kl_is_that_of_the_normals_at_any_pace():
    for lr_multiplier in (1.0, 10.0):
        guide = MeanField(START, scale=0.3, lr_multiplier={"s": lr_multiplier, "w": lr_multiplier})
        losses = bmtl.TaskELBO("analytic").task_losses(program, guide, torch.zeros(2, 1), {"a": torch.zeros(2)})
        expected = sum(
            0.5 * ((0.3**2 + m**2) / p**2 - 1 - math.log(0.3**2 / p**2))
            for m, p in [(0.5, 1.0), (-1.0, 1.0), (2.0, 1.0), (0.25, 2.0)]
        )
        assert losses.kl.item() == pytest.approx(expected, rel=1e-5)
        assert losses.shared.item() == 0


@pytest.mark.parametrize("kind", [MeanField, PointMass])
def test_training_a_guide_leaves_the_starting_values_as_they_were(kind):
    start = {name: value.clone() for name, value in START.items()}
    guide = kind(start)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(start[name], START[name]) for name in START)


@pytest.mark.parametrize("kind", [MeanField, PointMass])
def test_a_program_without_latents_has_an_empty_guide(kind):
    guide = kind({})
    assert not list(guide.parameters())
    assert not [site for site in sites(guide).values() if site["type"] == "sample"]


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_no_standard_deviation_is_refused(scale):
    with pytest.raises(ValueError, match="standard deviation, above 0"):
        MeanField(START, scale=scale)
