"""``bmtl train`` and ``bmtl predict``: one fitted model, and its predictions for new rows."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bmtl.cli.console import app, console, print_data
from bmtl.cli.options import DataOption, Root, read, whole_numbers


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(help="A name or family of `bmtl list datasets`, e.g. uci/energy.")],
    method: Annotated[
        str, typer.Option(help="A name of `bmtl list methods`, or code of your own as for `bmtl compare`.")
    ] = "bayesian",
    balancer: Annotated[str, typer.Option(help="In place of the method's own; `bmtl list balancers`.")] = "",
    seed: Annotated[int, typer.Option(help="Of initial weights, batches and draws.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 30,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a batch.")] = 128,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 2e-3,
    widths: Annotated[str, typer.Option(help="Widths of the trunk, comma separated.")] = "128,128",
    draws: Annotated[int, typer.Option(min=1, help="Posterior and predictive draws.")] = 100,
    select: Annotated[str, typer.Option(help="Which epoch is kept: val, last or best-on-test.")] = "val",
    out: Annotated[Path, typer.Option(help="Folder for model.pt and results.nc.")] = Path("runs/model"),
    root: Root = None,
    data: DataOption = None,
) -> None:
    """Train one method, keep the model, and score it on the test rows."""
    from bmtl import experiments
    from bmtl.experiments.trees import reported

    chosen = experiments.method(method)
    if balancer:
        chosen = chosen.balanced_by(balancer)
    budget = experiments.Budget(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        widths=whole_numbers(widths, "widths"),
        draws=draws,
        select=select,  # type: ignore[arg-type]
    )
    source, _ = read(dataset, root, data, 1)
    one = source[0] if isinstance(source, list) else source
    print_data(one)
    with console.status(f"training {escape(chosen.name)} on {escape(one.name)}"):
        tree = experiments.run(one, chosen, seed, budget, out, keep_model=True, trust=True)
    for task, value in experiments.validation_scores(tree).items():
        target = reported(one, task)
        score = target.primary_score
        unit = f" {target.unit}" if score.in_units and target.unit != "1" else ""
        console.print(f"{escape(task)}: {score.symbol} on validation {value:.4g}{escape(unit)}")
    console.print(
        f"Wrote {escape(str(out))}/: model.pt, results.nc. Next: bmtl predict {escape(str(out))} --data FILE",
        soft_wrap=True,
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder that bmtl train wrote.")],
    data: Annotated[
        Path,
        typer.Option(help="Inputs in the form of the training data: for a table a CSV with a header, or .npz with X."),
    ],
    out: Annotated[Path, typer.Option(help="Predictions: .csv (a row an input) or .nc (with draws).")],
    draws: Annotated[int, typer.Option(min=0, help="Number of draws; 0 is the run's own.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Execute the files or modules of your own that the model was made by.")
    ] = False,
) -> None:
    """Predict new rows: mean, aleatoric and epistemic uncertainty, quantiles, in the targets' units."""
    from bmtl.evaluation import results
    from bmtl.evaluation.csv_cells import csv_text
    from bmtl.evaluation.storage import atomic
    from bmtl.experiments import load_fitted

    if out.suffix not in (".csv", ".nc"):
        raise ValueError(f"Predictions are written as .csv or .nc, and {out} was given.")
    fitted = load_fitted(run, allow_code=allow_code)
    if not data.exists():
        raise FileNotFoundError(f"There is no {data}.")
    raw = fitted.inputs.read(data)
    if out.suffix == ".nc":
        results.check_writable(out.parent)
        results.write(fitted.predict(raw, num_draws=draws or None, seed=seed), out)
    else:
        frame = fitted.table(raw, num_draws=draws or None, seed=seed)
        results.check_writable(out.parent)
        with atomic(out) as temporary:
            temporary.write_text(csv_text(frame, index_label="row"), encoding="utf-8")
    console.print(f"Wrote {escape(str(out))}: targets {escape(', '.join(fitted.targets))}.", soft_wrap=True)
