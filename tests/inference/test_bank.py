"""A bank against its networks one by one, and what it refuses."""

import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.nn import PyroModule
from scipy.stats import ks_2samp
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.datasets import Batches
from bmtl.distributions import Censored, MultivariateNormal
from bmtl.inference import Bank
from bmtl.inference.bank_rows import NetworkRows
from bmtl.inference.errors import NonFinite
from bmtl.inputs import PerTask
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Categorical, Evidential, Gaussian, Heteroscedastic, NegativeBinomial
from bmtl.models.networks.dropout import Dropout
from tests.kinds_of_input import OF_TENSORS, Graphs, Ragged, features

ROWS = (70, 96, 33, 20)  # whole and broken batches, other numbers of batches, one smaller than a batch
BATCH = 32
RATES = (0.01, 0.008, 0.003, 0.02)
SEEDS = (3, 4, 3, 5)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def data(rows=ROWS, targets=("a",), dtype=torch.float64, missing=0.0):
    random = torch.Generator().manual_seed(0)

    def labels(n):
        y = torch.randn(n, generator=random, dtype=dtype)
        return torch.where(torch.rand(n, generator=random) < missing, torch.nan, y)

    return [(torch.randn(n, 3, generator=random, dtype=dtype), {t: labels(n) for t in targets}) for n in rows]


def evidential(seed, rows=70, targets=("a",), dtype=torch.float64, width=8, **options):
    random = torch.Generator().manual_seed(seed)
    trunk = mlp(3, (width,), generator=random)
    likelihoods = {target: Evidential(**options) for target in targets}
    return TaskModel(trunk, width, likelihoods, rows, generator=random).to(dtype)


