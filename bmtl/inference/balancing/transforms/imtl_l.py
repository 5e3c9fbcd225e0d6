"""Impartial multi-task learning, the part that balances losses."""

from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.transforms.own import LearntLogs, present


class IMTLL(LearntLogs):
    """Learns one scale a task so that all scaled losses are equal (IMTL-L, Liu et al. 2021).

    ``S = sum_k exp(s_k) L_k - s_k``. At a fixed loss, ``exp(s_k) L_k`` tends to 1.

    Differs from LibMTL, which fuses it with IMTL-G and trains ``s`` at the model's learning rate and weight decay: here it
    is separate (``imtl-l >> imtl-g`` is the paper's IMTL), and ``s`` has a group of its own (learning rate 0.025, no
    decay).

    Args:
        s0: Where every logarithm of a scale starts.
        bound: A lower bound on every loss; it is subtracted first.
    """

    name = "imtl-l"
    paper = "Liu et al. 2021"
    cost = "1 backward"

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        s = present(self.s, ctx.active)
        return s.exp() * losses - s
