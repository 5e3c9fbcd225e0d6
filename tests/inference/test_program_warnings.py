"""Statements that a program is likely not to mean: one warning each, which names the site and the way out."""

import functools
import logging

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI

import bmtl
from bmtl.inference import TaskELBO
from bmtl.inference.program_warnings import warn_of_random_rows
from bmtl.inference.svi import BalancedSVI
from bmtl.inference.tasks_seen_together import TasksSeenTogether
from tests.inference.programs import NAN, Program, nothing

SGD = functools.partial(torch.optim.SGD, lr=0.01)
BATCHES = [torch.ones(n) for n in (64, 64, 16, 64, 16)]


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()


def messages(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def trained(model, guide=nothing, batches=BATCHES, balancer="ew", **options):
    svi = BalancedSVI(Program(model, w=0.0), guide, SGD, balancer, TaskELBO(**options))
    for batch in batches:
        svi.step(batch)
    return svi


# ---- Plates that take each batch for all of the data -----------------------------------------------------------------


def whole_batch(p, x):
    with bmtl.task("a"), pyro.plate("a_rows", len(x)):
        bmtl.observe("y_a", dist.Normal(p["w"], 1.0), x)


def subsample_of_itself(p, x):
    with bmtl.task("a"), pyro.plate("a_rows", len(x), subsample=torch.arange(len(x))):
        bmtl.observe("y_a", dist.Normal(p["w"], 1.0), x)


def in_a_task_plate(p, x):
    with bmtl.task_plate(["a", "b"], dim=-2), pyro.plate("a_rows", len(x), dim=-1):
        bmtl.observe("y_a", dist.Normal(p["w"], 1.0), torch.stack([x, x]))


def in_a_loop(p, x):
    with bmtl.task("a"):
        for i in pyro.plate("a_rows", len(x) // 8):
            pyro.sample(f"y_a{i or ''}", dist.Normal(p["w"], 1.0), obs=x[i])


def with_channels(p, x):
    with bmtl.task("a"), pyro.plate("a_rows", len(x), dim=-2), pyro.plate("channels", 2, dim=-1):
        bmtl.observe("y_a", dist.Normal(p["w"], 1.0), x[:, None].expand(-1, 2))


@pytest.mark.parametrize("program", [whole_batch, subsample_of_itself, in_a_task_plate, in_a_loop, with_channels])
def test_a_plate_that_declares_the_batch_as_all_data_is_said_once(program, caplog):
    trained(program)
    (message,) = messages(caplog)
    assert "'a_rows' around site 'y_a" in message
    assert "pyro.plate('a_rows', n_data, subsample=x)" in message
    sizes = (8, 2) if program is in_a_loop else (64, 16)
    assert f"declared {sizes[0]} data in one batch and {sizes[1]} in another" in message


def test_a_plate_with_fewer_data_than_a_batch_is_said_once(caplog):
    def program(p, x):
        with bmtl.task("a"), pyro.plate("a_rows", 20, subsample=x):
            bmtl.observe("y_a", dist.Normal(p["w"], 1.0), x)

    svi = trained(program)
    (message,) = messages(caplog)
    assert "'a_rows' around site 'y_a' has 20 data, and a training batch 64" in message
    svi.evaluate(torch.ones(500))
    assert len(messages(caplog)) == 1


def test_pyros_svi_says_it_too(caplog):
    def model(x):
        w = pyro.param("w", torch.tensor(0.0))
        whole_batch({"w": w}, x)

    svi = SVI(model, nothing, pyro.optim.Adam({"lr": 0.01}), TaskELBO())
    for batch in BATCHES:
        svi.step(batch)
    assert len(messages(caplog)) == 1


def declared(p, x):
    with bmtl.task("a"), pyro.plate("a_rows", 1000, subsample=x):
        bmtl.observe("y_a", dist.Normal(p["w"], 1.0), x)


def parts_of_each_row(p, x):  # such as a graph's nodes: their number may change, and rows are scaled up around them
    rows = pyro.plate("a_rows", 1000, subsample=torch.arange(4), dim=-2)
    with bmtl.task("a"), rows, pyro.plate("parts", len(x), dim=-1):
        bmtl.observe("y_a", dist.Normal(p["w"], 1.0), x.expand(4, -1))


def penalties_of_the_batch(p, x):
    declared(p, x)
    with bmtl.task("a"), pyro.plate("penalties", len(x)):
        pyro.factor("penalty", -(p["w"] * x).square())
        pyro.deterministic("twice", 2 * p["w"] * x)


def scaled_by_hand(p, x):  # as where tasks in one plate have numbers of data of their own
    with bmtl.task("a"), pyro.plate("a_rows", len(x)), poutine.scale(scale=torch.tensor(1000.0 / len(x))):
        bmtl.observe("y_a", dist.Normal(p["w"], 1.0), x)


@pytest.mark.parametrize("program", [declared, parts_of_each_row, penalties_of_the_batch, scaled_by_hand])
def test_plates_that_declare_their_data_are_not_warned_of(program, caplog):
    trained(program)
    assert messages(caplog) == []


def test_validation_on_other_rows_is_not_warned_of(caplog):
    svi = BalancedSVI(Program(whole_batch, w=0.0), nothing, SGD, "ew")
    svi.evaluate(torch.ones(20))
    for _ in range(3):
        svi.step(torch.ones(64))
        svi.evaluate(torch.ones(20))
    TaskELBO().loss(svi.model, nothing, torch.ones(5))
    assert messages(caplog) == []


# ---- Likelihoods outside every task ----------------------------------------------------------------------------------


def outside(p, x):
    declared(p, x)
    with pyro.plate("free_rows", 1000, subsample=x):
        bmtl.observe("y_free", dist.Normal(p["w"], 1.0), x)


def outside_a_plate(p, x):
    declared(p, x)
    pyro.sample("y_free", dist.Normal(p["w"], 1.0), obs=torch.tensor(0.0))


def outside_by_condition(p, x):
    declared(p, x)
    poutine.condition(lambda: pyro.sample("y_free", dist.Normal(p["w"], 1.0)), data={"y_free": torch.tensor(0.0)})()


@pytest.mark.parametrize("program", [outside, outside_a_plate, outside_by_condition])
def test_a_likelihood_outside_every_task_is_said_once(program, caplog):
    trained(program)
    (message,) = messages(caplog)
    assert "'y_free' is in no task" in message
    assert "with bmtl.task(name)" in message


def test_penalties_and_deterministic_sites_outside_every_task_are_not_warned_of(caplog):
    def program(p, x):
        declared(p, x)
        pyro.factor("penalty", -p["w"].square())
        pyro.deterministic("twice", 2 * p["w"])

    trained(program)
    assert messages(caplog) == []


# ---- Rows of a prediction drawn at random ----------------------------------------------------------------------------


class Subsampled(torch.nn.Module):
    """A program that draws its batches itself."""

    def __init__(self, size):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.5))
        self.size = size

    def forward(self, x, y=None):
        with bmtl.task("a"), pyro.plate("a_rows", len(x), subsample_size=self.size) as rows:
            bmtl.observe("y_a", dist.Normal(self.w * x[rows], 1.0), None if y is None else y["a"][rows])


