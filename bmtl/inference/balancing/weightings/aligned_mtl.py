"""Independent component alignment."""

from typing import Literal

import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.solvers import aligned
from bmtl.inference.balancing.weightings.base import Weighting


class AlignedMTL(Weighting):
    """The sum of the gradients after their principal components were made orthogonal and equally long (Aligned-MTL).

    With ``G = V S V'``, ``alpha = sqrt(s) V S^-1/2 V' e``, s one of the eigenvalues. The smallest shrinks the update where
    gradients nearly depend on each other: below 1e-6 of the largest the step's record says so.

    Eigenvalues below K times the precision of the gradients are rounding and are cut off. Where those kept span so much
    that the result is not orthogonal to 1e-6, the status is "inexact".

    Source: Senushkin et al. (2023), algorithm 1, on G itself (on cosines it would be another method). Differs from TorchJD,
    whose update is K times smaller; the authors' and LibMTL's code call `torch.symeig`, which torch no longer has.

    Args:
        scale: Which eigenvalue: the smallest ("min", the paper), the median, or the mean ("rmse").
    """

    name = "aligned-mtl"
    paper = "Senushkin et al. 2023"
    cost = "K backwards (full), 1 + heads (last-layer)"

    def __init__(self, scale: Literal["min", "median", "rmse"] = "min") -> None:
        super().__init__()
        self.scale = scale

    def forward(self, m: Measured, ctx: Context) -> Solution:
        balance, kept, residual = aligned(m.G.numpy(), self.scale, torch.finfo(m.dtype).eps)
        events: tuple[str, ...] = ()
        if self.scale == "min" and kept[0] < 1e-6 * kept[-1]:
            events = (f"the smallest eigenvalue, {kept[0] / kept[-1]:.1g} of the largest, shrinks the update",)
        status: Literal["ok", "inexact"] = "ok" if residual <= self.tolerance else "inexact"
        return Solution(torch.from_numpy(balance.sum(axis=1)), residual, 1, status, events=events)
