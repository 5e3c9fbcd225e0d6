"""Cityscapes: street scenes with 19 classes, inverse depth by stereo, and instances.

Source: M. Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016. Inverse depth and
instance vectors as in A. Kendall, Y. Gal, R. Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018.

The folder is that of the distributed archives: ``leftImg8bit``, ``gtFine``, ``disparity`` and, where it is there,
``camera``, each with ``train`` and ``val`` and a folder a city. Labels of ``test`` are not published, and ``val`` is what
papers test on.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from bmtl.datasets.files import find
from bmtl.datasets.images import read_image
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.scenes import scene_data
from bmtl.datasets.splits import draw
from bmtl.datasets.target_fitting import Scaling
from bmtl.targets.instances import instance_vectors

LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The 19 classes that are scored, and their numbers in files; all other numbers are void."""

LARGEST_ID = 33
FOCAL, BASELINE = 2262.52, 0.209313  # in pixels of the full width and in m, where there is no camera file
INSTANCES_FROM = 1000  # below it, a number is a class without instances or a group of them

CITATION = "M. Cordts et al., The Cityscapes dataset for semantic urban scene understanding, CVPR 2016."
LICENCE = "For research, by the terms of https://www.cityscapes-dataset.com/license"
SOURCE = (
    "Register at https://www.cityscapes-dataset.com and unpack leftImg8bit_trainvaltest, gtFine_trainvaltest and "
    "disparity_trainvaltest into it."
)


def read(
    root: str | Path | None = None,
    *,
    height: int = 128,
    width: int = 256,
    validation: float = 0.0,
    seed: int = 0,
    limit: int | None = None,
    scale: Scaling = "none",
) -> MultiTaskData:
    """Semantics, inverse depth and instances of ``train``, for training, and ``val``, for tests.

    Args:
        root: The folder that holds ``leftImg8bit``, or the one above it if its name is ``cityscapes``; the default is what
            the environment variable ``BMTL_DATA`` says.
        height: Images are reduced to this many pixels (means of areas; labels are those of the nearest pixel).
        width: As `height`.
        validation: Proportion of the training images that become the part ``"val"``, whole cities, drawn with `seed`.
        seed: Seed of all random draws.
        limit: Reads only the first images of each folder, to try things out.
        scale: Rows that scalers are fitted on, ``none`` by default.

    Raises:
        FileNotFoundError: If `root` does not hold the folders, or an image lacks a label file.
        ValueError: If a file cannot be read, or an image and its labels differ in size.
    """
    folder = find("cityscapes", ["cityscapes/leftImg8bit", "leftImg8bit"], root, SOURCE).parent
    size = height, width
    images, semantic, inverse, instances, cities, counts = [], [], [], [], [], {}
    for part in ("train", "val"):
        files = sorted((folder / "leftImg8bit" / part).glob("*/*_leftImg8bit.png"))[:limit]
        if not files:
            raise FileNotFoundError(f"There is no */*_leftImg8bit.png in {folder / 'leftImg8bit' / part}. {SOURCE}")
        counts[part] = len(files)
        for file in files:
            one = _Scene(folder, part, file)
            images.append(one.image(size))
            labels, depth, objects = one.labels(size)
            semantic.append(labels)
            inverse.append(depth)
            instances.append(objects)
            cities.append(file.parent.name)
    rows = {"train": np.arange(counts["train"]), "test": counts["train"] + np.arange(counts["val"])}
    if validation:
        groups = np.unique(cities, return_inverse=True)[1]
        rows["val"], rows["train"] = draw(rows["train"], validation, seed, groups=groups)
    return scene_data(
        "cityscapes",
        np.stack(images),
        {
            "semantic": np.stack(semantic),
            "inverse_depth": np.stack(inverse),
            "instance": instance_vectors(np.stack(instances)),
        },
        rows,
        classes=tuple(LABEL_IDS),
        citation=CITATION,
        licence=LICENCE,
        scale=scale,
        notes=[f"Reduced to {height} x {width} pixels. Inverse depth is by stereo, and 0 at the sky."],
    )


class _Scene:
    """The files of one image."""

    def __init__(self, folder: Path, part: str, file: Path) -> None:
        self.folder, self.part, self.file = folder, part, file
        self.name = file.name.removesuffix("_leftImg8bit.png")

    def image(self, size: tuple[int, int]) -> np.ndarray:
        """Bytes ``(H, W, 3)``."""
        full = read_image(self.file, "RGB")
        self.full = full.shape[:2]
        if self.full == size:
            return full
        return np.asarray(Image.fromarray(full).resize((size[1], size[0]), Image.Resampling.BOX))

    def labels(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Class, inverse depth in 1/m and number of the object of each pixel ``(H, W)``."""
        ids = self._reduced("gtFine", "gtFine_labelIds.png", size)
        numbers = self._reduced("gtFine", "gtFine_instanceIds.png", size)
        stored = self._reduced("disparity", "disparity.png", size).astype(np.float32)
        table = np.full(256, -1, dtype=np.int8)
        table[list(LABEL_IDS.values())] = np.arange(len(LABEL_IDS))
        if ids.min() < 0 or ids.max() > LARGEST_ID:
            raise ValueError(
                f"Labels of {self.name} range from {ids.min()} to {ids.max()}, and are 0 to {LARGEST_ID} in files that end "
                "with _gtFine_labelIds.png."
            )
        semantic = table[ids]
        focal, baseline = self._camera()
        # Stored is 256 times the disparity in pixels, plus 1; 0 is where there is none.
        inverse = np.where(stored > 0, (stored - 1) / 256 / (focal * baseline), np.nan).astype(np.float32)
        inverse[ids == LABEL_IDS["sky"]] = 0
        things = (numbers >= INSTANCES_FROM) & (semantic >= 0)
        return semantic, inverse, np.where(things, numbers, 0).astype(np.int32)

    def _reduced(self, kind: str, ending: str, size: tuple[int, int]) -> np.ndarray:
        """A label image, each pixel the nearest of the full one."""
        file = self.folder / kind / self.part / self.file.parent.name / f"{self.name}_{ending}"
        if not file.is_file():
            raise FileNotFoundError(f"The image {self.file.name} has no {kind}: there is no file {file}. {SOURCE}")
        full = read_image(file)
        if full.shape != self.full:
            raise ValueError(
                f"Labels have the size of their image: {file.name} is {_size(full.shape)}, and {self.file.name} is "
                f"{_size(self.full)}."
            )
        rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip(size, full.shape, strict=True))
        return full[rows.astype(int)][:, columns.astype(int)].astype(np.int64)

    def _camera(self) -> tuple[float, float]:
        """Focal length in pixels and baseline in m."""
        file = self.folder / "camera" / self.part / self.file.parent.name / f"{self.name}_camera.json"
        if not file.is_file():
            return FOCAL, BASELINE
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            return float(found["intrinsic"]["fx"]), float(found["extrinsic"]["baseline"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is no camera file ({type(error).__name__}: {error}).") from error


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
