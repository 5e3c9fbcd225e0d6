"""The four slots of a balancer and the records that pass between them.

    losses (K,) --transform--> scaled losses (K,) --geometry--> Gram (K, K) --weighting--> alpha (K,) --length--> update

A transform acts on each task's loss value, so its derivative ``slope`` is all that the network's graph needs: the
gradient of a scaled loss is ``slope_k`` times the gradient of the raw one. Slots therefore work on K numbers in float64
on the host, and the graph is touched by the geometry alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bmtl.inference.balancing.solvers.threads import one_thread
from bmtl.inference.errors import SolverFailed
from bmtl.inference.losses import TaskTerms
from bmtl.inference.shared_representation import SharedRepresentation

if TYPE_CHECKING:
    from bmtl.inference.balancing.balancer import Balancer
    from bmtl.inference.balancing.geometry.base import Geometry


@dataclass(frozen=True)
class Context:
    """Where training stands.

    Attributes:
        active: Which tasks have a label in this batch, bool ``(K_all,)``.
        step: Steps taken before this one.
        epoch: The epoch, from 1.
        batch: Steps taken before this one in this epoch.
        batches: Steps in an epoch, where known.
        lr: Learning rate of the optimizer's first group now.
        lr0: The same at the start.
    """

    active: Tensor
    step: int = 0
    epoch: int = 1
    batch: int = 0
    batches: int | None = None
    lr: float = 1.0
    lr0: float = 1.0


@dataclass
class Objective:
    """The K losses of a step as a balancer sees them; absent tasks are left out.

    Attributes:
        names: The K tasks.
        losses: Loss values ``(K,)``, float64 on the host.
        rows: K scalars in the graph. The loss whose gradient is taken is ``per_datum_scale[k] * rows[k]``, in the mean over
            several processes: ``losses[k] * scale``, or an unbiased estimate of it under ``normalize="task_mean"``.
        per_datum_scale: Float64 on the host ``(K,)``: one over the number of data, times `scale`.
        unweighted_terms: Terms of weight 1 (KL divergences), ``()``, or None.
        scores: Score-function terms of the rows ``(K,)``, 0 in value, or None.
        marks: The tensors marked by `bmtl.shared`.
        parameter_names: Names of the model's and guide's parameters by their `id`, for messages.
        parameters: All of them, in the order that processes which train together share.
        scale: What `per_datum_scale` and `unweighted_terms` are multiplied by, so that float16 can hold the gradients. A
            geometry measures gradients without it, and writes them with it.
        halves: The same of either half of the batch, where the geometry asked for two samples; all else is their mean.
        rerun: Runs guide and model once more on the batch, from the marked tensors on, with new draws of all latents; where
            the graph is cut.
    """

    names: tuple[str, ...]
    losses: Tensor
    rows: TaskTerms | Sequence[Tensor]
    per_datum_scale: Tensor
    unweighted_terms: Tensor | None = None
    scores: Tensor | None = None
    marks: SharedRepresentation = field(default_factory=SharedRepresentation)
    parameter_names: Mapping[int, str] = field(default_factory=dict)
    parameters: Sequence[Tensor] = ()
    scale: float = 1.0
    halves: tuple[Objective, Objective] | None = None
    rerun: Callable[[], Objective] | None = None

    def weighted(self, weights: Tensor) -> Tensor | None:
        """The sum of the losses at these weights ``(K,)``, a scalar in the graph; None if no task is present."""
        if not self.rows:
            return None
        coefficients = weights * self.per_datum_scale
        assert isinstance(self.rows, TaskTerms)
        rows = self.rows.vector
        return rows @ coefficients.to(rows)

    def unweighted(self, weights: Tensor) -> Tensor | None:
        """The terms that no balancer weighs, with the score-function terms at their tasks' weights ``(K,)``."""
        if self.scores is None:
            return self.unweighted_terms
        scores = self.scores @ (weights * self.per_datum_scale).to(self.scores)
        return scores if self.unweighted_terms is None else self.unweighted_terms + scores


@dataclass
class Measured:
    """What a geometry measures of the K scaled losses.

    Attributes:
        G: Gram matrix ``(K, K)`` of the task gradients, float64 on the host.
        J: The gradients themselves ``(K, P)`` where the geometry has them, on the parameters' device. The next step
            uses the same memory: copy what is to outlive this one.
        cross: Gram matrix of two independent samples of the gradients, symmetrised ``(K, K)``, where it was asked for:
            unbiased, and possibly indefinite.
        variance: Variance of J's entries over draws of the latents ``(K, P)``, where a weighting's own geometry measures it.
        losses: The K losses before the transform, float64 on the host.
        dtype: Precision in which the gradients were computed: what their smallest products are worth.
    """

    G: Tensor
    J: Tensor | None = None
    cross: Tensor | None = None
    variance: Tensor | None = None
    losses: Tensor | None = None
    dtype: torch.dtype = torch.float64


