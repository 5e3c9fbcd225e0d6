"""Which runs and targets a picture shows: those that have what it needs, and no more than a reader takes in."""

from collections.abc import Sequence

import xarray as xr

MOST_TARGETS = 12  # panels of one picture; tables hold all
Trees = dict[str, xr.DataTree]


def with_group(trees: Trees, *groups: str) -> Trees:
    """The runs whose trees have these groups."""
    return {name: tree for name, tree in trees.items() if set(groups) <= set(tree.children)}


def with_values(trees: Trees, group: str, prefix: str = "y") -> list[str]:
    """Targets that some run's group holds with a row at least, in order of appearance."""
    found: dict[str, None] = {}
    for tree in with_group(trees, group).values():
        for name, variable in tree[group].data_vars.items():
            if str(name).startswith(f"{prefix}_") and variable.size:
                found[str(name).removeprefix(f"{prefix}_")] = None
    return list(found)


def first_ones(
    names: Sequence[str], what: str = "targets", most: int = MOST_TARGETS, done: str = "Drawn"
) -> tuple[list[str], str]:
    """The first of many, and a sentence that says so."""
    note = f" {done} are the first {most} of {len(names)} {what}." if len(names) > most else ""
    return list(names[:most]), note
