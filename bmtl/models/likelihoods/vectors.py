"""Vectors whose components have one noise, such as displacements in pixels."""

from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bmtl.models.likelihoods.base import Likelihood, Values, location_and_unit
from bmtl.models.likelihoods.unknown import Noise, Unknown
from bmtl.targets import Family, Vector


class VectorLocationScale(Likelihood):
    """``y_i = f_i + sigma e_i`` for each component i, with ``log sigma^2`` an unknown and e of a standard law.

    A vector with a missing component is missing as a whole. A fixed noise is 1 in training, where the loss is half the unit
    deviance, summed over components.

    Args:
        count: Number of components, from 2.
        noise: "fixed", "parameter", "latent" or "heteroscedastic": what ``log sigma^2`` is.
        noise_prior: Mean and standard deviation of its prior, for standardised labels.

    Raises:
        ValueError: If there are fewer than two components, or an option is unknown or out of range.
    """

    families = ("vector",)
    from_head = "log_variance"

    def __init__(self, count: int, noise: Noise = "parameter", noise_prior: tuple[float, float] = (0.0, 2.0)) -> None:
        if count < 2:
            raise ValueError(f"A vector has 2 or more components, and {count} was given.")
        super().__init__(count, noise, {"log_variance": Unknown(0.0, noise, noise_prior)})
        self.count = count
        self.location = nn.Buffer(torch.zeros(count))

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        if not isinstance(family, Vector):
            raise ValueError(
                f"The likelihood {cls.name!r} needs a target of vectors, and its family is {family.name!r}."
            )
        return cls(len(family.components), **options)

    def base(self, loc: Tensor, scale: Tensor) -> TorchDistribution:
        """The law of a component."""
        raise NotImplementedError

    def loss(self, e: Tensor) -> Tensor:
        """Half the unit deviance of a component as a function of its error in units of the scale."""
        raise NotImplementedError

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        loc = self.location + self.unit * f[..., : self.count]
        scale = self.unit * torch.exp(0.5 * self.noise_of(f, values))
        return self.base(loc, scale[..., None]).to_event(1)

    def deviance(self, f: Tensor, y: Tensor) -> Tensor:
        return self.loss((y - self.location) / self.unit - f[..., : self.count]).sum(-1)

    @torch.no_grad()
    def start(self, y: Tensor) -> None:
        found = [location_and_unit(column) for column in y.unbind(-1)]
        if all(of is not None for of in found):
            self.location.copy_(torch.tensor([of[0] for of in found if of is not None]))
            squares = [of[1] ** 2 for of in found if of is not None]
            self.unit.fill_((sum(squares) / len(squares)) ** 0.5)

    @torch.no_grad()
    def set_noise(self, sigma: float) -> None:
        if not 0 < sigma < float("inf"):
            raise ValueError(f"A noise is a standard deviation, above 0, and {sigma} was given.")
        self.unknowns["log_variance"].set(2 * torch.tensor(sigma / self.unit.item()).log())  # type: ignore[operator]


class GaussianVector(VectorLocationScale):
    """Vectors with Gaussian noise, one sigma for all components. See `VectorLocationScale`."""

    name = "gaussian-vector"

    def base(self, loc: Tensor, scale: Tensor) -> TorchDistribution:
        return dist.Normal(loc, scale)

    def loss(self, e: Tensor) -> Tensor:
        return e.square() / 2


class LaplaceVector(VectorLocationScale):
    """Vectors with Laplace noise: absolute errors of the components. See `VectorLocationScale`.

    Source:
        Kendall, Gal & Cipolla (2018), section 4.2, for instance vectors.
    """

    name = "laplace-vector"

    def base(self, loc: Tensor, scale: Tensor) -> TorchDistribution:
        return dist.Laplace(loc, scale)

    def loss(self, e: Tensor) -> Tensor:
        return e.abs()