def test_a_prediction_whose_plate_draws_rows_is_said_once(caplog):
    torch.manual_seed(0)
    bmtl.draw(Subsampled(5), nothing, torch.arange(20.0), num_draws=4)
    (message,) = messages(caplog)
    assert "'a_rows' around site 'y_a' draws 5 of its 20 rows at random" in message
    assert "pyro.plate('a_rows', n_data, subsample=x)" in message


@pytest.mark.parametrize("size", [None, 20])
def test_a_prediction_of_all_rows_is_not_warned_of(size, caplog):
    bmtl.draw(Subsampled(size), nothing, torch.arange(20.0), num_draws=4)
    assert messages(caplog) == []


def local_latents(x):
    with pyro.plate("local", len(x), subsample_size=3):
        pyro.sample("z", dist.Normal(0.0, 1.0))


def looped(x):
    for i in pyro.plate("local", len(x), subsample_size=3):
        pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("program", [local_latents, looped])
def test_rows_that_a_guide_or_a_loop_draws_are_said_too(program, caplog):
    torch.manual_seed(0)
    traces = [poutine.trace(part).get_trace(torch.arange(20.0)) for part in (program, lambda x: None)]
    warn_of_random_rows(traces)
    (message,) = messages(caplog)
    assert "'local' around site 'z" in message
    assert "draws 3 of its 20 rows" in message


