"""The demonstration: what multi-task learning gains over single-task networks when labels are scarce."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import plots, results
from bmtl.evaluation.label_shares import by_label_share
from bmtl.evaluation.style import methods_in_order, save
from bmtl.experiments.budgets import Budget
from bmtl.experiments.cells import Cell, Failure
from bmtl.experiments.comparisons import Comparison, compare
from bmtl.experiments.zoo import METHODS

DEMO = ("stl", "ew", "uw", "igb-v1", "nash-mtl", "bakker-heskes")
"""Methods of the demo: single-task networks, equal weights, three balancers, and a hierarchical Bayesian model."""

SHARES = (1.0, 0.3, 0.1)
"""Shares of the labels that methods are trained on."""


@dataclass(frozen=True)
class Demo:
    """The demo's results.

    Attributes:
        comparisons: Share of the labels -> the comparison of all methods on it.
        changes: From `bmtl.evaluation.label_shares.by_label_share`.
    """

    comparisons: dict[float, Comparison]
    changes: xr.Dataset


def demo(
    data: MultiTaskData,
    out: str | Path,
    *,
    shares: Sequence[float] = SHARES,
    draws: int = 3,
    budget: Budget | None = None,
    jobs: int | None = None,
    command: str | None = None,
    done: Callable[[Cell | Failure], None] = lambda outcome: None,
) -> Demo:
    """The comparisons that ``bmtl demo`` shows: the methods of `DEMO` on several shares of the labels.

    Which labels of the training and validation rows are known is drawn at random, for each target separately; test rows keep
    all of theirs. With all labels there is nothing to draw, and the draws are of initial weights and batches. Writes
    ``labels-<percent>/`` for each share, as `compare` does but without pictures, and ``changes.nc``, ``changes.png``,
    ``targets.png`` and ``reliability.png``, the last two of the smallest share, whose report judges the Bayesian model's
    guide.

    Args:
        data: `bmtl.datasets.load("qm9-mini")`, or other data with several targets.
        out: Folder.
        shares: Shares of the labels.
        draws: How often labels are drawn.
        budget: What every method gets.
        jobs: Processes, as for `compare`.
        command: As for `compare`.
        done: Called with each outcome.
    """
    out = Path(out)
    methods = [METHODS[name].on_trunk("mlp") for name in DEMO]
    found: dict[float, Comparison] = {}
    for share in shares:
        splits = [data.with_share_of_labels(share, seed=i) for i in range(draws)] if share < 1 else data
        seeds = range(1 if share < 1 else draws)
        found[share] = compare(
            splits,
            methods,
            seeds,
            budget or BUDGET,
            out / f"labels-{100 * share:g}",
            reference=("constant", "linear"),
            trust=share == min(shares),
            jobs=jobs,
            timed_steps=0,
            pictures=False,
            command=command,
            done=done,
        )
    changes = by_label_share({share: one.scores for share, one in found.items()})
    results.write(changes, out / "changes.nc")
    scarce = min(shares)
    trees = {name: tree for (name, number), tree in found[scarce].trees.items() if number == 0}
    with methods_in_order([str(name) for name in changes["learner"].values]):
        save(plots.label_share_curves(changes), out / "changes.png")
        save(plots.changes_by_target(changes, scarce), out / "targets.png")
        save(plots.reliability_curves(trees), out / "reliability.png")
    return Demo(found, changes)


BUDGET = Budget(steps=140, schedule="cosine", batch_size=256, lr=1e-2, warm_up=0.05, average=1)
"""The budget of every method of the demo, on the trunk "mlp".

In steps, and not in epochs: networks of single tasks have few labels, and would take few steps. Larger batches and a falling
rate reach the validation error of 440 steps of 128 rows at a constant rate in a third of the time. So few steps have none to
spare for a slow rise of the rate.
"""

QUICK = replace(BUDGET, steps=10, draws=20)
"""The same in a moment: shows that everything runs, not how well."""
