"""The ``training`` group of a results tree: what was recorded at every step."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.assembly import storable
from bmtl.evaluation.names import unique_names
from bmtl.targets.names import check_name

DIMS = ("step", "task", "task_bis")
# The attribute ``long_name`` of each variable; `bmtl.inference.record.history_arrays` computes them.
MEANINGS = {
    "losses": "task losses per datum, as the balancer saw them",
    "validation_losses": "mean losses of the validation rows at an epoch's last step, NaN at the other steps",
    "weights": "effective weights for the shared parameters, d objective / d loss",
    "weights_heads": "effective weights for the tasks' own parameters, d objective / d loss",
    "lr": "learning rate of the optimizer's first group",
    "effective_lr": "learning rate times weight",
    "gram": "inner products of the scaled losses' gradients",
    "cosine": "cosine of task gradients",
    "magnitude_similarity": "2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2) of the scaled losses' gradients",
    "projection": "least cosine of a task gradient with the shared update, min_k cos(g_k, d)",
    "fidelity": "cosine of the update with the one from the full gradients",
    "residual": "residual of the weighting's solver, relative",
    "shared": "terms of weight 1 (KL divergences) per datum",
    "seconds": "time of the step in seconds",
    "skipped": "the step was not taken",
}


def training_group(arrays: Mapping[str, ArrayLike], tasks: Sequence[str]) -> xr.Dataset:
    """Per-step records with named dimensions.

    Args:
        arrays: Steps ``(T,)`` (``residual``, ``seconds``, ``projection``, ...), steps by task ``(T, K)`` (``losses``,
            ``weights``, ``effective_lr``, ...) or steps by pairs of tasks ``(T, K, K)`` (``cosine``, ...); any name
            is taken, and its shape says which it is. Those of `MEANINGS` are described in the file. NaN marks a task
            that was absent, or a step at which nothing was measured. ``epoch`` ``(T,)`` and
            ``step`` ``(T,)`` become coordinates; without ``step``, steps count from 1.
        tasks: The K task names in the order of the arrays. They may hold a slash (``affinity/nll``).

    Returns:
        Dims ``step``, ``task``, ``task_bis`` (the same tasks, so that a matrix has two named sides).

    Raises:
        ValueError: If a task name repeats, a name cannot be stored, or a shape fits none of the three.
    """
    names = unique_names("task", storable("tasks", unique_names("task", tasks)).tolist())
    recorded = {check_name("record", name): storable(f"training[{name!r}]", values) for name, values in arrays.items()}
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
        about = {"long_name": MEANINGS[name]} if name in MEANINGS else {}
        variables[name] = (DIMS[: values.ndim], values, about)

    for clash in variables.keys() & {"task", "task_bis"}:
        raise ValueError(f"training[{clash!r}] has the name of a dimension; give it another.")
    step = variables.pop("step", (("step",), np.arange(1, steps + 1)))
    coords = {"step": step, "task": names, "task_bis": names}
    if "epoch" in variables:
        coords["epoch"] = variables.pop("epoch")
    return xr.Dataset(variables, coords=coords)


def recorded(tree: xr.DataTree, name: str) -> xr.DataArray | None:
    """An array of the ``training`` group, or None if the run did not record it."""
    if "training" not in tree.children or name not in tree["training"].data_vars:
        return None
    return tree["training"].to_dataset()[name]


def has(tree: xr.DataTree, name: str) -> bool:
    """Whether an array of the ``training`` group is there and holds a number."""
    record = recorded(tree, name)
    return record is not None and bool(record.notnull().any())


def moving_average(values: np.ndarray, window: int | None = None) -> np.ndarray:
    """Centred mean over the first axis, which shrinks at the ends and leaves NaN out.

    Args:
        values: ``(T, ...)``.
        window: How many steps; a 25th of them by default.

    Returns:
        The shape of `values`; NaN where a window holds nothing else.

    Raises:
        ValueError: If the window is below 1.
    """
    if window is not None and window < 1:
        raise ValueError(f"window counts steps, from 1, and {window} was given.")
    window = window or max(1, len(values) // 25)
    flat = pd.DataFrame(values.reshape(len(values), -1))
    return flat.rolling(window, center=True, min_periods=1).mean().to_numpy().reshape(values.shape)
