"""The report's sections in their order, and the file."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.report import difference_tables, origin, pictures, score_tables, summary
from bmtl.evaluation.report.figures import LARGEST, Picture
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

TITLES = {
    "summary": "Summary",
    "scores": "Scores",
    "targets": "By target",
    "differences": "Differences",
    "ranks": "Ranks",
    "predictions": "Predictions",
    "images": "Images",
    "training": "Training",
    "conflicts": "Conflicts",
    "relatedness": "Relatedness",
    "calibration": "Calibration",
    "uncertainty": "Uncertainty",
    "recalibration": "Recalibration",
    "trust": "Posteriors",
    "ood": "Out of distribution",
    "runs": "Runs",
    "data": "Data",
}
"""The sections in their order: place in the page's address -> title."""

MOST_BYTES = 5_000_000
"""Of a page; where it would have more, pictures of many paths become images of pixels."""

Done = Callable[[str], None]


def report(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    done: Done = lambda section: None,
) -> Path:
    """Write the report of a comparison or of a run as one self-contained HTML file.

    Args:
        source: A folder with ``<method>/<split>/results.nc``, a run's folder, or a ``results.nc``.
        out: The file; by default ``report.html`` in the folder.
        done: Called with the title of each of the `TITLES` once it is written.

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
    text = to_html(read_source(source), done)
    with atomic(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def to_html(reading: Reading, done: Done = lambda section: None) -> str:
    """The report as text; `done` as for `report`."""
    first = reading.runs[0].about
    made = f"Made by bmtl {first.get('bmtl_version', 'unknown')} from {reading.source.name}"
    written = max(str(run.about.get("created", "")) for run in reading.runs)
    footer = f"{made}, results of {written.replace('T', ' ').replace('+00:00', ' UTC')}." if written else f"{made}."
    text = ""
    with methods_in_order([str(name) for name in reading.scores["learner"].values]):
        for largest in (LARGEST, LARGEST // 10):
            found = []
            for section in sections(reading, largest):
                found.append(section)
                if not text:  # what is written again has been counted
                    done(section.title)
            text = page(summary.title(reading), summary.subtitle(reading), found, footer)
            if len(text) < MOST_BYTES:
                break
    return text


def sections(reading: Reading, largest: int = LARGEST) -> Iterator[Section]:
    """All sections, each made when its turn comes; those for which there is nothing are empty.

    Args:
        reading: What the report is of.
        largest: Bytes of a picture as vectors, as for `Picture.markup`.
    """
    drawn = partial(_drawn, largest=largest)
    scores, trees = reading.scores, reading.trees
    several = not reading.single
    chosen = _one(reading)
    baseline = decode_attributes(scores).get("baseline")
    shown = [name for name in dict.fromkeys((chosen, baseline)) if name in trees]
    labels: dict[str, dict[str, int]] = next(
        (run.about["labels"] for run in reading.runs if run.about.get("labels")), {}
    )

    def by_target() -> Iterator[Markup]:
        if several:
            yield from drawn(pictures.of_gains(scores))
            yield from score_tables.by_task(scores)
            yield from difference_tables.scores(scores)

    def predictions() -> Iterator[Markup]:
        for name in shown:
            yield from drawn(pictures.of_predictions(name, trees[name]))

    def calibration() -> Iterator[Markup]:
        for of in (pictures.of_margins, pictures.of_intervals, pictures.of_pit, pictures.of_classes):
            yield from drawn(of(trees))

    def uncertainty() -> Iterator[Markup]:
        yield from drawn(pictures.of_uncertainty(trees))
        yield usefulness(trees)

    def ood() -> Iterator[Markup]:
        yield detected(trees)
        yield from drawn(pictures.of_outsiders(trees))

    def runs() -> Iterator[Markup]:
        yield origin.command(reading)
        yield origin.runs(reading)
        yield from origin.settings(reading)
        yield origin.versions(reading)

    def data() -> Iterator[Markup]:
        yield from origin.data(reading)
        yield from drawn(pictures.of_labels(labels))

    of_all: dict[str, Callable[[], Iterable[Markup]]] = {
        "summary": lambda: [summary.summary(reading)],
        "scores": lambda: [score_tables.by_method(scores)] if several else score_tables.of_one_run(scores),
        "targets": by_target,
        "differences": lambda: difference_tables.paired(scores) if several else [],
        "ranks": lambda: difference_tables.ranked(scores) if several else [],
        "ood": ood,
        "runs": runs,
        "data": data,
    }
    of_first: dict[str, Callable[[], Iterable[Markup]]] = {
        "predictions": predictions,
        "images": lambda: drawn(pictures.of_images(chosen, trees[chosen])),
        "training": lambda: drawn(pictures.of_training(trees)),
        "conflicts": lambda: drawn(pictures.of_conflicts(trees)),
        "relatedness": lambda: drawn(pictures.of_relatedness(trees)),
        "calibration": calibration,
        "uncertainty": uncertainty,
        "recalibration": lambda: [recalibrated(trees)],
        "trust": lambda: [trusted(trees)],
    }
    for name, title in TITLES.items():
        if name in of_first:
            yield Section(name, title, _introduced(reading, list(of_first[name]())))
        else:
            yield Section(name, title, list(of_all[name]()))


def _one(reading: Reading) -> str:
    """The method that has its own pictures: the best, or the first that the split has."""
    leader = None if reading.single else headline(reading.scores).leader
    return leader if leader in reading.trees else next(iter(reading.trees))


def _drawn(chosen: Iterable[Picture], largest: int) -> Iterator[Markup]:
    return (picture.markup(largest) for picture in chosen)


def _introduced(reading: Reading, body: list[Markup]) -> list[Markup]:
    """With a sentence before it that says which runs these are, where there are several of each method."""
    if reading.single or reading.scores.sizes["split"] < 2 or not any(body):
        return body
    over = Repeats.of(reading.scores).nouns
    return [paragraph(f"Of the runs {reading.first}; the tables above are over all {over}.", class_="note"), *body]
