import math

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro.infer.autoguide import AutoNormal
from pyro.infer.reparam import LocScaleReparam
from pyro.poutine.util import site_is_subsample
from torch.testing import assert_close

import bmtl
from bmtl.inference.shared_representation import SharedRepresentation
from bmtl.tasks import check_names

NAN = math.nan


def tags(program, *args):
    trace = poutine.trace(program).get_trace(*args)
    return {name: site.get("task") for name, site in trace.nodes.items() if site["type"] == "sample"}


# ---- task ------------------------------------------------------------------------------------------------------------


def test_the_innermost_task_wins_and_a_task_may_be_entered_again():
    outer = bmtl.task("outer")

    def program():
        pyro.sample("free", dist.Normal(0.0, 1.0))
        with outer:
            pyro.sample("before", dist.Normal(0.0, 1.0))
            with bmtl.task("inner"):
                pyro.sample("within", dist.Normal(0.0, 1.0))
            pyro.sample("after", dist.Normal(0.0, 1.0))
        with outer:
            pyro.sample("again", dist.Normal(0.0, 1.0))
        with bmtl.task("outer"):
            pyro.sample("anew", dist.Normal(0.0, 1.0))

    assert tags(program) == {
        "free": None,
        "before": "outer",
        "within": "inner",
        "after": "outer",
        "again": "outer",
        "anew": "outer",
    }


def test_a_task_leaves_no_mark_behind_when_its_program_fails():
    def program():
        try:
            with bmtl.task("broken"):
                raise RuntimeError("half way")
        except RuntimeError:
            pass
        pyro.sample("free", dist.Normal(0.0, 1.0))

    assert tags(program) == {"free": None}


def test_a_task_marks_a_decorated_function():
    @bmtl.task("depth")
    def head():
        return pyro.sample("y", dist.Normal(0.0, 1.0))

    assert tags(head) == {"y": "depth"}


def two_tasks():
    for name in ("a", "b"):
        with bmtl.task(name):
            pyro.sample(f"z_{name}", dist.Normal(0.0, 1.0))


def test_the_mark_survives_replay_against_a_guide_without_marks():
    def guide():  # its sites bring an `infer` of their own, which replay hands to the model's
        for name in ("b", "a"):
            pyro.sample(f"z_{name}", dist.Normal(0.0, 1.0), infer={"guide": True})

    guide_trace = poutine.trace(guide).get_trace()
    replayed = poutine.trace(poutine.replay(two_tasks, trace=guide_trace)).get_trace()
    assert {name: replayed.nodes[name]["task"] for name in ("z_a", "z_b")} == {"z_a": "a", "z_b": "b"}
    assert replayed.nodes["z_a"]["infer"]["guide"]  # the trap is real


def test_the_mark_survives_reparameterisation_and_an_autoguide():
    model = poutine.reparam(two_tasks, config={"z_a": LocScaleReparam(0.0)})
    assert tags(model) == {"z_a_decentered": "a", "z_a": "a", "z_b": "b"}
    guide = AutoNormal(two_tasks)
    guide_trace = poutine.trace(guide).get_trace()
    assert tags(poutine.replay(two_tasks, trace=guide_trace)) == {"z_a": "a", "z_b": "b"}


@pytest.mark.parametrize("name", ["", None, 3, ("a", "b")])
def test_a_task_has_a_name(name):
    with pytest.raises(ValueError, match="non-empty string"):
        bmtl.task(name)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6))
def test_names_are_kept_in_order_and_repetitions_are_refused(names):
    if len(set(names)) == len(names):
        assert check_names(names) == tuple(names)
    else:
        with pytest.raises(ValueError, match="more than once"):
            check_names(names)


def test_no_names_are_no_list_of_tasks():
    with pytest.raises(ValueError, match="at least one"):
        check_names([])


# ---- task_plate ------------------------------------------------------------------------------------------------------


def test_a_task_plate_names_its_rows_at_its_own_sites_only():
    def program():
        pyro.sample("before", dist.Normal(0.0, 1.0))
        with bmtl.task_plate(["x", "y/nll", "z"], dim=-2), pyro.plate("rows", 4):
            assert pyro.sample("inside", dist.Normal(0.0, 1.0)).shape == (3, 4)

    nodes = poutine.trace(program).get_trace().nodes
    assert nodes["inside"]["task_names"] == ("x", "y/nll", "z")
    assert "task_names" not in nodes["before"]


