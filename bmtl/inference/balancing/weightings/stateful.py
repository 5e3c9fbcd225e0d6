"""What weightings with state share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import Seed
from bmtl.inference.balancing.weightings.base import Weighting


class Seeded(Weighting):
    """A weighting that draws from its own generator; torch's global one is neither read nor moved."""

    def __init__(self, seed: Seed = 0) -> None:
        super().__init__()
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    def orders(self, size: int) -> Tensor:
        """One random order of `size` things a row ``(size, size)``."""
        return torch.rand(size, size, generator=self.generator, dtype=torch.float64).argsort(dim=1)

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


class PerTask(Weighting):
    """A weighting that keeps something for each task; a step sees that of the tasks present, and absent ones keep theirs.

    Attributes:
        names: The tasks. Without `bind` they are numbered at the first use.
    """

    names: tuple[str, ...] = ()

    def bind(self, names: Sequence[str]) -> None:
        if not self.names:
            self.names = tuple(names)
            self.allocate(len(self.names))

    def allocate(self, num_tasks: int) -> None:
        """Makes the buffers, for all tasks."""
        raise NotImplementedError(f"{type(self).__name__} must say what it keeps.")

    def present(self, ctx: Context) -> Tensor:
        """Which of all tasks are present, as indices ``(K,)``.

        Raises:
            ValueError: If the state belongs to another number of tasks.
        """
        if not self.names:
            self.bind([str(k) for k in range(len(ctx.active))])
        if len(ctx.active) != len(self.names):
            raise ValueError(
                f"This {self.name!r} keeps state for {len(self.names)} tasks, and {len(ctx.active)} were given. Make a new "
                "one."
            )
        return ctx.active.nonzero().squeeze(-1)


class PerGradient(PerTask):
    """A weighting that averages each task's gradient over steps: ``(K, P)`` numbers on the parameters' device.

    They are averaged by position, so the tasks must reach the same shared parameters in every step.
    """

    averages: Tensor | None = None  # (K_all, P); no buffer, since P is known in the first step only

    def rows(self, jacobian: Tensor | None, num_tasks: int) -> Tensor:
        """The averages ``(K_all, P)``, 0 at first.

        Raises:
            ValueError: If there are no gradients, or their number of parameters has changed.
        """
        if jacobian is None:
            raise ValueError(f"{self.name!r} works on the gradients themselves, which the geometry 'full' gives.")
        if self.averages is None:
            self.averages = jacobian.new_zeros(num_tasks, jacobian.shape[1])
        if self.averages.shape[1] != jacobian.shape[1]:
            raise ValueError(
                f"{self.name!r} averages the gradients of {self.averages.shape[1]} shared parameters, and in this step the "
                f"tasks reach {jacobian.shape[1]}. Mark the shared representation, h = bmtl.shared(trunk(x)), and let every "
                "task use all of it."
            )
        self.averages = self.averages.to(jacobian)
        return self.averages

    def get_extra_state(self) -> dict[str, Any]:
        return {"averages": self.averages}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.averages = None if state["averages"] is None else state["averages"].clone()
