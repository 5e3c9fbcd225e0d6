"""Trunks: networks from inputs to a representation, with an int attribute ``width``."""

from bmtl.models.networks.dropout import Dropout, DropoutGuide
from bmtl.models.networks.mlp import MLP, mlp, mlp_trunk

__all__ = ["MLP", "Dropout", "DropoutGuide", "mlp", "mlp_trunk"]
