from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bmtl.datasets import Batches
from bmtl.evaluation import metrics
from bmtl.experiments import Budget, run
from bmtl.experiments.methods import Method
from bmtl.experiments.rows import Stretches
from bmtl.experiments.schedules import DECAY, decoupled, optimizer_of, rate, scheduler_of
from bmtl.experiments.training import program
from bmtl.inference.parameters import NamedParameters
from bmtl.models.linear_fits import ridge
from tests.experiments.toys import BUDGET, EW, toy


def chosen(kind, budget=None):
    """A budget for inputs that say what suits them."""
    inputs = SimpleNamespace(budget=lambda: KINDS[kind])
    return (budget or Budget()).of(SimpleNamespace(inputs=inputs))


KINDS = {
    "table": {"schedule": "cosine"},
    "plain": {},
    "graphs": {"schedule": "falling", "epochs": 9, "draws": 7, "widths": (3,)},
}


def test_inputs_decide_what_was_left_open():
    table, plain, graphs = chosen("table"), chosen("plain"), chosen("graphs")
    assert (table.schedule, table.steps, table.epochs, table.batch_size, table.lr) == ("cosine", 3000, None, None, 5e-3)
    assert (plain.schedule, plain.steps, plain.epochs, plain.batch_size, plain.lr) == ("constant", None, 30, 128, 2e-3)
    assert (plain.widths, plain.draws) == ((128, 128), 100)
    assert (graphs.schedule, graphs.epochs, graphs.draws, graphs.widths, graphs.lr) == ("falling", 9, 7, (3,), 2e-3)
    assert chosen("graphs", table) == table
    given = chosen("table", Budget(schedule="constant", epochs=7, lr=0.1))
    assert (given.epochs, given.batch_size, given.lr, given.most_epochs) == (7, 128, 0.1, 7)
    assert chosen("table", Budget(epochs=7)).steps is None
    assert (chosen("graphs", Budget(steps=80)).steps, chosen("graphs", Budget(steps=80)).epochs) == (80, None)


def test_tables_have_the_schedule_cosine():
    assert Budget().of(toy()).schedule == "cosine"


@pytest.mark.parametrize(
    ("rows", "size"), [(3, 32), (128, 32), (200, 64), (500, 128), (1000, 256), (1500, 256), (1600, 512), (10**6, 512)]
)
def test_batches_are_a_quarter_of_the_rows(rows, size):
    assert Budget().rows_in_batch(rows) == size
    assert Budget(batch_size=5).rows_in_batch(rows) == 5


@pytest.mark.parametrize(("steps", "epochs"), [(1, (1, 1)), (40, (1, 40)), (41, (2, 21)), (3000, (75, 40))])
def test_steps_are_validated_at_least_every_forty(steps, epochs):
    assert Budget(steps=steps).epochs_of_steps == epochs


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"steps": 5, "epochs": 2}, "steps or in epochs"),
        ({"steps": 0}, "numbers are positive; steps=0"),
        ({"average": 0}, "numbers are positive; average=0"),
        ({"warm_up": 1.0}, "warm_up is a share of the steps, from 0 to below 1, and 1.0"),
        ({"schedule": "linear"}, "schedule is one of cosine, constant, plateau"),
    ],
)
def test_budgets_that_contradict_themselves_are_refused(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        Budget(**wrong)


@pytest.mark.parametrize("warm_up", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("steps", [1, 2, 7, 100, 3000])
def test_the_rate_rises_and_falls(steps, warm_up):
    rates = [rate(step, steps, warm_up) for step in range(steps)]
    top = rates.index(max(rates))
    assert max(rates) == 1
    assert top <= max(1, warm_up * steps)
    if top:
        assert rates[top // 2] == pytest.approx(((top // 2 + 1) / (top + 1)) ** 2)
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b > 0 for a, b in pairwise(rates[top:]))
    assert rate(steps, steps, warm_up) == pytest.approx(0 if steps > 1 else 1)


def test_decay_is_of_weight_matrices():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    pairs = [*network.named_parameters(), ("guide.loc", torch.zeros(2, 2, requires_grad=True))]
    optimizer = decoupled(NamedParameters(pairs), lr=0.1)
    decayed = [p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    assert [id(p) for p in decayed] == [id(network[0].weight)]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, DECAY}


def test_a_decay_of_the_methods_own_is_adams():
    network = NamedParameters(torch.nn.Linear(3, 2).named_parameters())
    cosine = chosen("table")
    own = optimizer_of(Method("mine", weight_decay=0.3), cosine)(network)
    assert type(own) is torch.optim.Adam
    assert [group["weight_decay"] for group in own.param_groups] == [0.3]
    assert type(optimizer_of(EW, cosine)(network)) is torch.optim.AdamW
    assert type(optimizer_of(EW, chosen("plain"))(network)) is torch.optim.Adam


def test_stretches_pass_through_all_rows_before_any_comes_again():
    loader = Stretches(Batches(torch.arange(10), {"y": torch.arange(10)}, 3, seed=1), 2)
    seen = torch.cat([x for _ in range(6) for x, _ in loader])  # twelve batches, three passes of four
    assert len(loader) == 2
    assert [sorted(seen[i : i + 10].tolist()) for i in (0, 10, 20)] == [list(range(10))] * 3


def test_batches_whose_size_is_chosen_are_whole():
    for budget, sizes in ((Budget(steps=6), {32}), (Budget(steps=6, batch_size=20), {20, 8})):  # of 48 rows
        _, _, loader = program(toy(), EW, 0, replace(budget, widths=(4,)))
        assert {len(x) for x, _ in loader} == sizes


def test_a_budget_in_steps_is_kept_and_ends_early_without_gain():
    budget = replace(BUDGET, epochs=None, steps=60)
    tree = run(toy(), EW, 0, budget)
    assert tree["training"]["step"].values[-1] + 1 == 60
    assert len(np.unique(tree["training"]["epoch"])) == 2
    # At a rate like this nothing improves: a quarter of twelve epochs is waited for.
    hopeless = run(toy(), EW, 0, replace(budget, steps=480, lr=25.0))
    assert hopeless["training"]["step"].values[-1] + 1 < 480


def test_training_that_only_does_harm_leaves_the_linear_part():
    """The parameters before the first step are among those that are chosen from: a ridge regression, nearly."""
    data = toy()
    tree = run(data, EW, 0, replace(BUDGET, epochs=None, steps=80, lr=50.0))
    coefficients, _ = ridge(data.features("train"), data.targets["mass"].scaled(data.rows["train"]))
    expected = data.targets["mass"].scaler.inverse(data.features("test") @ coefficients[:-1] + coefficients[-1])
    error = np.sqrt(np.mean((data.labels("test")["mass"] - expected) ** 2))
    assert float(metrics.rmse(tree)["rmse"].sel(task="mass")) == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize(("schedule", "after"), [("constant", None), ("falling", 0.5), ("exponential", 0.99**2)])
def test_rates_by_the_epoch(schedule, after):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    maker = scheduler_of(Budget(schedule=schedule, epochs=4))
    if after is None:
        assert maker is None
        return
    scheduler = maker(optimizer)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(after)
