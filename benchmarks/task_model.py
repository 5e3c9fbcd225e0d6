"""What a balanced step of a `TaskModel` costs over a plain PyTorch loop, with one statement for all targets or one each.

The network of `bmtl demo` (34-128-128 and 11 linear heads, batches of 128) on real targets with fixed, learnt and latent
noise; and the same with steps that are traced or compiled, with the seconds that compiling takes without torch's cache of
compiled code, and the number of steps after which it has paid. All contestants take turns in one process with one thread;
the table gives medians of the processor's time, which other processes of a machine disturb little.
Run: python benchmarks/task_model.py [--rounds 100] [--compile] [--quick]
"""

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyro
import torch
from torch import Tensor, nn

import bmtl
from bmtl.inference.compiled import Mode
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Gaussian

FEATURES, WIDTH, TASKS, ROWS, DATA = 34, 128, 11, 128, 1400
NAMES = [f"t{k}" for k in range(TASKS)]
ADAM = functools.partial(torch.optim.Adam, lr=1e-3)
Step = Callable[[], object]


def plain(stacked: bool, x: Tensor, y: dict[str, Tensor], fused: bool | None = None) -> Step:
    """Squared errors in plain PyTorch, with a head each or one for all."""
    torch.manual_seed(0)
    trunk = mlp(FEATURES, (WIDTH, WIDTH))
    heads = nn.ModuleList([nn.Linear(WIDTH, TASKS)] if stacked else [nn.Linear(WIDTH, 1) for _ in NAMES])
    optimizer = ADAM([*trunk.parameters(), *heads.parameters()], fused=fused)
    joined = torch.stack(list(y.values()), 1)

    def step() -> None:
        optimizer.zero_grad()
        h = trunk(x)
        if stacked:
            losses = 0.5 * (heads[0](h) - joined).square().mean(0)
        else:
            each = zip(heads, y.values(), strict=True)
            losses = torch.stack([0.5 * (head(h).squeeze(-1) - of).square().mean() for head, of in each])
        losses.sum().backward()
        if not bool(losses.isfinite().all()):  # every contestant looks at its losses
            raise ArithmeticError("A loss is not finite.")
        optimizer.step()

    return step


def ours(
    stack: bool, noise: str, balancer: str, x: Tensor, y: dict[str, Tensor], compile: Mode = False
) -> tuple[Step, float]:
    """A balanced step of the same network, compiled before it is returned, and the seconds of its first three."""
    torch.manual_seed(0)
    model = TaskModel(
        mlp(FEATURES, (WIDTH, WIDTH)), WIDTH, {name: Gaussian(noise) for name in NAMES}, DATA, stack=stack
    )
    elbo = bmtl.TaskELBO("analytic" if noise == "latent" else "mc")
    svi = bmtl.BalancedSVI(model, model.guide(), ADAM, balancer, elbo, compile=compile)
    svi.initialise(x, y)
    start = time.process_time()
    for _ in range(3):
        svi.step(x, y)
    seconds = time.process_time() - start

    def step() -> None:
        svi.step(x, y)
        svi.history.clear()

    return step, seconds


def contestants(modes: Sequence[Mode]) -> tuple[dict[str, Step], dict[str, float]]:
    """Steps by what they are, and the seconds of the first ones of those that are captured."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, FEATURES, generator=generator)
    y = {name: torch.randn(ROWS, generator=generator) for name in NAMES}
    found = {"plain loop, 11 heads": plain(False, x, y), "plain loop, one stacked head": plain(True, x, y)}
    if modes:
        found["plain loop, 11 heads, fused Adam"] = plain(False, x, y, fused=True)
    for noise in ("fixed", "parameter", "latent"):
        for stack in (False, True):
            label = f"ew, {noise} noise, {'one statement' if stack else 'a statement each'}"
            found[label], _ = ours(stack, noise, "ew", x, y)
    for balancer in ("full >> nash-mtl", "last-layer >> nash-mtl"):
        for stack in (False, True):
            label = f"{balancer}, {'one statement' if stack else 'a statement each'}"
            found[label], _ = ours(stack, "fixed", balancer, x, y)
    first: dict[str, float] = {}
    for mode in modes:
        for noise in ("fixed", "parameter", "latent"):
            label = f"ew, {noise} noise, one statement"
            found[f"{label}, {mode}"], first[f"{label}, {mode}"] = ours(True, noise, "ew", x, y, mode)
        for balancer in ("full >> nash-mtl", "last-layer >> nash-mtl"):
            label = f"{balancer}, one statement"
            found[f"{label}, {mode}"], first[f"{label}, {mode}"] = ours(True, "fixed", balancer, x, y, mode)
    return found, first


def measure(rounds: int, modes: Sequence[Mode]) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of processor time of each contestant, taking turns; and seconds of the first captured steps."""
    steps, first = contestants(modes)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 5):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn >= 5:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: float(np.median(values)) for name, values in times.items()}, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--compile", action="store_true", help="with steps that are traced and compiled (a minute)")
    parser.add_argument("--quick", action="store_true", help="short: shows that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if options.quick else options.rounds
    print(f"torch {torch.__version__}, pyro {pyro.__version__}, one thread, medians of {rounds} interleaved steps")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # nothing is compiled before
        times, first = measure(rounds, ("trace", "inductor") if options.compile and not options.quick else ())
    base = times["plain loop, 11 heads"]
    width = max(map(len, times)) + 2
    print(f"{'':{width}}{'ms':>8}{'/ plain':>9}")
    for name, found in times.items():
        print(f"{name:{width}}{found:8.2f}{found / base:9.2f}")
    for name, seconds in first.items():
        saved = (times[name.rpartition(", ")[0]] - times[name]) / 1e3
        pays = f"pays after {seconds / saved:,.0f} steps" if saved > 0 else "never pays"
        print(f"{name}: first steps {seconds:.1f} s of processor time, {pays}")


if __name__ == "__main__":
    main()
