"""Checks of a CUDA device in a few minutes: equal steps, half precision, memory, and what a step costs there.

Transforms, weightings and geometries take steps on the device and on the CPU, in float64 and float32, from the same values;
float16 with a gradient scaler and bfloat16 are compared with float32; traced and compiled steps are compared with ordinary
ones, in float32 and in half precision; an optimizer's step under NCCL with one process is that without. Peak memory and
times of steps are those of the network of `bmtl demo`, of an MLP, of a graph network on molecules and of SegNet on pictures,
ordinary and compiled, against a plain PyTorch loop with heads of each task (the graph network in PyTorch Geometric's form,
with the graphs' features made before) and that loop with TorchJD's UPGrad.
Without a device it says "skipped" and ends well. Run: python benchmarks/gpu.py [--json gpu.json] [--quick]
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bmtl
from bmtl import inputs
from bmtl.datasets import load
from bmtl.experiments import Budget, Method
from bmtl.experiments.methods import build
from bmtl.experiments.rows import batches, spec_of
from bmtl.inference.balancing import SLOTS
from bmtl.inference.compiled import Mode
from bmtl.inference.compiled.choosing import missing_compiler
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Categorical, Gaussian, Likelihood
from bmtl.models.networks.molecules import MoleculeNNConv

SGD = functools.partial(torch.optim.SGD, lr=0.02)
SLOW = functools.partial(torch.optim.SGD, lr=1e-5)  # in steps that are timed, whose values do not matter
LATENT = {"bayes-agg"}  # needs heads that are drawn
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}
Row = dict[str, Any]


def model_of(dtype: torch.dtype, device: str, width: int = 16, tasks: int = 4, head: str = "linear") -> TaskModel:
    """A task model of real targets and classes, the same on every device."""
    from bmtl.models.heads import HEADS

    generator = torch.Generator().manual_seed(0)
    likelihoods: dict[str, Likelihood] = {f"t{k}": Gaussian("fixed") for k in range(tasks - 1)} | {"c": Categorical(3)}
    trunk = mlp(8, (width, width), generator=generator)
    model = TaskModel(trunk, width, likelihoods, 100, head=HEADS[head], generator=generator)
    return model.to(device, dtype)


def batch(dtype: torch.dtype, device: str, rows: int = 32, tasks: int = 4) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 8, generator=generator, dtype=torch.float64)
    y = {f"t{k}": torch.randn(rows, generator=generator, dtype=torch.float64) for k in range(tasks - 1)}
    y["t0"][:5] = torch.nan
    y["c"] = torch.randint(3, (rows,), generator=generator)
    labels = {name: (of.to(dtype) if of.is_floating_point() else of).to(device) for name, of in y.items()}
    return x.to(device, dtype), labels


def steps(
    balancer: str,
    dtype: torch.dtype,
    device: str,
    number: int = 3,
    *,
    half: torch.dtype | None = None,
    compile: Mode = False,
) -> list[Tensor]:
    """The parameters after some steps, on the CPU in float64.

    Raises:
        RuntimeError: If steps were to be compiled and ran as Python; says why.
    """
    model = model_of(dtype, device)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10) if half == torch.float16 else None
    svi = bmtl.BalancedSVI(model, model.guide().to(device, dtype), SGD, balancer, scaler=scaler, compile=compile)
    data = batch(dtype, device)
    for _ in range(number):
        with torch.autocast(device, half, enabled=half is not None):
            svi.step(*data)
    if compile and (svi.compiled.reason or not svi.compiled.replayed):
        raise RuntimeError(svi.compiled.reason or "no step was a replay")
    return [p.detach().cpu().double() for p in svi.parameters]


def apart(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of two lists of parameters, relative to the largest entry of each."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-3)) for a, b in pairs)


def balancers(quick: bool) -> list[str]:
    found = [f"{name}" for name, slot in SLOTS.items() if slot.slot == "transform" and name not in ("igb-v2", "own")]
    weightings = [name for name, slot in SLOTS.items() if slot.slot == "weighting" and name not in LATENT]
    found += [f"full >> {name}" if name != "sdm-grad" else f"full(cross=True) >> {name}" for name in weightings]
    found += ["last-layer >> upgrad", "representation >> upgrad", "igb-v1 >> last-layer(every=2) >> nash-mtl"]
    return found[::9] if quick else found


def checked(check: str, what: str, tolerance: float, measure: Callable[[], float]) -> Row:
    """A row of the table; a check that raises is a bad one, and the others are still made."""
    row: Row = {"check": check, "what": what}
    try:
        found = measure()
    except Exception as error:
        return row | {"value": None, "ok": False, "error": f"{type(error).__name__}: {error}"}
    return row | {"value": found, "ok": found < tolerance}


def equal_steps(device: str, quick: bool) -> Iterator[Row]:
    for dtype in (torch.float64, torch.float32):
        for balancer in balancers(quick):
            yield checked(
                "steps equal the CPU's",
                f"{balancer}, {str(dtype)[6:]}",
                TOLERANCE[dtype],
                lambda b=balancer, d=dtype: apart(steps(b, d, device), steps(b, d, "cpu")),  # type: ignore[misc]
            )


def half_precision(device: str) -> Iterator[Row]:
    expected = steps("full >> upgrad", torch.float32, device)
    for half in (torch.float16, torch.bfloat16):
        ways: tuple[Mode, ...] = (False, *modes())
        for mode in ways:
            what = f"{str(half)[6:]}, {mode}" if mode else str(half)[6:]
            number = 3 if not mode else 6
            yield checked(
                "half precision",
                what,
                0.1,
                lambda h=half, m=mode, n=number: apart(  # type: ignore[misc]
                    steps("full >> upgrad", torch.float32, device, n, half=h, compile=m),
                    expected if not m else steps("full >> upgrad", torch.float32, device, n, half=h),
                ),
            )


def modes() -> tuple[Mode, ...]:
    return ("trace",) if missing_compiler() else ("trace", "inductor")


def compiled_steps(device: str, quick: bool) -> Iterator[Row]:
    """A traced step repeats the ordinary one bit for bit, a compiled one to rounding."""
    for mode in modes():
        for balancer in ("ew",) if quick else ("ew", "uw", "full >> upgrad", "last-layer >> nash-mtl"):
            yield checked(
                "compiled steps",
                f"{balancer}, {mode}",
                1e-12 if mode == "trace" and device == "cpu" else 1e-4,
                lambda b=balancer, m=mode: apart(  # type: ignore[misc]
                    steps(b, torch.float32, device, 6, compile=m), steps(b, torch.float32, device, 6)
                ),
            )


def one_process(device: str) -> Iterator[Row]:
    backend = "nccl" if device == "cuda" else "gloo"
    expected = steps("full >> upgrad", torch.float64, device)
    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ.setdefault("MASTER_PORT", "29533")
    torch.distributed.init_process_group(backend, rank=0, world_size=1)
    try:
        found = apart(steps("full >> upgrad", torch.float64, device), expected)
    finally:
        torch.distributed.destroy_process_group()
    yield {"check": "one process", "what": backend, "value": found, "ok": found < TOLERANCE[torch.float64]}


@dataclass(frozen=True)
class Workload:
    """What steps are taken of.

    Attributes:
        make: Makes the task model on the device, the same every time.
        data: Its batch.
        ways: How its steps with equal weights are also run, compiled.
        plain: The trunk of the plain loop and what it takes, of a task model; by default its own.
        at_once: Whether TorchJD's gradients can be taken of all tasks at once, which torch has not for recurrent layers.
    """

    make: Callable[[], TaskModel]
    data: tuple[Any, dict[str, Tensor]]
    ways: tuple[Mode, ...] = ()
    plain: Callable[[TaskModel], tuple[nn.Module, Any]] | None = None
    at_once: bool = True


def table(width: int, tasks: int, rows: int, device: str) -> Workload:
    """The network of `bmtl demo`, or a wider one."""
    data = batch(torch.float32, device, rows, tasks)
    return Workload(lambda: model_of(torch.float32, device, width, tasks), data, modes())


def graphs(device: str, quick: bool) -> Workload:
    """QM9's published network on random molecules; the plain loop has it with PyTorch Geometric's `NNConv`."""
    from qm9_networks import ELEMENTS, Original, flat, molecules

    rows, tasks = (4, 2) if quick else (120, 11)
    atoms = inputs.to(molecules(rows), device)
    generator = torch.Generator().manual_seed(1)
    y = {f"t{k}": torch.randn(rows, generator=generator).to(device) for k in range(tasks)}

    def make() -> TaskModel:
        torch.manual_seed(0)
        return TaskModel(MoleculeNNConv(ELEMENTS), 64, {name: Gaussian("fixed") for name in y}, 9000).to(device)

    def plain(model: TaskModel) -> tuple[nn.Module, Any]:
        ours = model.representation.trunk
        return Original(ours), flat(ours.features(atoms))

    return Workload(make, (atoms, y), modes(), plain if find_spec("torch_geometric") else None, at_once=False)


def scenes(device: str, quick: bool) -> Workload:
    """SegNet on pictures of rooms, with classes and depth of their pixels."""
    height, width, share, rows = (16, 16, 1 / 32, 2) if quick else (96, 128, 0.25, 8)
    data = load("rooms", train=rows, val=0, test=0, height=height, width=width).subset(("semantic", "depth"))
    options = {"noise": "fixed", "head": "conv", "trunk_options": {"width": share}}
    method = Method("segnet", trunk="segnet", options=options)
    x, y = next(iter(batches(*data.tensors("train"), rows, 0)))

    def make() -> TaskModel:
        return build(method, spec_of(data, method), Budget().of(data).widths, 0)[0].to(device)

    return Workload(make, (x.to(device), {name: of.to(device) for name, of in y.items()}), ("trace",))


def costs(device: str, quick: bool) -> Iterator[Row]:
    """Medians of steps taken in turns, and the peak of memory above the network's."""
    made: dict[str, Callable[[], Workload]] = {"demo": lambda: table(128, 11, 128, device)}
    if not quick:
        made["mlp"] = lambda: table(2048, 40, 512, device)
    made |= {"graphs": lambda: graphs(device, quick), "scenes": lambda: scenes(device, quick)}
    for name, make in made.items():
        yield from _costs(name, make(), device, quick)


