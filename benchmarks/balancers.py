"""What a balanced step costs relative to equal weights, here and in TorchJD, in one run.

An MLP (64-512-512-512, batch 128) and a CNN (three convolutions and a linear layer 1024-128, batch 32) with K linear heads
are trained with Adam on K squared errors, one thread. All contestants take turns, so a drift of the machine's speed hits
them alike; T is the median processor time of a step over that of a plain PyTorch loop with summed losses. Ours are a
program with a statement per task or, where marked "plate", one statement in a task plate. TorchJD's are `autojac` with all
tasks at once, four or one at a time, and `autogram`, whose weights multiply the heads' gradients too. With ``--compile``
also ours under ``compile="inductor"``. Run:

    python benchmarks/balancers.py [--rounds 30] [--json balancers.json] [--networks mlp cnn] [--tasks 3 11 40] [--quick]
        [--match upgrad torchjd] [--compile]
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Literal

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchjd import aggregation
from torchjd.autogram import Engine
from torchjd.autojac import jac_to_grad, mtl_backward

import bmtl
from bmtl.inference.balancing import SLOTS

WIDTHS = {"mlp": 512, "cnn": 128}
BASE = "plain loop, EW"
Step = Callable[[], None]


class Net(nn.Module):
    """A trunk and K linear heads; as a program, K unit-variance regressions, a statement each."""

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

    def losses(self, h: Tensor, y: Tensor) -> list[Tensor]:
        return [0.5 * (head(h).squeeze(-1) - y[k]).square().mean() for k, head in enumerate(self.heads)]

    def forward(self, x: Tensor, y: Tensor) -> None:
        h = bmtl.shared(self.trunk(x))
        rows = pyro.plate("rows", len(x), dim=-1)
        for k, (name, head) in enumerate(zip(self.names, self.heads, strict=True)):
            with bmtl.task(name), rows:
                pyro.factor(f"y_{name}", -0.5 * (head(h).squeeze(-1) - y[k]).square())


class Plated(Net):
    """The same as one statement in a task plate."""

    def forward(self, x: Tensor, y: Tensor) -> None:
        h = bmtl.shared(self.trunk(x))
        weight, bias = (torch.cat([getattr(head, name) for head in self.heads]) for name in ("weight", "bias"))
        with bmtl.task_plate(self.names, dim=-2), pyro.plate("rows", len(x), dim=-1):
            pyro.factor("y", -0.5 * (F.linear(h, weight, bias).T - y).square())


def guide(x: Tensor, y: Tensor) -> None:
    """No latent: the parameters are point masses."""


def plain(net: Net, x: Tensor, y: Tensor) -> Step:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(net.losses(net.trunk(x), y)).sum().backward()
        optimizer.step()

    return step


def ours(spec: str, compile: Literal[False, "inductor"], net: Net, x: Tensor, y: Tensor) -> Step:
    svi = bmtl.BalancedSVI(
        net,
        guide,
        functools.partial(torch.optim.Adam, lr=1e-4),
        spec,
        bmtl.TaskELBO(normalize="task_mean"),
        on_error="skip",
        compile=compile,
    )
    for _ in range(4 if compile else 0):  # the first two are compared with steps as Python
        svi.step(x, y)

    def step() -> None:
        svi.step(x, y)
        svi.history.clear()

    return step


def torchjd_step(
    peer: Callable[[int], aggregation.Aggregator], chunk: int | None, net: Net, x: Tensor, y: Tensor
) -> Step:
    optimizer, aggregator = torch.optim.Adam(net.parameters(), lr=1e-4), peer(len(y))
    shared = list(net.trunk.parameters())

    def step() -> None:
        optimizer.zero_grad()
        h = net.trunk(x)
        mtl_backward(net.losses(h, y), h, parallel_chunk_size=chunk)
        jac_to_grad(shared, aggregator)
        optimizer.step()

    return step


def engine_step(peer: Callable[[], Callable[[Tensor], Tensor]], net: Net, x: Tensor, y: Tensor) -> Step:
    optimizer, weighting = torch.optim.Adam(net.parameters(), lr=1e-4), peer()
    engine = Engine(net.trunk, batch_dim=None)

    def step() -> None:
        optimizer.zero_grad()
        losses = torch.stack(net.losses(net.trunk(x), y))
        losses.backward(weighting(engine.compute_gramian(losses)))
        optimizer.step()

    return step


PEERS: dict[str, Callable[[int], aggregation.Aggregator]] = {
    "Mean": lambda tasks: aggregation.Mean(),
    "UPGrad": lambda tasks: aggregation.UPGrad(),
    "DualProj": lambda tasks: aggregation.DualProj(),
    "MGDA": lambda tasks: aggregation.MGDA(),
    "PCGrad": lambda tasks: aggregation.PCGrad(),
    "CAGrad": lambda tasks: aggregation.CAGrad(0.5),
    "IMTLG": lambda tasks: aggregation.IMTLG(),
    "NashMTL": aggregation.NashMTL,
    "AlignedMTL": lambda tasks: aggregation.AlignedMTL(),
    "ConFIG": lambda tasks: aggregation.ConFIG(),
    "FairGrad": lambda tasks: aggregation.FairGrad(1.0),
    "GradDrop": lambda tasks: aggregation.GradDrop(),
}
"""TorchJD's, by the number of tasks."""
ENGINES: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "Mean": aggregation.MeanWeighting,
    "UPGrad": aggregation.UPGradWeighting,
    "DualProj": aggregation.DualProjWeighting,
    "MGDA": aggregation.MGDAWeighting,
    "PCGrad": aggregation.PCGradWeighting,
    "CAGrad": functools.partial(aggregation.CAGradWeighting, 0.5),
    "IMTLG": aggregation.IMTLGWeighting,
    "AlignedMTL": aggregation.AlignedMTLWeighting,
    "FairGrad": functools.partial(aggregation.FairGradWeighting, 1.0),
}
"""Those of them that take a Gram matrix."""


