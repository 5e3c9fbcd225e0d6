"""`TaskELBO("enum")` against Pyro's `TraceEnum_ELBO`, in value and in every gradient, and the split of its terms by task."""

import itertools
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormalMessenger
from pyro.ops.indexing import Vindex
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference import TaskELBO
from tests.inference.programs import NAN, batch, double, gradients

N_DATA = 20
PARTICLES = {"one": {}, "looped": {"num_particles": 3}, "vectorised": {"num_particles": 3, "vectorize_particles": True}}


@pytest.fixture(autouse=True)
def _float64():
    pyro.clear_param_store()
    with double():
        yield


def parameters():
    """Of the programs below: rates of K = 2 classes, and what tasks make of them."""
    generator = torch.Generator().manual_seed(3)
    sizes = {"pi": 2, "loc_a": 2, "loc_b": 2, "loc_c": 2, "rate": (2, 2), "w": 3, "q": 2, "q_w": 3, "rho": 3}
    return {name: torch.randn(size, generator=generator).requires_grad_() for name, size in sizes.items()}


def rows(x):
    return pyro.plate("rows", N_DATA, subsample=x)


def local_model(p, x, y):
    """The assignment of a row is task a's alone."""
    with rows(x):
        with bmtl.task("a"):
            z = pyro.sample("z", dist.Categorical(logits=p["pi"]), infer={"enumerate": "parallel"})
            bmtl.observe("y_a", dist.Normal(x @ p["w"] + p["loc_a"][z], 0.7), y["a"])
        with bmtl.task("b"):
            bmtl.observe("y_b", dist.Normal(x @ p["w"] + p["loc_b"][0], 1.0), y["b"])


def upstream_model(p, x, y):
    """The assignment of a row is upstream of three tasks."""
    with rows(x):
        z = pyro.sample("z", dist.Categorical(logits=p["pi"]), infer={"enumerate": "parallel"})
        for name in "abc":
            with bmtl.task(name):
                bmtl.observe(f"y_{name}", dist.Normal(x @ p["w"] + p[f"loc_{name}"][z], 0.7), y[name])


def plate_model(p, x, y):
    """The same in a task plate."""
    loc = torch.stack([p[f"loc_{name}"] for name in "abc"])
    with rows(x):
        z = pyro.sample("z", dist.Categorical(logits=p["pi"]), infer={"enumerate": "parallel"})
        with bmtl.task_plate("abc", dim=-2):
            of = Vindex(loc)[torch.arange(3)[:, None], z]
            bmtl.observe("y", dist.Normal(x @ p["w"] + of, 0.7), torch.stack([y[name] for name in "abc"]))


def local_plate_model(p, x, y):
    """Each row has an assignment in each task."""
    loc = torch.stack([p[f"loc_{name}"] for name in "abc"])
    with bmtl.task_plate("abc", dim=-2), rows(x):
        z = pyro.sample("z", dist.Categorical(logits=p["pi"]), infer={"enumerate": "parallel"})
        of = Vindex(loc)[torch.arange(3)[:, None], z]
        bmtl.observe("y", dist.Normal(x @ p["w"] + of, 0.7), torch.stack([y[name] for name in "abc"]))


def markov_model(p, x, y):
    """A hidden Markov chain over the rows, which two tasks observe."""
    rate, z = p["rate"].softmax(-1), 0
    for t in pyro.markov(range(len(x))):
        z = pyro.sample(f"z_{t}", dist.Categorical(Vindex(rate)[z]), infer={"enumerate": "parallel"})
        for name in "ab":
            with bmtl.task(name):
                bmtl.observe(f"y_{name}_{t}", dist.Normal(p[f"loc_{name}"][z], 0.7), y[name][t])


def markov_in_a_task(p, x, y):
    """Chains in a plate, task a's; a second task has no chain."""
    rate, z = p["rate"].softmax(-1), 0
    with bmtl.task("a"), pyro.plate("chains", 4, subsample_size=2, subsample=torch.tensor([1, 3])):
        for t in pyro.markov(range(3)):
            z = pyro.sample(f"z_{t}", dist.Categorical(Vindex(rate)[z]), infer={"enumerate": "parallel"})
            bmtl.observe(f"y_a_{t}", dist.Normal(p["loc_a"][z], 0.7), y["a"].reshape(2, 3)[:, t])
    with bmtl.task("b"), rows(x):
        bmtl.observe("y_b", dist.Normal(x @ p["w"], 1.0), y["b"])


