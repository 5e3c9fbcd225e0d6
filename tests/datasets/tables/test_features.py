import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from bmtl.datasets.tables.date_fields import order_of
from bmtl.datasets.tables.features import Encoding, fit_features, too_many
from bmtl.datasets.tables.number_fields import Decimals

TEXT = (
    "age,city,day,share,code\n"
    "20,Bern,2021-01-01,5%,1\n"
    ",Oslo,2021-01-03,10%,2\n"
    "40,,,?,1\n"
    "90,Rome,2021-02-01,90%,3\n"  # not a training row
)
TRAIN = np.arange(3)


def fitted(table, rows=TRAIN, names=None, kinds=None) -> Encoding:
    decimals = Decimals(table.columns.values(), None, table.delimiter)
    features, _ = fit_features(
        table, list(names or table.columns), rows, kinds=kinds or {}, style=decimals.style, order=order_of
    )
    return Encoding(tuple(features), {})


def test_columns_become_numbers_by_what_the_training_rows_hold(read):
    table = read(TEXT)
    encoding = fitted(table, kinds={"code": "category"})
    assert encoding.names == (
        *("age", "age (missing)", "city=Bern", "city=Oslo", "city=(missing)", "city=(other)", "day", "day (missing)"),
        *("share", "share (missing)", "code=1", "code=2", "code=(other)"),
    )
    assert_array_equal(
        encoding.transform(table),
        [
            # the median of 20 and 40 is 30, of the days 18628 and 18630, of 5 and 10 7.5
            [20, 0, 1, 0, 0, 0, 18628, 0, 5, 0, 1, 0, 0],
            [30, 1, 0, 1, 0, 0, 18630, 0, 10, 0, 0, 1, 0],
            [40, 0, 0, 0, 1, 0, 18629, 1, 7.5, 1, 1, 0, 0],
            [90, 0, 0, 0, 0, 1, 18659, 0, 90, 0, 0, 0, 1],
        ],
    )
    assert encoding.describe() == [
        "age: number; 30 where missing, with an indicator",
        "city: 2 categories (Bern, Oslo); missing is one more",
        "day: date, in days since 1970-01-01; 18629 where missing, with an indicator",
        "share: number; 7.5 where missing, with an indicator",
        "code: 2 categories (1, 2)",
    ]


def test_many_columns_that_are_alike_have_one_line(read):
    names = ",".join(f"f{k}" for k in range(30))
    rows = [
        f"{age},{','.join(value * 30)},{city}\n"
        for age, value, city in (("1", "2", ""), ("", "1", "Bern"), ("", "1", "Bern"))
    ]
    assert fitted(read(f"age,{names},city\n{''.join(rows)}")).describe() == [
        "age: number; 1 where missing, with an indicator",
        "f0, f1, ..., f29 (30 columns): number each",
        "city: 1 category (Bern); missing is one more",
    ]


def test_nothing_is_learnt_of_other_rows(read):
    changed = TEXT.replace("90,Rome,2021-02-01,90%,3", "0,Paris,1999-01-01,0%,9")
    kinds = {"code": "category"}
    assert fitted(read(TEXT), kinds=kinds).state() == fitted(read(changed), kinds=kinds).state()


def test_new_rows_may_lack_what_the_training_rows_had(read):
    encoding = fitted(read("age,city\n20,Bern\n40,Oslo\n"), np.arange(2))
    # A gap that training rows did not have takes the median; an unknown or missing category has the place for others.
    new = read("city,extra,age\n,x,\nRome,y,25\n", "new.csv")
    assert_array_equal(encoding.transform(new), [[30, 0, 0, 1], [25, 0, 0, 1]])


