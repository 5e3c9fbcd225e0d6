"""Columns and files for the tests of tables."""

import pytest

from bmtl.datasets.tables.column import Column, Origin, cleaned
from bmtl.datasets.tables.delimited import read_delimited


@pytest.fixture
def column():
    """A function: a column of text fields, in a file whose first row of data is row 2."""

    def of(fields, name="price", source="wide.csv") -> Column:
        origin = Origin(((source, range(2, 2 + len(fields))),))
        return Column(name, origin, [cleaned(field) for field in fields])

    return of


@pytest.fixture
def read(tmp_path):
    """A function: the raw table of some text or bytes."""

    def of(content, name="t.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_delimited(path, **options)

    return of
