"""A tensor that is marked more than once is one representation."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference import TaskELBO
from bmtl.inference.shared_representation import ReplayFromShared, SharedRepresentation
from tests.inference.programs import Sites, SitesGuide, batch, double, nothing

GEOMETRIES = ["full >> nash-mtl", "last-layer >> nash-mtl", "representation >> nash-mtl", "bayes-agg"]


def once(h):
    shared = bmtl.shared(h)
    return shared, shared


AGAIN = {
    "twice": lambda h: (bmtl.shared(h), bmtl.shared(h)),
    "what the mark returned": lambda h: [bmtl.shared(h), bmtl.shared(bmtl.shared(h))],
    "a view": lambda h: (bmtl.shared(h), bmtl.shared(h.view_as(h))),
    "a view first": lambda h: (bmtl.shared(h[:]), bmtl.shared(h)),
    "two views": lambda h: (bmtl.shared(h[:]), bmtl.shared(h.view_as(h))),
    "another shape": lambda h: (bmtl.shared(h), bmtl.shared(h.view(2, 4, 4)).view(8, 4)),
    "three times": lambda h: [bmtl.shared(h) for _ in range(3)][1:],
}


class TwoTasks(nn.Module):
    """Both tasks read both marks, with linear heads of which one is drawn."""

    def __init__(self, mark):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(4, 1)
        self.mark = mark

    def forward(self, x, y):
        one, two = self.mark(torch.tanh(self.trunk(x)))
        for name, head, h in (("a", self.a, one + two.square()), ("b", self.b, two)):
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                noise = pyro.sample(f"noise_{name}", dist.Normal(torch.zeros(len(x)), 0.1))
                bmtl.observe(f"y_{name}", dist.Normal(head(h).squeeze(-1) + noise * h.sum(-1), 1.0), y[name])


def guide(x, y):
    for name in y:
        with pyro.plate(f"{name}_rows", len(x)):
            pyro.sample(f"noise_{name}", dist.Normal(torch.zeros(len(x)), 0.1))


def step(mark, balancer):
    with double():
        model = TwoTasks(mark)
        svi = bmtl.BalancedSVI(model, guide, functools.partial(torch.optim.SGD, lr=0.1), balancer)
        generator = torch.Generator().manual_seed(1)
        x, a, b = (torch.randn(*shape, generator=generator) for shape in ((8, 3), (8,), (8,)))
        torch.manual_seed(2)
        record = svi.backward(x, {"a": a, "b": b})
    return record, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("balancer", GEOMETRIES)
@pytest.mark.parametrize("again", AGAIN)
def test_marking_a_tensor_again_changes_nothing(again, balancer):
    expected, gradients = step(once, balancer)
    record, found = step(AGAIN[again], balancer)
    assert_close(record.gram, expected.gram)
    assert_close(record.weights, expected.weights)
    assert_close(found, gradients)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("again", AGAIN)
def test_it_is_kept_once(again, cut):
    h = torch.randn(8, 4, requires_grad=True) * 2
    with SharedRepresentation(cut=cut) as marks:
        one, two = AGAIN[again](h)
    assert len(marks.tensors) == 1
    assert len(marks.leaves) == cut
    assert_close(one.reshape(8, 4), h)
    assert_close(two.reshape(8, 4), h)


OTHERS = {
    "a copy": lambda h: h.clone(),
    "half of it": lambda h: h[:4],
    "its transpose": lambda h: h.T,
    "itself detached": lambda h: h.detach(),
    "another of its shape": lambda h: h + 1,
    "the other half": lambda h: h[4:],
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_tensors_are_marks_of_their_own(other):
    h = torch.randn(8, 4, requires_grad=True) * 2
    first = h[:4] if other == "the other half" else h
    with SharedRepresentation(cut=True) as marks:
        bmtl.shared(first)
        bmtl.shared(OTHERS[other](h))
    assert len(marks.tensors) == len(marks.leaves) == 2


def test_a_run_from_the_marks_on_follows_the_marks_of_the_first():
    weight = torch.randn(4, requires_grad=True)

    def program():
        h = weight * 2
        one, other = bmtl.shared(h), bmtl.shared(weight.exp())
        return one, other, bmtl.shared(h), bmtl.shared(other)

    with SharedRepresentation(cut=True) as first:
        program()
    assert first.order == [0, 1, 0, 1]
    with ReplayFromShared(first) as again:
        one, other, third, fourth = program()
    assert one is third
    assert other is fourth
    for leaf, before in zip(again.leaves, first.leaves, strict=True):
        assert leaf is not before
        assert torch.equal(leaf, before)
    with ReplayFromShared(first):
        program()
        with pytest.raises(ValueError, match="had not marked there"):
            bmtl.shared(weight)
    with pytest.raises(ValueError, match="had not marked there"), ReplayFromShared(first):
        bmtl.shared(weight[:2])


def test_many_marks_take_no_time_for_each_pair():
    trunk = nn.Linear(2, 3)
    tensors = [trunk(torch.randn(1, 2)) for _ in range(2000)]
    with SharedRepresentation(cut=True) as marks:
        for h in [*tensors, *tensors]:
            bmtl.shared(h)
    assert len(marks.tensors) == 2000
    assert max(len(same) for same in marks._by_base.values()) <= 2


def test_a_cached_representation_is_one_over_all_particles():
    cached = nn.Linear(3, 4)(torch.randn(8, 3))

    class Model(nn.Module):
        def forward(self):
            h = bmtl.shared(cached)
            with bmtl.task("a"), pyro.plate("rows", 8):
                pyro.sample("y", dist.Normal(h.sum(-1), 1.0), obs=torch.zeros(8))

    losses = TaskELBO(num_particles=3).task_losses(Model(), nothing)
    assert len(losses.marks.tensors) == 1


def test_the_marked_tensors_of_all_particles_are_kept():
    model, guide = Sites(), SitesGuide()
    assert len(TaskELBO().task_losses(model, guide, *batch()).marks.tensors) == 1
    assert len(TaskELBO(num_particles=3).task_losses(model, guide, *batch()).marks.tensors) == 3
    for _ in range(2):  # the first run, which finds the nesting of plates, leaves no mark
        elbo = TaskELBO(num_particles=3, vectorize_particles=True)
        (h,) = elbo.task_losses(model, guide, *batch()).marks.tensors
        assert h.shape == (3, 6, 2)
    autoguide = AutoNormal(model)  # nor does the run that sets an autoguide up
    assert len(TaskELBO().task_losses(model, autoguide, *batch()).marks.tensors) == 1
