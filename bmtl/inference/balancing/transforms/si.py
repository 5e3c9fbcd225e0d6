"""Scale-invariant losses."""

from torch import Tensor

from bmtl.inference.balancing.base import Context, Transform


class SI(Transform):
    """The sum of the losses' logarithms: a factor on a loss changes nothing.

    Source: Navon et al. (2022), "Multi-task learning as a bargaining game", baseline SI; the paradigm that IGB builds on.
    Every loss must be positive; libraries that take the logarithm regardless return NaN there, and here
    `NonPositiveLoss` names the task.
    """

    name = "si"
    paper = "Navon et al. 2022"
    cost = "1 backward"
    positive = True

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        return losses.log()
