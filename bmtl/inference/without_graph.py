"""Runs of programs that need no gradients, although a program may take derivatives itself."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

T = TypeVar("T")
Mode = Callable[[], AbstractContextManager[object]]
"""Makes the context in which programs are to run."""


def without_graph(run: Callable[[Mode], T]) -> T:
    """What `run` gives under ``torch.no_grad()``, so that no graph takes memory.

    A program that differentiates (forces from energies, a PDE's residual) cannot run so. `run` is then called once more, and
    the context that it gets, in which it must run the programs, builds a graph. It must give the same at the second call, so
    it seeds what it draws.
    """
    with torch.no_grad():
        try:
            return run(nullcontext)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
        with torch.inference_mode(False):
            return run(torch.enable_grad)
