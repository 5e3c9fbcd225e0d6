"""How a task model is learnt."""

from bmtl.inference.balancing import balancer
from bmtl.inference.bank import Bank
from bmtl.inference.discrete_posterior import discrete_posterior
from bmtl.inference.draws import draw
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.lightning_module import BalancedTraining
from bmtl.inference.losses import TaskLosses
from bmtl.inference.parameter_groups import ParameterGroups
from bmtl.inference.posterior_draws import PosteriorDraws
from bmtl.inference.predictives import Draws
from bmtl.inference.probe import ConflictProbe
from bmtl.inference.record import Evaluation, StepRecord
from bmtl.inference.simulation import SimulatedRanks, simulated_ranks
from bmtl.inference.svi import BalancedSVI
from bmtl.inference.training import FitResult, fit

__all__ = [
    "BalancedSVI",
    "BalancedTraining",
    "Bank",
    "ConflictProbe",
    "Draws",
    "Evaluation",
    "FitResult",
    "ParameterGroups",
    "PosteriorDraws",
    "SimulatedRanks",
    "StepRecord",
    "TaskELBO",
    "TaskLosses",
    "balancer",
    "discrete_posterior",
    "draw",
    "fit",
    "simulated_ranks",
]
