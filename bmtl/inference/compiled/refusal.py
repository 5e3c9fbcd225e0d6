"""Why a program cannot run as a captured graph, and the statement that is the reason."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType, TracebackType

import pyro
import torch

_LIBRARIES = tuple(str(Path(module.__file__ or "").parent) for module in (torch, pyro))
_OWN = str(Path(__file__).parents[2])
_MODELS = str(Path(_OWN) / "models")
_RUNS = str(Path(_OWN) / "inference" / "programs.py")  # calls the program; further out there is none of it


class CannotCaptureError(Exception):
    """A program does something that a captured graph would not repeat.

    Args:
        reason: What it does.
        statement: Where, from `statement_at`; "" where it is not known.
    """

    def __init__(self, reason: str, statement: str = "") -> None:
        super().__init__(f"{reason} ({statement})" if statement else reason)


def current_statement() -> str:
    """The innermost statement of the program that is running: file, line and text."""
    frames: list[tuple[str, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return statement_of(frames)


def raising_statement(traceback: TracebackType | None) -> str:
    """The innermost statement of the program from which an error came."""
    frames: list[tuple[str, int]] = []
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return statement_of(reversed(frames))


def statement_of(frames: Iterable[tuple[str, int]]) -> str:
    """The first of these places, innermost first, that is the user's own; else the first in one of bmtl's models.

    Args:
        frames: File names and line numbers.
    """
    found = ""
    for name, line in frames:
        if name == _RUNS:
            break
        if name.startswith(_LIBRARIES) or name.startswith("<") or "/lib/python3" in name:
            continue
        if not name.startswith(_OWN):
            return _described(name, line)
        if name.startswith(_MODELS) and not found:
            found = _described(name, line)
    return found


def _described(name: str, line: int) -> str:
    text = linecache.getline(name, line).strip()
    return f"{Path(name).name}:{line}: {text}" if text else f"{Path(name).name}:{line}"
