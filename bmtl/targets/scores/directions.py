"""Scores of directions: angles between labels and predicted mean directions, which need no unit length."""

import numpy as np

from bmtl.targets.metrics.dense import THRESHOLDS, angle_summary, angles, threshold_name
from bmtl.targets.score import Score, Scored


def angles_of_rows(rows: Scored) -> np.ndarray:
    """Angle of each row ``(N,)`` in degrees; NaN where the prediction has no direction."""
    return angles(rows.labels, rows.mean())


def _within(number: int) -> Score:
    threshold = THRESHOLDS[number]
    return Score(
        threshold_name(threshold),
        f"< {threshold:g}°",
        lambda rows: float(angle_summary(angles_of_rows(rows)).within[number]),
        ("mean",),
        higher_is_better=True,
    )


MEAN_ANGLE = Score("mean_angle", "mean angle [°]", lambda rows: angle_summary(angles_of_rows(rows)).mean, ("mean",))
MEDIAN_ANGLE = Score(
    "median_angle", "median angle [°]", lambda rows: angle_summary(angles_of_rows(rows)).median, ("mean",)
)
WITHIN = tuple(map(_within, range(len(THRESHOLDS))))
