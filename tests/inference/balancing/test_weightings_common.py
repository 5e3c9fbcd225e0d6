"""What every weighting must do, whatever its formula."""

import copy
import functools
import io
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import SLOTS, Balancer, Full, Measured, Weighting, balancer
from bmtl.inference.balancing.solvers import one_thread, unit_diagonal
from bmtl.inference.svi import BalancedSVI
from tests.inference.balancing.loop import Loop
from tests.inference.balancing.problems import everyone, forward, gradients
from tests.inference.programs import Regressions, batch, nothing

# BayesAgg brings its own geometry, and is tested with it.
WEIGHTINGS = {name: cls for name, cls in SLOTS.items() if issubclass(cls, Weighting) and cls.needs != "own"}
RANDOM = {"pcgrad", "gradvac", "grad-drop"}
STATEFUL = {"pcgrad", "gradvac", "grad-drop", "sdm-grad", "db-mtl", "moco"}
OPTIONS = [
    ("mgda(normalize='l2')", {"normalize": "l2"}),
    ("cagrad(c=0.5, rescale=2)", {"c": 0.5, "rescale": 2}),
    ("pcgrad(seed=4)", {"seed": 4}),
    ("gradvac(beta=0.1, seed=4)", {"beta": 0.1, "seed": 4}),
    ("fair-grad(a=1.5)", {"a": 1.5}),
    ("aligned-mtl(scale='rmse')", {"scale": "rmse"}),
    ("sdm-grad(lam=0.6, iters=5)", {"lam": 0.6, "iters": 5}),
    ("grad-drop(leak=0.1, seed=4)", {"leak": 0.1, "seed": 4}),
    ("db-mtl(beta=0.5, sigma=0.25)", {"beta": 0.5, "sigma": 0.25}),
    ("moco(beta=0.2, gamma=0.3, rho=0.1)", {"beta": 0.2, "gamma": 0.3, "rho": 0.1}),
]

each = pytest.mark.parametrize("name", sorted(WEIGHTINGS))
losses = torch.tensor([0.5, 1.5, 0.9, 2.0, 1.1], dtype=torch.float64)


class TwoSamples(Full):
    """Stands for a geometry with two independent samples of the gradients."""

    name = "two-samples"

    @property
    def gives(self):
        return super().gives | {"cross"}

    def measure(self, objective, loss_derivatives):
        m = super().measure(objective, loss_derivatives)
        m.cross = m.G * 1.1
        return m


def made(name):
    weighting = WEIGHTINGS[name]()
    return Balancer(weighting=weighting, geometry=TwoSamples() if weighting.needs == "cross" else None)


def update(weighting, j, losses=None):
    """The update (P,) and the weights."""
    found = forward(weighting, j, losses)
    return (found.alpha @ j if found.direction is None else found.direction), found.alpha


# ---- Identity --------------------------------------------------------------------------------------------------------


def test_all_of_the_field_is_there():
    gram = "mgda pcgrad gradvac cagrad imtl-g nash-mtl fair-grad upgrad dual-proj aligned-mtl config"
    assert set(WEIGHTINGS) == {*gram.split(), "sdm-grad", "grad-drop", "db-mtl", "moco"}


@each
def test_it_says_what_it_is(name):
    cls = WEIGHTINGS[name]
    assert cls.paper
    assert cls.cost
    assert "Source: " in cls.__doc__
    assert repr(cls()) == name


@pytest.mark.parametrize(("form", "options"), OPTIONS)
def test_options_are_read_back(form, options):
    cls = WEIGHTINGS[form.split("(")[0]]
    assert repr(cls(**options)) == form
    if cls.needs != "cross":
        assert str(balancer(form)) == form


# ---- Invariances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(WEIGHTINGS) - RANDOM))
@pytest.mark.parametrize("kind", ["generic", "opposed"])
def test_tasks_may_come_in_any_order(name, kind):
    order = torch.tensor([3, 0, 4, 1, 2])
    one, other = WEIGHTINGS[name](), WEIGHTINGS[name]()
    for seed in range(3):
        j = gradients(kind, 5, 2, seed)
        d, alpha = update(one, j, losses)
        permuted, beta = update(other, j[order], losses[order])
        assert_close(beta, alpha[order], rtol=1e-7, atol=1e-9)
        assert_close(permuted, d, rtol=1e-7, atol=1e-9 * j.norm().item())


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_the_random_ones_leave_the_global_generator_alone(name):
    before = torch.get_rng_state()
    first = update(WEIGHTINGS[name](), gradients("opposed", 5, 1))[0]
    assert torch.equal(before, torch.get_rng_state())
    assert_close(update(WEIGHTINGS[name](), gradients("opposed", 5, 1))[0], first)
    assert not torch.equal(update(WEIGHTINGS[name](seed=9), gradients("opposed", 5, 1))[0], first)


