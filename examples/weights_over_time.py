"""What balancers do with eleven tasks of QM9: their weights over the steps of a short run, a panel a balancer.

Run: python examples/weights_over_time.py [--out docs/weights.png] [--epochs 30] [--balancers uw,igb-v1,nash-mtl]

Trains a 128-128 network on the 2,000 molecules that come with bmtl once with each balancer, from the same weights and on the
same batches. Takes some seconds a balancer.
"""

import argparse
import functools
from pathlib import Path

import torch

import bmtl
from bmtl.datasets import Batches, load
from bmtl.evaluation import plots, results
from bmtl.inference.record import history_arrays
from bmtl.models import Homoscedastic, mlp


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/weights.png"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--balancers", default="uw,igb-v1,nash-mtl", help="separated by commas")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a network of this size is slower on two
    data = load("qm9-mini")
    trees = {spec: trained(data, spec, options.epochs) for spec in options.balancers.split(",")}
    print(f"Wrote {plots.save(plots.weights_over_time(trees), options.out)}.")


def trained(data, spec, epochs):
    """The results tree of a run, with its training alone."""
    generator = torch.Generator().manual_seed(0)
    x, y = data.tensors("train")
    trunk = mlp(x.shape[1], (128, 128), generator=generator)
    model = Homoscedastic(trunk, 128, data.kinds, len(x), noise="fixed", head="linear", generator=generator)
    adam = functools.partial(torch.optim.Adam, lr=2e-3)
    svi = bmtl.BalancedSVI(model, model.guide(), adam, spec, bmtl.TaskELBO("analytic", normalize="task_mean"))
    bmtl.fit(svi, Batches(x, y, 128, seed=0), max_epochs=epochs, progress=False)
    print(f"{spec}: {svi.steps} steps")
    training = history_arrays(svi.history)
    return results.to_datatree({}, {}, training=training, tasks=svi.names, attributes={"method": spec})


if __name__ == "__main__":
    main()
