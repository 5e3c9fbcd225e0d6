"""Which scores a comparison holds: one table from a score's name and a kind of target to what computes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import xarray as xr

from bmtl.evaluation import metrics
from bmtl.evaluation.metrics.labelled import targets_of

Kind = Literal["regression", "classification"]


@dataclass(frozen=True)
class Score:
    """A score of one kind of target.

    Attributes:
        name: Entry of the comparison's dimension ``metric``. Two kinds may share a name for what they share the idea of.
        kind: Of the targets that have it.
        compute: Results tree -> ``(task,)``.
        groups: What `compute` needs of a tree.
        one_of: It needs one of these too, whichever.
        symbol: Its name in tables.
        higher_is_better: The same for both kinds of one name.
        primary: The one of its kind that ``delta_m``, ranks and columns by task are made of.
        in_units: It has the target's unit.
    """

    name: str
    kind: Kind
    compute: Callable[[xr.DataTree], xr.DataArray]
    groups: tuple[str, ...]
    symbol: str
    one_of: tuple[str, ...] = ()
    higher_is_better: bool = False
    primary: bool = False
    in_units: bool = False


PROBABILITY = ("observed_data", "probability")
SCORES: tuple[Score, ...] = (
    Score(
        "mae",
        "regression",
        lambda tree: metrics.mae(tree)["mae"],
        ("observed_data", "predictive_mean"),
        "MAE",
        primary=True,
        in_units=True,
    ),
    Score(
        "rmse",
        "regression",
        lambda tree: metrics.rmse(tree)["rmse"],
        ("observed_data", "predictive_mean"),
        "RMSE",
        in_units=True,
    ),
    Score(
        "r2",
        "regression",
        lambda tree: metrics.r2(tree)["r2"],
        ("observed_data", "predictive_mean"),
        "R²",
        higher_is_better=True,
    ),
    # Raw densities of different units have no common mean.
    Score("nll", "regression", lambda tree: metrics.nll(tree, standardised=True)["nll"], ("log_likelihood",), "NLL"),
    Score("ece", "regression", lambda tree: metrics.ece(tree)["ece"], ("pit",), "ECE"),
    Score(
        "crps",
        "regression",
        lambda tree: metrics.crps(tree)["crps"],
        ("observed_data",),
        "CRPS",
        one_of=("predictive_distribution", "posterior_predictive"),
        in_units=True,
    ),
    Score(
        "accuracy",
        "classification",
        lambda tree: metrics.accuracy(tree)["accuracy"],
        PROBABILITY,
        "accuracy",
        higher_is_better=True,
        primary=True,
    ),
    Score(
        "balanced_accuracy",
        "classification",
        lambda tree: metrics.balanced_accuracy(tree)["balanced_accuracy"],
        PROBABILITY,
        "balanced accuracy",
        higher_is_better=True,
    ),
    Score(
        "auroc",
        "classification",
        lambda tree: metrics.roc_auc(tree)["roc_auc"],
        PROBABILITY,
        "AUROC",
        higher_is_better=True,
    ),
    Score("nll", "classification", lambda tree: metrics.class_nll(tree)["class_nll"], PROBABILITY, "NLL"),
    Score("brier", "classification", lambda tree: metrics.brier(tree)["brier"], PROBABILITY, "Brier"),
    Score("ece", "classification", lambda tree: metrics.class_calibration(tree)["class_ece"], PROBABILITY, "ECE"),
    Score(
        "entropy_ratio",
        "classification",
        lambda tree: metrics.entropy_ratio(tree, resamples=1)["entropy_ratio"],  # its interval is not kept
        PROBABILITY,
        "entropy ratio",
        higher_is_better=True,
    ),
)


def primary(kind: Kind) -> Score:
    """The score that a kind of target is judged by first."""
    return next(score for score in SCORES if score.kind == kind and score.primary)


def symbol(name: str) -> str:
    """A score's name in tables."""
    return next(score.symbol for score in SCORES if score.name == name)


def kinds_of(tree: xr.DataTree) -> dict[str, Kind]:
    """Target -> its kind, in the order in which targets were given."""
    constants = metrics.group_of(tree, "constant_data")
    kinds = dict(zip(constants["target"].values.tolist(), constants["kind"].values.tolist(), strict=True))
    return {name: kinds[name] for name in targets_of(tree)}


def computable(tree: xr.DataTree) -> list[Score]:
    """The scores of those kinds of targets that a tree has, as far as the tree has the groups they need."""
    kinds, groups = set(kinds_of(tree).values()), set(tree.children)
    return [
        score
        for score in SCORES
        if score.kind in kinds
        and set(score.groups) <= groups
        and (not score.one_of or not groups.isdisjoint(score.one_of))
    ]


def primary_scores(comparison: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """The primary score of each target of a comparison ``(method, split, task)``, and whether more is better ``(task)``."""
    names = xr.DataArray([primary(kind).name for kind in comparison["kind"].values], dims="task")
    picked = comparison["score"].sel(metric=names)
    return picked.drop_vars(["metric", "higher_is_better"]), picked["higher_is_better"].drop_vars("metric")
