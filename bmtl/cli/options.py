"""Options that commands share, and how their text is read."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

if TYPE_CHECKING:
    from bmtl.datasets import MultiTaskData

OWN_CODE = "package.module:name or file.py:name (a recipe, a balancer's slot, or a Method)"
"""How help says what else than a name of a list may be given."""

Dataset = Annotated[
    str,
    typer.Argument(
        help="A name of `bmtl list datasets`, such as uci/energy, or a file of your own: csv:FILE (also .tsv, .parquet, "
        ".feather, .gz), csv:FOLDER or npz:FILE."
    ),
]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the data; by default what the environment variable BMTL_DATA says.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data-option",
        "-d",
        metavar="NAME=VALUE",
        help="Option of the data's reader, once for each; `bmtl list csv:` shows those of tables.",
    ),
]

Trunk = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Network of every method: a name of `bmtl list trunks`, or package.module:maker or file.py:maker. By default "
        "that of the kind of input: tabular for tables.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of steps, validated every 40 and ended early where a quarter of them brings no gain. Tables have 3,000 "
        "by default.",
        show_default=False,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of passes over the training rows, instead of steps. Other inputs have 30 by default.",
        show_default=False,
    ),
]
Schedule = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="cosine (AdamW, the rate warms up and falls, averages of the parameters are validated and kept), the default "
        "for tables; or, with Adam, constant, plateau (lower when validation does not improve), falling (to 0, epoch by "
        "epoch) or exponential.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Rows in a batch; by default 128, and under the schedule cosine a power of two near a quarter of the training "
        "rows, 32 to 512.",
        show_default=False,
    ),
]
Shrink = Annotated[
    bool,
    typer.Option(
        "--shrink/--no-shrink",
        help="Scale what the network adds to a linear part by a factor from 0 to 1, chosen on validation rows, per target.",
    ),
]
Widths = Annotated[
    str,
    typer.Option(
        metavar="N,N",
        help="Widths of the trunk's layers, comma separated; by default 128,128, or what suits the kind of inputs.",
    ),
]
Compile = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="How steps run: no; trace (a captured graph, equal bit for bit); inductor (compiled, needs a C++ compiler); "
        "auto (compiled where that repays itself). By default what each method says, which is no.",
    ),
]
DrawsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Posterior and predictive draws; by default 100, or as many as suit the kind of inputs.",
        show_default=False,
    ),
]


DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where networks are trained: cpu, or cuda (one GPU). Small networks on tables are faster on cpu.",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="float32, float64, or bf16-mixed: layers in bfloat16 while training, parameters and predictions in float32.",
    ),
]


def command() -> str:
    """The command that is being run, as one would type it again."""
    return shlex.join(["bmtl", *sys.argv[1:]])


def items(text: str) -> list[str]:
    """A comma-separated list; commas inside brackets or double quotes belong to their item.

    ``cagrad(c=0.4),ew`` has two items, and so has ``"Price, EUR",grade``. Quotes around an item are taken off.
    """
    return [_unquoted(item) for item in _split(text, ",") if item.strip()]


def pairs(text: str) -> dict[str, str]:
    """``name:value,name:value``; a name in double quotes may have a colon or comma."""
    found = [_split(item, ":", 1) for item in _split(text, ",") if item.strip()]
    return {_unquoted(name): _unquoted(rest[0]) if rest else "" for name, *rest in found}


def _split(text: str, mark: str, most: int = -1) -> list[str]:
    """The text between marks that are in no brackets and no double quotes."""
    found: list[str] = []
    depth, quoted, start = 0, False, 0
    for i, letter in enumerate(text):
        quoted ^= letter == '"'
        if quoted:
            continue
        depth = max(0, depth + (letter == "(") - (letter == ")"))
        if letter == mark and depth == 0 and len(found) != most:
            found.append(text[start:i])
            start = i + 1
    return [*found, text[start:]]


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1] else text


def scores_by_target(text: str) -> str | dict[str, str] | None:
    """``--primary``: a score, ``target:score`` pairs, or nothing."""
    return pairs(text) if ":" in text else text.strip() or None


def numbers(text: str, name: str) -> list[float]:
    """A comma-separated list of numbers, one at least.

    Raises:
        ValueError: If it is none; names the option.
    """
    try:
        found = [float(item) for item in items(text)]
    except ValueError as error:
        raise ValueError(f"--{name} is a number or several with commas between, and {text!r} was given.") from error
    if not found:
        raise ValueError(f"--{name} is a number or several with commas between, and nothing was given.")
    return found


def whole_numbers(text: str, name: str) -> tuple[int, ...]:
    """As `numbers`, of whole ones.

    Raises:
        ValueError: If one is not; names the option.
    """
    found = numbers(text, name)
    if not all(number.is_integer() for number in found):
        raise ValueError(f"--{name} is a whole number or several with commas between, and {text!r} was given.")
    return tuple(map(int, found))


def reader_options(dataset: str, given: list[str] | None) -> dict[str, Any]:
    """``name=value`` texts as options of a data set's reader, of the types that its parameters are annotated with.

    A name stays text where the reader wants names, digits or not. Where it takes several, they are comma separated, as
    for `items`; a mapping is ``name:value,name:value``, as for `pairs`.

    Raises:
        ValueError: If there is no such data set, or an option has no equals sign, is not of its type or is given twice.
    """
    from bmtl.datasets.registry import reader_of

    reader, _ = reader_of(dataset)
    types = get_type_hints(reader.read)
    options: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            known = ", ".join(option.name for option in reader.options())
            raise ValueError(
                f"An option of the data's reader is name=value, and {text!r} was given. Its options are: {known or 'none'}."
            )
        if name in options:
            raise ValueError(f"The option {name!r} of the data's reader is given twice.")
        try:
            options[name] = _value(value.strip(), types.get(name, str))
        except ValueError as error:
            raise ValueError(f"The option {name}={value} of the data's reader cannot be read: {error}.") from error
    return options


def takes_kinds(dataset: str) -> bool:
    """Whether a data set's reader has the option `kinds`."""
    from bmtl.datasets.registry import reader_of

    reader, _ = reader_of(dataset)
    return any(option.name == "kinds" for option in reader.options())


