"""Programs that take derivatives of their inputs, where no gradients are needed: draws, class probabilities, simulation."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from scipy.special import expit
from torch import nn

import bmtl
from bmtl.inference.log_probabilities import log_probabilities
from bmtl.inference.simulation import simulated_ranks
from bmtl.inference.without_graph import without_graph

X = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


class Spring(nn.Module):
    """A harmonic energy whose derivative is the force along the first coordinate: observed itself, or its sign."""

    def __init__(self, classes=False):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.classes = classes

    def forward(self, x, y=None):
        stiffness = pyro.sample("stiffness", dist.LogNormal(torch.zeros(()), torch.tensor(0.1)))
        positions = x.detach().requires_grad_()
        energy = stiffness * self.scale * positions.square().sum(-1) / 2
        slope = torch.autograd.grad(energy.sum(), positions, create_graph=True)[0][:, 0]
        fn = dist.Bernoulli(logits=slope) if self.classes else dist.Normal(-slope, 0.1)
        with pyro.plate("rows", len(x)), bmtl.task("force"):
            bmtl.observe("y_force", fn, None if y is None else y["force"])


def fitted(model):
    guide = AutoNormal(model, init_loc_fn=lambda site: torch.tensor(2.0))
    labels = {"force": (X[:, 0] > 0).float() if model.classes else -3.0 * X[:, 0]}
    bmtl.BalancedSVI(model, guide, functools.partial(torch.optim.SGD, lr=1e-9)).initialise(X, labels)
    return guide, labels


@pytest.mark.parametrize("batch_size", [None, 3])
def test_draws_of_forces(batch_size):
    model = Spring()
    guide, labels = fitted(model)
    found = bmtl.draw(model, guide, X, labels, num_draws=5, batch_size=batch_size)
    stiffness = found.posterior["stiffness"]
    np.testing.assert_allclose(found.targets["force"].mean, -1.5 * stiffness.mean() * X[:, 0].numpy(), rtol=1e-5)
    assert model.scale.grad is None


def test_class_probabilities_of_forces():
    model = Spring(classes=True)
    guide, labels = fitted(model)
    stiffness = bmtl.draw(model, guide, X, labels, num_draws=3).posterior["stiffness"]
    expected = expit(1.5 * stiffness[:, None] * X[:, 0].numpy()).mean(0)
    found = log_probabilities(model, guide, X, num_draws=3)["force"].exp()[:, 1]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5)


def test_simulated_forces():
    """Every data set has its own truth, and the labels are numbers without a graph."""

    def fit(seed, x, y):
        assert not y["force"].requires_grad
        slope = (y["force"] @ x[:, 0] / x[:, 0].square().sum()).item()
        return lambda x: pyro.sample("stiffness", dist.LogNormal(torch.tensor(-slope / 1.5).log(), torch.tensor(0.02)))

    found = simulated_ranks(Spring(), fit, X, datasets=4, num_draws=9)
    np.testing.assert_allclose(found.mean["stiffness"], found.truth["stiffness"], rtol=0.1)
    assert len(set(found.truth["stiffness"])) == 4


def test_other_errors_are_the_programs_own_and_a_run_that_works_has_no_graph():
    runs = []

    def fails(mode):
        runs.append(torch.is_grad_enabled())
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        without_graph(fails)
    assert runs == [False]
    assert not without_graph(lambda mode: (torch.ones(2, requires_grad=True) * 2).requires_grad)
