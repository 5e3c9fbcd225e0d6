"""Options that commands share, and how their text is read."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

if TYPE_CHECKING:
    from bmtl.datasets import MultiTaskData

Root = Annotated[
    Path | None, typer.Option(help="Folder of the data; by default what the environment variable BMTL_DATA says.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data-option", "-d", help="Option of the data's reader, as name=value; may stand several times."),
]


def command() -> str:
    """The command that is being run, as one would type it again."""
    return shlex.join(["bmtl", *sys.argv[1:]])


def items(text: str) -> list[str]:
    """A comma-separated list; commas inside brackets belong to their item: ``cagrad(c=0.4),ew``."""
    found, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            found.append(text[start:i])
            start = i + 1
    return [item.strip() for item in [*found, text[start:]] if item.strip()]


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

    A name stays text where the reader wants names, digits or not. Where it takes several, they are comma separated; a
    mapping is ``name:value,name:value``.

    Raises:
        ValueError: If there is no such data set, an option has no equals sign, or one is given twice.
    """
    from bmtl.datasets.registry import reader_of

    types = get_type_hints(reader_of(dataset)[0].read)
    options: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ValueError(f"An option of the data's reader is name=value, and {text!r} was given.")
        if name in options:
            raise ValueError(f"The option {name!r} of the data's reader is given twice.")
        options[name] = _value(value.strip(), types.get(name, str))
    return options


def _value(text: str, annotation: Any) -> Any:
    """A text as the first of a parameter's types that it can be read as; text if it is none."""
    kinds = list(_members(annotation))
    for kind in kinds:
        origin = get_origin(kind)
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in (int, float):
            with suppress(ValueError):
                return kind(text)
        if origin is Mapping and ":" in text:
            pairs = [item.partition(":") for item in items(text)]
            return {key.strip(): _value(value.strip(), get_args(kind)[1]) for key, _, value in pairs}
        if origin is Sequence and ("," in text or str not in kinds):
            return [_value(item, get_args(kind)[0]) for item in items(text)]
    return text


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
        splits: How many; 0 is all there are.

    Raises:
        ValueError: If the data have fewer splits, or the options name one of them.
    """
    from bmtl.datasets import load

    given = reader_options(dataset, options)
    first = load(dataset, root=root, **given)
    available = first.num_splits
    if available is None:
        if splits > 1:
            raise ValueError(f"{dataset} has no fixed splits; use --seeds for several runs on its one split.")
        return first, 1
    if "split" in given:
        if splits > 1:
            raise ValueError(f"The option split={given['split']} names one split, and --splits asks for {splits}.")
        return first, 1
    if splits > available:
        raise ValueError(f"{dataset} has {available} splits, and {splits} were asked for.")
    count = splits or available
    return [first, *(load(dataset, root=root, split=i, **given) for i in range(1, count))], count
