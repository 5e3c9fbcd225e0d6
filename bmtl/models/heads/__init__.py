"""From the representation to what each likelihood needs, one way a file."""

from bmtl.models.heads.base import Heads
from bmtl.models.heads.bayesian import BayesianHeads
from bmtl.models.heads.common_prior import CommonPriorHeads
from bmtl.models.heads.conv import ConvHeads
from bmtl.models.heads.linear import LinearHeads
from bmtl.models.heads.tensor_normal import TensorNormalHeads

HEADS = {
    "linear": LinearHeads,
    "conv": ConvHeads,
    "bayesian": BayesianHeads,
    "common-prior": CommonPriorHeads,
    "tensor-normal": TensorNormalHeads,
}
"""Heads by name."""

__all__ = ["HEADS", "BayesianHeads", "CommonPriorHeads", "ConvHeads", "Heads", "LinearHeads", "TensorNormalHeads"]
