"""The trunk's output itself."""

from torch import Tensor

from bmtl.models.representations.base import Representation
from bmtl.models.rows import Rows
from bmtl.tasks import shared


class Deterministic(Representation):
    """``h = trunk(x)``; in training ``trunk.apart(x)`` where the trunk has it, see `bmtl.models.networks.Tabular`."""

    def forward(self, rows: Rows) -> Tensor:
        trunk = getattr(self.trunk, "apart", self.trunk) if self.training else self.trunk
        return shared(trunk(rows.x))
