import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bmtl.datasets.tables.column import Column, Origin, cleaned
from bmtl.datasets.tables.number_fields import Decimals, NumberStyle, parse, parse_all, parse_label

POINT, COMMA = NumberStyle("point"), NumberStyle("comma")


def numbers(column, *others, decimal=None, delimiter="") -> np.ndarray | None:
    style = Decimals([column, *others], decimal, delimiter).style(column, "WAY OUT")
    return None if style is None else parse_all(column, style, "WAY OUT")


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        (["1", "-2", "+3"], [1, -2, 3]),
        (["1", "2.5", ".5", "3."], [1, 2.5, 0.5, 3]),
        (["1e-3", "2E5", "1.5e+2"], [0.001, 2e5, 150]),
        (["1,5", "2,25", "3"], [1.5, 2.25, 3]),
        (["0,123", "1,234"], [0.123, 1.234]),  # a group of thousands does not begin with 0
        ([",5"], [0.5]),
        (["1.234,5", "2"], [1234.5, 2]),
        (["1,234.5", "2"], [1234.5, 2]),
        (["1,234,567"], [1234567]),
        (["1.234.567", "1.234"], [1234567, 1234]),
        (["1.234", "5.678"], [1.234, 5.678]),  # as any program writes numbers
        (["1 234", "5 678 901,5"], [1234, 5678901.5]),
        (["1\u00a0234.5", "1\u202f234"], [1234.5, 1234]),
        (["1'234.50"], [1234.5]),
        (["\u22123", "-3"], [-3, -3]),
        (["12 %", "3.5%"], [12, 3.5]),
        (["12,5 %"], [12.5]),
        (["007", "1"], [7, 1]),
        (["", "NA", "n/a", "#N/A", "NaN", "null", "?", "-", " ", "1"], [np.nan] * 9 + [1]),
        (["0.1", "0.30000000000000004", "1e-320"], [0.1, 0.1 + 0.2, 1e-320]),
    ],
)
def test_numbers_are_read_as_they_are_meant(column, fields, values):
    assert_array_equal(numbers(column(fields)), values)


@pytest.mark.parametrize(
    "field",
    [
        *(
            "1_5",
            "1_000",
            "0x10",
            "1,2,3",
            "12 kg",
            "--1",
            "+-1",
            "1e",
            "e5",
            "1e999",
            "1.2.3",
            "1,00,000",
            "12,34,567",
        ),
        *(
            "inf",
            "-Infinity",
            "１２",
            "٣",
            "$5",
            "5€",
            "1 2",
            "12 3456",
            "1.5.2021",
            "1:30",
            "(5)",
            "0 123",
            "1,234 567",
        ),
        *("true", "1.234,567,8", "5%%", "%", "1e1.5", "1,5e3,2", "½", "1\u200b5", "１,5", "1..5", "1.,5", "#1"),
    ],
)
def test_what_is_no_number_in_full_is_none(column, field):
    assert parse(field, POINT) is None
    assert parse(field, COMMA) is None
    assert numbers(column([field])) is None
    with pytest.raises(
        ValueError, match=r"wide.csv, row 3, column 'price': .* is no number, and 2 of .*3 fields are. WAY OUT"
    ):
        numbers(column(["1", field, "2"]))


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("3", (3, 3)),
        ("<-3.3", (-np.inf, -3.3)),
        (">10", (10, np.inf)),
        (">= 10", (10, np.inf)),
        ("≤1e3", (-np.inf, 1000)),
        ("≥ 2", (2, np.inf)),
        ("<1,234", (-np.inf, 1234)),
        ("<", None),
        ("<<3", None),
        ("<x", None),
        ("3<", None),
        ("=3", None),
        ("~3", None),
    ],
)
def test_labels_may_be_censored(text, interval):
    assert parse_label(text, POINT) == interval


def test_a_censored_field_says_how_numbers_are_written_too(column):
    style = Decimals([]).style(column(["<3,5", "12"]), "")
    assert style == COMMA
    assert parse_label("<3,5", style) == (-np.inf, 3.5)


def test_what_allows_two_readings_is_decided_by_the_file_or_by_the_user(column):
    either, comma, point = column(["1,234", "5"]), column(["0,5"], "b"), column(["0.5"], "c")
    with pytest.raises(ValueError, match=r"row 2, column 'price': '1,234' can be 1234 or 1.234, .*-d decimal=comma"):
        numbers(either)
    assert_array_equal(numbers(either, decimal="point"), [1234, 5])
    assert_array_equal(numbers(either, decimal="comma"), [1.234, 5])
    assert_array_equal(numbers(either, comma), [1.234, 5])
    assert_array_equal(numbers(either, point), [1234, 5])
    assert_array_equal(numbers(either, delimiter=";"), [1.234, 5])
    with pytest.raises(ValueError, match="can be 1234 or 1.234"):
        numbers(either, comma, point)
    # Points alone are decimals, unless the file's other columns have decimal commas.
    points = column(["1.234", "5"])
    assert_array_equal(numbers(points), [1.234, 5])
    assert_array_equal(numbers(points, point), [1.234, 5])
    assert_array_equal(numbers(points, comma), [1234, 5])
    with pytest.raises(ValueError, match="can be 1.234 or 1234"):
        numbers(points, comma, point)


