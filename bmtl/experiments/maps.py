"""Predictions of new images as files: maps to be looked at (PNG) and to be computed with (npy).

For each image and target, ``<image>_<target>.png`` and, of all but classes, ``<image>_<target>.npy``; and the uncertainty as
``<image>_<target>_uncertainty.png`` and ``.npy``. The PNG of classes has the class of each pixel as its 8-bit palette
index, so that it is both. Pictures of numbers run from dark to bright over the image's own values: read values from the npy.
``targets.json`` says what each target is: its unit, its classes.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bmtl.evaluation.painting import heat, painted, palette
from bmtl.evaluation.results import ReportedTarget
from bmtl.evaluation.storage import atomic
from bmtl.experiments.fitted import Fitted
from bmtl.targets import Prediction


def write_maps(
    fitted: Fitted, raw: Any, names: Sequence[str], out: Path, *, num_draws: int | None = None, seed: int = 0
) -> list[Path]:
    """Writes the maps of new images, one image at a time.

    Args:
        fitted: A fitted run with targets of images.
        raw: The images, as ``fitted.inputs.read`` returns them.
        names: Of the images, for files.
        out: Folder; it is made if necessary. Files of the same name are replaced.
        num_draws: Number of draws; the run's own by default.
        seed: Of the draws.

    Returns:
        The files.

    Raises:
        ValueError: If two images have one name, or the run has no target of images.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"Two images would be written to {twice}_*: they differ in their suffix only. Rename one.")
    about = {
        name: {"family": of.family.of_rows.name, "unit": of.unit, "classes": list(of.family.class_names)}
        for name, of in fitted.images.items()
    }
    if not about:
        raise ValueError(f"The run has no target of images; its targets are {', '.join(fitted.targets)}.")
    written = [out / "targets.json"]
    with atomic(written[0]) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for name, predictions in zip(names, fitted.image_predictions(raw, num_draws=num_draws, seed=seed), strict=True):
        for target, prediction in predictions.items():
            written += _files(fitted.targets[target], prediction, out / f"{name}_{target}")
    return written


def _files(target: ReportedTarget, prediction: Prediction, stem: Path) -> Iterator[Path]:
    """Writes the files of one target of one image ``(1, H, W, ...)``."""
    family = target.family.of_rows
    if prediction.probability is not None:
        classes = prediction.probability[0].argmax(axis=-1)
        yield _write_classes(stem.with_name(f"{stem.name}.png"), classes, len(family.class_names))
    elif prediction.mean is not None:
        mean = prediction.mean[0]
        yield _write_numbers(stem.with_name(f"{stem.name}.npy"), mean)
        yield _write_picture(stem.with_name(f"{stem.name}.png"), painted(family, mean))
    if prediction.aleatoric is not None and prediction.epistemic is not None:
        total = family.row_variance(prediction.aleatoric + prediction.epistemic, target.scaler)[0]
        shown = total if family.class_names else np.sqrt(total)
        yield _write_numbers(stem.with_name(f"{stem.name}_uncertainty.npy"), shown)
        yield _write_picture(stem.with_name(f"{stem.name}_uncertainty.png"), heat(shown, colours="inferno"))


def _write_classes(path: Path, classes: np.ndarray, count: int) -> Path:
    image = Image.fromarray(classes.astype(np.uint8), mode="P") if count <= 256 else None
    if image is None:
        raise ValueError(f"A PNG of classes has 256 at most, and the target has {count}.")
    image.putpalette(palette(count).ravel().tolist())
    with atomic(path) as temporary:
        image.save(temporary, format="PNG")
    return path


def _write_numbers(path: Path, values: np.ndarray) -> Path:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, values.astype(np.float32), allow_pickle=False)
    return path


def _write_picture(path: Path, colours: np.ndarray) -> Path:
    with atomic(path) as temporary:
        Image.fromarray(colours).save(temporary, format="PNG")
    return path