_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _value(text: str, annotation: Any) -> Any:
    """A text as the first of a parameter's types that it can be read as.

    Raises:
        ValueError: If it is none of them.
    """
    kinds = list(_members(annotation))
    for kind in kinds:
        origin = get_origin(kind)
        if kind is bool and text.lower() in _YES_NO:
            return _YES_NO[text.lower()]
        if kind in (int, float):
            with suppress(ValueError):
                return kind(text)
        if kind is NoneType and text.lower() == "none" and str not in kinds:
            return None
        if origin is Mapping and len(_split(text, ":")) > 1:
            return {key: _value(value, get_args(kind)[1]) for key, value in pairs(text).items()}
        if origin is Sequence and (len(_split(text, ",")) > 1 or str not in kinds):
            return [_value(item, get_args(kind)[0]) for item in items(text)]
    if set(kinds) <= {bool, int, float, NoneType}:
        raise ValueError(f"{text!r} is no {' and no '.join(_TYPES[kind] for kind in kinds if kind in _TYPES)}")
    if all(get_origin(kind) is Mapping or kind is NoneType for kind in kinds):
        raise ValueError(f"{text!r} is not of the form name:value,name:value")
    return _unquoted(text)


_TYPES = {bool: "yes or no", int: "whole number", float: "number"}


def _members(annotation: Any) -> Iterator[Any]:
    """The types of a union, however deep; an annotation that is none is its own."""
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def read(
    dataset: str, root: Path | None, options: list[str] | None, splits: int
) -> "tuple[MultiTaskData | list[MultiTaskData], int]":
    """The data set, or one for each of its splits, and how many these are.

    Args:
        dataset: A name.
        root: Folder.
        options: Of the reader.
        splits: How many; 0 is all there are. Where the reader draws a split, so many are drawn, with seeds that count up.

    Raises:
        ValueError: If the data have fewer splits, or the options name one of them.
    """
    from bmtl.datasets import load

    given = reader_options(dataset, options)
    first = load(dataset, root=root, **given)
    available = first.num_splits
    if available is None and splits > 1:
        return [first, *_drawn(dataset, root, given, first, splits - 1)], splits
    if available is None:
        return first, 1
    if "split" in given:
        if splits > 1:
            raise ValueError(f"The option split={given['split']} names one split, and --splits asks for {splits}.")
        return first, 1
    if splits > available:
        raise ValueError(f"{dataset} has {available} splits, and {splits} were asked for.")
    count = splits or available
    return [first, *(load(dataset, root=root, split=i, **given) for i in range(1, count))], count


def _drawn(
    dataset: str, root: Path | None, given: dict[str, Any], first: "MultiTaskData", more: int
) -> "Iterator[MultiTaskData]":
    """More splits that the reader draws, with the seeds after that of the first.

    Raises:
        ValueError: If it draws none, so that the test rows are the same.
    """
    from bmtl.datasets import load
    from bmtl.datasets.registry import reader_of

    reader, _ = reader_of(dataset)
    seed = {option.name: option.default for option in reader.options()}.get("seed")
    seed = given.get("seed", seed)
    for i in range(1, more + 1):
        drawn = first if seed is None else load(dataset, root=root, **{**given, "seed": seed + i})
        if first.rows["test"].tolist() == drawn.rows["test"].tolist():
            raise ValueError(f"{dataset} has one split; use --seeds for several runs on it.")
        yield drawn
