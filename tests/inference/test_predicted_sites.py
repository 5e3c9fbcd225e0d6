"""Which targets a program's sites predict: sites of a task plate are each task's target, as if they were written apart."""

import functools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from scipy import stats

import bmtl
from bmtl import distributions
from bmtl.inference.draws import draw
from bmtl.inference.simulation import simulated_ranks
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import JointNormal

TASKS, ROWS, D = ("left", "right", "both"), 7, 2
X = torch.linspace(-1, 2, ROWS, dtype=torch.float64)
SLOPES = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)

FAMILIES = {
    "normal": lambda f: dist.Normal(f, 0.4),
    "heteroscedastic": lambda f: dist.Normal(f, f.exp()),
    "evidential": lambda f: distributions.NormalInverseGamma(f, f.exp(), 2.0, 1.0),
    "poisson": lambda f: dist.Poisson(f.exp()),
    "two classes": lambda f: dist.Bernoulli(logits=f),
    "classes": lambda f: dist.Categorical(logits=torch.stack([f, -f, 0 * f], -1)),
    "vector": lambda f: dist.MultivariateNormal(torch.stack([f, -f], -1), COVARIANCE),
    "independent": lambda f: dist.Normal(torch.stack([f, -f], -1), 0.4).to_event(1),
    "times": lambda f: distributions.Weibull(f, torch.tensor(0.5, dtype=f.dtype)),
    "masked": lambda f: dist.Normal(f, 0.4).mask(f > 0),
}


def labels_for(family):
    """Each task's labels, the second task's partly missing."""
    y = {}
    for k, task in enumerate(TASKS):
        values = FAMILIES[family](SLOPES[k] * X + 0.1)
        torch.manual_seed(k)
        y[task] = values.sample()
        if family == "times":
            y[task] = torch.stack([y[task], y[task] + (torch.arange(ROWS) % 2)], -1)
    gaps = torch.arange(ROWS) == 3
    missing = math.nan if y["right"].is_floating_point() else -1
    y["right"][gaps] = missing
    return y


def latent():
    return pyro.sample("w", dist.Normal(torch.zeros((), dtype=X.dtype), 0.2))


def guide(x):
    pyro.sample("w", dist.Normal(torch.full((), 0.1, dtype=X.dtype), 0.2))


def stacked(family, dim=-2, name="y"):
    """All tasks' rows at one site, the task plate left or right of the rows."""

    def model(x, y=None):
        f = SLOPES[:, None] * x + latent()
        with pyro.plate("rows", 40, subsample=x, dim=-3 - dim), bmtl.task_plate(TASKS, dim=dim):
            pyro.sample(name, FAMILIES[family](f if dim == -2 else f.T))

    return model


def apart(family):
    """The same, a site for each task."""

    def model(x, y=None):
        w = latent()
        with pyro.plate("rows", 40, subsample=x):
            for k, task in enumerate(TASKS):
                with bmtl.task(task):
                    bmtl.observe(f"y_{task}", FAMILIES[family](SLOPES[k] * x + w), None)

    return model


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("dim", [-2, -1])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_plate_is_split_into_each_tasks_target(family, dim, batch_size):
    y = labels_for(family)
    if family == "masked":
        y = {task: values.nan_to_num(0.0) for task, values in y.items()}
    found = draw(stacked(family, dim), guide, X, y, num_draws=5, batch_size=batch_size)
    expected = draw(apart(family), guide, X, y, num_draws=5)
    assert list(found.targets) == list(TASKS)
    for task, prediction in found.targets.items():
        other = expected.targets[task]
        assert prediction.draws.shape == other.draws.shape
        for field in ("mean", "probability", "aleatoric", "epistemic", "log_likelihood", "pit"):
            ours, theirs = getattr(prediction, field), getattr(other, field)
            assert (ours is None) == (theirs is None), field
            if ours is not None:
                np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)
        assert (prediction.law is None) == (other.law is None)
        if prediction.law is not None:
            assert prediction.law.name == other.law.name
            for name, values in prediction.law.full().parameters.items():
                np.testing.assert_allclose(values, other.law.full().parameters[name], rtol=1e-6)
    np.testing.assert_allclose(found.log_p, expected.log_p, rtol=1e-6)
    np.testing.assert_array_equal(found.posterior["w"], expected.posterior["w"])


def test_draws_of_a_task_plate_are_each_tasks_own():
    """Not another task's: their means are apart by more than any noise of 200 draws."""
    found = draw(stacked("normal"), guide, X, num_draws=200)
    for task, slope in zip(TASKS, SLOPES.numpy(), strict=True):
        np.testing.assert_allclose(found.targets[task].draws.mean(0), slope * X.numpy() + 0.1, atol=5 * 0.45 / 200**0.5)


