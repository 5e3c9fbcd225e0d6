"""Beside TorchJD: equal where its answer is right; where it is not, the residuals of both."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch.testing import assert_close

from bmtl.inference.balancing import (
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradDrop,
    GradVac,
    PCGrad,
    SDMGrad,
    UPGrad,
)
from tests.inference.balancing.problems import forward, gradients, on_unit_gradients

torchjd = pytest.importorskip("torchjd.aggregation")
linalg = pytest.importorskip("torchjd.linalg")

sizes = pytest.mark.parametrize("k", [2, 3, 11, 40])


def gram_of(j):
    return j @ j.T


# ---- MGDA ------------------------------------------------------------------------------------------------------------


@sizes
def test_mgda(k):
    gram = gram_of(gradients("generic", k, 0.5))
    theirs = torchjd.MGDAWeighting(epsilon=1e-8, max_iters=3_000)(gram)
    ours = MGDA().solve(gram).alpha
    assert_close(ours, theirs, rtol=0.0, atol=0.01)
    assert ours @ gram @ ours <= theirs @ gram @ theirs + 1e-12


def test_mgda_where_frank_wolfe_stops_too_early():
    j = gradients("opposed", 11, 4)
    gram = gram_of(j)
    theirs, ours = torchjd.MGDAWeighting()(gram), MGDA().solve(gram).alpha
    assert theirs @ gram @ theirs > 10 * (ours @ gram @ ours)

    def violation(w):  # of (G w)_k >= w'G w, over n_k and the shortest gradient
        return ((w @ gram @ w - gram @ w) / gram.diagonal().sqrt() / j.norm(dim=1).min()).max()

    assert violation(ours) < 1e-9
    assert violation(theirs) > 1e-2


# ---- CAGrad ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def their_cagrad():
    for package in ("cvxpy", "clarabel"):
        pytest.importorskip(package, reason="TorchJD's CAGrad needs it")
    return torchjd.CAGradWeighting(0.4)


@sizes
def test_cagrad(k, their_cagrad):
    gram = gram_of(gradients("opposed", k))
    assert_close(CAGrad(rescale=0).solve(gram).alpha, k * their_cagrad(gram), rtol=1e-2, atol=1e-2)


def test_cagrad_where_an_absolute_epsilon_stops_training(their_cagrad):
    gram = gram_of(gradients("opposed", 3, 10))
    assert their_cagrad(gram).tolist() == [0.0, 0.0, 0.0]
    found = CAGrad().solve(gram)
    assert found.status == "ok"
    assert found.residual < 1e-9


# ---- PCGrad, GradVac, GradDrop: with the same draws ------------------------------------------------------------------


@sizes
def test_pcgrad(k, monkeypatch):
    j = gradients("opposed", k, 2)
    rows = iter(PCGrad(seed=3).orders(k))
    monkeypatch.setattr(torch, "randperm", lambda n: next(rows))
    theirs = torchjd.PCGradWeighting()(gram_of(j))
    monkeypatch.undo()
    assert_close(forward(PCGrad(seed=3), j).alpha, theirs, rtol=1e-8, atol=1e-10)


@sizes
def test_gradvac(k, monkeypatch):
    ours, theirs, draws = GradVac(seed=3), torchjd.GradVacWeighting(eps=0.0), GradVac(seed=3)
    for seed in range(3):
        j = gradients("opposed", k, 1, seed)
        orders = draws.orders(k).tolist()
        # Theirs numbers the others without i.
        rows = iter([torch.tensor([o - (o > i) for o in row if o != i]) for i, row in enumerate(orders)])
        monkeypatch.setattr(torch, "randperm", lambda n, rows=rows: next(rows))
        expected = theirs(gram_of(j))
        monkeypatch.undo()
        assert_close(forward(ours, j).alpha, expected, rtol=1e-6, atol=1e-8)


@sizes
@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_graddrop(k, leak, monkeypatch):
    j = gradients("generic", k, 1)
    drawn = torch.rand(j.shape[1], generator=GradDrop(seed=3).generator, dtype=torch.float32).double()
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: drawn)
    theirs = torchjd.GradDrop(leak=torch.full((k,), leak, dtype=torch.float64))(j)
    monkeypatch.undo()
    assert_close(forward(GradDrop(leak, seed=3), j).direction, theirs)


# ---- IMTL-G, ConFIG, Aligned-MTL -------------------------------------------------------------------------------------


@sizes
@pytest.mark.parametrize("decades", [0, 2])
def test_imtl_g(k, decades):
    gram = gram_of(gradients("opposed", k, decades))
    ours = IMTLG().solve(gram).alpha
    assert_close(ours / ours.sum(), torchjd.IMTLGWeighting()(gram), rtol=1e-6, atol=1e-9)


def test_imtl_g_where_the_sum_of_the_weights_is_negative():
    cosine = torch.tensor([[1.0, 0.896, 0.908], [0.896, 1.0, 0.694], [0.908, 0.694, 1.0]], dtype=torch.float64)
    norms = torch.tensor([0.05, 1.0, 1.0], dtype=torch.float64)
    gram = norms[:, None] * cosine * norms
    assert (gram @ IMTLG().solve(gram).alpha > 0).all()
    assert (gram @ torchjd.IMTLGWeighting()(gram) < 0).all()  # every loss rises


def test_imtl_g_where_norms_span_decades():
    j = gradients("opposed", 5, 10)

    def spread(alpha):
        _, x, unit = on_unit_gradients(j, alpha)
        projections = unit @ (x @ unit)
        return (projections / projections.mean() - 1).abs().max()

    assert spread(forward(IMTLG(), j).alpha) < 1e-9
    assert spread(torchjd.IMTLGWeighting()(gram_of(j))) > 1e-2


@sizes
@pytest.mark.parametrize("decades", [0, 4])
def test_config(k, decades):
    j = gradients("opposed", k, decades)
    d = forward(ConFIG(), j).alpha @ j
    assert_close(d, torchjd.ConFIG()(j), rtol=1e-7, atol=1e-9 * j.norm().item())


@sizes
@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_mtl(k, scale):
    gram = gram_of(gradients("opposed", k, 1))
    theirs = torchjd.AlignedMTLWeighting(scale_mode=scale)(gram)
    assert_close(AlignedMTL(scale).solve(gram).alpha, k * theirs, rtol=1e-6, atol=1e-8)


# ---- FairGrad --------------------------------------------------------------------------------------------------------


def fairness(gram, alpha, a):
    return (gram @ alpha * alpha ** (1 / a) - 1).abs().max()


@sizes
@pytest.mark.parametrize("a", [1.0, 2.0])
def test_fairgrad(k, a):
    gram = gram_of(gradients("opposed", k))
    assert_close(FairGrad(a).solve(gram).alpha, torchjd.FairGradWeighting(a)(gram), rtol=1e-5, atol=0.0)


def test_fairgrad_where_least_squares_stops_too_early():
    gram = gram_of(gradients("opposed", 11, 6))
    assert fairness(gram, FairGrad().solve(gram).alpha, 2.0) < 1e-8
    assert fairness(gram, torchjd.FairGradWeighting(2.0)(gram), 2.0) > 1e-2


# ---- UPGrad, DualProj ------------------------------------------------------------------------------------------------


class Projector(linalg.QuadprogProjector):
    """TorchJD's quadratic program, normalised and regularised as it does, solved by scipy in place of quadprog."""

    def __init__(self, norm_eps=1e-4, reg_eps=1e-4):
        self._norm_eps, self._reg_eps = norm_eps, reg_eps

    def _project_weight_vector(self, u, gram):
        root = np.linalg.cholesky(gram)
        return u + nnls(root.T, -root.T @ u)[0]


