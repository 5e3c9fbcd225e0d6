"""Tables as CSV that is safe to open in a spreadsheet."""

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Prefixes of text that a spreadsheet would evaluate or send to another program."""


def plain(value: object) -> object:
    """Text that begins like a formula gets an apostrophe before it, which spreadsheets take for "this is text".

    Numbers stay unchanged, negative ones too. What text this is done to depends on its first character that is not a space,
    since some programs leave spaces out.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a carriage return alone is not quoted, and ends the row
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def csv_text(frame: pd.DataFrame, *, index_label: str | None = None, digits: int | None = None) -> str:
    """A frame as CSV whose headings and text start no formula (`plain`).

    Args:
        frame: Of numbers and text.
        index_label: Heading of the index; its own name by default.
        digits: Significant digits of floating-point numbers; by default as many as are needed to read them back unchanged.
    """
    safe = frame.map(plain)
    safe.columns = [plain(name) for name in frame.columns]
    safe.index = pd.Index([plain(name) for name in frame.index], name=plain(frame.index.name))
    return safe.to_csv(index_label=index_label, lineterminator="\n", float_format=digits and f"%.{digits}g")
