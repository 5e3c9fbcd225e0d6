"""Homoscedastic noise where it is known: a parameter or a latent of real targets, and the temperature of classes.

Run: python examples/homoscedastic_noise.py [--steps 800] [--quick] [--docs docs]

Real targets: 20 targets are linear functions of 5 features plus Gaussian noise, ten with a standard deviation of 0.3 and ten
of 30. The noise is a parameter (with point heads: maximum likelihood), or a latent with a normal prior on log sigma^2 (with
normal priors on the heads too, and a normal guide). Printed: the learnt over the true standard deviation, and how often the
central 90 % of the posterior hold the true one.

Classes: 300 labels of three classes from known logits. The temperature sigma^2 is learnt from four starts, with logits that
the head may scale and with the true logits times 4 as fixed inputs, where sigma^2 = 4 is right. "kendall" is the published
approximation of the loss.

Writes noise.csv and temperature.csv under --out; with --docs also docs/results/homoscedastic_noise.csv and
docs/results/homoscedastic_temperature.csv.
"""

import argparse
import csv
import functools
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import nn

import bmtl
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.storage import atomic
from bmtl.models import BayesianHeads, LinearHeads, TaskModel, likelihood_of
from bmtl.targets import Classes, Real

FEATURES = 5
ROWS = (12, 40, 160)
SIGMAS = (0.3, 30.0)
REPEATS = 10  # targets of each noise
LABELS = 300  # of classes
SCALE = 4.0  # of the fixed logits over the true ones
STARTS = (-2.0, 0.0, 2.0, 5.0)  # of log sigma^2
FILES = ("noise", "temperature")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/homoscedastic"))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--quick", action="store_true", help="shows that everything runs, not how well")
    parser.add_argument("--docs", type=Path, help="folder of the documentation")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, rows = (3, ROWS[:1]) if options.quick else (options.steps, ROWS)
    options.out.mkdir(parents=True, exist_ok=True)
    noise = [[kind, n, *known_noise(kind, n, steps)] for n in rows for kind in ("parameter", "latent")]
    write(options.out / "noise.csv", ["noise", "rows", "mean", "sd", "expected", "coverage"], noise)
    tempered = [
        [name, "head" if free else "fixed", start, *temperature(name, free, start, steps)]
        for name in ("categorical", "kendall")
        for free in (True, False)
        for start in STARTS
    ]
    write(options.out / "temperature.csv", ["likelihood", "logits", "start", "log_variance", "nll"], tempered)
    print(page(options.out / "noise.csv", options.out / "temperature.csv"))
    if options.docs:
        (options.docs / "results").mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(options.out / f"{name}.csv", options.docs / "results" / f"homoscedastic_{name}.csv")


def known_noise(kind, rows, steps):
    """Mean and standard deviation over targets of the learnt over the true sigma, the expected mean, and the coverage."""
    random = np.random.default_rng(rows)
    x = random.normal(size=(rows, FEATURES))
    sigmas = np.repeat(SIGMAS, REPEATS)
    # The signal is as large as the noise.
    slopes = random.normal(size=(len(sigmas), FEATURES)) / np.sqrt(FEATURES)
    y = (x @ slopes.T + random.normal(size=(rows, len(sigmas)))) * sigmas
    labels = {f"y{i}": torch.tensor(column, dtype=torch.float32) for i, column in enumerate(y.T)}
    made = {name: likelihood_of(Real(), "gaussian", noise=kind) for name in labels}
    heads = LinearHeads if kind == "parameter" else BayesianHeads
    model = TaskModel(nn.Identity(), FEATURES, made, rows, head=heads, labels=labels, generator=seeded())
    svi = train(model, torch.tensor(x, dtype=torch.float32), labels, steps)
    units = np.array([float(of.unit) for of in made.values()])
    if kind == "parameter":
        learnt = np.array([float(of.unknowns["log_variance"]("").detach()) for of in made.values()])
        inside = None
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            drawn = bmtl.draw(model, svi.guide, torch.tensor(x[:2], dtype=torch.float32), num_draws=500)
        found = np.stack([drawn.posterior[f"log_variance_{name}"] for name in labels])
        learnt = found.mean(1)
        low, high = np.quantile(np.exp(found / 2), [0.05, 0.95], axis=1) * units / sigmas
        inside = np.mean((low < 1) & (high > 1))
    ratio = np.exp(learnt / 2) * units / sigmas
    expected = np.sqrt(1 - (FEATURES + 1) / rows) if kind == "parameter" else None
    return ratio.mean(), ratio.std(ddof=1), expected, inside


