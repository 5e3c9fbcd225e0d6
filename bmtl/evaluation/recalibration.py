"""Recalibration of a results tree, each target by itself, fitted on its ``validation`` rows."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes, encode_attributes
from bmtl.evaluation.calibration_maps import (
    IsotonicPredictive,
    PitMap,
    fit_scale,
    fit_temperature,
    tempered,
)
from bmtl.evaluation.conformal import labelled_rows, validation_of
from bmtl.evaluation.metrics.labelled import group_of, targets_of
from bmtl.evaluation.predictive import EmpiricalPredictive, StudentTMixture, predictive_of, regressions

Method = Literal["temperature", "isotonic"]
Map = float | PitMap
Groups = dict[str, xr.Dataset]
Sample = Callable[[int], np.ndarray]
# Of other rows: no distribution is stored that could follow.
LEFT_OUT = ("predictions", "predictions_constant_data", "predictions_uncertainty", "train", "validation")
DRAWS = 100  # a row, where a predictive is known by its draws from now on and the tree had none


def recalibrate(tree: xr.DataTree, *, method: Method = "temperature", seed: int = 0) -> xr.DataTree:
    """A tree whose predictives are recalibrated, fitted on the labels of ``validation``; the given one is left as it is.

    * ``"temperature"``, regressions: one factor a target on the scales of all components, by maximum likelihood. The
      predictive stays a Student-t mixture, its locations and mean stay. Needs ``predictive_distribution``.
    * ``"temperature"``, classifications: ``p^(1/T)``, normalised, by maximum likelihood.
    * ``"isotonic"``, regressions: the predictive cdf goes through the ECDF of the validation PIT values. That is no
      Student-t mixture any more: ``predictive_distribution`` is left out for these targets, and their predictive is known
      by its draws (100 a row, where the tree had none). Classifications stay as they are.

    ``validation`` is recalibrated alike, so that doing it again changes (next to) nothing. Draws of ``posterior_predictive``
    are drawn anew, each row by itself. ``uncertainty`` holds what is still defined: under a temperature of a regression all
    three parts (component variances and what they hold to be epistemic are scaled; the variance of locations stays),
    else the total alone. Left out are ``predictions``, ``predictions_uncertainty`` and ``train``, for which there is
    nothing to recalibrate with, and ``log_likelihood`` of a target that has not a component a draw.

    Args:
        tree: A results tree with ``validation``.
        method: As above.
        seed: Seed of the new draws.

    Returns:
        A tree of the same schema. Its root attributes ``recalibration`` and ``recalibration_factors`` (target -> factor
        or temperature; under ``"isotonic"`` empty) say what was done.

    Raises:
        ValueError: If the method is unknown, there is no ``validation``, or a target cannot be recalibrated: it has no
            labelled row there, no distribution, or its likelihood has no maximum; names it.
    """
    if method not in ("temperature", "isotonic"):
        raise ValueError(f"There is no recalibration {method!r}; expected 'temperature' or 'isotonic'.")
    validation = validation_of(tree)
    maps = {name: _fit(validation, name, method) for name in targets_of(tree) if _concerned(tree, name, method)}
    random = np.random.default_rng(seed)
    groups: Groups = {"/": tree.to_dataset(inherit=False)}
    groups["/validation"] = validation.to_dataset(inherit=False)
    for prefix, part in (("/", tree), ("/validation/", validation)):
        groups |= {f"{prefix}{name}": group for name, group in _applied(part, maps, random).items()}
    renewed = xr.DataTree.from_dict(groups)
    renewed.attrs = encode_attributes(
        {
            **decode_attributes(tree),
            "recalibration": method,
            "recalibration_factors": {name: fitted for name, fitted in maps.items() if isinstance(fitted, float)},
        }
    )
    return renewed


def _concerned(tree: xr.DataTree, target: str, method: Method) -> bool:
    has_rows = bool(group_of(tree, "observed_data")[f"y_{target}"].size)
    return has_rows and (method == "temperature" or target in regressions(tree))


def _fit(validation: xr.DataTree, target: str, method: Method) -> Map:
    """What is to be done to a target's predictive."""
    y = labelled_rows(group_of(validation, "observed_data"), target)
    try:
        if target not in regressions(validation):
            return fit_temperature(group_of(validation, "probability")[f"y_{target}"].values, y)
        if method == "isotonic":
            return PitMap.fitted(group_of(validation, "pit")[f"y_{target}"].values)
        return fit_scale(_mixture(validation, target), y)
    except ValueError as error:
        raise ValueError(f"Target {target!r} cannot be recalibrated: {error}") from error


def _mixture(tree: xr.DataTree, target: str) -> StudentTMixture:
    predictive = predictive_of(tree, target)
    if isinstance(predictive, EmpiricalPredictive):
        raise ValueError("the tree holds its draws only, and they have no likelihood. Use method='isotonic'.")
    return predictive


def _applied(tree: xr.DataTree, maps: Mapping[str, Map], random: np.random.Generator) -> Groups:
    """The groups of a tree, or of its validation rows, with the maps applied."""
    groups = {str(name): part.to_dataset(inherit=False) for name, part in tree.children.items() if name not in LEFT_OUT}
    for target, fitted in maps.items():
        if target not in regressions(tree):
            assert isinstance(fitted, float)
            _temper(groups, target, fitted, random)
        elif isinstance(fitted, PitMap):
            _map(groups, target, predictive_of(tree, target), fitted, random)
        else:
            _scale(groups, target, _mixture(tree, target), fitted, random)
    return groups


