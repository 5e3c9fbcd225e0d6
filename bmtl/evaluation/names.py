"""Names of tasks, targets and variables: unique, and such that a tree and a file can hold them."""

from collections.abc import Iterable

from bmtl.targets.names import check_name


def unique_names(kind: str, names: Iterable[str]) -> list[str]:
    """The names as a list.

    Raises:
        ValueError: If one is given more than once; says which.
    """
    listed = [str(name) for name in names]
    seen: set[str] = set()
    for name in listed:
        if name in seen:
            raise ValueError(
                f"The {kind} name {name!r} is given more than once in {listed}; every {kind} needs its own."
            )
        seen.add(name)
    return listed


def stored_as(kind: str, names: Iterable[str]) -> dict[str, str]:
    """Each name as given -> the name as files hold it, by `check_name`.

    Raises:
        ValueError: If a name cannot be stored, or two become the same.
    """
    found: dict[str, str] = {}
    given: dict[str, str] = {}
    for name in names:
        found[name] = safe = check_name(kind, name)
        other = given.setdefault(safe, name)
        if other != name:
            raise ValueError(
                f"Two {kind}s have one name: {other!r} and {name!r} are both {safe!r} in a file. Rename one of them."
            )
    return found
