"""SegNet and the multi-task attention network on it, as the published comparisons on NYUv2 use them.

Source: Badrinarayanan, Kendall & Cipolla (2017), "SegNet"; Liu, Johns & Davison (2019), "End-to-End Multi-Task Learning with
Attention" (MTAN). Numbers of layers and channels are those of MTAN's published code, which LibMTL, Nash-MTL and IGB took
over. Weights start by He's rule, where that code has Xavier's: batch norm follows each convolution but the last. Sizes need
be no multiple of 32.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.networks.dropout import Dropout
from bmtl.models.networks.images import ImageTrunk, check_images
from bmtl.models.networks.layers import MapNorm, conv, conv_norm, resized

FILTERS = (64, 128, 256, 512, 512)
"""Channels of the five stages at full width."""


def filters(width: float) -> tuple[int, ...]:
    """The channels of the stages at a share of the full width.

    Raises:
        ValueError: If it is not positive.
    """
    if not 0 < width <= 4:
        raise ValueError(f"width is a share of SegNet's full width, above 0 and up to 4, and {width} was given.")
    return tuple(max(1, round(width * channels)) for channels in FILTERS)


class SegNet(nn.Module):
    """Five stages down with max pooling, five up with the pooled places: ``(B, 3, H, W)`` to ``(B, F, H, W)``.

    A stage is a first convolution and a second part of one (the two finest stages) or two, each with batch norm and ReLU.

    Args:
        channels: Of the stages, the finest first.
        seen: Channels of the images.
        generator: Draws the initial weights; None uses torch's global generator.
    """

    def __init__(
        self, channels: Sequence[int] = FILTERS, *, seen: int = 3, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        outer = (seen, *channels[:-1])
        self.down_first = nn.ModuleList(conv_norm(a, b, 3, generator) for a, b in zip(outer, channels, strict=True))
        self.down_second = nn.ModuleList(_second(i, b, generator) for i, b in enumerate(channels))
        # Upwards a stage ends with the channels of the next finer one; the finest keeps its own.
        finer = (channels[0], *channels[:-1])
        self.up_first = nn.ModuleList(conv_norm(b, a, 3, generator) for a, b in zip(finer, channels, strict=True))
        self.up_second = nn.ModuleList(_second(i, a, generator) for i, a in enumerate(finer))

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x).up[-1][2]

    def stages(self, x: Tensor) -> "Stages":
        """What each stage computes."""
        down, places, sizes, h = [], [], [], x
        for first, second in zip(self.down_first, self.down_second, strict=True):
            a = first(h)
            b = second(a)
            down.append((a, b))
            sizes.append(b.shape[-2:])
            h, where = _pooled(b)
            places.append(where)
        up = []
        for i in reversed(range(len(down))):
            where = places[i]
            wide = h if where is None else F.max_unpool2d(h, where, [2, 2], output_size=sizes[i])
            a = self.up_first[i](wide)
            h = self.up_second[i](a)
            up.append((wide, a, h))
        return Stages(down, up)


class Stages:
    """What a SegNet computes.

    Attributes:
        down: First and second maps of each stage, the finest first.
        up: Unpooled, first and second maps of each stage, the coarsest first.
    """

    def __init__(self, down: list[tuple[Tensor, Tensor]], up: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        self.down, self.up = down, up


class MTAN(nn.Module):
    """A shared SegNet, and for each task gates on the maps of every stage: ``(B, 3, H, W)`` to ``(B, tasks * F, H, W)``.

    A gate is 1x1, batch norm, ReLU, 1x1, batch norm, sigmoid, of the stage's first maps (upwards: of the unpooled ones) and
    the task's maps of the stage before; it multiplies the stage's second maps. The 3x3 convolution after the gates of a
    stage is shared between the tasks, as in the published code.

    Args:
        tasks: How many.
        channels: Of the stages, the finest first.
        seen: Channels of the images.
        generator: Draws the initial weights; None uses torch's global generator.

    Raises:
        ValueError: If there is no task.
    """

    def __init__(
        self,
        tasks: int,
        channels: Sequence[int] = FILTERS,
        *,
        seen: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if tasks < 1:
            raise ValueError(f"tasks is a number of tasks, from 1, and {tasks} was given.")
        self.shared = SegNet(channels, seen=seen, generator=generator)
        finer, coarser = (channels[0], *channels[:-1]), (*channels[1:], channels[-1])
        before = (0, *channels[1:])  # channels of the task's maps that come from the stage before, downwards
        self.down_gates = nn.ModuleList(
            nn.ModuleList(_gate(c + b, c, generator) for c, b in zip(channels, before, strict=True))
            for _ in range(tasks)
        )
        self.up_gates = nn.ModuleList(
            nn.ModuleList(_gate(c + f, f, generator) for c, f in zip(channels, finer, strict=True))
            for _ in range(tasks)
        )
        self.down_after = nn.ModuleList(conv_norm(c, d, 3, generator) for c, d in zip(channels, coarser, strict=True))
        self.up_before = nn.ModuleList(conv_norm(c, f, 3, generator) for c, f in zip(channels, finer, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        stages = self.shared.stages(x)
        return torch.cat(
            [self._of_task(stages, *gates) for gates in zip(self.down_gates, self.up_gates, strict=True)], 1
        )

    def _of_task(self, stages: Stages, down: nn.Module, up: nn.Module) -> Tensor:
        h: Tensor | None = None
        for (first, second), gate, after in zip(stages.down, down, self.down_after, strict=True):  # type: ignore[call-overload]
            seen = first if h is None else torch.cat([first, h], 1)
            h = _pooled(after(gate(seen) * second))[0]
        assert h is not None
        for i, (wide, _, second) in zip(reversed(range(len(stages.up))), stages.up, strict=True):
            own = self.up_before[i](resized(h, wide))
            h = up[i](torch.cat([wide, own], 1)) * second  # type: ignore[index]
        return h


def segnet_trunk(
    inputs: Mapping[str, Any],
    *,
    generator: torch.Generator,
    widths: Sequence[int] = (),
    width: float = 0.25,
    mc_dropout: float = 0.0,
    channels_last: bool = False,
    bfloat16: bool = False,
) -> ImageTrunk:
    """The trunk "segnet" of comparisons.

    Args:
        inputs: Description of the images.
        generator: Draws the initial weights.
        widths: Not used: SegNet's shape is its own.
        width: Share of the full width; a quarter trains on a CPU.
        mc_dropout: Rate of `Dropout` of the features before the heads, in predictions too.
        channels_last: As for `ImageTrunk`.
        bfloat16: As for `ImageTrunk`.

    Raises:
        ValueError: If the inputs are not images, or the width is not positive.
    """
    check_images("segnet", inputs)
    channels = filters(width)
    last = Dropout(channels[0], mc_dropout, "dropout_head") if mc_dropout else None
    network = SegNet(channels, seen=inputs.get("channels", 3), generator=generator)
    return ImageTrunk(network, channels[0], dropout=last, channels_last=channels_last, bfloat16=bfloat16)


def mtan_trunk(
    inputs: Mapping[str, Any],
    *,
    generator: torch.Generator,
    targets: Sequence[str],
    widths: Sequence[int] = (),
    width: float = 0.25,
    channels_last: bool = False,
    bfloat16: bool = False,
) -> ImageTrunk:
    """The trunk "mtan" of comparisons: the features of a pixel are those of each target, one after the other.

    Each target's head sees its own. All parameters up to there count as shared, as in Nash-MTL's published code.

    Args:
        inputs: Description of the images.
        generator: Draws the initial weights.
        targets: Names of the targets.
        widths: Not used.
        width: Share of the full width.
        channels_last: As for `ImageTrunk`.
        bfloat16: As for `ImageTrunk`.

    Raises:
        ValueError: If the inputs are not images, or the width is not positive.
    """
    check_images("mtan", inputs)
    channels = filters(width)
    return ImageTrunk(
        MTAN(len(targets), channels, seen=inputs.get("channels", 3), generator=generator),
        len(targets) * channels[0],
        own_features=len(targets),
        channels_last=channels_last,
        bfloat16=bfloat16,
    )


def _second(stage: int, channels: int, generator: torch.Generator | None) -> nn.Sequential:
    """The second part of a stage: one convolution in the two finest, two in the others."""
    count = 1 if stage < 2 else 2
    return nn.Sequential(*(conv_norm(channels, channels, 3, generator) for _ in range(count)))


def _gate(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(inputs, outputs, 1, generator),
        conv(outputs, outputs, 1, generator, bias=False),
        MapNorm(outputs),
        nn.Sigmoid(),
    )


def _pooled(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """At half the size, rounded down, with the places of the largest values; unchanged where a side has one pixel."""
    if min(x.shape[-2:]) < 2:
        return x, None
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    return pooled, places
