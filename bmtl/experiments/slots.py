"""Balancers as text, with slots of your own by import path or from installed packages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bmtl.experiments.importing import Imported, announced, load
from bmtl.inference.balancing import SLOTS, Balancer, Slot, balancer, register_slot


@dataclass(frozen=True)
class BalancerText:
    """The string form of a balancer, in which every process finds the same code.

    Attributes:
        text: With files by their absolute paths.
        code: Import path -> SHA-256 of the source file, of the slots that are not bmtl's own.
    """

    text: str
    code: dict[str, str] = field(default_factory=dict)

    def make(self) -> Balancer:
        """A new balancer."""
        return balancer(self.text, resolve=lambda path: load(path).value)


def balancer_of(text: str) -> BalancerText:
    """Reads the string form of a balancer.

    Raises:
        ValueError: If there is no such balancer, or code that it names cannot be imported.
    """
    all_slots()
    found: dict[str, Imported] = {}

    def resolve(path: str) -> Any:
        found[path] = load(path)
        return found[path].value

    balancer(text, resolve=resolve)
    for given, imported in found.items():
        text = text.replace(given, imported.path)
    return BalancerText(text, {imported.path: imported.digest for imported in found.values()})


def all_slots() -> Mapping[str, type[Slot]]:
    """The slots by name, those of installed packages included.

    Raises:
        ValueError: If one that a package announces cannot be imported.
    """
    for name, path in announced("bmtl.balancers").items():
        if name not in SLOTS:
            register_slot(name, load(path).value)
    return SLOTS


def is_slot(value: object) -> bool:
    """Whether an object is the class of a balancer's slot."""
    return isinstance(value, type) and issubclass(value, Slot)