@sizes
@pytest.mark.parametrize(("ours", "theirs"), [(UPGrad, torchjd.UPGradWeighting), (DualProj, torchjd.DualProjWeighting)])
def test_projections(ours, theirs, k):
    gram = gram_of(gradients("opposed", k, 1))
    expected = theirs(projector=Projector(norm_eps=0.0, reg_eps=1e-13))(gram)
    assert_close(ours().solve(gram).alpha, k * expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("ours", "theirs"), [(UPGrad, torchjd.UPGradWeighting), (DualProj, torchjd.DualProjWeighting)])
def test_projections_where_the_regulariser_gives_short_gradients_up(ours, theirs):
    j = gradients("opposed", 11, 4)

    def worst(alpha):  # cosine of the update with the gradient that it serves worst
        d = alpha @ j
        return ((j @ d) / (j.norm(dim=1) * d.norm())).min()

    assert worst(forward(ours(), j).alpha) > -1e-9
    assert worst(theirs(projector=Projector())(gram_of(j))) < -1e-2  # that loss rises


# ---- SDMGrad ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 11])
def test_sdmgrad(k):
    gram = gram_of(gradients("opposed", k))
    theirs = torchjd.SDMGradWeighting(lr=0.1, momentum=0.0, n_iter=1500)(gram)
    assert_close(SDMGrad(iters=1500).solve(gram).alpha, k * theirs, rtol=1e-5, atol=1e-7)
