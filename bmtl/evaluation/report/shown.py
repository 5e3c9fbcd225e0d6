"""Which runs and targets a picture shows: those that have what it needs, and no more than a reader takes in."""

from collections.abc import Sequence

import xarray as xr

from bmtl.evaluation.parts import part_of, parts_of

MOST_TARGETS = 12  # panels of one picture; tables hold all
MOST_PAGES = 4  # pictures of one kind, the further ones folded away
Trees = dict[str, xr.DataTree]


def groups_in(tree: xr.DataTree, part: str = "test") -> dict[str, xr.Dataset]:
    """The groups of a part by name; none where the run has no rows of it."""
    if part not in parts_of(tree.root):
        return {}
    return {str(name): node.to_dataset(inherit=False) for name, node in part_of(tree, part).children.items()}


def with_group(trees: Trees, *groups: str) -> Trees:
    """The runs whose test rows have these groups."""
    return {name: tree for name, tree in trees.items() if set(groups) <= set(groups_in(tree))}


def with_values(trees: Trees, group: str, prefix: str = "y") -> list[str]:
    """Targets that some run's group of the test rows holds with a row at least, in order of appearance."""
    found: dict[str, None] = {}
    for tree in trees.values():
        for name, variable in groups_in(tree).get(group, xr.Dataset()).variables.items():
            if str(name).startswith(f"{prefix}_") and variable.size:
                found[str(name).removeprefix(f"{prefix}_")] = None
    return list(found)


def pages(names: Sequence[str], most: int = MOST_TARGETS, pages: int = MOST_PAGES) -> tuple[list[list[str]], str]:
    """The targets of a picture and of those folded away below it, and a sentence on those that none shows."""
    shown = list(names[: most * pages])
    note = f" Drawn are the first {len(shown)} of {len(names)} targets." if len(names) > len(shown) else ""
    return [shown[k : k + most] for k in range(0, len(shown), most)], note


def first_ones(
    names: Sequence[str], what: str = "targets", most: int = MOST_TARGETS, done: str = "Drawn"
) -> tuple[list[str], str]:
    """The first of many, and a sentence that says so."""
    note = f" {done} are the first {most} of {len(names)} {what}." if len(names) > most else ""
    return list(names[:most]), note