# ---- Tasks never labelled in the same batch --------------------------------------------------------------------------


def three_tasks(p, y):
    h = bmtl.shared((torch.ones(4, 1) @ p["w"][None, None])[:, 0])
    for name, labels in y.items():
        with bmtl.task(name), pyro.plate(f"{name}_rows", 100, subsample=labels):
            bmtl.observe(f"y_{name}", dist.Normal(h * p[name], 1.0), labels)


def turns(count, *groups):
    """Batches in which the tasks of one group after another have labels."""
    none = torch.full((4,), NAN)
    return [{name: torch.ones(4) if name in groups[i % len(groups)] else none for name in "abc"} for i in range(count)]


def stepped(balancer, batches):
    svi = BalancedSVI(Program(three_tasks, w=0.5, a=1.0, b=0.5, c=-0.3), nothing, SGD, balancer)
    for batch in batches:
        svi.step(batch)


@pytest.mark.parametrize("geometry", ["full", "last-layer", "representation"])
@pytest.mark.parametrize(("groups", "pairs"), [(("a", "b", "c"), 3), (("ab", "c"), 2), (("a", "bc"), 2)])
def test_tasks_that_never_meet_under_a_gradient_weighting_are_said_once(geometry, groups, pairs, caplog):
    stepped(f"{geometry} >> nash-mtl", turns(100, *groups))
    (message,) = messages(caplog)
    assert f"'{groups[0][0]}' and '{groups[1][0]}'" in message
    assert "'nash-mtl'" in message
    assert f"({pairs} pairs" in message
    assert "Let each batch have labels of all tasks" in message


@pytest.mark.parametrize(
    ("balancer", "groups"),
    [
        ("full >> nash-mtl", ("ab", "bc", "ac")),  # each pair meets
        ("full >> nash-mtl", ("abc", "a", "b", "c")),
        ("full >> nash-mtl", ("ab",)),  # c is never there
        ("ew", ("a", "b", "c")),
        ("si", ("a", "b", "c")),
    ],
)
def test_nothing_is_said_of_tasks_that_meet_or_are_not_compared(balancer, groups, caplog):
    stepped(balancer, turns(60, *groups))
    assert messages(caplog) == []


def test_a_few_steps_apart_are_no_reason(caplog):
    together, names = TasksSeenTogether(enough=20), ("a", "b")
    for i in range(39):
        together.step(names, torch.tensor([i % 2 == 0, i % 2 == 1]), "pcgrad")
    assert messages(caplog) == []
    together.step(names, torch.tensor([False, True]), "pcgrad")
    (message,) = messages(caplog)
    assert "in 20 and 20 steps" in message


# ---- Latents that count another number of times in the guide ---------------------------------------------------------


def with_latents(p, x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with bmtl.task("a"), pyro.plate("rows", 640, subsample=x):
        u = pyro.sample("u", dist.Normal(z, 1.0))
        bmtl.observe("y_a", dist.Normal(u * p["w"], 1.0), x)


def of_latents(data, factor=1.0):
    def guide(x):
        with poutine.scale(scale=factor):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", data, subsample=x) if data else pyro.plate("rows", len(x)):
                pyro.sample("u", dist.Normal(torch.zeros(len(x)), 1.0))

    return guide


@pytest.mark.parametrize("estimator", ["mc", "analytic"])
@pytest.mark.parametrize(
    ("guide", "named"),
    [
        (of_latents(640), []),
        (of_latents(0), ["'u' counts 10 times in the model and 1 times"]),
        (of_latents(640, 0.5), ["'z'", "'u'"]),
    ],
)
def test_a_latent_that_counts_differently_in_model_and_guide_is_named_once(caplog, guide, named, estimator):
    trained(with_latents, guide, estimator=estimator)
    found = [message for message in messages(caplog) if "counts" in message]
    assert len(found) == len(named)
    assert all(name in message for name, message in zip(named, found, strict=True))
