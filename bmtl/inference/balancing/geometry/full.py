"""The exact gradients of all shared parameters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.base import Change, Geometry
from bmtl.inference.balancing.geometry.known_layers import known_layers
from bmtl.inference.balancing.geometry.layer_kinds import Layer
from bmtl.inference.balancing.gradients import (
    Structure,
    add_gradients,
    common_dtype,
    gram_matrix,
    like,
    read_structure,
    real_entries,
)
from bmtl.inference.balancing.options import Count


class Full(Geometry):
    """Compares the gradients of all shared parameters (K backwards, at most K x P numbers held once).

    The shared parameters are those upstream of a tensor marked with `bmtl.shared`; in a program without a mark, those
    that two or more tasks reach in the autograd graph. Parameters that no task reaches are left alone. The gradients of
    the heads come from the same K passes, and the shared update is ``J' alpha``: there is no further pass through the trunk.
    What several tasks reach behind a mark (heads that are stacked) has a separate pass, from the losses to there.

    Where no slot needs the gradients themselves, those of linear layers and convolutions with fewer rows than inputs, and
    of embeddings, are not formed: their products and their combination follow from the layer's inputs and output gradients
    (`layer_kinds`), in half the time and with K x R x d_out numbers. All other parameters' gradients come from autograd in
    the same K passes. The choice is made layer by layer, by cost, and is in the record (``StepRecord.gradients``). The Gram
    matrix and the update are the same, up to rounding.

    Args:
        every: Compare every n-th step and keep the weights in between.
        moved: Keep the weights while no cosine of task gradients has moved by more than this.
        cross: Also measure the Gram matrix between two independent samples: ``X = (J1 J2' + J2 J1') / 2`` of the two halves
            of the batch, each with its own draws of all latents. It is unbiased for the mean gradients' Gram matrix, whose
            diagonal one sample overstates by the noise. ``J = (J1 + J2) / 2``, and losses, heads and terms of weight 1 are
            means over the halves too, so a loss is a mean of means where labels are missing. A task must have labels in
            both halves to be present. Costs 2 K backwards of half the batch, and 2 K x P numbers while it measures; the
            programs run through `bmtl.BalancedSVI`, and the batch's rows must be in random order.
    """

    name = "full"
    cost = "K backwards"

    def __init__(self, every: Count = 1, moved: Change = 0.0, cross: bool = False) -> None:
        super().__init__(every, moved, cross=cross)
        self.halves = cross
        self._structure = Structure([], [])
        self._private: list[tuple[Tensor, Tensor, int]] = []
        self._layers: list[tuple[Layer, Tensor]] = []  # with what they keep of each task (K, ...)
        self._wanted = True
        self._jacobian = torch.empty(0, 0)  # (K, P), from `measure` to `write_gradients`
        # Kept between steps, since new pages cost a tenth of one: memory of the Jacobian, and of layers by their weights.
        self._memory = torch.empty(0, 0)
        self._pages: dict[int, Tensor] = {}

    @property
    def gives(self) -> frozenset[str]:
        return super().gives | {"jacobian"}

    def measure(self, objective: Objective, loss_derivatives: Tensor) -> Measured:
        # Read again each step, for a hundredth of the K backwards: a program may branch, and one balancer may serve two
        # models. A parameter missing from an old structure would silently stay unchanged.
        structure = self._structure = read_structure(objective)
        self._private, self._layers = [], []
        if not self.cross:
            layers = []
            if not self._wanted and len(objective.rows) > 1 and distributed.world_size() == 1:
                layers = known_layers(objective.rows, structure.shared)
                tensors = len(structure.shared)
                apart = {id(p) for layer in layers for p in layer.parameters}
                structure.shared = [p for p in structure.shared if id(p) not in apart]
            jacobian = self._jacobian = self._gradients(objective, loss_derivatives, layers)
            gram = gram_matrix(structure.parts(jacobian), len(jacobian))
            for layer, kept in self._layers:
                gram += layer.gram(kept) / objective.scale**2
            if not layers:
                return Measured(gram, jacobian, gradients="formed")
            return Measured(gram, gradients=f"{tensors - len(structure.shared)} of {tensors} by layer")
        if objective.halves is None:
            raise ValueError(
                "'full(cross=True)' takes its two samples from the halves of a batch, which bmtl.BalancedSVI makes. Use it "
                "there, or take 'last-layer(cross=True)', which needs one run."
            )
        # Each half counts for half of the step, and one's product with the other is that of two independent samples.
        one, two = (self._gradients(half, loss_derivatives) for half in objective.halves)
        cross = gram_matrix(structure.parts(one), len(one), structure.parts(two))
        self._private = [(parameter, gradient / 2, k) for parameter, gradient, k in self._private]
        jacobian = self._jacobian = one.add_(two).div_(2)
        return Measured(gram_matrix(structure.parts(jacobian), len(jacobian)), jacobian, cross=(cross + cross.T) / 2)

    def expect(self, gradients: bool) -> None:
        self._wanted = gradients

    def _gradients(self, objective: Objective, loss_derivatives: Tensor, layers: Sequence[Layer] = ()) -> Tensor:
        """The scaled losses' gradients of the shared parameters ``(K, P)``; those of the others go to `_private`.

        What `layers` keep of those at their outputs goes to `_layers`.
        """
        structure = self._structure
        edges = [edge for layer in layers for edge in layer.edges]
        kept = [_Kept(layer, len(objective.rows)) for layer in layers]
        scale = loss_derivatives * objective.per_datum_scale
        # Parameters may differ in precision; products of gradients need float32 at least.
        device = (structure.shared[0] if structure.shared else objective.rows[0]).device
        shape = len(objective.rows), sum(structure.sizes)
        jacobian = self._empty(shape, common_dtype(structure.shared), device)
        # The rest of the graph is walked after the weights are known, in `write_gradients`.
        rest = objective.unweighted_terms is not None or objective.scores is not None or bool(structure.behind)
        for k, row in enumerate(objective.rows):
            wanted: list[Any] = [*structure.shared, *structure.private[k], *edges]
            if not wanted or not row.requires_grad:
                jacobian[k] = 0
                for of in kept:
                    of.put(k, [None] * len(of.layer.use.nodes), self._pages)
                continue
            gradients: Sequence[Tensor | None] = torch.autograd.grad(
                row,
                wanted,
                grad_outputs=torch.full_like(row, scale[k].item()),
                retain_graph=rest or k + 1 < len(objective.rows),
                allow_unused=True,
            )
            views = jacobian[k].split(structure.sizes)
            for view, gradient in zip(views, gradients[: len(views)], strict=True):
                if gradient is None:
                    view.zero_()
                else:  # an embedding's may be sparse
                    view.copy_(real_entries(gradient.to_dense()))
            own = gradients[len(views) : len(wanted) - len(edges)]
            for parameter, gradient in zip(structure.private[k], own, strict=True):
                if gradient is not None:
                    self._private.append((parameter, gradient, k))
            first = len(wanted) - len(edges)
            for of in kept:
                last = first + len(of.layer.use.nodes)
                of.put(k, gradients[first:last], self._pages)
                first = last
        self._layers = [(of.layer, of.rows) for of in kept if of.rows is not None]
        distributed.mean_(jacobian)  # before any product: the processes' own Gram matrices lack those between processes
        return jacobian if objective.scale == 1.0 else jacobian.div_(objective.scale)

    def _empty(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for a Jacobian ``(K, P)``; under `cross` there are two at a time."""
        if self.cross:
            return torch.empty(shape, dtype=dtype, device=device)
        if (self._memory.shape, self._memory.dtype, self._memory.device) != (shape, dtype, device):
            self._memory = torch.empty(0, 0)  # let go of the old first
            self._memory = torch.empty(shape, dtype=dtype, device=device)
        return self._memory

    def write_gradients(
        self,
        objective: Objective,
        loss_derivatives: Tensor,
        alpha: Tensor,
        head_alpha: Tensor,
        direction: Tensor | None,
    ) -> None:
        structure, private, jacobian, layers = self._structure, self._private, self._jacobian, self._layers
        if not objective.rows:  # what a step that failed has left
            structure, private, layers = Structure([], []), [], []
        rest = objective.unweighted(alpha * loss_derivatives)
        self._structure, self._private, self._jacobian, self._layers = Structure([], []), [], torch.empty(0, 0), []
        weights = head_alpha.tolist()
        pairs = [(p, gradient if weights[k] == 1 else gradient * weights[k]) for p, gradient, k in private]
        pairs += _behind(objective, structure.behind, head_alpha * loss_derivatives, rest is not None)
        if structure.shared:
            update = (
                (alpha * objective.scale).to(jacobian) @ jacobian if direction is None else direction * objective.scale
            )
            parts = zip(structure.shared, update.split(structure.sizes), strict=True)
            pairs += [(p, like(part, p)) for p, part in parts]
        for layer, kept in layers:
            pairs += layer.gradients(torch.tensordot(alpha.to(kept), kept, dims=1))
        add_gradients(pairs, rest)


