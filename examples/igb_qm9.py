"""Table 2 of the IGB paper (Dai et al. 2023) on 12,000 molecules: loss and gradient balancers on eleven tasks of QM9.

Run: python examples/igb_qm9.py --root ../shared/data [--out runs/igb_qm9] [--quick] [--jobs N] [--epochs E] [--seeds 3]
                                [--methods si,igb-v1,igb-v2,...] [--rates 1e-3,5e-4,1e-4] [--schedule plateau]
                                [--finished] [--results FILE]

As in the paper: atomization energies, standardised targets, Adam, learning rate from {1e-3, 5e-4, 1e-4} chosen for each
method by delta_m on validation (with seed 0), ReduceLROnPlateau. Not as in the paper: 10,000 / 1,000 / 1,000 molecules and a
256-256 network on 34 given features (there: 110,000 / 10,000 / 10,000 and a graph network), three seeds, 100 epochs and not
300. The schedule and the choice of the epoch follow the mean logarithm of the validation losses, which counts relative
changes as delta_m does. STL takes the learning rate with the least geometric mean of its validation errors.

A run that is finished is not done again: start the script once more after an interruption. `--finished` trains nothing and
prints the table of the runs that are there. T is the processor time of whole runs over EW's, evaluation included, of one
process (--jobs 1). "T of a step" is the mean processor time of steps taken in turns at the end.

"igb-v2 sampled" draws the weights from the agent's policy, as the paper's text has it; "rlw+si" and "dwa+si" are those of
the paper's Table 4 and have no agent; "igb-v2 without min", "igb-v2 with lr0 / lr" and "igb-v2 buffer 5e2" are its Table 3.
"stl" and "ew" are always among the methods, since delta_m and T are relative to them. Least squares on the numbers of atoms,
ridge regression and boosted trees on the features are reference rows.

An epoch takes 0.3 s (ew) to 1.0 s (nash-mtl), 2.2 s in all for STL, of one core.
"""

import argparse
import importlib.util
import sys
import time
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
from bmtl.experiments.budgets import SCHEDULES
from bmtl.experiments.cells import Job
from bmtl.experiments.references import run_references

QUICK_SPLIT = {"train": 400, "val": 100, "test": 100}
RATES = (1e-3, 5e-4, 1e-4)
BUDGET = Budget(epochs=100, batch_size=120, widths=(256, 256), draws=20, score="log", schedule="plateau")

FIXED = {"noise": "fixed"}  # trained at unit variance

LOSSES = {name: name for name in ("ew", "rlw", "dwa", "uw", "si", "igb-v1", "igb-v2")}
ABLATIONS = {  # Table 3, and 4 but for UW on log-losses, which the paper has not either
    "rlw+si": "rlw(phi='log')",
    "dwa+si": "dwa(phi='log')",
    "igb-v2 sampled": "igb-v2(explore=1)",
    "igb-v2 without min": "igb-v2(reward='mean')",
    "igb-v2 with lr0 / lr": "igb-v2(lr_factor=True)",
    "igb-v2 buffer 5e2": "igb-v2(buffer=500)",
}
ON_LOGARITHMS = ("si", "igb-v1", "igb-v2", *ABLATIONS)
GRADIENTS = {
    "mgda": "mgda",
    "pcgrad": "pcgrad",
    "cagrad": "cagrad(c=0.4)",
    "imtl-g": "imtl-g",
    "nash-mtl": "nash-mtl",
}


def agent(gradient):
    """IGBv2 beside a gradient balancer, at the paper's learning rate."""
    return "igb-v2(sac_lr=1e-4)" if gradient in ("mgda", "pcgrad", "nash-mtl") else "igb-v2"


