"""Table 2 of the IGB paper (Dai et al. 2023) with a graph network: eleven tasks of QM9 on 12,000 molecules.

Run: python examples/igb_qm9_graphs.py --root ../shared/data [--out runs/igb_qm9_graphs] [--quick] [--jobs N] [--epochs E]
                                       [--seeds 3] [--methods ew,igb-v1,...] [--rates 1e-3,5e-4,1e-4] [--trunk schnet]
                                       [--residual] [--train 10000]

The network is a SchNet with linear filters, 64 wide; `--trunk nnconv` is the published one, at some ten times the price. As
in the paper: atomization energies, standardised targets, Adam, batches of 120, ReduceLROnPlateau. The learning rate is the
one of the paper's grid with which EW has the least geometric mean of validation errors, and all rows have it. The schedule
and the choice of the epoch follow the mean logarithm of the validation losses: relative changes count, as in delta_m. Loss
balancers and gradient methods at the last shared layer are run with `--seeds` seeds, gradient methods on all parameters
("full", as in the paper) with one.

u0, u298, h298 and g298 are one task: the column "delta_m of 8" has u0 alone of the four. "atom counts" is ridge regression
on the numbers of atoms; who is behind it on u0 has learnt nothing of geometry. "T of a step" is the median of steps taken in
turns over EW's, T the time of whole runs over EW's, which suffers from what else the machine does.

A run that is finished is not done again: start the script once more after an interruption. An epoch of 10,000 molecules
takes 3 to 6 s of one core with the SchNet and one backward pass, 5 to 7 times as long under a `full` gradient method.
"""

import argparse
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from igb_qm9 import PAPER, RATES, Grid, number, training_time, with_spread

from bmtl.datasets import load
from bmtl.datasets.qm9_12k import FILE, SPLIT
from bmtl.datasets.qm9_properties import UNITS
from bmtl.evaluation import comparison
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.experiments import Budget, Cell, Method, step_seconds, validation_scores
from bmtl.experiments.references import run_references

QUICK_SPLIT = {"train": 120, "val": 40, "test": 40}
BUDGET = Budget(epochs=40, batch_size=120, widths=(64, 64, 64), draws=20, score="log", schedule="plateau")
ONE_ENERGY = [task for task in UNITS if task not in ("u298", "h298", "g298")]

LOSSES = ("ew", "rlw", "dwa", "uw", "si", "igb-v1", "igb-v2")
GRADIENTS = {
    "mgda": "mgda",
    "pcgrad": "pcgrad",
    "cagrad": "cagrad(c=0.4)",
    "imtl-g": "imtl-g",
    "nash-mtl": "nash-mtl",
}
AGENTS = {"igb-v1": "igb-v1", "igb-v2": "igb-v2(sac_lr=1e-4)"}
BALANCERS = {
    **{name: name for name in LOSSES},
    **GRADIENTS,
    **{f"{name} (last-layer)": f"last-layer >> {balancer}" for name, balancer in GRADIENTS.items()},
    **{f"{igb}+{name}": f"{agent} >> {text}" for igb, agent in AGENTS.items() for name, text in GRADIENTS.items()},
}
QUICK = ("stl", "ew", "igb-v1", "nash-mtl (last-layer)")
COUNTS = "atom counts"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help=f"folder that holds {FILE}; by default what BMTL_DATA says")
    parser.add_argument("--out", type=Path, default=Path("runs/igb_qm9_graphs"))
    parser.add_argument("--quick", action="store_true", help="shows that everything runs, not how well")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, help="of loss balancers and last-layer methods")
    parser.add_argument("--methods", help="names of the table's rows, separated by commas; all by default")
    parser.add_argument("--rates", help="learning rates to choose EW's from, separated by commas")
    parser.add_argument("--trunk", default="schnet", help="schnet, nnconv, or the import path of your own")
    parser.add_argument(
        "--residual", action="store_true", help="subtract least squares on atom counts from every target"
    )
    parser.add_argument("--train", type=int, help="training molecules, at most 10,000")
    options = parser.parse_args()
    seeds = options.seeds or (1 if options.quick else 3)
    rates = tuple(map(float, options.rates.split(","))) if options.rates else RATES[:1] if options.quick else RATES
    budget = replace(BUDGET, epochs=options.epochs or (2 if options.quick else BUDGET.epochs))
    if options.quick:
        budget = replace(budget, widths=(16, 16))
    methods = named(options.methods.split(",") if options.methods else QUICK if options.quick else None, options.trunk)
    if importlib.util.find_spec("stable_baselines3") is None:
        print("igb-v2 is left out: it needs stable-baselines3 (pip install 'bmtl[rl]').")
        methods = [method for method in methods if "igb-v2" not in method.balancer]
    sizes = QUICK_SPLIT if options.quick else SPLIT
    try:
        data = load(
            "qm9-graphs",
            root=options.root,
            residual=options.residual,
            sizes={**sizes, "train": options.train or sizes["train"]},
        )
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")

    trained = Grid(data, budget, options.out, options.jobs)
    rate = chosen_rate(trained, methods, rates)
    cells = [Cell(method, seed) for method in methods for seed in range(seeds_of(method, seeds))]
    trained.run(cells, rate)
    trees = {(cell.method.name, cell.seed): trained.read(cell, rate) for cell in cells}
    (counts,) = run_references(data, options.out, "seed-0", 0, ("linear",)).values()
    seconds = step_seconds(data, methods, replace(budget, lr=rate), steps=3 if options.quick else 20)
    frame = table(trees, counts, seconds)
    frame.to_csv(options.out / "table.csv")
    text = report(frame, data, budget, rate, options)
    (options.out / "table.md").write_text(text)
    print(text)
    print(f"Wrote {options.out}/table.csv and {options.out}/table.md.")


