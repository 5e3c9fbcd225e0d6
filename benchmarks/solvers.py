"""What a weighting's K x K problem costs, here and in TorchJD, in one run.

Each weighting gets the Gram matrix of K gradients (cosines near -0.25 between two camps, norms over a decade) and returns
weights, as in a training step; one thread. All take turns, so a drift of the machine's speed hits them alike; each turn
has a new matrix, and the best of three calls counts (of fewer where they take long). The residual is that of the method's
own equation or optimality conditions, relative, and the same for both; "-" where none is computed. TorchJD's CAGrad,
Nash-MTL, UPGrad and DualProj need packages of their own (cvxpy, clarabel, ecos; quadprog, qpsolvers), which the extra
``dev`` has; what is left out without them is named. Its ConFIG works on the gradients. Run:

    python benchmarks/solvers.py [--seconds 15] [--tasks 3 11 40] [--json solvers.json] [--quick]
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torchjd import aggregation

from bmtl.inference.balancing import SLOTS, Context, Measured, Weighting

Solve = Callable[[Tensor, Tensor], Tensor]  # gradients (K, P), their Gram matrix (K, K) -> weights (K,)


def gradients(tasks: int, seed: int) -> Tensor:
    """Gradients (K, P): two camps whose cosines are near -0.25."""
    rng = np.random.default_rng(seed)
    camps = np.where(np.arange(tasks) % 2, 1.0, -1.0)[:, None] * rng.standard_normal(tasks + 30) * 0.6
    rows = rng.standard_normal((tasks, tasks + 30)) + camps
    norms = 10.0 ** (rng.permutation(tasks) / max(tasks - 1, 1) - 0.5)
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True) * norms[:, None])


def ours(name: str) -> Solve:
    weighting = SLOTS[name]()
    assert isinstance(weighting, Weighting)

    def solve(_: Tensor, gram: Tensor) -> Tensor:
        return weighting.weigh(Measured(gram), Context(torch.ones(len(gram), dtype=torch.bool)))[0].alpha

    return solve


def on_gram(weighting: Callable[[Tensor], Tensor]) -> Solve:
    return lambda _, gram: weighting(gram)


def on_gradients(aggregator: Callable[[Tensor], Tensor]) -> Solve:
    """Of a method without weights: the update, for its time."""
    return lambda jacobian, _: aggregator(jacobian)


def peer(name: str, tasks: int) -> Solve | None:
    """TorchJD's weighting, or None where it is not there."""
    make: dict[str, Callable[[], Solve]] = {
        "mgda": lambda: on_gram(aggregation.MGDAWeighting()),
        "pcgrad": lambda: on_gram(aggregation.PCGradWeighting()),
        "gradvac": lambda: on_gram(aggregation.GradVacWeighting()),
        "cagrad": lambda: on_gram(aggregation.CAGradWeighting(0.4)),
        "imtl-g": lambda: on_gram(aggregation.IMTLGWeighting()),
        "config": lambda: on_gradients(aggregation.ConFIG()),
        "nash-mtl": lambda: nash(tasks),
        "fair-grad": lambda: on_gram(aggregation.FairGradWeighting(2.0)),
        "upgrad": lambda: on_gram(aggregation.UPGradWeighting()),
        "dual-proj": lambda: on_gram(aggregation.DualProjWeighting()),
        "aligned-mtl": lambda: on_gram(aggregation.AlignedMTLWeighting()),
        "sdm-grad": lambda: on_gram(aggregation.SDMGradWeighting()),
    }
    try:
        return make[name]() if name in make else None
    except ImportError as error:
        print(f"left out: {name} (TorchJD): {error}")
        return None


def nash(tasks: int) -> Solve:
    aggregator = aggregation.NashMTL(n_tasks=tasks, max_norm=0.0)
    weighting = aggregator.weighting
    return lambda jacobian, _: weighting(jacobian)


def kkt(gram: Tensor, alpha: Tensor) -> float:
    """Of MGDA: (G w)_k >= w'G w, equal where w is positive; over n_k and the length of the shortest gradient."""
    norms = gram.diagonal().sqrt()
    excess = (gram @ alpha - alpha @ gram @ alpha) / norms / norms.min()
    return float(torch.where(alpha > 1e-9, excess.abs(), (-excess).clamp_min(0)).max())


