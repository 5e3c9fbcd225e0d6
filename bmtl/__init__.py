"""Bayesian multi-task learning on Pyro and PyTorch.

A multi-task model is a Pyro program whose sites carry a task (`bmtl.task`). `bmtl.BalancedSVI` trains it with any loss
or gradient balancer, and `bmtl.evaluation` reads what was learnt from a results tree in ArviZ's schema.

Names are imported when they are first used, so that `bmtl.evaluation` works where torch is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmtl.experiments import results_tree
    from bmtl.inference import (
        BalancedSVI,
        BalancedTraining,
        StepRecord,
        TaskELBO,
        TaskLosses,
        balancer,
        draw,
        fit,
    )
    from bmtl.tasks import observe, shared, task, task_plate

__version__ = "0.1.0.dev0"

_MODULE_OF = {
    "task": "bmtl.tasks",
    "task_plate": "bmtl.tasks",
    "shared": "bmtl.tasks",
    "observe": "bmtl.tasks",
    "TaskELBO": "bmtl.inference",
    "TaskLosses": "bmtl.inference",
    "BalancedSVI": "bmtl.inference",
    "StepRecord": "bmtl.inference",
    "balancer": "bmtl.inference",
    "draw": "bmtl.inference",
    "fit": "bmtl.inference",
    "results_tree": "bmtl.experiments",
    "BalancedTraining": "bmtl.inference",
}
_MODULES = ("inputs", "targets", "distributions", "models", "inference", "evaluation", "datasets", "experiments")

__all__ = [
    "BalancedSVI",
    "BalancedTraining",
    "StepRecord",
    "TaskELBO",
    "TaskLosses",
    "balancer",
    "draw",
    "fit",
    "observe",
    "results_tree",
    "shared",
    "task",
    "task_plate",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    elif name in _MODULES:
        value = import_module(f"bmtl.{name}")
    else:
        raise AttributeError(f"module 'bmtl' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_MODULES})
