"""Checkpoints of a training run: plain tensors and values, written atomically, read back, checked when they are read."""

from __future__ import annotations

import os
import pickle
import random
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmtl.inference.errors import CheckpointError
from bmtl.inference.plain import digest, plain
from bmtl.inference.state import check_fields, check_structure
from bmtl.inference.svi import BalancedSVI

SCHEMA = 3
"""Number of the checkpoints' form; a file of another is refused."""

_DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
_ALTERED = (
    "Its content is not what was written: the digest differs. Use another copy, or the other of best.ckpt, last.ckpt."
)
_RANDOM: dict[str, type] = {"torch": Tensor, "cuda": list, "numpy": list, "python": tuple}


def save(svi: BalancedSVI, path: str | Path) -> None:
    """Writes everything that the next steps depend on: parameters, optimizer, balancer, history, random generators.

    In the middle of an accumulation, gradients that the optimizer has not used yet are among it.

    The file appears complete and verified by reading it back, or not at all. `fit` writes its own checkpoints; this
    function is for your own loops.

    Args:
        svi: A run after its first batch.
        path: The file.

    Raises:
        ValueError: Before the first batch, when there is nothing to save.
        CheckpointError: If the state holds something that no checkpoint may (an optimizer's or a balancer's own class).
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check_folder(path.parent)
    write(sealed({"bmtl": {"svi": svi.state_dict(), "random": random_state()}}), path)


def load(svi: BalancedSVI, path: str | Path) -> None:
    """Continues a run from where `save` left it, bit for bit: the next n steps equal those of the uninterrupted run.

    Args:
        svi: Built as the saved one was. Before its first batch, the state is loaded with that batch (an AutoGuide has
            no parameters before).
        path: The file.

    Raises:
        CheckpointError: If the file is missing, damaged, no checkpoint, of another schema, or of another model, optimizer
            or balancer. Nothing has changed then.
    """
    saved = check_file(path)["bmtl"]
    if "random" not in saved:
        raise CheckpointError(f"{path} is a checkpoint of another kind; resume it with bmtl.fit(..., resume=...).")
    try:
        check_random(saved["random"])
        svi.load_state_dict(saved["svi"])
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit: {error}") from error
    set_random_state(saved["random"])


def write(state: Mapping[str, Any], path: Path) -> None:
    """Writes a sealed state; the file appears complete and verified by reading it back, or not at all.

    Args:
        state: What `sealed` gave.
        path: The file.

    Raises:
        CheckpointError: If what was written does not read back.
        OSError: If the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            check_file(temporary)
        except CheckpointError as error:
            raise CheckpointError(f"{path} was written and does not read back: {error}") from error
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sealed(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state made plain; its entry ``bmtl`` gets the schema's number, a digest of itself and one of the rest.

    Args:
        state: Nested dicts, lists and tuples of tensors and values; the entry ``bmtl`` holds the run's.

    Raises:
        CheckpointError: If something in it is not a tensor or plain value.
    """
    made: dict[str, Any] = plain(state, "checkpoint")
    own = {"schema": SCHEMA, **made.pop("bmtl")}
    return {**made, "bmtl": {**own, "digest": digest(own), "digest_rest": digest(made)}}


def check_file(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint.

    Raises:
        CheckpointError: If it is missing, damaged, no checkpoint, or of another schema.
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
    try:
        check_entry(state)
        own, rest = state["bmtl"], {key: part for key, part in state.items() if key != "bmtl"}
        if own["digest_rest"] != _digest(rest):
            raise CheckpointError(_ALTERED)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return dict(state)


def check_entry(state: Any) -> None:
    """Checks the run's entry of a checkpoint: its schema, its digest, its fields.

    Raises:
        CheckpointError: If there is none, or it is not as it was written.
    """
    if not isinstance(state, dict) or not (isinstance(state.get("bmtl"), dict) or {"svi", "format"} <= set(state)):
        raise CheckpointError("It was not written by bmtl.")
    own = state.get("bmtl", {})  # the first schema had no such entry, or no number in it
    schema = own.get("schema", 1)
    if schema != SCHEMA:
        raise CheckpointError(
            f"It has schema {schema}, and this version of bmtl reads schema {SCHEMA}. Train again, or read it with the "
            "version that wrote it."
        )
    check_fields(own, {"svi": dict, "digest": str, "digest_rest": str}, "The run's entry")
    if own["digest"] != _digest({key: part for key, part in own.items() if not key.startswith("digest")}):
        raise CheckpointError(_ALTERED)
    check_structure(own["svi"])


def _digest(state: Any) -> str:
    try:
        return digest(state)
    except CheckpointError:
        return ""


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


def set_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(_numpy_state(state))  # noqa: NPY002
    random.setstate(_python_state(state))


def check_random(state: Any) -> None:
    """Checks saved generators, each on its own generator.

    Raises:
        CheckpointError: If one cannot be loaded; names it.
    """
    check_fields(state, _RANDOM, "The saved random generators")
    tries: dict[str, Callable[[], Any]] = {
        "torch": lambda: torch.Generator().set_state(state["torch"]),
        "numpy": lambda: np.random.RandomState().set_state(_numpy_state(state)),
        "python": lambda: random.Random().setstate(_python_state(state)),
    }
    for name, attempt in tries.items():
        try:
            attempt()
        except (ValueError, TypeError, RuntimeError, LookupError, AttributeError) as error:
            raise CheckpointError(f"The saved random generator {name!r} cannot be loaded ({error}).") from error


def _numpy_state(state: Mapping[str, Any]) -> tuple[Any, ...]:
    kind, keys, position, has_gauss, cached = state["numpy"]
    return kind, keys.numpy().astype(np.uint32), position, has_gauss, cached


def _python_state(state: Mapping[str, Any]) -> tuple[Any, ...]:
    version, internal, gauss = state["python"]
    return version, tuple(internal), gauss
