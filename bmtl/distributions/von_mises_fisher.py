"""Directions in space about a mean direction."""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class VonMisesFisher(TorchDistribution):
    """Unit vectors y ``(..., 3)`` with density ``k / (4 pi sinh k) exp(k m'y)``.

    Args:
        direction: m ``(..., 3)``, of any length above 0.
        concentration: k ``(...)``, above 0; 0 in the limit is uniform.

    Source:
        Fisher (1953), "Dispersion on a Sphere".
    """

    arg_constraints = {"concentration": constraints.positive, "direction": constraints.real_vector}  # noqa: RUF012
    support = constraints.real_vector  # labels of finite precision are near the sphere, and not on it
    has_rsample = False

    def __init__(self, direction: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        batch = torch.broadcast_shapes(direction.shape[:-1], concentration.shape)
        self.direction = torch.nn.functional.normalize(direction, dim=-1, eps=1e-6).expand(*batch, 3)
        self.concentration = concentration.expand(batch)
        super().__init__(torch.Size(batch), torch.Size((3,)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "VonMisesFisher":
        batch = torch.Size(batch_shape)
        return VonMisesFisher(self.direction.expand(*batch, 3), self.concentration.expand(batch), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        k = self.concentration
        # k / (4 pi sinh k) = k exp(-k) / (2 pi (1 - exp(-2 k))), which neither overflows nor vanishes.
        normaliser = k.log() - math.log(2 * math.pi) - (-torch.expm1(-2 * k)).log()
        return normaliser - k * (1 - (self.direction * value).sum(-1))

    @property
    def resultant(self) -> Tensor:
        """Length of the mean vector ``(...)``: ``coth k - 1 / k``."""
        k = self.concentration
        # The closed form cancels where k is small: there, its Taylor series.
        near = k / 3 - k**3 / 45
        return torch.where(k < 1e-2, near, 1 / torch.tanh(k.clamp_min(1e-2)) - 1 / k.clamp_min(1e-2))

    @property
    def mean(self) -> Tensor:
        """Mean vector, shorter than 1."""
        return self.resultant[..., None] * self.direction

    @property
    def variance(self) -> Tensor:
        """Of each component."""
        a = self.resultant
        across = torch.where(self.concentration < 1e-2, 1 / 3, a / self.concentration.clamp_min(1e-2))
        along = 1 - 2 * across - a.square()
        square = self.direction.square()
        return across[..., None] * (1 - square) + along[..., None] * square

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))[:-1]
        k = self.concentration
        uniform = torch.rand(shape, dtype=k.dtype, device=k.device).clamp_min(torch.finfo(k.dtype).tiny)
        # The component along m, by its inverse cdf.
        along = (1 + torch.log(uniform + (1 - uniform) * torch.exp(-2 * k)) / k).clamp(-1, 1)
        angle = 2 * math.pi * torch.rand(shape, dtype=k.dtype, device=k.device)
        first, second = _across(self.direction)
        around = angle.cos()[..., None] * first + angle.sin()[..., None] * second
        return along[..., None] * self.direction + (1 - along.square()).clamp_min(0).sqrt()[..., None] * around


def _across(direction: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors that are perpendicular to a unit vector and to each other."""
    axis = torch.zeros_like(direction)
    axis.scatter_(-1, direction.abs().argmin(-1, keepdim=True), 1.0)
    first = torch.nn.functional.normalize(torch.linalg.cross(direction, axis), dim=-1)
    return first, torch.linalg.cross(direction, first)
