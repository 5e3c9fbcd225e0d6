"""What holds for every likelihood: its terms against scipy, its deviance, its start, its calibration, and training."""

import copy
import functools
import itertools
import math

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import special, stats

import bmtl
from bmtl.inference.errors import NonPositiveLoss
from bmtl.inputs import PerTask
from bmtl.models import LIKELIHOODS, BayesianHeads, TaskModel, likelihood_of, mlp
from bmtl.models.likelihoods import Gaussian, Laplace, StudentT
from bmtl.targets import Binary, Classes, Count, Ordinal, Pixels, Real, TimeToEvent, Vector
from tests.models.programs import losses, seeded

ROWS, MISSING, N_DATA = 24, 5, 60
NAN, INF = math.nan, math.inf
GRADES = Ordinal(("low", "middle", "high", "top"))


def intervals(y):
    """Exact labels, some of which are known up to an interval: above, below, between."""
    ends = torch.stack([y, y], -1)
    ends[::4, 1] = INF
    ends[1::4, 0] = -INF
    ends[2::8] += torch.tensor([-0.2, 0.3], dtype=y.dtype)
    return ends


def times(g, rows):
    ends = intervals(torch.empty(rows, dtype=torch.float64).exponential_(0.5, generator=g) + 0.3)
    ends[1::4, 0] = 0.0
    return ends


def normal(g, rows, *shape):
    return torch.randn(rows, *shape, generator=g, dtype=torch.float64)


def counts(g, rows):
    return torch.poisson(torch.full((rows,), 3.0, dtype=torch.float64), generator=g)


def whole(count):
    return lambda g, rows: torch.randint(0, count, (rows,), generator=g)


# Name -> likelihood, family, labels.
CASES = {
    "gaussian": ("gaussian", Real(), normal),
    "laplace": ("laplace", Real(), normal),
    "student-t": ("student-t", Real(), normal),
    "heteroscedastic": ("heteroscedastic", Real(), normal),
    "evidential": ("evidential", Real(), normal),
    "censored gaussian": ("gaussian", Real(censored=True), lambda g, n: intervals(normal(g, n))),
    "censored laplace": ("laplace", Real(censored=True), lambda g, n: intervals(normal(g, n))),
    "censored student-t": ("student-t", Real(censored=True), lambda g, n: intervals(normal(g, n))),
    "censored heteroscedastic": ("heteroscedastic", Real(censored=True), lambda g, n: intervals(normal(g, n))),
    "censored evidential": ("evidential", Real(censored=True), lambda g, n: intervals(normal(g, n))),
    "counts as numbers": ("gaussian", Count(), counts),
    "categorical": ("categorical", Classes(("x", "y", "z")), whole(3)),
    "kendall": ("kendall", Classes(("x", "y", "z")), whole(3)),
    "weighted-categorical": ("weighted-categorical", Classes(("x", "y", "z")), whole(3)),
    "bernoulli": ("bernoulli", Binary(), whole(2)),
    "ordinal": ("ordinal", GRADES, whole(4)),
    "poisson": ("poisson", Count(), counts),
    "negative-binomial": ("negative-binomial", Count(), counts),
    "zero-inflated-poisson": ("zero-inflated-poisson", Count(), counts),
    "weibull": ("weibull", TimeToEvent(), times),
    "log-normal": ("log-normal", TimeToEvent(), times),
    "joint-normal": ("joint-normal", Vector(("u", "v", "w")), lambda g, n: normal(g, n, 3)),
    "pixels": ("gaussian", Pixels(Real()), lambda g, n: normal(g, n, 2, 3)),
    "pixels of classes": (None, Pixels(Classes(("x", "y"))), lambda g, n: torch.randint(0, 2, (n, 2, 3), generator=g)),
}
NOISES = ("fixed", "parameter", "latent")
VALUES = {  # of the unknowns, away from their start
    "log_variance": 0.4,
    "log_df": 1.2,
    "log_concentration": -0.3,
    "gate_logit": -0.7,
}


