import unicodedata

import pytest

from bmtl.evaluation.names import stored_as, unique_names

CAFE = unicodedata.normalize("NFD", "café")


def test_names_are_unique():
    assert unique_names("task", ["a", "a/b"]) == ["a", "a/b"]
    with pytest.raises(ValueError, match=r"The task name 'a' is given more than once in \['a', 'b', 'a'\]"):
        unique_names("task", ["a", "b", "a"])


def test_names_that_become_one_are_refused():
    assert stored_as("target", ["a", CAFE, "IC50 "]) == {"a": "a", CAFE: "café", "IC50 ": "IC50"}
    for pair in (["café", CAFE], ["IC50", "IC50 "], ["Å", "\N{ANGSTROM SIGN}"]):
        with pytest.raises(ValueError, match="Two targets have one name"):
            stored_as("target", pair)