@dataclass(frozen=True)
class Solution:
    """A weighting's answer.

    Attributes:
        alpha: Weights of the K scaled losses ``(K,)``, float64.
        residual: How far the defining equation is from holding, relative.
        iterations: Rounds of the solver.
        status: "ok"; "inexact" (no exact solution exists); "stationary" (no common descent direction exists).
        direction: What the shared parameters receive in place of ``J' alpha``, ``(P,)``, for methods whose update is no
            combination of task gradients.
        events: What the step's record should say beside the status.
    """

    alpha: Tensor
    residual: float = 0.0
    iterations: int = 0
    status: Literal["ok", "inexact", "stationary"] = "ok"
    direction: Tensor | None = None
    events: tuple[str, ...] = ()


class Slot(nn.Module):
    """A choice in one of the four slots. ``IGBv1() >> LastLayer() >> NashMTL() >> Norm()`` joins them into a balancer."""

    name: ClassVar[str]
    slot: ClassVar[Literal["transform", "geometry", "weighting", "length"]]
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""

    def bind(self, names: Sequence[str]) -> None:
        """Told the names of all tasks, once, before the first step."""

    def __rshift__(self, other: Slot | Balancer) -> Balancer:
        from bmtl.inference.balancing.balancer import Balancer

        return Balancer.of(self) >> other

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.options().items())
        return f"{self.name}({options})" if options else self.name

    def options(self) -> dict[str, object]:
        """The options that this choice was made with, for its string form."""
        return {}


class Transform(Slot):
    """Slot 1: scales or reshapes the task losses. All its state is in buffers and parameters.

    Args:
        bound: For transforms with logarithms or ratios: what every loss must exceed. It is subtracted first, so that
            ``L - bound`` stands for the loss throughout.

    Raises:
        ValueError: If `bound` is not finite.

    Attributes:
        positive: The transform takes logarithms or ratios of losses.
        epochs: The transform waits for the ends of epochs (`BalancedSVI.end_epoch`).
        observes: What `refine` wants to see of the task gradients; anything but "none" needs a geometry.
        second_forward: The transform wants the batch's losses once more after the step (`after_step`).
    """

    slot = "transform"
    positive: bool = False
    epochs: bool = False
    observes: ClassVar[Literal["none", "gram", "jacobian"]] = "none"
    second_forward: ClassVar[bool] = False

    def __init__(self, bound: float = 0.0) -> None:
        super().__init__()
        if not math.isfinite(bound):
            raise ValueError(f"bound is what every loss must exceed, a finite number, and {bound} was given.")
        self.bound = bound

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        """The scaled losses ``(K,)`` of the tasks present, differentiable in `losses` ``(K,)``.

        Parameters that a transform owns get the gradient of their sum, never multiplied by a weighting.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it scales losses.")

    def loss_derivatives(self, losses: Tensor, ctx: Context) -> Tensor:
        """Derivatives of the scaled losses by the losses ``(K,)``; own parameters get their gradients."""
        leaf = losses.detach().clone().requires_grad_()
        self(leaf, ctx).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    def refine(self, m: Measured, ctx: Context) -> Tensor | None:
        """Factors ``(K,)`` by which this step's scaled losses are multiplied once more, given their gradients."""
        return None

    def after_step(self, losses: Tensor, ctx: Context) -> None:
        """Told the same batch's losses at the new parameters ``(K,)``, where `second_forward` asks for it."""

    def end_epoch(self, mean_losses: Tensor, ctx: Context) -> None:
        """Told each task's mean training loss of the epoch that ends ``(K_all,)``, NaN where it was never present."""