def gaussian(seed, rows=70, targets=("a",), dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    likelihoods = {target: Heteroscedastic() for target in targets}
    return TaskModel(mlp(3, (8,), generator=random), 8, likelihoods, rows, generator=random).to(dtype)


def one_by_one(programs, rows, epochs, elbo=None):
    """The networks trained alone; their mean losses ``(epochs, networks, tasks)``."""
    losses = []
    for program, (x, y), lr, seed in zip(programs, rows, RATES, SEEDS, strict=False):
        optim = functools.partial(torch.optim.Adam, lr=lr)
        svi = bmtl.BalancedSVI(program, program.guide(), optim, "ew", elbo)
        batches = Batches(x, y, BATCH, seed=seed)
        curve = []
        for _ in range(epochs):
            records = [svi.step(*batch) for batch in batches]
            curve.append(torch.stack([record.losses for record in records]).mean(0))
        losses.append(torch.stack(curve))
    return torch.stack(losses, dim=1)


def bank(programs, rows, **options):
    many = len(programs)
    return Bank(programs, rows, **{"batch_size": BATCH, "lr": RATES[:many], "seeds": SEEDS[:many], **options})


def assert_alike(programs, others, tolerance):
    for program, other in zip(programs, others, strict=True):
        for (name, one), two in zip(program.named_parameters(), other.parameters(), strict=True):
            assert_close(one, two, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "options",
    [
        {"objective": "nll"},
        {"objective": "nll+mse"},
        {"objective": "nll+lipschitz"},
        {"objective": "nll+lipschitz", "threshold": "sample"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_evidential_networks_end_as_they_would_alone(options, dtype):
    """Each with its own rows, seed, learning rate, regulariser and weight."""
    rows = data(dtype=dtype)

    def programs():
        return [
            evidential(k, n, dtype=dtype, regulariser=10.0**-k, weight=1.0 + k, **options)
            for k, n in enumerate(ROWS, 1)
        ]

    together, alone = programs(), programs()
    losses = bank(together, rows).fit(4)
    assert_close(losses, one_by_one(alone, rows, 4), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert_alike(together, alone, TOLERANCE[dtype])


@pytest.mark.parametrize("make", [evidential, gaussian])
def test_two_targets_with_missing_labels_end_as_they_would_alone(make):
    targets, lengths = ("a", "b"), (70, 96, 44, 20)  # no batch lacks all labels of a target
    rows = data(lengths, targets, missing=0.3)
    together, alone = ([make(k, n, targets) for k, n in enumerate(lengths)] for _ in range(2))
    bank(together, rows).fit(3)
    one_by_one(alone, rows, 3, bmtl.TaskELBO(normalize="task_mean"))
    assert_alike(together, alone, 1e-10)


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 4), st.integers(8, 40))
def test_a_network_does_not_depend_on_its_company(order, many, batch_size):
    rows, some = data(), order[:many]
    everybody = [evidential(k, n) for k, n in enumerate(ROWS)]
    chosen = [evidential(k, ROWS[k]) for k in some]
    bank(everybody, rows, batch_size=batch_size).fit(1)
    options = {"lr": [RATES[k] for k in some], "seeds": [SEEDS[k] for k in some]}
    bank(chosen, [rows[k] for k in some], batch_size=batch_size, **options).fit(1)
    assert_alike(chosen, [everybody[k] for k in some], 1e-10)


def test_programs_and_random_state_stay_until_parameters_are_written():
    rows = data()
    programs, start = ([evidential(k, n) for k, n in enumerate(ROWS)] for _ in range(2))
    state = torch.random.get_rng_state()
    many = bank(programs, rows)
    many.epoch()
    assert_alike(programs, start, 0.0)
    many.write_back()
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(AssertionError):
        assert_alike(programs, start, 1e-3)


def test_fit_goes_on_where_it_was_and_calls_after_each_epoch():
    rows = data()
    once, twice = ([evidential(k, n) for k, n in enumerate(ROWS)] for _ in range(2))
    epochs = []
    whole = bank(once, rows).fit(3, epochs.append)
    halves = bank(twice, rows)
    parts = torch.cat([halves.fit(1), halves.fit(0), halves.fit(2)])
    assert epochs == [1, 2, 3]
    assert whole.shape == (3, 4, 2)
    assert_close(parts, whole, rtol=0, atol=0)
    assert_alike(twice, once, 0.0)


def test_what_is_read_is_what_each_program_says():
    rows, others = data(), data(rows=(5, 2, 9, 1))
    programs = [evidential(k, n) for k, n in enumerate(ROWS)]
    many = bank(programs, rows)
    many.fit(1)

    def read(trace):
        p = trace.nodes["y_a"]["fn"]
        return {"mean": p.mean, "parameters": torch.stack([p.nu, p.alpha], -1)}

    found = many.read(read, others)
    assert found["mean"].shape == (4, 9)
    assert found["parameters"].shape == (4, 9, 2)
    for k, (program, (x, y)) in enumerate(zip(programs, others, strict=True)):
        expected = read(pyro.poutine.trace(program).get_trace(x, y))
        for name, tensor in expected.items():
            assert_close(found[name][k, : len(x)], tensor.detach(), rtol=1e-12, atol=1e-12)
            assert found[name][k, len(x) :].isnan().all()


def test_frozen_parameters_and_buffers_are_each_networks_own():
    rows = data()

    def programs():
        made = []
        for k, n in enumerate(ROWS):
            program = gaussian(k, n)
            program.representation.trunk[0].weight.requires_grad_(False)
            program.representation.trunk.append(Shift(k))
            made.append(program)
        return made

    together, alone = programs(), programs()
    bank(together, rows).fit(2)
    one_by_one(alone, rows, 2)
    assert_alike(together, alone, 1e-10)
    assert_alike(together, programs(), math.inf)  # of one architecture
    first, other = (made[1].representation.trunk[0].weight for made in (together, programs()))
    assert torch.equal(first, other)
    assert [program.representation.trunk[-1].shift.item() for program in together] == [0, 1, 2, 3]


class Shift(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.register_buffer("shift", torch.tensor(float(k), dtype=torch.float64))

    def forward(self, h):
        return h + 0.1 * self.shift


def test_a_classification_with_rows_of_different_number():
    rows = [(x, {"c": (y["a"] > 0).long()}) for x, y in data()]
    rows[0][1]["c"][:10] = -1
    together, alone = ([Classes(k, n) for k, n in enumerate(ROWS)] for _ in range(2))
    bank(together, rows).fit(2)
    one_by_one(alone, rows, 2, bmtl.TaskELBO(normalize="task_mean"))
    assert_alike(together, alone, 1e-10)


class Classes(nn.Module):
    def __init__(self, seed, n_data):
        super().__init__()
        self.n_data = n_data
        self.head = mlp(3, (2,), activation=nn.Identity, generator=torch.Generator().manual_seed(seed)).double()

    def guide(self):
        return lambda *batch: None

    def forward(self, x, y):
        with pyro.plate("rows", self.n_data, subsample=x), bmtl.task("c"):
            bmtl.observe("y_c", dist.Categorical(logits=self.head(x)), y["c"])


# ---- Programs that draw random numbers ---------------------------------------------------------------------------------


class Thinned(nn.Module):
    """A linear regression of unit noise on features that dropout thins."""

    def __init__(self, rate, n_data=40, seed=0):
        super().__init__()
        self.n_data = n_data
        self.drop = nn.Dropout(rate)
        self.head = mlp(3, (1,), activation=nn.Identity, generator=torch.Generator().manual_seed(seed)).double()

    def guide(self):
        return lambda *batch: None

    def forward(self, x, y):
        with pyro.plate("rows", self.n_data, subsample=x), bmtl.task("a"):
            bmtl.observe("y_a", dist.Normal(self.head(self.drop(x)).squeeze(-1), 1.0), y["a"])


def thinned(rate=0.3, many=4, noise_seed=0, lr=0.02, **options):
    """Equal networks on equal rows: they differ in what they draw."""
    programs = [Thinned(rate) for _ in range(many)]
    options = {"lr": lr, "seeds": [3] * many, "noise_seed": noise_seed, **options}
    return bank(programs, data((40,)) * many, **options), programs


def means(trace):
    return {"mean": trace.nodes["y_a"]["fn"].mean}


def test_every_network_step_and_draw_has_random_numbers_of_its_own():
    still, _ = thinned(lr=1e-30, batch_size=40)  # which does not move, and has all rows in one batch
    losses = still.fit(3)[..., 0]
    assert len(losses.flatten().unique()) == 12
    assert losses.std() > 1e-3
    found = still.read(means, data((5,)) * 4, draws=6)["mean"]
    assert found.shape == (6, 4, 5)
    patterns = found.transpose(0, 1).reshape(4, -1)
    assert len(patterns.unique(dim=0)) == 4
    assert len(found.reshape(6, -1).unique(dim=0)) == 6
    more = still.read(means, data((5,)) * 4)["mean"]
    assert more.shape == (4, 5)
    assert not torch.equal(more, found[0])


def test_the_noise_seed_decides_and_reading_changes_nothing():
    def trained(noise_seed, look):
        many, programs = thinned(noise_seed=noise_seed)
        seen = []
        many.fit(2, (lambda _: seen.append(many.read(means, data((5,)) * 4, draws=3)["mean"])) if look else None)
        return programs, seen

    state = torch.random.get_rng_state()
    (one, seen), (again, seen_again) = trained(1, True), trained(1, True)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(9)
    assert_alike(again, one, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(seen, seen_again, strict=True))
    assert_alike(trained(1, False)[0], one, 0.0)
    with pytest.raises(AssertionError):
        assert_alike(trained(2, False)[0], one, 1e-4)


@pytest.mark.parametrize("noise_seed", [0, 7])
def test_without_dropout_nothing_is_random(noise_seed):
    (many, programs), (other, expected) = thinned(0.0, noise_seed=noise_seed), thinned(0.0)
    for program in other.programs:
        assert isinstance(program.drop, nn.Dropout)
    losses = [many.fit(2), other.fit(2)]
    assert torch.equal(*losses)
    assert_alike(programs, expected, 0.0)
    assert_alike(programs, programs[:1] * 4, 0.0)
    found = many.read(means, data((5,)) * 4, draws=2)["mean"]
    assert torch.equal(found[0], found[1])
    bare = [Thinned(0.0) for _ in range(4)]
    for program in bare:
        program.drop = nn.Identity()
    bank(bare, data((40,)) * 4, lr=0.02, seeds=[3] * 4).fit(2)
    assert_alike(programs, bare, 0.0)


def test_losses_have_the_mean_that_dropout_has():
    """With w x_j kept at probability 1 - p and divided by it: E (y - f)^2 = (y - w x)^2 + p / (1 - p) sum_j w_j^2 x_j^2."""
    rate, many = 0.3, 400
    still, programs = thinned(rate, many, lr=1e-30, batch_size=40)
    losses = still.epoch()[:, 0]
    ((x, y),) = data((40,))
    layer = programs[0].head[0]
    w, b = layer.weight[0].detach(), layer.bias.detach()
    square = (y["a"] - x @ w - b).square() + rate / (1 - rate) * x.square() @ w.square()
    expected = 0.5 * (math.log(2 * math.pi) + square).mean()
    error = losses.std() / many**0.5
    assert abs(losses.mean() - expected) < 4 * error  # seeded; 6 in 100,000 seeds lie beyond
    assert losses.var() > 0
    found = still.read(means, data((40,)) * many)["mean"]
    spread = (found - (x @ w + b)).mean(0) / (found.std(0) / many**0.5)
    assert spread.abs().max() < 4.5  # of 40 rows


def test_random_networks_end_as_they_would_alone_in_distribution():
    """Kolmogorov and Smirnov's test of the 4 trained parameters, 60 networks against 60."""
    many, epochs = 60, 2

    def banked(rate):
        together, programs = thinned(rate, many)
        together.fit(epochs)
        return ends(programs)

    def ends(programs):
        return torch.stack([torch.cat([p.detach().flatten() for p in program.parameters()]) for program in programs])

    alone = [Thinned(0.3) for _ in range(many)]
    ((x, y),) = data((40,))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for program in alone:
            svi = bmtl.BalancedSVI(program, program.guide(), functools.partial(torch.optim.Adam, lr=0.02), "ew")
            batches = Batches(x, y, BATCH, seed=3)
            for _ in range(epochs):
                for batch in batches:
                    svi.step(*batch)
    assert ks_2samp(banked(0.3), ends(alone)).pvalue.min() > 1e-3  # seeded; 4 in 1,000 seeds lie beyond
    assert ks_2samp(banked(0.1), ends(alone)).pvalue.min() < 1e-6


# ---- Inputs and labels of other kinds ----------------------------------------------------------------------------


class OfFeatures(nn.Module):
    """A line on the features that inputs were made of; the graphs' mean divides by their number of nodes."""

    def __init__(self, seed, fn=lambda f: dist.Normal(f, 1.0)):
        super().__init__()
        self.head = nn.Linear(3, 1).double()
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(seed))
        self.fn = fn

    def forward(self, x, y):
        found = features(x) / (x.mask.sum(1, keepdim=True) if isinstance(x, Graphs) else 1)
        with bmtl.task("a"), pyro.plate("rows", 40, subsample=found):
            bmtl.observe("y_a", self.fn(self.head(found).squeeze(-1)), y["a"])


def trained_on(kind, **options):
    rows = [(OF_TENSORS[kind](2 * x if kind == "graphs" else x), y) for x, y in data(missing=0.2)]
    programs = [OfFeatures(k) for k in range(4)]
    many = bank(programs, rows, **options)
    losses = many.fit(3)
    return programs, losses, many.read(means, rows)["mean"], many


@pytest.mark.parametrize("kind", [kind for kind in OF_TENSORS if kind != "tensor"])
def test_inputs_in_several_tensors_train_like_one(kind):
    """Networks of unequal length, whose rows are padded by one that has no label and divides by nothing."""
    programs, losses, seen, _ = trained_on(kind)
    expected, expected_losses, expected_seen, _ = trained_on("tensor")
    assert_alike(programs, expected, 1e-8)
    assert_close(losses, expected_losses, rtol=1e-8, atol=1e-8)
    assert_close(seen, expected_seen, rtol=1e-8, atol=1e-8, equal_nan=True)
    assert seen.isnan().any()


def test_networks_on_the_same_tensors_share_their_memory():
    ((x, y),) = data((40,))
    rows = [({"drug": x[:, :1], "protein": x[:, 1:]}, y)] * 3
    other = ({"protein": x[:, 1:].clone(), "drug": x[:, :1].clone()}, {"a": y["a"].clone()})
    found = NetworkRows([*rows, other])
    assert found.starts == [0, 0, 0, 40]
    assert {name: len(part) for name, part in found.parts.items()} == {"drug": 81, "protein": 81}
    assert torch.equal(found.parts["drug"][40:80], x[:, :1])


LABELS = {
    "intervals": (lambda f: Censored(dist.Normal(f, 1.0)), lambda y: torch.stack([y, y + 0.3], -1)),
    "vectors": (
        lambda f: MultivariateNormal(torch.stack([f, -f], -1), torch.eye(2).to(f)),
        lambda y: torch.stack([y, y.flip(0)], -1),
    ),
    "counts": (lambda f: dist.Poisson(f.exp()), lambda y: y.abs().round()),
    "classes": (lambda f: dist.Bernoulli(logits=f), lambda y: torch.where(y.isnan(), -1, (y > 0).long())),
}


@pytest.mark.filterwarnings("ignore:.*batching rule for aten..special_log_ndtr")  # torch then maps it one by one
@pytest.mark.parametrize(("fn", "labels"), LABELS.values(), ids=LABELS)
def test_labels_of_every_form_train_as_they_would_alone(fn, labels):
    rows = [(x, {"a": labels(y["a"])}) for x, y in data(missing=0.2)]
    together, alone = ([OfFeatures(k, fn) for k in range(4)] for _ in range(2))
    losses = bank(together, rows).fit(2)
    for program in alone:
        program.guide = lambda: lambda *args: None
    expected = one_by_one(alone, rows, 2, bmtl.TaskELBO(normalize="task_mean"))
    assert_close(losses, expected, rtol=1e-8, atol=1e-8)
    assert_alike(together, alone, 1e-8)


class Deep(nn.Module):
    """A trunk on named inputs."""

    def __init__(self, generator):
        super().__init__()
        self.layers = mlp(3, (6,), generator=generator)

    def forward(self, x):
        return self.layers(features(x))


def mixed(seed, labels):
    """Likelihoods of three kinds on named inputs, each with its own start and noise."""
    generator = torch.Generator().manual_seed(seed)
    likelihoods = {"a": Gaussian("parameter"), "n": NegativeBinomial("parameter"), "c": Categorical(3, "fixed")}
    return TaskModel(Deep(generator), 6, likelihoods, 70, labels=labels, generator=generator).double()


def test_task_models_of_several_likelihoods_end_as_they_would_alone():
    """Starting values from each network's own labels, a negative binomial's dispersion, rows without a label."""
    rows = []
    for x, y in data(ROWS[:2], missing=0.2):
        a = y["a"]
        n = (a.abs() * 3).round()
        rows.append((x, {"a": 3 * a + 1, "n": n.roll(1), "c": torch.where(a.isnan(), -1, (n % 3).long())}))
    together, alone = ([mixed(k, y) for k, (_, y) in enumerate(rows)] for _ in range(2))
    losses = bank(together, [({"drug": x[:, :1], "protein": x[:, 1:]}, y) for x, y in rows]).fit(3)
    expected = one_by_one(alone, rows, 3, bmtl.TaskELBO(normalize="task_mean"))
    assert_close(losses, expected, rtol=1e-8, atol=1e-8)
    assert_alike(together, alone, 1e-8)
    assert together[0].likelihoods["a"].location != together[1].likelihoods["a"].location


# ---- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "error", "what"),
    [
        (lambda x: PerTask({"a": x}), TypeError, "each task's own .PerTask. were given"),
        (lambda x: Ragged(list(x)), TypeError, "those of type Ragged are not, or not all, tensors"),
        (
            lambda x: {"molecule": Ragged(list(x)), "dose": x},
            TypeError,
            "those of type dict are not, or not all.*Ragged was",
        ),
        (lambda x: {"x": x}, ValueError, r"network 1 has \{'x': .* where network 0 has \{'drug': .*'protein'"),
        (
            lambda x: {"drug": x[:, :1], "protein": x},
            ValueError,
            r"network 1 has .*'protein': \(\(3,\), 'torch.float64'\)",
        ),
        (lambda x: {"drug": x[:, :1], "protein": x[:, 1:].float()}, ValueError, "network 1 has .*torch.float32"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_network(other, error, what):
    ((x, y),) = data((40,))
    first = ({"drug": x[:, :1], "protein": x[:, 1:]}, y)
    programs = [OfFeatures(k) for k in range(2)]
    with pytest.raises(error, match=what):
        bank(programs, [first, (other(x), y)])
    trained = bank(programs, [first, first])
    with pytest.raises(error, match=what if error is TypeError else "was trained on inputs of the form .*'drug'"):
        trained.read(means, [(other(x), y)] * 2)


def test_a_loss_that_is_not_finite_is_told_with_its_network():
    rows = data()
    rows[2][0][5] = torch.inf
    programs, start = ([evidential(k, n) for k, n in enumerate(ROWS)] for _ in range(2))
    with pytest.raises(NonFinite, match="Network 2 of the bank"):
        bank(programs, rows).fit(2)
    assert_alike(programs, start, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ({}, {"objective": "nll"}, "objectives' is .'nll', 'mse'. in network 0 and .'nll',. in network 1"),
        ({}, {"threshold": "sample"}, "threshold' is 'batch_min' in network 0"),
        ({}, {"regulariser": 0.0}, "penalised' is True in network 0 and False"),
        ({}, {"tie": True}, "'heads.layers.1.out_features' is 3 in network 0 and 2"),
        ({}, {"width": 9}, "'representation.width' is 8 in network 0 and 9"),
        ({}, {"dtype": torch.float32}, "float64"),
    ],
)
def test_programs_that_differ_in_more_than_numbers(one, other, what):
    with pytest.raises(ValueError, match=what):
        bank([evidential(0, **one), evidential(1, **other)], data()[:2])


def test_a_number_that_a_program_branches_on_must_be_the_same():
    scales = [evidential(k, min_scale=0.1 * (k + 1)) for k in range(2)]
    rates = [Thinned(0.1 * (k + 1)) for k in range(2)]
    for programs in (scales, rates):
        with pytest.raises(RuntimeError, match="data-dependent"):
            bank(programs, data((40, 40))).epoch()


def test_dropout_that_is_a_latent():
    """This library's layer in evaluation mode."""
    programs = []
    for k in range(2):
        program = gaussian(k)
        program.representation.trunk.append(Dropout(8, 0.1, "dropout_0").eval())
        programs.append(program)
    with pytest.raises(ValueError, match="without latents, and 'dropout_0' is one"):
        bank(programs, data()[:2])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"lr": 0.0}, "lr is above 0"),
        ({"lr": [0.1, math.nan]}, "lr is above 0"),
        ({"lr": [0.1]}, "'lr': 1"),
        ({"seeds": [1, 2, 3]}, "'seeds': 3"),
        ({"batch_size": 0}, "batch_size is a number of rows"),
    ],
)
def test_options_out_of_range(options, what):
    with pytest.raises(ValueError, match=what):
        bank([evidential(k) for k in range(2)], data()[:2], **options)