def named(names, trunk):
    """The methods of these names, with those that delta_m and T are relative to; all for None."""
    options = {"noise": "fixed"}  # trained at unit variance
    known = {"stl": Method("stl", options=options, single_task=True, trunk=trunk)}
    known |= {name: Method(name, balancer, options=options, trunk=trunk) for name, balancer in BALANCERS.items()}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        sys.exit(f"Error: no row is called {unknown[0]!r}; there are {', '.join(known)}.")
    return [method for name, method in known.items() if names is None or name in {"stl", "ew", *names}]


def seeds_of(method, seeds):
    """One for gradient methods on all parameters: eleven backward passes through a graph network."""
    return 1 if any(name in method.balancer for name in GRADIENTS) and "last-layer" not in method.balancer else seeds


def chosen_rate(trained, methods, rates):
    """The learning rate with which EW does best on validation."""
    ew = next(method for method in methods if method.name == "ew")
    found = {}
    for rate in rates:
        trained.run([Cell(ew, 0)], rate)
        found[rate] = np.log(list(validation_scores(trained.read(Cell(ew, 0), rate)).values())).mean()
    return min(found, key=found.get)


def table(trees, counts, seconds):
    """A row a method: delta_m, times, errors, each with its spread over seeds and the paper's."""
    scores = comparison.compare({**trees, (COUNTS, 0): counts}, baseline="stl", reference="ew", step_seconds=seconds)
    means, deviations = comparison.table(scores), comparison.spread(scores)
    means = means.reindex([*dict.fromkeys(name for name, _ in trees), COUNTS])  # in the order given
    paper = pd.DataFrame(PAPER, index=[*UNITS, "delta_m", "T"]).T.reindex(means.index)
    of = {task: f"MAE {task} [{unit}]" for task, unit in UNITS.items()}
    eight = means[[of[task] for task in ONE_ENERGY]]
    columns = {
        "delta_m [%]": means["delta_m [%]"],
        "delta_m sd": deviations["delta_m [%]"],
        "delta_m paper": paper["delta_m"],
        "delta_m of 8 [%]": pd.Series(
            {name: float(comparison.delta_m(row, eight.loc["stl"])) for name, row in eight.iterrows() if name != "stl"}
        ),
        "T": training_time(trees),
        "T paper": paper["T"],
        "T of a step": means["T"],
    }
    for task, name in of.items():
        columns |= {name: means[name], f"{name} sd": deviations[name], f"{name} paper": paper[task]}
    return pd.DataFrame(columns).reindex(means.index)


def report(frame, data, budget, rate, options):
    sizes = " / ".join(f"{len(rows):,}" for rows in data.rows.values())
    header = ["method", "delta_m [%]", "delta_m paper [%]", "delta_m of 8 [%]", "T", "T paper", "T of a step"]
    overall = [
        [
            name,
            with_spread(row["delta_m [%]"], row["delta_m sd"]),
            *(number(row[column]) for column in ("delta_m paper", "delta_m of 8 [%]", "T", "T paper", "T of a step")),
        ]
        for name, row in frame.iterrows()
    ]
    errors = [
        [
            name,
            *(with_spread(row[f"MAE {task} [{unit}]"], row[f"MAE {task} [{unit}] sd"]) for task, unit in UNITS.items()),
        ]
        for name, row in frame.iterrows()
    ]
    bound = frame.loc[COUNTS, "MAE u0 [meV]"]
    behind = [name for name in frame.index if name != COUNTS and frame.loc[name, "MAE u0 [meV]"] >= bound]
    return "\n".join(
        [
            f"QM9, {sizes} molecules, trunk {options.trunk} {'-'.join(map(str, budget.widths))}, {budget.epochs} epochs, "
            f"learning rate {rate:g}{', residual targets' * options.residual}. delta_m: mean relative change of MAE against "
            "STL, on test; of 8: with u0 alone of the four energies. T: time over EW's. Paper: Dai et al. 2023, Table 2 "
            "(110,000 molecules, 300 epochs).",
            "",
            markdown_table(header, *overall),
            "",
            "Mean absolute error on test.",
            "",
            markdown_table(["method", *(f"{task} [{unit}]" for task, unit in UNITS.items())], *errors),
            "",
            f"Behind the atom counts on u0: {', '.join(behind) or 'none'}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
