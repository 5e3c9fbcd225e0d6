"""Variational multi-task learning (Shen et al. 2021) on Office-Caltech10: the paper's appendix C, table by table.

Run: python examples/vmtl_office_caltech.py --root ../shared/data [--table c5 c8 ...] [--features deep] [--seeds 5]
     [--out runs/vmtl_office_caltech] [--docs docs] [--quick]

Four tasks (domains), ten classes, 78, 151 and 300 training images in all (5, 10 and 20 %). The sections, after the paper's:

    c5        accuracy of all methods, each with its own weights of the divergences
    shared    the same with one setting for all methods
    c8        representation z and classifier w Bayesian, or not
    c11       priors: equal, learnt and Gumbel weights
    c15       the same weights of other tasks for w and z, or not
    dropout   dropout of 0.7, on the encoder's inputs and on those of the amortised network (tables B.2 and B.3)
    weights   divergences at full weight
    c14       numbers L and M of samples of z and w, in training and in prediction
    c1        loss by step: does the amortised classifier converge faster?
    c16       entropy of wrong over that of right predictions
    c2        accuracy under attack
    splits    other draws of the training images
    related   which tasks' posteriors are nearest (a picture)

Not as in the paper: features (there VGG16's 4,096; here EfficientNet-Lite0's 1,280, or SURF histograms), a linear encoder
to 64 latents, 60 steps of Adam at 5e-3 on all training images (there 15,000 at 1e-4 on balanced batches), the
objective (see `bmtl.models.vmtl.VMTL`) and a validation part. A fifth of the images that are not for training is for
validation and never scored. On it are chosen, for VSTL, VBMTL, VMTL and VMTL-AC at each size, the weights of the
divergences of w and z (jointly, as the mean over two seeds; ties go to the larger weights), and in each run of each method
the number of steps, looked at every 5. The other members take VMTL's weights, so that ablations have one setting.

Each run is kept in a file of --out, and a finished one is not done again. Tables are written to the folder "tables" of
--out, or to that of the documentation, one CSV file each, as they are printed.
"""

import argparse
import copy
import functools
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import page_tables
import torch
from matplotlib.figure import Figure
from scipy import stats
from sklearn.linear_model import LogisticRegression

import bmtl
from bmtl.datasets import office_caltech10
from bmtl.evaluation import results
from bmtl.evaluation.plots import relatedness_matrix
from bmtl.evaluation.relatedness import nearest, relatedness
from bmtl.evaluation.storage import atomic
from bmtl.evaluation.style import lines_of, method_legend, save, styled
from bmtl.inference.attack import robustness
from bmtl.inference.log_probabilities import log_probabilities
from bmtl.inputs import PerTask
from bmtl.models import Bottleneck, TaskModel, likelihood_of
from bmtl.models.heads import HEADS
from bmtl.models.networks.layers import linear
from bmtl.models.vmtl import PRESETS, VMTL, KLWeights, vmtl_preset
from bmtl.targets.metrics.entropy import entropy_ratio_of_rows, error_auroc_of_probabilities
from bmtl.targets.metrics.probabilities import entropy_of_probabilities, predicted_class
from bmtl.targets.metrics.probability_calibration import ece_of_probabilities
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
VARIANTS = {
    "z alone": {"preset": "VMTL", "latent_w": "point"},
    "w alone": {"preset": "VMTL", "latent_z": "point"},
    "same weights": {"preset": "VMTL", "tie_weights": True},
    "VMTL-AC, dropout of w": {"preset": "VMTL-AC", "amortised_dropout": 0.7},
}
SEARCHED = ("VSTL", "VBMTL", "VMTL", "VMTL-AC")  # the others with divergences take VMTL's weights
DRAWN = ("STL", "BMTL", "VBMTL", "Bakker-Heskes", "VMTL", "VMTL-AC")  # attacked
SPLIT = ("STL", "BMTL", "VBMTL", "VMTL-mean", "VMTL", "VMTL-AC")
LOGISTIC = ("logistic, single task", "logistic, pooled")
QUICK = ("STL", "BMTL", "VMTL")
PERCENT = (5, 10, 20)
W, Z = (1.0, 0.3, 0.1), (1e-3, 1e-4, 1e-5)  # weights of the divergences
STEPS, EVERY, RATE, DRAWS, LOOKS = 60, 5, 5e-3, 50, 20  # draws of the predictive in the end, and at each look
CHOOSING = 2  # seeds on which weights are chosen
LATENT, WIDTHS, LENGTH = 64, (128,), 10.0  # every image's features have this norm
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # C of logistic regressions, chosen on validation
ATTACKED, RELATED, RESAMPLED = 5, 20, 5  # sizes in percent
EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
PAIRS = ((1, 1), (10, 1), (1, 10), (10, 10), (30, 30))  # L and M in prediction
# Shen et al. (2021), on VGG16 features: tables C.5, C.8 and C.11, averages.
PAPER = {
    "STL": (88.6, 90.7, 92.4),
    "VSTL": (89.0, 91.1, 93.4),
    "BMTL": (89.5, 92.3, 93.1),
    "VBMTL": (90.8, 93.2, 93.5),
    "VMTL-mean": (93.6, 95.3, 95.4),
    "VMTL-learned": (93.7, 95.1, 95.1),
    "VMTL": (93.8, 95.3, 95.2),
    "VMTL-AC": (93.9, 95.1, 95.2),
    "z alone": (93.6, 95.2, 95.2),
    "w alone": (93.5, 95.1, 95.3),
}


