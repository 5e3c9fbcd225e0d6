"""Figure 4 of the MT-ENet paper (Oh & Shin 2022): evidential regression where data are rich and where they are sparse.

Run: python examples/mt_enet_synthetic.py [--out runs/mt_enet_synthetic] [--docs docs] [--quick]
                                          [--methods enet,mt-enet] [--seeds 3]

One input, 900 points on the left and 20 in the last third. The likelihood alone (ENet) can raise the uncertainty over the
sparse points instead of fitting them, and does; with a squared error of bounded slope (MT-ENet) it fits them.

As in the paper: data (their seed), 100-100-100 tanh network, Adam at 0.01 with weight decay 1e-3 and a factor of 0.99 an
epoch, regulariser 1e-4, 500 epochs of batches of 128, last epoch. Not as in the paper: several seeds of the network.

The other models of the figure are a Gaussian process (Matern of order .05, length 1, amplitude fitted, no noise) and MC
dropout (0.1 after each layer, squared errors, Adam at 5e-3, 30 thinned networks); more are a network with a normal's mean
and variance, and the evidential ones with a plain squared error or a threshold for each row. MC dropout and the process
have no noise of their own: their NLL is of a normal with the variance of their draws and the mean squared error of the
observed points.

A run takes about 20 seconds on a quiet core. Writes a picture of the first seed's networks
and a table of medians over the seeds on the observed points: RMSE, negative log-likelihood, epistemic standard deviation,
expected calibration error, and the latter as the authors' code computes it, with one degree of freedom too few.
"""

import argparse
import functools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import page_tables
import pandas as pd
import torch
from pyro import poutine
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern
from torch import nn

import bmtl
from bmtl.datasets import Batches
from bmtl.evaluation.style import COLOURS, save, styled
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Evidential, Gaussian, Heteroscedastic
from bmtl.targets.laws import StudentTMixture
from bmtl.targets.metrics.pit import ece_from_pit

