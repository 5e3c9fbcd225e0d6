"""A model and a balancer of your own in a comparison: nothing is registered and nothing in bmtl changes.

    bmtl compare qm9-mini --methods examples/own_method.py:hierarchical,examples/own_method.py:Inverse,ew,bayesian

`hierarchical` is a recipe, a function that makes a Pyro program for the targets of any data set. `Inverse` is a choice for
one slot of a balancer, here compared as the unit-variance program under it; ``--balancers examples/own_method.py:Inverse``
trains other methods under it.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import bmtl
from bmtl.inference.balancing import Transform


class Hierarchical(nn.Module):
    """A shared trunk with linear heads; the scale of all heads' weights is learnt, so that tasks inform each other."""

    def __init__(self, targets, n_data, trunk):
        super().__init__()
        self.targets, self.n_data, self.trunk = list(targets), n_data, trunk

    def forward(self, x, y=None):
        h = bmtl.shared(self.trunk(x))  # (B, W); its gradients are what balancers compare
        scale = pyro.sample("scale", dist.HalfNormal(h.new_ones(())))
        for name in self.targets:
            with bmtl.task(name):
                weight = pyro.sample(f"w_{name}", dist.Normal(0.0, scale).expand([h.shape[-1]]).to_event(1))
                noise = pyro.sample(f"noise_{name}", dist.LogNormal(h.new_tensor(-1.0), h.new_tensor(1.0)))
                with pyro.plate(f"{name}_rows", self.n_data, subsample=h):
                    bmtl.observe(f"y_{name}", dist.Normal(h @ weight, noise), None if y is None else y[name])


def hierarchical(spec, *, trunk):
    """The recipe: a model and its guide."""
    return Hierarchical(spec.targets, spec.n_data, trunk()), "auto-normal"


class Inverse(Transform):
    """Weighs each loss by one over its running mean."""

    domain = "positive"  # of the losses: one that is 0 is refused by name

    def bind(self, names):
        super().bind(names)
        self.register_buffer("mean", torch.ones(len(names), dtype=torch.float64))  # a buffer is in checkpoints too

    def loss_derivatives(self, losses, ctx):
        self.mean[ctx.active] = 0.9 * self.mean[ctx.active] + 0.1 * losses
        weights = 1.0 / self.mean[ctx.active]
        return weights * len(weights) / weights.sum()