class Weighting(Slot):
    """Slot 3: weights from the Gram matrix of the task gradients.

    Attributes:
        needs: What it works on: the Gram matrix, the two-sample Gram matrix (``cross=True`` of the geometry), the gradients
            themselves (`Full` only), or what its `own_geometry` measures.
        length: Name of the length rule that its paper uses.
        tolerance: Residual above which a solution counts as failed.
    """

    slot = "weighting"
    needs: ClassVar[Literal["gram", "cross", "jacobian", "own"]] = "gram"
    length: ClassVar[str] = "as-is"
    tolerance: ClassVar[float] = 1e-6

    def own_geometry(self) -> Geometry | None:
        """The geometry that a weighting brings, where no other would do."""
        return None

    def forward(self, m: Measured, ctx: Context) -> Solution:
        """Weights of K >= 2 gradients, none of them zero."""
        raise NotImplementedError(f"{type(self).__name__} must say how it weighs gradients.")

    def weigh(self, m: Measured, ctx: Context) -> tuple[Solution, Tensor]:
        """Weights of any gradients. A zero gradient has no direction: it is left out and keeps weight 1.

        Returns:
            The solution, and which gradients are zero, bool ``(K,)``.

        Raises:
            SolverFailed: If the residual is above `tolerance` although a solution exists.
        """
        norms = np.sqrt(np.maximum(m.G.numpy().diagonal(), 0.0))
        short = norms <= 1e-12 * norms.max()
        zero = torch.from_numpy(short)
        keep = len(norms) - int(short.sum())
        alpha = torch.ones(len(norms), dtype=torch.float64)
        if keep < 2:
            solution = Solution(alpha, status="ok" if keep else "stationary")
        elif keep == len(norms):
            solution = self._alone(m, ctx)
        else:
            here = (~zero).nonzero().squeeze(-1)
            if self.needs not in ("jacobian", "own"):
                m = replace(m, J=None)  # not to copy K x P numbers for nobody
            solution = self._alone(_rows(m, here), _present(ctx, here))
            alpha[here] = solution.alpha
            solution = replace(solution, alpha=alpha)
        if solution.status == "ok" and not solution.residual <= self.tolerance:
            raise SolverFailed(
                f"{self.name!r} left a residual of {solution.residual:.2g} after {solution.iterations} rounds, and at most "
                f"{self.tolerance:g} is allowed. Are the gradients finite and of one precision?"
            )
        return solution, zero

    def solve(self, gram: Tensor) -> Solution:
        """Weights for a Gram matrix ``(K, K)``, without a training step around it.

        Raises:
            ValueError: If `gram` is not a square, symmetric, finite, positive semi-definite matrix, or the weighting works
                on the gradients themselves.
            SolverFailed: If no weights within the tolerance were found although they exist.
        """
        if self.needs in ("jacobian", "own"):
            raise ValueError(f"{self.name!r} works on the gradients themselves, and a Gram matrix was given.")
        gram = torch.as_tensor(gram, dtype=torch.float64).detach().cpu()
        if gram.dim() != 2 or gram.shape[0] != gram.shape[1] or not len(gram):
            raise ValueError(f"A Gram matrix is square, (K, K), and one of shape {tuple(gram.shape)} was given.")
        if not gram.isfinite().all():
            raise ValueError("The Gram matrix has entries that are NaN or infinite.")
        # Relative to the gradients' norms: entries of nearly orthogonal gradients are all rounding error in float32.
        norms = gram.diagonal().clamp_min(0).sqrt()
        scale = norms.clamp_min(1e-150)
        cosine = gram / scale[:, None] / scale
        if ((cosine - cosine.T).abs() > 1e-5).any():
            raise ValueError("A Gram matrix is symmetric, and this one is not. Give J @ J.T for gradients J (K, P).")
        if torch.linalg.eigvalsh((cosine + cosine.T) / 2)[0] < -1e-5 * len(gram):
            raise ValueError(
                "A Gram matrix has no negative eigenvalue, and this one has. Give J @ J.T for gradients J (K, P)."
            )
        return self.weigh(Measured(gram), Context(torch.ones(len(gram), dtype=torch.bool)))[0]

    def _alone(self, m: Measured, ctx: Context) -> Solution:
        """`forward` without a second BLAS thread, which K x K matrices only wait for; products with J may use it."""
        with one_thread(0 if self.needs in ("jacobian", "own") else len(m.G)):
            return self.forward(m, ctx)


class Length(Slot):
    """Slot 4: the scale of the update."""

    slot = "length"

    def forward(self, alpha: Tensor, gram: Tensor, squared: float | None = None) -> Tensor:
        """Weights ``(K,)`` of the wanted scale: those given, all multiplied by one number.

        Args:
            alpha: Weights ``(K,)``.
            gram: Gram matrix ``(K, K)``.
            squared: Squared length of the update where it is no combination of gradients; ``alpha' gram alpha`` if None.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it scales weights.")


def _rows(m: Measured, keep: Tensor) -> Measured:
    """The measurements of some of the tasks."""
    return replace(
        m,
        G=m.G[keep][:, keep],
        J=None if m.J is None else m.J[keep.to(m.J.device)],
        cross=None if m.cross is None else m.cross[keep][:, keep],
        variance=None if m.variance is None else m.variance[keep.to(m.variance.device)],
        losses=None if m.losses is None else m.losses[keep],
    )


def _present(ctx: Context, keep: Tensor) -> Context:
    """The context in which only these of the present tasks are present."""
    active = torch.zeros_like(ctx.active)
    active[ctx.active.nonzero().squeeze(-1)[keep]] = True
    return replace(ctx, active=active)
