"""The inputs of a data set: one class per kind of input, which is the only interface that other code uses."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from bmtl.datasets.augmentation import Augmentation

GROUP = "bmtl.datasets"
"""Entry points of installed packages that define readers, and with them kinds of input."""


class Inputs(ABC):
    """The inputs of N rows. One subclass per kind of input, in its own file; `register_kind` adds it.

    What `tensors` and `prepare` return is anything that `bmtl.inputs` counts, indexes and moves: a tensor, a structure
    of them, or a type that registers itself there. No other code in bmtl depends on the kind.

    An object without rows, as `from_state` returns it, is used for new inputs only.
    """

    kind: ClassVar[str]

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows N."""

    @abstractmethod
    def tensors(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> Any:
        """Some rows as a model sees them.

        Args:
            rows: Indices ``(B,)``.
            dtype: Type of floating-point tensors.
        """

    @abstractmethod
    def pieces(self) -> Iterable[tuple[str, np.ndarray]]:
        """Names and arrays that are all of the rows, for the fingerprint."""

    def options(self) -> dict[str, Any]:
        """What was chosen of how a model sees the rows and is in none of the pieces, as plain values."""
        return {}

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The description that a model needs, as plain values: ``kind``, and what a trunk needs, such as ``width``.

        ``trunk`` may name a default trunk by its import path.
        """

    @abstractmethod
    def prepare(self, raw: Any, dtype: torch.dtype = torch.float32) -> Any:
        """New inputs, as `read` returns them or in raw form, as a model takes them.

        Raises:
            ValueError: If they are not inputs of this kind; says what is expected.
        """

    @abstractmethod
    def read(self, path: str | Path) -> Any:
        """A file of new inputs, as `prepare` takes them.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it cannot be read.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that `prepare` and `describe` need, as plain values and tensors."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The inverse of `state`, without rows."""

    def unlike_training(self, raw: Any) -> list[str]:
        """What of new inputs is unlike all training rows, a sentence for each column or part; by default nothing is known.

        Args:
            raw: New raw inputs, as for `prepare`, which takes them.
        """
        return []

    def budget(self) -> dict[str, Any]:
        """Fields of `bmtl.experiments.Budget` for networks on such inputs, where nothing else is requested."""
        return {}

    def views(self) -> Augmentation | None:
        """The random views of its rows that a method may train on; None if there are none."""
        return None

    def summary_features(self, rows: np.ndarray) -> np.ndarray | None:
        """Numbers ``(B, D)`` of some rows for methods that take tables, such as scikit-learn's; None if there are none."""
        return None

    def rows_as_bytes(self, rows: np.ndarray) -> list[bytes] | None:
        """Some rows as bytes, which are equal where rows are; None if rows are not compared."""
        return None

    def names(self, path: str | Path) -> list[str] | None:
        """What the rows of a file or folder that `read` takes are called, for their own files; None if they are not."""
        return None

    def pictures(self, rows: np.ndarray) -> np.ndarray | None:
        """Some rows to be looked at, ``(B, H, W, C)`` uint8 with C 1 or 3; None if they cannot be drawn."""
        return None

    def numbers(self, names: Sequence[str], raw: Any = None) -> np.ndarray:
        """Unscaled numbers ``(N, D)`` of these names, which baselines of targets are functions of.

        Args:
            names: Of the D numbers.
            raw: New raw inputs, as for `prepare`; by default its own rows.

        Raises:
            ValueError: If the inputs have no numbers of such names.
        """
        raise ValueError(f"Inputs of the kind {self.kind!r} have no numbers by name, such as {', '.join(names)}.")

    def groups(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Groups of rows, such as the drug and the protein of a pair: name -> number of each row's group ``(B,)``.

        The reference "group means" is made of them.
        """
        return {}

    def blocks(self, rows: np.ndarray) -> np.ndarray | None:
        """Number of each row's block ``(B,)``, where batches of few blocks cost less than batches of many; None if none do.

        Batches that are not trained on are made of them.
        """
        return None

    @property
    def train_in_blocks(self) -> bool:
        """Whether training batches are made of them too: cheaper, and with other gradient noise than any rows have."""
        return False

    def lines(self) -> list[str]:
        """A description of the inputs, in lines to be printed."""
        return [f"{self.kind}: {len(self):,} rows"]


KINDS: dict[str, type[Inputs]] = {}
"""Class by kind."""


def register_kind(cls: type[Inputs]) -> type[Inputs]:
    """Adds a kind of input to `KINDS`; a class decorator."""
    KINDS[cls.kind] = cls
    return cls


def inputs_state(inputs: Inputs) -> dict[str, Any]:
    """The state of inputs with their kind; `inputs_from_state` is the inverse."""
    return {"kind": inputs.kind, "module": type(inputs).__module__, "state": inputs.state()}


def inputs_from_state(state: Mapping[str, Any]) -> Inputs:
    """Inputs without rows, for predictions.

    Their kind is one that an imported module has registered, or the module of a reader that an installed package
    announces (`GROUP`). No other code is run.

    Raises:
        ValueError: If the kind is not known, or the state is not of that kind.
    """
    kind = state["kind"]
    if kind not in KINDS:
        for point in entry_points(group=GROUP):
            point.load()
    if kind not in KINDS:
        raise ValueError(
            f"The model takes inputs of the kind {kind!r}, which no imported module defines; it was defined in "
            f"{state['module']}. Import that module first. The kinds are: {', '.join(KINDS)}."
        )
    try:
        return KINDS[kind].from_state(state["state"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"This is not the state of inputs of the kind {kind!r} ({type(error).__name__}: {error})."
        ) from error
