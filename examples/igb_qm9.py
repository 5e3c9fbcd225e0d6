"""Table 2 of the IGB paper (Dai et al. 2023) on 12,000 molecules: loss and gradient balancers on eleven tasks of QM9.

Run: python examples/igb_qm9.py --root ../shared/data [--out runs/igb_qm9] [--quick] [--jobs N] [--epochs E] [--seeds 3]
                                [--methods si,igb-v1,igb-v2,...] [--rates 1e-3,5e-4,1e-4]

As in the paper: standardised targets, Adam, learning rate from {1e-3, 5e-4, 1e-4} chosen for each method by delta_m on
validation (with seed 0), ReduceLROnPlateau. Not as in the paper: 10,000 / 1,000 / 1,000 molecules and a 256-256 network on
34 given features (there: 110,000 / 10,000 / 10,000 and a graph network), three seeds, 100 epochs and not 300. The schedule
and the choice of the epoch follow the mean logarithm of the validation losses, which counts relative changes as delta_m
does. STL takes the learning rate with the least geometric mean of its validation errors.

A run that is finished is not done again: start the script once more after an interruption. T is the time of all steps over
EW's, seed by seed, as in the paper; it suffers from whatever else the machine did, so use --jobs 1 on a quiet one. "T of a
step" is the median of steps taken in turns at the end, which is steadier and does not see the bursts of igb-v2's agent.

"igb-v2 sampled" draws the weights from the agent's policy, as the paper's text has it; "rlw+si" has no agent. "stl" and "ew"
are always among the methods, since delta_m and T are relative to them. To compare a few over more seeds:

    python examples/igb_qm9.py --root ../shared/data --methods si,igb-v1,igb-v2 --rates 1e-3 --seeds 6

Estimated time of the full run, from one epoch of each method (six of igb-v2) on a shared two-core machine: an epoch takes
0.6 s (ew) to 1.7 s (nash-mtl), 2.4 s in all for STL, so the 85 runs of 100 epochs take about 3 1/2 hours with --jobs 1 and
the paper's 300 epochs about 10. Their files take about 0.3 GB.
"""

import argparse
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from bmtl.datasets import load
from bmtl.datasets.qm9_12k import FILE, SPLIT, SPLIT_SEED
from bmtl.datasets.qm9_properties import UNITS
from bmtl.evaluation import comparison, results
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.experiments import Budget, Cell, Failure, Method, run_cells, step_seconds, validation_scores

QUICK_SPLIT = {"train": 400, "val": 100, "test": 100}
RATES = (1e-3, 5e-4, 1e-4)
BUDGET = Budget(epochs=100, batch_size=120, widths=(256, 256), draws=20, score="log", schedule="plateau")

FIXED = {"noise": "fixed"}  # trained at unit variance

UNDER_TEST = [
    Method("stl", options=FIXED, single_task=True),
    *(Method(name, name, options=FIXED) for name in ("ew", "rlw", "dwa", "uw", "si", "igb-v1", "igb-v2")),
    Method("igb-v2 sampled", "igb-v2(explore=1)", options=FIXED),
    Method("rlw+si", "rlw(phi='log')", options=FIXED),
    *(Method(name, name, options=FIXED) for name in ("mgda", "pcgrad")),
    Method("cagrad", "cagrad(c=0.4)", options=FIXED),
    *(Method(name, name, options=FIXED) for name in ("imtl-g", "nash-mtl")),
    Method("igb-v1+nash", "igb-v1 >> nash-mtl", options=FIXED),
    Method("igb-v2+nash", "igb-v2(sac_lr=1e-4) >> nash-mtl", options=FIXED),
]
METHODS = [method.on_trunk("mlp") for method in UNDER_TEST]
QUICK = ("stl", "ew", "igb-v1", "igb-v2", "nash-mtl")

