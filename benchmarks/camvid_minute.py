"""What a trunk of images learns of CamVid (367 real street scenes of 90 x 120, 11 classes) in a minute of one core.

Trains on random crops and flips with Adam on a one-cycle rate for so many CPU seconds, loading not counted, and prints the
mean intersection over union on the test images. "lite0" starts at ImageNet weights (extra ``vision``). Run:

    python benchmarks/camvid_minute.py --root ../shared/data [--trunk unet|lite0] [--seconds 70] [--seeds 1] [--part test]
                                       [--likelihood categorical] [--results FILE] [--quick]
"""

import argparse
import csv
import functools
import itertools
import time
from pathlib import Path

import torch

import bmtl
from bmtl.datasets import Batches, load
from bmtl.datasets.augmentation import Augmentation, AugmentedBatches
from bmtl.experiments.reduced import draw_reduced
from bmtl.models import TaskModel, likelihood_of
from bmtl.models.networks import lite0_trunk, unet_trunk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root")
    parser.add_argument("--trunk", choices=("unet", "lite0"), default="unet")
    parser.add_argument("--seconds", type=float, default=70)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--rate", type=float, default=2e-3, help="largest learning rate")
    parser.add_argument("--likelihood", default="categorical", help="or weighted-categorical: rare classes count more")
    parser.add_argument(
        "--part", choices=("val", "test"), default="test", help="images to score: choose settings on val"
    )
    parser.add_argument("--results", type=Path, help="CSV file to which a line for each seed is added")
    parser.add_argument("--quick", action="store_true", help="a second on rendered rooms: shows that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        data, options.seconds = load("rooms", train=8, val=0, test=2, height=16, width=16).subset(["semantic"]), 0.1
    else:
        data = load("camvid", root=options.root)
    for seed in range(options.seeds):
        steps, scores = learn(
            data, options.trunk, seed, options.seconds, options.rate, options.likelihood, options.part
        )
        print(
            f"{options.trunk}, seed {seed}: {steps} steps in {options.seconds:g} s, "
            f"{options.part} mIoU {scores['mean_iou']:.3f}, accuracy {scores['accuracy']:.3f}",
            flush=True,
        )
        if options.results:
            header = not options.results.exists()
            with options.results.open("a", newline="", encoding="utf-8") as file:
                line = csv.writer(file, lineterminator="\n")
                if header:
                    line.writerow(["trunk", "likelihood", "seed", "part", "seconds", "steps", "miou", "accuracy"])
                scored = (f"{scores[name]:.4f}" for name in ("mean_iou", "accuracy"))
                about = [options.trunk, options.likelihood, seed, options.part, f"{options.seconds:g}", steps]
                line.writerow([*about, *scored])


def learn(
    data, name: str, seed: int, seconds: float, rate: float, likelihood: str, part: str
) -> tuple[int, dict[str, float]]:
    """Steps taken and the scores of a part of the data.

    Args:
        data: With the target ``semantic``.
        name: Of the trunk.
        seed: Of initial weights and batches.
        seconds: Of the process's CPU time, in training.
        rate: Largest learning rate.
        likelihood: Of a pixel.
        part: Which is scored.
    """
    x, y = data.tensors("train")
    generator = torch.Generator().manual_seed(seed)
    about = data.inputs.describe()
    if name == "lite0":
        trunk = lite0_trunk(about, generator=generator, channels_last=True)
    else:
        trunk = unet_trunk(about, widths=(24, 32, 64, 96), generator=generator, channels_last=True)
    target = data.targets["semantic"]
    likelihoods = {"semantic": likelihood_of(target.family, likelihood, noise="fixed")}
    model = TaskModel(trunk, trunk.width, likelihoods, len(x), labels=y, generator=generator)
    svi = bmtl.BalancedSVI(
        model, model.guide(), functools.partial(torch.optim.AdamW, lr=rate), "ew", bmtl.TaskELBO("analytic")
    )
    augmentation = Augmentation()
    augmentation.check(data.targets)
    loader = AugmentedBatches(Batches(x, y, 8, seed=seed), augmentation)
    start, steps = time.process_time(), 0
    for images in itertools.chain.from_iterable(itertools.repeat(loader)):
        done = (time.process_time() - start) / seconds
        if done >= 1:
            break
        svi.step(*images)
        steps += 1
        for group in svi.optimizer.param_groups:  # up for a fifth, then down to nothing
            group["lr"] = rate * min(5 * done + 0.05, 1.25 * (1 - done) + 1e-3, 1.0)
    _, reduced = draw_reduced(
        data, part, lambda x, y: bmtl.draw(model, svi.guide, x, y, num_draws=1), num_draws=1, seed=0
    )
    return steps, reduced["semantic"].rows.whole


if __name__ == "__main__":
    main()
