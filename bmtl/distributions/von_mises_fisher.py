"""Directions in space about a mean direction."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

_NEAR = 0.5
"""Concentration up to which moments are taken by their series in its square."""
_RESULTANT = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555)  # (coth k - 1 / k) / k
_ALONG = (1 / 3, -1 / 15, 2 / 189, -1 / 675, 2 / 10395)  # 1 / k^2 - 1 / sinh^2 k


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
        k, near, far = self._small()
        return torch.where(near, _series(k, _RESULTANT) * k, 1 / torch.tanh(far) - 1 / far)

    def _small(self) -> tuple[Tensor, Tensor, Tensor]:
        """The concentration, where it is so small that closed forms cancel, and the others for these."""
        k = self.concentration
        near = k < _NEAR
        return k.where(near, 0.0), near, k.where(~near, 1.0)

    @property
    def mean(self) -> Tensor:
        """Mean vector, shorter than 1."""
        return self.resultant[..., None] * self.direction

    @property
    def variance(self) -> Tensor:
        """Of each component."""
        k, near, far = self._small()
        across = torch.where(near, _series(k, _RESULTANT), self.resultant / far)
        along = torch.where(near, _series(k, _ALONG), 1 / far.square() - _inverse_sinh(far).square())
        square = self.direction.square()
        return across[..., None] * (1 - square) + along[..., None] * square

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))[:-1]
        k = self.concentration
        uniform = torch.rand(shape, dtype=k.dtype, device=k.device).clamp_min(torch.finfo(k.dtype).tiny)
        # The component along m, by its inverse cdf.
        _, near, _ = self._small()
        log = torch.where(
            near,
            torch.log1p((1 - uniform) * torch.expm1(-2 * k)),  # the other loses its digits where k is small
            torch.log(uniform + (1 - uniform) * torch.exp(-2 * k)),
        )
        along = (1 + log / k).clamp(-1, 1)
        angle = 2 * math.pi * torch.rand(shape, dtype=k.dtype, device=k.device)
        first, second = _across(self.direction)
        around = angle.cos()[..., None] * first + angle.sin()[..., None] * second
        return along[..., None] * self.direction + (1 - along.square()).clamp_min(0).sqrt()[..., None] * around


def _series(k: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The sum of ``c_n k^(2 n)``."""
    total = torch.zeros_like(k)
    for c in reversed(coefficients):
        total = total * k.square() + c
    return total


def _inverse_sinh(k: Tensor) -> Tensor:
    """``1 / sinh k``, which does not overflow."""
    return 2 * torch.exp(-k) / -torch.expm1(-2 * k)


def _across(direction: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors that are perpendicular to a unit vector and to each other."""
    axis = torch.zeros_like(direction)
    axis.scatter_(-1, direction.abs().argmin(-1, keepdim=True), 1.0)
    first = torch.nn.functional.normalize(torch.linalg.cross(direction, axis), dim=-1)
    return first, torch.linalg.cross(direction, first)