@pytest.mark.parametrize("name", sorted(set(WEIGHTINGS) - {"fair-grad", "nash-mtl", "imtl-g", "moco"}))
def test_a_common_scale_of_the_gradients_scales_the_update(name):
    j = gradients("opposed", 5, 2)
    d, _ = update(WEIGHTINGS[name](), j, losses)
    scaled, _ = update(WEIGHTINGS[name](), j * 1e-8, losses)
    assert_close(scaled * 1e8, d, rtol=1e-6, atol=1e-8 * j.norm().item())


@pytest.mark.parametrize("name", [name for name in sorted(WEIGHTINGS) if WEIGHTINGS[name].needs != "jacobian"])
@pytest.mark.parametrize("kind", ["generic", "opposed", "rank-deficient"])
def test_what_float32_makes_of_dependent_gradients_is_no_failure(name, kind):
    for seed in range(5):
        j = gradients(kind, 6, 2, seed).float()
        j = torch.cat([j, j[:3], -0.5 * j[4:5] + j[5:], -j[1:2]])
        gram = (j @ j.T).double()
        cosine = unit_diagonal(gram.numpy())[1]
        assert np.linalg.eigvalsh(cosine)[0] > -1e-12  # of the products themselves it is -1e-7
        solution, _ = WEIGHTINGS[name]().weigh(Measured(gram, dtype=torch.float32), everyone(len(j)))
        assert solution.alpha.isfinite().all()


# ---- Tasks that are zero, absent or alone ----------------------------------------------------------------------------


@each
def test_a_zero_gradient_keeps_weight_1_and_changes_nothing_for_the_others(name):
    j = gradients("opposed", 5, 1)
    with_zero = torch.cat([j[:2], torch.zeros(1, j.shape[1]), j[2:]])
    six = torch.cat([losses[:2], torch.ones(1), losses[2:]])
    m = Measured(with_zero @ with_zero.T, with_zero, losses=six)
    solution, zero = WEIGHTINGS[name]().weigh(m, everyone(6))
    d, alpha = update(WEIGHTINGS[name](), j, losses)
    assert zero.tolist() == [False, False, True, False, False, False]
    assert solution.alpha[2] == 1
    if name not in ("pcgrad", "gradvac"):  # others draw alike, whatever the number of tasks
        assert_close(solution.alpha[[0, 1, 3, 4, 5]], alpha)
        found = solution.alpha @ with_zero if solution.direction is None else solution.direction
        assert_close(found, d)


@each
@pytest.mark.parametrize("k", [1, 2, 5])
def test_an_answer_is_of_plain_numbers(name, k):
    j = gradients("opposed", 5, 1)[:k]
    solution, _ = WEIGHTINGS[name]().weigh(Measured(j @ j.T, j, losses=losses[:k]), everyone(k))
    assert (type(solution.residual), type(solution.iterations)) == (float, int)
    assert (type(solution.alpha), solution.alpha.dtype) == (torch.Tensor, torch.float64)


@each
def test_an_absent_task_is_left_out(name):
    loop = Loop(made(name), "abcd")
    j = gradients("opposed", 4, 1)
    here = torch.tensor([0.5, math.nan, 0.9, 2.0], dtype=torch.float64)
    present = torch.tensor([0, 2, 3])
    found = loop.update(here, j)
    d, alpha = update(WEIGHTINGS[name](), j[present], here[present])
    assert len(found.alpha) == 3
    if name == "sdm-grad":
        return  # the two samples of this test's geometry differ
    length = loop.balancer.length(alpha, j[present] @ j[present].T, d.square().sum().item())
    assert_close(found.alpha, length)
    assert_close(loop.grad, d * (length[0] / alpha[0]))


@each
def test_a_single_gradient_has_weight_1(name):
    j = torch.ones(1, 3, dtype=torch.float64)
    solution, _ = WEIGHTINGS[name]().weigh(Measured(j @ j.T, j, losses=losses[:1]), everyone(1))
    assert solution.alpha.tolist() == [1.0]
    nothing_there = torch.zeros(2, 3, dtype=torch.float64)
    solution, zero = WEIGHTINGS[name]().weigh(Measured(nothing_there @ nothing_there.T, nothing_there), everyone(2))
    assert solution.status == "stationary"
    assert zero.all()


