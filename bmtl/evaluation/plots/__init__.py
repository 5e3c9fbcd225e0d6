"""Pictures of results trees, each a matplotlib `Figure`: small multiples by task, a colour a method, one style.

Figures are made without pyplot: nothing stays open behind them, and no display is needed.
"""

from bmtl.evaluation.plots.calibration import pit_plot, reliability_curves
from bmtl.evaluation.plots.classes import entropy_histograms, pava_plot, reliability_diagrams
from bmtl.evaluation.plots.comparisons import (
    critical_difference_diagram,
    difference_forest,
    gains_by_task,
    scores_by_task,
)
from bmtl.evaluation.plots.conflicts import conflict_matrix, cosine_curves, cosine_matrix
from bmtl.evaluation.plots.confusion import class_targets, confusion_matrices
from bmtl.evaluation.plots.curves import loss_curves, training_curves, validation_curves
from bmtl.evaluation.plots.images import image_maps
from bmtl.evaluation.plots.label_shares import changes_by_target, label_share_curves
from bmtl.evaluation.plots.labels import label_counts
from bmtl.evaluation.plots.marginals import marginal_calibration, marginal_targets
from bmtl.evaluation.plots.ood import ood_densities
from bmtl.evaluation.plots.points import observed_against_predicted, point_targets
from bmtl.evaluation.plots.predictives import interval_widths, pit_deviations
from bmtl.evaluation.plots.relatedness import relatedness_matrix
from bmtl.evaluation.plots.roc import roc_curves
from bmtl.evaluation.plots.selective import risk_coverage_curves
from bmtl.evaluation.plots.simulation import rank_deviations
from bmtl.evaluation.plots.uncertainty import uncertainty_parts, uncertainty_shares
from bmtl.evaluation.plots.updates import fidelity_curves, projection_curves
from bmtl.evaluation.plots.weights import weights_over_time
from bmtl.evaluation.style import save

__all__ = [
    "changes_by_target",
    "class_targets",
    "conflict_matrix",
    "confusion_matrices",
    "cosine_curves",
    "cosine_matrix",
    "critical_difference_diagram",
    "difference_forest",
    "entropy_histograms",
    "fidelity_curves",
    "gains_by_task",
    "image_maps",
    "interval_widths",
    "label_counts",
    "label_share_curves",
    "loss_curves",
    "marginal_calibration",
    "marginal_targets",
    "observed_against_predicted",
    "ood_densities",
    "pava_plot",
    "pit_deviations",
    "pit_plot",
    "point_targets",
    "projection_curves",
    "rank_deviations",
    "relatedness_matrix",
    "reliability_curves",
    "reliability_diagrams",
    "risk_coverage_curves",
    "roc_curves",
    "save",
    "scores_by_task",
    "training_curves",
    "uncertainty_parts",
    "uncertainty_shares",
    "validation_curves",
    "weights_over_time",
]
