"""Vectors of one noise, directions, noises that a head gives, and all of them on pixels."""

import functools
import math

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import stats

import bmtl
from bmtl.models import TaskModel, likelihood_of, mlp
from bmtl.targets import Classes, Pixels, Real, UnitVector, Vector
from tests.models.programs import losses, seeded

ROWS, SIZE = 6, (2, 3)
NAN = math.nan


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def directions(*shape, seed=0):
    return torch.nn.functional.normalize(normal(*shape, 3, seed=seed), dim=-1)


FAMILIES = {
    "gaussian": Real(),
    "laplace": Real(),
    "categorical": Classes(("x", "y", "z")),
    "gaussian-vector": Vector(("u", "v")),
    "laplace-vector": Vector(("u", "v")),
    "von-mises-fisher": UnitVector(),
}


def labels(name, *shape, seed=5):
    if name == "categorical":
        return torch.randint(0, 3, shape, generator=seeded(seed))
    if name == "von-mises-fisher":
        return directions(*shape, seed=seed)
    return normal(*shape, *((2,) if "vector" in name else ()), seed=seed)


def log_density(name, f, s, y):
    """By scipy, or by hand, of arrays of any shape; `s` is log sigma^2."""
    f, y, s = (np.asarray(values) for values in (f, y, s))
    sigma = np.exp(s / 2)
    if name == "categorical":
        logits = f * np.exp(-s)[..., None]
        log_p = logits - np.logaddexp.reduce(logits, -1)[..., None]
        return np.take_along_axis(log_p, y[..., None], -1)[..., 0]
    if name == "von-mises-fisher":
        k = np.exp(-s)
        unit = f / np.linalg.norm(f, axis=-1, keepdims=True)
        return np.log(k / (4 * np.pi * np.sinh(k))) + k * (unit * y).sum(-1)
    law = stats.norm if "gaussian" in name else stats.laplace
    if "vector" in name:
        return law(f, sigma[..., None]).logpdf(y).sum(-1)
    return law(f[..., 0], sigma).logpdf(y)


def stated(likelihood, f, values, y):
    with poutine.trace() as tracer:
        likelihood.observe("t", f, values, y, "nll")
    (site,) = (s for s in tracer.trace.nodes.values() if s["type"] == "sample")
    found = site["fn"].log_prob(site["value"])
    return found if site["mask"] is None else torch.where(site["mask"], found, 0.0)


@pytest.mark.parametrize("noise", ["parameter", "heteroscedastic"])
@pytest.mark.parametrize("name", FAMILIES)
def test_its_density_is_by_hand(name, noise):
    """Of a noise common to all rows, and of one that the head gives in its last output."""
    likelihood = likelihood_of(FAMILIES[name], name, noise=noise).double()
    f, y = 0.7 * normal(ROWS, likelihood.outputs, seed=1), labels(name, ROWS)
    if noise == "parameter":
        values, s, inner = {"log_variance": torch.tensor(0.4, dtype=torch.float64)}, np.full(ROWS, 0.4), f
    else:
        values, s, inner = likelihood.sample("t"), f[:, -1], f[:, :-1]
        assert not values
        assert not likelihood.latents("t")
    np.testing.assert_allclose(stated(likelihood, f, values, y), log_density(name, inner, s, y), rtol=1e-9)


@pytest.mark.parametrize("name", ["gaussian-vector", "laplace-vector", "von-mises-fisher"])
def test_a_fixed_noise_trains_on_half_the_unit_deviance(name):
    """0 where they meet, at least 0, with the slope of the density at its start; of directions one minus the cosine."""
    likelihood = likelihood_of(FAMILIES[name], name, noise="fixed").double()
    f, y = normal(ROWS, likelihood.outputs, seed=1).requires_grad_(), labels(name, ROWS)
    assert likelihood.deviance(y, y).abs().max() < 1e-12
    found = likelihood.deviance(f, y)
    assert (found > 0).all()
    p = likelihood.distribution(f, {"log_variance": likelihood.unknowns["log_variance"].start})
    slopes = [torch.autograd.grad(total, f, retain_graph=True)[0] for total in (found.sum(), -p.log_prob(y).sum())]
    torch.testing.assert_close(*slopes)
    if name == "von-mises-fisher":
        torch.testing.assert_close(found, 1 - torch.cosine_similarity(f, y))


