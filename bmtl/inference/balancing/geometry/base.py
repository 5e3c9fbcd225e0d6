"""What a geometry does: measure the task gradients, then write one gradient per parameter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Measured, Objective, Slot
from bmtl.inference.balancing.graph import parameters_by_tensor, parameters_reached, trained


class Geometry(Slot):
    """Slot 2: where task gradients are compared.

    Args:
        every: Compare every n-th step and keep the weights in between; a step without a comparison costs one backward
            through the trunk.
        moved: Keep the weights while no cosine of task gradients has moved by more than this since they were found.
        fidelity_every: Every n-th comparison, also find the update from the full gradients and record its cosine with
            the one taken (``StepRecord.fidelity``); 0 never does. The full comparison then costs its K backwards.
        cross: Also measure the Gram matrix between two independent samples of the gradients (``Measured.cross``).

    Raises:
        ValueError: If an option is out of its range.

    Attributes:
        cut: The programs must run with their graph cut at the marked tensors (`SharedRepresentation`).
        halves: The programs must run on either half of the batch (``Objective.halves``).
    """

    slot = "geometry"
    cut: ClassVar[bool] = False
    halves: bool = False

    alpha: Tensor
    factors: Tensor
    cosine: Tensor
    age: Tensor

    def __init__(self, every: int = 1, moved: float = 0.0, fidelity_every: int = 0, cross: bool = False) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every counts steps, from 1, and {every} was given.")
        if not 0 <= moved <= 2:
            raise ValueError(f"moved is a change of a cosine, from 0 to 2, and {moved} was given.")
        if fidelity_every < 0:
            raise ValueError(
                f"fidelity_every counts comparisons, from 1, or is 0 for never, and {fidelity_every} was given."
            )
        if not isinstance(cross, bool):
            raise ValueError(f"cross is True or False, and {cross!r} was given.")
        self.every, self.moved, self.fidelity_every, self.cross = every, moved, fidelity_every, cross

    def options(self) -> dict[str, object]:
        given = (
            ("every", self.every, 1),
            ("moved", self.moved, 0.0),
            ("fidelity_every", self.fidelity_every, 0),
            ("cross", self.cross, False),
        )
        return {name: value for name, value, default in given if value != default}

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
        own = list({id(p): p for parameters in structure.private for p in parameters}.values())
        pairs: list[tuple[Tensor, Tensor]] = []
        for parameters, weights, last in ((own, head_alpha, False), (structure.shared, alpha, rest is None)):
            total = objective.weighted(weights * loss_derivatives)
            if parameters and total is not None and total.requires_grad:
                found = torch.autograd.grad(total, parameters, retain_graph=not last, allow_unused=True)
                pairs += [(p, gradient) for p, gradient in zip(parameters, found, strict=True) if gradient is not None]
        add_gradients(pairs, rest)

    def keep(self, active: Tensor, alpha: Tensor, factors: Tensor, cosine: Tensor) -> None:
        """Remembers what a comparison found, for the tasks that were present."""
        self.alpha[active], self.factors[active] = alpha, factors
        index = active.nonzero().squeeze(-1)
        self.cosine[index[:, None], index] = cosine
        self.age[0] = 0

    def kept(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """The last weights and factors of the tasks present ``(K,)``; 1 for a task that was not compared yet."""
        return self.alpha[active].nan_to_num(nan=1.0), self.factors[active]

    def unmoved(self, active: Tensor, cosine: Tensor) -> bool:
        """Whether the cosines are where they were when the weights were found."""
        if not self.moved:
            return False
        index = active.nonzero().squeeze(-1)
        change = (self.cosine[index[:, None], index] - cosine).abs()
        return bool((change <= self.moved).all())  # NaN, for a task that was not compared yet, has moved


_BLOCK = 1 << 20


@dataclass
class Structure:
    """Which parameters the tasks reach."""

    shared: list[Tensor]
    private: list[list[Tensor]]  # per task

    @property
    def sizes(self) -> list[int]:
        """Number of entries of each shared parameter."""
        return [p.numel() for p in self.shared]

    def parts(self, jacobian: Tensor) -> Sequence[Tensor]:
        """Gradients of all shared parameters ``(K, P)`` parameter by parameter, each ``(K, P_i)``."""
        return jacobian.split(self.sizes, dim=1) if self.shared else ()


def read_structure(objective: Objective) -> Structure:
    """Which parameters the tasks reach, from the autograd graph.

    Shared are those upstream of a marked tensor; without a mark, those that two or more tasks reach. What is shared in one
    of the processes that train together is shared in all.
    """
    own, common = parameters_by_tensor(objective.rows)
    own, common = [trained(each, objective.parameters) for each in own], trained(common, objective.parameters)
    shared = common
    if objective.marks.tensors:
        reached = {*common, *(key for parameters in own for key in parameters)}
        shared = {key: p for key, p in parameters_reached(*objective.marks.tensors).items() if key in reached}
    shared = distributed.union(shared, objective.parameters)
    return Structure(
        shared=list(shared.values()),
        private=[[p for key, p in (parameters | common).items() if key not in shared] for parameters in own],
    )


def add_gradients(pairs: Sequence[tuple[Tensor, Tensor]], rest: Tensor | None) -> None:
    """Adds to every parameter's ``.grad``, once, by autograd's own engine: hooks run as after an ordinary backward.

    Args:
        pairs: Parameters, possibly more than once, and gradients.
        rest: A scalar whose gradient is added too, or None.
    """
    roots, gradients = [p for p, _ in pairs], [gradient for _, gradient in pairs]
    if rest is not None and rest.requires_grad:
        roots.append(rest)
        gradients.append(torch.ones_like(rest))
    if roots:
        torch.autograd.backward(roots, gradients)


def backward(*totals: Tensor | None) -> None:
    """One backward from the sum of scalars, some of which may be absent or depend on no parameter."""
    present = [total for total in totals if total is not None and total.requires_grad]
    if present:
        torch.autograd.backward(present)


def gram_matrix(parts: Sequence[Tensor], size: int, others: Sequence[Tensor] | None = None) -> Tensor:
    """Gram matrix ``(K, K)`` of K gradients, float64 on the host.

    Args:
        parts: The gradients part by part, each ``(K, P_i)``; summed in float64, since parts may differ by decades.
        size: K.
        others: Where products with other gradients are wanted, ``parts others'``: those, in the same parts.
    """
    # In blocks of columns, whose copies in another precision are small.
    both = zip(parts, parts if others is None else others, strict=True)
    pairs = [pair for a, b in both for pair in zip(a.split(_BLOCK, dim=1), b.split(_BLOCK, dim=1), strict=True)]
    gram = torch.zeros(size, size, dtype=torch.float64)
    if pairs:
        gram += torch.stack([exact(a) @ exact(b).T for a, b in pairs]).cpu().double().sum(0)
    if pairs and not in_range(gram.diagonal().abs()).all():
        gram = torch.stack([a.cpu().double() @ b.cpu().double().T for a, b in pairs]).sum(0)
    return gram


def exact(gradients: Tensor) -> Tensor:
    """Gradients in the precision that their products need: on a GPU a setting may run those of float32 in TF32."""
    return gradients.double() if gradients.is_cuda or gradients.dtype == torch.float64 else gradients.float()


def in_range(squares: Tensor) -> Tensor:
    """Which squared norms float32 can hold: it ends at norms of 1e-19 and 1e19."""
    return (squares > 1e-30) & (squares < 1e36)
