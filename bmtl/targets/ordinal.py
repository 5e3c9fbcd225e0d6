"""One of several classes in an order, such as a grade."""

from dataclasses import dataclass
from typing import ClassVar

from bmtl.targets.classes import Classes
from bmtl.targets.family import register


@register
@dataclass(frozen=True)
class Ordinal(Classes):
    """Ranks from 0 ``(N,)`` as int64, -1 where missing.

    Args:
        classes: Names of the levels, lowest first.
    """

    name: ClassVar[str] = "ordinal"
    classes: tuple[str, ...] = ("0", "1", "2")
