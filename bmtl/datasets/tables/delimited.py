"""Text files of rows and columns: encodings, delimiters, headers and ragged rows, read right or refused by name."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bmtl.datasets.tables.column import Column, MissingFields, Origin, RawTable, cleaned, spelled
from bmtl.datasets.tables.number_fields import NumberStyle, parse
from bmtl.targets.names import check_text

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_WITH_PANDAS = "Read it with pandas, and save it as CSV or Parquet."
_NOT_TEXT = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "Save it as CSV from the program that wrote it."),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "Save it as CSV from the program that wrote it."),
    (b"\x00\x05\x16\x07", "the metadata that macOS keeps of another file", "Give the file without `._` in its name."),
    (b"PAR1", "a Parquet file", "Name it .parquet."),
    (b"ARROW1", "a Feather file", "Name it .feather."),
    (b"FEA1", "a Feather file of version 1", "Write it again with today's pandas, or as CSV."),
    (b"\x80\x03", "a pickle", _WITH_PANDAS),
    (b"\x80\x04", "a pickle", _WITH_PANDAS),
    (b"\x80\x05", "a pickle", _WITH_PANDAS),
    (b"\x89HDF", "an HDF5 file", _WITH_PANDAS),
    (b"SQLite format 3", "an SQLite database", _WITH_PANDAS),
    (b"$FL", "an SPSS file", _WITH_PANDAS),
    (b"<stata_dta>", "a Stata file", _WITH_PANDAS),
    (b"%PDF", "a PDF", "Save its table as CSV."),
    (b"BZh", "compressed by bzip2", "Unpack it, or compress it by gzip."),
    (b"\xfd7zXZ\x00", "compressed by xz", "Unpack it, or compress it by gzip."),
    (b"\x28\xb5\x2f\xfd", "compressed by zstandard", "Unpack it, or compress it by gzip."),
)
_NOT_FIELDS = (
    (re.compile(r"\s*(\[\s*)?\{\s*(\"|\})"), "JSON", _WITH_PANDAS),
    (re.compile(r"\s*<(!doctype|html|head)\b", re.IGNORECASE), "a web page", "Fetch the file that the page is about."),
    (re.compile(r"\s*<\?xml\b"), "XML", _WITH_PANDAS),
    (re.compile(r"(\s*%.*\n|\s*\n)*\s*@relation\b", re.IGNORECASE), "an ARFF file", "Save it as CSV."),
)
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE = 200  # rows from which the delimiter is found


def read_delimited(
    path: Path, *, encoding: str | None = None, delimiter: str | None = None, missing: Sequence[str] = ()
) -> RawTable:
    r"""A file with the columns' names in its first row.

    Bytes are UTF-8, or what their byte order mark says; gzip is recognised by its first bytes. Rows end with CR, LF or
    both, and empty rows are left out. A first column without a name that numbers the rows is left out, as is a last one
    without a name or value. Rows are numbered as a spreadsheet does, the header being row 1.

    Args:
        path: Of the file.
        encoding: Of its bytes, where it is neither UTF-8 nor marked, such as ``"latin-1"``.
        delimiter: Between fields: ``,``, ``;``, a tab (or ``tab``) or ``|``. Found from the file by default; a tab for
            ``.tsv``.
        missing: Further fields that are a missing value, such as ``-999``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file or damaged, its encoding or delimiter cannot be known, a row has another
            number of fields than the header, or a name is missing, repeated or not one; says where, and what to do.
    """
    if path.name.startswith("._"):
        raise ValueError(
            f"{path} is the metadata that macOS keeps of another file. Give the file without `._` in its name."
        )
    text = _text(path, encoding)
    given = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
    if given is not None and given not in _DELIMITERS:
        raise ValueError(f"A delimiter is one of , ; | and tab; got {delimiter!r}.")
    skipped = 0
    hint = re.match(r"sep=(.)\r?\n", text)
    if hint is not None and hint[1] in _DELIMITERS:  # Excel's own hint
        text, skipped, given = text[hint.end() :], 1, given or hint[1]
    if given is None:
        tabbed = ".tsv" in [suffix.lower() for suffix in path.suffixes[-2:]]
        given = "\t" if tabbed else _found_delimiter(path, text)
    rows = [(number, row) for number, row in _rows(path, text, given, 1 + skipped) if any(map(str.strip, row))]
    if not rows:
        raise ValueError(f"{path} is empty. Expected the columns' names in the first row and a row for each datum.")
    (_, header), *body = rows
    if not body:
        raise ValueError(f"{path} has no rows below its header {', '.join(header)}.")
    for number, row in body:
        if len(row) != len(header):
            raise ValueError(
                f"{path.name}, row {number}: {len(row)} fields, and the header has "
                f"{len(header)}.{_ragged(header, body)}"
            )
    numbers = [number for number, _ in body]
    names, notes = _names(path, header, body)
    origin = Origin(((path.name, numbers),))
    own = MissingFields(missing)
    columns = {
        name: Column(name, origin, [cleaned(row[place], own) for _, row in body]) for place, name in names.items()
    }
    return RawTable(columns, origin, given, notes)


def _text(path: Path, encoding: str | None) -> str:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file ({error}). Fetch or write it again.") from error
    for magic, what, way_out in _NOT_TEXT:
        if content.startswith(magic):
            raise ValueError(f"{path} is {what}, not a text file. {way_out}")
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    used = encoding or marked or "utf-8"
    try:
        # Text in another encoding is no valid UTF-8, unless it is plain ASCII.
        text = content.decode("utf-8" if _other(used) and _is_utf8(content) else used)
    except LookupError:
        raise ValueError(
            f"There is no encoding {encoding!r}. Common ones are utf-8, latin-1, cp1252 and utf-16."
        ) from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not {used.upper()}: line {line} has the byte {content[error.start]:#04x}. Give its encoding "
            "(-d encoding=latin-1, or cp1252, utf-16), or save it as UTF-8, which bmtl predict takes."
        ) from error
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(
            f"{path}, line {line} has a NUL character: the file is damaged, or UTF-16 without a byte order mark (-d "
            "encoding=utf-16-le; bmtl predict takes UTF-8)."
        )
    for start, what, way_out in _NOT_FIELDS:
        if start.match(text):
            raise ValueError(f"{path} is {what}, not rows of fields. {way_out}")
    return text


def _other(encoding: str) -> bool:
    """Whether an encoding is none of Unicode's own."""
    return not codecs.lookup(encoding).name.startswith("utf")


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _rows(path: Path, text: str, delimiter: str, first: int) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    number = first
    try:
        for row in reader:
            yield number, row
            number += 1
    except csv.Error as error:
        raise ValueError(
            f"{path.name}, row {number}, near line {reader.line_num + first - 1}: {error}. A quotation mark opens a "
            "field and closes it, and is doubled inside it; correct the row."
        ) from error