def test_data_that_do_not_fit():
    programs = [evidential(k) for k in range(2)]
    x, y = data()[0]
    with pytest.raises(ValueError, match="Network 1 has 70 rows of inputs and labels of {'b': 70}"):
        bank(programs, [(x, y), (x, {"b": y["a"]})])
    with pytest.raises(ValueError, match="labels of {'a': 69}"):
        bank(programs, [(x, {"a": y["a"][1:]}), (x, y)])
    with pytest.raises(ValueError, match="data of 1 were given"):
        bank(programs, [(x, y), (x, y)]).read(lambda trace: {}, [(x, y)])
    with pytest.raises(ValueError, match="draws is a number of draws, from 1, and 0 was given"):
        bank(programs, [(x, y), (x, y)]).read(lambda trace: {}, [(x, y)] * 2, draws=0)
    with pytest.raises(ValueError, match="a row each"):
        bank(programs, [(x, y), (x, y)]).read(lambda trace: {"n": trace.nodes["y_a"]["value"].sum()}, [(x, y)] * 2)


class Latent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.head = kind, nn.Linear(3, 1).double()

    def forward(self, x, y):
        if self.kind == "latent":
            pyro.sample("w", dist.Normal(0.0, 1.0))
        elif self.kind == "param":
            pyro.param("w", torch.zeros(()))
        elif self.kind == "prior":
            pyro.factor("prior", -self.head.weight.square().sum())


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("latent", "'w' is one: use BalancedSVI"),
        ("param", "'w' is a pyro.param: use BalancedSVI"),
        ("prior", "'prior' belongs to no task"),
        ("nothing", "no observed site"),
    ],
)
def test_programs_that_a_bank_does_not_train(kind, what):
    with pytest.raises(ValueError, match=what):
        bank([Latent(kind)], data()[:1])


def test_programs_are_modules_with_parameters():
    with pytest.raises(TypeError, match="modules, and function was given"):
        bank([lambda x, y: None], data()[:1])
    with pytest.raises(TypeError, match="PyroModule. Derive it from torch.nn.Module"):
        bank([nn.Sequential(PyroModule())], data()[:1])
    frozen = evidential(0).requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter to train"):
        bank([frozen], data()[:1])
    with pytest.raises(ValueError, match="R from 1"):
        bank([], [])
