"""The layer of names above the array cores: which array of a tree belongs to which target."""

from collections.abc import Callable

import numpy as np
import xarray as xr


def group_of(tree: xr.DataTree, name: str) -> xr.Dataset:
    """A group of the tree as a dataset.

    Raises:
        ValueError: If the tree was built without it; says what it has.
    """
    if name not in tree.children:
        raise ValueError(
            f"The results tree has no group {name!r}; it has {list(tree.children)}. "
            "Give that group's arrays to to_datatree, or leave out what is computed from it."
        )
    return tree[name].to_dataset()


def targets_of(tree: xr.DataTree) -> list[str]:
    """Names of the scored targets, in the order in which they were given."""
    return [str(name).removeprefix("y_") for name in group_of(tree, "observed_data").data_vars]


def per_target(tree: xr.DataTree, groups: tuple[str, ...], core: Callable[..., float]) -> xr.DataArray:
    """`core` of each target's arrays, dimension ``task``.

    Args:
        tree: A results tree.
        groups: Whose arrays `core` takes, in this order: ``(N,)``, ``(S, N)`` for draws, ``(N, C)`` for probabilities.
        core: The arrays of one target -> a number.

    Returns:
        ``(task,)``, with the targets' units as coordinate ``unit``; NaN for a target without a scored row, and for one
        that a group does not hold: probabilities have no squared error.
    """
    arrays = [group_of(tree, group) for group in groups]
    names, sizes = targets_of(tree), arrays[0].sizes
    scores = []
    for name in names:
        if any(f"y_{name}" not in array for array in arrays):  # a score of the other kind of target
            scores.append(np.nan)
            continue
        # Variables: a dataset of a hundred targets takes a millisecond to give one of them its coordinates.
        given = [_draws_as_one(array.variables[f"y_{name}"]) for array in arrays]
        scores.append(core(*given) if sizes[f"obs_{name}"] else np.nan)
    return xr.DataArray(np.asarray(scores, dtype=float), dims="task", coords=task_coords(tree))


def task_coords(tree: xr.DataTree) -> dict[str, object]:
    """Coordinates of dimension ``task``: the targets' names and their units."""
    names = targets_of(tree)
    coords: dict[str, object] = {"task": names}
    if "constant_data" in tree.children:
        coords["unit"] = ("task", group_of(tree, "constant_data")["unit"].sel(target=names).values)
    return coords


def rows(tree: xr.DataTree) -> xr.Dataset:
    """Number of scored rows per target, as ``rows (task)``."""
    observed = group_of(tree, "observed_data")
    counts = [observed.variables[f"y_{name}"].size for name in targets_of(tree)]
    return xr.Dataset({"rows": ("task", np.asarray(counts, dtype=int))}, coords=task_coords(tree))


def _draws_as_one(array: xr.Variable) -> np.ndarray:
    """Chains and draws as one axis, ``(S, N)``; anything else as it is."""
    if "chain" not in array.dims:
        return array.values
    chains, draws = array.sizes["chain"], array.sizes["draw"]
    return array.transpose("chain", "draw", ...).values.reshape(chains * draws, *array.shape[2:])
