"""What a program's run depends on besides its batch: modes, numbers on attributes, and which tensors it holds."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn

from bmtl.inference.closed_over import functions_of, modules_of, names_in

_INTERNAL = set(vars(nn.Module())) - {"training"}
_PASSIVE = {
    *(nn.Linear, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict, nn.Identity),
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU),
}
"""Modules of torch that do the same whatever their mode and numbers."""
_PLAIN = (bool, int, float, str, type(None))


class _Holder(NamedTuple):
    """A namespace (a module's attributes, a function's globals) and what it held."""

    name: str
    space: dict[str, Any]
    size: int  # of the namespace, 0 where others may add to it
    keys: tuple[str, ...]
    values: Any
    get: Callable[[dict[str, Any]], Any]

    def changed(self) -> bool:
        if self.size and len(self.space) != self.size:
            return True
        try:
            found = self.get(self.space)
        except KeyError:
            return True
        return bool(found != self.values)


class ProgramState:
    """Watches model and guide: `version` is a number that is the same whenever they are in the same state.

    Read are flags, numbers and strings that are attributes of modules, and that functions close over or find among their
    module's variables; the training mode; which tensors modules and `pyro.param` statements hold, and which are trained.
    Values of tensors are not: a captured graph refers to the tensors themselves.

    Args:
        programs: Model and guide.

    Attributes:
        trained: The tensors that modules and `pyro.param` statements hold, frozen ones and buffers included.
    """

    def __init__(self, *programs: Callable[..., Any]) -> None:
        self._programs = programs
        self._versions: dict[tuple[Any, ...], int] = {}
        self._held: list[Any] = []  # so that no `id` is given again
        self._version = -1
        self._holders: list[_Holder] = []
        self._spaces: list[dict[str, Any]] = []  # of tensors and modules alone
        self._attributes: list[tuple[dict[str, Any], str]] = []  # other tensors
        self._kept: list[Any] = []  # what both held
        self._cells: list[tuple[str, Any, Any]] = []
        self.trained: list[Tensor] = []
        self._flags: list[bool] = []

    def version(self) -> int:
        """The number of the state that the programs are in now."""
        if self._version < 0 or self._has_changed():
            self._read()
        return self._version

    def numbers(self) -> dict[str, Any]:
        """All plain values by a name such as ``Model.beta``, to say what has changed."""
        return {f"{of.name}.{key}": of.space[key] for of in self._holders for key in of.keys if key in of.space}

    def put_back(self) -> list[str]:
        """Gives flags, numbers and strings the values that they had at the last `version`; names those that had others."""
        changed = []
        for of in self._holders:
            if of.changed():
                for key, value in zip(of.keys, of.values if len(of.keys) > 1 else (of.values,), strict=True):
                    if of.space.get(key) != value:
                        changed.append(f"{of.name}.{key}")
                        of.space[key] = value
        for name, cell, value in self._cells:
            if cell.cell_contents != value:
                changed.append(name)
                cell.cell_contents = value
        return changed

    def _has_changed(self) -> bool:
        held: list[Any] = []
        for space in self._spaces:
            held += space.values()
        held += [space.get(key) for space, key in self._attributes]
        if len(held) != len(self._kept) or not all(map(operator.is_, held, self._kept)):
            return True
        try:
            for of in self._holders:
                if of.get(of.space) != of.values or (of.size and len(of.space) != of.size):
                    return True
        except KeyError:
            return True
        if any(cell.cell_contents != value for _, cell, value in self._cells):
            return True
        return [t.requires_grad for t in self.trained] != self._flags

    def _read(self) -> None:
        modules = list(modules_of(*self._programs))
        self._holders, self._cells, self._spaces, self._attributes = [], [], [], []
        for module in modules:
            space = vars(module)
            if type(module) not in _PASSIVE:
                self._add(type(module).__name__, space, lambda key: key not in _INTERNAL)
            self._spaces += [inner for key in ("_parameters", "_buffers", "_modules") if (inner := space[key])]
        for function in functions_of(*self._programs):
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                if _filled(cell) and isinstance(cell.cell_contents, _PLAIN):
                    self._cells.append((name, cell, cell.cell_contents))
            self._add(function.__name__, function.__globals__, names_in(function).__contains__, whole=False)
        self._spaces.append(pyro.get_param_store()._params)
        self._kept = [value for space in self._spaces for value in space.values()]
        self._kept += [space[name] for space, name in self._attributes]
        self.trained = [t for t in self._kept if isinstance(t, Tensor)]
        self._flags = [t.requires_grad for t in self.trained]
        key = (
            *((id(of.space), of.size, of.keys, of.values) for of in self._holders),
            *map(id, self._kept),
            *((id(cell), value) for _, cell, value in self._cells),
            *self._flags,
        )
        if key not in self._versions:
            self._versions[key] = len(self._versions)
            self._held.append(self._kept)
        self._version = self._versions[key]

    def _add(self, name: str, space: dict[str, Any], wanted: Callable[[str], bool], whole: bool = True) -> None:
        plain = tuple(key for key, value in space.items() if wanted(key) and isinstance(value, _PLAIN))
        if plain:
            get = operator.itemgetter(*plain)
            self._holders.append(_Holder(name, space, len(space) if whole else 0, plain, get(space), get))
        self._attributes += [(space, key) for key, value in space.items() if wanted(key) and isinstance(value, Tensor)]


def precision_now() -> tuple[Any, ...]:
    """Torch's modes that a graph's operations depend on."""
    kinds = ("cpu", "cuda")
    autocast = tuple(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None for kind in kinds)
    return (*autocast, torch.is_inference_mode_enabled())


def rounding_now() -> float:
    """How far results of a compiled graph may lie from the program's, relative to the largest entry.

    Sums that cancel, such as a KL near 0, lose digits. Under autocast the program rounds after each operation to half
    precision, and a compiled graph only where it writes a tensor.
    """
    halves = [torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return max([1e-4, *(2 * torch.finfo(half).eps for half in halves)])


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