def test_a_task_plate_can_be_looped_over():
    def program():
        for i in bmtl.task_plate(["x", "y"]):
            pyro.sample(f"s{i}", dist.Normal(0.0, 1.0))

    nodes = poutine.trace(program).get_trace().nodes
    assert nodes["s0"]["task_names"] == nodes["s1"]["task_names"] == ("x", "y")


def test_a_task_plate_has_the_site_of_pyros_plates_and_expands_only_what_is_smaller():
    def program(plate):
        with plate as rows, pyro.plate("rows", 4, dim=-1):
            own = pyro.sample("own", whole)
            return rows, own, pyro.sample("few", dist.Normal(torch.zeros(4), 1.0).mask(False))

    whole = dist.Normal(torch.zeros(3, 4), 1.0)
    traces = []
    for plate in (lambda: bmtl.task_plate(["a", "b", "c"], dim=-2), lambda: pyro.plate("task", 3, dim=-2)):
        torch.manual_seed(0)
        traces.append(pyro.poutine.trace(lambda plate=plate: program(plate())).get_trace())
    ours, pyros = traces
    assert list(ours.nodes) == list(pyros.nodes)
    for one, other in zip(ours.nodes["_RETURN"]["value"], pyros.nodes["_RETURN"]["value"], strict=True):
        assert torch.equal(one, other)
    assert site_is_subsample(ours.nodes["task"])
    for name in ("own", "few"):
        assert ours.nodes[name]["fn"].batch_shape == (3, 4)
        assert ours.nodes[name]["cond_indep_stack"] == pyros.nodes[name]["cond_indep_stack"]
    assert ours.log_prob_sum() == pyros.log_prob_sum()


def test_a_task_plate_with_a_repeated_name_is_refused():
    with pytest.raises(ValueError, match="'x' appears more than once"):
        bmtl.task_plate(["x", "y", "x"])


# ---- shared ----------------------------------------------------------------------------------------------------------


def test_the_mark_is_an_identity_in_value_and_gradient():
    h = torch.randn(3, 2, requires_grad=True)
    assert bmtl.shared(h) is h
    with SharedRepresentation() as marks:
        assert bmtl.shared(h) is h
    assert marks.tensors == [h]
    assert not marks.leaves


def test_every_mark_is_kept_in_order():
    inputs = [torch.randn(2), torch.randn(3), torch.randn(2)]
    with SharedRepresentation() as marks:
        for h in inputs:
            bmtl.shared(h)
    assert [id(h) for h in marks.tensors] == [id(h) for h in inputs]


def test_a_cut_ends_the_graph_at_leaves_from_which_the_trunk_can_be_resumed():
    weight = torch.tensor([1.0, -2.0], requires_grad=True)
    head = torch.tensor([0.5, 3.0], requires_grad=True)

    def loss():
        return (bmtl.shared(weight.square()) * head).sum() + (bmtl.shared(weight.exp()) * head).sum()

    whole = torch.autograd.grad(loss(), [weight, head])
    with SharedRepresentation(cut=True) as marks:
        cut = loss()
    at_leaves = torch.autograd.grad(cut, marks.leaves, retain_graph=True)
    (at_weight,) = torch.autograd.grad(cut, [weight], retain_graph=True, allow_unused=True)
    assert at_weight is None
    assert_close(torch.autograd.grad(cut, [head])[0], whole[1])
    assert_close(torch.autograd.grad(marks.tensors, [weight], grad_outputs=at_leaves)[0], whole[0])


@pytest.mark.parametrize("h", [None, 1.0, [torch.zeros(2)], np.zeros(2)])
def test_only_tensors_can_be_marked(h):
    with pytest.raises(TypeError, match="marks a tensor"):
        bmtl.shared(h)


# ---- observe ---------------------------------------------------------------------------------------------------------

RAW = torch.linspace(-1.0, 1.5, 8).reshape(4, 2)


