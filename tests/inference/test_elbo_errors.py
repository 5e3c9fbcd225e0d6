"""What `TaskELBO` refuses: programs that it cannot take, and options of another kind."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import bmtl
from bmtl.inference import TaskELBO
from tests.inference.programs import NAN, batch, nothing


def untagged(x, y):
    pyro.sample("w", dist.Normal(0.0, 1.0))


def coin_in_a(x, y):
    with bmtl.task("a"):
        pyro.sample("v", dist.Bernoulli(0.3))
    pyro.sample("w", dist.Normal(0.0, 1.0))


def enumerated(x, y):
    with bmtl.task("a"):
        pyro.sample("v", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})


def twice_owned(x, y):
    with bmtl.task_plate(["a", "b"]), bmtl.task("c"):
        pyro.sample("v", dist.Normal(0.0, 1.0))


def part_of_the_tasks(x, y):
    with pyro.plate("task", 4, subsample_size=2, dim=-2), pyro.plate("rows", len(x), dim=-1):
        pyro.sample("v", dist.Normal(x[:, 0], 1.0), obs=y["a"])


def part_of_the_tasks_in_a_loop(x, y):
    for i in pyro.plate("task", 4, subsample_size=2):
        pyro.sample(f"v{i}", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))


def out_of_shape(x, y):
    with bmtl.task("a"), pyro.plate("rows", len(x)):
        pyro.sample("y_a", dist.Normal(x, 1.0), obs=x)


def out_of_support(x, y):
    with bmtl.task("a"), pyro.plate("rows", len(x)):
        pyro.sample("y_a", dist.LogNormal(x[:, 0], 1.0), obs=x[:, 1])


def guide_of_v_and_w(x, y):
    pyro.sample("v", dist.Bernoulli(0.3))
    pyro.sample("w", dist.Normal(0.0, 1.0))


def guide_with_a_coin(x, y):
    coin = pyro.sample("coin", dist.Bernoulli(0.3), infer={"is_auxiliary": True})
    pyro.sample("w", dist.Normal(coin, 1.0))


def tagged_w(x, y):
    with bmtl.task("a"):
        pyro.sample("w", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("estimator", "model", "guide", "message"),
    [
        ("mc", untagged, untagged, "has no task"),
        ("mc", coin_in_a, nothing, r"no site for the model's latents \['v', 'w'\]"),
        ("mc", enumerated, enumerated, r"TaskELBO\('enum'\)"),
        ("analytic", coin_in_a, guide_of_v_and_w, "'v' is not reparameterised"),
        ("analytic", tagged_w, guide_with_a_coin, "'coin' is not reparameterised"),
        ("mc", twice_owned, twice_owned, "at once"),
        ("mc", part_of_the_tasks, nothing, "cannot be subsampled"),
        ("mc", part_of_the_tasks_in_a_loop, nothing, "cannot be subsampled"),
        ("mc", out_of_shape, nothing, "y_a"),
        ("mc", out_of_support, nothing, "'y_a'"),
    ],
)
def test_what_cannot_be_taken_is_an_error_that_names_it(estimator, model, guide, message):
    with pytest.raises(ValueError, match=message):
        TaskELBO(estimator).task_losses(model, guide, *batch())


def test_a_missing_guide_site_is_told_without_validation_too():
    with (
        pyro.settings.context(validate_infer=False),
        pytest.raises(ValueError, match="no site for the model's latents"),
    ):
        TaskELBO().task_losses(coin_in_a, nothing, *batch())


def test_two_task_plates_of_different_tasks_are_refused():
    names = iter([["a", "b"], ["a", "c"]])

    def model():  # Pyro refuses two plates of one name in one run
        with bmtl.task_plate(next(names)):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.zeros(2))

    with pytest.raises(ValueError, match="different tasks"):
        TaskELBO(num_particles=2).task_losses(model, nothing)


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"estimator": "exact"}),
        (ValueError, {"balanced": "kl"}),
        (ValueError, {"normalize": "rows"}),
        (ValueError, {"num_particles": 0}),
        (ValueError, {"num_particles": -1}),
        (TypeError, {"num_particles": 2.0}),
        (TypeError, {"num_particles": True}),
        (TypeError, {"num_particles": NAN}),
        (TypeError, {"vectorize_particles": 1}),
        (TypeError, {"vectorize_particles": "yes"}),
        (ValueError, {"max_plate_nesting": -1}),
        (TypeError, {"max_plate_nesting": 1.5}),
        (ValueError, {"n_data": -1}),
        (ValueError, {"n_data": 0}),
        (TypeError, {"n_data": 5.0}),
        (TypeError, {"n_data": NAN}),
        (TypeError, {"n_data": True}),
        (TypeError, {"n_data": "5"}),
        (TypeError, {"n_data": [5, 6]}),
        (TypeError, {"n_data": torch.tensor(5)}),
        (ValueError, {"n_data": {}}),
        (ValueError, {"n_data": {"a": 5, "b": 0}}),
        (ValueError, {"n_data": {"a": 5, "b": -2}}),
        (TypeError, {"n_data": {"a": 5, "b": 2.5}}),
        (TypeError, {"n_data": {"a": 5, "b": NAN}}),
        (TypeError, {"n_data": {"a": 5, "b": True}}),
        (TypeError, {"n_data": {0: 5}}),
        (TypeError, {"n_data": {"": 5}}),
    ],
)
def test_options_of_another_kind_or_sign_are_refused_by_name(error, options):
    (name,) = options
    with pytest.raises(error, match=name) as raised:
        TaskELBO(**options)
    wrong = options[name]
    if isinstance(wrong, dict) and wrong:
        wrong = list(wrong.values())[-1] if all(isinstance(key, str) and key for key in wrong) else next(iter(wrong))
    assert str(wrong) in str(raised.value) or wrong == {}


@pytest.mark.parametrize("n_data", [None, 5, np.int64(5), {"a": 5, "b": np.int32(3)}])
def test_numbers_of_data_are_integers_of_any_kind(n_data):
    assert TaskELBO(n_data=n_data).n_data == n_data


@pytest.mark.parametrize(
    ("statement", "labels", "message"),
    [
        (bmtl.observe, [0.5, -1.2, 0.7], "Labels of real targets are scaled. If these are counts or classes"),
        (lambda name, fn, value: pyro.sample(name, fn, obs=value), [0.0, NAN, 1.0], "left out by bmtl.observe"),
    ],
)
def test_labels_outside_the_support_say_what_they_may_be(statement, labels, message):
    def model(y):
        with bmtl.task("a"), pyro.plate("rows", 3):
            statement("y_a", dist.Bernoulli(logits=torch.zeros(3)), y)

    with pytest.raises(ValueError, match=f"(?s)At site .y_a.: .*within the support.*{message}"):
        bmtl.TaskELBO().loss(model, lambda y: None, torch.tensor(labels))