# Dai et al. (2023), "Improvable Gap Balancing for Multi-Task Learning", Table 2: MAE in the order and units of UNITS,
# then delta_m in percent and T. The table has no row for SI and none for a combination.
PAPER = {
    "stl": (0.067, 0.181, 60.57, 53.91, 0.502, 4.53, 58.8, 64.2, 63.8, 66.2, 0.072, np.nan, np.nan),
    "ew": (0.106, 0.325, 73.57, 89.67, 5.19, 14.06, 143.4, 144.2, 144.6, 140.3, 0.128, 177.6, 1.00),
    "rlw": (0.113, 0.340, 76.95, 92.76, 5.86, 15.46, 156.3, 157.1, 157.6, 153.0, 0.137, 203.8, 1.00),
    "dwa": (0.107, 0.325, 74.06, 90.61, 5.09, 13.99, 142.3, 143.0, 143.4, 139.3, 0.125, 175.3, 1.00),
    "uw": (0.386, 0.425, 166.2, 155.8, 1.06, 4.99, 66.40, 66.78, 66.80, 66.24, 0.122, 108.0, 1.02),
    "igb-v1": (0.271, 0.351, 143.1, 132.4, 1.07, 4.53, 56.74, 57.13, 57.16, 56.73, 0.115, 73.9, 1.01),
    "igb-v2": (0.251, 0.333, 149.1, 130.2, 0.956, 4.39, 56.75, 57.19, 57.25, 56.73, 0.110, 67.7, 1.16),
    "mgda": (0.217, 0.368, 126.8, 104.6, 3.22, 5.69, 88.37, 89.40, 89.32, 88.01, 0.120, 120.5, 22.90),
    "pcgrad": (0.106, 0.293, 75.85, 88.33, 3.94, 9.15, 116.4, 116.8, 117.2, 114.5, 0.110, 125.7, 5.85),
    "cagrad": (0.118, 0.321, 83.51, 94.81, 3.21, 6.93, 114.0, 114.3, 114.5, 112.3, 0.116, 112.8, 4.97),
    "imtl-g": (0.136, 0.287, 98.31, 93.96, 1.75, 5.69, 101.4, 102.4, 102.0, 100.1, 0.096, 77.2, 4.96),
    "nash-mtl": (0.102, 0.248, 82.95, 81.89, 2.42, 5.38, 74.5, 75.02, 75.10, 74.16, 0.093, 62.0, 7.20),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help=f"folder that holds {FILE}; by default what BMTL_DATA says")
    parser.add_argument("--out", type=Path, default=Path("runs/igb_qm9"))
    parser.add_argument("--quick", action="store_true", help="shows that everything runs, not how well")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--methods", help="names of the table's rows, separated by commas; all by default")
    parser.add_argument("--rates", help="learning rates to choose from, separated by commas")
    options = parser.parse_args()
    seeds = options.seeds or (1 if options.quick else 3)
    rates = tuple(map(float, options.rates.split(","))) if options.rates else RATES[:1] if options.quick else RATES
    budget = replace(BUDGET, epochs=options.epochs or (2 if options.quick else BUDGET.epochs))
    methods = named(options.methods.split(",") if options.methods else QUICK if options.quick else None)
    if importlib.util.find_spec("stable_baselines3") is None:
        print("igb-v2 is left out: it needs stable-baselines3 (pip install 'bmtl[rl]').")
        methods = [method for method in methods if "igb-v2" not in method.balancer]
    try:
        data = load("qm9-12k", root=options.root, sizes=QUICK_SPLIT if options.quick else SPLIT)
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")

    trained = Grid(data, budget, options.out, options.jobs)
    for rate in rates:
        trained.run([Cell(method, 0) for method in methods], rate)
    chosen, validation = choose(methods, rates, trained)
    for rate in rates:
        trained.run([Cell(m, seed) for m in methods for seed in range(1, seeds) if chosen[m.name] == rate], rate)
    trees = {(m.name, seed): trained.read(Cell(m, seed), chosen[m.name]) for m in methods for seed in range(seeds)}
    seconds = step_seconds(data, methods, budget, steps=3 if options.quick else 40)
    scores = comparison.compare(trees, baseline="stl", reference="ew", step_seconds=seconds)
    frame = table(scores, chosen, validation, training_time(trees))
    frame.to_csv(options.out / "table.csv")
    text = report(frame, seeds, budget, data)
    (options.out / "table.md").write_text(text)
    print(text)
    print(
        f"Wrote {options.out}/table.csv and {options.out}/table.md; runs: {options.out}/lr-<rate>/<method>/seed-<n>/."
    )


def named(names):
    """The methods of these names, with those that delta_m and T are relative to; all for None."""
    known = {method.name: method for method in METHODS}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        sys.exit(f"Error: no row is called {unknown[0]!r}; there are {', '.join(known)}.")
    return [method for name, method in known.items() if names is None or name in {"stl", "ew", *names}]