METHODS = {
    "enet": {"objective": "nll"},
    "mse-enet": {"objective": "nll+mse"},
    "mt-enet": {"objective": "nll+lipschitz"},
    "mt-enet-sample": {"objective": "nll+lipschitz", "threshold": "sample"},
    "gaussian": {},
    "mc-dropout": {"lr": 5e-3},
    "gp": {},
}
DEFAULT = ("gp", "mc-dropout", "enet", "mt-enet")  # the paper's four
PASSES, RATE_OF_DROPOUT = 30, 0.1
LEVELS = (0.9, 0.7, 0.5, 0.3)
COLUMNS = ("RMSE", "NLL", "epistemic sd", "ECE", "ECE released")
BORDER = 6.0  # between the rich and the sparse region


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/mt_enet_synthetic"))
    parser.add_argument(
        "--docs", type=Path, help="folder of the documentation, for the table in results/ and the picture"
    )
    parser.add_argument("--methods", default=",".join(DEFAULT), help=f"among {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--balancer", default="ew", help="between likelihood and squared error")
    parser.add_argument("--quick", action="store_true", help="one seed, 20 epochs: shows that everything runs")
    options = parser.parse_args()
    methods = options.methods.split(",")
    for method in methods:
        if method not in METHODS:
            parser.error(f"--methods takes {', '.join(METHODS)}, and {method!r} was given.")
    seeds = options.seeds or (1 if options.quick else 3)
    epochs = options.epochs or (20 if options.quick else 500)

    torch.set_num_threads(1)  # networks of this size are slower on two
    x, y, rows = synthetic()
    rows_of = {"rich": rows[x[rows] < BORDER], "sparse": rows[x[rows] >= BORDER]}
    scores, first = [], {}
    for method in methods:
        for seed in range(1 if method == "gp" else seeds):  # which has nothing to start from
            predict = fitted(method, x[rows], y[rows], seed, epochs, options.balancer)
            first.setdefault(method, predict)
            for region, of in rows_of.items():
                scores.append({"method": method, "region": region, "seed": seed, **score(predict(x[of]), y[of])})
            print(f"{method}, seed {seed}: RMSE on the sparse points {scores[-1]['RMSE']:.2f}", flush=True)
    runs = pd.DataFrame(scores)
    table = [
        [*key, *(spread(of[name]) for name in COLUMNS)] for key, of in runs.groupby(["method", "region"], sort=False)
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    runs.to_csv(options.out / "scores.csv", index=False)
    folder = options.out if options.docs is None else options.docs / "results"
    text = page_tables.keep(folder / "mt_enet_synthetic.csv", ["method", "region", *COLUMNS], table, left=2)
    print(f"\nMedians over {seeds} seed{'s' * (seeds > 1)} (least to largest), {epochs} epochs:\n\n{text}")
    picture = options.out / "figure4.png" if options.docs is None else options.docs / "mt_enet_synthetic.png"
    draw(first, x, y, rows, picture)
    print(f"Wrote {options.out}/scores.csv and {picture}.")


def spread(values):
    ends = f" ({values.min():.2f} to {values.max():.2f})" if len(values) > 1 else ""
    return f"{values.median():.2f}{ends}".replace("-", "−")


def synthetic():
    """The authors' data: inputs, labels ``(2000,)``, and which of them are observed."""
    random = np.random.RandomState(0)  # their generator
    x = np.concatenate([np.linspace(-3, 6, 1950), np.linspace(6, 10, 50)])
    noise = 0.1 * random.normal(size=x.size)
    noise += 2 * random.normal(scale=0.05 * np.abs(7 - np.abs(x)))
    return x, np.sin(4 * x) ** 3 + x**2 / 10 + noise, np.r_[400:1300, 1970:1990]


def column(x):
    return torch.tensor(x[:, None], dtype=torch.float32)


def fitted(method, x, y, seed, epochs, balancer):
    """A function from inputs to what a fitted model predicts there, `StudentT` or one with its properties."""
    if method == "gp":
        return process(x, y)
    model = train(x, y, method, seed, epochs, balancer)
    if method == "mc-dropout":
        return functools.partial(thinned, model, x, y, seed)
    return functools.partial(predict, model)


def process(x, y):
    """The paper's Gaussian process."""
    kernel = ConstantKernel() * Matern(length_scale=1.0, length_scale_bounds="fixed", nu=0.05)
    of = GaussianProcessRegressor(kernel, alpha=1e-10).fit(x[:, None], y)

    def at(where):
        mean, sd = of.predict(where[:, None], return_std=True)
        return Normal(mean, sd**2, sd**2 + np.mean((of.predict(x[:, None]) - y) ** 2))

    return at


def thinned(model, x, y, seed, where):
    """What a network predicts in the mean over its thinned ones."""

    def means(at):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return torch.stack(
                [poutine.trace(model).get_trace(column(at)).nodes["y_value"]["fn"].mean for _ in range(PASSES)]
            )

    with torch.no_grad():
        model.train()
        noise = (means(x).mean(0).numpy() - y) ** 2
        found = means(where).numpy()
    return Normal(found.mean(0), found.var(0), found.var(0) + noise.mean())


class Normal(torch.distributions.Normal):
    """A normal that says which part of its variance is epistemic, with the properties of a Student t."""

    def __init__(self, mean, epistemic, variance):
        super().__init__(*(torch.as_tensor(part, dtype=torch.float32) for part in (mean, np.sqrt(variance))))
        self.epistemic, self.df = torch.as_tensor(epistemic), torch.full_like(self.loc, np.inf)


def train(x, y, method, seed, epochs, balancer):
    generator = torch.Generator().manual_seed(seed)
    dropout = RATE_OF_DROPOUT if method == "mc-dropout" else 0.0
    trunk = mlp(1, (100, 100, 100), activation=nn.Tanh, dropout=dropout, generator=generator)
    options = dict(METHODS[method])
    optim = functools.partial(torch.optim.Adam, lr=options.pop("lr", 0.01), weight_decay=1e-3)
    likelihoods = {"gaussian": Heteroscedastic, "mc-dropout": lambda: Gaussian("fixed")}
    likelihood = likelihoods.get(method, functools.partial(Evidential, regulariser=1e-4, **options))()
    model = TaskModel(trunk, 100, {"value": likelihood}, len(x), generator=generator)
    svi = bmtl.BalancedSVI(model, model.guide(), optim, balancer)
    batches = Batches(column(x), {"value": torch.tensor(y, dtype=torch.float32)}, 128, seed=seed)
    svi.initialise(batches.x, batches.y)
    schedule = torch.optim.lr_scheduler.ExponentialLR(svi.optimizer, 0.99)
    for _ in range(epochs):
        for batch in batches:
            svi.step(*batch)
        svi.end_epoch()
        schedule.step()
    return model


@torch.no_grad()
def predict(model, x):
    """The predictive at each input, in closed form."""
    return poutine.trace(model).get_trace(column(x)).nodes["y_value"]["fn"]


def score(p, y):
    y = torch.tensor(y, dtype=torch.float32)
    epistemic = getattr(p, "epistemic", torch.zeros(len(y)))  # of a normal that a network predicts there is none
    return {
        "RMSE": (p.mean - y).square().mean().sqrt().item(),
        "NLL": -p.log_prob(y).mean().item(),
        "epistemic sd": epistemic.sqrt().median().item(),
        "ECE": ece_from_pit(p.cdf(y)),
        "ECE released": released_ece(y, p.loc, p.scale, getattr(p, "df", torch.full_like(y, np.inf))),
    }


def released_ece(y, loc, scale, df):
    """The expected calibration error of the authors' code, to compare with printed numbers only.

    A normal-inverse-gamma predicts a Student t of ``df = 2 alpha``; the code takes ``2 alpha - 1``, and levels 0, 1/99,
    ..., 1. A perfect predictive then scores .012 at alpha = 2 and .05 near alpha = 1, where `ece_from_pit` tends to zero.

    Args:
        y: Labels ``(N,)``.
        loc: Locations ``(N,)``.
        scale: Scales ``(N,)``.
        df: Degrees of freedom ``2 alpha``, above 1.

    Raises:
        ValueError: If a df is not above 1.
    """
    freedom = np.asarray(df, dtype=float)
    if (freedom <= 1).any():
        raise ValueError(f"The released ECE takes one off df, which is {freedom.min():.4g} at least; expected above 1.")
    return ece_from_pit(StudentTMixture(loc, scale, freedom - 1).cdf(y), np.linspace(0, 1, 100))


def draw(models, x, y, rows, file):
    grid = np.linspace(-3, 10, 651)
    with styled():
        figure, axes = plt.subplots(
            1, len(models), figsize=(4.2 * len(models), 3.2), sharey=True, squeeze=False, layout="constrained"
        )
        for axis, (method, at) in zip(axes[0], models.items(), strict=True):
            p = at(grid)
            for level in LEVELS:
                ends = [p.icdf(torch.tensor(0.5 + sign * level / 2)) for sign in (-1, 1)]
                label = "30, 50, 70, 90 % of the predictive" if level == LEVELS[0] else None
                axis.fill_between(grid, *ends, color=COLOURS[1], alpha=0.2, linewidth=0, zorder=2, label=label)
            axis.plot(grid, p.mean, color=COLOURS[1], zorder=3, label="predictive mean")
            axis.plot(x, y, ".", color="#CCCCCC", markersize=1.5, zorder=1, label="not observed")
            axis.plot(x[rows], y[rows], ".", color=COLOURS[0], markersize=2, zorder=1.1, label="observed")
            axis.axvline(BORDER, color=COLOURS[2], linestyle="--", label="sparse from here on")
            axis.set(title=method, xlabel="x", ylim=(-6, 14), xlim=(-3, 10))
        axes[0, 0].set_ylabel("y")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        save(figure, file)
    plt.close(figure)


if __name__ == "__main__":
    main()
