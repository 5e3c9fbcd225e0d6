import functools
import logging
import math
import tracemalloc

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.infer.reparam import LocScaleReparam
from scipy import stats
from torch import nn

import bmtl
from bmtl.inference.draws import draw
from bmtl.inputs import PerTask
from bmtl.models import mlp
from tests.inference.programs import task_model

ROWS = 12


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def inputs():
    x = torch.randn(ROWS, 3, generator=seeded(1))
    y = {
        "a": torch.randn(ROWS, generator=seeded(2)),
        "c": torch.randint(0, 3, (ROWS,), generator=seeded(3)),
    }
    y["a"][2] = math.nan
    y["c"][5] = -1
    return x, y


@pytest.fixture(scope="module")
def bayesian():
    """Latent noise and heads for a regression and a classification; the guide is wide, so that draws differ."""
    generator = seeded()
    trunk = mlp(3, (4,), generator=generator)
    model = task_model(trunk, 4, {"a": 0, "c": 3}, 50, noise="latent", head="bayesian", generator=generator)
    return model, model.guide(scale=0.5)


def one_target(distribution, name="y_a"):
    """A program that predicts one target from a function of x, and an empty guide."""

    def model(x, y=None):
        with pyro.plate("rows", 100, subsample=x), bmtl.task("a"):
            bmtl.observe(name, distribution(x), None if y is None else y["a"])

    return model, lambda x: None


def test_deterministic_sites_outside_plates_are_kept_with_the_latents():
    """Functions of a draw follow it; those of parameters alone have one value where there are no latents."""

    def model(x, y=None):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0)) if latent else torch.tensor(2.0)
        pyro.deterministic("square", mean**2)
        with pyro.plate("rows", 100, subsample=x), bmtl.task("a"):
            pyro.deterministic("fitted", mean * x[:, 0])
            bmtl.observe("y_a", dist.Normal(mean * x[:, 0], 1.0), None)

    def guide(x):
        if latent:
            pyro.sample("mean", dist.Normal(1.0, 1.0))

    x = torch.ones(4, 1)
    latent = True
    found = draw(model, guide, x, num_draws=6).posterior
    assert set(found) == {"mean", "square"}
    np.testing.assert_allclose(found["square"], found["mean"] ** 2, rtol=1e-6)
    assert set(draw(model, guide, x, num_draws=6, sites=["square"]).posterior) == {"square"}
    latent = False
    alone = draw(model, guide, x, num_draws=6)
    assert alone.posterior["square"].tolist() == [4.0]
    assert alone.targets["a"].draws.shape == (6, 4)


# ---- Latents ---------------------------------------------------------------------------------------------------------


FIELDS = ("mean", "probability", "aleatoric", "epistemic", "log_likelihood", "pit")


def test_shapes_of_a_bayesian_model(bayesian, inputs):
    found = draw(*bayesian, *inputs, num_draws=7)
    assert {name: values.shape for name, values in found.posterior.items()} == {
        "head_a": (7, 1, 5),
        "log_variance_a": (7,),
        "head_c": (7, 3, 5),
        "log_variance_c": (7,),
    }
    shapes = {
        target: {
            field: getattr(found.targets[target], field).shape
            for field in ("draws", *FIELDS)
            if present(found, target, field)
        }
        for target in "ac"
    }
    both = {"draws": (7, ROWS), "aleatoric": (ROWS,), "epistemic": (ROWS,), "log_likelihood": (7, ROWS)}
    assert shapes == {"a": {**both, "mean": (ROWS,), "pit": (ROWS,)}, "c": {**both, "probability": (ROWS, 3)}}
    name, parameters = found.targets["a"].law
    assert name == "student-t"
    # One noise for all rows, and the degrees of freedom of a normal, are there once a draw.
    assert {key: values.shape for key, values in parameters.items()} == {
        "loc": (7, ROWS),
        "scale": (7, 1),
        "df": (7, 1),
    }
    assert found.targets["c"].law is None
    assert found.log_p.shape == found.log_q.shape == (7,)
    assert (found.chains, found.sample_stats) == (1, {})
    alone = draw(*bayesian, inputs[0], num_draws=2)
    assert list(alone.targets) == ["a", "c"]
    assert all(prediction.log_likelihood is None and prediction.pit is None for prediction in alone.targets.values())
    assert alone.log_p is alone.log_q is None
    assert draw(*bayesian, inputs[0][:1]).targets["a"].draws.shape == (100, 1)


