"""Recalibration of a results tree, each target separately, fitted on its ``validation`` rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from bmtl.evaluation.attributes import decode_attributes, encode_attributes
from bmtl.evaluation.calibration_maps import (
    IsotonicPredictive,
    PitMap,
    Scalable,
    fit_scale,
    fit_temperature,
    label_log_prob,
    tempered,
)
from bmtl.evaluation.conformal import by_target
from bmtl.evaluation.groups import GROUPS, PredictedRows, part_groups
from bmtl.evaluation.images import images_of
from bmtl.evaluation.parts import PART, SUBTREES, PartReader, reported_targets, scored
from bmtl.targets.laws import ContinuousMixture, EmpiricalPredictive, Predictive
from bmtl.targets.prediction import Prediction
from bmtl.targets.score import Scored

Method = Literal["temperature", "isotonic"]
DRAWS = 100  # a row, where a predictive is represented by its draws from now on and the tree had none


class Map(Protocol):
    """The change that recalibration makes to a target's predictive."""

    @property
    def factor(self) -> float | None:
        """The one number that it is, if it is one: a factor on scales, or a temperature."""
        ...

    def __call__(self, rows: Scored, draws: int, random: np.random.Generator) -> Prediction:
        """The prediction of labelled rows, recalibrated, with so many draws where its predictive is known by them."""
        ...


