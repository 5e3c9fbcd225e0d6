import bz2
import csv
import gzip
import io
import lzma
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.datasets.tables.column import cleaned
from bmtl.datasets.tables.delimited import read_delimited


def texts(table) -> dict[str, list]:
    return {name: list(column.texts) for name, column in table.columns.items()}


PLAIN = {"a": ["1", "3"], "b": ["2", "4"]}


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n3,4\n",
        b"a,b\r\n1,2\r\n3,4\r\n",  # Windows
        b"a,b\r1,2\r3,4\r",  # old Macs
        b"a,b\n1,2\n3,4",
        b"\xef\xbb\xbfa,b\n1,2\n3,4\n",  # a byte order mark
        "\ufeffa,b\n1,2\n3,4\n".encode("utf-16"),
        "a;b\n1;2\n3;4\n".encode("utf-16"),
        "a,b\n1,2\n3,4\n".encode("utf-32"),
        b"a;b\n1;2\n3;4\n",
        b"a\tb\n1\t2\n3\t4\n",
        b"a|b\n1|2\n3|4\n",
        b"sep=;\na;b\n1;2\n3;4\n",  # Excel's hint
        b"sep=;\r\na;b\r\n1;2\r\n3;4\r\n",
        b'"a","b"\n"1","2"\n"3","4"\n',
        b"a , b\n 1 ,2\n3, 4 \n",
        b"\n\na,b\n1,2\n\n3,4\n\n\n",  # empty rows
        b"a,b\n1,2\n3,4\n,\n,,\n".replace(b",,\n", b",\n"),  # rows of delimiters alone, as Excel leaves them
        b"a,b,\n1,2,\n3,4,\n",  # a delimiter at each end
        b",a,b\n0,1,2\n1,3,4\n",  # an index that pandas wrote
        b",a,b\n1,1,2\n2,3,4\n",
        b"Unnamed: 0,a,b\n0,1,2\n1,3,4\n",
        gzip.compress(b"a,b\n1,2\n3,4\n", mtime=0),
    ],
)
def test_files_as_programs_write_them_are_one_table(read, content):
    assert texts(read(content)) == PLAIN


def test_an_ending_tells_of_tabs(read):
    assert texts(read("a\tb,c\n1\t2\n", "t.tsv")) == {"a": ["1"], "b,c": ["2"]}
    assert texts(read(gzip.compress(b"a\tb,c\n1\t2\n", mtime=0), "t.tsv.gz")) == {"a": ["1"], "b,c": ["2"]}


def test_quoted_fields_hold_delimiters_quotes_and_newlines(read):
    table = read('a,b\n"1,5","say ""hi"""\n"two\nlines",x\n3,"q, r"\n')
    assert texts(table) == {"a": ["1,5", "two\nlines", "3"], "b": ['say "hi"', "x", "q, r"]}
    assert table.columns["a"].at(2) == "t.csv, row 4, column 'a'"  # rows of a spreadsheet, not lines


def test_rows_are_counted_as_a_spreadsheet_does(read):
    table = read("a,b\n1,2\n\n3,4\n")
    assert [table.columns["a"].at(row) for row in range(2)] == ["t.csv, row 2, column 'a'", "t.csv, row 4, column 'a'"]
    assert read("sep=;\na;b\n1;2\n").columns["a"].at(0) == "t.csv, row 3, column 'a'"


def test_a_comma_in_fields_does_not_hide_the_delimiter(read):
    assert texts(read("a;b\n1,5;2,5\n3,5;4,5\n")) == {"a": ["1,5", "3,5"], "b": ["2,5", "4,5"]}
    assert texts(read("name;size, mm\nx;2\n")) == {"name": ["x"], "size, mm": ["2"]}


def test_names_are_made_safe(read):
    assert list(read("  a  b ,cafe\u0301,\u212b\n1,2,3\n").columns) == ["a b", "café", "Å"]
    assert list(read('"price\n(EUR)",b\n1,2\n').columns) == ["price (EUR)", "b"]


