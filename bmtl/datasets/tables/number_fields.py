"""Numbers in common notations: decimal points and commas, thousands separators, percent signs, and censoring marks.

A field is a number only if it is one in full: ``1_5``, ``12 kg``, ``1,2,3`` and ``0x10`` are none. Whether a comma or a
point separates decimals is a property of the column, decided from all of its fields, and where these allow both
readings, from the file's other columns. What stays ambiguous is an error, never a guess.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from bmtl.datasets.tables.column import Column

Decimal = Literal["point", "comma"]

_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_PLAIN_COMMA = re.compile(r"[+-]?(?:\d+,?\d*|,\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SPACES = " '\u00a0\u2009\u202f\u2019"
# Groups of three after the first, one kind of separator in a number; a first group of 0 belongs to decimals (0,123).
_GROUPED = {
    "point": re.compile(rf"[+-]?[1-9]\d{{0,2}}([,{_SPACES}])\d{{3}}(?:\1\d{{3}})*(?:\.\d*)?", re.ASCII),
    "comma": re.compile(rf"[+-]?[1-9]\d{{0,2}}([.{_SPACES}])\d{{3}}(?:\1\d{{3}})*(?:,\d*)?", re.ASCII),
}
_PLAIN_LETTERS = frozenset("0123456789+-.eE")
_MARK = re.compile(r"(<=?|>=?|≤|≥)\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class NumberStyle:
    """How the numbers of a column are written.

    Attributes:
        decimal: What separates decimals.
        percent: Whether each number is followed by a percent sign; ``12.5 %`` is then read as 12.5.
    """

    decimal: Decimal = "point"
    percent: bool = False


def parse(text: str, style: NumberStyle) -> float | None:
    """The number that a field is, or None if it is none in this style or too large for a float."""
    text = text.replace("\u2212", "-")
    if text.endswith("%") != style.percent:
        return None
    if style.percent:
        text = text[:-1].rstrip()
    plain = _PLAIN if style.decimal == "point" else _PLAIN_COMMA
    if not plain.fullmatch(text):
        grouped = _GROUPED[style.decimal].fullmatch(text)
        if grouped is None:
            return None
        text = text.replace(grouped[1], "")
    # Rounds correctly everywhere, which a fast CSV parser need not: fingerprints depend on it.
    number = float(text.replace(",", "."))
    return number if np.isfinite(number) else None


def parse_label(text: str, style: NumberStyle) -> tuple[float, float] | None:
    """The interval that a label is: equal ends if exact, an infinite end for ``<3`` and ``>10``; None for other text."""
    marked = _MARK.fullmatch(text)
    number = parse(text if marked is None else marked[2], style)
    if number is None:
        return None
    if marked is None:
        return number, number
    return (-np.inf, number) if marked[1][0] in "<≤" else (number, np.inf)


def parse_all(column: Column, style: NumberStyle, way_out: str) -> np.ndarray:
    """Numbers ``(N,)`` of a column, NaN where missing.

    Args:
        column: Of a file or data frame.
        style: How its numbers are written.
        way_out: What to do about a field that is not a number, as a sentence.

    Raises:
        ValueError: If a field is not a finite number in this style; names file, row, column and value.
    """
    if column.values is not None:
        infinite = np.isinf(column.values)
        if infinite.any():
            row = int(np.argmax(infinite))
            raise ValueError(f"{column.at(row)}: {column.values[row]} is not finite. {way_out}")
        return column.values
    numbers = np.full(len(column), np.nan)
    if style == NumberStyle() and (plain := _plain([text for _, text in column.present()])) is not None:
        numbers[~column.missing] = plain
        return numbers
    for row, text in column.present():
        number = parse(text, style)
        if number is None:
            what = "an interval, as labels may be, and no number" if _MARK.fullmatch(text) else "no number"
            raise ValueError(f"{column.at(row)}: {text!r} is {what}{_as_written(style)}. {way_out}")
        numbers[row] = number
    return numbers


def _as_written(style: NumberStyle) -> str:
    """How numbers of the column are written, for messages; empty for the plain way."""
    how = (["a decimal comma"] if style.decimal == "comma" else []) + (["a percent sign"] if style.percent else [])
    return f" with {' and '.join(how)}, as the column's are written" if how else ""


@dataclass(frozen=True)
class _Scan:
    """What the present fields of a column are."""

    readable: frozenset[Decimal]  # decimals with which every field is a number
    differ: bool  # whether two such readings give different numbers
    commas: bool  # whether a field has a comma
    percent: bool


class Decimals:
    """Decides how each column's numbers are written, with a file's other columns as evidence.

    Args:
        columns: Columns of the file whose fields may be numbers.
        decimal: What separates decimals, where it is known.
        delimiter: Of the file. Where it is a semicolon, a comma alone separates decimals.

    Raises:
        ValueError: If `decimal` is neither "point" nor "comma".
    """

    def __init__(self, columns: Iterable[Column], decimal: Decimal | None = None, delimiter: str = "") -> None:
        if decimal is not None and decimal not in get_args(Decimal):
            raise ValueError(f"decimal is 'point' or 'comma'; got {decimal!r}.")
        self._given = decimal
        self._delimiter = delimiter
        self._scans = {column: _scan(column) for column in columns if column.values is None}

    def joined(self, column: Column) -> "Decimals":
        """With another column as evidence."""
        more = Decimals([column], self._given, self._delimiter)
        more._scans |= self._scans
        return more

    @cached_property
    def _evidence(self) -> set[Decimal]:
        """What separates decimals in the columns that can be read in one way only."""
        found = [scan.readable for scan in self._scans.values() if isinstance(scan, _Scan)]
        return {next(iter(readable)) for readable in found if len(readable) == 1}

    def style(self, column: Column, way_out: str) -> NumberStyle | None:
        """How a column's numbers are written; None if no field of it is a number.

        Args:
            column: Labels may carry censoring marks (``<3``).
            way_out: What to do where the column holds numbers and other text, as a sentence.

        Raises:
            ValueError: If only some fields are numbers, no one way of writing fits all, or two do.
        """
        if column.values is not None:
            return NumberStyle()
        scan = self._scans[column] if column in self._scans else _scan(column)
        if scan is None:
            return None
        if isinstance(scan, str):
            raise ValueError(f"{scan} {way_out}")
        return NumberStyle(self._decimal(column, scan), scan.percent)

    def _decimal(self, column: Column, scan: _Scan) -> Decimal:
        if len(scan.readable) == 1:
            (only,) = scan.readable
            return only
        if self._given is not None:
            return self._given
        if len(self._evidence) == 1:
            (usual,) = self._evidence
            return usual
        if not scan.differ or (not scan.commas and not self._evidence):
            return "point"
        if not self._evidence and self._delimiter == ";":
            return "comma"
        row, text = next((row, text) for row, text in column.present() if "," in text or "." in text)
        raise ValueError(
            f"{column.at(row)}: {text!r} can be {_show(text, 'point')} or {_show(text, 'comma')}, and nothing in the "
            "column says which. Give decimal='point' or decimal='comma' (-d decimal=comma)."
        )


def _show(text: str, decimal: Decimal) -> str:
    number = parse_label(text, NumberStyle(decimal, text.endswith("%")))
    return "" if number is None else f"{number[0] if np.isfinite(number[0]) else number[1]:.12g}"


def _scan(column: Column) -> _Scan | str | None:
    """What a column's fields are; None if none is a number, and where some are not, a sentence that names one."""
    present = list(column.present())
    if not present:
        return None
    fields = [text for _, text in present]
    bare = [marked[2] if (marked := _MARK.fullmatch(text)) else text for text in fields]
    if fields == bare and _plain(fields) is not None:
        # Points alone may be thousands separators (1.234): only where each of them could be one.
        pointed = [text for text in fields if "." in text]
        both = all(_GROUPED["comma"].fullmatch(text) for text in pointed)
        return _Scan(
            frozenset(get_args(Decimal)) if both else frozenset({"point"}), both and bool(pointed), False, False
        )
    percents = [text.endswith("%") for text in bare]
    styles: dict[Decimal, NumberStyle] = {d: NumberStyle(d, percents[0]) for d in get_args(Decimal)}
    read = {d: [parse(text, style) for text in bare] for d, style in styles.items()}
    every = {d for d, numbers in read.items() if None not in numbers}
    if every:
        values = [read[d] for d in sorted(every)]
        return _Scan(frozenset(every), values[0] != values[-1], any("," in text for text in bare), percents[0])
    return _fault(column, present, bare)


