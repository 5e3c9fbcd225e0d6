import collections
import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import Full, LastLayer, Solution, Weighting, balancer
from bmtl.inference.halves import split

N, B = 64, 8
TASKS = ("a", "b")


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


class Listen(Weighting):
    """Equal weights; keeps what was measured."""

    name, needs = "listen", "cross"

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, m, ctx):
        self.seen.append(m)
        return Solution(torch.ones(len(m.G), dtype=torch.float64))


class Lines(PyroModule):
    """A trunk and K scalar-output heads; a head is a parameter, or a latent at its prior."""

    def __init__(self, bayesian, n_data=N):
        super().__init__()
        self.bayesian, self.n_data = bayesian, n_data
        self.trunk = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
        self.heads = nn.ParameterDict({name: nn.Parameter(torch.randn(3)) for name in TASKS})

    def forward(self, x, y):
        h = bmtl.shared(self.trunk(x))
        for name, loc in self.heads.items():
            with bmtl.task(name):
                w = pyro.sample(f"w_{name}", dist.Normal(torch.zeros(3), 1.0).to_event(1)) if self.bayesian else loc
                with pyro.plate(f"{name}_rows", self.n_data, subsample=x):
                    bmtl.observe(f"y_{name}", dist.Normal(h @ w, 1.0), y[name])


class Heads(PyroModule):
    """Normals around the model's numbers, of a wide spread."""

    spread = 0.7

    def __init__(self, model):
        super().__init__()
        self.locs = [(name, loc.detach().clone()) for name, loc in model.heads.items()]
        self.scale = nn.Parameter(torch.tensor(self.spread))

    def forward(self, x, y):
        for name, loc in self.locs:
            pyro.sample(f"w_{name}", dist.Normal(loc, self.scale).to_event(1))


def population():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, 2, generator=generator)
    return x, {name: torch.randn(N, generator=generator) + x[:, k] for k, name in enumerate(TASKS)}


def svi_of(model, geometry, guide=None, lr=0.0, **options):
    listen = Listen()
    guide = guide or (lambda x, y: None)
    svi = bmtl.BalancedSVI(
        model, guide, functools.partial(torch.optim.SGD, lr=lr), geometry >> listen, bmtl.TaskELBO(**options)
    )
    return svi, listen


# ---- Unbiased --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_two_samples_are_unbiased_where_one_is_not(geometry, jacobian):
    bayesian = geometry == "full"  # one draw of the heads is shared by the rows: last-layer cannot take it apart
    model = Lines(bayesian)
    guide = Heads(model) if bayesian else None
    svi, listen = svi_of(model, balancer(f"{geometry}(cross=True)").geometry, guide)
    x, y = population()
    h = model.trunk(x)
    spread = Heads.spread if bayesian else 0.0
    # E (w'h - y)^2 / 2 over w ~ N(m, s^2 I) is ((m'h - y)^2 + s^2 |h|^2) / 2
    losses = [((h @ w - y[name]) ** 2 + spread**2 * h.square().sum(1)).mean() / 2 for name, w in model.heads.items()]
    true = jacobian(losses, list(model.trunk.parameters()))
    true = true @ true.T
    generator = torch.Generator().manual_seed(2)
    for _ in range(400):
        rows = torch.randint(N, (B,), generator=generator)  # independent examples
        svi.step(x[rows], {name: values[rows] for name, values in y.items()})
    cross, plain = (torch.stack(found) for found in ([m.cross for m in listen.seen], [m.G for m in listen.seen]))
    # Means of 400 independent draws are normal: 4 standard errors miss once in 16,000, and the seed is fixed.
    assert ((cross.mean(0) - true).abs() <= 4 * cross.std(0) / 20).all()
    bias = (plain.mean(0) - true) / (plain.std(0) / 20)
    assert (bias.diagonal() > 8).all()
    assert ((plain.mean(0) - true).diagonal() > 0.3 * true.diagonal()).all()


