import datetime
import decimal
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from bmtl.datasets.tables.frames import raw_table, read_arrow
from bmtl.datasets.tables.labels import read_labels
from bmtl.datasets.tables.number_fields import Decimals
from bmtl.datasets.tables.reading import read_table

DAY = datetime.date(2021, 3, 4)


def column(values, **options):
    return raw_table(pd.DataFrame({"a": values}), **options).columns["a"]


@pytest.mark.parametrize(
    "values",
    [
        [1.0, np.nan, 3.0],
        pd.array([1, None, 3], dtype="Int64"),
        pd.array([1.0, None, 3.0], dtype="Float32"),
        np.ma.filled(np.ma.array([1, 0, 3], mask=[0, 1, 0]).astype(float), np.nan),
        pd.arrays.SparseArray([1.0, np.nan, 3.0]),
    ],
)
def test_numbers_stay_numbers(values):
    found = column(values)
    assert found.texts is None
    assert_array_equal(found.values, [1, np.nan, 3])
    assert list(found.as_texts()) == ["1", None, "3"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([True, False], ["True", "False"]),
        (pd.array([True, None], dtype="boolean"), ["True", None]),
        (["a ", None], ["a", None]),
        (pd.array(["a", None], dtype="string"), ["a", None]),
        (["cafe\u0301", "NA"], ["café", None]),
        ([1.5, "<3"], ["1.5", "<3"]),
        ([0.1 + 0.2, None, "x"], ["0.30000000000000004", None, "x"]),
        ([decimal.Decimal("1.10"), np.nan], ["1.10", None]),
        ([DAY, None], ["2021-03-04", None]),
        ([True, "x", pd.NA], ["True", "x", None]),
        (pd.Categorical(["b", None, "a"]), ["b", None, "a"]),
    ],
)
def test_other_values_are_text_as_a_file_has_it(values, texts):
    assert list(column(pd.Series(values, dtype=getattr(values, "dtype", object))).as_texts()) == texts


@pytest.mark.parametrize("dtype", ["int64", "uint64", "Int64"])
def test_whole_numbers_that_no_float_holds_stay_apart(dtype):
    numbers = [2**53, 2**53 + 1, 2**53 + 2, 5]
    assert column(pd.Series(numbers, dtype=dtype)).as_texts() == list(map(str, numbers))
    classes = column(pd.Series(numbers * 2, dtype=dtype))
    labels = read_labels("y", classes, "classes", Decimals([classes]).style)
    assert len(set(labels.values[:4].tolist())) == 4
    assert labels.values[:4].tolist() == labels.values[4:].tolist()
    missing = raw_table(pd.DataFrame({"a": pd.Series(numbers, dtype=dtype)}), missing=["5"]).columns["a"]
    assert missing.missing.tolist() == [False, False, False, True]


def test_ordered_categories_keep_their_order():
    levels = pd.Categorical(["mid", "low"], categories=["low", "mid", "high"], ordered=True)
    assert column(levels).levels == ("low", "mid", "high")
    assert column(pd.Categorical(["b", "a"])).levels == ()


def test_times_are_days():
    times = pd.to_datetime(["1970-01-02 12:00", None])
    for values in (times, times.tz_localize("UTC"), times.tz_localize("UTC").tz_convert("Asia/Tokyo")):
        found = column(values)
        assert found.dates
        assert_array_equal(found.values, [1.5, np.nan])
    assert_array_equal(column(pd.to_timedelta(["36h", None])).values, [1.5, np.nan])


def test_further_values_may_be_missing():
    assert_array_equal(column([-999.0, 1.0], missing=["-999", "x"]).values, [np.nan, 1])
    assert list(column(["x", "y"], missing=["-999", "x"]).as_texts()) == [None, "y"]


def test_rows_are_named_by_the_index():
    frame = pd.DataFrame({"a": [1, 2], 7: ["x", "y"]}, index=["one", "two"])
    table = raw_table(frame)
    assert list(table.columns) == ["a", "7"]
    assert table.columns["a"].at(1) == "the data frame, row 'two', column 'a'"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"a": []}), "the data frame has no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns 'a'"),
        (pd.DataFrame([[1, 2]], columns=["caf\u00e9", "cafe\u0301"]), "two columns 'café'"),
        (
            pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])),
            "several levels of names",
        ),
        (pd.DataFrame({"a": [1j]}), "'a' of the data frame holds complex numbers"),
        (pd.DataFrame({"a": [[1, 2], [3]]}), "row 0, column 'a': a list, and a table holds"),
        (pd.DataFrame({"a": [b"x"]}), "row 0, column 'a': a bytes"),
        (pd.DataFrame({("a", 1): [1]}), "The name of a column is text|several levels"),
        (pd.DataFrame({1.5: [1]}), "The name of a column is text; got 1.5"),
    ],
)
def test_frames_that_are_no_table_are_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        raw_table(frame)


def test_parquet_is_the_frame_it_was(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "n": [1.5, np.nan],
            "i": pd.array([1, None], dtype="Int64"),
            "t": ["a", None],
            "d": pd.to_datetime(["2021-01-01", None]),
            "b": [True, False],
            "c": pd.Categorical(["lo", "hi"], categories=["lo", "hi"], ordered=True),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    found, expected = read_table(tmp_path / "t.parquet"), raw_table(frame)
    for name in frame:
        assert list(found.columns[name].as_texts()) == list(expected.columns[name].as_texts())
        assert found.columns[name].levels == expected.columns[name].levels
    assert found.columns["n"].at(0) == "t.parquet, row 0, column 'n'"
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-10])
    (tmp_path / "text.parquet").write_text("a,b\n1,2\n")
    for name in ("cut.parquet", "text.parquet"):
        with pytest.raises(ValueError, match=f"{name} is not an intact Parquet file"):
            read_table(tmp_path / name)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"t.parquet needs pyarrow: pip install 'bmtl\[frames\]'"):
        read_arrow(tmp_path / "t.parquet")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*none.csv"):
        read_table(tmp_path / "none.csv")