def conflict(gram: Tensor, alpha: Tensor) -> float:
    """Of UPGrad and DualProj: how much a loss rises, as the update's cosine with that gradient."""
    return float((-(gram @ alpha) / (gram.diagonal() * (alpha @ gram @ alpha)).sqrt()).clamp_min(0).max())


def unequal(gram: Tensor, alpha: Tensor) -> float:
    """Of IMTL-G: how far projections on unit gradients are from their mean."""
    projections = gram @ alpha / gram.diagonal().sqrt()
    return float((projections / projections.mean() - 1).abs().max())


def unfair(a: float) -> Callable[[Tensor, Tensor], float]:
    """Of Nash-MTL and FairGrad: ``alpha^(1/a) G alpha = 1``."""
    return lambda gram, alpha: float((alpha.clamp_min(0) ** (1 / a) * (gram @ alpha) - 1).abs().max())


RESIDUALS = {
    "mgda": kkt,
    "imtl-g": unequal,
    "nash-mtl": unfair(1.0),
    "fair-grad": unfair(2.0),
    "upgrad": conflict,
    "dual-proj": conflict,
}
NAMES = ["mgda", "cagrad", "pcgrad", "gradvac", "imtl-g", "config", "nash-mtl", "fair-grad"]
NAMES += ["upgrad", "dual-proj", "aligned-mtl", "sdm-grad"]


def measure(tasks: int, seconds: float) -> dict[str, dict[str, float]]:
    """Quartiles of the time in milliseconds, and the largest residual, of every contestant."""
    contestants: dict[str, Solve] = {}
    for name in NAMES:
        contestants[name] = ours(name)
        other = peer(name, tasks)
        if other is not None:
            contestants[f"{name} (TorchJD)"] = other
    times: dict[str, list[float]] = {name: [] for name in contestants}
    residuals = dict.fromkeys(contestants, float("nan"))
    end, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or turn < 5:
        jacobian = gradients(tasks, turn)
        gram = jacobian @ jacobian.T
        for name, solve in contestants.items():
            taken: list[float] = []
            # The best of three in a row: caches are warm, and another process's turn does not count.
            while len(taken) < 3 and sum(taken) < 20.0:
                start = time.perf_counter()
                alpha = solve(jacobian, gram)
                taken.append(1e3 * (time.perf_counter() - start))
            if turn >= 2:
                times[name].append(min(taken))
            residual = RESIDUALS.get(name.split()[0])
            if residual is not None:
                residuals[name] = np.nanmax([residuals[name], residual(gram, alpha)])
        turn += 1
    found = {}
    for name, values in times.items():
        low, median, high = np.percentile(values, [25, 50, 75])
        found[name] = {"ms": median, "low": low, "high": high, "residual": residuals[name], "turns": len(values)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="for all sizes together")
    parser.add_argument("--tasks", nargs="+", type=int, default=[3, 11, 40])
    parser.add_argument("--json", help="file for the numbers behind the table")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.tasks = 0.0, [3]
    torch.set_num_threads(1)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cvxpy's, about how problems are posed
        results = {tasks: measure(tasks, options.seconds / len(options.tasks)) for tasks in options.tasks}
    turns = ", ".join(str(next(iter(r.values()))["turns"]) for r in results.values())
    print(f"torch {torch.__version__}, numpy {np.__version__}, torchjd {version('torchjd')}; one thread")
    print(f"milliseconds: median of {turns} turns, quartiles from it in brackets; residual: the largest\n")
    print(f"{'':22}" + "".join(f"{f'K = {tasks}':^36}" for tasks in results))
    names = dict.fromkeys(name for r in results.values() for name in r)
    for name in names:
        cells = []
        for r in results.values():
            f = r[name]
            residual = "-" if np.isnan(f["residual"]) else f"{f['residual']:.0e}"
            spread = f"(-{f['ms'] - f['low']:.3f} +{f['high'] - f['ms']:.3f})"
            cells.append(f"{f['ms']:10.3f} {spread:>17} {residual:>6} ")
        print(f"{name:22}" + "".join(cells))
    print("\nTorchJD over ours:")
    for name in names:
        if f"{name} (TorchJD)" in names:
            ratios = "".join(f"{r[f'{name} (TorchJD)']['ms'] / r[name]['ms']:10.1f}" for r in results.values())
            print(f"{name:22}{ratios}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
