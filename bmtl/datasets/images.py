"""Images as inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image, ImageOps
from torch import Tensor

from bmtl.datasets.augmentation import Augmentation
from bmtl.datasets.input_kind import Inputs, register_kind

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff")
"""Of image files in a folder."""


@register_kind
@dataclass(frozen=True, eq=False)
class Images(Inputs):
    """Images ``(N, H, W, C)``, of one size; a model sees them as floats ``(B, C, H, W)`` in [0, 1].

    Args:
        images: Bytes from 0 to 255, or floats in [0, 1].

    Raises:
        ValueError: If they are neither.
    """

    kind: ClassVar[str] = "images"
    images: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        images = np.asarray(self.images)
        if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
            raise ValueError(
                f"Images have the shape (N, H, W, C), C being 3, or 1 for grey ones; got {images.shape}. Move channels to "
                "the end, and resize images to one size."
            )
        if images.dtype != np.uint8:
            if images.dtype.kind != "f" or not (np.isfinite(images).all() and _within(images, 0.0, 1.0)):
                raise ValueError(
                    f"Images are bytes from 0 to 255 (uint8) or floats in [0, 1]; got {images.dtype}"
                    f"{_range(images)}. Divide bytes that are stored as floats by 255."
                )
            images = images.astype(np.float32)
        images = images.copy() if images.flags.writeable else images
        images.setflags(write=False)
        object.__setattr__(self, "images", images)

    def __len__(self) -> int:
        return len(self.images)

    def tensors(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1]."""
        return _as_model_sees(self.images[rows], dtype)

    def pieces(self) -> Iterable[tuple[str, np.ndarray]]:
        yield "images", self.images

    def describe(self) -> dict[str, Any]:
        """``kind``, ``shape`` of an image (C, H, W), and ``channels``."""
        height, width, channels = self.images.shape[1:]
        return {"kind": self.kind, "shape": [channels, height, width], "channels": channels}

    def pictures(self, rows: np.ndarray) -> np.ndarray:
        images = self.images[rows]
        return images if images.dtype == np.uint8 else np.round(255 * images).astype(np.uint8)

    def budget(self) -> dict[str, Any]:
        """Few images at a time, and the channels of a small U-net's levels."""
        return {"batch_size": 8, "widths": (16, 24, 32, 64), "draws": 10}

    def views(self) -> Augmentation:
        """Scale and crop, flip and colour."""
        return Augmentation()

    def lines(self) -> list[str]:
        height, width, channels = self.images.shape[1:]
        return [f"{len(self):,} images of {height} x {width} pixels, {'colour' if channels == 3 else 'grey'}"]

    def prepare(self, raw: ArrayLike | Sequence[np.ndarray], dtype: torch.dtype = torch.float32) -> Tensor:
        """New images as a model sees them ``(M, C, H, W)``.

        Args:
            raw: Images ``(M, H, W, C)`` of the channels of those that the model was trained on, bytes or floats in [0, 1].
                Their size may be another: what the model makes of it depends on the model.
            dtype: Of the result.

        Raises:
            ValueError: If they are not images, differ in size, or have other channels.
        """
        if isinstance(raw, list | tuple):
            raw = stacked([np.asarray(image) for image in raw], [f"image {i}" for i in range(len(raw))])
        images = Images(np.asarray(raw))
        if images.images.shape[-1] != self.images.shape[-1]:
            raise ValueError(
                f"The model was trained on images of {self.images.shape[-1]} channels, and {images.images.shape[-1]} were "
                "given."
            )
        return images.tensors(np.arange(len(images)), dtype)

    def read(self, path: str | Path) -> np.ndarray:
        """The images ``(M, H, W, C)`` of a folder, in the order of their files' names, or of one file."""
        return read_images(path, self.images.shape[-1])[0]

    def names(self, path: str | Path) -> list[str]:
        return [file.stem for file in read_images(path, self.images.shape[-1])[1]]

    def state(self) -> dict[str, Any]:
        return {"shape": list(self.images.shape[1:])}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(np.zeros((0, *state["shape"]), dtype=np.uint8))


