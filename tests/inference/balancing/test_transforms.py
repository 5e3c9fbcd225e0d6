import functools
import math

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import EW, SI, UW, Balancer, Context, IGBv1, Objective, balancer
from bmtl.inference.errors import NonPositiveLoss
from bmtl.inference.losses import TaskTerms

steady = settings(max_examples=40)
positive = st.lists(st.floats(1e-8, 1e8), min_size=1, max_size=40)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def loss_derivatives(transform, losses, *, active=None, **context):
    """What a balancer with this transform makes of the losses' gradients, and reports as their weights."""
    active = torch.ones(len(losses), dtype=torch.bool) if active is None else torch.tensor(active)
    values = tensor(losses)[active]
    parameters = values.clone().requires_grad_()
    made = transform if isinstance(transform, Balancer) else Balancer(transform)
    names = tuple(f"t{k}" for k in range(len(active)))
    made.bind(names)
    present = tuple(name for name, here in zip(names, active.tolist(), strict=True) if here)
    seen = Objective(present, values, TaskTerms(parameters), torch.ones_like(values))
    update = made.backward(seen, Context(active, **context))
    assert_close(parameters.grad, update.weights, rtol=1e-12, atol=0)
    assert_close(update.weights_heads, update.weights)
    return update.weights


# ---- Formulas --------------------------------------------------------------------------------------------------------


@steady
@given(losses=positive)
def test_slopes_are_what_the_formulas_say(losses):
    values, k = tensor(losses), len(losses)
    assert_close(loss_derivatives(EW(), losses), torch.ones(k, dtype=torch.float64))
    assert_close(loss_derivatives(SI(), losses), 1 / values)
    assert_close(loss_derivatives(UW(s0=0.7), losses), torch.full((k,), math.exp(-0.7) / 2, dtype=torch.float64))
    assert_close(loss_derivatives(IGBv1(), losses, epoch=2), 1 / values)


@steady
@given(losses=st.lists(st.floats(-1e8, 1e8), min_size=1, max_size=10), bound=st.floats(-1e3, 1e3))
def test_equal_weights_take_any_loss_and_a_bound_moves_the_others(losses, bound):
    assert_close(loss_derivatives(EW(), losses), torch.ones(len(losses), dtype=torch.float64))
    above = [bound + 0.1 + abs(loss) for loss in losses]
    gap = tensor(above) - bound
    assert_close(loss_derivatives(SI(bound=bound), above), 1 / gap)
    moved = IGBv1(base_epoch=1, bound=bound)
    plain = IGBv1(base_epoch=1)
    for transform, shift in ((moved, 0.0), (plain, bound)):
        made = Balancer(transform)
        loss_derivatives(made, (tensor(above) - shift).tolist())
        made.end_epoch(2 * gap + bound - shift, Context(torch.ones(len(above), dtype=torch.bool)))
        # The bound shifts the base as it shifts the loss.
        assert_close(transform.base, 2 * gap)
        assert_close(loss_derivatives(made, (tensor(above) - shift).tolist(), epoch=2), 1 / gap)


def test_fixed_weights_go_by_name():
    transform = EW({"t0": 2.0, "t2": 0.0})
    assert loss_derivatives(transform, [1.0, 1.0, 1.0, 1.0]).tolist() == [2.0, 1.0, 0.0, 1.0]
    assert loss_derivatives(transform, [1.0, 1.0, 1.0, 1.0], active=[False, True, True, False]).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"Weights were given for \['z'\], and the tasks are \['a'\]"):
        EW({"z": 1.0}).bind(["a"])


@pytest.mark.parametrize("transform", [EW(), SI(), SI("spread"), UW(), IGBv1()])
def test_absent_tasks_are_a_smaller_problem(transform):
    active = [True, False, True, True]
    fresh = type(transform)(**transform.given)
    assert_close(
        loss_derivatives(transform, [2.0, 99.0, 0.5, 7.0], active=active), loss_derivatives(fresh, [2.0, 0.5, 7.0])
    )


