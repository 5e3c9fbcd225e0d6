"""Variational multi-task learning: priors made of the other tasks' posteriors."""

from bmtl.models.networks.gaussian import GaussianEncoder
from bmtl.models.vmtl.encoders import GaussianLayer, PointEncoder
from bmtl.models.vmtl.kl_weights import KLWeights, ReleasedKLWeights
from bmtl.models.vmtl.mixing import Temperature
from bmtl.models.vmtl.presets import PRESETS, vmtl_preset
from bmtl.models.vmtl.program import VMTL

__all__ = [
    "PRESETS",
    "VMTL",
    "GaussianEncoder",
    "GaussianLayer",
    "KLWeights",
    "PointEncoder",
    "ReleasedKLWeights",
    "Temperature",
    "vmtl_preset",
]