@pytest.mark.parametrize("name", ["gaussian-vector", "laplace-vector"])
def test_vectors_in_units_start_at_their_own_mean_and_common_scale(name):
    y = 5 + torch.tensor([3.0, 1.0]).double() * labels(name, 400)
    likelihood = likelihood_of(FAMILIES[name], name).double()
    likelihood.start(torch.cat([y, torch.full((7, 2), NAN).double()]))
    torch.testing.assert_close(likelihood.location, y.mean(0), rtol=1e-5, atol=0)
    assert likelihood.unit.item() == pytest.approx(y.var(0, correction=0).mean().sqrt().item(), rel=1e-5)
    likelihood.start(torch.full((4, 2), NAN).double())
    torch.testing.assert_close(likelihood.location, y.mean(0), rtol=1e-5, atol=0)


def image_labels(name):
    """Labels of images: the first without any, one with a single pixel."""
    y = labels(name, ROWS, *SIZE)
    missing = torch.zeros(ROWS, *SIZE, dtype=torch.bool)
    missing[0] = True
    missing[1, 0] = True
    missing[2] = True
    missing[2, 1, 1] = False
    y[missing] = -1 if name == "categorical" else NAN
    return y, missing


@pytest.mark.parametrize("noise", ["fixed", "parameter", "latent", "heteroscedastic"])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_is_the_sum_over_its_labelled_pixels_over_the_temperature(name, noise):
    likelihood = likelihood_of(Pixels(FAMILIES[name]), name, noise=noise).double()
    inner = likelihood.of_pixel
    y, missing = image_labels(name)
    f = (0.7 * normal(ROWS, *SIZE, likelihood.outputs, seed=1)).requires_grad_()
    likelihood.start(y)
    inner.location.zero_(), inner.unit.fill_(1.0)
    temperature = float((~missing).sum()) / (ROWS - 1)
    assert likelihood.temperature.item() == pytest.approx(temperature)
    values = {k: unknown.start.double() + 0.3 * (noise != "fixed") for k, unknown in inner._unknowns()}
    found = stated(likelihood, f, values, y)
    s = f[..., -1] if noise == "heteroscedastic" else torch.full(missing.shape, 0.3 * (noise != "fixed")).double()
    of_pixel = f.detach()[..., :-1] if noise == "heteroscedastic" else f.detach()
    whole = torch.where(missing[..., None] if y.dim() > 3 else missing, 0 * y, y)
    if noise == "fixed" and inner.trains_on_deviance:
        each = -inner.deviance(of_pixel, whole)
    else:
        each = torch.tensor(log_density(name, of_pixel, s.detach(), whole))
    expected = torch.where(missing, 0.0, each).sum((1, 2)) / temperature
    torch.testing.assert_close(found.detach(), expected)
    found.sum().backward()
    assert f.grad.isfinite().all()
    assert not f.grad[missing].any()
    assert f.grad[~missing].flatten(1).any(1).all()
    assert likelihood.labelled(y).tolist() == [False] + [True] * (ROWS - 1)
    assert likelihood.tempered


def test_kendalls_approximation_holds_on_pixels_too():
    likelihood = likelihood_of(Pixels(FAMILIES["categorical"]), "kendall", temperature=1.0).double()
    y, missing = image_labels("categorical")
    f, s = normal(ROWS, *SIZE, 3, seed=1), torch.tensor(0.8).double()
    crossed = torch.nn.functional.cross_entropy(f.movedim(-1, 1), y.clamp_min(0), reduction="none")
    expected = torch.where(missing, 0.0, crossed * torch.exp(-s) + s / 2).sum((1, 2))
    torch.testing.assert_close(stated(likelihood, f, {"log_variance": s}, y), -expected)
    assert not likelihood.tempered


class Trunk(torch.nn.Module):
    width = 4

    def __init__(self):
        super().__init__()
        self.inner = mlp(2, (6 * self.width,), activation=torch.nn.Tanh, generator=seeded())

    def forward(self, x):
        return self.inner(x).unflatten(-1, (*SIZE, self.width))


def scene(noise):
    names = {"seg": "categorical", "depth": "laplace", "vec": "laplace-vector", "normal": "von-mises-fisher"}
    made = {t: likelihood_of(Pixels(FAMILIES[n]), n, noise=noise) for t, n in names.items()}
    y = {t: image_labels(n)[0] for t, n in names.items()}
    model = TaskModel(Trunk(), 4, made, ROWS, labels=y, generator=seeded()).double()
    return model, normal(ROWS, 2, seed=3), y


