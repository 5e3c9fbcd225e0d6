"""Scores of a results tree, a dimension ``task`` over its targets. Scores of plain arrays are in `bmtl.targets.metrics`.

Every function scores the test rows of a run's tree, or those of another ``part=``, or those of the part that it is given:
``mae(tree)``, ``mae(tree, part="validation")``, ``mae(tree["validation"])``.
"""

from bmtl.evaluation.metrics.by_target import per_target, rows, score, task_coords
from bmtl.evaluation.metrics.calibration import (
    coverage,
    pit_bands,
    pits,
    reliability,
    uncertainty_calibration,
    worst_groups,
)
from bmtl.evaluation.metrics.classes import (
    brier,
    class_arrays,
    class_calibration,
    class_reliability,
    class_reliability_isotonic,
    entropy_ratio,
)
from bmtl.evaluation.metrics.intervals import interval_scores, sharpness
from bmtl.evaluation.metrics.named import (
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    concordance,
    crps,
    deviance,
    ece,
    ence,
    energy,
    error_auroc,
    ibs,
    kappa,
    mae,
    nll,
    primary,
    r2,
    rmse,
    rps,
)
from bmtl.evaluation.metrics.selective import aurc, ause, risk_coverage

__all__ = [
    "accuracy",
    "aurc",
    "auroc",
    "ause",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "class_arrays",
    "class_calibration",
    "class_reliability",
    "class_reliability_isotonic",
    "concordance",
    "coverage",
    "crps",
    "deviance",
    "ece",
    "ence",
    "energy",
    "entropy_ratio",
    "error_auroc",
    "ibs",
    "interval_scores",
    "kappa",
    "mae",
    "nll",
    "per_target",
    "pit_bands",
    "pits",
    "primary",
    "r2",
    "reliability",
    "risk_coverage",
    "rmse",
    "rows",
    "rps",
    "score",
    "sharpness",
    "task_coords",
    "uncertainty_calibration",
    "worst_groups",
]
