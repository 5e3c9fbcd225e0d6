"""Scores of a results tree, a dimension ``task`` over its targets, and the array cores below them."""

from bmtl.evaluation.metrics.calibration import (
    LEVELS,
    NoiseFloor,
    coverage_of_pit,
    ece,
    ece_from_pit,
    noise_floor,
    reliability,
)
from bmtl.evaluation.metrics.density import nll, nll_of_draws
from bmtl.evaluation.metrics.labelled import group_of, rows
from bmtl.evaluation.metrics.point import mae, mean_absolute_error, rmse, root_mean_squared_error

__all__ = [
    "LEVELS",
    "NoiseFloor",
    "coverage_of_pit",
    "ece",
    "ece_from_pit",
    "group_of",
    "mae",
    "mean_absolute_error",
    "nll",
    "nll_of_draws",
    "noise_floor",
    "reliability",
    "rmse",
    "root_mean_squared_error",
    "rows",
]
