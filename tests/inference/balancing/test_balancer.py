import copy
import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import EW, SI, UW, Balancer, Context, Full, IGBv1, LastLayer, NashMTL, Norm, Sum, balancer
from bmtl.inference.errors import NonFinite, NonPositiveLoss, StepError

GEOMETRIES = ["full", "last-layer"]


class Net(nn.Module):
    """K squared errors on one trunk, in float64."""

    def __init__(self, k=3, rows=6, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(k))
        self.double()
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        self.x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
        self.y = torch.randn(k, rows, generator=generator, dtype=torch.float64)
        self.factors = [1.0] * k

    def forward(self):
        h = bmtl.shared(self.trunk(self.x))
        return [
            c * (head(h).squeeze(-1) - y).square().mean()
            for c, head, y in zip(self.factors, self.heads, self.y, strict=True)
        ]

    @property
    def shared(self):
        return list(self.trunk.parameters())

    @property
    def private(self):
        return list(self.heads.parameters())


def losses_of(net):
    return torch.tensor([row.item() for row in net()], dtype=torch.float64)


def trained_igb(net, spec):
    """An IGBv1 balancer of this form that is past its base epoch."""
    made = balancer(spec)
    made.bind([f"t{k}" for k in range(len(net.heads))])
    base = losses_of(net) * torch.linspace(0.5, 2, len(net.heads)).double()
    made.end_epoch(base, Context(torch.ones(len(base), dtype=torch.bool), epoch=2))
    return made, base


# ---- Slots -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (lambda: SI() >> UW(), "si and uw are both a transform"),
        (lambda: Full() >> NashMTL() >> LastLayer(), "full and last-layer are both a geometry"),
        (lambda: NashMTL() >> NashMTL(), "nash-mtl and nash-mtl are both a weighting"),
        (lambda: (NashMTL() >> Norm()) >> (SI() >> Sum()), "norm and sum are both a length"),
    ],
)
def test_a_slot_is_chosen_at_most_once(join, message):
    with pytest.raises(ValueError, match=f"Each slot is chosen at most once, and {message}"):
        join()


def test_what_is_not_chosen_has_its_default():
    made = Balancer()
    assert (repr(made.transform), made.weighting, repr(made.geometry), repr(made.length)) == (
        "ew",
        None,
        "full",
        "as-is",
    )
    assert repr(balancer(SI() >> NashMTL()).length) == "as-is"  # the weighting's own


def test_a_balancer_keeps_to_its_tasks():
    made = balancer("si")
    made.bind(["a", "b"])
    made.bind(["a", "b"])
    with pytest.raises(ValueError, match=r"belongs to the tasks \('a', 'b'\), and the model has \('b', 'a'\)"):
        made.bind(["b", "a"])
    with pytest.raises(ValueError, match="must differ"):
        balancer("si").bind(["a", "a"])


@pytest.mark.parametrize("spec", ["ew", "uw >> full >> nash-mtl", "igb-v1"])
def test_a_state_goes_to_the_same_tasks_only(spec):
    saved, other = balancer(spec), balancer(spec)
    saved.bind(["a", "b"])
    other.bind(["a", "c"])
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"belongs to the tasks \['a', 'b'\], and this one to \['a', 'c'\]"):
        other.load_state_dict(saved.state_dict())
    for name, value in other.state_dict().items():
        assert str(value) == str(before[name])


# ---- What a step does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("heads", ["transform", "alpha"])
def test_igb_with_nash_is_the_step_written_by_hand(step, jacobian, written, geometry, heads):
    net = Net()
    made, base = trained_igb(net, f"igb-v1 >> {geometry} >> nash-mtl")
    made.heads = heads
    losses = losses_of(net)
    update = step(made, net, epoch=3)

    lam = 3 * torch.softmax(losses / base, 0)
    scaled = (lam / losses)[:, None] * jacobian(net, net.shared)  # g_k = grad lambda_k log L_k
    compared = (
        scaled if geometry == "full" else (lam / losses)[:, None] * jacobian(net, list(net.trunk[2].parameters()))
    )
    alpha = NashMTL().solve(compared @ compared.T).alpha
    head_alpha = alpha if heads == "alpha" else torch.ones(3).double()
    assert_close(written(net.shared), alpha @ scaled)
    assert_close(written(net.private), (head_alpha * lam / losses) @ jacobian(net, net.private))
    assert_close(update.alpha, alpha)
    assert_close(update.weights, alpha * lam / losses)
    assert_close(update.weights_heads, head_alpha * lam / losses)


