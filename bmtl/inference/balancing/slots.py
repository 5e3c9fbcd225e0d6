"""The common base of the four slots of a balancer, and how choices are joined.

losses (K,) --transform--> scaled losses (K,) --geometry--> Gram (K, K) --weighting--> alpha (K,) --length--> update
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import nn

from bmtl.inference.balancing.options import check_arguments, given_options

SlotName = Literal["transform", "geometry", "weighting", "length"]
ORDER: tuple[SlotName, ...] = ("transform", "geometry", "weighting", "length")
"""The slots as a step passes through them."""


class _SlotType(type):
    """Checks the arguments of a slot's constructor and keeps those that differ from their defaults."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        bound = check_arguments(cls, args, kwargs)
        slot = super().__call__(*bound.args[1:], **bound.kwargs)
        slot.given, slot.called = given_options(cls, bound), slot.name
        return slot


class Slot(nn.Module, metaclass=_SlotType):
    """A choice in one of the four slots. ``IGBv1() >> LastLayer() >> NashMTL() >> Norm()`` joins them.

    A method is a subclass of `Transform`, `Geometry`, `Weighting` or `Length`. The options of its constructor are checked by
    their annotations (`bmtl.inference.balancing.options`), and are its string form.

    Attributes:
        name: The name in strings, in kebab case; by default the class's, ``MyWeighting`` as ``my-weighting``.
        slot: Which of the four.
        paper: Author and year, for lists.
        cost: What a step costs, for lists.
        given: The options that differ from their defaults.
        called: What the string form calls it: its `name`, or the path that it was found by.
    """

    name: ClassVar[str]
    slot: ClassVar[SlotName]
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    given: dict[str, object]
    called: str

    def __init__(self) -> None:
        super().__init__()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__.lstrip("_")).lower()

    def bind(self, names: Sequence[str]) -> None:
        """Receives the names of all tasks, once, before the first step."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """This choice alone, as a pipeline has several."""
        return (self,)

    def __rshift__(self, other: Slot | Pipeline) -> Pipeline:
        return Pipeline(self) >> other

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.given.items())
        return f"{self.called}({options})" if options else self.called


class Pipeline:
    """Choices joined by ``>>``, in any order, each slot at most once; `bmtl.balancer` makes a balancer of them.

    Args:
        slots: The choices.

    Raises:
        TypeError: If something else than a choice is given, such as its class or its name.
        ValueError: If a slot is chosen twice.
    """

    def __init__(self, *slots: Slot) -> None:
        chosen: dict[SlotName, Slot] = {}
        for slot in slots:
            if not isinstance(slot, Slot):
                raise TypeError(f"A balancer is made of choices such as NashMTL() or Norm(), and {slot!r} was given.")
            if slot.slot in chosen:
                raise ValueError(
                    f"Each slot is chosen at most once, and {chosen[slot.slot]!r} and {slot!r} are both a {slot.slot}."
                )
            chosen[slot.slot] = slot
        self.chosen = {name: chosen[name] for name in ORDER if name in chosen}

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The choices, as a step passes through them."""
        return tuple(self.chosen.values())

    def __rshift__(self, other: Slot | Pipeline) -> Pipeline:
        if hasattr(type(other), "__rrshift__"):  # a balancer, which keeps how it treats heads
            return NotImplemented
        more = other.slots if isinstance(other, Slot | Pipeline) else (other,)
        return Pipeline(*self.slots, *more)

    def __str__(self) -> str:
        return " >> ".join(map(repr, self.slots)) or "ew"

    __repr__ = __str__
