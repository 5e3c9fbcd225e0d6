import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from bmtl.inference.balancing.solvers import barrier_newton, shortest_in_hull, simplex_qp, unit_diagonal

steady = settings(max_examples=40)
sizes = st.integers(2, 50)
seeds = st.integers(0, 10_000)
kinds = st.sampled_from(["generic", "rank-deficient", "opposed", "strongly opposed"])


def residual(norms, cosine, alpha, q):
    """|alpha^(1/q) (G alpha) - 1|, in logarithms since alpha may span fifty decades."""
    pulled = cosine @ (norms * alpha)  # (G alpha) / n
    assert (alpha > 0).all()
    assert (pulled > 0).all()
    return np.abs(np.expm1(np.log(alpha) / q + np.log(norms) + np.log(pulled))).max()


# ---- barrier_newton --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decades", [0, 4, 25])
@steady
@given(k=sizes, seed=seeds, kind=kinds)
def test_newton_solves_nash_whatever_the_norms(draw_gradients, decades, k, seed, kind):
    norms, cosine = draw_gradients(kind, k, seed, decades, middle=2.5 if decades == 25 else 0.0)
    alpha, claimed, _, rounds = barrier_newton(norms, cosine)
    assert residual(norms, cosine, alpha, 1) < 1e-8
    assert claimed < 1e-8
    assert rounds <= 30


@pytest.mark.parametrize("q", [2.0, 0.5])
@steady
@given(k=sizes, seed=seeds, kind=st.sampled_from(["generic", "rank-deficient", "opposed"]))
def test_newton_solves_other_exponents_over_four_decades_of_norms(draw_gradients, q, k, seed, kind):
    norms, cosine = draw_gradients(kind, k, seed, decades=4)
    alpha, claimed, *_ = barrier_newton(norms, cosine, q)
    assert residual(norms, cosine, alpha, q) < 1e-8
    assert claimed < 1e-8


@pytest.mark.parametrize("q", [1.0, 2.0, 0.5])
@steady
@given(k=sizes, seed=seeds, scale=st.floats(-12, 12))
def test_a_common_scale_of_the_gradients_is_undone_by_its_power(draw_gradients, q, k, seed, scale):
    norms, cosine = draw_gradients("generic", k, seed, decades=2)
    alpha, *_ = barrier_newton(norms, cosine, q)
    scaled, *_ = barrier_newton(norms * 10.0**scale, cosine, q)
    assert_allclose(scaled, alpha * 10.0 ** (-2 * q / (1 + q) * scale), rtol=1e-9)


@steady
@given(k=sizes, seed=seeds, kind=kinds)
def test_nash_sees_directions_only(draw_gradients, k, seed, kind):
    norms, cosine = draw_gradients(kind, k, seed, decades=10)
    alpha, *_ = barrier_newton(norms, cosine)
    unit, *_ = barrier_newton(np.ones(k), cosine)
    assert_allclose(norms * alpha, unit, rtol=1e-6)


@pytest.mark.parametrize("q", [1.0, 2.0, 0.5])
@steady
@given(k=sizes, seed=seeds)
def test_tasks_may_come_in_any_order(draw_gradients, q, k, seed):
    norms, cosine = draw_gradients("opposed", k, seed, decades=3)
    order = np.random.default_rng(seed).permutation(k)
    alpha, *_ = barrier_newton(norms, cosine, q)
    permuted, *_ = barrier_newton(norms[order], cosine[np.ix_(order, order)], q)
    assert_allclose(permuted, alpha[order], rtol=1e-8)


@pytest.mark.parametrize("q", [1.0, 2.0, 0.5])
def test_closed_forms(q):
    norms = np.array([1e-3, 1.0, 50.0])
    orthogonal, *_ = barrier_newton(norms, np.eye(3), q)
    assert_allclose(orthogonal, norms ** (-2 * q / (1 + q)), rtol=1e-10)
    equal, *_ = barrier_newton(np.full(5, 3.0), np.ones((5, 5)), q)  # 5 * 9 alpha = alpha^(-1/q)
    assert_allclose(equal, 45.0 ** (-q / (1 + q)), rtol=1e-10)


@pytest.mark.parametrize("gap", [1.0, 1e-1, 1e-3, 1e-5])
def test_two_opposed_tasks(gap):
    alpha, claimed, *_ = barrier_newton(np.array([1e-6, 1e6]), np.array([[1.0, gap - 1.0], [gap - 1.0, 1.0]]))
    assert_allclose(alpha * [1e-6, 1e6], gap**-0.5, rtol=1e-9)
    assert claimed < 1e-9


@pytest.mark.parametrize("k", [2, 3, 10, 50])
def test_newton_says_so_where_no_solution_exists(k):
    corners = np.eye(k) - 1.0 / k  # a regular simplex around 0
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    _, claimed, *_ = barrier_newton(np.geomspace(1e-3, 1e3, k), corners @ corners.T)
    assert claimed > 1e-2


