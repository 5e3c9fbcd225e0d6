"""Slot 1: transforms of the task losses."""

from bmtl.inference.balancing.transforms.dwa import DWA
from bmtl.inference.balancing.transforms.ew import EW
from bmtl.inference.balancing.transforms.excess_mtl import ExcessMTL
from bmtl.inference.balancing.transforms.famo import FAMO
from bmtl.inference.balancing.transforms.gls import GLS
from bmtl.inference.balancing.transforms.grad_norm import GradNorm
from bmtl.inference.balancing.transforms.igb_v1 import IGBv1
from bmtl.inference.balancing.transforms.igb_v2 import IGBv2
from bmtl.inference.balancing.transforms.imtl_l import IMTLL
from bmtl.inference.balancing.transforms.ldc import LDC
from bmtl.inference.balancing.transforms.rlw import RLW
from bmtl.inference.balancing.transforms.si import SI
from bmtl.inference.balancing.transforms.stch import STCH
from bmtl.inference.balancing.transforms.uw import UW
from bmtl.inference.balancing.transforms.uw_so import UWSO

__all__ = [
    "DWA",
    "EW",
    "FAMO",
    "GLS",
    "IMTLL",
    "LDC",
    "RLW",
    "SI",
    "STCH",
    "UW",
    "UWSO",
    "ExcessMTL",
    "GradNorm",
    "IGBv1",
    "IGBv2",
]
