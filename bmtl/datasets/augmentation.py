"""Random views of images with a label per pixel: part of an image enlarged, left and right exchanged, colours changed.

One augmentation serves the targets of all readers of scenes. What a label becomes depends on what it is:

    classes                 the nearest pixel's
    depth                   the nearest pixel's, divided by the scale: what looks larger is nearer
    inverse depth           the nearest pixel's, times the scale
    normals                 interpolated over pixels that have one and normalised; a flip negates x
    vectors to centroids    to the centroid of what is still seen of the object, in the new image's pixels

Source:
    Liu, Johns & Davison (2019), End-to-End Multi-Task Learning with Attention: scales 1, 1.2 and 1.5 and depth over the
    scale, which takes enlarging for coming nearer and is exact for the middle of a plane only. Differs from their code in
    normals, which are normalised again here, and masked by whether there is one, not by the sum of their components.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bmtl.datasets.batches import Batches
from bmtl.targets import Target
from bmtl.targets.instances import instance_numbers, instance_vectors


@dataclass(frozen=True)
class Crop:
    """The part of an image that becomes the new image, of the same size.

    Attributes:
        scale: How much it is enlarged, from 1.
        top: First row of the part.
        left: First column of the part.
        flip: Whether left and right are exchanged afterwards.
    """

    scale: float = 1.0
    top: int = 0
    left: int = 0
    flip: bool = False

    def rows(self, height: int) -> Tensor:
        """Where the new image's rows are in the old one ``(height,)``, between pixels too."""
        return self.top + (torch.arange(height, dtype=torch.float64) + 0.5) / self.scale - 0.5

    def columns(self, width: int) -> Tensor:
        """Where the new image's columns are in the old one ``(width,)``, between pixels too."""
        found = self.left + (torch.arange(width, dtype=torch.float64) + 0.5) / self.scale - 0.5
        return found.flip(0) if self.flip else found

    def nearest(self, values: Tensor) -> Tensor:
        """Values ``(H, W, ...)`` of the nearest pixels."""
        height, width = values.shape[:2]
        rows, columns = (torch.floor(at + 0.5).long() for at in (self.rows(height), self.columns(width)))
        return values[rows.clamp(0, height - 1).to(values.device)][:, columns.clamp(0, width - 1).to(values.device)]

    def interpolated(self, values: Tensor) -> Tensor:
        """Values ``(H, W, C)`` between pixels, in proportion to distance along each axis."""
        height, width = values.shape[:2]
        down, across = self.rows(height).clamp(0, height - 1), self.columns(width).clamp(0, width - 1)
        total = torch.zeros_like(values)
        for rows, row_shares in _neighbours(down, height):
            for columns, shares in _neighbours(across, width):
                weight = (row_shares[:, None] * shares).to(values)[..., None]
                total += weight * values[rows.to(values.device)][:, columns.to(values.device)]
        return total


class Kind(Protocol):
    """Transforms the labels of one image."""

    def __call__(self, labels: Tensor, crop: Crop) -> Tensor:
        """New labels, of the same shape ``(H, W, ...)``."""
        ...


def same(labels: Tensor, crop: Crop) -> Tensor:
    """Labels ``(H, W)`` that are the same wherever they are seen, such as classes."""
    return crop.nearest(labels)


def depth(labels: Tensor, crop: Crop) -> Tensor:
    """Depth ``(H, W)``."""
    return crop.nearest(labels) / crop.scale


def inverse_depth(labels: Tensor, crop: Crop) -> Tensor:
    """Inverse depth, and distances in pixels ``(H, W)``."""
    return crop.nearest(labels) * crop.scale


def normals(labels: Tensor, crop: Crop) -> Tensor:
    """Unit vectors ``(H, W, 3)`` in the camera's axes."""
    nearest = crop.nearest(labels)
    if crop.scale != 1:
        between = crop.interpolated(labels.nan_to_num())
        length = between.norm(dim=-1, keepdim=True)
        # Where neighbours cancel, the nearest is as good as any.
        nearest = torch.where(nearest.isnan() | (length < 1e-3), nearest, between / length.clamp(min=1e-3))
    return nearest * nearest.new_tensor([-1.0, 1, 1]) if crop.flip else nearest


def centroids(labels: Tensor, crop: Crop) -> Tensor:
    """Vectors ``(H, W, 2)`` from pixels to centroids, in pixels."""
    numbers = crop.nearest(torch.from_numpy(instance_numbers(labels.detach().cpu().double().numpy())))
    return torch.from_numpy(instance_vectors(numbers.numpy())).to(labels)


KINDS: Mapping[str, Kind] = {
    "semantic": same,
    "depth": depth,
    "inverse_depth": inverse_depth,
    "boundary_distance": inverse_depth,
    "normal": normals,
    "instance": centroids,
}
"""By the targets' names in `bmtl.datasets.scenes`."""