def make(case, noise="parameter"):
    name, family, _ = CASES[case]
    return likelihood_of(family, name, noise=noise)


def labels_of(case, rows=ROWS, missing=0, seed=1):
    y = CASES[case][2](seeded(seed), rows)
    y[:missing] = NAN if y.is_floating_point() else -1
    if y.dim() == 2 and case == "joint-normal" and missing:
        y[missing, 1], y[missing + 1, 0], y[missing + 2, 1:] = NAN, NAN, NAN
    if y.dim() == 3 and missing:
        y[missing, 0, 1] = NAN if y.is_floating_point() else -1
    return y


def outputs(likelihood, case, rows=ROWS, seed=3):
    """f ``(rows, outputs)``; of images ``(rows, 2, 3, outputs)``."""
    shape = (rows, 2, 3) if case.startswith("pixels") else (rows,)
    return 0.7 * torch.randn(*shape, likelihood.outputs, generator=seeded(seed), dtype=torch.float64)


def moved(likelihood):
    """Values of the unknowns by name, at `VALUES`."""
    found = {}
    for name, unknown in likelihood._unknowns():
        if name == "cuts":
            found[name] = torch.tensor([-0.8, 0.1, -0.4], dtype=torch.float64)
        elif name == "correlation":
            found[name] = torch.linalg.cholesky(
                torch.tensor([[1, 0.6, -0.2], [0.6, 1, 0.3], [-0.2, 0.3, 1.0]])
            ).double()
        else:
            found[name] = torch.full_like(unknown.start.double(), VALUES[name])
    return found


# ---- Densities -------------------------------------------------------------------------------------------------------


def softplus(x):
    return np.logaddexp(0, x) + 1e-6


def frozen(case, f, v):
    """scipy's law of each row's label."""
    name = CASES[case][0]
    loc, sigma = f[:, 0], math.exp(v.get("log_variance", 0.0) / 2)
    if name == "gaussian":
        return stats.norm(loc, sigma)
    if name == "laplace":
        return stats.laplace(loc, sigma)
    if name == "student-t":
        return stats.t(1 + math.exp(v["log_df"]), loc, sigma)
    if name == "heteroscedastic":
        return stats.norm(loc, np.sqrt(softplus(f[:, 1])))
    if name == "evidential":
        nu, excess, beta = (softplus(f[:, i]) for i in (1, 2, 3))
        return stats.t(2 * (1 + excess), loc, np.sqrt(beta * (1 + nu) / ((1 + excess) * nu)))
    if name == "poisson":
        return stats.poisson(np.exp(loc))
    if name == "negative-binomial":
        r = math.exp(v["log_concentration"])
        return stats.nbinom(r, r / (r + np.exp(loc)))
    if name == "weibull":
        return stats.weibull_min(math.exp(v["log_concentration"]), scale=np.exp(loc))
    return stats.lognorm(sigma, scale=np.exp(loc))


