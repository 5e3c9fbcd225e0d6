"""What programs of one architecture differ in."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

_NUMBER_OF_DATA = "n_data"  # a plate's size, which cancels where losses are means over rows


def varying_numbers(programs: Sequence[nn.Module]) -> dict[tuple[str, str], list[float]]:
    """The numbers in which programs differ, by module and attribute.

    Raises:
        TypeError: If one is not a plain module.
        ValueError: If they differ in something else.
    """
    for program in programs:
        if not isinstance(program, nn.Module):
            raise TypeError(f"A bank's programs are modules, and {type(program).__name__} was given.")
        if any(isinstance(part, PyroModule) for part in program.modules()):
            raise TypeError(
                f"A bank's programs are plain modules, and {type(program).__name__} is or has a PyroModule. Derive it from "
                "torch.nn.Module, or use BalancedSVI."
            )
    found: dict[tuple[str, str], list[float]] = {}
    first = _attributes(programs[0])
    rows = [_attributes(program) for program in programs]
    for where, value in first.items():
        values = [row.get(where) for row in rows]
        if where[1] == _NUMBER_OF_DATA or all(_equal(value, other) for other in values):
            continue
        plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if not plain or not any(isinstance(v, float) for v in values):
            k = next(k for k, other in enumerate(values) if not _equal(value, other))
            raise ValueError(
                f"The programs of a bank differ in floats only, and {'.'.join(filter(None, where))!r} is {value!r} "
                f"in network 0 and {values[k]!r} in network {k}. Train them in a bank each."
            )
        found[where] = [float(v) for v in values]  # type: ignore[arg-type]
    for k, row in enumerate(rows):
        if row.keys() != first.keys():
            odd = sorted(".".join(where) for where in row.keys() ^ first.keys())
            raise ValueError(f"The programs of a bank have one architecture; networks 0 and {k} differ in {odd}.")
    return found


_INTERNAL = set(vars(nn.Module())) - {"training"}


def _attributes(program: nn.Module) -> dict[tuple[str, str], Any]:
    """What a program is made of, besides the numbers in its tensors: by module and attribute."""
    found: dict[tuple[str, str], Any] = {}
    for path, module in program.named_modules():
        found[path, ""] = type(module)
        found |= {(path, key): value for key, value in vars(module).items() if key not in _INTERNAL}
        tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        found |= {(path, key): (tensor.shape, tensor.dtype, tensor.requires_grad) for key, tensor in tensors}
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return one is other or bool(type(one) is type(other) and one == other)