def test_fields_in_two_unicode_forms_are_equal(read):
    fields = texts(read("a,b\ncafé,1\ncafe\u0301,2\n"))["a"]
    assert fields[0] == fields[1]


def test_encodings_are_named_on_demand(read):
    content = "a,b\nGenève,1\n".encode("latin-1")
    assert texts(read(content, encoding="latin-1"))["a"] == ["Genève"]
    assert texts(read("a,b\nGenève,1\n".encode("utf-16-le"), encoding="utf-16-le"))["a"] == ["Genève"]
    assert texts(read("a,b\nGenève,1\n".encode(), encoding="latin-1"))["a"] == [
        "Genève"
    ]  # what is UTF-8 is read as such
    with pytest.raises(ValueError, match="t.csv is not UTF-8: line 2 has the byte 0xe8. .*-d encoding=latin-1"):
        read(content)
    with pytest.raises(ValueError, match="no encoding 'klingon'"):
        read(content, encoding="klingon")


def test_delimiters_are_named_on_demand(read):
    ambiguous = "x;y, mm\n1;2,5\n3;4,5\n"
    with pytest.raises(ValueError, match="equal rows with ',' and ';' between fields. Give one as delimiter"):
        read(ambiguous)
    assert texts(read(ambiguous, delimiter=";")) == {"x": ["1", "3"], "y, mm": ["2,5", "4,5"]}
    assert texts(read("a\tb\n1\t2\n", delimiter="tab")) == {"a": ["1"], "b": ["2"]}
    with pytest.raises(ValueError, match="A delimiter is one of .*got ':'"):
        read("a:b\n", delimiter=":")