def covariate_model(p, x, y):
    """A discrete covariate that some rows lack: x's first entry is positive, unknown where y a is smaller than 0."""
    known = y["a"] > 0
    with rows(x):
        s = pyro.sample("s", dist.Bernoulli(logits=p["pi"][0]), infer={"enumerate": "parallel"})
        s = torch.where(known, (x[:, 0] > 0).to(x), s)
        for name in "abc":
            with bmtl.task(name):
                bmtl.observe(f"y_{name}", dist.Normal(x @ p["w"] + p[f"loc_{name}"][s.long()], 0.7), y[name])


def guided_model(p, x, y):
    """Latents of all rows: a continuous one and one that the guide enumerates, upstream of one that the model sums out."""
    w = pyro.sample("w", dist.Normal(0.0, torch.ones(3)).to_event(1))
    c = pyro.sample("c", dist.Categorical(logits=p["pi"]))
    with bmtl.task("a"):
        v = pyro.sample("v", dist.Bernoulli(logits=p["pi"][0]))
    with rows(x):
        z = pyro.sample("z", dist.Categorical(logits=p["rate"][c]), infer={"enumerate": "parallel"})
        for name in "abc":
            with bmtl.task(name):
                shift = v if name == "a" else 0.0
                bmtl.observe(f"y_{name}", dist.Normal((x * w).sum(-1) + shift + p[f"loc_{name}"][z], 0.7), y[name])


def guided_guide(enumerate_="parallel", drawn=False):
    def guide(p, x, y):
        pyro.sample("w", dist.Normal(p["q_w"], p["rho"].exp()).to_event(1))
        infer = {} if drawn else {"enumerate": enumerate_}
        c = pyro.sample("c", dist.Categorical(logits=p["q"]), infer=infer)
        pyro.sample("v", dist.Bernoulli(logits=p["q"][c]), infer={"enumerate": enumerate_})

    return guide


def rows_guide(p, x, y):
    """Enumerates the assignment of each row, whose prior and likelihood are the upstream model's."""
    with rows(x):
        pyro.sample("z", dist.Categorical(logits=x[:, :1] * p["q"]), infer={"enumerate": "parallel"})


def mixture_prior(p, x, y):
    """The prior of a task's weight is a mixture, whose component is summed out; the rows depend on the weight alone."""
    with bmtl.task("a"):
        k = pyro.sample("k", dist.Categorical(logits=p["pi"]), infer={"enumerate": "parallel"})
        v = pyro.sample("v", dist.Normal(p["loc_a"][k], 0.5))
        with rows(x):
            bmtl.observe("y_a", dist.Normal(x[:, 0] * v, 1.0), y["a"])


def weight_guide(p, x, y):
    pyro.sample("v", dist.Normal(p["q"][0], p["rho"][0].exp()))


def several_model(p, x, y):
    """A normal latent and a coin of all tasks, of which the guide draws several values side by side."""
    v = pyro.sample("v", dist.Normal(0.0, 1.0))
    c = pyro.sample("c", dist.Bernoulli(logits=p["pi"][0]))
    with rows(x):
        for name in "ab":
            with bmtl.task(name):
                bmtl.observe(f"y_{name}", dist.Normal(x[:, 0] * v + p[f"loc_{name}"][c.long()], 0.7), y[name])


def several_guide(p, x, y):
    infer = {"enumerate": "parallel", "num_samples": 4}
    pyro.sample("v", dist.Normal(p["q"][0], p["rho"][0].exp()), infer=infer)
    pyro.sample("c", dist.Bernoulli(logits=p["q"][1]), infer=infer)


def nothing(*args):
    pass


