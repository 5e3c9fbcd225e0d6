"""Variational multi-task learning (Shen et al. 2021) on Office-Caltech10: the layout of the paper's tables C.5 and C.8.

Run: python examples/vmtl_office_caltech.py --root ../shared/data [--out runs/vmtl_office_caltech] [--quick]
     [--proportions 0.05,0.1,0.2] [--seeds 5] [--jobs 1] [--methods VMTL,VBMTL]

Four tasks (domains), ten classes, 78 to 300 training images in all. Not as in the paper: SURF histograms, for which it has
no figures (there: VGG16 features, with which 5 % of the images give 90 %); a linear encoder to 64 latents; 60 steps of
Adam at 5e-3 on all training images (there: 15,000 at 1e-4 on balanced batches). So compare rows with each other.

Further rows are Kendall's uncertainty weighting (of BMTL's tasks), Bakker & Heskes's, Long et al.'s and Qian et al.'s models
on the same encoder, and logistic regressions.

A fifth of the images that are not for training is for validation and never scored. On it, as the mean over three seeds and
for every method and proportion alike, are chosen: the inputs' scale, then the weights of the divergences, then dropout, one
after the other; and in every run, the number of steps. A cell that is finished is not done again: start the script once
more after an interruption, or with other methods or more seeds. Files in --out: a results tree for each run, tables, two
pictures.

A run takes about 2 seconds on a quiet core, and four more of them make a choice: 6 minutes for all at three seeds.
"""

import argparse
import copy
import functools
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
import xarray as xr
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

import bmtl
from bmtl.datasets import office_caltech10
from bmtl.evaluation import metrics, results
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.plots import relatedness_matrix
from bmtl.evaluation.relatedness import nearest
from bmtl.evaluation.storage import atomic
from bmtl.evaluation.style import lines_of, method_legend, save, styled
from bmtl.experiments import results_tree
from bmtl.inference.attack import robustness
from bmtl.inference.log_probabilities import log_probabilities
from bmtl.inputs import PerTask
from bmtl.models import Bottleneck, TaskModel, likelihood_of
from bmtl.models.heads import HEADS
from bmtl.models.networks.layers import linear
from bmtl.models.vmtl import PRESETS, VMTL, KLWeights, vmtl_preset
from bmtl.targets.metrics.entropy import entropy_ratio_of_rows, error_auroc_of_probabilities
from bmtl.targets.metrics.probabilities import entropy_of_probabilities, predicted_class
from bmtl.targets.scaler import Scaler

METHODS = {
    **{name: {"preset": name} for name in ("STL", "VSTL", "BMTL", "VBMTL")},
    "Kendall": {"preset": "BMTL", "balancer": "uw(bound=-0.001)"},  # a loss may be 0
    "Bakker-Heskes": {"head": "common-prior"},
    "Long": {"head": "tensor-normal"},
    "Qian": {"bottleneck": True},
    **{name: {"preset": name} for name in ("VMTL-mean", "VMTL-learned", "VMTL", "VMTL-AC")},
    "VMTL-Dirichlet": {"preset": "VMTL", "weights": "dirichlet"},
    "VMTL as written": {"preset": "VMTL", "combine": "mixture", "anchor": 0.0},
    "VMTL as released": {"preset": "VMTL", "as_released": True},
}
DRAWN = ("BMTL", "VBMTL", "Bakker-Heskes", "VMTL", "VMTL-AC")  # more curves would hide each other
QUICK = ("BMTL", "VMTL", "VMTL-Dirichlet")
SCALES = {"sqrt x5": ("sqrt", 5.0), "sqrt x10": ("sqrt", 10.0), "counts": ("counts", None)}
KLS = {"0.1, 1e-4": (0.1, 1e-4), "0.3, 1e-3": (0.3, 1e-3)}  # of w, of z
DROPOUTS = (0.0, 0.5)
STEPS, EVERY, RATE, DRAWS = 60, 15, 5e-3, 50
CHOOSING = 3  # seeds on which a setting is chosen
LATENT, WIDTHS = 64, (128,)
ATTACKED = 0.05  # proportion at which robustness is measured, with seed 0
RELATED = 0.2  # and the one at which relatedness is
ELBO, ELBO_RELEASED = (
    bmtl.TaskELBO(
        "analytic", num_particles=pairs, vectorize_particles=True, max_plate_nesting=2, normalize="task_mean"
    )  # pairs (z, w)
    for pairs in (2, 10)
)
PENALTIES = (0.1, 1.0, 10.0, 100.0)  # C of logistic regressions, chosen on validation with the inputs' scale
# Shen et al. (2021), table C.5, on deep features.
PAPER = {
    "STL": (88.6, 90.7, 92.4),
    "VSTL": (89.0, 91.1, 93.4),
    "BMTL": (89.5, 92.3, 93.1),
    "VBMTL": (90.8, 93.2, 93.5),
    "VMTL-mean": (93.6, 95.3, 95.4),
    "VMTL-learned": (93.7, 95.1, 95.1),
    "VMTL": (93.8, 95.3, 95.2),
    "VMTL-AC": (93.9, 95.1, 95.2),
}