def exact(case, f, v, y):
    """Log density of each row's label, ``(rows,)``, by scipy or by hand."""
    f, y = f.numpy(), y.numpy()
    v = {name: value.numpy() for name, value in v.items()}
    rows = np.arange(len(y))
    if case in ("categorical", "weighted-categorical"):  # of which no label was counted
        return np.log(special.softmax(f * np.exp(-v["log_variance"]), -1))[rows, y]
    if case == "kendall":
        return np.log(special.softmax(f, -1))[rows, y] * np.exp(-v["log_variance"]) - v["log_variance"] / 2
    if case == "bernoulli":
        return stats.bernoulli(special.expit(f[:, 0] * np.exp(-v["log_variance"]))).logpmf(y)
    if case == "ordinal":
        cuts = v["cuts"][0] + np.concatenate([[0], np.cumsum(np.exp(v["cuts"][1:]))])
        below = np.concatenate([np.zeros((len(y), 1)), special.expit(cuts - f), np.ones((len(y), 1))], 1)
        return np.log(np.diff(below, axis=1))[rows, y]
    if case == "zero-inflated-poisson":
        gate = special.expit(v["gate_logit"])
        return np.log(gate * (y == 0) + (1 - gate) * stats.poisson(np.exp(f[:, 0])).pmf(y))
    if case == "joint-normal":
        tril = np.exp(v["log_variance"] / 2)[:, None] * v["correlation"]
        return np.array([marginal(f[i], tril @ tril.T, y[i]) for i in rows])
    if case == "pixels":
        each = stats.norm(f[..., 0], math.exp(v["log_variance"] / 2)).logpdf(y)
        return np.nansum(each, (1, 2))
    if case == "pixels of classes":
        log_p = np.log(special.softmax(f * np.exp(-v["log_variance"]), -1))
        return np.where(y < 0, 0.0, np.take_along_axis(log_p, np.maximum(y, 0)[..., None], -1)[..., 0]).sum((1, 2))
    law = frozen(case, f, {name: float(value) for name, value in v.items()})
    if y.ndim == 2:
        lower, upper = y.T
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.log(law.cdf(upper) - law.cdf(lower))
        return np.where(lower == upper, law.logpdf(np.where(np.isfinite(lower), lower, 1.0)), inside)
    return law.logpmf(y) if "poisson" in case or "binomial" in case else law.logpdf(y)


def marginal(mean, covariance, y):
    there = ~np.isnan(y)
    if not there.any():
        return 0.0
    return stats.multivariate_normal(mean[there], covariance[np.ix_(there, there)]).logpdf(y[there])


@pytest.mark.parametrize("case", CASES)
def test_its_density_is_scipys(case):
    likelihood = make(case).double()
    y, f, v = labels_of(case, missing=0), outputs(likelihood, case), moved(likelihood_of_pixel(likelihood))
    found = terms(likelihood, f, v, y)
    np.testing.assert_allclose(found.numpy(), exact(case, f, v, y), rtol=1e-7, atol=1e-8)


def likelihood_of_pixel(likelihood):
    return getattr(likelihood, "of_pixel", likelihood)


def terms(likelihood, f, v, y):
    """Log density of each row as the program states it, ``(rows,)``; 0 where the label is missing."""
    likelihood.eval()  # of the evidential one, the likelihood alone
    with poutine.trace() as tracer:
        likelihood.observe("t", f, v, y, "nll")
    (site,) = (s for s in tracer.trace.nodes.values() if s["type"] == "sample")
    log_prob = site["fn"].log_prob(site["value"])
    return torch.where(site["mask"], log_prob, 0.0).detach()


@pytest.mark.parametrize("case", CASES)
def test_missing_labels_add_nothing_and_reach_no_gradient(case):
    """Rows without a label; a vector's and an image's row counts with what it has."""
    likelihood = make(case).double()
    inner = likelihood_of_pixel(likelihood)
    y, f, v = labels_of(case, missing=MISSING), outputs(likelihood, case), moved(inner)
    found = terms(likelihood, f, v, y)
    assert not found[:MISSING].any()
    np.testing.assert_allclose(found[MISSING:].numpy(), exact(case, f, v, y)[MISSING:], rtol=1e-7, atol=1e-8)
    leaves = [f.requires_grad_(), *(value.requires_grad_() for value in v.values())]
    with poutine.trace() as tracer:
        likelihood.observe("t", f, v, y, "nll")
    slopes = torch.autograd.grad(tracer.trace.log_prob_sum(), leaves, allow_unused=True)
    assert all(slope is None or slope.isfinite().all() for slope in slopes)
    assert not slopes[0][:MISSING].any()
    assert slopes[0][MISSING + 3 :].flatten(1).any(1).all()
    assert likelihood.labelled(y).tolist() == [False] * MISSING + [True] * (ROWS - MISSING)


