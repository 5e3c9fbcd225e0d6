"""Guides that draw all tasks' latents at one site, on a program whose latents are all in the task plate."""

import logging

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoLowRankMultivariateNormal, AutoMultivariateNormal
from torch.testing import assert_close

import bmtl
from bmtl.inference import TaskELBO

TASKS = ("a", "b", "c")


def program(x, y):
    with bmtl.task_plate(TASKS, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(3, 1, 2), 1.0).to_event(1))
        with pyro.plate("rows", 5, dim=-1):
            bmtl.observe("y", dist.Normal((x * w).sum(-1), 0.5), y)


@pytest.mark.parametrize("particles", [{}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}])
@pytest.mark.parametrize("family", [AutoMultivariateNormal, AutoLowRankMultivariateNormal, AutoDiagonalNormal])
def test_a_joint_sites_entropy_counts_once_and_as_shared(family, particles, caplog):
    """It has no row of the plate; in each of the three it would be counted three times, and widen the guide by root 3."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 2, generator=g), torch.randn(3, 5, generator=g)
    guide = family(program)
    torch.manual_seed(0)
    guide(x, y)
    parameters = list(guide.parameters())
    found = []
    for elbo in (TaskELBO, Trace_ELBO):
        torch.manual_seed(1)
        loss = elbo(max_plate_nesting=2, **particles).differentiable_loss(program, guide, x, y)
        found.append((loss, torch.autograd.grad(loss, parameters)))
    (ours, gradients), (theirs, expected) = found
    assert_close(ours, theirs)
    for gradient, right in zip(gradients, expected, strict=True):
        assert_close(gradient, right, rtol=1e-4, atol=1e-4)

    with caplog.at_level(logging.WARNING):
        losses = TaskELBO(max_plate_nesting=2, **particles).task_losses(program, guide, x, y)
    assert losses.shared != 0
    assert losses.names == TASKS
    assert "(a, b, c)" in caplog.text