def test_a_task_without_labels_has_no_densities():
    y = labels_for("normal")
    del y["left"]
    found = draw(stacked("normal"), guide, X, y, num_draws=3)
    assert found.targets["left"].log_likelihood is found.targets["left"].pit is None
    assert found.targets["right"].log_likelihood.shape == (3, ROWS)
    full = draw(apart("normal"), guide, X, y, num_draws=3)
    np.testing.assert_allclose(found.log_p, full.log_p, rtol=1e-6)


def test_without_latents_all_draws_come_from_one_pass():
    def model(x, y=None):
        with bmtl.task_plate(TASKS, dim=-2), pyro.plate("rows", ROWS):
            pyro.sample("y", dist.Normal(SLOPES[:, None] * x, 0.1))

    found = draw(model, lambda x: None, X, labels_for("normal"), num_draws=400)
    assert found.targets["both"].draws.shape == (400, ROWS)
    assert found.targets["both"].log_likelihood.shape == (1, ROWS)
    np.testing.assert_allclose(found.targets["both"].draws.mean(0), 2 * X, atol=5 * 0.1 / 20)


# ---- Names -----------------------------------------------------------------------------------------------------------


def targets_of(program):
    def model(x, y=None):
        program(x)

    return list(draw(model, lambda x: None, X, num_draws=2).targets)


def rows_of(name):
    with pyro.plate(f"{name}_rows", ROWS):
        pyro.sample(name, dist.Normal(X, 1.0))


def test_sites_are_named_after_their_targets_or_tasks():
    def marked(x):
        with bmtl.task("depth"):
            rows_of("y")
        with bmtl.task("normal"):
            rows_of("y_other")

    def plain_plate(x):
        with pyro.plate("task", 2, dim=-2), pyro.plate("rows", ROWS):
            pyro.sample("y", dist.Normal(X, 1.0))

    def looped(x):
        for k in bmtl.task_plate(["a", "b"]):
            rows_of(f"y_{'ab'[k]}")

    def one_task(x):
        with bmtl.task_plate(["only"], dim=-2), pyro.plate("rows", ROWS):
            pyro.sample("y", dist.Normal(X, 1.0))

    assert targets_of(lambda x: rows_of("y")) == ["y"]
    assert targets_of(marked) == ["depth", "other"]
    assert targets_of(plain_plate) == ["0", "1"]
    assert targets_of(looped) == ["a", "b"]
    assert targets_of(one_task) == ["only"]
    assert list(draw(stacked("normal", name="y_height"), guide, X, num_draws=2).targets) == [
        f"height_{task}" for task in TASKS
    ]


def test_two_sites_of_one_target_are_refused():
    def model(x, y=None):
        with bmtl.task("a"):
            rows_of("y")
        rows_of("y_a")

    with pytest.raises(ValueError, match="'y' and 'y_a' both predict the target 'a'. Give them names of their own"):
        draw(model, lambda x: None, X, num_draws=1)


def test_labels_of_one_plate_have_one_shape():
    y = labels_for("normal")
    y["both"] = y["both"][:4]
    with pytest.raises(ValueError, match=r"'left', 'right', 'both' \(site 'y'\): the tasks of one site .* Pad"):
        draw(stacked("normal"), guide, X, y, num_draws=1)


def test_a_task_plate_without_rows_is_refused():
    def model(x, y=None):
        with bmtl.task_plate(TASKS):
            pyro.sample("y", dist.Normal(SLOPES, 1.0))

    with pytest.raises(ValueError, match="the model predicts one number, and one a row is expected"):
        draw(model, lambda x: None, X, num_draws=1)


# ---- A program of one's own ------------------------------------------------------------------------------------------


def test_a_stacked_program_trains_and_predicts():
    """Hierarchical slopes in a task plate, an AutoGuide, labels in one tensor in training, and the truth afterwards."""
    generator = torch.Generator().manual_seed(0)
    slopes = torch.tensor([1.0, 2.0, -0.5])
    x = torch.randn(60, generator=generator)
    y = slopes[:, None] * x + 0.1 * torch.randn(3, 60, generator=generator)
    y[1, ::2] = math.nan

    def model(x, y=None):
        with bmtl.task_plate(TASKS, dim=-2):
            slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", 60, subsample=x, dim=-1):
                bmtl.observe("y", dist.Normal(slope * x, 0.1), y)

    model_guide = AutoNormal(model)
    svi = bmtl.BalancedSVI(model, model_guide, functools.partial(torch.optim.Adam, lr=0.05))
    torch.manual_seed(0)
    for _ in range(300):
        svi.step(x, y)
    found = draw(model, model_guide, x, dict(zip(TASKS, y, strict=True)), num_draws=50)
    assert list(found.targets) == list(TASKS) == list(svi.names)
    for k, task in enumerate(TASKS):
        np.testing.assert_allclose(found.targets[task].mean, slopes[k] * x, atol=0.1)
        assert (np.isnan(found.targets[task].log_likelihood[0]) == y[k].isnan().numpy()).all()


