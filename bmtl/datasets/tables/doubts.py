"""What a column of features may rather be than what it was read as, and what to do about it.

Numbers may be codes (``01000``) or dates (``20210131``), text may be numbers with a unit (``12 mg``), times of day or dates
of a form that is not read, and a value far from all others may mark what is missing (``-999``).
"""

import re
from collections.abc import Sequence

import numpy as np

from bmtl.datasets.tables.column import PARTS, Column, number_text
from bmtl.datasets.tables.command_line import option
from bmtl.datasets.tables.date_fields import compact_dates

_DIGITS = r"[-+]?\d[\d., ]*"
_WITH_MARK = re.compile(rf"{_DIGITS}[^\d., ]\D{{0,15}}|[$€£¥₹]\s?{_DIGITS}|{_DIGITS}(±|\+/-)\s*{_DIGITS}")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*([AaPp]\.?[Mm]\.?)?")
_SHORT_YEAR = re.compile(r"\d{1,2}([-/.])\d{1,2}\1\d{2}(\s.*)?")
_MANY = 10  # numbers that count the rows, before that is no chance
_LEAST_VALUES = 10
_OF_ONE = 10
"""How many times the range of the others one number alone has to be away from them."""


def doubt_about_numbers(column: Column, numbers: np.ndarray) -> str:
    """A sentence on a column that was read as numbers; empty where there is nothing to doubt.

    Args:
        column: Its fields.
        numbers: As they were read ``(N,)``, NaN where missing.
    """
    name = column.name
    texts = [text for _, text in column.present()] if column.texts is not None else []
    code = next((text for text in texts if len(text) > 1 and text[0] == "0" and text.isdecimal()), None)
    if code is not None and all(map(str.isdecimal, texts)):
        return (
            f"{name}: fields such as {code} begin with 0. If they are codes, take them as categories "
            f"({option('kinds', 'category', of=name)})."
        )
    if compact_dates(numbers):
        example = number_text(numbers[np.flatnonzero(~np.isnan(numbers))[0]])
        return (
            f"{name}: taken as numbers, and all of them could be dates, such as {example}. If they are, say so "
            f"({option('kinds', 'date', of=name)})."
        )
    return marker(name, numbers)


def counts_rows(numbers: np.ndarray) -> bool:
    """Whether numbers are consecutive whole ones, each once, in any order; never of a few, which may be so by chance."""
    first, last = numbers.min(), numbers.max()  # NaN where one is missing
    return last - first == len(numbers) - 1 >= _MANY and np.array_equal(np.sort(numbers), np.arange(first, last + 1))


def marker(name: str, numbers: np.ndarray) -> str:
    """A sentence on a number that is far from all others; empty where there is none.

    Far is more than the whole range of the others, which are ten different numbers or more; ten times the range where it
    occurs once.

    Args:
        name: Of the column.
        numbers: ``(N,)``, NaN where missing.
    """
    values, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    if len(values) <= _LEAST_VALUES:
        return ""
    for end, others in ((0, values[1:]), (-1, values[:-1])):
        gap = min(abs(values[end] - others[0]), abs(values[end] - others[-1]))
        count = int(counts[end])
        if gap > (others[-1] - others[0]) * (_OF_ONE if count == 1 else 1):
            text = number_text(values[end])
            rows = "1 row has" if count == 1 else f"{count:,} rows have"
            return (
                f"{name}: {rows} {text}, and the others lie between {others[0]:g} and {others[-1]:g}. If it marks what is "
                f"missing, say so ({option('missing', text)})."
            )
    return ""


def doubt_about_text(name: str, texts: Sequence[str]) -> str:
    """A sentence on text that may be numbers, dates or times; empty where there is nothing to doubt.

    Args:
        name: Of the column.
        texts: Its different fields.
    """
    if len(texts) < 2:
        return ""
    if {"train", "test"} <= {PARTS.get(text.lower()) for text in texts} <= set(PARTS):
        return f"{name}: taken as categories. If it says which rows are for tests, name it ({option('split', name)})."
    if all(map(_SHORT_YEAR.fullmatch, texts)):
        return f"{name}: text such as {texts[0]!r} is no date here. Write years with four digits."
    if all(map(_CLOCK.fullmatch, texts)):
        return f"{name}: text such as {texts[0]!r} is a time of day, which is not read. Give it as a number of hours."
    if all(map(_WITH_MARK.fullmatch, texts)):
        return f"{name}: text such as {texts[0]!r}. If it is a number, give it without its unit or mark."
    return ""
