"""Data sets by name."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from bmtl.datasets import (
    affinity,
    camvid,
    checks,
    cityscapes,
    csv_tables,
    kitchen,
    npz,
    nyuv2,
    office_caltech10,
    qm9_12k,
    qm9_graphs,
    qm9_mini,
    rooms,
    school,
    uci,
)
from bmtl.datasets.input_kind import GROUP
from bmtl.datasets.multi_task_data import MultiTaskData


@dataclass(frozen=True)
class Reader:
    """How a name is read, and what a list of names says of it.

    Args:
        read: Takes `root` (the folder of the data) and its own keyword-only options; before them, where it reads a
            whole family, what follows the prefix.
        summary: What it is, in one line; by default the first line of the docstring of `read`.
        files: What it reads, below the root; empty if the package holds it.
        rest: What follows the prefix of a family, e.g. ``"<name>"``.
    """

    read: Callable[..., MultiTaskData]
    summary: str = ""
    files: str = ""
    rest: str = ""

    def __post_init__(self) -> None:
        if not self.summary:
            object.__setattr__(self, "summary", (inspect.getdoc(self.read) or "").partition("\n")[0])

    def options(self) -> list["Option"]:
        """The options of `read` in order, without those that every reader takes."""
        return options_of(self.read)


@dataclass(frozen=True)
class Option:
    """An option of a reader, or of another function or class.

    Attributes:
        name: Of the option, as in ``-d name=value``.
        type: What it takes, as it is annotated.
        default: What it is if it is not given; ``inspect.Parameter.empty`` if it must be.
        help: From the docstring.
    """

    name: str
    type: str
    default: object
    help: str


def options_of(of: Callable[..., Any]) -> list[Option]:
    """The keyword-only parameters of a function in order, or all parameters of a class."""
    made = of.__init__ if isinstance(of, type) else of  # type: ignore[misc]  # a metaclass has its own signature
    parameters = [p for p in inspect.signature(made).parameters.values() if p.name != "self"]
    texts = _argument_texts(inspect.getdoc(of) or "")
    return [
        Option(p.name, _shown(p.annotation), p.default, texts.get(p.name, ""))
        for p in parameters
        if p.kind is p.KEYWORD_ONLY or (isinstance(of, type) and p.kind is p.POSITIONAL_OR_KEYWORD)
    ]


OF_FILES = {**dict.fromkeys(("csv", "tsv", "txt", "gz", "parquet", "feather"), "csv:"), "npz": "npz:"}
"""Prefix of the names of one's own files, by their ending."""

READERS: dict[str, Reader] = {}
"""Reader by name; a name that ends with a colon or slash is the prefix of a family. `register` adds to it."""


def register(name: str, reader: Reader | Callable[..., MultiTaskData]) -> None:
    """Add a data set, or a family of them.

    An installed package does the same without being imported first: an entry point in the group ``bmtl.datasets`` names
    a reading function or a `Reader`.

    Args:
        name: For `load`; ending with a colon or slash it is the prefix of a family, as ``"npz:"``.
        reader: A `Reader`, or its function ``read(root=None, *, ...)``, for a family ``read(rest, root=None, *, ...)``.

    Raises:
        ValueError: If another reader has that name.
    """
    made = reader if isinstance(reader, Reader) else Reader(reader)
    if not name or READERS.get(name, made) != made:
        raise ValueError(f"There is a reader of data sets named {name!r} already. Choose another name.")
    READERS[name] = made


for _name, _reader in {
    "qm9-mini": Reader(qm9_mini.read, "2,000 small molecules, 11 real targets"),
    "qm9-12k": Reader(qm9_12k.read, "12,000 small molecules, 11 real targets", qm9_12k.FILE),
    "qm9-graphs": Reader(
        qm9_graphs.read,
        "12,000 small molecules with their atoms' positions, 11 real targets; or all of QM9",
        qm9_12k.FILE,
    ),
    "office-caltech10": Reader(
        office_caltech10.read, "2,533 images, 4 tasks (domains) of 10 classes", office_caltech10.FILE
    ),
    "school": Reader(school.read, "15,362 pupils' exam scores, 139 tasks (schools)", school.FILE),
    "davis": Reader(affinity.davis, "affinities of 68 drugs and 442 proteins, pKd", "dta/davis.npz"),
    "kiba": Reader(affinity.kiba, "affinities of 2,111 drugs and 229 proteins, KIBA score", "dta/kiba.npz"),
    "camvid": Reader(camvid.read, "701 street scenes of 90 x 120, 11 classes", camvid.FILE),
    "cityscapes": Reader(
        cityscapes.read,
        "street scenes: 19 classes, inverse depth, instances",
        "cityscapes/{leftImg8bit,gtFine,disparity}/",
    ),
    "kitchen": Reader(kitchen.read, "a Kinect's 250 frames of one room: depth, normals", kitchen.FILE),
    "nyuv2": Reader(
        nyuv2.read,
        "rooms of 288 x 384: 13 classes, depth, normals",
        "nyuv2/{train,val}/{image,label,depth,normal}/<i>.npy",
    ),
    "rooms": Reader(rooms.read, "rendered rooms, drawn on request: 13 classes, depth, normals, instances"),
    "uci/": Reader(uci.read, "UCI regressions in their standard splits", "uci/<name>.npz or <name>/data/", "<name>"),
    "npz:": Reader(npz.read, "any set of one or many tasks: arrays X, y, task", "<path>", "<path>"),
    "csv:": Reader(
        csv_tables.read,
        "a table whose columns are features and targets, or a folder with a file per task",
        "<path>",
        "<path>",
    ),
}.items():
    register(_name, _reader)