def test_a_stacked_program_is_simulated():
    def fit(seed, x, y):
        assert {name: len(values) for name, values in y.items()} == dict.fromkeys(TASKS, ROWS)
        return guide

    found = simulated_ranks(stacked("normal"), fit, X, datasets=3, num_draws=9)
    assert list(found.truth) == ["w"]


# ---- What a prediction is asked --------------------------------------------------------------------------------------


def test_a_model_that_needs_labels_is_told_how_to_predict():
    def model(x, y):
        pass

    with pytest.raises(
        TypeError, match=r"called with inputs alone to predict, and its arguments are \(x, y\). Give labels"
    ):
        draw(model, lambda x: None, X)

    class Two(torch.nn.Module):
        def forward(self, drug, protein):
            pass

    with pytest.raises(TypeError, match=r"\(drug, protein\).*several inputs are one argument, a dict or a NamedTuple"):
        draw(Two(), lambda x: None, X)


def test_an_error_of_the_model_says_what_was_asked():
    def model(x, y=None):
        pyro.sample("y_a", dist.Normal(x, 1.0), obs=y["a"])

    with pytest.raises(TypeError, match="not subscriptable") as error:
        draw(model, lambda x: None, X)
    assert "labels are None then, and bmtl.observe(name, fn, None)" in error.value.__notes__[0]


# ---- Joint sites -----------------------------------------------------------------------------------------------------

JOINT = {
    "normal": lambda f: dist.MultivariateNormal(torch.stack([f, 2 - f], -1), COVARIANCE),
    "with marginals": lambda f: distributions.MultivariateNormal(torch.stack([f, 2 - f], -1), COVARIANCE),
    "independent": lambda f: dist.Normal(torch.stack([f, 2 - f], -1), COVARIANCE.diagonal().sqrt()).to_event(1),
    "masked": lambda f: dist.MultivariateNormal(torch.stack([f, 2 - f], -1), COVARIANCE).mask(f > 0),
}


def joint(family):
    def model(x, y=None):
        w = latent()
        with bmtl.task("a+b"), pyro.plate("rows", 40, subsample=x):
            pyro.sample("y_a+b", JOINT[family](x + w), infer={"components": ("a", "b")})

    return model


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("family", JOINT)
def test_components_of_a_joint_site_are_targets_with_their_marginals(family, batch_size):
    """Each component's density, cdf and law are its own; the density of all labels is the joint one."""
    y = {"a": torch.linspace(-1, 1, ROWS, dtype=X.dtype), "b": torch.linspace(2, 0, ROWS, dtype=X.dtype)}
    found = draw(joint(family), guide, X, y, num_draws=4, batch_size=batch_size)
    assert list(found.targets) == ["a", "b"]
    w = found.posterior["w"][:, None]
    x = X.numpy()
    seen = x[None] + w > 0 if family == "masked" else np.ones((4, ROWS), dtype=bool)
    total = stats.norm(0, 0.2).logpdf(found.posterior["w"])
    covariance = COVARIANCE.numpy() * (1 if family != "independent" else np.eye(2))
    values = np.stack([y["a"].numpy(), y["b"].numpy()], -1)
    for s in range(4):
        means = np.stack([x + w[s], 2 - x - w[s]], -1)
        density = np.array(
            [stats.multivariate_normal(m, covariance).logpdf(v) for m, v in zip(means, values, strict=True)]
        )
        total[s] += density[seen[s]].sum()
    np.testing.assert_allclose(found.log_p, total, rtol=1e-6)
    for i, (target, mean) in enumerate((("a", x + w), ("b", 2 - x - w))):
        got = found.targets[target]
        oracle = stats.norm(mean, covariance[i, i] ** 0.5)
        np.testing.assert_allclose(got.mean, mean.mean(0))
        np.testing.assert_allclose(got.aleatoric, covariance[i, i])
        np.testing.assert_allclose(got.epistemic, mean.var(0), atol=1e-12)
        np.testing.assert_allclose(got.log_likelihood, np.where(seen, oracle.logpdf(values[:, i]), np.nan), rtol=1e-6)
        assert got.law.name == "student-t"
        np.testing.assert_allclose(got.law.full().parameters["loc"], mean)
        if family != "masked":
            np.testing.assert_allclose(got.pit, oracle.cdf(values[:, i]).mean(0))