def test_last_layer_leaves_out_what_an_example_has_with_itself(step):
    x, heads = torch.randn(6, 3), nn.Linear(5, 2)
    last = nn.Linear(7, 5)
    trunk = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), last, nn.ReLU())

    def rows():
        return (heads(trunk(x)) - torch.arange(2)).square()  # (6, 2)

    listen = Listen()
    made = LastLayer(cross=True) >> listen
    step(made, lambda: list((heads(bmtl.shared(trunk(x))) - torch.arange(2)).square().mean(0).unbind()))
    each = torch.stack(
        [
            torch.stack(
                [
                    torch.cat([g.flatten() for g in torch.autograd.grad(rows()[r, k], list(last.parameters()))])
                    for k in range(2)
                ]
            )
            for r in range(6)
        ]
    )  # (rows, K, P)
    pairs = sum(each[r] @ each[s].T for r in range(6) for s in range(6) if r != s)
    assert_close(listen.seen[0].cross, pairs / 30)
    assert_close(listen.seen[0].G, each.mean(0) @ each.mean(0).T)


# ---- Halves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balanced", ["likelihood", "elbo"])
@pytest.mark.parametrize("discrete", [False, True])
def test_a_step_on_halves_is_the_mean_of_their_steps(balanced, discrete):
    model = Lines(bayesian=True)
    guide = Heads(model)
    if discrete:  # a score-function term

        def skewed(x, y, plain=model.forward):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))
            plain(x * (1 + z), y)

        model.forward, normal = skewed, guide.forward
        guide.p = nn.Parameter(torch.tensor(0.4))

        def forward(x, y):
            pyro.sample("z", dist.Bernoulli(guide.p))
            normal(x, y)

        guide.forward = forward
    svi, listen = svi_of(model, Full(cross=True), guide, balanced=balanced)
    x, y = population()
    x, y = x[:7], {name: values[:7] for name, values in y.items()}
    svi.initialise(x, y)
    torch.manual_seed(3)
    svi.zero_grad()
    record = svi.backward(x, y)
    found = {name: p.grad.clone() for name, p in svi.module.named_parameters() if p.grad is not None}
    svi.zero_grad()
    torch.manual_seed(3)
    totals, jacobians = [], []
    for rows in (slice(0, 4), slice(4, 7)):
        losses = svi.elbo.task_losses(model, guide, x[rows], {name: values[rows] for name, values in y.items()})
        totals.append(losses.total / N)
        terms = losses.nll + (losses.kl if balanced == "elbo" else 0.0)
        flat = [
            torch.cat([g.flatten() for g in torch.autograd.grad(t, list(model.trunk.parameters()), retain_graph=True)])
            for t in terms / N
        ]
        jacobians.append(torch.stack(flat))
    (sum(totals) / 2).backward()
    expected = {name: p.grad for name, p in svi.module.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(found[name], gradient)
    one, two = jacobians
    assert_close(listen.seen[0].cross, (one @ two.T + two @ one.T) / 2)
    assert_close(listen.seen[0].G, (one + two) @ (one + two).T / 4)
    assert record.losses.sum().item() + record.shared == pytest.approx(
        sum(totals).item() / 2 if not discrete else record.losses.sum().item() + record.shared
    )


@pytest.mark.parametrize("balanced", ["likelihood", "elbo"])
def test_a_task_with_labels_in_one_half_is_absent_and_keeps_its_prior(balanced):
    model = Lines(bayesian=True)
    guide = Heads(model)
    svi, listen = svi_of(model, Full(cross=True), guide, balanced=balanced, estimator="analytic")
    x, y = population()
    y["b"][4:8] = math.nan
    record = svi.step(x[:8], {name: values[:8] for name, values in y.items()})
    assert record.active.tolist() == [True, False]
    assert record.weights.isfinite().tolist() == [True, False]
    assert not listen.seen  # one task alone is not compared
    kl = svi.elbo.task_losses(model, guide, x[:8], {name: values[:8] for name, values in y.items()}).kl / N
    assert record.shared == pytest.approx((kl[1] if balanced == "elbo" else kl.sum()).item())
    y["a"][:4] = math.nan
    record = svi.step(x[:8], {name: values[:8] for name, values in y.items()})
    assert not record.active.any()
    assert record.shared == pytest.approx(kl.sum().item())
    assert all(p.grad is None or not p.grad.any() for p in model.trunk.parameters())


def test_steps_between_comparisons_run_once(monkeypatch):
    model = Lines(bayesian=False)
    svi, _ = svi_of(model, Full(cross=True, every=2))
    x, y = population()
    svi.initialise(x, y)
    sizes, plain = [], model.forward
    monkeypatch.setattr(model, "forward", lambda x, y: (sizes.append(len(x)), plain(x, y))[1])
    for _ in range(3):
        svi.step(x=x, y=y)
    assert sizes == [32, 32, 64, 32, 32]


@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_sdm_grad_trains_on_two_samples(geometry):
    model = Lines(bayesian=False)
    made = f"{geometry}(cross=True) >> sdm-grad"
    assert str(balancer(made)) == made
    svi = bmtl.BalancedSVI(model, lambda x, y: None, functools.partial(torch.optim.SGD, lr=0.1), made)
    x, y = population()
    records = [svi.step(x, y) for _ in range(30)]
    assert (records[-1].losses < records[0].losses).all()
    assert records[-1].alpha.sum().item() == pytest.approx(2)


def test_a_batch_is_split_along_every_tensors_first_dimension():
    Pair = collections.namedtuple("Pair", "left right")
    x, y = torch.arange(5), torch.arange(12).reshape(6, 2)
    one, two = split((x, {"y": y, "deep": [{"x": x}]}, 3), {"pair": Pair(y, None), "scale": torch.tensor(2.0)})
    (a, m, three), kwargs = one
    assert (a.tolist(), three, kwargs["scale"].item()) == ([0, 1, 2], 3, 2.0)
    assert torch.equal(m["y"], y[:3])
    assert torch.equal(kwargs["pair"].left, y[:3])
    assert kwargs["pair"].right is None
    (a, m, three), kwargs = two
    assert (a.tolist(), three) == ([3, 4], 3)
    assert torch.equal(m["deep"][0]["x"], x[3:])
    assert isinstance(kwargs["pair"], Pair)


# ---- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [((torch.zeros(1, 3),), r"a tensor of shape \(1, 3\) has fewer than two rows"), ((3, "a"), "it holds no tensor")],
)
def test_what_cannot_be_split(args, message):
    with pytest.raises(ValueError, match=message):
        split(args, {})


