"""Posteriors that are each other's priors become ever narrower; a fixed share of a broad component stops them.

Run: python examples/vmtl_collapse.py [--out runs/vmtl_collapse] [--docs docs] [--steps 1500] [--data-sets 10] [--quick]

Four linear regressions in two clusters, 12 rows and 20 features each, noise known. Every task's prior combines the
posteriors of the others, as in variational multi-task learning. A posterior's precision is then that of its data and of its
neighbours', which hold those data already: counted again in every step, the precision grows without end. With an anchor, a
component Normal(0, 1) of fixed share, there is a fixed point. "Pool" is the log-linear pool, "sum" the weighted sum of the
authors' code. The picture shows the posteriors' mean standard deviation over the steps, averaged over data sets; the table
has the error of their means too, with standard errors over data sets.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import page_tables
import torch
from matplotlib.figure import Figure
from torch import nn

import bmtl
from bmtl.evaluation.style import lines_of, method_legend, save, styled
from bmtl.evaluation.text_tables import entry
from bmtl.inputs import PerTask
from bmtl.models.likelihoods import Gaussian
from bmtl.models.vmtl import VMTL, PointEncoder

TASKS, FEATURES, ROWS, NOISE = 4, 20, 12, 0.3
PRIORS = {
    "pool, anchor 0": {"combine": "log-linear-pool", "anchor": 0.0},
    "sum, anchor 0 (as released)": {"combine": "sum", "anchor": 0.0},
    "pool, anchor 0.5": {"combine": "log-linear-pool", "anchor": 0.5},
    "Normal(0, 1), no other task": {"prior": "normal"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/vmtl_collapse"))
    parser.add_argument(
        "--docs", type=Path, help="folder of the documentation, for the table in results/ and the picture"
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--data-sets", type=int, default=10, help="each with its own data and its own initial values")
    parser.add_argument("--quick", action="store_true", help="two data sets, three steps: shows that everything runs")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.data_sets = 3, 2
    if options.steps < 2:
        parser.error(f"--steps is a number of steps, from 2, and {options.steps} was given.")
    if options.data_sets < 2:
        parser.error(f"--data-sets is a number of data sets, from 2, and {options.data_sets} was given.")
    torch.set_num_threads(1)
    spreads, rows = {}, []
    for name, switches in PRIORS.items():
        runs = [train(switches, options.steps, seed) for seed in range(options.data_sets)]
        spread = np.array([spread for spread, _ in runs])
        spreads[name] = spread.mean(0)
        read = (spread[:, options.steps // 2 - 1], spread[:, -1], np.array([error for _, error in runs]))
        rows.append([name, *(entry(values.mean(), values.std(ddof=1) / len(values) ** 0.5) for values in read)])
        print(f"{name}: done", flush=True)
    tables = options.out if options.docs is None else options.docs / "results"
    header = ["prior", "sd halfway", "sd at last", "RMSE of the means"]
    print(page_tables.keep(tables / "vmtl_collapse.csv", header, rows))
    picture = (options.docs or options.out) / "vmtl_collapse.png"
    save(draw(spreads), picture)
    print(f"Wrote {tables / 'vmtl_collapse.csv'} and {picture}.")


def regressions(seed):
    """Inputs, labels and true weights by task; tasks 0 and 2 are neighbours, and so are 1 and 3."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(2, FEATURES, generator=generator)
    x, y, w = {}, {}, {}
    for t in range(TASKS):
        name = f"t{t}"
        w[name] = centres[t % 2] + 0.05 * torch.randn(FEATURES, generator=generator)
        x[name] = torch.randn(ROWS, FEATURES, generator=generator)
        y[name] = x[name] @ w[name] + NOISE * torch.randn(ROWS, generator=generator)
    return PerTask(x), y, w


def known_noise():
    likelihood = Gaussian()
    likelihood.unknowns["log_variance"].start_at(torch.tensor(2 * np.log(NOISE)))
    return likelihood.requires_grad_(False)


def train(switches, steps, seed):
    """Mean standard deviation of the posteriors after each step ``(steps,)``, and the error of their means."""
    x, y, w = regressions(seed)
    torch.manual_seed(seed)
    model = VMTL(
        FEATURES,
        {name: known_noise() for name in x},
        ROWS,
        encoder=PointEncoder(nn.Identity()),
        latent=FEATURES,
        latent_z="point",
        scale_w=1.0,
        generator=torch.Generator().manual_seed(seed),
        **({"weights": "learned"} | switches),
    )
    elbo = bmtl.TaskELBO("analytic")
    svi = bmtl.BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=0.03), elbo=elbo)
    spread = np.zeros(steps)
    for step in range(steps):
        svi.step(x, y)
        with torch.no_grad():
            mean, variance = model.classifier()
        spread[step] = variance.sqrt().mean()
    errors = [(mean[t, 0] - truth).square().mean().sqrt().item() for t, truth in enumerate(w.values())]
    return spread, float(np.mean(errors))


def draw(spreads):
    with styled():
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for name, line in lines_of(list(spreads)).items():
            axes.plot(np.arange(1, len(spreads[name]) + 1), spreads[name], **line)
        axes.set(xlabel="Step", ylabel="Mean sd of the posteriors of w", yscale="log")
        method_legend(figure, list(spreads))
    return figure


if __name__ == "__main__":
    main()
