"""Slot 3: weights from the Gram matrix of the task gradients."""

from bmtl.inference.balancing.weightings.nash_mtl import NashMTL

__all__ = ["NashMTL"]
