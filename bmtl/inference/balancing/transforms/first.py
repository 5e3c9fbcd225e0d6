"""Each task's first value."""

import torch
from torch import Tensor


def first_seen(kept: Tensor, values: Tensor, active: Tensor) -> Tensor:
    """Each present task's first value that is not NaN.

    Args:
        kept: First values of all tasks ``(K_all,)``, NaN where there is none yet; those that are new are written here.
        values: Values of the present tasks ``(K,)``.
        active: Which tasks are present, bool ``(K_all,)``.

    Returns:
        First values of the present tasks ``(K,)``.
    """
    first = torch.where(kept[active].isnan(), values.detach(), kept[active])
    kept[active] = first
    return first
