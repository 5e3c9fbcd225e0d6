"""Trunks and heads."""

from bmtl.models.networks.mlp import mlp

__all__ = ["mlp"]
