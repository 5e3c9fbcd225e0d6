"""The modules that a program is made of: its own parts, and those that a function closes over."""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

_LIBRARIES = ("torch", "pyro", "bmtl", "lightning", "numpy")
_OF_TORCH = set(vars(nn.Module()))  # what every module has
LARGE = 1_000
"""A container with more entries holds data."""


def modules_of(*programs: Callable[..., Any]) -> Iterator[nn.Module]:
    """Every module that these programs are, hold or refer to, outermost first and each once.

    Functions are searched for what they close over and for the globals that they name, through partials, bound methods,
    callable objects and containers.
    """
    seen: set[int] = set()
    for _, found in _referred(programs):
        if isinstance(found, nn.Module):
            for module in found.modules():
                if id(module) not in seen:
                    seen.add(id(module))
                    yield module


def tensors_of(*programs: Callable[..., Any]) -> Iterator[tuple[str, Tensor]]:
    """Parameters and other tensors that these programs hold or refer to, with the names that they have there."""
    for name, found in _referred(programs):
        if isinstance(found, nn.Module):
            for inner, parameter in found.named_parameters(remove_duplicate=False):
                yield f"{name}.{inner}" if name else inner, parameter
        else:
            yield name, found


def functions_of(*programs: Callable[..., Any]) -> Iterator[FunctionType]:
    """The functions that these programs are, refer to, or have as methods, each once; those of libraries are left out."""
    seen: set[int] = set()
    for _, item in _items(programs):
        found = [item]
        if isinstance(item, nn.Module):
            found = [method for kind in {type(part) for part in item.modules()} for method in vars(kind).values()]
        for function in found:
            if isinstance(function, FunctionType) and id(function) not in seen and not of_library(function):
                seen.add(id(function))
                yield function


def names_in(function: FunctionType) -> set[str]:
    """The globals that a function names."""
    return _names(function.__code__)


def _referred(programs: tuple[Any, ...]) -> Iterator[tuple[str, nn.Module | Tensor]]:
    for name, item in _items(programs):
        if isinstance(item, nn.Module | Tensor):
            yield name, item


def _items(programs: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [("", program) for program in programs]
    while queue:
        name, item = queue.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield name, item
        queue += _parts(name, item)


def _parts(name: str, item: Any) -> list[tuple[str, Any]]:
    """What an object refers to, with names."""
    match item:
        case nn.Module():  # what its parts keep unregistered: an AutoGuide's model, a function, a plain list of layers
            values = [pair for part in item.modules() for pair in vars(part).items()]
            kinds = FunctionType | MethodType | tuple | list | dict
            return [(key, value) for key, value in values if isinstance(value, kinds) and key not in _OF_TORCH]
        case functools.partial():
            return [(name, item.func), *((name, part) for part in item.args), *item.keywords.items()]
        case MethodType():
            return [(name, item.__func__), (name, item.__self__)]
        case FunctionType():
            cells = zip(item.__code__.co_freevars, item.__closure__ or (), strict=True)
            closed = [(key, cell.cell_contents) for key, cell in cells if _is_filled(cell)]
            if of_library(item):
                return closed
            named = _names(item.__code__)
            return closed + [(key, value) for key, value in item.__globals__.items() if key in named]
        case Mapping():
            return [(f"{name}[{key!r}]", part) for key, part in item.items()] if len(item) <= LARGE else []
        case list() | tuple():
            return [(f"{name}[{i}]", part) for i, part in enumerate(item)] if len(item) <= LARGE else []
        case Tensor() | type():
            return []
    return list(vars(item).items()) if callable(item) and hasattr(item, "__dict__") else []


def of_library(item: FunctionType | type) -> bool:
    """Whether a function or class is of a library that programs are written with."""
    return (item.__module__ or "").partition(".")[0] in _LIBRARIES


def _names(code: CodeType) -> set[str]:
    """The globals that a function's code names, those of the functions inside included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