def _costs(name: str, workload: Workload, device: str, quick: bool) -> Iterator[Row]:
    contestants = {"plain": _plain(workload)}
    if find_spec("torchjd"):
        if workload.at_once:
            contestants["torchjd UPGrad, all at once"] = _plain(workload, torchjd=True)
        contestants["torchjd UPGrad, one at a time"] = _plain(workload, torchjd=True, chunk=1)
    for spec in ("ew", "full >> upgrad", "last-layer >> upgrad"):
        contestants[spec] = _ours(workload, spec, device)
    for mode in () if quick else workload.ways:
        contestants[f"ew, {mode}"] = _ours(workload, "ew", device, mode)
    times: dict[str, list[float]] = {spec: [] for spec in contestants}
    for turn in range(2 if quick else 25):
        for spec, step in contestants.items():
            _wait(device)
            start = time.perf_counter()
            step()
            _wait(device)
            if turn:
                times[spec].append(1e3 * (time.perf_counter() - start))
    base = float(np.median(times["plain"]))
    for spec, step in contestants.items():
        row: Row = {"check": "step", "what": f"{name}, {spec}", "value": float(np.median(times[spec])), "ok": True}
        row["over plain"] = row["value"] / base
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            row["MB"] = (torch.cuda.max_memory_allocated() - before) / 1e6
        yield row


