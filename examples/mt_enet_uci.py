"""Table 1 of the MT-ENet paper (Oh & Shin 2022): evidential networks on UCI regressions, read three ways.

Run: python examples/mt_enet_uci.py --root ../shared/data [--sets boston energy] [--out runs/mt_enet_uci] [--quick]

ENet (likelihood alone), MSE-ENet (and a squared error), MT-ENet (a squared error of bounded slope, with the batch's
least threshold or each row's own), a Gaussian network, the ensemble of five of those, and MC dropout. One layer of 50 ReLU
units, 20 standard splits, Adam, 40 epochs of batches of 32. Every score is read three ways:

    last    after the last epoch
    val     at the epoch that is best on validation, by RMSE for RMSE and by NLL for NLL: the epoch is chosen by a network
            trained on 80 % of the training rows, and read off the one trained on all of them
    best    at the epoch that is best on the test rows: no estimate of anything, but what the paper's column shows

As in the paper: network, batch size, epochs. Not as in the paper: the splits are the standard ones, inputs and targets are
standardised on training rows only, learning rate (0.008) and regulariser (0.001) are the same everywhere and not searched,
and a split's score is the mean over several sets of initial weights (3; 1 beyond 2,000 rows; 5 Gaussian networks always).
On the four largest sets (kin8nm, naval, power, protein) there are 5 splits.

MC dropout is Gal & Ghahramani's (2016): dropout before every layer, the input included; trained on squared errors; predicts
with the mixture of normals, all of one noise, about the means of 25 thinned networks. Rate (0.005, 0.01 or 0.05) and noise
(24 values) are those of the best validation likelihood after the same epoch, for each network by itself; beyond 2,000 rows
the rate is 0.005. Not as there: epochs and batches are those of all methods, and there is no weight decay (theirs is about
1e-6 at most).

All networks of a method train as one bank (of one rate). What is finished is not done again: start the script once more with
the same options after an interruption. Writes <set>.nc (scores of every split), table.md, summary.csv and differences.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import page_tables
import pandas as pd
import torch
import xarray as xr

from bmtl.datasets import load
from bmtl.evaluation.statistics import mean_and_error, paired_differences
from bmtl.evaluation.storage import SCHEMA, atomic
from bmtl.evaluation.text_tables import entry
from bmtl.inference import Bank
from bmtl.models import MCDropout, TaskModel, mlp
from bmtl.models.likelihoods import Evidential, Gaussian, Heteroscedastic

EVIDENTIAL = {
    "ENet": {"objective": "nll"},
    "MSE-ENet": {"objective": "nll+mse"},
    "MT-ENet": {"objective": "nll+lipschitz"},
    "MT-ENet/sample": {"objective": "nll+lipschitz", "threshold": "sample"},
}
METHODS = (*EVIDENTIAL, "Gaussian", "Ensemble", "MC-Dropout")
HALVES = {"all": "test", "held out": "val"}  # what a network is trained on -> what it is judged on
READINGS, METRICS = ("last", "val", "best"), ("RMSE", "NLL")
WIDTH, BATCH, RATE, REGULARISER = 50, 32, 0.008, 1e-3
MEMBERS, LARGE = 5, 2000
DROPOUT = {"small": (0.005, 0.01, 0.05), "large": (0.005,)}  # rates
NOISES = np.geomspace(0.05, 1.0, 24)  # in standard deviations of the target; a step is worth 0.004 nats at most
DRAWS = 25
SETS = ("boston", "concrete", "energy", "kin8nm", "naval", "power", "protein", "wine", "yacht")
SPLITS = {"kin8nm": 5, "naval": 5, "power": 5, "protein": 5}  # where they are not 20

# Oh & Shin (2022), Table 1: mean and standard error of RMSE, then of NLL.
PAPER = {
    "boston": {
        "ENet": ((3.06, 0.16), (2.35, 0.06)),
        "MT-ENet": ((3.04, 0.21), (2.31, 0.04)),
        "Ensemble": ((3.28, 1.00), (2.41, 0.25)),
        "MC-Dropout": ((2.97, 0.19), (2.46, 0.06)),
    },
    "concrete": {
        "ENet": ((5.85, 0.15), (3.01, 0.02)),
        "MT-ENet": ((5.60, 0.17), (2.97, 0.02)),
        "Ensemble": ((6.03, 0.58), (3.06, 0.18)),
        "MC-Dropout": ((5.23, 0.12), (3.04, 0.02)),
    },
    "energy": {
        "ENet": ((2.06, 0.10), (1.39, 0.06)),
        "MT-ENet": ((2.04, 0.07), (1.17, 0.05)),
        "Ensemble": ((2.09, 0.29), (1.38, 0.22)),
        "MC-Dropout": ((1.66, 0.04), (1.99, 0.02)),
    },
    "kin8nm": {
        "ENet": ((0.09, 0.00), (-1.24, 0.01)),
        "MT-ENet": ((0.08, 0.00), (-1.19, 0.01)),
        "Ensemble": ((0.09, 0.00), (-1.20, 0.02)),
        "MC-Dropout": ((0.10, 0.00), (-0.95, 0.01)),
    },
    "naval": {
        "ENet": ((0.00, 0.00), (-5.73, 0.07)),
        "MT-ENet": ((0.00, 0.00), (-5.96, 0.03)),
        "Ensemble": ((0.00, 0.00), (-5.63, 0.05)),
        "MC-Dropout": ((0.01, 0.00), (-3.80, 0.01)),
    },
    "power": {
        "ENet": ((4.23, 0.09), (2.81, 0.07)),
        "MT-ENet": ((4.03, 0.04), (2.75, 0.01)),
        "Ensemble": ((4.11, 0.17), (2.79, 0.04)),
        "MC-Dropout": ((4.02, 0.04), (2.80, 0.01)),
    },
    "protein": {
        "ENet": ((4.64, 0.03), (2.63, 0.00)),
        "MT-ENet": ((4.73, 0.07), (2.64, 0.01)),
        "Ensemble": ((4.71, 0.06), (2.83, 0.02)),
        "MC-Dropout": ((4.36, 0.01), (2.89, 0.00)),
    },
    "wine": {
        "ENet": ((0.61, 0.02), (0.89, 0.05)),
        "MT-ENet": ((0.63, 0.01), (0.86, 0.02)),
        "Ensemble": ((0.64, 0.04), (0.94, 0.12)),
        "MC-Dropout": ((0.62, 0.01), (0.93, 0.01)),
    },
    "yacht": {
        "ENet": ((1.57, 0.56), (1.03, 0.19)),
        "MT-ENet": ((1.03, 0.08), (0.78, 0.06)),
        "Ensemble": ((1.58, 0.48), (1.18, 0.21)),
        "MC-Dropout": ((1.11, 0.09), (1.55, 0.03)),
    },
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder that holds uci/<set>.npz; by default what BMTL_DATA says")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS, metavar="SET", help=", ".join(SETS))
    parser.add_argument("--out", type=Path, default=Path("runs/mt_enet_uci"))
    parser.add_argument("--docs", type=Path, help="folder of the documentation, for the tables in its results/")
    parser.add_argument(
        "--splits", type=int, help="the first so many (default 20; 5 of the large sets; protein has no more)"
    )
    parser.add_argument("--seeds", type=int, help=f"sets of initial weights (default 3, 1 beyond {LARGE} rows)")
    parser.add_argument("--epochs", type=int, help="(default 40)")
    parser.add_argument("--quick", action="store_true", help="2 splits, 2 seeds, 2 epochs: shows that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    found = []
    for name in options.sets:
        splits = options.splits or (2 if options.quick else SPLITS.get(name, 20))
        epochs = options.epochs or (2 if options.quick else 40)
        data = [halves(name, options.root, split) for split in range(splits)]
        rows = sum(len(part) for part in data[0]["all"].rows.values())
        seeds = options.seeds or (2 if options.quick else 3 if rows <= LARGE else 1)
        settings = {"splits": splits, "seeds": seeds, "members": min(MEMBERS, 2) if options.quick else MEMBERS}
        settings |= {"epochs": epochs, "learning rate": RATE, "regulariser": REGULARISER}
        rates = DROPOUT["small" if rows <= LARGE else "large"]
        settings |= {"draws": DRAWS, "dropout rates": ", ".join(map(str, rates)), "schema": SCHEMA}
        found.append(scores_of(name, data, settings, options.out / f"{name}.nc"))
    summary = pd.concat([summarise(scores) for scores in found])
    differences = pd.concat([differ(scores.expand_dims("task")) for scores in found])
    summary.to_csv(options.out / "summary.csv", index=False)
    differences.to_csv(options.out / "differences.csv", index=False)
    text = markdown(summary, differences, options.out if options.docs is None else options.docs / "results")
    (options.out / "table.md").write_text(text)
    print(f"\n{text}\nWrote {options.out}/table.md, summary.csv, differences.csv and a file a set.")


def halves(name, root, split):
    """A split as it is tested, and with a fifth of its training rows held out to choose an epoch by."""
    return {
        "all": load(f"uci/{name}", root=root, split=split, validation=0),
        "held out": load(f"uci/{name}", root=root, split=split, validation=0.2),
    }


def scores_of(name, data, settings, file):
    """Scores ``(reading, metric, method, split)`` of a set; methods that its file holds are read from there."""
    (target,) = data[0]["all"].targets  # "naval_0" of naval, whose files have two
    parts = {}
    if file.is_file():
        done = xr.load_dataarray(file)
        if all(done.attrs.get(key) == value for key, value in settings.items()):
            parts = {str(method): done.sel(learner=method).values for method in done["learner"].values}
            print(f"{name}: read from {file}: {', '.join(parts)}", flush=True)
    for method in METHODS:
        if method in parts or method == "Ensemble":  # which comes with its members
            continue
        if method == "MC-Dropout":
            parts[method] = readings(*dropout(target, data, settings))
        else:
            curves = train(target, data, method, settings)
            parts[method] = readings(*(single(curves[half]) for half in HALVES))
        if method == "Gaussian":
            parts["Ensemble"] = readings(*(ensemble(curves[half]) for half in HALVES))
        last = parts[method][0].mean(-1)
        print(f"{name}: {method} done, last RMSE {last[0]:.3f}, NLL {last[1]:.3f}", flush=True)
        keep(name, parts, settings, file)
    return xr.load_dataarray(file).sel(learner=list(METHODS))


def keep(name, parts, settings, file):
    scores = xr.DataArray(
        np.stack(list(parts.values()), axis=2),
        dims=("reading", "metric", "learner", "split"),
        coords={"reading": list(READINGS), "metric": list(METRICS), "learner": list(parts), "task": name},
        attrs=settings,
        name="score",
    )
    with atomic(file) as temporary:
        scores.to_netcdf(temporary)


def train(name, data, method, settings):
    """Trains a method's networks of all splits, and reads them after every epoch.

    Returns:
        Half -> label, mean, variance and log density ``(epochs, splits, seeds, rows)``, in reported units. Those of "all"
        are of the test rows, those of "held out" of the held-out ones; NaN where a half has fewer rows.
    """
    seeds = settings["members"] if method == "Gaussian" else settings["seeds"]

    def make(x, seed):
        return program(method, name, x, seed)

    def look(bank, rows):
        return bank.read(lambda trace: read(trace, name), rows)

    found = by_epoch(data, seeds, settings["epochs"], make, look)
    mean, sd = (units(data, name, of)[..., None] for of in ("mean", "std"))
    curves = {
        "label": found["label"] * sd + mean,
        "mean": found["mean"] * sd + mean,
        "variance": found["variance"] * sd**2,
        "log_density": found["log_density"] - np.log(sd),
    }
    return {half: {of: values[:, k] for of, values in curves.items()} for k, half in enumerate(HALVES)}


def by_epoch(data, seeds, epochs, make, look, noise_seed=0):
    """Trains one network for each half, split and seed as a bank.

    Args:
        data: Of each split, both halves.
        seeds: Number of seeds.
        epochs: Number of epochs.
        make: From training inputs and a seed, a program.
        look: From the bank and the rows that each network is judged on, named tensors ``(networks, ...)``.
        noise_seed: Of the bank.

    Returns:
        What `look` found after every epoch, ``(epochs, halves, splits, seeds, ...)``.
    """
    nets = [(half, split, seed) for half in HALVES for split in range(len(data)) for seed in range(seeds)]
    tensors = {
        (half, split, part): data[split][half].tensors(part)
        for half, of_test in HALVES.items()
        for split in range(len(data))
        for part in ("train", of_test)
    }
    training = [tensors[half, split, "train"] for half, split, _ in nets]
    judged = [tensors[half, split, HALVES[half]] for half, split, _ in nets]
    seed_of = [1000 * seed + split for _, split, seed in nets]
    programs = [make(x, seed) for (x, _), seed in zip(training, seed_of, strict=True)]
    bank = Bank(programs, training, batch_size=BATCH, lr=RATE, seeds=seed_of, noise_seed=noise_seed)
    found = []
    bank.fit(epochs, lambda epoch: found.append(look(bank, judged)))
    shape = (epochs, len(HALVES), len(data), seeds)
    stacked = {of: np.stack([epoch[of].double().numpy() for epoch in found]) for of in found[0]}
    return {of: values.reshape(*shape, *values.shape[2:]) for of, values in stacked.items()}


def units(data, name, of):
    """Mean or standard deviation of a target in the training rows, ``(halves, splits, 1)``."""
    return np.array([[[getattr(split[half].targets[name].scaler, of)] for split in data] for half in HALVES])


def program(method, name, x, seed):
    generator = torch.Generator().manual_seed(seed)
    trunk = mlp(x.shape[1], (WIDTH,), generator=generator)
    likelihood = (
        Heteroscedastic() if method == "Gaussian" else Evidential(regulariser=REGULARISER, **EVIDENTIAL[method])
    )
    return TaskModel(trunk, WIDTH, {name: likelihood}, len(x), generator=generator)


def read(trace, name):
    """What one network predicts for each row."""
    site = trace.nodes[f"y_{name}"]
    p, y = site["fn"], site["value"]
    return {"label": y, "mean": p.mean, "variance": p.variance, "log_density": p.log_prob(y)}


def dropout(name, data, settings):
    """RMSE and NLL of MC dropout ``(metric, epochs, splits, seeds)``, of the test rows and of the held-out ones.

    After each epoch, with the rate and the noise that are best on the held-out rows.
    """

    def look(bank, rows):
        found = bank.read(lambda trace: means(trace, name), rows, draws=DRAWS)
        return mixture(found["label"][0].double(), found["mean"].double())

    scores = []
    for k, rate in enumerate(map(float, settings["dropout rates"].split(", "))):

        def make(x, seed, rate=rate):
            return thinned(name, x, seed, rate)

        found = by_epoch(data, settings["seeds"], settings["epochs"], make, look, noise_seed=k)
        sd = units(data, name, "std")
        rmse = np.broadcast_to((np.sqrt(found["square"]) * sd)[..., None], found["nll"].shape)
        scores.append(np.stack([rmse, found["nll"] + np.log(sd)[..., None]]))
    # (metric, rates times noises, epochs, halves, splits, seeds)
    scores = np.moveaxis(np.concatenate(scores, axis=-1), -1, 1)
    test, val = (scores[:, :, :, k] for k in range(len(HALVES)))
    best = val[METRICS.index("NLL")].argmin(axis=0)[None, None]
    return [np.take_along_axis(of, best, axis=1)[:, 0] for of in (test, val)]


def thinned(name, x, seed, rate):
    """A program with dropout before every layer, trained on squared errors: its noise stays 1."""
    generator = torch.Generator().manual_seed(seed)
    trunk = mlp(x.shape[1], (WIDTH,), mc_dropout=rate, generator=generator)
    likelihood = Gaussian()
    likelihood.unknowns.requires_grad_(False)
    return TaskModel(trunk, WIDTH, {name: likelihood}, len(x), representation=MCDropout, generator=generator)


def means(trace, name):
    site = trace.nodes[f"y_{name}"]
    return {"label": site["value"], "mean": site["fn"].mean}


def mixture(label, mean):
    """Scores of mixtures of normals, means over rows: squared error ``(nets,)``, NLL for every noise ``(nets, noises)``.

    Args:
        label: ``(nets, rows)``, NaN where a network has fewer rows.
        mean: Of each draw, ``(draws, nets, rows)``.
    """
    square = (label - mean) ** 2
    nll = []
    for noise in NOISES:
        density = torch.logsumexp(-0.5 * square / noise**2, dim=0) - np.log(len(mean) * noise * np.sqrt(2 * np.pi))
        nll.append(-density.nanmean(-1))
    return {"square": ((label - mean.mean(0)) ** 2).nanmean(-1), "nll": torch.stack(nll, dim=-1)}


def single(curves):
    """RMSE and NLL of each network ``(metric, epochs, splits, seeds)``."""
    rmse = np.sqrt(np.nanmean((curves["label"] - curves["mean"]) ** 2, axis=-1))
    return np.stack([rmse, -np.nanmean(curves["log_density"], axis=-1)])


def ensemble(curves):
    """RMSE and NLL of the members together ``(metric, epochs, splits, 1)``, by the normal of the mixture's moments."""
    mean = curves["mean"].mean(2)
    variance = curves["variance"].mean(2) + curves["mean"].var(2)
    square = (curves["label"][:, :, 0] - mean) ** 2
    nll = 0.5 * (np.log(2 * np.pi * variance) + square / variance)
    return np.stack([np.sqrt(np.nanmean(square, axis=-1)), np.nanmean(nll, axis=-1)])[..., None]