CASES = {
    "local": (local_model, nothing),
    "upstream": (upstream_model, nothing),
    "task plate": (plate_model, nothing),
    "in the task plate": (local_plate_model, nothing),
    "markov": (markov_model, nothing),
    "markov in a task": (markov_in_a_task, nothing),
    "covariate": (covariate_model, nothing),
    "guide": (guided_model, guided_guide()),
    "guide, one after the other": (guided_model, guided_guide("sequential")),
    "guide, drawn": (guided_model, guided_guide(drawn=True)),
    "guide of rows": (upstream_model, rows_guide),
    "mixture prior": (mixture_prior, weight_guide),
    "several draws": (several_model, several_guide),
}


@pytest.mark.parametrize(
    ("case", "particles"),
    [(case, "one") for case in CASES]
    + [(case, "vectorised") for case in CASES if not case.startswith("markov")]
    + [("upstream", "looped"), ("guide", "looped")],
)
def test_the_terms_add_up_to_pyros_estimator(case, particles):
    (model, guide), options = CASES[case], PARTICLES[particles]
    p, (x, y) = parameters(), batch()
    ours, theirs = TaskELBO("enum", **options), TraceEnum_ELBO(strict_enumeration_warning=False, **options)
    for elbo in (ours, theirs):  # the nesting of plates is found in a run of its own
        elbo.loss(model, guide, p, x, y)
    torch.manual_seed(1)
    expected = theirs.differentiable_loss(model, guide, p, x, y)
    drawn = torch.get_rng_state()
    torch.manual_seed(1)
    losses = ours.task_losses(model, guide, p, x, y)
    assert torch.equal(torch.get_rng_state(), drawn), "TaskELBO must draw nothing of its own"
    assert_close(losses.total, expected, rtol=1e-12, atol=1e-12)
    if case in ("upstream", "task plate", "in the task plate", "guide"):
        assert losses.labelled.tolist() == [6, 4, 2]
    with torch.no_grad():
        torch.manual_seed(1)
        assert ours.loss(model, guide, p, x, y) == pytest.approx(expected.item(), rel=1e-12)
    terms = [*losses.nll_terms, *losses.kl_terms, losses.shared]
    if losses.score is not None:
        terms += [*losses.score.nll, *losses.score.kl, losses.score.shared]
    reference = gradients(expected, p)
    assert sum(bool(g.abs().sum() > 0) for g in reference.values()) > 1
    assert_close(gradients(sum(terms), p), reference, rtol=1e-10, atol=1e-10)


# ---- The split -------------------------------------------------------------------------------------------------------


def posterior_by_hand(p, x, y):
    """Of the upstream model's assignment: log p(z), each task's log p(y | z) where labelled, both (6, 2), and r."""
    prior = p["pi"].log_softmax(-1).expand(len(x), 2)
    each = {}
    for name in "abc":
        loc = (x @ p["w"])[:, None] + p[f"loc_{name}"]
        filled = y[name].nan_to_num()
        each[name] = dist.Normal(loc, 0.7).log_prob(filled[:, None]) * ~y[name].isnan()[:, None]
    joint = prior + sum(each.values())
    return prior, each, joint.softmax(-1), joint.logsumexp(-1)


@pytest.mark.parametrize("model", [upstream_model, plate_model])
def test_a_latent_of_several_tasks_is_split_by_its_posterior(model):
    p, (x, y) = parameters(), batch()
    losses = TaskELBO("enum").task_losses(model, nothing, p, x, y)
    prior, each, r, marginal = posterior_by_hand(p, x, y)
    r, scale = r.detach(), N_DATA / len(x)
    for k, name in enumerate("abc"):
        expected = -scale * (r * each[name]).sum()
        assert_close(losses.nll_terms[k], expected)
        assert_close(gradients(losses.nll_terms[k], p), gradients(expected, p))
        others = [f"loc_{other}" for other in "abc" if other != name]
        assert all(gradients(losses.nll_terms[k], p)[other].eq(0).all() for other in others)
    assert_close(losses.shared, scale * (r * (r.log() - prior)).sum())
    assert_close(losses.total, -scale * marginal.sum())
    assert losses.kl.eq(0).all()
    assert losses.labelled.tolist() == [6, 4, 2]
    assert_close(losses.counts, scale * losses.labelled)
    assert losses.sizes == (N_DATA,) * 3


