"""A few predicted images of a run, as maps to be looked at: the group ``images`` of a part.

image                  (image, height, width, channel)         what the model saw, bytes
label_<t>              (image, height, width, ...)             classes, -1 where missing; numbers in units, NaN
prediction_<t>         (image, height, width, ...)             the most probable class; the predictive mean
aleatoric_<t>          (image, height, width)                  as in ``uncertainty``: variances, or entropies in nats
epistemic_<t>          (image, height, width)
image_row              (image)                                 numbers of the images in the part
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import xarray as xr

from bmtl.targets.family import Family
from bmtl.targets.prediction import Prediction
from bmtl.targets.scaler import Scaler

FRAME = ("image", "height", "width")


@dataclass(frozen=True, eq=False)
class PredictedImages:
    """Maps of n images of one target, in reported units.

    Attributes:
        rows: Numbers of the images in their part ``(n,)``.
        pictures: What the model saw ``(n, H, W, C)`` uint8; None where inputs cannot be drawn.
        labels: Labels ``(n, H, W, ...)``.
        prediction: Class or mean ``(n, H, W, ...)``.
        aleatoric: ``(n, H, W)``; None where the model gives none.
        epistemic: As `aleatoric`.
    """

    rows: np.ndarray
    pictures: np.ndarray | None
    labels: np.ndarray
    prediction: np.ndarray
    aleatoric: np.ndarray | None = None
    epistemic: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        rows: np.ndarray,
        pictures: np.ndarray | None,
        labels: np.ndarray,
        prediction: Prediction,
        family: Family,
        scaler: Scaler,
    ) -> Self:
        """The maps of a prediction of whole images.

        Args:
            rows: Numbers of the images.
            pictures: What the model saw.
            labels: Checked labels ``(n, H, W, ...)``.
            prediction: Of the same images, in reported units; with a mean or class probabilities.
            family: Of a pixel.
            scaler: The target's scaler.
        """
        found = prediction.mean if prediction.probability is None else prediction.probability.argmax(axis=-1)

        parts = (prediction.aleatoric, prediction.epistemic)
        one_a_pixel = [None if part is None else family.row_variance(part, scaler) for part in parts]
        return cls(np.asarray(rows), pictures, labels, np.asarray(found), *one_a_pixel)

    def joined(self, other: Self) -> Self:
        """These images and others after them."""

        def both(name: str) -> Any:
            values = getattr(self, name), getattr(other, name)
            return None if any(value is None for value in values) else np.concatenate(values)

        return type(self)(**{field.name: both(field.name) for field in fields(self)})

    def variables(self, target: str) -> Iterator[tuple[str, xr.Variable]]:
        """Names and variables in the group; pictures and rows are those of every target alike."""
        if self.pictures is not None:
            yield "image", xr.Variable((*FRAME, "channel"), self.pictures)
        yield "image_row", xr.Variable("image", self.rows)
        for name in ("labels", "prediction", "aleatoric", "epistemic"):
            values = getattr(self, name)
            if values is not None:
                axes = [f"{name}_{target}_dim_{i}" for i in range(values.ndim - 3)]
                yield f"{name.removesuffix('s')}_{target}", xr.Variable((*FRAME, *axes), _small(values))


def images_of(part: xr.DataTree) -> dict[str, PredictedImages]:
    """The images that a part of a results tree holds, by target; none where it holds none.

    Args:
        part: A node with the groups of a part.
    """
    if "images" not in part.children:
        return {}
    group = part.children["images"].to_dataset(inherit=False)

    def known(name: str) -> np.ndarray | None:
        return group[name].values if name in group else None

    names = [str(name).removeprefix("label_") for name in group.data_vars if str(name).startswith("label_")]
    return {
        name: PredictedImages(
            group["image_row"].values,
            known("image"),
            group[f"label_{name}"].values,
            group[f"prediction_{name}"].values,
            known(f"aleatoric_{name}"),
            known(f"epistemic_{name}"),
        )
        for name in names
    }


def _small(values: np.ndarray) -> np.ndarray:
    """In fewer bytes, as pictures allow."""
    return values.astype(np.float32 if values.dtype.kind == "f" else np.int16)
