"""Methods compared: mean ranks with groups that do not differ significantly, paired differences, and scores by task."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.compared import counted_scores, families_of, references_of
from bmtl.evaluation.plots.reach import mark_outside, reach_of
from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.scores import known_score
from bmtl.evaluation.statistics import mean_and_error
from bmtl.evaluation.style import COLOURS, lines_of, panel_title, rows_of_methods, styled, task_names

GREY = "#8C8C8C"


def critical_difference_diagram(found: xr.Dataset, *, over: str | None = None) -> Figure:
    """Mean ranks on a line, the best to the left; a bar joins methods that do not differ significantly.

    Args:
        found: From `ranks.critical_difference`. For Nemenyi's test, the critical difference is written below.
        over: What methods are ranked within, such as "seeds"; by default the name of that dimension.

    Raises:
        ValueError: If there is no mean rank to draw.

    Source:
        Demšar (2006), figure 1.
    """
    rank = found["mean_rank"].values
    if not np.isfinite(rank).all():
        raise ValueError("There are no mean ranks: no block counts for all methods.")
    names = [str(name) for name in found["learner"].values]
    k, level = len(names), found.attrs["level"]
    across = 4.6 / (k - 1)  # inches a rank
    overhang = 0.06 / across  # of a bar on either side
    ends = [(rank[group].min() - overhang, rank[group].max() + overhang) for group in found["group"].values]
    bars = _stacked(ends, 2 * overhang)
    left = (k + 1) // 2  # methods written to the left, best first; the others to the right, best last
    below = 0.45 + 0.32 * (1 + max(bars, default=-1))
    with styled():
        longest = max(map(len, names))
        depth = below + 0.5 * max(left, k - left)
        margin = 0.075 * (longest + 7)
        figure = Figure(figsize=(4.6 + 2 * margin, 0.36 * depth + 0.95), layout="constrained")
        axes = figure.subplots()
        axes.set(ylim=(-depth + 0.2, 0.7))
        axes.set_axis_off()
        axes.set_xlim(1 - margin / across, k + margin / across)
        axes.plot([1, k], [0, 0], color="black", linewidth=1)
        for tick in range(1, k + 1):
            axes.plot([tick, tick], [0, 0.14], color="black", linewidth=1)
            axes.text(tick, 0.22, str(tick), ha="center", va="bottom", fontsize=8)
        for i, (name, value) in enumerate(zip(names, rank, strict=True)):
            to_left = i < left
            height = -below - 0.5 * (i if to_left else k - 1 - i)
            end = 1 - 0.1 / across if to_left else k + 0.1 / across
            axes.plot([value, value, end], [0, height, height], color="#555555", linewidth=0.8)
            text = f"{name}  {value:.2f}" if to_left else f"{value:.2f}  {name}"
            side = "right" if to_left else "left"
            axes.text(end + (-0.06 if to_left else 0.06) / across, height, text, ha=side, va="center", fontsize=9)
        for bar, line in zip(ends, bars, strict=True):
            axes.plot(bar, [-0.25 - 0.32 * line] * 2, color=COLOURS[1], linewidth=3.2, solid_capstyle="butt")
        test = "Wilcoxon signed-rank, Holm" if found.attrs["test"] == "signed-rank" else "Nemenyi"
        critical = float(found["difference"])
        if np.isfinite(critical):
            test += f", critical difference {critical:.2f}"
        p = float(found["friedman_p"])
        blocks = f"{int(found['blocks'])} {over or found.attrs['block'] + 's'}"
        said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        axes.set_title(f"Mean rank over {blocks} (Friedman {said})", fontweight="bold", loc="center")
        figure.supxlabel(f"Joined: no significant difference at {level:g} ({test})", fontsize=8, color="#444444")
    return figure


def difference_forest(
    differences: xr.Dataset,
    *,
    name: str = "score",
    over: str = "split",
    tasks: Sequence[str] | None = None,
    columns: int = 4,
    references: Sequence[str] = (),
) -> Figure:
    """Paired differences to a baseline with their intervals, a row per method, a panel per task.

    Each method has its colour. The dot is filled where the interval excludes zero, and hollow where it does not, or where
    there is none (a single split), and then without a bar. Rows far from the others
    are arrows at the edge, with their value.

    Args:
        differences: From `statistics.paired_differences`, with or without the dimension ``task``.
        name: What was compared, for the axis.
        over: What the repeated runs are, "split" or "seed", for the axis.
        tasks: Which to draw; by default all of them, or the first 36, and the figure says so.
        columns: Panels in a row.
        references: Methods for which no axis is made longer.

    Raises:
        ValueError: If a named task is not there.
    """
    by_task, left_out = _by_task(differences, tasks)
    methods = [str(method) for method in differences["learner"].values]
    baseline, level = differences.attrs["baseline"], differences.attrs["level"]
    higher = bool(differences.attrs["higher_is_better"])
    with styled():
        figure, axes = rows_of_methods(list(by_task), methods, columns)
        for task, panel in axes.items():
            _draw_intervals(panel, by_task[task], methods, _reach([by_task[task]], methods, references))
        splits = int(differences["splits"].max())
        better = "right" if higher else "left"
        figure.supxlabel(
            f"{name} less {baseline}'s, {100 * level:g} % interval over {splits} {over}{'s' * (splits != 1)}; "
            f"better to the {better}{left_out}",
            fontsize=9,
        )
    return figure


def gains_by_task(
    gains: xr.Dataset,
    *,
    over: str = "split",
    tasks: Sequence[str] | None = None,
    columns: int = 4,
    references: Sequence[str] = (),
) -> Figure:
    """Relative change of each target's error against the baseline in percent, all panels on one axis: negative is better.

    Dots, intervals and colours as in `difference_forest`.

    Args:
        gains: From `changes.gains`.
        over: What the repeated runs are, "split" or "seed", for the axis.
        tasks: Which to draw; by default all of them, or the first 36, and the figure says so.
        columns: Panels in a row.
        references: Methods for which no axis is made longer.

    Raises:
        ValueError: If there is no target, or a named one is not there.
    """
    shown, left_out = task_names({"": gains["task"]}, tasks, "a score whose relative change has a meaning")
    methods = [str(method) for method in gains["learner"].values]
    with styled():
        figure, axes = rows_of_methods(shown, methods, columns, sharex=True)
        of_tasks = [gains.sel(task=task) for task in shown]
        for panel, one in zip(axes.values(), of_tasks, strict=True):
            _draw_intervals(panel, one, methods, _reach(of_tasks, methods, references))
        splits = int(gains["splits"].max())
        interval = f", {100 * gains.attrs['level']:g} % interval over {splits} {over}s" if splits > 1 else ""
        figure.supxlabel(
            f"Change against {gains.attrs['baseline']} [%]{interval}; better to the left{left_out}", fontsize=9
        )
    return figure


def _reach(of_tasks: Sequence[xr.Dataset], methods: Sequence[str], references: Sequence[str]) -> tuple[float, float]:
    """Ends of an axis for the differences of these tasks, 0 included."""
    ends, minor = [], np.isin(methods, references)
    for one in of_tasks:
        chosen = one.sel(learner=list(methods))
        ends.append(reach_of(chosen["difference"].values, chosen["lower"].values, chosen["upper"].values, minor))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    margin = 0.04 * (high - low)
    return min(low, 0.0) - margin, max(high, 0.0) + margin


def _draw_intervals(panel: Axes, differences: xr.Dataset, methods: Sequence[str], reach: tuple[float, float]) -> None:
    """A row per method: its mean difference, and the interval where there is one."""
    panel.axvline(0, color="#444444", linewidth=0.8)
    lines = lines_of(methods)
    for row, method in enumerate(methods):
        cell = differences.sel(learner=method)
        middle, low, high = (float(cell[end]) for end in ("difference", "lower", "upper"))
        colour = lines[method]["color"]
        clear = low > 0 or high < 0
        panel.plot([low, high], [row, row], color=colour, linewidth=1.6, label=f"{method}, interval")
        panel.plot(
            middle, row, "o", color=colour, markerfacecolor=colour if clear else "none", markersize=4.5, label=method
        )
    panel.set_xlim(reach)
    colours = [lines[method]["color"] for method in methods]
    mark_outside(panel, differences["difference"].sel(learner=list(methods)).values, colours)


def scores_by_task(
    comparison: xr.Dataset, metric: str | None = None, *, tasks: Sequence[str] | None = None, columns: int = 4
) -> Figure:
    """One score of every method, a panel per task: a dot per split, the mean with its standard error, the baseline's mean.

    Methods far from the others are arrows at the edge, with their value.

    Args:
        comparison: From `compare`.
        metric: Which score, by default the primary score of the first target; targets without it are left out.
        tasks: Which to draw; by default all of them, or the first 36, and the figure says so.
        columns: Panels in a row.

    Raises:
        ValueError: If the comparison has no such score, or a named task is not there.
    """
    metric = str(comparison["primary"].values[0]) if metric is None else metric
    if metric not in comparison["metric"].values:
        raise ValueError(f"The comparison has no score {metric!r}; it has {comparison['metric'].values.tolist()}.")
    scores = comparison["score"].sel(metric=metric)
    higher = bool(scores["higher_is_better"])
    counted = counted_scores(comparison, metric)
    data = mean_and_error(scores, counted=counted).assign(score=scores.where(counted))
    found = [family.score(metric) for family in families_of(comparison).values()]
    in_units = [score is not None and score.in_units for score in found]
    data = data.assign_coords(unit=("task", np.where(in_units, comparison["unit"].values, "1")))
    held = scores.notnull().any(["learner", "split"]).values
    by_task, left_out = _by_task(data.isel(task=held), tasks)
    methods = [str(method) for method in comparison["learner"].values]
    baseline, repeats = decode_attributes(comparison).get("baseline"), Repeats.of(comparison)
    with styled():
        figure, axes = rows_of_methods(list(by_task), methods, columns)
        lines, minor = lines_of(methods), np.isin(methods, references_of(comparison))
        for task, panel in axes.items():
            one = by_task[task]
            if baseline is not None:
                panel.axvline(float(one["mean"].sel(learner=baseline)), color="#444444", linewidth=0.8, dashes=(4, 2))
            for row, method in enumerate(methods):
                cell = one.sel(learner=method)
                colour = lines[method]["color"]
                every = np.full(cell.sizes["split"], row)
                panel.plot(cell["score"], every, "o", color=GREY, markersize=2.5, alpha=0.6, label=f"{method}, one run")
                mean, error = float(cell["mean"]), float(cell["error"])
                said = f"{method}, mean ± standard error"
                panel.plot([mean - error, mean + error], [row, row], color=colour, linewidth=1.6, label=said)
                panel.plot(mean, row, "o", color=colour, markersize=4.5, label=method)
            shown = one.sel(learner=methods)
            means, errors = shown["mean"].values, shown["error"].values
            low, high = shown["score"].min("split").values, shown["score"].max("split").values
            ends = np.fmin(low, means - errors), np.fmax(high, means + errors)
            panel.set_xlim(reach_of(means, *ends, minor))
            mark_outside(panel, means, [lines[method]["color"] for method in methods])
        best = "right" if higher else "left"
        dashed = f"; dashed: {baseline}" if baseline is not None else ""
        figure.supxlabel(
            f"{known_score(metric).symbol}: mean ± standard error, grey dots are {repeats.nouns}{dashed}; "
            f"better to the {best}{left_out}",
            fontsize=9,
        )
    return figure


def _by_task(data: xr.Dataset, tasks: Sequence[str] | None) -> tuple[dict[str, xr.Dataset], str]:
    """Panel title -> what to draw there, and a note on what was left out."""
    if "task" not in data.dims:
        if tasks is not None:
            raise ValueError(f"Tasks {list(tasks)} were asked for, and these are the scores of one task.")
        return {"": data}, ""
    shown, note = task_names({"": data["task"]}, tasks)
    found = {}
    for task in shown:
        one = data.sel(task=task)
        unit = str(one["unit"].item()) if "unit" in one.coords else ""
        found[panel_title(task, unit)] = one
    return found, note


def _stacked(ends: Sequence[tuple[float, float]], apart: float) -> list[int]:
    """Line of each bar, with a gap between the bars of one line."""
    lines: list[int] = []
    for i, (low, high) in enumerate(ends):
        taken = {lines[j] for j in range(i) if ends[j][0] - apart < high and low < ends[j][1] + apart}
        lines.append(next(line for line in range(len(ends)) if line not in taken))
    return lines
