"""What a program's run depends on besides its batch: modes, numbers on attributes, and which tensors it holds."""

from __future__ import annotations

import enum
import operator
import pickle
import random
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from bmtl.inference.closed_over import LARGE, functions_of, modules_of, names_in, of_library

_INTERNAL = set(vars(nn.Module())) - {"training"}
_PASSIVE = {
    *(nn.Linear, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict, nn.Identity),
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU),
}
"""Modules of torch that do the same whatever their mode and numbers."""
_PLAIN = bool | int | float | complex | str | bytes | None | np.generic | torch.dtype | enum.Enum
_GENERATORS = random.Random | np.random.Generator | np.random.RandomState
_DEPTH = 3  # of containers in containers


class _Holder(NamedTuple):
    """A namespace (the attributes of a module or of a class, a function's globals) and what it held."""

    name: str
    space: Mapping[str, Any]
    owner: int  # the `id` of what has the namespace
    size: int  # of the namespace, 0 where others may add to it
    keys: tuple[str, ...]
    values: Any
    get: Callable[[Mapping[str, Any]], Any]
    put: Callable[[str, Any], None]

    def changes(self) -> dict[str, tuple[str, Any]]:
        """What is no longer as it was: by a name such as ``Model.beta`` the key and the value that it had."""
        before = zip(self.keys, self.values if len(self.keys) > 1 else (self.values,), strict=True)
        return {f"{self.name}.{key}": (key, value) for key, value in before if self.space.get(key) != value}


class _Copies(NamedTuple):
    """What puts a container and those inside back, and the tensors that it held."""

    undo: list[Callable[[], None]]
    tensors: list[Tensor]


class _Container(NamedTuple):
    """A container, array, generator or object of one's own that a program refers to, and the plain values that it held."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], None]
    value: Any
    content: list[Any]
    copies: _Copies

    def changed(self) -> bool:
        value = self.get()
        return not _has_parts(value) or _content(value) != self.content

    def put_back(self) -> None:
        for undo in self.copies.undo:
            undo()
        self.put(self.value)


def _content(value: Any, copies: _Copies | None = None) -> list[Any] | None:
    """The plain values in nested containers and objects, with their places; None where there are so many that it is data.

    Tensors are known by their identity, as those that are attributes.
    """
    found: list[Any] = []
    queue = [(value, 0)]
    while queue:
        inner, depth = queue.pop()
        keys, parts = _parts(inner)
        if len(found) + len(parts) > LARGE:
            return None
        if copies is not None:
            copies.undo.extend(_undo(inner))
        for key, part in zip(keys, parts, strict=True):
            if isinstance(part, _PLAIN | frozenset):
                found += (depth, key, part)
            elif isinstance(part, Tensor):
                found += (depth, key, id(part))
                if copies is not None:
                    copies.tensors.append(part)
            elif depth < _DEPTH and _has_parts(part):
                found += (depth, key, type(part))
                queue.append((part, depth + 1))
    return found


def _parts(value: Any) -> tuple[Iterable[Any], Sequence[Any]]:
    """What a container or object consists of, with its places."""
    if isinstance(value, list | tuple | deque):
        return range(len(value)), value
    if isinstance(value, np.ndarray):
        return range(3), (value.dtype.str, str(value.shape), _entries(value).tobytes())
    if isinstance(value, set):
        return (0,), (frozenset(part for part in value if isinstance(part, _PLAIN)),)
    if isinstance(value, _GENERATORS):
        return (0,), (pickle.dumps(_state(value)),)
    named = value if isinstance(value, dict) else _attributes(value)
    return named.keys(), named.values()  # type: ignore[return-value]


def _entries(array: np.ndarray) -> np.ndarray:
    """The entries that are watched; of an array so large that it is data some hundred all over it."""
    return array if array.size <= LARGE else array.flat[:: array.size // 256]


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.bit_generator.state


def _undo(value: Any) -> list[Callable[[], None]]:
    """What gives a container the content that it has now; nothing for one that cannot change, or is too large to copy."""
    if isinstance(value, tuple):
        return []
    if isinstance(value, np.ndarray):
        return [partial(np.copyto, value, value.copy())] if value.size <= LARGE and value.flags.writeable else []
    if isinstance(value, list | deque):
        return [value.clear, partial(value.extend, value.copy())]
    if isinstance(value, random.Random | np.random.RandomState):
        put = value.setstate if isinstance(value, random.Random) else value.set_state
        return [partial(put, _state(value))]
    if isinstance(value, np.random.Generator):
        return [partial(setattr, value.bit_generator, "state", _state(value))]
    slots: list[Callable[[], None]] = [partial(setattr, value, name, part) for name, part in _slots_of(value).items()]
    own = value if isinstance(value, dict | set) else getattr(value, "__dict__", None)
    return slots if own is None else [*slots, own.clear, partial(own.update, own.copy())]


def _attributes(value: Any) -> dict[str, Any]:
    own: dict[str, Any] = getattr(value, "__dict__", {})
    return {**_slots_of(value), **own} if _slots(type(value)) else own


def _slots_of(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}


def _slots(kind: type) -> tuple[str, ...]:
    """Attributes of a class that are in no dictionary."""
    named = (vars(base).get("__slots__", ()) for base in kind.__mro__)
    every = (name for names in named for name in ((names,) if isinstance(names, str) else names))
    return tuple(name for name in every if not name.startswith("__"))


def _has_parts(value: Any) -> bool:
    """Whether it is a container, an array of numbers, a generator, or an object of one's own with attributes."""
    kind = type(value)
    if isinstance(value, np.ndarray):
        return value.size > 0 and not value.dtype.hasobject
    if isinstance(value, dict | list | tuple | set | deque | _GENERATORS):
        return True
    if isinstance(value, type | FunctionType | MethodType | ModuleType | nn.Module):
        return False
    if not hasattr(value, "__dict__") and not _slots(kind):
        return False
    return kind in (SimpleNamespace, Namespace) or not (of_library(kind) or _root(kind) in sys.stdlib_module_names)