@pytest.mark.parametrize("transform", ["ew(weights={'t1': 3.0})", "si", "uw", "igb-v1"])
def test_heads_do_not_depend_on_the_weighting(step, written, transform):
    net = Net()
    made, _ = trained_igb(net, transform)
    step(made, net, epoch=3)
    plain = written(net.private)
    for rest in (
        "full >> nash-mtl",
        "last-layer >> nash-mtl",
        "full >> nash-mtl >> sum",
        "last-layer >> nash-mtl >> norm",
    ):
        made, _ = trained_igb(net, f"{transform} >> {rest}")
        step(made, net, epoch=3)
        assert_close(written(net.private), plain)


@pytest.mark.parametrize("spec", ["si", "uw", "si >> full >> nash-mtl >> norm", "si >> last-layer >> nash-mtl >> sum"])
@pytest.mark.parametrize("heads", ["transform", "alpha"])
def test_reported_weights_are_derivatives_of_the_objective(step, jacobian, written, spec, heads):
    net = Net()
    units = torch.tensor([0.5, 2.0, 1e-3], dtype=torch.float64)  # losses are multiples of what is in the graph
    update = step(spec, net, heads=heads, units=units)
    assert_close(written(net.shared), (update.weights * units) @ jacobian(net, net.shared))
    assert_close(written(net.private), (update.weights_heads * units) @ jacobian(net, net.private))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(("length", "size"), [("sum", 3.0), ("mean", 1.0)])
