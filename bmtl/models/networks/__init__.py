"""Trunks: networks from inputs to a representation, with an int attribute ``width``."""

from bmtl.models.networks.deep_dta import SequenceEncoder
from bmtl.models.networks.dropout import Dropout, DropoutGuide
from bmtl.models.networks.mlp import MLP, mlp, mlp_trunk
from bmtl.models.networks.pairwise import Pairwise, VectorEncoder
from bmtl.models.networks.tabular import Tabular, tabular_trunk

__all__ = [
    "MLP",
    "Dropout",
    "DropoutGuide",
    "Pairwise",
    "SequenceEncoder",
    "Tabular",
    "VectorEncoder",
    "mlp",
    "mlp_trunk",
    "tabular_trunk",
]
