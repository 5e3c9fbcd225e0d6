"""Names that files, tables and folders can hold: of targets, features and sample sites."""

import unicodedata

MOST_BYTES = 200
"""Longest name in UTF-8. NetCDF and most file systems end at 255, of which a prefix takes some."""

_JOINERS = "\u200c\u200d"  # part of the spelling of some languages; other invisible characters are not


def check_text(what: str, text: object) -> str:
    """A name in Unicode NFC without spaces around it; it may hold any visible character.

    Args:
        what: What is named, for messages, such as ``"feature"``.
        text: The name as given. Spellings that look alike (``é`` as one character or as two) become one.

    Raises:
        ValueError: If it is not text, empty, longer than `MOST_BYTES`, or holds a control or invisible character.
    """
    if not isinstance(text, str):
        raise ValueError(f"The name of a {what} is text; got {text!r} ({type(text).__name__}).")
    name = unicodedata.normalize("NFC", text).strip()
    if not name:
        raise ValueError(f"A {what} needs a non-empty name; got {text!r}.")
    for place, character in enumerate(name):
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS:
            raise ValueError(
                f"The name of a {what} holds visible characters only; {name[:60]!r} has {character!a} at position "
                f"{place}. Rename it."
            )
    size = len(name.encode())
    if size > MOST_BYTES:
        raise ValueError(
            f"The name of a {what} has at most {MOST_BYTES} bytes in UTF-8; {name[:40]!r}... has {size}. Shorten it."
        )
    return name


def file_name(text: str) -> str:
    """A text with another character for what `check_name` refuses within a name: ``"mg_L"`` for ``"mg/L"``."""
    return text.replace("/", "_")


def check_name(what: str, name: object) -> str:
    """A name that may become a variable of a results file: as `check_text`, and without a slash.

    Args:
        what: What is named, for messages, such as ``"target"``.
        name: The name as given.

    Returns:
        The name in Unicode NFC, without spaces around it.

    Raises:
        ValueError: As `check_text`; or if it holds a slash, which NetCDF keeps for groups, or dots alone.
    """
    checked = check_text(what, name)
    if "/" in checked:
        raise ValueError(
            f"The name of a {what} is without a slash, which is a path between groups of a results file; got {checked!r}. "
            f"Name it {file_name(checked)!r}, for example."
        )
    if not checked.strip("."):
        raise ValueError(f"The name of a {what} is more than dots, which are folders; got {checked!r}. Rename it.")
    return checked
