"""``bmtl train`` and ``bmtl predict``: one fitted model, and what it says of new rows."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape

from bmtl.cli.console import app, console, counted, print_data_warnings
from bmtl.cli.options import DataOption, Root, read, whole_numbers


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(help="A name or family of `bmtl list datasets`, e.g. uci/energy.")],
    method: Annotated[str, typer.Option(help="`bmtl list methods`.")] = "bayesian",
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
    from bmtl.evaluation.results import check_writable

    check_writable(out)
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
    print_data_warnings(one)
    with console.status(f"training {escape(chosen.name)} on {escape(one.name)}"):
        tree = experiments.run(one, chosen, seed, budget, out, keep_model=True)
    errors = experiments.validation_errors(tree)
    for task, error in errors.items():
        unit = one.units.get(task, "") if one.kinds[task] == "regression" else ""
        what = "mean absolute error" if one.kinds[task] == "regression" else "share of wrong classes"
        console.print(
            f"{escape(task)}: {what} on validation {error:.4g} {'' if unit == '1' else escape(unit)}".rstrip()
        )
    console.print(
        f"Wrote {escape(str(out))}/: model.pt, results.nc. Next: bmtl predict {escape(str(out))} --data FILE",
        soft_wrap=True,
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder that bmtl train wrote.")],
    data: Annotated[
        Path, typer.Option(help="Inputs: a CSV with a header, columns by name or in order, or .npz with X (N, D).")
    ],
    out: Annotated[Path, typer.Option(help="Predictions: .csv (a row an input) or .nc (with draws).")],
    draws: Annotated[int, typer.Option(min=0, help="Number of draws; 0 is the run's own.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Predict new rows: mean, aleatoric and epistemic uncertainty, quantiles, in the targets' units."""
    from bmtl.evaluation import results
    from bmtl.evaluation.storage import atomic
    from bmtl.experiments import load_fitted

    if out.suffix not in (".csv", ".nc"):
        raise ValueError(f"Predictions are written as .csv or .nc, and {out} was given.")
    results.check_writable(out.parent)
    fitted = load_fitted(run)
    x = _inputs(data, fitted.features)
    if out.suffix == ".nc":
        results.write(fitted.predict(x, num_draws=draws or None, seed=seed), out)
    else:
        frame = fitted.table(x, num_draws=draws or None, seed=seed)
        with atomic(out) as temporary:
            frame.to_csv(temporary, index_label="row")
    console.print(
        f"Wrote {escape(str(out))}: {counted(len(x), 'row')}, targets {escape(', '.join(fitted.kinds))}.",
        soft_wrap=True,
    )


def _inputs(path: Path, features: Sequence[str]) -> np.ndarray:
    """Inputs ``(N, D)`` of a file; columns of a CSV by name, where the model's have names, in any order and among others."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}.")
    if path.suffix == ".npz":
        from bmtl.datasets.files import Archive

        return Archive(path).array("X")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            numbered = [(lines.line_num, row) for row in lines if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file ({error}). Inputs are .csv or .npz.") from error
    (_, header), *rows = numbered or [(1, [])]
    if header and all(map(_is_number, header)):
        raise ValueError(f"{path} begins with numbers, and its first line is expected to name the columns.")
    names = list(features) or header
    lacking = [name for name in names if header.count(name) != 1]
    if features and lacking:
        raise ValueError(
            f"{path} has no one column for {', '.join(lacking)}; the model was trained on {', '.join(features)}."
        )
    places = [header.index(name) for name in features] or range(len(header))
    for number, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {number}: {len(row)} fields, and the header has {len(header)}.")
        wrong = [f"{header[i]}={row[i]!r}" for i in places if not _is_number(row[i])]
        if wrong:
            raise ValueError(f"{path}, line {number}: {wrong[0]} is not a number.")
    return np.array([[row[i] for i in places] for _, row in rows], dtype=float).reshape(len(rows), len(places))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