def per_row(parameter):
    """Targets with and without a gap, and the distribution of one row each from a free parameter (4, 2)."""
    a, b = parameter.unbind(-1)
    return {
        "normal": (dist.Normal(a, b.exp()), [0.3, NAN, -2.0, NAN]),
        "student": (dist.StudentT(b.exp() + 1, a, 1.0), [0.3, NAN, -2.0, NAN]),
        "lognormal": (dist.LogNormal(a, b.exp()), [0.3, NAN, 2.0, NAN]),
        "gamma": (dist.Gamma(a.exp(), b.exp()), [0.3, NAN, 2.0, NAN]),
        "weibull": (dist.Weibull(a.exp(), b.exp()), [0.3, NAN, 2.0, NAN]),
        "beta": (dist.Beta(a.exp(), b.exp()), [0.3, NAN, 0.9, NAN]),
        "uniform": (dist.Uniform(a - 3, b + 3), [0.3, NAN, 0.9, NAN]),
        "pareto": (dist.Pareto(a.sigmoid() / 9, b.exp()), [0.3, NAN, 0.9, NAN]),
        "poisson": (dist.Poisson(a.exp() + b.exp()), [0.0, NAN, 3.0, NAN]),
        "poisson of integers": (dist.Poisson(a.exp() + b.exp()), [0, -1, 3, -1]),
        "bernoulli": (dist.Bernoulli(logits=a + b), [1.0, NAN, 0.0, NAN]),
        "bernoulli of integers": (dist.Bernoulli(logits=a + b), [1, -1, 0, -1]),
        "geometric": (dist.Geometric(logits=a + b), [1, -1, 0, -1]),
        "categorical": (dist.Categorical(logits=parameter), [1, -1, 0, -1]),
        "one-hot": (dist.OneHotCategorical(logits=parameter), [[0.0, 1.0], [NAN, NAN], [1.0, 0.0], [NAN, NAN]]),
        "multinomial": (dist.Multinomial(3, logits=parameter), [[0.0, 3.0], [NAN, NAN], [1.0, 2.0], [NAN, NAN]]),
        "event": (dist.Normal(parameter, 1.0).to_event(1), [[0.1, 1.0], [NAN, NAN], [1.0, -3.0], [0.5, NAN]]),
        "event, half missing": (dist.LogNormal(parameter, 1.0).to_event(1), [[0.1, 1], [NAN, 1], [1, 3], [0.5, NAN]]),
        "simplex": (dist.Dirichlet(parameter.exp()), [[0.1, 0.9], [NAN, NAN], [0.4, 0.6], [NAN, NAN]]),
        "simplex, half missing": (dist.Dirichlet(parameter.exp()), [[0.1, 0.9], [0.7, NAN], [0.4, 0.6], [NAN, 0.1]]),
        "multivariate": (
            dist.MultivariateNormal(parameter, torch.eye(2)),
            [[0.1, 1.0], [NAN, 0.0], [1.0, -3.0], [NAN, NAN]],
        ),
    }


CASES = list(per_row(RAW))


@pytest.mark.parametrize("case", CASES)
def test_a_missing_label_adds_nothing_to_value_or_gradient(case):
    parameter = RAW.clone().requires_grad_()
    fn, y = per_row(parameter)[case]
    y = torch.tensor(y)

    def program():
        with pyro.plate("rows", 4):
            return bmtl.observe("y", fn, y)

    trace = poutine.trace(program).get_trace()
    total = trace.log_prob_sum()
    (gradient,) = torch.autograd.grad(total, parameter)

    labelled = [0, 2]
    alone = RAW[labelled].clone().requires_grad_()
    plain, _ = per_row(alone)[case]  # the plain distribution on the labelled rows
    expected = plain.log_prob(y[labelled].float() if "bernoulli" in case else y[labelled]).sum()
    assert_close(total, expected)
    assert gradient.isfinite().all()
    assert_close(gradient[labelled], torch.autograd.grad(expected, alone)[0])
    assert (gradient[[1, 3]] == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_a_site_without_values_is_sampled(case):
    fn, y = per_row(RAW)[case]

    def program():
        with pyro.plate("rows", 4):
            return bmtl.observe("y", fn, None)

    trace = poutine.trace(program).get_trace()
    assert not trace.nodes["y"]["is_observed"]
    assert trace.nodes["y"]["value"].shape == torch.tensor(y).shape


def test_one_scalar_distribution_serves_all_rows():
    def program():
        with pyro.plate("rows", 3):
            bmtl.observe("y", dist.Normal(0.0, 1.0), torch.tensor([0.0, NAN, 1.0]))

    assert poutine.trace(program).get_trace().log_prob_sum() == dist.Normal(0.0, 1.0).log_prob(torch.arange(2.0)).sum()


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (4,), (6,), (5, 2)])
def test_a_prediction_of_another_shape_is_refused_and_both_shapes_are_told(shape):
    with pytest.raises(ValueError, match="'y_depth'") as error:
        bmtl.observe("y_depth", dist.Normal(torch.zeros(shape), 1.0), torch.zeros(5))
    assert str(shape) in str(error.value)
    assert "(5,)" in str(error.value)


