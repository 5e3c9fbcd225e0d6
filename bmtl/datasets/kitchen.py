"""A kitchen seen by a Kinect: 250 frames of 96 x 128 with measured depth and the normals that follow from it.

Source: the frames of A. Zeng's tsdf-fusion-python, which are those of 7-Scenes: J. Shotton et al., "Scene coordinate
regression forests for camera relocalization in RGB-D images", CVPR 2013.

All frames are from one recording in one room: test frames are later in time, but show the same room as training frames.
"""

from pathlib import Path

import numpy as np

from bmtl.datasets.files import Archive, find
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.scenes import scene_data
from bmtl.datasets.target_fitting import Scaling

FILE = "kitchen/kitchen_96x128.npz"
PARTS = ("train", "val", "test")  # 0, 1, 2 of the file; -1 is a gap between them

CITATION = (
    "J. Shotton, B. Glocker, C. Zach, S. Izadi, A. Criminisi, A. Fitzgibbon, Scene coordinate regression forests for camera "
    "relocalization in RGB-D images, CVPR 2013; frames of andyzeng/tsdf-fusion-python."
)
LICENCE = "Non-commercial (7-Scenes); code of tsdf-fusion-python BSD-2"
SOURCE = (
    "Put into it the arrays img (N, 96, 128, 3) uint8, depth_mm (N, 96, 128) with 0 for none, normal (N, 96, 128, 3) int8 "
    "times 127, pose (N, 4, 4) from camera to room, K (3, 3) and split, from the folder data of "
    "https://github.com/andyzeng/tsdf-fusion-python."
)


def read(
    root: str | Path | None = None, *, inverse: bool = False, coordinates: bool = False, scale: Scaling = "none"
) -> MultiTaskData:
    """The frames outside the gaps: 150 for training, 22 for validation, 62 for tests.

    Args:
        root: Folder of the data; the default is what the environment variable ``BMTL_DATA`` says.
        inverse: The target is ``inverse_depth`` in 1/m in place of ``depth`` in m.
        coordinates: Adds ``coordinates``: where in the room a pixel is ``(N, H, W, 3)`` in m, from depth and the camera's
            pose.
        scale: Rows that scalers are fitted on, ``none`` by default.

    Raises:
        FileNotFoundError: If `root` does not hold the file.
        ValueError: If the file is damaged.
    """
    archive = Archive(find("kitchen", [FILE], root, SOURCE))
    depth = archive.array("depth_mm").astype(np.float32) / 1000
    depth[depth == 0] = np.nan
    normal = archive.array("normal").astype(np.float32)
    length = np.sqrt(np.square(normal).sum(axis=-1, keepdims=True))
    labels = {
        **({"inverse_depth": 1 / depth} if inverse else {"depth": depth}),
        "normal": np.divide(normal, length, out=np.full_like(normal, np.nan), where=length > 0),
    }
    if coordinates:
        labels["coordinates"] = in_room(depth, archive.array("K"), archive.array("pose"))
    split = archive.array("split")
    return scene_data(
        "kitchen",
        archive.array("img"),
        labels,
        {part: np.flatnonzero(split == code) for code, part in enumerate(PARTS)},
        citation=CITATION,
        licence=LICENCE,
        scale=scale,
        notes=["One room and one walk: test frames are of the room that was trained on. Normals follow from depth."],
    )


def in_room(depth: np.ndarray, intrinsics: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Where pixels are in the room.

    Args:
        depth: Along the camera's axis ``(N, H, W)`` in m, NaN where there is none.
        intrinsics: Of the camera ``(3, 3)``, in pixels.
        poses: From camera to room ``(N, 4, 4)``.

    Returns:
        ``(N, H, W, 3)`` in m, float32.
    """
    height, width = depth.shape[1:]
    y, x = np.mgrid[:height, :width]
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(intrinsics.astype(np.float64)).T  # (H, W, 3)
    found = np.empty((*depth.shape, 3), dtype=np.float32)
    for image, pose, places in zip(depth, poses.astype(np.float64), found, strict=True):
        places[:] = (image[..., None] * rays) @ pose[:3, :3].T + pose[:3, 3]
    return found
