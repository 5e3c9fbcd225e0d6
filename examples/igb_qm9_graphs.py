"""Table 2 of the IGB paper (Dai et al. 2023) with a graph network: eleven tasks of QM9 on 12,000 molecules.

Run: python examples/igb_qm9_graphs.py --root ../shared/data [--out runs/igb_qm9_graphs] [--quick] [--jobs N] [--epochs E]
                                       [--seeds 3] [--gradient-seeds 3] [--methods ew,igb-v1,...] [--rates 1e-3,5e-4,1e-4]
                                       [--schedule plateau] [--trunk schnet] [--residual] [--train 10000] [--finished]
                                       [--results FILE]

The network is a SchNet with linear filters, 64 wide; `--trunk nnconv` is the published one, at some ten times the price. As
in the paper: atomization energies, standardised targets, Adam, batches of 120, ReduceLROnPlateau. The learning rate is the
one of the grid (by default the paper's) with which EW has the least geometric mean of validation errors, and all rows have
it but STL, whose rate is chosen in the same way for itself: at EW's, some of its networks may not leave the mean. The
schedule and the choice of the epoch follow the mean logarithm of the validation losses: relative changes count, as in
delta_m. Loss balancers are run with `--seeds` seeds, gradient methods at the last shared layer with `--gradient-seeds`; STL
and gradient methods on all parameters ("full", as in the paper), whose steps cost most, with one.

u0, u298, h298 and g298 are one task: the column "delta_m of 8" has u0 alone of the four. "atom counts" is ridge regression
on the numbers of atoms; who is behind it on u0 has learnt nothing of geometry. T is the processor time of whole runs over
EW's, evaluation included; "T of a step" is the mean processor time of steps taken in turns over EW's.

A run that is finished is not done again: start the script once more after an interruption. `--finished` trains nothing and
prints the table of the runs that are there. An epoch of 10,000 molecules takes 3.6 s of one core with the SchNet and one
backward pass, seven times as long under a `full` gradient method.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from igb_qm9 import (
    GRADIENTS,
    LOSSES,
    RATES,
    Grid,
    add_arguments,
    agent,
    installed,
    reference_trees,
    table,
    written,
)

from bmtl.datasets import load
from bmtl.datasets.qm9_12k import FILE, SPLIT
from bmtl.experiments import Budget, Cell, Method, step_seconds, validation_scores

QUICK_SPLIT = {"train": 120, "val": 40, "test": 40}
BUDGET = Budget(epochs=40, batch_size=120, widths=(64, 64, 64), draws=20, score="log")
LAST = " (last-layer)"
COMBINED = {
    f"{igb}+{name}": (igb if igb == "igb-v1" else agent(name), text)
    for igb in ("igb-v1", "igb-v2")
    for name, text in GRADIENTS.items()
}
BALANCERS = {
    **LOSSES,
    **{name + LAST: f"last-layer >> {text}" for name, text in GRADIENTS.items()},
    **{name + LAST: f"{igb} >> last-layer >> {text}" for name, (igb, text) in COMBINED.items()},
    **GRADIENTS,
    **{name: f"{igb} >> {text}" for name, (igb, text) in COMBINED.items()},
}
QUICK = ("stl", "ew", "igb-v1", "nash-mtl (last-layer)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help=f"folder that holds {FILE}; by default what BMTL_DATA says")
    parser.add_argument("--out", type=Path, default=Path("runs/igb_qm9_graphs"))
    add_arguments(parser)
    parser.add_argument("--gradient-seeds", type=int, default=3, help="of gradient methods at the last shared layer")
    parser.add_argument("--trunk", default="schnet", help="schnet, nnconv, or the import path of your own")
    parser.add_argument(
        "--residual", action="store_true", help="subtract least squares on atom counts from every target"
    )
    parser.add_argument("--train", type=int, help="training molecules, at most 10,000")
    options = parser.parse_args()
    seeds = options.seeds or (1 if options.quick else 3)
    rates = tuple(map(float, options.rates.split(","))) if options.rates else RATES[:1] if options.quick else RATES
    epochs = options.epochs or (2 if options.quick else BUDGET.epochs)
    budget = replace(BUDGET, epochs=epochs, schedule=options.schedule)
    if options.quick:
        budget = replace(budget, widths=(16, 16))
    names = options.methods.split(",") if options.methods else QUICK if options.quick else None
    methods = installed(named(names, options.trunk))
    sizes = QUICK_SPLIT if options.quick else SPLIT
    sizes = {**sizes, "train": options.train or sizes["train"]}
    try:
        data = load("qm9-graphs", root=options.root, residual=options.residual, sizes=sizes)
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")

    trained = Grid(data, budget, options.out, options.jobs)
    stl, ew = methods[:2]
    rate = chosen_rate(trained, ew, rates)
    rate_of = {method.name: rate for method in methods} | {stl.name: chosen_rate(trained, stl, rates)}
    cells = [
        Cell(method, seed) for method in methods for seed in range(seeds_of(method, seeds, options.gradient_seeds))
    ]
    if not options.finished:
        for cell in cells:
            trained.run([cell], rate_of[cell.method.name])
    cells = [cell for cell in cells if trained.finished(cell, rate_of[cell.method.name])]
    runs = {(cell.method.name, cell.seed): trained.read(cell, rate_of[cell.method.name]) for cell in cells}
    trees = runs | reference_trees(data, options)
    taken = {(cell.method.name, cell.seed): trained.seconds(cell, rate_of[cell.method.name]) for cell in cells}
    timed = [method for method in methods if method.name in {cell.method.name for cell in cells}]
    steps = step_seconds(data, timed, replace(budget, lr=rate), steps=3 if options.quick else 12, processor=True)
    frame = table(trees, taken, steps)
    heading = (
        f"trunk {options.trunk} {'-'.join(map(str, budget.widths))}{', residual targets' * options.residual}, schedule "
        f"{budget.schedule!r}, learning rate {rate:g} (STL {rate_of[stl.name]:g})"
    )
    written(frame, options, heading, data, budget)


def named(names, trunk):
    """The methods of these names, with those that delta_m and T are relative to; all for None."""
    options = {"noise": "fixed"}  # trained at unit variance
    known = {"stl": Method("stl", options=options, single_task=True, trunk=trunk)}
    known |= {name: Method(name, balancer, options=options, trunk=trunk) for name, balancer in BALANCERS.items()}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        sys.exit(f"Error: no row is called {unknown[0]!r}; there are {', '.join(known)}.")
    return [method for name, method in known.items() if names is None or name in {"stl", "ew", *names}]


def seeds_of(method, seeds, gradient_seeds):
    """One where a step is eleven backward passes through a graph network."""
    if method.single_task:
        return 1
    if not any(name in method.balancer for name in GRADIENTS):
        return seeds
    return gradient_seeds if "last-layer" in method.balancer else 1


def chosen_rate(trained, method, rates):
    """The learning rate with which a method does best on validation."""
    found = {}
    for rate in rates:
        trained.run([Cell(method, 0)], rate)
        found[rate] = np.log(list(validation_scores(trained.read(Cell(method, 0), rate)).values())).mean()
    return min(found, key=found.get)


if __name__ == "__main__":
    main()
