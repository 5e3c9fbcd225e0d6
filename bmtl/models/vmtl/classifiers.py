"""The last layers w_t of T tasks, as one tensor: mean, and variance where they are Gaussian."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.networks.gaussian import RHO, Moments


def _start(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    bound = shape[-1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


class FreeClassifiers(nn.Module):
    """A mean, and a standard deviation ``softplus(rho)``, for each weight.

    Args:
        shape: ``(T, C, H)``.
        gaussian: Whether there is a standard deviation; without it the weights are points.
        generator: Draws the initial means, uniform within ``1 / sqrt(H)``; None uses torch's global generator.
    """

    def __init__(
        self, shape: tuple[int, int, int], gaussian: bool = True, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.loc = nn.Parameter(_start(shape, generator))
        self.rho = nn.Parameter(torch.full(shape, RHO)) if gaussian else None

    def forward(self) -> Moments:
        return self.loc, None if self.rho is None else F.softplus(self.rho).square()


class AmortisedClassifiers(nn.Module):
    """Row c of w_t from the mean features of class c in task t, by one network for all tasks.

    A class that a task lacks gets the prior ``Normal(0, prior_scale)``.

    Args:
        network: Maps features ``(N, ...)`` to a mean and variance ``(N, H)``.
        means: Mean features of each class of each task, ``(T, C, ...)``.
        present: Which classes the tasks have, ``(T, C)``, bool.
        prior_scale: Of the classes without examples.
    """

    means: Tensor
    present: Tensor

    def __init__(
        self, network: Callable[[Tensor], Moments], means: Tensor, present: Tensor, prior_scale: float
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("means", means, persistent=False)
        self.register_buffer("present", present[..., None], persistent=False)
        self.prior_variance = prior_scale**2

    def forward(self) -> Moments:
        shape = self.present.shape[:2]
        loc, variance = (
            part.unflatten(0, shape) for part in self.network(self.means.flatten(0, 1)) if part is not None
        )
        return torch.where(self.present, loc, 0.0), torch.where(self.present, variance, self.prior_variance)
