"""`TaskELBO("graph")` against Pyro's `TraceGraph_ELBO`: score terms of downstream costs, less baselines."""

import itertools
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceGraph_ELBO
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference import TaskELBO, checkpoint
from tests.inference.programs import batch, double, gradients, parameters_of


@pytest.fixture(autouse=True)
def _float64():
    pyro.clear_param_store()
    with double():
        yield


class Coins(nn.Module):
    """A coin of all tasks, a coin of task a, a coin of each row of task b, and a normal latent; of each its guide."""

    def __init__(self, baseline=None):
        super().__init__()
        torch.manual_seed(0)
        self.loc = nn.Parameter(torch.randn(3))
        self.logits = nn.ParameterDict({name: nn.Parameter(torch.randn(())) for name in ("u", "v")})
        self.rows, self.q_w = nn.Linear(3, 1), nn.Parameter(torch.randn(()))
        self.net = nn.Linear(1, 1)
        self.baseline = baseline

    def forward(self, x, y=None):
        y = y or {}
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        u = pyro.sample("u", dist.Bernoulli(0.4))
        h = bmtl.shared(x @ self.loc + u)
        with bmtl.task("a"):
            v = pyro.sample("v", dist.Bernoulli(logits=u))
            with pyro.plate("a_rows", 20, subsample=x):
                bmtl.observe("y_a", dist.Normal(h + v, 1.0), y.get("a"))
        with bmtl.task("b"), pyro.plate("b_rows", 20, subsample=x):
            c = pyro.sample("c", dist.Bernoulli(0.3))
            bmtl.observe("y_b", dist.Normal(w * c, 1.0), y.get("b"))
        with bmtl.task("c"), pyro.plate("c_rows", 20, subsample=x):
            bmtl.observe("y_c", dist.Normal(w, 1.0), y.get("c"))

    def options(self, shape=()):
        kinds = {
            None: {},
            "decaying": {"use_decaying_avg_baseline": True, "baseline_beta": 0.8},
            "value": {"baseline_value": self.net.bias.reshape(()).expand(shape)},
            "net": {"nn_baseline": lambda one: self.net(one).sum(-1), "nn_baseline_input": torch.ones(*shape, 1)},
        }
        both = kinds["decaying"] | kinds["net"]
        return {"baseline": both if self.baseline == "both" else kinds[self.baseline]}

    def guide(self, x, y=None):
        pyro.sample("w", dist.Normal(self.q_w, 0.5))
        pyro.sample("u", dist.Bernoulli(logits=self.logits["u"]), infer=self.options())
        pyro.sample("v", dist.Bernoulli(logits=self.logits["v"]), infer=self.options())
        with pyro.plate("b_rows", 20, subsample=x):
            pyro.sample("c", dist.Bernoulli(logits=self.rows(x).squeeze(-1)), infer=self.options((len(x),)))


class PlateCoins(nn.Module):
    """A coin of each task, in a task plate."""

    def __init__(self, baseline=None):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([[0.3], [-0.4], [1.0]]))
        self.baseline = baseline

    def forward(self, x, y):
        with bmtl.task_plate("abc", dim=-2):
            v = pyro.sample("v", dist.Bernoulli(torch.full((3, 1), 0.4)))
            with pyro.plate("rows", 20, subsample=x, dim=-1):
                bmtl.observe("y", dist.Normal(v + x[:, 0], 1.0), torch.stack([y[name] for name in "abc"]))

    def guide(self, x, y):
        options = {"use_decaying_avg_baseline": True} if self.baseline else {}
        with pyro.plate("task", 3, dim=-2):
            pyro.sample("v", dist.Bernoulli(logits=self.logits), infer={"baseline": options})


@pytest.mark.parametrize(
    ("kind", "baseline", "vectorised"),
    [
        *itertools.product((Coins, PlateCoins), (None, "decaying"), (False, True)),
        *itertools.product((Coins,), ("value", "net", "both"), (False,)),
    ],
)
def test_the_terms_add_up_to_pyros_estimator(kind, baseline, vectorised):
    x, y = batch()
    model = kind(baseline)
    options = {"num_particles": 2, "vectorize_particles": True} if vectorised else {}
    ours, theirs = TaskELBO("graph", max_plate_nesting=2, **options), TraceGraph_ELBO(max_plate_nesting=2, **options)
    parameters = parameters_of(model, None)

    def trainable(*args):  # Pyro's takes gradients of programs with `pyro.param` statements alone
        pyro.param("none of the model's", torch.zeros(()))
        return model(*args)

    for step in range(3):  # decaying means see what came before
        torch.manual_seed(step)
        model.zero_grad()
        expected = theirs.loss_and_grads(trainable, model.guide, x, y)
        reference = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in parameters.items()}
        torch.manual_seed(step)
        losses = ours.task_losses(model, model.guide, x, y)
        assert losses.total.item() == pytest.approx(expected, rel=1e-12)
        scores = [*losses.score.nll, *losses.score.kl, losses.score.shared]
        assert all(score == 0 for score in scores)
        terms = [*losses.nll_terms, *losses.kl_terms, losses.shared, *scores]
        assert {type(term) for term in terms} == {torch.Tensor}
        assert_close(gradients(sum(terms), parameters), reference, rtol=1e-10, atol=1e-10)