@pytest.mark.parametrize("case", CASES)
def test_its_gradients_are_those_of_finite_differences(case):
    likelihood = make(case).double()
    y, v = labels_of(case, rows=8), moved(likelihood_of_pixel(likelihood))
    f = outputs(likelihood, case, rows=8).requires_grad_()
    likelihood.eval()

    def density(f, *values):
        with poutine.trace() as tracer:
            likelihood.observe("t", f, dict(zip(v, values, strict=True)), y, "nll")
        (site,) = (s for s in tracer.trace.nodes.values() if s["type"] == "sample")
        return site["fn"].log_prob(site["value"])

    fixed = ("correlation",)  # a factor of which not every entry is free
    leaves = [value if name in fixed else value.requires_grad_() for name, value in v.items()]
    assert torch.autograd.gradcheck(density, (f, *leaves), rtol=1e-4, atol=1e-6)


# ---- What is trained at unit scale -----------------------------------------------------------------------------------

DEVIANCES = [case for case in CASES if make(case, "fixed").noise == "fixed" and case not in ("pixels of classes",)]
DEVIANCES = [case for case in DEVIANCES if likelihood_of_pixel(make(case, "fixed")).trains_on_deviance]


def at_start(likelihood):
    return {name: unknown.start for name, unknown in likelihood._unknowns()}


@pytest.mark.parametrize("case", DEVIANCES)
def test_a_fixed_noise_trains_on_half_the_unit_deviance(case):
    """At least 0, and 0 where an exact label meets its prediction, with the slope of the negative log density."""
    likelihood = make(case, "fixed").double()
    inner = likelihood_of_pixel(likelihood)
    y, f = labels_of(case, rows=200), outputs(likelihood, case, rows=200).requires_grad_()
    deviance = inner.deviance(f, y)
    assert (deviance >= -1e-12).all()
    plain = inner.distribution(f, at_start(inner)).log_prob(y)
    slopes = [torch.autograd.grad(total, f, retain_graph=True)[0] for total in (deviance.sum(), -plain.sum())]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("case", [case for case in DEVIANCES if case != "zero-inflated-poisson"])
