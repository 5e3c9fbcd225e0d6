"""A user's own multi-task model: a Pyro program with two marks, trained by balanced SVI on real molecules.

Run: python examples/own_model.py [--epochs 20] [--quick]
"""

import argparse
import functools

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

import bmtl
from bmtl.datasets import Batches, load
from bmtl.evaluation import metrics


class Regressions(nn.Module):
    """One regression a task on a shared trunk; each task's noise is latent."""

    def __init__(self, tasks, n_data):
        super().__init__()
        self.tasks, self.n_data = tasks, n_data
        self.trunk = nn.Sequential(nn.Linear(34, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(128, 1) for _ in tasks])

    def forward(self, x, y=None):
        h = bmtl.shared(self.trunk(x))  # where task gradients are compared
        for name, head in zip(self.tasks, self.heads, strict=True):
            with bmtl.task(name):  # every site inside belongs to this task
                noise = pyro.sample(f"noise_{name}", dist.LogNormal(-1.0, 1.0))
                with pyro.plate(f"{name}_rows", self.n_data, subsample=h):
                    # NaN marks a missing label; without labels the site predicts.
                    bmtl.observe(f"y_{name}", dist.Normal(head(h).squeeze(-1), noise), y and y[name])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--balancer", default="last-layer >> nash-mtl")
    parser.add_argument("--quick", action="store_true", help="one epoch: shows that everything runs")
    options = parser.parse_args()
    epochs = 1 if options.quick else options.epochs

    torch.manual_seed(0)
    torch.set_num_threads(1)  # networks of this size are slower on two
    data = load("qm9-mini")
    x, y = data.tensors("train")
    model = Regressions(data.tasks, len(x))
    guide = AutoNormal(model)
    optim = functools.partial(torch.optim.Adam, lr=2e-3)
    svi = bmtl.BalancedSVI(model, guide, optim, options.balancer)
    bmtl.fit(svi, Batches(x, y, 128), Batches(*data.tensors("val"), 512, shuffle=False), max_epochs=epochs)

    draws = bmtl.draw(model, guide, *data.tensors("test"))
    tree = bmtl.results_tree(data, draws, svi.history)  # an ArviZ tree: posterior, predictions, training
    print(metrics.mae(tree)["mae"].to_series())


if __name__ == "__main__":
    main()
