"""Columns of a table as numbers: what is learnt from the training rows, and kept with the model.

| column | becomes |
|---|---|
| numbers | itself; where missing, the median of the training rows, with an indicator ``name (missing)`` if any of those
is missing |
| dates | days since 1970-01-01, and as numbers |
| text | an indicator ``name=category`` for each category of the training rows, one for ``name=(missing)`` if any of
those is missing, and ``name=(other)`` for any other text |
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import methodcaller
from typing import Any, ClassVar, Self

import numpy as np

from bmtl.datasets.tables.column import AS_MISSING, Column, RawTable
from bmtl.datasets.tables.command_line import option
from bmtl.datasets.tables.date_fields import DateOrder, days
from bmtl.datasets.tables.doubts import counts_rows, doubt_about_numbers, doubt_about_text
from bmtl.datasets.tables.number_fields import Decimal, NumberStyle, parse_all

MOST_CATEGORIES = 1000
FEW_CATEGORIES = 20
"""Up to so many categories are never too many; beyond, each has two rows on average, and there are at most a
thousand."""

_FAR = 0.5
"""A number is far outside the training range from so much of the range's width beyond its ends."""
_SHOWN = 3  # categories in a sentence
_MOST_ALIKE = 8  # columns that have a line each
_AS_TRAINED = "Write it as in the training data, or leave it empty where it is not known."


@dataclass(frozen=True)
class Feature(ABC):
    """How one column becomes one or more columns of numbers. Plain values only; one subclass per kind of column."""

    kind: ClassVar[str]
    name: str

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the columns of `transform`."""

    @abstractmethod
    def transform(self, column: Column) -> np.ndarray:
        """The column as numbers ``(N, len(names))``, finite.

        Raises:
            ValueError: If a field cannot be read; names file, row, column and value.
        """

    @abstractmethod
    def unlike_training(self, column: Column) -> tuple[int, str]:
        """How many rows hold what no training row is near, and a sentence on them; empty where there are none."""

    @abstractmethod
    def summary(self) -> str:
        """What it is, in a few words."""

    def state(self) -> dict[str, Any]:
        """Plain values; `feature_from_state` is the inverse."""
        return {"kind": self.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}


FEATURES: dict[str, type[Feature]] = {}
"""Class by the kind in its state."""


def _register(cls: type[Feature]) -> type[Feature]:
    FEATURES[cls.kind] = cls
    return cls


def feature_from_state(state: Mapping[str, Any]) -> Feature:
    """The inverse of `Feature.state`."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in state.items() if k != "kind"}
    return FEATURES[state["kind"]](**values)


