"""Scale-invariant losses."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.transforms.base import Transform

_FIRST_STEPS = 10  # a spread over fewer is a matter of chance


class SI(Transform):
    """The sum of the losses' logarithms: a factor on a loss changes nothing.

    With ``scale="spread"`` a loss is divided by its standard deviation over recent steps instead (an exponential average
    with factor 0.99, held constant in the gradient): free of scale *and* of shift, and so at home with losses that can be
    negative, as densities are. In the first ten steps the loss's size replaces its spread.

    Source: Navon et al. (2022), "Multi-task learning as a bargaining game", baseline SI; the paradigm that IGB builds on.
    Libraries that take the logarithm regardless return NaN at a loss of 0 or less; here a loss of 0 has the weight 0, and for
    a negative one `NonPositiveLoss` names the task.

    Args:
        scale: "log" or "spread".
        bound: For "log", what no loss is below; it is subtracted first.
    """

    name = "si"
    paper = "Navon et al. 2022"
    cost = "1 backward"

    mean: Tensor
    variance: Tensor
    largest: Tensor
    steps: Tensor

    def __init__(self, scale: Literal["log", "spread"] = "log", bound: float = 0.0) -> None:
        super().__init__(bound)
        self.scale = scale
        self.domain = "nonnegative" if scale == "log" else "real"

    def bind(self, names: Sequence[str]) -> None:
        if self.scale == "spread" and "mean" not in self._buffers:
            for name in ("mean", "variance", "largest", "steps"):
                self.register_buffer(name, torch.zeros(len(names), dtype=torch.float64))

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        if self.scale == "log":
            return self.log_of(losses)
        return losses / self._spread(losses.detach(), ctx.active)

    def _spread(self, losses: Tensor, active: Tensor) -> Tensor:
        """Standard deviation of each task's loss over recent steps ``(K,)``; its size in the first ten.

        A loss that has stopped moving has no spread to be measured by: never less than a thousandth of the largest so far.
        """
        self.steps[active] += 1
        steps = self.steps[active]
        # The averages' weight on their start is taken out, as Adam does. Moved by differences from the mean: the mean of
        # squares less the square of the mean would cancel for a loss that is large compared with its spread.
        weight = torch.where(steps > 1, 0.01 / (1 - 0.99**steps), 1.0)
        difference = losses - self.mean[active]
        self.mean[active] += weight * difference
        self.variance[active] = (1 - weight) * (self.variance[active] + weight * difference.square())
        spread = self.variance[active].sqrt()
        late = steps > _FIRST_STEPS
        self.largest[active] = torch.where(late, torch.maximum(spread, self.largest[active]), self.largest[active])
        tiny = 1e-12 * losses.abs().clamp_min(1e-300)
        return torch.where(late, torch.maximum(spread, 1e-3 * self.largest[active]), losses.abs()).clamp_min(tiny)
