"""A balancer: one choice in each slot, and the step that they make together."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bmtl.inference.balancing.base import Context, Measured, Objective, Solution, Update
from bmtl.inference.balancing.geometry.base import Geometry
from bmtl.inference.balancing.geometry.full import Full
from bmtl.inference.balancing.gradients import backward
from bmtl.inference.balancing.lengths import AsIs, Length, Mean, Norm, Sum
from bmtl.inference.balancing.slots import Pipeline, Slot
from bmtl.inference.balancing.transforms.base import Transform
from bmtl.inference.balancing.transforms.ew import EW
from bmtl.inference.balancing.weightings.base import Weighting
from bmtl.inference.errors import NonFinite
from bmtl.inference.tasks_seen_together import TasksSeenTogether
from bmtl.tasks import check_names

logger = logging.getLogger(__name__)

ENOUGH = 20
"""Comparisons after which gradients that were always orthogonal are said to be so."""

_LENGTHS: dict[str, type[Length]] = {length.name: length for length in (AsIs, Sum, Mean, Norm)}


class Balancer(nn.Module):
    """Turns K task losses and their gradients into one gradient per parameter.

    Args:
        transform: Slot 1; equal weights by default.
        geometry: Slot 2; `Full` by default, or what the weighting brings. Used only with a weighting.
        weighting: Slot 3; none by default, and a step then costs one backward.
        length: Slot 4; the weighting's own by default.
        heads: "transform" updates each task's own parameters by its scaled loss alone (Algorithm 3 of the IGB paper);
            "alpha" multiplies them by the weighting's weights too.
    """

    def __init__(
        self,
        transform: Transform | None = None,
        geometry: Geometry | None = None,
        weighting: Weighting | None = None,
        length: Length | None = None,
        heads: Literal["transform", "alpha"] = "transform",
    ) -> None:
        super().__init__()
        if heads not in ("transform", "alpha"):
            raise ValueError(f"heads is 'transform' or 'alpha', and {heads!r} was given.")
        given = (transform, geometry, weighting, length)
        self.pipeline = Pipeline(*(slot for slot in given if slot is not None))
        self.transform = transform or EW()
        self.weighting = weighting
        own = weighting.own_geometry() if weighting else None
        if own is not None and geometry is not None:
            raise ValueError(
                f"{weighting!r} is weighting and geometry in one, and {geometry!r} was chosen too: leave it out."
            )
        self.geometry = own or geometry or Full()
        self.length = length or _LENGTHS[weighting.length if weighting else "as-is"]()
        self.heads = heads
        self.names: tuple[str, ...] = ()
        self._warned: set[str] = set()
        self._together = TasksSeenTogether()
        self._orthogonal = 0  # comparisons in which all gradients were, -1 once they were not

    @classmethod
    def of(cls, *slots: Slot, heads: Literal["transform", "alpha"] = "transform") -> Balancer:
        """A balancer from choices in any order.

        Raises:
            ValueError: If a slot is chosen twice.
            TypeError: If something else than a choice is given, such as its class or its name.
        """
        return cls(**Pipeline(*slots).chosen, heads=heads)  # type: ignore[arg-type]

    def __rshift__(self, other: Slot | Pipeline | Balancer) -> Balancer:
        if not isinstance(other, Balancer):
            return Balancer.of(*(self.pipeline >> other).slots, heads=self.heads)
        heads = other.heads if self.heads == "transform" else self.heads
        return Balancer.of(*self.pipeline.slots, *other.pipeline.slots, heads=heads)

    def __rrshift__(self, other: Slot | Pipeline) -> Balancer:
        return Balancer.of(*other.slots, *self.pipeline.slots, heads=self.heads)

    def __str__(self) -> str:
        return str(self.pipeline)

    def __repr__(self) -> str:
        return f"Balancer({str(self)!r}, heads={self.heads!r})"

    @property
    def cut(self) -> bool:
        """Whether the next step's programs must run with their graph cut at the marked tensors."""
        return self.compares and self.geometry.cut and len(self.names) > 1 and self.geometry.due

    @property
    def halves(self) -> bool:
        """Whether the next step's programs must run on either half of the batch."""
        return self.compares and self.geometry.halves and len(self.names) > 1 and self.geometry.due

    @property
    def compares(self) -> bool:
        """Whether task gradients are compared at all; without, a step costs one backward.

        A geometry that is chosen without a weighting compares them for the record only.
        """
        return self.weighting is not None or self.transform.observes != "none" or "geometry" in self.pipeline.chosen

    def bind(self, names: Sequence[str]) -> None:
        """Receives the task names; every state is kept per name.

        Raises:
            ValueError: If it was already bound to other tasks.
        """
        names = check_names(names)
        self.check()
        if self.names and self.names != names:
            raise ValueError(
                f"This balancer belongs to the tasks {self.names}, and the model has {names}. Make a new balancer."
            )
        self.names = names
        for slot in (self.transform, self.geometry, self.weighting, self.length):
            if slot is not None:
                slot.bind(names)

    def backward(self, objective: Objective, ctx: Context) -> Update:
        """Adds the balanced gradient to every parameter's ``.grad``.

        Raises:
            NonPositiveLoss: If a loss is not above 0 under a transform with logarithms or ratios.
            NonFinite: If a task's gradient is not finite.
            SolverFailed: If the weighting's solver fails.
        """
        start = time.perf_counter()
        loss_derivatives = self._loss_derivatives(objective, ctx)
        update = Update(weights=loss_derivatives, weights_heads=loss_derivatives)
        now = time.perf_counter()
        update.seconds["transform"] = now - start
        cut = objective.marks.cut
        if len(self.names) == 1 and self.weighting is not None:
            self._warn_once("single", f"{self.weighting.name!r} has nothing to weigh with a single task.")
        if self.weighting is not None:
            self._together.step(self.names, ctx.active, self.weighting.name)
        if not self.compares or (len(objective.names) < 2 and not cut):
            backward(objective.weighted(loss_derivatives), objective.unweighted(loss_derivatives))
        elif not objective.names:  # no task has a label: only the terms of weight 1 are left
            self.geometry.write_gradients(objective, loss_derivatives, loss_derivatives, loss_derivatives, None)
        elif self.geometry.due:
            self._compare(objective, loss_derivatives, update, ctx)
            return update
        else:
            alpha, factors = self.geometry.kept(ctx.active)
            self.geometry.age[0] += 1
            alpha, head_alpha = self._weights(update, loss_derivatives, alpha, factors)
            self.geometry.backward_weighted(objective, loss_derivatives, alpha, head_alpha)
        update.seconds["backward"] = time.perf_counter() - now
        return update

    def _compare(self, objective: Objective, loss_derivatives: Tensor, update: Update, ctx: Context) -> None:
        """Compares the task gradients, weights them, and writes the update."""
        start = time.perf_counter()
        loss_derivatives, later = _passed_and_left(loss_derivatives, objective.losses)
        measured = self.geometry.measure(objective, loss_derivatives)
        measured.losses = objective.losses
        update.gradients = measured.gradients
        measured.dtype = objective.rows[0].dtype if measured.J is None else measured.J.dtype
        self._check_gram(objective, measured.G)
        if self.geometry.cut and self.weighting is not None:
            self._watch_orthogonal(measured.G, self.weighting.name)
        if not (later == 1.0).all():
            measured = measured.scaled(later)
        now = time.perf_counter()
        update.seconds["geometry"] = now - start
        factors = self.transform.refine(measured, ctx)
        if factors is None:
            factors = torch.ones_like(loss_derivatives)
        else:
            if self.weighting is None or not self.weighting.by_gradients:
                measured.J = None  # K x P numbers that are not used need no copy
            measured = measured.scaled(factors)
        update.gram = measured.G
        cosine = measured.cosines
        alpha, direction = torch.ones_like(loss_derivatives), None
        if self.weighting is not None and self.geometry.unmoved(ctx.active, cosine):
            alpha = self.geometry.kept(ctx.active)[0]
            update.events.append(f"{self.weighting.name}: weights kept, since no cosine has moved")
        elif self.weighting is not None:
            alpha, direction = self._weigh(objective, measured, update, ctx)
            self.geometry.keep(ctx.active, alpha, factors, cosine)
        factors = factors * later
        self._check_fidelity(objective, factors, alpha, update, ctx)
        self.geometry.age[0], self.geometry.age[1] = 0, self.geometry.age[1] + 1
        start, now = now, time.perf_counter()
        update.seconds["weighting"] = now - start
        # The graph and the gradients at hand are those before the factors.
        alpha, head_alpha = self._weights(update, loss_derivatives, alpha, factors)
        self.geometry.write_gradients(objective, loss_derivatives, alpha, head_alpha, direction)
        update.seconds["backward"] = time.perf_counter() - now

    def _watch_orthogonal(self, gram: Tensor, weighting: str) -> None:
        """Warns once where gradients have been exactly orthogonal in every comparison so far."""
        lengths = gram.diagonal()
        if self._orthogonal < 0 or int((lengths > 0).sum()) < 2:
            return
        self._orthogonal = -1 if (gram - lengths.diag()).any() else self._orthogonal + 1
        if self._orthogonal == ENOUGH:
            self._warn_once(
                "orthogonal",
                f"In {ENOUGH} comparisons all tasks' gradients at the shared representation were orthogonal, as they are "
                f"where each task reads a part of its own, or has rows of its own: {weighting!r} sees their lengths alone. "
                "Use the geometry 'full'.",
            )

    def _weigh(
        self, objective: Objective, measured: Measured, update: Update, ctx: Context
    ) -> tuple[Tensor, Tensor | None]:
        """The weighting's weights, of the chosen length, and its direction where that is not a combination of gradients."""
        assert self.weighting is not None
        update.solution, zero = self.weighting.weigh(measured, ctx)
        zeros = zero.nonzero().flatten().tolist()
        update.events += [f"task {objective.names[k]!r} has a zero gradient" for k in zeros]
        if update.solution.status != "ok":
            update.events.append(f"{self.weighting.name}: {update.solution.status}")
        update.events += [f"{self.weighting.name}: {event}" for event in update.solution.events]
        return self._of_length(update.solution, measured.G)

    def _weights(
        self, update: Update, loss_derivatives: Tensor, alpha: Tensor, factors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weights of the scaled losses for trunk and heads, with the factors; puts them on record."""
        if self.weighting is not None:
            update.alpha, update.length = alpha, self.length.name
        head_alpha = factors * alpha if self.heads == "alpha" else factors
        alpha = factors * alpha
        update.weights, update.weights_heads = alpha * loss_derivatives, head_alpha * loss_derivatives
        return alpha, head_alpha

    def _check_fidelity(
        self, objective: Objective, factors: Tensor, alpha: Tensor, update: Update, ctx: Context
    ) -> None:
        """Puts on record the cosine of the update with the one from the full gradients, where that is requested."""
        every = self.geometry.fidelity_every
        if not every or self.weighting is None or int(self.geometry.age[1]) % every:
            return
        gram = self.geometry.full_gram(objective)
        if gram is None:
            return
        gram = gram * factors[:, None] * factors
        # A copy: a weighting's own state must not see this comparison.
        exact = copy.deepcopy(self.weighting).weigh(Measured(gram, losses=objective.losses), ctx)[0].alpha
        lengths = (alpha @ gram @ alpha) * (exact @ gram @ exact)
        update.fidelity = float((alpha @ gram @ exact) / lengths.sqrt()) if lengths > 0 else math.nan

    def end_epoch(self, mean_losses: Tensor, ctx: Context) -> None:
        """Passes each task's mean training loss of the epoch ``(K_all,)`` to the transform."""
        self.transform.end_epoch(self.transform.above_bound(mean_losses), ctx)

    def after_step(self, losses: Tensor, ctx: Context) -> None:
        """Passes the batch's losses at the new parameters ``(K,)`` to the transform."""
        self.transform.after_step(self.transform.above_bound(losses), ctx)

    def check(self) -> None:
        """Checks before the first step that each choice gets what it needs from the others.

        Raises:
            ValueError: If gradients themselves or two samples of them are needed and the geometry does not give them, or
                a length or a bound is chosen and has no effect.
        """
        wants: dict[str, Slot] = {self.transform.observes: self.transform}
        if self.weighting is not None:
            wants[self.weighting.needs] = self.weighting
        by_gradients = self.weighting is not None and self.weighting.by_gradients
        self.geometry.expect(gradients="jacobian" in wants or by_gradients)
        gives = self.geometry.gives
        if "jacobian" in wants and "jacobian" not in gives:
            raise ValueError(
                f"{wants['jacobian']!r} works on the gradients themselves, and {self.geometry!r} gives their Gram matrix: "
                "use 'full'."
            )
        if "cross" in wants and "cross" not in gives:
            raise ValueError(
                f"{self.weighting!r} needs two independent samples of the gradients: use '{self.geometry.name}(cross=True)'."
            )
        if "length" in self.pipeline.chosen and self.weighting is None:
            raise ValueError(
                f"The length {self.length!r} scales a weighting's weights, and {str(self)!r} has none. Leave it out, "
                "or weigh gradients: 'ew >> nash-mtl >> norm'."
            )
        if self.transform.bound and self.transform.domain == "real":
            raise ValueError(f"{self.transform!r} takes losses of any sign, and bound has no effect. Leave it out.")

    def _loss_derivatives(self, objective: Objective, ctx: Context) -> Tensor:
        """Derivative of each scaled loss by its loss; the transform's own parameters get their gradients here."""
        if not all(map(math.isfinite, objective.losses.tolist())):
            raise NonFinite(f"The loss of {_quoted(objective.names, ~objective.losses.isfinite())} is NaN or infinite.")
        self.transform.check_losses(objective.names, objective.losses, ctx)
        if self.transform.epochs and ctx.step >= 5_000 and ctx.epoch == 1:
            self._warn_once(
                "epochs",
                f"{self.transform.name!r} changes its weights at the ends of epochs, and in {ctx.step} steps none has "
                "ended: call BalancedSVI.end_epoch() once an epoch (bmtl.fit does).",
            )
        return self.transform.loss_derivatives(self.transform.above_bound(objective.losses), ctx)

    def _of_length(self, solution: Solution, gram: Tensor) -> tuple[Tensor, Tensor | None]:
        """The weights and the direction, if there is one, of the wanted length."""
        alpha, direction = solution.alpha, solution.direction
        if direction is None:
            return self.length(alpha, gram), None
        squared = self.geometry.squared_length(direction)
        scaled = self.length(alpha, gram, squared)
        k = alpha.abs().argmax()
        return scaled, direction if alpha[k] == 0 else direction * (scaled[k] / alpha[k]).item()

    def _check_gram(self, objective: Objective, gram: Tensor) -> None:
        finite = gram.diagonal().isfinite()
        if not finite.all():
            raise NonFinite(f"The gradient of {_quoted(objective.names, ~finite)} is NaN or infinite.")

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(message)

    def get_extra_state(self) -> dict[str, list[str]]:
        return {"names": list(self.names)}

    def set_extra_state(self, state: dict[str, list[str]]) -> None:
        if self.names and list(self.names) != state["names"]:
            raise ValueError(
                f"The saved balancer belongs to the tasks {state['names']}, and this one to {list(self.names)}."
            )
        if state["names"] and not self.names:
            self.bind(state["names"])  # the slots, loaded next, then have what is saved


def _passed_and_left(derivatives: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """A loss's derivative as what its gradient is multiplied by in the backward pass, and what is left for afterwards.

    A weight of 1e-12 would make the gradients inside a half-precision pass vanish, and weightings that compare directions
    would miss the task. What is left is a power of two, so that the product is exact; it is 1 unless the derivative is far
    below that of the loss itself and of its logarithm.

    Args:
        derivatives: Of the scaled losses by the losses ``(K,)``.
        losses: ``(K,)``.
    """
    natural = torch.minimum(1.0 / losses.abs(), torch.ones_like(losses))
    _, exponents = torch.frexp((derivatives.abs() / natural).clamp(1e-300, 1.0))  # in [1/2, 1) times 2 to the exponent
    far = (derivatives != 0) & (exponents < -6)
    left = torch.where(far, torch.ldexp(torch.ones_like(losses), exponents), 1.0)
    return derivatives / left, left


def _quoted(names: Sequence[str], which: Tensor) -> str:
    return ", ".join(repr(names[k]) for k in which.nonzero().flatten().tolist())
