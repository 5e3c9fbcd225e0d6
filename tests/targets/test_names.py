import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.names import LONGEST, check_name, safe_names

CAFE = unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("mu", "mu"),
        (CAFE, "café"),
        ("\N{ANGSTROM SIGN}", "Å"),  # a sign that Unicode has twice
        ("IC50 ", "IC50"),
        ("\tIC50\n(nM)", "IC50 (nM)"),  # a spreadsheet's heading in two lines
        ("a\N{NO-BREAK SPACE}b", "a b"),
        ("-beta", "-beta"),
        ("=1+1", "=1+1"),
        ("收益", "收益"),
        ("β₂ [µM²]", "β₂ [µM²]"),
    ],
)
def test_a_name_that_can_be_stored_is_made_so(given, safe):
    assert check_name("target", given) == safe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a/b", "slash.*Name it 'a_b'"),
        ("a\0b", "cannot be printed"),
        ("a\x1bb", "cannot be printed"),
        ("a\x7f", "cannot be printed"),
        ("a\N{ZERO WIDTH SPACE}b", "cannot be printed"),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}b", "cannot be printed"),
        ("a\ud800", "cannot be printed"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("x" * 300, "300 bytes long"),
        ("é" * 120, "240 bytes long"),
        (3, "is text; got 3 of type int"),
        (None, "is text"),
        (b"mu", "is text"),
    ],
)
def test_a_name_that_cannot_be_stored_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=f"The name of a target.*{message}"):
        check_name("target", given)


@given(st.text())
def test_what_passes_passes_again_unchanged(name):
    try:
        safe = check_name("target", name)
    except ValueError:
        return
    assert check_name("target", safe) == safe
    assert unicodedata.is_normalized("NFC", safe)
    assert 0 < len(safe.encode()) <= LONGEST


def test_names_that_become_one_are_refused():
    assert safe_names("target", ["a", CAFE]) == {"a": "a", CAFE: "café"}
    with pytest.raises(ValueError, match="Two targets have one name"):
        safe_names("target", ["café", CAFE])
    with pytest.raises(ValueError, match="Two targets have one name"):
        safe_names("target", ["IC50", "IC50 "])
