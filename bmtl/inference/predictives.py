"""What is drawn, as plain arrays, and how one target's rows are gathered over chunks and draws."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

from bmtl.labels import check_targets

PREFIX = "y_"
"""A target's site is called by this and its name."""


@dataclass(frozen=True)
class Draws:
    """What was drawn, in the model's scaled units; S draws, N rows, by target.

    Attributes:
        posterior: Global latents by site, ``(S, ...)``; empty for a point-mass model.
        predictive: Draws of y, ``(S, N)``; class indices for a classification.
        mean: Mean of the predictive ``(N,)``; not of classifications.
        probability: Class probabilities of the predictive ``(N, C)``; of classifications only.
        distribution: ``loc``, ``scale`` and ``df`` of each draw's predictive, ``(S, N)``, where that is a Student t or,
            with infinite df, a normal: the predictive is their mixture. One row where there are no latents. A normal's df
            is one number seen ``(S, N)`` times, and cannot be written to.
        aleatoric: What stays uncertain if the draw is known, ``(N,)``: the mean variance of the draws' predictives; for a
            classification their mean entropy, in nats.
        epistemic: The rest, ``(N,)``: the variance of the draws' means (with what a distribution holds to be epistemic
            itself); for a classification the mutual information, in nats.
        log_likelihood: Log density of the labels ``(S, N)``, one row where there are no latents; NaN where a label is
            missing.
        pit: Predictive cdf at the labels ``(N,)``, averaged over the draws; NaN where a label is missing. Continuous targets
            only; where the distribution has no cdf, the share of draws below the label.
        log_p: Log joint density of each draw's latents and all labels, ``(S,)``; None without latents or labels.
        log_q: Log density of the guide at each draw, ``(S,)``; None as `log_p`.
    """

    posterior: dict[str, np.ndarray] = field(default_factory=dict)
    predictive: dict[str, np.ndarray] = field(default_factory=dict)
    mean: dict[str, np.ndarray] = field(default_factory=dict)
    probability: dict[str, np.ndarray] = field(default_factory=dict)
    distribution: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    aleatoric: dict[str, np.ndarray] = field(default_factory=dict)
    epistemic: dict[str, np.ndarray] = field(default_factory=dict)
    log_likelihood: dict[str, np.ndarray] = field(default_factory=dict)
    pit: dict[str, np.ndarray] = field(default_factory=dict)
    log_p: np.ndarray | None = None
    log_q: np.ndarray | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """What was predicted."""
        return tuple(self.predictive)


def merge_targets(parts: Sequence[Draws]) -> Draws:
    """Draws of different targets as one; densities of all latents together are left out."""
    by_target = [f.name for f in fields(Draws) if f.name not in ("log_p", "log_q")]
    joined: dict[str, Any] = {
        name: {k: v for part in parts for k, v in getattr(part, name).items()} for name in by_target
    }
    return Draws(**joined)


def mixture(members: Sequence[Draws]) -> Draws:
    """The equal mixture of several fitted models' predictives for the same rows: a deep ensemble.

    Args:
        members: One or more, with the same targets and numbers of draws.

    Raises:
        ValueError: If there is no member, or their targets differ.
    """
    if not members or any(member.targets != members[0].targets for member in members):
        raise ValueError(f"An ensemble's members predict the same targets; got {[m.targets for m in members]}.")
    if len(members) == 1:
        return members[0]

    def joined(name: str) -> dict[str, np.ndarray]:
        return {t: np.concatenate([getattr(m, name)[t] for m in members]) for t in getattr(members[0], name)}

    def averaged(name: str) -> dict[str, np.ndarray]:
        return {t: np.mean([getattr(m, name)[t] for m in members], axis=0) for t in getattr(members[0], name)}

    probability, aleatoric = averaged("probability"), averaged("aleatoric")
    epistemic = {}
    for target, within in averaged("epistemic").items():
        if target in probability:
            epistemic[target] = np.maximum(entropy(probability[target]) - aleatoric[target], 0.0)
        else:
            epistemic[target] = within + np.var([member.mean[target] for member in members], axis=0)
    return Draws(
        predictive=joined("predictive"),
        mean=averaged("mean"),
        probability=probability,
        distribution={
            target: {name: np.concatenate([m.distribution[target][name] for m in members]) for name in parameters}
            for target, parameters in members[0].distribution.items()
        },
        aleatoric=aleatoric,
        epistemic=epistemic,
        log_likelihood=joined("log_likelihood"),
        pit=averaged("pit"),
    )


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy in nats over the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(probability > 0, probability * np.log(probability), 0.0).sum(axis=-1)


