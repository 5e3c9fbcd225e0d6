"""Figure 5 of the MT-ENet paper (Oh & Shin 2022) on concrete: does the squared error pull against the likelihood?

Run: python examples/mt_enet_conflict.py --root ../shared/data [--out runs/mt_enet_conflict] [--docs docs] [--seeds 3]
                                         [--quick]

The cosine between the gradients of an evidential network's negative log-likelihood and of its second loss, on all
parameters that both reach: the trunk and the prediction's head. As in the authors' code, the likelihood has no evidence
penalty here. The networks are trained with

    mt-enet         a squared error whose slope is bounded at the least predicted scale of the batch
    mse-enet        the squared error
    mse-enet-0.1    a tenth of it

Not as in the paper: a UCI set (the first of its standard splits), one layer of 50 ReLU units, Adam at 0.008, 40 epochs of
batches of 32. enet, trained on the likelihood alone, is measured too; and in each run all of the losses below are measured,
as shadows, whatever it is trained on: if each loss went with a training of its own, a difference between cosines might be
one between trainings. The weight of a loss does not change a cosine.

    trained     the loss that the run is trained on
    plain       the squared error
    batch-min   its slope bounded at the least scale of the batch
    sample      its slope bounded at each row's own scale

The likelihood's gradient has two parts (definition 3): through the prediction alone ("point"), with nu, alpha and beta held,
and through these alone ("unc"), with the prediction held. Row by row a loss of the prediction points where "point"
does, so that a conflict can come from the other part, or from rows that weigh differently. The cosines of the squared error
with both are measured too, plain and bounded at the least scale.

With --set davis the same on drug-target affinities, of which the paper's figure is: pairs of a fingerprint and a
composition, two layers of 256, Adam at 0.001, 6 epochs of batches of 256, moving averages over 250 steps.

12 runs at 3 seeds: about two minutes of processor time on concrete. Writes each run's results tree, conflicts.csv (by
seed), table.md, and cosines.png: moving averages with the first seed. With --docs both tables are also files of the
documentation's results/, and the picture is one of its own.
"""

import argparse
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import page_tables
import pandas as pd
import pyro
import torch
from pyro import poutine
from torch import nn

import bmtl
from bmtl.datasets import Batches, load
from bmtl.distributions import NormalInverseGamma, lipschitz_mse
from bmtl.evaluation import conflicts, results
from bmtl.evaluation.plots import cosine_curves
from bmtl.evaluation.style import save
from bmtl.experiments import registry, results_tree
from bmtl.inference import ConflictProbe
from bmtl.inference.record import history_arrays
from bmtl.models import TaskModel
from bmtl.models.likelihoods import Evidential

METHODS = {
    "enet": {"objective": "nll"},
    "mt-enet": {"objective": "nll+lipschitz"},
    "mse-enet": {"objective": "nll+mse"},
    "mse-enet-0.1": {"objective": "nll+mse", "weight": 0.1},
}
SHADOWS = {"plain": "inf", "batch-min": "batch_min", "sample": "sample"}  # name -> threshold
PARTS = ("point", "unc")
SPLIT = ("plain", "batch-min")  # shadows that are compared with the likelihood's parts
EVERY = 2


@dataclass(frozen=True)
class Setting:
    """How networks of a set are trained; `window` is in measured steps, files of the documentation begin with `page`."""

    widths: tuple[int, ...] = (50,)
    batch: int = 32
    rate: float = 8e-3
    epochs: int = 40
    window: int = 50
    page: str = "mt_enet_conflict"


AFFINITY = Setting((256, 256), 256, 1e-3, 6, 125, "mt_enet_dta_conflict")