@dataclass(frozen=True)
class Run:
    """What a run depends on.

    Attributes:
        percent: Training images.
        method: Name.
        seed: Of initial weights, dropout and draws.
        w: Weight of w's divergence.
        z: Of z's.
        dropout: On the encoder's inputs.
        features: "deep" or "surf".
        draw: Of the training images; None for the official list.
        pairs: Samples (z, w) in a training step.
        steps: Number of steps.
        scored: Whether test rows are predicted: not while weights are chosen.
        attacked: Whether it is attacked.
        paired: Whether it predicts with several numbers of samples.
    """

    percent: int
    method: str
    seed: int
    w: float = 0.0
    z: float = 0.0
    dropout: float = 0.0
    features: str = "deep"
    draw: int | None = None
    pairs: int = 2
    steps: int = STEPS
    scored: bool = True
    attacked: bool = False
    paired: bool = False


@dataclass(frozen=True)
class Plan:
    """What all runs of one call have in common."""

    root: str | None
    out: Path
    docs: Path | None
    features: str
    percent: tuple[int, ...]
    methods: tuple[str, ...]
    seeds: int
    steps: int

    @property
    def tables(self):
        return self.out / "tables" if self.docs is None else self.docs / "results"

    def run(self, percent, method, seed, weights=(0.0, 0.0), **more):
        w, z = weights
        switches = of_method(method)
        point = PRESETS.get(switches.get("preset"), {}).get("prior") == "flat" or "head" in switches
        if point or switches.get("as_released"):  # no divergence, a prior that is learnt, or weights of its own
            w = z = 0.0
        return Run(percent, method, seed, w, z, features=self.features, steps=self.steps, **more)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of the data, such as ../shared/data; by default what BMTL_DATA says")
    parser.add_argument("--out", type=Path, default=Path("runs/vmtl_office_caltech"))
    parser.add_argument("--docs", type=Path, help="folder of the documentation: for tables in results/, and pictures")
    parser.add_argument("--table", nargs="+", default=list(TABLES), choices=TABLES, help="sections; by default all")
    parser.add_argument("--features", choices=("deep", "surf"), default="deep")
    parser.add_argument("--percent", nargs="+", type=int, default=list(PERCENT), choices=PERCENT)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="5 %%, three methods, one seed, 10 steps: a trial")
    options = parser.parse_args()
    plan = Plan(
        options.root,
        options.out,
        options.docs,
        options.features,
        tuple(options.percent),
        tuple(options.methods),
        options.seeds,
        STEPS,
    )
    if options.quick:
        plan = replace(plan, percent=(5,), methods=QUICK, seeds=1, steps=10)
    torch.set_num_threads(1)
    try:
        load(plan.root, Run(5, "STL", 0, features=plan.features))
    except FileNotFoundError as missing:
        sys.exit(str(missing))
    for name in options.table:
        TABLES[name](plan)


