"""Objects by name: ``package.module:name``, ``file.py:name``, and what installed packages announce as entry points."""

import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Imported:
    """An object that was found by an import path.

    Attributes:
        value: The object.
        path: Where it was found: ``package.module:name``, or ``/absolute/file.py:name``. Any process can import it by this.
        digest: SHA-256 (hex) of the source file; empty where there is none (a compiled module).
    """

    value: Any
    path: str
    digest: str


def is_path(text: str) -> bool:
    """Whether a name is an import path: ``module:name`` or ``file.py:name``, and not a name of the registry."""
    module, colon, name = text.rpartition(":")
    return bool(colon and module and name.isidentifier() and not any(c in module for c in "(),>"))


def load(text: str) -> Imported:
    """The object that an import path names.

    A file is executed once in each process and version: a file that has changed is executed again.

    Args:
        text: ``package.module:name``, or ``file.py:name`` relative to the current folder.

    Raises:
        ValueError: If the text is not an import path, there is no such file or module, it raises while it is imported, or
            it has no such name.
    """
    if not is_path(text):
        raise ValueError(f"An import path is package.module:name or file.py:name, and {text!r} was given.")
    where, _, name = text.rpartition(":")
    if where.endswith(".py"):
        file = Path(where).expanduser().resolve()
        if not file.is_file():
            raise ValueError(f"There is no file {file}, which {text!r} names. Give its path from the current folder.")
        module, path = _module_of_file(file), f"{file}:{name}"
    else:
        module, path = _module(where, text), text
    if not hasattr(module, name):
        own = [
            found
            for found, value in vars(module).items()
            if not found.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        raise ValueError(f"{where} has no {name!r}. It defines: {', '.join(own) or 'no function and no class'}.")
    return Imported(getattr(module, name), path, digest_of(module))


def digest_of(module: ModuleType) -> str:
    """SHA-256 (hex) of a module's source file; empty where there is none."""
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""


def announced(group: str) -> dict[str, str]:
    """Entries of installed packages in an entry-point group: name -> import path.

    Raises:
        ValueError: If two packages announce the same name.
    """
    return dict(_announced(group, tuple(sys.path), entry_points))


@functools.lru_cache
def _announced(group: str, search: tuple[str, ...], entry_points: Callable[..., Any]) -> dict[str, str]:
    """See `announced`. All packages of the search path are read for it, which takes longer than to build a model."""
    found: dict[str, str] = {}
    for point in entry_points(group=group):
        path = f"{point.module}:{point.attr}"
        if found.setdefault(point.name, path) != path:
            raise ValueError(
                f"Two installed packages announce {point.name!r} as an entry point of {group}: {found[point.name]} and "
                f"{path}. "
                "Name the one that is meant by its import path."
            )
    return found


def _module(name: str, text: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the module raises while it is imported
        raise ValueError(
            f"{text!r} cannot be imported ({type(error).__name__}: {error}). Its package must be installed or in the "
            "current folder; a file is named by its path, as in path/to/file.py:name."
        ) from error


def _module_of_file(file: Path) -> ModuleType:
    """A file as a module. Its name has its digest, so that a changed file is another module."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    name = f"_bmtl_file_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up while it runs
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{file} cannot be imported{_line(error, file)} ({type(error).__name__}: {error}).") from error
    return module


def _line(error: BaseException, file: Path) -> str:
    """Where in a file an error arose while it was executed."""
    if isinstance(error, SyntaxError):
        return ""  # its message has the line
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f": line {lines[-1]} raises" if lines else ""