class Grid:
    """Runs by method, seed and learning rate, each in a folder of its own."""

    def __init__(self, data, budget, out, jobs):
        self.data, self.budget, self.out, self.jobs = data, budget, out, jobs

    def folder(self, rate):
        return self.out / f"lr-{rate:g}"

    def run(self, cells, rate):
        if cells:
            budget, failed = replace(self.budget, lr=rate), []
            for n, done in enumerate(run_cells(self.data, cells, budget, self.folder(rate), jobs=self.jobs), 1):
                if isinstance(done, Failure):
                    failed.append(f"{done.cell}: {done.reason}")
                    continue
                print(f"lr {rate:g}: {done.method.name}, seed {done.seed} ({n} of {len(cells)})", flush=True)
            if failed:
                sys.exit(f"Error: these runs failed at lr {rate:g}, and the table needs them: {'; '.join(failed)}")

    def read(self, cell, rate):
        return results.read(cell.folder(self.folder(rate)) / "results.nc")


def choose(methods, rates, trained):
    """Each method's learning rate by its delta_m on validation, in percent, which is given too."""
    errors = {
        (m.name, rate): np.array(list(validation_scores(trained.read(Cell(m, 0), rate)).values()))  # (K,)
        for m in methods
        for rate in rates
    }
    chosen = {"stl": min(rates, key=lambda rate: np.log(errors["stl", rate]).mean())}
    baseline = errors["stl", chosen["stl"]]
    change = {key: float(comparison.delta_m(values, baseline)) for key, values in errors.items()}
    for method in methods[1:]:
        chosen[method.name] = min(rates, key=lambda rate: np.nan_to_num(change[method.name, rate], nan=np.inf))
    return chosen, {name: change[name, rate] for name, rate in chosen.items()}


def training_time(trees):
    total = {key: float(tree["training"]["seconds"].sum()) for key, tree in trees.items()}
    ratios = pd.Series(
        {(name, seed): time / total["ew", seed] for (name, seed), time in total.items() if name != "stl"}
    )
    return ratios.groupby(level=0).mean()


def table(scores, chosen, validation, time):
    means, deviations = comparison.table(scores), comparison.spread(scores)
    paper = pd.DataFrame(PAPER, index=[*UNITS, "delta_m", "T"]).T.reindex(means.index)
    columns = {
        "lr": pd.Series(chosen),
        "delta_m on validation, seed 0 [%]": pd.Series(validation),
        "delta_m [%]": means["delta_m [%]"],
        "delta_m sd": deviations["delta_m [%]"],
        "delta_m paper": paper["delta_m"],
        "T": time,
        "T of a step": means["T"],
        "T paper": paper["T"],
    }
    for task, unit in UNITS.items():
        name = f"MAE {task} [{unit}]"
        columns |= {name: means[name], f"MAE {task} sd": deviations[name], f"MAE {task} paper": paper[task]}
    return pd.DataFrame(columns).reindex(means.index)


def report(frame, seeds, budget, data):
    sizes = " / ".join(f"{len(rows):,}" for rows in data.rows.values())
    overall = [
        [
            method,
            f"{row['lr']:g}",
            number(row["delta_m on validation, seed 0 [%]"]) if method != "stl" else "",
            with_spread(row["delta_m [%]"], row["delta_m sd"]),
            number(row["delta_m paper"]),
            number(row["T"]),
            number(row["T paper"]),
            number(row["T of a step"]),
        ]
        for method, row in frame.iterrows()
    ]
    header = [
        "method",
        "lr",
        "delta_m validation [%]",
        "delta_m [%]",
        "delta_m paper [%]",
        "T",
        "T paper",
        "T of a step",
    ]
    errors = [
        [method, *(with_spread(row[f"MAE {task} [{unit}]"], row[f"MAE {task} sd"]) for task, unit in UNITS.items())]
        for method, row in frame.iterrows()
    ]
    both = frame[["delta_m [%]", "delta_m paper"]].dropna()
    agreement = spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic
    return "\n".join(
        [
            f"QM9, {sizes} molecules (split seed {SPLIT_SEED}), network {'-'.join(map(str, budget.widths))}, "
            f"{budget.epochs} epochs, {seeds} seed{'s' * (seeds > 1)}{', mean ± standard deviation' * (seeds > 1)}. "
            "delta_m: mean relative change of MAE against STL, on test; lower is better. T: training time over EW's. "
            "Paper: Dai et al. 2023, Table 2 (110,000 molecules, graph network).",
            "",
            markdown_table(header, *overall),
            "",
            f"Rank correlation of delta_m with the paper's over {len(both)} methods (Spearman): {agreement:+.2f}.",
            "",
            "Mean absolute error on test. u0, u298, h298 and g298 are all but one task.",
            "",
            markdown_table(["method", *(f"{task} [{unit}]" for task, unit in UNITS.items())], *errors),
            "",
        ]
    )


def with_spread(mean, deviation):
    return number(mean) + (f" ± {number(deviation)}" if np.isfinite(deviation) else "")


def number(value):
    if not np.isfinite(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
