"""Half precision in a step: the scale of losses and gradients, and autocast."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def scale_of(scaler: torch.amp.GradScaler | None, device: torch.device) -> float:
    """What a scaler multiplies losses by; 1 without one."""
    if scaler is None:
        return 1.0
    return float(scaler.scale(torch.ones((), device=device)).item())  # its own way to set itself up


def lower_scale(scaler: torch.amp.GradScaler, scale: float) -> None:
    """Lowers a scaler's scale after an overflow, down to 1."""
    scaler.update(max(1.0, scale * scaler.get_backoff_factor()))


def multiply_gradients(parameters: Iterable[Tensor], factor: float) -> None:
    """Multiplies the gradients that are there, in place."""
    if factor != 1.0:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)


def autocast_now(device: torch.device, enabled: bool = True) -> AbstractContextManager[Any]:
    """Autocast as it is now, to come back to it, or switched off."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    cached = torch.is_autocast_cache_enabled()
    return torch.autocast(device.type, torch.get_autocast_dtype(device.type), enabled, cached)
