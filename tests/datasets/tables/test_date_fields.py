from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bmtl.datasets.tables.column import Column, Origin
from bmtl.datasets.tables.date_fields import days, order_of

EPOCH = date(1970, 1, 1)


def read(column, given=None) -> list[float] | None:
    order = order_of(column, given)
    return None if order is None else days(column, order, "OUT").tolist()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["1970-01-02", "1969-12-31"], [1, -1]),
        (["1970/1/2"], [1]),
        (["1970.01.02"], [1]),
        (["1970-01-01T12:00", "1970-01-01 06:00:00", "1970-01-01T00:00:00.5"], [0.5, 0.25, 0.5 / 86400]),
        (["1970-01-01T12:00:00Z", "1970-01-01T12:00:00+02:00", "1970-01-01T12:00:00-0130"], [0.5, 10 / 24, 13.5 / 24]),
        (["2.1.1970", "3.1.1970"], [1, 2]),  # with points the day is first
        (["02/01/1970", "13/01/1970"], [1, 12]),
        (["01/02/1970", "01/13/1970"], [1, 12]),
        (["31-12-1969"], [-1]),
        (["2 Jan 1970", "Jan 3, 1970", "04-JAN-1970", "1970-01-05", "6 January 1970 6:00"], [1, 2, 3, 4, 5.25]),
        (["1970-01-02 12:30 AM", "1970-01-02 12:00 pm", "1970-01-02 06:00:00PM"], [1 + 1 / 48, 1.5, 1.75]),
        (["1970-01-02 12:00:00 UTC", "1970-01-02T12:00:00.000000000GMT"], [1.5, 1.5]),
    ],
)
def test_dates_are_days_since_1970(column, fields, expected):
    assert_array_equal(read(column(fields)), expected)


@pytest.mark.parametrize(
    "fields",
    [
        ["1970"],
        ["19700102"],
        ["70-01-02"],
        ["1970-01"],
        ["Jan 1970"],
        ["Foo 2 1970"],
        ["Jan 32 1970", "soon"],
        ["1970-01/02"],
        ["1970-01-02", "soon"],
        ["12:30"],
        ["?"],
    ],
)
def test_other_columns_are_none_of_dates(column, fields):
    assert order_of(column(fields)) is None


def test_missing_dates_stay_missing(column):
    assert_array_equal(read(column(["1970-01-02", "NA", ""])), [1, np.nan, np.nan])


def test_day_or_month_is_asked_for_where_nothing_says_it(column):
    either = column(["03/04/2021", "05/06/2021"])
    with pytest.raises(ValueError, match="row 2, .*'03/04/2021' can be day or month first.*-d dates=day-first"):
        order_of(either)
    for order, first in (("day-first", date(2021, 4, 3)), ("month-first", date(2021, 3, 4))):
        assert read(either, order)[0] == (first - EPOCH).days
    with pytest.raises(ValueError, match="got 'dmy'"):
        order_of(either, "dmy")


@pytest.mark.parametrize(
    "field", ["2021-02-30", "2021-13-01", "2021-00-01", "2021-01-01T24:30", "2021-01-01T10:61", "2021-01-01T10:10:60"]
)
def test_days_that_are_not_there_are_errors(column, field):
    with pytest.raises(ValueError, match=f"row 3, column 'price': '{field}' is no date .year first.. OUT"):
        read(column(["2021-01-01", field]))


def test_both_orders_in_one_column_are_an_error(column):
    with pytest.raises(ValueError, match="'01/13/2021' is no date .day first."):
        read(column(["13/01/2021", "01/13/2021"]))


@given(st.lists(st.dates(date(1000, 1, 1)), min_size=1), st.sampled_from(["%Y-%m-%d", "%d.%m.%Y"]))
def test_any_date_is_read_back(dates, form):
    fields = [day.strftime(form) for day in dates]
    column = Column("x", Origin((("t.csv", range(len(dates))),)), fields)
    assert read(column) == [(day - EPOCH).days for day in dates]


zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=zones), min_size=1))
def test_any_time_with_a_zone_is_read_back(times):
    column = Column("x", Origin((("t.csv", range(len(times))),)), [time.isoformat() for time in times])
    expected = [(time - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(days=1) for time in times]
    np.testing.assert_allclose(read(column), expected, rtol=0, atol=1e-10)
