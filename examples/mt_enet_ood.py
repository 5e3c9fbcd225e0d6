"""Figure 6 of the MT-ENet paper (Oh & Shin 2022) on wines: does the uncertainty know what is not like the training data?

Run: python examples/mt_enet_ood.py --root ../shared/data [--out runs/mt_enet_ood] [--docs docs] [--seeds 3]
                                    [--epochs E] [--quick]

The quality of red wine is learnt from 11 measurements, and white wine is what the networks have never seen. Not as in the
paper: its data (BindingDB) were not published in the form that was used.

In distribution: red wine without its repeated rows (240 of 1,599, of which a random split would put many in training and
test alike), split anew for each seed into training (64 %), validation (16 %) and test (20 %). Out of distribution: white
wine, as many rows as the test part has, drawn from those that repeat neither each other nor a red one; chance is thus 0.5
for AUROC and AUPR. Every network: 50 ReLU units, Adam at 0.008, batches of 32, 40 epochs, the epoch with the best validation
loss. Nothing is chosen on white wine.

Two controls. "halves" is the AUROC of one random half of the test rows against the other, between which there is no
difference: about 0.5. "nearest training row" scores a wine by its distance to that row, standardised, and needs no network:
it shows how different the two wines are in the inputs. RMSE (in grades) and NLL are those of the red test rows.

33 networks at 3 seeds: about five minutes of processor time. Writes each run's results tree, scores.csv (by seed, with 95 %
bootstrap intervals), table.md, and density.png: log epistemic uncertainty with the first seed. With --docs the table is
also a file of the documentation's results/, and the picture is one of its own.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import page_tables
import pandas as pd
import torch
from scipy.spatial import KDTree

from bmtl.datasets.files import Archive, find
from bmtl.datasets.many_tasks import assemble
from bmtl.evaluation import metrics, ood
from bmtl.evaluation.plots import ood_densities
from bmtl.evaluation.style import save
from bmtl.experiments import METHODS, Budget, run

FILE, TARGET = "wine_domains/wine_domains.npz", "quality"
NAMES = ("enet", "mse-enet", "mt-enet", "mt-enet-sample", "gaussian", "ensemble", "mc-dropout")
NEAREST = "nearest training row"
DETECTION = ("auroc", "aupr_out", "fpr95")
QUICK_ROWS = 300


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help=f"folder that holds {FILE}; by default what BMTL_DATA says")
    parser.add_argument("--out", type=Path, default=Path("runs/mt_enet_ood"))
    parser.add_argument(
        "--docs", type=Path, help="folder of the documentation, for the table in results/ and the picture"
    )
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--quick", action="store_true", help="one seed, 2 epochs, 300 rows: shows that everything runs")
    options = parser.parse_args()
    seeds = options.seeds or (1 if options.quick else 3)
    epochs = options.epochs or (2 if options.quick else 40)
    torch.set_num_threads(1)  # networks of this size are slower on two
    try:
        x, y, white = wines(options.root)
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")
    if options.quick:
        x, y = x[:QUICK_ROWS], y[:QUICK_ROWS]

    draws = 10 if options.quick else 100
    budget = Budget(epochs=epochs, schedule="constant", batch_size=32, lr=8e-3, widths=(50,), draws=draws)
    scores, first = [], {}
    for seed in range(seeds):
        data = assemble("red wine", x, y, task_names=[TARGET], units="grade", seed=seed)
        outside = sample(white, len(data.rows["test"]), seed)
        scores += nearest(data, outside, seed)
        for name in NAMES:
            tree = run(
                data, METHODS[name].on_trunk("mlp"), seed, budget, options.out / name / f"seed-{seed}", new=outside
            )
            first.setdefault(name, tree)
            scores += judged(tree, name, seed)
            print(f"{name}, seed {seed}: AUROC of the epistemic uncertainty {scores[-3]['auroc']:.3f}", flush=True)
    frame = pd.DataFrame(scores)
    frame.to_csv(options.out / "scores.csv", index=False)
    tables = options.out if options.docs is None else options.docs / "results"
    text = report(frame, len(data.rows["test"]), tables / "mt_enet_ood.csv")
    (options.out / "table.md").write_text(text)
    print(f"\n{text}")
    # A single Gaussian network holds nothing to be epistemic: there is no density to draw.
    drawn = {name: tree for name, tree in first.items() if name != "gaussian"}
    picture = options.out / "density.png" if options.docs is None else options.docs / "mt_enet_ood.png"
    save(ood_densities(drawn, TARGET, columns=3), picture)
    print(f"Wrote scores.csv, table.md and <method>/seed-<n>/results.nc to {options.out}, and {picture}.")


def wines(root):
    """Red wine ``(N, 11)`` with its quality ``(N,)``, and white wine ``(M, 11)``; no row twice."""
    source = "Red and white wine of the UCI repository, with the arrays X, y and domain (0 red)."
    file = Archive(find("wine", [FILE], root, source))
    x, y, domain = file.array("X"), file.array("y").astype(float), file.array("domain")
    _, kept = np.unique(x, axis=0, return_index=True)  # of red and white rows alike the first, a red one
    kept = np.sort(kept)
    red, white = kept[domain[kept] == 0], kept[domain[kept] == 1]
    return x[red], y[red], x[white]


def sample(x, count, seed):
    return x[np.sort(np.random.default_rng(seed).choice(len(x), count, replace=False))]


def judged(tree, name, seed):
    """One run's scores, a row for each kind of uncertainty."""
    on_test = {"rmse": metrics.rmse(tree)["rmse"], "nll": metrics.nll(tree)["nll"]}
    on_test = {metric: values.sel(task=TARGET).item() for metric, values in on_test.items()}
    sides = {kind: ood.uncertainties(tree, TARGET, kind) for kind in ood.SCORES}
    return [separation(name, seed, kind, *both) | on_test for kind, both in sides.items()]


