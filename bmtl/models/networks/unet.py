"""A small U-net: the default trunk of images, cheap enough for a CPU."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bmtl.models.networks.dropout import Dropout
from bmtl.models.networks.images import ImageTrunk, check_images
from bmtl.models.networks.layers import conv_norm, resized


class UNet(nn.Module):
    """Levels of two convolutions at halved sizes, and back with the maps of each level joined in.

    Args:
        widths: Channels of each level, the finest first.
        channels: Of the images.
        stride: Of the first convolution. At 2 the finest level is at half the size, and what comes out is resized: a
            quarter of the work.
        generator: Draws the initial weights; None uses torch's global generator.

    Raises:
        ValueError: If there is no level, or a number is below 1.

    Source:
        Ronneberger, Fischer & Brox (2015), "U-Net"; here padded, with batch norm, and bilinear instead of transposed
        convolutions.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        channels: int = 3,
        stride: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not widths or min(*widths, stride) < 1:
            raise ValueError(
                f"A U-net has one or more levels of 1 channel or more; {tuple(widths)}, stride {stride} given."
            )
        down, up = [], []
        for i, (wide, narrow) in enumerate(zip((channels, *widths), widths, strict=False)):
            down.append(_level(wide, narrow, generator, stride=stride if i == 0 else 1))
        for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up.append(_level(coarse + fine, fine, generator))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)

    def forward(self, x: Tensor) -> Tensor:
        """From images ``(B, channels, H, W)`` to ``(B, widths[0], H, W)``."""
        levels, h = [], x
        for i, level in enumerate(self.down):
            h = level(_halved(h) if i else h)
            levels.append(h)
        for level, fine in zip(self.up, levels[-2::-1], strict=True):
            h = level(torch.cat([resized(h, fine), fine], 1))
        return resized(h, x)


def unet_trunk(
    inputs: Mapping[str, Any],
    *,
    widths: Sequence[int],
    generator: torch.Generator,
    stride: int = 2,
    mc_dropout: float = 0.0,
    channels_last: bool = False,
    bfloat16: bool = False,
) -> ImageTrunk:
    """The trunk "unet" of comparisons: `UNet` on images.

    Args:
        inputs: Description of the images.
        widths: As for `UNet`.
        generator: As for `UNet`.
        stride: As for `UNet`; 2 by default, for a quarter of the work.
        mc_dropout: Rate of `Dropout` of whole feature maps, in predictions too: after the coarsest level, and before the
            heads.
        channels_last: As for `ImageTrunk`.
        bfloat16: As for `ImageTrunk`.

    Raises:
        ValueError: If the inputs are not images; as `UNet`.
    """
    check_images("unet", inputs)
    network = UNet(widths, channels=inputs.get("channels", 3), stride=stride, generator=generator)
    last = None
    if mc_dropout:
        network.down[-1] = nn.Sequential(network.down[-1], MapDropout(widths[-1], mc_dropout, "dropout_coarse"))
        last = Dropout(widths[0], mc_dropout, "dropout_head")
    return ImageTrunk(network, widths[0], dropout=last, channels_last=channels_last, bfloat16=bfloat16)


class MapDropout(nn.Module):
    """`Dropout` of whole maps ``(B, C, H, W)``.

    Args:
        channels: C.
        rate: Probability of dropping one.
        site: As for `Dropout`.
    """

    def __init__(self, channels: int, rate: float, site: str) -> None:
        super().__init__()
        self.of_channel = Dropout(channels, rate, site)

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = self.of_channel(x.new_ones(len(x), x.shape[1]))
        return x * kept[..., None, None]


def _level(inputs: int, outputs: int, generator: torch.Generator | None, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(inputs, outputs, 3, generator, stride=stride), conv_norm(outputs, outputs, 3, generator)
    )


def _halved(x: Tensor) -> Tensor:
    """At half the size, rounded up, so that one pixel stays one."""
    return nn.functional.max_pool2d(x, 2, ceil_mode=True)
