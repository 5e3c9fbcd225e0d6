"""The ``training`` group of a results tree: what was recorded at every step."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.names import check_variable_name, unique_names

DIMS = ("step", "task", "task_bis")


def training_group(arrays: Mapping[str, ArrayLike], tasks: Sequence[str]) -> xr.Dataset:
    """Per-step records with named dimensions.

    Args:
        arrays: Steps ``(T,)`` (``residual``, ``seconds``, ``shared``, ...), steps by task ``(T, K)`` (``losses``,
            ``weights``, ``weights_heads``, ...) or steps by pairs of tasks ``(T, K, K)`` (``cosine``, ...); any name
            is taken, and its shape says which it is. NaN marks a task that was absent. ``epoch`` ``(T,)`` and
            ``step`` ``(T,)`` become coordinates; without ``step``, steps count from 1.
        tasks: The K task names in the order of the arrays. They may hold a slash (``affinity/nll``).

    Returns:
        Dims ``step``, ``task``, ``task_bis`` (the same tasks, so that a matrix has two named sides).

    Raises:
        ValueError: If a task name repeats, a name cannot be stored, or a shape fits none of the three.
    """
    names = unique_names("task", tasks)
    recorded = {check_variable_name("training", name): np.asarray(values) for name, values in arrays.items()}
    steps = next((values.shape[0] for values in recorded.values() if values.ndim), 0)
    full = (steps, len(names), len(names))

    variables = {}
    for name, values in recorded.items():
        if values.ndim not in (1, 2, 3) or values.shape != full[: values.ndim]:
            raise ValueError(
                f"training[{name!r}] has shape {values.shape}; expected {full[:1]} (a value a step), {full[:2]} "
                f"(a value a step and task) or {full} (a matrix of tasks a step), for the {steps} steps of "
                f"{next(iter(recorded))!r} and the {len(names)} tasks {names}."
            )
        variables[name] = (DIMS[: values.ndim], values)

    for clash in variables.keys() & {"task", "task_bis"}:
        raise ValueError(f"training[{clash!r}] has the name of a dimension; give it another.")
    step = variables.pop("step", (("step",), np.arange(1, steps + 1)))
    coords = {"step": step, "task": names, "task_bis": names}
    if "epoch" in variables:
        coords["epoch"] = variables.pop("epoch")
    return xr.Dataset(variables, coords=coords)
