"""What balancers do with eleven tasks of QM9: their weights over the steps of a short run, a panel a balancer.

Run: python examples/weights_over_time.py [--out docs/weights.png] [--epochs 30] [--balancers uw,igb-v1,nash-mtl]
                                           [--quick]

Trains a 128-128 network on the 2,000 molecules that come with bmtl once with each balancer, from the same weights and on the
same batches. Takes some seconds a balancer.
"""

import argparse
from pathlib import Path

import torch

from bmtl.datasets import load
from bmtl.evaluation import plots
from bmtl.experiments import Budget, method, run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/weights.png"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--balancers", default="uw,igb-v1,nash-mtl", help="separated by commas")
    parser.add_argument("--quick", action="store_true", help="one epoch: shows that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a network of this size is slower on two
    data = load("qm9-mini")
    budget = Budget(epochs=1 if options.quick else options.epochs, schedule="constant", select="last")
    trees = {}
    for balancer in options.balancers.split(","):
        trees[balancer] = run(data, method(balancer).on_trunk("mlp"), 0, budget)
        print(f"{balancer}: {trees[balancer]['training'].sizes['step']} steps")
    print(f"Wrote {plots.save(plots.weights_over_time(trees), options.out)}.")


if __name__ == "__main__":
    main()
