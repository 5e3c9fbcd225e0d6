"""Tables of the documentation as files: a table of a page is what the command beside it wrote.

Run: python examples/page_tables.py docs/vmtl.md docs/mt_enet.md
     python examples/page_tables.py --take runs/energy/table.md docs/results/comparisons_energy.csv

Examples write their tables with `keep`, one CSV file each, cells as they are printed. In a page the line

    <!-- results/NAME.csv -->

(with "left 2" after the name where two columns are of words) stands above the table of that file. This script writes the
tables of the pages that it is given anew; a test compares them. With --take it makes a file of the table in Markdown that
``bmtl compare`` writes.
"""

import csv
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.storage import atomic

PLACE = re.compile(r"<!-- (results/\S+\.csv)(?: left (\d+))? -->\n\n((?:\|.*\n)*)")


def keep(file: Path, header: Sequence[object], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Writes a table to its file.

    Args:
        file: CSV.
        header: Names of the columns.
        rows: Cells, as they are printed.
        left: Number of columns of words, from the left.

    Returns:
        The table in Markdown.
    """
    lines = [[str(cell) for cell in line] for line in (header, *rows)]
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, lineterminator="\n").writerows(lines)
    return markdown_table(*lines, left=left)


def read(file: Path) -> list[list[str]]:
    """Header and rows of a table."""
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.reader(opened))


def filled(page: str, folder: Path) -> str:
    """A page with its tables as they are in their files.

    Args:
        page: Text of the page.
        folder: Of the page.
    """

    def table(found: re.Match[str]) -> str:
        lines = read(folder / found[1])
        return page[found.start() : found.start(3)] + markdown_table(*lines, left=int(found[2] or 1)) + "\n"

    return PLACE.sub(table, page)


def taken(text: str) -> list[list[str]]:
    """Header and rows of the first table in a Markdown text."""
    found = re.search(r"^(\|.*)\n\|[-:| ]+\n((?:\|.*\n)*)", text + "\n", flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"There is no table in the text, which begins with {text[:60]!r}.")
    lines = (found[1], *found[2].splitlines())
    return [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def main() -> None:
    if sys.argv[1:2] == ["--take"] and len(sys.argv) == 4:
        header, *rows = taken(Path(sys.argv[2]).read_text(encoding="utf-8"))
        print(keep(Path(sys.argv[3]), header, rows))
        return
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(
            "Give the pages whose tables are to be written anew, for example docs/vmtl.md; or --take TABLE.md FILE.csv."
        )
    for name in sys.argv[1:]:
        page = Path(name)
        text = page.read_text(encoding="utf-8")
        with atomic(page) as temporary:
            temporary.write_text(filled(text, page.parent), encoding="utf-8")
        print(f"{page}: {len(PLACE.findall(text))} tables.")


if __name__ == "__main__":
    main()
