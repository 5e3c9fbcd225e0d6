"""A sheet of frames of a data set of scenes: the image, and below it what each target says of every pixel.

Run: python examples/demo_scenes.py [--data rooms|kitchen|camvid|nyuv2|cityscapes] [--root ../shared/data] [--frames 8]
                                    [--first 0] [--augment] [--out docs/rooms.png] [--quick]

White is what has no label. Depth runs from near (dark) to far (bright) in each frame, normals have their components as
colours, and the vectors to an object's centroid their direction as hue and their length as saturation. Also printed: the
share of pixels that have a label, of each target, and of which class they are. `--augment` shows a random view of each
frame, as training sees it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from bmtl.datasets import MultiTaskData, load
from bmtl.datasets.augmentation import Augmentation
from bmtl.evaluation.painting import painted
from bmtl.evaluation.style import save, styled

SOURCES = {
    "rooms": "Rendered rooms: drawings by a ray-caster, labels exact",
    "kitchen": "Kinect, one room: measured depth, and the normals that follow from it",
    "camvid": "CamVid: street scenes, classes labelled by hand",
    "nyuv2": "NYUv2",
    "cityscapes": "Cityscapes: inverse depth by stereo",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SOURCES, default="rooms")
    parser.add_argument("--root", type=Path, help="folder of the data; rooms are drawn, and need none")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="number of the first frame, of those for training")
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/rooms.png"))
    parser.add_argument("--quick", action="store_true", help="two small rooms: shows that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.frames = 2
    last = options.first + options.frames
    small = {"height": 24, "width": 32} if options.quick else {}
    own = {"train": last, "val": 0, "test": 0, **small} if options.data == "rooms" else {}
    data = load(options.data, root=options.root, **own)
    x, y = data.tensors("train")
    x, y = x[options.first : last], {name: labels[options.first : last] for name, labels in y.items()}
    if options.augment:
        x, y = Augmentation()(x, y, torch.Generator().manual_seed(0))
    for line in shares(data):
        print(line)
    figure = sheet(data, x.numpy(), {name: labels.numpy() for name, labels in y.items()}, SOURCES[options.data])
    print(f"Wrote {save(figure, options.out)}.")


def shares(data: MultiTaskData) -> list[str]:
    """What is labelled, a line a target."""
    found = []
    for name, target in data.targets.items():
        missing = target.family.missing_pixels(target.values)
        found.append(f"{name}: {1 - missing.mean():.1%} of the pixels have a label")
        if target.family.class_names:
            counts = np.bincount(target.values[~missing], minlength=len(target.family.class_names))
            by_class = zip(target.family.class_names, counts / counts.sum(), strict=True)
            found.append("  " + ", ".join(f"{label} {share:.3f}" for label, share in by_class))
    return found


def sheet(data: MultiTaskData, images: np.ndarray, labels: dict[str, np.ndarray], title: str) -> Figure:
    """A column a frame, a row a target."""
    height, width = images.shape[-2:]
    with styled():
        size = 1.5 * len(images), 1.5 * height / width * (len(labels) + 1) + 0.4
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        grid = figure.subplots(len(labels) + 1, len(images), squeeze=False)
        pictures = {"image": np.moveaxis(images, 1, -1)}
        for name, values in labels.items():
            pictures[name] = np.stack([painted(data.targets[name].family.of, one) for one in values])
        for row, (name, frames) in zip(grid, pictures.items(), strict=True):
            row[0].set_ylabel(name, fontsize=7)
            for panel, picture in zip(row, frames, strict=True):
                panel.set(xticks=[], yticks=[])
                panel.grid(visible=False)
                panel.imshow(picture, interpolation="nearest")
    return figure


if __name__ == "__main__":
    main()
