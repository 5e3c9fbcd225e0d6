"""Table 2 and Figure 6 of the MT-ENet paper (Oh & Shin 2022): drug-target affinity with evidential networks.

Run: python examples/mt_enet_dta.py --root ../shared/data [--set davis] [--setting warm] [--folds 1] [--epochs 12]
     [--trunk fingerprints --widths 256,256] [--methods enet,mt-enet] [--no-ood] [--out FOLDER] [--results FOLDER] [--quick]

Table 2. The test fold is the published one, and each of DeepDTA's five training folds is for validation in turn: five runs,
of which `--folds` are done. Under `--setting cold-drug`, `cold-target` and `cold-both` the drugs, the proteins or both of a
test pair are new, and each fold is another random split. The epoch with the best validation NLL is tested, as the authors
do. By default the network is the cheap one, a fingerprint and a composition; `--trunk deep-dta --widths 1024,1024,512` is
the published one.

    MSE, CI         of the predicted mean
    NLL             of the density, as published. 70 % of Davis' labels are exactly 5.0, where no density has an upper bound
    NLL atom, rest  the same of the labels at 5.0 and of the others
    NLL floor       the density with scales of 0.1 at least
    NLL mass        a label at 5.0 counts with the probability below it: finite, and the same for censored models
    ECE             of 100 central intervals by the t with 2 alpha degrees of freedom; beside it with 2 alpha - 1, as in the
                    authors' code

Not as published: the rate falls to 0 along half a cosine over far fewer epochs, and there is no weight decay.

Figure 6. In distribution are the test pairs of Davis, out of it 27 detergents with each of its kinases: the authors' file of
BindingDB was not published. Only the drug is new. Scores are epistemic and aleatoric variance; "nearest" is one minus the
Tanimoto similarity to the most similar training drug, and needs no network. Intervals are 95 % percentiles over resampled
drugs, of which there are only 27 and 68. "tie" has one output for both amounts of evidence; the "c" rows are a sweep of the
regulariser.

Writes each run's results tree, table.md, scores.csv, ood.md, ood.csv, epistemic.png and aleatoric.png. What is there of the
same settings is not done again. `--results` is a second folder for the two CSV files, named after set and setting.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bmtl.datasets import load
from bmtl.datasets.files import Archive, find
from bmtl.evaluation import ood, parts, results
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.plots import ood_densities
from bmtl.evaluation.style import save
from bmtl.experiments import METHODS, Budget, run
from bmtl.experiments.cells import written_for
from bmtl.experiments.configuration import configuration
from bmtl.experiments.references import run_references
from bmtl.targets.laws import distribution
from bmtl.targets.metrics.concordance import concordance_index
from bmtl.targets.metrics.pit import ece_from_pit
from bmtl.targets.prediction import Law

TARGET = "affinity"
DETERGENTS = "dta/ood_detergents.npz"
REGULARISER = {"regulariser": 1e-4}  # as published for these sets
EVIDENTIAL = ("enet", "mt-enet", "mt-enet-sample", "mse-enet", "mse-enet-0.1", "mt-enet-censored")
OTHERS = ("mc-dropout", "ensemble", "gaussian", "student-t-censored")
DETECTING = ("enet", "mt-enet", "mse-enet", "mc-dropout", "ensemble")
"""Whose uncertainty is compared out of distribution."""
VARIANTS = {"tie": {"tie": True}, "c = 0.001": {"regulariser": 1e-3}, "c = 0.01": {"regulariser": 1e-2}}
QUICK_VARIANTS = {"tie": {"tie": True}}
REFERENCES = ("constant", "group-means", "boosting")
COLUMNS = (
    "MSE ↓",
    "CI ↑",
    "NLL ↓",
    "NLL atom",
    "NLL rest",
    "NLL floor",
    "NLL mass ↓",
    "CRPS ↓",
    "ECE ↓",
    "ECE (2a - 1)",
)
SHORT = ("MSE ↓", "CI ↑", "NLL mass ↓", "CRPS ↓", "ECE ↓")
FLOOR = 0.1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder that holds dta/davis.npz; by default what BMTL_DATA says")
    parser.add_argument("--set", default="davis", choices=("davis", "kiba"))
    parser.add_argument("--setting", default="warm", choices=("warm", "cold-drug", "cold-target", "cold-both"))
    parser.add_argument("--out", type=Path, help="by default runs/mt_enet_dta_<set>_<setting>")
    parser.add_argument("--results", type=Path, help="a second folder for the tables as CSV")
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--trunk", default="fingerprints")
    parser.add_argument("--widths", default="256,256")
    parser.add_argument("--methods", default=",".join((*EVIDENTIAL, *OTHERS)))
    parser.add_argument("--no-ood", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one epoch of a few rows: shows that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(1)  # networks of this size are slower on two
    out = options.out or Path(f"runs/mt_enet_dta_{options.set}_{options.setting}")
    place = "split" if options.setting == "warm" else "seed"
    try:
        folds = [
            smaller(load(options.set, root=options.root, setting=options.setting, **{place: i}), options.quick)
            for i in range(options.folds)
        ]
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")
    widths = (16, 16) if options.quick else tuple(map(int, options.widths.split(",")))
    budget = Budget(
        epochs=1 if options.quick else options.epochs,
        batch_size=256,
        lr=1e-3,
        widths=widths,
        draws=5 if options.quick else 50,
        schedule="falling",
    )
    floor = folds[0].targets[TARGET].family.ends[0]
    names = [name for name in options.methods.split(",") if np.isfinite(floor) or not name.endswith("-censored")]
    methods = {name: method_of(name, options.trunk) for name in names}
    without = options.no_ood or (options.set, options.setting) != ("davis", "warm")
    outside = None if without else new_pairs(folds[0], options.root, options.quick)
    frame = rounded(table_2(folds, methods, budget, out, floor, outside))
    written(frame, report(frame, options, budget), out, "", options)
    if outside is not None:
        frame = rounded(figure_6(folds[0], outside, methods, options.trunk, budget, out, options.quick))
        lines = [
            f"{len(folds[0].rows['test']):,} test pairs of Davis in distribution, {len(outside):,} pairs of "
            f"{outside['smiles'].nunique()} detergents and kinases out of it.",
            "In brackets: 95 % interval over resampled drugs. Chance: AUROC 0.5, FPR95 0.95.",
        ]
        written(frame, "\n".join([*lines, "", ood_table(frame), ""]), out, "ood", options)


def written(frame, text, out, what, options):
    """Prints a table, and writes it as text and as CSV."""
    (out / f"{what or 'table'}.md").write_text(text)
    frame.to_csv(out / f"{what or 'scores'}.csv", index=False)
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        name = "_".join(filter(None, ("mt_enet_dta", options.set, options.setting, what)))
        frame.to_csv(options.results / f"{name}.csv", index=False)
    print(f"\n{text}", flush=True)


def rounded(frame):
    """To the five digits that a file of results has."""
    return frame.map(lambda value: float(f"{value:.5g}") if isinstance(value, float) else value)


def learnt(data, method, seed, budget, folder, new=None):
    """The tree of a run; one that is there already of the same settings and data is not trained again."""
    file = folder / "results.nc"
    if written_for(file, configuration(method, budget), seed, data):
        tree = results.read(file)
        if new is None or "predictions" in tree.children:
            return tree
    return run(data, method, seed, budget, folder, new=new)


def method_of(name, trunk, **options):
    """A named method on a trunk, the evidential ones with the published regulariser."""
    method = METHODS[name]
    extra = (REGULARISER if name in EVIDENTIAL else {}) | options
    return replace(method, options={**method.options, **extra}, trunk=trunk)


def smaller(data, quick):
    """The first rows of each part for a quick run."""
    return replace(data, rows={part: rows[:200] for part, rows in data.rows.items()}) if quick else data


# ---- Table 2 -----------------------------------------------------------------------------------------------------


def table_2(folds, methods, budget, out, floor, outside):
    """A row for each fold of each method, reference rows first."""
    rows = []
    for fold, data in enumerate(folds):
        for name, tree in run_references(data, out, f"fold-{fold}", fold, REFERENCES).items():
            rows.append({"method": name, "fold": fold} | judged(tree, floor))
        for name, method in methods.items():
            new = outside if fold == 0 and name in DETECTING else None
            tree = learnt(data, method, fold, budget, out / name / f"fold-{fold}", new)
            rows.append({"method": name, "fold": fold} | judged(tree, floor))
            shown = ", ".join(f"{column} {rows[-1][column]:.3f}" for column in ("MSE ↓", "CI ↑", "NLL mass ↓"))
            print(f"{name}, fold {fold}: {shown}", flush=True)
    return pd.DataFrame(rows)


def judged(tree, floor):
    """The columns of one run; what a model without a density cannot have is left out."""
    rows = parts.scored(tree)[TARGET]
    y, mean, family = rows.labels, rows.mean(), rows.family
    found = {"MSE ↓": np.mean(np.square(y - mean)), "CI ↑": concordance_index(y, mean)}
    found["NLL mass ↓"] = family.score("nll").compute(rows)
    found["CRPS ↓"] = rows.predictive().crps(y).mean()
    law = rows.prediction.law
    if law is None:  # of clipped labels: PIT values are those of a table of any censored target
        return found | {"ECE ↓": family.score("ece").compute(rows)}
    law = law.full(len(y))
    density = -distribution(law).log_prob(y)
    found |= {"NLL ↓": density.mean(), "NLL rest": density[y > floor].mean()}
    if (y <= floor).any():
        found["NLL atom"] = density[y <= floor].mean()
    wider = law.parameters | {"scale": np.maximum(law.parameters["scale"], FLOOR)}
    found["NLL floor"] = -distribution(Law(law.name, wider)).log_prob(y).mean()
    found["ECE ↓"] = ece_from_pit(distribution(law).cdf(y))
    if np.isfinite(law.parameters["df"]).all():
        fewer = law.parameters | {"df": law.parameters["df"] - 1}
        found["ECE (2a - 1)"] = ece_from_pit(distribution(Law(law.name, fewer)).cdf(y))
    return found


def report(frame, options, budget):
    folds = frame["fold"].nunique()
    test = "test fold" if options.setting == "warm" else f"test pairs of the {options.setting} split"
    parts = f"{folds} of 5 folds for validation" if options.setting == "warm" else f"{folds} of such splits"
    lines = [
        f"{options.set}, {test}; trunk {options.trunk}, widths {budget.widths}, {budget.epochs} epochs,",
        f"{parts}{', mean ± standard deviation' if folds > 1 else ''}.",
    ]
    if frame["NLL ↓"].isna().any():
        lines += [
            "The ECE of a censored model has PIT values that are uniform below 5.0 for labels at 5.0; that of the others is",
            "of the density, as published.",
        ]
    return "\n".join([*lines, "", table(frame, options.setting), ""])


def table(frame, setting="warm"):
    """Scores of methods and folds as a table in Markdown; of cold splits the proper scores and the errors."""
    columns = COLUMNS if setting == "warm" else SHORT
    if "NLL atom" not in frame:  # no bound at which labels are piled up
        columns = [name for name in columns if name not in ("NLL atom", "NLL rest", "NLL mass ↓")]
    body = []
    for name, of in frame.groupby("method", sort=False):
        body.append([name, *(entry(of[column]) for column in columns)])
    return markdown_table(["method", *columns], *body)


def entry(values):
    if values.isna().all():
        return ""
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


# ---- Figure 6 ----------------------------------------------------------------------------------------------------


def new_pairs(data, root, quick):
    """Every detergent with every kinase, once where kinases have one sequence."""
    source = "27 detergents of PubChem, from DTA_task/data/pubchem_detergent.csv of https://github.com/deargen/MT-ENet."
    detergents = Archive(find("the detergents", [DETERGENTS], root, source)).array("smiles").tolist()
    sequences = list(dict.fromkeys(data.inputs.proteins.texts))[: 3 if quick else None]
    pairs = [(drug, protein) for drug in detergents for protein in sequences]
    return pd.DataFrame(pairs, columns=["smiles", "sequence"])


def figure_6(data, outside, methods, trunk, budget, out, quick):
    """How well uncertainties tell detergents from Davis' drugs; draws the pictures."""
    groups = (data.inputs.drug[data.rows["test"]], outside["smiles"].to_numpy())
    rows = [{"method": "nearest", "score": "distance"} | separation(*nearest(data, outside), groups)]
    chosen = {name: (methods[name], out / name / "fold-0") for name in DETECTING if name in methods}
    if "mt-enet" in methods:
        for name, changed in (QUICK_VARIANTS if quick else VARIANTS).items():
            method = replace(method_of("mt-enet", trunk, **changed), name=f"mt-enet, {name}")
            chosen[method.name] = (method, out / "ood" / name.replace(" = ", "-"))
    trees = {}
    for name, (method, folder) in chosen.items():
        trees[name] = learnt(data, method, 0, budget, folder, outside)
        for kind in ("epistemic", "aleatoric"):
            both = ood.uncertainties(trees[name], TARGET, kind)
            rows.append({"method": name, "score": kind} | separation(*both, groups))
        print(f"{name}: AUROC of epistemic uncertainty {rows[-2]['auroc']:.3f}", flush=True)
    for kind in ("epistemic", "aleatoric"):
        save(ood_densities(trees, TARGET, score=kind, groups=groups, columns=3), out / f"{kind}.png")
    return pd.DataFrame(rows)


