import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bmtl.datasets.tables.column import Column, Origin
from bmtl.datasets.tables.labels import read_labels, survival, vector
from bmtl.datasets.tables.number_fields import Decimals
from bmtl.targets import Binary, Classes, Count, Ordinal, Real, TimeToEvent, Vector

NAN, INF = np.nan, np.inf


def labels(column, kind=None):
    return read_labels("t", column, kind, Decimals([column]).style)


@pytest.mark.parametrize(
    ("fields", "kind", "family", "values"),
    [
        (["1.5", "2"], None, Real(), [1.5, 2]),
        (["1", "2", "3"], None, Real(), [1, 2, 3]),  # whole numbers may be anything
        (["1", "0", "1"], None, Binary(), [1, 0, 1]),
        (["1.0", "0.0", ""], None, Binary(), [1, 0, -1]),
        (["<-3.3", "2", ">10", "?"], None, Real(censored=True), [[-INF, -3.3], [2, 2], [10, INF], [NAN, NAN]]),
        (["b", "a", "b"], None, Binary(("a", "b")), [1, 0, 1]),
        (["c", "a", "b"], None, Classes(("a", "b", "c")), [2, 0, 1]),
        (["no", "yes", "NA"], None, Binary(("no", "yes")), [0, 1, -1]),
        (["Positive", "negative"], None, Binary(("negative", "Positive")), [1, 0]),  # the event comes second
        (["active", "inactive"], None, Binary(("inactive", "active")), [1, 0]),
        (["True", "False"], None, Binary(("False", "True")), [1, 0]),
        (["12,5 %", "7 %"], None, Real(), [12.5, 7]),
        (["1.5", "2"], "real", Real(), [1.5, 2]),
        (["1", "0"], "real", Real(), [1, 0]),
        (["1", ">5"], "real", Real(censored=True), [[1, 1], [5, INF]]),
        (["1", "5", "NA"], "count", Count(), [1, 5, NAN]),
        (["3", "1", "3"], "classes", Classes(("1", "3")), [1, 0, 1]),
        (["10", "9", "11"], "ordinal", Ordinal(("9", "10", "11")), [1, 0, 2]),
        (["B", "A", "C"], "ordinal", Ordinal(("A", "B", "C")), [1, 0, 2]),
        (["mid", "low", "high"], "ordinal(low,mid,high)", Ordinal(("low", "mid", "high")), [1, 0, 2]),
        (["mid", "low"], "ordinal(low, mid, high)", Ordinal(("low", "mid", "high")), [1, 0]),
        (["ill", "well"], "binary(well,ill)", Binary(("well", "ill")), [1, 0]),
        (["well", "well"], "binary(well,ill)", Binary(("well", "ill")), [0, 0]),
        (["2", "0.0", "NA"], 3, Classes(("0", "1", "2")), [2, 0, -1]),
        (["1", "0"], 2, Binary(), [1, 0]),
        (["3", ">7", "<2"], "time-to-event", TimeToEvent(), [[3, 3], [7, INF], [0, 2]]),
        (["3", "7"], TimeToEvent(), TimeToEvent(), [[3, 3], [7, 7]]),
        (["x", "y"], Classes(("y", "x", "z")), Classes(("y", "x", "z")), [1, 0]),
    ],
)
def test_kinds_follow_from_fields_or_are_given(column, fields, kind, family, values):
    found = labels(column(fields), kind)
    assert found.family == family
    assert_array_equal(found.values, values)
    assert found.unit == ("%" if "%" in fields[0] else "")


@pytest.mark.parametrize("odd", ["NA", "N/A", "#N/A", "nan", "NaN", "null", "NULL", "?", "-", "", " ", "<NA>", "na"])
def test_a_missing_label_changes_no_kind(column, odd):
    found = labels(column([*[f"{i % 7}.5" for i in range(60)], odd]))
    assert found.family == Real()
    assert np.isnan(found.values).tolist() == [False] * 60 + [True]
    words = labels(column([*["red", "blue"] * 30, odd]))
    assert words.family == Binary(("blue", "red"))
    assert words.values[-1] == -1


