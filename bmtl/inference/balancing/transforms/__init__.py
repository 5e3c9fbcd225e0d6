"""Slot 1: transforms of the task losses."""

from bmtl.inference.balancing.transforms.ew import EW
from bmtl.inference.balancing.transforms.igb_v1 import IGBv1
from bmtl.inference.balancing.transforms.si import SI
from bmtl.inference.balancing.transforms.uw import UW

__all__ = ["EW", "SI", "UW", "IGBv1"]