def test_what_is_unlike_the_training_rows(read):
    table = read("zip,age,day\n01234,20,2021-01-01\n05678,40,2021-01-05\n01234,,2021-01-03\n")
    encoding = fitted(table, kinds={"zip": "category"})
    assert encoding.unlike_training(table) == []
    # Half of the range's width beyond its ends is not far, and gaps are no numbers.
    near = read("zip,age,day\n05678,10,2020-12-30\n01234,50,2021-01-07\n01234,,\n")
    assert encoding.unlike_training(near) == []
    new = read("zip,age,day\n1234,51,2021-02-01\n01234,9,2021-01-03\n,-99,2021-01-03\n5678,30,2021-01-03\n")
    assert encoding.unlike_training(new) == [
        (
            3,
            "zip: 3 of 4 rows have a category that no training row has (1234, (missing), 5678; the training rows have "
            "01234, 05678).",
        ),
        (3, "age: 3 of 4 numbers are far outside the training rows' 20 to 40 (such as -99)."),
        (1, "day: 1 of 4 numbers are far outside the training rows' 2021-01-01 to 2021-01-05 (such as 2021-02-01)."),
    ]
    ((_, sentence),) = encoding.unlike_training(read("zip,age,day\n1234,20,2021-01-01\n5678,20,2021-01-01\n"))
    assert sentence.endswith("Are they written in another way?")


def test_it_goes_through_a_file_of_plain_values(read, tmp_path):
    table = read(TEXT)
    encoding = Encoding(fitted(table).features, {"missing": ["-999"], "encoding": None})
    torch.save(encoding.state(), tmp_path / "state.pt")
    back = Encoding.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert back == encoding
    assert_array_equal(back.transform(table), encoding.transform(table))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            "age,city,day,share\n1,Bern,2021-01-01,5%\n",
            "new.csv has no column 'code', and the model was trained with age, city",
        ),
        (
            "age,city,day,share,code\nold,Bern,2021-01-01,5%,1\n",
            "new.csv, row 2, column 'age': 'old' is no number. Write it as",
        ),
        ("age,city,day,share,code\n1_5,Bern,2021-01-01,5%,1\n", "'1_5' is no number"),
        ("age,city,day,share,code\n1,Bern,1.2.2021,5%,1\n", "column 'day': '1.2.2021' is no date"),
        ("age,city,day,share,code\n1,Bern,2021-01-01,5,1\n", "column 'share': '5' is no number with a percent sign"),
    ],
)
def test_new_rows_that_cannot_be_read_are_refused(read, new, message):
    encoding = fitted(read(TEXT))
    with pytest.raises(ValueError, match=message):
        encoding.transform(read(new, "new.csv"))


def test_columns_without_a_value_are_left_out_and_said_so(read):
    table = read("a,b\n1,\n2,NA\n3,7\n")
    decimals = Decimals(table.columns.values())
    features, notes = fit_features(table, ["a", "b"], np.arange(2), kinds={}, style=decimals.style, order=order_of)
    assert [feature.name for feature in features] == ["a"]
    assert notes == ["b: left out, no value in the 2 training rows."]


@pytest.mark.parametrize(
    ("text", "kinds", "message"),
    [
        ("a\n1\ntwo\n3\n", {}, "row 3, column 'a': 'two' is no number, and 2 of .*-d kinds=a:category.*-d ignore=a"),
        ("a\n1\n<0.5\n3\n", {}, "row 3, column 'a': '<0.5' is an interval, as labels may be, and no number"),
        ("a\nx\ny\nz\n", {"a": "number"}, "row 2, column 'a': 'x' is no number"),
        ("a\nx\ny\nz\n", {"a": "date"}, "row 2, column 'a': 'x' is no date"),
    ],
)
def test_columns_that_are_neither_are_refused(read, text, kinds, message):
    with pytest.raises(ValueError, match=message):
        fitted(read(text), kinds=kinds)


def test_numbers_may_be_categories(read):
    table = read("a\n1\ntwo\n01\n")
    assert fitted(table, kinds={"a": "category"}).names == ("a=01", "a=1", "a=two", "a=(other)")


def test_names_and_notes_are_no_categories(read):
    text = "id,note,size\n" + "".join(f"m{i},text {i},{i % 3}\n" for i in range(50))
    with pytest.raises(
        ValueError, match=r"t.csv has text that differs from row to row in 'id', 'note': .*-d ignore=id,note"
    ):
        fitted(read(text), np.arange(40))
    assert len(fitted(read(text), np.arange(40), kinds={"id": "category", "note": "category"}).names) == 41 + 41 + 1
    assert [too_many(n, rows) for n, rows in ((20, 20), (21, 41), (21, 42), (1000, 5000), (1001, 5000))] == [
        *(False, True, False, False, True)
    ]
