"""Comparisons that are spaced out, kept while nothing moves, or checked against the full gradients."""

import copy
import functools
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import Full, LastLayer, Representation


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(4, 1) for _ in range(3)])

    def forward(self, x, y):
        h = bmtl.shared(self.trunk(x))
        for k, head in enumerate(self.heads):
            with bmtl.task(f"t{k}"):
                bmtl.observe(f"y_t{k}", torch_normal(head(h).squeeze(-1)), y[k])


def torch_normal(mean):
    import pyro.distributions as dist

    return dist.Normal(mean, 1.0).to_event(1)


def guide(x, y):
    pass


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 3, generator=generator)
    return x, torch.stack([x.sum(1), 3 * x[:, 0], -x[:, 1].square()])


def trained(spec, steps, heads="transform"):
    torch.manual_seed(0)
    model = Model()
    svi = bmtl.BalancedSVI(
        model, guide, functools.partial(torch.optim.SGD, lr=0.05), bmtl.balancer(spec, heads=heads), bmtl.TaskELBO()
    )
    for step in range(steps):
        svi.step(*batch(step))
    return model, svi


@pytest.mark.parametrize("geometry", ["full", "last-layer", "representation"])
def test_weights_are_kept_between_comparisons(geometry):
    _, svi = trained(f"{geometry}(every=3) >> nash-mtl", 7)
    compared = [record.gram is not None for record in svi.history]
    assert compared == [True, False, False, True, False, False, True]
    for step in (1, 2, 4, 5):
        assert_close(svi.history[step].alpha, svi.history[step - 1].alpha, rtol=0, atol=0)
    assert (svi.history[3].alpha != svi.history[2].alpha).all()


@pytest.mark.parametrize("heads", ["transform", "alpha"])
@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_a_step_without_a_comparison_writes_the_weighted_gradients(geometry, heads):
    model, svi = trained(f"igb-v1 >> {geometry}(every=2) >> nash-mtl", 1, heads)
    before = copy.deepcopy(model)
    svi.zero_grad()
    record = svi.backward(*batch(1))
    written = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert record.gram is None
    # The same gradient by hand, at the record's weights: the trunk's and each head's own.
    losses = bmtl.TaskELBO().task_losses(before, guide, *batch(1)).nll
    for part, weights in (("trunk", record.weights), ("heads", record.weights_heads)):
        before.zero_grad()
        (losses * weights.float()).sum().backward(retain_graph=True)
        for name, p in before.named_parameters():
            if name.startswith(part):
                torch.testing.assert_close(written[name], p.grad, rtol=1e-4, atol=1e-6)


def test_weights_stay_while_no_cosine_moves():
    _, still = trained("full(moved=2.0) >> nash-mtl", 4)
    assert all((record.alpha == still.history[0].alpha).all() for record in still.history)
    assert "weights kept" in still.history[1].events[0]
    assert not still.history[1].gram.isnan().any()
    _, moving = trained("full(moved=1e-9) >> nash-mtl", 4)
    assert (moving.history[1].alpha != moving.history[0].alpha).all()


def test_fidelity_is_1_where_the_last_layer_is_the_whole_trunk():
    torch.manual_seed(0)
    model = Model()
    model.trunk = nn.Linear(3, 4)
    svi = bmtl.BalancedSVI(
        model, guide, functools.partial(torch.optim.SGD, lr=0.05), "last-layer(fidelity_every=2) >> nash-mtl"
    )
    found = [svi.step(*batch(step)).fidelity for step in range(4)]
    assert [found[0], found[2]] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert all(map(math.isnan, (found[1], found[3])))


@pytest.mark.parametrize("geometry", ["last-layer", "representation"])
def test_fidelity_is_the_cosine_of_the_two_updates(geometry):
    model, svi = trained(f"{geometry}(fidelity_every=1) >> nash-mtl", 0)
    cheap = svi.backward(*batch(0))
    trunk = [p.grad.clone() for p in model.trunk.parameters()]
    exact_model, exact = trained("full >> nash-mtl", 0)
    exact.backward(*batch(0))
    flat, full = (
        torch.cat([g.reshape(-1) for g in gs]) for gs in (trunk, [p.grad for p in exact_model.trunk.parameters()])
    )
    cosine = flat @ full / flat.norm() / full.norm()
    assert cheap.fidelity == pytest.approx(cosine.item(), abs=1e-4)


def test_representation_compares_the_gradients_of_what_is_marked():
    model, svi = trained("representation >> nash-mtl", 0)
    record = svi.backward(*batch(0))
    x, y = batch(0)
    h = model.trunk(x).detach().requires_grad_()
    rows = []
    for k, head in enumerate(model.heads):
        loss = 0.5 * (head(h).squeeze(-1) - y[k]).square().sum()
        rows.append(torch.autograd.grad(loss, h)[0].flatten())
    d = torch.stack(rows).double()
    torch.testing.assert_close(record.gram, d @ d.T, rtol=1e-4, atol=1e-6)


def test_what_was_kept_survives_saving():
    torch.manual_seed(0)
    _, straight = trained("full(every=3) >> nash-mtl", 5)
    _, first = trained("full(every=3) >> nash-mtl", 2)
    state = copy.deepcopy(first.state_dict())
    _, second = trained("full(every=3) >> nash-mtl", 0)
    second.load_state_dict(state)
    for step in range(2, 5):
        second.step(*batch(step))
    assert_close(second.history[-1].alpha, straight.history[-1].alpha, rtol=0, atol=0)
    for a, b in zip(second.module.parameters(), straight.module.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("geometry", [Full, LastLayer, Representation])
@pytest.mark.parametrize("option", [{"every": 0}, {"moved": -0.1}, {"moved": 3.0}])
def test_options_out_of_range_are_refused(geometry, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        geometry(**option)


def test_options_are_part_of_the_string_form():
    spec = "last-layer(every=10, fidelity_every=5) >> nash-mtl"
    assert str(bmtl.balancer(spec)) == spec
