"""Runs of methods on a data set, each to one results tree, and their comparison. Knows every room."""

from bmtl.evaluation.tables import best, caption, table
from bmtl.experiments.comparisons import DEMO, AllFailed, Comparison, compare, demo
from bmtl.experiments.fitted import Fitted, load_fitted
from bmtl.experiments.grid import Cell, Failure, run_cells
from bmtl.experiments.methods import METHODS, MODELS, Method, method
from bmtl.experiments.runs import Budget, run, validation_errors, validation_score
from bmtl.experiments.timing import step_seconds
from bmtl.experiments.trees import results_tree

__all__ = [
    "DEMO",
    "METHODS",
    "MODELS",
    "AllFailed",
    "Budget",
    "Cell",
    "Comparison",
    "Failure",
    "Fitted",
    "Method",
    "best",
    "caption",
    "compare",
    "demo",
    "load_fitted",
    "method",
    "results_tree",
    "run",
    "run_cells",
    "step_seconds",
    "table",
    "validation_errors",
    "validation_score",
]
