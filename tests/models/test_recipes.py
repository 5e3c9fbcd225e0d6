"""Recipes of published methods: what they take, and what each makes of every family of targets."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

import bmtl
from bmtl.inputs import PerTask
from bmtl.models import MCDropout, mlp, recipes
from bmtl.models.networks import mlp_trunk
from bmtl.models.spec import DataSpec
from bmtl.targets import Binary, Classes, Count, Ordinal, Real, TimeToEvent, Vector
from tests.models.programs import seeded

ROWS = 24
FAMILIES = {
    "price": Real(),
    "limit": Real(censored=True),
    "kind": Classes(("x", "y", "z")),
    "churn": Binary(),
    "grade": Ordinal(("low", "middle", "high")),
    "visits": Count(),
    "days": TimeToEvent(),
    "forces": Vector(("u", "v")),
}


def labels():
    g = seeded(1)
    normal = torch.randn(ROWS, generator=g)
    ends = torch.stack([normal, normal], -1)
    ends[::3, 1] = math.inf
    y = {
        "price": torch.randn(ROWS, generator=g),
        "limit": ends,
        "kind": torch.randint(0, 3, (ROWS,), generator=g),
        "churn": torch.randint(0, 2, (ROWS,), generator=g),
        "grade": torch.randint(0, 3, (ROWS,), generator=g),
        "visits": torch.poisson(torch.full((ROWS,), 30.0), generator=g),
        "days": ends.exp(),
        "forces": torch.randn(ROWS, 2, generator=g),
    }
    for values in y.values():
        values[:3] = math.nan if values.is_floating_point() else -1
    return y


def inputs():
    return torch.randn(ROWS, 3, generator=seeded())


def spec(targets=FAMILIES, support=False, **options):
    y = {name: labels()[name] for name in targets}
    families = {name: FAMILIES[name] for name in targets}
    given = {"support": (inputs(), y)} if support else {}
    return DataSpec(families, ROWS, {"kind": "table", "width": 3}, labels=y, **given, **options)


def build(name, of=None, **options):
    g = seeded()
    trunk = functools.partial(mlp_trunk, {"kind": "table", "width": 3}, widths=(6,), generator=g)
    return getattr(recipes, name)(of or spec(), trunk=trunk, generator=g, **options)


ALL_FAMILIES = [
    ("homoscedastic", {}),
    ("homoscedastic", {"noise": "fixed"}),
    ("homoscedastic", {"noise": "latent", "head": "bayesian"}),
    ("homoscedastic", {"noise": "fixed", "dropout": 0.1}),
    ("homoscedastic", {"likelihood": {"visits": "negative-binomial", "price": "student-t"}}),
    ("gaussian", {}),
    ("evidential", {"objective": "nll"}),
    ("evidential", {}),
    ("bakker_heskes", {}),
    ("bottleneck", {"beta": 0.01}),
]


@pytest.mark.parametrize(("name", "options"), ALL_FAMILIES)
def test_a_recipe_takes_targets_of_every_family(name, options):
    model, guide = build(name, **options)
    x, y = inputs(), labels()
    optim = functools.partial(torch.optim.Adam, lr=1e-2)
    svi = bmtl.BalancedSVI(model, guide, optim, elbo=bmtl.TaskELBO("analytic", normalize="task_mean"))
    for _ in range(2):
        record = svi.step(x, y)
    assert record.losses.isfinite().all()
    drawn = bmtl.draw(model, guide, x, y, num_draws=3)
    assert list(drawn.targets) == list(FAMILIES)
    for target, prediction in drawn.targets.items():
        assert prediction.draws.shape[1] == ROWS
        assert np.isfinite(prediction.log_likelihood[:, 3:]).all(), target
    visits = drawn.targets["visits"].mean.mean()
    assert 10 < visits < 90, "training starts at the counts' own level"


def test_the_likelihoods_are_the_families_own_unless_another_is_asked_for():
    def names(**options):
        return {target: of.name for target, of in build(**options)[0].likelihoods.items()}

    defaults = names(name="homoscedastic")
    assert defaults == {
        "price": "gaussian",
        "limit": "gaussian",
        "kind": "categorical",
        "churn": "categorical",
        "grade": "ordinal",
        "visits": "poisson",
        "days": "weibull",
        "forces": "joint-normal",
    }
    real = {"price", "limit"}
    assert names(name="gaussian") == {t: "heteroscedastic" if t in real else n for t, n in defaults.items()}
    assert names(name="evidential") == {t: "evidential" if t in real else n for t, n in defaults.items()}
    found = names(name="homoscedastic", likelihood="log-normal, bernoulli")
    assert found == defaults | {"days": "log-normal", "churn": "bernoulli"}
    assert names(name="homoscedastic", likelihood=["kendall"]) == defaults | {"kind": "kendall", "churn": "kendall"}
    assert names(name="evidential", likelihood={"price": "laplace"}) == names(name="evidential") | {"price": "laplace"}


def test_deterministic_programs_say_what_is_left_to_fit_and_fit_it():
    """Trained at unit scale; afterwards noises, dispersions and shapes are those of other rows."""
    x, y = inputs(), labels()
    for options in ({}, {"dropout": 0.1}):
        model, guide = build("homoscedastic", noise="fixed", likelihood={"visits": "negative-binomial"}, **options)
        assert model.noise_from_validation
        fixed = {name: of for name, of in model.likelihoods.items() if of.needs_calibration}
        assert set(fixed) == {"price", "limit", "visits", "days", "forces"}
        before = {name: {k: v.clone() for k, v in of._current().items()} for name, of in fixed.items()}
        state = torch.get_rng_state()
        model.calibrate(guide, x, y, num_draws=3)
        assert torch.equal(state, torch.get_rng_state())
        assert model.training
        for name, values in before.items():
            after = fixed[name]._current()
            assert any(not torch.equal(value, after[k]) for k, value in values.items()), name
    assert not build("homoscedastic")[0].noise_from_validation
    assert not build("evidential")[0].noise_from_validation


def test_calibrated_noise_is_that_of_the_mean_prediction_under_dropout():
    of = spec(("price",))
    model, guide = build("homoscedastic", of, noise="fixed", dropout=0.3)
    x, y = inputs(), {"price": labels()["price"]}
    model.calibrate(guide, x, y, num_draws=200, seed=3)
    mean = bmtl.draw(model, guide, x, num_draws=2000).targets["price"].mean
    residual = y["price"].numpy() - mean
    p = model.likelihoods["price"].distribution(torch.zeros(1, 1), model.likelihoods["price"].sample("price"))
    assert p.scale.item() == pytest.approx(math.sqrt(np.nanmean(residual**2)), rel=0.05)


def test_tasks_are_targets_or_their_objectives():
    assert build("evidential", spec(("price", "visits")))[0].tasks == ("price/nll", "price/mse", "visits")
    assert build("evidential", spec(("price", "visits")), objective="nll")[0].tasks == ("price", "visits")


def test_dropout_asks_the_trunk_for_it():
    model, _ = build("homoscedastic", spec(("price",)), dropout=0.2)
    assert isinstance(model.representation, MCDropout)
    assert "dropout_0" in str(model)


@pytest.mark.parametrize("targets", [("price",), ("visits",), ("kind", "churn"), ("grade",)])
def test_vmtl_takes_targets_of_one_kind(targets):
    names = [f"{name}.{i}" for name in targets for i in range(2)] if len(targets) == 1 else list(targets)
    families = {n: FAMILIES[n.partition(".")[0]] for n in names}
    y = {n: labels()[n.partition(".")[0]] for n in names}
    of = DataSpec(families, ROWS, {"kind": "table", "width": 3}, support=(inputs(), y), labels=y)
    if len(set(map(type, families.values()))) > 1:
        with pytest.raises(ValueError, match="one likelihood and as many outputs each"):
            build("vmtl", of)
        return
    model, guide = build("vmtl", of)
    assert recipes.vmtl.requires_support
    assert recipes.vmtl.keeps_support
    assert recipes.vmtl.own_rows
    assert not model.joint_density
    svi = bmtl.BalancedSVI(model, guide, functools.partial(torch.optim.Adam, lr=1e-2), elbo=bmtl.TaskELBO("analytic"))
    for _ in range(2):
        assert svi.step(inputs(), y).losses.isfinite().all()
    drawn = bmtl.draw(model, guide, inputs(), num_draws=4)
    assert list(drawn.targets) == names
    if targets == ("visits",):
        assert 10 < drawn.targets[names[0]].mean.mean() < 90
    extras = model.tree_extras(drawn.posterior)
    assert set(extras) == {"relatedness_w", "relatedness_z"}
    for extra in extras.values():
        assert extra.values.shape == (4, 2, 3)
        assert extra.dims == ("task", "source")
        assert extra.coords == {"task": tuple(names), "source": (*names, "anchor")}
        np.testing.assert_allclose(extra.values.sum(-1), 1, rtol=1e-5)


def test_vmtls_presets_that_are_no_priors_of_each_other_say_so():
    of = spec(("price",), support=True)
    model, _ = build("vmtl", of, preset="VBMTL")
    assert model.joint_density
    assert model.tree_extras({}) == {}
    with pytest.raises(ValueError, match="go without kl_weights and as_released"):
        build("vmtl", of, preset="VBMTL", as_released=True, kl_w=0.1)


def test_correlated_heads_name_their_dimensions():
    families = {"a": Real(), "b": Real()}
    y = {"a": torch.randn(ROWS), "b": torch.randn(ROWS)}
    model, guide = build("multilinear", DataSpec(families, ROWS, {"kind": "table", "width": 3}, labels=y))
    drawn = bmtl.draw(model, guide, inputs(), num_draws=4)
    extra = model.tree_extras(drawn.posterior)["task_correlation"]
    assert extra.values.shape == (4, 2, 2)
    assert extra.dims == ("task", "task_bis")
    assert extra.coords == {"task": ("a", "b"), "task_bis": ("a", "b")}
    assert build("homoscedastic")[0].tree_extras({}) == {}


def test_targets_with_rows_of_their_own():
    y = {"price": labels()["price"], "visits": labels()["visits"][:9]}
    of = DataSpec({n: FAMILIES[n] for n in y}, {"price": ROWS, "visits": 9}, {"kind": "table", "width": 3}, labels=y)
    model, guide = build("homoscedastic", of)
    x = PerTask({"price": inputs(), "visits": inputs()[:9]})
    assert bmtl.TaskELBO().task_losses(model, guide, x, y).counts.tolist() == [21, 6]


class Sum(nn.Module):
    """A trunk of a structure of inputs."""

    width = 6

    def __init__(self, generator):
        super().__init__()
        self.drug, self.protein = (mlp(3, (6,), generator=generator) for _ in range(2))

    def forward(self, x):
        return self.drug(x["drug"]) + self.protein(x["protein"])


@pytest.mark.parametrize("name", ["homoscedastic", "evidential", "bakker_heskes", "bottleneck"])
def test_a_row_may_have_several_inputs(name):
    """A dict of named inputs reaches the trunk as it is, and is drawn in chunks."""
    g = seeded()
    of = spec(("price", "limit"))
    model, guide = getattr(recipes, name)(of, trunk=functools.partial(Sum, g), generator=g)
    x = {"drug": inputs(), "protein": inputs() + 1}
    y = {target: labels()[target] for target in of.targets}
    svi = bmtl.BalancedSVI(model, guide, functools.partial(torch.optim.Adam, lr=1e-2), elbo=bmtl.TaskELBO("analytic"))
    assert svi.step(x, y).losses.isfinite().all()
    drawn = bmtl.draw(model, guide, x, y, num_draws=2, batch_size=7)
    assert drawn.targets["price"].draws.shape == (2, ROWS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("homoscedastic", {"head": "mean-field"}, "head is one of 'linear', 'bayesian', 'conv', and 'mean-field'"),
        ("homoscedastic", {"likelihood": "guassian"}, "There is no likelihood 'guassian'"),
        ("homoscedastic", {"likelihood": "gaussian,laplace"}, "'laplace' and another serve"),
        ("homoscedastic", {"likelihood": {"prize": "laplace"}}, r"likelihood names \['prize'\]"),
        ("homoscedastic", {"likelihood": {"visits": "categorical"}}, "'categorical' is for targets of classes, binary"),
        ("homoscedastic", {"noise": "learnt"}, "noise is one of"),
        ("evidential", {"bounds": {"prize": (0.0, None)}}, r"bounds names \['prize'\]"),
        ("multilinear", {}, "one likelihood and as many outputs"),
    ],
)
def test_a_wrong_option_is_told(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_a_recipe_for_real_targets_needs_one():
    for name in ("gaussian", "evidential"):
        with pytest.raises(ValueError, match="is for real targets, and the data have none: {'kind': 'classes'}"):
            build(name, spec(("kind",)))
    with pytest.raises(ValueError, match="'poisson' serves none of the targets"):
        build("homoscedastic", spec(("kind",)), likelihood="poisson")
