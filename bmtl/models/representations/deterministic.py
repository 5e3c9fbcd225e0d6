"""The trunk's output itself."""

from torch import Tensor

from bmtl.models.representations.base import Representation
from bmtl.models.rows import Rows
from bmtl.tasks import shared


class Deterministic(Representation):
    """``h = trunk(x)``."""

    def forward(self, rows: Rows) -> Tensor:
        return shared(self.trunk(rows.x))
