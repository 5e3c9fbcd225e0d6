"""The application, its two consoles, and what commands print alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    import xarray as xr

    from bmtl.datasets import MultiTaskData

app = typer.Typer(
    name="bmtl",
    help="Bayesian multi-task learning on Pyro and PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_MOST_LINES = 30  # of targets or of features

console = Console()
errors = Console(stderr=True)


def print_data(data: MultiTaskData, *, kinds: bool) -> None:
    """What the targets and the inputs were read as; then warnings, on the error console.

    Args:
        data: The data.
        kinds: Whether its reader takes the kinds of targets; what they may rather be is said then.
    """
    parts = ", ".join(f"{len(rows):,} {part}" for part, rows in data.rows.items())
    console.print(
        f"[bold]{escape(data.name)}[/]: {counted(len(data.inputs), 'row')} ({parts})", highlight=False, soft_wrap=True
    )
    hints = data.kind_hints() if kinds else []
    for what, lines, more in (("targets", data.describe_targets(), hints), ("inputs", data.describe_inputs(), [])):
        console.print(what, style="bold")
        for line in shortened(lines, what) + more:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    for warning in data.data_warnings():
        errors.print("[bold yellow]Warning:[/]", escape(warning), highlight=False, soft_wrap=True)


def shortened(lines: list[str], what: str) -> list[str]:
    """The lines, of very many the first ones and how many more there are."""
    more = len(lines) - _MOST_LINES
    return lines if more <= 1 else [*lines[:_MOST_LINES], f"... and {more:,} more {what}"]


def counted(number: int, what: str) -> str:
    """A number and what it is of: "1 task", "12 tasks"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def print_scores(scores: xr.Dataset) -> None:
    """A comparison in tables that fit the terminal."""
    from bmtl.evaluation.text_tables import to_text

    text = to_text(scores, width=console.width, bold=lambda cell: f"[bold]{cell}[/]", escape=escape)
    console.print()
    console.print(text.rstrip("\n"), highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """One line on the error console."""
    errors.print("[bold red]Error:[/]", escape(message), highlight=False, soft_wrap=True)
