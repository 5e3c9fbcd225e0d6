"""How the cost of a balanced step grows with tasks K, shared parameters P and rows B, and its log-log slopes.

A trunk of two square layers and K linear heads, one statement in a task plate, plain SGD, one thread. One of K, P and B is
varied and the others are fixed; each cell is the median processor time of a step, and below it is the slope of log time
over log size from the size before: 1 is proportional, 0 is constant. The last column is the slope of a line through all
sizes. Run:

    python benchmarks/slopes.py [--vary K P B] [--specs "full >> upgrad" ...] [--json slopes.json] [--quick]
"""

import argparse
import functools
import json
import math
import time

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bmtl

SIZES = {"K": (2, 6, 20, 60, 200), "P": (1e4, 1e5, 1e6, 1e7, 1e8), "B": (16, 64, 256, 1024, 4096)}
FIXED = {"K": 8.0, "P": 2e5, "B": 64.0}
SPECS = ("ew", "last-layer >> upgrad", "full >> upgrad")
SECONDS = 1.0  # of processor time for a cell


class Net(nn.Module):
    """K regressions on a trunk of P parameters, about."""

    def __init__(self, tasks: int, parameters: float) -> None:
        super().__init__()
        width = max(2, round(math.sqrt(parameters / 2)))
        self.width, self.names = width, [f"t{k}" for k in range(tasks)]
        self.trunk = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.heads = nn.Linear(width, tasks)

    def forward(self, x: Tensor, y: Tensor) -> None:
        h = bmtl.shared(self.trunk(x))
        with bmtl.task_plate(self.names, dim=-2), pyro.plate("rows", len(x), dim=-1):
            pyro.factor("y", -0.5 * (F.linear(h, self.heads.weight, self.heads.bias).T - y).square())


def guide(x: Tensor, y: Tensor) -> None:
    """No latent: the parameters are point masses."""


def measure(spec: str, tasks: int, parameters: float, rows: int, least: int) -> float:
    """Median milliseconds of a step."""
    torch.manual_seed(0)
    net = Net(tasks, parameters)
    x, y = torch.randn(rows, net.width), torch.randn(tasks, rows)
    sgd = functools.partial(torch.optim.SGD, lr=1e-5)
    svi = bmtl.BalancedSVI(net, guide, sgd, spec, bmtl.TaskELBO(normalize="task_mean"))
    times: list[float] = []
    while len(times) < least + 2 or (sum(times) < SECONDS and len(times) < 50 and least > 1):
        start = time.process_time()
        svi.step(x, y)
        times.append(time.process_time() - start)
    return 1e3 * float(np.median(times[2:]))


def table(vary: str, specs: list[str], sizes: tuple[float, ...], least: int) -> dict[str, list[float]]:
    fixed = {name: value for name, value in FIXED.items() if name != vary}
    print(f"\n{vary} varied, " + ", ".join(f"{name} = {value:g}" for name, value in fixed.items()) + "; milliseconds")
    print(f"{'':24}" + "".join(f"{size:>10g}" for size in sizes) + f"{'slope':>9}")
    found: dict[str, list[float]] = {}
    for spec in specs:
        at = [{**FIXED, vary: size} for size in sizes]
        ms = found[spec] = [measure(spec, int(of["K"]), of["P"], int(of["B"]), least) for of in at]
        slopes = np.diff(np.log(ms)) / np.diff(np.log(sizes))
        whole = np.polyfit(np.log(sizes), np.log(ms), 1)[0]
        print(f"{spec:24}" + "".join(f"{value:10.2f}" for value in ms) + f"{whole:9.2f}")
        print(f"{'':34}" + "".join(f"{value:10.2f}" for value in slopes), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vary", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--specs", nargs="+", default=list(SPECS))
    parser.add_argument("--json", help="file for the medians in milliseconds")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    last, least = (2, 1) if options.quick else (None, 3)
    found = {vary: table(vary, options.specs, SIZES[vary][:last], least) for vary in options.vary}
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
