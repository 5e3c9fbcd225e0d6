"""Loss and weight of every task over the steps, a panel per task and a line per method."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from bmtl.evaluation.history import has, moving_average, recorded
from bmtl.evaluation.style import Trees, lines_of, method_legend, named, panels, styled, task_names

MOST_POINTS = 500  # a line as wide as a panel has no more to show

Records = Mapping[str, xr.DataArray | None]


def loss_curves(
    trees: Trees, *, window: int | None = None, tasks: Sequence[str] | None = None, columns: int = 4
) -> Figure:
    """Loss of every task over the steps, a line per method: whose losses fall faster, as in figure 3 of the IGB paper.

    Losses are on a log axis where all of a panel's are positive. A method whose loss reaches zero (a log density with
    a learnt scale does) has its own linear axis at the right where others' losses are positive: the two
    are different quantities, and one axis would flatten both.

    Args:
        trees: A results tree, or method -> tree. Tasks and numbers of steps may differ.
        window: Steps of the centred moving average; a 25th of each run's by default.
        tasks: Which tasks to draw; by default all of them, or the first 36, and the figure says so.
        columns: Panels in a row.

    Raises:
        ValueError: If no run recorded losses, or a named task is in none of them.
    """
    return _curves(named(trees), False, window, tasks, columns)


def validation_curves(
    trees: Trees, *, window: int | None = None, tasks: Sequence[str] | None = None, columns: int = 4
) -> Figure:
    """Training and validation loss of every task over the steps, a panel per task and a line per method.

    The strong line is the validation loss after each epoch, the faint one the training loss, a moving average. Where
    validation rises while training falls, a method fits what does not hold for new rows. Axes are those of `loss_curves`.

    Args:
        trees: As for `loss_curves`; those without validation losses are left out.
        window: As for `loss_curves`.
        tasks: As for `loss_curves`.
        columns: Panels in a row.

    Raises:
        ValueError: If no run recorded validation losses, or a named task is in none of them.
    """
    runs = {name: tree for name, tree in named(trees).items() if has(tree, "validation_losses")}
    validated = {name: recorded(tree, "validation_losses") for name, tree in runs.items()}
    shown, left_out = task_names(validated, tasks, "validation losses")
    losses = {name: recorded(tree, "losses") for name, tree in runs.items()}
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        height = max(1.5, 2.6 - 0.4 * across) * down + 1.0
        figure = Figure(figsize=(max(2.35 * across, 5) + 0.4, height), layout="constrained")
        axes = panels(figure, shown, columns)
        right = _reaching_zero(losses)
        twins = {task: panel.twinx() for task, panel in axes.items()} if right else {}
        for name, line in lines_of(list(runs)).items():
            host = twins if name in right else axes
            faint = {name: {**line, "linewidth": 0.8, "label": f"{name}, training"}}
            _draw(host, losses, window, [name], faint, alpha=0.45)
            _draw_validation(host, validated[name], {**line, "label": f"{name}, validation"})
        _scale(axes)
        _tidy(twins)
        figure.supylabel("Loss", fontsize=10)
        figure.supxlabel(f"Step ({averaged(window)} of training){left_out}", fontsize=9)
        faintly = Line2D([], [], color="#666666", linewidth=0.8, alpha=0.45, label="training")
        strongly = Line2D([], [], color="#666666", linewidth=1.4, label="validation")
        labels = {name: f"{name} (right axis)" for name in right}
        method_legend(figure, list(runs), labels=labels, extra=[strongly, faintly])
    return figure


def _draw_validation(axes: Mapping[str, Axes], record: xr.DataArray | None, line: dict[str, Any]) -> None:
    for task, panel in axes.items():
        if record is not None and task in record["task"].values:
            values = record.sel(task=task).dropna("step")
            marker = "o" if values.size == 1 else None  # a line of one point is not seen
            panel.plot(values["step"], values, marker=marker, markersize=3, **line)


def training_curves(
    trees: Trees, *, window: int | None = None, tasks: Sequence[str] | None = None, columns: int = 4
) -> Figure:
    """Loss and effective weight of every task over the steps, a line per method.

    The upper half is that of `loss_curves`. A method that recorded no weights has no line in the lower half; without any
    that did, there is no lower half.

    Args:
        trees: As for `loss_curves`.
        window: As for `loss_curves`.
        tasks: As for `loss_curves`.
        columns: Panels in a row.

    Raises:
        ValueError: If no run recorded losses, or a named task is in none of them.
    """
    runs = named(trees)
    weighed = any(recorded(tree, "weights") is not None for tree in runs.values())
    return _curves(runs, weighed, window, tasks, columns)


def _curves(
    runs: Mapping[str, xr.DataTree], weighed: bool, window: int | None, tasks: Sequence[str] | None, columns: int
) -> Figure:
    losses = {name: recorded(tree, "losses") for name, tree in runs.items()}
    shown, left_out = task_names(losses, tasks)
    caption = f"Step ({averaged(window)}){left_out}"

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
            weights = {name: recorded(tree, "weights") for name, tree in runs.items()}
            # Shared: weights of tasks are read against each other.
            axes = panels(halves[1], shown, columns, sharey=True)
            _draw(axes, weights, window, list(runs))
            scale_alike(axes)
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
    _tidy(twins)


def _tidy(twins: Mapping[str, Axes]) -> None:
    """Axes at the right of panels, where they have a line."""
    for task, twin in twins.items():
        twin.grid(False)
        twin.spines["right"].set_visible(True)
        twin.set_visible(bool(np.isfinite(_extent({task: twin})).all()))


def _draw(
    axes: Mapping[str, Axes],
    records: Records,
    window: int | None,
    methods: Sequence[str],
    styles: Mapping[str, dict[str, Any]] | None = None,
    **further: Any,
) -> None:
    styles = lines_of(list(records)) if styles is None else styles
    for name in methods:
        record = records[name]
        if record is None:
            continue
        steps, smooth = smoothed(record, window)
        for k, task in enumerate(record["task"].values.tolist()):
            if task in axes:
                axes[task].plot(steps, smooth[:, k], **styles[name], **further)


def smoothed(record: xr.DataArray, window: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Steps ``(T,)`` and moving averages ``(T, K)``, no more of them than a line can show."""
    thin = max(1, record.sizes["step"] // MOST_POINTS)
    return record["step"].values[::thin], moving_average(record.values, window)[::thin]


def averaged(window: int | None) -> str:
    """How a caption says it."""
    return f"moving average over {'4 % of the' if window is None else window} steps"


def _extent(axes: Mapping[str, Axes], above: float = -np.inf) -> tuple[float, float]:
    """Lowest and highest finite value drawn above a bound; nothing drawn: (inf, -inf)."""
    drawn = [np.asarray(line.get_ydata(), dtype=float) for panel in axes.values() for line in panel.lines]
    values = np.concatenate([np.zeros(0), *drawn])
    values = values[np.isfinite(values) & (values > above)]
    return (float(values.min()), float(values.max())) if values.size else (np.inf, -np.inf)


def _scale(axes: Mapping[str, Axes]) -> None:
    """A log axis for each panel whose lines are positive and span more than a factor of three."""
    for task, panel in axes.items():
        low, high = _extent({task: panel})
        if low > 0 and high > 3 * low:
            _log(panel, low, high)


def scale_alike(axes: Mapping[str, Axes]) -> bool:
    """One scale for panels that share an axis; where weights hardly differ, one from zero, so that they look so.

    Returns:
        Whether the axis is a log one that leaves out weights of zero or less.
    """
    low, high = _extent(axes)
    positive = _extent(axes, above=0.0)[0]
    for panel in axes.values():
        if high > 3 * positive:
            _log(panel, positive, high)
        elif 0 < low < np.inf:
            panel.set_ylim(0, 1.1 * high)
    return low <= 0 and high > 3 * positive


def _log(panel: Axes, low: float, high: float) -> None:
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 30 * low else (1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())  # they take half of the drawing time
