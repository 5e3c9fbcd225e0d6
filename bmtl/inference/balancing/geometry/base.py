"""What a geometry does: measure the task gradients, then write one gradient per parameter."""

from collections.abc import Sequence
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
    """Adds to ``parameter.grad`` as backward would.

    Args:
        parameter: Any leaf.
        gradient: Owned by nobody else. What `torch.autograd.grad` returns is not: two parameters may get one tensor, or
            one that is expanded, and an optimizer or a clip then changes both.
    """
    if parameter.grad is None:
        parameter.grad = gradient.detach()
    else:
        parameter.grad.add_(gradient)


def backward(*totals: Tensor | None) -> None:
    """One backward from the sum of scalars, some of which may be absent or depend on no parameter."""
    present = [total for total in totals if total is not None and total.requires_grad]
    if present:
        torch.autograd.backward(present)


def gram_matrix(parts: Sequence[Tensor], size: int) -> Tensor:
    """Gram matrix ``(K, K)`` of K gradients, float64 on the host.

    Args:
        parts: The gradients part by part, each ``(K, P_i)``; summed in float64, since parts may differ by decades.
        size: K.
    """
    gram = torch.zeros(size, size, dtype=torch.float64)
    if parts:
        gram += torch.stack([exact(part) @ exact(part).T for part in parts]).cpu().double().sum(0)
    if parts and not in_range(gram.diagonal()).all():
        wide = [part.cpu().double() for part in parts]
        gram = torch.stack([part @ part.T for part in wide]).sum(0)
    return gram


def exact(gradients: Tensor) -> Tensor:
    """Gradients in the precision that their products need: on a GPU a setting may run those of float32 in TF32."""
    return gradients.double() if gradients.is_cuda or gradients.dtype == torch.float64 else gradients.float()


def in_range(squares: Tensor) -> Tensor:
    """Which squared norms float32 can hold: it ends at norms of 1e-19 and 1e19."""
    return (squares > 1e-30) & (squares < 1e36)