# ---- Quadratic programs ----------------------------------------------------------------------------------------------


def random_qp(k, seed, rank=None, spread=0.0):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((k, rank or k + 3))
    a = 10.0 ** rng.uniform(-spread, spread, k)
    return root @ root.T / k + 1e-9 * np.eye(k), rng.standard_normal(k), a


@steady
@given(k=st.integers(1, 50), seed=seeds, rank=st.sampled_from([None, 2]), spread=st.sampled_from([0.0, 3.0]))
def test_simplex_qp_satisfies_the_kkt_conditions(k, seed, rank, spread):
    q, h, a = random_qp(k, seed, rank, spread)
    x = simplex_qp(q, h, a, start=seed % k)
    slope = q @ x + h
    price = x @ slope  # a'x = 1: the multiplier of the equation
    tolerance = 1e-8 * np.abs(slope).max()
    assert (x >= 0).all()
    assert a @ x == pytest.approx(1, abs=1e-10)
    assert (slope - price * a >= -tolerance).all()
    assert_allclose((slope - price * a)[x > 0], 0.0, atol=tolerance)


@steady
@given(k=st.integers(2, 6), seed=seeds)
def test_simplex_qp_is_never_beaten_by_scipy(k, seed):
    q, h, a = random_qp(k, seed, spread=0.5)

    def value(x):
        return x @ q @ x / 2 + h @ x

    found = simplex_qp(q, h, a, start=0)
    peer = minimize(
        value,
        1 / (k * a),
        jac=lambda x: q @ x + h,
        method="SLSQP",
        bounds=[(0, None)] * k,
        constraints={"type": "eq", "fun": lambda x: a @ x - 1, "jac": lambda x: a},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert value(found) <= peer.fun + 1e-9
    assert_allclose(found, peer.x, atol=1e-4)


@steady
@given(k=st.integers(2, 20), seed=seeds)
def test_the_start_of_simplex_qp_does_not_matter(k, seed):
    q, h, a = random_qp(k, seed, spread=1.0)
    found = [simplex_qp(q, h, a, start=start) for start in range(0, k, max(k // 3, 1))]
    for other in found[1:]:
        assert_allclose(other, found[0], atol=1e-8 * np.abs(found[0]).max())


@pytest.mark.parametrize("decades", [0, 4, 25])
@steady
@given(k=sizes, seed=seeds, kind=kinds)
def test_the_shortest_combination_is_equally_long_along_all_that_it_uses(draw_gradients, decades, k, seed, kind):
    norms, cosine = draw_gradients(kind, k, seed, decades)
    weights = shortest_in_hull(norms, cosine)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    scaled = norms / norms.min()
    pulled = cosine @ (scaled * weights)  # (G w) / n, in units of the shortest gradient
    excess = pulled - (scaled * weights) @ pulled / scaled
    tolerance = 1e-8 * np.abs(pulled).max()
    assert (excess >= -tolerance).all()
    assert_allclose(excess[weights > 0], 0.0, atol=tolerance)


@pytest.mark.parametrize(
    ("cosine", "ratio", "expected"),
    [
        (0.0, 1.0, [0.5, 0.5]),
        (0.0, 2.0, [0.8, 0.2]),  # w = (n2^2, n1^2) / (n1^2 + n2^2)
        (0.9, 2.0, [1.0, 0.0]),  # the shorter one lies inside the longer one's shadow
        (-0.5, 1e6, [1.0, 5e-7]),
    ],
)
def test_the_shortest_combination_of_two(cosine, ratio, expected):
    weights = shortest_in_hull(np.array([1.0, ratio]), np.array([[1.0, cosine], [cosine, 1.0]]))
    assert_allclose(weights, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("decades", [0, 4])
@steady
@given(k=st.integers(3, 50), seed=seeds)
def test_the_shortest_combination_is_0_where_0_lies_in_the_hull(decades, k, seed):
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((k, k // 2))
    gradients[0] = -gradients[1:].mean(axis=0)
    gradients *= 10.0 ** (decades * (rng.permutation(k) / (k - 1) - 0.5))[:, None]
    norms, cosine = unit_diagonal(gradients @ gradients.T)
    weights = shortest_in_hull(norms, cosine)
    assert np.linalg.norm(weights @ gradients) < 1e-5 * norms.min()


def test_the_parts_of_a_gram_matrix():
    norms, cosine = unit_diagonal(np.array([[1e-20, 3e-6 - 1e-20], [3e-6, 1e10]]))
    assert_allclose(norms, [1e-10, 1e5])
    assert (cosine == cosine.T).all()
    assert (cosine.diagonal() == 1).all()
    assert cosine[0, 1] == pytest.approx(0.3)
