"""The files of a comparison: its scores, tables and pictures."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import xarray as xr

from bmtl.evaluation import comparison, plots, results
from bmtl.evaluation.attributes import decode_attributes, encode_attributes
from bmtl.evaluation.style import methods_in_order, save
from bmtl.evaluation.tables import to_csv
from bmtl.evaluation.text_tables import to_latex, to_markdown
from bmtl.experiments.cells import Cell
from bmtl.experiments.methods import Method

Trees = dict[tuple[str, int], xr.DataTree]
"""Results by (learner, number of the split)."""


def write_comparison(
    cells: Sequence[Cell],
    references: Trees,
    seconds: Mapping[str, float] | None,
    *,
    order: Sequence[Method],
    numbers: Mapping[tuple[int | None, int], int],
    baseline: str | None,
    primary: str | Mapping[str, str] | None,
    out: Path,
    command: str | None,
    pictures: bool,
) -> tuple[xr.Dataset, Trees]:
    """Compares the finished runs and writes ``comparison.nc``, tables and pictures.

    Args:
        cells: The finished runs.
        references: Trees of the reference rows.
        seconds: Time of a step by method; None for what each run recorded.
        order: The methods, as the table has them.
        numbers: Number of each pair of split and seed.
        baseline: What delta_m is taken against; left out where it is not among what is compared.
        primary: As for `bmtl.evaluation.comparison.compare`.
        out: Folder.
        command: What made the comparison.
        pictures: Draw the first split.
    """
    places = {method.name: i for i, method in enumerate(order)}
    cells = sorted(cells, key=lambda cell: (places[cell.method.name], numbers[cell.split, cell.seed]))
    trees = {
        (cell.method.name, numbers[cell.split, cell.seed]): results.read(cell.folder(out) / "results.nc")
        for cell in cells
    } | references
    names = list(dict.fromkeys(name for name, _ in trees))
    scores = comparison.compare(
        trees,
        baseline=baseline if baseline in names else None,
        reference=timed_against(order, names),
        primary=primary,
        step_seconds=seconds,
    )
    if command is not None:
        scores.attrs = encode_attributes({**decode_attributes(scores), "command": command})
    results.write(scores, out / "comparison.nc")
    (out / "table.csv").write_text(to_csv(scores), encoding="utf-8")
    (out / "table.md").write_text(to_markdown(scores), encoding="utf-8")
    (out / "table.tex").write_text(to_latex(scores), encoding="utf-8")
    if pictures:
        write_pictures(trees, places, out)
    return scores, trees


def timed_against(methods: Sequence[Method], finished: Collection[str]) -> str | None:
    """The method whose step time is 1: "ew", else the first that finished; one with a network per target has no step."""
    having = [method.name for method in methods if method.name in finished and not method.single_task]
    return "ew" if "ew" in having else next(iter(having), None)


def write_pictures(trees: Trees, methods: Collection[str], out: Path) -> None:
    """Draws the first split: training, reliability, and the conflicts of one method that measured them."""
    first = min(number for _, number in trees)
    shown = {name: tree for (name, number), tree in trees.items() if number == first}
    trained = {name: tree for name, tree in shown.items() if name in methods}
    with methods_in_order(list(dict.fromkeys(name for name, _ in trees))):
        save(plots.training_curves(trained), out / "training.png")
        if any("pit" in tree["test"].children for tree in shown.values() if "test" in tree.children):
            save(plots.reliability_curves(shown), out / "reliability.png")
        measured = next((tree for tree in trained.values() if _measured(tree)), None)
        if measured is not None:
            save(plots.cosine_matrix(measured), out / "conflicts.png")


def _measured(tree: xr.DataTree) -> bool:
    """Whether a run measured the cosines of its task gradients."""
    training = tree["training"].to_dataset()
    return "cosine" in training and bool(training["cosine"].notnull().any())