# ---- SI --------------------------------------------------------------------------------------------------------------


@steady
@given(factors=st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3))
@pytest.mark.parametrize("geometry", ["", " >> full >> nash-mtl"])
def test_factors_on_losses_change_nothing_under_si(step, written, geometry, factors):
    theta = nn.Parameter(torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64))
    x = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def program(c):
        return [c[k] * ((x[k] @ theta) ** 2 + 1) for k in range(3)]

    step(f"si{geometry}", lambda: program([1.0, 1.0, 1.0]))
    plain = written([theta])
    step(f"si{geometry}", lambda: program(factors))
    assert_close(written([theta]), plain)


@pytest.mark.parametrize(
    ("transform", "says", "losses", "bad"),
    [
        (balancer("gls").transform, "above 0", [1.0, 0.0], 0.0),
        (IGBv1(), "that are at least 0", [1.0, -3.5], -3.5),
        (UW(), "that are at least 0", [1.0, -3.5], -3.5),
    ],
)
def test_a_loss_outside_the_domain_is_named(transform, says, losses, bad):
    with pytest.raises(NonPositiveLoss, match=rf"{says}; task 't2' gave {bad:g}\. .*bound") as caught:
        loss_derivatives(transform, [losses[0], 5.0, losses[1]], active=[True, False, True])
    assert (caught.value.task, caught.value.value) == ("t2", bad)
    assert ("fitted exactly" in str(caught.value)) == (bad == 0)


def test_the_bound_is_what_a_loss_may_reach_and_not_pass():
    assert loss_derivatives(SI(bound=-4.0), [-3.0]).item() == pytest.approx(1.0)
    assert loss_derivatives(SI(bound=-4.0), [-4.0]).item() == 0
    with pytest.raises(NonPositiveLoss, match="at least -4; task 't0' gave -4.5"):
        loss_derivatives(SI(bound=-4.0), [-4.5])


def test_a_loss_that_is_met_in_the_base_epoch_and_is_not_any_more_takes_the_weight():
    transform = IGBv1(base_epoch=1)
    transform.bind(("t0", "t1"))
    first = transform.loss_derivatives(torch.tensor([0.0, 2.0]).double(), Context(torch.ones(2).bool(), 0, 1))
    assert first.tolist() == [0, 0.5]
    transform.end_epoch(torch.tensor([0.0, 2.0]).double(), Context(torch.ones(2).bool(), 1, 1))
    later = transform.loss_derivatives(torch.tensor([0.5, 2.0]).double(), Context(torch.ones(2).bool(), 1, 2))
    assert later.tolist() == [4, 0]


