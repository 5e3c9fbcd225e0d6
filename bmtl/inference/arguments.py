"""Checks of arguments: each says which argument, what was given and what is expected.

A bool is not a number here, though Python counts it among the integers: ``accumulate=True`` is a slip.
"""

import math
import numbers
from typing import Any

from torch import nn


def whole_number(name: str, value: Any, least: int, meaning: str) -> int:
    """Returns a whole number as an `int`; numpy's are taken too.

    Args:
        name: The argument.
        value: What was given.
        least: The smallest value allowed.
        meaning: What it counts, as "a number of epochs".

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {meaning}, a whole number from {least}, and {value!r} was given.")
    if value < least:
        raise ValueError(f"{name} is {meaning}, from {least}, and {value} was given.")
    return int(value)


def positive_number(name: str, value: Any, meaning: str) -> float:
    """Returns a finite number above 0 as a `float`.

    Args:
        name: The argument.
        value: What was given.
        meaning: What it is, as "a gradient norm".

    Raises:
        TypeError: If it is not a real number.
        ValueError: If it is not finite, or not above 0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {meaning}, a number above 0, and {value!r} was given.")
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} is {meaning}, finite and above 0, and {value} was given.")
    return number


def flag(name: str, value: Any) -> bool:
    """Returns a bool.

    Raises:
        TypeError: If it is anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, and {value!r} was given.")
    return value


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Returns one of a few words.

    Raises:
        ValueError: If it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {' or '.join(map(repr, choices))}, and {value!r} was given.")
    return value


def check_program(name: str, program: Any) -> None:
    """Checks a model or a guide.

    Args:
        name: "model" or "guide".
        program: What was given.

    Raises:
        TypeError: If it cannot be called, or is a class.
        ValueError: If it is wrapped for its own backward.
    """
    if not callable(program) or isinstance(program, type):
        what = f"the class {program.__name__}" if isinstance(program, type) else type(program).__name__
        raise TypeError(f"The {name} is a module or a function with Pyro statements, and {what} was given.")
    parts = program.modules() if isinstance(program, nn.Module) else ()
    if any(isinstance(part, nn.parallel.DistributedDataParallel) for part in parts):
        raise ValueError(
            f"The {name} is wrapped in DistributedDataParallel, whose hooks expect one backward of one loss. Give the bare "
            "module: BalancedSVI averages over the processes itself."
        )
