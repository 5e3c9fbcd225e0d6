import csv
import io

import numpy as np
import pandas as pd
import pytest

from bmtl.evaluation.csv_cells import csv_text, plain


@pytest.mark.parametrize(
    "text", ["=1+1", "+x", "-beta", "@SUM(A1)", "\tx", "\rx", "＝1", "  =1", '=HYPERLINK("http://x")', "-"]
)
def test_text_that_starts_a_formula_is_made_plain_wherever_it_is(text):
    frame = pd.DataFrame({text: [text, "a"], "b": [1.0, 2.0]}, index=pd.Index([text, "row"], name=text))
    rows = list(csv.reader(io.StringIO(csv_text(frame), newline="")))
    safe = "'" + text.replace("\r", "\n")
    assert rows[0] == [safe, safe, "b"]
    assert rows[1] == [safe, safe, "1.0"]


@pytest.mark.parametrize("value", [-1.5, -3, np.float32(-2), None, True, "a=b", "a-b", "", "−1", "1 + 1"])
def test_numbers_and_other_text_stay(value):
    assert plain(value) == value
    assert type(plain(value)) is type(value)


def test_negative_numbers_are_numbers_when_the_file_is_read():
    frame = pd.DataFrame({"x": [-1.5, np.nan]}, index=["a", "b"])
    back = pd.read_csv(io.StringIO(csv_text(frame, index_label="row")), index_col="row")
    pd.testing.assert_frame_equal(back, frame, check_names=False)
