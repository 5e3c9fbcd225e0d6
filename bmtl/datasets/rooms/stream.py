"""Batches of rooms that are drawn while one trains, so that no frame is seen twice."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmtl.datasets.images import Images
from bmtl.datasets.rooms.frames import Generator
from bmtl.datasets.rooms.reader import labels_of


class DrawnBatches:
    """Batches ``(x, {target: y})`` of new frames, in the form of ``load("rooms")`` and without a file.

    The frames are numbers `first` and up of the generator, one after the other over all epochs; drawing takes about 0.03 s a
    frame of 96 x 128. ``load("rooms")`` has the first frames of the same generator: begin after those, or with another seed,
    where they are for tests.

    Args:
        generator: Draws frames.
        batch_size: Frames a batch.
        batches: Batches an epoch.
        first: Number of the first frame.
        inverse: The target is ``inverse_depth`` in place of ``depth``.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, generator: Generator, batch_size: int, batches: int, *, first: int = 0, inverse: bool = False
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("batches", batches, 1), ("first", first, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is a whole number from {least}; got {value!r}.")
        self.generator, self.batch_size, self.batches = generator, batch_size, batches
        self.first, self.inverse = first, inverse
        self._drawn = 0  # batches over all epochs

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """One epoch, or what is left of the one whose state was loaded."""
        for _ in range(self.batches - self._drawn % self.batches):
            start = self.first + self._drawn * self.batch_size
            self._drawn += 1  # before the yield: what was handed out counts as done
            yield self._batch(np.arange(start, start + self.batch_size))

    def state_dict(self) -> dict[str, Any]:
        """The loader's place: how many batches were drawn, and of what."""
        return {"drawn": self._drawn, "choices": self._choices()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: If the state belongs to other frames or batches.
        """
        if state["choices"] != self._choices():
            raise ValueError(
                f"The saved place belongs to {state['choices']}, and this loader has {self._choices()}. Resume with the "
                "same choices, or start a new run."
            )
        self._drawn = state["drawn"]

    def _choices(self) -> dict[str, Any]:
        return {
            "frames": self.generator.digest(0),
            "batch_size": self.batch_size,
            "batches": self.batches,
            "first": self.first,
            "inverse": self.inverse,
        }

    def _batch(self, numbers: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        frames = self.generator.frames(numbers)
        labels = labels_of(frames, inverse=self.inverse)
        x = Images(frames.image).tensors(np.arange(len(numbers)))
        return x, {
            name: torch.as_tensor(values, dtype=torch.float32 if values.dtype.kind == "f" else torch.int64)
            for name, values in labels.items()
        }
