"""How many labels each target has."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bmtl.evaluation.style import styled

SHADES = {"train": "#5A5A5A", "val": "#8C8C8C", "test": "#BBBBBB"}
MOST_TARGETS = 60  # bars that a page holds


def label_counts(counts: Mapping[str, Mapping[str, int]], *, tasks: Sequence[str] | None = None) -> Figure:
    """Number of labelled rows of each target in each part, a group of bars per target.

    Args:
        counts: Part, such as "train" -> target -> number.
        tasks: Which targets to draw; by default all, or the first 60, and the figure says so.

    Raises:
        ValueError: If there is no count.
    """
    parts = [part for part in SHADES if part in counts]
    every = list(dict.fromkeys(task for part in parts for task in counts[part]))
    if not every:
        raise ValueError(f"There are no labels to count in the parts {', '.join(SHADES)}; got {list(counts)}.")
    shown = every[:MOST_TARGETS] if tasks is None else list(tasks)
    with styled():
        names = 0.07 * max(map(len, shown)) + 0.3
        figure = Figure(figsize=(names + 5.2, 0.24 * len(shown) + 1.1), layout="constrained")
        axes = figure.subplots()
        height = 0.8 / len(parts)
        for i, part in enumerate(parts):
            places = [place + (i - (len(parts) - 1) / 2) * height for place in range(len(shown))]
            axes.barh(places, [counts[part].get(task, 0) for task in shown], height, color=SHADES[part], label=part)
        axes.set_yticks(range(len(shown)), shown)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        note = (
            f"; the first {MOST_TARGETS} of {len(every)} targets" if len(shown) < len(every) and tasks is None else ""
        )
        axes.set_xlabel(f"Labelled rows{note}")
        figure.legend(loc="outside upper center", ncols=len(parts))
    return figure
