"""How the learning rate falls."""

import functools

import pytest
import torch

from bmtl.experiments import Budget
from bmtl.experiments.training import _scheduler


def rates(budget):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], budget.lr)
    scheduler = _scheduler(budget)(optimizer)
    found = []
    for _ in range(budget.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_a_schedule_ends_where_it_says():
    budget = functools.partial(Budget, epochs=4, lr=0.1)
    assert _scheduler(budget()) is None
    assert rates(budget(schedule="cosine")) == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447, 0.0], abs=1e-6)
    assert rates(budget(schedule="exponential")) == pytest.approx([0.1 * 0.99**i for i in range(5)])


def test_there_is_one_schedule():
    with pytest.raises(ValueError, match="schedule is one of constant, cosine, exponential, and 'linear' was given"):
        Budget(schedule="linear")
    with pytest.raises(ValueError, match="one schedule; plateau=True and 'cosine' were given"):
        Budget(schedule="cosine", plateau=True)
