"""Steps whose program runs as a captured graph instead of as Python."""

from bmtl.inference.compiled.programs import MODES, CompiledPrograms, Mode

__all__ = ["MODES", "CompiledPrograms", "Mode"]
