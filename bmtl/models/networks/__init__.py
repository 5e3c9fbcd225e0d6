"""Trunks and heads."""

from bmtl.models.networks.dropout import Dropout, DropoutGuide, dropout_mlp
from bmtl.models.networks.mlp import mlp

__all__ = ["Dropout", "DropoutGuide", "dropout_mlp", "mlp"]
