"""The base class of mixing weights."""

from torch import Tensor, nn


class Mixing(nn.Module):
    """Weights ``(T, 1, T - 1)`` of each task's others, in their order; rows sum to 1.

    Guide and program call `sample_guide` and `weights` inside the task plate, with the number of steps taken ``()``.

    Args:
        tasks: Number of tasks T, from 2.

    Attributes:
        drawn: Whether there is a site of which they are drawn.
    """

    drawn = True

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.shape = (tasks, 1, tasks - 1)

    def sample_guide(self, site: str, step: Tensor) -> None:
        """Draws the weights in the guide, where they are latent."""

    def weights(self, site: str, step: Tensor) -> Tensor:
        """The weights in the program, drawn where they are latent."""
        raise NotImplementedError

    def from_site(self, value: Tensor) -> Tensor:
        """The weights of a value of the site."""
        return value

    def expected(self) -> Tensor:
        """The weights' mean under the guide, ``(T, T - 1)``, without a draw."""
        raise NotImplementedError
