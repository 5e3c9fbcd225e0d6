"""Every choice by its name."""

from __future__ import annotations

import re

from bmtl.inference.balancing import geometry, transforms, weightings
from bmtl.inference.balancing.lengths import AsIs, Mean, Norm, Sum
from bmtl.inference.balancing.slots import ORDER, Slot

SLOTS: dict[str, type[Slot]] = {
    cls.name: cls
    for cls in (
        *(getattr(package, name) for package in (transforms, geometry, weightings) for name in package.__all__),
        *(AsIs, Sum, Mean, Norm),
    )
}
"""The built-in choices, and those that `register_slot` has added."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def register_slot(name: str, cls: type[Slot]) -> None:
    """Makes a choice available in strings under its name.

    Args:
        name: The class's `name`, in kebab case; by default ``my-weighting`` for ``MyWeighting``.
        cls: A subclass of `Transform`, `Geometry`, `Weighting` or `Length`.

    Raises:
        TypeError: If `cls` is no such class.
        ValueError: If the name is not in kebab case, is not the class's, or belongs to another class.
    """
    check_slot_class(cls)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a balancer; names are in kebab case, such as 'my-weighting'.")
    if cls.name != name:
        raise ValueError(
            f"{cls.__name__} calls itself {cls.name!r}, and {name!r} was given. Set name = {name!r} in the class, so that "
            "its string form can be read back."
        )
    if SLOTS.get(name, cls) is not cls:
        raise ValueError(f"{name!r} is {SLOTS[name].__name__} already. Give {cls.__name__} a name of its own.")
    SLOTS[name] = cls


def check_slot_class(cls: object) -> type[Slot]:
    """The same class, if it can be a choice.

    Raises:
        TypeError: If it cannot.
    """
    if not isinstance(cls, type) or not issubclass(cls, Slot) or getattr(cls, "slot", None) not in ORDER:
        raise TypeError(
            "A balancer's choice is a subclass of Transform, Geometry, Weighting or Length of bmtl.inference.balancing, and "
            f"{cls!r} was given."
        )
    return cls
