"""Dynamic weight averaging."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import Count, Positive
from bmtl.inference.balancing.transforms.base import Transform


class DWA(Transform):
    """Weights tasks by how slowly their losses fell lately (dynamic weight average, Liu, Johns & Davison 2019).

    ``l_k = lambda_k phi(L_k)``, ``lambda = K softmax(r / temp)``, K the tasks present, and r_k the ratio of the task's
    mean losses in the last two epochs; 1 until there are two, or where both are 0.

    With a whole number as `window`, r_k is the mean over the last that many losses of the task, the present one included,
    over the mean of as many before them: nash-mtl's variant (25). Differs from nash-mtl's in that r_k is 1 until both
    windows are full (there, they are filled with ones), and in the sum over tasks (there, the mean).

    Args:
        temp: Temperature of the softmax: the higher, the more equal the weights.
        window: "epoch", or a number of steps.
        phi: "id" weights the losses, "log" their logarithms.
        bound: A lower bound on every loss; it is subtracted first, in the ratios too.
    """

    name = "dwa"
    paper = "Liu et al. 2019"
    cost = "1 backward"

    last: Tensor
    before: Tensor
    recent: Tensor

    def __init__(
        self,
        temp: Positive = 2.0,
        window: Literal["epoch"] | Count = "epoch",
        phi: Literal["id", "log"] = "id",
        bound: float = 0.0,
    ) -> None:
        super().__init__(bound)
        self.temp, self.window, self.phi = temp, window, phi
        self.domain = "positive" if phi == "log" else "nonnegative"  # a ratio of losses of either sign has no meaning
        self.epochs = window == "epoch"

    def bind(self, names: Sequence[str]) -> None:
        unknown = torch.full((len(names),), torch.nan, dtype=torch.float64)
        if isinstance(self.window, int) and "recent" not in self._buffers:
            self.register_buffer("recent", unknown[:, None].repeat(1, 2 * self.window))  # (K_all, 2 window)
        elif self.epochs and "last" not in self._buffers:
            self.register_buffer("last", unknown.clone())
            self.register_buffer("before", unknown.clone())

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        # A loss that was 0 and is not any more has an infinite ratio: such tasks share the weight among them.
        ratio = self._ratio(losses.detach(), ctx.active).nan_to_num(nan=1.0, posinf=1e300)
        weights = len(losses) * torch.softmax(ratio / self.temp, dim=0)
        return weights * (self.log_of(losses) if self.phi == "log" else losses)

    def _ratio(self, losses: Tensor, active: Tensor) -> Tensor:
        """Later over earlier mean loss of each task present ``(K,)``, NaN where too little has been seen."""
        if not isinstance(self.window, int):
            return self.last[active] / self.before[active]
        recent = torch.cat([self.recent[active, 1:], losses[:, None]], dim=1)
        self.recent[active] = recent
        return recent[:, self.window :].mean(dim=1) / recent[:, : self.window].mean(dim=1)

    def end_epoch(self, mean_losses: Tensor, ctx: Context) -> None:
        if self.epochs:
            seen = ~mean_losses.isnan()
            self.before[seen] = self.last[seen]
            self.last[seen] = mean_losses[seen]
