"""Where a multi-task Gaussian process starts: its ELBO has several optima."""

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from bmtl import inputs
from bmtl.inputs import PerTask

logger = logging.getLogger(__name__)

_FEWEST = 5  # rows with labels of both targets for their correlation to count
_LEAST_SHARE = 1e-2  # of a process's prior variance at the start, so that its coefficients move
_DISAGREE = 0.3  # standard deviations by which predictions differ before it is said
_ROWS = 256  # that starts are tried on


class Startable(Protocol):
    """A program with an ELBO that needs no Pyro."""

    def elbo(self, x: Any, y: Mapping[str, Tensor]) -> Tensor:
        """The evidence lower bound of a batch."""

    def means(self, x: Any) -> dict[str, Tensor]:
        """Predictive means by target."""

    def place(self, x: Any) -> None:
        """Puts what starts on rows of a batch there."""

    def parameters(self) -> Any:
        """What is trained."""


Start = TypeVar("Start", bound=Startable)


def related_coefficients(random: Tensor, labels: Sequence[Tensor]) -> Tensor:
    """Coefficients ``(T, Q)`` whose products are the labels' correlations; what those do not decide stays random."""
    known = torch.eye(len(labels), dtype=torch.float64)
    for s in range(len(labels)):
        for t in range(s):
            if labels[s].shape != labels[t].shape:
                continue
            both = ~(labels[s].isnan() | labels[t].isnan())
            if int(both.sum()) >= _FEWEST:
                pair = torch.stack([labels[s][both], labels[t][both]]).double()
                known[s, t] = known[t, s] = torch.corrcoef(pair)[0, 1].nan_to_num()
    values, vectors = torch.linalg.eigh(known)
    found = (vectors * values.clamp_min(_LEAST_SHARE).sqrt()).flip(-1).to(random)  # the largest first
    if random.shape[1] <= found.shape[1]:
        return found[:, : random.shape[1]].contiguous()
    rest = random[:, found.shape[1] :] * _LEAST_SHARE
    return torch.cat([found, rest], 1)


def best_start(
    makes: Mapping[str, Callable[[], Start]], x: Any, y: Mapping[str, Tensor], steps: int = 100, lr: float = 0.03
) -> Start:
    """Of several starts, the one with the highest ELBO after a few steps, as it was before them.

    The ELBO of a multi-task Gaussian process has several optima: those in which a task has its own process, and those
    in which it shares others'. Where labels are missing they predict differently; if they do so by more than 0.3 standard
    deviations, a warning is logged.

    Args:
        makes: By name, what makes a program; for a message if they disagree.
        x: Inputs of training rows; of many, a few hundred are taken.
        y: Their labels by target.
        steps: Of Adam on all rows, for each start.
        lr: Its learning rate.
    """
    x, y = _few(x, y)
    starts = {name: make() for name, make in makes.items()}
    if len(starts) == 1:
        return next(iter(starts.values()))
    tried = {name: copy.deepcopy(model) for name, model in starts.items()}
    reached = {name: _climb(model, x, y, steps, lr) for name, model in tried.items()}
    best = max(reached, key=reached.__getitem__)
    apart = {name: _distance(model, tried[best], x, y) for name, model in tried.items() if math.isfinite(reached[name])}
    if max(apart.values()) > _DISAGREE:
        logger.warning(
            "Starts of the Gaussian process disagree where labels are missing: predictions are apart from those of the best "
            "(%s) by %s standard deviations. ELBOs: %s.",
            best,
            {name: round(value, 2) for name, value in apart.items()},
            {name: round(value, 1) for name, value in reached.items()},
        )
    return starts[best]


@torch.no_grad()
def _distance(one: Startable, other: Startable, x: Any, y: Mapping[str, Tensor]) -> float:
    """Mean absolute difference of two programs' predictions where labels are missing, of the target with the largest.

    In standard deviations of the labels, or in the labels' unit where they are one or all alike.
    """
    found = [0.0]
    for (name, mean), theirs in zip(one.means(x).items(), other.means(x).values(), strict=True):
        missing = y[name].isnan()
        if missing.any():
            labels = y[name][~missing]
            spread = float(labels.std(correction=0)) if len(labels) and labels.min() < labels.max() else 1.0
            found.append(float((mean - theirs)[missing].abs().mean()) / spread)
    return max(found)


def _climb(model: Startable, x: Any, y: Mapping[str, Tensor], steps: int, lr: float) -> float:
    model.place(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -model.elbo(x, y)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        reached = float(model.elbo(x, y))
    return reached if math.isfinite(reached) else -math.inf


def _few(x: Any, y: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """At most so many rows, evenly over all."""

    def evenly(count: int) -> Tensor:
        return torch.linspace(0, count - 1, min(count, _ROWS)).long()

    if isinstance(x, PerTask):
        rows = {name: evenly(count) for name, count in x.counts().items()}
        taken = PerTask({name: inputs.take(part, rows[name]) for name, part in x.items()})
        return taken, {name: labels[rows[name].to(labels.device)] for name, labels in y.items()}
    at = evenly(inputs.count(x))
    return inputs.take(x, at), {name: labels[at.to(labels.device)] for name, labels in y.items()}
