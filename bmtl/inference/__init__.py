"""How a task model is learnt."""

from bmtl.inference.balancing import balancer
from bmtl.inference.draws import Draws, draw
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.losses import TaskLosses
from bmtl.inference.record import StepRecord
from bmtl.inference.svi import BalancedSVI, Evaluation
from bmtl.inference.training import BalancedTraining, FitResult, fit

__all__ = [
    "BalancedSVI",
    "BalancedTraining",
    "Draws",
    "Evaluation",
    "FitResult",
    "StepRecord",
    "TaskELBO",
    "TaskLosses",
    "balancer",
    "draw",
    "fit",
]
