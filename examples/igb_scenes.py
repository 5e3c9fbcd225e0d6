"""Table 1 of the IGB paper (Dai et al. 2023) on rendered rooms: loss and gradient balancers on segmentation, depth, normals.

Run: python examples/igb_scenes.py [--data rooms|kitchen|camvid] [--root FOLDER] [--out runs/igb_scenes] [--quick] [--jobs N]
         [--epochs 30] [--seeds 2] [--methods ew,uw,igb-v1,nash-mtl] [--trunk unet|segnet] [--ablations] [--frames 400]
         [--height 96 --width 128]

The rooms are drawings by a ray-caster and no photographs; the kitchen is one room seen by a Kinect, whose test frames are
of the same room; CamVid's second target, the distance to the nearest class boundary, is derived from its labels. What is
printed says how balancers compare there, and nothing about NYUv2. As in the paper: a SegNet (at a quarter of its width) or
a U-net with heads of a 3x3 and a 1x1 convolution, cross-entropy, absolute errors of depth and one minus the cosine of
normals, each task's mean over its labelled pixels, nine metrics over all pixels of the test set, and delta_m over these
nine. Not as in the paper: the epoch is chosen by the mean of the validation losses' logarithms, epochs are few, and there
is no augmentation.

"stl" is always among the methods, since delta_m is relative to it. A run that is finished is not done again. --ablations
adds the rows of the paper's Table 3 about IGBv2. Writes table.md, losses.png, pictures.png and what `bmtl compare` writes.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch

from bmtl.datasets import load
from bmtl.evaluation import comparison, plots
from bmtl.evaluation.images import images_of
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.parts import part_of, reported_targets, scored
from bmtl.evaluation.style import methods_in_order, save
from bmtl.experiments import Budget, Method, compare

OPTIONS = {"noise": "fixed", "head": "conv"}  # trained at unit variance, with the published heads
BALANCERS = {
    "stl": "ew",
    "ew": "ew",
    "rlw": "rlw",
    "dwa": "dwa",
    "uw": "uw",
    "si": "si",
    "igb-v1": "igb-v1",
    "igb-v2": "igb-v2",
    "mgda": "mgda",
    "pcgrad": "pcgrad",
    "cagrad": "cagrad(c=0.4)",
    "imtl-g": "imtl-g",
    "nash-mtl": "nash-mtl",
    "igb-v1+nash": "igb-v1 >> nash-mtl",
    "igb-v2+nash": "igb-v2 >> nash-mtl",
}
ABLATIONS = {
    "igb-v2, mean reward": "igb-v2(reward='mean')",
    "igb-v2, buffer 5000": "igb-v2(buffer=5000)",
    "igb-v2, buffer 50000": "igb-v2(buffer=50000)",
}
QUICK = ("stl", "ew", "igb-v1")
TARGETS = {
    "rooms": ("semantic", "depth", "normal"),
    "kitchen": ("depth", "normal"),
    "camvid": ("semantic", "boundary_distance"),
}
# Target -> its metrics in the paper's order, and whether more is better.
METRICS = {
    "semantic": {"mean_iou": ("mIoU", True), "accuracy": ("pix. acc.", True)},
    "depth": {"mae": ("abs. err.", False), "relative_error": ("rel. err.", False)},
    "boundary_distance": {"mae": ("boundary [px]", False)},
    "normal": {
        "mean_angle": ("mean °", False),
        "median_angle": ("median °", False),
        "within_11_25": ("< 11.25°", True),
        "within_22_5": ("< 22.5°", True),
        "within_30": ("< 30°", True),
    },
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(TARGETS), default="rooms")
    parser.add_argument("--root", help="of the data; of rooms a folder in which frames are kept")
    parser.add_argument("--out", type=Path, default=Path("runs/igb_scenes"))
    parser.add_argument("--quick", action="store_true", help="shows that everything runs, not how well")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--methods", help="names of the table's rows, separated by commas; all by default")
    parser.add_argument("--trunk", choices=("unet", "segnet"), default="unet")
    parser.add_argument("--ablations", action="store_true", help="IGBv2 with other rewards and buffers")
    parser.add_argument("--frames", type=int, default=400, help="training frames of rooms; a quarter as many for tests")
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=128)
    options = parser.parse_args()
    if options.quick:
        options.frames, options.height, options.width, options.epochs, options.seeds = 8, 24, 32, 1, 1
    torch.set_num_threads(1)
    known = {**BALANCERS, **(ABLATIONS if options.ablations else {})}
    names = options.methods.split(",") if options.methods else list(QUICK) if options.quick else list(known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"Error: no row is called {unknown[0]!r}; there are {', '.join(known)}.")
    names = list(dict.fromkeys(["stl", *names]))
    if importlib.util.find_spec("stable_baselines3") is None:
        print("igb-v2 is left out: it needs stable-baselines3 (pip install 'bmtl[rl]').")
        names = [name for name in names if "igb-v2" not in known[name]]
    methods = [Method(n, known[n], options=OPTIONS, trunk=options.trunk, single_task=n == "stl") for n in names]
    data = read(options)
    budget = Budget(epochs=options.epochs, draws=2, score="log")
    found = compare(
        data,
        methods,
        range(options.seeds),
        budget,
        options.out,
        reference=False,
        jobs=options.jobs,
        timed_steps=2 if options.quick else 10,
    )
    table = nine_metrics(found.trees, names, options.seeds, data.tasks)
    (options.out / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    first = {name: found.trees[name, 0] for name in names if (name, 0) in found.trees}
    with methods_in_order(names):  # a method has its colour whichever are there
        save(plots.loss_curves(first), options.out / "losses.png")
    shown = first[names[-1]]
    families = {name: target.family for name, target in reported_targets(shown).items()}
    save(plots.image_maps(images_of(part_of(shown)), families), options.out / "pictures.png")


def read(options):
    """The data with the targets of the table."""
    if options.data != "rooms":
        try:
            further = {"boundary": True} if options.data == "camvid" else {}
            return load(options.data, root=options.root, **further).subset(TARGETS[options.data])
        except FileNotFoundError as error:
            sys.exit(f"Error: {error}")
    sizes = {"train": options.frames, "val": max(2, options.frames // 4), "test": max(2, options.frames // 4)}
    data = load("rooms", root=options.root, height=options.height, width=options.width, **sizes)
    return data.subset(TARGETS["rooms"])


def nine_metrics(trees, names, seeds, targets):
    """A row for each method: means over the seeds, and delta_m of each seed's metrics against STL's."""
    metrics = [(target, name, *METRICS[target][name]) for target in targets for name in METRICS[target]]
    values = {
        (name, seed): [of[target].whole[metric] for target, metric, _, _ in metrics]
        for name in names
        for seed in range(seeds)
        if (name, seed) in trees
        for of in [scored(trees[name, seed])]
    }
    higher = [more for *_, more in metrics]
    lines = []
    for name in names:
        own = [values[name, seed] for seed in range(seeds) if (name, seed) in values]
        change = [
            float(comparison.delta_m(values[name, seed], values["stl", seed], higher_is_better=higher))
            for seed in range(seeds)
            if {(name, seed), ("stl", seed)} <= values.keys()
        ]
        spread = f" ± {np.std(change, ddof=1):.2f}" if len(change) > 1 else ""
        shown = "" if name == "stl" or not change else f"{np.mean(change):.2f}{spread}"
        lines.append([name, *(f"{value:.4g}" for value in np.mean(own, axis=0)), shown])
    return markdown_table(["method", *(title for _, _, title, _ in metrics), "delta_m %"], *lines)


if __name__ == "__main__":
    main()
