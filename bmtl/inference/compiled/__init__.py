"""Steps whose program runs as a captured graph instead of as Python."""

from bmtl.inference.compiled.choosing import MODES, Mode
from bmtl.inference.compiled.programs import CompiledPrograms

__all__ = ["MODES", "CompiledPrograms", "Mode"]
