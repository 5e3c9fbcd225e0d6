"""Slot 2: where task gradients are compared, and how the weighted update is written."""

from bmtl.inference.balancing.geometry.full import Full
from bmtl.inference.balancing.geometry.last_layer import LastLayer
from bmtl.inference.balancing.geometry.representation import Representation

__all__ = ["Full", "LastLayer", "Representation"]