def _root(kind: type) -> str:
    return kind.__module__.partition(".")[0]


class ProgramState:
    """Watches model and guide: `version` is a number that is the same whenever they are in the same state.

    Read are flags, numbers and strings that are attributes of modules and of their classes, and that functions close over
    or find among their module's variables, have as defaults or as attributes, those in containers, arrays, generators of
    Python and numpy, and objects of one's own too; the training mode and hooks; which tensors modules, containers and
    `pyro.param` statements hold, and which are trained. Values of tensors are not: a captured graph refers to the tensors
    themselves. Of arrays of over 1,000 numbers some hundred are read.

    Args:
        programs: Model and guide.

    Attributes:
        trained: The tensors that modules and `pyro.param` statements hold, frozen ones and buffers included.
        changed: Names such as ``Model.beta`` of the plain values that were others when `version` was last another number.
    """

    def __init__(self, *programs: Callable[..., Any]) -> None:
        self._programs = programs
        self._versions: dict[tuple[Any, ...], int] = {}
        self._held: list[Any] = []  # so that no `id` is given again
        self._version = -1
        self._holders: list[_Holder] = []
        self._spaces: list[dict[str, Any]] = []  # of tensors and modules alone
        self._attributes: list[tuple[Mapping[str, Any], str]] = []  # other tensors and arrays
        self._containers: list[_Container] = []
        self._kept: list[Any] = []  # what both held
        self._cells: list[tuple[str, Any, Any]] = []
        self.trained: list[Tensor] = []
        self.changed: list[str] = []
        self._flags: list[bool] = []

    def version(self) -> int:
        """The number of the state that the programs are in now."""
        if self._version < 0:
            self._read()
        elif self._has_changed():
            self.changed = [of.name for of in self._containers if of.changed()]
            self.changed += [name for of in self._holders for name in of.changes()]
            self._read()
        return self._version

    def put_back(self) -> list[str]:
        """Gives flags, numbers and strings the values that they had at the last `version`; names those that had others."""
        changed = []
        for of in self._holders:
            for name, (key, value) in of.changes().items():
                changed.append(name)
                of.put(key, value)
        for container in self._containers:
            if container.changed():
                changed.append(container.name)
                container.put_back()
        held = self._kept[len(self._kept) - len(self._attributes) :]
        changed += [
            f"the tensor {key!r}"
            for (space, key), value in zip(self._attributes, held, strict=True)
            if space.get(key) is not value
        ]
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
        if any(container.changed() for container in self._containers):
            return True
        return [t.requires_grad for t in self.trained] != self._flags

    def _read(self) -> None:
        modules = list(modules_of(*self._programs))
        self._holders, self._cells, self._spaces, self._attributes, self._containers = [], [], [], [], []
        for module in modules:
            space = vars(module)
            if type(module) not in _PASSIVE:
                put = space.__setitem__
                self._add(type(module).__name__, space, module, put, lambda key: key not in _INTERNAL, whole=True)
            self._spaces += [inner for key in ("_parameters", "_buffers", "_modules") if (inner := space[key])]
            self._spaces += [space["_forward_hooks"], space["_forward_pre_hooks"]]
        for kind in dict.fromkeys(kind for module in modules for kind in type(module).__mro__ if not of_library(kind)):
            self._add(kind.__name__, vars(kind), kind, partial(setattr, kind), lambda key: key[:2] != "__")
        for function in functions_of(*self._programs):
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                if _filled(cell):
                    self._add_cell(name, cell)
            space = function.__globals__
            self._add(function.__name__, space, space, space.__setitem__, names_in(function).__contains__)
            for own in ("__defaults__", "__kwdefaults__", "__dict__"):
                if value := getattr(function, own):
                    name = f"{function.__name__}.{own}"
                    self._add_container(name, value, partial(getattr, function, own), partial(setattr, function, own))
        self._spaces.append(pyro.get_param_store()._params)
        self._kept = [value for space in self._spaces for value in space.values()]
        self._kept += [space[name] for space, name in self._attributes]
        self.trained = [t for t in self._kept if isinstance(t, Tensor)]
        self._flags = [t.requires_grad for t in self.trained]
        key = (
            *((of.owner, of.size, of.keys, of.values) for of in self._holders),
            *((of.name, *of.content) for of in self._containers),
            *map(id, self._kept),
            *((id(cell), value) for _, cell, value in self._cells),
            *self._flags,
        )
        if key not in self._versions:
            self._versions[key] = len(self._versions)
            self._held.append([*self._kept, *(t for of in self._containers for t in of.copies.tensors)])
        self._version = self._versions[key]

    def _add(
        self,
        name: str,
        space: Mapping[str, Any],
        owner: Any,
        put: Callable[[str, Any], None],
        wanted: Callable[[str], bool],
        whole: bool = False,
    ) -> None:
        mine = [(key, value) for key, value in space.items() if wanted(key)]
        plain = tuple(key for key, value in mine if isinstance(value, _PLAIN))
        if plain:
            get, size = operator.itemgetter(*plain), len(space) if whole else 0
            self._holders.append(_Holder(name, space, id(owner), size, plain, get(space), get, put))
        self._attributes += [(space, key) for key, value in mine if isinstance(value, Tensor | np.ndarray)]
        if not of_library(type(owner)):  # what libraries hold in containers is structure
            for key, value in mine:
                self._add_container(f"{name}.{key}", value, partial(space.get, key), partial(put, key))

    def _add_cell(self, name: str, cell: Any) -> None:
        value = cell.cell_contents
        if isinstance(value, _PLAIN):
            self._cells.append((name, cell, value))
        else:
            contents = "cell_contents"
            self._add_container(name, value, partial(getattr, cell, contents), partial(setattr, cell, contents))

    def _add_container(self, name: str, value: Any, get: Callable[[], Any], put: Callable[[Any], None]) -> None:
        if _has_parts(value):
            copies = _Copies([], [])
            content = _content(value, copies)
            if content is not None:
                self._containers.append(_Container(name, get, put, value, content, copies))


def precision_now() -> tuple[Any, ...]:
    """Torch's modes that a graph's operations depend on."""
    kinds = ("cpu", "cuda")
    autocast = tuple(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None for kind in kinds)
    return (*autocast, torch.is_inference_mode_enabled(), torch.get_default_dtype())


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