class TargetAccumulator:
    """Gathers one target's rows over chunks and passes; a chunk is known by its first row.

    What is as large as the draws is written to its place at once, in the precision of the model, and handed out once only
    (`draws`, `densities`, `components`): a second copy of it would double the memory that drawing takes.

    Args:
        name: The target.
        labels: ``(N,)``, or None.
        passes: How often all rows are seen, each time under other latents.
        samples: Draws of y in each pass.
    """

    def __init__(self, name: str, labels: Tensor | None, passes: int, samples: int) -> None:
        self.name = name
        self.labels = labels
        self.passes = passes
        self.samples = samples
        self.classes = False
        self.turn = 0  # which pass this is
        self.row = 0  # where it stands
        self.sampled: dict[int, np.ndarray] = {}
        self.first: dict[int, np.ndarray] = {}  # the first pass's means: sums are of differences to them
        self.shift: dict[int, np.ndarray] = {}
        self.square: dict[int, np.ndarray] = {}
        self.spread: dict[int, np.ndarray] = {}
        self.within: dict[int, np.ndarray] = {}
        self.parameters: dict[str, dict[int, np.ndarray]] = {}
        self.density: dict[int, np.ndarray] = {}
        self.pit: dict[int, np.ndarray] = {}

    def add(self, fn: Any, value: Tensor) -> float:
        """Adds the next chunk of a pass, its distribution and a draw of it; returns the log density of its labels."""
        if not value.dim():
            raise ValueError(f"The model predicts one number for {self.name!r}, and one a row is expected.")
        start, self.row = self.row, self.row + len(value)
        drawn = value[None] if self.samples == 1 else fn.sample((self.samples,))
        self._keep(self.sampled, start, drawn)
        self._moments(start, fn, value, drawn)
        if self.labels is None:
            return 0.0
        label = self.labels[start : self.row]
        self._check(fn, value, label)
        missing = label.isnan() if label.is_floating_point() else label == -1
        # A missing label is replaced by a draw, which lies in the support, and its density left out.
        filled = torch.where(missing, value.to(label.dtype), label)
        if not filled.is_floating_point():
            filled = filled.to(value.dtype)  # torch's Bernoulli takes floats only
        try:
            density = fn.log_prob(filled)
        except ValueError as error:
            raise ValueError(f"At site {PREFIX + self.name!r}: {error}") from error
        if missing.dim() > density.dim():  # one missing entry leaves its whole event out
            missing = missing.flatten(density.dim()).any(-1)
        density = density.to(torch.promote_types(density.dtype, torch.float32))  # a half is too coarse
        self._keep(self.density, start, density.masked_fill(missing, torch.nan)[None])
        if not fn.support.is_discrete and not fn.event_shape:
            try:
                below = fn.cdf(filled).double()
            except NotImplementedError:
                below = (drawn <= filled).sum(0).double() / self.samples
            self.pit[start] = self.pit.get(start, 0.0) + to_numpy(below.masked_fill(missing, torch.nan))
        return float(density.masked_fill(missing, 0.0).sum(dtype=torch.float64))

    def end_pass(self) -> None:
        """Goes back to the first row."""
        if self.labels is not None and len(self.labels) != self.row:
            raise ValueError(f"{len(self.labels)} labels were given for {self.name!r}, and it has {self.row} rows.")
        self.row = 0
        self.turn += 1

    def draws(self) -> np.ndarray:
        return _taken(self.sampled)

    def densities(self) -> np.ndarray:
        return _taken(self.density)

    def means(self) -> np.ndarray:
        return np.concatenate([self.first[start] + self.shift[start] / self.passes for start in self.first])

    def pits(self) -> np.ndarray:
        return np.clip(np.concatenate(list(self.pit.values())) / self.passes, 0.0, 1.0)

    def aleatoric(self) -> np.ndarray:
        return np.concatenate(list(self.spread.values())) / self.passes

    def epistemic(self) -> np.ndarray:
        if self.classes:
            return np.maximum(entropy(self.means()) - self.aleatoric(), 0.0)
        n = self.passes
        between = [self.square[start] / n - np.square(self.shift[start] / n) for start in self.first]
        within = [self.within[start] / n for start in self.first]
        return np.maximum(np.concatenate(between), 0.0) + np.concatenate(within)

    def components(self) -> dict[str, np.ndarray]:
        found = {name: _taken(parts) for name, parts in self.parameters.items()}
        loc = found["loc"]
        return {**found, "df": found.get("df", np.broadcast_to(np.full((), np.inf, loc.dtype), loc.shape))}

    def _keep(self, parts: dict[int, np.ndarray], start: int, values: Tensor) -> None:
        """Writes this pass's values ``(samples, B)`` of the chunk at `start` to their rows."""
        array = to_numpy(values)
        if self.passes == 1:
            parts[start] = array
            return
        if start not in parts:
            parts[start] = np.empty((self.passes * len(array), *array.shape[1:]), array.dtype)
        parts[start][self.turn * len(array) : (self.turn + 1) * len(array)] = array

    def _moments(self, start: int, fn: Any, value: Tensor, drawn: Tensor) -> None:
        centre, spread, within = _split(fn, drawn)
        self.classes = isinstance(fn, Categorical | Bernoulli)
        mean = to_numpy(centre.expand(*value.shape, *centre.shape[value.dim() :]).double())
        shift = mean - self.first.setdefault(start, mean)
        self.shift[start] = self.shift.get(start, 0.0) + shift
        self.square[start] = self.square.get(start, 0.0) + np.square(shift)
        if spread is not None:
            self.spread[start] = self.spread.get(start, 0.0) + to_numpy(spread.expand(value.shape).double())
            self.within[start] = self.within.get(start, 0.0) + to_numpy(within.expand(value.shape).double())
        parameters = _location_scale(fn)
        if parameters is not None:
            for name, tensor in parameters.items():
                own = tensor.expand(value.shape)[None].clone()  # and not a parameter of the model, which may go on
                self._keep(self.parameters.setdefault(name, {}), start, own)

    def _check(self, fn: Any, value: Tensor, label: Tensor) -> None:
        if label.shape != value.shape:
            raise ValueError(
                f"Labels of {self.name!r} have shape {tuple(label.shape)} where the model predicts {tuple(value.shape)}. "
                "Give one entry per row."
            )
        categorical = isinstance(fn, Categorical)
        check_targets(PREFIX + self.name, value.shape, label, discrete=fn.support.is_discrete, categorical=categorical)


