"""Time of a training step of networks of images, and what channels-last and bfloat16 make of it.

Networks take turns, a step each, in one thread; times are medians of the process's own CPU time. Steps are of three targets
(13 classes, depth, normals) with equal weights, batch 2 as in the published comparisons. Run:

    python benchmarks/dense_steps.py [--height 90 --width 120] [--share 0.25] [--steps 6] [--results FILE]
                                     [--quick]
"""

import argparse
import csv
import functools
import time
from pathlib import Path

import numpy as np
import torch

import bmtl
from bmtl.datasets import load
from bmtl.experiments import Budget, Method
from bmtl.experiments.methods import build
from bmtl.experiments.rows import batches, spec_of

TARGETS = ("semantic", "depth", "normal")
LAYOUTS = {
    "": {},
    "channels-last": {"channels_last": True},
    "bfloat16": {"bfloat16": True},
    "both": {"channels_last": True, "bfloat16": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=90)
    parser.add_argument("--width", type=int, default=120)
    parser.add_argument("--share", type=float, default=0.25, help="of SegNet's full width")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--results", type=Path, help="CSV file to be written")
    parser.add_argument("--quick", action="store_true", help="shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.height, options.width, options.share, options.steps = 16, 16, 1 / 32, 1
    torch.set_num_threads(1)
    data = load("rooms", train=4, val=0, test=0, height=options.height, width=options.width).subset(TARGETS)
    made = {}
    for trunk in ("segnet", "mtan", "unet"):
        for layout, given in LAYOUTS.items():
            if not (options.quick and layout):
                own = {} if trunk == "unet" else {"width": options.share}
                made[trunk, layout] = step_of(data, trunk, {**own, **given})
    times = {name: [] for name in made}
    for turn in range(options.steps + 1):
        for name, step in made.items():
            start = time.process_time()
            step()
            if turn:  # the first one sets up
                times[name].append(time.process_time() - start)
    medians = {name: float(np.median(of)) for name, of in times.items()}
    reference = medians["segnet", ""]
    print(f"{options.height} x {options.width}, batch 2, share {options.share:g} of SegNet's width")
    for (trunk, layout), seconds in medians.items():
        print(f"{trunk:7} {layout:14} {seconds / 2:8.4f} s an image   {seconds / reference:5.2f} of SegNet's step")
    if options.results:
        with options.results.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["trunk", "layout", "seconds", "ratio"])
            for (trunk, layout), seconds in medians.items():
                writer.writerow([trunk, layout, f"{seconds / 2:.4f}", f"{seconds / reference:.2f}"])


def step_of(data, trunk, options):
    """A function that takes a step."""
    method = Method(trunk, trunk=trunk, options={"noise": "fixed", "head": "conv", "trunk_options": options})
    model, guide = build(method, spec_of(data, method), Budget().of(data).widths, 0)
    svi = bmtl.BalancedSVI(model, guide, functools.partial(torch.optim.Adam, lr=1e-4), "ew", bmtl.TaskELBO("analytic"))
    batch = next(iter(batches(*data.tensors("train"), 2, 0)))
    return lambda: svi.step(*batch)


if __name__ == "__main__":
    main()
