import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.evaluation.report.markup import Cell, Markup, as_csv, bullets, element, fragment, number, table
from tests.evaluation.report.pages import Page

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


@given(texts, texts)
def test_any_text_comes_back_as_it_was(text, attribute):
    page = Page(element("p", text, title=attribute))
    assert page.faults == []
    assert "".join(page.words) == text
    assert page.attributes == [("p", "title", attribute)]


@given(st.lists(st.lists(texts, min_size=2, max_size=2), max_size=4))
def test_no_entry_breaks_a_table(rows):
    page = Page(table(["<b>", "&"], rows, "</table>"))
    assert page.faults == []
    assert [[cell[0] for cell in row] for row in page.tables[0]] == [["<b>", "&"], *rows]
    assert page.captions == ["</table>"]


def test_markup_is_not_escaped_twice():
    assert fragment("<", element("b", "&"), Markup("&amp;")) == "&lt;<b>&amp;</b>&amp;"
    assert element("div", element("p", "a")) == "<div><p>a</p></div>"


def test_attributes():
    assert element("td", data_key=1.5, class_=None, hidden=True, open=False) == '<td data-key="1.5" hidden></td>'
    assert element("meta", name="x") == '<meta name="x">'


def test_nothing_to_list():
    assert bullets([]) == ""


@pytest.mark.parametrize("value", [0.1, -3.25, 139742.0, 1e-300, math.inf])
def test_a_number_sorts_by_all_its_digits(value):
    page = Page(table(["name", "value"], [["a", number(value)]], ""))
    assert float(page.tables[0][1][1][1]) == value


def test_no_number_has_a_dash_and_an_empty_key():
    assert Page(table(["a", "b"], [["x", number(math.nan)]], "")).tables[0][1][1] == ["–", "", "number"]


def test_the_best_is_marked():
    page = Page(table(["a", "b"], [["x", Cell("1", 1.0, marked=True)]], ""))
    assert page.tables[0][1][1] == ["1", "1.0", "number best"]
    assert "strong" in page.tags


def test_a_row_of_another_length():
    with pytest.raises(ValueError, match="3 entries and its header 2"):
        table(["a", "b"], [["x", "y", "z"]], "")


def test_a_table_downloads_as_its_numbers_in_full():
    rows = [
        ["=ew", number(1 / 3, 0.01), Cell("2 of 3", 2.0), Cell("1 to 2", 1.0)],
        ["a,b", number(math.nan), Cell("–", math.nan), number(math.inf)],
    ]
    page = Page(table(["method", "MAE ↓", "wins", "interval"], rows, "Scores on the test rows. More."))
    assert page.downloads() == [
        [
            ["method", "MAE", "MAE (standard error)", "wins", "interval"],
            ["'=ew", repr(1 / 3), "0.01", "2 of 3", "1 to 2"],
            ["a,b", "", "", "", "inf"],
        ]
    ]
    assert ("a", "download", "scores-on-the-test-rows.csv") in page.attributes


def test_an_empty_table_downloads_its_header():
    assert as_csv(["a", "b ↑"], []) == "a,b\n"