@dataclass(frozen=True)
class Setting:
    """What is chosen on validation; dropout is on the inputs."""

    scale: str = "sqrt x10"
    kl: str = "0.1, 1e-4"
    dropout: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What all runs of one call have in common."""

    root: str | None
    out: Path
    seeds: int
    steps: int = STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of the data, such as ../shared/data; by default what BMTL_DATA says")
    parser.add_argument("--out", type=Path, default=Path("runs/vmtl_office_caltech"))
    parser.add_argument("--proportions", default="0.05,0.1,0.2")
    parser.add_argument("--methods", default=",".join(METHODS), help="names of rows; the default is all of them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--quick", action="store_true", help="three methods, 5 %%, one seed, 10 steps: does it all run?"
    )
    options = parser.parse_args()
    methods = QUICK if options.quick else tuple(options.methods.split(","))
    for method in methods:
        if method not in METHODS:
            parser.error(f"--methods takes {', '.join(METHODS)}, and {method!r} was given.")
    proportions = (0.05,) if options.quick else tuple(float(part) for part in options.proportions.split(","))
    seeds, steps = (1, 10) if options.quick else (options.seeds, STEPS)
    plan = Plan(options.root, options.out, seeds, steps)
    try:
        load(plan.root, 0.05, "counts")
    except FileNotFoundError as missing:
        sys.exit(str(missing))
    work = [(proportion, method) for proportion in proportions for method in methods]
    joblib.Parallel(n_jobs=options.jobs)(joblib.delayed(series)(plan, *pair) for pair in work)
    report(plan, proportions, methods)


# ---- Runs ------------------------------------------------------------------------------------------------------------


def series(plan, proportion, method):
    """All runs of a method at a proportion: those that choose its setting, then one for each seed."""
    torch.set_num_threads(1)
    setting = chosen(plan, proportion, method)
    for seed in range(plan.seeds):
        tree = finished(plan, proportion, method, setting, seed)
        said = "was there"
        if tree is None:
            tree, said = run(plan, proportion, method, setting, seed), "done"
        accuracy = metrics.accuracy(tree)["accuracy"].mean().item()
        print(f"{proportion:.0%} {method}, seed {seed}: {accuracy:.3f} ({said})", flush=True)


def chosen(plan, proportion, method):
    """The setting with the best accuracy on validation, coordinate by coordinate."""
    best = Setting()
    kls = KLS if weighs_divergences(method) else ()
    for field, values in (("scale", SCALES), ("kl", kls), ("dropout", DROPOUTS)):
        tried = [replace(best, **{field: value}) for value in values]
        if tried:
            best = max(tried, key=functools.partial(validation, plan, proportion, method))
    return best


def weighs_divergences(method):
    """Whether weights of divergences are to be chosen: points have none, learnt priors full ones."""
    switches = METHODS[method]
    if "preset" not in switches:
        return "bottleneck" in switches
    return not switches.get("as_released", False) and PRESETS[switches["preset"]].get("prior") != "flat"


def validation(plan, proportion, method, setting):
    """Best accuracy on validation of a run, averaged over seeds; kept in a file."""
    name = f"{setting.scale}_{setting.kl}_{setting.dropout}".replace(" ", "")
    file = folder(plan, proportion, method) / "choice" / f"{name}.json"
    asked = {**asdict(setting), "method": METHODS[method], "steps": plan.steps, "seeds": min(CHOOSING, plan.seeds)}
    if file.is_file() and (found := json.loads(file.read_text()))["setting"] == asked:
        return found["accuracy"]
    best = []
    for seed in range(asked["seeds"]):
        fitted = train(plan, proportion, method, setting, seed, parts=("val",))
        best.append(max(check["val"] for check in fitted.checks))
    accuracy = float(np.mean(best))
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as temporary:
        temporary.write_text(json.dumps({"setting": asked, "accuracy": accuracy}))
    return accuracy


def folder(plan, proportion, method):
    return plan.out / f"{proportion:.0%}".replace("%", "") / method.replace(" ", "-")


def about(plan, method, setting):
    return {"method": METHODS[method], **asdict(setting), "steps": plan.steps}


def finished(plan, proportion, method, setting, seed):
    """The results tree of a run, if it is there."""
    file = folder(plan, proportion, method) / f"seed-{seed}" / "results.nc"
    if not file.is_file():
        return None
    tree = results.read(file)
    return tree if results.decode_attributes(tree)["configuration"] == about(plan, method, setting) else None


def load(root, proportion, scale):
    """The images, with inputs as models see them: square roots times a number, or standardised counts."""
    kind, factor = SCALES.get(scale, (scale, None))
    data = office_caltech10.read(root, proportion=proportion, scale=kind, clip=None if factor else 5.0)
    if factor is None:
        return data
    inputs = replace(data.inputs, scaler=Scaler(np.zeros(()), np.full((), 1 / factor)))
    return replace(data, inputs=inputs, scaling="none")


@dataclass
class Fitted:
    """A trained model and its guide, their data, and how they came about."""

    data: object
    model: torch.nn.Module
    guide: object
    checks: list  # step, and accuracy on each part
    seconds: float
    history: list


def program(preset, data, x, y, seed, dropout=0.0, **switches):
    return vmtl_preset(
        preset,
        x["dslr"].shape[1],
        classifications(data),
        {task: len(labels) for task, labels in y.items()},
        encoder="linear",
        latent=LATENT,
        widths=WIDTHS,
        dropout=dropout,
        support=(x, y),
        generator=torch.Generator().manual_seed(seed),
        **switches,
    )


def classifications(data):
    return {name: likelihood_of(target.family, noise="fixed") for name, target in data.targets.items()}


def built(method, setting, data, x, y, seed):
    """A program and its guide."""
    switches = {key: value for key, value in METHODS[method].items() if key != "balancer"}
    weights = KLS[setting.kl]
    if "preset" in switches:
        if weighs_divergences(method):
            switches["kl_weights"] = KLWeights(*weights)
        model = program(switches.pop("preset"), data, x, y, seed, dropout=setting.dropout, **switches)
        return model, model.guide()
    generator = torch.Generator().manual_seed(seed)
    encoder = torch.nn.Sequential(torch.nn.Dropout(setting.dropout), linear(x["dslr"].shape[1], LATENT, generator))
    options = {}
    if "head" in switches:
        options["head"] = HEADS[switches["head"]]
    if "bottleneck" in switches:
        options["representation"] = functools.partial(Bottleneck, beta=weights[1])
    sizes = {task: len(labels) for task, labels in y.items()}
    model = TaskModel(encoder, LATENT, classifications(data), sizes, generator=generator, **options)
    return model, model.guide()


def train(plan, proportion, method, setting, seed, parts):
    """A model at the step with the best accuracy on validation."""
    data = load(plan.root, proportion, setting.scale)
    x, y = data.tensors_by_task("train")
    model, guide = built(method, setting, data, x, y, seed)
    released = METHODS[method].get("as_released", False)
    elbo = ELBO_RELEASED if released else ELBO
    optim = functools.partial(torch.optim.Adam, lr=RATE, weight_decay=5e-4 if released else 0.0)
    svi = bmtl.BalancedSVI(model, guide, optim, METHODS[method].get("balancer", "ew"), elbo=elbo)
    torch.manual_seed(seed)
    checks, best, state, seconds = [], -1.0, None, 0.0
    trained = torch.nn.ModuleList([part for part in (model, guide) if isinstance(part, torch.nn.Module)])
    for step in range(1, plan.steps + 1):
        start = time.perf_counter()
        svi.step(x, y)
        seconds += time.perf_counter() - start
        if step % min(EVERY, plan.steps // 2) == 0:
            checks.append({"step": step, **accuracies(model, guide, data, parts, seed)})
            if checks[-1]["val"] > best:
                best, state = checks[-1]["val"], copy.deepcopy(trained.state_dict())
    trained.load_state_dict(state)
    return Fitted(data, model, guide, checks, seconds, svi.history)


@torch.no_grad()
def accuracies(model, guide, data, parts, seed):
    """Mean over the tasks of the accuracy on the rows of each part, all parts predicted at once."""
    tensors = [data.tensors_by_task(part) for part in parts]
    family = isinstance(model, VMTL)
    fixed = family and (model.predict == "mean" or not any(model.gaussian.values()))
    log_p = log_probabilities(
        model,
        guide,
        PerTask({task: torch.cat([x[task] for x, _ in tensors]) for task in data.tasks}),
        num_draws=1 if fixed else DRAWS,
        seed=seed,
        parallel=True,
    )
    found = {}
    for i, part in enumerate(parts):
        right = []
        for task in data.tasks:
            sizes = [len(y[task]) for _, y in tensors]
            of_part = log_p[task].split(sizes)[i]
            right.append((of_part.argmax(-1) == tensors[i][1][task]).double().mean().item())
        found[part] = float(np.mean(right))
    return found


def run(plan, proportion, method, setting, seed):
    """One run and its results tree, written to its folder."""
    fitted = train(plan, proportion, method, setting, seed, parts=("val", "test"))
    data, model, guide = fitted.data, fitted.model, fitted.guide
    sites = [] if METHODS[method].get("preset") not in ("VMTL", "VMTL-AC") else ["alpha_w", "alpha_z"]
    x, y = data.tensors_by_task("test")
    drawn = bmtl.draw(model, guide, x, y, num_draws=DRAWS, seed=seed, sites=sites)
    tree = results_tree(
        data,
        drawn,
        fitted.history,
        model=model,
        attributes={
            "method": method,
            "seed": seed,
            "configuration": about(plan, method, setting),
            "checks": fitted.checks,
            "seconds": fitted.seconds,
        },
    )
    if seed == 0 and proportion == ATTACKED:
        curve = robustness(model, guide, x, y, data.tensors_by_task("train")[0], num_draws=DRAWS // 2)
        tree["robustness"] = xr.DataTree(
            xr.Dataset(
                {
                    "accuracy": (("task", "eps"), np.stack(list(curve.accuracy.values()))),
                    "nll": (("task", "eps"), np.stack(list(curve.nll.values()))),
                },
                coords={"task": list(curve.accuracy), "eps": curve.eps},
                attrs={"draws": curve.num_draws, "seed": curve.seed},
            )
        )
    results.write(tree, results.check_writable(folder(plan, proportion, method) / f"seed-{seed}") / "results.nc")
    return tree


def relations(plan, proportion):
    """A tree with the posterior of the weights, given classifiers that do not know of each other.

    Trained together, the classifiers are drawn to each other until all are alike, and the weights tell nothing. So VBMTL's
    posteriors are kept as they are, and a VMTL with its encoder learns Dirichlet weights of them, at the bound's own weight
    of w.
    """
    file = plan.out / "relatedness" / "results.nc"
    asked = {"proportion": proportion, "steps": plan.steps}
    if file.is_file() and results.decode_attributes(results.read(file)).get("configuration") == asked:
        return results.read(file)
    torch.set_num_threads(1)
    data = load(plan.root, proportion, Setting.scale)
    x, y = data.tensors_by_task("train")
    models = []
    for preset, switches in (("VBMTL", {}), ("VMTL", {"weights": "dirichlet"})):
        torch.manual_seed(0)
        components = {"components": models[0].eval()} if models else {}
        model = program(preset, data, x, y, 0, kl_weights=KLWeights(1.0, 1e-3), **switches, **components)
        if models:
            model.encoders.load_state_dict(models[0].encoders.state_dict())
            model.encoders.requires_grad_(False)
            model.classifiers.load_state_dict(models[0].classifiers.state_dict())
        own = {id(parameter) for parameter in model.priors.parameters()} if models else set()

        def optim(parameters, own=own):
            """Ten times the rate for the weights' parameters."""
            groups = [[p for p in parameters if (id(p) in own) == fast] for fast in (False, True)]
            rates = zip(groups, (RATE, 10 * RATE), strict=True)
            return torch.optim.Adam([{"params": group, "lr": rate} for group, rate in rates if group])

        svi = bmtl.BalancedSVI(model, model.guide(), optim, elbo=ELBO)
        for _ in range(plan.steps * (1 + 3 * len(models))):
            svi.step(x, y)
        models.append(model)
    x, _ = data.tensors_by_task("test")
    drawn = bmtl.draw(model, model.guide(), x, num_draws=400, sites=["alpha_w", "alpha_z"])
    named = {"method": "VMTL on VBMTL's posteriors", "configuration": asked}
    tree = results_tree(data, drawn, model=model, attributes=named)
    results.write(tree, results.check_writable(file.parent) / file.name)
    return tree


