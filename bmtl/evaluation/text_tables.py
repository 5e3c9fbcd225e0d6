"""A comparison's table for a page or a terminal: mean ± standard error over splits, what is marked in bold or starred.

Markdown, LaTeX with booktabs, and plain text in tables that fit a width without a break inside a number or a name.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import xarray as xr

from bmtl.evaluation.columns import Column
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.tables import ScoreTable, score_table

Layout = Literal["rows", "columns"]
_BAR = "| "
_MOST_DIGITS = 6  # of a mean: more are not read, and are within the rounding of single precision
ARROWS = {True: "↑", False: "↓", None: ""}
LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "−": "$-$",
    "∞": r"$\infty$",
    "²": "$^2$",
    "³": "$^3$",
    "·": r"$\cdot$",
    "–": "--",
}


def to_markdown(comparison: xr.Dataset, *, methods: Layout = "rows") -> str:
    """The table and its caption in Markdown.

    Args:
        comparison: From `compare`.
        methods: Whether methods are the rows or the columns; the latter suits many tasks and few methods.

    Returns:
        Text with lines of equal length; entries `mean ± standard error`, those of `best` in bold, NaN as a dash. An
        arrow at a column's name says which end is best. References have names in italics.
    """
    of = score_table(comparison, marked_as="In bold")
    cells = _cells(of, lambda text: f"**{text}**", lambda text: text, methods, lambda text: f"*{text}*")
    return f"{markdown_table(*cells)}\n\n{of.caption}\n"


def to_latex(comparison: xr.Dataset, *, methods: Layout = "rows", label: str | None = None) -> str:
    """The table as a LaTeX ``table`` with its caption; needs the package booktabs.

    Args:
        comparison: From `compare`.
        methods: As for `to_markdown`.
        label: To refer to it by.
    """
    of = score_table(comparison, marked_as="In bold")
    header, *body = _cells(of, lambda text: rf"\textbf{{{text}}}", _escaped, methods, lambda text: rf"\emph{{{text}}}")
    rows = [" & ".join(row) + r" \\" for row in body]
    first = len(body) - len(of.references)
    if methods == "rows" and 0 < first < len(body):
        rows.insert(first, r"\midrule")
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(of.caption)}}}",
        *([] if label is None else [rf"\label{{{label}}}"]),
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join([*lines, ""])


def to_text(
    comparison: xr.Dataset,
    *,
    width: int = 80,
    bold: Callable[[str], str] = lambda text: text,
    escape: Callable[[str], str] = lambda text: text,
) -> str:
    """The table and its caption for a terminal: methods by scores, then targets by methods where there are several.

    A table that is too wide is turned, or continued below with its first column again. Numbers and names are never broken:
    a name longer than the width sticks out. References are below a line, or right of one.

    Args:
        comparison: From `compare`.
        width: Characters of a line.
        bold: What makes a marked entry bold, besides its star.
        escape: What keeps the terminal's library from reading markup in the text.
    """
    of = score_table(comparison, marked_as="Starred")
    targets = [column for column in of.columns if column.task is not None]
    rest = [column for column in of.columns if column.task is None]
    tables = [("Scores on the test rows", rest, "score")] if rest else []
    if targets:
        scores = list(dict.fromkeys(column.score for column in targets))
        title = f"{scores[0]} by target" if len(scores) == 1 else "Primary scores by target"
        tables.append((title, targets, "target"))
    lines: list[str] = []
    for title, columns, rows in tables:
        short = rows == "target" and len({column.score for column in columns}) == 1
        first = 1 + len(of.means) - len(of.references)
        for place, block in enumerate(_fitting(_text_cells(of, columns, short), rows, width, first)):
            lines += [f"{title}{', continued' * (place > 0)}", *block.aligned(bold, escape), ""]
    said = textwrap.fill(of.caption, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines, escape(said), ""])


def entry(mean: float, error: float) -> str:
    """A mean with its standard error, both to the error's second digit; three digits of the mean where there is none.

    The mean has six significant digits at most; an error that begins behind them is written as ``2.0e-6``. An error within
    the rounding of its mean is left out: what is the same in every split does not vary.
    """
    if np.isnan(mean):
        return "–"
    if np.isinf(mean):
        return "∞" if mean > 0 else "−∞"
    if not (np.isfinite(error) and error > 1e-9 * abs(mean)):
        text = np.format_float_positional(mean, precision=3, fractional=False, trim="-")
        text = f"{mean:.0f}" if abs(mean) >= 100 else text
    else:
        needed = max(0, 1 - _place(error))
        most = needed if mean == 0 else max(0, _MOST_DIGITS - 1 - _place(mean))
        spread = f"{error:.{needed}f}"
        if needed > most:
            mantissa, exponent = f"{error:.1e}".split("e")
            spread = f"{mantissa}e{int(exponent)}"
        text = f"{mean:.{min(needed, most)}f} ± {spread}"
    return text.replace("-", "−")


def _place(number: float) -> int:
    """Power of ten of a number's first digit."""
    return int(np.floor(np.log10(abs(number))))


