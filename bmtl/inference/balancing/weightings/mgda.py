"""Multiple-gradient descent."""

from collections.abc import Sequence
from typing import Literal

import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.solvers import cancelled, shortest_combination, unit_diagonal
from bmtl.inference.balancing.weightings.base import Weighting
from bmtl.inference.balancing.weightings.losses import losses_of


class MGDA(Weighting):
    """The shortest convex combination of the gradients: ``min |J' alpha|`` on the simplex (MGDA).

    The update makes every loss fall, ``(G alpha)_k >= alpha' G alpha``, and those with a positive weight equally fast. It
    favours the shortest gradient. Where it is 0 (1e-7 of the lengths that it adds up), no update helps every task: the
    status is "stationary".

    Source: Désidéri (2012); Sener & Koltun (2018), whose normalisers these are. Differs from the published
    code: solved exactly by an active-set method instead of projected gradient or Frank-Wolfe steps stopped early, which
    are far off where gradient norms differ by decades; gradients are flattened, not summed over the batch.

    Args:
        normalize: What each gradient is divided by before the problem is posed: nothing, its length ("l2"), its task's
            loss ("loss"), or both ("loss+"). The weights apply to the gradients as they are.

    Raises:
        ValueError: If losses are needed and not known (`solve`).
        NonPositiveLoss: Under "loss" and "loss+", if a loss is not above 0: it would turn its gradient.
    """

    name = "mgda"
    paper = "Sener & Koltun 2018"
    cost = "K backwards (full), 1 + heads (last-layer)"
    length = "mean"

    def __init__(self, normalize: Literal["none", "l2", "loss", "loss+"] = "none") -> None:
        super().__init__()
        self.normalize = normalize
        self.names: tuple[str, ...] = ()

    def bind(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        if self.normalize in ("l2", "loss+"):
            norms = norms / norms
        if self.normalize in ("loss", "loss+"):
            norms = norms / losses_of(self, self.names, m, ctx).numpy()
        weights, residual, rounds = shortest_combination(norms, cosine)
        status: Literal["ok", "stationary"] = "stationary" if cancelled(cosine, norms * weights) else "ok"
        return Solution(torch.from_numpy(weights), residual, rounds, status)
