"""Rendered rooms as a data set: semantics, depth, normals and instances, all of them exact.

These are drawings of boxes and spheres by a ray-caster, not photographs: what is learnt on them says how methods compare
where the truth is known, and nothing about real rooms.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.rooms.frames import Generator, cached_frames
from bmtl.datasets.rooms.layout import CLASSES
from bmtl.datasets.rooms.ray_caster import Frame
from bmtl.datasets.scenes import scene_data
from bmtl.datasets.target_fitting import Scaling
from bmtl.targets.instances import instance_vectors

BLOCK = 8
"""Edge in pixels of the squares that labels are missing in."""

_NOISE, _MISSING = 101, 102  # streams of random numbers, apart from the generator's

CITATION = "Rendered rooms, drawn by bmtl.datasets.rooms."
LICENCE = "None needed: drawn by this package."


def read(
    root: str | Path | None = None,
    *,
    train: int = 400,
    val: int = 100,
    test: int = 100,
    height: int = 96,
    width: int = 128,
    views: int = 1,
    seed: int = 0,
    inverse: bool = False,
    depth_noise: float = 0.0,
    missing: float = 0.0,
    scale: Scaling = "none",
) -> MultiTaskData:
    """Rendered rooms: 13 classes, depth, normals and instances, all of them exact.

    Args:
        root: Folder in which frames are kept in a file that is drawn once (600 frames of 96 x 128: 20 s and 56 MB), and
            read from then on. By default they are rendered each time.
        train: Frames for training. Frames of one room are in one part.
        val: Frames for validation; 0 for none.
        test: Frames for tests; 0 for none.
        height: Of an image in pixels.
        width: Of an image in pixels.
        views: Frames of each room, from other places: the number of rooms is that of frames over it.
        seed: Another seed is another set of rooms.
        inverse: The target is ``inverse_depth`` in 1/m in place of ``depth`` in m.
        depth_noise: Standard deviation of Gaussian noise that is added to each pixel of that target in every part, in its
            own unit: the true value of a learnt noise. A depth of 0 or below is missing.
        missing: Proportion of the labels that are missing, in squares of 8 x 8 pixels, of each target separately.
        scale: Rows that scalers are fitted on, ``none`` by default: a model then sees metres and pixels.

    Raises:
        ValueError: If an option is out of range, or the frames of a room would be in two parts; if the file in `root` is
            damaged.
        OSError: If `root` cannot be written to.
    """
    counts = {"train": train, "val": val, "test": test}
    _check(counts, views, depth_noise, missing)
    generator = Generator(seed, height, width, views)
    count = sum(counts.values())
    frames = generator.frames(range(count)) if root is None else cached_frames(generator, count, Path(root))
    ends = np.cumsum([0, *counts.values()])
    labels = labels_of(frames, inverse=inverse)
    if depth_noise:
        _add_noise(labels, "inverse_depth" if inverse else "depth", depth_noise, seed)
    if missing:
        _leave_out(labels, missing, seed)
    return scene_data(
        "rooms",
        frames.image,
        labels,
        {part: np.arange(ends[i], ends[i + 1]) for i, part in enumerate(counts) if counts[part]},
        classes=CLASSES,
        citation=CITATION,
        licence=LICENCE,
        scale=scale,
        notes=["Rendered by a ray-caster: labels are exact unless noise was asked for, and images are no photographs."],
    )


def labels_of(frames: Frame, *, inverse: bool = False) -> dict[str, np.ndarray]:
    """Frames ``(N, H, W, ...)`` as labels by target; see `bmtl.datasets.scenes`."""
    return {
        "semantic": frames.semantic,
        **({"inverse_depth": 1 / frames.depth} if inverse else {"depth": frames.depth}),
        "normal": frames.normal,
        "instance": instance_vectors(frames.instance),
    }


def _check(counts: Mapping[str, int], views: int, depth_noise: float, missing: float) -> None:
    for part, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < (part == "train"):
            raise ValueError(f"{part} is a whole number of frames; got {count!r}.")
        if views > 1 and count % views:
            raise ValueError(f"Rooms are in one part: {part}={count} is no multiple of views={views}.")
    if not depth_noise >= 0 or not np.isfinite(depth_noise):
        raise ValueError(f"depth_noise is a standard deviation from 0; got {depth_noise!r}.")
    if not 0 <= missing < 1:
        raise ValueError(f"missing is a proportion from 0 to below 1; got {missing!r}.")


def _add_noise(labels: dict[str, np.ndarray], target: str, sigma: float, seed: int) -> None:
    """Adds Gaussian noise to depth; each frame's depends on its number alone."""
    exact = labels[target]
    noisy = np.empty_like(exact)
    for number, depth in enumerate(exact):
        noisy[number] = depth + np.random.default_rng([seed, _NOISE, number]).normal(scale=sigma, size=depth.shape)
    labels[target] = np.where(noisy > 0, noisy, np.nan).astype(exact.dtype) if target == "depth" else noisy


def _leave_out(labels: dict[str, np.ndarray], missing: float, seed: int) -> None:
    """Takes labels away in squares; each frame's and target's depend on its number and place alone."""
    for place, (target, values) in enumerate(labels.items()):
        height, width = values.shape[1:3]
        blocks = -(-height // BLOCK), -(-width // BLOCK)
        kept = values.copy()
        for number, label in enumerate(kept):
            gone = np.random.default_rng([seed, _MISSING, place, number]).uniform(size=blocks) < missing
            gone = np.kron(gone, np.ones((BLOCK, BLOCK), dtype=bool))[:height, :width]
            label[gone] = -1 if target == "semantic" else np.nan
        labels[target] = kept