class Watched(nn.Module):
    """A program with one target that states more losses of its prediction, for a probe to keep out of training."""

    def __init__(self, program, target):
        super().__init__()
        self.program, self.target = program, target

    def forward(self, x, y=None):
        with poutine.trace() as seen:
            self.program(x, y)
        if y is None:
            return
        labels, prediction = y[self.target], seen.trace.nodes[f"y_{self.target}"]["fn"]
        with pyro.plate("shadow_rows", self.program.n_data[self.target], subsample=labels):
            for name, threshold in SHADOWS.items():
                with bmtl.task(f"{self.target}/{name}"):
                    pyro.factor(f"{self.target}_{name}", -lipschitz_mse(labels, prediction, threshold))
            for name, part in zip(PARTS, parts(prediction), strict=True):
                with bmtl.task(f"{self.target}/{name}"):
                    pyro.factor(f"{self.target}_{name}", part.log_prob(labels))


def parts(p):
    """A prediction's distribution twice, with gradients through gamma alone and through all but gamma.

    Both reach gamma, the second with a gradient of zero: cosines are then taken on one set of parameters.
    """
    point = NormalInverseGamma(p.gamma, p.nu.detach(), p.alpha.detach(), p.beta.detach())
    return point, NormalInverseGamma(p.gamma.detach() + 0 * p.gamma, p.nu, p.alpha, p.beta)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder that holds uci/<set>.npz; by default what BMTL_DATA says")
    parser.add_argument("--set", default="concrete", help="name of a UCI set, or davis")
    parser.add_argument("--methods", default=",".join(METHODS), help="which networks to train")
    parser.add_argument("--out", type=Path, default=Path("runs/mt_enet_conflict"))
    parser.add_argument("--docs", type=Path, help="folder of the documentation, for tables in results/ and the picture")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--quick", action="store_true", help="one seed, 1 epoch: shows that everything runs")
    options = parser.parse_args()
    seeds = options.seeds or (1 if options.quick else 3)
    setting = AFFINITY if options.set == "davis" else Setting()
    epochs = options.epochs or (1 if options.quick else setting.epochs)
    torch.set_num_threads(1)  # networks of this size are slower on two
    try:
        if options.set == "davis":
            data = load("davis", root=options.root)
        else:
            data = load(f"uci/{options.set}", root=options.root, validation=0)
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")

    found, first = [], {}
    for name in options.methods.split(","):
        for seed in range(seeds):
            tree = trained(data, name, seed, epochs, setting)
            results.write(tree, options.out / name / f"seed-{seed}" / "results.nc")
            first.setdefault(name, tree)
            found += measured(tree, name, seed)
            print(f"{name}, seed {seed}", flush=True)
    frame = pd.DataFrame(found)
    frame.to_csv(options.out / "conflicts.csv", index=False)
    stem = (options.out if options.docs is None else options.docs / "results") / setting.page
    text = report(frame, options.set, epochs, stem)
    (options.out / "table.md").write_text(text)
    print(f"\n{text}")
    trained_losses = ["mse"] if set(first) - {"enet"} else []
    shown = [*(("nll", loss) for loss in (*trained_losses, *SHADOWS)), *(("plain", part) for part in PARTS)]
    (target,) = data.tasks
    pairs = [(f"{target}/{one}", f"{target}/{other}") for one, other in shown]
    picture = options.out / "cosines.png" if options.docs is None else options.docs / f"{setting.page}.png"
    save(cosine_curves(first, pairs=pairs, window=setting.window, columns=2), picture)
    print(f"Wrote conflicts.csv, table.md and <method>/seed-<n>/results.nc to {options.out}, and {picture}.")


