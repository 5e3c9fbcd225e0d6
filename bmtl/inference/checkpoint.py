"""Checkpoints of a training run: plain tensors and values, written atomically, checked when they are read."""

from __future__ import annotations

import os
import pickle
import random
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from bmtl.inference.svi import BalancedSVI

_FORMAT = 1
_DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


class CheckpointError(ValueError):
    """A file that is no intact checkpoint, or belongs to another model."""


def save(svi: BalancedSVI, path: str | Path) -> None:
    """Writes everything that the next steps depend on: parameters, optimizer, balancer, history, random generators.

    The file appears whole or not at all. `fit` writes its own checkpoints; this is for loops of your own.

    Args:
        svi: A run after its first batch.
        path: The file.
    """
    path = Path(path)
    check_folder(path.parent)
    state = {"format": _FORMAT, "svi": svi.state_dict(), "random": random_state()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(svi: BalancedSVI, path: str | Path) -> None:
    """Takes up a run where `save` left it, bit for bit: the next n steps equal those of the uninterrupted run.

    Args:
        svi: Built as the saved one was. Before its first batch, the state is taken up with that batch (an AutoGuide has
            no parameters before).
        path: The file.

    Raises:
        CheckpointError: If the file is missing, truncated, no checkpoint, or of another model.
    """
    state = check_file(path)
    if "svi" not in state or "random" not in state:
        raise CheckpointError(f"{path} is a checkpoint of another kind; resume it with bmtl.fit(..., resume=...).")
    if state["format"] != _FORMAT:
        raise CheckpointError(f"{path} has format {state['format']}, and this version of bmtl reads format {_FORMAT}.")
    try:
        svi.load_state_dict(state["svi"])
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit: {error}") from error
    set_random_state(state["random"])


def check_file(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint.

    Raises:
        CheckpointError: If it is missing, truncated or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch itself compares no check sums
                raise zipfile.BadZipFile
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} is no intact checkpoint ({type(error).__name__}). It may have been cut off while it was copied; use "
            "another copy, or the other of best.ckpt and last.ckpt."
        ) from error
    if not isinstance(state, dict) or not ({"svi", "random"} <= set(state) or "bmtl" in state):
        raise CheckpointError(f"{path} was not written by bmtl.")
    return state


def check_folder(folder: str | Path) -> Path:
    """Makes a folder and tries to write in it.

    Raises:
        OSError: If it cannot be made or written, with the folder's name.
    """
    folder = Path(folder).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(error.errno, f"The folder cannot be written ({error.strerror})", str(folder)) from error
    return folder


def random_state() -> dict[str, Any]:
    """The states of torch's, numpy's and Python's global generators, as plain values."""
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - users' models may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
