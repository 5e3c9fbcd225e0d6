"""The trunk's output itself."""

from torch import Tensor

from bmtl.models.networks.layers import of_width
from bmtl.models.representations.base import Representation
from bmtl.models.rows import Rows
from bmtl.tasks import shared


class Deterministic(Representation):
    """``h = trunk(x)``; in training ``trunk.apart(x, shared)``, where the trunk has it and it may be."""

    def forward(self, rows: Rows) -> Tensor:
        apart = getattr(self.trunk, "apart", None) if self.training and self.may_be_apart else None
        return shared(of_width(self.trunk(rows.x), self.width)) if apart is None else apart(rows.x, shared)
