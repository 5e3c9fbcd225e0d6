"""Text becomes HTML: whatever is not markup already is escaped, so that no name of a task or a file can break a page."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

import pandas as pd

from bmtl.evaluation.csv_cells import plain
from bmtl.evaluation.text_tables import entry

VOID = ("br", "img", "link", "meta")  # elements that have no end


class Markup(str):
    """Text that is HTML. Any other text is escaped where it becomes part of some."""

    __slots__ = ()


@dataclass(frozen=True)
class Cell:
    """An entry of a table.

    Attributes:
        text: What is shown.
        key: What the column is sorted by, where that is a number; NaN comes last.
        marked: Shown as one of the best of its column.
        error: Standard error of the number, where it has one.
    """

    text: str
    key: float | None = None
    marked: bool = False
    error: float = math.nan


def fragment(*children: str) -> Markup:
    """Markup and other text, joined."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def element(name: str, /, *children: str, **attributes: str | float | bool | None) -> Markup:
    """An element with its children.

    Args:
        name: Of the tag.
        children: Markup, or text to be escaped.
        attributes: ``class_`` is ``class``, ``data_key`` is ``data-key``. None and False are left out, True has no value.
    """
    given = [
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    ]
    opening = f"<{name}{''.join(given)}>"
    return Markup(opening if name in VOID else f"{opening}{fragment(*children)}</{name}>")


def paragraph(*children: str, class_: str | None = None) -> Markup:
    """A paragraph."""
    return element("p", *children, class_=class_)


def bullets(items: Sequence[str]) -> Markup:
    """A list; nothing for none."""
    return element("ul", *(element("li", item) for item in items)) if items else Markup()


def facts(pairs: Sequence[tuple[str, str]]) -> Markup:
    """Names and what belongs to them, one below the other."""
    rows = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *rows, class_="facts")


def code(text: str) -> Markup:
    """A line of code."""
    return element("code", text)


def details(title: str, *children: str) -> Markup:
    """What is folded away until it is requested. A printed page shows it."""
    return element("details", element("summary", title), *children)


def number(value: float, error: float = math.nan, *, marked: bool = False) -> Cell:
    """A cell for a value, and its standard error if there is one; a dash for NaN."""
    return Cell(entry(value, error), float(value), marked, float(error))


def table(header: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> Markup:
    """A table that sorts by a click on a column's name, scrolls inside its own box, and downloads as CSV.

    Args:
        header: Names of the columns.
        rows: Their entries, a row's name first: cells, or text. A `Cell` with a key is aligned to the right, as numbers are.
        caption: What it holds and how to read it.

    Raises:
        ValueError: If a row is longer or shorter than the header.
    """
    body = []
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"A row of the table has {len(row)} entries and its header {len(header)}: {row}.")
        body.append(element("tr", *(_cell(entry, i) for i, entry in enumerate(row))))
    # Headings are aligned as their columns.
    right = [any(_is_number(row[i]) for row in rows) for i in range(len(header))]
    names = [
        element("th", name, scope="col", class_="number" if to_right else None)
        for name, to_right in zip(header, right, strict=True)
    ]
    inside = element(
        "table",
        element("thead", element("tr", *names)),
        element("tbody", *body),
        class_="sortable",
    )
    box = element("div", inside, class_="scroll", tabindex=0, role="region", aria_label=caption)
    download = element(
        "a",
        "Download as CSV",
        href=f"data:text/csv;charset=utf-8,{quote(as_csv(header, rows))}",
        download=f"{_slug(caption)}.csv",
        class_="download",
    )
    return element("figure", element("figcaption", caption), box, download, class_="table")


def as_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table's numbers in full precision; standard errors have columns of their own, headings no arrows.

    Args:
        header: As for `table`.
        rows: As for `table`.
    """
    with_error = [any(_has_error(row[i]) for row in rows) for i in range(len(header))]
    columns: list[object] = []
    for name, errors in zip(header, with_error, strict=True):
        own = name.rstrip(" ↓↑")
        columns += [plain(own), *([plain(f"{own} (standard error)")] if errors else [])]
    lines = [[value for i, cell in enumerate(row) for value in _values(cell, with_error[i])] for row in rows]
    values = [[plain(value) for value in line] for line in lines]
    frame = pd.DataFrame(values, columns=columns, dtype=object)
    return frame.to_csv(index=False, lineterminator="\n")


def _values(given: object, error: bool) -> list[object]:
    """A cell's value, and its standard error where its column has them."""
    cell = given if isinstance(given, Cell) else Cell(str(given))
    value: object = cell.text
    if cell.key is not None and not _more_than_a_number(cell.text):
        value = "" if math.isnan(cell.key) else _repr(cell.key)
    return [value, *(["" if math.isnan(cell.error) else _repr(cell.error)] if error else [])]


def _more_than_a_number(text: str) -> bool:
    """Whether a cell's text says more than its key does, as "3 of 5" and "1.2 to 3.4" do."""
    return " of " in text or " to " in text


def _repr(value: float) -> object:
    return int(value) if abs(value) < 1e15 and value == round(value) else value


def _has_error(given: object) -> bool:
    return isinstance(given, Cell) and not math.isnan(given.error)


def _slug(caption: str) -> str:
    """The first words of a caption as a file's name."""
    words = re.findall(r"[a-z0-9]+", caption.partition(".")[0].lower())
    return "-".join(words[:7]) or "table"


def _is_number(given: object) -> bool:
    return isinstance(given, Cell) and given.key is not None


def _cell(given: object, place: int) -> Markup:
    cell = given if isinstance(given, Cell) else Cell(str(given))
    numeric = cell.key is not None
    classes = " ".join(name for name, holds in (("number", numeric), ("best", cell.marked)) if holds) or None
    key = None if cell.key is None else "" if math.isnan(cell.key) else repr(float(cell.key))
    if place == 0:
        return element("th", cell.text, scope="row", class_=classes, data_key=key)
    text = element("strong", cell.text) if cell.marked else cell.text
    return element("td", text, class_=classes, data_key=key)
