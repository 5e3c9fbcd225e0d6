"""``bmtl list``: what there is, by name."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from bmtl.cli.console import app, console

if TYPE_CHECKING:
    from bmtl.datasets.registry import Option

_SLOTS = ("transform", "geometry", "weighting", "length")


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]",
            help="methods, recipes, trunks, likelihoods, balancers or datasets; all of them by default. Or one name of a "
            "list, for its options: csv:, cagrad, homoscedastic, ...",
        ),
    ] = "all",
) -> None:
    """Show the methods, recipes, trunks, likelihoods, balancers and data sets that there are, or the options of one.

    Names that installed packages announce as entry points are among them.
    """
    lists: dict[str, Callable[[], Table]] = {
        "methods": _methods,
        "recipes": _recipes,
        "trunks": _trunks,
        "likelihoods": _likelihoods,
        "balancers": _balancers,
        "datasets": _datasets,
    }
    if what == "all":
        for table in lists.values():
            console.print(table())
    elif what in lists:
        console.print(lists[what]())
    else:
        found = list(_named(what))
        if not found:
            raise _unknown(what, lists)
        for entry in found:
            entry.print()


def _methods() -> Table:
    from bmtl.experiments import METHODS

    table = _listing(
        "Methods (--methods of bmtl compare, --method of bmtl train)", "name", "recipe", "balancer", "options"
    )
    for method in METHODS.values():
        options = {**method.options, **({"networks": method.ensemble_size} if method.ensemble_size > 1 else {})}
        shown = [f"{name}={value}" for name, value in options.items()]
        shown += ["one network per target"] if method.single_task else []
        table.add_row(method.name, method.model, escape(method.balancer), escape(", ".join(shown)))
    return table


def _recipes() -> Table:
    from bmtl.experiments import registry

    table = _listing("Recipes of models", "name", "what it is")
    for name, path in registry.models().items():
        table.add_row(name, _summary_at(path))
    return table


def _trunks() -> Table:
    from bmtl.experiments import registry

    table = _listing("Trunks, chosen by --trunk or a Method(trunk=...)", "name", "what it is")
    for name, path in registry.trunks().items():
        table.add_row(name, _summary_at(path))
    return table


def _likelihoods() -> Table:
    from bmtl.models import LIKELIHOODS

    title = "Likelihoods, an option of recipes; the first that serves a kind of target is its default"
    table = _listing(title, "name", "targets", "what it is")
    for name, cls in LIKELIHOODS.items():
        table.add_row(name, ", ".join(cls.families), _summary(cls))
    return table


def _balancers() -> Table:
    from bmtl.experiments.slots import all_slots

    title = "Balancers: slots joined by >>, as in 'igb-v1 >> last-layer >> nash-mtl'"
    table = _listing(title, "name", "slot", "what it is", "cost per step")
    for name, slot in sorted(all_slots().items(), key=lambda item: _SLOTS.index(item[1].slot)):
        summary = _summary(slot)
        if slot.paper and slot.paper.split()[0] not in summary:
            summary += f" {escape(slot.paper)}."
        table.add_row(name, slot.slot, summary, slot.cost)
    return table


def _datasets() -> Table:
    from bmtl.datasets import describe

    table = _listing("Data sets (bmtl.datasets.load)", "name", "what it is", "files below --root or $BMTL_DATA")
    for name, reader in describe().items():
        table.add_row(escape(name), reader.summary, escape(reader.files) or "-")
    return table


@dataclass(frozen=True)
class _Entry:
    """One name of a list, with its options.

    Attributes:
        title: What it is and how its options are given.
        summary: In one line.
        options: As far as there are any.
        form: From an option's type to how a value is written.
    """

    title: str
    summary: str
    options: Sequence["Option"] = ()
    form: Callable[[str], str] = str

    def print(self) -> None:
        console.print(f"[bold]{escape(self.title)}[/]", highlight=False, soft_wrap=True)
        console.print(self.summary, highlight=False)
        for option in self.options:
            given = option.default not in (None, Parameter.empty, (), "")
            kind = self.form(option.type) + (f" [{option.default} by default]" if given else "")
            console.print(f"  [bold]{escape(option.name)}[/]: {escape(kind)}", highlight=False)
            if option.help:
                console.print(Padding(escape(option.help.replace("``", "")), (0, 0, 0, 6)), highlight=False)


def _as_written(annotation: str) -> str:
    """An option's type as what follows the equals sign of ``-d name=value``."""
    text = re.sub(r"Family \| str \| int|str \| float", "str", annotation)
    text = re.sub(r" \| None|Literal", "", text)
    for pattern, written in (
        (r"str \| Sequence\[str\](?=\])", "str"),
        (r"str \| Sequence\[str\]", "str,..."),
        (r"Mapping\[str, ((?:[^][]|\[[^][]*\])*)\]", r"name:\1,..."),
        (r"\['([^][]*)'\]", r"\1"),
        (r"', '", " | "),
        (r"\bstr\b", "text"),
        (r"\bint\b", "whole number"),
        (r"\bfloat\b", "number"),
        (r"\bbool\b", "yes | no"),
    ):
        text = re.sub(pattern, written, text)
    return text