def two_losses(trunk, *inputs):
    heads = nn.Linear(4, 2)

    def program():
        h = [heads(bmtl.shared(trunk(x))).flatten(1) for x in inputs]
        return [h[0][:, 0].square().mean(), h[-1][:, 1].square().mean()]

    return program


@pytest.mark.parametrize(
    ("layers", "shapes", "message"),
    [
        (lambda: [nn.Linear(3, 4)], [(1, 3)], "compares examples, and the batch has one"),
        (lambda: [nn.Linear(3, 4)], [(5, 3), (5, 3)], "there are several"),
        (lambda: [nn.Linear(3, 4)], [(5, 2, 3)], "rows are the examples: .*cross=True"),
        (
            lambda: [nn.Linear(3, 2), nn.Unflatten(0, (3, 2)), nn.Flatten()],
            [(6, 3)],
            r"6 rows, and the marked .* \(3, 4\)",
        ),
        (lambda: [nn.Conv1d(2, 4, 3), nn.Flatten()], [(5, 2, 3)], "not one plain x @ W"),
    ],
)
def test_last_layer_says_which_layers_it_can_take_apart(step, layers, shapes, message):
    program = two_losses(nn.Sequential(*layers()), *map(torch.randn, shapes))
    with pytest.raises(ValueError, match=message):
        step(LastLayer(cross=True) >> Listen(), program)


def test_where_there_are_no_two_samples(step):
    with pytest.raises(ValueError, match="each example's gradient has coordinates of its own"):
        balancer("representation(cross=True) >> sdm-grad")
    with pytest.raises(ValueError, match="which bmtl.BalancedSVI makes"):
        step("full(cross=True) >> sdm-grad", two_losses(nn.Linear(3, 4), torch.randn(5, 3)))
    with pytest.raises(ValueError, match=r"use 'last-layer\(cross=True\)'"):
        balancer("last-layer >> sdm-grad")
    with pytest.raises(ValueError, match="cross is True or False, and 2 was given"):
        balancer("full(cross=2)")
