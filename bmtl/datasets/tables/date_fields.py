"""Dates and times in common notations, as days since 1970-01-01.

A column is one of dates if every field that is not missing is a date of four-digit year: ``2021-03-04``, ``2021/3/4``,
with a time (``2021-03-04T12:30:00``, a zone counts; ``1:30 PM``), with an English month (``4 Mar 2021``,
``March 4, 2021``), or day and month first (``4.3.2021``, ``04/03/2021``). With points the day is first; with slashes and
hyphens a column decides by a number above 12, and where it has none, it is an error. ``20210304`` is a date where the column
is said to be one.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import numpy as np

from bmtl.datasets.tables.column import Column

DateOrder = Literal["year-first", "day-first", "month-first"]

_TIME = r"(?:[T ]\s*(\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)\s*([AaPp][Mm])?\s*(Z|UTC|GMT|[+-]\d{2}:?\d{2})?)?"
_YEAR_FIRST = re.compile(rf"(\d{{4}})([-/.])(\d{{1,2}})\2(\d{{1,2}}){_TIME}", re.ASCII)
_YEAR_LAST = re.compile(rf"(\d{{1,2}})([-/.])(\d{{1,2}})\2(\d{{4}}){_TIME}", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_NAMED = re.compile(
    rf"(?:(?P<day>\d{{1,2}})[-/. ]+{_MONTH}|{_MONTH} +(?P<second>\d{{1,2}}))[-/., ]+(?P<year>\d{{4}})(?P<time>\D.*)?",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def order_of(column: Column, given: DateOrder | None = None) -> DateOrder | None:
    """The order in which a column's dates are written; None if it is not a column of dates.

    Args:
        column: Any column; one of a data frame may be dates already.
        given: The order of dates whose year is last, where it is known.

    Raises:
        ValueError: If it cannot be decided which number is the day, or `given` is no such order.
    """
    if given is not None and given not in get_args(DateOrder):
        raise ValueError(f"dates are {', '.join(map(repr, get_args(DateOrder)))}; got {given!r}.")
    if column.values is not None:
        return "year-first" if column.dates else None
    present = [(row, _with_number(text)) for row, text in column.present()]
    if not present:
        return None
    if all(_YEAR_FIRST.fullmatch(text) for _, text in present):
        return "year-first"
    if not all(_YEAR_LAST.fullmatch(text) for _, text in present):
        return None
    if given in ("day-first", "month-first"):
        return given
    found = [match for _, text in present if (match := _YEAR_LAST.fullmatch(text))]
    first, second = (max(int(match[group]) for match in found) for group in (1, 3))
    if first > 12 or all(match[2] == "." for match in found):
        return "day-first"
    if second > 12:
        return "month-first"
    row, text = present[0]
    raise ValueError(
        f"{column.at(row)}: {text!r} can be day or month first, and nothing in the column says which. Give "
        "dates='day-first' or dates='month-first' (-d dates=day-first)."
    )


def days(column: Column, order: DateOrder, way_out: str) -> np.ndarray:
    """Days since 1970-01-01 ``(N,)``, with the time of day as a fraction; NaN where missing.

    Args:
        column: Of dates in this order.
        order: As `order_of` returned it.
        way_out: What to do about a field that is not a date, as a sentence.

    Raises:
        ValueError: If a field is not a date in this order; names file, row, column and value.
    """
    if column.values is not None and column.dates:
        return column.values
    found = np.full(len(column), np.nan)
    for row, text in column.present():
        day = _day(text, order)
        if day is None:
            raise ValueError(f"{column.at(row)}: {text!r} is no date ({order.replace('-', ' ')}). {way_out}")
        found[row] = day
    return found


def compact_dates(numbers: np.ndarray) -> bool:
    """Whether numbers are eight digits each that are dates of 1900 to 2099, such as 20210304, and not all alike."""
    found = np.unique(numbers[~np.isnan(numbers)])
    if len(found) < 2 or found[0] < 19000101 or found[-1] > 20991231 or (found != np.floor(found)).any():
        return False
    return all(_day(str(int(number)), "year-first") is not None for number in found)


def _with_number(text: str) -> str:
    """A date with the name of its month as one that begins with the year; anything else as it is."""
    match = _NAMED.fullmatch(text)
    if match is None:
        return text
    month = _MONTHS.index((match[2] or match[3]).lower()) + 1
    return f"{match['year']}-{month}-{match['day'] or match['second']}{match['time'] or ''}"


def _day(text: str, order: DateOrder) -> float | None:
    text = _with_number(text)
    if order == "year-first" and len(text) == 8 and text.isascii() and text.isdigit():
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    match = (_YEAR_FIRST if order == "year-first" else _YEAR_LAST).fullmatch(text)
    if match is None:
        return None
    one, _, two, three, time, half, zone = match.groups()
    year, month, day = {
        "year-first": (one, two, three),
        "day-first": (three, two, one),
        "month-first": (three, one, two),
    }[order]
    hours, minutes, seconds = (*(time or "0:0").replace(",", ".").split(":"), "0")[:3]
    if half:
        if not 1 <= int(hours) <= 12:
            return None
        hours = str(int(hours) % 12 + 12 * (half.lower() == "pm"))
    try:
        # Without a zone, as if in UTC.
        moment = datetime(int(year), int(month), int(day), int(hours), int(minutes), tzinfo=UTC)
    except ValueError:
        return None
    if float(seconds) >= 60:
        return None
    if zone and zone not in ("Z", "UTC", "GMT"):
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        moment += offset if zone[0] == "-" else -offset
    return (moment + timedelta(seconds=float(seconds)) - _EPOCH) / timedelta(days=1)