def contestants(kind: str, tasks: int) -> dict[str, Callable[[], Step]]:
    """What makes each contestant."""
    batch = 128 if kind == "mlp" else 32
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((batch, 64) if kind == "mlp" else (batch, 3, 32, 32), generator=generator)
    y = torch.randn(tasks, batch, generator=generator)
    found: dict[str, Callable[[], Step]] = {}

    def add(name: str, build: Callable[..., Step], *options: object, form: type[Net] = Net) -> None:
        def made() -> Step:
            torch.manual_seed(0)
            return build(*options, form(kind, tasks), x, y)

        found[name] = made

    add(BASE, plain)
    gram = [name for name, slot in SLOTS.items() if slot.slot == "weighting" and slot.needs == "gram"]  # type: ignore[attr-defined]
    for spec in ["ew", *(f"{of} >> {name}" for of in ("full", "last-layer", "representation") for name in gram)]:
        add(f"bmtl {spec}", ours, spec, False)
        if spec == "ew" or "upgrad" in spec:
            add(f"bmtl {spec}, plate", ours, spec, False, form=Plated)
            add(f"bmtl {spec}, inductor", ours, spec, "inductor")
            add(f"bmtl {spec}, plate, inductor", ours, spec, "inductor", form=Plated)
    for name, peer in PEERS.items():
        for chunk in (None, 4, 1):
            add(f"torchjd {name}" + (f" chunk={chunk}" if chunk else ""), torchjd_step, peer, chunk)
    for name, weighting in ENGINES.items():
        add(f"torchjd autogram {name}", engine_step, weighting)
    return found


def measure(kind: str, tasks: int, rounds: int, match: list[str], compiled: bool) -> dict[str, float]:
    """Median milliseconds of each contestant that has a word of `match` in its name, taking turns."""
    steps = {}
    for name, make in contestants(kind, tasks).items():
        if "inductor" in name and not compiled:
            continue
        if name == BASE or any(word in name for word in match or [""]):
            try:
                steps[name] = make()
            except ImportError as error:  # pip install 'torchjd[full]'
                print(f"left out: {name} ({error})")
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
    parser.add_argument(
        "--compile", action="store_true", help="also compiled steps, which take half a minute each at first"
    )
    parser.add_argument("--json", help="file for the medians in milliseconds")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.networks, options.tasks = 1, ["mlp"], [3]
        options.match = options.match or ["ew", "upgrad", "Mean", "UPGrad"]
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, torchjd {version('torchjd')}, one thread")
    columns = [(kind, tasks) for kind in options.networks for tasks in options.tasks]
    results = {
        f"{kind} K={tasks}": measure(kind, tasks, options.rounds, options.match, options.compile)
        for kind, tasks in columns
    }
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
