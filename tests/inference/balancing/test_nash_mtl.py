import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import bmtl.inference.balancing.weightings.nash_mtl as module
from bmtl.inference.balancing import NashMTL
from bmtl.inference.balancing.solvers import shortest_in_hull, unit_diagonal
from bmtl.inference.balancing.solvers.barrier import Barrier
from bmtl.inference.errors import SolverFailed

steady = settings(max_examples=40)
sizes = st.integers(2, 50)
seeds = st.integers(0, 10_000)
kinds = st.sampled_from(["generic", "rank-deficient", "opposed", "strongly opposed"])


def gram_of(norms, cosine):
    return torch.from_numpy(norms[:, None] * cosine * norms)


@pytest.mark.parametrize(("decades", "middle"), [(0, 0), (11, 0), (11, 10), (11, -100)])
@steady
@given(k=sizes, seed=seeds, kind=kinds)
def test_every_task_gains_alike(draw_gradients, decades, middle, k, seed, kind):
    gram = gram_of(*draw_gradients(kind, k, seed, decades, middle))
    solution = NashMTL().solve(gram)
    assert solution.status == "ok"
    assert (solution.alpha > 0).all()
    assert_close(solution.alpha * (gram @ solution.alpha), torch.ones(k, dtype=torch.float64), rtol=0, atol=1e-8)
    assert (solution.alpha @ gram @ solution.alpha).item() == pytest.approx(k, rel=1e-8)
    assert solution.residual <= 1e-8


def test_the_product_of_gains_is_as_large_as_it_gets(draw_gradients):
    gram = gram_of(*draw_gradients("opposed", 5, seed=1, decades=2))
    gains = gram @ NashMTL().solve(gram).alpha  # of an update of squared length K
    root = torch.linalg.cholesky(gram)
    other = torch.randn(5, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    other *= math.sqrt(5) / other.norm(dim=0)
    rivals = root @ other
    rivals = rivals[:, (rivals > 0).all(dim=0)]
    assert rivals.shape[1] > 0
    assert gains.log().sum() > rivals.log().sum(dim=0).max()


# ---- What has no Nash solution ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gradients",
    [
        [[1.0, 0.0], [-1.0, 0.0]],
        [[1.0, 0.0], [-1e-5, 0.0]],
        [[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]],
        [[2.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 3.0]],  # two of the three oppose each other
    ],
)
def test_where_no_common_descent_exists_the_answer_is_the_shortest_combination(gradients):
    j = torch.tensor(gradients, dtype=torch.float64)
    solution = NashMTL().solve(j @ j.T)
    weights = shortest_in_hull(*unit_diagonal((j @ j.T).numpy()))
    assert solution.status == "stationary"
    assert solution.residual > 1e-6
    assert_close(solution.alpha, len(j) * torch.from_numpy(weights))
    assert (solution.alpha @ j).norm() < 1e-6


@steady
@given(k=sizes, seed=seeds)
def test_more_tasks_than_directions_are_stationary(k, seed):
    rng = np.random.default_rng(seed)
    j = rng.standard_normal((k, max(k // 3, 1)))
    j[0] = -(rng.uniform(0.5, 1.5, k - 1) @ j[1:])
    solution = NashMTL().solve(torch.from_numpy(j @ j.T))
    assert solution.status == "stationary"
    assert solution.alpha.sum().item() == pytest.approx(k)


@pytest.mark.parametrize("residual", [1.0, float("nan")])
def test_a_solver_that_fails_does_not_pass_for_a_stationary_point(monkeypatch, draw_gradients, residual):
    gram = gram_of(*draw_gradients("generic", 4, seed=0))
    monkeypatch.setattr(module, "barrier_newton", lambda norms, cosine: Barrier(np.ones(4), residual, 1.0, 240))
    with pytest.raises(SolverFailed, match="'nash-mtl' left a residual of .* after 240 rounds"):
        NashMTL().solve(gram)


# ---- Zero gradients, one task ----------------------------------------------------------------------------------------


@steady
@given(k=st.integers(3, 12), seed=seeds, where=st.integers(0, 2))
def test_a_zero_gradient_is_left_out_and_keeps_weight_1(draw_gradients, k, seed, where):
    norms, cosine = draw_gradients("generic", k, seed, decades=3)
    norms[where] = 0.0
    alpha = NashMTL().solve(gram_of(norms, cosine)).alpha
    rest = [i for i in range(k) if i != where]
    assert alpha[where] == 1
    assert_close(alpha[rest], NashMTL().solve(gram_of(norms[rest], cosine[np.ix_(rest, rest)])).alpha)


def test_nothing_to_weigh():
    one = NashMTL().solve(torch.tensor([[1e-6]]))
    assert (one.alpha.tolist(), one.status, one.residual) == ([1.0], "ok", 0.0)
    of_two = NashMTL().solve(torch.diag(torch.tensor([0.0, 4.0])))
    assert (of_two.alpha.tolist(), of_two.status) == ([1.0, 1.0], "ok")
    none = NashMTL().solve(torch.zeros(3, 3))
    assert (none.alpha.tolist(), none.status) == ([1.0, 1.0, 1.0], "stationary")


# ---- Wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        (torch.ones(3), r"square, \(K, K\), and one of shape \(3,\)"),
        (torch.ones(2, 3), r"shape \(2, 3\)"),
        (torch.ones(0, 0), r"shape \(0, 0\)"),
        (torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), "NaN or infinite"),
        (torch.tensor([[math.inf, 0.0], [0.0, 1.0]]), "NaN or infinite"),
        (torch.tensor([[1.0, 0.5], [0.4, 1.0]]), "symmetric, and this one is not"),
        (torch.tensor([[1e-8, 0.5e-8], [0.4e-8, 1e-8]]), "symmetric, and this one is not"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "no negative eigenvalue"),
        (torch.tensor([[-1.0, 0.0], [0.0, 1.0]]), "no negative eigenvalue"),
    ],
)
def test_what_is_no_gram_matrix_is_refused(gram, message):
    with pytest.raises(ValueError, match=message):
        NashMTL().solve(gram)


@pytest.mark.parametrize("k", [3, 40])
def test_the_rounding_of_float32_gradients_is_no_reason_to_refuse(k):
    generator = torch.Generator().manual_seed(0)
    j = torch.randn(k, 50, generator=generator) * torch.logspace(-5, 5, k)[:, None]
    gram = j @ j.T
    skewed = (
        gram + 1e-7 * torch.randn(k, k, generator=generator) * gram.diagonal().sqrt() * gram.diagonal().sqrt()[:, None]
    )
    exact = NashMTL().solve(j.double() @ j.double().T).alpha
    assert_close(NashMTL().solve(skewed).alpha, exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("convert", [torch.Tensor.tolist, torch.Tensor.numpy, nn.Parameter])
def test_a_gram_matrix_may_come_in_any_form(draw_gradients, convert):
    gram = gram_of(*draw_gradients("generic", 3, seed=0))
    assert_close(NashMTL().solve(convert(gram)).alpha, NashMTL().solve(gram).alpha)
