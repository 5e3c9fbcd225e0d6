"""The parts of a balanced step that are no balancer's: what it must not do, and what it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from bmtl.inference.balancing import Update
from bmtl.inference.errors import NonFinite
from bmtl.inference.losses import TaskLosses
from bmtl.inference.record import StepRecord

_SCALED = (torch.float32, torch.float64)


class GradientsBefore:
    """The gradients that are there before a step adds its own, to put them back where it cannot be taken.

    In an ordinary step there are none; where gradients are accumulated over batches, their copies are kept.

    Args:
        tensors: Parameters of model, guide and balancer.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        self._kept = {id(p): p.grad.clone() for p in tensors if p.grad is not None}

    def leave_out(self, parameters: Iterable[Tensor]) -> None:
        """Takes gradients of 0 from parameters that had none: an optimizer with moments would follow them."""
        for p in parameters:
            if id(p) not in self._kept:
                p.grad = None

    def put_back(self, factor: float = 1.0) -> None:
        """Writes them again, multiplied by a factor."""
        for p in self._tensors:
            kept = self._kept.get(id(p))
            p.grad = kept if kept is None or factor == 1.0 else kept.mul_(factor)


def check_losses(names: Sequence[str], losses: TaskLosses, values: Tensor, rest: float) -> None:
    """Checks that losses are finite.

    Args:
        names: The K tasks.
        losses: The terms, to find the site at fault.
        values: The losses ``(K,)``.
        rest: The terms of weight 1.

    Raises:
        NonFinite: If one is not; names the task and the site.
    """
    bad = [name for name, value in zip(names, values.tolist(), strict=True) if not math.isfinite(value)]
    if not bad and math.isfinite(rest):
        return
    where = f"of {', '.join(map(repr, bad))}" if bad else "of the shared latents"
    sites = losses.nonfinite_sites()
    raise NonFinite(f"the loss {where} is NaN or infinite" + (f" (sites: {', '.join(sites)})." if sites else "."))


def check_gradients(parameters: Sequence[Tensor], names: Mapping[int, str], tasks: Sequence[str]) -> None:
    """Checks that gradients are finite.

    Args:
        parameters: Those that have them.
        names: Their names by `id`.
        tasks: The tasks of the batch.

    Raises:
        NonFinite: If one is not; names the parameters.
    """
    found = [(p, gradient) for p in parameters if (gradient := p.grad) is not None]
    if _are_finite([_entries(gradient) for _, gradient in found]):
        return
    bad = [names[id(p)] for p, gradient in found if not _entries(gradient).isfinite().all()]
    if bad:  # else a norm overflowed, and the gradients are finite
        raise NonFinite(
            f"the gradient of {', '.join(bad)} is NaN or infinite (tasks in this batch: {', '.join(tasks)})."
        )


def make_record(
    names: tuple[str, ...],
    values: Tensor,
    rest: float,
    active: Tensor,
    update: Update | None,
    events: Iterable[str],
    *,
    step: int,
    epoch: int,
    lr: float,
) -> StepRecord:
    """The record of a step.

    Args:
        names: The K tasks.
        values: Their losses ``(K,)``.
        rest: The terms of weight 1.
        active: Which tasks were present ``(K,)``.
        update: What the balancer did; None where the step was skipped.
        events: What was out of the ordinary.
        step: Number of the step.
        epoch: Number of the epoch.
        lr: Learning rate.
    """
    k, everybody = len(names), all(active.tolist())

    def scattered(found: Tensor | None) -> Tensor:
        if found is not None and len(found) == k:
            return found
        full = torch.full((k,), torch.nan, dtype=torch.float64)
        if found is not None:
            full[active] = found
        return full

    gram = None
    if update is not None and update.gram is not None:
        gram = update.gram.clone()
        if not everybody:
            gram = torch.full((k, k), torch.nan, dtype=torch.float64)
            index = active.nonzero().squeeze(-1)
            gram[index[:, None], index] = update.gram
    solution = None if update is None else update.solution
    return StepRecord(
        step=step,
        epoch=epoch,
        names=names,
        losses=values.clone() if everybody else torch.where(active, values, torch.nan),
        shared=float(rest),
        active=active.clone(),
        weights=scattered(None if update is None else update.weights),
        weights_heads=scattered(None if update is None else update.weights_heads),
        alpha=scattered(None if update is None else update.alpha),
        gram=gram,
        combination=solution is None or solution.direction is None,
        lr=lr,
        residual=float("nan") if solution is None else float(solution.residual),
        iterations=0 if solution is None else int(solution.iterations),
        status="skipped" if update is None else "ok" if solution is None else solution.status,
        length="" if update is None else update.length,
        gradients="" if update is None else update.gradients,
        fidelity=float("nan") if update is None else float(update.fidelity),
        seconds={} if update is None else update.seconds,
        events=tuple(events),
    )


def _entries(gradient: Tensor) -> Tensor:
    """The entries that an embedding's sparse gradient holds, or any other's own."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _are_finite(gradients: list[Tensor]) -> bool:
    """Whether all gradients are finite; their norms may overflow, and are then none."""
    kinds = {(gradient.dtype, gradient.device) for gradient in gradients}
    if len(kinds) == 1 and next(iter(kinds))[0] in _SCALED and all(map(Tensor.is_contiguous, gradients)):
        # What a gradient scaler looks for, in one call; multiplied by 1, they stay the same.
        _, device = kinds.pop()
        found, one = (make((), dtype=torch.float32, device=device) for make in (torch.zeros, torch.ones))
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, one)
        return found.item() == 0.0
    norms = torch._foreach_norm(gradients) if gradients else ()
    if len({norm.device for norm in norms}) == 1:
        return bool(torch.stack(list(norms)).isfinite().all())
    return all(bool(norm.isfinite()) for norm in norms)