# ---- Tables and pictures ---------------------------------------------------------------------------------------------


def report(plan, proportions, methods):
    trees = {}
    for proportion in proportions:
        for method in methods:
            setting = chosen(plan, proportion, method)
            runs = [finished(plan, proportion, method, setting, seed) for seed in range(plan.seeds)]
            trees[proportion, method] = [tree for tree in runs if tree is not None]
    frame = pd.DataFrame([row for key, runs in trees.items() for tree in runs for row in scores(*key, tree)])
    mean = averages(plan, frame, proportions)
    pages = [
        f"Accuracy on the test rows, mean ± standard error over {plan.seeds} seed(s):\n\n{mean}",
        *(f"At {part:.0%}, by task:\n\n{by_task(frame, part)}" for part in proportions),
        *(f"At {part:.0%}, means over tasks and seeds:\n\n{quality(frame, part)}" for part in proportions),
        *(
            f"At {part:.0%}, predictive entropy and errors, all tasks together (seed 0; 95 % bootstrap interval):\n\n"
            f"{entropies(trees, part, methods)}"
            for part in proportions
        ),
    ]
    settings = [
        {"%": f"{part:.0%}", "method": method, **asdict(chosen(plan, part, method))}
        for part in proportions
        for method in methods
    ]
    pages.append("Chosen on validation (KL weights of w, z):\n\n" + markdown(pd.DataFrame(settings)))
    if ATTACKED in proportions:
        title = f"At {ATTACKED:.0%}, accuracy under attack by its size, mean over the tasks (seed 0):"
        pages.append(f"{title}\n\n{attacked(trees, methods)}")
    text = "\n\n".join(pages) + "\n"
    plan.out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(plan.out / "scores.csv", index=False)
    (plan.out / "table.md").write_text(text)
    print(f"\n{text}")
    related = relations(plan, RELATED)
    save(relatedness_matrix(related), plan.out / "relatedness.png")
    found = nearest(related)
    for task in found["task"].values:
        closest, share = (found[name].sel(task=task).item() for name in ("nearest", "share_of_draws"))
        print(f"Nearest to {task}: {closest}, in {share:.0%} of the draws.")
    if ATTACKED in proportions and set(DRAWN) & set(methods):
        save(robustness_curves(trees, methods), plan.out / "robustness.png")
    print(f"Wrote table.md, scores.csv and pictures to {plan.out}.")


