"""Slot 1: the base class of transforms of the task losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured
from bmtl.inference.balancing.slots import Slot
from bmtl.inference.errors import NonPositiveLoss

Domain = Literal["real", "nonnegative", "positive"]
LEAST = torch.finfo(torch.float32).tiny
"""Losses below it count as met: ``1 / L``, by which a log divides their gradients, is no number of a float32 network."""


class Transform(Slot):
    """Slot 1: scales or reshapes the task losses. All its state is in buffers and parameters.

    Args:
        bound: For transforms with a domain of their own: a lower bound on all losses. It is subtracted first, so that
            ``L - bound`` replaces the loss throughout.

    Attributes:
        domain: The losses that the formula allows, after `bound`: "positive" where it has ``log L`` or ``1 / L``,
            "nonnegative" where a loss of 0 has a value and a finite derivative, as under `log_of`, "real" where all have.
        epochs: The transform waits for the ends of epochs (`BalancedSVI.end_epoch`).
        observes: What `refine` needs of the task gradients; anything but "none" needs a geometry.
        second_forward: The transform needs the batch's losses once more after the step (`after_step`).
    """

    slot = "transform"
    domain: Domain = "real"
    epochs: bool = False
    observes: ClassVar[Literal["none", "gram", "jacobian"]] = "none"
    second_forward: ClassVar[bool] = False

    def __init__(self, bound: float = 0.0) -> None:
        super().__init__()
        self.bound = bound

    def domain_of(self, losses: Tensor, ctx: Context) -> Domain:
        """The domain of this step, given the losses ``(K,)`` after `bound`."""
        return self.domain

    def above_bound(self, losses: Tensor) -> Tensor:
        """The losses that enter the formula ``(K,)``: less the bound, where it has a meaning."""
        return losses - self.bound if self.bound and self.domain != "real" else losses

    def log_of(self, losses: Tensor) -> Tensor:
        """``log L`` of losses ``(K,)``; of a loss below 1.2e-38 (`LEAST`) that of `LEAST`, with a derivative of 0.

        Losses are float64, and one of a batch of few labels may be as small as 1e-47, or 0, where every label is met: nothing
        is left to improve, and its gradient in float32 would be 0 times infinity.
        """
        return losses.clamp_min(LEAST).log()

    def check_losses(self, names: Sequence[str], losses: Tensor, ctx: Context) -> None:
        """Checks that the step's losses ``(K,)``, before `bound`, are in the domain.

        Raises:
            NonPositiveLoss: If one is not; names the task.
        """
        gaps = self.above_bound(losses)
        domain = self.domain_of(gaps, ctx)
        if domain == "real":
            return
        outside = gaps <= 0 if domain == "positive" else gaps < 0
        if outside.any():
            k = int(outside.nonzero()[0])
            raise NonPositiveLoss(self.name, names[k], losses[k].item(), self.bound, strict=domain == "positive")

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        """The scaled losses ``(K,)`` of the tasks present, differentiable in `losses` ``(K,)``.

        Parameters that a transform owns get the gradient of their sum, never multiplied by a weighting.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it scales losses.")

    def loss_derivatives(self, losses: Tensor, ctx: Context) -> Tensor:
        """Derivatives of the scaled losses by the losses ``(K,)``; own parameters get their gradients."""
        with torch.enable_grad():
            leaf = losses.detach().clone().requires_grad_()
            self(leaf, ctx).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    def refine(self, m: Measured, ctx: Context) -> Tensor | None:
        """Factors ``(K,)`` by which this step's scaled losses are multiplied once more, given their gradients."""
        return None

    def after_step(self, losses: Tensor, ctx: Context) -> None:
        """Receives the same batch's losses at the new parameters ``(K,)``, where `second_forward` asks for it."""

    def end_epoch(self, mean_losses: Tensor, ctx: Context) -> None:
        """Receives each task's mean training loss of the epoch that ends ``(K_all,)``, NaN where it was never present."""
