"""Slot 2: a geometry measures the task gradients, then writes one gradient per parameter."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.gradients import add_gradients, backward, read_structure
from bmtl.inference.balancing.options import Count, Natural, Range
from bmtl.inference.balancing.slots import Slot

Change = Annotated[float, Range(at_least=0.0, at_most=2.0)]  # of a cosine


class Geometry(Slot):
    """Slot 2: where task gradients are compared.

    Args:
        every: Compare every n-th step and keep the weights in between; a step without a comparison costs one backward
            through the trunk.
        moved: Keep the weights while no cosine of task gradients has changed by more than this since they were found.
        fidelity_every: Every n-th comparison, also find the update from the full gradients and record its cosine with
            the one taken (``StepRecord.fidelity``); 0 never does. The full comparison then costs its K backwards.
        cross: Also measure the Gram matrix between two independent samples of the gradients (``Measured.cross``).

    Attributes:
        cut: The programs must run with their graph cut at the marked tensors (`SharedRepresentation`).
        halves: The programs must run on either half of the batch (``Objective.halves``).
        reads_layers: It looks for layers in the autograd graph.
    """

    slot = "geometry"
    cut: ClassVar[bool] = False
    halves: bool = False
    reads_layers: ClassVar[bool] = False

    alpha: Tensor
    factors: Tensor
    cosine: Tensor
    age: Tensor

    def __init__(self, every: Count = 1, moved: Change = 0.0, fidelity_every: Natural = 0, cross: bool = False) -> None:
        super().__init__()
        self.every, self.moved, self.fidelity_every, self.cross = every, moved, fidelity_every, cross

    @property
    def gives(self) -> frozenset[str]:
        """Results of `measure`: "gram"; "cross" with the option of that name; "jacobian" where the gradients are kept."""
        return frozenset({"gram", "cross"} if self.cross else {"gram"})

    def bind(self, names: Sequence[str]) -> None:
        if "age" in self._buffers:
            return
        k = len(names)
        self.register_buffer("alpha", torch.full((k,), torch.nan, dtype=torch.float64))
        self.register_buffer("factors", torch.ones(k, dtype=torch.float64))
        self.register_buffer("cosine", torch.full((k, k), torch.nan, dtype=torch.float64))
        self.register_buffer(
            "age", torch.tensor([-1, 0])
        )  # steps since the last comparison (-1: none yet); comparisons

    def expect(self, gradients: bool) -> None:
        """Receives, before the first step, whether the other slots need the gradients themselves (``Measured.J``)."""

    @property
    def due(self) -> bool:
        """Whether the next step compares gradients."""
        if self.every == 1 or "age" not in self._buffers:
            return True
        return not 0 <= int(self.age[0]) < self.every - 1

    def measure(self, objective: Objective, loss_derivatives: Tensor) -> Measured:
        """The Gram matrix of the scaled losses' gradients, of all processes that train together; writes no gradient.

        Args:
            objective: The losses, with their graph.
            loss_derivatives: Derivative of each scaled loss by its loss ``(K,)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it compares gradients.")

    def write_gradients(
        self,
        objective: Objective,
        loss_derivatives: Tensor,
        alpha: Tensor,
        head_alpha: Tensor,
        direction: Tensor | None,
    ) -> None:
        """Adds to every parameter's ``.grad``, once, and frees the graph.

        Args:
            objective: The losses, with their graph.
            loss_derivatives: As for `measure`.
            alpha: Weights of the scaled losses for the shared parameters ``(K,)``.
            head_alpha: The same for each task's own parameters ``(K,)``: ones, or `alpha`.
            direction: What the shared parameters receive in place of their gradients' combination, ``(P,)``, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it writes gradients.")

    def squared_length(self, direction: Tensor) -> float:
        """Squared length of a direction that replaces the gradients' combination."""
        return torch.linalg.vector_norm(direction, dtype=torch.float64).item() ** 2

    def full_gram(self, objective: Objective) -> Tensor | None:
        """Gram matrix of the gradients of all shared parameters, from what `measure` has; None where that is `measure`'s."""
        return None

    def backward_weighted(
        self, objective: Objective, loss_derivatives: Tensor, alpha: Tensor, head_alpha: Tensor
    ) -> None:
        """Writes the update at known weights, without a comparison; the graph is not cut.

        Args:
            objective: The losses, with their graph.
            loss_derivatives: As for `measure`.
            alpha: As for `write_gradients`.
            head_alpha: As for `write_gradients`.
        """
        rest = objective.unweighted(alpha * loss_derivatives)
        if torch.equal(alpha, head_alpha):
            backward(objective.weighted(alpha * loss_derivatives), rest)
            return
        structure = read_structure(objective)
        own = list({id(p): p for parameters in (*structure.private, structure.behind) for p in parameters}.values())
        pairs: list[tuple[Tensor, Tensor]] = []
        for parameters, weights, last in ((own, head_alpha, False), (structure.shared, alpha, rest is None)):
            total = objective.weighted(weights * loss_derivatives)
            if parameters and total is not None and total.requires_grad:
                found = torch.autograd.grad(total, parameters, retain_graph=not last, allow_unused=True)
                pairs += [(p, gradient) for p, gradient in zip(parameters, found, strict=True) if gradient is not None]
        add_gradients(pairs, rest)

    def keep(self, active: Tensor, alpha: Tensor, factors: Tensor, cosine: Tensor) -> None:
        """Stores the result of a comparison, for the tasks that were present."""
        self.alpha[active], self.factors[active] = alpha, factors
        index = active.nonzero().squeeze(-1)
        self.cosine[index[:, None], index] = cosine
        self.age[0] = 0

    def kept(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """The last weights and factors of the tasks present ``(K,)``; 1 for a task that was not compared yet."""
        return self.alpha[active].nan_to_num(nan=1.0), self.factors[active]

    def unmoved(self, active: Tensor, cosine: Tensor) -> bool:
        """Whether the cosines are the same as when the weights were found."""
        if not self.moved:
            return False
        index = active.nonzero().squeeze(-1)
        change = (self.cosine[index[:, None], index] - cosine).abs()
        return bool((change <= self.moved).all())  # NaN, for a task that was not compared yet, has moved
