"""Kinds of laws by name."""

from bmtl.targets.laws.law import Law
from bmtl.targets.scaler import Scaler


def law_to_units(law: Law, scaler: Scaler) -> Law:
    """The law of ``mean + std * y``, where y has the given one."""
    raise NotImplementedError