def test_a_draw_upstream_of_nothing_else_leaves_other_tasks_alone():
    model, (x, y) = Coins("decaying"), batch()
    parameters = parameters_of(model, None)
    for elbo, alone in ((TaskELBO("graph"), True), (TaskELBO("mc"), False)):
        for _ in range(2):
            losses = elbo.task_losses(model, model.guide, x, y)
        of_c = gradients(losses.score.nll[2], parameters)
        assert bool(of_c["0.logits.v"] == 0) == alone


class TwoCoins(nn.Module):
    """A coin of each of two tasks, whose costs are far from 0."""

    def __init__(self, baseline):
        super().__init__()
        self.logits, self.options = nn.Parameter(torch.tensor([0.3, -0.4])), {"use_decaying_avg_baseline": baseline}

    def forward(self):
        for name in "ab":
            with bmtl.task(name):
                v = pyro.sample(f"v_{name}", dist.Bernoulli(0.4))
                pyro.sample(f"y_{name}", dist.Normal(v, 1.0), obs=torch.tensor(3.0))

    def guide(self):
        for name, logits in zip("ab", self.logits, strict=True):
            pyro.sample(f"v_{name}", dist.Bernoulli(logits=logits), infer={"baseline": self.options})


def test_variance_falls_and_the_expectation_stays():
    """Of 90 gradients by each estimator, the means' first steps left out.

    The expectation is known. The tolerance of 4 standard errors fails once in 16,000 times for each number, and the seed is
    fixed.
    """
    q = torch.tensor([0.3, -0.4], requires_grad=True)
    logits = torch.stack([-q.sigmoid().neg().log1p().neg(), q.sigmoid().log()])  # log q of 0 and 1
    prior = torch.tensor([0.6, 0.4]).log()[:, None]
    likelihood = dist.Normal(torch.tensor([0.0, 1.0]), 1.0).log_prob(torch.tensor(3.0))[:, None]
    (exact,) = torch.autograd.grad((logits.exp() * (logits - prior - likelihood)).sum(), q)
    variance = {}
    for name, estimator, baseline in (("mc", "mc", False), ("graph", "graph", False), ("mean", "graph", True)):
        model, elbo = TwoCoins(baseline), TaskELBO(estimator)
        torch.manual_seed(5)
        draws = []
        with pyro.validation_enabled(False):
            for _ in range(110):
                draws.append(torch.autograd.grad(elbo.task_losses(model, model.guide).total, model.logits)[0])
        found = torch.stack(draws[20:])
        variance[name] = found.var(0)
        assert ((found.mean(0) - exact).abs() < 4 * (variance[name] / 90).sqrt()).all()
    assert (variance["graph"] < variance["mc"]).all()
    assert (variance["mean"] < 0.3 * variance["graph"]).all()


@pytest.mark.parametrize("balancer", ["ew", "full >> upgrad", "representation >> nash-mtl"])
def test_it_trains_under_balancers(balancer):
    x, y = batch()
    model = Coins("decaying")
    svi = bmtl.BalancedSVI(model, model.guide, partial(torch.optim.Adam, lr=0.05), balancer, TaskELBO("graph"))
    svi.evaluate(x, y)
    assert svi.elbo.averages.averages == {}  # nothing outside steps counts
    losses = [svi.step(x, y).losses.sum().item() for _ in range(8)]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert set(svi.elbo.averages.averages) == {"u||kl", "u|a|nll", "u|a|kl", "v|a|nll", "v|a|kl", "c|b|nll", "c|b|kl"}
    svi.step(x[:4], {name: labels[:4] for name, labels in y.items()})  # fewer rows than the means have


def test_means_of_baselines_are_saved_with_a_run(tmp_path):
    x, y = batch()

    def fresh():
        model = Coins("decaying")
        return bmtl.BalancedSVI(model, model.guide, partial(torch.optim.SGD, lr=0.01), "ew", TaskELBO("graph"))

    one, other = fresh(), fresh()
    torch.manual_seed(0)
    for _ in range(3):
        one.step(x, y)
    checkpoint.save(one, tmp_path / "run.pt")
    other.initialise(x, y)
    checkpoint.load(other, tmp_path / "run.pt")
    for svi in (one, other):
        torch.manual_seed(1)
        svi.step(x, y)
    for a, b in zip(one.parameters, other.parameters, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline_mean": 1.0}, r"baseline of site 'u' has the options \['baseline_mean'\]"),
        ({"baseline_value": torch.zeros(2)}, r"has the shape \(2,\)"),
        ({"baseline_value": torch.zeros(()), "nn_baseline": torch.square}, "both were given"),
    ],
)
def test_options_of_a_baseline_are_checked(options, message):
    model, (x, y) = Coins(), batch()
    model.options = lambda shape=(): {"baseline": options}
    with pytest.raises(ValueError, match=message):
        TaskELBO("graph").task_losses(model, model.guide, x, y)
