"""Table 1 of the IGB paper (Dai et al. 2023) on rendered rooms: loss and gradient balancers on segmentation, depth, normals.

Run: python examples/igb_scenes.py [--data rooms|kitchen|camvid] [--root FOLDER] [--out runs/igb_scenes] [--quick] [--jobs N]
         [--epochs 16] [--seeds 2] [--methods ew,uw,igb-v1,nash-mtl] [--trunk unet|segnet|mtan] [--ablations] [--frames 200]
         [--height 36 --width 48] [--thin 2] [--docs docs]

The rooms are drawings by a ray-caster and no photographs; the kitchen is one room seen by a Kinect, whose test frames are
of the same room; CamVid's second target, the distance to the nearest class boundary, is derived from its labels. What is
printed says how balancers compare there, and nothing about NYUv2. As in the paper: a SegNet (at a quarter of its width) or
a U-net with heads of a 3x3 and a 1x1 convolution, cross-entropy, absolute errors of depth and one minus the cosine of
normals, each task's mean over its labelled pixels, nine metrics over all pixels of the test set, and delta_m over these
nine. Not as in the paper: the epoch is chosen by the mean of the validation losses' logarithms, the rate falls along a
cosine, epochs are few, and there is no augmentation. --thin 2 trains on every second pixel of the kitchen and CamVid.

"stl" is always among the methods, since delta_m is relative to it. A run that is finished is not done again. --ablations
adds the rows of the paper's Table 3 about IGBv2; its replay buffers are as much smaller as training is shorter. Writes
values.csv (every run's metrics), table.md, losses.png, pictures.png and what `bmtl compare` writes; with --docs, also what
the documentation shows.
"""

import argparse
import csv
import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from bmtl.datasets import load
from bmtl.datasets.scenes import scene_data
from bmtl.evaluation import comparison, plots
from bmtl.evaluation.images import images_of
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.parts import part_of, reported_targets, scored
from bmtl.evaluation.storage import atomic
from bmtl.evaluation.style import methods_in_order, save
from bmtl.experiments import Budget, Method, compare

