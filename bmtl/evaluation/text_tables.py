"""A comparison's table for a page: Markdown, and LaTeX with booktabs; mean ± standard error over splits, best in bold."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from bmtl.evaluation.columns import columns
from bmtl.evaluation.tables import best, caption, standard_error, table

Layout = Literal["rows", "columns"]
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
        arrow at a column's name says which end is best.
    """
    cells = _cells(comparison, lambda text: f"**{text}**", lambda text: text.replace("|", r"\|"), methods)
    header, *body = cells
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * max(widths[0], 3), *("-" * (max(width, 3) - 1) + ":" for width in widths[1:])]  # numbers to the right
    lines = [
        "| " + " | ".join(text.ljust(max(width, 3)) for text, width in zip(row, widths, strict=True)) + " |"
        for row in (header, rule, *body)
    ]
    return "\n".join([*lines, "", _note(comparison), ""])


def to_latex(comparison: xr.Dataset, *, methods: Layout = "rows", label: str | None = None) -> str:
    """The table as a LaTeX ``table`` with its caption; needs the package booktabs.

    Args:
        comparison: From `compare`.
        methods: As for `to_markdown`.
        label: To refer to it by.
    """
    header, *body = _cells(comparison, lambda text: rf"\textbf{{{text}}}", _escaped, methods)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(_note(comparison))}}}",
        *([] if label is None else [rf"\label{{{label}}}"]),
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join([*lines, ""])


def entry(mean: float, error: float) -> str:
    """A mean with its standard error, both to the error's second digit; three digits of the mean where there is none.

    An error that is rounding beside its mean is none: what is the same in every split does not vary.
    """
    if np.isnan(mean):
        return "–"
    if np.isinf(mean):
        return "∞" if mean > 0 else "−∞"
    if not (np.isfinite(error) and error > 1e-9 * abs(mean)):
        text = np.format_float_positional(mean, precision=3, fractional=False, trim="-")
        text = f"{mean:.0f}" if abs(mean) >= 100 else text
    else:
        decimals = max(0, 1 - int(np.floor(np.log10(error))))
        text = f"{mean:.{decimals}f} ± {error:.{decimals}f}"
    return text.replace("-", "−")


def _cells(
    comparison: xr.Dataset, bold: Callable[[str], str], escape: Callable[[str], str], methods: Layout
) -> list[list[str]]:
    """Header and rows of text."""
    if methods not in ("rows", "columns"):
        raise ValueError(f"methods is {methods!r}; expected 'rows' or 'columns'.")
    means, errors, marks = table(comparison), standard_error(comparison), best(comparison)
    arrows = {column.name: ARROWS[column.higher_is_better] for column in columns(comparison)}
    texts = pd.DataFrame(
        {
            f"{escape(name)} {escape(arrows[name])}".strip(): [
                bold(escape(entry(mean, error))) if marked else escape(entry(mean, error))
                for mean, error, marked in zip(means[name], errors[name], marks[name], strict=True)
            ]
            for name in means.columns
        },
        index=[escape(name) for name in means.index],
    )
    if methods == "columns":
        texts = texts.T
    corner = "method" if methods == "rows" else "score"
    return [[corner, *texts.columns], *([str(name), *row] for name, row in zip(texts.index, texts.values, strict=True))]


def _note(comparison: xr.Dataset) -> str:
    return caption(comparison) + (" ±: standard error over splits." if comparison.sizes["split"] > 1 else "")


def _escaped(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)