@settings(steady, max_examples=15)
@given(factor=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_the_spread_is_free_of_scale_and_shift(factor, shift):
    history = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, moved = Balancer(SI("spread")), Balancer(SI("spread"))
    for row in history:
        one, other = loss_derivatives(plain, row.tolist()), loss_derivatives(moved, (factor * row + shift).tolist())
    assert_close(other * factor, one, rtol=1e-8, atol=0)
    weights = 0.99 ** torch.arange(19, -1, -1, dtype=torch.float64)
    mean = weights @ history / weights.sum()
    assert_close(one, (weights @ (history - mean) ** 2 / weights.sum()) ** -0.5)


# ---- UW --------------------------------------------------------------------------------------------------------------


def test_log_variances_settle_at_the_log_of_the_loss():
    losses = [1e-3, 0.2, 1.0, 30.0]
    made = Balancer(UW())
    loss_derivatives(made, losses)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        weights = loss_derivatives(made, losses)
        optimizer.step()
    assert_close(torch.stack(list(made.transform.s)).detach(), tensor(losses).log(), atol=1e-3, rtol=0)
    assert_close(weights, 1 / (2 * tensor(losses)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("heads", ["transform", "alpha"])
@pytest.mark.parametrize("spec", ["uw", "uw >> full >> nash-mtl", "uw >> last-layer >> nash-mtl >> sum"])
def test_log_variances_are_not_weighed(step, spec, heads):
    torch.manual_seed(0)
    trunk, x = nn.Linear(3, 4), torch.randn(6, 3)
    losses = []

    def program():
        h = bmtl.shared(trunk(x))
        rows = [(h[:, 0] - 1).square().mean(), 50 * (h[:, 1] + 3).square().mean(), h[:, 2].square().mean()]
        losses[:] = [row.item() for row in rows]
        return rows

    made = balancer(spec, heads=heads)
    made.bind(["t0", "t1", "t2"])
    for own, value in zip(made.transform.s, (0.5, -1.0, 2.0), strict=True):
        own.data.fill_(value)
    step(made, program, active=[True, True, False])
    s = tensor([0.5, -1.0])
    assert_close(
        torch.stack([own.grad for own in made.transform.s[:2]]),
        (1 - tensor(losses[:2]) * torch.exp(-s)) / 2,
        rtol=1e-5,
        atol=0,
    )
    assert made.transform.s[2].grad is None  # absent: an optimizer's momentum must not move it


@pytest.mark.parametrize(
    "factory",
    [functools.partial(torch.optim.AdamW, lr=0.1, weight_decay=0.3), functools.partial(torch.optim.SGD, lr=0.1)],
)
def test_log_variances_have_a_rate_of_their_own_and_no_decay(factory):
    svi = bmtl.BalancedSVI(*two_tasks(), factory, balancer="uw")
    svi.step(torch.ones(4, 2), {"a": torch.zeros(4), "b": torch.zeros(4)})
    model, own = svi.optimizer.param_groups
    numbers = list(svi.balancer.transform.s)
    assert own["params"] == numbers
    assert (own["lr"], own["weight_decay"]) == (0.025, 0.0)
    assert model["lr"] == 0.1
    assert not {id(p) for p in model["params"]} & {id(p) for p in numbers}


def two_tasks():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Linear(2, 3)
            self.heads = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})

        def forward(self, x, y):
            h = bmtl.shared(self.trunk(x))
            for name, head in self.heads.items():
                with bmtl.task(name):
                    bmtl.observe(f"y_{name}", dist.Normal(head(h).squeeze(-1), 1.0).to_event(1), y[name])

    return Model(), lambda x, y: None


# ---- IGBv1 -----------------------------------------------------------------------------------------------------------


def trained(losses_of_epochs, base_epoch=2):
    """An IGBv1 balancer after these epochs' mean losses (None: absent)."""
    made = Balancer(IGBv1(base_epoch))
    made.bind([f"t{k}" for k in range(len(losses_of_epochs[0]))])
    for epoch, means in enumerate(losses_of_epochs, start=1):
        mean = tensor([math.nan if m is None else m for m in means])
        made.end_epoch(mean, Context(torch.ones(len(mean), dtype=torch.bool), epoch=epoch))
    return made


@steady
@given(pairs=st.lists(st.tuples(st.floats(1e-4, 1e4), st.floats(1e-2, 50)), min_size=2, max_size=40))
def test_gaps_weigh(pairs):
    base = [b for b, _ in pairs]
    losses = [b * ratio for b, ratio in pairs]
    weights = loss_derivatives(trained([[9.0] * len(base), base]), losses, epoch=3) * tensor(losses)  # lambda
    assert weights.sum().item() == pytest.approx(len(base))
    ratios = tensor(losses) / tensor(base)
    assert_close(weights, len(base) * torch.softmax(ratios, 0))
    order = ratios.argsort()
    assert (weights[order].diff() >= -1e-12).all()


def test_losses_at_their_base_give_si():
    base = [0.3, 5.0, 1e3]
    made = trained([[1.0, 1.0, 1.0], base])
    assert_close(loss_derivatives(made, base, epoch=3), 1 / tensor(base))
    half = [b / 2 for b in base]
    assert_close(loss_derivatives(made, half, epoch=40), 1 / tensor(half))


def test_lambda_has_no_gradient():
    made, losses = trained([[1.0, 1.0], [2.0, 1.0]]), [1.0, 3.0]
    lam = 2 * torch.softmax(tensor(losses) / tensor([2.0, 1.0]), 0)
    assert_close(loss_derivatives(made, losses, epoch=3), lam / tensor(losses))
    leaf = tensor(losses).requires_grad_()
    (2 * torch.softmax(leaf / tensor([2.0, 1.0]), 0) * leaf.log()).sum().backward()
    assert not torch.allclose(leaf.grad, lam / tensor(losses))


@pytest.mark.parametrize("base_epoch", [1, 2, 4])
def test_the_base_is_the_mean_of_its_epoch_and_of_no_other(base_epoch):
    made = trained([[10.0 * epoch, 1.0] for epoch in range(1, 8)], base_epoch)
    assert made.transform.base.tolist() == [10.0 * base_epoch, 1.0]
    losses = [5.0, 1.0]
    for epoch in range(1, 8):
        ratio = tensor(losses) / tensor([10.0 * base_epoch, 1.0]) if epoch > base_epoch else torch.ones(2)
        lam = 2 * torch.softmax(ratio.double(), 0)
        assert_close(loss_derivatives(made, losses, epoch=epoch), lam / tensor(losses))


def test_a_task_unseen_in_the_base_epoch_takes_the_first_epoch_in_which_it_is_seen():
    made = trained([[1.0, 1.0, 1.0], [2.0, None, None], [9.0, 4.0, None]])
    assert made.transform.base[:2].tolist() == [2.0, 4.0]
    weights = loss_derivatives(made, [1.0, 1.0, 1.0], epoch=4)
    assert_close(weights, 3 * torch.softmax(tensor([0.5, 0.25, 1.0]), 0))  # a ratio of 1 until then
    made.end_epoch(tensor([7.0, 7.0, 8.0]), Context(torch.ones(3, dtype=torch.bool), epoch=4))
    assert made.transform.base.tolist() == [2.0, 4.0, 8.0]


def test_lambda_sums_to_the_number_of_tasks_present():
    made = trained([[1.0, 1.0, 1.0], [1.0, 2.0, 4.0]])
    weights = loss_derivatives(made, [1.0, 1.0, 1.0], active=[True, False, True], epoch=3)
    assert_close(weights, 2 * torch.softmax(tensor([1.0, 0.25]), 0))


@pytest.mark.parametrize("epochs", [[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, None]]])
def test_gaps_go_on_where_they_were_saved(tmp_path, epochs):
    made = trained(epochs)
    torch.save(made.state_dict(), tmp_path / "state.pt")
    loaded = Balancer(IGBv1())
    loaded.bind(["t0", "t1"])
    loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    more = Context(torch.ones(2, dtype=torch.bool), epoch=len(epochs) + 1)
    for one in (made, loaded):
        one.end_epoch(tensor([5.0, 6.0]), more)
    assert torch.equal(made.transform.base.nan_to_num(), loaded.transform.base.nan_to_num())
    assert torch.equal(loss_derivatives(made, [0.1, 7.0], epoch=5), loss_derivatives(loaded, [0.1, 7.0], epoch=5))


def test_igb_says_so_once_if_no_epoch_ever_ends(caplog):
    made = balancer("igb-v1")
    for at in (4_999, 5_000, 5_001):
        loss_derivatives(made, [1.0, 2.0], step=at)
    assert caplog.text.count("call BalancedSVI.end_epoch() once an epoch") == 1
    caplog.clear()
    loss_derivatives(balancer("si"), [1.0, 2.0], step=9_000)
    loss_derivatives(balancer("igb-v1"), [1.0, 2.0], step=9_000, epoch=3)
    assert not caplog.text
