"""``bmtl compare``: methods next to each other on one data set."""

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bmtl.cli import options
from bmtl.cli.console import app, console, counted, print_data, print_error, print_scores
from bmtl.cli.progress import progress

if TYPE_CHECKING:
    from bmtl.experiments import Cell, Comparison, Failure, Method


@app.command(
    epilog="Examples:\n\n"
    "bmtl compare csv:houses.csv -d targets=price,grade -d kinds=grade:ordinal -d ignore=id --methods stl,ew,bayesian\n\n"
    "bmtl compare csv:trial.csv -d targets=days,visits -d events=days:died -d kinds=visits:count -d ignore=patient\n\n"
    "bmtl compare uci/energy --methods bayesian,mine.py:recipe --seeds 3\n\n"
    "`bmtl list csv:` has the options of the reader; `bmtl list NAME` those of any other name."
)
def compare(
    dataset: options.Dataset,
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Comma separated: names of `bmtl list methods` and `bmtl list balancers`, and code of your own, "
            f"{options.OWN_CODE}.",
        ),
    ] = "stl,ew",
    balancers: Annotated[
        str, typer.Option(metavar="NAMES", help="Each method under each of these, comma separated.")
    ] = "",
    splits: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="How many of the data's splits, or how many to draw where it has none; 0 means all, or one drawn.",
        ),
    ] = 0,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Number of seeds, on each split.")] = 1,
    select: Annotated[
        str, typer.Option(metavar="EPOCH", help="Which epoch is kept: val (best on validation), last or best-on-test.")
    ] = "val",
    trunk: options.Trunk = "",
    steps: options.Steps = None,
    epochs: options.Epochs = None,
    schedule: options.Schedule = "",
    batch_size: options.BatchSize = None,
    lr: Annotated[
        str,
        typer.Option(
            metavar="X",
            help="Learning rate, by default 5e-3 under the schedule cosine, else 2e-3. Several, comma separated: each "
            "method's is chosen on validation.",
        ),
    ] = "",
    widths: options.Widths = "",
    draws: options.DrawsOption = None,
    compile: options.Compile = "",
    augment: Annotated[
        bool, typer.Option("--augment", help="Train on random views of images: enlarged, flipped, in other colours.")
    ] = False,
    shrink: options.Shrink = True,
    device: options.DeviceOption = "cpu",
    precision: options.PrecisionOption = "float32",
    baseline: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Row that delta_m and paired differences are taken against; by default stl where it is compared.",
        ),
    ] = "stl",
    primary: Annotated[
        str,
        typer.Option(
            metavar="SCORE",
            help="Score that delta_m, ranks and columns by target are made of, for the targets that have it, such as "
            "auroc; or target:score pairs, comma separated. By default each kind of target has its own.",
        ),
    ] = "",
    reference: Annotated[
        bool,
        typer.Option(
            "--reference/--no-reference",
            help="Reference rows from scikit-learn: a constant, a linear model and boosted trees.",
        ),
    ] = True,
    trust: Annotated[
        bool, typer.Option("--trust", help="Draw for the training rows too, by which the report judges each guide.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=0, metavar="N", help="Processes; 0 means one per processor, one on a GPU.")
    ] = 0,
    dask: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Dask scheduler whose workers run the cells instead, such as tcp://host:8786."
        ),
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder for results, tables and pictures.")] = Path("runs/compare"),
    root: options.Root = None,
    data: options.DataOption = None,
) -> None:
    """Compare methods on a data set, all with one budget and on the same splits.

    Each run has a file of its own, and the same command continues an interrupted comparison.
    """
    from bmtl import experiments

    chosen = [experiments.method(name) for name in options.items(methods)]
    if balancers:
        chosen = [method.balanced_by(balancer) for method in chosen for balancer in options.items(balancers)]
    if trunk:
        chosen = [method.on_trunk(trunk) for method in chosen]
    if compile:
        chosen = [method.compiled(compile) for method in chosen]
    rates = options.numbers(lr, "lr") if lr else []
    budget = experiments.Budget(
        steps=steps,
        epochs=epochs,
        schedule=schedule or None,  # type: ignore[arg-type]
        batch_size=batch_size,
        lr=rates[0] if rates else None,
        widths=options.whole_numbers(widths, "widths") if widths else None,
        draws=draws,
        augment=augment,
        shrink=shrink,
        select=select,  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
    )
    source, count = options.read(dataset, root, data, splits)
    per_method = count * seeds + (len(rates) if len(rates) > 1 else 0)
    first = source[0] if isinstance(source, list) else source
    print_data(first, kinds=options.takes_kinds(dataset))
    drawn = f"{counted(count, 'split')}, {counted(seeds, 'seed')}"
    where = f"on {budget.device} in {budget.precision}"
    console.print(f"{counted(per_method * len(chosen), 'run')} ({drawn}), {where}.", highlight=False)
    start = time.perf_counter()
    with running(chosen, per_method, len(first.tasks), out) as done:
        found = experiments.compare(
            source,
            chosen,
            range(seeds),
            budget,
            out,
            rates=rates if len(rates) > 1 else (),
            baseline=baseline,
            primary=options.scores_by_target(primary),
            reference=reference,
            trust=trust,
            jobs=jobs or None,
            dask=dask or None,
            command=options.command(),
            done=done,
        )
    if found.rates:
        rates_ = ", ".join(f"{name} {rate:g}" for name, rate in found.rates.items())
        console.print(f"Learning rates chosen on validation: {escape(rates_)}.", soft_wrap=True)
    _print_outcome(found, out, start)
    if found.failures:
        raise typer.Exit(1)


