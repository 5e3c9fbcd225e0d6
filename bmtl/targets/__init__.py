"""Targets, in numpy alone: one family per file, scalers, and the predictive distribution of each."""

from bmtl.targets.baseline import LinearBaseline
from bmtl.targets.binary import Binary
from bmtl.targets.classes import Classes, numbered
from bmtl.targets.count import Count
from bmtl.targets.family import FAMILIES, Family, Target, family_from_spec
from bmtl.targets.laws import Law
from bmtl.targets.ordinal import Ordinal
from bmtl.targets.pixels import Pixels
from bmtl.targets.prediction import Prediction
from bmtl.targets.real import Real
from bmtl.targets.scaler import Scaler
from bmtl.targets.score import Score, Scored
from bmtl.targets.time_to_event import TimeToEvent
from bmtl.targets.unit_vector import UnitVector
from bmtl.targets.vector import Vector

__all__ = [
    "FAMILIES",
    "Binary",
    "Classes",
    "Count",
    "Family",
    "Law",
    "LinearBaseline",
    "Ordinal",
    "Pixels",
    "Prediction",
    "Real",
    "Scaler",
    "Score",
    "Scored",
    "Target",
    "TimeToEvent",
    "UnitVector",
    "Vector",
    "family_from_spec",
    "numbered",
]