def names() -> tuple[str, ...]:
    """Names that `load` accepts, in alphabetical order, without the families of `describe`."""
    return tuple(sorted(name for name in {**READERS, **_announced()} if not _is_prefix(name)))


def describe() -> dict[str, Reader]:
    """Names that `load` accepts, with their readers: names in alphabetical order, then families such as ``"uci/<name>"``.

    Readers of installed packages are loaded; one that cannot be has the reason as its summary.
    """
    known = {**{name: _loaded_or_not(name, point) for name, point in _announced().items()}, **READERS}
    return {name: known[name] for name in sorted(known) if not _is_prefix(name)} | {
        name + reader.rest: reader for name, reader in known.items() if _is_prefix(name)
    }


def load(
    name: str | Reader | Callable[..., MultiTaskData], *, root: str | Path | None = None, **options: Any
) -> MultiTaskData:
    """Read a data set by its name.

    Args:
        name: One of `names()`, e.g. ``"qm9-mini"``, or one of a family: ``"uci/energy"``, ``"npz:features.npz"``,
            ``"csv:houses.csv"``; or a reader of your own.
        root: Folder of the data. The default is the package's own copy, if it has one, and else what the environment
            variable ``BMTL_DATA`` says.
        options: The reader's own options.

    Returns:
        Raw values, the split, and scalers fitted on the training rows.

    Raises:
        ValueError: If there is no data set of that name, or its files cannot be read.
        TypeError: If the reader has no such option.
        FileNotFoundError: If `root` does not hold the files.
    """
    if isinstance(name, str):
        reader, arguments = reader_of(name)
    else:
        reader, arguments = name if isinstance(name, Reader) else Reader(name), ()
    known = [option.name for option in reader.options()]
    unknown = [option for option in options if option not in known]
    if unknown:
        takes = f"Its options are: {', '.join(known)}." if known else "It has no options besides `root`."
        raise TypeError(
            f"The data set {name!r} does not know the option {unknown[0]!r}.{checks.meant(unknown[0], known)} {takes}"
        )
    return reader.read(*arguments, root, **options)


def reader_of(name: str) -> tuple[Reader, tuple[str, ...]]:
    """The reader for a name, and the arguments parsed from it.

    Raises:
        ValueError: If there is no data set of that name.
    """
    announced = _announced()
    if name in READERS and not _is_prefix(name):
        return READERS[name], ()
    if name in announced and not _is_prefix(name):
        return _loaded(name, announced[name]), ()
    for prefix in filter(_is_prefix, {**announced, **READERS}):
        if name.startswith(prefix) and name != prefix:
            reader = READERS[prefix] if prefix in READERS else _loaded(prefix, announced[prefix])
            return reader, (name.removeprefix(prefix),)
    known = [*names(), *(prefix + reader.rest for prefix, reader in READERS.items() if _is_prefix(prefix))]
    _, dot, ending = name.rpartition(".")
    prefix = OF_FILES.get(ending.lower(), "") if dot else ""
    hint = f" Name a file of your own as {prefix}{name}." if prefix else checks.meant(name, names())
    raise ValueError(f"There is no data set {name!r}.{hint} The names are: {', '.join(known)}.")


def _is_prefix(name: str) -> bool:
    return name.endswith((":", "/"))


def _announced() -> Mapping[str, EntryPoint]:
    """Entry points of installed packages, by name; not loaded."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(name: str, point: EntryPoint) -> Reader:
    try:
        found = point.load()
    except Exception as error:  # whatever the package raises while it is imported
        raise ValueError(
            f"The reader of {name!r}, {point.value}, cannot be imported ({type(error).__name__}: {error})."
        ) from error
    return found if isinstance(found, Reader) else Reader(found)


def _loaded_or_not(name: str, point: EntryPoint) -> Reader:
    """The reader, or one that says on reading why it cannot be loaded."""
    try:
        return _loaded(name, point)
    except ValueError as error:
        return Reader(lambda root=None: _loaded(name, point).read(root), str(error))


def _shown(annotation: object) -> str:
    """An annotation as help has it, without the paths of modules."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
    text = re.sub(r"Annotated\[(\w+), \w+\([^()]*\)\]", r"\1", text)  # bounds are for checks
    return re.sub(r"^Optional\[(.*)\]$", r"\1 | None", text)


def _argument_texts(doc: str) -> dict[str, str]:
    """Argument -> text, from a docstring in Google style."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", doc, re.MULTILINE)
    found: dict[str, str] = {}
    name = ""
    for line in section[1].splitlines() if section else ():
        begins = re.match(r" {4}(\w+): (.*)", line)
        if begins:
            name, found[begins[1]] = begins[1], begins[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found
