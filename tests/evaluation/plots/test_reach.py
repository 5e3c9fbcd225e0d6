import numpy as np
import pytest
from matplotlib.figure import Figure

from bmtl.evaluation.plots.reach import mark_outside, reach_of


def test_a_row_far_away_does_not_stretch_the_axis():
    middle = [1.0, 1.1, 0.9, 1.05, 50.0]
    low, high = reach_of(middle, np.subtract(middle, 0.1), np.add(middle, 0.1))
    assert low < 0.8
    assert 1.2 < high < 2
    panel = Figure().subplots()
    panel.set_xlim(low, high)
    mark_outside(panel, [*middle, np.nan, -70.0], ["red"] * 7)
    assert [(line.get_marker(), line.get_ydata()[0]) for line in panel.lines] == [(">", 4), ("<", 6)]
    assert [text.get_text() for text in panel.texts] == ["50", "\N{MINUS SIGN}70"]


@pytest.mark.parametrize(
    "middle", [[2.0], [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0], [0.0, np.nan], [-5.0, 5.0], [1.0, 1.01, 9.0]]
)
def test_rows_that_are_near_each_other_are_all_inside(middle):
    unknown = [np.nan] * len(middle)
    low, high = reach_of(middle, unknown, unknown)
    finite = [value for value in middle if np.isfinite(value)]
    assert low < min(finite)
    assert high > max(finite)


def test_minor_rows_are_inside_where_they_are_near_only():
    middle, none = np.array([1.0, 1.2, 1.35, 40.0, 50.0]), np.full(5, np.nan)
    low, high = reach_of(middle, none, none, [False, False, True, True, True])
    assert low < 1.0
    assert 1.35 < high < 1.5
    assert reach_of(middle, none, none, [True] * 5) == reach_of(middle, none, none)


def test_no_row_has_an_axis_nevertheless():
    assert reach_of([np.nan], [np.nan], [np.nan]) == (0.0, 1.0)
