"""Pictures of results trees, each a matplotlib `Figure`: small multiples by task, a colour a method, one style.

Figures are made without pyplot: nothing stays open behind them, and no display is needed.
"""

from bmtl.evaluation.plots.calibration import pit_plot, reliability_curves
from bmtl.evaluation.plots.classes import entropy_histograms, pava_plot, reliability_diagrams
from bmtl.evaluation.plots.comparisons import critical_difference_diagram, difference_forest, scores_by_task
from bmtl.evaluation.plots.conflicts import conflict_matrix, cosine_curves, cosine_matrix
from bmtl.evaluation.plots.curves import loss_curves, training_curves
from bmtl.evaluation.plots.label_shares import changes_by_target, label_share_curves
from bmtl.evaluation.plots.marginals import marginal_calibration, marginal_targets
from bmtl.evaluation.plots.ood import ood_densities
from bmtl.evaluation.plots.predictives import interval_widths, pit_deviations
from bmtl.evaluation.plots.relatedness import relatedness_matrix
from bmtl.evaluation.plots.roc import roc_curves
from bmtl.evaluation.plots.selective import risk_coverage_curves
from bmtl.evaluation.plots.simulation import rank_deviations
from bmtl.evaluation.plots.updates import fidelity_curves, projection_curves
from bmtl.evaluation.plots.weights import weights_over_time
from bmtl.evaluation.style import save

__all__ = [
    "changes_by_target",
    "conflict_matrix",
    "cosine_curves",
    "cosine_matrix",
    "critical_difference_diagram",
    "difference_forest",
    "entropy_histograms",
    "fidelity_curves",
    "interval_widths",
    "label_share_curves",
    "loss_curves",
    "marginal_calibration",
    "marginal_targets",
    "ood_densities",
    "pava_plot",
    "pit_deviations",
    "pit_plot",
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
    "weights_over_time",
]