# ---- Runs ------------------------------------------------------------------------------------------------------------


def of_method(method):
    return {**METHODS, **VARIANTS}[method]


def done(plan, run):
    """What a run found, from its file if it is there."""
    asked = {**asdict(run), "switches": of_method(run.method)}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    file = plan.out / run.features / str(run.percent) / run.method.replace(" ", "-") / f"{digest}.json"
    if file.is_file():
        return json.loads(file.read_text())
    found = {"run": asked, **carried_out(plan.root, run)}
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(found))
    return found


def carried_out(root, run):
    """Trains a model, takes the step that is best on validation, and scores it."""
    data = load(root, run)
    x, y = data.tensors_by_task("train")
    torch.manual_seed(run.seed)
    model, guide = built(run, data, x, y)
    released = of_method(run.method).get("as_released", False)
    optim = functools.partial(torch.optim.Adam, lr=RATE, weight_decay=5e-4 if released else 0.0)
    svi = bmtl.BalancedSVI(
        model, guide, optim, of_method(run.method).get("balancer", "ew"), elbo=elbo(10 if released else run.pairs)
    )
    parts = {part: data.tensors_by_task(part) for part in (("val", "test") if run.scored else ("val",))}
    trained = torch.nn.ModuleList([part for part in (model, guide) if isinstance(part, torch.nn.Module)])
    looks, best, state, seconds = [], -1.0, None, 0.0
    for step in range(1, run.steps + 1):
        start = time.perf_counter()
        svi.step(x, y)
        seconds += time.perf_counter() - start
        if step % EVERY == 0:
            looks.append({"step": step, **accuracies(model, guide, parts, run.seed, LOOKS)})
            if looks[-1]["val"] > best:
                best, state = looks[-1]["val"], copy.deepcopy(trained.state_dict())
    trained.load_state_dict(state)
    records = list(svi.history)
    found = {
        "looks": looks,
        "cross_entropy": [float(record.losses.mean()) for record in records],
        "divergence": [float(record.shared) / len(data.tasks) for record in records],
        "seconds": seconds,
    }
    if run.scored:
        found |= scores(model, guide, parts["test"], run.seed)
    if run.attacked:
        curve = robustness(model, guide, *parts["test"], x, eps=EPSILONS, num_draws=LOOKS, seed=run.seed)
        found["attack"] = np.mean(list(curve.accuracy.values()), axis=0).tolist()
    if run.paired:
        found["pairs"] = {f"{n} x {m}": of_pairs(model, parts["test"], n, m, run.seed) for n, m in PAIRS}
    return found


def load(root, run):
    """The images; every one's features have the same norm."""
    scale = "unit" if run.features == "deep" else "sqrt"
    data = office_caltech10.read(root, proportion=run.percent / 100, features=run.features, scale=scale, draw=run.draw)
    inputs = replace(data.inputs, scaler=Scaler(np.zeros(()), np.full((), 1 / LENGTH)))
    return replace(data, inputs=inputs, scaling="none")


def elbo(pairs):
    return bmtl.TaskELBO(
        "analytic", num_particles=pairs, vectorize_particles=True, max_plate_nesting=2, normalize="task_mean"
    )


def built(run, data, x, y):
    """A program and its guide."""
    switches = {key: value for key, value in of_method(run.method).items() if key != "balancer"}
    if run.w and "preset" in switches:
        switches["kl_weights"] = KLWeights(run.w, run.z)
    if "preset" in switches:
        model = program(switches.pop("preset"), data, x, y, run.seed, dropout=run.dropout, **switches)
        return model, model.guide()
    generator = torch.Generator().manual_seed(run.seed)
    encoder = torch.nn.Sequential(torch.nn.Dropout(run.dropout), linear(x["dslr"].shape[1], LATENT, generator))
    options = {}
    if "head" in switches:
        options["head"] = HEADS[switches["head"]]
    if "bottleneck" in switches:
        options["representation"] = functools.partial(Bottleneck, beta=run.z)
    sizes = {task: len(labels) for task, labels in y.items()}
    model = TaskModel(encoder, LATENT, classifications(data), sizes, generator=generator, **options)
    return model, model.guide()


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