def _named(name: str) -> Iterator[_Entry]:
    """What has this name."""
    from bmtl.datasets import describe
    from bmtl.datasets.registry import options_of
    from bmtl.experiments import METHODS, importing, registry
    from bmtl.experiments.slots import all_slots
    from bmtl.models import LIKELIHOODS

    for key, reader in describe().items():
        prefix = key.partition("<")[0]
        if name in (key, prefix.rstrip(":")) or (prefix != key and name.startswith(prefix)):
            yield _Entry(f"Data set {key}; options as -d name=value", reader.summary, reader.options(), _as_written)
    if name in METHODS:
        method = METHODS[name]
        options = ", ".join(f"{option}={value}" for option, value in method.options.items()) or "no options"
        yield _Entry(f"Method {name}", f"The recipe {method.model} with {escape(options)}, under {method.balancer}.")
    for what, paths in (("Recipe", registry.models()), ("Trunk", registry.trunks())):
        if name in paths:
            made = importing.load(paths[name]).value
            options_ = [option for option in options_of(made) if option.name not in ("trunk", "generator", "widths")]
            yield _Entry(f"{what} {name}; options of a bmtl.experiments.Method", _summary(made), options_)
    if name in LIKELIHOODS:
        cls: type = LIKELIHOODS[name]
        yield _Entry(f"Likelihood {name}", _summary(cls), options_of(cls))
    if name in all_slots():
        slot = all_slots()[name]
        yield _Entry(
            f"Balancer {name}; options in brackets, as in {name}(option=value)", _summary(slot), options_of(slot)
        )


def _unknown(name: str, lists: Iterable[str]) -> ValueError:
    from bmtl.datasets import describe
    from bmtl.datasets.checks import meant
    from bmtl.experiments import METHODS, registry
    from bmtl.experiments.slots import all_slots

    known = [*lists, *describe(), *METHODS, *registry.models(), *registry.trunks(), *all_slots()]
    return ValueError(
        f"There is no list {name!r}, and nothing of that name in a list.{meant(name, known)} The lists are: "
        f"{', '.join(lists)}, all."
    )


def _listing(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in ("name", "slot"), overflow="fold")
    return table


def _summary_at(path: str) -> str:
    """First line of the docstring of what a path names; why it cannot be imported, where that is so."""
    from bmtl.experiments import importing

    try:
        return _summary(importing.load(path).value)
    except ValueError as error:
        return escape(str(error))


def _summary(thing: object) -> str:
    """First line of a docstring, without its marks."""
    return escape((inspect.getdoc(thing) or "").partition("\n")[0].replace("``", ""))
