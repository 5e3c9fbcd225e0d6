"""The results tree: one `xarray.DataTree` a run, in ArviZ's schema, built from plain arrays.

Groups, each left out where nothing is given for it; a target is a regression or a classification:

    posterior               site (chain, draw, ...)
    posterior_predictive    y_<target> (chain, draw, obs_<target>)   draws in reported units; class indices
    log_likelihood          y_<target> (chain, draw, obs_<target>)   log density in reported units, per scored row
    observed_data           y_<target> (obs_<target>)                labelled rows only; coordinate: the row's number
    predictive_mean         y_<target> (obs_<target>)                regressions: mean of the predictive, not of its draws
    pit                     y_<target> (obs_<target>)                regressions: predictive cdf at the observed value
    predictive_distribution loc_<t>, scale_<t>, df_<t> (component, obs_<t>)   regressions: components of the predictive,
                            Student t or, with infinite df, normal, of equal weight
    probability             y_<target> (obs_<target>, class_<target>)   classifications: class probabilities
    uncertainty             total_<t>, aleatoric_<t>, epistemic_<t> (obs_<t>)   variances, or entropies in nats
    sample_stats            lp, log_q (chain, draw)                  log densities of the draws: model's, guide's
    constant_data           target_location, target_scale, unit, kind (target)
    predictions             y_<target> (chain, draw, row)            inputs without labels, out of distribution or new
    predictions_uncertainty total_<t>, aleatoric_<t>, epistemic_<t> (row)
    training                losses, weights, cosine, ... (step, task, task_bis)
    validation, train       trees of the same schema, of other rows

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
from bmtl.evaluation.groups import Arrays, ScoredRows, posterior_group, unscored_draws, unscored_values
from bmtl.evaluation.history import training_group
from bmtl.evaluation.names import check_same_names, unique_names
from bmtl.evaluation.storage import ResultsFileError, check_writable, read, write

__all__ = ["ResultsFileError", "check_writable", "decode_attributes", "read", "to_datatree", "write"]

PACKAGES = ("arviz-base", "arviz-stats", "lightning", "numpy", "pyro-ppl", "scipy", "torch", "xarray")


def to_datatree(
    *,
    observed: Arrays | None = None,
    row_numbers: Arrays | None = None,
    predictive: Arrays | None = None,
    log_likelihood: Arrays | None = None,
    predictive_mean: Arrays | None = None,
    pit: Arrays | None = None,
    distribution: Mapping[str, Arrays] | None = None,
    probability: Arrays | None = None,
    aleatoric: Arrays | None = None,
    epistemic: Arrays | None = None,
    posterior: Arrays | None = None,
    sample_stats: Arrays | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    target_location: Mapping[str, float] | None = None,
    target_scale: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    predictions: Arrays | None = None,
    predictions_aleatoric: Arrays | None = None,
    predictions_epistemic: Arrays | None = None,
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
        row_numbers: Target -> numbers of its rows ``(N,)`` in a table that has other targets' rows too, so that runs which
            were given each target's own rows and runs on the table can be told to agree; from 0 on by default.
        predictive: Target -> draws of y ``(S, N)`` in reported units.
        log_likelihood: Target -> log density of the label ``(S, N)``, per reported unit, a row a posterior draw.
        predictive_mean: Target -> ``(N,)``, reported units. May leave targets out, as may all down to `epistemic`.
        pit: Target -> predictive cdf at the label ``(N,)``, in [0, 1], averaged over posterior draws.
        distribution: Target -> ``loc``, ``scale``, ``df`` of the predictive's components ``(S, N)``, reported units.
        probability: Target -> class probabilities ``(N, C)``; makes the target a classification.
        aleatoric: Target -> ``(N,)``, reported units squared, or nats.
        epistemic: Target -> ``(N,)``, of the same targets.
        posterior: Site -> draws ``(S, ...)``; None for a point-mass model.
        sample_stats: ``lp`` and ``log_q`` of the posterior's draws, ``(S,)``.
        coords: Dimension of `posterior` -> labels of its entries.
        dims: Site -> names of the dimensions after the draws; unnamed ones become ``<site>_dim_<i>``.
        target_location: Regression -> what the training standardisation subtracted, reported units.
        target_scale: Regression -> what it divided by, reported units; positive.
        units: Target -> reported unit, such as ``"meV"``.
        classes: Classification -> names of its C classes; their numbers by default.
        predictions: Target -> draws ``(S, M)`` for inputs without labels.
        predictions_aleatoric: Target -> ``(M,)``, of the same inputs.
        predictions_epistemic: Target -> ``(M,)``.
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
    rows = ScoredRows(observed or {}, row_numbers)
    kinds = {name: "classification" if name in (probability or {}) else "regression" for name in rows.targets}
    groups: dict[str, xr.Dataset] = {}
    if posterior:
        groups["posterior"] = posterior_group(posterior, coords or {}, dims or {})
    if sample_stats:
        groups["sample_stats"] = posterior_group(sample_stats, {}, {})
    if predictive is not None:
        groups["posterior_predictive"] = rows.draws("predictive", predictive)
    if log_likelihood is not None:
        groups["log_likelihood"] = rows.draws("log_likelihood", log_likelihood)
    if probability:
        groups["probability"] = rows.probabilities("probability", probability, classes or {})
    if rows.targets:
        groups["observed_data"] = rows.observations()
        groups["constant_data"] = _constants(kinds, target_location, target_scale, units or {})
    if predictive_mean:
        groups["predictive_mean"] = rows.values("predictive_mean", predictive_mean)
    if pit:
        groups["pit"] = rows.values("pit", pit)
    if distribution:
        groups["predictive_distribution"] = rows.components("distribution", distribution)
    if aleatoric or epistemic:
        groups["uncertainty"] = rows.uncertainties(aleatoric or {}, epistemic or {})
    if predictions:
        groups["predictions"] = unscored_draws(predictions)
    if predictions_aleatoric or predictions_epistemic:
        groups["predictions_uncertainty"] = unscored_values(predictions_aleatoric or {}, predictions_epistemic or {})

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
    kinds: Mapping[str, str],
    location: Mapping[str, float] | None,
    scale: Mapping[str, float] | None,
    units: Mapping[str, str],
) -> xr.Dataset:
    check_same_names("units", {**dict.fromkeys(kinds, ""), **units}, kinds)  # a unit may be left out
    regressions = [name for name, kind in kinds.items() if kind == "regression"]
    variables = {
        "unit": ("target", np.asarray([units.get(name, "") for name in kinds], dtype=str)),
        "kind": ("target", np.asarray(list(kinds.values()), dtype=str)),
    }
    for variable, given in (("target_location", location), ("target_scale", scale)):
        if given is not None:
            check_same_names(variable, given, dict.fromkeys(regressions))
            variables[variable] = ("target", np.asarray([float(given.get(name, np.nan)) for name in kinds]))
    for name, value in (scale or {}).items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"target_scale[{name!r}] is {value}; a scale is positive and finite.")
    return xr.Dataset(variables, coords={"target": list(kinds)})
