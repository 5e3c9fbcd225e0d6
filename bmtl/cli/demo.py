"""``bmtl demo``: what multi-task learning gains over single-task networks when labels are scarce."""

import textwrap
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bmtl.cli.compare import print_failures, running
from bmtl.cli.console import app, console, counted
from bmtl.cli.options import command


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for results, tables and pictures.")] = Path("runs/demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Ten steps and one draw: shows that it runs, not how well.")
    ] = False,
    draws: Annotated[int, typer.Option(min=0, metavar="N", help="Draws of labels; 0 means 3, or 1 with --quick.")] = 0,
    jobs: Annotated[
        int, typer.Option(min=0, metavar="N", help="Processes; 0 means one per processor, or 1 with --quick.")
    ] = 0,
) -> None:
    """Compare balancers and a hierarchical Bayesian model with single-task networks on few labels (2,000 real molecules)."""
    from bmtl.datasets import load
    from bmtl.evaluation.compared import REFERENCE
    from bmtl.evaluation.label_shares import conclusion, share_table
    from bmtl.experiments import DEMO, METHODS
    from bmtl.experiments import demo as compare_shares
    from bmtl.experiments.demo import BUDGET, QUICK, SHARES

    data = load("qm9-mini")
    draws = draws or (1 if quick else 3)
    total = len(DEMO) * len(SHARES) * draws
    sizes = ", ".join(f"{len(rows):,} {part}" for part, rows in data.rows.items())
    console.print(
        f"{data.name}: {len(data.inputs):,} molecules ({sizes}), {len(data.tasks)} properties.", highlight=False
    )
    shares = ", ".join(f"{100 * share:g}" for share in SHARES)
    console.print(
        f"Methods learn from {shares} % of the labels of training and validation, {counted(draws, 'draw')} each: "
        f"{counted(total, 'run')}.",
        highlight=False,
        soft_wrap=True,
    )
    start = time.perf_counter()
    methods = [METHODS[name] for name in DEMO]
    with running(methods, len(SHARES) * draws, len(data.tasks), out) as done:
        found = compare_shares(
            data,
            out,
            draws=draws,
            budget=QUICK if quick else BUDGET,
            jobs=jobs or (1 if quick else None),
            command=command(),
            done=done,
        )
    console.print()
    references = int((found.changes["role"] == REFERENCE).sum())
    console.print(_aligned(share_table(found.changes), references), highlight=False, soft_wrap=True)
    console.print()
    over = "One draw is too few to compare methods." if draws == 1 else f"Mean ± standard error over {draws} draws."
    said = (
        f"{over} delta_m: mean relative change of the test error (MAE) over the {len(data.tasks)} properties against "
        "single-task networks (stl); negative is better. Below the line: reference rows, fitted by scikit-learn."
    )
    for text in (conclusion(found.changes), said):
        wrapped = textwrap.fill(text, console.width, break_long_words=False, break_on_hyphens=False)
        console.print(escape(wrapped), highlight=False, soft_wrap=True)
        console.print()
    seconds = time.perf_counter() - start
    files = sorted(path.name for path in out.iterdir() if path.is_file())
    console.print(
        f"Wrote {escape(str(out))}/: {', '.join(files)}, and a comparison a share ({seconds:.0f} s). All of one on a page: "
        f"bmtl report {escape(str(out))}/labels-10",
        highlight=False,
        soft_wrap=True,
    )
    print_failures([failure for one in found.comparisons.values() for failure in one.failures])


def _aligned(rows: list[list[str]], references: int) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    rule = "-" * len(lines[0])
    end = len(lines) - references
    return "\n".join([lines[0], rule, *lines[1:end], *([rule] if references else []), *lines[end:]])