def readings(test, val):
    """Scores ``(reading, metric, splits)``, means over seeds, of every epoch's ``(metric, epochs, splits, seeds)``."""
    chosen = np.take_along_axis(test, val.argmin(axis=1, keepdims=True), axis=1)[:, 0]
    return np.stack([test[:, -1], chosen, test.min(axis=1)]).mean(axis=-1)


def summarise(scores):
    """Mean and standard error over splits, and the paper's, one row a set, method, metric and reading."""
    found, name = mean_and_error(scores), scores["task"].item()
    rows = []
    for method in scores["learner"].values:
        for k, metric in enumerate(METRICS):
            paper = PAPER[name].get(method, ((np.nan, np.nan),) * 2)[k]
            for reading in READINGS:
                where = {"metric": metric, "reading": reading}
                of = found.sel(learner=method, **where)
                ours = {"mean": of["mean"].item(), "error": of["error"].item()}
                rows.append(
                    {"set": name, "method": method, **where, **ours, "paper": paper[0], "paper_error": paper[1]}
                )
    return pd.DataFrame(rows)


def differ(scores):
    """Paired differences to ENet over the splits, by set, metric and reading."""
    parts = []
    for metric in METRICS:
        for reading in READINGS:
            of = scores.sel(metric=metric, reading=reading, drop=True).transpose("learner", "split", "task")
            table = paired_differences(of, "ENet").to_dataframe(dim_order=["task", "learner"])
            table = table.reset_index().rename(columns={"task": "set", "learner": "method"})
            parts.append(table.assign(metric=metric, reading=reading))
    return pd.concat(parts)[[*("set", "method", "metric", "reading"), *_DIFFERENCE]]


