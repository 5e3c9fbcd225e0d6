"""Which rows per batch has of each target: their inputs, labels and plate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from bmtl import inputs
from bmtl.inputs import PerTask


@dataclass(frozen=True)
class Rows:
    """Rows with one tensor or structure of inputs: those of all targets, or one target's own.

    Attributes:
        targets: Whose rows they are.
        x: Their inputs, B rows.
        plates: By target, the plate of the rows, to be entered; targets with as many data share one.
        own: Whether they are one target's own.
        mask_of: Gives which rows have a label of a target, ``(B,)`` bool; None for prediction.
    """

    targets: tuple[str, ...]
    x: Any
    plates: Mapping[str, pyro.plate]
    own: bool
    mask_of: Callable[[str], Tensor] | None = None

    @property
    def count(self) -> int:
        """Number of rows B."""
        return inputs.count(self.x)

    @property
    def labelled(self) -> Tensor | None:
        """Which rows have a label of any of the targets, ``(B,)`` bool; None for prediction.

        Raises:
            ValueError: If there are not as many labels as rows.
        """
        if self.mask_of is None:
            return None
        masks = {name: self.mask_of(name) for name in self.targets}
        for name, mask in masks.items():
            if mask.shape != (self.count,):
                raise ValueError(f"{name!r} has {self.count} rows of inputs, and {len(mask)} labels.")
        return torch.stack(list(masks.values())).any(0)

    @property
    def plate(self) -> pyro.plate:
        """The one plate of these rows.

        Raises:
            ValueError: If targets have different numbers of data, and so several plates.
        """
        plates = set(self.plates.values())
        if len(plates) > 1:
            sizes = {name: plate.size for name, plate in self.plates.items()}
            raise ValueError(
                f"Targets with common inputs share each row's representation, and their numbers of data differ: {sizes}."
            )
        return next(iter(plates))


def data_by_target(targets: Sequence[str], n_data: int | Mapping[str, int]) -> dict[str, int]:
    """Number of data of each target.

    Raises:
        ValueError: If a target has no number, or one is below 1.
    """
    if isinstance(n_data, Mapping):
        missing = sorted(set(targets) - set(n_data))
        if missing:
            raise ValueError(f"n_data lacks the targets {missing}.")
    numbers = {name: n_data[name] if isinstance(n_data, Mapping) else n_data for name in targets}
    if min(numbers.values()) < 1:
        raise ValueError(f"n_data is a number of data, from 1, and {n_data} was given.")
    return numbers


def groups(x: Any, n_data: Mapping[str, int], mask_of: Callable[[str], Tensor] | None = None) -> Iterator[Rows]:
    """The rows of a batch: one group of all targets, or with `PerTask` inputs one of each target.

    Args:
        x: Inputs of B rows for all targets, or `bmtl.inputs.PerTask`.
        n_data: Number of data by target, in the program's order.
        mask_of: Gives which rows have a label of a target, ``(B,)`` bool; None predicts.

    Raises:
        ValueError: As `check_inputs`.
    """
    check_inputs(x, tuple(n_data))
    if not isinstance(x, PerTask):
        # Targets with as many data have one plate: it costs as much as a site.
        count, plates = inputs.count(x), {}
        for name, n in n_data.items():
            if n not in plates:
                plates[n] = _plate(name, n, count)
        yield Rows(tuple(n_data), x, {name: plates[n] for name, n in n_data.items()}, False, mask_of)
        return
    for name, n in n_data.items():
        yield Rows((name,), x[name], {name: _plate(name, n, inputs.count(x[name]))}, True, mask_of)


def check_inputs(x: Any, names: Sequence[str]) -> None:
    """Raises a ``ValueError`` if inputs lack a target, or are a plain dict where `PerTask` was meant."""
    if isinstance(x, PerTask):
        missing = [name for name in names if name not in x]
        if missing:
            raise ValueError(f"x has inputs for {sorted(x)}, and the program also has {', '.join(map(repr, missing))}.")
    elif isinstance(x, Mapping) and set(x) == set(names):
        raise ValueError(
            f"x is a dict of the targets {sorted(x)}, and a dict means several inputs of one row. Where each target has "
            "inputs of its own, give bmtl.inputs.PerTask(x)."
        )


def check_labelled(y: Mapping[str, Tensor], targets: Sequence[str]) -> None:
    """Raises a ``ValueError`` if a batch lacks the labels of a target."""
    missing = [name for name in targets if name not in y]
    if missing:
        raise ValueError(
            f"The batch has targets {sorted(y)}, and the program also has {', '.join(map(repr, missing))}."
        )


def _plate(name: str, size: int, count: int) -> pyro.plate:
    return pyro.plate(f"{name}_rows", size, subsample=torch.arange(count))
