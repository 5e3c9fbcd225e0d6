"""``bmtl train`` and ``bmtl predict``: one fitted model, and its predictions for new rows."""

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bmtl.cli import options
from bmtl.cli.console import app, console, counted, print_data, print_scores
from bmtl.cli.progress import progress

if TYPE_CHECKING:
    import xarray as xr

    from bmtl.datasets import MultiTaskData


@app.command(
    epilog="Example:\n\n"
    "bmtl train csv:houses.csv -d targets=price,grade -d kinds=grade:ordinal -d ignore=id --out runs/houses\n\n"
    "`bmtl list csv:` has the options of the reader."
)
def train(
    dataset: options.Dataset,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"A name of `bmtl list methods` or of `bmtl list balancers`, or code of your own, {options.OWN_CODE}.",
        ),
    ] = "bayesian",
    balancer: Annotated[
        str, typer.Option(metavar="NAME", help="Instead of the method's own; see `bmtl list balancers`.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of initial weights, batches and draws.")] = 0,
    trunk: options.Trunk = "",
    steps: options.Steps = None,
    epochs: options.Epochs = None,
    schedule: options.Schedule = "",
    batch_size: options.BatchSize = None,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Learning rate, by default 5e-3 under the schedule cosine, else 2e-3.", show_default=False
        ),
    ] = None,
    widths: options.Widths = "",
    draws: options.DrawsOption = None,
    compile: options.Compile = "",
    select: Annotated[
        str, typer.Option(metavar="EPOCH", help="Which epoch is kept: val (best on validation), last or best-on-test.")
    ] = "val",
    augment: Annotated[
        bool, typer.Option("--augment", help="Train on random views of images: enlarged, flipped, in other colours.")
    ] = False,
    shrink: options.Shrink = True,
    device: options.DeviceOption = "cpu",
    precision: options.PrecisionOption = "float32",
    out: Annotated[Path, typer.Option(help="Folder for model.pt and results.nc.")] = Path("runs/model"),
    root: options.Root = None,
    data: options.DataOption = None,
) -> None:
    """Train one method, keep the model, and score it on the test rows."""
    from bmtl import experiments

    chosen = experiments.method(method)
    if balancer:
        chosen = chosen.balanced_by(balancer)
    if trunk:
        chosen = chosen.on_trunk(trunk)
    if compile:
        chosen = chosen.compiled(compile)
    budget = experiments.Budget(
        steps=steps,
        epochs=epochs,
        schedule=schedule or None,  # type: ignore[arg-type]
        batch_size=batch_size,
        lr=lr,
        widths=options.whole_numbers(widths, "widths") if widths else None,
        draws=draws,
        augment=augment,
        shrink=shrink,
        select=select,  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
    )
    source, _ = options.read(dataset, root, data, 1)
    one = source[0] if isinstance(source, list) else source
    print_data(one, kinds=options.takes_kinds(dataset))
    console.print(f"{escape(chosen.name)} on {budget.device} in {budget.precision}.", highlight=False)
    running = [experiments.UnderWay(chosen.name)]

    def share_done(done: float) -> None:
        running[0] = experiments.UnderWay(chosen.name, done)

    with progress(console, 1, "runs", under_way=lambda: running) as advance:
        share = experiments.ShareDone(chosen.networks(len(one.tasks)), share_done)
        tree = experiments.run(one, chosen, seed, budget, out, keep_model=True, trust=True, callbacks=[share])
        advance(chosen.name)
    _print_run(one, tree)
    images = any(target.family.of_rows is not target.family for target in one.targets.values())
    further = "--data FOLDER --out maps" if images else "--data FILE --out predictions.csv"
    console.print(
        f"Wrote {escape(str(out))}/: model.pt, results.nc. Next: bmtl predict {escape(shlex.quote(str(out)))} {further}",
        highlight=False,
        soft_wrap=True,
    )


def _print_run(data: "MultiTaskData", tree: "xr.DataTree") -> None:
    """Each target's primary score on validation, and all scores on the test rows."""
    from bmtl import experiments
    from bmtl.evaluation.comparison import compare
    from bmtl.evaluation.text_tables import entry
    from bmtl.experiments.trees import reported

    print_scores(compare({(tree.attrs["method"], 0): tree}, baseline=None, reference=None))
    console.print()
    for task, value in experiments.validation_scores(tree).items():
        target = reported(data, task)
        score = target.primary_score
        unit = f" {target.unit}" if score.in_units and target.unit != "1" else ""
        shown = f"{entry(value, math.nan)}{unit}" if math.isfinite(value) else "not finite"
        console.print(f"{escape(task)}: {score.symbol} on validation {escape(shown)}", highlight=False, soft_wrap=True)


@app.command(
    epilog="Examples:\n\nbmtl predict runs/houses --data new.csv --out predictions.csv\n\n"
    "bmtl predict runs/rooms --data photographs --out maps"
)
def predict(
    run: Annotated[Path, typer.Argument(help="Folder that bmtl train wrote.")],
    data: Annotated[
        Path,
        typer.Option(
            help="New inputs in the form of the training data: for a table a file with its feature columns, or .npz with X; "
            "for drug-target pairs a table with the columns smiles and sequence; for images a file or a folder of them."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Predictions: .csv (a row for each input) or .nc (with draws); of images a folder for maps as PNG and npy."
        ),
    ],
    draws: Annotated[int, typer.Option(min=0, metavar="N", help="Number of draws; 0 means the run's own.")] = 0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the draws.")] = 0,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Execute the files or modules of your own that the model was made by, if they have not changed since.",
        ),
    ] = False,
) -> None:
    """Predict new rows: mean, aleatoric and epistemic uncertainty, quantiles, in the targets' units."""
    from bmtl.evaluation import results
    from bmtl.evaluation.csv_cells import csv_text
    from bmtl.evaluation.storage import atomic
    from bmtl.experiments import load_fitted, write_maps

    fitted = load_fitted(run, allow_code=allow_code)
    if fitted.images:
        if out.suffix in (".csv", ".nc") or out.is_file():
            raise ValueError(f"Predictions of images are written to a folder, and {out} was given.")
    elif out.suffix not in (".csv", ".nc"):
        raise ValueError(f"Predictions are written as .csv or .nc, and {out} was given.")
    if not data.exists():
        raise FileNotFoundError(f"There is no {data}.")
    raw = fitted.inputs.read(data)
    if fitted.images:
        rows = len(raw)
        names = fitted.inputs.names(data) or [str(i) for i in range(rows)]
        write_maps(fitted, raw, names, out, num_draws=draws or None, seed=seed)
    elif out.suffix == ".nc":
        tree = fitted.predict(raw, num_draws=draws or None, seed=seed)
        results.write(tree, out)
        rows = tree["predictions_summary"].sizes["row"]
    else:
        frame = fitted.table(raw, num_draws=draws or None, seed=seed)
        rows = len(frame)
        with atomic(out) as temporary:
            temporary.write_text(csv_text(frame, index_label="row", digits=9), encoding="utf-8")
    console.print(
        f"Wrote {escape(str(out))}: {counted(rows, 'row')}, targets {escape(', '.join(fitted.targets))}.",
        highlight=False,
        soft_wrap=True,
    )
