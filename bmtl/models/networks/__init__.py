"""Trunks: networks from inputs to a representation, with an int attribute ``width``."""

from bmtl.models.networks.deep_dta import SequenceEncoder
from bmtl.models.networks.dropout import Dropout, DropoutGuide
from bmtl.models.networks.images import ImageTrunk
from bmtl.models.networks.lite0 import lite0_trunk
from bmtl.models.networks.mlp import MLP, mlp, mlp_trunk
from bmtl.models.networks.pairwise import Pairwise, VectorEncoder
from bmtl.models.networks.segnet import MTAN, SegNet, mtan_trunk, segnet_trunk
from bmtl.models.networks.tabular import Tabular, tabular_trunk
from bmtl.models.networks.unet import UNet, unet_trunk

__all__ = [
    "MLP",
    "MTAN",
    "Dropout",
    "DropoutGuide",
    "ImageTrunk",
    "Pairwise",
    "SegNet",
    "SequenceEncoder",
    "Tabular",
    "UNet",
    "VectorEncoder",
    "lite0_trunk",
    "mlp",
    "mlp_trunk",
    "mtan_trunk",
    "segnet_trunk",
    "tabular_trunk",
    "unet_trunk",
]
