"""The application, its two consoles, and what commands print alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

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
_MOST_COLUMNS = 5  # of means with errors, on a terminal of 80

console = Console()
errors = Console(stderr=True)


def print_data(data: MultiTaskData) -> None:
    """What each target and the inputs were read as; then warnings, on the error console."""
    for line in [*data.describe_targets(), *data.describe_inputs()]:
        console.print(escape(line), style="dim", highlight=False, soft_wrap=True)
    for warning in data.data_warnings():
        errors.print("[bold yellow]Warning:[/]", escape(warning), highlight=False, soft_wrap=True)


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
    """A comparison in tables that fit a terminal: methods by scores, then tasks by methods where there are several."""
    from bmtl.evaluation.tables import best, caption, standard_error, table
    from bmtl.evaluation.text_tables import entry

    frame, marks, errors_ = table(scores), best(scores), standard_error(scores)

    def cell(method: object, name: str) -> str:
        text = entry(frame.at[method, name], errors_.at[method, name])
        return f"[bold]*{text}[/]" if marks.at[method, name] else text

    by_task = [name for name in frame.columns if name.startswith(("MAE ", "accuracy "))]
    by_task = by_task if len(by_task) > 1 else []
    first = [name for name in frame.columns if name not in by_task]
    star = " (* best)" if marks.to_numpy().any() else ""
    title = f"Scores on the test rows{star}"
    if len(first) > _MOST_COLUMNS and len(frame) <= len(first):
        tables = [_table(title, "score", [str(method).replace("+", "\n+") for method in frame.index])]
        for name in first:
            tables[0].add_row(escape(name), *(cell(method, name) for method in frame.index))
    else:
        tables = [_table(title, "method", first)]
        for method in frame.index:
            tables[0].add_row(escape(str(method)), *(cell(method, name) for name in first))
    if by_task:
        # Without errors and with one word for all: eleven tasks and seven methods fit a terminal just so.
        one = by_task[0].partition(" ")[0] if len({name.partition(" ")[0] for name in by_task}) == 1 else ""
        titles = {"MAE": "Mean absolute error", "accuracy": "Accuracy", "": "By task"}
        tables.append(_table(titles[one] + star, "task", [str(method).replace("+", "\n+") for method in frame.index]))
        for name in by_task:
            cells = (_short(frame.at[m, name], marks.at[m, name]) for m in frame.index)
            tables[1].add_row(escape(name.removeprefix(f"{one} ")), *cells)
    for shown in tables:
        console.print()
        console.print(shown)
    console.print()
    console.print(caption(scores), style="dim")


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    heading = Text(title, "table.title", no_wrap=True, overflow="ignore")  # a narrow table would break it otherwise
    left = 1 if len(columns) <= _MOST_COLUMNS else 0  # beside the space that divides columns anyway
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, left), show_edge=False)
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(escape(name), justify="right", overflow="fold")
    return table


def _short(value: float, best: bool) -> str:
    if value != value:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"[bold]*{text}[/]" if best else text