def scores(proportion, method, tree):
    """One row for each task."""
    of = {
        "accuracy": metrics.accuracy(tree)["accuracy"],
        "NLL": metrics.nll(tree)["nll"],
        "Brier": metrics.brier(tree)["brier"],
        "ECE": metrics.class_calibration(tree)["class_ece"],
        "AUROC": metrics.error_auroc(tree)["error_auroc"],
    }
    more = results.decode_attributes(tree)
    checks = pd.DataFrame(more["checks"])
    for task in of["accuracy"]["task"].values:
        yield {
            "proportion": proportion,
            "method": method,
            "seed": more["seed"],
            "task": str(task),
            **{name: float(values.sel(task=task)) for name, values in of.items()},
            "last": checks["test"].iloc[-1],
            "best on test": checks["test"].max(),
            "step": int(checks["step"].iloc[checks["val"].argmax()]),
            "seconds": more["seconds"],
        }


def averages(plan, frame, proportions):
    """Table C.5, and beside each mean what the last step and the best step on the test rows would have given."""
    runs = frame.groupby(["method", "proportion", "seed"], sort=False)[["accuracy", "last", "best on test"]].mean()
    table = {}
    for (method, proportion), of in runs.groupby(["method", "proportion"], sort=False):
        column = f"{proportion:.0%}"
        row = table.setdefault(method, {})
        row[column] = entry(of["accuracy"])
        row[f"{column} last"] = f"{100 * of['last'].mean():.1f}"
        row[f"{column} best on test"] = f"{100 * of['best on test'].mean():.1f}"
        row[f"{column} paper"] = paper(method, proportion)
    for proportion in proportions:
        for method, accuracy in logistic(plan, proportion).items():
            table.setdefault(method, {})[f"{proportion:.0%}"] = f"{100 * accuracy:.1f}"
    wide = pd.DataFrame(table).T.fillna("-")
    return markdown(wide.rename_axis("method").reset_index())