def test_the_deviance_is_0_where_a_label_meets_its_prediction(case):
    likelihood = make(case, "fixed").double()
    inner = likelihood_of_pixel(likelihood)
    y = labels_of(case, rows=200)
    exact = y[y[:, 0] == y[:, 1]] if y.dim() == 2 and case != "joint-normal" else y
    number = exact[:, 0] if exact.dim() == 2 and case != "joint-normal" else exact
    f = number if CASES[case][1].name in ("real", "vector", "pixels") or case == "counts as numbers" else number.log()
    f = f if f.dim() > 1 and case == "joint-normal" else f[..., None]
    there = (
        torch.ones_like(f[..., 0], dtype=torch.bool) if case != "joint-normal" else torch.ones_like(f, dtype=torch.bool)
    )
    there &= f.isfinite() if case == "joint-normal" else f[..., 0].isfinite()  # the log of no event
    found = inner.deviance(f.clamp_min(-1e6), exact)
    torch.testing.assert_close(found[there], torch.zeros_like(found[there]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("case", DEVIANCES)
def test_the_program_states_the_deviance_whatever_is_set_for_predictions(case):
    y, x = labels_of(case, missing=MISSING), torch.randn(ROWS, 2, generator=seeded(), dtype=torch.float64)
    likelihood = make(case, "fixed")
    model = program(case, likelihood)
    before = losses(model, x, {"t": y}).nll
    f = model.heads("t", model.representation.trunk(x), None)
    inner = likelihood_of_pixel(likelihood)
    expected = inner.deviance(f, torch.where(y.isnan(), 1.0, y))
    parts = y.isnan() if expected.shape == y.shape else y.isnan().any(-1)
    total = torch.where(parts, 0.0, expected).sum() * N_DATA / ROWS
    assert before.item() == pytest.approx(total.item(), rel=1e-6)
    with torch.no_grad():
        likelihood.calibrate(f, y)
    torch.testing.assert_close(losses(model, x, {"t": y}).nll, before)


CALIBRATED = [case for case in CASES if make(case, "fixed").needs_calibration]


@pytest.mark.parametrize("case", CALIBRATED)
def test_calibration_is_the_maximum_of_the_posterior(case):
    """No neighbouring value of what was fixed is better on the rows it was fitted to; rows without labels do not count."""
    likelihood = make(case, "fixed").double()
    y, f = labels_of(case, rows=300, missing=MISSING), outputs(likelihood, case, rows=300)
    likelihood.calibrate(f, y)
    inner = likelihood_of_pixel(likelihood)
    flat = (f.flatten(0, 2), y.flatten(0, 2)) if case == "pixels" else (f, y)

    def total(values):
        prior = [inner.unknowns[name].log_prior(v) for name, v in values.items() if name != "correlation"]
        flat_prior = 0.0 if inner.name == "gaussian" and not inner.censored else sum(prior)  # in closed form
        return float(terms_of(inner, flat[0], values, flat[1]).sum() + flat_prior)

    fitted = {name: unknown.value.clone() for name, unknown in inner._unknowns()}
    best = total(fitted)
    for name in fitted:
        for step in (0.02, -0.02):
            other = dict(fitted)
            if name == "correlation":
                turned = fitted[name] + step * torch.ones_like(fitted[name]).tril(-1)
                other[name] = torch.nn.functional.normalize(turned, dim=-1)
            else:
                other[name] = fitted[name] + step
            assert total(other) < best, name
    start = {name: value.clone() for name, value in at_start(inner).items()}
    assert any(not torch.allclose(fitted[name], start[name], atol=1e-3) for name in start)


def terms_of(likelihood, f, values, y):
    likelihood = copy.deepcopy(likelihood)
    likelihood.noise = "parameter"  # its density
    return terms(likelihood, f, values, y)


def test_a_calibrated_gaussian_has_the_residuals_root_mean_square():
    likelihood = Gaussian("fixed")
    y, f = labels_of("gaussian", missing=3), outputs(likelihood, "gaussian")
    likelihood.start(100 + 5 * y)
    likelihood.calibrate(f, 100 + 5 * y)
    residual = 100 + 5 * y - (likelihood.location + likelihood.unit * f[:, 0])
    rms = residual[3:].square().mean().sqrt().item()
    p = likelihood.distribution(f, likelihood.sample("t"))
    assert p.scale[0].item() == pytest.approx(rms, rel=1e-5)
    likelihood.calibrate(f[:3], 100 + 5 * y[:3])  # no label: it stays
    assert likelihood.distribution(f, likelihood.sample("t")).scale[0].item() == pytest.approx(rms, rel=1e-5)


# ---- In a program ----------------------------------------------------------------------------------------------------


class Images(torch.nn.Module):
    """A trunk from rows to images, channels last."""

    def __init__(self, width, generator):
        super().__init__()
        self.width = width
        self.inner = mlp(2, (6 * width,), activation=torch.nn.Tanh, generator=generator)

    def forward(self, x):
        return self.inner(x).unflatten(-1, (2, 3, self.width))


def program(case, likelihood, head=None, labels=None, seed=0):
    g = seeded(seed)
    trunk = Images(4, g) if case.startswith("pixels") else mlp(2, (4,), activation=torch.nn.Tanh, generator=g)
    options = {"head": head} if head else {}
    return TaskModel(trunk, 4, {"t": likelihood}, N_DATA, labels=labels, generator=g, **options).double()


ROWWISE = [case for case in CASES if not case.startswith("pixels")]
# Logarithms of losses need losses above 0, as deviances and probabilities have.
POSITIVE = [case for case in ROWWISE if make(case, "fixed").trains_on_deviance or make(case, "fixed").classes]
TRAININGS = [
    *itertools.product(ROWWISE, NOISES, ["ew"]),
    *itertools.product(ROWWISE, ["parameter"], ["full >> pcgrad"]),
    *itertools.product(POSITIVE, ["fixed"], ["igb-v1 >> nash-mtl"]),
]


@pytest.mark.parametrize(("case", "noise", "balancer"), TRAININGS)
def test_it_trains_beside_another_target_and_predicts(case, noise, balancer):
    y = {"t": labels_of(case, missing=MISSING), "o": normal(seeded(9), ROWS)}
    x = torch.randn(ROWS, 2, generator=seeded(), dtype=torch.float64)
    g = seeded()
    likelihoods = {"t": make(case, noise), "o": Gaussian(noise)}
    model = TaskModel(mlp(2, (4,), generator=g), 4, likelihoods, N_DATA, labels=y, generator=g).double()
    guide = model.guide("point").double()
    optim = functools.partial(torch.optim.Adam, lr=1e-2)
    svi = bmtl.BalancedSVI(model, guide, optim, balancer, bmtl.TaskELBO("analytic"))
    before = {name: p.detach().clone() for name, p in svi.module.named_parameters()}
    for _ in range(2):
        record = svi.step(x, y)
    assert record.losses.isfinite().all()
    assert record.names == model.tasks
    assert not {name for name, p in svi.module.named_parameters() if torch.equal(p, before[name])}
    drawn = bmtl.draw(model, guide, x, y, num_draws=4).targets["t"]
    assert drawn.draws.shape[:2] == (4, ROWS)
    assert np.isnan(drawn.log_likelihood[:, :MISSING]).all()
    assert np.isfinite(drawn.log_likelihood[:, MISSING:]).all()


def test_logarithms_of_losses_refuse_a_density_above_1_by_name():
    y, x = {"t": torch.zeros(ROWS)}, torch.randn(ROWS, 2, generator=seeded())
    likelihood = Gaussian()
    likelihood.unknowns["log_variance"].start_at(torch.tensor(-20.0))
    model = TaskModel(torch.nn.Linear(2, 4), 4, {"t": likelihood}, N_DATA)
    for head in model.heads.of("t"):
        torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    svi = bmtl.BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=1e-2), "igb-v1")
    with pytest.raises(NonPositiveLoss, match="'igb-v1' takes losses that are at least 0; task 't' gave -9"):
        svi.step(x, y)