@pytest.mark.parametrize("model", [local_model, local_plate_model])
def test_a_latent_of_one_task_is_summed_out_of_its_likelihood(model):
    p, (x, y) = parameters(), batch()
    losses = TaskELBO("enum").task_losses(model, nothing, p, x, y)
    loc = (x @ p["w"])[:, None] + p["loc_a"]
    joint = p["pi"].log_softmax(-1) + dist.Normal(loc, 0.7).log_prob(y["a"][:, None])
    assert_close(losses.nll_terms[0], -N_DATA / len(x) * joint.logsumexp(-1).sum())
    assert losses.kl.eq(0).all()
    assert losses.shared == 0
    assert losses.labelled.tolist()[:2] == [6, 4]


def test_the_split_has_no_order():
    p, (x, y) = parameters(), batch()

    def turned(p, x, y):
        with rows(x):
            z = pyro.sample("z", dist.Categorical(logits=p["pi"]), infer={"enumerate": "parallel"})
            for name in "cab":
                with bmtl.task(name):
                    bmtl.observe(f"y_{name}", dist.Normal(x @ p["w"] + p[f"loc_{name}"][z], 0.7), y[name])

    one = TaskELBO("enum").task_losses(upstream_model, nothing, p, x, y)
    other = TaskELBO("enum").task_losses(turned, nothing, p, x, y).arranged(tuple("abc"))
    assert_close(other.nll, one.nll)
    assert_close(other.shared, one.shared)


def chain_posterior(p, y):
    """Probabilities of all 2^6 paths of the chain, and the paths."""
    rate = p["rate"].log_softmax(-1)
    paths = torch.tensor(list(itertools.product(range(2), repeat=6)))
    log_p = rate[0, paths[:, 0]] + sum(rate[paths[:, t], paths[:, t + 1]] for t in range(5))
    for name in "ab":
        densities = dist.Normal(p[f"loc_{name}"][paths], 0.7).log_prob(y[name].nan_to_num())
        log_p = log_p + (densities * ~y[name].isnan()).sum(-1)
    return log_p.softmax(0), paths


def test_a_chain_is_split_by_the_posterior_of_its_paths():
    p, (x, y) = parameters(), batch()
    losses = TaskELBO("enum").task_losses(markov_model, nothing, p, x, y)
    r, paths = chain_posterior(p, y)
    for k, name in enumerate("ab"):
        densities = dist.Normal(p[f"loc_{name}"][paths], 0.7).log_prob(y[name].nan_to_num()) * ~y[name].isnan()
        assert_close(losses.nll_terms[k], -(r * densities.sum(-1)).sum())
    assert losses.shared > 0  # KL of the paths' posterior from the prior


def test_an_impossible_value_counts_nothing():
    """A transition of probability 0, and its gradient, are finite."""
    p, (x, y) = parameters(), batch()
    sparse = p | {"pi": torch.tensor([0.0, -math.inf])}
    losses = TaskELBO("enum").task_losses(upstream_model, nothing, sparse, x, y)
    known = [dist.Normal(x @ p["w"] + p[f"loc_{n}"][0], 0.7).log_prob(y[n].nan_to_num()) for n in "abc"]
    expected = torch.stack([-(d * ~y[n].isnan()).sum() * N_DATA / 6 for d, n in zip(known, "abc", strict=True)])
    assert_close(losses.nll, expected)
    assert abs(losses.shared) < 1e-12
    assert all(g.isfinite().all() for g in gradients(losses.total, p).values())


def test_tasks_of_different_sizes_each_have_their_own_assignments():
    """Pyro's estimator wants one scale for all enumerated sites; here each latent has its own."""

    def model(p, x, y, names="ab"):
        for name in names:
            with bmtl.task(name), pyro.plate(f"{name}_rows", {"a": 30, "b": 50}[name], subsample=x):
                z = pyro.sample(f"z_{name}", dist.Categorical(logits=p["pi"]), infer={"enumerate": "parallel"})
                bmtl.observe(f"y_{name}", dist.Normal(p[f"loc_{name}"][z], 0.7), y[name])

    p, (x, y) = parameters(), batch()
    both = TaskELBO("enum").task_losses(model, nothing, p, x, y)
    for k, name in enumerate("ab"):
        alone = TraceEnum_ELBO().differentiable_loss(lambda p, x, y, n=name: model(p, x, y, n), nothing, p, x, y)
        assert_close(both.nll_terms[k], alone)


