"""Labelled rows of a task: once for each row, over all sites, plates and turns of a loop."""

import functools
import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch.testing import assert_close

import bmtl
from bmtl.inference import TaskELBO
from tests.inference.programs import (
    N_DATA,
    NAN,
    Plate,
    PlateGuide,
    Program,
    Sites,
    SitesGuide,
    batch,
    double,
    gradients,
    nothing,
    parameters_of,
)
from tests.inference.test_elbo import PARTICLES

HALF_LOG_2PI = 0.9189385332046727
FIRST = torch.tensor([0.0, 0.0, 0.0, NAN, NAN, NAN])
LAST = FIRST.flip(0)
FULL = torch.zeros(6)
NORMAL = dist.Normal(0.0, 1.0)


def found(model, **options):
    losses = TaskELBO(**options).task_losses(model, nothing)
    return {
        name: (losses.labelled[k].item(), round(losses.counts[k].item(), 9), losses.sizes[k])
        for k, name in enumerate(losses.names)
    }


def evaluated(model):
    """The losses that a run records."""
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    svi = bmtl.BalancedSVI(Program(lambda p: model(), w=0.0), nothing, optimizer, "ew")
    return svi.evaluate()


SITES = {
    "different rows": ([FIRST, LAST], 6),
    "the same rows": ([FIRST, FIRST], 3),
    "some rows twice": ([FIRST, torch.tensor([NAN, 0.0, 0.0, 0.0, NAN, NAN])], 4),
    "all rows and some": ([FULL, LAST], 6),
    "none and some": ([torch.full((6,), NAN), LAST], 3),
    "none at all": ([torch.full((6,), NAN)] * 2, 0),
    "three sites": ([FIRST, LAST, torch.tensor([NAN, 0.0] * 3)], 6),
}


@pytest.mark.parametrize("case", SITES)
@pytest.mark.parametrize("particles", [{}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}])
def test_the_sites_of_a_task_on_one_plate_count_the_rows_that_any_of_them_has(case, particles):
    labels, rows = SITES[case]

    def model():
        with bmtl.task("a"), pyro.plate("rows", 60, subsample=torch.arange(6), dim=-1):
            for i, y in enumerate(labels):
                bmtl.observe(f"y{i}", NORMAL, y)

    if particles.get("vectorize_particles"):
        particles = {**particles, "max_plate_nesting": 1}
    assert found(model, **particles) == {"a": (rows, 10 * rows, 60)}


@pytest.mark.parametrize("case", SITES)
def test_in_a_task_plate_the_rows_are_those_of_each_task(case):
    labels, rows = SITES[case]

    def model():
        with bmtl.task_plate(["a", "b"], dim=-2), pyro.plate("rows", 60, subsample=torch.arange(6), dim=-1):
            for i, y in enumerate(labels):
                bmtl.observe(f"y{i}", NORMAL, torch.stack([y, FIRST if i == 0 else torch.full((6,), NAN)]))

    assert found(model) == {"a": (rows, 10 * rows, 60), "b": (3, 30, 60)}


def test_masked_distributions_count_as_masked_labels_do():
    def model():
        with bmtl.task("a"), pyro.plate("rows", 60, subsample=torch.arange(6)):
            pyro.sample("y1", NORMAL.expand((6,)).mask(~FIRST.isnan()), obs=FULL)
            with poutine.mask(mask=~LAST.isnan()):
                pyro.sample("y2", NORMAL.expand((6,)), obs=FULL)
        with bmtl.task("b"), pyro.plate("rows_b", 60, subsample=torch.arange(6)):
            pyro.sample("y3", NORMAL.expand((6,)).mask(~FIRST.isnan()), obs=FULL)
            with poutine.mask(mask=False):
                pyro.sample("y4", NORMAL.expand((6,)), obs=FULL)

    assert found(model) == {"a": (6, 60, 60), "b": (3, 30, 60)}