@torch.no_grad()
def predicted(model, guide, x, seed, draws):
    """Log probabilities ``(N, C)`` by task."""
    fixed = isinstance(model, VMTL) and (model.predict == "mean" or not any(model.gaussian.values()))
    return log_probabilities(model, guide, x, num_draws=1 if fixed else draws, seed=seed, parallel=True)


def accuracies(model, guide, parts, seed, draws):
    """Mean over the tasks of the accuracy on each part's rows, all parts predicted at once."""
    tasks = list(next(iter(parts.values()))[0])
    joined = PerTask({task: torch.cat([x[task] for x, _ in parts.values()]) for task in tasks})
    log_p = predicted(model, guide, joined, seed, draws)
    found = {part: [] for part in parts}
    for task in tasks:
        sizes = [len(y[task]) for _, y in parts.values()]
        for (part, (_, y)), of_part in zip(parts.items(), log_p[task].split(sizes), strict=True):
            found[part].append((of_part.argmax(-1) == y[task]).double().mean().item())
    return {part: float(np.mean(values)) for part, values in found.items()}


def scores(model, guide, part, seed):
    """By task, and of all rows together."""
    x, y = part
    p = {task: of.double().exp().numpy() for task, of in predicted(model, guide, x, seed, DRAWS).items()}
    labels = {task: of.numpy() for task, of in y.items()}
    together, of_all = np.concatenate(list(p.values())), np.concatenate(list(labels.values()))
    right = predicted_class(together) == of_all
    return {
        "accuracy": {task: float((predicted_class(p[task]) == labels[task]).mean()) for task in p},
        "nll": float(np.mean([-np.log(p[t][np.arange(len(p[t])), labels[t]]).mean() for t in p])),
        "ece": float(np.mean([ece_of_probabilities(labels[task], p[task]) for task in p])),
        "auroc": float(error_auroc_of_probabilities(of_all, together)),
        "ratio": float(entropy_ratio_of_rows(right, entropy_of_probabilities(together), resamples=1).ratio),
    }


@torch.no_grad()
def of_pairs(model, part, many, of_w, seed):
    """Accuracy of the predictive that averages all pairs of `many` draws of z and `of_w` draws of w."""
    x, y = part
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    loc, variance = model.classifier()
    found = []
    for t, task in enumerate(x):
        mean, spread = model.encoders[0](x[task])
        z = mean + spread.sqrt() * torch.randn(many, *mean.shape, generator=generator)
        w = loc[t] + variance[t].sqrt() * torch.randn(of_w, *loc[t].shape, generator=generator)
        p = sum(torch.einsum("lbh,ch->lbc", z, own).softmax(-1).mean(0) for own in w)
        found.append((p.argmax(-1) == y[task]).double().mean().item())
    return float(np.mean(found))


# ---- What is chosen --------------------------------------------------------------------------------------------------


@functools.cache
def validated(plan, percent, method):
    """Accuracy on validation by setting ``(w, z)``, in the order of preference among equals."""
    grid = [(w, z) for w in W for z in Z]
    if "bottleneck" in of_method(method):
        grid = [(W[-1], z) for z in Z]
    if plan.steps < STEPS:
        grid = [(W[-1], Z[-2])]
    seeds = range(min(CHOOSING, plan.seeds))
    found = {}
    for setting in grid:
        runs = [done(plan, plan.run(percent, method, seed, setting, scored=False)) for seed in seeds]
        found[setting] = float(np.mean([max(look["val"] for look in run["looks"]) for run in runs]))
    text = ", ".join(f"{w:g} and {z:g} {100 * accuracy:.1f}" for (w, z), accuracy in found.items())
    print(f"{percent} % {method}: {text}", flush=True)
    return found


def chosen(plan, percent, method):
    """The weights of w's and z's divergence that are best on validation; those of VMTL where none were searched."""
    searched = method if method in SEARCHED or "bottleneck" in of_method(method) else "VMTL"
    found = validated(plan, percent, searched)
    return max(found, key=found.get)


