"""From a trunk's output to what all heads see, one way a file."""

from bmtl.models.representations.base import Representation
from bmtl.models.representations.bottleneck import Bottleneck
from bmtl.models.representations.deterministic import Deterministic
from bmtl.models.representations.dropout import MCDropout

__all__ = ["Bottleneck", "Deterministic", "MCDropout", "Representation"]
