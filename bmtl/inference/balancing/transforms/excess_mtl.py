"""Multi-task learning by excess risks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured
from bmtl.inference.balancing.transforms.base import Transform
from bmtl.inference.balancing.transforms.first import first_seen


class ExcessMTL(Transform):
    """Puts more weight on tasks that are far from their own optimum (ExcessMTL, He et al. 2024).

    A task's excess risk is estimated from its gradient on the shared parameters, ``E_k = g_k' (g_k / h_k)`` with
    ``h_k = sqrt(sum over steps of g_k^2 + 1e-7)``, relative to its first value. Each step multiplies the weights by
    ``exp(eta E)``, brings their sum back to K, the number of tasks present, and weights this step's losses, heads included.
    A gradient of zero is an excess risk of zero.

    Differs from LibMTL in that a task first seen later has its own first value, and that absent tasks keep their weight.
    Steps in which a single task is present compare nothing and change nothing.

    Memory: the sum of squared gradients, **K x P numbers** on the parameters' device, on top of the K x P that `full`
    holds. They are summed by position, so the tasks must reach the same shared parameters in every step.

    Args:
        eta: Step size of the logarithms of the weights.

    Raises:
        ValueError: In a step, if the number of shared parameters has changed.
    """

    name = "excess-mtl"
    paper = "He et al. 2024"
    cost = "K backwards"
    observes = "jacobian"

    log_weights: Tensor
    first: Tensor

    def __init__(self, eta: float = 0.01) -> None:
        super().__init__()
        self.eta = eta
        self._squares: Tensor | None = None  # (K_all, P); no buffer, since P is known in the first step only

    def bind(self, names: Sequence[str]) -> None:
        if "log_weights" not in self._buffers:
            self.register_buffer("log_weights", torch.zeros(len(names), dtype=torch.float64))
            self.register_buffer("first", torch.full((len(names),), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        return losses * 1.0

    def refine(self, m: Measured, ctx: Context) -> Tensor:
        if m.J is None:
            raise ValueError("'excess-mtl' works on the gradients themselves, which the geometry 'full' gives.")
        risks = self._risks(m.J, ctx.active)
        first = first_seen(self.first, torch.where(risks > 0, risks, torch.nan), ctx.active)
        relative = (risks / first).nan_to_num(nan=0.0)
        old = self.log_weights[ctx.active]
        new = old + self.eta * relative
        # The sum of these tasks' weights stays theirs: an absent task neither gains nor loses.
        self.log_weights[ctx.active] = new + old.logsumexp(0) - new.logsumexp(0)
        return len(new) * torch.softmax(new, dim=0)

    def _risks(self, jacobian: Tensor, active: Tensor) -> Tensor:
        """Estimated excess risks ``(K,)`` from the gradients ``(K, P)``, which are added to the sums."""
        size = jacobian.shape[1]
        if self._squares is None:
            self._squares = jacobian.new_zeros(len(active), size)
        if self._squares.shape[1] != size:
            raise ValueError(
                f"'excess-mtl' has sums for {self._squares.shape[1]} shared parameters, and in this step the tasks reach "
                f"{size}. Mark the shared representation, h = bmtl.shared(trunk(x)), and let every task use all of it."
            )
        self._squares = self._squares.to(jacobian)
        risks = []
        for k, gradient in zip(active.nonzero().flatten().tolist(), jacobian, strict=True):  # P numbers at a time
            square = gradient.square()
            self._squares[k] += square
            risks.append((square / (self._squares[k] + 1e-7).sqrt()).sum())
        return torch.stack(risks).cpu().double()

    def get_extra_state(self) -> dict[str, Any]:
        return {"squares": self._squares}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._squares = None if state["squares"] is None else state["squares"].clone()