def _plain(workload: Workload, torchjd: bool = False, chunk: int | None = None) -> Callable[[], None]:
    """A step of a loop without bmtl: the sum of the mean losses, or TorchJD's UPGrad of them."""
    model = workload.make()
    trunk, x = (model.representation.trunk, workload.data[0]) if workload.plain is None else workload.plain(model)
    y = workload.data[1]
    shared = list(trunk.parameters())
    optimizer = SLOW([*shared, *model.heads.parameters()])
    parts = {name: _loss(of) for name, of in y.items()}
    if torchjd:
        from torchjd.aggregation import UPGrad
        from torchjd.autojac import jac_to_grad, mtl_backward

        aggregator = UPGrad()

    def step() -> None:
        optimizer.zero_grad()
        h = trunk(x)
        losses = [loss(model.heads(name, h, None)) for name, loss in parts.items()]
        if torchjd:
            mtl_backward(losses, h, parallel_chunk_size=chunk)
            jac_to_grad(shared, aggregator)
        else:
            torch.stack(losses).sum().backward()
        optimizer.step()

    return step


def _loss(y: Tensor) -> Callable[[Tensor], Tensor]:
    """The mean loss of a target's outputs ``(..., F)``: of classes, of pixels' numbers or of rows' numbers."""
    if not y.is_floating_point():
        return lambda found: F.cross_entropy(found.flatten(0, -2), y.flatten())
    labelled, filled = y.isfinite(), y.nan_to_num()

    def loss(found: Tensor) -> Tensor:
        apart = found[..., 0] - filled
        return torch.where(labelled, apart.abs() if y.dim() > 1 else 0.5 * apart.square(), 0.0).mean()

    return loss


def _ours(workload: Workload, spec: str, device: str, compile: Mode = False) -> Callable[[], None]:
    model = workload.make()
    svi = bmtl.BalancedSVI(model, model.guide().to(device), SLOW, spec, compile=compile)
    for _ in range(4 if compile else 1):  # compiled before it is timed
        svi.step(*workload.data)

    def step() -> None:
        svi.step(*workload.data)
        svi.history.clear()

    return step


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default=None, help="file for all rows")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu runs the script against itself")
    parser.add_argument("--quick", action="store_true", help="few balancers and one network")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__}: there is no CUDA device: skipped")
        return
    named = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    print(f"torch {torch.__version__} on {named}")
    rows: list[Row] = []
    device = options.device
    for check in (
        lambda: equal_steps(device, options.quick),
        lambda: half_precision(device),
        lambda: compiled_steps(device, options.quick),
        lambda: one_process(device),
        lambda: costs(device, options.quick),
    ):
        for row in check():
            rows.append(row)
            extra = "".join(f"{row[key]:10.2f} {key}" for key in ("over plain", "MB") if key in row)
            value = row.get("error") or f"{row['value']:10.3g}"
            print(f"{'ok ' if row['ok'] else 'BAD'} {row['check']:24}{row['what']:50}{value}{extra}")
    bad = [row for row in rows if not row["ok"]]
    print(f"{len(rows)} checks, {len(bad)} bad")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"torch": torch.__version__, "device": named, "rows": rows}, file, indent=1)
    if bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
