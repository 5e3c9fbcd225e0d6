"""Trunks: networks from inputs to a representation, with an int attribute ``width``."""

from bmtl.models.networks.deep_dta import SequenceEncoder
from bmtl.models.networks.dropout import Dropout, DropoutGuide
from bmtl.models.networks.mlp import MLP, mlp, mlp_trunk
from bmtl.models.networks.pairwise import Pairwise, VectorEncoder

__all__ = ["MLP", "Dropout", "DropoutGuide", "Pairwise", "SequenceEncoder", "VectorEncoder", "mlp", "mlp_trunk"]