def ood_table(frame):
    """How well uncertainties tell new drugs from known ones, as a table in Markdown."""
    body = [
        [
            row["method"],
            row["score"],
            f"{row['auroc']:.3f} [{row['low']:.2f}, {row['high']:.2f}]",
            f"{row['fpr95']:.2f}",
        ]
        for _, row in frame.iterrows()
    ]
    return markdown_table(["method", "score", "AUROC ↑", "FPR95 ↓"], *body, left=2)


def nearest(data, outside):
    """One minus the Tanimoto similarity to the most similar other training drug, of test pairs and of new ones."""
    known = data.inputs.tensors(data.rows["test"])["drug"].table["fingerprint"].numpy()
    trained = np.unique(data.inputs.drug[data.rows["train"]])
    new = data.inputs.prepare(outside)["drug"]
    distances = []
    for bits, own in ((known, True), (new.table["fingerprint"].numpy(), False)):
        common = bits @ known[trained].T
        similarity = common / (bits.sum(1)[:, None] + known[trained].sum(1)[None] - common)
        if own:  # every test drug is a training drug too: its distance is to another one
            similarity[trained, np.arange(len(trained))] = 0.0
        distances.append(1 - similarity.max(1))
    return distances[0][data.inputs.drug[data.rows["test"]]], distances[1][new.index.numpy()]


def separation(inside, outside, groups):
    """AUROC and FPR95, and an interval of AUROC over resampled drugs of both sides."""
    found = ood.detection_of_scores(inside, outside)
    low, high = ood.detection_intervals(inside, outside, groups=groups)
    return {"auroc": found.auroc, "low": low.auroc, "high": high.auroc, "fpr95": found.fpr95}


if __name__ == "__main__":
    main()