@pytest.mark.parametrize("value", [(5, 1), (4,), (5, 3), ()])
def test_targets_of_another_shape_are_refused(value):
    with pytest.raises(ValueError, match="squeeze or reshape"):
        bmtl.observe("y", dist.Normal(torch.zeros(5), 1.0), torch.zeros(value))


@pytest.mark.parametrize("value", [(5,), (5, 3), (3,), (2, 5)])
def test_targets_of_another_event_are_refused(value):
    with pytest.raises(ValueError, match="squeeze or reshape"):
        bmtl.observe("y", dist.Normal(torch.zeros(5, 2), 1.0).to_event(1), torch.zeros(value))


@pytest.mark.parametrize(
    ("fn", "value", "message"),
    [
        (dist.Normal(torch.zeros(3), 1.0), torch.zeros(3, dtype=torch.long), "Give floats, with NaN"),
        (dist.Normal(torch.zeros(3), 1.0), torch.zeros(3, dtype=torch.bool), "Give floats, with NaN"),
        (dist.Categorical(logits=torch.zeros(3, 2)), torch.zeros(3), "Give class indices as integers"),
        (dist.Normal(torch.zeros(3), 1.0), np.zeros(3), "ndarray"),
        (dist.Normal(torch.zeros(3), 1.0), [0.0, 0.0, 0.0], "list"),
    ],
)
def test_targets_of_another_kind_are_refused_with_what_to_give_instead(fn, value, message):
    with pytest.raises(TypeError, match=message):
        bmtl.observe("y", fn, value)


@pytest.mark.parametrize("dim", [-2, -3])
@pytest.mark.parametrize("case", ["normal", "categorical", "event", "simplex", "bernoulli of integers"])
def test_vectorised_particles_see_the_same_targets(case, dim):
    y = torch.tensor(per_row(RAW)[case][1])
    shift = torch.randn(5, *(1,) * (-dim - 1 + y.dim() - 1))  # one number a particle

    def program(offset):
        with pyro.plate("rows", 4, dim=-1):
            moved, _ = per_row(RAW + (offset if y.dim() == 2 else offset[..., None]))[case]
            bmtl.observe("y", moved, y)

    particles = pyro.plate("num_particles_vectorized", 5, dim=dim)(program)
    together = poutine.trace(particles).get_trace(shift).log_prob_sum()
    apart = sum(poutine.trace(program).get_trace(one).log_prob_sum() for one in shift.reshape(5, *(1,) * y.dim()))
    assert_close(together, apart)


def test_vectorised_particles_do_not_hide_a_column_of_predictions():
    def program():
        with pyro.plate("num_particles_vectorized", 5, dim=-3):
            bmtl.observe("y", dist.Normal(torch.zeros(5, 4, 1), 1.0), torch.zeros(4))

    with pytest.raises(ValueError, match="squeeze or reshape"):
        program()


def test_a_global_prediction_serves_all_rows_in_vectorised_particles():
    y = torch.tensor([0.0, NAN, 1.0])

    def program():
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3, dim=-1):
            bmtl.observe("y", dist.Normal(mean, 1.0), y)
        return mean

    trace = poutine.trace(pyro.plate("num_particles_vectorized", 5, dim=-2)(program)).get_trace()
    mean = trace.nodes["mean"]["value"]
    trace.compute_log_prob()
    assert_close(trace.nodes["y"]["log_prob"][:, [0, 2]], dist.Normal(mean, 1.0).log_prob(y[[0, 2]]))
    assert (trace.nodes["y"]["log_prob"][:, 1] == 0).all()


def test_a_task_plate_tells_the_numbers_of_data_of_its_tasks():
    with bmtl.task_plate(["a", "b"], dim=-1, n_data=[7, 9]):
        trace = poutine.trace(lambda: pyro.sample("w", dist.Normal(torch.zeros(2), 1.0))).get_trace()
    assert trace.nodes["w"]["task_n_data"] == (7, 9)
    with pytest.raises(ValueError, match="n_data has 3 numbers for the 2 tasks"):
        bmtl.task_plate(["a", "b"], n_data=[7, 9, 8])


@pytest.mark.parametrize(
    ("error", "n_data"),
    [
        (ValueError, [7, 0]),
        (ValueError, [-1, 7]),
        (TypeError, [7, 2.5]),
        (TypeError, [NAN, 7]),
        (TypeError, [7, True]),
        (TypeError, torch.tensor([7, 9])),
    ],
)
def test_numbers_of_data_of_another_kind_or_sign_are_refused(error, n_data):
    with pytest.raises(error, match="for '[ab]'"):
        bmtl.task_plate(["a", "b"], n_data=n_data)
