"""Data sets of images with a label per pixel, whichever reader they come from.

The targets have one name and one form in all of them:

    semantic             classes ``(N, H, W)``, -1 where void
    depth                ``(N, H, W)`` in metres, positive
    inverse_depth        ``(N, H, W)`` in 1/m, 0 at the sky
    normal               unit vectors ``(N, H, W, 3)`` in the camera's axes: x right, y down, z forward
    instance             centroid - pixel ``(N, H, W, 2)`` in pixels, x and y
    boundary_distance    to the nearest pixel of another class ``(N, H, W)``, in pixels
    coordinates          place in a room ``(N, H, W, 3)`` in metres

A pixel counts for a target if its label there is not missing (NaN, -1 in classes); nothing else says so.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bmtl.datasets.images import Images
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.target_fitting import Scaling
from bmtl.targets import Classes, Family, Pixels, Real, UnitVector, Vector

UNITS = {"depth": "m", "inverse_depth": "1/m", "instance": "px", "boundary_distance": "px", "coordinates": "m"}
"""Of targets that have one."""

_FAMILIES: dict[str, Family] = {
    "depth": Pixels(Real(positive=True)),
    "inverse_depth": Pixels(Real()),
    "boundary_distance": Pixels(Real(positive=True)),
    "normal": Pixels(UnitVector()),
    "instance": Pixels(Vector(("x", "y"), common_unit=True)),
    "coordinates": Pixels(Vector(("x", "y", "z"), common_unit=True)),
}


def scene_data(
    name: str,
    images: np.ndarray,
    labels: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str] = (),
    citation: str = "",
    licence: str = "",
    scale: Scaling = "none",
    notes: Sequence[str] = (),
) -> MultiTaskData:
    """A data set of images.

    Labels stay in their units unless they are to be scaled: a metre is of the size of what varies, and augmentation must
    know that a vector is in pixels.

    Args:
        name: What reports call it.
        images: ``(N, H, W, C)``, bytes or floats in [0, 1]. They and the labels are kept, not copied, and can no longer be
            written to.
        labels: Target -> labels, in the names and forms above.
        rows: Part -> zero-based rows.
        classes: Names of the classes of ``semantic``.
        citation: Where the data come from.
        licence: Under which terms.
        scale: Rows that scalers are fitted on; none by default.
        notes: What was left out or assumed.

    Raises:
        ValueError: If labels and images differ in size, or a label is out of range.
    """
    for array in (images, *labels.values()):
        array.setflags(write=False)
    for target, values in labels.items():
        if values.shape[:3] != images.shape[:3]:
            raise ValueError(
                f"Labels have the size of their images: {target!r} is {_size(values)}, and the images are {_size(images)}."
            )
    families = {
        target: Pixels(Classes(tuple(classes))) if target == "semantic" else _FAMILIES[target] for target in labels
    }
    return MultiTaskData.from_arrays(
        name,
        Images(images),
        labels,
        rows,
        families=families,
        units={target: unit for target, unit in UNITS.items() if target in labels},
        citation=citation,
        licence=licence,
        scaling=scale,
        notes=notes,
    )


def _size(images: np.ndarray) -> str:
    return " x ".join(map(str, images.shape[:3]))