def present(found, target, field):
    return getattr(found.targets[target], field) is not None


def test_posterior_draws_fit_the_guides_normals(bayesian, inputs):
    model, guide = bayesian
    found = draw(model, guide, inputs[0][:1], num_draws=400).posterior
    for name, posterior in guide.items():
        drawn = found[name].reshape(400, -1)
        centred = (drawn - posterior().mean.detach().numpy().reshape(-1)) / 0.5
        assert np.abs(centred.mean(0)).max() < 4 / math.sqrt(400)
        assert stats.kstest(centred[:, 0], stats.norm.cdf).pvalue > 1e-3
        if drawn.shape[1] > 1:  # independent entries
            off = np.corrcoef(drawn.T)[~np.eye(drawn.shape[1], dtype=bool)]
            assert np.abs(off).max() < 5 / math.sqrt(400)


def test_the_predictive_is_the_average_over_the_posterior_draws(bayesian, inputs):
    """Mean, densities, cdf and class probabilities against scipy at the very draws that the posterior lists."""
    model, guide = bayesian
    x, y = inputs
    found = draw(model, guide, x, y, num_draws=20)
    with torch.no_grad():
        h = np.concatenate([model.representation.trunk(x).double().numpy(), np.ones((ROWS, 1))], 1)
    f = np.einsum("nd,sd->sn", h, found.posterior["head_a"][:, 0])
    sigma = np.exp(found.posterior["log_variance_a"] / 2)[:, None]
    label = y["a"].numpy()
    np.testing.assert_allclose(found.targets["a"].mean, f.mean(0), atol=1e-5)
    np.testing.assert_allclose(
        found.targets["a"].log_likelihood, stats.norm(f, sigma).logpdf(label), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(found.targets["a"].pit, stats.norm(f, sigma).cdf(label).mean(0), atol=1e-5)
    logits = (
        np.einsum("nd,scd->snc", h, found.posterior["head_c"])
        * np.exp(-found.posterior["log_variance_c"])[:, None, None]
    )
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    np.testing.assert_allclose(found.targets["c"].probability, np.exp(log_p).mean(0), atol=1e-5)
    np.testing.assert_allclose(found.targets["c"].probability.sum(-1), 1, atol=1e-5)
    seen = np.arange(ROWS) != 5
    expected = np.take_along_axis(log_p, np.maximum(y["c"].numpy(), 0)[None, :, None], -1)[..., 0]
    np.testing.assert_allclose(found.targets["c"].log_likelihood[:, seen], expected[:, seen], rtol=1e-4, atol=1e-4)
    # Law of total variance, and its counterpart for entropies.
    np.testing.assert_allclose(found.targets["a"].aleatoric, np.broadcast_to(sigma**2, f.shape).mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.targets["a"].epistemic, f.var(0), rtol=1e-3, atol=1e-7)
    each, together = stats.entropy(np.exp(log_p), axis=-1), stats.entropy(np.exp(log_p).mean(0), axis=-1)
    np.testing.assert_allclose(found.targets["c"].aleatoric, each.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.targets["c"].epistemic, together - each.mean(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.targets["a"].law.parameters["loc"], f, atol=1e-5)
    assert np.isinf(found.targets["a"].law.parameters["df"]).all()


def test_log_densities_are_of_all_latents_and_labels(bayesian, inputs):
    """Against scipy: priors and likelihood without the plate's scale, and the guide's normals."""
    model, guide = bayesian
    found = draw(model, guide, *inputs, num_draws=5, batch_size=4)
    prior = sum(
        stats.norm(0, model.heads.prior_scale).logpdf(found.posterior[f"head_{t}"]).sum(axis=(1, 2))
        + stats.norm(*model.likelihoods[t].unknowns["log_variance"].prior).logpdf(found.posterior[f"log_variance_{t}"])
        for t in "ac"
    )
    likelihood = sum(np.nansum(found.targets[t].log_likelihood, axis=1) for t in "ac")
    np.testing.assert_allclose(found.log_p, prior + likelihood, rtol=1e-4)
    log_q = 0.0
    for name, posterior in guide.items():
        normal = stats.norm(posterior().mean.detach().numpy(), 0.5)
        log_q = log_q + normal.logpdf(found.posterior[name]).reshape(5, -1).sum(axis=1)
    np.testing.assert_allclose(found.log_q, log_q, rtol=1e-4)


def test_missing_labels_are_nan_and_nothing_else_is(bayesian, inputs):
    found = draw(*bayesian, *inputs, num_draws=4)
    missing_a, missing_c = np.arange(ROWS) == 2, np.arange(ROWS) == 5
    assert (np.isnan(found.targets["a"].log_likelihood) == missing_a).all()
    assert (np.isnan(found.targets["c"].log_likelihood) == missing_c).all()
    assert (np.isnan(found.targets["a"].pit) == missing_a).all()
    assert all(np.isfinite(found.targets[target].draws).all() for target in "ac")
    assert np.isfinite(found.targets["a"].mean).all()


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_rows_at_a_time_change_the_noise_of_the_rows_only(bayesian, inputs, batch_size):
    whole = draw(*bayesian, *inputs, num_draws=6)
    parts = draw(*bayesian, *inputs, num_draws=6, batch_size=batch_size)
    for name, values in whole.posterior.items():
        np.testing.assert_array_equal(values, parts.posterior[name])
    for target, one in whole.targets.items():
        for field in FIELDS:
            if present(whole, target, field):
                np.testing.assert_allclose(getattr(one, field), getattr(parts.targets[target], field), atol=1e-5)
    for name, values in whole.targets["a"].law.full().parameters.items():
        np.testing.assert_allclose(values, parts.targets["a"].law.full().parameters[name], atol=1e-5)
    assert parts.targets["a"].law.parameters["scale"].shape == (6, 1)
    np.testing.assert_allclose(whole.log_p, parts.log_p, rtol=1e-5)
    np.testing.assert_allclose(whole.log_q, parts.log_q, rtol=1e-5)
    assert parts.targets["a"].draws.shape == whole.targets["a"].draws.shape


def test_the_seed_decides_and_the_global_generator_stays(bayesian, inputs):
    before = torch.get_rng_state()
    one, same, other = (draw(*bayesian, inputs[0], num_draws=3, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(one.targets["a"].draws, same.targets["a"].draws)
    assert not (one.targets["a"].draws == other.targets["a"].draws).any()
    with pytest.raises(ValueError, match="num_draws"):
        draw(*bayesian, inputs[0], num_draws=0)


def test_an_error_leaves_generator_and_modes_as_they_were(inputs):
    def fails(x):
        torch.rand(1)
        raise ArithmeticError

    model = nn.Dropout()
    before = torch.get_rng_state()
    with pytest.raises(ArithmeticError):
        draw(model, fails, inputs[0])
    assert torch.equal(before, torch.get_rng_state())
    assert model.training


class Dropping(nn.Module):
    """A program whose prediction shows whether it runs in training mode."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, y=None):
        with pyro.plate("rows", 100, subsample=x), bmtl.task("a"):
            bmtl.observe("y_a", dist.Normal(self.dropout(self.frozen(x))[:, 0], 1.0), None)


@pytest.mark.parametrize("training", [True, False])
def test_it_predicts_in_eval_mode_and_puts_every_part_back(inputs, training):
    model = Dropping().train(training)
    model.frozen.train(not training)
    found = draw(model, lambda x: None, inputs[0], num_draws=2)
    np.testing.assert_allclose(found.targets["a"].mean, inputs[0][:, 0], atol=1e-3)
    assert [part.training for part in (model, model.dropout, model.frozen)] == [training, training, not training]


def test_latents_of_the_rows_follow_their_rows(inputs):
    """A latent in a plate of the rows is no global one, whether the plate says so by its size or by subsampling."""
    x = inputs[0]

    def program(subsample, y=None):
        def model(x, y=None):
            level = pyro.sample("level", dist.Normal(0.0, 0.01))
            with pyro.plate("features", 3):
                pyro.sample("scales", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", 1000, subsample=x) if subsample else pyro.plate("rows", len(x)), bmtl.task("a"):
                z = pyro.sample("z", dist.Normal(x[:, 0], 0.01))
                bmtl.observe("y_a", dist.Normal(z + level, 0.01), None)

        return model

    for subsample in (True, False):
        model = program(subsample)
        prior = pyro.poutine.block(model, hide=["y_a"])
        for batch_size in (None, 5, 3, 1):
            found = draw(model, prior, x, num_draws=5, batch_size=batch_size)
            assert {name: v.shape for name, v in found.posterior.items()} == {"level": (5,), "scales": (5, 3)}
            np.testing.assert_allclose(found.targets["a"].mean, x[:, 0], atol=0.1)


def test_latents_of_the_rows_outside_every_plate_follow_their_rows():
    """A chunk must not take the latents of an earlier one, which are as many."""
    x = torch.arange(12.0)[:, None]

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0).to_event(1))
        with bmtl.task("a"), pyro.plate("rows", 100, subsample=x):
            bmtl.observe("y_a", dist.Normal(z, 0.01), None)

    for batch_size in (4, 5, None):
        drawn = draw(model, lambda x: pyro.sample("z", dist.Normal(x[:, 0], 0.1).to_event(1)), x, batch_size=batch_size)
        np.testing.assert_allclose(drawn.targets["a"].mean, x[:, 0], atol=0.1)
        assert not drawn.posterior


def test_deterministic_sites_of_rows_are_whole_or_not_there():
    x = torch.arange(12.0)

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.deterministic("both", w + 1)
        mean = pyro.deterministic("mean", w * x)
        with bmtl.task("a"), pyro.plate("rows", 100, subsample=x):
            bmtl.observe("y_a", dist.Normal(mean, 0.01), None)

    def guide(x):
        pyro.sample("w", dist.Normal(1.0, 0.1))

    whole = draw(model, guide, x, num_draws=3).posterior
    np.testing.assert_allclose(whole["mean"], whole["w"][:, None] * x.numpy())
    assert set(draw(model, guide, x, num_draws=3, batch_size=4).posterior) == {"w", "both"}
    with pytest.raises(ValueError, match="'mean' has values of the rows.*batch_size=None"):
        draw(model, guide, x, sites=["mean"], batch_size=4)


def test_a_latent_that_a_reparameterisation_replaced_is_kept_with_those_in_its_place(caplog):
    def model(x, y=None):
        mean = pyro.sample("mean", dist.Normal(1.0, 2.0))
        with bmtl.task_plate(["a", "b"], dim=-2):
            slope = pyro.sample("slope", dist.Normal(mean, 0.5).expand([2, 1]))
            with pyro.plate("rows", 8, subsample=x, dim=-1):
                bmtl.observe("y", dist.Normal(slope * x, 1.0), y and torch.stack([y["a"], y["b"]]))

    x = torch.linspace(-1, 1, 8)
    y = {"a": x, "b": 2 * x}
    program = pyro.poutine.reparam(model, config={"mean": LocScaleReparam(0.0), "slope": LocScaleReparam(0.0)})
    guide = AutoNormal(program)
    with caplog.at_level(logging.WARNING):
        svi = bmtl.BalancedSVI(program, guide, functools.partial(torch.optim.SGD, lr=1e-3))
        svi.step(x, y)
    assert not caplog.records  # no site outside all tasks is taken for data
    assert svi.evaluate(x, y).labelled.tolist() == [8.0, 8.0]
    found = draw(program, guide, x, num_draws=5).posterior
    assert set(found) == {"mean", "mean_decentered", "slope", "slope_decentered"}
    np.testing.assert_allclose(found["mean"], 1.0 + 2.0 * found["mean_decentered"], rtol=1e-5)
    expected = found["mean"][:, None, None] + 0.5 * found["slope_decentered"]
    np.testing.assert_allclose(found["slope"], expected, rtol=1e-5)


def test_a_plate_that_is_called_like_a_target_is_none(inputs):
    def model(x, y=None):
        with pyro.plate("y_rows", 100, subsample=x), bmtl.task("y"):
            bmtl.observe("y_y", dist.Normal(x[:, 0], 1.0), None)

    assert draw(model, lambda x: None, inputs[0], num_draws=2).targets.keys() == {"y"}


# ---- Point-mass programs ---------------------------------------------------------------------------------------------


def test_without_latents_one_pass_gives_the_densities_and_all_draws(inputs):
    x, y = inputs
    model = task_model(mlp(3, (4,), generator=seeded()), 4, {"a": 0, "c": 3}, 50, noise="fixed")
    model.set_noise({"a": 0.3})
    found = draw(model, model.guide(), x, y, num_draws=5000)
    assert found.posterior == {}
    assert found.targets["a"].draws.shape == (5000, ROWS)
    assert found.targets["a"].log_likelihood.shape == (1, ROWS)
    with torch.no_grad():
        f = model.heads("a", model.representation.trunk(x), None).squeeze(-1).numpy()
    np.testing.assert_allclose(found.targets["a"].mean, f, atol=1e-6)
    np.testing.assert_allclose(found.targets["a"].log_likelihood[0], stats.norm(f, 0.3).logpdf(y["a"]), rtol=1e-4)
    assert stats.kstest((found.targets["a"].draws[:, 3] - f[3]) / 0.3, stats.norm.cdf).pvalue > 1e-3
    shares = (found.targets["c"].draws[..., None] == np.arange(3)).mean(0)
    assert np.abs(shares - found.targets["c"].probability).max() < 4 * 0.5 / math.sqrt(5000)


def test_dropout_that_stays_on_differs_between_draws(inputs):
    """Without latents all draws are of one pass, unless the program has random numbers outside its statements."""
    x, y = inputs

    def noisy(x):
        kept = nn.functional.dropout(torch.ones_like(x[:, 0]), 0.5, training=True)
        return dist.Normal(kept, 0.1)

    drawn = draw(*one_target(noisy), x, {"a": y["a"]}, num_draws=400, batch_size=5).targets["a"]
    assert drawn.draws.shape == drawn.log_likelihood.shape == (400, ROWS)
    np.testing.assert_allclose(drawn.mean, 1.0, atol=0.2)
    np.testing.assert_allclose(drawn.epistemic, 1.0, atol=0.1)  # 0 or 2, with equal probabilities
    np.testing.assert_allclose(drawn.aleatoric, 0.01, rtol=1e-5)


def test_a_point_mass_guide_draws_one_value(inputs):
    model = task_model(nn.Identity(), 3, {"a": 0}, 50, noise="latent", head="bayesian")
    found = draw(model, model.guide("point"), inputs[0], num_draws=3)
    assert (found.posterior["head_a"] == found.posterior["head_a"][0]).all()


CONTINUOUS = {
    "laplace": (dist.Laplace, stats.laplace, (0.5, 2.0)),
    "log-normal": (dist.LogNormal, lambda m, s: stats.lognorm(s, scale=math.exp(m)), (0.1, 0.4)),
    "gamma": (dist.Gamma, lambda a, b: stats.gamma(a, scale=1 / b), (2.0, 3.0)),
}
DISCRETE = {
    "poisson": (dist.Poisson, stats.poisson, (3.0,)),
    "binomial": (dist.Binomial, stats.binom, (10, 0.3)),
    "bernoulli": (dist.Bernoulli, stats.bernoulli, (0.3,)),
    "geometric": (dist.Geometric, lambda p: stats.geom(p, loc=-1), (0.3,)),
    "negative binomial": (dist.NegativeBinomial, lambda n, p: stats.nbinom(n, 1 - p), (4.0, 0.3)),
}


@pytest.mark.parametrize(("family", "oracle", "parameters"), CONTINUOUS.values(), ids=CONTINUOUS)
def test_continuous_targets_of_other_families(inputs, family, oracle, parameters):
    label = torch.rand(ROWS, generator=seeded()) + 0.1
    found = draw(*one_target(lambda x: family(*parameters)), inputs[0], {"a": label}, num_draws=3)
    reference = oracle(*parameters)
    np.testing.assert_allclose(found.targets["a"].mean, np.full(ROWS, reference.mean()), rtol=1e-5)
    np.testing.assert_allclose(found.targets["a"].log_likelihood[0], reference.logpdf(label), rtol=1e-4)
    np.testing.assert_allclose(found.targets["a"].pit, reference.cdf(label), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("family", "oracle", "parameters"), DISCRETE.values(), ids=DISCRETE)
def test_counts_have_their_mean_and_no_pit(inputs, family, oracle, parameters):
    label = torch.arange(ROWS) % 2
    label[3] = -1
    found = draw(*one_target(lambda x: family(*parameters)), inputs[0], {"a": label}, num_draws=3)
    reference = oracle(*parameters)
    mean = found.targets["a"].probability[:, 1] if family is dist.Bernoulli else found.targets["a"].mean  # two classes
    np.testing.assert_allclose(mean, np.full(ROWS, reference.mean()), rtol=1e-5)
    seen = np.arange(ROWS) != 3
    np.testing.assert_allclose(found.targets["a"].log_likelihood[0, seen], reference.logpmf(label[seen]), rtol=1e-4)
    assert np.isnan(found.targets["a"].log_likelihood[0, 3])
    assert found.targets["a"].pit is None


def test_a_distribution_without_cdf_or_mean_has_those_of_its_draws(inputs):
    cube = dist.transforms.PowerTransform(torch.tensor(3.0))

    def family(x):  # cdf, but no mean
        return dist.TransformedDistribution(dist.LogNormal(0.0, 0.2).expand([len(x)]), [cube])

    found = draw(*one_target(family), inputs[0], {"a": torch.ones(ROWS)}, num_draws=2000)
    np.testing.assert_allclose(found.targets["a"].mean, math.exp(0.6**2 / 2), rtol=0.1)
    student = draw(
        *one_target(lambda x: dist.StudentT(4.0, 0.0, 1.0)), inputs[0], {"a": torch.ones(ROWS)}, num_draws=2000
    )
    np.testing.assert_allclose(student.targets["a"].pit, stats.t(4).cdf(1.0), atol=0.05)


def test_what_is_as_large_as_the_draws_is_there_once_and_in_the_models_precision():
    """Peak of numpy's memory: 16 bytes for each draw of a row, a quarter more for a chunked array put together, and rows'
    own numbers, about 15 of 8 bytes a row."""
    rows, draws = 20_000, 30
    x, label = torch.randn(rows, 3, generator=seeded()), torch.randn(rows, generator=seeded(1))
    model = task_model(nn.Identity(), 3, {"a": 0}, rows, noise="latent", head="bayesian")
    for batch_size in (None, 3000):
        tracemalloc.start()
        found = draw(model, model.guide(), x, {"a": label}, num_draws=draws, batch_size=batch_size)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak / rows < draws * (16 if batch_size is None else 20) + 15 * 8 + 10
        prediction = found.targets["a"]
        large = [prediction.draws, prediction.log_likelihood, prediction.law.parameters["loc"]]
        assert {(array.dtype, array.shape) for array in large} == {(np.dtype(np.float32), (draws, rows))}
        assert {prediction.law.parameters[name].shape for name in ("scale", "df")} == {(draws, 1)}


def test_components_are_not_the_models_own_memory(inputs):
    """A model that trains on leaves what was drawn from it as it was."""
    scale = torch.full((ROWS,), 2.0)
    found = draw(*one_target(lambda x: dist.Normal(x[:, 0], scale)), inputs[0], num_draws=3)
    scale.fill_(5.0)
    assert (found.targets["a"].law.parameters["scale"] == 2).all()


def test_labels_of_double_precision_stay_so(inputs):
    label = torch.full((ROWS,), 1e-9, dtype=torch.float64)
    model, guide = one_target(lambda x: dist.Normal(0.0, 1.0))
    found = draw(model, guide, inputs[0], {"a": label})
    assert found.targets["a"].log_likelihood.dtype == np.float64


# ---- Inputs of each task ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 4, 1])
def test_tasks_with_inputs_of_their_own(bayesian, batch_size):
    model, guide = bayesian
    x = PerTask({"a": torch.randn(11, 3, generator=seeded()), "c": torch.randn(3, 3, generator=seeded(1))})
    y = {"a": torch.randn(11, generator=seeded(2)), "c": torch.tensor([0, 1, 2])}
    found = draw(model, guide, x, y, num_draws=4, batch_size=batch_size)
    for name, rows in (("a", 11), ("c", 3)):
        alone = draw(model, guide, x[name], num_draws=4)
        assert found.targets[name].draws.shape == (4, rows)
        assert found.targets[name].log_likelihood.shape == (4, rows)
        field = "mean" if name == "a" else "probability"
        np.testing.assert_allclose(getattr(found.targets[name], field), getattr(alone.targets[name], field), atol=1e-5)


# ---- Users' own programs ---------------------------------------------------------------------------------------------


class Regressions(nn.Module):
    """The README's model."""

    def __init__(self, tasks, n_data):
        super().__init__()
        self.tasks, self.n_data = tasks, n_data
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(4, 1) for _ in tasks])

    def forward(self, x, y=None):
        h = bmtl.shared(self.trunk(x))
        for name, head in zip(self.tasks, self.heads, strict=True):
            with bmtl.task(name):
                noise = pyro.sample(f"noise_{name}", dist.LogNormal(-1.0, 1.0))
                with pyro.plate(f"{name}_rows", self.n_data, subsample=h):
                    f = pyro.deterministic(f"y_hat_{name}", head(h).squeeze(-1))  # its name starts like a target's
                    bmtl.observe(f"y_{name}", dist.Normal(f, noise), y and y[name])


@pytest.mark.parametrize("family", [AutoNormal, AutoMultivariateNormal])
def test_a_users_own_model_under_an_autoguide(inputs, family, caplog):
    x, y = inputs
    labels = {"a": y["a"], "b": 2 * y["a"]}
    torch.manual_seed(0)
    model = Regressions(("a", "b"), ROWS)
    guide = family(model)
    svi = bmtl.BalancedSVI(model, guide, functools.partial(torch.optim.Adam, lr=1e-2))
    svi.step(x, labels)
    found = draw(model, guide, x, labels, num_draws=30)
    assert list(found.posterior) == ["noise_a", "noise_b"]  # and not the guide's own joint or unconstrained sites
    assert list(found.targets) == ["a", "b"]
    with torch.no_grad():
        f = model.heads[1](model.trunk(x)).squeeze(-1).numpy()
    expected = stats.norm(f, found.posterior["noise_b"][:, None]).logpdf(labels["b"])
    np.testing.assert_allclose(found.targets["b"].log_likelihood, expected, rtol=1e-4, atol=1e-4)


def test_plain_functions_with_pyro_param():
    def model(x, y=None):
        slope = pyro.param("slope", torch.tensor(2.0))
        with bmtl.task("a"), pyro.plate("rows", len(x)):
            bmtl.observe("y_a", dist.Normal(slope * x, 0.5), None if y is None else y["a"])

    pyro.clear_param_store()
    x = torch.arange(4.0)
    found = draw(model, lambda x: None, x, {"a": 2 * x}, num_draws=2)
    np.testing.assert_allclose(found.targets["a"].mean, 2 * x)
    np.testing.assert_allclose(found.targets["a"].pit, 0.5)
    pyro.clear_param_store()


# ---- What does not fit -----------------------------------------------------------------------------------------------


def test_a_target_that_the_model_does_not_predict_is_told(inputs):
    with pytest.raises(ValueError, match=r"predicts \['a'\], and labels were given for \['b'\]"):
        draw(*one_target(lambda x: dist.Normal(0.0, 1.0)), inputs[0], {"b": torch.zeros(ROWS)})
    with pytest.raises(ValueError, match=r"predicts nothing, and labels were given for \['a'\]"):
        draw(*one_target(lambda x: dist.Normal(0.0, 1.0), name="obs_a"), inputs[0], {"a": torch.zeros(ROWS)})


@pytest.mark.parametrize(
    ("family", "labels", "error", "message"),
    [
        (
            dist.Normal(0.0, 1.0),
            torch.zeros(ROWS, 1),
            ValueError,
            r"Target 'a' \(site 'y_a'\): labels of shape .*, 1\) .* where the model predicts",
        ),
        (dist.Normal(0.0, 1.0), torch.zeros(5), ValueError, "where the model predicts"),
        (dist.Normal(0.0, 1.0), torch.zeros(1), ValueError, "where the model predicts"),
        (
            dist.Normal(0.0, 1.0),
            torch.zeros(15),
            ValueError,
            "15 labels were given for the target 'a', and the model predicts 12 rows",
        ),
        (dist.Normal(0.0, 1.0), torch.zeros(ROWS).long(), TypeError, "continuous distribution"),
        (dist.Categorical(torch.ones(3)), torch.zeros(ROWS), TypeError, "categorical"),
        (dist.Categorical(torch.ones(3)), torch.full((ROWS,), 3), ValueError, r"Target 'a' \(site 'y_a'\): "),
        (dist.LogNormal(0.0, 1.0), -torch.ones(ROWS), ValueError, r"Target 'a' \(site 'y_a'\): "),
    ],
)
@pytest.mark.parametrize("batch_size", [None, 5])
def test_labels_that_do_not_fit_are_told(inputs, family, labels, error, message, batch_size):
    with pytest.raises(error, match=message):
        draw(*one_target(lambda x: family), inputs[0], {"a": labels}, batch_size=batch_size)


def test_a_program_that_predicts_nothing_is_told(inputs):
    model, guide = one_target(lambda x: dist.Normal(0.0, 1.0))
    with pytest.raises(
        ValueError, match=r"predicts nothing. Called with inputs alone, the model must sample a site y_<target>"
    ):
        draw(guide, model, inputs[0])  # the two swapped


def test_an_autoguide_that_has_seen_no_batch_is_told_and_left_as_it_was(inputs):
    """Without labels it would take the targets for latents, and stay so."""
    model = Regressions(("a",), ROWS)
    guide = AutoNormal(model)
    with pytest.raises(ValueError, match="has not seen a batch yet"):
        draw(model, guide, inputs[0])
    assert guide.prototype_trace is None


def test_inputs_that_are_no_tensors_are_told(inputs):
    with pytest.raises(TypeError, match="registered with bmtl.inputs.count, take and to; ndarray was given"):
        draw(*one_target(lambda x: dist.Normal(0.0, 1.0)), inputs[0].numpy())


def test_inputs_without_rows_and_numbers_below_one_are_told(inputs):
    program = one_target(lambda x: dist.Normal(0.0, 1.0))
    for empty in (inputs[0][:0], {"drug": inputs[0][:0]}, PerTask({"a": inputs[0], "b": inputs[0][:0]})):
        with pytest.raises(ValueError, match="The inputs have no row"):
            draw(*program, empty)
    for size in (0, -1):
        with pytest.raises(ValueError, match="batch_size is a number of rows, from 1"):
            draw(*program, inputs[0], batch_size=size)


def test_a_program_that_predicts_one_number_for_all_rows_is_told(inputs):
    def model(x):
        with bmtl.task("a"):
            pyro.sample("y_a", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match=r"Target 'a' \(site 'y_a'\): the model predicts one number, and one a row .* subsample="
    ):
        draw(model, lambda x: None, inputs[0])
