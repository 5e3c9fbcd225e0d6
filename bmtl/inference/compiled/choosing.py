"""Which way of running steps is possible here, and which one repays itself."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import sysconfig
import time
from pathlib import Path
from typing import Literal, get_args

logger = logging.getLogger(__name__)

Mode = Literal[False, "trace", "inductor", "auto"]
MODES: tuple[str, ...] = get_args(Mode)[1:]

_SAVED = 6e-6  # seconds a step that compiling saves for each operation of the graph; from benchmarks/task_model.py
_FIXED, _EACH = 3.0, 0.03  # seconds that compiling takes: at least, and for each operation


def missing_compiler() -> str:
    """What torch's inductor lacks on this machine, "" if nothing."""
    command = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(command.split()[0]) is None:
        return f"there is no C++ compiler {command!r} on PATH (the environment variable CXX names another)"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if header.exists() else f"Python's header {header} is not installed"


def check_mode(mode: Mode) -> None:
    """Checks that steps can be compiled where that is what is asked for.

    Raises:
        RuntimeError: If "inductor" lacks a C++ compiler.
    """
    if mode == "inductor" and (missing := missing_compiler()):
        raise RuntimeError(
            f"compile='inductor' compiles C++ code, and {missing}. Install one, or use compile='trace', which needs none, "
            "or 'auto', which takes what there is."
        )


class Pace:
    """Measures how long steps take, and says when the steps that are left repay compiling.

    Attributes:
        left: Steps that are left, where known; otherwise as many as were taken are expected.
    """

    def __init__(self) -> None:
        self.left: int | None = None
        self._taken = 0
        self._last = 0.0
        self._seconds = 0.0

    def tick(self) -> None:
        """Notes that a step has begun."""
        now = time.perf_counter()
        if self._taken:
            self._seconds += min(now - self._last, 1.0)  # an epoch's end lies between two steps too
        self._last = now
        self._taken += 1
        if self.left:
            self.left -= 1

    def repays(self, operations: int) -> bool:
        """Whether compiling a graph of so many operations saves more time than it takes.

        Args:
            operations: In the captured graph.
        """
        if self._taken < 20:
            return False
        left = self._taken if self.left is None else self.left
        step = self._seconds / (self._taken - 1)
        saved, cost = left * min(_SAVED * operations, step / 2), _FIXED + _EACH * operations
        if saved < cost:
            return False
        logger.info(
            "Compiling the program's %d operations: about %.0f s, and %.0f s less for the %d steps that are %s.",
            *(operations, cost, saved, left, "left" if self.left is not None else "expected"),
        )
        return True
