"""Geometries that see task gradients at the marked tensors only: K passes through the heads, one through the trunk."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.base import Change, Geometry
from bmtl.inference.balancing.gradients import common_dtype, gram_matrix, like, number_of_entries, real_entries
from bmtl.inference.balancing.graph import parameters_by_tensor, parameters_reached, trained
from bmtl.inference.balancing.options import Count, Natural


class AtSharedRepresentation(Geometry):
    """Compares gradients by what reaches the marked tensors; the graph is cut there.

    The pass of a task through its head brings the gradients of its own parameters along. Then one ordinary backward
    through the trunk, from the cut with the weighted gradient; terms of weight 1 that reach the trunk through the mark go
    along. Where tasks share parameters behind the mark too, the heads are part of that backward instead, at each scaled
    loss's own weight: K gradients of what may be large would cost more.
    """

    cut = True

    def __init__(self, every: Count = 1, moved: Change = 0.0, fidelity_every: Natural = 0, cross: bool = False) -> None:
        super().__init__(every, moved, fidelity_every, cross)
        self.deltas: list[Sequence[Tensor | None]] = []  # K x marks, from `measure` to `write_gradients`
        self._heads: list[tuple[Tensor, Tensor, int]] | None = (
            None  # the tasks' own gradients, if found along with them
        )

    def gram(self, objective: Objective) -> Tensor:
        """Gram matrix ``(K, K)`` from each task's gradients at the marked tensors (`deltas`), float64 on the host.

        It has the objective's scale still, squared.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what it compares.")

    def full_gram(self, objective: Objective) -> Tensor:
        tensors = [h for h in objective.marks.tensors if h.requires_grad]
        reached = trained(parameters_reached(*tensors), objective.parameters)
        trunk = list(distributed.union(reached, objective.parameters).values())
        sizes = [number_of_entries(p) for p in trunk]
        device = tensors[0].device if tensors else None
        jacobian = torch.zeros(len(self.deltas), sum(sizes), dtype=common_dtype(trunk), device=device)
        for deltas, row in zip(self.deltas, jacobian, strict=True):
            pairs = zip(objective.marks.tensors, deltas, strict=True)
            used = [(h, delta) for h, delta in pairs if delta is not None and h.requires_grad]
            found: Sequence[Tensor | None] = [None] * len(trunk)
            if used:
                roots, gradients = zip(*used, strict=True)
                found = torch.autograd.grad(roots, trunk, gradients, retain_graph=True, allow_unused=True)
            for view, gradient in zip(row.split(sizes), found, strict=True):
                if gradient is not None:
                    view.copy_(real_entries(gradient.to_dense()))
        distributed.mean_(jacobian)
        return gram_matrix(jacobian.split(sizes, dim=1), len(jacobian)) / objective.scale**2

    def measure(self, objective: Objective, loss_derivatives: Tensor) -> Measured:
        own = check_marks(objective)
        self._heads = None if own is None else []
        self.deltas = self.at_leaves(objective, loss_derivatives, own)
        return Measured(self.gram(objective) / objective.scale**2)

    def at_leaves(
        self, objective: Objective, loss_derivatives: Tensor, own: Sequence[Sequence[Tensor]] | None = None
    ) -> list[Sequence[Tensor | None]]:
        """Each scaled loss's gradients at the marked tensors, K x marks; None where it does not reach one.

        Given each task's `own` parameters, keeps their gradients too, and frees the graph unless `write_gradients` needs it.
        """
        leaves = objective.marks.leaves
        found: list[Sequence[Tensor | None]] = []
        retain = own is None or objective.unweighted_terms is not None or objective.scores is not None
        for k, (row, scale) in enumerate(
            zip(objective.rows, (loss_derivatives * objective.per_datum_scale).tolist(), strict=True)
        ):
            if not row.requires_grad:
                found.append([None] * len(leaves))
                continue
            parameters = () if own is None else own[k]
            gradients = torch.autograd.grad(
                row,
                [*leaves, *parameters],
                grad_outputs=torch.full_like(row, scale),
                retain_graph=retain or k + 1 < len(objective.rows),
                allow_unused=True,
            )
            found.append(gradients[: len(leaves)])
            for parameter, gradient in zip(parameters, gradients[len(leaves) :], strict=True):
                if gradient is not None and self._heads is not None:
                    self._heads.append((parameter, gradient, k))
        return found

    def write_gradients(
        self,
        objective: Objective,
        loss_derivatives: Tensor,
        alpha: Tensor,
        head_alpha: Tensor,
        direction: Tensor | None,
    ) -> None:
        marks, rows, own = objective.marks, self.deltas, self._heads
        self.deltas, self._heads = [], None
        if not objective.rows:  # what a step that failed has left
            rows, own = [], None
        rest = objective.unweighted(alpha * loss_derivatives)
        through: Sequence[Tensor | None] = [None] * len(marks.leaves)
        if rest is not None and rest.requires_grad:
            # KL terms of latents drawn from the representation reach the trunk too, at weight 1.
            through = torch.autograd.grad(rest, marks.leaves, retain_graph=True, allow_unused=True)
        roots: list[Tensor] = []
        gradients: list[Tensor] = []
        if direction is not None:  # in place of the tasks' own gradients
            parts = (direction * objective.scale).split([number_of_entries(leaf) for leaf in marks.leaves])
            rows = [[like(part, leaf) for part, leaf in zip(parts, marks.leaves, strict=True)]]
        weights = alpha.tolist() if direction is None else [1.0]
        for j, h in enumerate(marks.tensors):
            gradient = through[j]
            for deltas, a in zip(rows, weights, strict=True):
                delta = deltas[j]
                if delta is not None:
                    delta = delta.to(torch.promote_types(delta.dtype, torch.float32))  # a weight may be beyond float16
                    gradient = delta * a if gradient is None else torch.add(gradient, delta, alpha=a)
            if gradient is not None and h.requires_grad:
                roots.append(h)
                gradients.append(gradient.to(h.dtype))
        heads = None if own is not None else objective.weighted(head_alpha * loss_derivatives)
        scalars = [t for t in (heads, rest) if t is not None and t.requires_grad]
        weights = head_alpha.tolist()
        for parameter, gradient, k in own or ():
            roots.append(parameter)  # a root too, so that `.grad` is written once, by the engine, as hooks expect
            gradients.append(gradient if weights[k] == 1 else gradient * weights[k])
        if scalars or roots:
            # One pass: the heads' graph ends at the leaves, the trunk's starts at the marked tensors.
            torch.autograd.backward([*scalars, *roots], [*map(torch.ones_like, scalars), *gradients])