def test_lengths_act_on_the_shared_update_alone(step, geometry, length, size):
    net = Net()
    update = step(f"{geometry} >> nash-mtl >> {length}", net)
    assert update.alpha.sum().item() == pytest.approx(size)
    assert (update.length, update.weights_heads.tolist()) == (length, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_update_of_nash_has_squared_length_k(step, written, geometry):
    net = Net(k=4)
    step(f"{geometry} >> nash-mtl", net)
    compared = net.shared if geometry == "full" else list(net.trunk[2].parameters())
    assert written(compared).square().sum().item() == pytest.approx(4)


# ---- Absent tasks, one task, none ------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("rest", ["", " >> norm", " >> sum"])
def test_an_absent_task_is_a_problem_of_one_task_less(step, written, geometry, rest):
    net, smaller = Net(), Net()
    del smaller.heads[1]
    smaller.y, smaller.factors = smaller.y[[0, 2]], [1.0, 1.0]
    update = step(f"si >> {geometry} >> nash-mtl{rest}", net, active=[True, False, True])
    expected = step(f"si >> {geometry} >> nash-mtl{rest}", smaller, names=["t0", "t2"])
    assert_close(update.alpha, expected.alpha)
    assert_close(update.gram, expected.gram)
    assert all(p.grad is None for p in net.heads[1].parameters())
    del net.heads[1]
    assert_close(written([*net.shared, *net.private]), written([*smaller.shared, *smaller.private]))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("rest", ["", " >> nash-mtl", " >> nash-mtl >> norm", " >> nash-mtl >> mean"])
def test_one_task_needs_no_weights(step, written, caplog, geometry, rest):
    net, made = Net(k=1), balancer(f"si >> {geometry}{rest}")
    net()[0].log().backward()
    expected = written([*net.shared, *net.private])
    for _ in range(2):
        step(made, net)
        assert_close(written([*net.shared, *net.private]), expected)
    assert not made.cut
    assert caplog.text.count("'nash-mtl' has nothing to weigh with a single task") == ("nash" in rest)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_only_task_of_a_batch_gets_the_plain_gradient(step, written, caplog, geometry):
    net = Net()
    update = step(f"si >> {geometry} >> nash-mtl", net, active=[False, True, False])
    balanced = written([*net.shared, *net.private])
    net()[1].log().backward()
    assert_close(balanced, written([*net.shared, *net.private]))
    assert_close(update.weights, 1 / losses_of(net)[[1]])
    assert not caplog.text  # the model has three


@pytest.mark.parametrize("spec", ["si", "si >> full >> nash-mtl", "si >> last-layer >> nash-mtl >> sum"])
def test_a_batch_without_a_label_leaves_the_terms_of_weight_1(step, written, spec):
    net = Net()

    def program():
        h = bmtl.shared(net.trunk(net.x))
        return [head(h).square().mean() for head in net.heads], h.square().sum() + net.trunk[0].bias.square().sum()

    program()[1].backward()
    expected = written(net.shared)
    update = step(spec, program, active=[False, False, False])
    assert_close(written(net.shared), expected)
    assert (len(update.weights), update.alpha, update.gram) == (0, None, None)
    step(spec, net, active=[False, False, False])  # and nothing at all without them
    assert all(p.grad is None for p in net.parameters())


# ---- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_stationary_point_is_an_event(step, written, geometry):
    net = Net(k=2)
    net.heads[1] = net.heads[0]
    net.y[1] = net.y[0]
    net.factors = [1.0, -0.1]
    update = step(f"{geometry} >> nash-mtl", net)
    assert update.solution.status == "stationary"
    assert update.events == ["nash-mtl: stationary"]
    assert_close(update.alpha, torch.tensor([2 / 11, 20 / 11], dtype=torch.float64))
    assert written(net.shared).norm() < 1e-8


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_zero_gradient_is_an_event_and_changes_nobody_else(step, geometry):
    net, smaller = Net(), Net()
    nn.init.zeros_(net.heads[1].weight)
    update = step(f"{geometry} >> nash-mtl", net)
    assert update.events == ["task 't1' has a zero gradient"]
    assert update.alpha[1] == 1
    del smaller.heads[1]
    smaller.y, smaller.factors = smaller.y[[0, 2]], [1.0, 1.0]
    assert_close(update.alpha[[0, 2]], step(f"{geometry} >> nash-mtl", smaller).alpha)


class Poison(torch.autograd.Function):
    """A finite value with a gradient that is not."""

    @staticmethod
    def forward(ctx, x, slope):
        ctx.slope = slope
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.slope, None


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_names_its_task(step, geometry, bad):
    net = Net()

    def program():
        rows = net()
        return [rows[0], Poison.apply(rows[1], bad), rows[2]]

    with pytest.raises(NonFinite, match="The gradient of 't1' is NaN or infinite"):
        step(f"{geometry} >> nash-mtl", program)


@pytest.mark.parametrize("spec", ["ew", "si", "full >> nash-mtl"])
def test_a_loss_that_is_not_finite_names_its_task(step, spec):
    net = Net()
    net.factors = [1.0, math.nan, math.inf]
    with pytest.raises(NonFinite, match="The loss of 't1', 't2' is NaN or infinite"):
        step(spec, net)
    assert all(p.grad is None for p in net.parameters())


def test_a_failed_step_leaves_nothing_for_the_next(step, written):
    net, made = Net(), balancer("si >> full >> nash-mtl")
    step(made, net)
    expected = written([*net.shared, *net.private])
    net.factors = [1.0, -1.0, 1.0]
    with pytest.raises(NonPositiveLoss):
        step(made, net)
    net.factors = [1.0, 1.0, 1.0]
    step(made, net)
    assert_close(written([*net.shared, *net.private]), expected)


# ---- Through BalancedSVI ---------------------------------------------------------------------------------------------


class Program(nn.Module):
    """Three Gaussian tasks of unit variance on one trunk."""

    names = ("a", "b", "c")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(5, 1) for name in self.names})

    def forward(self, x, y):
        h = bmtl.shared(self.trunk(x))
        for name, head in self.heads.items():
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                bmtl.observe(f"y_{name}", dist.Normal(head(h).squeeze(-1), 1.0), y[name])


def batch(rows=8, missing=()):
    generator = torch.Generator().manual_seed(1)
    y = {name: torch.randn(rows, generator=generator) for name in Program.names}
    for name in missing:
        y[name] = torch.full((rows,), math.nan)
    return torch.randn(rows, 3, generator=generator), y