COMBINED = {f"igb-v1+{name}": f"igb-v1 >> {text}" for name, text in GRADIENTS.items()}
COMBINED |= {f"igb-v2+{name}": f"{agent(name)} >> {text}" for name, text in GRADIENTS.items()}
UNDER_TEST = [
    Method("stl", options=FIXED, single_task=True),
    *(Method(name, text, options=FIXED) for name, text in (LOSSES | ABLATIONS | GRADIENTS | COMBINED).items()),
]
METHODS = [method.on_trunk("mlp") for method in UNDER_TEST]
QUICK = ("stl", "ew", "igb-v1", "igb-v2", "nash-mtl")
COUNTS = "atom counts"
ONE_ENERGY = [task for task in UNITS if task not in ("u298", "h298", "g298")]
SECONDS = "processor_seconds.txt"

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
    add_arguments(parser)
    options = parser.parse_args()
    seeds = options.seeds or (1 if options.quick else 3)
    rates = tuple(map(float, options.rates.split(","))) if options.rates else RATES[:1] if options.quick else RATES
    epochs = options.epochs or (2 if options.quick else BUDGET.epochs)
    budget = replace(BUDGET, epochs=epochs, schedule=options.schedule)
    methods = installed(named(options.methods.split(",") if options.methods else QUICK if options.quick else None))
    sizes = QUICK_SPLIT if options.quick else SPLIT
    try:
        data = load("qm9-12k", root=options.root, sizes=sizes)
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")

    trained = Grid(data, budget, options.out, options.jobs)
    if not options.finished:
        for rate in rates:
            trained.run([Cell(method, 0) for method in methods], rate)
    methods = [m for m in methods if all(trained.finished(Cell(m, 0), rate) for rate in rates)]
    chosen, validation = choose(methods, rates, trained)
    if not options.finished:
        for rate in rates:
            trained.run([Cell(m, seed) for m in methods for seed in range(1, seeds) if chosen[m.name] == rate], rate)
    cells = {(m.name, seed): Cell(m, seed) for m in methods for seed in range(seeds)}
    cells = {key: cell for key, cell in cells.items() if trained.finished(cell, chosen[cell.method.name])}
    trees = {key: trained.read(cell, chosen[cell.method.name]) for key, cell in cells.items()}
    trees |= reference_trees(data, options)
    taken = {key: trained.seconds(cell, chosen[cell.method.name]) for key, cell in cells.items()}
    steps = step_seconds(data, methods, budget, steps=3 if options.quick else 12, processor=True)
    frame = table(trees, taken, steps)
    frame.insert(0, "lr", pd.Series(chosen))
    frame.insert(1, "delta_m validation [%]", pd.Series(validation))
    heading = f"network {'-'.join(map(str, budget.widths))} on 34 features, schedule {budget.schedule!r}"
    written(frame, options, heading, data, budget)


def add_arguments(parser):
    """Options of this example and of the one with a graph network."""
    parser.add_argument("--quick", action="store_true", help="shows that everything runs, not how well")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--methods", help="names of the table's rows, separated by commas; all by default")
    parser.add_argument("--rates", help="learning rates to choose from, separated by commas")
    parser.add_argument("--schedule", default="plateau", choices=sorted(SCHEDULES))
    parser.add_argument("--finished", action="store_true", help="train nothing: the table of the runs that are there")
    parser.add_argument("--results", type=Path, help="a second file for the table, numbers to five digits")


def installed(methods):
    """Without those whose agent is not installed."""
    if importlib.util.find_spec("stable_baselines3") is not None:
        return methods
    print("igb-v2 is left out: it needs stable-baselines3 (pip install 'bmtl[rl]').")
    return [method for method in methods if "igb-v2" not in method.balancer]


