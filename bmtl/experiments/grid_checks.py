"""Checks of a comparison before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bmtl.datasets import MultiTaskData
from bmtl.datasets.checks import meant
from bmtl.evaluation.scores import primary_names
from bmtl.experiments.budgets import Budget
from bmtl.experiments.cells import Splits
from bmtl.experiments.methods import Method
from bmtl.experiments.references.runs import names as names_of_references
from bmtl.experiments.runs import check_data
from bmtl.experiments.trees import reported

BASELINE = "stl"
"""The usual baseline, where it is among the methods."""


def check_grid(
    data: Splits, methods: Sequence[Method], seeds: Sequence[int], rates: Sequence[float], budget: Budget
) -> None:
    """Raises a ``ValueError`` if the runs could not be made."""
    if not methods or not seeds:
        raise ValueError("A comparison needs at least one method and one seed.")
    for what, given in (
        ("methods", [method.name for method in methods]),
        ("seeds", list(seeds)),
        ("learning rates", list(rates)),
    ):
        if len(set(given)) < len(given):
            raise ValueError(f"The {what} of a comparison must differ, and {given} were given.")
    for rate in rates:
        replace(budget, lr=rate)
    if len(rates) > 1 and any("val" not in one.rows for one in ([data] if isinstance(data, MultiTaskData) else data)):
        raise ValueError(
            f"A learning rate is chosen of {', '.join(f'{rate:g}' for rate in rates)} by validation scores, and the data "
            "have no validation rows. Give one learning rate."
        )
    for one in [data] if isinstance(data, MultiTaskData) else data:
        check_data(one, budget)


def check_scores(
    data: Splits,
    methods: Sequence[Method],
    baseline: str | None,
    primary: str | Mapping[str, str] | None,
    reference: bool,
) -> None:
    """Raises a ``ValueError`` if the scores could not be computed as requested, once all runs are done."""
    first = data if isinstance(data, MultiTaskData) else data[0]
    names = [method.name for method in methods]
    rows = list(names_of_references(first).values()) if reference else []
    both = [name for name in names if name in rows]
    if both:
        raise ValueError(
            f"{both[0]!r} is the name of a reference row too. Rename the method, or leave the references out "
            "(reference=False, --no-reference)."
        )
    if baseline is not None and baseline not in (BASELINE, *names, *rows):
        compared = [*names, *rows]
        raise ValueError(
            f"The baseline {baseline!r} is none of what is compared: {', '.join(compared)}.{meant(baseline, compared)}"
        )
    primary_names({task: reported(first, task) for task in first.tasks}, primary)
