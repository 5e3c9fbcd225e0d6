"""Events that happen or do not, from one logit."""

from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.distributions import Bernoulli as BernoulliDistribution
from bmtl.models.likelihoods.base import Likelihood, Values
from bmtl.models.likelihoods.categorical import class_count
from bmtl.models.likelihoods.unknown import Noise, Unknown
from bmtl.targets import Family


class Bernoulli(Likelihood):
    """``y ~ Bernoulli(logits = f / sigma^2)``: `Categorical` of two classes with half the outputs.

    Args:
        noise: What ``log sigma^2`` is; a fixed one is 0.
        noise_prior: Mean and standard deviation of its prior.
    """

    name = "bernoulli"
    outputs_are_logits = True
    families = ("binary",)

    def __init__(self, noise: Noise = "parameter", noise_prior: tuple[float, float] = (0.0, 2.0)) -> None:
        super().__init__(1, noise, {"log_variance": Unknown(0.0, noise, noise_prior)})

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        if class_count(family) != 2:
            raise ValueError(f"A Bernoulli likelihood has 2 classes, and the target has {class_count(family)}.")
        return cls(**options)

    @property
    def classes(self) -> int:
        return 2

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        return BernoulliDistribution(logits=f[..., 0] * torch.exp(-values["log_variance"]))
