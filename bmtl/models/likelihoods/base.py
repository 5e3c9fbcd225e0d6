"""The distribution of a label, given the output of a head for its row."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bmtl.labels import Labels, read_labels
from bmtl.models.guides import Latent
from bmtl.models.likelihoods.unknown import Noise, Unknown, check_noise
from bmtl.models.linear_fits import WIDEST, logistic, ridge
from bmtl.targets import Family
from bmtl.tasks import observe

Values = Mapping[str, Tensor]
"""Unknowns by name: numbers and tensors, or ``(S, 1, ...)`` under S vectorised particles."""

_LEAST_UNIT = 1e-3  # of a unit of errors, in standard deviations of the labels
_STANDARDISED = 1e-3  # how far labels may be from mean 0 and standard deviation 1 to be left unchanged


class Likelihood(nn.Module):
    """The distribution of one target's label, given a head's output f ``(..., B, outputs)`` and its own unknowns.

    One file a likelihood. A subclass sets the class attributes and `outputs`, hands its unknowns to ``__init__``, and
    defines `distribution`; and `deviance` where it can be trained before its noise is known.

    Attributes:
        name: Its key in `LIKELIHOODS`.
        families: Names of the families of targets to which it applies.
        outputs: Width that the head must give.
        has_unknowns: Whether it has unknowns, and so takes a ``noise_prior``.
        objectives: What it is trained on; each is its own task, the first one the likelihood proper.
        from_head: The unknown that the head gives for each row under a heteroscedastic noise; empty where it cannot.

    Args:
        outputs: See above.
        noise: How its unknowns enter: "fixed" trains on half the unit deviance, which is 0 at best, and the unknowns are
            set or calibrated afterwards; "parameter" learns them; "latent" gives them a prior inside the target's task;
            "heteroscedastic" makes `from_head` the last output of the head, and learns the others.
        unknowns: Its unknowns by name; a site is called ``<name>_<target>``.

    Raises:
        ValueError: If `noise` is unknown, or heteroscedastic where there is no such unknown.
    """

    name: ClassVar[str]
    families: ClassVar[tuple[str, ...]]
    has_unknowns: ClassVar[bool] = True
    objectives: tuple[str, ...] = ("nll",)
    from_head: ClassVar[str] = ""
    outputs: int
    location: Tensor
    unit: Tensor

    def __init__(self, outputs: int, noise: Noise = "parameter", unknowns: Mapping[str, Unknown] | None = None) -> None:
        super().__init__()
        check_noise(noise)
        kept = dict(unknowns or {})
        if noise == "heteroscedastic":
            if self.from_head not in kept:
                raise ValueError(
                    f"The likelihood {self.name!r} has no noise that a head can give; noise is 'fixed', 'parameter' or "
                    "'latent' for it."
                )
            del kept[self.from_head]
            outputs += 1
        self.outputs, self.noise = outputs, noise
        self.unknowns = nn.ModuleDict(kept)
        self.location = nn.Buffer(torch.zeros(()))
        self.unit = nn.Buffer(torch.ones(()))

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        """The likelihood for targets of a family; `options` are those of the class."""
        return cls(**options)

    @property
    def tempered(self) -> bool:
        """Whether it trains on a power of its density."""
        return False

    # ---- Before training -----------------------------------------------------------------------------------------

    @property
    def blocks(self) -> tuple[int, ...]:
        """Widths of the parts of a head whose weights are apart, so that a loss may reach one and not another."""
        return (self.outputs,)

    @property
    def classes(self) -> int:
        """Number of classes of its labels, 0 where they are none."""
        return 0

    def start(self, y: Tensor) -> None:
        """Chooses where training starts, from training labels: what f = 0 means, and a step of 1 in f.

        Without it f is on the scale of standardised labels. Nothing by default.

        Args:
            y: Training labels as the model sees them, ``(N, ...)``.
        """

    outputs_are_logits: ClassVar[bool] = False
    """Whether its outputs are logits of classes, to which a logistic regression may be fitted."""

    @property
    def least_squares(self) -> bool:
        """Whether its first output is a location of exact real labels, to which least squares may be fitted."""
        return False

    @property
    def linear_outputs(self) -> int:
        """How many of its first outputs `start_linear` has a function of; 0 for none."""
        return 1 if self.least_squares else self.outputs if self.outputs_are_logits else 0

    def start_linear(self, x: Tensor, y: Tensor, common: Tensor | None = None) -> Tensor | None:
        """Fits a linear function of the inputs to training labels, which the network's output is then added to.

        Where it fits by least squares, a step of 1 in f becomes a standard deviation of what is left.

        Args:
            x: Features ``(N, D)`` of training rows, float64.
            y: Their labels, as the model sees them.
            common: Coefficients ``(D + 1,)`` of a function that labels have in common with other targets', to be added.

        Returns:
            Coefficients ``(linear_outputs, D + 1)``, the intercept last, on the scale of f; None where the likelihood has
            no such function, or there are too few labels.
        """
        if self.least_squares:
            return self._start_ridge(x, y.double().cpu(), common)
        return self._start_logits(x, y.cpu()) if self.outputs_are_logits else None

    def latents(self, target: str) -> dict[str, Latent]:
        """The latents of a target by site, as `TaskModel` needs them for its guide."""
        found = {f"{name}_{target}": unknown.latent() for name, unknown in self._unknowns()}
        return {site: latent for site, latent in found.items() if latent is not None}

    def targets(self, name: str) -> tuple[str, ...]:
        """The targets whose labels it takes; `name` is what the program calls it."""
        return (name,)

    def gather(self, name: str, y: Mapping[str, Tensor]) -> Tensor:
        """Its labels from those of a batch."""
        return y[name]

    @property
    def statement(self) -> tuple[Any, ...] | None:
        """What likelihoods must have in common to be one statement of stacked labels; None of one that must be alone.

        One statement have likelihoods of a class with one objective, one block of outputs, unknowns that are alike, and
        equal options.
        """
        alone = len(self.objectives) > 1 or len(self.blocks) > 1 or type(self).observe is not Likelihood.observe
        unknowns = self._unknowns()
        others = set(self._buffers) - {"location", "unit"} or self._parameters or set(self._modules) - {"unknowns"}
        if alone or others or self.location.dim() or any(type(unknown) is not Unknown for _, unknown in unknowns):
            return None
        options = {name: value for name, value in vars(self).items() if name != "training" and name[0] != "_"}
        return (type(self), repr(sorted(options.items())), *((name, *unknown.options) for name, unknown in unknowns))

    # ---- The program ---------------------------------------------------------------------------------------------

    def sample(self, target: str) -> dict[str, Tensor]:
        """The unknowns' values: the statement inside the target's task and outside of its plate."""
        return {name: unknown(f"{name}_{target}") for name, unknown in self._unknowns()}

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        """The distribution of labels, batch shape ``(..., B)``.

        Args:
            f: ``(..., B, outputs)``.
            values: Of the unknowns.
        """
        raise NotImplementedError

    def deviance(self, f: Tensor, y: Tensor) -> Tensor:
        """Half the unit deviance of labels, ``(..., B)``, at least 0.

        The log density where a label meets its prediction, less that at f, with the unknowns at their start.

        Args:
            f: ``(..., B, outputs)``.
            y: Labels without missing ones.
        """
        raise NotImplementedError

    def observe(self, target: str, f: Tensor, values: Values, y: Tensor | None, objective: str) -> None:
        """The statement inside the objective's task and the target's plate; the label's site is ``y_<target>``.

        Args:
            target: The target.
            f: ``(..., B, outputs)``.
            values: Of the unknowns.
            y: Labels, or None for prediction, which observes nothing.
            objective: One of `objectives`.

        Raises:
            TypeError: As `bmtl.observe`.
            ValueError: As `bmtl.observe`.
        """
        self.observe_at(f"y_{target}", f, values, y)

    def observe_at(self, site: str, f: Tensor, values: Values, y: Tensor | None) -> None:
        """The statement of the labels alone, at a site of any name; see `observe`."""
        p = self.distribution(f, values)
        if y is None or not self.trains_on_loss:
            observe(site, p, y)
            return
        labels = read_labels(site, p, y)
        factor(site, self.training_loss(site, f, values, labels.value), labels)

    @property
    def integrates(self) -> bool:
        """Whether `expected_log_density` and `integrated` have a closed form, for f that is normal and not a number."""
        return False

    def expected_log_density(self, mean: Tensor, variance: Tensor, values: Values, y: Tensor) -> Tensor:
        """``E log p(y | f)`` over ``f ~ Normal(mean, variance)``, ``(..., B)``; of half the deviance, where that is trained.

        Args:
            mean: ``(..., B)``.
            variance: ``(..., B)``.
            values: Of the unknowns.
            y: Labels without missing ones.
        """
        raise NotImplementedError

    def integrated(self, mean: Tensor, variance: Tensor, values: Values) -> TorchDistribution:
        """The distribution of labels with ``f ~ Normal(mean, variance)`` integrated out."""
        raise NotImplementedError

    @property
    def trains_on_loss(self) -> bool:
        """Whether it is trained on something else than its density: see `training_loss`."""
        return self.trains_on_deviance

    def training_loss(self, site: str, f: Tensor, values: Values, y: Tensor) -> Tensor:
        """The objective that replaces the negative log density in training, ``(..., B)``.

        Half the unit deviance: without the density's constant, which balancers that take logarithms or ratios of losses
        would see.

        Args:
            site: For messages.
            f: ``(..., B, outputs)``.
            values: Of the unknowns.
            y: Labels without missing ones.
        """
        return self.deviance(f, y)

    @property
    def trains_on_deviance(self) -> bool:
        """Whether it is trained on half the unit deviance instead of its density."""
        return self.noise == "fixed" and type(self).deviance is not Likelihood.deviance

    def labelled(self, y: Tensor) -> Tensor:
        """Which rows have a label, ``(B,)``."""
        missing = y.isnan() if y.is_floating_point() else y == -1
        return ~(missing.flatten(1).any(1) if y.dim() > 1 else missing)

    # ---- After training ------------------------------------------------------------------------------------------

    @property
    def needs_calibration(self) -> bool:
        """Whether something that predictions need was fixed in training."""
        return self.trains_on_deviance and len(self.unknowns) > 0

    def calibrate(self, f: Tensor, y: Tensor) -> None:
        """Fits what was fixed in training to rows that were not trained on.

        To the maximum of the posterior under the unknowns' priors: without those, a few rows may lead a dispersion or a
        number of degrees of freedom away without end.

        Args:
            f: ``(N, outputs)``.
            y: Labels ``(N, ...)``; rows without one are left out.
        """
        if not self.needs_calibration:
            return
        with torch.no_grad():
            labels = read_labels(f"y_{self.name}", self.distribution(f, self._current()), y)
        if not labels.labelled.any():
            return
        wide = f.detach().double()
        free = {name: unknown.value.double().clone().requires_grad_() for name, unknown in self._unknowns()}

        def loss() -> Tensor:
            p = read_labels(f"y_{self.name}", self.distribution(wide, free), _wide(y))
            total = torch.where(p.labelled, p.fn.log_prob(p.value), 0.0).sum()
            for name, unknown in self._unknowns():
                total = total + unknown.log_prior(free[name])
            return -total / p.labelled.sum()

        minimise(loss, list(free.values()))
        for name, unknown in self._unknowns():
            unknown.set(free[name].detach())

    def set_noise(self, sigma: float) -> None:
        """Sets the standard deviation of a fixed noise, in the labels' unit.

        Raises:
            ValueError: If there is none that is set by hand.
        """
        raise ValueError(
            f"The likelihood {self.name!r} has no noise that is set by hand; calibrate it on validation rows."
        )

    def noise_of(self, f: Tensor, values: Values) -> Tensor:
        """The unknown `from_head`: its value for all rows, or for each row what the head says of it."""
        return f[..., -1] if self.noise == "heteroscedastic" else values[self.from_head]

    def _unknowns(self) -> list[tuple[str, Any]]:
        return list(self.unknowns.items())

    def _current(self) -> dict[str, Tensor]:
        return {name: unknown.value for name, unknown in self._unknowns()}

    def _starts(self) -> dict[str, Tensor]:
        return {name: unknown.start for name, unknown in self._unknowns()}

    @torch.no_grad()
    def _start_linear(self, y: Tensor) -> None:
        """Starts at the mean of the labels, in units of their standard deviation; unchanged where they are standardised."""
        found = location_and_unit(y)
        if found is not None:
            self.location.fill_(found[0])
            self.unit.fill_(found[1])

    @torch.no_grad()
    def _start_ridge(self, x: Tensor, y: Tensor, common: Tensor | None) -> Tensor | None:
        """Ridge regression; f is in units of its leave-one-out errors."""
        seen = ~y.isnan()
        rows, labels = x[seen].numpy(), y[seen].numpy()
        if len(labels) < 3 or labels.min() == labels.max():
            return None
        given = np.zeros(x.shape[1] + 1) if common is None else common.numpy()
        own, errors = ridge(rows, labels - rows @ given[:-1] - given[-1])
        # Labels that a line meets exactly still leave a unit to measure errors in.
        unit = max(float(np.sqrt(np.mean(errors**2))), _LEAST_UNIT * float(labels.std()))
        self.unit.fill_(unit)
        found = given + own
        found[-1] -= self.location.item()
        return torch.as_tensor(found / unit)[None]

    def _start_logits(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Logistic regression."""
        seen = y != -1 if not y.is_floating_point() else ~y.isnan()
        if not seen.any() or x.shape[1] > WIDEST:
            return None
        logits = torch.as_tensor(logistic(x[seen].numpy(), y[seen].long().numpy(), self.classes))
        return logits if self.outputs == self.classes else logits[1:] - logits[:1]

    @torch.no_grad()
    def _start_log(self, y: Tensor) -> None:
        """Starts at the log of the mean label."""
        seen = y[~y.isnan()].double()
        if len(seen) and seen.mean() > 0:
            self.location.fill_(math.log(seen.mean().item()))


