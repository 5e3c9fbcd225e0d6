"""Kinds of targets as one writes them, and labels that are numbers already.

A kind is a family, its name, a name with classes or levels in their order (``ordinal(low,medium,high)``), or the number
of classes (labels are then 0, 1, ...; two are binary). Without one, numbers that are 0 and 1 are binary, as truth values
are, other floats real, and other integers classes; -1 is a missing label in integers of classes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bmtl.datasets.tables.column import number_text
from bmtl.datasets.tables.features import too_many
from bmtl.targets import FAMILIES, Binary, Classes, Family, Real, numbered

KindLike = Family | str | int
"""A family, its name (with classes in brackets, if they have an order), or a number of classes."""

_NAMED = re.compile(r"([a-z-]+)(?:\((.*)\))?", re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """A kind of target that may still lack its classes.

    Attributes:
        family: Its class.
        classes: Names of the classes, in order; empty if they are to be taken from the labels.
        given: The family itself, if it is known in full.
    """

    family: type[Family]
    classes: tuple[str, ...] = ()
    given: Family | None = None

    @property
    def indexed(self) -> bool:
        """Whether labels are indices of classes."""
        return issubclass(self.family, Classes)


def parse_kind(target: str, kind: KindLike) -> Kind:
    """A kind as it was written.

    Args:
        target: Its name, for messages.
        kind: See the module.

    Raises:
        ValueError: If there is no such family, or it takes no classes.
    """
    if isinstance(kind, Family):
        return Kind(type(kind), kind.class_names, kind)
    if isinstance(kind, bool) or not isinstance(kind, str | int | np.integer):
        raise ValueError(f"The kind of target {target!r} is a family, its name or a number of classes; got {kind!r}.")
    text = str(kind).strip()
    if text.lstrip("-").isascii() and text.lstrip("-").isdigit():
        if int(text) < 2:
            raise ValueError(f"Target {target!r} has two classes or more; got the number {text}.")
        names = numbered(int(text))
        family = Binary(names) if len(names) == 2 else Classes(names)
        return Kind(type(family), names, family)
    match = _NAMED.fullmatch(text.lower())
    if match is None or match[1] not in FAMILIES:
        raise ValueError(
            f"The kind of target {target!r} is one of {', '.join(FAMILIES)}, or a number of classes; got {kind!r}."
        )
    cls = FAMILIES[match[1]]
    if match[2] is None:
        return Kind(cls)
    if not issubclass(cls, Classes):
        raise ValueError(f"The kind {match[1]} of target {target!r} takes no classes; got {kind!r}.")
    names = tuple(name.strip() for name in text[text.index("(") + 1 : -1].split(","))
    return Kind(cls, names, of_classes(cls, names))


def of_classes(family: type[Family], names: Sequence[str]) -> Family:
    """A family of classes with these names."""
    made: Family = family(classes=tuple(names))  # type: ignore[call-arg]
    return made


def index_of_classes(target: str, labels: Sequence[object], names: Sequence[str]) -> np.ndarray:
    """Index of each label's class ``(N,)`` as int64, -1 for None.

    Raises:
        ValueError: If a label is none of the classes.
    """
    number = {name: i for i, name in enumerate(names)}
    found = np.full(len(labels), -1, dtype=np.int64)
    for row, label in enumerate(labels):
        if label is None:
            continue
        if label not in number:
            raise ValueError(f"Target {target!r}: {label!r} is none of its classes {', '.join(names)}.")
        found[row] = number[str(label)]
    return found


def labels_of_numbers(
    target: str, values: np.ndarray, kind: KindLike | None, names: Sequence[str] | None = None
) -> tuple[np.ndarray, Family]:
    """Labels that come as an array, and their family.

    Args:
        target: Its name, for messages.
        values: ``(N,)``, or what the family takes.
        kind: See the module; None goes by the array's type.
        names: Of the classes by their index, where the labels are indices of named classes.

    Returns:
        Labels as `Family.check` takes them, and the family.

    Raises:
        ValueError: If the labels are not numbers, there is one class only, or classes are too many to be classes.
    """
    if values.dtype.kind not in "fiub":
        raise ValueError(f"Target {target!r} must hold numbers; got dtype {values.dtype}. Number the classes from 0.")
    if kind is None:
        if values.dtype.kind == "f":
            binary = values.ndim == 1 and set(np.unique(values[~np.isnan(values)]).tolist()) == {0.0, 1.0}
            return values, Binary() if binary else Real()
        parsed = Kind(Classes)
    else:
        parsed = parse_kind(target, kind)
    if parsed.given is not None:
        return values, parsed.given
    if not parsed.indexed:
        return values, parsed.family.of_array(values)
    if names is not None:
        names = tuple(map(str, names))
        cls = Binary if kind is None and len(names) == 2 else parsed.family
        return values, of_classes(cls, names)
    missing = np.isnan(values) if values.dtype.kind == "f" else values.astype(np.int64) == -1
    found = np.unique(values[~missing])
    if too_many(len(found), int((~missing).sum())):
        raise ValueError(
            f"Target {target!r} has {len(found):,} different whole labels in {int((~missing).sum()):,} rows, too many "
            f"for classes. Say what they are: kinds={target}:real, count or ordinal."
        )
    if set(found.tolist()) <= {0, 1}:
        found = np.array([0, 1])
    cls = Binary if kind is None and len(found) == 2 else parsed.family
    if len(found) < 2:
        raise ValueError(
            f"Target {target!r} has the one class {', '.join(map(number_text, found))} in all of its labels. Leave it "
            "out, or give its number of classes as its kind."
        )
    if found.dtype.kind == "b" or values.dtype.kind == "b":
        found, texts = np.array([False, True]), ["false", "true"]
    else:
        texts = list(map(number_text, found.tolist()))
    index = np.searchsorted(found, values)
    return np.where(missing, -1, index), of_classes(cls, texts)