def _found_delimiter(path: Path, text: str) -> str:
    """The delimiter with which every row has as many fields as the header."""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    fits, widths = [], {}
    for delimiter in (d for d in _DELIMITERS if d in first):
        rows: list[list[str]] = []
        try:
            for _, row in _rows(path, text, delimiter, 1):
                if row:
                    rows.append(row)
                if len(rows) == _SAMPLE:
                    break
        except ValueError:
            continue  # said when the file is read with the delimiter that is left
        widths[delimiter] = len(rows[0]) if rows else 0
        if widths[delimiter] > 1 and all(len(row) == widths[delimiter] for row in rows):
            fits.append(delimiter)
    if len(fits) > 1:
        shown = " and ".join("a tab" if d == "\t" else f"{d!r}" for d in fits)
        raise ValueError(
            f"{path} has equal rows with {shown} between fields. Give one as delimiter (-d delimiter=...)."
        )
    if fits:
        return fits[0]
    return max(widths, key=lambda delimiter: widths[delimiter], default=",")


def _ragged(header: Sequence[str], body: Sequence[tuple[int, list[str]]]) -> str:
    if header[0].startswith("#"):
        return " The header is a comment: begin the file with the columns' names."
    if all(len(row) == len(header) + 1 for _, row in body):
        return " Every row has one more: name the column of row names in the header."
    return " Quote a field that holds the delimiter, or fill the row up."


def _names(path: Path, header: list[str], body: list[tuple[int, list[str]]]) -> tuple[dict[int, str], tuple[str, ...]]:
    """Place -> name of the columns that are kept, and what was left out."""
    names: dict[int, str] = {}
    notes: list[str] = []
    where: dict[str, int] = {}
    if all(_is_number(name) for name in header if name.strip()) and not _counts(header):
        raise ValueError(
            f"{path} begins with the numbers {', '.join(header[:4])}, and its first row is expected to name the "
            "columns."
        )
    for place, given in enumerate(header):
        fields = [row[place] for _, row in body]
        if place == 0 and (not given.strip() or given.strip() == "Unnamed: 0") and _counts(fields):
            notes.append(f"{path.name}: left out the first column, which numbers the rows.")
            continue
        if not given.strip():
            if place == len(header) - 1 and not any(map(str.strip, fields)):
                continue  # each row ends with a delimiter
            raise ValueError(f"{path}: column {place + 1} has no name in the header. Name it there, or remove it.")
        name = check_text("column", spelled(given))
        if name in where:
            raise ValueError(
                f"{path} has two columns {name!r}: number {where[name] + 1} and number {place + 1}. Rename one."
            )
        names[place], where[name] = name, place
    return names, tuple(notes)


def _counts(fields: Sequence[str]) -> bool:
    """Whether fields count 0, 1, 2, ... or 1, 2, 3, ..."""
    return [field.strip() for field in fields] in ([str(i + s) for i in range(len(fields))] for s in (0, 1))


def _is_number(text: str) -> bool:
    return cleaned(text) is None or parse(text.strip(), NumberStyle()) is not None