@contextmanager
def running(
    methods: "Sequence[Method]", per_method: int, targets: int, out: Path
) -> "Iterator[Callable[[Cell | Failure], None]]":
    """Progress over the runs of a comparison; it ends with code 1 if all runs fail.

    Failures are printed as they come, the first of those that are alike.

    Args:
        methods: The methods.
        per_method: Runs of each.
        targets: How many each learns.
        out: Folder below which the runs are written.
    """
    from bmtl.experiments import AllFailed, Failure, under_way

    said: set[tuple[str, str]] = set()

    with progress(
        console,
        per_method * len(methods),
        "runs",
        "now references, step times, tables and pictures",
        size=per_method * sum(method.networks(targets) for method in methods),
        under_way=lambda: under_way(out),
    ) as advance:

        def done(outcome: "Cell | Failure") -> None:
            if isinstance(outcome, Failure):
                kind = (outcome.cell.method.name, outcome.reason)
                if kind not in said:
                    print_failures([outcome])
                said.add(kind)
                outcome = outcome.cell
            advance(str(outcome), outcome.method.networks(targets), new=outcome.trained)

        try:
            yield done
        except AllFailed as error:
            print_error(str(error))
            raise typer.Exit(1) from error


def print_failures(failures: "Sequence[Failure]") -> None:
    """A line on each failure, those that are alike as one."""
    from bmtl.experiments.cells import by_reason

    for runs, reason in by_reason(failures).items():
        console.print(f"[bold red]failed:[/] {escape(runs)}: {escape(reason)}", highlight=False, soft_wrap=True)


def _print_outcome(found: "Comparison", out: Path, start: float) -> None:
    print_scores(found.scores)
    files = sorted(path.name for path in out.iterdir() if path.is_file() and not path.name.startswith("."))
    seconds = time.perf_counter() - start
    console.print()
    console.print(
        f"Wrote {escape(str(out))}/: <method>/<split>/results.nc, {', '.join(files)} ({seconds:.0f} s).",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"All of it on one page: bmtl report {escape(shlex.quote(str(out)))}", highlight=False, soft_wrap=True
    )
    print_failures(found.failures)