def _scale(groups: Groups, target: str, before: StudentTMixture, factor: float, random: np.random.Generator) -> None:
    after = before.scaled(factor)
    y = groups["observed_data"][f"y_{target}"].values
    distribution = groups["predictive_distribution"]
    groups["predictive_distribution"] = distribution.assign(
        {f"scale_{target}": distribution[f"scale_{target}"] * factor}
    )
    _put(groups, "pit", target, after.cdf(y))
    if f"y_{target}" in groups.get("log_likelihood", ()):
        densities = after.component_log_prob(y)
        if groups["log_likelihood"][f"y_{target}"].size == densities.size:
            _put(groups, "log_likelihood", target, densities)
        else:
            groups["log_likelihood"] = groups["log_likelihood"].drop_vars(f"y_{target}")
    _draw(groups, target, lambda count: after.sample(count, random))
    if f"aleatoric_{target}" in groups.get("uncertainty", ()):
        parts, between = groups["uncertainty"], before.between()
        inside = np.maximum(
            parts[f"epistemic_{target}"].values - between, 0
        )  # what an evidential component holds itself
        aleatoric, epistemic = factor**2 * parts[f"aleatoric_{target}"].values, factor**2 * inside + between
        for name, values in (("total", aleatoric + epistemic), ("aleatoric", aleatoric), ("epistemic", epistemic)):
            _put(groups, "uncertainty", target, values, name)


def _map(
    groups: Groups,
    target: str,
    before: StudentTMixture | EmpiricalPredictive,
    pit_map: PitMap,
    random: np.random.Generator,
) -> None:
    after: IsotonicPredictive | EmpiricalPredictive
    if isinstance(before, StudentTMixture):
        after = IsotonicPredictive(before, pit_map)
        names = [f"{name}_{target}" for name in ("loc", "scale", "df")]
        groups["predictive_distribution"] = groups["predictive_distribution"].drop_vars(names)
    else:  # as many draws, at equal steps of the recalibrated cdf
        steps = (np.arange(len(before.draws)) + 0.5) / len(before.draws)
        after = EmpiricalPredictive(before.quantile(pit_map.inverse(steps)[:, None]))
    pit = groups["pit"][f"y_{target}"].values
    if f"y_{target}" in groups.get("log_likelihood", ()):  # a factor on the mixture's density is one on each draw's
        old = groups["log_likelihood"][f"y_{target}"]
        _put(groups, "log_likelihood", target, old.values + pit_map.log_slope(pit))
    _put(groups, "pit", target, pit_map(pit))
    _put(groups, "predictive_mean", target, after.mean())
    if "posterior_predictive" not in groups or f"y_{target}" not in groups["posterior_predictive"]:
        labels = groups["observed_data"][f"y_{target}"]
        empty = labels.expand_dims(chain=[0], draw=np.arange(DRAWS)).astype(float)
        groups["posterior_predictive"] = groups.get("posterior_predictive", xr.Dataset()).assign({labels.name: empty})
    _draw(groups, target, lambda count: after.sample(count, random))
    _only_total(groups, target, after.variance())


def _temper(groups: Groups, target: str, temperature: float, random: np.random.Generator) -> None:
    before = groups["probability"][f"y_{target}"].values
    after = tempered(before, temperature)
    y = groups["observed_data"][f"y_{target}"].values
    rows = np.arange(y.size)
    _put(groups, "probability", target, after)
    if f"y_{target}" in groups.get(
        "log_likelihood", ()
    ):  # the mean over draws becomes the new probability of the label
        old = groups["log_likelihood"][f"y_{target}"].values
        had, has = before[rows, y], after[rows, y]
        shifted = np.where(had > 0, old + np.log(has / np.where(had > 0, had, 1)), np.log(has))
        _put(groups, "log_likelihood", target, shifted)
    below = after.cumsum(axis=1)
    _draw(groups, target, lambda count: (random.uniform(size=(count, y.size, 1)) > below[:, :-1]).sum(axis=-1))
    _only_total(groups, target, -(after * np.log(np.where(after > 0, after, 1))).sum(axis=1))


def _put(groups: Groups, group: str, target: str, values: np.ndarray, prefix: str = "y") -> None:
    """Replace a target's array in its shape, where the tree has it."""
    if f"{prefix}_{target}" in groups.get(group, ()):
        old = groups[group][f"{prefix}_{target}"]
        groups[group] = groups[group].assign({old.name: old.copy(data=values.reshape(old.shape))})


def _draw(groups: Groups, target: str, sample: Sample) -> None:
    """Draw a target's predictive anew, as often as before."""
    if "posterior_predictive" in groups:
        drawn = groups["posterior_predictive"]
        _put(groups, "posterior_predictive", target, sample(drawn.sizes["chain"] * drawn.sizes["draw"]))


def _only_total(groups: Groups, target: str, total: np.ndarray) -> None:
    if "uncertainty" in groups:
        _put(groups, "uncertainty", target, total, "total")
        lost = [f"{part}_{target}" for part in ("aleatoric", "epistemic")]
        groups["uncertainty"] = groups["uncertainty"].drop_vars(lost, errors="ignore")
