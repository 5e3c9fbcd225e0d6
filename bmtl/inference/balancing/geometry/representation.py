"""The gradients of the shared representation itself."""

import torch
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Objective
from bmtl.inference.balancing.geometry.at_shared_representation import AtSharedRepresentation
from bmtl.inference.balancing.geometry.base import Change
from bmtl.inference.balancing.gradients import gram_matrix
from bmtl.inference.balancing.options import Count, Natural


class Representation(AtSharedRepresentation):
    """Compares gradients of the shared representation, example by example, in place of those of parameters.

    ``G = D D'`` with each task's gradient at the marked tensors as a row of D, flattened. This is the upper bound of
    MGDA-UB (Sener & Koltun 2018), not the Gram matrix of the parameters' gradients: two tasks whose gradients of a weight
    cancel over the batch may look aligned here. `fidelity_every` says how much that matters.

    The program must mark its shared representation with `bmtl.shared`.

    Args:
        every: Compare every n-th step and keep the weights in between.
        moved: Keep the weights while no cosine of task gradients has moved by more than this.
        fidelity_every: Every n-th comparison, record the cosine with the update from the full gradients.
        cross: Not possible here: each example's gradient has its own coordinates, which no other sample shares.

    Raises:
        ValueError: If nothing is marked, or a parameter of the trunk is also reached around the mark; for `cross`.
    """

    name = "representation"
    paper = "Sener & Koltun 2018"
    cost = "1 backward + K heads"

    def __init__(self, every: Count = 1, moved: Change = 0.0, fidelity_every: Natural = 0, cross: bool = False) -> None:
        if cross:
            raise ValueError(
                "'representation' has no two-sample Gram matrix: each example's gradient has coordinates of its own, and "
                "two samples share none. Use 'last-layer(cross=True)' or 'full(cross=True)'."
            )
        super().__init__(every, moved, fidelity_every)

    def gram(self, objective: Objective) -> Tensor:
        parts = []
        for j, leaf in enumerate(objective.marks.leaves):
            rows = [torch.zeros_like(leaf) if deltas[j] is None else deltas[j] for deltas in self.deltas]
            parts.append(torch.stack(rows))  # type: ignore[arg-type]
        return distributed.inner_products(gram_matrix(parts, len(self.deltas)))
