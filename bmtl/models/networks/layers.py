"""Layers whose initial weights come from a given generator."""

import math

import torch
from torch import Tensor, nn


def linear(inputs: int, outputs: int, generator: torch.Generator | None = None) -> nn.Linear:
    """A linear layer whose initial weights come from `generator`; None uses torch's global one, left alone otherwise."""
    if generator is None:
        return nn.Linear(inputs, outputs)
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def conv(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    generator: torch.Generator | None = None,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A convolution padded so that only its stride changes the size; weights ``Normal(0, 2 / fan in)``, biases 0.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        kernel: Side of its kernel, odd.
        generator: Draws the weights; None uses torch's global one.
        stride: Of the kernel.
        groups: Groups of channels that do not see each other.
        bias: Whether it has biases.

    Source:
        He et al. (2015), "Delving Deep into Rectifiers", equation 10.
    """
    layer = nn.utils.skip_init(
        nn.Conv2d, inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias
    )
    nn.init.normal_(layer.weight, 0.0, math.sqrt(2 * groups / (inputs * kernel**2)), generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, generator: torch.Generator | None = None, *, stride: int = 1
) -> nn.Sequential:
    """A convolution, batch norm and ReLU. The norm's shift replaces the convolution's bias."""
    return nn.Sequential(
        conv(inputs, outputs, kernel, generator, stride=stride, bias=False), MapNorm(outputs), nn.ReLU()
    )


class MapNorm(nn.BatchNorm2d):
    """Batch norm of maps that takes its running moments where a batch has one value a channel, which has no variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            moments = self.running_mean, self.running_var
            return nn.functional.batch_norm(x, *moments, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Maps ``(B, C, h, w)`` at the height and width of `like`, bilinearly; unchanged where they have it."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return nn.functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def kaiming(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draws weights of linear layers, convolutions and embeddings from He's normal, and sets their biases to 0.

    Source:
        He, Zhang, Ren & Sun (2015), "Delving Deep into Rectifiers".
    """
    for part in network.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Embedding):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            bias = getattr(part, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)


def of_width(h: Tensor, width: int) -> Tensor:
    """Features ``(..., width)`` that a trunk returned, as they are.

    Raises:
        ValueError: If they have another width than was given.
    """
    if h.shape[-1:] != (width,):
        raise ValueError(
            f"The trunk's width was given as {width}, and the trunk returns features of the shape {tuple(h.shape)}. "
            "The last number of it is the width to give; or change the trunk."
        )
    return h
