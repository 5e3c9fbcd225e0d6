"""Peak memory of drawing and scoring images: a small network with dropout, many draws, NYUv2's size and number.

Random images with random classes, in a process of its own for each number of images; the peak is above what the imports and
the first images take. What is kept of predictions does not grow with images or draws; the images themselves do, at a byte a
number, and labels. Run:

    python benchmarks/dense_memory.py [--images 20,80] [--draws 20] [--height 288 --width 384] [--quick]
"""

import argparse
import resource
import subprocess
import sys

import numpy as np
import torch

from bmtl import draw
from bmtl.datasets import Images, MultiTaskData
from bmtl.experiments.reduced import draw_reduced
from bmtl.models import TaskModel, likelihood_of
from bmtl.models.networks import unet_trunk
from bmtl.models.representations import MCDropout
from bmtl.targets import Classes, Pixels

CLASSES = tuple(map(str, range(13)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="20,80", help="numbers of images; NYUv2 has 654 for tests")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--height", type=int, default=288)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--quick", action="store_true", help="shows that it runs")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.images, options.draws, options.height, options.width = "2", 2, 12, 16
    if options.alone:
        print(f"{run(int(options.images), options.draws, options.height, options.width) / 1e6:.0f}")
        return
    for count in options.images.split(","):
        sizes = ["--draws", str(options.draws), "--height", str(options.height), "--width", str(options.width)]
        command = [sys.executable, __file__, "--alone", "--images", count, *sizes]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{count} images of {options.height} x {options.width}, {options.draws} draws: {done.stdout.strip()} MB")


def run(count: int, draws: int, height: int, width: int) -> float:
    """Peak resident memory in bytes of the whole process."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    data = MultiTaskData.from_arrays(
        "random",
        Images(random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)),
        {"semantic": random.integers(0, len(CLASSES), (count, height, width), dtype=np.int8)},
        {"train": np.arange(count)},
        families={"semantic": Pixels(Classes(CLASSES))},
    )
    trunk = unet_trunk(data.inputs.describe(), widths=(4, 8), generator=torch.Generator(), mc_dropout=0.2)
    likelihoods = {"semantic": likelihood_of(data.targets["semantic"].family)}
    model = TaskModel(trunk, trunk.width, likelihoods, count, representation=MCDropout)
    guide = model.guide()
    draw_reduced(data, "train", lambda x, y: draw(model, guide, x, y, num_draws=draws), draws, seed=0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
