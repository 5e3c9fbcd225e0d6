"""Training curves: loss and weight of every task over the steps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullLocator

from bmtl.evaluation.style import Trees, lines_of, method_legend, named, panels, recorded, styled, task_names

MOST_POINTS = 500  # a line as wide as a panel has no more to show

Records = Mapping[str, xr.DataArray | None]


def training_curves(
    trees: Trees, *, window: int | None = None, tasks: Sequence[str] | None = None, columns: int = 4
) -> Figure:
    """Loss and effective weight of every task over the steps, a line a method.

    Losses are on a log axis where all of a panel's are positive. A method whose loss reaches zero (a log density with
    a learnt scale does) has a linear axis of its own at the right, beside methods whose losses are positive: the two
    are different quantities, and one axis would flatten both. A method that recorded no weights has no line in the
    lower half; without any that did, there is no lower half.

    Args:
        trees: A results tree, or method -> tree. Tasks and numbers of steps may differ.
        window: Steps of the centred moving average; a 25th of each run's by default.
        tasks: Which tasks to draw; by default all of them, or the first 36, and the figure says so.
        columns: Panels beside each other.

    Raises:
        ValueError: If no run recorded losses, or a named task is in none of them.
    """
    runs = named(trees)
    losses = {name: recorded(tree, "losses") for name, tree in runs.items()}
    weights = {name: recorded(tree, "weights") for name, tree in runs.items()}
    shown, left_out = task_names(losses, tasks)
    weighed = any(record is not None for record in weights.values())
    steps = "4 % of the steps" if window is None else f"{window} steps"
    caption = f"Step (moving average over {steps}){left_out}"

    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        tall = max(1.5, 2.6 - 0.4 * across) * down + 0.5
        figure = Figure(figsize=(max(2.35 * across, 5) + 0.4, tall * (1 + weighed) + 0.5), layout="constrained")
        halves: list[Figure | SubFigure] = [*figure.subfigures(2, 1)] if weighed else [figure]

        axes = panels(halves[0], shown, columns)
        right = _reaching_zero(losses)
        _draw(axes, losses, window, [name for name in runs if name not in right])
        _scale(axes)
        if right:
            _draw_right(axes, losses, window, right)
        halves[0].supylabel("Loss", fontsize=10)
        halves[0].supxlabel(caption, fontsize=9)

        if weighed:
            axes = panels(
                halves[1], shown, columns, sharey=True
            )  # shared: weights of tasks are read against each other
            _draw(axes, weights, window, list(runs))
            _scale_alike(axes)
            halves[1].supylabel("Effective weight", fontsize=10)
            halves[1].supxlabel(caption, fontsize=9)
        method_legend(figure, list(runs), labels={name: f"{name} (right axis)" for name in right})
    return figure


def _reaching_zero(losses: Records) -> list[str]:
    """Methods with a loss of zero or less, where others have none; they are not drawn on a log axis."""
    low = [name for name, record in losses.items() if record is not None and bool((record <= 0).any())]
    return low if any(record is not None and name not in low for name, record in losses.items()) else []


def _draw_right(axes: Mapping[str, Axes], records: Records, window: int | None, methods: Sequence[str]) -> None:
    twins = {task: panel.twinx() for task, panel in axes.items()}
    _draw(twins, records, window, methods)
    for task, twin in twins.items():
        twin.grid(False)
        twin.spines["right"].set_visible(True)
        twin.set_visible(bool(np.isfinite(_extent({task: twin})).all()))  # no numbers beside nothing


def _draw(axes: Mapping[str, Axes], records: Records, window: int | None, methods: Sequence[str]) -> None:
    styles = lines_of(list(records))
    for name in methods:
        record = records[name]
        if record is None:
            continue
        width = window or max(1, record.sizes["step"] // 25)
        thin = max(1, record.sizes["step"] // MOST_POINTS)
        for task, panel in axes.items():
            if task in record["task"].values:
                # pandas' window shrinks at the ends and skips steps at which the task was absent
                smooth = pd.Series(record.sel(task=task).values).rolling(width, center=True, min_periods=1).mean()
                panel.plot(record["step"].values[::thin], smooth.values[::thin], **styles[name])


def _extent(axes: Mapping[str, Axes]) -> tuple[float, float]:
    """Lowest and highest finite value drawn; nothing drawn: (inf, -inf)."""
    drawn = [np.asarray(line.get_ydata(), dtype=float) for panel in axes.values() for line in panel.lines]
    values = np.concatenate([np.zeros(0), *drawn])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (np.inf, -np.inf)


def _scale(axes: Mapping[str, Axes]) -> None:
    """A log axis for each panel whose lines are positive and span more than a factor of three."""
    for task, panel in axes.items():
        low, high = _extent({task: panel})
        if low > 0 and high > 3 * low:
            _log(panel, low, high)


def _scale_alike(axes: Mapping[str, Axes]) -> None:
    """The same for all panels; where weights hardly differ, an axis from zero, so that they look so."""
    low, high = _extent(axes)
    for panel in axes.values():
        if low > 0 and high > 3 * low:
            _log(panel, low, high)
        elif 0 < low < np.inf:
            panel.set_ylim(0, 1.1 * high)


def _log(panel: Axes, low: float, high: float) -> None:
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 30 * low else (1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())  # half of the drawing time, for ticks nobody reads
