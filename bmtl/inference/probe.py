"""Records cosines between the gradients of chosen objectives, without affecting training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.arguments import whole_number
from bmtl.inference.balancing.base import Objective
from bmtl.inference.balancing.gradients import gram_matrix
from bmtl.inference.balancing.graph import parameters_reached, trained
from bmtl.tasks import check_names


class ConflictProbe(Callback):
    """Measures the cosine between the gradients of pairs of objectives, and leaves training unchanged, bit for bit.

    The gradients are those of the losses that a balancer would see, before any transform (a cosine is scale-invariant),
    flattened over the parameters on which both objectives depend in the autograd graph, on either side of a mark: for
    MT-ENet's two losses the trunk and the head that both use, as in figure 5 of its paper. Score-function terms are left
    out. All tasks depend on a head that is stacked over tasks in one tensor.

    Cosines are recorded (``StepRecord.probed``) and written to ``cosine`` of the results tree's ``training``, where
    they replace what the balancer's own geometry may have measured for the pair. To see all pairs of tasks
    no probe is needed: a geometry without a weighting (``"ew >> full(every=10)"``) compares them for the record, on the
    parameters of that geometry.

    As a callback, ``bmtl.fit(svi, ..., callbacks=[ConflictProbe(...)])``, it watches that fit. In a loop of your own,
    ``svi.probe = ConflictProbe(...)`` before the first step. A resumed run needs it again.

    Args:
        pairs: Pairs of task names, such as ``[("affinity/nll", "affinity/mse")]``.
        every: Measure every n-th step of the run.
        shadow: Tasks that are measured but not trained: losses that the model has for comparison only. To the balancer
            they are absent in every step, and they do not count in ``val/loss``. Their losses are recorded, without
            weights. Their own latents, if any, would follow the KL divergence alone.

    Raises:
        TypeError: If `every` is not a whole number, or a name no string.
        ValueError: If nothing is to be measured, a pair is not of two names, or `every` is below 1. At the first step: if
            the model has no such task, or every task is a shadow.

    Each measured step costs a backward for each objective named in a pair.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], *, every: int = 1, shadow: Sequence[str] = ()) -> None:
        self.pairs = [tuple(pair) for pair in pairs]
        wrong = [pair for pair in self.pairs if len(set(pair)) != 2 or len(pair) != 2]
        if wrong or not self.pairs:
            raise ValueError(
                f"A probe measures pairs of two task names, such as [('a', 'b')], and {list(pairs)!r} was given."
            )
        self.every = whole_number("every", every, 1, "a number of steps")
        self.shadow = check_names(shadow) if shadow else ()

    def trained(self, names: Sequence[str]) -> Tensor:
        """Which of the model's tasks are not shadows, bool ``(K,)``.

        Raises:
            ValueError: If a task of a pair, or a shadow, is not among `names`, or nothing is left to train.
        """
        unknown = [n for n in dict.fromkeys([*self.shadow, *(n for p in self.pairs for n in p)]) if n not in names]
        if unknown:
            raise ValueError(
                f"The probe names the tasks {unknown}, and the model has {list(names)}. Mark the objective in the model: "
                "with bmtl.task(name): ..."
            )
        trained = torch.tensor([name not in self.shadow for name in names])
        if not trained.any():
            raise ValueError(f"All tasks are shadows, {list(self.shadow)}, and nothing is left to train.")
        return trained

    def measure(self, objective: Objective) -> dict[tuple[str, str], float]:
        """The cosine of each pair; NaN where a task is absent, a gradient is zero, or nothing is reached by both.

        Args:
            objective: The losses of all tasks present, with their graph, which stays.
        """
        rows = dict(zip(objective.names, objective.rows, strict=True))
        gradients: dict[str, dict[int, Tensor]] = {}
        found: dict[tuple[str, str], float] = {}
        trunk = parameters_reached(*objective.marks.tensors)
        for a, b in self.pairs:
            found[a, b] = math.nan
            if a not in rows or b not in rows:
                continue
            for name in (a, b):
                if name not in gradients:
                    gradients[name] = _gradients(rows[name], objective)
            one, two = gradients[a], gradients[b]
            # Behind the marks, heads in one statement are reached by both, with gradients of 0 for another's.
            both = [key for key in one if key in two and (key in trunk or bool(one[key].any() and two[key].any()))]
            gram = gram_matrix([torch.stack([one[key], two[key]]) for key in both], 2)
            lengths = gram[0, 0].sqrt() * gram[1, 1].sqrt()
            if lengths > 0:
                found[a, b] = (gram[0, 1] / lengths).item()
        return found

    # ---- Under `fit` ---------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        svi: Any = pl_module.svi  # a BalancedSVI
        if svi.probe is not None and svi.probe is not self:
            raise ValueError("This run has a probe already: give one ConflictProbe all pairs.")
        svi.probe = self

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.svi.probe = None  # type: ignore[union-attr]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")


def _gradients(row: Tensor, objective: Objective) -> dict[int, Tensor]:
    """A loss's gradient of every parameter that it reaches, flat, by the parameter's `id`.

    Where the graph is cut at the marked tensors, the gradients at the leaves are carried on through the trunk. Processes
    that train together take the mean of theirs.
    """
    reached = trained(parameters_reached(row), (*objective.parameters, *objective.marks.leaves))
    found = _by_parameter([row], reached, None)
    pairs = list(zip(objective.marks.tensors, objective.marks.leaves, strict=False))  # no leaves: not cut
    through = [(h, found.pop(id(leaf)).view_as(leaf)) for h, leaf in pairs if id(leaf) in found]
    through = [(h, delta) for h, delta in through if h.requires_grad]
    if through:
        roots, deltas = zip(*through, strict=True)
        trunk = trained(parameters_reached(*roots), objective.parameters)
        for key, gradient in _by_parameter(roots, trunk, deltas).items():
            found[key] = found[key] + gradient if key in found else gradient
    reached = distributed.union(found, objective.parameters)
    # Copies: two parameters may get one tensor, and the mean is taken in place.
    return {
        key: distributed.mean_(found[key].clone() if key in found else p.new_zeros(p.numel()))
        for key, p in reached.items()
    }


def _by_parameter(
    roots: Sequence[Tensor], parameters: dict[int, Tensor], gradients: Sequence[Tensor] | None
) -> dict[int, Tensor]:
    if not parameters:
        return {}
    options: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
    found = torch.autograd.grad(roots, list(parameters.values()), gradients, **options)
    return {key: g.to_dense().reshape(-1) for key, g in zip(parameters, found, strict=True) if g is not None}
