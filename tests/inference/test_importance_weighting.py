"""`TaskELBO("renyi")` against Pyro's `RenyiELBO` and against the bound's definition."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO
from torch.testing import assert_close

import bmtl
from bmtl.inference import TaskELBO
from tests.inference.programs import Plate, PlateGuide, Sites, SitesGuide, batch, double, gradients, parameters_of


@pytest.fixture(autouse=True)
def _float64():
    pyro.clear_param_store()
    with double():
        yield


class Rows(torch.nn.Module):
    """A latent of each row alone: the bound has weights of each row. With `coins`, one that is not reparameterised."""

    def __init__(self, coins: bool = False) -> None:
        super().__init__()
        self.coins = coins
        torch.manual_seed(0)
        self.w, self.q = torch.nn.Linear(1, 1), torch.nn.Linear(3, 1)

    def forward(self, x, y):
        with pyro.plate("rows", 20, subsample=x):
            prior = dist.Bernoulli(0.4) if self.coins else dist.Normal(0.0, 1.0)
            z = pyro.sample("z", prior)
            with bmtl.task("a"):
                bmtl.observe("y_a", dist.Normal(self.w(z[..., None]).squeeze(-1), 0.8), y["a"])
            with bmtl.task("b"):
                bmtl.observe("y_b", dist.Normal(2 * z, 1.0), y["b"])

    def guide(self, x, y):
        with pyro.plate("rows", 20, subsample=x):
            h = self.q(x).squeeze(-1)
            pyro.sample("z", dist.Bernoulli(logits=h) if self.coins else dist.Normal(h, 0.7))


def programs():
    rows, coins = Rows(), Rows(coins=True)
    return {
        "sites": (Sites(), SitesGuide()),
        "task plate": (Plate(), PlateGuide()),
        "rows": (rows, rows.guide),
        "coins": (coins, coins.guide),
    }


def trainable(model):
    """Pyro's estimator takes gradients of programs with `pyro.param` statements alone."""

    def program(*args):
        pyro.param("none of the model's", torch.zeros(()))
        return model(*args)

    return program


@pytest.mark.parametrize("name", ["sites", "task plate", "rows", "coins"])
@pytest.mark.parametrize(
    ("alpha", "number", "vectorised"), [(0.0, 1, False), (3.0, 3, False), (0.0, 3, True), (3.0, 3, True)]
)
def test_the_terms_add_up_to_pyros_estimator(name, alpha, number, vectorised):
    (model, guide), (x, y) = programs()[name], batch()
    ours = TaskELBO("renyi", number, vectorised, alpha=alpha)
    theirs = RenyiELBO(alpha=alpha, num_particles=number, vectorize_particles=vectorised)
    for elbo in (ours, theirs):  # the nesting of plates is found in a run of its own
        elbo.loss(model, guide, x, y)
    parameters = parameters_of(model, guide if isinstance(guide, torch.nn.Module) else model)
    torch.manual_seed(1)
    expected = theirs.loss_and_grads(trainable(model), guide, x, y)
    reference = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in parameters.items()}
    torch.manual_seed(1)
    losses = ours.task_losses(model, guide, x, y)
    assert losses.total.item() == pytest.approx(expected, rel=1e-12)
    terms = [*losses.nll_terms, *losses.kl_terms, losses.shared]
    assert_close(gradients(sum(terms), parameters), reference, rtol=1e-10, atol=1e-10)
    assert losses.labelled.tolist()[:2] == [6, 4]
    assert losses.score is None


def test_the_bound_is_what_it_is_by_definition_and_tasks_share_the_weights():
    model, (x, y) = Rows(), batch()
    torch.manual_seed(2)
    losses = TaskELBO("renyi", 3, True, max_plate_nesting=1, alpha=0.0).task_losses(model, model.guide, x, y)
    torch.manual_seed(2)
    h = model.q(x).squeeze(-1)
    z = dist.Normal(h, 0.7).expand([3, 6]).rsample()
    log_a = dist.Normal(model.w(z[..., None]).squeeze(-1), 0.8).log_prob(y["a"])
    seen = ~y["b"].isnan()
    log_b = dist.Normal(2 * z, 1.0).log_prob(y["b"].nan_to_num()) * seen
    rest = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(h, 0.7).log_prob(z)
    scale = 20 / 6
    log_w = scale * (log_a + log_b + rest)  # as Pyro has it: the plate's scale is inside
    v = log_w.softmax(0)
    assert_close(losses.total, -(log_w.logsumexp(0) - math.log(3)).sum())
    assert_close(losses.nll[0], -scale * (v * log_a).sum())
    assert_close(losses.nll[1], -scale * (v * log_b).sum())


def test_more_particles_are_a_tighter_bound():
    """Of the exact log-marginal, which they never exceed in expectation; 60 estimates of each."""

    def model(x, y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with bmtl.task("a"):
            pyro.sample("y_a", dist.Normal(z, 0.5), obs=torch.tensor(1.5))

    def guide(x, y):
        pyro.sample("z", dist.Normal(0.5, 1.0))

    torch.manual_seed(0)
    exact = -dist.Normal(0.0, math.sqrt(1.25)).log_prob(torch.tensor(1.5))
    found = {}
    for number in (1, 4, 16):
        elbo = TaskELBO("renyi", number, True, max_plate_nesting=0)
        found[number] = torch.tensor([elbo.loss(model, guide, None, None) for _ in range(60)])
    means = [found[number].mean() for number in (1, 4, 16)]
    assert means[0] > means[1] > means[2] > exact - 3 * found[16].std() / 60**0.5
    assert means[2] - exact < 0.1


def test_it_trains():
    x, y = batch()
    model, guide = Sites(), SitesGuide()
    elbo = TaskELBO("renyi", 2, alpha=0.5, balanced="elbo")
    svi = bmtl.BalancedSVI(model, guide, lambda p: torch.optim.Adam(p, lr=0.05), "full >> upgrad", elbo)
    losses = [svi.step(x, y).losses.sum().item() for _ in range(6)]
    assert sum(losses[-2:]) < sum(losses[:2])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"estimator": "renyi", "alpha": 1.0}, ValueError),
        ({"estimator": "renyi", "alpha": math.inf}, ValueError),
        ({"estimator": "renyi", "alpha": "0.5"}, TypeError),
        ({"estimator": "mc", "alpha": 0.5}, ValueError),
    ],
)
def test_orders_are_checked(options, error):
    with pytest.raises(error, match="alpha"):
        TaskELBO(**options)
