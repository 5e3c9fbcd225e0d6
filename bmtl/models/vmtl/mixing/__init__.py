"""Weights with which other tasks' posteriors enter a task's prior."""

from typing import Literal, get_args

from bmtl.models.vmtl.mixing.base import Mixing
from bmtl.models.vmtl.mixing.concrete import Concrete
from bmtl.models.vmtl.mixing.dirichlet import Dirichlet
from bmtl.models.vmtl.mixing.gumbel import Gumbel
from bmtl.models.vmtl.mixing.logistic_normal import LogisticNormal
from bmtl.models.vmtl.mixing.softmax import Learned, Mean
from bmtl.models.vmtl.mixing.temperature import RELEASED, Temperature

Weights = Literal["mean", "learned", "gumbel", "dirichlet", "logistic_normal", "concrete"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)

__all__ = [
    "RELEASED",
    "WEIGHTS",
    "Concrete",
    "Dirichlet",
    "Gumbel",
    "Learned",
    "LogisticNormal",
    "Mean",
    "Mixing",
    "Temperature",
    "Weights",
    "mixing",
]


def mixing(weights: Weights, tasks: int, temperature: float | Temperature = 1.0) -> Mixing:
    """The weights of that name.

    Args:
        weights: Name.
        tasks: Number of tasks.
        temperature: Of "gumbel" and "concrete"; "concrete" takes a constant only.
    """
    match weights:
        case "mean":
            return Mean(tasks)
        case "learned":
            return Learned(tasks)
        case "gumbel":
            return Gumbel(tasks, temperature)
        case "dirichlet":
            return Dirichlet(tasks)
        case "logistic_normal":
            return LogisticNormal(tasks)
        case "concrete":
            return Concrete(tasks, temperature)
