import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV

import bmtl
from bmtl.models import recipes
from bmtl.models.likelihoods import Bernoulli, Categorical, Evidential, Gaussian, Heteroscedastic, Poisson
from bmtl.models.linear_fits import PENALTIES, logistic, ridge
from bmtl.models.linear_part import LinearPart
from bmtl.models.networks import Tabular
from bmtl.models.rows import Rows
from bmtl.models.spec import DataSpec
from bmtl.targets import Real

RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(60, 4))
Y = X @ [1.0, -2.0, 0.0, 0.5] + 3 + 0.7 * RANDOM.normal(size=60)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("columns", [4, 90])
def test_ridge_is_scikit_learns(columns):
    x = np.random.default_rng(2).normal(size=(60, columns))
    found, errors = ridge(x, Y)
    theirs = RidgeCV(PENALTIES, store_cv_results=True).fit(x, Y)
    np.testing.assert_allclose(found, np.append(theirs.coef_, theirs.intercept_), rtol=1e-6, atol=1e-8)
    best = list(PENALTIES).index(theirs.alpha_)
    np.testing.assert_allclose(errors**2, theirs.cv_results_[:, best], rtol=1e-6)


def test_ridge_of_columns_that_depend_on_each_other_and_of_labels_that_a_line_meets():
    x = np.column_stack([X, X[:, 0], np.ones(60)])
    found, errors = ridge(x, X[:, 0] + 1)
    np.testing.assert_allclose(x @ found[:-1] + found[-1], X[:, 0] + 1, atol=1e-6)
    assert np.abs(errors).max() < 1e-6


@pytest.mark.parametrize("classes", [2, 3])
def test_logits_are_a_logistic_regressions(classes):
    x = np.random.default_rng(3).normal(size=(300, 2))
    y = np.digitize(x[:, 0] + 0.8 * np.random.default_rng(4).normal(size=300), [-0.4, 0.6][: classes - 1])
    found = logistic(x, y, classes)
    logits = x @ found[:, :-1].T + found[:, -1]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    closest = min(
        np.abs(chances - LogisticRegression(C=c, max_iter=1000, tol=1e-8).fit(x, y).predict_proba(x)).max()
        for c in np.logspace(-3, 1, 5)
    )
    assert closest < 1e-2


def test_a_rare_class_has_its_frequency():
    found = logistic(X, np.array([0] * 57 + [2] * 3), 3)
    chances = np.exp(found[:, -1]) / np.exp(found[:, -1]).sum()
    np.testing.assert_allclose(chances, [57.5 / 61.5, 0.5 / 61.5, 3.5 / 61.5])
    assert not found[:, :-1].any()


def part_of(likelihoods, labels, x=X, clip=5.0):
    part = LinearPart(x.shape[1], likelihoods, clip)
    part.fit(tensor(x), labels, likelihoods)
    return part


def test_a_likelihood_at_zero_predicts_the_ridge_in_units_of_its_errors():
    labels = Y.copy()
    labels[[3, 8]] = np.nan
    seen = ~np.isnan(labels)
    likelihood = Gaussian()
    likelihood.start(tensor(labels))
    part = part_of({"a.b": likelihood}, {"a.b": tensor(labels)})
    coefficients, errors = ridge(X[seen], labels[seen])
    p = likelihood.distribution(part("a.b", tensor(X), torch.zeros(60, 1)), {"log_variance": torch.tensor(0.0)})
    np.testing.assert_allclose(p.mean.numpy(), X @ coefficients[:-1] + coefficients[-1], rtol=1e-4)
    assert p.stddev[0].item() == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)


def test_only_the_location_of_several_outputs_moves():
    for likelihood, f in (
        (Heteroscedastic(), torch.zeros(60, 2)),
        (Evidential(), (torch.zeros(60, 1), torch.ones(60, 3))),
    ):
        moved = part_of({"y": likelihood}, {"y": tensor(Y)})("y", tensor(X), f)
        first = moved[0] if isinstance(f, tuple) else moved[:, :1]
        rest = moved[1] if isinstance(f, tuple) else moved[:, 1:]
        assert first.std() > 0.5
        assert torch.equal(rest, f[1] if isinstance(f, tuple) else f[:, 1:])


def test_the_share_of_a_network_is_the_best_on_other_rows_pulled_towards_all_of_it():
    likelihood = Gaussian()
    part = part_of({"y": likelihood}, {"y": tensor(Y)})
    line = part("y", tensor(X), torch.zeros(60, 1))[:, 0]
    network = tensor(RANDOM.normal(size=60))
    for truth in (1.0, 0.4, 0.0, -3.0, 2.0):
        labels = line + truth * network
        labels[7] = torch.nan
        part.shrink("y", tensor(X), line + network, labels)
        pulled = (59 * truth + 5) / (59 + 5)  # five rows in which the network is right
        assert part.shares.item() == pytest.approx(min(max(pulled, 0.0), 1.0), abs=1e-5)
        part.shares.fill_(1.0)
    part.shares.fill_(0.25)
    torch.testing.assert_close(part("y", tensor(X), network[:, None])[:, 0], line + 0.25 * network)
    torch.testing.assert_close(part.stacked(["y"], tensor(X), network[None, :, None])[0, :, 0], line + 0.25 * network)
    part.shrink("y", tensor(X), line, line)
    assert part.shares.item() == 0.25  # a network that says nothing


