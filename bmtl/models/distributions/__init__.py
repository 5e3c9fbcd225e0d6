"""Distributions over labels that Pyro does not bring, and the losses that belong to them."""

from bmtl.models.distributions.censored import CensoredNormalInverseGamma
from bmtl.models.distributions.evidence import evidence_penalty, lipschitz_mse
from bmtl.models.distributions.normal_inverse_gamma import NormalInverseGamma

__all__ = ["CensoredNormalInverseGamma", "NormalInverseGamma", "evidence_penalty", "lipschitz_mse"]
