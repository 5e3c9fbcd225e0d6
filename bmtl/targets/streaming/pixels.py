"""Reduced predictions of images: sums over all of their pixels, and a fixed subsample of pixels as ordinary rows."""

from typing import Protocol, Self

import numpy as np

from bmtl.targets.prediction import Prediction
from bmtl.targets.scaler import Scaler
from bmtl.targets.score import Scored, ScoredFamily
from bmtl.targets.streaming.subsample import Subsample
from bmtl.targets.streaming.sums import Sums


class Reducer(Protocol):
    """Accumulates predictions of a target batch by batch, in memory that does not grow with their number."""

    def update(self, labels: np.ndarray, prediction: Prediction, rows: np.ndarray) -> None:
        """Adds rows: checked labels, what a model says of them in reported units, and their numbers in the table."""
        ...

    def merge(self, other: Self) -> None:
        """Adds what another reducer has accumulated of other rows."""
        ...

    def scores(self) -> dict[str, float]:
        """Scores of all that was added, by name."""
        ...

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the kept entries ``(M,)``."""
        ...

    def subsample(self) -> Scored:
        """Some of what was added, as labelled rows of an ordinary target."""
        ...


class PixelReducer:
    """Accumulates images: scores are of all labelled pixels, and `pixels` of them are kept with their draws.

    Args:
        family: Of a pixel.
        sums: What scores are made of; None for families of which only the subsample is kept.
        scaler: The target's scaler.
        pixels: How many pixels are kept.
        seed: Of their choice.
    """

    def __init__(
        self, family: ScoredFamily, sums: Sums | None, scaler: Scaler, *, pixels: int = 10_000, seed: int = 0
    ) -> None:
        self.family, self.sums, self.scaler = family, sums, scaler
        self.chosen = Subsample(pixels, seed)
        self.kept: Scored | None = None
        self.shape: tuple[int, ...] = ()

    def update(self, labels: np.ndarray, prediction: Prediction, rows: np.ndarray) -> None:
        """Adds images.

        Args:
            labels: Checked labels ``(n, H, W, ...)``.
            prediction: Of the pixels, in reported units, its arrays with ``(n, H, W)`` in place of rows.
            rows: Numbers of the images ``(n,)``, each image once; they choose the pixels that are kept.

        Raises:
            ValueError: If the images have another size than those before.
        """
        height, width = labels.shape[1:3]
        if self.shape not in ((), (height, width)):
            raise ValueError(f"The images are {height} x {width} pixels, and those before were {self.shape}.")
        self.shape = height, width
        numbers = (np.asarray(rows, dtype=np.int64)[:, None] * (height * width) + np.arange(height * width)).ravel()
        flat = flat_pixels(labels, prediction)
        seen = ~self.family.missing(flat[0])
        if not seen.any():
            return
        batch = Scored(flat[0][seen], flat[1].take(seen), self.family, self.scaler)
        if self.sums is not None:
            self.sums.update(batch)
        self._keep(batch, numbers[seen])

    def merge(self, other: Self) -> None:
        if self.sums is not None and other.sums is not None:
            self.sums.merge(other.sums)
        if other.kept is not None:
            self._keep(other.kept, other.chosen.numbers)
        self.shape = self.shape or other.shape

    def scores(self) -> dict[str, float]:
        """Scores of all labelled pixels so far, by name."""
        return {} if self.sums is None else self.sums.scores()

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the kept pixels: the image's times the pixels of an image, and the pixel's in its image."""
        return self.chosen.numbers

    def subsample(self) -> Scored:
        """The kept pixels as labelled rows of the pixels' family.

        Raises:
            ValueError: If no labelled pixel was added.
        """
        if self.kept is None:
            raise ValueError("No labelled pixel was added yet.")
        return self.kept

    def _keep(self, batch: Scored, numbers: np.ndarray) -> None:
        stay, come = self.chosen.choose(numbers)
        new = Scored(batch.labels[come], batch.prediction.take(come), self.family, self.scaler)
        if self.kept is None:
            self.kept = new
            return
        self.kept = Scored(
            np.concatenate([self.kept.labels[stay], new.labels]),
            Prediction.concatenate([self.kept.prediction.take(stay), new.prediction]),
            self.family,
            self.scaler,
        )


def flat_pixels(labels: np.ndarray, prediction: Prediction) -> tuple[np.ndarray, Prediction]:
    """Labels and predictions of the pixels of images ``(n, H, W, ...)`` as those of ``n H W`` rows."""
    image = labels.shape[:3]
    return labels.reshape(-1, *labels.shape[3:]), prediction.flatten(image)