def test_classes_start_at_a_logistic_regression_and_others_at_nothing():
    y = torch.as_tensor((X[:, 0] > 0).astype(int))
    two = part_of({"y": Categorical(2)}, {"y": y})("y", tensor(X), torch.zeros(60, 2))
    one = part_of({"y": Bernoulli()}, {"y": y})("y", tensor(X), torch.zeros(60, 1))
    torch.testing.assert_close(two[:, 1] - two[:, 0], one[:, 0])
    assert ((one[:, 0] > 0) == (y == 1)).float().mean() > 0.9
    nothing = part_of({"y": Poisson()}, {"y": tensor(np.arange(60) % 5)})
    assert nothing.weight("y").shape == (0, 5)
    assert not nothing("y", tensor(X), torch.zeros(60, 1)).any()


def test_logits_of_wide_tables_are_trained_with_the_network():
    x = np.random.default_rng(6).normal(size=(40, 300))
    likelihoods = {"sign": Bernoulli(), "size": Gaussian()}
    labels = {"sign": torch.as_tensor((x[:, 0] > 0).astype(int)), "size": tensor(x[:, 1])}
    part = part_of(likelihoods, labels, x)
    assert [name for name, _ in part.named_parameters()] == ["weight_0"]
    assert not part.weight("sign").any()
    assert part.weight("size").any()


def test_labels_that_are_few_alike_or_missing_start_at_nothing():
    for labels in (np.full(60, np.nan), np.full(60, 2.0), np.where(np.arange(60) < 2, Y, np.nan)):
        likelihood = Gaussian()
        assert not part_of({"y": likelihood}, {"y": tensor(labels)}).weight("y").any()
        assert likelihood.unit == 1


def test_targets_with_rows_of_their_own_share_a_line():
    """Ten targets of six rows each in twelve dimensions: alone their lines are worth little."""
    random = np.random.default_rng(5)
    x, slope = random.normal(size=(60, 12)), random.normal(size=12)
    y = x @ slope + 0.1 * random.normal(size=60)
    labels = {f"t{k}": tensor(np.where(np.arange(60) % 10 == k, y, np.nan)) for k in range(10)}
    new = random.normal(size=(200, 12))

    def error(names):
        likelihoods = {name: Gaussian() for name in names}
        part = part_of(likelihoods, {name: labels[name] for name in names}, x, clip=float("inf"))
        f = part(names[0], tensor(new), torch.zeros(200, 1))
        p = likelihoods[names[0]].distribution(f, {"log_variance": torch.tensor(0.0)})
        return float((p.mean - tensor(new @ slope)).square().mean().sqrt())

    assert error(list(labels)) < 0.2 * error(["t0"])


def test_recipes_fit_it_to_examples_and_start_heads_near_zero():
    trunk = Tabular(4, (8,), bins=[[]] * 4, generator=seeded())
    spec = DataSpec({"y": Real()}, 60, {"kind": "table", "width": 4}, labels={"y": tensor(Y)}, examples=tensor(X))
    for recipe, options in (("homoscedastic", {"noise": "fixed"}), ("homoscedastic", {"head": "bayesian"})):
        model, _ = getattr(recipes, recipe)(spec, trunk=lambda: trunk, generator=seeded(), **options)
        found = model.linear_part.weight("y")
        coefficients, errors = ridge(X, Y)
        unit = np.sqrt(np.mean(errors**2))
        np.testing.assert_allclose(found[0, :-1].numpy(), coefficients[:-1] / unit, rtol=1e-4, atol=1e-6)
        starts = model.heads.layers[0].weight if "noise" in options else model.heads.starts["y"]
        assert starts.abs().max() <= 0.1 * 16**-0.5 + 1e-6
        assert "linear_part.weight_0" in model.state_dict()


def test_rows_are_apart_in_training_where_the_program_learns_no_spread():
    spec = DataSpec({"y": Real()}, 60, {"kind": "table", "width": 4}, labels={"y": tensor(Y)}, examples=tensor(X))
    for options, apart in (({"noise": "fixed"}, True), ({}, False), ({"noise": "fixed", "head": "bayesian"}, False)):
        trunk = Tabular(4, (8,), bins=[[]] * 4, generator=seeded())
        model, _ = recipes.homoscedastic(spec, trunk=lambda made=trunk: made, generator=seeded(), **options)
        rows = Rows(("y",), tensor(X), {}, own=False)
        whole = trunk(tensor(X))
        assert torch.equal(model.representation(rows), trunk.apart(tensor(X)) if apart else whole)
        assert torch.equal(model.eval().representation(rows), whole)


@pytest.mark.parametrize("noise", ["fixed", "parameter"])
def test_gradients_are_compared_in_both_networks_and_nowhere_else(noise):
    """Of networks of one layer the last layers are all of the trunk; zeros of rows that take turns are nobody's."""
    x = tensor(X)
    y = {"a": torch.sin(3 * x[:, 0]), "b": x[:, 1].square()}
    spec = DataSpec({name: Real() for name in y}, 60, {"kind": "table", "width": 4}, labels=y, examples=x)
    grams = {}
    for geometry in ("full", "last-layer", "representation"):
        trunk = Tabular(4, (8,), bins=[[-1.0, 0.0, 1.0]] * 4, generator=seeded())
        model, guide = recipes.homoscedastic(spec, trunk=lambda made=trunk: made, generator=seeded(), noise=noise)
        svi = bmtl.BalancedSVI(model, guide, lambda p: torch.optim.SGD(p, lr=0.1), f"ew >> {geometry} >> mgda")
        svi.step(x, y)
        grams[geometry] = svi.history[-1].gram
    np.testing.assert_allclose(grams["last-layer"], grams["full"], rtol=1e-4)
    marked = bmtl.TaskELBO("analytic").task_losses(model, guide, x, y, cut=True).marks.leaves
    assert [leaf.shape for leaf in marked] == ([(30, 8), (30, 8)] if noise == "fixed" else [(60, 16)])