@dataclass(frozen=True)
class _Filled(Feature):
    """Numbers with the median of the training rows where one is missing; `low` and `high` are the training rows' ends."""

    fill: float
    indicator: bool
    low: float
    high: float

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, f"{self.name} (missing)") if self.indicator else (self.name,)

    def transform(self, column: Column) -> np.ndarray:
        numbers = self.numbers(column)
        missing = np.isnan(numbers)
        filled = np.where(missing, self.fill, numbers)
        return np.stack([filled, missing] if self.indicator else [filled], axis=1)

    def unlike_training(self, column: Column) -> tuple[int, str]:
        numbers = self.numbers(column)
        return far_outside(self.name, numbers[~np.isnan(numbers)], self.low, self.high, self._text)

    @abstractmethod
    def numbers(self, column: Column) -> np.ndarray:
        """Numbers ``(N,)``, NaN where missing."""

    @staticmethod
    def _text(value: float) -> str:
        """A number as the column has it."""
        return f"{value:g}"

    @classmethod
    def _fitted(cls, numbers: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        known = numbers[rows]
        return {
            "fill": float(np.nanmedian(known)),
            "indicator": bool(np.isnan(known).any()),
            "low": float(np.nanmin(known)),
            "high": float(np.nanmax(known)),
        }


@_register
@dataclass(frozen=True)
class NumberFeature(_Filled):
    """A column of numbers."""

    kind: ClassVar[str] = "number"
    decimal: Decimal = "point"
    percent: bool = False

    @classmethod
    def fit(cls, column: Column, style: NumberStyle, rows: np.ndarray, way_out: str) -> Self:
        """The median of the rows, and whether any of them is missing.

        Raises:
            ValueError: If a field is not a number in this style.
        """
        numbers = parse_all(column, style, way_out)
        return cls(column.name, decimal=style.decimal, percent=style.percent, **cls._fitted(numbers, rows))

    def numbers(self, column: Column) -> np.ndarray:
        return parse_all(column, NumberStyle(self.decimal, self.percent), _AS_TRAINED)

    def summary(self) -> str:
        return f"number{_where_missing(self)}"


@_register
@dataclass(frozen=True)
class DateFeature(_Filled):
    """A column of dates."""

    kind: ClassVar[str] = "date"
    order: DateOrder = "year-first"

    @classmethod
    def fit(cls, column: Column, order: DateOrder, rows: np.ndarray, way_out: str) -> Self:
        """The median of the rows, and whether any of them is missing.

        Raises:
            ValueError: If a field is not a date in this order.
        """
        return cls(column.name, order=order, **cls._fitted(days(column, order, way_out), rows))

    def numbers(self, column: Column) -> np.ndarray:
        return days(column, self.order, _AS_TRAINED)

    @staticmethod
    def _text(value: float) -> str:
        return str(np.datetime64(int(np.floor(value)), "D"))

    def summary(self) -> str:
        return f"date, in days since 1970-01-01{_where_missing(self)}"


@_register
@dataclass(frozen=True)
class CategoryFeature(Feature):
    """A column of categories."""

    kind: ClassVar[str] = "category"
    categories: tuple[str, ...] = ()
    missing: bool = False

    @classmethod
    def fit(cls, column: Column, rows: np.ndarray) -> Self:
        """The categories of the rows, in alphabetical order, and whether any of them is missing."""
        texts = column.as_texts()
        found = [texts[row] for row in rows.tolist()]
        return cls(column.name, tuple(sorted({text for text in found if text is not None})), None in found)

    @property
    def names(self) -> tuple[str, ...]:
        places = (*self.categories, *(["(missing)"] if self.missing else []), "(other)")
        return tuple(f"{self.name}={place}" for place in places)

    def transform(self, column: Column) -> np.ndarray:
        place = self._places()
        other = len(place)
        places = np.array([place.get(text, other) for text in column.as_texts()], dtype=np.int64)
        return np.asarray(places[:, None] == np.arange(other + 1)).astype(np.float64)

    def _places(self) -> dict[str | None, int]:
        """Place of each category of the training rows; None is a missing one."""
        known: list[str | None] = [*self.categories, *([None] if self.missing else [])]
        return {text: i for i, text in enumerate(known)}

    def unlike_training(self, column: Column) -> tuple[int, str]:
        known, texts = self._places(), column.as_texts()
        new = Counter("(missing)" if text is None else text for text in texts if text not in known)
        count = new.total()
        if not count:
            return 0, ""
        names = ", ".join([name for name, _ in new.most_common(_SHOWN)] + ["..."] * (len(new) > _SHOWN))
        alike = ", ".join(self.categories[:_SHOWN]) + ", ..." * (len(self.categories) > _SHOWN)
        ask = " Are they written in another way?" if count == len(texts) > 1 else ""
        return count, (
            f"{self.name}: {count:,} of {len(texts):,} rows have a category that no training row has ({names}; the "
            f"training rows have {alike}).{ask}"
        )

    def summary(self) -> str:
        shown = ", ".join(self.categories[:4]) + (", ..." if len(self.categories) > 4 else "")
        missing = "; missing is one more" if self.missing else ""
        what = "category" if len(self.categories) == 1 else "categories"
        return f"{len(self.categories)} {what} ({shown}){missing}"


def far_outside(
    name: str, numbers: np.ndarray, low: float, high: float, text: Callable[[float], str]
) -> tuple[int, str]:
    """How many numbers lie far outside a range, and a sentence on them, which is empty where there are none.

    Far is more than half of the range's width from its ends, and more than single precision rounds to.
    """
    margin = max(_FAR * (high - low), 1e-6 * max(abs(low), abs(high)))
    outside = numbers[(numbers < low - margin) | (numbers > high + margin)]
    if not len(outside):
        return 0, ""
    farthest = float(outside[np.argmax(np.maximum(low - outside, outside - high))])
    return len(outside), (
        f"{name}: {len(outside):,} of {len(numbers):,} numbers are far outside the training rows' {text(low)} to "
        f"{text(high)} (such as {text(farthest)})."
    )


def _where_missing(feature: _Filled) -> str:
    return f"; {feature.fill:g} where missing, with an indicator" if feature.indicator else ""


def too_many(categories: int, rows: int) -> bool:
    """Whether texts differ in too many rows to be categories: they are names or notes."""
    return categories > MOST_CATEGORIES or (categories > FEW_CATEGORIES and 2 * categories > rows)


@dataclass(frozen=True)
class Encoding:
    """All columns of a table, and how its files are read.

    Attributes:
        features: One for each column that is used, in order.
        reading: Options of `bmtl.datasets.tables.reading.read_table` with which the training file was read.
    """

    features: tuple[Feature, ...]
    reading: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of `transform`."""
        return tuple(name for feature in self.features for name in feature.names)

    def transform(self, table: RawTable) -> np.ndarray:
        """Numbers ``(N, D)`` of a table that has these columns, among others and in any order.

        Raises:
            ValueError: If a column is not there or a field cannot be read; names file, row, column and value.
        """
        lacking = [feature.name for feature in self.features if feature.name not in table.columns]
        if lacking:
            raise ValueError(
                f"{table.source} has no column {', '.join(map(repr, lacking))}, and the model was trained with "
                f"{', '.join(feature.name for feature in self.features)}. Add it; its fields may be empty."
            )
        return np.concatenate([f.transform(table.columns[f.name]) for f in self.features], axis=1)

    def unlike_training(self, table: RawTable) -> list[tuple[int, str]]:
        """What `Feature.unlike_training` says of each column where it says anything."""
        found = [feature.unlike_training(table.columns[feature.name]) for feature in self.features]
        return [(count, sentence) for count, sentence in found if count]

    def state(self) -> dict[str, Any]:
        """Plain values; `from_state` is the inverse."""
        return {"features": [feature.state() for feature in self.features], "reading": dict(self.reading)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The inverse of `state`."""
        return cls(tuple(map(feature_from_state, state["features"])), dict(state["reading"]))

    def describe(self) -> list[str]:
        """One line per column, and one for many columns in a row that are alike."""
        lines: list[str] = []
        for summary, alike in groupby(self.features, methodcaller("summary")):
            names = [feature.name for feature in alike]
            if len(names) > _MOST_ALIKE:
                lines.append(f"{', '.join(names[:2])}, ..., {names[-1]} ({len(names):,} columns): {summary} each")
            else:
                lines += [f"{name}: {summary}" for name in names]
        return lines


def fit_features(
    table: RawTable,
    names: Sequence[str],
    rows: np.ndarray,
    *,
    kinds: Mapping[str, str],
    style: Callable[[Column, str], NumberStyle | None],
    order: Callable[[Column], DateOrder | None],
) -> tuple[list[Feature], list[str]]:
    """A feature for each column, fitted on the training rows.

    Args:
        table: All rows.
        names: Columns that are features.
        rows: Training rows.
        kinds: Column -> "number", "date" or "category", where it is given.
        style: How a column's numbers are written, None if they are none; the second argument says what to do about a
            column of numbers and other text.
        order: In which order a column's dates are written; None if they are none.

    Returns:
        The features, and notes: on each column that is left out, since it has no value in the training rows, on each that
        numbers the rows, and on each that may be something else than it was taken as.

    Raises:
        ValueError: If a field cannot be read, or a column has as many texts as rows; says what to do.
    """
    features: list[Feature] = []
    notes: list[str] = []
    free_text: dict[str, str] = {}
    for name in names:
        column, kind = table.columns[name], kinds.get(name)
        if column.missing[rows].all():
            notes.append(f"{name}: left out, no value in the {len(rows):,} training rows.")
            continue
        mixed = (
            f"Correct it, mark it as missing ({AS_MISSING}), take the column as categories "
            f"({option('kinds', 'category', of=name)}), or leave it out ({option('ignore', name)})."
        )
        dates = order(column) if kind in (None, "date") else None
        if kind == "date" or dates is not None:
            features.append(DateFeature.fit(column, dates or "year-first", rows, mixed))
            continue
        numbers = style(column, mixed) if kind in (None, "number") else None
        if kind == "number" or numbers is not None:
            number = NumberFeature.fit(column, numbers or NumberStyle(), rows, mixed)
            features.append(number)
            values = number.numbers(column)
            if counts_rows(values):
                notes.append(
                    f"{name}: numbers the rows. If it says nothing else, leave it out ({option('ignore', name)})."
                )
            elif kind is None and (doubt := doubt_about_numbers(column, values)):
                notes.append(doubt)
            continue
        feature = CategoryFeature.fit(column, rows)
        doubt = doubt_about_text(name, feature.categories) if kind is None else ""
        if kind is None and too_many(len(feature.categories), len(rows)):
            free_text[name] = doubt
        elif doubt:
            notes.append(doubt)
        features.append(feature)
    if free_text:
        raise ValueError(
            f"{table.source} has text that differs from row to row in {', '.join(map(repr, free_text))}: names or "
            f"notes, and no categories. Leave such columns out ({option('ignore', *free_text)}), or take one as "
            f"categories all the same ({option('kinds', 'category', of=next(iter(free_text)))})."
            + "".join(f" {doubt}" for doubt in free_text.values() if doubt)
        )
    return features, notes
