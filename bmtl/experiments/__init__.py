"""Runs of methods on a data set, each to one results tree, and their comparison."""

from bmtl.evaluation.tables import best, caption, table
from bmtl.experiments.budgets import Budget
from bmtl.experiments.cells import Cell, Failure
from bmtl.experiments.comparisons import AllFailed, Comparison, compare
from bmtl.experiments.demo import DEMO, Demo, demo
from bmtl.experiments.fitted import Fitted
from bmtl.experiments.grid import run_cells
from bmtl.experiments.maps import write_maps
from bmtl.experiments.methods import Method
from bmtl.experiments.model_files import load_fitted
from bmtl.experiments.runs import run, validation_score, validation_scores
from bmtl.experiments.timing import step_seconds
from bmtl.experiments.trees import results_tree
from bmtl.experiments.under_way import ShareDone, UnderWay, under_way
from bmtl.experiments.zoo import METHODS, method

__all__ = [
    "DEMO",
    "METHODS",
    "AllFailed",
    "Budget",
    "Cell",
    "Comparison",
    "Demo",
    "Failure",
    "Fitted",
    "Method",
    "ShareDone",
    "UnderWay",
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
    "under_way",
    "validation_score",
    "validation_scores",
    "write_maps",
]