@pytest.mark.parametrize(("second", "loss"), [(LAST, HALF_LOG_2PI), (FIRST, 2 * HALF_LOG_2PI)])
def test_a_recorded_loss_is_one_of_a_row(second, loss):
    def model():
        with bmtl.task("a"), pyro.plate("rows", 6):
            bmtl.observe("y1", NORMAL, FIRST)
            bmtl.observe("y2", NORMAL, second)

    evaluation = evaluated(model)
    assert_close(evaluation.losses, torch.tensor([loss], dtype=torch.float64))
    assert evaluation.labelled.tolist() == [3 if second is FIRST else 6]


def test_rows_of_different_plates_add_up():
    def model():
        with bmtl.task("a"):
            with pyro.plate("one", 60, subsample=torch.arange(6)):
                bmtl.observe("y1", NORMAL, FIRST)
            with pyro.plate("other", 8, subsample=torch.arange(4)):
                bmtl.observe("y2", NORMAL, torch.zeros(4))
        with bmtl.task("b"), pyro.plate("rows", 6, dim=-2):
            with pyro.plate("left", 2, dim=-1):
                bmtl.observe("y3", NORMAL, torch.zeros(6, 2))
            with pyro.plate("right", 3, dim=-1):
                bmtl.observe("y4", NORMAL, torch.zeros(6, 3))

    assert found(model) == {"a": (7, 38, 68), "b": (30, 30, 30)}


def test_of_plates_inside_one_another_the_larger_number_counts():
    def model():
        with bmtl.task("a"), pyro.plate("rows", 60, subsample=torch.arange(6), dim=-2):
            bmtl.observe("y1", NORMAL, FIRST[:, None])
            with pyro.plate("channels", 2, dim=-1):
                bmtl.observe("y2", NORMAL, torch.zeros(6, 2))
        with bmtl.task("b"):
            bmtl.observe("mean", NORMAL, torch.tensor(0.0))
            with pyro.plate("rows_b", 60, subsample=torch.arange(6)):
                bmtl.observe("y3", NORMAL, FIRST)

    assert found(model) == {"a": (12, 120, 120), "b": (3, 30, 60)}


@pytest.mark.parametrize(("scales", "counts"), [((1.0, 0.5), 10 * 3 + 5 * 3), ((0.5, 1.0), 5 * 2 + 10 * 4)])
def test_a_row_has_the_largest_scale_of_the_sites_that_observe_it(scales, counts):
    def model():
        with bmtl.task("a"), pyro.plate("rows", 60, subsample=torch.arange(6)):
            with poutine.scale(scale=scales[0]):
                bmtl.observe("y1", NORMAL, FIRST)
            with poutine.scale(scale=scales[1]):
                bmtl.observe("y2", NORMAL, torch.tensor([NAN, NAN, 0.0, 0.0, 0.0, 0.0]))

    assert found(model) == {"a": (6, counts, 60)}


def test_a_task_without_a_label_keeps_the_scale_of_its_rows():
    def model():
        weights = torch.tensor([[2.0], [3.0]])
        with bmtl.task_plate(["a", "b"], dim=-2), pyro.plate("rows", 6, dim=-1), poutine.scale(scale=weights):
            bmtl.observe("y", NORMAL, torch.stack([FIRST, torch.full((6,), NAN)]))

    losses = TaskELBO().task_losses(model, nothing)
    assert losses.labelled.tolist() == [3, 0]
    assert losses.scales.tolist() == [2, 3]