def _fault(column: Column, present: Sequence[tuple[int, str]], bare: Sequence[str]) -> str | None:
    """The sentence on a column of which not every field is a number in one style; None if none is a number at all."""

    def ways(text: str) -> list[NumberStyle]:
        styles = [NumberStyle(d, text.endswith("%")) for d in get_args(Decimal)]
        return [style for style in styles if parse(text, style) is not None]

    numbers = [bool(ways(text)) for text in bare]
    if not any(numbers):
        return None
    if not all(numbers):
        place = numbers.index(False)
        row, text = present[place]
        units = row == 0 and len(numbers) > 2 and sum(numbers) == len(numbers) - 1
        return (
            f"{column.at(row)}: {text!r} is no number, and {sum(numbers):,} of the column's {len(bare):,} fields are."
            + (
                " If this row has the columns' units, remove it (units of targets: -d units=TARGET:UNIT)."
                if units
                else ""
            )
        )
    common, narrowed_by = set(ways(bare[0])), 0
    for place, text in enumerate(bare):
        found = set(ways(text))
        if not common & found:
            (row, one), (other, two) = present[place], present[narrowed_by]
            return f"{column.at(row)}: {one!r} and {two!r} ({column.origin.at(other)}) are not written in one way."
        if not common <= found:
            common, narrowed_by = common & found, place
    return None


def _plain(fields: Sequence[str]) -> np.ndarray | None:
    """Numbers that are all written as Python writes them; None if one is not. A fast way for the usual column."""
    if not set("".join(fields)) <= _PLAIN_LETTERS:
        return None
    try:
        numbers = np.array(list(map(float, fields)))
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None