def paper(method, proportion):
    part = {0.05: 0, 0.1: 1, 0.2: 2}.get(proportion)
    return "-" if part is None or method not in PAPER else f"{PAPER[method][part]:.1f}"


def logistic(plan, proportion):
    """Accuracies of logistic regressions, of each task by itself and of all as one; scale and penalty by validation."""
    found = {}
    for name in ("logistic, single task", "logistic, pooled"):
        tried = []
        for scale in SCALES:
            data = load(plan.root, proportion, scale)
            parts = {part: data.tensors_by_task(part) for part in ("train", "val", "test")}
            for c in PENALTIES:
                x, y = parts["train"]
                if name.endswith("pooled"):
                    pooled = regression(c).fit(torch.cat(list(x.values())).double(), torch.cat(list(y.values())))
                    fitted = dict.fromkeys(x, pooled)
                else:
                    fitted = {task: regression(c).fit(x[task].double(), y[task]) for task in x}
                accuracy = {
                    part: np.mean([of.score(x[task], y[task]) for task, of in fitted.items()])
                    for part, (x, y) in parts.items()
                }
                tried.append((accuracy["val"], accuracy["test"]))
        found[name] = max(tried)[1]
    return found


def regression(c):
    """At the least of ``C sum NLL + |W|^2 / 2``, the intercepts free."""
    return LogisticRegression(C=c, max_iter=2000, tol=1e-8)


