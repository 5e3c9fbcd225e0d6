"""The content of a folder: the comparison, its runs, and those that failed."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.comparison import compare
from bmtl.evaluation.history import recorded
from bmtl.evaluation.parts import parts_of
from bmtl.evaluation.storage import read

RESULTS, PARTIAL, ERROR, COMPARISON = "results.nc", "partial.nc", "error.txt", "comparison.nc"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        method: Row of the tables.
        split: Its place in the comparison's dimension ``split``.
        place: Name of its folder, such as "split-0-seed-1".
        about: Its root attributes.
        steps: Number of recorded steps.
        seconds: Median time of a step; NaN if not recorded.
    """

    method: str
    split: int
    place: str
    about: dict[str, Any]
    steps: int
    seconds: float


@dataclass(frozen=True)
class Reading:
    """The data of a report.

    Attributes:
        source: The folder or the file.
        scores: A comparison's dataset; that of one method and one split for a single run.
        runs: The finished runs, in the comparison's order.
        trees: Method -> results tree of the first split that has any: what pictures are drawn from.
        first: That split's folder name.
        errors: Folder of a failed run -> the last line of its error.
        partial: Folders of runs that were interrupted.
        foreign: Folders with results of methods or splits that the comparison does not hold.
        single: Whether this is the report of one run.
    """

    source: Path
    scores: xr.Dataset
    runs: Sequence[Run]
    trees: dict[str, xr.DataTree]
    first: str
    errors: dict[str, str]
    partial: Sequence[str]
    foreign: Sequence[str]
    single: bool


def read_source(path: str | os.PathLike[str]) -> Reading:
    """Read a run or a comparison.

    Args:
        path: A ``results.nc`` or ``partial.nc``, a run's folder with one of them, or a comparison's folder with
            ``<method>/<split>/results.nc`` in it. Where ``comparison.nc`` is not there, the runs are compared again.

    Raises:
        FileNotFoundError: If there is no such place, or no results in it; says what is there.
        ResultsFileError: If a file cannot be read.
        ValueError: If the runs cannot be compared.
    """
    source = Path(path)
    if source.is_file():
        return _single(source)
    if not source.is_dir():
        raise FileNotFoundError(f"There is no {source}. Give a results.nc, or the folder of a run or a comparison.")
    for name in (RESULTS, PARTIAL):
        if (source / name).is_file():
            return _single(source / name)
    return _comparison(source)


def _single(file: Path) -> Reading:
    tree = read(file)
    about = decode_attributes(tree)
    method = str(about.get("method", "run"))
    if "test" not in parts_of(tree):
        raise ValueError(f"{file} has no scored rows (no part 'test'): there is nothing to report on.")
    scores = compare({(method, 0): tree}, baseline=None, reference=None)
    run = _run(tree, method, 0, file.parent.name)
    partial = [file.parent.name] if file.name == PARTIAL or about.get("interrupted") else []
    return Reading(file, scores, [run], {method: tree}, run.place, {}, partial, [], single=True)


def _comparison(folder: Path) -> Reading:
    files = sorted(folder.glob(f"*/*/{RESULTS}"), key=lambda file: (_order(file.parent.name), file.parent.parent.name))
    errors = {_place(folder, file): _last_line(file) for file in sorted(folder.glob(f"*/*/{ERROR}"))}
    partial = [_place(folder, file) for file in sorted(folder.glob(f"*/*/{PARTIAL}"))]
    if not files:
        there = [f"{what}: {', '.join(of)}" for what, of in (("failed", list(errors)), ("interrupted", partial)) if of]
        raise FileNotFoundError(
            f"{folder} has no finished run (<method>/<split>/{RESULTS}). {'; '.join(there)}{'.' * bool(there)} "
            "Give the folder of a comparison or of a run.".replace("  ", " ")
        )
    stored = _stored(folder / COMPARISON)
    trees = {file: read(file) for file in files}
    known = None if stored is None else set(stored["learner"].values.tolist())
    methods = {file: _method(tree, file) for file, tree in trees.items()}
    _check_once(folder, methods)
    held = [file for file in files if known is None or methods[file] in known]
    places = list(dict.fromkeys(file.parent.name for file in held))
    scores = stored
    if scores is None:
        grid = {(methods[file], places.index(file.parent.name)): trees[file] for file in held}
        names = [name for name, _ in grid]
        timed = [name for (name, _), tree in grid.items() if name != "stl" and recorded(tree, "seconds") is not None]
        scores = compare(
            grid,
            baseline="stl" if "stl" in names else None,
            reference="ew" if "ew" in names else next(iter(timed), None),
        )
    numbers = _numbers(places, scores)
    order = {name: i for i, name in enumerate(scores["learner"].values.tolist())}
    runs = [
        _run(trees[file], methods[file], numbers[file.parent.name], file.parent.name)
        for file in held
        if file.parent.name in numbers
    ]
    runs.sort(key=lambda run: (order[run.method], run.split))
    first = min((run for run in runs), key=lambda run: run.split)
    shown = {methods[file]: trees[file] for file in held if file.parent.name == first.place}
    kept = {(run.method, run.place) for run in runs}
    foreign = [_place(folder, file) for file in files if (methods[file], file.parent.name) not in kept]
    return Reading(
        folder,
        scores,
        runs,
        {name: shown[name] for name in sorted(shown, key=order.__getitem__)},
        first.place,
        errors,
        partial,
        foreign,
        single=False,
    )


def _check_once(folder: Path, methods: dict[Path, str]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for file, method in methods.items():
        other = seen.setdefault((method, file.parent.name), file)
        if other != file:
            raise ValueError(
                f"{_place(folder, file)} and {_place(folder, other)} both hold results of {method!r}. Move one away."
            )


def _stored(file: Path) -> xr.Dataset | None:
    if not file.is_file():
        return None
    scores = read(file).to_dataset()
    if lacking := {"score", "present", "rows", "defined", "delta_m"} - set(scores.data_vars):
        raise ValueError(
            f"{file} holds no comparison: it has no {', '.join(sorted(lacking))}. Run the same command again, or move the "
            "file away: the runs are then compared anew."
        )
    return scores


def _numbers(places: Sequence[str], scores: xr.Dataset) -> dict[str, int]:
    """Folder name -> split of the comparison; both are in the order of split and seed, but a folder may be a later one."""
    splits = scores["split"].values.tolist()
    return dict(zip(places, splits, strict=False))


def _run(tree: xr.DataTree, method: str, split: int, place: str) -> Run:
    seconds = recorded(tree, "seconds")
    times = np.zeros(0) if seconds is None else seconds.values[np.isfinite(seconds.values)]
    steps = tree["training"].sizes.get("step", 0) if "training" in tree.children else 0
    return Run(method, split, place, decode_attributes(tree), steps, float(np.median(times)) if times.size else np.nan)


def _method(tree: xr.DataTree, file: Path) -> str:
    return str(tree.attrs.get("method", file.parent.parent.name))


def _order(place: str) -> tuple[list[int], str]:
    """Folders of splits and seeds by their numbers: seed-2 before seed-10."""
    return [int(digits) for digits in re.findall(r"\d+", place)], place


def _place(folder: Path, file: Path) -> str:
    return file.parent.relative_to(folder).as_posix()


def _last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason was written"