def shared(plan, percent):
    """The weights that are best on validation in the mean over the methods."""
    found = [validated(plan, percent, method) for method in SEARCHED if method in plan.methods]
    return max(found[0], key=lambda setting: np.mean([of[setting] for of in found]))


def runs_of(plan, percent, method, weights=None, **more):
    """One run for each seed."""
    setting = chosen(plan, percent, method) if weights is None else weights
    return [done(plan, plan.run(percent, method, seed, setting, **more)) for seed in range(plan.seeds)]


# ---- Tables ----------------------------------------------------------------------------------------------------------


def keep(plan, name, caption, header, rows, left=1):
    """Prints a table, its first `left` columns of words, and writes it to its file."""
    name = f"vmtl_{name}" if plan.features == "deep" else f"vmtl_{plan.features}_{name}"
    table = page_tables.keep(plan.tables / f"{name}.csv", header, rows, left)
    print(f"\n{caption}\n\n{table}", flush=True)


def picture(plan, name, figure):
    save(figure, (plan.docs or plan.out) / f"vmtl_{name}.png")


def average(run):
    return float(np.mean(list(run["accuracy"].values())))


def entry(values, scale=100, digits=1):
    values = scale * np.asarray(values)
    error = f" ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}".replace("-", "−")


def interval(values, scale=100, digits=1):
    """Mean and 95 % t interval over the runs."""
    values = scale * np.asarray(values)
    if len(values) < 2:
        return entry(values, 1, digits)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    low, high = values.mean() - half, values.mean() + half
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")


def paper(method, percent):
    return PAPER[method][PERCENT.index(percent)] if method in PAPER else "–"


def names_of(setting):
    return "{:g}, {:g}".format(*setting)


def c5(plan):
    runs = {(m, p): runs_of(plan, p, m) for m in plan.methods for p in plan.percent}
    accuracy = {key: [average(run) for run in of] for key, of in runs.items()}
    header, rows = ["method"], {method: [method] for method in plan.methods}
    for percent in plan.percent:
        header += [f"{percent} %", f"{percent} % last", f"{percent} % best on test", f"{percent} % paper"]
        for method, row in rows.items():
            looks = [[look["test"] for look in run["looks"]] for run in runs[method, percent]]
            last, best = np.mean([of[-1] for of in looks]), np.mean([max(of) for of in looks])
            row += [entry(accuracy[method, percent]), entry([last]), entry([best]), paper(method, percent)]
    regressions = {percent: logistic(plan, percent) for percent in plan.percent}
    for name in LOGISTIC:
        rows[name] = [name]
        for percent in plan.percent:
            rows[name] += [entry([regressions[percent][name]]), "–", "–", "–"]
    keep(plan, "c5", f"Accuracy in percent, mean ± standard error over {plan.seeds} seeds:", header, rows.values())
    header = ["row minus", *(f"{percent} %" for percent in plan.percent)]
    rows = []
    for other in (*(m for m in plan.methods if m != "VMTL"), *LOGISTIC):
        row = [other]
        for percent in plan.percent:
            of = np.asarray(accuracy.get((other, percent), regressions[percent].get(other)))
            row.append(interval(accuracy["VMTL", percent] - of))
        rows.append(row)
    keep(plan, "differences", "VMTL minus another row, seed by seed, points [95 %]:", ["VMTL minus", *header[1:]], rows)
    rows = [
        [f"{p} %", m, names_of(chosen(plan, p, m)), f"{100 * max(validated(plan, p, m).values()):.1f}"]
        for p in plan.percent
        for m in plan.methods
        if m in SEARCHED or "bottleneck" in of_method(m)
    ]
    keep(plan, "chosen", "Weights of w and z chosen on validation:", ["size", "method", "w, z", "validation"], rows, 3)
    rows = []
    for percent in plan.percent:
        for method in plan.methods:
            of = runs[method, percent]
            steps = [max(run["looks"], key=lambda look: look["val"])["step"] for run in of]
            cells = [entry([run[score] for run in of], 1, 3) for score in ("nll", "ece")]
            seconds = np.median([run["seconds"] for run in of])
            rows.append([f"{percent} %", method, *cells, f"{np.mean(steps):.0f}", f"{seconds:.1f}"])
    header = ["size", "method", "NLL", "ECE", "step chosen", f"seconds for {plan.steps} steps"]
    keep(plan, "calibration", "Calibration, means over tasks:", header, rows, 2)


