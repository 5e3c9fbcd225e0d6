"""What programs with one likelihood a target have in common: their targets' inputs, labels and plates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyro
from torch import Tensor

from bmtl.tasks import shared


class Rows(NamedTuple):
    """One target's rows in a batch.

    Attributes:
        target: Its name.
        h: Its inputs' representation ``(B, width)``, marked as shared.
        plate: The plate of its rows, to be entered.
        labels: Its labels ``(B,)``, or None for prediction.
    """

    target: str
    h: Tensor
    plate: pyro.plate
    labels: Tensor | None


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


def rows_by_target(
    trunk: Callable[..., Tensor],
    n_data: Mapping[str, int],
    x: Tensor | Mapping[str, Tensor],
    y: Mapping[str, Tensor] | None,
) -> Iterator[Rows]:
    """The rows of each target. Targets with common inputs and as many data have one plate: it costs as much as a site.

    Args:
        trunk: Maps inputs to the representation.
        n_data: Number of data by target, in the program's order.
        x: Inputs ``(B, ...)`` for all targets, or each target's own.
        y: Labels by target; None predicts.

    Raises:
        ValueError: If the batch lacks a target's labels or inputs.
    """
    h = None if isinstance(x, Mapping) else shared(trunk(x))
    plates: dict[int, pyro.plate] = {}
    for name, n in n_data.items():
        if y is not None and name not in y:
            raise ValueError(f"The batch has targets {sorted(y)}, and the program also has {name!r}.")
        if isinstance(x, Mapping):
            if name not in x:
                raise ValueError(f"x has inputs for {sorted(x)}, and the program also has {name!r}.")
            h = shared(trunk(x[name]))
            plates = {}
        assert h is not None
        if n not in plates:
            plates[n] = pyro.plate(f"{name}_rows", n, subsample=h)
        yield Rows(name, h, plates[n], None if y is None else y[name])
