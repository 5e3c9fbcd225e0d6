"""The state that a run of a program changes: random generators (of torch, Python and numpy), buffers, extra state."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn.parameter import is_lazy

from bmtl.inference.programs import generators, set_generators


class Moment:
    """What it is now; `restore` puts it back.

    Args:
        modules: The modules of model and guide.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.generators = generators()
        self.of_python = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
        self.buffers: list[tuple[Tensor, Tensor]] = []
        self.extra: list[tuple[nn.Module, Any]] = []
        for module in modules:
            self.buffers += [(b, b.clone()) for b in module._buffers.values() if b is not None and not is_lazy(b)]
            if type(module).get_extra_state is not nn.Module.get_extra_state:
                self.extra.append((module, copy.deepcopy(module.get_extra_state())))

    @torch.no_grad()
    def restore(self) -> None:
        """Puts it back."""
        set_generators(self.generators)
        random.setstate(self.of_python[0])
        np.random.set_state(self.of_python[1])  # noqa: NPY002
        for buffer, value in self.buffers:
            if not torch.equal(buffer, value):
                # A graph that has saved the buffer stays valid: by its backward pass the values are what they were.
                with _unsafe_preserve_version_counter(buffer):
                    buffer.copy_(value)
        for module, state in self.extra:
            module.set_extra_state(state)

    def changed_state(self) -> list[str]:
        """Names of the classes of modules whose extra state has changed since then."""
        return [type(module).__name__ for module, state in self.extra if not _same(module.get_extra_state(), state)]

    def has_same_generators(self, other: Moment) -> bool:
        """Whether random numbers would be the same from here on."""
        if pickle.dumps(self.of_python) != pickle.dumps(other.of_python):
            return False
        pairs = zip(self.generators[1], other.generators[1], strict=True)
        return torch.equal(self.generators[0], other.generators[0]) and all(torch.equal(a, b) for a, b in pairs)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