def shared_setting(plan):
    settings = {percent: shared(plan, percent) for percent in plan.percent}
    header, rows = ["method", *(f"{p} % at {names_of(settings[p])}" for p in plan.percent)], []
    for method in (m for m in plan.methods if m in (*SEARCHED, "VMTL-mean", "VMTL-learned")):
        of = [runs_of(plan, percent, method, settings[percent]) for percent in plan.percent]
        rows.append([method, *(entry([average(run) for run in runs]) for runs in of)])
    keep(plan, "shared", "Accuracy, with one setting (w, z) a size for all methods:", header, rows)


def by_task(plan, name, caption, variants):
    """A table by size and task of methods by the name they have in it, all with VMTL's weights."""
    tasks = {}
    rows = []
    for percent in plan.percent:
        for title, method in variants.items():
            runs = runs_of(plan, percent, method, chosen(plan, percent, "VMTL"))
            tasks = {task: [run["accuracy"][task] for run in runs] for task in runs[0]["accuracy"]}
            cells = [entry(values) for values in tasks.values()]
            rows.append([f"{percent} %", title, *cells, entry([average(run) for run in runs]), paper(method, percent)])
    keep(plan, name, caption, ["size", "", *tasks, "average", "paper's average"], rows, 2)


def c8(plan):
    variants = {"neither": "BMTL", "z": "z alone", "w": "w alone", "z and w": "VMTL"}
    by_task(plan, "c8", "What is Bayesian, with priors from the other tasks:", variants)


def c11(plan):
    variants = {"mean": "VMTL-mean", "learnable": "VMTL-learned", "Gumbel-softmax": "VMTL"}
    by_task(plan, "c11", "Weights of the other tasks' posteriors:", variants)


def c15(plan):
    by_task(plan, "c15", "Weights of w and of z:", {"same": "same weights", "different": "VMTL"})


def dropout(plan):
    rows = []
    for title, method, rate in (
        ("VMTL, none", "VMTL", 0.0),
        ("VMTL, 0.7 before the encoder", "VMTL", 0.7),
        ("VMTL-AC, none", "VMTL-AC", 0.0),
        ("VMTL-AC, 0.7 before the amortised network", "VMTL-AC, dropout of w", 0.0),
        ("VMTL-AC, 0.7 before both", "VMTL-AC, dropout of w", 0.7),
    ):
        of = [
            runs_of(plan, p, method, chosen(plan, p, "VMTL-AC" if "AC" in method else "VMTL"), dropout=rate)
            for p in plan.percent
        ]
        rows.append([title, *(entry([average(run) for run in runs]) for runs in of)])
    keep(plan, "dropout", "Dropout of inputs:", ["", *(f"{percent} %" for percent in plan.percent)], rows)


def weights(plan):
    rows = []
    for w, z in ((0.1, 1e-4), (1.0, 1e-4), (0.1, 1.0), (1.0, 1.0)):
        of = [runs_of(plan, percent, "VMTL", (w, z)) for percent in plan.percent]
        rows.append([f"{w:g}", f"{z:g}", *(entry([average(run) for run in runs]) for runs in of)])
    keep(
        plan, "weights", "VMTL by the weights of its divergences:", ["w", "z", *(f"{p} %" for p in plan.percent)], rows
    )


def c14(plan):
    rows = []
    for method in ("VMTL", "VMTL-AC"):
        for pairs in (1, 2, 10):
            runs = runs_of(plan, 5, method, pairs=pairs, paired=True)
            rows.append([method, pairs, *(entry([run["pairs"][name] for run in runs]) for name in runs[0]["pairs"])])
    header = ["method", "pairs in training", *(f"L x M = {many} x {of_w}" for many, of_w in PAIRS)]
    keep(plan, "c14", "Accuracy at 5 % by the numbers of samples:", header, rows)