@pytest.mark.parametrize("case", ["pixels", "pixels of classes"])
@pytest.mark.parametrize("noise", NOISES)
def test_images_train_and_predict(case, noise):
    y = {"t": labels_of(case, missing=MISSING)}
    x = torch.randn(ROWS, 2, generator=seeded(), dtype=torch.float64)
    model = program(case, make(case, noise), labels=y)
    svi = bmtl.BalancedSVI(model, model.guide("point").double(), functools.partial(torch.optim.Adam, lr=1e-2))
    first = svi.step(x, y).losses
    for _ in range(20):
        last = svi.step(x, y).losses
    assert last.item() < first.item()
    with torch.no_grad():
        trace = poutine.trace(poutine.replay(model, poutine.trace(svi.guide).get_trace(x))).get_trace(x)
    assert trace.nodes["y_t"]["value"].shape == (ROWS, 2, 3)


@pytest.mark.parametrize("case", [case for case in CASES if make(case, "latent").latents("t")])
def test_latent_unknowns_are_the_tasks_and_particles_are_looped_ones(case):
    """With point masses every particle is the same: shapes and values must agree exactly."""
    y = {"t": labels_of(case, missing=MISSING)}
    x = torch.randn(ROWS, 2, generator=seeded(), dtype=torch.float64)
    pixels = case.startswith("pixels")
    model = program(case, make(case, "latent"), head=None if pixels else BayesianHeads)
    guide = model.guide("point").double()
    one = losses(model, x, y, guide)
    many = losses(model, x, y, guide, num_particles=3, vectorize_particles=True)
    for field in ("nll", "kl", "counts"):
        torch.testing.assert_close(getattr(many, field), getattr(one, field))
    assert one.kl[0] != 0
    assert one.shared == 0
    normal = model.guide("normal", scale=0.3).double()
    drawn = bmtl.draw(model, normal, x, y, num_draws=3)
    assert set(model.likelihoods["t"].latents("t")) <= set(drawn.posterior)