def test_whole_numbers_take_the_file_s_way_for_rows_to_come(column):
    whole, comma = column(["1", "2"]), column(["0,5"], "b")
    assert Decimals([whole, comma]).style(whole, "") == COMMA
    assert Decimals([whole]).style(whole, "") == POINT


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["1,5", "1.5"], "row 3, .*'1.5' and '1,5' .wide.csv, row 2. are not written in one way"),
        (["7", "0.5", "0,5"], "row 4, .*'0,5' and '0.5' .wide.csv, row 3. are not written in one way"),
        (["12%", "12"], "row 3, .*'12' and '12%'"),
    ],
)
def test_two_ways_in_one_column_are_an_error(column, fields, message):
    with pytest.raises(ValueError, match=message):
        numbers(column(fields))


def test_new_rows_are_read_in_the_way_of_the_training_rows(column):
    assert_array_equal(parse_all(column(["1,5", "1.000"]), COMMA, ""), [1.5, 1000])
    with pytest.raises(
        ValueError, match="row 3, .*'1.5' is no number with a decimal comma, as the column's are written. OUT"
    ):
        parse_all(column(["1,5", "1.5"]), COMMA, "OUT")
    with pytest.raises(ValueError, match="'5' is no number with a percent sign"):
        parse_all(column(["5"]), NumberStyle(percent=True), "")


def test_decimal_is_one_of_two():
    with pytest.raises(ValueError, match="'point' or 'comma'; got ','"):
        Decimals([], ",")


# ---- What is written in any one way is read back or refused, never misread ------------------------------------------

whole = st.integers(-(10**9), 10**9)
fraction = st.text("0123456789", max_size=6)


def written(number: int, digits: str, decimal: str, group: str, percent: str) -> tuple[str, float]:
    """A number as text in one style, and its value."""
    sign, body = ("-" if number < 0 else ""), f"{abs(number):,}".replace(",", group)
    value = float(f"{number}.{digits}" if digits else f"{number}")
    return f"{sign}{body}{decimal + digits if digits else ''}{percent}", value


@given(
    st.lists(st.tuples(whole, fraction), min_size=1, max_size=8),
    st.sampled_from([(".", ""), (".", ","), (".", " "), (".", "'"), (",", ""), (",", "."), (",", "\u00a0")]),
    st.sampled_from(["", "%", " %"]),
    st.sampled_from(["", ",", ";"]),
)
def test_a_column_is_read_back_or_refused(pairs, style, percent, delimiter):
    decimal, group = style
    fields, values = zip(*(written(number, digits, decimal, group, percent) for number, digits in pairs), strict=True)
    if group == "." and not any("," in field for field in fields):
        return  # 1.234 for 1234 with nothing else in the column is 1.234 in every other file
    if delimiter == ";" and decimal == ".":
        return  # in such files a comma separates decimals
    column = Column("x", Origin((("t.csv", range(len(fields))),)), [cleaned(field) for field in fields])
    refusal = found = None
    try:
        found = numbers(column, delimiter=delimiter)
    except ValueError as error:
        refusal = str(error)
    if refusal is None:
        assert_array_equal(found, values)
    else:
        assert "can be" in refusal
        assert "," in "".join(fields)
    given_ = numbers(column, decimal="comma" if decimal == "," else "point")
    assert_array_equal(given_, values)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_what_python_writes_is_read_to_the_bit(values):
    column = Column("x", Origin((("t.csv", range(len(values))),)), [repr(value) for value in values])
    assert_array_equal(numbers(column), values)


@given(st.text(max_size=12), st.sampled_from([POINT, COMMA]))
def test_any_text_is_a_number_python_would_read_or_none(text, style):
    """Of what is read, the digits are in order and nothing was left out but separators."""
    number = parse(text, style)
    if number is None:
        return
    decimal, thousands = (".", ",") if style == POINT else (",", ".")
    plain = text.replace("\u2212", "-")
    for separator in (thousands, " ", "'", "\u00a0", "\u2009", "\u202f", "\u2019"):
        plain = plain.replace(separator, "")
    assert number == float(plain.replace(decimal, "."))
    assert plain.isascii()
    assert "_" not in plain
