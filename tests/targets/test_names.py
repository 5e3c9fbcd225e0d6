import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.names import MOST_BYTES, check_name, check_text


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (unicodedata.normalize("NFD", "café"), "café"),
        ("IC50 ", "IC50"),
        ("\u212b", "Å"),  # the unit's sign is the letter
        ("\u00a0pKd\t", "pKd"),
        ("-beta", "-beta"),
        ("=1+1", "=1+1"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner belongs to the spelling
        ("a" * MOST_BYTES, "a" * MOST_BYTES),
    ],
)
def test_names_are_made_safe(given, name):
    assert check_name("target", given) == check_text("feature", given) == name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "is text; got 3 .int."),
        (None, "is text; got None"),
        ("", "needs a non-empty name; got ''"),
        (" \t", "needs a non-empty name"),
        ("a\x00b", r"'a\\x00b' has '\\x00' at position 1"),
        ("a\nb", r"has '\\n' at position 1"),
        ("a\x7f", "visible characters only"),
        ("\ufeffa", r"has '\\ufeff' at position 0"),
        ("a\u202eb", r"has '\\u202e' at position 1"),
        ("a\u2028b", r"has '\\u2028'"),
        ("a\ud800b", r"has '\\ud800'"),
        ("a" * 300, "at most 200 bytes in UTF-8; 'aaaa.*has 300"),
        ("å" * 101, "has 202"),
    ],
)
def test_names_that_cannot_be_are_refused(given, message):
    for check in (check_name, check_text):
        with pytest.raises(ValueError, match=message):
            check("target", given)


def test_a_slash_and_dots_are_refused_where_a_file_has_the_name():
    assert check_text("feature", "km/h") == "km/h"
    with pytest.raises(ValueError, match="without a slash.*got 'km/h'. Name it 'km_h'"):
        check_name("target", "km/h")
    with pytest.raises(ValueError, match="more than dots"):
        check_name("site", "..")


@given(st.text())
def test_a_safe_name_is_its_own(text):
    try:
        name = check_name("target", text)
    except ValueError:
        return
    assert check_name("target", name) == name == unicodedata.normalize("NFC", name).strip()
