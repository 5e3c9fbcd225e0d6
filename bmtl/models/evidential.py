"""Evidential regression with two objectives a target: Oh & Shin (2022) as a Pyro program."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from bmtl.distributions import Censored, NormalInverseGamma, evidence_penalty, lipschitz_mse
from bmtl.distributions.evidence import Evidential, Threshold, check_threshold
from bmtl.models.guides import PointMass
from bmtl.models.networks.mlp import linear
from bmtl.models.rows import data_by_target, rows_by_target
from bmtl.tasks import check_names, observe, task

Objective = Literal["nll", "nll+mse", "nll+lipschitz"]


class EvidentialRegression(nn.Module):
    """Regressions on a shared trunk whose heads give a `NormalInverseGamma` each: one pass, two kinds of uncertainty.

    A target t is trained on up to two objectives, which are tasks of their own, to be balanced by anything:

    * ``t/nll``: negative log-likelihood + regulariser * |e| (2 nu + alpha);
    * ``t/mse``: weight * squared error, plain or with a bounded slope (`lipschitz_mse`).

    The likelihood alone can lower its loss by raising the uncertainty instead of mending the prediction; its slope in
    the prediction vanishes as nu goes to 0. The second objective goes on pulling. ENet is ``objective="nll"``, MSE-ENet
    ``"nll+mse"``, MT-ENet ``"nll+lipschitz"``. With balancer "ew" the step is that of equation 7, means over rows (over
    labelled rows with ``TaskELBO(normalize="task_mean")``).

    In evaluation mode the program is its likelihood alone, without the penalty and the second objective: `bmtl.fit`
    validates in that mode, and so compares the epochs of all objectives by the same negative log-likelihood.

    How the predicted variance splits into aleatoric and epistemic is not decided by the data: see `NormalInverseGamma`.

    Args:
        trunk: Maps x to a representation ``(B, width)``, marked as shared.
        width: Width of the representation.
        targets: Names; labels should be standardised.
        n_data: Number of data, for all targets or by target: the size of each plate.
        objective: What is trained, as above.
        threshold: Of "nll+lipschitz": where the squared error's slope stops growing; see `lipschitz_mse`.
        weight: Of the squared error (kappa).
        regulariser: Coefficient of the evidence penalty (c).
        min_scale: Lower bound of the Student-t's scale; see `NormalInverseGamma.from_raw`.
        nonnegative: Adds to each negative log-likelihood the constant that keeps it from falling below 0, for balancers
            that take logarithms or ratios of losses; needs `min_scale`, without which there is no such bound.
        tie: Ties ``alpha = nu + 1``, so that one output says how much evidence there is and the split is identified.
        bounds: Lower and upper bound of the targets whose labels stop there (None on a side that is open), scaled as the
            labels are; labels at or beyond a bound are scored as censored, see `Censored`.
        generator: Draws the heads' initial weights; None uses torch's global generator.

    Raises:
        ValueError: If an option is unknown or out of range, `nonnegative` has no `min_scale`, `n_data` lacks a target or
            is below 1, or `bounds` names a target that there is not or are none.

    Source:
        Oh & Shin (2022), "Improving Evidential Deep Learning via Multi-Task Learning"; ties of this kind
        are Meinert & Lavin's (2021), "Multivariate Deep Evidential Regression". The prediction has a layer of its own, so
        that the second objective reaches that and the trunk only.
    """

    def __init__(
        self,
        trunk: Callable[..., Tensor],
        width: int,
        targets: Sequence[str],
        n_data: int | Mapping[str, int],
        *,
        objective: Objective = "nll+lipschitz",
        threshold: Threshold = "batch_min",
        weight: float = 1.0,
        regulariser: float = 1e-3,
        min_scale: float = 0.0,
        nonnegative: bool = False,
        tie: bool = False,
        bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.targets = check_names(tuple(targets))
        if objective not in get_args(Objective):
            raise ValueError(
                f"objective is one of {', '.join(map(repr, get_args(Objective)))}, and {objective!r} was given."
            )
        check_threshold(threshold)
        for option, value in (("weight", weight), ("regulariser", regulariser), ("min_scale", min_scale)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{option} is 0 or more and finite, and {value} was given.")
        if nonnegative and not min_scale:
            raise ValueError(
                "nonnegative=True needs a min_scale above 0: a density is bounded only where its scale is, and 0 was given."
            )
        unknown = sorted(set(bounds or {}) - set(self.targets))
        if unknown:
            raise ValueError(f"bounds names {unknown}, and the targets are {list(self.targets)}.")
        self.trunk = trunk
        self.n_data = data_by_target(self.targets, n_data)
        self.objective = objective
        self.threshold: Threshold = threshold if objective == "nll+lipschitz" else "inf"
        self.weight, self.regulariser, self.min_scale, self.tie = weight, regulariser, min_scale, tie
        self.penalised = regulariser > 0  # apart from the number, which differs between the networks of a `Bank`
        # A Student-t's density is below 1 / (scale sqrt(2 pi)); a censored label's probability is below 1.
        self.offset = max(-math.log(min_scale) - 0.5 * math.log(2 * math.pi), 0.0) if nonnegative else 0.0
        self.bounds = {name: _bounds(name, *pair) for name, pair in (bounds or {}).items()}
        # Module names must not hold a dot, target names may: keyed by position.
        self.predictions = nn.ModuleList([linear(width, 1, generator) for _ in self.targets])
        self.evidences = nn.ModuleList([linear(width, 2 if tie else 3, generator) for _ in self.targets])

    def guide(self) -> PointMass:
        """The guide: empty, since every parameter is a point mass already."""
        return PointMass({})

    def forward(self, x: Tensor | Mapping[str, Tensor], y: Mapping[str, Tensor] | None = None) -> None:
        """The program.

        Args:
            x: Inputs, ``(B, ...)`` for all targets, or each target's own.
            y: Labels ``(B,)`` by name, NaN where one is missing; None predicts.
        """
        for i, (name, h, plate, labels) in enumerate(rows_by_target(self.trunk, self.n_data, x, y)):
            p = self._distribution(i, name, h)
            learnt = labels if self.training else None  # what the terms beside the likelihood are of
            with plate:
                with task(f"{name}/nll"):
                    observe(f"y_{name}", p, labels)
                    if learnt is not None and self.penalised:
                        _factor(f"{name}_evidence", self.regulariser * evidence_penalty(learnt, p), learnt)
                    if labels is not None and self.offset:
                        _factor(f"{name}_offset", labels.new_full(labels.shape, self.offset), labels)
                if learnt is not None and self.objective != "nll":
                    with task(f"{name}/mse"):
                        _factor(f"{name}_{self._extra}", self.weight * lipschitz_mse(learnt, p, self.threshold), learnt)

    @property
    def _extra(self) -> str:
        return self.objective.removeprefix("nll+")

    def _distribution(self, i: int, name: str, h: Tensor) -> Evidential:
        evidence = self.evidences[i](h)
        if self.tie:  # one output for both: alpha - 1 and nu are the same function of theirs
            evidence = evidence[..., [0, 0, 1]]
        p = NormalInverseGamma.from_outputs(self.predictions[i](h).squeeze(-1), evidence, self.min_scale)
        if name not in self.bounds:
            return p
        return Censored(p, *self.bounds[name])


def _bounds(name: str, lower: float | None, upper: float | None) -> tuple[float, float]:
    """Bounds with infinity on an open side."""
    pair = (-math.inf if lower is None else lower, math.inf if upper is None else upper)
    if not pair[0] < pair[1] or pair == (-math.inf, math.inf):
        raise ValueError(f"bounds gives a lower and an upper bound, one of them at least; {name!r}: {(lower, upper)}.")
    return pair


def _factor(site: str, loss: Tensor, labels: Tensor) -> None:
    with poutine.mask(mask=~labels.isnan()):  # type: ignore[call-overload]
        pyro.factor(site, -loss)
