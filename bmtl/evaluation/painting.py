"""Labels and predictions of images as colours, by what a pixel is; and how far off a prediction is, pixel by pixel."""

from functools import singledispatch

import matplotlib as mpl
import numpy as np

from bmtl.targets import Classes, Family, Real, UnitVector, Vector
from bmtl.targets.metrics.dense import angles

NOTHING = 255  # brightness of a pixel without a label
Limits = tuple[float, float]


def palette(count: int) -> np.ndarray:
    """Colours of classes ``(count, 3)`` uint8, the first twenty easy to distinguish."""
    named = mpl.colormaps["tab20"](np.arange(20))[:, :3]
    more = mpl.colormaps["hsv"](np.linspace(0, 1, max(0, count - 20), endpoint=False))[:, :3]
    return np.round(255 * np.concatenate([named, more])[:count]).astype(np.uint8)


@singledispatch
def painted(family: Family, values: np.ndarray, limits: Limits | None = None) -> np.ndarray:
    """Values of an image ``(H, W, ...)`` as colours ``(H, W, 3)`` uint8; white where there is none.

    Classes have a colour each; numbers run from dark to bright between the limits; vectors have their direction as hue and
    their length as saturation; directions in space have their components as red, green and blue.

    Args:
        family: Of a pixel.
        values: As its labels or predictions are.
        limits: Of numbers, and of vectors' lengths; by default those of the values.

    Raises:
        ValueError: If there is no picture of the family.
    """
    raise ValueError(f"There is no picture of pixels of the family {family.name!r}.")


@painted.register
def _(family: Classes, values: np.ndarray, limits: Limits | None = None) -> np.ndarray:
    colours = np.vstack([palette(len(family.class_names)), np.full((1, 3), NOTHING, dtype=np.uint8)])
    return np.asarray(colours[values.astype(np.int64)])  # -1 is the last row


@painted.register
def _(family: Real, values: np.ndarray, limits: Limits | None = None) -> np.ndarray:
    return heat(values, limits)


@painted.register
def _(family: Vector, values: np.ndarray, limits: Limits | None = None) -> np.ndarray:
    x, y = values[..., 0].astype(float), values[..., 1].astype(float)
    length = np.hypot(x, y)
    most = limits[1] if limits is not None else _limits(length)[1]
    hue = np.nan_to_num((np.arctan2(y, x) / (2 * np.pi)) % 1)
    saturation = np.nan_to_num(np.clip(length / (most or 1.0), 0, 1))
    return _bytes(mpl.colors.hsv_to_rgb(np.stack([hue, saturation, np.full(hue.shape, 0.95)], -1)), ~np.isnan(length))


@painted.register
def _(family: UnitVector, values: np.ndarray, limits: Limits | None = None) -> np.ndarray:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    unit = values / np.where(length > 0, length, 1.0)
    return _bytes((np.nan_to_num(unit) + 1) / 2, ~np.isnan(length[..., 0]))


def heat(values: np.ndarray, limits: Limits | None = None, colours: str = "viridis") -> np.ndarray:
    """Numbers ``(H, W)`` as colours ``(H, W, 3)`` uint8 between limits; white where NaN."""
    low, high = _limits(values) if limits is None else limits
    share = (values.astype(float) - low) / (high - low or 1.0)
    return _bytes(mpl.colormaps[colours](np.nan_to_num(np.clip(share, 0, 1)))[..., :3], np.isfinite(values))


@singledispatch
def error_map(family: Family, labels: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """How far off each pixel is ``(H, W)``, NaN without a label.

    1 for a wrong class, the absolute error of a number, the length of a vector's error, the angle of a direction in degrees.

    Args:
        family: Of a pixel.
        labels: ``(H, W, ...)``.
        prediction: Class or mean of each pixel.

    Raises:
        ValueError: If the family has no such error.
    """
    raise ValueError(f"There is no error of pixels of the family {family.name!r}.")


@error_map.register
def _(family: Classes, labels: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.where(family.missing(labels), np.nan, labels != prediction)


@error_map.register
def _(family: Real, labels: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.abs(labels - prediction)


@error_map.register
def _(family: Vector, labels: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(labels - prediction, axis=-1))


@error_map.register
def _(family: UnitVector, labels: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    every = np.ones(labels.shape[:-1], dtype=bool)
    return angles(labels, prediction, mask=every).reshape(labels.shape[:-1])


def lengths(family: Family, values: np.ndarray) -> np.ndarray:
    """What the limits of a picture are of ``(...)``: the numbers themselves, or the lengths of vectors."""
    return np.asarray(np.linalg.norm(values, axis=-1)) if family.axes() else values


def _limits(values: np.ndarray) -> Limits:
    known = values[np.isfinite(values)].astype(float)
    if not known.size:
        return 0.0, 1.0
    low, high = (float(end) for end in np.quantile(known, [0.01, 0.99]))
    # For numbers that are equal up to rounding, a middle colour: their last digits mean nothing.
    return (low, high) if high - low > 1e-3 * abs(high) else (high - abs(high or 1.0), high + abs(high or 1.0))


def _bytes(colours: np.ndarray, there: np.ndarray) -> np.ndarray:
    found = np.round(255 * colours).astype(np.uint8)
    found[~there] = NOTHING
    return found