def trained(data, method, seed, epochs, setting):
    """The results tree of one run, with its cosines."""
    (target,) = data.tasks
    x, y = data.tensors("train")
    generator = torch.Generator().manual_seed(seed)
    inputs = data.inputs.describe()
    maker = registry.trunk(registry.default_trunk(inputs)).value
    trunk = maker(inputs, widths=setting.widths, generator=generator)
    evidential = Evidential(regulariser=0.0, **METHODS[method])
    rows, labels = (
        len(data.rows["train"]),
        y if data.scaling == "none" else None,
    )  # which labels that are not scaled need
    program = TaskModel(trunk, trunk.width, {target: evidential}, rows, labels=labels, generator=generator)
    svi = bmtl.BalancedSVI(
        Watched(program, target), program.guide(), functools.partial(torch.optim.Adam, lr=setting.rate), "ew"
    )
    losses = [*([] if method == "enet" else ["mse"]), *SHADOWS]
    pairs = [*(("nll", loss) for loss in losses), *((loss, part) for loss in SPLIT for part in PARTS)]
    likelihood = program.tasks[0]  # the target's own name where it is the only objective
    named = [tuple(likelihood if loss == "nll" else f"{target}/{loss}" for loss in pair) for pair in pairs]
    probe = ConflictProbe(named, every=EVERY, shadow=[f"{target}/{name}" for name in (*SHADOWS, *PARTS)])
    batches = Batches(x, y, setting.batch, seed=seed)
    bmtl.fit(svi, batches, max_epochs=epochs, seed=seed, progress=False, callbacks=[probe])
    drawn = bmtl.draw(program, program.guide(), *data.tensors("test"), seed=seed)
    about = {"method": method, "balancer": "ew", "seed": seed}
    about["configuration"] = {"regulariser": 0.0, "every": EVERY, **METHODS[method]}
    tasks = [f"{target}/nll" if name == likelihood else name for name in svi.names]  # alike in all runs
    return results_tree(data, drawn, history_arrays(svi.history), tasks=tasks, attributes=about)


def measured(tree, method, seed):
    """Mean cosine and share of conflicts of each loss with the likelihood and its parts, a row a pair."""
    pairs = conflicts.conflicts(tree)
    target = str(pairs["task"].values[0]).rpartition("/")[0]
    present = {str(task).rpartition("/")[2] for task in pairs["task"].values}
    rows = []
    for loss in ("mse", *SHADOWS):
        for other in ("nll", *(PARTS if loss in SPLIT else ())):
            if loss in present:
                of = pairs.sel(task=f"{target}/{loss}", task_bis=f"{target}/{other}")
                row = {"method": method, "seed": seed, "loss": "trained" if loss == "mse" else loss}
                row["with"] = "likelihood" if other == "nll" else other
                rows.append(row | {name: of[name].item() for name in ("mean_cosine", "conflict_share", "measured")})
    return rows


def report(frame, name, epochs, stem):
    """The tables of a page, and a file of each whose name begins with `stem`."""
    seeds, steps = frame["seed"].nunique(), frame["measured"].iloc[0]
    spread = f" ± standard deviation over {seeds} seeds" if seeds > 1 else ""
    lines = [
        f"{name}, {epochs} epochs, {steps} steps measured. Mean cosine{spread} between the gradients of the",
        "likelihood and of each loss; in brackets the share of steps at which it was negative.",
        "",
        table(f"{stem}.csv", frame, [(loss, "likelihood") for loss in ("trained", *SHADOWS)], lambda loss, _: loss),
        "",
        "The same between each loss and a part of the likelihood's gradient.",
        "",
        table(
            f"{stem}_parts.csv",
            frame,
            [(loss, part) for loss in SPLIT for part in PARTS],
            lambda loss, part: f"{loss}, {part}",
        ),
    ]
    return "\n".join([*lines, ""])


def table(file, frame, pairs, title):
    rows = [
        [method, *(entry(of[(of["loss"] == loss) & (of["with"] == other)]) for loss, other in pairs)]
        for method, of in frame.groupby("method", sort=False)
    ]
    return page_tables.keep(Path(file), ["trained as", *(title(*pair) for pair in pairs)], rows)


def entry(of):
    if not len(of):
        return ""
    cosine = of["mean_cosine"]
    spread = f" ± {cosine.std():.2f}" if len(of) > 1 else ""
    return f"{round(cosine.mean(), 2) + 0.0:.2f}{spread} ({100 * of['conflict_share'].mean():.1f} %)"


if __name__ == "__main__":
    main()
