"""Everything that was set for a run, as plain values: what a results file keeps, and what decides whether it is there."""

from dataclasses import asdict

from bmtl.experiments.budgets import SELECTIONS, Budget
from bmtl.experiments.methods import Method


def configuration(method: Method, budget: Budget) -> dict[str, object]:
    """What was set for a run of this method."""
    return {"method": method.settings(), "budget": asdict(budget), "selection": SELECTIONS[budget.select]}