def recalibrate(
    tree: xr.DataTree,
    *,
    method: Method = "temperature",
    move_mean: bool = False,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> xr.DataTree:
    """A tree whose predictives are recalibrated, fitted on the labels of ``validation``; the given one is left unchanged.

    * ``"temperature"``, real targets and times: one factor per target on the scales of all components, by maximum
      likelihood. The predictive keeps its kind, its locations and its mean.
    * ``"temperature"``, classes: ``p^(1/T)``, normalised, with the most probable T under a log-normal prior around 1, so
      that few rows cannot make all classes equally probable, or one certain.
    * ``"isotonic"``, real targets and times: the predictive cdf goes through the ECDF of the validation PIT values. That is
      no longer a law: the predictive is represented by its draws (100 per row, if the tree had none). The predictive mean
      stays unchanged: that of the new predictive depends on the few validation rows in its tails. Classes stay unchanged.

    Targets are independent: one that cannot be recalibrated (no labelled validation row, no distribution, a likelihood
    without a maximum, a kind that has no such map, as counts) stays unchanged, and the root attribute
    ``recalibration_left_out`` says why.

    ``validation`` and ``ood`` are recalibrated alike, so that doing it again changes (next to) nothing. Draws of
    ``posterior_predictive`` are redrawn, each row separately. Left out are the training rows, whose densities belong to
    the posterior, and unlabelled ones, whose distribution no tree holds; ``log_likelihood`` of a target that has not a
    component a draw; ``uncertainty`` of a target whose parts are not defined any more (all but a law's temperature); and
    of a recalibrated target of images its scores of all pixels and its pictures: it is scored on the pixels that are kept.

    Args:
        tree: A run's results tree with validation rows.
        method: As above.
        move_mean: Under ``"isotonic"``, give the mean of the recalibrated predictive.
        targets: Recalibrate these only, and leave the others out; all by default.
        seed: Seed of the new draws.

    Returns:
        A tree of the same schema. Its root attributes ``recalibration``, ``recalibration_factors`` (target -> factor
        or temperature; under ``"isotonic"`` empty) and ``recalibration_left_out`` (target -> reason) say what was done.

    Raises:
        ValueError: If the method is unknown, there are no validation rows at all, or no target can be recalibrated.
    """
    if method not in ("temperature", "isotonic"):
        raise ValueError(f"There is no recalibration {method!r}; expected 'temperature' or 'isotonic'.")
    known = reported_targets(tree)
    kept = [name for name in known if targets is None or name in targets]
    test = scored(tree)

    def fit(validation: Scored, rows: Scored) -> Map:
        for field in ("law", "probability"):
            if validation.prediction.has(field) != rows.prediction.has(field):
                raise ValueError(f"validation and test rows differ in whether the tree holds a {field} of it")
        return _fit(validation, method, move_mean)

    concerned = [name for name in kept if name in test and len(test[name].labels)]
    if method == "isotonic":
        concerned = [name for name in concerned if not test[name].prediction.has("probability")]
    maps, left_out = by_target(tree, concerned, fit)
    random = np.random.default_rng(seed)
    groups: dict[str, xr.Dataset] = {
        str(name): node.to_dataset(inherit=False)
        for name, node in tree.children.items()
        if name not in (*GROUPS, *SUBTREES) and not str(name).startswith("predictions")
    }
    for part in SUBTREES:
        if part in tree.children:
            reader, rows = PartReader(tree, part), scored(tree, part)
            draws = max((len(of.prediction.draws) for of in rows.values()), default=0) or DRAWS
            images = images_of(tree.children[part])
            made = {}
            for name in (name for name in kept if name in rows):
                of, numbers = rows[name], reader.numbers(name)
                if name in maps and len(of.labels):
                    made[name] = PredictedRows(maps[name](of, draws, random), of.labels, numbers)
                else:
                    made[name] = PredictedRows(of.prediction, of.labels, numbers, of.whole, images.get(name))
            for group, dataset in part_groups(part, made, known, _chains(tree.children[part])).items():
                groups[f"{part}/{group}"] = dataset
    renewed = xr.DataTree.from_dict(groups)
    for part in SUBTREES:
        if part in renewed.children:
            renewed.children[part].attrs[PART] = part
    factors = {name: fitted.factor for name, fitted in maps.items() if fitted.factor is not None}
    renewed.attrs = encode_attributes(
        {
            **decode_attributes(tree),
            "recalibration": method,
            "recalibration_factors": factors,
            "recalibration_left_out": left_out,
        }
    )
    return renewed


def _fit(validation: Scored, method: Method, move_mean: bool) -> Map:
    """The recalibration of a target's predictive.

    Raises:
        ValueError: If nothing can be fitted; says why.
    """
    if validation.prediction.probability is not None:
        return Tempering(fit_temperature(validation.prediction.probability, validation.labels))
    if not validation.prediction.has("predictive"):
        raise ValueError("the tree holds neither a law nor draws of it")
    predictive = validation.predictive()
    if method == "temperature":
        if not isinstance(predictive, Scalable):
            raise ValueError("its predictive has no scale; leave it, or use method='isotonic' where it is continuous")
        return Scaling(fit_scale(predictive, validation.family.for_likelihood(validation.labels)))
    if not isinstance(predictive, ContinuousMixture | EmpiricalPredictive):
        raise ValueError("its predictive is not continuous, and an isotonic map needs a continuous one")
    pit = validation.pit()
    if pit is None:
        raise ValueError("the tree does not hold its predictive cdf at the labels")
    return IsotonicMap(PitMap.fitted(pit), move_mean)


@dataclass(frozen=True)
class Scaling:
    """A factor on the scales of a law's components."""

    factor: float

    def __call__(self, rows: Scored, draws: int, random: np.random.Generator) -> Prediction:
        before, law = rows.predictive(), rows.prediction.law
        assert isinstance(before, Scalable)
        assert law is not None
        after = before.scaled(self.factor)
        old = rows.prediction
        parts: dict[str, np.ndarray | None] = {"aleatoric": None, "epistemic": None}
        if old.aleatoric is not None and old.epistemic is not None:
            # What an evidential component holds to be epistemic itself is scaled with it; means of components stay.
            inside = np.maximum(old.epistemic - before.between(), 0)
            with np.errstate(invalid="ignore"):
                wider = after.within() / before.within()
            wider = np.where(np.isfinite(wider), wider, self.factor**2)
            parts = {"aleatoric": wider * old.aleatoric, "epistemic": wider * inside + after.between()}
        densities = None
        if old.log_likelihood is not None and len(old.log_likelihood) == after.components and rows.labels.ndim == 1:
            densities = after.component_log_prob(rows.labels)
        return replace(
            old,
            draws=after.sample(len(old.draws), random),
            law=law._replace(parameters=after.parameters),
            log_likelihood=densities,
            pit=None if old.pit is None else after.cdf(rows.labels),
            **parts,
        )


@dataclass(frozen=True)
class Tempering:
    """A temperature of class probabilities."""

    factor: float

    def __call__(self, rows: Scored, draws: int, random: np.random.Generator) -> Prediction:
        old, y = rows.prediction, rows.labels
        assert old.probability is not None
        before, after = old.probability, tempered(old.probability, self.factor)
        densities = old.log_likelihood
        if densities is not None:  # the mean over draws becomes the new probability of the label
            at = np.arange(y.size)
            had, has = before[at, y], after[at, y]
            densities = np.where(had > 0, densities + np.log(has / np.where(had > 0, had, 1)), np.log(has))
        below = after.cumsum(axis=1)
        uniform = random.uniform(size=(len(old.draws), y.size, 1))
        return replace(
            old,
            draws=(uniform > below[:, :-1]).sum(axis=-1).astype(old.draws.dtype),
            probability=after,
            log_likelihood=densities,
            aleatoric=None,
            epistemic=None,
        )


@dataclass(frozen=True)
class IsotonicMap:
    """A map of the predictive cdf."""

    pit_map: PitMap
    move_mean: bool

    @property
    def factor(self) -> float | None:
        """It is not a number."""
        return None

    def __call__(self, rows: Scored, draws: int, random: np.random.Generator) -> Prediction:
        before, old = rows.predictive(), rows.prediction
        after: IsotonicPredictive | EmpiricalPredictive
        if isinstance(before, EmpiricalPredictive):  # as many draws, at equal steps of the recalibrated cdf
            steps = (np.arange(len(before.draws)) + 0.5) / len(before.draws)
            after = EmpiricalPredictive(before.quantile(self.pit_map.inverse(steps)[:, None]))
        else:
            assert isinstance(before, ContinuousMixture)
            after = IsotonicPredictive(before, self.pit_map)
        return replace(
            old,
            draws=after.sample(draws, random),
            mean=after.mean() if self.move_mean else old.mean,
            law=None,
            aleatoric=None,
            epistemic=None,
            log_likelihood=self._densities(rows, before, after),
            pit=None if old.pit is None else self.pit_map(old.pit),
        )

    def _densities(
        self, rows: Scored, before: Predictive, after: IsotonicPredictive | EmpiricalPredictive
    ) -> np.ndarray | None:
        """Log densities of the labels under each draw; None where the recalibrated predictive does not give them."""
        old, labels = rows.prediction, rows.family.for_likelihood(rows.labels)
        # A factor on the mixture's density, or on the probability of an interval, is one on each draw's.
        if old.log_likelihood is None or (labels.ndim == 1 and old.pit is None):
            return None
        if labels.ndim == 1:
            assert old.pit is not None
            return np.asarray(old.log_likelihood + self.pit_map.log_slope(old.pit))
        if not isinstance(before, ContinuousMixture) or not isinstance(after, IsotonicPredictive):
            return None
        had, has = (
            logsumexp(old.log_likelihood, axis=0) - np.log(len(old.log_likelihood)),
            label_log_prob(after, labels),
        )
        known = np.isfinite(had)
        return np.where(known, old.log_likelihood + has - np.where(known, had, 0), has)


def _chains(part: xr.DataTree) -> int:
    """Number of chains of a part's draws."""
    for node in part.children.values():
        if "chain" in node.sizes:
            return int(node.sizes["chain"])
    return 1
