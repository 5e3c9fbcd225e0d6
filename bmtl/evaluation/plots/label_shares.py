"""Gain over single-task networks against the share of the labels, and by target."""

from textwrap import wrap
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from bmtl.evaluation.compared import REFERENCE
from bmtl.evaluation.label_shares import left_out
from bmtl.evaluation.statistics import mean_and_error
from bmtl.evaluation.style import lines_of, method_legend, styled


def label_share_curves(changes: xr.Dataset) -> Figure:
    """delta_m against the share of the labels: mean and range over the splits, a line per method.

    Args:
        changes: From `bmtl.evaluation.label_shares.by_label_share`. References are left out: their errors are of another
            size.
    """
    names = _methods(changes)
    lines = _lines(changes)
    with styled():
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axes = figure.subplots()
        places = range(changes.sizes["share"])
        for i, name in enumerate(names):
            of = changes["delta_m"].sel(learner=name)
            x = [place + 0.06 * (i - (len(names) - 1) / 2) for place in places]
            mean, low, high = of.mean("split").values, of.min("split").values, of.max("split").values
            axes.errorbar(
                x,
                mean,
                yerr=[mean - low, high - mean],
                capsize=2.5,
                marker="o",
                markersize=3.5,
                **lines[name],
            )
        axes.axhline(0, color="#666666", linewidth=0.8, zorder=1)
        axes.set_xticks(list(places), [f"{100 * share:g} %" for share in changes["share"].values])
        axes.set_xlabel("Share of the labels")
        axes.set_ylabel(f"Mean relative change of the error\nagainst {changes.attrs['baseline']} [%], lower is better")
        axes.set_title("Mean and range over draws of the labels", fontsize=9)
        method_legend(figure, names, lines=lines)
    return figure


def changes_by_target(changes: xr.Dataset, share: float) -> Figure:
    """The relative change of each target's error at one share of the labels: mean ± standard error over the splits.

    A split whose labels give a target's score no value is left out, and the figure says so.
    """
    names = _methods(changes)
    lines = _lines(changes)
    summary = mean_and_error(changes["change"].sel(share=share), counted=changes["counted"].sel(share=share))
    tasks = [str(task) for task in changes["task"].values]
    with styled():
        figure = Figure(figsize=(5.6, 0.34 * len(tasks) + 1.4), layout="constrained")
        axes = figure.subplots()
        for i, name in enumerate(names):
            of = summary.sel(learner=name)
            y = [place + 0.13 * (i - (len(names) - 1) / 2) for place in range(len(tasks))]
            style = {"color": lines[name]["color"], "marker": "o", "markersize": 3.5, "linestyle": "none"}
            axes.errorbar(of["mean"].values, y, xerr=of["error"].values, capsize=2, label=name, **style)
        axes.axvline(0, color="#666666", linewidth=0.8, zorder=1)
        axes.set_yticks(range(len(tasks)), tasks)
        axes.invert_yaxis()
        axes.set_xlabel(f"Relative change of the error against {changes.attrs['baseline']} [%], lower is better")
        axes.set_title(f"{100 * share:g} % of the labels: mean ± standard error over draws", fontsize=9)
        method_legend(figure, names, lines=lines)
        if note := left_out(changes, share):
            figure.supxlabel("\n".join(wrap(note, 90)), fontsize=7.5, color="#444444")
    return figure


def _lines(changes: xr.Dataset) -> dict[str, dict[str, Any]]:
    """How methods are drawn: with the colours that they have in pictures of all learners."""
    looks = lines_of([str(name) for name in changes["learner"].values])
    return {name: {**look, "linewidth": 1.3} for name, look in looks.items()}


def _methods(changes: xr.Dataset) -> list[str]:
    """All but the baseline and the references."""
    pairs = zip(changes["learner"].values, changes["role"].values, strict=True)
    return [str(name) for name, role in pairs if role != REFERENCE and name != changes.attrs["baseline"]]
