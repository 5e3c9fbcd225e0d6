"""What is believed: Pyro programs, their guides, and the networks inside them.

`bmtl.models.gaussian_process` is imported by that name: it needs GPyTorch, from the extra ``gp``.
"""

from bmtl.models.bakker_heskes import BakkerHeskes
from bmtl.models.bottleneck import VariationalBottleneck
from bmtl.distributions import (
    Censored,
    NormalInverseGamma,
    evidence_penalty,
    lipschitz_mse,
)
from bmtl.models.evidential import EvidentialRegression
from bmtl.models.gaussian import GaussianRegression
from bmtl.models.guides import MeanField, PointMass
from bmtl.models.homoscedastic import Homoscedastic
from bmtl.models.multilinear import MultilinearRelationship
from bmtl.models.networks import Dropout, DropoutGuide, dropout_mlp, mlp
from bmtl.models.vmtl import VMTL, vmtl_preset

__all__ = [
    "VMTL",
    "BakkerHeskes",
    "Censored",
    "Dropout",
    "DropoutGuide",
    "EvidentialRegression",
    "GaussianRegression",
    "Homoscedastic",
    "MeanField",
    "MultilinearRelationship",
    "NormalInverseGamma",
    "PointMass",
    "VariationalBottleneck",
    "dropout_mlp",
    "evidence_penalty",
    "lipschitz_mse",
    "mlp",
    "vmtl_preset",
]
