"""The trunk's output itself."""

from torch import Tensor

from bmtl.models.networks.layers import of_width
from bmtl.models.representations.base import Representation
from bmtl.models.rows import Rows
from bmtl.tasks import shared


class Deterministic(Representation):
    """``h = trunk(x)``; in training ``trunk.apart(x)``, where the trunk has it and it may be."""

    def forward(self, rows: Rows) -> Tensor:
        apart = self.training and self.may_be_apart
        trunk = getattr(self.trunk, "apart", self.trunk) if apart else self.trunk
        return shared(of_width(trunk(rows.x), self.width))