@pytest.mark.parametrize("case", ROWWISE)
def test_targets_may_have_rows_of_their_own(case):
    y = {"t": labels_of(case, missing=MISSING), "o": normal(seeded(9), 7)}
    x = PerTask({"t": torch.randn(ROWS, 2, generator=seeded()).double(), "o": torch.randn(7, 2).double()})
    g = seeded()
    sizes = {"t": ROWS, "o": 7}
    model = TaskModel(mlp(2, (4,), generator=g), 4, {"t": make(case), "o": Gaussian()}, sizes, generator=g).double()
    found = losses(model, x, y)
    alone = TaskModel(model.representation.trunk, 4, {"t": model.likelihoods["t"]}, ROWS).double()
    for mine, theirs in zip(model.heads.of("t"), alone.heads.of("t"), strict=True):
        theirs.load_state_dict(mine.state_dict())
    of_t = [i for i, name in enumerate(found.names) if name.startswith("t")]
    torch.testing.assert_close(found.nll[of_t], losses(alone, x["t"], {"t": y["t"]}).nll)


# ---- Where training starts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][1].name in ("real", "count", "time-to-event")])
def test_labels_on_any_scale_start_at_their_own(case):
    """At f = 0 the predicted mean is of the size of the labels, whatever their unit; standardised ones change nothing."""
    y = labels_of(case, rows=400, missing=MISSING)
    raw = (
        1000 * y if "count" in CASES[case][1].name or (y.dim() == 2 and "time" in CASES[case][1].name) else 300 + 50 * y
    )
    if case in ("weibull", "log-normal"):
        raw = torch.where(y == 0, 0.0, 1000 * y)
    likelihood = make(case).double()
    likelihood.start(raw)
    f = torch.zeros(400, likelihood.outputs, dtype=torch.float64)
    values = {name: unknown.start for name, unknown in likelihood._unknowns()}
    mean = likelihood.distribution(f, values).mean
    ends = torch.where(raw.isinf(), NAN, raw)
    middle = ends.nanmean(-1) if raw.dim() == 2 else raw
    assert mean[0].item() == pytest.approx(middle.nanmean().item(), rel=0.5)
    likelihood.start(torch.full_like(raw, NAN))  # nothing to start from: as before
    torch.testing.assert_close(likelihood.distribution(f, values).mean, mean)


@pytest.mark.parametrize(
    "make_likelihood",
    [
        Gaussian,
        Laplace,
        StudentT,
        *(functools.partial(likelihood_of, Real(), name) for name in ("heteroscedastic", "evidential")),
    ],
)
@pytest.mark.parametrize("noise", ["parameter", "fixed"])
def test_labels_in_units_are_what_standardised_ones_are(make_likelihood, noise):
    """The same losses (a density per unit), predictions in units."""
    y = normal(seeded(1), 50)
    y = (y - y.mean()) / y.std(correction=0)
    plain, units = make_likelihood(noise=noise).double(), make_likelihood(noise=noise).double()
    plain.start(y)
    units.start(7 - 3 * y)
    assert (plain.location, plain.unit) == (0.0, 1.0), "standardised labels are left as they are"
    f = outputs(plain, "gaussian", rows=50)
    v = plain.sample("t")
    with poutine.trace() as one:
        for objective in plain.objectives:
            plain.observe("t", f, v, y, objective)
    with poutine.trace() as two:
        for objective in units.objectives:
            units.observe("t", f * torch.tensor([1.0] + [1.0] * (plain.outputs - 1)).double(), v, 7 + 3 * y, objective)
    for name, site in one.trace.nodes.items():
        if site["type"] != "sample":
            continue
        ours, theirs = (t.trace.nodes[name]["fn"].log_prob(t.trace.nodes[name]["value"]) for t in (one, two))
        density = name == "y_t" and not plain.trains_on_deviance
        torch.testing.assert_close(theirs, ours - math.log(3) * density)
    torch.testing.assert_close(units.distribution(f, v).mean, 7 + 3 * plain.distribution(f, v).mean)