def c1(plan):
    curves, rows = {}, []
    for percent in plan.percent:
        for method in ("VMTL", "VMTL-AC"):
            runs = runs_of(plan, percent, method, chosen(plan, percent, "VMTL"))
            loss = np.array([run["cross_entropy"] for run in runs])
            divergence = np.array([run["divergence"] for run in runs])
            curves[percent, method] = loss + divergence
            row = [f"{percent} %", method]
            for below in (1.0, 0.3, 0.1):
                reached = loss < below
                steps = reached.argmax(1) + 1
                row.append(
                    f"{np.mean(steps):.1f} ({min(steps)} to {max(steps)})" if reached.any(1).all() else "not in all"
                )
            row += [entry(loss[:, -1], 1, 3), entry(divergence[:, -1], 1, 3)]
            rows.append(row)
    header = [
        "size",
        "method",
        *(f"below {below}" for below in (1.0, 0.3, 0.1)),
        "at the last step",
        "divergences there",
    ]
    caption = "First step with a mean training cross entropy below so many nats, mean (range) over seeds:"
    keep(plan, "c1", caption, header, rows, 2)
    with styled():
        figure = Figure(figsize=(9, 3), layout="constrained")
        for percent, panel in zip(plan.percent, np.atleast_1d(figure.subplots(1, len(plan.percent))), strict=True):
            for method, line in lines_of(["VMTL", "VMTL-AC"]).items():
                for curve in curves[percent, method]:
                    panel.plot(
                        np.arange(1, len(curve) + 1), curve, **{**line, "alpha": 0.6, "label": None, "marker": ""}
                    )
            panel.set_title(f"{percent} %", fontweight="bold")
            panel.set_xlabel("Step")
        figure.axes[0].set_ylabel("Training loss [nats]")
        method_legend(figure, ["VMTL", "VMTL-AC"])
    picture(plan, "convergence", figure)


def c16(plan):
    header, rows = ["method"], []
    for percent in plan.percent:
        header += [f"{percent} % accuracy", f"{percent} % ratio", f"{percent} % AUROC"]
    for method in plan.methods:
        row = [method]
        for percent in plan.percent:
            runs = runs_of(plan, percent, method)
            row += [entry([average(run) for run in runs]), interval([run["ratio"] for run in runs], 1, 2)]
            row.append(entry([run["auroc"] for run in runs], 1, 3))
        rows.append(row)
    keep(plan, "c16", "Entropy of wrong over that of right predictions, all tasks together:", header, rows)


def c2(plan):
    header, rows, curves = ["method", *(f"eps {eps:g}" for eps in EPSILONS), "0.1 over 0"], [], {}
    for method in (m for m in DRAWN if m in plan.methods):
        runs = runs_of(plan, ATTACKED, method, attacked=True)
        curves[method] = np.array([run["attack"] for run in runs])
        share = curves[method][:, EPSILONS.index(0.1)] / curves[method][:, 0]
        rows.append([method, *(entry(of) for of in curves[method].T), interval(share, 1, 2)])
    keep(plan, "c2", f"Accuracy under attack at {ATTACKED} %, mean over the tasks:", header, rows)
    with styled():
        figure = Figure(figsize=(5, 3.4), layout="constrained")
        panel = figure.subplots()
        for method, line in lines_of(list(curves)).items():
            panel.errorbar(EPSILONS, curves[method].mean(0), curves[method].std(0), **line)
        panel.set_ylabel("Accuracy")
        panel.set_xlabel("Size of the attack, in standard deviations of each feature")
        method_legend(figure, list(curves))
    picture(plan, "robustness", figure)


def splits(plan):
    rows, of = [], {}
    for method in (m for m in SPLIT if m in plan.methods):
        setting = chosen(plan, RESAMPLED, method)
        runs = [done(plan, plan.run(RESAMPLED, method, 0, setting, draw=draw)) for draw in range(1, plan.seeds + 1)]
        of[method] = [average(run) for run in runs]
    found = [logistic(plan, RESAMPLED, draw) for draw in range(1, plan.seeds + 1)]
    of |= {name: [regressions[name] for regressions in found] for name in LOGISTIC}
    for method, values in of.items():
        rows.append([method, interval(values), interval(np.subtract(of["VMTL"], values))])
    caption = f"At {RESAMPLED} %, {plan.seeds} other draws of the training images, mean [95 %]:"
    keep(plan, "splits", caption, ["method", "accuracy", "VMTL minus it"], rows)