# ---- Posteriors ------------------------------------------------------------------------------------------------------


def test_the_posterior_of_a_latent_is_that_of_its_values():
    p, (x, y) = parameters(), batch()
    found = bmtl.inference.discrete_posterior(upstream_model, nothing, p, x, y, num_draws=1)
    assert_close(found["z"], posterior_by_hand(p, x, y)[2].detach())
    r, paths = chain_posterior(p, y)
    chain = bmtl.inference.discrete_posterior(markov_model, nothing, p, x, y, num_draws=2)
    for t in range(6):
        assert_close(chain[f"z_{t}"][1], (r * paths[:, t]).sum().detach())
    one = bmtl.inference.discrete_posterior(upstream_model, nothing, p, x[:1], {n: v[:1] for n, v in y.items()})
    assert one["z"].shape == (1, 2)


def test_the_posterior_is_averaged_over_what_the_guide_draws_and_enumerates():
    p, (x, y) = parameters(), batch()
    with torch.no_grad():
        p["rho"].fill_(-30.0)  # the guide's draws of w are one point
    found = bmtl.inference.discrete_posterior(guided_model, guided_guide(), p, x, y, num_draws=1)
    c, v = p["q"].softmax(-1), torch.stack([1 - p["q"].sigmoid(), p["q"].sigmoid()], -1)
    expected = 0.0
    for i, j in itertools.product(range(2), repeat=2):
        joint = p["rate"][i].log_softmax(-1).expand(6, 2)
        for name in "abc":
            loc = (x @ p["q_w"])[:, None] + p[f"loc_{name}"] + (j if name == "a" else 0)
            density = dist.Normal(loc, 0.7).log_prob(y[name].nan_to_num()[:, None])
            joint = joint + density * ~y[name].isnan()[:, None]
        expected = expected + c[i] * v[i, j] * joint.softmax(-1)
    assert_close(found["z"], expected.detach())
    assert set(found) == {"z"}


# ---- Training --------------------------------------------------------------------------------------------------------