def reference_trees(data, options):
    """Least squares on the numbers of atoms, ridge regression and boosted trees on features, of the same molecules."""
    sizes = {part: len(rows) for part, rows in data.rows.items()}
    found = {}
    features = {"linear": "ridge"} if options.quick else {"linear": "ridge", "boosting": "boosting"}
    for name, given in (("qm9-graphs", {"linear": COUNTS}), ("qm9-12k", features)):
        same = load(name, root=options.root, sizes=sizes)
        trees = run_references(same, options.out / name, "seed-0", 0, tuple(given)).values()
        found |= {(called, 0): tree for called, tree in zip(given.values(), trees, strict=True)}
    return found


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
        self.known = set()  # cells that were found finished: to check one, its whole file is read

    def folder(self, rate):
        return self.out / f"lr-{rate:g}"

    def run(self, cells, rate):
        if cells:
            missing = {str(cell) for cell in cells if not self.finished(cell, rate)}
            budget, failed, start = replace(self.budget, lr=rate), [], time.process_time()
            for n, done in enumerate(run_cells(self.data, cells, budget, self.folder(rate), jobs=self.jobs), 1):
                if isinstance(done, Failure):
                    failed.append(f"{done.cell}: {done.reason}")
                    start = time.process_time()
                    continue
                print(f"lr {rate:g}: {done.method.name}, seed {done.seed} ({n} of {len(cells)})", flush=True)
                if str(done) in missing and self.jobs == 1:
                    seconds = time.process_time() - start
                    (done.folder(self.folder(rate)) / SECONDS).write_text(f"{seconds:.2f}\n")
                start = time.process_time()
            if failed:
                sys.exit(f"Error: these runs failed at lr {rate:g}, and the table needs them: {'; '.join(failed)}")

    def finished(self, cell, rate):
        key = (str(cell), rate)
        if (
            key not in self.known
            and Job.of(self.data, cell, replace(self.budget, lr=rate), self.folder(rate)).finished()
        ):
            self.known.add(key)
        return key in self.known

    def read(self, cell, rate):
        return results.read(cell.folder(self.folder(rate)) / "results.nc")

    def seconds(self, cell, rate):
        """Processor time of a whole run; NaN where several processes ran at once."""
        file = cell.folder(self.folder(rate)) / SECONDS
        return float(file.read_text()) if file.is_file() else np.nan


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


def errors_of(trees):
    """MAE on test in reported units: a row for each (method, seed), a column for each task."""
    scores = comparison.compare(trees, baseline=None, reference=None)
    mae = scores["score"].sel(metric="mae")
    return pd.DataFrame(
        [mae.sel(learner=name, split=seed).values for name, seed in trees],
        index=pd.MultiIndex.from_tuples(trees, names=["method", "seed"]),
        columns=mae["task"].values,
    )[list(UNITS)]


def table(trees, run_seconds, step_seconds):
    """A row for each method: delta_m, times and errors, with their spread over seeds and the paper's.

    delta_m is against the mean errors of all STL runs, so that STL may have fewer seeds than the others; of EW's where no
    STL run is there.
    """
    errors = errors_of(trees)
    order = list(dict.fromkeys(name for name, _ in trees))
    against = "stl" if "stl" in order else "ew"
    baseline = errors.loc[against].mean()
    change = pd.DataFrame(
        {
            "delta_m": comparison.delta_m(errors, baseline),
            "of 8": comparison.delta_m(errors[ONE_ENERGY], baseline[ONE_ENERGY]),
        },
        index=errors.index,
    )
    of_method = change.groupby(level="method", sort=False)
    means, deviations = of_method.mean(), of_method.std()
    means.loc[against] = deviations.loc[against] = np.nan
    seconds = pd.Series(run_seconds).groupby(level=0).mean()
    steps = pd.Series(step_seconds, dtype=float)
    paper = pd.DataFrame(PAPER, index=[*UNITS, "delta_m", "T"]).T.reindex(order)
    if against == "ew":
        paper["delta_m"] = comparison.delta_m(paper[list(UNITS)], paper.loc["ew", list(UNITS)].astype(float))
        paper.loc["ew", "delta_m"] = np.nan
    columns = {
        "seeds": errors.groupby(level="method").size(),
        "delta_m [%]": means["delta_m"],
        "delta_m sd": deviations["delta_m"],
        "delta_m paper": paper["delta_m"],
        "delta_m of 8 [%]": means["of 8"],
        "delta_m of 8 sd": deviations["of 8"],
        "T": (seconds / seconds["ew"]).drop("stl", errors="ignore"),
        "T paper": paper["T"],
        "T of a step": steps / steps.get("ew", np.nan),
        "seconds": seconds,
    }
    for task, unit in UNITS.items():
        of_task = errors[task].groupby(level="method")
        columns[f"MAE {task} [{unit}]"] = of_task.mean()
        columns |= {f"MAE {task} sd": of_task.std(), f"MAE {task} paper": paper[task]}
    columns["logit sd of weights"] = pd.Series(logit_spread(trees))
    return pd.DataFrame(columns).reindex(order)