def test_further_fields_may_be_missing(read):
    found = texts(read("a,b\n-999,x\n1,none\n-999.00,y\n", missing=["-999", "none"]))
    assert found == {"a": [None, "1", None], "b": ["x", None, "y"]}


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "t.csv", "t.csv is empty"),
        ("\n\n", "t.csv", "t.csv is empty"),
        ("a,b\n", "t.csv", "has no rows below its header a, b"),
        ("a,b\n1,2\n3\n", "t.csv", "t.csv, row 3: 1 fields, and the header has 2. Quote a field"),
        ("a,b\n1,2,3\n", "t.csv", "row 2: 3 fields, .* Every row has one more: name the column of row names"),
        ("a,b\n1,2\n3,4,5,6\n", "t.csv", "row 3: 4 fields"),
        ("# made today\na,b\n1,2\n", "t.csv", "row 2: 2 fields, and the header has 1. The header is a comment"),
        ("a,a\n1,2\n", "t.csv", "has two columns 'a': number 1 and number 2. Rename one"),
        ("caf\u00e9,cafe\u0301\n1,2\n", "t.csv", "two columns 'café'"),
        ("a,,b\n1,2,3\n", "t.csv", "column 2 has no name"),
        (",a\nx,1\ny,2\n", "t.csv", "column 1 has no name"),
        ("a,b,\n1,2,\n3,4,5\n", "t.csv", "column 3 has no name"),
        (
            "5.1,3.5,1.4\n4.9,3.0,1.4\n",
            "t.csv",
            "begins with the numbers 5.1, 3.5, 1.4, .*expected to name the columns",
        ),
        ('a,b\n"1,2\n3,4\n', "t.csv", "t.csv, row 2, near line .*A quotation mark opens a field"),
        ('a,b\n"1"2,3\n', "t.csv", "row 2, near line 2: .*correct the row"),
        ("a,b\n1,x\0y\n", "t.csv", "line 2 has a NUL character.*encoding=utf-16-le"),
        ("a,b\n1,2\n".encode("utf-16-le"), "t.csv", "line 1 has a NUL character"),
        ("a\x1b,b\n1,2\n", "t.csv", r"name of a column holds visible characters only; .*'\\x1b' at position 1"),
        ("a" * 300 + ",b\n1,2\n", "t.csv", "name of a column has at most 200 bytes"),
        (b"PK\x03\x04" + b"0" * 40, "t.csv", "a zip archive or an Excel workbook"),
        (b"\xd0\xcf\x11\xe0" + b"0" * 40, "t.csv", "an Excel workbook"),
        (b"PAR1" + b"0" * 40, "t.csv", "a Parquet file.*Name it .parquet"),
        (b"ARROW1" + b"0" * 40, "t.csv", "a Feather file.*Name it .feather"),
        (b"\x80\x04" + b"0" * 40, "t.csv", "a pickle.*save it as CSV or Parquet"),
        (b"SQLite format 3\x00" + b"0" * 40, "t.csv", "an SQLite database"),
        ('[{"a": 1}]', "t.csv", "is JSON, not rows of fields"),
        ('{"a": 1}\n{"a": 2}\n', "t.csv", "is JSON, not rows of fields"),
        ("\n<!DOCTYPE html><html>", "t.csv", "a web page.*Fetch the file"),
        ("% made by\n@RELATION iris\n", "t.csv", "an ARFF file"),
        (bz2.compress(b"a,b\n1,2\n"), "t.csv.bz2", "is compressed by bzip2.*Unpack it"),
        (lzma.compress(b"a,b\n1,2\n"), "t.csv.xz", "is compressed by xz.*Unpack it"),
        (b"\x28\xb5\x2f\xfd" + b"0" * 40, "t.csv.zst", "is compressed by zstandard.*Unpack it"),
        (b"\x00\x05\x16\x07\x00\x02", "t.csv", "the metadata that macOS keeps of another file"),
        ("a,b\n1,2\n", "._t.csv", "the metadata that macOS keeps of another file"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-6], "t.csv.gz", "a damaged gzip file"),
        (b"\x1f\x8b\x08\x00broken", "t.csv", "a damaged gzip file"),
        ("a,b\n1," + "x" * 140_000 + "\n", "t.csv", "row 2, near line 2: field larger than field limit"),
    ],
)
def test_files_that_cannot_be_read_right_are_refused_by_name(read, content, name, message):
    with pytest.raises(ValueError, match=message):
        read(content, name)


def test_columns_that_are_named_by_their_numbers_are_no_rows(read):
    assert texts(read("0,1\n5.1,3.5\n")) == {"0": ["5.1"], "1": ["3.5"]}


def test_a_first_column_that_numbers_the_rows_is_noted(read):
    assert read(",a,b\n0,1,2\n1,3,4\n").notes == ("t.csv: left out the first column, which numbers the rows.",)
    # A named one is a column like any other.
    assert list(read("id,a\n0,1\n1,3\n").columns) == ["id", "a"]


# ---- What any program writes is read back ----------------------------------------------------------------------------

field = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
rows = st.lists(st.tuples(st.integers(0, 99).map(str), field, field), min_size=1, max_size=6)


@given(
    rows,
    st.sampled_from([",", ";", "\t", "|"]),
    # Python 3.11 quotes no newline but the row's own, and another reader ends the row there.
    st.sampled_from(
        [("\n", csv.QUOTE_ALL), ("\r", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]
    ),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
)
def test_any_table_is_read_back(written, delimiter, style, encoding, named):
    ending, quoting = style
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=ending, quoting=quoting)
    writer.writerows([("a", "b", "c"), *written])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(stream.getvalue().encode(encoding))
        table = refusal = None
        try:
            table = read_delimited(path, delimiter=delimiter if named else None)
        except ValueError as error:
            refusal = str(error)
    if table is None:  # where fields make rows of another delimiter too
        assert not named
        assert "Give one as delimiter" in refusal
        return
    for name, fields in zip("abc", zip(*written, strict=True), strict=True):
        assert list(table.columns[name].texts) == [cleaned(text) for text in fields]