def _cells(
    of: ScoreTable,
    bold: Callable[[str], str],
    escape: Callable[[str], str],
    methods: Layout,
    reference: Callable[[str], str],
) -> list[list[str]]:
    """Header and rows of text."""
    if methods not in ("rows", "columns"):
        raise ValueError(f"methods is {methods!r}; expected 'rows' or 'columns'.")
    names = [escape(str(name)) for name in of.means.index]
    names = [
        reference(name) if given in of.references else name for name, given in zip(names, of.means.index, strict=True)
    ]
    rows = [["method" if methods == "rows" else "score", *names]]
    for column in of.columns:
        texts = [escape(entry(*both)) for both in zip(of.means[column.name], of.errors[column.name], strict=True)]
        marked = [bold(text) if mark else text for text, mark in zip(texts, of.marks[column.name], strict=True)]
        rows.append([f"{escape(column.name)} {escape(ARROWS[column.higher_is_better])}".strip(), *marked])
    return rows if methods == "columns" else _turned(rows)


Marked = tuple[str, bool]  # text, and whether it is marked
T = TypeVar("T")


def _text_cells(of: ScoreTable, columns: Sequence[Column], short: bool) -> list[list[Marked]]:
    """Header and rows of text, methods down; a marked entry has a star."""
    rows: list[list[Marked]] = [[("method", False), *((str(name), False) for name in of.means.index)]]
    for column in columns:
        name = f"{column.short if short else column.name} {ARROWS[column.higher_is_better]}".strip()
        entries = zip(of.means[column.name], of.errors[column.name], of.marks[column.name], strict=True)
        rows.append(
            [(name, False), *((f"{'*' * bool(mark)}{entry(mean, error)}", bool(mark)) for mean, error, mark in entries)]
        )
    return _turned(rows)


@dataclass(frozen=True)
class _Block:
    """Part of a table that is printed at once.

    Attributes:
        cells: Header and rows.
        rule: Row that a line is above of, as above the references; none where there is no such row.
        bar: Column that a line is left of.
    """

    cells: list[list[Marked]]
    rule: int | None = None
    bar: int | None = None

    @property
    def widths(self) -> list[int]:
        return [max(len(row[i][0]) for row in self.cells) for i in range(len(self.cells[0]))]

    @property
    def width(self) -> int:
        """Of the widest line."""
        return sum(self.widths) + 2 * (len(self.widths) - 1) + len(_BAR) * (self.bar is not None)

    def aligned(self, bold: Callable[[str], str], escape: Callable[[str], str]) -> list[str]:
        """Its lines."""
        line = "-" * self.width
        found = [self._line(row, bold, escape) for row in self.cells]
        if self.rule is not None and 1 < self.rule < len(found):
            found.insert(self.rule, line)
        return [found[0], line, *found[1:]]

    def _line(self, row: list[Marked], bold: Callable[[str], str], escape: Callable[[str], str]) -> str:
        parts = []
        for i, ((text, marked), wide) in enumerate(zip(row, self.widths, strict=True)):
            shown = bold(escape(text)) if marked else escape(text)
            space = " " * (wide - len(text))
            parts.append(f"{_BAR * (i == self.bar)}{space}{shown}" if i else f"{shown}{space}")
        return "  ".join(parts).rstrip()


def _fitting(cells: list[list[Marked]], rows: str, width: int, first: int) -> list[_Block]:
    """The table as it is or turned, whichever needs fewer lines, in blocks of columns that fit.

    Args:
        cells: Header and rows, methods down.
        rows: What the rows of the turned table are called.
        width: Of a line.
        first: Row of the first reference.
    """
    turned = _turned(cells)
    turned[0][0] = (rows, False)
    layouts = [_blocks(cells, width, rule=first), _blocks(turned, width, bar=first)]
    return min(
        layouts,
        key=lambda blocks: (
            max([0, *(block.width - width for block in blocks)]),
            sum(len(block.aligned(str, str)) + 2 for block in blocks),  # with a title and an empty line each
        ),
    )


def _blocks(cells: list[list[Marked]], width: int, *, rule: int | None = None, bar: int | None = None) -> list[_Block]:
    widths = _Block(cells).widths
    groups: list[list[int]] = []
    left = 0
    for i in range(1, len(widths)):
        wide = widths[i] + 2 + len(_BAR) * (i == bar)
        if not groups or left < wide:
            groups.append([])
            left = width - widths[0]
        groups[-1].append(i)
        left -= wide
    found = []
    for group in groups:
        place = group.index(bar) + 1 if bar in group and bar > 1 else None
        found.append(_Block([[row[0], *(row[i] for i in group)] for row in cells], rule, place))
    return found


def _turned(rows: Sequence[Sequence[T]]) -> list[list[T]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _escaped(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)
