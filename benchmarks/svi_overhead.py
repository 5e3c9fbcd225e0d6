"""What a balanced SVI step costs relative to a hand-written PyTorch loop and to Pyro's own SVI.

One Bayesian multi-task classifier (a shared encoder; each task's head has independent normal weights, KL in closed form)
is trained on one batch in memory four ways: by hand, by `pyro.infer.SVI`, and by `BalancedSVI` (EW), the two Pyro programs
with a task plate or with one tagged site a task. All take turns in one process with one thread; the table gives medians
of the processor's time and ratios of one run; with --compile also of traced and compiled steps, the seconds that compiling
takes without torch's cache of compiled code, and the number of steps after which it has paid.
Run: python benchmarks/svi_overhead.py [--compile] [--quick]
"""

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.nn import functional as F

import bmtl
from bmtl.inference.compiled import Mode

# tasks, rows per task, features, width, classes
SIZES = {"tiny": (3, 32, 8, 16, 3), "mid": (4, 64, 256, 128, 10), "large": (4, 65, 4096, 512, 65)}


class Model(nn.Module):
    """The program: per-task inputs x (T, B, D) and labels y (T, B)."""

    def __init__(self, tasks: int, features: int, width: int, classes: int, n: int, plate: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        self.tasks, self.width, self.classes, self.n, self.plate = tasks, width, classes, n, plate
        self.names = [f"t{k}" for k in range(tasks)]
        self.loc, self.scale = torch.zeros(()), torch.ones(())

    def forward(self, x: Tensor, y: Tensor) -> None:
        prior = dist.Normal(self.loc, self.scale)
        h = bmtl.shared(self.encoder(x))  # (T, B, H)
        if self.plate:
            with bmtl.task_plate(self.names, dim=-2):
                w = pyro.sample("w", prior.expand((self.tasks, 1, self.classes, self.width)).to_event(2))
                logits = h @ w.squeeze(-3).transpose(-1, -2)  # (T, B, C)
                with pyro.plate("rows", self.n, subsample=y[0], dim=-1):
                    pyro.sample("y", dist.Categorical(logits=logits), obs=y)
            return
        for k, name in enumerate(self.names):
            with bmtl.task(name):
                w = pyro.sample(f"w_{name}", prior.expand((self.classes, self.width)).to_event(2))
                with pyro.plate(f"{name}_rows", self.n, subsample=y[k]):
                    pyro.sample(f"y_{name}", dist.Categorical(logits=h[k] @ w.T), obs=y[k])


class Guide(nn.Module):
    """Independent normals."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.plate, self.names = model.plate, model.names
        self.loc = nn.Parameter(torch.zeros(model.tasks, 1, model.classes, model.width))
        self.rho = nn.Parameter(torch.full_like(self.loc, -4.0))

    def forward(self, x: Tensor, y: Tensor) -> None:
        scale = F.softplus(self.rho)
        if self.plate:
            with bmtl.task_plate(self.names, dim=-2):
                pyro.sample("w", dist.Normal(self.loc, scale).to_event(2))
            return
        for k, name in enumerate(self.names):
            pyro.sample(f"w_{name}", dist.Normal(self.loc[k, 0], scale[k, 0]).to_event(2))


def by_hand(model: Model, guide: Guide, x: Tensor, y: Tensor) -> Callable[[], None]:
    """The same losses in plain PyTorch."""
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=1e-3)
    factor = model.n / y.shape[1]

    def step() -> None:
        optimizer.zero_grad()
        scale = F.softplus(guide.rho)
        w = (guide.loc + scale * torch.randn_like(scale)).squeeze(1)  # (T, C, H)
        logits = model.encoder(x) @ w.transpose(-1, -2)
        nll = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") * factor
        kl = (0.5 * (scale.square() + guide.loc.square() - 1.0) - scale.log()).sum()
        loss = (nll + kl) / model.n
        loss.backward()
        if not bool(loss.isfinite()):  # every contestant looks at its loss
            raise ArithmeticError("The loss is not finite.")
        optimizer.step()

    return step


def by_pyro(model: Model, guide: Guide, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Pyro's own step, its ELBO as a module and one torch optimizer (the faster of its two ways)."""
    elbo = TraceMeanField_ELBO()(model, guide)
    optimizer = torch.optim.Adam(elbo.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss = elbo(x, y)
        loss.backward()
        optimizer.step()

    return step


def by_pyro_svi(model: Model, guide: Guide, x: Tensor, y: Tensor) -> Callable[[], None]:
    """`pyro.infer.SVI.step`, which takes plain functions: the modules' parameters go through `pyro.module`."""
    pyro.clear_param_store()

    def program(x: Tensor, y: Tensor) -> None:
        pyro.module("model", model)
        model(x, y)

    def proposal(x: Tensor, y: Tensor) -> None:
        pyro.module("guide", guide)
        guide(x, y)

    svi = SVI(program, proposal, pyro.optim.Adam({"lr": 1e-3}), TraceMeanField_ELBO())
    return lambda: svi.step(x, y)


def by_bmtl(
    model: Model,
    guide: Guide,
    x: Tensor,
    y: Tensor,
    compile: Mode = False,
    first: Callable[[float], None] | None = None,
) -> Callable[[], None]:
    """The balanced step; a compiled one is compiled before it is returned, and `first` gets the seconds that it took."""
    adam = functools.partial(torch.optim.Adam, lr=1e-3)
    svi = bmtl.BalancedSVI(model, guide, adam, "ew", bmtl.TaskELBO("analytic"), compile=compile)
    start = time.process_time()
    for _ in range(3):
        svi.step(x, y)
    if first is not None:
        first(time.process_time() - start)

    def step() -> None:
        svi.step(x, y)
        svi.history.clear()

    return step


def measure(size: str, rounds: int, modes: Sequence[Mode]) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of each contestant, taking turns; and the seconds of the first captured steps."""
    tasks, rows, features, width, classes = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tasks, rows, features, generator=generator)
    y = torch.randint(classes, (tasks, rows), generator=generator)

    def contestant(build: Callable[..., Callable[[], None]], plate: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        model = Model(tasks, features, width, classes, 10 * rows, plate)
        return build(model, Guide(model), x, y)

    steps = {
        "plain torch": contestant(by_hand, True),
        "pyro ELBO, plate": contestant(by_pyro, True),
        "pyro SVI, plate": contestant(by_pyro_svi, True),
        "bmtl, plate": contestant(by_bmtl, True),
        "pyro ELBO, sites": contestant(by_pyro, False),
        "pyro SVI, sites": contestant(by_pyro_svi, False),
        "bmtl, sites": contestant(by_bmtl, False),
    }
    seconds: dict[str, float] = {}
    for mode in modes:
        for plate in (True, False):
            name = f"bmtl, {'plate' if plate else 'sites'}, {mode}"
            first = functools.partial(seconds.__setitem__, name)
            steps[name] = contestant(functools.partial(by_bmtl, compile=mode, first=first), plate)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 5):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn >= 5:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: float(np.median(values)) for name, values in times.items()}, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="steps of each contestant (a fifth at the large size)")
    parser.add_argument("--compile", action="store_true", help="with steps that are traced and compiled (two minutes)")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    sizes = ["tiny"] if options.quick else list(SIZES)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, pyro {pyro.__version__}, one thread, medians of {rounds} interleaved steps")
    print("sizes (tasks, rows, features, width, classes):", {size: SIZES[size] for size in sizes})
    modes: tuple[Mode, ...] = ("trace", "inductor") if options.compile and not options.quick else ()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # nothing is compiled before
        measured = {size: measure(size, rounds if size != "large" else max(rounds // 5, 10), modes) for size in sizes}
    results = {size: times for size, (times, _) in measured.items()}
    print(f"\n{'':24}" + "".join(f"{size + ' ms':>10}{'/ torch':>9}" for size in sizes))
    for name in results["tiny"]:
        cells = (f"{r[name]:10.2f}{r[name] / r['plain torch']:9.2f}" for r in results.values())
        print(f"{name:24}" + "".join(cells))
    for kind in ("plate", "sites"):
        ratios = "  ".join(f"{size} {r[f'bmtl, {kind}'] / r[f'pyro SVI, {kind}']:.2f}" for size, r in results.items())
        print(f"bmtl / pyro SVI, {kind}: {ratios}")
    for size, (times, first) in measured.items():
        for name, seconds in first.items():
            saved = (times[name.rpartition(", ")[0]] - times[name]) / 1e3
            pays = f"pays after {seconds / saved:,.0f} steps" if saved > 0 else "never pays"
            print(f"{size}, {name}: first steps {seconds:.1f} s of processor time, {pays}")


if __name__ == "__main__":
    main()