def nearest(data, outside, seed):
    """The same of the distance to the nearest training row."""
    tree = KDTree(data.features("train"))
    distances = [tree.query(x)[0] for x in (data.features("test"), data.inputs.scaler.transform(outside))]
    return [separation(NEAREST, seed, "distance", *distances)]


def separation(name, seed, kind, inside, outside):
    """How well a score separates outside from inside, and a random half of inside from the other, which it should not."""
    row = {"method": name, "seed": seed, "uncertainty": kind}
    row |= with_interval(inside, outside, seed, DETECTION)
    halves = np.array_split(np.random.default_rng(seed).permutation(inside), 2)
    return row | {f"halves_{key}": value for key, value in with_interval(*halves, seed, ("auroc",)).items()}


def with_interval(inside, outside, seed, names):
    found = ood.detection_of_scores(inside, outside)
    low, high = ood.detection_intervals(inside, outside, seed=seed)
    ends = {"": found, "_low": low, "_high": high}
    return {f"{name}{end}": float(getattr(of, name)) for name in names for end, of in ends.items()}


def report(frame, rows, file):
    """The table of a page, and its file."""
    seeds = frame["seed"].nunique()
    header = ["method", "uncertainty", "AUROC ↑", "AUPR ↑", "FPR95 ↓", "halves", "RMSE ↓", "NLL ↓"]
    body = []
    for (name, kind), of in frame.groupby(["method", "uncertainty"], sort=False):
        cells = [entry(of, metric, interval=True) for metric in (*DETECTION, "halves_auroc")]
        plain = [entry(of, metric) if kind == ood.SCORES[0] else "" for metric in ("rmse", "nll")]
        body.append([name, kind, *cells, *plain])
    spread = f" Mean ± standard deviation over {seeds} seeds." if seeds > 1 else ""
    caption = [
        f"Red wine in distribution, white wine out of it; {rows} test rows of each.{spread} In brackets: 95 %",
        "bootstrap interval over the rows (its ends' means over seeds). Chance: AUROC and AUPR 0.5, FPR95 0.95 (1 if all",
        "scores are equal). halves: AUROC of one half of the red test rows against the other. RMSE, NLL: red test rows.",
    ]
    return "\n".join([*caption, "", page_tables.keep(file, header, body, left=2), ""])


def entry(of, metric, interval=False):
    values = of[metric]
    if values.isna().all():
        return ""
    text = f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")
    return text + (f" [{of[f'{metric}_low'].mean():.2f}, {of[f'{metric}_high'].mean():.2f}]" if interval else "")


if __name__ == "__main__":
    main()