@pytest.mark.parametrize("odd", ["12 kg", "1_5", "unknown", "<x", "~3", "3-5", "inf", "2021-01-01", "yes"])
@pytest.mark.parametrize("place", [0, 30, 60])
def test_one_odd_label_is_an_error_and_no_class(column, odd, place):
    fields = [f"{i % 7}.5" for i in range(60)]
    fields.insert(place, odd)
    with pytest.raises(
        ValueError, match=rf"wide.csv, row {place + 2}, column 'price': '{odd}' is no number.*-d kinds=t:classes"
    ):
        labels(column(fields))


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        (["", "NA"], None, "has no label: the column 'price' of wide.csv is empty"),
        (
            ["Yes", "no", "yes"],
            None,
            r"row 4, column 'price': 'yes' and 'Yes' differ in case alone. .*classes\(Yes,no,yes\)",
        ),
        (["a", "a"], None, "has the one label 'a' .*binary.a,other."),
        (["a", "b"], "real", "row 2, column 'price': 'a' is no number.*of the kind real"),
        (["1", "x"], "count", "row 3, column 'price': 'x' is no number"),
        (["1", "2.5"], "count", "row 3, column 'price': '2.5'. A count is a whole number"),
        (["1", "-2"], "count", "row 3, column 'price': '-2'. A count"),
        (["1", ">5"], "count", "row 3, column 'price': '>5' is known up to an interval only, .*kind count takes exact"),
        (["3", "0"], "time-to-event", "row 3, column 'price': '0'. A time to an event is above 0"),
        (["3", "-1"], "time-to-event", "row 3, column 'price': '-1'. A label is at least 0"),
        (["low", "high", "mid"], "ordinal", r"order of high, low, mid is not known. .*kinds=t:ordinal\(high,low,mid\)"),
        (["low", "hi"], "ordinal(low,high)", "row 3, column 'price': 'hi' is none of the classes low, high"),
        (["0", "3"], 3, "row 3, column 'price': '3' is none of the classes 0, 1, 2"),
        (["a", "b", "c"], "binary", "two classes"),
        (["1", "2"], "vector", "vectors=t:u.v"),
        (["1", "2"], "float", "one of .*real.*got 'float'"),
        (["1", "2"], "real(a,b)", "takes no classes"),
        (
            [f"m{i}" for i in range(30)],
            None,
            "30 different texts, such as 'm0', in 30 rows with a label, too many for classes",
        ),
        ([f"m{i}" for i in range(30)], "classes", "too many for classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(column, fields, kind, message):
    with pytest.raises(ValueError, match=message):
        labels(column(fields), kind)


def test_numbers_of_a_data_frame_are_labels_too():
    origin = Origin((("frame", range(3)),))
    whole = Column("t", origin, values=np.array([0.0, 1.0, NAN]))
    assert labels(whole).family == Binary()
    assert_array_equal(labels(whole, "count").values, [0, 1, NAN])
    assert labels(Column("t", origin, values=np.array([3.0, 1.0, 3.0])), "classes").family == Classes(("1", "3"))
    levels = Column("t", origin, ["mid", "low", "high"], levels=("low", "mid", "high"))
    assert labels(levels).family == Ordinal(("low", "mid", "high"))
    with pytest.raises(ValueError, match="frame, row 1, column 't': inf is not finite"):
        labels(Column("t", origin, values=np.array([0.0, INF, 1.0])))


def test_times_and_events_are_intervals(column):
    times, style = column(["3", "5", "", "2.5"], "days"), Decimals([]).style
    for words in (["1", "0", "", "yes"], ["True", "False", "x", "true"], ["dead", "alive", "", "1.0"]):
        found = survival("t", times, column(words, "died"), style)
        assert found.family == TimeToEvent()
        assert_array_equal(found.values, [[3, 3], [5, INF], [NAN, NAN], [2.5, 2.5]])
    with pytest.raises(ValueError, match="row 3, column 'died': 'maybe' does not say whether the event of target 't'"):
        survival("t", times, column(["1", "maybe", "", "1"], "died"), style)
    with pytest.raises(ValueError, match="row 5, column 'died': '' does not say"):
        survival("t", times, column(["1", "1", "", ""], "died"), style)


def test_several_columns_are_a_vector(column):
    u, v = column(["1", "", ""], "u"), column(["2,5", "3", "NA"], "v")
    found = vector("wind", [u, v], Decimals([u, v]).style)
    assert found.family == Vector(("u", "v"))
    assert_array_equal(found.values, [[1, 2.5], [NAN, 3], [NAN, NAN]])
    assert found.family.missing(found.values).tolist() == [False, False, True]
    with pytest.raises(ValueError, match="'x' is no number. The target 'wind' is a vector"):
        vector("wind", [u, column(["x", "y", "z"], "v")], Decimals([]).style)


def test_a_row_of_units_is_recognised(column):
    with pytest.raises(
        ValueError, match="row 2, column 'price': 'kg' .* If this row has the columns' units, remove it"
    ):
        labels(column(["kg", "50", "52", "58"]))