class TwoLines(nn.Module):
    """Rows are of one of two kinds, with other slopes in both tasks; which kind is not known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(1, 4)
        self.slope = nn.ParameterDict({name: nn.Parameter(torch.tensor([-1.0, 1.0])) for name in "ab"})
        self.share = nn.Parameter(torch.zeros(2))

    def forward(self, x, y=None):
        y = y or {}
        h = bmtl.shared(self.trunk(x)).sum(-1)
        with pyro.plate("rows", 200, subsample=x):
            kind = pyro.sample("kind", dist.Categorical(logits=self.share), infer={"enumerate": "parallel"})
            for name, slope in self.slope.items():
                with bmtl.task(name):
                    bmtl.observe(f"y_{name}", dist.Normal(slope[kind] * h, 0.2), y.get(name))


def lines(rows=200):
    """Data of the program: kind 0 for a quarter of the rows, and every fifth label of b missing."""
    generator = torch.Generator().manual_seed(1)
    x = 2.0 * torch.randn(rows, 1, generator=generator)
    kind = (torch.rand(rows, generator=generator) > 0.25).long()
    slope = {"a": torch.tensor([-2.0, 1.0]), "b": torch.tensor([-1.0, 2.0])}
    y = {n: v[kind] * x[:, 0] + 0.2 * torch.randn(rows, generator=generator) for n, v in slope.items()}
    y["b"][::5] = NAN
    return x, y, kind


@pytest.mark.parametrize(
    "balancer", ["ew", "uw", "full >> upgrad", "last-layer >> nash-mtl", "igb-v1 >> representation"]
)
@pytest.mark.parametrize("balanced", ["likelihood", "elbo"])
def test_a_mixture_trains_under_balancers(balancer, balanced):
    x, y, _ = lines()
    model = TwoLines()
    svi = bmtl.BalancedSVI(
        model, nothing, partial(torch.optim.Adam, lr=0.05), balancer, TaskELBO("enum", balanced=balanced)
    )
    before = svi.evaluate(x, y)
    for _ in range(3):
        record = svi.step(x, y)
    after = svi.evaluate(x, y)
    assert after.labelled.tolist() == [200, 160]
    assert (after.losses < before.losses).all()
    assert record.status == "ok"


def test_equal_weights_take_the_steps_of_pyros_estimator():
    x, y, _ = lines(20)
    one, other = TwoLines(), TwoLines()
    svi = bmtl.BalancedSVI(one, nothing, partial(torch.optim.SGD, lr=0.1), "ew", TaskELBO("enum"))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for _ in range(3):
        svi.step(x, y)
        optimizer.zero_grad()
        (TraceEnum_ELBO().differentiable_loss(other, nothing, x, y) / 200).backward()
        optimizer.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert_close(a, b)


def test_a_fitted_mixture_knows_the_kinds_and_draws_them_for_new_rows():
    x, y, kind = lines()
    model = TwoLines()
    svi = bmtl.BalancedSVI(model, nothing, partial(torch.optim.Adam, lr=0.1), "ew", TaskELBO("enum"))
    for _ in range(40):
        svi.step(x, y)
    batches = [(x[i::2], {name: labels[i::2] for name, labels in y.items()}) for i in range(2)]
    found = bmtl.fit(svi, batches, batches, max_epochs=2, progress=False)
    assert found.validation["a"][-1] < 0.5
    found = bmtl.inference.discrete_posterior(model, nothing, x, y)["kind"]
    clear = x[:, 0].abs() > 0.5
    agree = (found.argmax(-1) == kind)[clear].double().mean()
    assert max(agree, 1 - agree) > 0.99  # the kinds have no names
    # Every draw of a row has a kind of its own, although no latent is in the guide.
    drawn = bmtl.draw(model, nothing, torch.full((1, 1), 3.0), num_draws=60, seed=1).targets["a"].draws[:, 0]
    assert 0.08 < (drawn < 0).mean() < 0.45


# ---- What is refused -------------------------------------------------------------------------------------------------


def two_scales(p, x, y):
    z = pyro.sample("z", dist.Categorical(logits=p["pi"]), infer={"enumerate": "parallel"})
    with bmtl.task("a"), rows(x):
        bmtl.observe("y_a", dist.Normal(p["loc_a"][z], 0.7), y["a"])


def test_a_latent_of_all_rows_with_some_rows_is_refused():
    with pytest.raises(ValueError, match="'z' and what depends on them, 'y_a', are scaled differently"):
        TaskELBO("enum").task_losses(two_scales, nothing, parameters(), *batch())


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("estimator", ["mc", "analytic"])
def test_an_estimator_that_does_not_enumerate_names_the_one_that_does(estimator, validate):
    every = config_enumerate(upstream_model)
    with pyro.settings.context(validate_infer=validate):
        for model, guide in ((every, nothing), (upstream_model, config_enumerate(rows_guide))):
            with pytest.raises(ValueError, match=r"'z' asks for enumeration.*TaskELBO\('enum'\)"):
                TaskELBO(estimator).task_losses(model, guide, parameters(), *batch())


def test_a_latent_without_guide_or_mark_is_named():
    def model(p, x, y):
        with rows(x), bmtl.task("a"):
            z = pyro.sample("z", dist.Categorical(logits=p["pi"]))
            bmtl.observe("y_a", dist.Normal(p["loc_a"][z], 0.7), y["a"])

    with pytest.raises(ValueError, match=r"\['z'\].*infer=\{'enumerate': 'parallel'\}"):
        TaskELBO("enum").task_losses(model, nothing, parameters(), *batch())
    assert TaskELBO("enum").task_losses(config_enumerate(model), nothing, parameters(), *batch()).total > 0


def test_a_guide_that_runs_the_model_is_refused():
    with pytest.raises(ValueError, match="AutoNormalMessenger"):
        TaskELBO("enum").task_losses(mixture_prior, AutoNormalMessenger(mixture_prior), parameters(), *batch())
    with pytest.raises(ValueError, match="No latent is summed out"):
        bmtl.inference.discrete_posterior(lambda p, x, y: None, nothing, parameters(), *batch())


def test_a_model_without_sites_has_no_task():
    with pytest.raises(ValueError, match="has no task"):
        TaskELBO("enum", max_plate_nesting=0).task_losses(nothing, nothing)
