"""The application, its two consoles, and what commands print alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    import xarray as xr

    from bmtl.datasets import MultiTaskData
    from bmtl.experiments import Cell, Failure

app = typer.Typer(
    name="bmtl",
    help="Bayesian multi-task learning on Pyro and PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)


def print_data_warnings(data: MultiTaskData) -> None:
    """Warns of what is odd about the data, on the error console."""
    for remark in data.data_warnings():
        errors.print("[bold yellow]Warning:[/]", escape(remark), highlight=False, soft_wrap=True)


def counted(number: int, what: str) -> str:
    """A number and what it is of: "1 task", "12 tasks"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@contextmanager
def progress(total: int) -> Iterator[Callable[[Cell | Failure], None]]:
    """A bar over the runs of a comparison, with the time left; failures are told as they come, and end it with code 1."""
    from bmtl.experiments import AllFailed, Failure

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left:"), TimeRemainingColumn(), console=console) as bar:
        running = bar.add_task("training", total=total)

        def done(outcome: Cell | Failure) -> None:
            if isinstance(outcome, Failure):
                bar.console.print(f"[bold red]failed:[/] {escape(str(outcome.cell))}: {escape(outcome.reason)}")
                outcome = outcome.cell
            bar.update(running, advance=1, description=f"{escape(str(outcome))} done")

        try:
            yield done
        except AllFailed as error:
            errors.print("[bold red]Error:[/]", escape(str(error)), highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error


def print_scores(scores: xr.Dataset) -> None:
    """A comparison in tables that fit the terminal, what is starred in bold, and their caption."""
    from bmtl.evaluation.text_tables import to_text

    text = to_text(scores, width=console.width, bold=lambda cell: f"[bold]{cell}[/]", escape=escape)
    console.print()
    console.print(text, end="", highlight=False, no_wrap=True, overflow="ignore", crop=False)
