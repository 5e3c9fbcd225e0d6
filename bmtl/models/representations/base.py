"""The base class of representations."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bmtl.models.rows import Rows


class Representation(nn.Module):
    """The features of a row that the heads take, marked as shared: in model or guide, by `bmtl.shared`.

    Attributes:
        width: Its width.
        has_latents: Whether it has latents, and so a part in the guide.
        has_row_latents: Whether some of them are rows' own.
        may_be_apart: Whether, in training, a row may be seen by a part of the trunk, where the trunk says how by a method
            ``apart``, which marks what is shared itself, see `bmtl.models.networks.Tabular`.

    Args:
        trunk: Maps inputs of B rows to ``(B, width)``.
        width: Width of the trunk's output.
        generator: Draws initial weights; None uses torch's global generator.
    """

    has_latents: ClassVar[bool] = False
    has_row_latents: ClassVar[bool] = False
    may_be_apart: bool = False

    def __init__(self, trunk: nn.Module, width: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.trunk, self.width = trunk, width

    def forward(self, rows: Rows) -> Tensor:
        """The representation ``(..., B, width)`` of rows, in the model."""
        raise NotImplementedError

    def guide_first(self) -> None:
        """Samples, in the guide, the latents that are no row's."""

    def guide(self, rows: Rows) -> None:
        """Samples, in the guide, the latents of rows, before those of their targets."""
