"""Checks of a CUDA device in a few minutes: equal steps, half precision, memory, and what a step costs there.

Transforms, weightings and geometries take steps on the device and on the CPU, in float64 and float32, from the same values;
float16 with a gradient scaler and bfloat16 are compared with float32; traced and compiled steps are compared with ordinary
ones, in float32 and in half precision; an optimizer's step under NCCL with one process is that without; peak memory and
times are those of the network of `bmtl demo` and of an MLP, ordinary and compiled, against a plain loop.
Without a device it says "skipped" and ends well. Run: python benchmarks/gpu.py [--json gpu.json] [--quick]
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bmtl
from bmtl.inference.balancing import SLOTS
from bmtl.inference.compiled import Mode
from bmtl.inference.compiled.choosing import missing_compiler
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Categorical, Gaussian, Likelihood

SGD = functools.partial(torch.optim.SGD, lr=0.02)
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


def costs(device: str, quick: bool) -> Iterator[Row]:
    """Medians of steps taken in turns, and the peak of memory above the network's."""
    shapes = {"demo": (128, 11, 128)} if quick else {"demo": (128, 11, 128), "mlp": (2048, 40, 512)}
    for name, (width, tasks, rows) in shapes.items():
        data = batch(torch.float32, device, rows, tasks)
        contestants = {"plain": _plain(width, tasks, device, data)}
        for spec in ("ew", "full >> upgrad", "last-layer >> upgrad"):
            contestants[spec] = _ours(spec, width, tasks, device, data)
        for mode in modes() if not quick else ():
            contestants[f"ew, {mode}"] = _ours("ew", width, tasks, device, data, mode)
        times: dict[str, list[float]] = {spec: [] for spec in contestants}
        for turn in range(3 if quick else 40):
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


def _plain(width: int, tasks: int, device: str, data: tuple[Tensor, dict[str, Tensor]]) -> Callable[[], None]:
    model = model_of(torch.float32, device, width, tasks)
    optimizer = SGD(model.parameters())
    x, y = data
    labelled = y["t0"].isfinite()

    def step() -> None:
        optimizer.zero_grad()
        h = model.representation.trunk(x)
        outputs = {name: model.heads(name, h, None) for name in y}
        losses = [0.5 * (outputs[f"t{k}"][:, 0] - y[f"t{k}"]).square() for k in range(tasks - 1)]
        losses[0] = torch.where(labelled, losses[0].nan_to_num(), 0.0)
        losses.append(torch.nn.functional.cross_entropy(outputs["c"], y["c"], reduction="none"))
        torch.stack([of.mean() for of in losses]).sum().backward()
        optimizer.step()

    return step


def _ours(spec: str, width: int, tasks: int, device: str, data: Any, compile: Mode = False) -> Callable[[], None]:
    model = model_of(torch.float32, device, width, tasks)
    svi = bmtl.BalancedSVI(model, model.guide().to(device), SGD, spec, compile=compile)
    for _ in range(4):  # compiled before it is timed
        svi.step(*data)

    def step() -> None:
        svi.step(*data)
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
