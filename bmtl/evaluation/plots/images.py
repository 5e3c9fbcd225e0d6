"""Predicted images next to their labels, with errors and uncertainty."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bmtl.evaluation.images import PredictedImages
from bmtl.evaluation.painting import error_map, heat, lengths, painted
from bmtl.evaluation.style import styled
from bmtl.targets.family import Family

COLUMNS = ("image", "label", "prediction", "error", "uncertainty")


def image_maps(
    images: Mapping[str, PredictedImages], families: Mapping[str, Family], *, most: int = 2, size: float = 1.5
) -> Figure:
    """A row for each target of each image: image, label, prediction, error and uncertainty.

    The colours of label and prediction are the same. Errors and uncertainties run from dark to bright, each row on a scale
    of its own: an error that the model expected is bright in both. The uncertainty is a standard deviation, or of classes
    the entropy in nats, epistemic part included; where it is the same in all pixels, it is written as a number.

    Args:
        images: Target -> its images, of the same rows.
        families: Target -> the family of a pixel.
        most: Images at most.
        size: Width of a panel in inches.

    Raises:
        ValueError: If there is no image.
    """
    if not images:
        raise ValueError("There is no image to be drawn.")
    first = next(iter(images.values()))
    places = range(min(most, len(first.rows)))
    lines = [(place, name) for place in places for name in images]
    height, width = first.labels.shape[1:3]
    with styled():
        figure = Figure(figsize=(size * len(COLUMNS), size * height / width * len(lines) + 0.25), layout="constrained")
        grid = figure.subplots(len(lines), len(COLUMNS), squeeze=False)
        for (place, name), row in zip(lines, grid, strict=True):
            _draw_row(images[name], families[name], place, row)
            row[1].set_ylabel(name, fontsize=7)
        for panel, title in zip(grid[0], COLUMNS, strict=True):
            panel.set_title(title, fontsize=8)
    return figure


def _draw_row(of: PredictedImages, family: Family, place: int, row: np.ndarray) -> None:
    labels, found = of.labels[place], of.prediction[place]
    shown = None
    if not family.class_names:
        known = lengths(family, labels)
        known = known[np.isfinite(known)]
        shown = (0.0 if family.axes() else float(known.min()), float(known.max())) if known.size else None
    pictures = [
        None if of.pictures is None else of.pictures[place],
        painted(family, labels, shown),
        painted(family, found, shown),
        _errors(error_map(family, labels, found)),
        None,
    ]
    for panel, picture in zip(row, pictures, strict=True):
        _show(panel, picture)
    _show_uncertainty(row[-1], of, family, place)


def _errors(errors: np.ndarray) -> np.ndarray:
    known = errors[np.isfinite(errors)]
    return heat(errors, (0.0, float(np.quantile(known, 0.99)) if known.size else 1.0), "inferno")


def _show_uncertainty(panel: Axes, of: PredictedImages, family: Family, place: int) -> None:
    if of.aleatoric is None:
        return
    total = of.aleatoric[place] + (0.0 if of.epistemic is None else of.epistemic[place])
    values = total if family.class_names else np.sqrt(total)
    if np.ptp(values) <= 1e-5 * np.abs(values).max():  # homoscedastic noise: a map of one colour would say nothing
        panel.text(0.5, 0.5, f"{values.flat[0]:.3g}\neverywhere", ha="center", va="center", fontsize=7)
        panel.set(xlim=(0, 1), ylim=(0, 1))
        return
    _show(panel, heat(values, colours="inferno"))


def _show(panel: Axes, picture: np.ndarray | None) -> None:
    panel.set(xticks=[], yticks=[])
    panel.grid(visible=False)
    for spine in panel.spines.values():
        spine.set_visible(False)
    if picture is not None:
        grey = picture.shape[-1] == 1
        panel.imshow(picture[..., 0] if grey else picture, cmap="gray" if grey else None, interpolation="nearest")