class _Kept:
    """What a layer keeps of each of K tasks.

    Attributes:
        layer: The layer.
        rows: ``(K, ...)``, None as long as no task has reached the layer.
    """

    def __init__(self, layer: Layer, tasks: int) -> None:
        self.layer, self._tasks = layer, tasks
        self.rows: Tensor | None = None

    def put(self, k: int, deltas: Sequence[Tensor | None], pages: dict[int, Tensor]) -> None:
        """Receives a task's gradients at the layer's outputs; takes memory from `pages`, or leaves it there."""
        row = self.layer.kept(deltas)
        if row is not None and self.rows is None:
            key, shape = id(self.layer.use.weight), (self._tasks, *row.shape)
            found = pages.get(key)
            if found is None or (found.shape, found.dtype, found.device) != (shape, row.dtype, row.device):
                found = pages[key] = row.new_empty(shape)
            self.rows = found
            self.rows[:k] = 0
        if self.rows is not None:
            self.rows[k] = 0 if row is None else row


def _behind(
    objective: Objective, parameters: Sequence[Tensor], weights: Tensor, retain: bool
) -> list[tuple[Tensor, Tensor]]:
    """Gradients of the weighted sum of the losses by parameters that lie behind the marks, in one pass."""
    total = objective.weighted(weights) if parameters else None
    if total is None or not total.requires_grad:
        return []
    found = torch.autograd.grad(total, parameters, retain_graph=retain, allow_unused=True)
    return [(p, gradient) for p, gradient in zip(parameters, found, strict=True) if gradient is not None]