def logit_spread(trees):
    """Method -> standard deviation over tasks of log lambda_k, mean over the second half of training and over seeds.

    Of losses ``sum_k lambda_k log L_k`` alone: 0 for SI, about 1 for random weights.
    """
    found = {}
    for (name, _), tree in trees.items():
        if name in ON_LOGARITHMS:
            training = tree["training"]
            weights = (
                training["weights"] * training["losses"]
            ).values  # lambda_k: effective weights are lambda_k / L_k
            found.setdefault(name, []).append(np.log(weights[len(weights) // 2 :]).std(axis=1).mean())
    return {name: round(float(np.mean(values)), 6) for name, values in found.items()}


def report(frame, heading, data, budget):
    sizes = " / ".join(f"{len(rows):,}" for rows in data.rows.values())
    both = frame[["delta_m [%]", "delta_m paper"]].dropna()
    agreement = spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic if len(both) > 2 else np.nan
    overall, errors = tables(frame)
    against = "STL" if "stl" in frame.index else "EW, since STL was not run,"
    bound = frame.loc[COUNTS, "MAE u0 [meV]"]
    behind = [name for name in frame.index if name != COUNTS and frame.loc[name, "MAE u0 [meV]"] >= bound]
    lines = [
        f"QM9, {sizes} molecules (split seed {SPLIT_SEED}), {heading},",
        f"{budget.epochs} epochs; mean ± standard deviation over seeds. delta_m: mean relative change of MAE against",
        f"{against} on test, lower is better; of 8: with u0 alone of the four energies. T: processor time of",
        "runs over EW's; of a step: mean over steps in turns. logit sd: spread over tasks of the weights' logarithms.",
        "Paper: Dai et al. 2023, Table 2 (110,000 molecules, 300 epochs, graph network).",
        "",
        overall,
        "",
        f"Rank correlation of delta_m with the paper's over {len(both)} methods (Spearman): {agreement:+.2f}.",
        "",
        "Mean absolute error on test. u0, u298, h298 and g298 are all but one task.",
        "",
        errors,
        "",
        f"Behind the atom counts on u0: {', '.join(behind) or 'none'}.",
        "",
    ]
    return "\n".join(lines)


def tables(frame):
    """The tables of delta_m and times, and of errors, in Markdown."""
    chosen = [column for column in ("lr", "delta_m validation [%]") if column in frame]
    single = ("delta_m paper", "T", "T of a step", "T paper", "logit sd of weights")
    header = ["method", *chosen, "seeds", "delta_m [%]", "delta_m of 8 [%]", *single]
    overall = [
        [
            method,
            *(number(row[column]) for column in (*chosen, "seeds")),
            with_spread(row["delta_m [%]"], row["delta_m sd"]),
            with_spread(row["delta_m of 8 [%]"], row["delta_m of 8 sd"]),
            *(number(row[column]) for column in single),
        ]
        for method, row in frame.iterrows()
    ]
    errors = [
        [method, *(with_spread(row[f"MAE {task} [{unit}]"], row[f"MAE {task} sd"]) for task, unit in UNITS.items())]
        for method, row in frame.iterrows()
    ]
    return (
        markdown_table(header, *overall),
        markdown_table(["method", *(f"{task} [{unit}]" for task, unit in UNITS.items())], *errors),
    )


def written(frame, options, heading, data, budget):
    """Prints the table and writes it, to `--results` too."""
    frame = frame.map(rounded)
    text = report(frame, heading, data, budget)
    frame.to_csv(options.out / "table.csv")
    (options.out / "table.md").write_text(text)
    if options.results:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(options.results)
    print(text)
    print(
        f"Wrote {options.out}/table.csv and {options.out}/table.md; runs: {options.out}/lr-<rate>/<method>/seed-<n>/."
    )


def rounded(value):
    """To the five digits that a file of results has."""
    return float(f"{value:.5g}")


def with_spread(mean, deviation):
    return number(mean) + (f" ± {number(deviation)}" if np.isfinite(deviation) else "")


def number(value):
    if not np.isfinite(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