def test_kendalls_combination_is_the_program_itself():
    """Laplace: L / b + log 2 b, b = sigma; not exp(-s) L + s / 2."""
    model, x, y = scene("parameter")
    for i, of in enumerate(model.likelihoods.values()):
        of.of_pixel.unknowns["log_variance"].start_at(torch.tensor(0.5 * i - 1.0).double())
    found = dict(zip(model.names, losses(model, x, y).nll, strict=True))
    depth = model.likelihoods["depth"]
    f = model.heads("depth", model.representation.trunk(x), None)[..., 0]
    b = math.exp(-0.25) * depth.of_pixel.unit
    error = (y["depth"] - depth.of_pixel.location - depth.of_pixel.unit * f).abs()
    known = ~y["depth"].isnan()
    expected = (error[known] / b + (2 * b).log()).sum() / depth.temperature
    torch.testing.assert_close(found["depth"], expected)
    assert not model.joint_density, "a tempered posterior is not judged by the whole density"


@pytest.mark.parametrize(
    ("noise", "balancer"),
    [
        ("fixed", "igb-v1 >> nash-mtl"),
        ("fixed", "full >> pcgrad"),
        ("parameter", "ew"),
        ("latent", "uw"),
        ("heteroscedastic", "last-layer >> cagrad"),
    ],
)
def test_every_balancer_works_on_pixels(noise, balancer):
    model, x, y = scene(noise)
    optim = functools.partial(torch.optim.Adam, lr=1e-2)
    guide = model.guide("point").double()
    svi = bmtl.BalancedSVI(model, guide, optim, balancer, bmtl.TaskELBO("analytic", normalize="task_mean"))
    for _ in range(2):
        record = svi.step(x, y)
    assert record.losses.isfinite().all()
    assert (record.weights > 0).all()
    drawn = bmtl.draw(model, guide, x, y, num_draws=3)
    for name, of in drawn.targets.items():
        value = (2,) if name == "vec" else (3,) if name == "normal" else ()
        assert of.draws.shape == (3, ROWS, *SIZE, *value)
        there = ~np.isnan(of.log_likelihood)
        np.testing.assert_array_equal(there.all(0), ~model.likelihoods[name]._missing(y[name]).numpy())
    assert drawn.targets["seg"].probability.sum(-1) == pytest.approx(1)
    assert drawn.targets["vec"].aleatoric.shape == (ROWS, *SIZE, 2)


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_a_learnt_noise_is_the_added_one_from_every_start(name):
    """On the true mean: within 5 % of the added sigma (a Laplace's is its mean absolute value, .80 of it) and 2 % of each
    other from log sigma^2 = -2 to 5, whatever the temperature and the labels that are missing."""
    sigma = 0.3
    truth = normal(4, 40, 50, seed=1)
    y = truth + sigma * normal(4, 40, 50, seed=2)
    y[:, :7] = NAN
    ends = []
    for start in (-2.0, 0.0, 2.0, 5.0):
        likelihood = likelihood_of(Pixels(Real()), name, temperature=1e3).double()
        unknown = likelihood.of_pixel.unknowns["log_variance"]
        unknown.start_at(torch.tensor(start))
        optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.02)
        for _ in range(150):
            optimizer.zero_grad()
            (-stated(likelihood, truth[..., None], likelihood.sample("t"), y).sum()).backward()
            optimizer.step()
        ends.append(float((unknown("").detach() / 2).exp()))
    assert max(ends) / min(ends) < 1.02
    assert np.mean(ends) == pytest.approx(sigma * (1 if name == "gaussian" else math.sqrt(2 / math.pi)), rel=0.05)


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="'poisson' has no noise that a head can give"):
        likelihood_of(bmtl.targets.Count(), noise="heteroscedastic")
    with pytest.raises(ValueError, match="temperature is above 0"):
        likelihood_of(Pixels(Real()), temperature=0.0)
    with pytest.raises(ValueError, match="A vector has 2 or more components"):
        bmtl.models.likelihoods.LaplaceVector(1)
    with pytest.raises(ValueError, match="'laplace-vector' is for targets of vector, and this one is 'real'"):
        likelihood_of(Real(), "laplace-vector")
    likelihood = likelihood_of(Pixels(FAMILIES["categorical"])).double()
    y = torch.full((2, *SIZE), 3)
    with pytest.raises(ValueError, match="support"):
        stated(likelihood, normal(2, *SIZE, 3), {"log_variance": torch.zeros(()).double()}, y)
    with pytest.raises(ValueError, match="targets of shape"):
        stated(likelihood, normal(2, *SIZE, 3), {"log_variance": torch.zeros(()).double()}, y[:, :, :2] * 0)
