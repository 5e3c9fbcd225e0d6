"""The records that pass between the four slots of a balancer.

A transform acts on each task's loss value, so its derivative is all that the network's graph needs: the gradient of a scaled
loss is that derivative times the gradient of the raw one. Slots therefore work on K numbers in float64 on the host, and the
graph is used by the geometry alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from bmtl.inference.losses import TaskTerms
from bmtl.inference.shared_representation import SharedRepresentation


@dataclass(frozen=True)
class Context:
    """The step's place in training.

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

    def only(self, keep: Tensor) -> Context:
        """The context in which only these of the present tasks, indices ``(k,)``, are present."""
        active = torch.zeros_like(self.active)
        active[self.active.nonzero().squeeze(-1)[keep]] = True
        return replace(self, active=active)


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
        scale: Factor of `per_datum_scale` and `unweighted_terms`, so that float16 can hold the gradients. A geometry
            measures gradients without it, and writes them with it.
        halves: The same for each half of the batch, where the geometry requested two samples; all else is their mean.
        rerun: Runs guide and model once more on the batch, from the marked tensors on, with new draws of all latents; where
            the graph is cut.
    """

    names: tuple[str, ...]
    losses: Tensor
    rows: TaskTerms
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
        rows = self.rows.vector
        return rows @ (weights * self.per_datum_scale).to(rows)

    def unweighted(self, weights: Tensor) -> Tensor | None:
        """The terms that no balancer weights, with the score-function terms at their tasks' weights ``(K,)``."""
        if self.scores is None:
            return self.unweighted_terms
        scores = self.scores @ (weights * self.per_datum_scale).to(self.scores)
        return scores if self.unweighted_terms is None else self.unweighted_terms + scores


@dataclass
class Measured:
    """A geometry's measurements of the K scaled losses.

    Attributes:
        G: Gram matrix ``(K, K)`` of the task gradients, float64 on the host.
        J: The gradients themselves ``(K, P)`` where the geometry has them, on the parameters' device, real: a complex
            parameter has its real and imaginary parts. The next step uses the same memory: copy what is to outlive this one.
        cross: Gram matrix of two independent samples of the gradients, symmetrised ``(K, K)``, where it was requested:
            unbiased, and possibly indefinite.
        variance: Variance of J's entries over draws of the latents ``(K, P)``, where a weighting's own geometry measures it.
        losses: The K losses before the transform, float64 on the host.
        dtype: Precision in which the gradients were computed: what their smallest products are worth.
        gradients: How the gradients were found, for the record.
    """

    G: Tensor
    J: Tensor | None = None
    cross: Tensor | None = None
    variance: Tensor | None = None
    losses: Tensor | None = None
    dtype: torch.dtype = torch.float64
    gradients: str = ""

    def only(self, keep: Tensor) -> Measured:
        """The measurements of some of the tasks, indices ``(k,)``."""
        return replace(
            self,
            G=self.G[keep][:, keep],
            J=None if self.J is None else self.J[keep.to(self.J.device)],
            cross=None if self.cross is None else self.cross[keep][:, keep],
            variance=None if self.variance is None else self.variance[keep.to(self.variance.device)],
            losses=None if self.losses is None else self.losses[keep],
        )

    def scaled(self, factors: Tensor) -> Measured:
        """The measurements of losses multiplied by factors ``(K,)``."""
        outer = factors[:, None] * factors
        jacobian = None if self.J is None else self.J * factors.to(self.J)[:, None]
        cross = None if self.cross is None else self.cross * outer
        variance = None if self.variance is None else self.variance * factors.square().to(self.variance)[:, None]
        return replace(self, G=self.G * outer, J=jacobian, cross=cross, variance=variance)

    @property
    def cosines(self) -> Tensor:
        """Cosines of the gradients ``(K, K)``; NaN for a zero gradient."""
        norms = self.G.diagonal().clamp_min(0).sqrt()
        return self.G / norms[:, None] / norms


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
        events: What the step's record should contain besides the status.
    """

    alpha: Tensor
    residual: float = 0.0
    iterations: int = 0
    status: Literal["ok", "inexact", "stationary"] = "ok"
    direction: Tensor | None = None
    events: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A record goes into files that hold plain numbers only, and a solver's may be numpy's.
        object.__setattr__(self, "residual", float(self.residual))
        object.__setattr__(self, "iterations", int(self.iterations))


@dataclass
class Update:
    """The result of a balancer's step; all ``(K,)`` and ``(K, K)`` float64 on the host, K the tasks present.

    Attributes:
        weights: Effective weights of the losses for the shared parameters, d objective / d L_k.
        weights_heads: The same for each task's own parameters.
        alpha: The weighting's weights of the scaled losses, after the length rule; None without a weighting.
        gram: Gram matrix of the scaled losses' gradients; None where none was measured.
        solution: The weighting's own answer.
        length: Name of the length rule.
        gradients: How `full` found its gradients.
        fidelity: Cosine of the update with the one from the full gradients, NaN where it was not found.
        seconds: Time by slot.
        events: What was out of the ordinary.
    """

    weights: Tensor
    weights_heads: Tensor
    alpha: Tensor | None = None
    gram: Tensor | None = None
    solution: Solution | None = None
    length: str = ""
    gradients: str = ""
    fidelity: float = math.nan
    seconds: dict[str, float] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