def check_marks(objective: Objective) -> list[list[Tensor]] | None:
    """Checks, again in each step since a program may branch, that the marks cut the trunk off.

    Returns:
        Each task's own parameters; None if tasks share some behind the marks.
    """
    marks = objective.marks
    if not marks.tensors:
        raise ValueError(
            "The geometry compares gradients at the shared representation, and the model marks none. Wrap "
            "the trunk's output: h = bmtl.shared(trunk(x)); or use the geometry 'full'."
        )
    trunk = parameters_reached(*marks.tensors)
    if any(id(leaf) in trunk for leaf in marks.leaves):
        raise ValueError(
            "A tensor marked with bmtl.shared is computed from another marked tensor, and the trunk is cut off at the "
            "marks. Mark the representation once, where the tasks part; or use the geometry 'full'."
        )
    own, common = parameters_by_tensor(objective.rows)
    around = trained(trunk, objective.parameters).keys() & {*common, *(key for parameters in own for key in parameters)}
    if around:
        names = sorted(objective.parameter_names.get(key, "?") for key in around)
        raise ValueError(
            f"Parameters of the trunk are also reached around the mark, not through it: {', '.join(names)}. Mark every "
            "path with bmtl.shared, or use the geometry 'full'."
        )
    leaves = {id(leaf) for leaf in marks.leaves}
    if trained(common, objective.parameters).keys() - leaves:
        return None
    return [
        [p for key, p in trained(parameters, objective.parameters).items() if key not in leaves] for parameters in own
    ]
