"""A program may change between the steps of one balancer: layers unfrozen, heads replaced, weights parametrised anew."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import balancer


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 5).double(), nn.Linear(5, 4).double()
        self.heads = nn.ModuleList(nn.Linear(4, 1).double() for _ in range(3))
        self.x = torch.randn(6, 3, dtype=torch.float64)
        self.y = torch.randn(3, 6, dtype=torch.float64)

    def losses(self):
        h = bmtl.shared(torch.tanh(self.last(torch.tanh(self.first(self.x)))))
        return [(head(h).squeeze(-1) - y).square().mean() for head, y in zip(self.heads, self.y, strict=True)]


def freeze(net):
    net.first.requires_grad_(False)


def unfreeze(net):
    net.first.requires_grad_(True)


def replace_a_head(net):
    net.heads[1] = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 1)).double()


def normalise_weights(net):
    weight_norm(net.last)


def replace_the_last_layer(net):
    net.last = nn.Linear(5, 4, bias=False).double()


def take_a_parameter_out(net):
    net.last.bias = None


CHANGES = [freeze, unfreeze, replace_a_head, normalise_weights, replace_the_last_layer, take_a_parameter_out]


@pytest.mark.parametrize(
    "spec", ["full >> mgda", "last-layer >> nash-mtl", "representation >> upgrad", "full >> grad-drop"]
)
@pytest.mark.parametrize("heads", ["transform", "alpha"])
def test_each_step_is_that_of_a_balancer_made_for_the_program_as_it_is(step, spec, heads):
    net, made = Net(), balancer(spec, heads=heads)
    for change in CHANGES:
        change(net)
        grads = []
        for one in (made, balancer(spec, heads=heads)):
            net.zero_grad(set_to_none=True)
            update = step(one, net.losses)
            grads.append({name: p.grad for name, p in net.named_parameters()})
            if one is made and hasattr(one.weighting, "generator"):
                one.weighting.generator.manual_seed(0)
        assert grads[0].keys() == grads[1].keys()
        for name, parameter in net.named_parameters():
            assert (grads[0][name] is not None) == parameter.requires_grad, (change.__name__, name)
            if parameter.requires_grad:
                assert_close(grads[0][name], grads[1][name], rtol=1e-9, atol=1e-12)
        assert update.weights.isfinite().all()


@pytest.mark.parametrize("geometry", ["full", "last-layer", "representation"])
def test_weights_that_are_kept_serve_the_program_as_it_is(step, geometry):
    net, made = Net(), balancer(f"{geometry}(every=3) >> upgrad")
    kept = step(made, net.losses).alpha
    net.zero_grad(set_to_none=True)
    replace_a_head(net)
    unfreeze(net)
    assert torch.equal(step(made, net.losses).alpha, kept)
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("spec", ["db-mtl", "moco", "excess-mtl >> full >> mgda"])
def test_what_is_averaged_by_position_is_refused_by_name(step, spec):
    net, made = Net(), balancer(spec)
    step(made, net.losses)
    freeze(net)
    with pytest.raises(ValueError, match="Mark the shared representation"):
        step(made, net.losses)
