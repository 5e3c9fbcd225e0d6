"""``bmtl demo`` and ``bmtl compare``: methods side by side."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bmtl.cli.console import app, console, counted, print_data, print_scores, progress
from bmtl.cli.options import DataOption, Root, command, items, numbers, read, whole_numbers

if TYPE_CHECKING:
    from bmtl.experiments import Comparison


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
    total = len(experiments.DEMO) * (1 if quick else seeds)
    parts = ", ".join(f"{len(rows):,} {part}" for part, rows in data.rows.items())
    console.print(f"[bold]{data.name}[/]: {len(data.tasks)} tasks; molecules: {parts}. {counted(total, 'run')}.")
    start = time.perf_counter()
    with progress(total) as done:
        found = experiments.demo(
            data, out, quick=quick, seeds=seeds, epochs=epochs or None, jobs=jobs or None, command=command(), done=done
        )
    _print_outcome(found, out, start)


@app.command()
def compare(
    dataset: Annotated[str, typer.Argument(help="A name or family of `bmtl list datasets`, e.g. uci/energy.")],
    methods: Annotated[
        str,
        typer.Option(
            help="Comma separated: names of `bmtl list methods`, balancers, and code of your own as package.module:name or "
            "file.py:name (a recipe, a balancer's slot, or a Method)."
        ),
    ] = "stl,ew",
    balancers: Annotated[str, typer.Option(help="Each method under each of these, comma separated.")] = "",
    splits: Annotated[int, typer.Option(min=0, help="Number of the data's splits; 0 is all, or one if drawn.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, on each split.")] = 1,
    select: Annotated[str, typer.Option(help="Which epoch is kept: val, last or best-on-test.")] = "val",
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 30,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a batch.")] = 128,
    lr: Annotated[
        str, typer.Option(help="Learning rate; several, comma separated: each method's is chosen on validation.")
    ] = "2e-3",
    widths: Annotated[str, typer.Option(help="Widths of the trunk, comma separated.")] = "128,128",
    draws: Annotated[int, typer.Option(min=1, help="Posterior and predictive draws.")] = 100,
    baseline: Annotated[str, typer.Option(help="What delta_m and paired differences are taken against.")] = "stl",
    primary: Annotated[
        str, typer.Option(help="Score that delta_m, ranks and columns by task are made of, where a target has it.")
    ] = "",
    reference: Annotated[
        bool, typer.Option(help="Also a constant, a linear model and boosted trees, from scikit-learn.")
    ] = True,
    trust: Annotated[
        bool, typer.Option("--trust", help="Draw for the training rows too, by which the report judges each guide.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one a processor.")] = 0,
    dask: Annotated[str, typer.Option(help="Address of a Dask scheduler that runs the cells instead.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for results, tables and pictures.")] = Path("runs/compare"),
    root: Root = None,
    data: DataOption = None,
) -> None:
    """Compare methods on a data set: one budget, the same splits and selection for all.

    Each run is a file of its own; the same command continues an interrupted comparison.
    """
    from bmtl import experiments

    chosen = [experiments.method(name) for name in items(methods)]
    if balancers:
        chosen = [method.balanced_by(balancer) for method in chosen for balancer in items(balancers)]
    rates = numbers(lr, "lr")
    budget = experiments.Budget(
        epochs=epochs,
        batch_size=batch_size,
        lr=rates[0],
        widths=whole_numbers(widths, "widths"),
        draws=draws,
        select=select,  # type: ignore[arg-type]
    )
    source, count = read(dataset, root, data, splits)
    per_method = count * seeds + (len(rates) if len(rates) > 1 else 0)
    first = source if count == 1 and not isinstance(source, list) else source[0]  # type: ignore[index]
    console.print(
        f"[bold]{escape(first.name)}[/]: {counted(len(first.tasks), 'task')}, {counted(len(first.inputs), 'row')}, "
        f"splits: {count}. {counted(per_method * len(chosen), 'run')}."
    )
    print_data(first)
    start = time.perf_counter()
    with progress(per_method * len(chosen)) as done:
        found = experiments.compare(
            source,
            chosen,
            range(seeds),
            budget,
            out,
            rates=rates,
            baseline=baseline,
            primary=primary or None,
            reference=reference,
            trust=trust,
            jobs=jobs or None,
            dask=dask or None,
            command=command(),
            done=done,
        )
    if found.rates:
        rates_ = ", ".join(f"{name} {rate:g}" for name, rate in found.rates.items())
        console.print(f"Learning rates chosen on validation: {escape(rates_)}.")
    _print_outcome(found, out, start)
    if found.failures:
        raise typer.Exit(1)


def _print_outcome(found: "Comparison", out: Path, start: float) -> None:
    print_scores(found.scores)
    files = sorted(path.name for path in out.iterdir() if path.is_file() and not path.name.startswith("."))
    seconds = time.perf_counter() - start
    console.print(
        f"Wrote {escape(str(out))}/: <method>/<split>/results.nc, {', '.join(files)} ({seconds:.0f} s).", soft_wrap=True
    )
    console.print(f"All of it on one page: bmtl report {escape(shlex.quote(str(out)))}", soft_wrap=True)
    for failure in found.failures:
        console.print(f"[bold red]failed:[/] {escape(str(failure.cell))}: {escape(failure.reason)}")