def temperature(name, free, start, steps):
    """The last log sigma^2 and the mean negative log-likelihood of the labels.

    Args:
        name: Of the likelihood.
        free: Whether a head makes the logits; otherwise they are the true ones, times `SCALE`.
        start: Of log sigma^2.
        steps: How many.
    """
    random = np.random.default_rng(0)
    x = random.normal(size=(LABELS, 2))
    true = 1.5 * np.stack([x[:, 0], x[:, 1], -x.sum(1)], 1)
    true -= true.mean(1, keepdims=True)
    y = {"c": torch.tensor([random.choice(3, p=p) for p in torch.softmax(torch.tensor(true), 1).numpy()])}
    likelihood = likelihood_of(Classes(("a", "b", "c")), name, noise="parameter")
    unknown = likelihood.unknowns["log_variance"]
    unknown.start_at(torch.tensor(start))
    inputs = torch.tensor(x if free else SCALE * true, dtype=torch.float32)
    model = TaskModel(nn.Identity(), inputs.shape[1], {"c": likelihood}, LABELS, generator=seeded())
    if not free:
        with torch.no_grad():
            for parameter in model.heads.parameters():
                parameter.copy_(torch.eye(3) if parameter.dim() > 1 else torch.zeros(3))
                parameter.requires_grad_(False)
    svi = train(model, inputs, y, steps)
    found = bmtl.draw(model, svi.guide, inputs, num_draws=1).targets["c"].probability
    nll = -np.log(found[np.arange(LABELS), y["c"].numpy()]).mean()
    return float(unknown("").detach()), float(nll)


def train(model, x, y, steps):
    """Full batches under Adam, whose rate falls to 0."""
    svi = bmtl.BalancedSVI(
        model, model.guide(), functools.partial(torch.optim.Adam, lr=0.02), "ew", bmtl.TaskELBO("analytic")
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for step in range(steps):
            svi.step(x, y)
            for group in svi.optimizer.param_groups:
                group["lr"] = 0.02 * (1 - step / steps)
    return svi


def seeded():
    return torch.Generator().manual_seed(0)


def write(path, header, rows):
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(
            ["" if cell is None else f"{cell:.5f}" if isinstance(cell, float) else cell for cell in row] for row in rows
        )


def page(noise, tempered):
    """The tables of the documentation, from the files."""

    def read(path):
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    lines = [
        [
            line["noise"],
            line["rows"],
            f"{float(line['mean']):.3f} ± {float(line['sd']):.3f}",
            line["expected"] and f"{float(line['expected']):.3f}",
            line["coverage"] and f"{float(line['coverage']):.0%}",
        ]
        for line in read(noise)
    ]
    first = markdown_table(["noise", "rows", "learnt / true sigma", "expected", "in the central 90 %"], *lines)
    runs = {}
    for line in read(tempered):
        runs.setdefault((line["likelihood"], line["logits"]), []).append(line)
    lines = [
        [
            f"{name}, {'logits of a head' if logits == 'head' else 'fixed logits'}",
            *(f"{float(line['log_variance']):.2f}" for line in found),
            f"{min(float(line['nll']) for line in found):.3f} to {max(float(line['nll']) for line in found):.3f}",
        ]
        for (name, logits), found in runs.items()
    ]
    header = ["log sigma^2 ends at", *(f"from {start:g}" for start in STARTS), "mean NLL of the labels"]
    return f"{first}\n\n{markdown_table(header, *lines)}"


if __name__ == "__main__":
    main()
