"""Real labels under a normal-inverse-gamma that the head gives: one pass, two kinds of uncertainty."""

import math
from typing import Any, Literal, Self, get_args

from torch import Tensor

from bmtl.distributions import Censored, NormalInverseGamma, evidence_penalty, lipschitz_mse
from bmtl.distributions.evidence import Evidential as EvidentialDistribution
from bmtl.distributions.evidence import Threshold, check_threshold
from bmtl.labels import read_labels
from bmtl.models.likelihoods.base import Likelihood, Values, factor, finite_ends
from bmtl.models.likelihoods.location_scale import Bounds, check_bounds, takes_intervals
from bmtl.models.likelihoods.unknown import Noise
from bmtl.targets import Family
from bmtl.tasks import observe

Objective = Literal["nll", "nll+mse", "nll+lipschitz"]


class Evidential(Likelihood):
    """A `NormalInverseGamma` for each row, trained on up to two objectives, to be balanced by anything.

    * "nll": negative log-likelihood + ``regulariser * |e| (2 nu + alpha)``;
    * "mse": weight * squared error, plain or with a bounded slope (`lipschitz_mse`).

    The likelihood alone can lower its loss by raising the uncertainty instead of correcting the prediction; its slope in
    the prediction vanishes as nu goes to 0. The second objective goes on pulling. ENet is ``objective="nll"``, MSE-ENet
    ``"nll+mse"``, MT-ENet ``"nll+lipschitz"``. With balancer "ew" the step is that of equation 7, means over rows (over
    labelled rows with ``TaskELBO(normalize="task_mean")``).

    In evaluation mode it is its likelihood alone, without the penalty and the second objective: `bmtl.fit` validates in
    that mode, and so compares the epochs of all objectives by the same negative log-likelihood.

    How the predicted variance splits into aleatoric and epistemic is not decided by the data: see `NormalInverseGamma`.

    Args:
        noise: Has no effect: the head gives the noise.
        objective: What is trained, as above.
        threshold: Of "nll+lipschitz": where the squared error's slope stops growing; see `lipschitz_mse`.
        weight: Of the squared error (kappa).
        regulariser: Coefficient of the evidence penalty (c).
        min_scale: Lower bound on the Student-t's scale; see `NormalInverseGamma.from_raw`.
        nonnegative: Adds to each negative log-likelihood the constant that keeps it from falling below 0, for balancers
            that take logarithms or ratios of losses; needs `min_scale`, without which there is no such bound.
        tie: Ties ``alpha = nu + 1``, so that one output is the amount of evidence and the split is identified.
        censored: Whether labels are intervals ``(B, 2)``. Errors are then distances to the interval.
        bounds: Lower and upper bound at which labels stop (None on a side that is open), in the labels' unit; labels at or
            beyond a bound count with the probability beyond it, see `bmtl.distributions.Censored`.

    Raises:
        ValueError: If an option is unknown or out of range, or `nonnegative` has no `min_scale`.

    Source:
        Oh & Shin (2022), "Improving Evidential Deep Learning via Multi-Task Learning"; ties of this kind
        are Meinert & Lavin's (2021), "Multivariate Deep Evidential Regression". The prediction has its own layer, so
        that the second objective reaches that and the trunk only.
    """

    name = "evidential"
    has_unknowns = False
    families = ("real", "count")

    def __init__(
        self,
        noise: Noise = "parameter",
        *,
        objective: Objective = "nll+lipschitz",
        threshold: Threshold = "batch_min",
        weight: float = 1.0,
        regulariser: float = 1e-3,
        min_scale: float = 0.0,
        nonnegative: bool = False,
        tie: bool = False,
        censored: bool = False,
        bounds: Bounds | None = None,
    ) -> None:
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
        super().__init__(3 if tie else 4, noise)
        self.objectives = ("nll",) if objective == "nll" else ("nll", "mse")
        self.objective = objective
        self.threshold: Threshold = threshold if objective == "nll+lipschitz" else "inf"
        self.weight, self.regulariser, self.min_scale, self.tie = weight, regulariser, min_scale, tie
        self.penalised = regulariser > 0  # apart from the number, which differs between the networks of a `Bank`
        self.nonnegative = nonnegative
        self.censored = censored
        self.bounds = None if bounds is None else check_bounds(*bounds)

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        return cls(censored=takes_intervals(family), **options)

    @property
    def blocks(self) -> tuple[int, ...]:
        return (1, self.outputs - 1)

    @property
    def least_squares(self) -> bool:
        return not self.censored and self.bounds is None

    def start(self, y: Tensor) -> None:
        self._start_linear(finite_ends(y) if self.censored else y)

    def distribution(self, f: Tensor | tuple[Tensor, ...], values: Values) -> EvidentialDistribution:
        prediction, evidence = f if isinstance(f, tuple) else f.split(self.blocks, -1)
        if self.tie:  # one output for both: alpha - 1 and nu are the same function of theirs
            evidence = evidence[..., [0, 0, 1]]
        p = NormalInverseGamma.from_outputs(prediction.squeeze(-1), evidence, self.min_scale)
        gamma, beta = self.location + self.unit * p.gamma, self.unit.square() * p.beta
        p = NormalInverseGamma(gamma, p.nu, p.alpha, beta, excess=p.excess)
        if self.bounds is not None:
            return Censored(p, *self.bounds, intervals=self.censored)
        return Censored(p) if self.censored else p

    def observe(
        self, target: str, f: Tensor | tuple[Tensor, ...], values: Values, y: Tensor | None, objective: str
    ) -> None:
        p = self.distribution(f, values)
        if objective == "nll":
            observe(f"y_{target}", p, y)
        if y is None:
            return
        labels = read_labels(f"y_{target}", p, y)
        if objective == "nll" and self.training and self.penalised:
            penalty = evidence_penalty(y, p) / self.unit
            factor(f"{target}_evidence", self.regulariser * penalty, labels)
        if objective == "nll" and self.nonnegative:
            # A Student-t's density is below 1 / (scale sqrt(2 pi)); a censored label's probability is below 1.
            least = -math.log(self.min_scale) - 0.5 * math.log(2 * math.pi)
            factor(f"{target}_offset", (least - self.unit.log()).clamp_min(0.0).expand(p.batch_shape), labels)
        if objective == "mse" and self.training:
            loss = lipschitz_mse(y, p, self.threshold) / self.unit.square()
            factor(f"{target}_{self.objective.removeprefix('nll+')}", self.weight * loss, labels)
