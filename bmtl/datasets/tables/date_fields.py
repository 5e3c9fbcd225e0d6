"""Dates and times in common notations, as days since 1970-01-01.

A column is one of dates if every field that is not missing is a date of four-digit year: ``2021-03-04``, ``2021/3/4``,
with a time (``2021-03-04T12:30:00``, a zone counts), or day and month first (``4.3.2021``, ``04/03/2021``). With points
the day is first; with slashes and hyphens a column decides by a number above 12, and where it has none, it is an error.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import numpy as np

from bmtl.datasets.tables.column import Column

DateOrder = Literal["year-first", "day-first", "month-first"]

_TIME = r"(?:[T ]\s*(\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,6})?)?)\s*(Z|[+-]\d{2}:?\d{2})?)?"
_YEAR_FIRST = re.compile(rf"(\d{{4}})([-/.])(\d{{1,2}})\2(\d{{1,2}}){_TIME}", re.ASCII)
_YEAR_LAST = re.compile(rf"(\d{{1,2}})([-/.])(\d{{1,2}})\2(\d{{4}}){_TIME}", re.ASCII)
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
    present = list(column.present())
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
    if column.values is not None:
        if not column.dates:
            raise ValueError(
                f"The column {column.name!r} of {column.origin.source} holds numbers, not dates. {way_out}"
            )
        return column.values
    found = np.full(len(column), np.nan)
    for row, text in column.present():
        day = _day(text, order)
        if day is None:
            raise ValueError(f"{column.at(row)}: {text!r} is no date ({order.replace('-', ' ')}). {way_out}")
        found[row] = day
    return found


def _day(text: str, order: DateOrder) -> float | None:
    match = (_YEAR_FIRST if order == "year-first" else _YEAR_LAST).fullmatch(text)
    if match is None:
        return None
    one, _, two, three, time, zone = match.groups()
    year, month, day = {
        "year-first": (one, two, three),
        "day-first": (three, two, one),
        "month-first": (three, one, two),
    }[order]
    hours, minutes, seconds = (*(time or "0:0").replace(",", ".").split(":"), "0")[:3]
    try:
        # Without a zone, as if in UTC.
        moment = datetime(int(year), int(month), int(day), int(hours), int(minutes), tzinfo=UTC)
    except ValueError:
        return None
    if float(seconds) >= 60:
        return None
    if zone and zone != "Z":
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        moment += offset if zone[0] == "-" else -offset
    return (moment + timedelta(seconds=float(seconds)) - _EPOCH) / timedelta(days=1)
