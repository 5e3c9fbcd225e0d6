"""The command line: ``bmtl demo``, ``bmtl list``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bmtl import __version__

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    name="bmtl",
    help="Bayesian multi-task learning on Pyro and PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"bmtl {__version__}", highlight=False)
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Bayesian multi-task learning on Pyro and PyTorch."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for results, table and pictures.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Two epochs of one seed: that it runs, not how well.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 2,
    epochs: Annotated[int, typer.Option(min=0, help="Number of epochs; 0 is 30, or 2 of a quick one.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a processor, or 1 of a quick demo.")] = 0,
) -> None:
    """Compare deterministic balancers and a Bayesian model on 2,000 real molecules (QM9, 11 properties)."""
    from bmtl import experiments
    from bmtl.datasets import load
    from bmtl.evaluation.results import check_writable

    check_writable(out)
    data = load("qm9-mini")
    total = len(experiments.METHODS) * (1 if quick else seeds)
    parts = ", ".join(f"{len(rows):,} {part}" for part, rows in data.rows.items())
    console.print(f"[bold]{data.name}[/]: {len(data.tasks)} tasks; molecules: {parts}. {total} runs.")
    start = time.perf_counter()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as bar:
        running = bar.add_task("training", total=total)

        def done(cell: experiments.Cell) -> None:
            bar.update(running, advance=1, description=f"{cell.method.name} (seed {cell.seed}) done")

        found = experiments.demo(
            data, out, quick=quick, seeds=seeds, epochs=epochs or None, jobs=jobs or None, done=done
        )
    frame = experiments.table(found.scores)
    _print_table(frame, experiments.best(frame))
    console.print(experiments.caption(found.scores), style="dim")
    files = ["comparison.nc", "table.csv", *sorted(p.name for p in out.glob("*.png"))]
    console.print(
        f"Wrote {escape(str(out))}/: <method>/seed-<n>/results.nc, {', '.join(files)} ({time.perf_counter() - start:.0f} s)."
    )


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="models, balancers or datasets; all by default.")] = "all",
) -> None:
    """Show the models, balancers and data sets that there are."""
    rooms = {"models": _models, "balancers": _balancers, "datasets": _datasets}
    if what != "all" and what not in rooms:
        raise ValueError(f"'{what}' is none of: {', '.join(rooms)}, all.")
    for name, room in rooms.items():
        if what in ("all", name):
            console.print(room())


def main() -> None:
    """Entry point. Wrong input ends with one line and code 2, Ctrl-C with code 130."""
    try:
        # Typer returns the code of an Exit, and newer versions make one of Ctrl-C.
        code = app(prog_name="bmtl", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except _usage_error() as error:
        error.show()
        sys.exit(error.exit_code)
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError) as error:
        errors.print("[bold red]Error:[/]", escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(2)
    if code == _INTERRUPTED:
        errors.print("Interrupted. What was finished has been written.")
    sys.exit(code)


def _usage_error() -> type[Any]:
    """The base class of typer's errors about arguments, wherever this version of typer keeps it."""
    return next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


def _print_table(frame: pd.DataFrame, marks: pd.DataFrame) -> None:
    """The comparison in two tables, so that it fits a terminal: methods by scores, tasks by methods."""
    scores = [name for name in frame.columns if not name.startswith("MAE ")]
    first = _table("Scores on the test molecules (* best)", "method", scores)
    for method in frame.index:
        first.add_row(method, *(_cell(frame.at[method, n], marks.at[method, n]) for n in scores))
    second = _table("Mean absolute error (* best)", "task", [str(method).replace("+", "\n+") for method in frame.index])
    for name in frame.columns:
        if name.startswith("MAE "):
            row = (_cell(frame.at[m, name], marks.at[m, name]) for m in frame.index)
            second.add_row(name.removeprefix("MAE ").replace("[", r"\["), *row)
    for table in (first, second):
        console.print()
        console.print(table)
    console.print()


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cell(value: float, best: bool) -> str:
    if value != value:
        return "-"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"[bold]*{text}[/]" if best else text


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
    from bmtl.datasets import load, names

    table = _listing("Data sets (bmtl.datasets.load)", "name", "rows", "tasks", "source")
    for name in names():
        data = load(name)
        table.add_row(name, f"{len(data.x):,}", str(len(data.tasks)), escape(data.citation))
    return table


def _listing(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in ("name", "slot", "rows"))
    return table


def _summary(thing: object) -> str:
    """First line of a docstring, without its marks."""
    return escape((thing.__doc__ or "").strip().splitlines()[0].replace("``", ""))