# Trained at unit variance, with the published heads.
OPTIONS = {"noise": "fixed", "head": "conv", "trunk_options": {"channels_last": True}}
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
    "igb-v2, reward lr0 / lr": "igb-v2(lr_factor=True)",
    "igb-v2, buffer 50": "igb-v2(buffer=50)",
    "igb-v2, buffer 150": "igb-v2(buffer=150)",
}
QUICK = ("stl", "ew", "igb-v1")
CURVES = ("stl", "ew", "uw", "igb-v1", "igb-v2", "nash-mtl")  # more lines than these cannot be told apart
TARGETS = {
    "rooms": ("semantic", "depth", "normal"),
    "kitchen": ("depth", "normal"),
    "camvid": ("semantic", "boundary_distance"),
}
# Target -> its metrics in the paper's order, and whether more is better.
METRICS = {
    "semantic": {"mean_iou": ("mIoU", True), "accuracy": ("pix. acc.", True)},
    "depth": {"mae": ("abs. err.", False), "relative_error": ("rel. err.", False)},
    "boundary_distance": {"mae": ("boundary dist. [px]", False)},
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
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--methods", help="names of the table's rows, separated by commas; all by default")
    parser.add_argument("--trunk", choices=("unet", "segnet", "mtan"), default="unet")
    parser.add_argument("--ablations", action="store_true", help="IGBv2 with other rewards and buffers")
    parser.add_argument("--frames", type=int, default=200, help="training frames of rooms; a quarter as many for tests")
    parser.add_argument("--height", type=int, default=36)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--thin", type=int, default=1, help="of kitchen and CamVid: every so-manyth pixel each way")
    parser.add_argument(
        "--docs", type=Path, help="folder of the documentation, for results/igb_scenes_*.csv and pictures"
    )
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
    budget = Budget(epochs=options.epochs, draws=1, score="log", schedule="falling")
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
    values = {name: [scores(found.trees[name, seed]) for seed in range(options.seeds)] for name in names}
    write_values(values, options.out / "values.csv")
    table = nine_metrics(read_values(options.out / "values.csv"))
    (options.out / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    first = {name: found.trees[name, 0] for name in names if (name, 0) in found.trees}
    with methods_in_order(names):  # a method has its colour whichever are there
        save(
            plots.loss_curves({name: first[name] for name in CURVES if name in first}),
            options.out / "losses.png",
            dpi=100,
        )
    shown = first["igb-v1" if "igb-v1" in first else names[-1]]
    families = {name: target.family for name, target in reported_targets(shown).items()}
    save(plots.image_maps(images_of(part_of(shown)), families, size=1.2), options.out / "pictures.png", dpi=100)
    if options.docs:
        (options.docs / "results").mkdir(parents=True, exist_ok=True)
        of = options.data if options.trunk == "unet" else f"{options.data}_{options.trunk}"
        shutil.copyfile(options.out / "values.csv", options.docs / "results" / f"igb_scenes_{of}.csv")
        shown = {"rooms": ("losses", "pictures"), "kitchen": ("pictures",), "camvid": ("pictures",)}
        for name in shown.get(of, ()):
            shutil.copyfile(options.out / f"{name}.png", options.docs / f"igb_{of}_{name}.png")


def read(options):
    """The data with the targets of the table."""
    if options.data != "rooms":
        try:
            further = {"boundary": True} if options.data == "camvid" else {}
            return thinned(load(options.data, root=options.root, **further).subset(TARGETS[options.data]), options.thin)
        except FileNotFoundError as error:
            sys.exit(f"Error: {error}")
    sizes = {"train": options.frames, "val": max(2, options.frames // 4), "test": max(2, options.frames // 4)}
    data = load("rooms", root=options.root, height=options.height, width=options.width, **sizes)
    return data.subset(TARGETS["rooms"])


def thinned(data, step):
    """Images of means of step x step pixels, with the label of the first pixel of each."""
    images = data.inputs.images
    height, width = (size // step * step for size in images.shape[1:3])
    blocks = images[:, :height, :width].reshape(len(images), height // step, step, width // step, step, -1)
    semantic = data.targets.get("semantic")
    return scene_data(
        data.name,
        np.round(blocks.mean((2, 4))).astype(np.uint8),
        {name: target.values[:, :height:step, :width:step].copy() for name, target in data.targets.items()},
        data.rows,
        classes=semantic.family.class_names if semantic else (),
        citation=data.citation,
        licence=data.licence,
        notes=data.notes,
    )


def scores(tree):
    """The metrics of a run, by target and name."""
    of = scored(tree)
    return {
        f"{target} {name}": of[target].whole[name] for target in METRICS if target in of for name in METRICS[target]
    }


def write_values(values, path):
    """A line for each run: row of the table, seed, metrics."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        first = next(iter(values.values()))[0]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "seed", *first])
        for name, runs in values.items():
            for seed, run in enumerate(runs):
                writer.writerow([name, seed, *(f"{value:.6g}" for value in run.values())])


def read_values(path):
    """Row of the table -> the metrics of each seed, as `write_values` wrote them."""
    found = {}
    with open(path, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            name = line.pop("method")
            line.pop("seed")
            found.setdefault(name, []).append({key: float(value) for key, value in line.items()})
    return found


def nine_metrics(values):
    """A row for each method: means over the seeds, and delta_m of each seed's metrics against STL's."""
    columns = list(values["stl"][0])
    about = [METRICS[target][name] for target, name in (column.split() for column in columns)]
    lines = []
    for name, runs in values.items():
        change = [
            comparison.delta_m(list(run.values()), list(alone.values()), higher_is_better=[more for _, more in about])
            for run, alone in zip(runs, values["stl"], strict=False)
            if min(alone.values()) > 0  # nothing is relative to 0, as a share within 11.25 degrees after a few steps
        ]
        spread = f" ± {np.std(change, ddof=1):.2f}" if len(change) > 1 else ""
        means = np.mean([list(run.values()) for run in runs], axis=0)
        shown = "" if name == "stl" or len(change) < len(runs) else f"{np.mean(change):.2f}{spread}"
        lines.append([name, *(f"{value:.4g}" for value in means), shown])
    return markdown_table(["method", *(title for title, _ in about), "delta_m %"], *lines)


if __name__ == "__main__":
    main()
