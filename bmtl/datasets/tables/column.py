"""Columns of a file or data frame as they were found: text or numbers, with what is missing and where each field is."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np

from bmtl.datasets.checks import meant

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "?", "-", "<na>"})
"""Fields that are a missing value, in lower case; they are recognised in any case."""


PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Part by what a split column says, in lower case."""

AS_MISSING = "empty, NA, or named: -d missing=TEXT"
"""How a message says to mark a field as missing."""


class MissingFields:
    """Further fields that are a missing value; numbers are compared as numbers.

    Args:
        tokens: Such as ``-999``, which is ``-999.0`` too.
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._texts = frozenset(map(str.strip, tokens))
        self.numbers = frozenset(number for token in self._texts if (number := _number(token)) is not None)

    def __contains__(self, text: str) -> bool:
        return text in self._texts or (bool(self.numbers) and _number(text) in self.numbers)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


NO_MORE = MissingFields()


def cleaned(text: str, missing: MissingFields = NO_MORE) -> str | None:
    """A field in Unicode NFC without spaces around it, or None where it is one of `MISSING` or of `missing`."""
    text = text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if len(text) < 5 and text.lower() in MISSING:  # none of them is longer
        return None
    return None if text in missing else text


def spelled(name: str) -> str:
    """The name of a column as tables spell it: in Unicode NFC, and any white space as one space."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


def number_text(value: float) -> str:
    """A number as a category's or class's name: ``"3"`` for 3.0."""
    return str(int(value)) if value == np.floor(value) and abs(value) < 1e16 else repr(float(value))


@dataclass(frozen=True)
class Origin:
    """Where rows come from.

    Attributes:
        parts: Per file its name and the numbers of its rows, counted as a spreadsheet does: the header is row 1.
    """

    parts: tuple[tuple[str, Sequence[object]], ...]

    def at(self, row: int) -> str:
        """A row as a message names it."""
        for source, numbers in self.parts:
            if row < len(numbers):
                return f"{source}, row {numbers[row]}"
            row -= len(numbers)
        raise IndexError(row)

    @property
    def source(self) -> str:
        """The name of the file, or of the first of several."""
        return self.parts[0][0]


@dataclass(frozen=True, eq=False)
class Column:
    """One column.

    Attributes:
        name: Of the column.
        origin: Where its rows are.
        texts: Fields as text, None where missing; or None if the column came as numbers.
        values: Numbers ``(N,)``, NaN where missing, if the column came as numbers (from a data frame).
        dates: Whether `values` are days since 1970-01-01.
        levels: Names of the categories of a data frame's ordered category, lowest first.
    """

    name: str
    origin: Origin
    texts: Sequence[str | None] | None = None
    values: np.ndarray | None = None
    dates: bool = False
    levels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values if self.values is not None else self.texts or ())

    @cached_property
    def missing(self) -> np.ndarray:
        """Where there is no value, bool ``(N,)``."""
        if self.values is not None:
            return np.isnan(self.values)
        return np.array([text is None for text in self.texts or ()], dtype=bool)

    def at(self, row: int) -> str:
        """A field as a message names it: ``"wide.csv, row 58, column 'price'"``."""
        return f"{self.origin.at(row)}, column {self.name!r}"

    def as_texts(self) -> Sequence[str | None]:
        """Fields as text; numbers in their shortest form."""
        if self.values is not None:
            return [None if np.isnan(value) else number_text(value) for value in self.values]
        return self.texts or ()

    def present(self) -> Iterator[tuple[int, str]]:
        """Row and text of every field that is not missing."""
        return ((row, text) for row, text in enumerate(self.as_texts()) if text is not None)

    def take(self, rows: slice) -> "Column":
        """Consecutive rows of one file."""
        start, stop, _ = rows.indices(len(self))
        parts, before = [], 0
        for source, numbers in self.origin.parts:
            kept = numbers[max(start - before, 0) : max(stop - before, 0)]
            before += len(numbers)
            if len(kept):
                parts.append((source, kept))
        return replace(
            self,
            origin=Origin(tuple(parts)),
            texts=None if self.texts is None else self.texts[rows],
            values=None if self.values is None else self.values[rows],
        )


@dataclass(frozen=True, eq=False)
class RawTable:
    """Columns of one file or data frame, or of several files one below the other.

    Attributes:
        columns: Name -> column, in order.
        origin: Where the rows are.
        delimiter: Between the fields of a text file.
        notes: What was left out while reading, a sentence each.
    """

    columns: Mapping[str, Column]
    origin: Origin
    delimiter: str = ""
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return sum(len(numbers) for _, numbers in self.origin.parts)

    @property
    def source(self) -> str:
        """The name of the file, for messages."""
        return self.origin.source

    def column(self, name: str, what: str) -> Column:
        """The column of a name.

        Args:
            name: Of the column.
            what: What it is for, for the message.

        Raises:
            ValueError: If there is none; names those that there are.
        """
        if name not in self.columns:
            raise ValueError(
                f"{self.source} has no column {name!r} for {what}.{meant(name, self.columns)} Its columns are: "
                f"{', '.join(self.columns)}."
            )
        return self.columns[name]

    @classmethod
    def joined(cls, tables: Sequence[Self]) -> "RawTable":
        """Tables with the same columns one below the other, the columns in the order of the first.

        Raises:
            ValueError: If their columns differ.
        """
        first = tables[0]
        for table in tables[1:]:
            odd = sorted(set(table.columns) ^ set(first.columns))
            if odd:
                raise ValueError(
                    f"{table.source} and {first.source} differ in the columns {', '.join(odd)}. Give all files the "
                    "same."
                )
        origin = Origin(tuple(part for table in tables for part in table.origin.parts))
        columns = {}
        for name in first.columns:
            own = [table.columns[name] for table in tables]
            values = [column.values for column in own if column.values is not None]
            if len(values) == len(own) and len({column.dates for column in own}) == 1:
                columns[name] = Column(name, origin, values=np.concatenate(values), dates=own[0].dates)
            else:
                columns[name] = Column(name, origin, [text for column in own for text in column.as_texts()])
        notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
        return RawTable(columns, origin, first.delimiter, notes)


def tokens_of(given: str | float | Sequence[str | float]) -> list[str]:
    """One missing value or several as texts."""
    return (
        [given] if isinstance(given, str) else [str(given)] if isinstance(given, int | float) else list(map(str, given))
    )


def names_of(given: "str | Iterable[str]") -> list[str]:
    """One name or several as a list."""
    return [given] if isinstance(given, str) else list(given)
