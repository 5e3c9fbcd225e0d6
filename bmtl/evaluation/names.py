"""Names of tasks, targets and variables: unique, and such that a tree and a file can hold them."""

from collections.abc import Iterable, Mapping


def unique_names(kind: str, names: Iterable[str]) -> list[str]:
    """The names as a list, or a ``ValueError`` that says which one stands there twice."""
    listed = [str(name) for name in names]
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise ValueError(
            f"The {kind} name {twice[0]!r} is given more than once in {listed}; every {kind} needs its own."
        )
    return listed


def check_variable_name(group: str, name: object) -> str:
    """The name if a tree and a file can hold a variable of that name, else a ``ValueError`` that says why not."""
    if not isinstance(name, str) or not name.strip() or name != name.strip():
        raise ValueError(f"{group}[{name!r}]: a variable's name must be text without spaces around it.")
    if "/" in name:
        raise ValueError(
            f"{group}[{name!r}]: a variable's name must not hold a slash, which is a path between groups. "
            f"Name it {name.replace('/', '_')!r}, say, or after its target: task names may hold one, targets may not."
        )
    return name


def check_same_names(group: str, given: Mapping[str, object], expected: Mapping[str, object]) -> None:
    """Raise a ``ValueError`` that names a target which `group` lacks, or has and `expected` has not."""
    for missing in sorted(expected.keys() - given.keys()):
        raise ValueError(f"{group} has no target {missing!r}; it has {list(given)}, and observed has {list(expected)}.")
    for unknown in sorted(given.keys() - expected.keys()):
        raise ValueError(
            f"{group} has a target {unknown!r} that observed has not ({list(expected)}). "
            "Give its labels too; rows without one are NaN."
        )
