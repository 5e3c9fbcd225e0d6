"""The report's sections in their order, and the file."""

import os
from collections.abc import Iterable
from pathlib import Path

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.report import difference_tables, origin, pictures, score_tables, summary
from bmtl.evaluation.report.figures import Picture
from bmtl.evaluation.report.markup import Markup, paragraph
from bmtl.evaluation.report.ood import detected
from bmtl.evaluation.report.page import Section, page
from bmtl.evaluation.report.ranking import headline
from bmtl.evaluation.report.recalibration import recalibrated
from bmtl.evaluation.report.runs import Reading, read_source
from bmtl.evaluation.report.trust import trusted
from bmtl.evaluation.report.usefulness import usefulness
from bmtl.evaluation.storage import atomic
from bmtl.evaluation.style import methods_in_order


def report(source: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of a comparison or of a run as one self-contained HTML file.

    Args:
        source: A folder with ``<method>/<split>/results.nc``, a run's folder, or a ``results.nc``.
        out: The file; by default ``report.html`` in the folder.

    Returns:
        The file. Equal results make equal files.

    Raises:
        FileNotFoundError: If there are no results there.
        ResultsFileError: If a file cannot be read or written.
        ValueError: If `out` does not end in .html, or the runs cannot be compared.
    """
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    file = folder / "report.html" if out is None else Path(out)
    if file.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"A report is written as .html, and {file} was given.")
    text = to_html(read_source(source))
    with atomic(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def to_html(reading: Reading) -> str:
    """The report as text."""
    first = reading.runs[0].about
    made = f"Made by bmtl {first.get('bmtl_version', 'unknown')} from {reading.source.name}"
    written = max(str(run.about.get("created", "")) for run in reading.runs)
    footer = f"{made}, results of {written.replace('T', ' ').replace('+00:00', ' UTC')}." if written else f"{made}."
    with methods_in_order([str(name) for name in reading.scores["learner"].values]):
        found = sections(reading)
    return page(summary.title(reading), summary.subtitle(reading), found, footer)


def sections(reading: Reading) -> list[Section]:
    """All sections; those for which there is nothing are empty."""
    scores, trees = reading.scores, reading.trees
    if reading.single:
        tables = [Section("scores", "Scores", [*score_tables.of_one_run(scores)])]
    else:
        tables = [
            Section("scores", "Scores", [score_tables.by_method(scores)]),
            Section(
                "targets",
                "By target",
                [*_drawn(pictures.of_gains(scores)), *score_tables.by_task(scores), *difference_tables.scores(scores)],
            ),
            Section("differences", "Differences", [*difference_tables.paired(scores)]),
            Section("ranks", "Ranks", [*difference_tables.ranked(scores)]),
        ]
    chosen = _one(reading)
    baseline = decode_attributes(scores).get("baseline")
    predictions = [name for name in dict.fromkeys((chosen, baseline)) if name in trees]
    calibration = [
        *_drawn(pictures.of_margins(trees)),
        *_drawn(pictures.of_intervals(trees)),
        *_drawn(pictures.of_pit(trees)),
        *_drawn(pictures.of_classes(trees)),
    ]
    labels = origin.about(reading).get("labels") or {}
    return [
        Section("summary", "Summary", [summary.summary(reading)]),
        *tables,
        Section(
            "predictions",
            "Predictions",
            _introduced(
                reading, [m for name in predictions for m in _drawn(pictures.of_predictions(name, trees[name]))]
            ),
        ),
        Section("images", "Images", _introduced(reading, _drawn(pictures.of_images(chosen, trees[chosen])))),
        Section("training", "Training", _introduced(reading, _drawn(pictures.of_training(trees)))),
        Section("conflicts", "Conflicts", _introduced(reading, _drawn(pictures.of_conflicts(trees)))),
        Section("relatedness", "Relatedness", _introduced(reading, _drawn(pictures.of_relatedness(trees)))),
        Section("calibration", "Calibration", _introduced(reading, calibration)),
        Section(
            "uncertainty",
            "Uncertainty",
            _introduced(reading, [*_drawn(pictures.of_uncertainty(trees)), usefulness(trees)]),
        ),
        Section("recalibration", "Recalibration", _introduced(reading, [recalibrated(trees)])),
        Section("trust", "Posteriors", _introduced(reading, [trusted(trees)])),
        Section("ood", "Out of distribution", [detected(trees), *_drawn(pictures.of_outsiders(trees))]),
        Section(
            "runs",
            "Runs",
            [origin.command(reading), origin.runs(reading), *origin.settings(reading), origin.versions(reading)],
        ),
        Section("data", "Data", [*origin.data(reading), *_drawn(pictures.of_labels(labels))]),
    ]


def _one(reading: Reading) -> str:
    """The method that has its own pictures: the best, or the first that the split has."""
    leader = None if reading.single else headline(reading.scores).leader
    return leader if leader in reading.trees else next(iter(reading.trees))


def _drawn(chosen: Iterable[Picture]) -> list[Markup]:
    return [picture.markup() for picture in chosen]


def _introduced(reading: Reading, body: list[Markup]) -> list[Markup]:
    """With a sentence before it that says which runs these are, where there are several of each method."""
    if reading.single or reading.scores.sizes["split"] < 2 or not any(body):
        return body
    over = Repeats.of(reading.scores).nouns
    return [paragraph(f"Of the runs {reading.first}; the tables above are over all {over}.", class_="note"), *body]
