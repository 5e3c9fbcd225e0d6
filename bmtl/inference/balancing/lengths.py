"""Slot 4: the scale of the update. Published codes differ here by a factor of K; this makes it a choice with a name."""

import torch
from torch import Tensor

from bmtl.inference.balancing.slots import Slot
from bmtl.inference.errors import StepError


class Length(Slot):
    """Slot 4: the scale of the update."""

    slot = "length"

    def forward(self, alpha: Tensor, gram: Tensor, squared: float | None = None) -> Tensor:
        """Weights ``(K,)`` of the wanted scale: those given, all multiplied by one number.

        Args:
            alpha: Weights ``(K,)``.
            gram: Gram matrix ``(K, K)``.
            squared: Squared length of the update where it is not a combination of gradients; ``alpha' gram alpha`` if None.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it scales weights.")


class AsIs(Length):
    """The weights as the weighting gives them."""

    name = "as-is"

    def forward(self, alpha: Tensor, gram: Tensor, squared: float | None = None) -> Tensor:
        return alpha


class Sum(Length):
    """Weights that sum to K, as equal weights do.

    Raises:
        StepError: If the weights sum to 0 or less: scaling them would turn the update uphill.
    """

    name = "sum"

    def forward(self, alpha: Tensor, gram: Tensor, squared: float | None = None) -> Tensor:
        return alpha * len(alpha) / _positive_sum(alpha, self.name)


class Mean(Length):
    """Weights that sum to 1.

    Raises:
        StepError: If the weights sum to 0 or less: scaling them would turn the update uphill.
    """

    name = "mean"

    def forward(self, alpha: Tensor, gram: Tensor, squared: float | None = None) -> Tensor:
        return alpha / _positive_sum(alpha, self.name)


class Norm(Length):
    """An update as long as that of equal weights.

    An update that has cancelled (at a stationary point) is left alone: it has no direction but that of rounding errors.
    """

    name = "norm"

    def forward(self, alpha: Tensor, gram: Tensor, squared: float | None = None) -> Tensor:
        equal = gram.sum().clamp_min(0.0)
        own = (alpha @ gram @ alpha).clamp_min(0.0) if squared is None else torch.tensor(squared).to(gram)
        parts = alpha.abs() @ gram.diagonal().clamp_min(0.0).sqrt()
        return alpha if own <= (1e-6 * parts) ** 2 else alpha * torch.sqrt(equal / own)


def _positive_sum(alpha: Tensor, name: str) -> Tensor:
    total = alpha.sum()
    if not total > 0:
        raise StepError(
            f"The length {name!r} divides by the sum of the weights, which is {total.item():.3g}; a sum of 0 or less would "
            "turn the update uphill. Use the length 'norm' or 'as-is'."
        )
    return total