def by_task(frame, proportion):
    """Table C.8."""
    of = frame[frame["proportion"] == proportion]
    table = of.groupby(["method", "task"], sort=False)["accuracy"].agg(entry).unstack("task")
    mean = of.groupby(["method", "seed"], sort=False)["accuracy"].mean().groupby("method", sort=False).agg(entry)
    return markdown(table.loc[mean.index].assign(Avg=mean).rename_axis(None, axis=1).reset_index())


def quality(frame, proportion):
    of = frame[frame["proportion"] == proportion]
    runs = of.groupby(["method", "seed"], sort=False)[["NLL", "Brier", "ECE", "AUROC", "step", "seconds"]].mean()
    table = runs.groupby("method", sort=False).mean().round({"NLL": 3, "Brier": 3, "ECE": 3, "AUROC": 3, "step": 0})
    table["step"] = table["step"].astype(int)
    renamed = {"AUROC": "AUROC of entropy", "step": "step chosen", "seconds": f"seconds for {STEPS} steps"}
    return markdown(table.round({"seconds": 1}).rename(columns=renamed).reset_index())


def entropies(trees, proportion, methods):
    rows = []
    for method in methods:
        for tree in trees[proportion, method][:1]:
            labels, p = together(tree)
            right = predicted_class(p) == labels
            ratio = entropy_ratio_of_rows(right, entropy_of_probabilities(p))
            rows.append(
                {
                    "method": method,
                    "accuracy": f"{100 * ratio.accuracy:.1f}",
                    "entropy ratio": f"{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
                    "AUROC": f"{error_auroc_of_probabilities(labels, p):.3f}",
                }
            )
    return markdown(pd.DataFrame(rows))