@functools.cache
def logistic(plan, percent, draw=None):
    """Accuracies of logistic regressions, of each task by itself and of all as one; the penalty is chosen on validation."""
    data = load(plan.root, Run(percent, "", 0, features=plan.features, draw=draw))
    parts = {part: data.tensors_by_task(part) for part in ("train", "val", "test")}
    x, y = parts["train"]
    found = {}
    for name in LOGISTIC:
        tried = []
        for c in PENALTIES:
            if name == "logistic, pooled":
                pooled = regression(c).fit(torch.cat(list(x.values())).double(), torch.cat(list(y.values())))
                fitted = dict.fromkeys(x, pooled)
            else:
                fitted = {task: regression(c).fit(x[task].double(), y[task]) for task in x}
            accuracy = {
                part: float(np.mean([of.score(x[task], y[task]) for task, of in fitted.items()]))
                for part, (x, y) in parts.items()
            }
            tried.append((accuracy["val"], accuracy["test"]))
        found[name] = max(tried, key=lambda pair: pair[0])[1]
    return found


def regression(c):
    """At the least of ``C sum NLL + |W|^2 / 2``, the intercepts free."""
    return LogisticRegression(C=c, max_iter=500)


def related(plan):
    """How often each task is nearest to each other one, over draws of the training images; the picture is the first's."""
    trees = [relations(plan, draw) for draw in range(1, plan.seeds + 1)]
    picture(plan, "relatedness", relatedness_matrix(trees[0]))
    rows = []
    found = [nearest(tree)["nearest"] for tree in trees]
    shares = [relatedness(tree)["mean"] for tree in trees]
    for task in found[0]["task"].values:
        names = [of.sel(task=task).item() for of in found]
        most = max(names, key=names.count)
        values = [share.sel(task=task, source=most).item() for share in shares]
        rows.append([task, most, f"{names.count(most)} of {len(names)}", interval(values)])
    caption = f"At {RELATED} %, the nearest task (of w), {plan.seeds} draws of the training images, mean [95 %]:"
    header = ["task", "nearest", "in so many draws", "its share, %"]
    keep(plan, "related", caption, header, rows, 2)


def relations(plan, draw):
    """The posterior of the weights, given classifiers that do not know of each other.

    Trained together, the classifiers are drawn to each other until all are alike, and the weights show nothing. So VBMTL's
    posteriors are kept as they are, and a VMTL with its encoder learns Dirichlet weights of them, at the bound's own weight
    of w.
    """
    data = load(plan.root, Run(RELATED, "VMTL", draw, features=plan.features, draw=draw))
    x, y = data.tensors_by_task("train")
    models = []
    for preset, switches in (("VBMTL", {}), ("VMTL", {"weights": "dirichlet"})):
        torch.manual_seed(draw)
        components = {"components": models[0].eval()} if models else {}
        model = program(preset, data, x, y, draw, kl_weights=KLWeights(1.0, 1e-3), **switches, **components)
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

        svi = bmtl.BalancedSVI(model, model.guide(), optim, elbo=elbo(2))
        for _ in range(plan.steps * (1 + 3 * len(models))):
            svi.step(x, y)
        models.append(model)
    few = PerTask({task: part[:1] for task, part in x.items()})
    drawn = bmtl.draw(model, model.guide(), few, num_draws=400, sites=["alpha_w", "alpha_z"])
    shares = model.tree_extras(drawn.posterior)
    return results.to_datatree(
        {},
        {},
        posterior={**drawn.posterior, **{name: share.values for name, share in shares.items()}},
        dims={name: share.dims for name, share in shares.items()},
        coords=shares["relatedness_w"].coords,
        attributes={"method": "VMTL on VBMTL's posteriors"},
    )


TABLES = {
    "c5": c5,
    "shared": shared_setting,
    "c8": c8,
    "c11": c11,
    "c15": c15,
    "dropout": dropout,
    "weights": weights,
    "c14": c14,
    "c1": c1,
    "c16": c16,
    "c2": c2,
    "splits": splits,
    "related": related,
}


if __name__ == "__main__":
    main()
