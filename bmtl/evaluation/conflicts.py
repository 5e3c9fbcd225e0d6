"""Conflicts between task gradients over a run, from the ``training`` group of a results tree.

Two tasks conflict at a step where the cosine of their gradients is negative (Yu et al. 2020, "Gradient Surgery for
Multi-Task Learning", definition 1). Steps at which no gradients were compared, and pairs of which a task was absent, are
NaN in the tree and do not count.
"""

import numpy as np
import xarray as xr

from bmtl.evaluation.history import moving_average, recorded


def cosine_trends(tree: xr.DataTree, window: int | None = None) -> xr.DataArray:
    """Moving average of every pair's cosine over the steps at which gradients were compared.

    Args:
        tree: A results tree whose ``training`` has ``cosine``.
        window: How many measured steps the centred average takes (fewer at the ends); a 25th of them by default.

    Returns:
        ``cosine`` (step, task, task_bis), the steps at which something was measured only.

    Raises:
        ValueError: If no cosine was recorded, or the window is below 1.
    """
    cosine = compared(tree, "cosine")
    return cosine.copy(data=moving_average(cosine.values, window))


def mean_cosine(tree: xr.DataTree, steps: slice = slice(None)) -> xr.DataArray:
    """Mean cosine of every pair.

    Args:
        tree: As for `cosine_trends`.
        steps: Which of the recorded steps, by position; ``slice(-100, None)`` are the last hundred.

    Returns:
        ``cosine`` (task, task_bis); 1 for a task and itself.

    Raises:
        ValueError: If no cosine was recorded in these steps.
    """
    return compared(tree, "cosine", steps).mean("step", skipna=True)


def conflict_share(tree: xr.DataTree, steps: slice = slice(None)) -> xr.DataArray:
    """Share of each pair's measured steps at which its cosine was negative.

    Args:
        tree: As for `cosine_trends`.
        steps: As for `mean_cosine`.

    Returns:
        ``conflict_share`` (task, task_bis), from 0 to 1; NaN for a pair that was never measured, and for a task and itself.

    Raises:
        ValueError: If no cosine was recorded in these steps.
    """
    cosine = compared(tree, "cosine", steps)
    share = (cosine < 0).where(cosine.notnull()).mean("step", skipna=True)
    return _pairs_only(share).rename("conflict_share")


def mean_magnitude_similarity(tree: xr.DataTree, steps: slice = slice(None)) -> xr.DataArray:
    """Mean of ``2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2)``: 1 for gradients of one length, near 0 where one dwarfs the other.

    Of the scaled losses' gradients, which a weighting sees (definition 2 of the same paper).

    Args:
        tree: A results tree whose ``training`` has ``magnitude_similarity``.
        steps: As for `mean_cosine`.

    Returns:
        ``magnitude_similarity`` (task, task_bis).

    Raises:
        ValueError: If none was recorded in these steps.
    """
    return compared(tree, "magnitude_similarity", steps).mean("step", skipna=True)


def conflicts(tree: xr.DataTree, steps: slice = slice(None)) -> xr.Dataset:
    """All of these for every pair of tasks; ``.to_dataframe()`` makes a tidy table of it.

    Args:
        tree: As for `cosine_trends`.
        steps: As for `mean_cosine`.

    Returns:
        ``mean_cosine``, ``conflict_share`` and ``measured`` (number of steps) by (task, task_bis), and
        ``mean_magnitude_similarity`` where gradients were compared and not only probed.

    Raises:
        ValueError: If no cosine was recorded in these steps.
    """
    found = {
        "mean_cosine": mean_cosine(tree, steps),
        "conflict_share": conflict_share(tree, steps),
        "measured": compared(tree, "cosine", steps).notnull().sum("step"),
    }
    if recorded(tree, "magnitude_similarity") is not None:
        found["mean_magnitude_similarity"] = mean_magnitude_similarity(tree, steps)
    return xr.Dataset(found)


def compared(tree: xr.DataTree, name: str, steps: slice = slice(None)) -> xr.DataArray:
    """An array of ``training`` at those steps where it holds a number.

    Args:
        tree: A results tree.
        name: Such as "cosine", with the dimension ``step``.
        steps: Which of the recorded steps, by position.

    Raises:
        ValueError: If the run did not record it, or not in these steps.
    """
    array = recorded(tree, name)
    if array is None:
        raise ValueError(
            f"The run recorded no {name.replace('_', ' ')} of task gradients: its balancer weighs losses only. Use one "
            "that compares gradients: a weighting such as 'nash-mtl', or for the record alone 'ew >> full(every=10)'."
        )
    chosen = array.isel(step=steps)
    others = [str(dim) for dim in chosen.dims if dim != "step"]
    measured = chosen.notnull().any(others).values if others else chosen.notnull().values
    if not measured.any():
        raise ValueError(f"None of the steps {steps} of {array.sizes['step']} measured the gradients' {name}.")
    return chosen.isel(step=np.flatnonzero(measured))


def _pairs_only(square: xr.DataArray) -> xr.DataArray:
    return square.where(~np.eye(square.sizes["task"], dtype=bool))
