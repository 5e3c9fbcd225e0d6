"""The options of a slot: their types and ranges, read from the annotations of its constructor.

    def __init__(self, temp: Positive = 1.0, phi: Literal["id", "log"] = "id", seed: Seed = 0) -> None: ...

A value of the wrong type or out of its range is refused by name before the constructor runs, and numbers of numpy become
Python's own, so that the string form of a slot can be read back.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np


@dataclass(frozen=True)
class Range:
    """The numbers between two ends, each of which may be left out.

    Attributes:
        above: Numbers are greater than this.
        at_least: Numbers are this or greater.
        below: Numbers are smaller than this.
        at_most: Numbers are this or smaller.
    """

    above: float = -math.inf
    at_least: float = -math.inf
    below: float = math.inf
    at_most: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def __str__(self) -> str:
        ends = (
            (f"above {self.above:g}", self.above > -math.inf),
            (f"of at least {self.at_least:g}", self.at_least > -math.inf),
            (f"below {self.below:g}", self.below < math.inf),
            (f"of at most {self.at_most:g}", self.at_most < 2.0**62),
        )
        return " and ".join(text for text, given in ends if given)


Positive = Annotated[float, Range(above=0.0)]
NonNegative = Annotated[float, Range(at_least=0.0)]
Fraction = Annotated[float, Range(at_least=0.0, at_most=1.0)]
Count = Annotated[int, Range(at_least=1)]
Natural = Annotated[int, Range(at_least=0)]
Seed = Annotated[int, Range(at_least=0, at_most=2**63 - 1)]


class _Refused(Exception):
    """A value is not of the kind; `kind` says so in words."""

    def __init__(self, kind: str, error: type[Exception]) -> None:
        super().__init__(kind)
        self.kind, self.error = kind, error


def check_arguments(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments of a constructor by name, each checked against its annotation.

    Args:
        cls: The class to be made.
        args: Positional arguments.
        kwargs: Arguments by name.

    Raises:
        TypeError: If an argument is unknown, missing or of the wrong type.
        ValueError: If one is out of its range.
    """
    constructor = cls.__init__  # type: ignore[misc]
    bound = inspect.signature(constructor).bind(None, *args, **kwargs)  # None: self
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except NameError:  # an annotation that only a type checker can read
        hints = {}
    for name, value in bound.arguments.items():
        if name in hints:
            try:
                bound.arguments[name] = read(value, hints[name])
            except _Refused as refused:
                raise refused.error(
                    f"{getattr(cls, 'name', cls.__name__)!r}: {name} is {refused.kind}, and {value!r} was given."
                ) from None
    return bound


def given_options(cls: type, bound: inspect.BoundArguments) -> dict[str, object]:
    """The arguments that differ from their defaults."""
    defaults = {name: p.default for name, p in inspect.signature(cls.__init__).parameters.items()}  # type: ignore[misc]
    arguments = list(bound.arguments.items())[1:]  # without self
    return {name: value for name, value in arguments if value != defaults[name] and value != {}}


def read(value: Any, kind: Any) -> Any:
    """The value in the form that the kind wants; `_Refused` if it is none."""
    reader = _READERS.get(get_origin(kind) or kind)
    return value if reader is None else reader(value, kind)


def _number(value: Any, kind: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise _Refused("a number", TypeError)
    if not math.isfinite(value):
        raise _Refused("a finite number", ValueError)
    return float(value)


def _whole(value: Any, kind: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise _Refused("a whole number", TypeError)
    if not isinstance(value, Integral) and not float(value).is_integer():
        raise _Refused("a whole number", ValueError)
    return int(float(value)) if not isinstance(value, Integral) else int(value)


def _flag(value: Any, kind: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _Refused("True or False", TypeError)
    return bool(value)


def _text(value: Any, kind: Any) -> str:
    if not isinstance(value, str):
        raise _Refused("a string", TypeError)
    return str(value)


def _none(value: Any, kind: Any) -> None:
    if value is not None:
        raise _Refused("None", TypeError)


def _in_range(value: Any, kind: Any) -> Any:
    base, *extra = get_args(kind)
    ranges = [item for item in extra if isinstance(item, Range)]
    try:
        value = read(value, base)
    except _Refused as refused:
        raise _Refused(" ".join((refused.kind, *map(str, ranges))), refused.error) from None
    for allowed in ranges:
        if value not in allowed:
            raise _Refused(f"{'a whole number' if base is int else 'a number'} {allowed}", ValueError)
    return value


def _choice(value: Any, kind: Any) -> Any:
    choices = get_args(kind)
    value = value.item() if isinstance(value, np.generic) else value
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    words = [repr(choice) for choice in choices]
    raise _Refused(" or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words), ValueError)


def _one_of(value: Any, kind: Any) -> Any:
    refusals = []
    for member in get_args(kind):
        try:
            return read(value, member)
        except _Refused as refused:
            refusals.append(refused)
    # A number that is out of its range is of the right type: what it is not, need not be said.
    close = [refused for refused in refusals if refused.error is ValueError] or refusals
    raise _Refused(" or ".join(refused.kind for refused in close), close[0].error)


def _mapping(value: Any, kind: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _Refused("a mapping", TypeError)
    of, to = get_args(kind) or (Any, Any)
    found = {}
    for key, item in value.items():
        try:
            found[read(key, of)] = read(item, to)
        except _Refused as refused:
            raise _Refused(f"a mapping with {refused.kind} for {key!r}", refused.error) from None
    return found


_READERS: dict[Any, Callable[[Any, Any], Any]] = {
    float: _number,
    int: _whole,
    bool: _flag,
    str: _text,
    type(None): _none,
    Annotated: _in_range,
    Literal: _choice,
    Union: _one_of,
    types.UnionType: _one_of,
    Mapping: _mapping,
    dict: _mapping,
}