def svi_of(spec, **options):
    return bmtl.BalancedSVI(Program(), lambda x, y: None, functools.partial(torch.optim.SGD, lr=0.1), spec, **options)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_record_tells_what_the_balancer_did(geometry):
    svi = svi_of(f"si >> {geometry} >> nash-mtl >> sum")
    record = svi.step(*batch(missing=["b"]))
    here = torch.tensor([True, False, True])
    assert (record.step, record.epoch, record.names) == (0, 1, ("a", "b", "c"))
    assert record.active.tolist() == here.tolist()
    for values in (record.losses, record.weights, record.weights_heads, record.alpha, record.gram.diagonal()):
        assert values.dtype == torch.float64
        assert values.isfinite().tolist() == here.tolist()
    assert_close(record.weights_heads[here], 1 / record.losses[here])
    assert_close(record.weights[here], record.alpha[here] / record.losses[here])
    assert record.alpha[here].sum().item() == pytest.approx(2)
    assert torch.equal(record.gram[1].nan_to_num(7), torch.full((3,), 7.0).double())
    nash = NashMTL().solve(record.gram[here][:, here]).alpha
    assert_close(record.alpha[here], 2 * nash / nash.sum())
    assert (record.status, record.length, record.events) == ("ok", "sum", ())
    assert record.residual < 1e-8
    assert record.iterations > 0
    assert {"transform", "geometry", "weighting", "backward", "elbo", "step"} <= set(record.seconds)
    assert record.seconds["step"] >= sum(
        record.seconds[slot] for slot in ("transform", "geometry", "weighting", "backward")
    )


def test_a_record_without_a_weighting_says_nothing_of_gradients():
    record = svi_of("si").step(*batch())
    assert record.alpha.isnan().all()
    assert record.gram is None
    assert math.isnan(record.residual)
    assert (record.status, record.length) == ("ok", "")
    assert_close(record.weights, 1 / record.losses)


def parameters(svi):
    return torch.cat([p.detach().reshape(-1) for p in svi.model.parameters()])


class Poisoned(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, h):
        return self.head(Poison.apply(h, math.nan))


@pytest.mark.parametrize("spec", ["ew", "full >> nash-mtl", "last-layer >> nash-mtl"])
def test_a_skipped_step_is_counted_and_changes_nothing(spec):
    raising, skipping = svi_of(spec), svi_of(spec, on_error="skip")
    for svi in (raising, skipping):
        svi.model.heads["b"] = Poisoned(svi.model.heads["b"])
        svi.initialise(*batch())
    before = parameters(skipping)
    named = "The gradient of 'b' is NaN" if "nash" in spec else "the gradient of .*trunk.* is NaN"
    with pytest.raises(NonFinite, match=named):
        raising.step(*batch())
    record = skipping.step(*batch())
    assert (record.status, skipping.skipped) == ("skipped", 1)
    assert "is NaN or infinite" in record.events[0]
    assert record.weights.isnan().all()
    assert torch.equal(parameters(skipping), before)
    assert skipping.step(*batch(missing=["b"])).status == "ok"  # training goes on
    assert not torch.equal(parameters(skipping), before)


def test_a_loss_that_a_transform_cannot_take_can_be_skipped():
    svi = svi_of("si(bound=5.0)", on_error="skip")
    assert "at least 5; task 'a' gave" in svi.step(*batch()).events[0]
    with pytest.raises(StepError, match="at least 5; task 'a' gave"):
        svi_of("si(bound=5.0)").step(*batch())


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_igb_changes_its_weights_when_the_base_epoch_ends(geometry):
    svi = svi_of(IGBv1(base_epoch=1) >> balancer(geometry) >> NashMTL())
    x, y = batch()
    first = svi.step(x, y)
    assert_close(first.weights_heads, 1 / first.losses)
    svi.end_epoch()
    second = svi.step(x, y)
    assert_close(second.weights_heads * second.losses, 3 * torch.softmax(second.losses / first.losses, 0))


def test_equal_weights_take_the_step_of_the_plain_sum():
    svi = svi_of(EW())
    x, y = batch()
    svi.initialise(x, y)
    other = copy.deepcopy(svi.model)
    svi.step(x, y)
    h = other.trunk(x)
    (sum((head(h).squeeze(-1) - y[name]).square().sum() / 2 for name, head in other.heads.items()) / len(x)).backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert_close(parameters(svi), torch.cat([p.detach().reshape(-1) for p in other.parameters()]))
