import pytest

from bmtl.evaluation.markdown_tables import markdown_table


def test_a_table_of_any_cells():
    lines = markdown_table(["set", "method", "n"], ["a", "first", "1.25"], ["long", "b|c", ""], left=2).splitlines()
    assert lines == [
        "| set  | method | n    |",
        "| ---- | ------ | ---: |",
        "| a    | first  | 1.25 |",
        r"| long | b\|c   |      |",
    ]
    assert markdown_table(["a"]) == "| a   |\n| --- |"


def test_rows_are_as_long_as_the_header():
    with pytest.raises(ValueError, match="zip"):
        markdown_table(["a", "b"], ["1"])