def test_turns_of_a_loop_add_up_to_what_its_plate_declares():
    def model():
        with bmtl.task("a"):
            for i in pyro.plate("groups", 30, subsample=torch.arange(3)):
                with pyro.plate(f"members_{i}", i + 2):
                    bmtl.observe(f"y{i}", NORMAL, torch.zeros(i + 2))
        with bmtl.task("b"):
            for i in pyro.plate("items", 60, subsample=torch.arange(6)):
                pyro.sample(f"one_{i}", NORMAL, obs=torch.tensor(0.0))
                pyro.sample(f"two_{i}", NORMAL, obs=torch.tensor(0.0))
        for i in pyro.plate("rows", 60, subsample=torch.arange(6)):
            with bmtl.task("even" if i % 3 else "third"):
                pyro.sample(f"three_{i}", NORMAL, obs=torch.tensor(0.0))

    # 10 groups for each of those of 2, 3 and 4 members; 6 items of 60, with two sites each; 4 and 2 rows of 6.
    assert found(model) == {
        "a": (9, 90, 90),
        "b": (6, 60, 60),
        "even": (4, 40, 40),
        "third": (2, 20, 20),
    }


def test_counts_beyond_what_float16_holds():
    def model():
        with bmtl.task("a"), pyro.plate("rows", 10**6, subsample=torch.arange(6)):
            pyro.sample("y", dist.Normal(torch.zeros(6, dtype=torch.float16), 1.0), obs=FULL.half())

    losses = TaskELBO().task_losses(model, nothing)
    assert losses.nll.dtype == torch.float16
    assert losses.counts.tolist() == [1e6]


# ---- Of whole programs ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _float64():
    pyro.clear_param_store()
    with double():
        yield


@pytest.mark.parametrize("particles", PARTICLES.values(), ids=PARTICLES)
@pytest.mark.parametrize("model", [Sites, Plate])
def test_labels_are_counted_once_per_row_whatever_the_particles(model, particles):
    program = model()
    guide = {Sites: SitesGuide, Plate: PlateGuide}[model]()
    losses = TaskELBO(**particles).task_losses(program, guide, *batch())
    assert losses.labelled.tolist() == [6, 4, 2]
    assert_close(losses.scales, torch.full((3,), N_DATA / 6))
    assert_close(losses.counts, torch.tensor([6.0, 4.0, 2.0]) * N_DATA / 6)
    assert losses.sizes == (N_DATA,) * 3


def counted(model, *args):
    losses = TaskELBO().task_losses(model, nothing, *(args or batch()))
    return {
        name: (losses.labelled[k].item(), round(losses.counts[k].item(), 9), losses.sizes[k])
        for k, name in enumerate(losses.names)
    }