class Augmentation:
    """A random view of each image of a batch.

    Args:
        scales: One is drawn for each image; the part that is enlarged is anywhere.
        flip: Left and right are exchanged in every second image.
        colour: Brightness, contrast and saturation are multiplied by factors from ``1 - colour`` to ``1 + colour``.
        kinds: Target -> what becomes of its labels, for targets of other names.

    Raises:
        ValueError: If a scale is below 1, or `colour` is not from 0 to below 1.
    """

    def __init__(
        self,
        scales: Sequence[float] = (1.0, 1.2, 1.5),
        flip: bool = True,
        colour: float = 0.2,
        kinds: Mapping[str, Kind] | None = None,
    ) -> None:
        if not scales or not all(1 <= scale < float("inf") for scale in scales):
            raise ValueError(f"Scales enlarge: they are numbers from 1; got {list(scales)}.")
        if not 0 <= colour < 1:
            raise ValueError(f"colour is a proportion from 0 to below 1; got {colour!r}.")
        self.scales, self.flip, self.colour = tuple(map(float, scales)), flip, colour
        self.kinds = {**KINDS, **(kinds or {})}

    def check(self, targets: Mapping[str, Target]) -> None:
        """Refuses targets that it cannot augment.

        Raises:
            ValueError: If it is not known what becomes of a target's labels, or they are scaled: metres and pixels are then
                no longer known.
        """
        self._check_names(targets)
        scaled = [name for name, target in targets.items() if not target.scaler.is_identity]
        if scaled:
            raise ValueError(
                f"Augmentation changes labels in metres and pixels, and those of {', '.join(map(repr, scaled))} are scaled. "
                "Read the data with scale='none'."
            )

    def __call__(
        self, x: Tensor, y: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A random view of each image.

        Args:
            x: Images ``(B, C, H, W)`` in [0, 1].
            y: Target -> labels ``(B, H, W, ...)`` in units.
            generator: On the CPU; what is drawn is the same on any device.

        Raises:
            ValueError: If it is not known what becomes of a target's labels.
        """
        self._check_names(y)
        height, width = x.shape[-2:]
        crops = [self.draw(height, width, generator) for _ in range(len(x))]
        images = torch.stack([_image(image, crop) for image, crop in zip(x, crops, strict=True)])
        labels = {
            name: torch.stack([self.kinds[name](image, crop) for image, crop in zip(values, crops, strict=True)])
            for name, values in y.items()
        }
        return self._coloured(images, generator), labels

    def draw(self, height: int, width: int, generator: torch.Generator) -> Crop:
        """The view of one image."""
        scale = self.scales[int(torch.randint(len(self.scales), (), generator=generator))]
        free = [int(size - size / scale) for size in (height, width)]
        top, left = (int(torch.randint(most + 1, (), generator=generator)) for most in free)
        flip = self.flip and bool(torch.randint(2, (), generator=generator))
        return Crop(scale, top, left, flip)

    def _coloured(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if not self.colour:
            return images
        draws = 1 + self.colour * (2 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1)
        brightness, contrast, saturation = draws.to(images)
        images = images * brightness
        images = images.mean((1, 2, 3), keepdim=True).lerp(images, contrast)
        return images.mean(1, keepdim=True).lerp(images, saturation).clamp(0, 1)

    def _check_names(self, targets: Mapping[str, Any]) -> None:
        unknown = [name for name in targets if name not in self.kinds]
        if unknown:
            raise ValueError(
                f"It is not known what becomes of the labels of {', '.join(map(repr, unknown))} in another view; give "
                f"kinds={{{unknown[0]!r}: function}}. Known are {', '.join(self.kinds)}."
            )


class AugmentedBatches:
    """Batches with a random view of each image.

    Views follow from the state of the batches' generator at the beginning of an epoch and from a batch's place in it: who
    seeds or resumes the batches has seeded or resumed the views.

    Args:
        batches: The loader whose batches are augmented.
        augmentation: What is drawn.
    """

    def __init__(self, batches: Batches, augmentation: Augmentation) -> None:
        self.batches, self.augmentation = batches, augmentation

    @property
    def generator(self) -> torch.Generator:
        """The batches' own."""
        return self.batches.generator

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """One epoch, or what is left of the one whose state was loaded."""
        for x, y in self.batches:
            yield self.augmentation(x, y, _of_place(*self.batches.place))

    def state_dict(self) -> dict[str, Any]:
        """The loader's place, that of the batches."""
        return self.batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: If the state belongs to other data or another batch size.
        """
        self.batches.load_state_dict(state)


def _of_place(epoch: Tensor, batch: int) -> torch.Generator:
    """A generator for one batch of an epoch."""
    generator = torch.Generator()
    generator.set_state(epoch)
    seeds = torch.randint(2**62, (2,), generator=generator).tolist()
    return generator.manual_seed((seeds[0] + batch * (2 * seeds[1] + 1)) % 2**63)


def _image(image: Tensor, crop: Crop) -> Tensor:
    """The new image ``(C, H, W)``."""
    values = image.movedim(0, -1)
    return (crop.nearest(values) if crop.scale == 1 else crop.interpolated(values)).movedim(-1, 0)


def _neighbours(at: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The two pixels next to each place along an axis, with their shares."""
    first = at.floor().clamp(max=size - 1)
    share = at - first
    yield first.long(), 1 - share
    yield (first + 1).clamp(max=size - 1).long(), share
