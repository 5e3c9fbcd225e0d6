"""Names that a file can hold: of targets, tasks, classes and sites."""

import unicodedata
from collections.abc import Iterable

LONGEST = 180  # bytes in UTF-8: NetCDF allows 256, and a variable's name has a prefix before the target's


def check_name(what: str, name: object) -> str:
    """The name as files hold it: Unicode NFC, single spaces between words and none around them.

    Args:
        what: What is named, for messages, such as "target".
        name: The name. Spellings of one text that look alike, such as an accent as a character of its own or a line break
            in a column's heading, become the same.

    Raises:
        ValueError: If it is no text, is empty, holds a slash (a path between groups) or a character that cannot be
            printed, or is longer than `LONGEST` bytes.
    """
    if not isinstance(name, str):
        raise ValueError(f"The name of a {what} is text; got {name!r} of type {type(name).__name__}.")
    safe = " ".join(unicodedata.normalize("NFC", name).split())
    if not safe:
        raise ValueError(f"The name of a {what} is empty: {name!r}. Give it a name.")
    if "/" in safe:
        raise ValueError(
            f"The name of a {what} must not hold a slash, which is a path between the groups of a file; got {name!r}. "
            f"Name it {safe.replace('/', '_')!r}, say."
        )
    wrong = sorted({sign for sign in safe if not sign.isprintable()})
    if wrong:
        raise ValueError(
            f"The name of a {what} holds characters that cannot be printed, {wrong}: {name!r}. Leave them out."
        )
    if (size := len(safe.encode())) > LONGEST:
        raise ValueError(
            f"The name of a {what} is {size} bytes long, and {LONGEST} are the most: {safe[:40]!r}... Shorten it."
        )
    return safe


def safe_names(what: str, names: Iterable[str]) -> dict[str, str]:
    """Each name as given -> the name as `check_name` returns it.

    Raises:
        ValueError: As `check_name`, and if two names become the same.
    """
    found: dict[str, str] = {}
    given: dict[str, str] = {}
    for name in names:
        found[name] = safe = check_name(what, name)
        other = given.setdefault(safe, name)
        if other != name:
            raise ValueError(
                f"Two {what}s have one name: {other!r} and {name!r} are both {safe!r} in a file. Rename one of them."
            )
    return found
