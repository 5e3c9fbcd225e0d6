"""A model and a balancer of your own in a comparison: no change to bmtl, no registration.

    bmtl compare qm9-mini --methods examples/own_method.py:hierarchical,examples/own_method.py:Inverse,ew --epochs 10

`hierarchical` is a recipe: a Pyro program whose heads share a learnt prior. `Inverse` is a slot: each task's weight
is one over its running mean loss.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import bmtl
from bmtl.inference.balancing import Transform


class Hierarchical(nn.Module):
    """Real targets with linear heads from one normal, whose scale has a prior."""

    def __init__(self, targets, n_data, trunk):
        super().__init__()
        self.targets, self.n_data, self.trunk = list(targets), n_data, trunk

    def forward(self, x, y=None):
        h = bmtl.shared(self.trunk(x))
        scale = pyro.sample(
            "scale", dist.HalfNormal(h.new_ones(()))
        )  # of all heads: tasks borrow strength from each other
        for name in self.targets:
            with bmtl.task(name):
                weight = pyro.sample(f"w_{name}", dist.Normal(0.0, scale).expand([h.shape[-1]]).to_event(1))
                noise = pyro.sample(f"noise_{name}", dist.LogNormal(h.new_tensor(-1.0), h.new_tensor(1.0)))
                with pyro.plate(f"{name}_rows", self.n_data, subsample=h):
                    bmtl.observe(f"y_{name}", dist.Normal(h @ weight, noise), y and y[name])


def hierarchical(spec, *, trunk):
    return Hierarchical(spec.targets, spec.n_data, trunk()), "auto-normal"


class Inverse(Transform):
    """Weights one over each task's running mean loss."""

    name = "inverse"

    def bind(self, names):
        super().bind(names)
        self.mean = torch.ones(len(names), dtype=torch.float64)

    def loss_derivatives(self, losses, ctx):
        self.mean[ctx.active] = 0.9 * self.mean[ctx.active] + 0.1 * losses
        weights = 1.0 / self.mean[ctx.active]
        return weights * len(weights) / weights.sum()
