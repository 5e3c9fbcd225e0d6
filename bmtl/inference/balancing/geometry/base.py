"""What a geometry does: measure the task gradients, then write one gradient per parameter."""

from typing import ClassVar

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Measured, Objective, Slot


class Geometry(Slot):
    """Slot 2: where task gradients are compared.

    Attributes:
        cut: The programs must run with their graph cut at the marked tensors (`Marks`).
    """

    slot = "geometry"
    cut: ClassVar[bool] = False

    def measure(self, objective: Objective, slopes: Tensor) -> Measured:
        """The Gram matrix of the scaled losses' gradients; writes no gradient.

        Args:
            objective: The losses, with their graph.
            slopes: Derivative of each scaled loss by its loss ``(K,)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it compares gradients.")

    def pull(
        self, objective: Objective, slopes: Tensor, alpha: Tensor, head_alpha: Tensor, direction: Tensor | None
    ) -> None:
        """Adds to every parameter's ``.grad``, once, and frees the graph.

        Args:
            objective: The losses, with their graph.
            slopes: As for `measure`.
            alpha: Weights of the scaled losses for the shared parameters ``(K,)``.
            head_alpha: The same for each task's own parameters ``(K,)``: ones, or `alpha`.
            direction: What the shared parameters receive in place of their gradients' combination, ``(P,)``, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it writes gradients.")


def add_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """Adds to ``parameter.grad`` as backward would."""
    if parameter.grad is None:
        parameter.grad = gradient.detach()
    else:
        parameter.grad.add_(gradient)


def backward(*totals: Tensor | None) -> None:
    """One backward from the sum of scalars, some of which may be absent or depend on no parameter."""
    present = [total for total in totals if total is not None and total.requires_grad]
    if present:
        torch.autograd.backward(present)
