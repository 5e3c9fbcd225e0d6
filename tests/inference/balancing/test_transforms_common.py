"""What holds for every transform, whatever its formula."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import SLOTS, balancer
from bmtl.inference.errors import NonPositiveLoss
from tests.inference.balancing.loop import NAN, Loop
from tests.inference.programs import Regressions, batch, nothing

METHODS = (
    "rlw",
    "rlw(phi='log')",
    "dwa",
    "dwa(window=2, phi='log')",
    "uw-so",
    "gls",
    "imtl-l(s0=0.2)",
    "famo",
    "stch(warmup=0)",
    "stch(log=False, mu=0.5, ideal={'a': 0.3})",
    "ldc",
    "excess-mtl(eta=0.3)",
    "grad-norm",
)
DOMAINS = {m: balancer(m).transform.domain for m in METHODS}
NEED_POSITIVE = tuple(m for m in METHODS if DOMAINS[m] == "positive")  # log L or 1 / L
NEED_A_BOUND = tuple(m for m in METHODS if DOMAINS[m] != "real")


def script(num_tasks, steps=7, seed=0):
    """Losses (T, K), losses after each step (T, K) and gradients (T, K, 5)."""
    generator = torch.Generator().manual_seed(seed)
    losses = 0.2 + 3 * torch.rand(steps, num_tasks, generator=generator, dtype=torch.float64)
    after = losses * (0.5 + torch.rand(steps, num_tasks, generator=generator, dtype=torch.float64))
    return losses, after, torch.randn(steps, num_tasks, 5, generator=generator, dtype=torch.float64)


def train(loop, losses, after, gradients, every=2):
    """Weights (T, K) over a script, in epochs of `every` steps."""
    weights = []
    for t in range(len(losses)):
        weights.append(loop.step(losses[t], gradients[t], after[t]))
        if t % every == every - 1:
            loop.end_epoch(losses[t - every + 1 : t + 1].nanmean(dim=0))
    return torch.stack(weights)


def states(loop):
    """All state by task: what is kept in rows and what is a number each."""
    state = {}
    for name, value in loop.balancer.state_dict().items():
        value = value.get("squares") if isinstance(value, dict) else value
        if isinstance(value, torch.Tensor) and value.dtype != torch.uint8:
            state[name] = value.clone()
    for p in loop.balancer.parameters():
        moments = loop.optimizer.state.get(p, {})
        state |= {f"{id(p)}.{name}": torch.as_tensor(value).clone() for name, value in moments.items()}
    return state


@pytest.mark.parametrize("spec", [m for m in METHODS if not m.startswith(("rlw", "ldc"))])
def test_the_order_of_tasks_does_not_matter(spec):
    order = [2, 0, 3, 1]
    losses, after, gradients = script(4)
    weights = train(Loop(spec, "abcd"), losses, after, gradients)
    turned = train(Loop(spec, [*"cadb"]), losses[:, order], after[:, order], gradients[:, order])
    assert_close(turned, weights[:, order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spec", METHODS)
def test_an_absent_task_leaves_the_problem_of_the_others(spec):
    losses, after, gradients = script(4)
    gone = 3 if spec == "ldc" else 1  # LDC draws its starting values in the tasks' order
    here = [k for k in range(4) if k != gone]
    losses[:, gone] = NAN
    weights = train(Loop(spec, "abcd"), losses, after, gradients)
    names = [*"abcd"]
    del names[gone]
    alone = train(Loop(spec, names), losses[:, here], after[:, here], gradients[:, here])
    assert weights[:, gone].isnan().all()
    assert_close(weights[:, here], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("missing", [[1], [0, 1, 2]], ids=["one", "all"])
def test_an_absent_task_keeps_its_state(spec, missing):
    loop = Loop(spec)
    losses, after, gradients = script(3)
    train(loop, losses[:4], after[:4], gradients[:4])
    before = states(loop)
    losses[4, missing] = NAN
    loop.step(losses[4], gradients[4], after[4])
    loop.end_epoch(losses[4])
    own = [id(p) for k, p in enumerate(loop.balancer.parameters()) if k in missing]
    now = states(loop)
    for name, value in before.items():
        if value.dim() and len(value) == 3:
            assert_close(now[name][missing], value[missing], rtol=0, atol=0, equal_nan=True, msg=name)
        elif any(name.startswith(f"{key}.") for key in own) or name.split(".")[-1] in map(str, missing):
            assert torch.equal(now[name], value), name  # numbers and moments of a parameter of its own


@pytest.mark.parametrize("spec", METHODS)
def test_a_single_task_is_trained_at_its_own_slope(spec):
    losses, after, gradients = script(1)
    spec = spec.replace(", ideal={'a': 0.3}", "")
    weights = train(loop := Loop(spec, "a"), losses, after, gradients)
    assert loop.balancer.compares == spec.startswith(("excess", "grad"))
    if spec.startswith("imtl"):
        assert (weights > 0).all()
    elif "phi='log'" in spec or spec.startswith(("ldc", "stch(warmup")):
        assert_close(weights, 1 / losses)
    else:
        assert_close(weights, torch.ones_like(losses), rtol=1e-7, atol=0)


@pytest.mark.parametrize("spec", NEED_A_BOUND)
def test_a_loss_outside_the_domain_is_refused_by_name(spec):
    for bad in (-0.5, 0.0) if spec in NEED_POSITIVE else (-0.5, -1e-300):
        with pytest.raises(NonPositiveLoss, match="'b'") as found:
            Loop(spec).step([1.0, bad, 2.0])
        assert (found.value.task, found.value.value) == ("b", bad)


@pytest.mark.parametrize("spec", [*NEED_POSITIVE, "igb-v1", "igb-v2", "si"])
def test_a_loss_that_is_all_but_met_has_a_weight_that_float32_holds(spec):
    """A float64 loss of 4e-47: its reciprocal, by which logarithms divide the gradient, is infinite in float32."""
    loop = Loop(spec)
    for losses in ([1.0, 3.0, 2.0], [1.0, 4e-47, 2.0]):
        weights = loop.step(losses)
        loop.end_epoch(losses)
    assert weights.float().isfinite().all()
    assert (weights[[0, 2]] > 0).all() or spec in ("uw-so", "stch(warmup=0)")  # they go by the smallest or largest loss
    if spec in ("igb-v1", "igb-v2", "si", "rlw(phi='log')"):
        assert weights[1] == 0


@pytest.mark.parametrize("spec", [m for m in METHODS if DOMAINS[m] == "real"])
def test_other_transforms_take_losses_of_any_sign(spec):
    loop = Loop(spec)
    for losses in ([-1.0, 0.0, 2.0], [-30.0, -2.0, 0.5]):
        weights = loop.step(losses)
        assert (weights > 0).all()
        assert weights.isfinite().all()


# A loss of exactly 0 (a hinge, an absolute error within a margin, an interpolated sample).
ZEROS = (
    [1.0, 0.0, 2.0],
    [0.0, 0.0, 0.5],
    [0.0, 0.0, 0.0],
    [0.5, 1.0, 0.0],
)


@pytest.mark.parametrize("after", [None, [0.0, 0.0, 0.0]], ids=["same", "all zero"])
@pytest.mark.parametrize("spec", ["uw", "imtl-l", "dwa", "dwa(window=1)", "famo", "grad-norm", "grad-norm(a=-2.0)"])
def test_a_loss_of_zero_is_taken_where_the_formula_allows_it(spec, after):
    loop = Loop(spec)
    gradients = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for losses in ZEROS:
        weights = loop.step(losses, gradients, after)
        loop.end_epoch(losses)
        assert weights.isfinite().all()
        assert (weights >= 0).all()
        assert weights.sum() > 0
    for name, value in states(loop).items():
        assert not (name.startswith("transform") and value.isnan().any()), name


def test_a_loss_that_was_zero_and_is_not_any_more_takes_the_weight():
    loop = Loop("dwa")
    for means in ([1.0, 0.0, 1.0], [1.0, 0.5, 2.0]):
        loop.end_epoch(means)
    assert_close(loop.step([1.0, 1.0, 1.0]), torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64))


def test_a_task_whose_first_loss_is_zero_takes_the_next_as_its_first():
    loop = Loop("grad-norm")
    for losses in ([1.0, 0.0, 2.0], [1.0, 3.0, 2.0], [1.0, 4.0, 2.0]):
        loop.step(losses, torch.eye(3))
    assert loop.transform.first.tolist() == [1.0, 3.0, 2.0]


@pytest.mark.parametrize("mu", [0.25, 1.0])
def test_after_its_warm_up_the_smooth_maximum_takes_a_loss_of_zero(mu):
    def weights(zero):
        loop = Loop(f"stch(mu={mu}, warmup=0)")
        loop.end_epoch([2.0, 4.0, 1.0])
        return loop.step([1.0, zero, 2.0])

    found = weights(0.0)
    assert_close(found, weights(1e-12), rtol=1e-9, atol=1e-9)  # the limit
    ratios = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64) ** (1 / mu)
    expected = 3 * ratios / ratios.sum() / torch.tensor([1.0, 1.0, 2.0])
    if mu == 1.0:
        expected[1] = 3 / 4.0 / ratios.sum()
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("spec", "losses", "ended"),
    [
        ("stch(warmup=0)", [1.0, 0.0, 2.0], 0),  # the warm-up takes logarithms
        ("stch(warmup=0, mu=2.0)", [1.0, 0.0, 2.0], 1),  # 1 / sqrt(L)
        ("stch(warmup=0)", [0.0, 0.0, 0.0], 1),  # the logarithm of nothing but 0
    ],
)
def test_the_smooth_maximum_refuses_a_zero_that_it_takes_a_logarithm_of(spec, losses, ended):
    loop = Loop(spec)
    for _ in range(ended):
        loop.end_epoch([1.0, 1.0, 1.0])
    with pytest.raises(NonPositiveLoss, match="above 0"):
        loop.step(losses)


@pytest.mark.parametrize(
    "spec", ["si(scale='spread', bound=1.0)", "rlw(bound=1.0)", "stch(log=False, mu=1.0, bound=1.0)"]
)
def test_a_bound_without_an_effect_is_refused(spec):
    with pytest.raises(ValueError, match="bound has no effect"):
        balancer(spec)


@pytest.mark.parametrize("spec", NEED_A_BOUND)
def test_a_bound_is_subtracted_everywhere(spec):
    losses, after, gradients = script(3)
    made = type(balancer(spec).transform)
    options = balancer(spec).transform.given
    weights = train(Loop(balancer(made(**options))), losses, after, gradients)
    lower = train(Loop(balancer(made(**options, bound=-4.0))), losses - 4, after - 4, gradients)
    assert_close(lower, weights, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spec", METHODS)
def test_global_generators_are_neither_read_nor_moved(spec):
    def draws():
        return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002

    torch.manual_seed(1)
    first, before = train(Loop(spec), *script(3)), draws()
    torch.manual_seed(2)
    again = train(Loop(spec), *script(3))
    assert torch.equal(first, again)
    torch.manual_seed(1)
    for one, other in zip(draws(), before, strict=True):
        assert np.array_equal(one, other) if isinstance(one, np.ndarray | torch.Tensor) else one == other
    train(Loop(spec), *script(3))
    assert torch.equal(torch.get_rng_state(), before[0])


@pytest.mark.parametrize("spec", METHODS)
def test_the_string_form_reads_back(spec):
    made = balancer(spec)
    assert str(made).split("(")[0] == spec.split("(")[0]
    assert balancer(str(made)).transform.given == made.transform.given
    plain = SLOTS[spec.split("(")[0]]
    assert plain.paper
    assert plain.cost
    assert plain.__doc__
    assert plain.__doc__.splitlines()[0].rstrip().endswith(".")
    if "mu" not in spec:
        assert str(balancer(plain.name)) == plain.name


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("stch(log=False)", "must be given"),
        ("stch(ideal={'a': 1.0})", "give bound"),
        ("excess-mtl >> last-layer", "use 'full'"),
    ],
)
def test_what_makes_no_sense_is_refused(spec, says):
    with pytest.raises(ValueError, match=says):
        balancer(spec)


@pytest.mark.parametrize("spec", METHODS)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(spec, tmp_path):
    def start(seed):
        torch.manual_seed(seed)
        return bmtl.BalancedSVI(Regressions(), nothing, partial(torch.optim.Adam, lr=0.05), spec)

    def run(svi, steps):
        for t in steps:
            x, y = batch(seed=t)
            if t % 3 == 1:
                y["b"][:] = NAN  # absent now and then
            svi.step(x, y)
            if t % 4 == 3:
                svi.end_epoch()

    whole, half = start(0), start(0)
    run(whole, range(14))
    run(half, range(7))
    torch.save(half.state_dict(), tmp_path / "state.pt")
    resumed = start(1)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run(resumed, range(7, 14))

    for one, other in zip(whole.history, resumed.history, strict=True):
        assert_close(one.weights, other.weights, rtol=0, atol=0, equal_nan=True)
    assert_equal(whole.state_dict()["module"], resumed.state_dict()["module"])
    assert_equal(whole.state_dict()["balancer"], resumed.state_dict()["balancer"])


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_equal(value, other[name])
        elif isinstance(value, torch.Tensor):
            assert_close(value, other[name], rtol=0, atol=0, equal_nan=True, msg=name)
        else:
            assert value == other[name], name
