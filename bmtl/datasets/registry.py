"""Data sets by name."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bmtl.datasets import checks, csv_folder, npz, office_caltech10, qm9_12k, qm9_mini, school, uci
from bmtl.datasets.base import MultiTaskData


@dataclass(frozen=True)
class Reader:
    """How a name is read, and what a list of names says of it.

    Args:
        read: Takes `root` (the folder of the data) and its own keyword-only options; before them, where it reads a whole
            family, what stands behind the prefix.
        summary: What it is, in one line.
        files: What it reads, below the root; empty if the package holds it.
        rest: What stands behind the prefix of a family, e.g. ``"<name>"``.
    """

    read: Callable[..., MultiTaskData]
    summary: str
    files: str = ""
    rest: str = ""


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "qm9-mini": Reader(qm9_mini.read, "2,000 small molecules, 11 regressions"),
        "qm9-12k": Reader(qm9_12k.read, "12,000 small molecules, 11 regressions", qm9_12k.FILE),
        "office-caltech10": Reader(
            office_caltech10.read, "2,533 images, 4 tasks (domains) of 10 classes", office_caltech10.FILE
        ),
        "school": Reader(school.read, "15,362 pupils' exam scores, 139 tasks (schools)", school.FILE),
    }
)

PREFIXES: Mapping[str, Reader] = MappingProxyType(
    {
        "uci/": Reader(
            uci.read, "UCI regressions in their standard splits", "uci/<name>.npz or <name>/data/", "<name>"
        ),
        "npz:": Reader(npz.read, "any set of one or many tasks: arrays X, y, task", "<path>", "<path>"),
        "csv:": Reader(csv_folder.read, "one CSV file a task, with a column y", "<folder>/<task>.csv", "<folder>"),
    }
)


def names() -> tuple[str, ...]:
    """Names that `load` knows, in alphabetical order, without the families of `describe`."""
    return tuple(sorted(READERS))


def describe() -> dict[str, Reader]:
    """What `load` knows, each with its reader: names in alphabetical order, then families such as ``"uci/<name>"``."""
    return {name: READERS[name] for name in names()} | {
        prefix + reader.rest: reader for prefix, reader in PREFIXES.items()
    }


def load(name: str, *, root: str | Path | None = None, **options: Any) -> MultiTaskData:
    """Read a data set by its name.

    Args:
        name: One of `names()`, e.g. ``"qm9-mini"``, or one of a family: ``"uci/energy"``, ``"npz:features.npz"``,
            ``"csv:hospitals"``.
        root: Folder of the data. The default is the package's own copy, if it has one, and else what the environment
            variable ``BMTL_DATA`` says.
        options: The reader's own options.

    Returns:
        Raw values, the fixed split, and scalers fitted on the training rows.

    Raises:
        ValueError: If there is no data set of that name, or a file is not the one that was published.
        TypeError: If the reader has no such option.
        FileNotFoundError: If `root` does not hold the files.
    """
    reader, arguments = reader_of(name)
    known = [option for option in inspect.signature(reader.read).parameters if option != "root"][len(arguments) :]
    unknown = [option for option in options if option not in known]
    if unknown:
        takes = f"its options are: {', '.join(known)}" if known else "it has no options besides `root`"
        raise TypeError(f"The data set {name!r} does not know the option {unknown[0]!r}; {takes}.")
    return reader.read(*arguments, root, **options)


def reader_of(name: str) -> tuple[Reader, tuple[str, ...]]:
    """Who reads a data set, and what of its name the reader is told.

    Raises:
        ValueError: If there is no data set of that name.
    """
    if name in READERS:
        return READERS[name], ()
    for prefix, reader in PREFIXES.items():
        if name.startswith(prefix) and name != prefix:
            return reader, (name.removeprefix(prefix),)
    raise ValueError(
        f"There is no data set {name!r}.{checks.meant(name, names())} The names are: {', '.join(describe())}."
    )
