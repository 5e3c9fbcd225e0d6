"""The results tree: one `xarray.DataTree` a run, in ArviZ's schema, built from plain arrays.

Groups, each left out where nothing is given for it:

    posterior             site (chain, draw, ...)
    posterior_predictive  y_<target> (chain, draw, obs_<target>)   draws in reported units
    log_likelihood        y_<target> (chain, draw, obs_<target>)   log density in reported units, per scored row
    observed_data         y_<target> (obs_<target>)                labelled rows only; coordinate: the row's number
    predictive_mean       y_<target> (obs_<target>)                mean of the predictive, not of its draws
    pit                   y_<target> (obs_<target>)                predictive cdf at the observed value
    constant_data         target_location, target_scale, unit (target)
    training              losses, weights, cosine, ... (step, task, task_bis)

One variable a target, and not one array (task, row): targets have different rows, and ArviZ's predictive checks take
one-dimensional observations only. Draws are one chain: draws of a guide are independent. The datasets are built here
and not by `arviz_base.from_dict`, whose attributes differ between its 0.8 and 1.x lines.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.attributes import decode_attributes, encode_attributes, installed
from bmtl.evaluation.groups import Arrays, ScoredRows, posterior_group
from bmtl.evaluation.history import training_group
from bmtl.evaluation.names import check_same_names, unique_names
from bmtl.evaluation.storage import ResultsFileError, check_writable, read, write

__all__ = ["ResultsFileError", "check_writable", "decode_attributes", "read", "to_datatree", "write"]

PACKAGES = ("arviz-base", "arviz-stats", "lightning", "numpy", "pyro-ppl", "scipy", "torch", "xarray")


def to_datatree(
    *,
    observed: Arrays | None = None,
    predictive: Arrays | None = None,
    log_likelihood: Arrays | None = None,
    predictive_mean: Arrays | None = None,
    pit: Arrays | None = None,
    posterior: Arrays | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    target_location: Mapping[str, float] | None = None,
    target_scale: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
    training: Arrays | None = None,
    tasks: Sequence[str] | None = None,
    method: str | None = None,
    balancer: str | None = None,
    seed: int | None = None,
    configuration: Mapping[str, object] | None = None,
    data_name: str | None = None,
    data_fingerprint: str | None = None,
    attributes: Mapping[str, object] | None = None,
) -> xr.DataTree:
    """Build the results tree of one run. Shapes: N rows, S draws, T steps, K tasks; S may differ between groups.

    Args:
        observed: Target -> labels ``(N,)`` in reported units. A row without a label (NaN in floats, -1 in integers) is
            dropped from this target in every group below.
        predictive: Target -> draws of y ``(S, N)`` in reported units.
        log_likelihood: Target -> log density of the label ``(S, N)``, per reported unit, a row a posterior draw.
        predictive_mean: Target -> ``(N,)``, reported units.
        pit: Target -> predictive cdf at the label ``(N,)``, in [0, 1], averaged over posterior draws.
        posterior: Site -> draws ``(S, ...)``; None for a point-mass model.
        coords: Dimension of `posterior` -> labels of its entries.
        dims: Site -> names of the dimensions after the draws; unnamed ones become ``<site>_dim_<i>``.
        target_location: Target -> what the training standardisation subtracted, reported units.
        target_scale: Target -> what it divided by, reported units; positive.
        units: Target -> reported unit, such as ``"meV"``.
        training: Per-step records, as `training_group` takes them.
        tasks: Names of the K tasks in `training`'s order; the targets by default.
        method: Short name of the method, the row of a table.
        balancer: The balancer's string form.
        seed: The run's seed.
        configuration: Everything that was set, kept as JSON.
        data_name: The data set.
        data_fingerprint: A hash of the data.
        attributes: Further root attributes, of any type that JSON knows.

    Returns:
        The tree. Its root attributes also hold the versions of bmtl and of the packages below it, the time of
        creation (UTC) and the task names; `decode_attributes` gives them back as they were.

    Raises:
        ValueError: Naming the array, its shape and the expected one, the target that is missing or unknown, or the
            name that repeats or holds a slash.
    """
    rows = ScoredRows(observed or {})
    groups: dict[str, xr.Dataset] = {}
    if posterior:
        groups["posterior"] = posterior_group(posterior, coords or {}, dims or {})
    if predictive is not None:
        groups["posterior_predictive"] = rows.draws("predictive", predictive)
    if log_likelihood is not None:
        groups["log_likelihood"] = rows.draws("log_likelihood", log_likelihood)
    if rows.targets:
        groups["observed_data"] = rows.observations()
        groups["constant_data"] = _constants(rows.targets, target_location, target_scale, units or {})
    if predictive_mean is not None:
        groups["predictive_mean"] = rows.values("predictive_mean", predictive_mean)
    if pit is not None:
        groups["pit"] = rows.values("pit", pit)

    task_names = unique_names("task", rows.targets if tasks is None else tasks)
    if training is not None:
        groups["training"] = training_group(training, task_names)

    tree = xr.DataTree.from_dict(groups)
    given = {
        "method": method,
        "balancer": balancer,
        "seed": seed,
        "configuration": None if configuration is None else dict(configuration),
        "data_name": data_name,
        "data_fingerprint": data_fingerprint,
    }
    tree.attrs = encode_attributes(
        {
            **provenance(),
            "task_names": task_names,
            **{name: value for name, value in given.items() if value is not None},
            **(attributes or {}),
        }
    )
    return tree


def provenance() -> dict[str, object]:
    """What made a file and when: versions of bmtl and of the packages below it, and the time in UTC."""
    return {
        "bmtl_version": installed(["bmtl"]).get("bmtl", "unknown"),
        "package_versions": installed(PACKAGES),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _constants(
    targets: list[str],
    location: Mapping[str, float] | None,
    scale: Mapping[str, float] | None,
    units: Mapping[str, str],
) -> xr.Dataset:
    known = dict.fromkeys(targets)
    check_same_names("units", {**dict.fromkeys(targets, ""), **units}, known)  # a unit may be left out
    variables = {"unit": ("target", np.asarray([units.get(name, "") for name in targets], dtype=str))}
    for variable, given in (("target_location", location), ("target_scale", scale)):
        if given is not None:
            check_same_names(variable, given, known)
            variables[variable] = ("target", np.asarray([float(given[name]) for name in targets]))
    for name, value in (scale or {}).items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"target_scale[{name!r}] is {value}; a scale is positive and finite.")
    return xr.Dataset(variables, coords={"target": targets})
