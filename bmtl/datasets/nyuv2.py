"""NYUv2 as multi-task papers use it: 288 x 384 images of rooms with 13 classes, depth and normals.

Source: N. Silberman, D. Hoiem, P. Kohli, R. Fergus, "Indoor segmentation and support inference from RGBD images", ECCV 2012,
as prepared by S. Liu, E. Johns, A. J. Davison, "End-to-end multi-task learning with attention", CVPR 2019: folders ``train``
(795 images) and ``val`` (654, which papers test on), each with ``image/<i>.npy``, ``label/<i>.npy``, ``depth/<i>.npy`` and
``normal/<i>.npy``.

All images are held in memory: 1,449 of them take 3 GB, and 4 GB while they are read.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bmtl.datasets.files import find
from bmtl.datasets.images import stacked
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.scenes import scene_data
from bmtl.datasets.splits import draw
from bmtl.datasets.target_fitting import Scaling

CLASSES = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)

CITATION = (
    "N. Silberman, D. Hoiem, P. Kohli, R. Fergus, Indoor segmentation and support inference from RGBD images, ECCV 2012; as "
    "prepared by S. Liu, E. Johns, A. J. Davison, End-to-end multi-task learning with attention, CVPR 2019."
)
LICENCE = "None stated, for research"
SOURCE = (
    "The folder holds train/ and val/, and in each image/, label/, depth/ and normal/ with one <i>.npy an image; "
    "https://github.com/lorenmt/mtan links to it."
)

SHORTEST = 1e-3
"""Length below which a normal is none."""


def read(
    root: str | Path | None = None,
    *,
    list_file: str | Path | None = None,
    validation: float = 0.0,
    seed: int = 0,
    limit: int | None = None,
    scale: Scaling = "none",
) -> MultiTaskData:
    """The images with semantics, depth and normals; what is void, without depth or without a normal is missing.

    The folder ``train`` is for training. Where there is a folder ``test``, ``val`` is for validation and ``test`` for tests;
    otherwise ``val`` is for tests, but for the images of `list_file`, which are for validation.

    Args:
        root: The folder that holds ``train`` and ``val``, or the one above it if its name is ``nyuv2``; the default is what
            the environment variable ``BMTL_DATA`` says.
        list_file: Text file with the numbers of the images of ``val`` that are for validation, one a line: 197 of them
            make the split 795/197/457. A relative path is below the data's folder.
        validation: Proportion of the training images that become the part ``"val"``, drawn with `seed`; for the split
            795/654, which has no validation images.
        seed: For what is drawn.
        limit: Reads only the first images of each folder, to try things out.
        scale: Rows that scalers are fitted on, ``none`` by default.

    Raises:
        FileNotFoundError: If `root` does not hold the folders, or an image lacks a label file.
        ValueError: If a file cannot be read, sizes differ, or a label is out of range.
    """
    folder = find("nyuv2", ["nyuv2/train", "train"], root, SOURCE).parent
    has_test = (folder / "test").is_dir()
    names = ["train", "val", *(["test"] if has_test else [])]
    numbers = {name: _numbers(folder / name)[:limit] for name in names}
    files = [f"{name}/{i}" for name in names for i in numbers[name]]
    arrays = {
        kind: stacked(_arrays(folder, numbers, kind), [f"{file} ({kind})" for file in files])
        for kind in ("image", "label", "depth", "normal")
    }

    ends = np.cumsum([0, *(len(numbers[name]) for name in names)])
    rows = {name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(names)}
    if not has_test:
        listed = np.isin(numbers["val"], _listed(folder, list_file, numbers["val"]))
        rows = {"train": rows["train"], "val": rows["val"][listed], "test": rows["val"][~listed]}
    elif list_file is not None:
        raise ValueError(f"{folder} has a folder test, so that val is for validation already; leave list_file out.")
    if validation:
        if len(rows["val"]):
            raise ValueError("There are images for validation already; leave `validation` out.")
        rows["val"], rows["train"] = draw(rows["train"], validation, seed)
    return scene_data(
        "nyuv2",
        arrays["image"],
        {"semantic": arrays["label"], "depth": arrays["depth"], "normal": arrays["normal"]},
        {part: found for part, found in rows.items() if len(found)},
        classes=CLASSES,
        citation=CITATION,
        licence=LICENCE,
        scale=scale,
    )


def _numbers(folder: Path) -> list[int]:
    """Numbers of the images of a folder, in order."""
    images = folder / "image"
    if not images.is_dir():
        raise FileNotFoundError(f"nyuv2 needs the folder {images}. {SOURCE}")
    found = sorted(int(file.stem) for file in images.glob("*.npy") if file.stem.isdigit())
    if not found:
        raise FileNotFoundError(f"There is no <i>.npy in {images}. {SOURCE}")
    return found


def _arrays(folder: Path, numbers: dict[str, list[int]], kind: str) -> Iterator[np.ndarray]:
    """The arrays of one kind, as `scene_data` takes them."""
    for name, of_folder in numbers.items():
        for i in of_folder:
            file = folder / name / kind / f"{i}.npy"
            if not file.is_file():
                raise FileNotFoundError(f"The image {name}/image/{i}.npy has no {kind}: there is no file {file}.")
            try:
                array = np.load(file, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise ValueError(f"{file} cannot be read ({type(error).__name__}: {error}).") from error
            try:
                yield _PREPARED[kind](array)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from error


def _image(array: np.ndarray) -> np.ndarray:
    """Bytes ``(H, W, 3)``: a quarter of the memory of floats."""
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"an image has the shape (H, W, 3); got {array.shape}.")
    if array.dtype == np.uint8:
        return array
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise ValueError(f"colours are in [0, 1]; got {array.min():g} to {array.max():g}.")
    return np.rint(255 * array).astype(np.uint8)


def _label(array: np.ndarray) -> np.ndarray:
    classes = _flat(array, "a label")
    wrong = (classes < -1) | (classes >= len(CLASSES)) | (classes != np.floor(classes))
    if wrong.any():
        raise ValueError(f"a label is a class from 0 to {len(CLASSES) - 1}, or -1 for void; got {classes[wrong][0]:g}.")
    return classes.astype(np.int8)


def _depth(array: np.ndarray) -> np.ndarray:
    depth = _flat(array, "a depth").astype(np.float32)
    return np.where(depth > 0, depth, np.float32(np.nan))


def _normal(array: np.ndarray) -> np.ndarray:
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"normals have the shape (H, W, 3); got {array.shape}.")
    normal = array.astype(np.float32)
    length = np.sqrt(np.square(normal).sum(axis=-1, keepdims=True))
    # By length and not by the sum of components, which is 0 for some normals too.
    return np.divide(normal, length, out=np.full_like(normal, np.nan), where=length > SHORTEST)


def _flat(array: np.ndarray, what: str) -> np.ndarray:
    """``(H, W)`` of ``(H, W)`` or ``(H, W, 1)``."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise ValueError(f"{what} has the shape (H, W) or (H, W, 1); got {array.shape}.")
    return array


_PREPARED = {"image": _image, "label": _label, "depth": _depth, "normal": _normal}


def _listed(folder: Path, list_file: str | Path | None, known: list[int]) -> list[int]:
    """Numbers that a list file holds."""
    if list_file is None:
        return []
    path = folder / list_file  # an absolute one stays
    if not path.is_file():
        raise FileNotFoundError(f"There is no list file {path}.")
    found = []
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        word = text.strip()
        if word and not (word.isdigit() and int(word) in known):
            raise ValueError(f"{path}, line {line}: {word!r} is no number of an image in {folder / 'val'}.")
        if word:
            found.append(int(word))
    return found