_DIFFERENCE = ("difference", "error", "lower", "upper", "p_signed_rank", "p_sign_flip", "p_holm", "wins", "splits")


def markdown(summary, differences, folder):
    """The tables of a page, and a file of each in a folder."""
    rows = []
    for (name, method), found in summary.groupby(["set", "method"], sort=False):
        cells = []
        for _, of in found.groupby("metric", sort=False):
            cells += [entry(mean, error) for mean, error in zip(of["mean"], of["error"], strict=True)]
            paper, error = of[["paper", "paper_error"]].iloc[0]
            cells.append("–" if np.isnan(paper) else f"{paper:.2f} ± {error:.2f}".replace("-", "−"))
        rows.append([name, method, *cells])
    differing = []
    last = differences[differences["reading"] == "last"]
    for (name, method), found in last.groupby(["set", "method"], sort=False):
        cells = []
        for row in found.itertuples():
            mean = entry(row.difference, row.error)
            low, high = (entry(end, row.error).split(" ± ")[0] for end in (row.lower, row.upper))
            p = f"{row.p_signed_rank:.3f}" if row.p_signed_rank >= 0.001 else "<0.001"
            cells += [f"{mean} [{low}, {high}]", p, f"{row.wins}/{row.splits}"]
        differing.append([name, method, *cells])
    readings = [f"{metric} {reading}" for metric in METRICS for reading in (*READINGS, "paper")]
    tests = [f"{metric} {what}" for metric in METRICS for what in ("difference", "p", "wins")]
    return "\n".join(
        [
            "Mean over the splits ± standard error, original units. last: after the last epoch; val: at the epoch",
            "chosen on validation; best: at the epoch that is best on the test rows (which the paper's columns show).",
            "",
            page_tables.keep(folder / "mt_enet_uci.csv", ["set", "method", *readings], rows, left=2),
            "",
            "Differences to ENet, split by split, in the last epoch: mean ± standard error, [95 % interval], p of",
            "Wilcoxon's signed-rank test (not corrected for the number of tests), splits in which the method is better.",
            "",
            page_tables.keep(folder / "mt_enet_uci_differences.csv", ["set", "method", *tests], differing, left=2),
            "",
        ]
    )


if __name__ == "__main__":
    main()
