"""Predictive distributions of targets, rebuilt from the parameters of their components."""

from bmtl.targets.laws.law import Law
from bmtl.targets.laws.registry import law_to_units

__all__ = ["Law", "law_to_units"]
