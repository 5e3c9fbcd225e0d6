"""Frames of rendered rooms by their numbers, with the labels that a data set makes of them."""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bmtl.datasets.files import Archive
from bmtl.datasets.rooms.layout import draw_room, draw_view
from bmtl.datasets.rooms.ray_caster import Frame, render

GENERATOR = 1
"""Version of what is drawn: another number is another set of rooms, and other files."""

_ROOM, _VIEW, _SENSOR = range(3)  # streams of random numbers


@dataclass(frozen=True)
class Generator:
    """Draws frames of rendered rooms; a frame depends on its number and these choices alone.

    Args:
        seed: Another seed is another set of rooms.
        height: Of an image in pixels.
        width: Of an image in pixels.
        views: Frames a room: frames 0 to `views` - 1 are of the first room, the next ones of the second.

    Raises:
        ValueError: If there is nothing to draw.
    """

    seed: int = 0
    height: int = 96
    width: int = 128
    views: int = 1

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("height", 8), ("width", 8), ("views", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is a whole number from {least}; got {value!r}.")

    def frame(self, number: int) -> Frame:
        """One frame, its image in bytes ``(H, W, 3)`` as a sensor stores it."""
        room = draw_room(self._random(_ROOM, number // self.views))
        view = draw_view(room, self._random(_VIEW, number))
        drawn = render(room, view, (self.height, self.width), self._random(_SENSOR, number))
        return drawn._replace(image=np.rint(255 * drawn.image).astype(np.uint8))

    def frames(self, numbers: Sequence[int] | np.ndarray) -> Frame:
        """Several frames, one at least, their numbers first: ``(N, H, W, ...)``."""
        first = self.frame(int(numbers[0]))
        found = Frame(*(np.empty((len(numbers), *array.shape), array.dtype) for array in first))
        for row, number in enumerate(numbers):
            frame = self.frame(int(number)) if row else first
            for of, array in zip(found, frame, strict=True):
                of[row] = array
        return found

    def digest(self, count: int) -> str:
        """Names the first `count` frames of these choices."""
        choices = json.dumps({**asdict(self), "count": count, "generator": GENERATOR}, sort_keys=True)
        return hashlib.sha256(choices.encode()).hexdigest()[:16]

    def _random(self, stream: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, number])


def cached_frames(generator: Generator, count: int, folder: Path) -> Frame:
    """The first `count` frames, from a file in a folder, or drawn and kept there.

    The file appears complete or not at all, whoever else writes it at the same time, and holds a digest of its content.

    Args:
        generator: Draws them.
        count: How many.
        folder: Where the file is; made if it is not there.

    Raises:
        ValueError: If the file there is damaged.
        OSError: If the folder cannot be written to.
    """
    path = folder / f"rooms-{generator.height}x{generator.width}-{count}-{generator.digest(count)}.npz"
    if path.exists():
        return _read(path)
    frames = generator.frames(range(count))
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, digest=np.array(_content_digest(frames)), **frames._asdict())
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return frames


def _read(path: Path) -> Frame:
    archive = Archive(path)
    frames = Frame(*(archive.array(name) for name in Frame._fields))
    if str(archive.array("digest")) != _content_digest(frames):
        raise ValueError(f"{path} is damaged: its content is not what was written. Delete it, and it is drawn again.")
    return frames


def _content_digest(frames: Frame) -> str:
    digest = hashlib.sha256()
    for name, array in frames._asdict().items():
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name}:{plain.dtype.str}:{plain.shape};".encode())
        digest.update(plain.tobytes())
    return digest.hexdigest()