def together(tree):
    """Labels and probabilities of all tasks' rows."""
    return tuple(np.concatenate(arrays) for arrays in zip(*metrics.class_arrays(tree).values(), strict=True))


def entry(values):
    error = f" ± {100 * values.std(ddof=1) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{error}"


def markdown(frame):
    return markdown_table(list(frame.columns), *frame.astype(str).to_numpy().tolist())


def attacked(trees, methods):
    rows = []
    for method in methods:
        for tree in trees[ATTACKED, method][:1]:
            curve = tree["robustness"]["accuracy"].mean("task")
            sizes = {
                f"{size:g}": f"{100 * value:.1f}" for size, value in zip(curve["eps"].values, curve.values, strict=True)
            }
            rows.append({"method": method, **sizes})
    return markdown(pd.DataFrame(rows))


def robustness_curves(trees, methods):
    """Accuracy under attacks, a line a method, a task a panel."""
    curves = {m: trees[ATTACKED, m][0]["robustness"] for m in methods if m in DRAWN and trees[ATTACKED, m]}
    with styled():
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        tasks = [str(task) for task in next(iter(curves.values()))["task"].values]
        axes = dict(zip(tasks, figure.subplots(1, len(tasks), sharey=True), strict=True))
        for method, line in lines_of(list(curves)).items():
            for task, panel in axes.items():
                of = curves[method]["accuracy"].sel(task=task)
                panel.plot(of["eps"], of, **line)
                panel.set_title(task, fontweight="bold")
        axes[tasks[0]].set_ylabel("Accuracy")
        figure.supxlabel("Size of the attack, in standard deviations of each feature", fontsize=9)
        method_legend(figure, list(curves))
    return figure


if __name__ == "__main__":
    main()