def test_cut_points_start_at_the_shares_of_the_levels():
    likelihood = make("ordinal").double()
    y = torch.tensor([0] * 50 + [1] * 30 + [2] * 15 + [3] * 5 + [-1] * 40)
    likelihood.start(y)
    p = likelihood.distribution(torch.zeros(1, 1, dtype=torch.float64), likelihood.sample("t")).probs[0]
    torch.testing.assert_close(p, torch.tensor([0.5, 0.3, 0.15, 0.05]).double(), atol=0.02, rtol=0)
    likelihood.start(torch.zeros(20, dtype=torch.long))  # levels that nobody has
    assert likelihood.distribution(torch.zeros(1, 1).double(), likelihood.sample("t")).probs.min() > 0


def test_a_model_takes_each_likelihoods_start_from_its_labels():
    y = {"t": 1000 * labels_of("poisson").float(), "o": 50 + 8 * normal(seeded(2), ROWS).float()}
    x = torch.randn(ROWS, 2, generator=seeded())
    likelihoods = {"t": make("poisson"), "o": Gaussian()}
    model = TaskModel(mlp(2, (4,), generator=seeded()), 4, likelihoods, ROWS, labels=y, generator=seeded())
    drawn = bmtl.draw(model, model.guide(), x, y, num_draws=2)
    for name in y:
        assert drawn.targets[name].mean.mean() == pytest.approx(y[name].mean().item(), rel=0.6)


# ---- Choosing --------------------------------------------------------------------------------------------------------


def test_every_family_has_a_default_and_every_likelihood_a_case():
    families = {
        "gaussian": Real(),
        "categorical": Binary(),
        "ordinal": GRADES,
        "poisson": Count(),
        "weibull": TimeToEvent(),
        "joint-normal": Vector(),
        "pixels": Pixels(),
    }
    for name, family in families.items():
        assert likelihood_of(family).name == name
    assert likelihood_of(Classes(("x", "y", "z"))).outputs == 3
    of_vectors = {"gaussian-vector", "laplace-vector", "von-mises-fisher"}  # test_vectors.py
    assert {case[0] for case in CASES.values()} - {None} | of_vectors == set(LIKELIHOODS)
    assert likelihood_of(Pixels(Count()), "negative-binomial").of_pixel.name == "negative-binomial"


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="There is no likelihood 'guassian'. The likelihoods are: poisson, gaussian"):
        likelihood_of(Real(), "guassian")
    with pytest.raises(
        ValueError, match="'poisson' is for targets of count, and this one is 'real', for which there are: "
    ):
        likelihood_of(Real(), "poisson")
    with pytest.raises(
        ValueError, match="noise is one of 'fixed', 'parameter', 'latent', 'heteroscedastic', and 'learnt'"
    ):
        likelihood_of(Real(), noise="learnt")
    with pytest.raises(ValueError, match="df is a number of degrees of freedom, above 1"):
        likelihood_of(Real(), "student-t", df=1.0)
    with pytest.raises(ValueError, match="'poisson' has no noise that is set by hand; calibrate it"):
        likelihood_of(Count()).set_noise(1.0)
    with pytest.raises(ValueError, match="A pixel has one objective"):
        likelihood_of(Pixels(Real()), "evidential")
    with pytest.raises(ValueError, match="A joint distribution is of 2 or more labels"):
        likelihood_of(Vector(("a", "b")), components=("a", "b", "c"))
    with pytest.raises(ValueError, match="concentration is above 0"):
        likelihood_of(Vector(("a", "b")), concentration=0.0)
