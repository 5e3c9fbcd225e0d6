"""Gradient normalisation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured
from bmtl.inference.balancing.options import Positive
from bmtl.inference.balancing.transforms.adam import TaskAdam
from bmtl.inference.balancing.transforms.base import Transform
from bmtl.inference.balancing.transforms.first import first_seen


class GradNorm(Transform):
    """Learns weights under which slower tasks have longer gradients (GradNorm, Chen et al. 2018).

    ``l_k = w_k L_k``, the weights of the K tasks present summing to K. With the gradient norms m_k of the unweighted losses
    and relative training rates ``r = (L / L0) / mean(L / L0)``, L0 the first loss seen above 0, the norms ``w_k m_k`` shall
    be ``t_k = mean(w m) r_k^a / mean(r^a)``. After each step's gradients Adam moves w along ``m_k sign(w_k m_k - t_k)``, and
    w, at least 0.001, is brought back to the sum K: the weights of the next step. A task without a gradient keeps its
    weight.

    The norms are those of the geometry: the paper's last shared layer is ``grad-norm >> last-layer``; `full` takes all
    shared parameters, as LibMTL does.

    Differs from the paper, which does not divide by ``mean(r^a)``: its norms cannot all be met while w sums to K, since the
    targets sum to more than the norms do, and the largest weight stays too small. Differs from LibMTL, where w is a softmax
    trained at the model's learning rate and weight decay and L0 an epoch's mean, and from SamsungLabs/MTL, where a is 2.

    Args:
        a: How much longer the gradients of slow tasks shall be; 0 makes all equally long.
        lr: Learning rate of the weights.
        bound: A lower bound on every loss; it is subtracted first.
    """

    name = "grad-norm"
    paper = "Chen et al. 2018"
    cost = "1 backward + K heads (last-layer), K backwards (full)"
    domain = "nonnegative"
    observes = "gram"

    weights: Tensor
    first: Tensor

    def __init__(self, a: float = 1.5, lr: Positive = 0.025, bound: float = 0.0) -> None:
        super().__init__(bound)
        self.a, self.lr = a, lr
        self.adam = TaskAdam(lr)

    def bind(self, names: Sequence[str]) -> None:
        self.adam.bind(names)
        if "weights" not in self._buffers:
            self.register_buffer("weights", torch.ones(len(names), dtype=torch.float64))
            self.register_buffer("first", torch.full((len(names),), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        first_seen(self.first, torch.where(losses > 0, losses, torch.nan), ctx.active)
        return self._present(ctx.active) * losses

    def refine(self, m: Measured, ctx: Context) -> None:
        """Moves the weights of the next step; this step keeps its own, as in the paper's Algorithm 1."""
        if m.losses is None:
            raise ValueError(
                "'grad-norm' compares losses with their first values, and the measurements lack the losses."
            )
        norms = m.G.diagonal().clamp_min(0).sqrt()  # of the weighted losses
        keep = norms > 0.0
        moving = ctx.active.clone()
        moving[ctx.active] = keep
        w, norms = self._present(ctx.active)[keep], norms[keep]
        ratio = (self.above_bound(m.losses[keep]) / self.first[moving]).nan_to_num(nan=0.0)  # 0 since the start
        # A loss of 0 has a logarithm far below all others: powers of either sign are finite.
        target = torch.softmax(self.a * ratio.log().clamp_min(-1e3), dim=0)
        gradient = norms / w * (norms - norms.sum() * target).sign()
        moved = (w + self.adam(gradient, moving)).clamp_min(1e-3)
        # The sum of these tasks' weights stays theirs: a task left out neither gains nor loses.
        self.weights[moving] = moved * (self.weights[moving].sum() / moved.sum())

    def _present(self, active: Tensor) -> Tensor:
        """Weights of the tasks present ``(K,)``, of sum K."""
        weights = self.weights[active]
        return weights * (len(weights) / weights.sum())
