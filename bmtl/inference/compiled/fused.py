"""Lets an optimizer step by one call for all its parameters, where the choice was left to torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_KINDS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


def fuse(optimizer: Any) -> None:
    """Makes an optimizer's steps use torch's fused form on a CPU, where torch itself would loop over the parameters.

    Updates are the same up to rounding. Groups with options that decide on the form keep theirs, and what the optimizer
    saves does not change: the option is set while it steps.

    Args:
        optimizer: Any; those that have no fused form stay as they are.
    """
    if type(optimizer) not in _KINDS:
        return
    changed: list[dict[str, Any]] = []

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            if _is_open(group):
                group["fused"] = True
                changed.append(group)

    def after(*_: Any) -> None:
        for group in changed:
            group["fused"] = None
        changed.clear()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def _is_open(group: dict[str, Any]) -> bool:
    """Whether a group leaves the form to torch, and has parameters that the fused form takes."""
    return (
        group.get("fused", False) is None
        and group["foreach"] is None
        and not group["differentiable"]
        and not isinstance(group["lr"], Tensor)
        and all(p.device.type == "cpu" and p.is_floating_point() for p in group["params"])
        and not any(p.grad is not None and p.grad.is_sparse for p in group["params"])
    )
