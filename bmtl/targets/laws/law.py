"""The parameters of a predictive distribution, as a model gives them and a file holds them."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np


class Law(NamedTuple):
    """An equal-weight mixture of S components of one kind for each of N rows, by its parameters.

    Attributes:
        name: Of the kind, a key of `bmtl.targets.laws.LAWS`.
        parameters: Parameter -> array ``(S, N)`` or ``(S, N, ...)``; either of the first two axes may have size 1 where
            it is the same for all.
    """

    name: str
    parameters: dict[str, np.ndarray]

    @property
    def components(self) -> int:
        """S."""
        return max(np.shape(values)[0] for values in self.parameters.values())

    @property
    def size(self) -> int:
        """N, the number of rows; 1 where all parameters are the same for all of them."""
        return max(np.shape(values)[1] for values in self.parameters.values())

    def rows(self, selected: slice | np.ndarray, size: int | None = None) -> Self:
        """The law of some rows, a slice, numbers or booleans; `size` as for `full`."""
        full = self.full(size).parameters
        return self._replace(parameters={name: values[:, selected] for name, values in full.items()})

    def full(self, size: int | None = None) -> Self:
        """The law with every parameter ``(S, N, ...)``.

        Args:
            size: N, which cannot be inferred from a law that is the same for all rows.
        """
        shape = self.components, self.size if size is None else size
        return self._replace(
            parameters={
                name: np.broadcast_to(values, (*shape, *np.shape(values)[2:]))
                for name, values in self.parameters.items()
            }
        )

    @classmethod
    def of_rows(cls, laws: Sequence["Law"]) -> "Law":
        """The law of all rows of several laws of one kind and equally many components.

        Raises:
            ValueError: If there is none, or they differ in kind or in the number of components.
        """
        kinds = {(law.name, law.components) for law in laws}
        if len(kinds) != 1:
            raise ValueError(
                f"Rows of one kind of law with equally many components go together; got {sorted(kinds) or 'none'}."
            )
        parts = [law.full().parameters for law in laws]
        return cls(laws[0].name, {key: np.concatenate([part[key] for part in parts], axis=1) for key in parts[0]})

    @classmethod
    def mixture(cls, laws: Sequence["Law"]) -> "Law":
        """The equal-weight mixture of laws of one kind and equally many components, their components one after another.

        Raises:
            ValueError: If there is none, or they differ in kind or in the number of components.
        """
        kinds = {(law.name, law.components) for law in laws}
        if len(kinds) != 1:
            raise ValueError(
                f"A mixture is of laws of one kind with equally many components; got {sorted(kinds) or 'none'}."
            )
        parts = [law.full().parameters for law in laws]
        return cls(laws[0].name, {key: np.concatenate([part[key] for part in parts]) for key in parts[0]})
