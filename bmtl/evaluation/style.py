"""Style of figures: colours, panels by task, legends, and atomic files."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from bmtl.evaluation.storage import atomic

Trees = xr.DataTree | Mapping[str, xr.DataTree]
MOST_PANELS = 36  # beyond that a page is unreadable and takes a minute to lay out; the figure says what it leaves out
# Okabe & Ito: colours that people with any common colour blindness can distinguish. Their yellow is too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")  # beyond seven methods, colours come again with the next dash
FIXED = "fixed"
"""The `gid` of artists that keep their colours where a page is dark, such as numbers on the cells of a heat map."""
RC = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "axes.unicode_minus": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """The style, inside the block; the user's own settings are restored afterwards."""
    with mpl.rc_context(RC):
        yield


def named(trees: Trees) -> dict[str, xr.DataTree]:
    """Method -> tree; a single tree is named by the method that it records.

    Raises:
        ValueError: If the mapping is empty.
    """
    if isinstance(trees, xr.DataTree):
        return {str(trees.attrs.get("method", "run")): trees}
    if not trees:
        raise ValueError("There is nothing to draw: no results tree was given.")
    return dict(trees)


def task_names(
    records: Mapping[str, xr.DataArray | None], chosen: Sequence[str] | None, what: str = "this"
) -> tuple[list[str], str]:
    """Tasks in order of appearance, or those chosen after a check that they are there; a note on those left out.

    Args:
        records: Run -> an array with the tasks that can be drawn, or None.
        chosen: Which to draw.
        what: What is drawn, for messages.

    Raises:
        ValueError: If no run has a task, or a chosen one is in none.
    """
    found = dict.fromkeys(
        str(name) for record in records.values() if record is not None for name in record["task"].values
    )
    if not found:
        raise ValueError(f"None of the runs {list(records)} has {what} of any task; it cannot be drawn.")
    for name in chosen or ():
        if name not in found:
            raise ValueError(f"There is no task {name!r}; the runs have {list(found)}.")
    if chosen is not None:
        return list(dict.fromkeys(chosen)), ""
    note = f"; the first {MOST_PANELS} of {len(found)} tasks" if len(found) > MOST_PANELS else ""
    return list(found)[:MOST_PANELS], note


def with_any(records: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    """The runs whose array has one of the tasks: those with a line in some panel, which belong in the legend."""
    return [name for name, record in records.items() if set(shown) & set(record["task"].values.tolist())]


_ORDER: ContextVar[tuple[str, ...]] = ContextVar("methods in the order of their colours", default=())


@contextmanager
def methods_in_order(methods: Sequence[str]) -> Iterator[None]:
    """Inside the block, `lines_of` gives a method the colour of its place here, whichever methods a picture shows.

    Without it the colours follow each picture's own methods: pictures of different methods then differ in colour.
    """
    token = _ORDER.set(tuple(methods))
    try:
        yield
    finally:
        _ORDER.reset(token)


def lines_of(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash, width and name of each method; later ones are thinner, so that a line below another shows at its edges.

    Colours are those of `methods_in_order`; methods that it does not name have the next ones.
    """
    order = list(dict.fromkeys((*_ORDER.get(), *methods)))
    looks = series_lines(order)
    widths = [min(1.1 + 0.15 * above, 2.0) for above in reversed(range(len(methods)))]
    return {method: {**looks[method], "linewidth": width} for method, width in zip(methods, widths, strict=True)}


def series_lines(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and name of lines that are not methods, such as tasks."""
    pairs = cycle([{"color": colour, "linestyle": dash} for dash in DASHES for colour in COLOURS])
    return {name: {**pair, "linewidth": 1.3, "label": name} for name, pair in zip(names, pairs, strict=False)}


def panels(
    host: Figure | SubFigure, titles: Sequence[str], columns: int, *, sharex: bool = True, sharey: bool = False
) -> dict[str, Axes]:
    """One panel a title, row by row; with the numbers of a common x axis below the lowest panel of each column."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    grid = host.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
    for spare in grid.flat[len(titles) :]:
        spare.remove()
    for lowest in grid.flat[max(len(titles) - columns, 0) : len(titles)]:
        lowest.tick_params(labelbottom=True)
    for axes, title in zip(grid.flat, titles, strict=False):
        axes.set_title(title, fontweight="bold")
    return dict(zip(titles, grid.flat, strict=False))


def rows_of_methods(
    titles: Sequence[str], methods: Sequence[str], columns: int, *, sharex: bool = False
) -> tuple[Figure, dict[str, Axes]]:
    """Panels whose rows are methods, the first at the top; with names at the left panels only."""
    across = min(columns, len(titles))
    down = -(-len(titles) // across)
    names = 0.075 * max(map(len, methods)) + 0.2
    width = max(1.9, 3.4 / across)
    figure = Figure(
        figsize=(max(width * across + names, 6.4), (0.2 * len(methods) + 0.65) * down + 0.5), layout="constrained"
    )
    axes = panels(figure, titles, columns, sharex=sharex)
    for place, panel in enumerate(axes.values()):
        panel.set_ylim(len(methods) - 0.5, -0.5)
        panel.set_yticks(range(len(methods)), methods if place % across == 0 else [])
        panel.tick_params(axis="y", length=0)
        panel.locator_params(axis="x", nbins=4)
    return figure, axes


def panel_title(name: str, unit: str) -> str:
    """A target's name with its unit, if it has one."""
    return f"{name} [{unit}]" if unit not in ("", "1") else name


def method_legend(
    figure: Figure,
    methods: Sequence[str],
    *,
    drawn: Collection[str] | None = None,
    labels: Mapping[str, str] | None = None,
    lines: Mapping[str, dict[str, Any]] | None = None,
    extra: Sequence[Any] = (),
) -> None:
    """One legend above all panels, drawn from the styles, so that a method absent from the first panel is there too.

    Args:
        figure: Laid out by ``constrained``.
        methods: Names, in the legend's order.
        drawn: Those of them that some panel shows; all by default.
        labels: What to call a method, where not by its name.
        lines: How each is drawn; by default as `lines_of` says.
        extra: Further handles, such as a band's.
    """
    called = {name: (labels or {}).get(name, name) for name in methods if drawn is None or name in drawn}
    lines = lines_of(methods) if lines is None else lines
    handles = [Line2D([], [], **{**lines[name], "label": label}) for name, label in called.items()]
    longest = max(len(name) for name in called.values())
    entries = [*handles, *extra]
    most = max(1, int(figure.get_figwidth() * 11 / (longest + 6)))
    rows = -(-len(entries) // most)
    figure.legend(handles=entries, loc="outside upper center", ncols=-(-len(entries) // rows))


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 150) -> Path:
    """Write a figure, atomically: as PNG, or as the suffix of `path` says.

    Raises:
        ResultsFileError: If the file cannot be written; an older one is then untouched.
        ValueError: If the suffix is of no format that matplotlib writes.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".").lower() or "png"
    supported = figure.canvas.get_supported_filetypes()
    if kind not in supported:
        raise ValueError(f"{path.name} ends in .{kind}; expected one of {sorted(supported)}.")
    with atomic(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi)
    return path
