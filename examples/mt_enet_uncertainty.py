"""What the two uncertainties of an evidential network (Oh & Shin 2022) are: is the "epistemic" one more than its noise?

Run: python examples/mt_enet_uncertainty.py --root ../shared/data [--out runs/mt_enet_uncertainty] [--docs docs] [--quick]

The likelihood of a normal-inverse-gamma sees nu and beta in one combination only. Epistemic variance is aleatoric variance
over nu, so that what the two share, and whether nu varies between rows, is left to the regulariser and the start of the
training. This trains ENet and MT-ENet on red wine (data, parts and sizes as in mt_enet_ood.py) with regularisers from 1e-4
to 0.1, with nu and alpha apart, and tied (``tie=True``, alpha = nu + 1), and prints

    r          correlation of the logarithms of epistemic and aleatoric variance over the red test rows
    sd         standard deviations of the logarithms of the aleatoric variance and of nu over those rows
    AUROC      of white wine against red by the epistemic variance, the aleatoric one, and 1/nu alone (0.5: no difference)
    RMSE, NLL  of the red test rows

Each network is taken at the epoch that is best by its likelihood on validation. Those of a row of the table are one bank.
Writes mt_enet_uncertainty.csv.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import page_tables
import torch
from mt_enet_ood import FILE, TARGET, sample, wines

from bmtl.datasets.many_tasks import assemble
from bmtl.evaluation.ood import detection_of_scores
from bmtl.inference import Bank
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Evidential

METHODS = {"ENet": "nll", "MT-ENet": "nll+lipschitz"}
REGULARISERS = (1e-4, 1e-3, 1e-2, 1e-1)
WIDTH, BATCH, RATE, EPOCHS = 50, 32, 0.008, 40
HEADER = (
    *("method", "nu and alpha", "regulariser", "r", "sd of log aleatoric", "sd of log nu", "AUROC epistemic"),
    *("AUROC aleatoric", "AUROC 1/nu", "RMSE", "NLL"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help=f"folder that holds {FILE}; by default what BMTL_DATA says")
    parser.add_argument("--out", type=Path, default=Path("runs/mt_enet_uncertainty"))
    parser.add_argument("--docs", type=Path, help="folder of the documentation, for the table in its results/")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--quick", action="store_true", help="two seeds, 2 epochs")
    options = parser.parse_args()
    seeds = options.seeds or (2 if options.quick else 10)
    torch.set_num_threads(1)
    try:
        x, y, white = wines(options.root)
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")
    data = [assemble("red wine", x, y, task_names=[TARGET], units="grade", seed=seed) for seed in range(seeds)]
    rows = []
    for method in METHODS:
        for tie in (False, True):
            for found in bank(data, white, method, tie, 2 if options.quick else EPOCHS):
                rows.append([method, "tied" if tie else "apart", *found])
                print(*rows[-1], sep=", ", flush=True)
    folder = options.out if options.docs is None else options.docs / "results"
    table = page_tables.keep(folder / "mt_enet_uncertainty.csv", HEADER, rows, left=2)
    print(f"\nMean ± standard error over {seeds} seeds:\n\n{table}")


def bank(data, white, method, tie, epochs):
    """Trains a network for each regulariser and seed; yields the cells of each regulariser."""
    nets = [(c, seed) for c in REGULARISERS for seed in range(len(data))]
    parts = [{part: of.tensors(part) for part in ("train", "val", "test")} for of in data]
    for of, part in zip(data, parts, strict=True):
        outside = of.inputs.scaler.transform(sample(white, len(of.rows["test"]), data.index(of)))
        part["white"] = (torch.tensor(outside, dtype=torch.float32), part["test"][1])  # labels that nothing reads
    networks = Bank(
        [program(method, tie, c, parts[seed]["train"][0], seed) for c, seed in nets],
        [parts[seed]["train"] for _, seed in nets],
        batch_size=BATCH,
        lr=RATE,
        seeds=[seed for _, seed in nets],
    )
    best, kept = np.full(len(nets), np.inf), {}

    def look(_epoch):
        found = {
            part: networks.read(read, [parts[seed][part] for _, seed in nets]) for part in ("val", "test", "white")
        }
        nll = found["val"]["nll"].nanmean(1).double().numpy()
        better = nll < best
        best[better] = nll[better]
        for k in np.flatnonzero(better):
            kept[k] = {
                part: {name: values[k].double().numpy() for name, values in found[part].items()} for part in found
            }

    networks.fit(epochs, look)
    scores = np.array([judged(kept[k], data[seed].targets[TARGET].scaler) for k, (_, seed) in enumerate(nets)])
    for c, of in zip(REGULARISERS, scores.reshape(len(REGULARISERS), len(data), -1), strict=True):
        error = of.std(0, ddof=1) / len(of) ** 0.5
        cells = (f"{mean:.2f} ± {e:.2f}".replace("-", "−") for mean, e in zip(of.mean(0), error, strict=True))
        yield [f"{c:g}", *cells]


def program(method, tie, regulariser, x, seed):
    generator = torch.Generator().manual_seed(seed)
    trunk = mlp(x.shape[1], (WIDTH,), generator=generator)
    likelihood = Evidential(objective=METHODS[method], regulariser=regulariser, tie=tie)
    return TaskModel(trunk, WIDTH, {TARGET: likelihood}, len(x), generator=generator)


def read(trace):
    """What a network predicts for each row, in standardised units."""
    site = trace.nodes[f"y_{TARGET}"]
    p, y = site["fn"], site["value"]
    return {
        "error": y - p.mean,
        "nll": -p.log_prob(y),
        "aleatoric": p.aleatoric.log(),
        "epistemic": p.epistemic.log(),
        "nu": p.nu.log(),
    }


def judged(found, scaler):
    """The numbers of a row of the table."""
    test, white = found["test"], found["white"]
    detected = [
        detection_of_scores(sign * test[name], sign * white[name]).auroc
        for name, sign in (("epistemic", 1), ("aleatoric", 1), ("nu", -1))
    ]
    sd = float(np.ravel(scaler.std)[0])
    return [
        np.corrcoef(test["epistemic"], test["aleatoric"])[0, 1],
        test["aleatoric"].std(),
        test["nu"].std(),
        *detected,
        sd * np.sqrt(np.mean(test["error"] ** 2)),
        np.mean(test["nll"]) + np.log(sd),
    ]


if __name__ == "__main__":
    main()
