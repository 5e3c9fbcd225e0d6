"""Tables in Markdown of any text."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], *rows: Sequence[str], left: int = 1) -> str:
    """Text as a Markdown table with lines of equal length, numbers to the right.

    Args:
        header: Names of the columns.
        *rows: As long as the header; a bar is escaped.
        left: Number of columns of names, which come first and are aligned to the left.
    """
    cells = [[text.replace("|", r"\|") for text in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = [*("-" * width for width in widths[:left]), *("-" * (width - 1) + ":" for width in widths[left:])]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in (cells[0], rule, *cells[1:])
    )
