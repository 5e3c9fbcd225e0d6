"""The results tree: one `xarray.DataTree` per run, in ArviZ's schema, built from plain arrays.

::

    posterior               site (chain, draw, ...)
    sample_stats            lp, log_q, diverging, energy, ... (chain, draw)
    observed_data, posterior_predictive, log_likelihood, ...   groups of the rows that the posterior was conditioned on
                            (`bmtl.evaluation.groups`), or absent: ``bmtl train`` draws them, comparisons do not
    test, validation, ood   subtrees with the same groups of other labelled rows
    predictions, ...        draws for rows without labels (`bmtl.evaluation.unlabelled`)
    constant_data           what each target is (`bmtl.evaluation.constants`)
    training                losses, weights, cosine, ... (step, task, task_bis) (`bmtl.evaluation.history`)

ArviZ reads a run directly, with ``tree`` on its 1.x line and ``az.from_datatree(tree)`` on 0.23 (which leaves the
subtrees out)::

    tree = bmtl.evaluation.results.read("runs/model/results.nc")
    az.summary(tree)
    az.plot_trace(tree)
    az.loo(tree, var_name="y_mu")                  # of the training rows, or an error: never of test rows
    az.plot_ppc_dist(tree["test"], var_names=["y_mu"])   # 0.23: az.plot_ppc(az.from_datatree(tree["test"]), ...)

``az.loo`` treats the draws as draws from the posterior; those of a guide are not: `bmtl.evaluation.trust` corrects for it.

One variable per target, and not one array (task, row): targets have different rows, and ArviZ's predictive checks take
one-dimensional observations only. Draws of a guide are independent, in one chain; those of MCMC keep their chains. The
datasets are built here and not by `arviz_base.from_dict`, whose attributes differ between its 0.8 and 1.x lines.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.attributes import decode_attributes, encode_attributes, installed
from bmtl.evaluation.constants import ReportedTarget, constant_data
from bmtl.evaluation.fallback import read_arrays, write_arrays
from bmtl.evaluation.groups import PredictedRows, part_groups
from bmtl.evaluation.history import training_group
from bmtl.evaluation.names import stored_as, unique_names
from bmtl.evaluation.parts import PART, PARTS, TRAIN
from bmtl.evaluation.posterior import Arrays, posterior_group
from bmtl.evaluation.storage import (
    SCHEMA,
    ResultsFileError,
    check_writable,
    output_folder,
    read,
    read_attributes,
    write,
)
from bmtl.evaluation.unlabelled import PREDICTIONS, unlabelled_groups

__all__ = [
    "PredictedRows",
    "ReportedTarget",
    "ResultsFileError",
    "check_writable",
    "decode_attributes",
    "output_folder",
    "read",
    "read_arrays",
    "read_attributes",
    "to_datatree",
    "write",
    "write_arrays",
]

PACKAGES = ("arviz-base", "arviz-stats", "lightning", "numpy", "pyro-ppl", "scipy", "torch", "xarray")


def to_datatree(
    parts: Mapping[str, Mapping[str, PredictedRows]],
    targets: Mapping[str, ReportedTarget],
    *,
    posterior: Arrays | None = None,
    sample_stats: Arrays | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    chains: int = 1,
    training: Arrays | None = None,
    tasks: Sequence[str] | None = None,
    attributes: Mapping[str, object] | None = None,
) -> xr.DataTree:
    """Build the results tree of one run. Shapes: N rows, S draws, T steps, K tasks; S may differ between groups.

    Args:
        parts: Part -> target -> its rows in reported units. The parts "train" (the rows that the posterior was conditioned
            on), "test", "validation" and "ood" have labels; "predictions" has none. A part may leave targets out.
        targets: Target -> its family, unit, scaler and primary score. Names become those that files can hold
            (`bmtl.targets.names.check_name`).
        posterior: Site -> draws ``(S, ...)``; None for a point-mass model.
        sample_stats: Of the posterior's draws, ``(S,)`` or ``(S, ...)``: ``lp`` and ``log_q`` of a guide, ``diverging`` and
            ``energy`` of MCMC.
        coords: Dimension of `posterior` -> labels of its entries.
        dims: Site -> names of the dimensions after the draws; ``<site>_dim_<i>`` by default.
        chains: Of MCMC, whose draws come one chain after the other in every array.
        training: Per-step records, as `training_group` takes them.
        tasks: Names of the K tasks in `training`'s order; the targets by default.
        attributes: Root attributes of any type that JSON supports: ``method`` (the row of a table), ``balancer``, ``seed``,
            ``configuration``, ``data_name``, ``data_fingerprint``, ...

    Returns:
        The tree. Its root attributes also hold the versions of bmtl and of the packages below it, the time of
        creation (UTC) and the task names; `decode_attributes` gives them back as they were.

    Raises:
        ValueError: If a part or a target is unknown, an array does not have the shape of its rows, a label is not of its
            target's family, a name cannot be stored or repeats; says which, what was given and what is expected.
    """
    if chains < 1:
        raise ValueError(f"chains is {chains}; draws come in one chain at least.")
    if unknown := parts.keys() - {*PARTS, PREDICTIONS}:
        raise ValueError(f"There is no part {min(unknown)!r}; expected {', '.join((*PARTS, PREDICTIONS))}.")
    names = stored_as("target", targets)
    known = {names[name]: target for name, target in targets.items()}
    groups: dict[str, xr.Dataset] = {}
    if posterior:
        groups["posterior"] = posterior_group(posterior, coords or {}, dims or {}, chains)
    if sample_stats:
        groups["sample_stats"] = posterior_group(sample_stats, {}, {}, chains)
    for part, rows in parts.items():
        renamed = {names.get(name, name): of for name, of in rows.items()}
        if part == PREDICTIONS:
            groups |= unlabelled_groups(renamed, known, chains)
            continue
        node = "" if part == TRAIN else f"{part}/"
        groups |= {f"{node}{name}": group for name, group in part_groups(part, renamed, known, chains).items()}
    if known:
        groups["constant_data"] = constant_data(known)

    task_names = unique_names("task", known if tasks is None else tasks)
    if training is not None:
        groups["training"] = training_group(training, task_names)

    tree = xr.DataTree.from_dict(groups)
    for part in parts:
        if part in tree.children:
            tree.children[part].attrs[PART] = part
    tree.attrs = encode_attributes({**provenance(), "task_names": task_names, **(attributes or {})})
    return tree


def provenance() -> dict[str, object]:
    """The origin of a file: its schema, versions of bmtl and of the packages below it, and the time in UTC."""
    return {
        "schema": SCHEMA,
        "bmtl_version": installed(["bmtl"]).get("bmtl", "unknown"),
        "package_versions": installed(PACKAGES),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