def test_draws_of_a_joint_site_are_of_all_components_together():
    """Their correlation is that of the noise, within four standard errors of 4,000 draws."""

    def model(x, y=None):
        with bmtl.task("a+b"), pyro.plate("rows", 2):
            pyro.sample("y", JOINT["normal"](x), infer={"components": ["a", "b"]})

    found = draw(model, lambda x: None, X[:2], num_draws=4000).targets
    for row in range(2):
        got = np.corrcoef(found["a"].draws[:, row], found["b"].draws[:, row])[0, 1]
        assert abs(got - 0.3 / 0.5**0.5) < 4 / 4000**0.5


def test_a_row_with_some_labels_counts_with_what_is_there():
    y = {"a": torch.zeros(ROWS, dtype=X.dtype), "b": torch.ones(ROWS, dtype=X.dtype)}
    y["a"][2], y["b"][4] = math.nan, math.nan
    found = draw(joint("with marginals"), guide, X, y, num_draws=3)
    assert np.isnan(found.targets["a"].log_likelihood).all(0).nonzero()[0].tolist() == [2]
    assert np.isnan(found.targets["b"].log_likelihood).all(0).nonzero()[0].tolist() == [4]
    only = draw(joint("with marginals"), guide, X, {"b": y["b"]}, num_draws=3)
    prior = stats.norm(0, 0.2).logpdf(only.posterior["w"])
    np.testing.assert_allclose(only.log_p, prior + np.nansum(only.targets["b"].log_likelihood, axis=1), rtol=1e-6)
    assert only.targets["a"].log_likelihood is None


def test_components_without_a_marginal_keep_their_moments_and_draws():
    def model(x, y=None):
        with pyro.plate("rows", ROWS):
            fn = dist.Dirichlet(torch.stack([x.exp(), 1 + 0 * x], -1))
            pyro.sample("y_parts", fn, infer={"components": ("a", "b")})

    found = draw(model, lambda x: None, X, num_draws=5)
    fn = dist.Dirichlet(torch.stack([X.exp(), 1 + 0 * X], -1))
    for i, target in enumerate("ab"):
        np.testing.assert_allclose(found.targets[target].mean, fn.mean[:, i])
        np.testing.assert_allclose(found.targets[target].aleatoric, fn.variance[:, i])
    np.testing.assert_allclose(found.targets["a"].draws + found.targets["b"].draws, 1.0)


def test_components_that_do_not_fit_their_vectors_are_refused():
    def model(x, y=None):
        with pyro.plate("rows", ROWS):
            pyro.sample("y_parts", JOINT["normal"](x), infer={"components": ("a", "b", "c")})

    with pytest.raises(
        ValueError, match=r"names the components \('a', 'b', 'c'\), and its values have the shape \(2,\)"
    ):
        draw(model, lambda x: None, X)


def test_a_joint_site_is_simulated_by_component():
    def fit(seed, x, y):
        assert {name: tuple(values.shape) for name, values in y.items()} == {"a": (ROWS,), "b": (ROWS,)}
        return guide

    simulated_ranks(joint("normal"), fit, X, datasets=1, num_draws=5)


def test_the_joint_likelihood_of_a_task_model_predicts_its_components():
    """Without latents: each row's joint density, and marginals, at the model's own parameters."""
    likelihood = JointNormal(2, components=("a", "b"))
    with torch.no_grad():
        likelihood.unknowns["log_variance"].scaled.copy_(torch.tensor([0.1, -0.1]))
    model = TaskModel(mlp(1, (4,)), 4, {"a+b": likelihood}, ROWS).double()
    y = {"a": torch.linspace(-1, 1, ROWS, dtype=X.dtype), "b": torch.ones(ROWS, dtype=X.dtype)}
    y["b"][3] = math.nan
    found = draw(model, model.guide(), X[:, None], y, num_draws=6)
    assert list(found.targets) == ["a", "b"]
    site = pyro.poutine.trace(model).get_trace(X[:, None]).nodes["y_a+b"]["fn"]
    for i, target in enumerate("ab"):
        oracle = stats.norm(site.loc[:, i].detach(), site.variance[:, i].detach().sqrt())
        np.testing.assert_allclose(found.targets[target].log_likelihood[0], oracle.logpdf(y[target]), rtol=1e-6)
        assert found.targets[target].draws.shape == (6, ROWS)
