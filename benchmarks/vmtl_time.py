"""What samples cost in variational multi-task learning: the paper's table C.17, as ratios within one run.

A training iteration of VMTL with 1, 10, 50 and 100 samples of (z, w) over one of BMTL, its deterministic baseline; and
predictions of the test rows by 10 samples, all at once, over BMTL's, and over those of VMTL's posterior means. All take
turns in one process with one thread; the table gives medians of one run. Four tasks, by default of the paper's sizes
(Office-Home's) with its encoder. Run:

    python benchmarks/vmtl_time.py [--rounds 10] [--json FILE] [--quick]
    python benchmarks/vmtl_time.py --encoder linear --inputs 800 --latent 64 --classes 10 --rows 40     # Office-Caltech10's

With --compile also iterations of 10 samples as a graph, "trace" and "inductor", and what their first one takes.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import bmtl
from bmtl.inference.log_probabilities import log_probabilities
from bmtl.inputs import PerTask
from bmtl.models.likelihoods import Categorical
from bmtl.models.vmtl import VMTL, vmtl_preset

TASKS, SAMPLES = 4, (1, 10, 50, 100)
# Shen et al. (2021), table C.17: seconds of an iteration, and of predicting 1,000 rows.
PAPER_TRAINING = {"BMTL": 0.040, "VMTL, 1": 0.098, "VMTL, 10": 0.122, "VMTL, 50": 0.197, "VMTL, 100": 0.320}
PAPER_INFERENCE = {"BMTL": 0.325, "VMTL, 10": 0.357}


def medians(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, taking turns; the first two turns do not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def measure(
    rounds: int,
    encoder: Literal["mlp", "linear"],
    inputs: int,
    latent: int,
    classes: int,
    rows: int,
    modes: Sequence[Literal["trace", "inductor"]] = (),
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a training iteration and of predictions, by contestant."""
    generator = torch.Generator().manual_seed(0)
    names = [f"t{t}" for t in range(TASKS)]
    x = PerTask({name: torch.randn(rows, inputs, generator=generator) for name in names})
    y = {name: torch.arange(rows) % classes for name in names}
    test = PerTask({name: torch.randn(250, inputs, generator=generator) for name in names})

    def model(preset: str, **switches: Any) -> VMTL:
        return vmtl_preset(
            preset,
            inputs,
            {name: Categorical(classes, "fixed") for name in names},
            rows,
            encoder=encoder,
            latent=latent,
            support=(x, y),
            generator=torch.Generator().manual_seed(0),
            **switches,
        )

    def training(preset: str, samples: int, mode: Literal[False, "trace", "inductor"] = False) -> Callable[[], object]:
        program = model(preset)
        elbo = bmtl.TaskELBO(
            "analytic",
            num_particles=samples,
            vectorize_particles=samples > 1,
            max_plate_nesting=2,
            normalize="task_mean",
        )
        adam = functools.partial(torch.optim.Adam, lr=1e-4)
        svi = bmtl.BalancedSVI(program, program.guide(), adam, elbo=elbo, compile=mode)
        if mode:
            before = sum(os.times()[:4])
            svi.step(x, y)
            took = sum(os.times()[:4]) - before
            print(
                f"First iteration of {samples} samples, {mode}: {took:.1f} s of processor time. {svi.compiled.reason}"
            )

        def step() -> None:
            svi.step(x, y)
            svi.history.clear()

        return step

    def inference(preset: str, samples: int, **switches: Any) -> Callable[[], object]:
        program = model(preset, **switches)

        def predict() -> object:
            with torch.no_grad():
                return log_probabilities(
                    program, program.guide(), test, num_draws=samples, parallel=samples > 1, max_plate_nesting=2
                )

        return predict

    trained = {"BMTL": training("BMTL", 1), **{f"VMTL, {count}": training("VMTL", count) for count in SAMPLES}}
    trained |= {f"VMTL, 10, {mode}": training("VMTL", 10, mode) for mode in modes}
    predicted = {
        "BMTL": inference("BMTL", 1),
        "VMTL, means": inference("VMTL", 1, predict="mean"),
        "VMTL, 10": inference("VMTL", 10),
    }
    return medians(trained, rounds), medians(predicted, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--encoder", choices=("mlp", "linear"), default="mlp")
    parser.add_argument("--inputs", type=int, default=4096)
    parser.add_argument("--latent", type=int, default=512)
    parser.add_argument("--classes", type=int, default=65)
    parser.add_argument("--rows", type=int, default=260, help="of each task's batch")
    parser.add_argument("--compile", action="store_true", help="iterations as a graph too")
    parser.add_argument("--json", help="file for the seconds")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.encoder, options.inputs, options.latent = 1, "linear", 8, 4
        options.classes, options.rows = 2, 8
    torch.set_num_threads(1)
    sizes = {name: getattr(options, name) for name in ("encoder", "inputs", "latent", "classes", "rows")}
    modes = ("trace", "inductor") if options.compile else ()
    training, inference = measure(options.rounds, **sizes, modes=modes)
    for title, found, paper in (
        (f"Training iteration, {TASKS} x {options.rows} rows", training, PAPER_TRAINING),
        ("Predicting 1,000 rows", inference, PAPER_INFERENCE),
    ):
        print(f"{title}\n{'':18}{'ms':>8}{'over BMTL':>11}{'paper':>8}")
        for name, seconds in found.items():
            ratio = f"{paper[name] / paper['BMTL']:8.2f}" if name in paper else ""
            print(f"{name:18}{1e3 * seconds:8.1f}{seconds / found['BMTL']:11.2f}{ratio}")
        print()
    print(
        f"10 samples take {inference['VMTL, 10'] / inference['VMTL, means']:.2f} times as long as the posterior means."
    )
    if options.json:
        Path(options.json).write_text(json.dumps({"training": training, "inference": inference}, indent=1))


if __name__ == "__main__":
    main()
