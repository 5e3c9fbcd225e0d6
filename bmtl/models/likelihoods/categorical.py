"""Classes, with a temperature."""

from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.distributions import Categorical as CategoricalDistribution
from bmtl.models.likelihoods.base import Likelihood, Values
from bmtl.models.likelihoods.unknown import Noise, Unknown
from bmtl.targets import Classes, Family


class Categorical(Likelihood):
    """``y ~ Categorical(logits = f / sigma^2)`` over C classes.

    A small noise is a large weight, as for `Gaussian`; it is temperature scaling. A fixed noise is 1.

    Args:
        count: Number of classes C, from 2.
        noise: "fixed", "parameter", "latent" or "heteroscedastic": what ``log sigma^2`` is.
        noise_prior: Mean and standard deviation of its prior.

    Raises:
        ValueError: If there are fewer than two classes, or an option is unknown or out of range.

    Source:
        Kendall, Gal & Cipolla (2018), section 3, with the softmax's normaliser kept; their approximation is `Kendall`.
    """

    name = "categorical"
    outputs_are_logits = True
    families: ClassVar[tuple[str, ...]] = ("classes", "binary", "ordinal")
    from_head: ClassVar[str] = "log_variance"

    def __init__(self, count: int, noise: Noise = "parameter", noise_prior: tuple[float, float] = (0.0, 2.0)) -> None:
        check_count(count)
        super().__init__(count, noise, {"log_variance": Unknown(0.0, noise, noise_prior)})
        self.count = count

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        return cls(class_count(family), **options)

    @property
    def classes(self) -> int:
        return self.count

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        return CategoricalDistribution(logits=f[..., : self.count] * torch.exp(-self.noise_of(f, values))[..., None])

    def set_noise(self, sigma: float) -> None:
        """Sets a fixed temperature ``sigma^2``."""
        self.unknowns["log_variance"].set(2 * torch.tensor(sigma).log())  # type: ignore[operator]


def class_losses(site: str, law: TorchDistribution, y: Tensor) -> Tensor:
    """Negative log probabilities of labels, for likelihoods that train on a loss of their own.

    Raises:
        ValueError: If a label is not a class; names the site.
    """
    try:
        return -law.log_prob(y)
    except ValueError as error:
        raise ValueError(f"At site {site!r}: {error}") from error


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