@pytest.mark.parametrize("name", ["gradvac", "sdm-grad"])
def test_without_names_tasks_are_numbered_and_their_number_stays(name):
    weighting = WEIGHTINGS[name]()
    assert weighting.solve(torch.eye(3)).alpha.tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert weighting.names == ("0", "1", "2")
    with pytest.raises(ValueError, match="keeps state for 3 tasks, and 2 were given"):
        weighting.solve(torch.eye(2))


# ---- Lengths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grad-drop", "db-mtl", "moco", "upgrad"])
def test_a_length_holds_for_updates_that_are_no_combination_of_gradients(name):
    j = gradients("opposed", 5, 1)
    loop = Loop(balancer(name) >> SLOTS["norm"](), "abcde")
    loop.update(losses, j)
    assert loop.grad.norm().item() == pytest.approx(j.sum(dim=0).norm().item())
    loop = Loop(balancer(name) >> SLOTS["sum"](), "abcde")
    found = loop.update(losses, j)
    d, alpha = update(WEIGHTINGS[name](), j, losses)
    assert found.alpha.sum().item() == pytest.approx(5)
    assert_close(loop.grad, d * 5 / alpha.sum())


# ---- State -----------------------------------------------------------------------------------------------------------


def run(loop, first, last):
    grads = []
    for t in range(first, last):
        given = losses[:4].clone()
        if t % 3 == 1:
            given[t % 4] = math.nan
        loop.update(given, gradients("opposed", 4, 1, seed=t))
        grads.append(loop.grad)
    return grads


@each
def test_a_run_is_taken_up_bit_for_bit(name):
    whole = run(Loop(made(name), "abcd"), 0, 10)
    half = Loop(made(name), "abcd")
    run(half, 0, 5)
    file = io.BytesIO()
    torch.save(half.balancer.state_dict(), file)
    file.seek(0)
    fresh = Loop(made(name), "abcd")
    fresh.balancer.load_state_dict(torch.load(file, weights_only=True))
    fresh.steps = 5
    for found, expected in zip(run(fresh, 5, 10), whole[5:], strict=True):
        assert torch.equal(found, expected)
    if name in STATEFUL:  # the state is what makes the difference
        new = Loop(made(name), "abcd")
        assert not all(map(torch.equal, run(new, 5, 10), whole[5:]))


@each
def test_a_copy_has_a_state_of_its_own(name):
    loop = Loop(made(name), "abcd")
    run(loop, 0, 2)
    before = copy.deepcopy(loop.balancer.state_dict())
    other = Loop(copy.deepcopy(loop.balancer), "abcd")
    run(other, 2, 4)
    after = loop.balancer.state_dict()
    assert str(before) == str(after)


# ---- In training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "geometry"),
    [
        (n, g)
        for n in sorted(WEIGHTINGS)
        for g in ("full", "last-layer")
        if g == "full" or WEIGHTINGS[n].needs == "gram"
    ],
)
@pytest.mark.parametrize("heads", ["transform", "alpha"])
def test_it_trains_a_pyro_program(name, geometry, heads):
    torch.manual_seed(0)
    x, y = batch(missing=False)
    slots = made(name) if geometry == "full" else balancer(f"{geometry} >> {name}")
    slots.heads = heads
    svi = BalancedSVI(Regressions(), nothing, functools.partial(torch.optim.SGD, lr=0.05), slots)
    start = svi.evaluate(x, y).losses.sum()
    for _ in range(8):
        record = svi.step(x, y)
        assert record.status in ("ok", "inexact")
        assert record.residual <= 1e-6
        assert record.weights.isfinite().all()
    assert svi.evaluate(x, y).losses.sum() < start


def test_events_of_a_weighting_are_on_record():
    loop = Loop("aligned-mtl", "ab")
    found = loop.update(losses[:2], torch.diag(torch.tensor([1.0, 1e-4])))
    assert found.events == ["aligned-mtl: the smallest eigenvalue, 1e-08 of the largest, shrinks the update"]


# ---- Threads ---------------------------------------------------------------------------------------------------------


def test_large_problems_are_solved_on_one_blas_thread():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def most():
        return max(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")

    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        before = most()
        with one_thread(100):
            assert most() == 1
        assert most() == before
        with one_thread(3):  # too small for a second thread, and setting the limit would cost more than the solver
            assert most() == before


def test_the_package_offers_them_all():
    assert all(hasattr(bmtl.inference.balancing, cls.__name__) for cls in WEIGHTINGS.values())
