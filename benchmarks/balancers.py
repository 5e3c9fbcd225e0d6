"""What a balanced step costs relative to equal weights, here and in TorchJD, in one run.

An MLP (64-512-512-512, batch 128) and a CNN (three convolutions and a linear layer 1024-128, batch 32) with K linear heads
are trained with Adam on K squared errors, one thread. All contestants take turns, so a drift of the machine's speed hits
them alike; T is the median processor time of a step over that of a plain PyTorch loop with summed losses. Run:

    python benchmarks/balancers.py [--rounds 30] [--json balancers.json] [--networks mlp cnn] [--tasks 3 11 40] [--quick]
        [--match upgrad torchjd]
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torchjd import aggregation
from torchjd.autojac import jac_to_grad, mtl_backward

import bmtl
from bmtl.inference.balancing import SLOTS

WIDTHS = {"mlp": 512, "cnn": 128}
BASE = "plain loop, EW"
Step = Callable[[], None]


class Net(nn.Module):
    """A trunk and K linear heads; as a program, K unit-variance regressions in a task plate."""

    def __init__(self, kind: str, tasks: int) -> None:
        super().__init__()
        if kind == "mlp":
            layers: list[nn.Module] = []
            for wide, narrow in ((64, 512), (512, 512), (512, 512)):
                layers += [nn.Linear(wide, narrow), nn.ReLU()]
        else:
            layers = []
            for wide, narrow in ((3, 16), (16, 32), (32, 64)):
                layers += [nn.Conv2d(wide, narrow, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            layers += [nn.Flatten(), nn.Linear(1024, 128), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList([nn.Linear(WIDTHS[kind], 1) for _ in range(tasks)])
        self.names = [f"t{k}" for k in range(tasks)]

    def outputs(self, h: Tensor) -> Tensor:
        return torch.stack([head(h).squeeze(-1) for head in self.heads])  # (K, B)

    def losses(self, h: Tensor, y: Tensor) -> list[Tensor]:
        return [0.5 * (head(h).squeeze(-1) - y[k]).square().mean() for k, head in enumerate(self.heads)]

    def forward(self, x: Tensor, y: Tensor) -> None:
        h = bmtl.shared(self.trunk(x))
        rows = pyro.plate("rows", len(x), dim=-1)
        for k, (name, head) in enumerate(zip(self.names, self.heads, strict=True)):
            with bmtl.task(name), rows:
                pyro.factor(f"y_{name}", -0.5 * (head(h).squeeze(-1) - y[k]).square())


def guide(x: Tensor, y: Tensor) -> None:
    """No latent: the parameters are point masses."""


def plain(net: Net, x: Tensor, y: Tensor) -> Step:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(net.losses(net.trunk(x), y)).sum().backward()
        optimizer.step()

    return step


def ours(spec: str, net: Net, x: Tensor, y: Tensor) -> Step:
    svi = bmtl.BalancedSVI(
        net,
        guide,
        functools.partial(torch.optim.Adam, lr=1e-4),
        spec,
        bmtl.TaskELBO(normalize="task_mean"),
        on_error="skip",
    )

    def step() -> None:
        svi.step(x, y)
        svi.history.clear()

    return step


def torchjd_step(aggregator: aggregation.Aggregator, chunk: int | None, net: Net, x: Tensor, y: Tensor) -> Step:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    shared = list(net.trunk.parameters())

    def step() -> None:
        optimizer.zero_grad()
        h = net.trunk(x)
        mtl_backward(net.losses(h, y), h, parallel_chunk_size=chunk)
        jac_to_grad(shared, aggregator)
        optimizer.step()

    return step


PEERS = {
    "Mean": aggregation.Mean,
    "MGDA": aggregation.MGDA,
    "PCGrad": aggregation.PCGrad,
    "IMTLG": aggregation.IMTLG,
    "AlignedMTL": aggregation.AlignedMTL,
    "ConFIG": aggregation.ConFIG,
}
"""TorchJD's, those that run without convex-programming packages; each with all tasks at once and one task at a time."""


def contestants(kind: str, tasks: int) -> dict[str, Step]:
    batch = 128 if kind == "mlp" else 32
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((batch, 64) if kind == "mlp" else (batch, 3, 32, 32), generator=generator)
    y = torch.randn(tasks, batch, generator=generator)

    def net() -> Net:
        torch.manual_seed(0)
        return Net(kind, tasks)

    found: dict[str, Step] = {BASE: plain(net(), x, y), "bmtl ew": ours("ew", net(), x, y)}
    gram = [name for name, slot in SLOTS.items() if slot.slot == "weighting" and slot.needs == "gram"]  # type: ignore[attr-defined]
    for geometry in ("full", "last-layer", "representation"):
        if geometry in SLOTS:
            found |= {f"bmtl {geometry} >> {name}": ours(f"{geometry} >> {name}", net(), x, y) for name in gram}
    for name, peer in PEERS.items():
        found[f"torchjd {name}"] = torchjd_step(peer(), None, net(), x, y)
        found[f"torchjd {name} chunk=1"] = torchjd_step(peer(), 1, net(), x, y)
    return found


def measure(kind: str, tasks: int, rounds: int, match: list[str]) -> dict[str, float]:
    """Median milliseconds of each contestant that has a word of `match` in its name, taking turns."""
    every = contestants(kind, tasks)
    steps = {name: step for name, step in every.items() if name == BASE or any(word in name for word in match or [""])}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn >= 2:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--networks", nargs="+", default=["mlp", "cnn"], choices=sorted(WIDTHS))
    parser.add_argument("--tasks", nargs="+", type=int, default=[3, 11, 40])
    parser.add_argument("--match", nargs="+", default=[], help="words of contestants' names, all by default")
    parser.add_argument("--json", help="file for the medians in milliseconds")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.networks, options.tasks = 1, ["mlp"], [3]
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, torchjd {version('torchjd')}, one thread")
    columns = [(kind, tasks) for kind in options.networks for tasks in options.tasks]
    results = {f"{kind} K={tasks}": measure(kind, tasks, options.rounds, options.match) for kind, tasks in columns}
    width = max(len(name) for column in results.values() for name in column) + 2
    print(f"\nT over the plain loop (first row: milliseconds)\n{'':{width}}" + "".join(f"{c:>11}" for c in results))
    for name in next(iter(results.values())):
        cells = (f"{r[name] if name == BASE else r[name] / r[BASE]:11.2f}" for r in results.values())
        print(f"{name:{width}}" + "".join(cells))
    peers = [[v for n, v in r.items() if n.startswith("torchjd")] for r in results.values()]
    if all(peers):
        best = (min(of) / r[BASE] for of, r in zip(peers, results.values(), strict=True))
        print(f"{'best TorchJD row':{width}}" + "".join(f"{value:11.2f}" for value in best))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
