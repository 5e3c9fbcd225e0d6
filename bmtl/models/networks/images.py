"""What all trunks of images have in common: what comes in, what goes out, memory format and precision."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MEAN, STD = 0.45, 0.25
"""Of the brightness of photographs, all channels alike: images in [0, 1] are standardised by them."""


class ImageTrunk(nn.Module):
    """A network from images ``(B, C, H, W)`` in [0, 1] to a feature vector for each pixel ``(B, H, W, width)``.

    Channels come last in what goes out, so that heads of any kind see a pixel as they see a row: a linear head is a 1x1
    convolution. Any height and width will do.

    Attributes:
        width: Features of a pixel.
        own_features: Into how many equal parts the features fall, a target's own each; 1 where all targets see all.

    Args:
        network: From standardised images to ``(B, width, H, W)``.
        width: Features of a pixel.
        own_features: See above.
        dropout: Dropout of the features, for `MCDropout`; None for none.
        mean: Of brightness; images are standardised by it.
        std: Its standard deviation.
        channels_last: Store what is computed with channels last, which CPUs and tensor cores prefer. The result is the same
            up to rounding.
        bfloat16: Compute convolutions in bfloat16, the features included; heads and likelihoods stay in float32.

    Raises:
        ValueError: When called, if the inputs are not images.
    """

    def __init__(
        self,
        network: nn.Module,
        width: int,
        *,
        own_features: int = 1,
        dropout: nn.Module | None = None,
        mean: float = MEAN,
        std: float = STD,
        channels_last: bool = False,
        bfloat16: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.width, self.own_features = network, width, own_features
        self.dropout, self.mean, self.std = dropout, mean, std
        self.channels_last, self.in_bfloat16 = channels_last, bfloat16
        if channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.dim() != 4 or not x.is_floating_point():
            given = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"A trunk of images takes floats (B, C, H, W) in [0, 1], and {given} was given.")
        standard = (x - self.mean) / self.std
        if self.channels_last:
            standard = standard.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            maps = self.network(standard)
        h: Tensor = maps.to(x.dtype).movedim(1, -1)
        return h if self.dropout is None else self.dropout(h)


def check_images(name: str, inputs: Mapping[str, Any]) -> None:
    """Raises a ``ValueError`` unless inputs are described as images."""
    if inputs.get("kind") != "images":
        raise ValueError(f"The trunk {name!r} takes images, and these inputs are {dict(inputs)}.")
