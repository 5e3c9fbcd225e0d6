"""What all representations have in common."""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from bmtl.models.rows import Rows


class Representation(nn.Module):
    """What the heads see of a row, marked as shared: in model or guide, by `bmtl.shared`.

    Attributes:
        width: Its width.
        has_latents: Whether it has latents, and so a part in the guide.

    Args:
        trunk: Maps inputs of B rows to ``(B, width)``.
        width: Width of the trunk's output.
        generator: Draws initial weights; None uses torch's global generator.
    """

    has_latents: ClassVar[bool] = False

    def __init__(self, trunk: nn.Module, width: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.trunk, self.width = trunk, width

    def forward(self, rows: Rows) -> Tensor:
        """The representation ``(..., B, width)`` of rows, in the model."""
        raise NotImplementedError

    def guide(self, groups: Iterable[Rows]) -> None:
        """Samples its latents, in the guide.

        Args:
            groups: The batch's rows; each opens its plate when it is asked for.
        """