def _split(fn: Any, drawn: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Mean (probabilities), aleatoric and epistemic part of one draw's distribution; None where it has no variance."""
    if isinstance(fn, Categorical):
        return fn.probs, fn.entropy(), fn.probs.new_zeros(())
    if isinstance(fn, Bernoulli):
        return torch.stack([1 - fn.probs, fn.probs], -1), fn.entropy(), fn.probs.new_zeros(())
    try:
        mean = fn.mean
    except NotImplementedError:
        mean = drawn.to(torch.get_default_dtype()).mean(0)
    if fn.event_shape:
        return mean, None, mean.new_zeros(())
    if hasattr(fn, "aleatoric"):
        return mean, fn.aleatoric, fn.epistemic
    try:
        return mean, fn.variance, mean.new_zeros(())
    except NotImplementedError:
        return mean, None, mean.new_zeros(())


def _location_scale(fn: Any) -> dict[str, Tensor] | None:
    """Location and scale of a normal, with the degrees of freedom of a Student t; None for anything else."""
    if fn.event_shape:
        return None
    if isinstance(fn, Normal):
        return {"loc": fn.loc, "scale": fn.scale}
    if all(hasattr(fn, name) for name in ("loc", "scale", "df")):
        return {"loc": fn.loc, "scale": fn.scale, "df": fn.df}
    return None


def _taken(parts: dict[int, np.ndarray]) -> np.ndarray:
    """Arrays ``(S, B, ...)`` of the chunks as one ``(S, N, ...)``; each chunk is forgotten when it has been copied."""
    if len(parts) == 1:
        return parts.popitem()[1]
    first = next(iter(parts.values()))
    rows = sum(part.shape[1] for part in parts.values())
    whole = np.empty((len(first), rows, *first.shape[2:]), first.dtype)
    for start in sorted(parts):
        part = parts.pop(start)
        whole[:, start : start + part.shape[1]] = part
    return whole


def to_numpy(value: Tensor) -> np.ndarray:
    """A tensor as an array on the host."""
    return value.detach().cpu().numpy()