def read_images(path: str | Path, channels: int = 3) -> tuple[np.ndarray, list[Path]]:
    """Images of a folder in the order of their files' names, or of one file.

    Args:
        path: A folder or a file.
        channels: 3 for colour, 1 for grey.

    Returns:
        ``(M, H, W, channels)`` uint8, and their files.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If there is no image in it, one cannot be read, or they differ in size.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}.")
    files = sorted(file for file in path.iterdir() if _is_image(file)) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"There is no image in {path}; expected files that end with {', '.join(SUFFIXES)}.")
    images = (read_image(file, "RGB" if channels == 3 else "L") for file in files)
    return stacked((image.reshape(*image.shape[:2], channels) for image in images), files), files


def _is_image(file: Path) -> bool:
    """By its name; hidden files, such as macOS's ``._x.png``, are none."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def read_image(path: Path, mode: Literal["RGB", "L"] | None = None) -> np.ndarray:
    """One image file ``(H, W)`` or ``(H, W, C)``.

    Args:
        path: Of the file.
        mode: ``"RGB"`` or ``"L"`` for bytes in colour or grey, as a viewer shows the image: turned as a camera says, and
            16 bits as 8. By default the file's own numbers, 16-bit ones included.

    Raises:
        ValueError: If it cannot be read; with a mode also if it has several pages, transparent pixels or numbers that are no
            brightness.
    """
    try:
        with Image.open(path) as image:
            if mode is None:
                return np.asarray(image)
            if (pages := getattr(image, "n_frames", 1)) > 1:
                raise _UnclearError(f"{path} has {pages} pages. Save one of them, or each as a file.")
            return np.asarray(_shown(image, path).convert(mode))
    except _UnclearError:
        raise
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:  # what Pillow raises for damaged files
        raise ValueError(f"{path} cannot be read as an image ({type(error).__name__}: {error}).") from error


class _UnclearError(ValueError):
    """An image that can be read in more than one way."""


def _shown(image: Image.Image, path: Path) -> Image.Image:
    """An image as a viewer shows it, in bytes."""
    of_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        if np.asarray(opaque.getchannel("A")).min() < 255:
            raise _UnclearError(
                f"{path} has transparent pixels, whose colours a viewer does not show. Put the image on a background, and "
                "save it without an alpha channel."
            )
        return opaque
    if of_16_bits:
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        low, high = image.getextrema()
        raise _UnclearError(
            f"{path} has 32-bit numbers, from {low:g} to {high:g}, whose brightness is not known. Save it with bytes from "
            "0 to 255."
        )
    return image


def stacked(images: Iterable[np.ndarray], names: Sequence[object]) -> np.ndarray:
    """Images of one size as one array, the images first; they are in memory once.

    Args:
        images: One or more, which may be read one by one.
        names: Of each, for messages.

    Raises:
        ValueError: If they differ in size or type; names two that do.
    """
    found = np.empty(0)
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        if row == 0:
            found = np.empty((len(names), *image.shape), image.dtype)
        if image.shape != found.shape[1:]:
            raise ValueError(
                f"Images have one size: {names[0]} is {_size(found.shape[1:])}, and {name} is {_size(image.shape)}. Resize "
                "or crop them."
            )
        if image.dtype != found.dtype:  # 0.5 among bytes would be 0
            raise ValueError(
                f"Images have one type: {names[0]} is {found.dtype}, and {name} is {image.dtype}. Give all as bytes from 0 "
                "to 255 (uint8), or all as floats of one precision in [0, 1]."
            )
        found[row] = image
    return found


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _as_model_sees(images: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Images ``(B, H, W, C)`` of bytes or floats as ``(B, C, H, W)`` in [0, 1]."""
    # The copy has the layout of its shape: a strided view would slow every convolution down.
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    return tensor.to(dtype) / 255 if images.dtype == np.uint8 else tensor.to(dtype)


def _within(values: np.ndarray, low: float, high: float) -> bool:
    return not values.size or bool(values.min() >= low and values.max() <= high)


def _range(values: np.ndarray) -> str:
    return f" from {values.min():g} to {values.max():g}" if values.size and values.dtype.kind in "fiub" else ""
