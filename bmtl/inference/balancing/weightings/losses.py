"""The losses of a step, for weightings that use them."""

from collections.abc import Sequence

from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured
from bmtl.inference.balancing.weightings.base import Weighting
from bmtl.inference.errors import NonPositiveLoss


def losses_of(weighting: Weighting, names: Sequence[str], m: Measured, ctx: Context, strict: bool = True) -> Tensor:
    """The losses ``(K,)`` of the tasks present, for weightings that divide by them or multiply gradients with them.

    Args:
        weighting: For the messages.
        names: All tasks; empty where they are numbered.
        m: The measurements.
        ctx: The step.
        strict: Losses must be above 0; else, 0 is allowed.

    Raises:
        ValueError: If they are not known.
        NonPositiveLoss: If one is negative, or 0 under `strict`.
    """
    if m.losses is None:
        raise ValueError(f"{weighting!r} needs the tasks' losses, which a Gram matrix alone does not have.")
    outside = m.losses <= 0 if strict else m.losses < 0
    if outside.any():
        k = int(outside.nonzero()[0])
        here = int(ctx.active.nonzero().squeeze(-1)[k])
        name = names[here] if names else str(here)
        raise NonPositiveLoss(weighting.name, name, m.losses[k].item(), strict=strict)
    return m.losses
