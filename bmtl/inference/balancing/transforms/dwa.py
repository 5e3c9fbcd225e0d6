"""Dynamic weight averaging."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Transform


class DWA(Transform):
    """Weighs tasks by how slowly their losses fell lately (dynamic weight average, Liu, Johns & Davison 2019).

    ``l_k = lambda_k phi(L_k)``, ``lambda = K softmax(r / temp)``, K the tasks present, and r_k the ratio of the task's
    mean losses in the last two epochs; 1 until there are two.

    With a whole number as `window`, r_k is the mean over the last that many losses of the task, the present one included,
    over the mean of as many before them: nash-mtl's variant (25). Differs from nash-mtl's in that r_k is 1 until both
    windows are full (there, they are filled with ones), and in the sum over tasks (there, the mean).

    Args:
        temp: Temperature of the softmax: the higher, the more alike the weights.
        window: "epoch", or a number of steps.
        phi: "id" weighs the losses, "log" their logarithms.
        bound: What every loss must exceed; it is subtracted first, in the ratios too.

    Raises:
        ValueError: If `temp` or `window` is not positive, or `phi` is unknown.
    """

    name = "dwa"
    paper = "Liu et al. 2019"
    cost = "1 backward"
    positive = True  # a ratio of losses of either sign says nothing

    last: Tensor
    before: Tensor
    recent: Tensor

    def __init__(
        self,
        temp: float = 2.0,
        window: Literal["epoch"] | int = "epoch",
        phi: Literal["id", "log"] = "id",
        bound: float = 0.0,
    ) -> None:
        super().__init__(bound)
        if not temp > 0:
            raise ValueError(f"temp is a positive temperature, and {temp} was given.")
        if window != "epoch" and not (isinstance(window, int) and window >= 1):
            raise ValueError(f"window is 'epoch' or a number of steps of at least 1, and {window!r} was given.")
        if phi not in ("id", "log"):
            raise ValueError(f"phi is 'id' or 'log', and {phi!r} was given.")
        self.temp, self.window, self.phi = temp, window, phi
        self.epochs = window == "epoch"

    def options(self) -> dict[str, object]:
        options = {
            "temp": (self.temp, 2.0),
            "window": (self.window, "epoch"),
            "phi": (self.phi, "id"),
            "bound": (self.bound, 0.0),
        }
        return {name: value for name, (value, default) in options.items() if value != default}

    def bind(self, names: Sequence[str]) -> None:
        unknown = torch.full((len(names),), torch.nan, dtype=torch.float64)
        if isinstance(self.window, int) and "recent" not in self._buffers:
            self.register_buffer("recent", unknown[:, None].repeat(1, 2 * self.window))  # (K_all, 2 window)
        elif self.epochs and "last" not in self._buffers:
            self.register_buffer("last", unknown.clone())
            self.register_buffer("before", unknown.clone())

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        ratio = self._ratio(losses.detach(), ctx.active).nan_to_num(nan=1.0)
        weights = len(losses) * torch.softmax(ratio / self.temp, dim=0)
        return weights * (losses.log() if self.phi == "log" else losses)

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
