"""Loss discrepancy control."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import NonNegative, Seed
from bmtl.inference.balancing.transforms.base import LEAST, Transform
from bmtl.inference.balancing.transforms.first import first_seen
from bmtl.inference.balancing.transforms.own import one_each, present


class LDC(Transform):
    """Learns weights that keep neighbouring tasks' weighted losses similar (LDC-MTL, Xiao et al. 2025).

    With ``l_k = log(L_k / L0_k)`` and ``w = sigmoid(relu(v))``, which lies in [0.5, 1)::

        S = sum_k w_k l_k / stop(sum_k w_k) + lam sum_k |w_k l_k - w_(k+1) l_(k+1)|

    over the tasks present, in the order in which the program first named them: **the order matters**, since only
    neighbours are compared. The balancer's saved state holds the order. L0_k is the first loss seen of task k. The losses
    are trained by ``sum_k c_k L_k`` with ``c = dS / dL`` held constant, v by dS / dv in a group of its own (learning rate
    0.025, no decay). Where ``2 lam sum w > 1``, so from ten to twenty tasks on, a task that is ahead of both its neighbours
    is held back: its weight is negative.

    Differs from the authors' QM9 code, which takes L0 again at the first batch of *every* epoch, and from their CelebA code,
    which takes no logarithm.

    Args:
        lam: Weight of the differences: 0.05 for QM9 and NYUv2, 0.1 for Cityscapes, 0.01 for CelebA.
        seed: Seeds the draw of the starting values ``v ~ U(0.2, 1)``. Torch's global generator is neither read nor moved.
        bound: What every loss must exceed; it is subtracted first.
    """

    name = "ldc"
    paper = "Xiao et al. 2025"
    cost = "1 backward"
    domain = "positive"

    first: Tensor

    def __init__(self, lam: NonNegative = 0.05, seed: Seed = 0, bound: float = 0.0) -> None:
        super().__init__(bound)
        self.lam, self.seed = lam, seed
        self.v = nn.ParameterList()

    def bind(self, names: Sequence[str]) -> None:
        if not len(self.v):
            generator = torch.Generator().manual_seed(self.seed)
            self.v = one_each(0.2 + 0.8 * torch.rand(len(names), generator=generator, dtype=torch.float64))
            self.register_buffer("first", torch.full((len(names),), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        value = losses.detach().clamp_min(LEAST)
        w = torch.sigmoid(torch.relu(present(self.v, ctx.active)))
        weighted = w * (value / first_seen(self.first, value, ctx.active)).log()
        differences = weighted.diff()  # (K - 1,)
        objective = weighted.sum() / w.detach().sum() + self.lam * differences.abs().sum()

        weights = w.detach() / w.detach().sum()
        signs = self.lam * differences.detach().sign()
        weights[1:] += w.detach()[1:] * signs
        weights[:-1] -= w.detach()[:-1] * signs
        # The second term is zero in value: it brings the gradient of v.
        return weights / value * losses + (objective - objective.detach()) / max(len(losses), 1)