def factor(site: str, loss: Tensor, labels: Labels) -> None:
    """A loss as a statement, 0 in rows without a label."""
    with poutine.mask(mask=labels.labelled):  # type: ignore[call-overload]
        pyro.factor(site, -loss)


def minimise(loss: Callable[[], Tensor], values: list[Tensor], steps: int = 200) -> None:
    """L-BFGS on a deterministic loss of a few numbers, in place."""
    optimizer = torch.optim.LBFGS(
        values, max_iter=steps, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            total = loss()
            total.backward()
        return total

    optimizer.step(closure)


def _wide(y: Tensor) -> Tensor:
    return y.double() if y.is_floating_point() else y


def location_and_unit(y: Tensor) -> tuple[float, float] | None:
    """Mean and standard deviation of labels ``(N,)``, NaN where missing; 0 and 1 where they are nearly that.

    None for fewer than two labels, or for labels that are all equal.
    """
    seen = y[~y.isnan()].double()
    if len(seen) < 2 or seen.min() == seen.max():
        return None
    mean, sd = seen.mean().item(), seen.std(correction=0).item()
    standardised = abs(mean) < _STANDARDISED and abs(sd - 1) < _STANDARDISED
    return (0.0, 1.0) if standardised else (mean, sd)


def finite_ends(y: Tensor) -> Tensor:
    """One number per row of intervals ``(N, 2)``: the exact label, the midpoint, or the one finite end; NaN if missing."""
    ends = torch.where(y.isinf(), torch.nan, y)
    lower, upper = ends.unbind(-1)
    return torch.where(lower.isnan(), upper, torch.where(upper.isnan(), lower, (lower + upper) / 2))
