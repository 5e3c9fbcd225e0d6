"""``bmtl list``: what there is, by name."""

from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from bmtl.cli.console import app, console


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, models, balancers or datasets; all by default.")] = "all",
) -> None:
    """Show the methods, models, balancers and data sets that there are."""
    rooms = {"methods": _methods, "models": _models, "balancers": _balancers, "datasets": _datasets}
    if what != "all" and what not in rooms:
        raise ValueError(f"'{what}' is none of: {', '.join(rooms)}, all.")
    for name, room in rooms.items():
        if what in ("all", name):
            console.print(room())


def _methods() -> Table:
    from bmtl.experiments import METHODS

    table = _listing("Methods (bmtl compare --methods, bmtl train --method)", "name", "model", "balancer", "options")
    for method in METHODS.values():
        options = {**method.options, **({"networks": method.ensemble_size} if method.ensemble_size > 1 else {})}
        said = ", ".join(f"{name}={value}" for name, value in options.items())
        said += "; a network a target" if method.single_task else ""
        table.add_row(method.name, method.model, method.balancer, escape(said))
    return table


def _models() -> Table:
    from bmtl import models

    table = _listing("Models, guides and networks (bmtl.models)", "name", "what it is")
    for name in models.__all__:
        table.add_row(name, _summary(getattr(models, name)))
    return table


def _balancers() -> Table:
    from bmtl.inference.balancing import SLOTS

    title = "Balancers: slots joined by >>, as in 'igb-v1 >> last-layer >> nash-mtl'"
    table = _listing(title, "name", "slot", "what it is", "cost per step")
    order = ("transform", "geometry", "weighting", "length")
    for name, slot in sorted(SLOTS.items(), key=lambda item: order.index(item[1].slot)):
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


def _listing(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in ("name", "slot"))
    return table


def _summary(thing: object) -> str:
    """First line of a docstring, without its marks."""
    return escape((thing.__doc__ or "").strip().splitlines()[0].replace("``", ""))
