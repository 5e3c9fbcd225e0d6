"""What is believed: Pyro programs, their guides, and the networks inside them."""

from bmtl.models.guides import MeanField, PointMass
from bmtl.models.homoscedastic import Homoscedastic
from bmtl.models.networks import mlp

__all__ = ["Homoscedastic", "MeanField", "PointMass", "mlp"]