def test_what_counts_as_labelled():
    def model(x, y):
        with bmtl.task("plain"), pyro.plate("p1", len(x)):
            pyro.sample("y1", dist.Normal(0.0, 1.0), obs=x[:, 0])
        with bmtl.task("two sites, same rows"), pyro.plate("p2", 60, subsample=x):
            pyro.sample("y2", dist.Normal(0.0, 1.0), obs=x[:, 0])
            bmtl.observe("y2b", dist.Normal(0.0, 1.0), y["c"])
        with bmtl.task("factor alone"), pyro.plate("p3", 60, subsample=x), poutine.mask(mask=~y["b"].isnan()):
            pyro.factor("y3", -x[:, 0].square())
        with bmtl.task("no label, penalty first"):
            pyro.factor("penalty", torch.tensor(-1.0))
            with pyro.plate("p4", 60, subsample=x):
                bmtl.observe("y4", dist.Normal(0.0, 1.0), torch.full((6,), NAN))
        with bmtl.task("no label, penalty last"):
            with pyro.plate("p5", 60, subsample=x):
                bmtl.observe("y5", dist.Normal(0.0, 1.0), torch.full((6,), NAN))
            pyro.factor("penalty last", torch.tensor(-1.0))
        with bmtl.task("masked away"), pyro.plate("p6", 60, subsample=x):
            pyro.sample("y6", dist.Normal(0.0, 1.0).mask(False), obs=x[:, 0])
        with bmtl.task("masked by a handler"), pyro.plate("p7", 60, subsample=x), poutine.mask(mask=False):
            pyro.sample("y7", dist.Normal(0.0, 1.0), obs=x[:, 0])
        with bmtl.task("weighted rows"), pyro.plate("p8", 60, subsample=x), poutine.scale(scale=torch.arange(1.0, 7.0)):
            bmtl.observe("y8", dist.Normal(0.0, 1.0), y["b"])
        with bmtl.task("events"), pyro.plate("p9", 60, subsample=x):
            bmtl.observe("y9", dist.Normal(torch.zeros(3), 1.0).to_event(1), x)
        with bmtl.task("deterministic"), pyro.plate("p10", 60, subsample=x):
            pyro.deterministic("mean", x[:, 0])
            bmtl.observe("y10", dist.Normal(0.0, 1.0), y["c"])
        with bmtl.task("loop"):
            for i in pyro.plate("p11", 60, subsample=torch.arange(5)):
                pyro.sample(f"y11_{i}", dist.Normal(0.0, 1.0), obs=x[i, 0])
        with bmtl.task("rows, then their mean"):
            with pyro.plate("p12", 60, subsample=x):
                pyro.sample("y12", dist.Normal(0.0, 1.0), obs=x[:, 0])
            pyro.sample("y12_mean", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))
        with bmtl.task("single"):
            pyro.sample("y13", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    assert counted(model) == {
        "plain": (6, 6, 6),
        "two sites, same rows": (6, 60, 60),
        "factor alone": (4, 40, 60),
        "no label, penalty first": (0, 0, 60),
        "no label, penalty last": (0, 0, 60),
        "masked away": (0, 0, 60),
        "masked by a handler": (0, 0, 60),
        "weighted rows": (4, 10 * (3 + 4 + 5 + 6), 60),
        "events": (6, 60, 60),
        "deterministic": (2, 20, 60),
        "loop": (5, 60, 60),
        "rows, then their mean": (6, 60, 60),
        "single": (1, 1, 1),
    }


def test_factors_and_weights_in_a_task_plate():
    def model(x, y):
        with bmtl.task_plate(["a", "b"], dim=-2):
            pyro.factor("penalty", torch.tensor([[-1.0], [-2.0]]))
            with pyro.plate("rows", 60, subsample=x, dim=-1), poutine.scale(scale=torch.arange(1.0, 7.0)):
                bmtl.observe("y", dist.Normal(0.0, 1.0), torch.stack([y["b"], torch.full((6,), NAN)]))

    assert counted(model) == {"a": (4, 10 * (3 + 4 + 5 + 6), 60), "b": (0, 0, 60)}


def test_a_task_without_an_observed_site_declares_no_number_of_data():
    def model(x, y):
        with bmtl.task("latent"):
            pyro.sample("v", dist.Normal(0.0, 1.0))
        with bmtl.task("seen"), pyro.plate("rows", 60, subsample=x):
            bmtl.observe("y", dist.Normal(0.0, 1.0), y["a"])

    def guide(x, y):
        pyro.sample("v", dist.Normal(0.0, 2.0))

    losses = TaskELBO("analytic").task_losses(model, guide, *batch())
    assert losses.names == ("latent", "seen")
    assert losses.sizes == (0, 60)
    assert losses.counts.tolist() == [0, 60]
    assert losses.nll[0] == 0
    assert_close(losses.kl, torch.tensor([1.5 - math.log(2), 0.0]))


def test_an_absent_task_has_no_loss_and_no_nan_reaches_a_gradient():
    x, y = batch()
    y["b"] = torch.full_like(y["b"], NAN)
    model, guide = Sites(), SitesGuide()
    losses = TaskELBO("analytic").task_losses(model, guide, x, y)
    assert losses.nll[1] == 0
    assert losses.labelled.tolist() == [6, 0, 2]
    assert losses.kl[1] > 0  # its prior stays
    found = gradients(losses.total, parameters_of(model, guide))
    assert all(g.isfinite().all() for g in found.values())
