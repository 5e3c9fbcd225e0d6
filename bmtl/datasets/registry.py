"""Data sets by name."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bmtl.datasets import qm9_mini
from bmtl.datasets.base import MultiTaskData

# A reader takes `root` (a folder that holds the data set's files) and its own keyword-only options.
READERS: Mapping[str, Callable[..., MultiTaskData]] = MappingProxyType({"qm9-mini": qm9_mini.read})


def names() -> tuple[str, ...]:
    """Names that `load` knows, in alphabetical order."""
    return tuple(sorted(READERS))


def load(name: str, *, root: str | Path | None = None, **options: Any) -> MultiTaskData:
    """Read a data set by its name.

    Args:
        name: One of `names()`, e.g. ``"qm9-mini"``.
        root: Folder that holds the data set's files; the default is the package's own copy, if it has one.
        options: The reader's own options.

    Returns:
        Raw values, the fixed split, and scalers fitted on the training rows.

    Raises:
        ValueError: If there is no data set of that name, or a file is not the one that was published.
        TypeError: If the reader has no such option.
        FileNotFoundError: If `root` does not hold the files.
    """
    if name not in READERS:
        raise ValueError(f"There is no data set {name!r}. The names are: {', '.join(names())}.")
    reader = READERS[name]
    known = [option for option in inspect.signature(reader).parameters if option != "root"]
    unknown = [option for option in options if option not in known]
    if unknown:
        takes = f"its options are: {', '.join(known)}" if known else "it has no options besides `root`"
        raise TypeError(f"The data set {name!r} does not know the option {unknown[0]!r}; {takes}.")
    return reader(root, **options)
