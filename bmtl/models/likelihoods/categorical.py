"""Classes, with a temperature."""

from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.models.likelihoods.base import Likelihood, Values
from bmtl.models.likelihoods.unknown import Noise, Unknown
from bmtl.targets import Classes, Family


class Categorical(Likelihood):
    """``y ~ Categorical(logits = f / sigma^2)`` over C classes.

    A small noise is a large weight, as for `Gaussian`; it is temperature scaling. A fixed noise is 1.

    Args:
        count: Number of classes C, from 2.
        noise: "fixed", "parameter" or "latent": what ``log sigma^2`` is.
        noise_prior: Mean and standard deviation of its prior.

    Raises:
        ValueError: If there are fewer than two classes, or an option is unknown or out of range.

    Source:
        Kendall, Gal & Cipolla (2018), section 3, with the softmax's normaliser kept; their approximation is `Kendall`.
    """

    name = "categorical"
    outputs_are_logits = True
    families: ClassVar[tuple[str, ...]] = ("classes", "binary", "ordinal")

    def __init__(self, count: int, noise: Noise = "parameter", noise_prior: tuple[float, float] = (0.0, 2.0)) -> None:
        check_count(count)
        super().__init__(count, noise, {"log_variance": Unknown(0.0, noise, noise_prior)})

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        return cls(class_count(family), **options)

    @property
    def classes(self) -> int:
        return self.outputs

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        return dist.Categorical(logits=f * torch.exp(-values["log_variance"])[..., None])

    def set_noise(self, sigma: float) -> None:
        """Sets a fixed temperature ``sigma^2``."""
        self.unknowns["log_variance"].set(2 * torch.tensor(sigma).log())  # type: ignore[operator]


def class_count(family: Family) -> int:
    """Number of classes of a family that has some.

    Raises:
        ValueError: If it has none.
    """
    if not isinstance(family, Classes):
        raise ValueError(f"A likelihood of classes needs a target with classes, and its family is {family.name!r}.")
    return len(family.classes)


def check_count(count: int) -> None:
    """Raises a ``ValueError`` unless there are two or more classes."""
    if not isinstance(count, int) or count < 2:
        raise ValueError(f"There are 2 or more classes, and {count!r} was given.")
