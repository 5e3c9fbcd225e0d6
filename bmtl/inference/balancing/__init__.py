"""Balancing K task losses: transform, geometry, weighting, length."""

from bmtl.inference.balancing.balancer import Balancer, Update
from bmtl.inference.balancing.base import Context, Measured, Objective, Solution, Transform, Weighting
from bmtl.inference.balancing.geometry import Full, LastLayer
from bmtl.inference.balancing.lengths import AsIs, Mean, Norm, Sum
from bmtl.inference.balancing.parse import SLOTS, balancer
from bmtl.inference.balancing.transforms import EW, SI, UW, IGBv1
from bmtl.inference.balancing.weightings import NashMTL

__all__ = [
    "EW",
    "SI",
    "SLOTS",
    "UW",
    "AsIs",
    "Balancer",
    "Context",
    "Full",
    "IGBv1",
    "LastLayer",
    "Mean",
    "Measured",
    "NashMTL",
    "Norm",
    "Objective",
    "Solution",
    "Sum",
    "Transform",
    "Update",
    "Weighting",
    "balancer",
]
