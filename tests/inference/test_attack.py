import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bmtl
from bmtl.inference.attack import fgsm, robustness
from bmtl.inference.log_probabilities import log_probabilities
from bmtl.inference.posterior_draws import PosteriorDraws
from bmtl.inputs import PerTask
from bmtl.models import mlp
from bmtl.models.likelihoods import Categorical
from bmtl.models.vmtl import vmtl_preset
from tests.inference.programs import task_model
from tests.kinds_of_input import KINDS, WIDTH, features, table

ROWS, CLASSES = 15, 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def classes():
    return {task: Categorical(CLASSES, "fixed") for task in "ab"}


@pytest.fixture(scope="module")
def inputs():
    """Each task's own rows and labels, and training rows of the same law."""
    x = PerTask({"a": torch.randn(ROWS, 4, generator=seeded(1)), "b": torch.randn(ROWS - 4, 4, generator=seeded(2))})
    y = {task: torch.randint(CLASSES, (len(part),), generator=seeded(3)) for task, part in x.items()}
    train = PerTask({task: torch.randn(40, 4, generator=seeded(4 + i)) for i, task in enumerate(x)})
    return x, y, train


@pytest.fixture(scope="module")
def fitted():
    model = vmtl_preset("VBMTL", 4, classes(), 20, widths=(8,), latent=5, scale_w=1.0, generator=seeded())
    with torch.no_grad():
        model.classifiers.loc.mul_(6.0)
    return model, model.guide()


def linear(weight):
    """A classifier without latents, ``logits = x weight``, and its guide."""

    def model(x, y=None):
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Categorical(logits=x @ weight), None if y is None else y["a"])

    return model, lambda x: None


def cross_entropy(program, x, y, **options):
    log_p = log_probabilities(*program, x, **options)
    return sum(F.nll_loss(log_p[task], y[task], reduction="sum") for task in y).item()


def test_log_probabilities_are_those_of_the_drawn_predictive(fitted, inputs):
    x, _, _ = inputs
    log_p = log_probabilities(*fitted, x, num_draws=7, seed=3)
    drawn = bmtl.draw(*fitted, x, num_draws=7, seed=3)
    for task in x:
        np.testing.assert_allclose(log_p[task].exp().detach(), drawn.targets[task].probability, rtol=1e-5)


@pytest.mark.parametrize("weights", ["mean", "gumbel"])
def test_parallel_draws_leave_the_global_generator_and_need_no_site_in_the_task_plate(weights, inputs):
    x, y, _ = inputs
    options = {"widths": (8,), "latent": 5, "support": (x, y), "attention": "all", "generator": seeded()}
    model = vmtl_preset("VMTL", 4, classes(), 20, latent_w="point", weights=weights, **options)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    log_p = log_probabilities(model, model.guide(), x, num_draws=3, parallel=True)
    assert torch.equal(torch.rand(3), expected)
    assert log_p["a"].shape == (ROWS, CLASSES)


@pytest.mark.parametrize("preset", ["VBMTL", "VMTL-mean", "BMTL"])
@pytest.mark.parametrize("common", [False, True])
def test_draws_at_once_are_of_the_same_law(preset, common, inputs):
    """Averages of 300 draws; a probability's draws spread by less than 1/2, so a difference's error is below 0.041."""
    x, y, _ = inputs
    options = {
        "widths": (8,),
        "latent": 5,
        "dropout": 0.5,
        "support": (x, y),
        "attention": "all",
        "generator": seeded(),
    }
    model = vmtl_preset(preset, 4, classes(), 20, scale_w=1.0, **options)
    with torch.no_grad():
        model.classifiers.loc.mul_(6.0)
    given = x["a"] if common else x
    one, all_ = (
        log_probabilities(model, model.guide(), given, num_draws=300, seed=seed, parallel=bool(seed)) for seed in (0, 1)
    )
    assert model.training
    for task, size in (("a", ROWS), ("b", ROWS if common else ROWS - 4)):
        assert all_[task].shape == (size, CLASSES)
        torch.testing.assert_close(all_[task].exp().sum(-1), torch.ones(size))
        assert (one[task].exp() - all_[task].exp()).abs().max() < 4 * 0.041
    for nesting in (None, 2):
        options = {"num_draws": 300, "seed": 1, "parallel": True, "max_plate_nesting": nesting}
        again = log_probabilities(model, model.guide(), given, **options)
        assert torch.equal(again["a"], all_["a"])


def test_a_latent_of_its_own_dimension_is_drawn_for_each_parallel_draw():
    """Draws at once differ from each other: their mean is no single draw's."""

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 30.0))
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Bernoulli(logits=w * x[:, 0]), None)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 30.0))

    p = log_probabilities(model, guide, torch.ones(2, 1), num_draws=400, parallel=True)["a"].exp()
    assert 0.4 < p[0, 1] < 0.6  # of one draw it is near 0 or 1
    torch.testing.assert_close(p[0], p[1])


def test_two_classes_may_be_a_bernoulli():
    def model(x, y=None):
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Bernoulli(logits=x[:, 0]), None)

    x = torch.tensor([[2.0], [-90.0]])
    log_p = log_probabilities(model, lambda x: None, x, num_draws=2)["a"]
    torch.testing.assert_close(log_p[:, 1], F.logsigmoid(x[:, 0]))
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(2))


def test_no_size_is_no_attack(fitted, inputs):
    """Even for rows outside the range of training, which clipping would move."""
    x, y, train = inputs
    far = PerTask({task: 10 * part for task, part in x.items()})
    moved = fgsm(*fitted, far, y, 0.0, train)
    assert all(torch.equal(moved[task], far[task]) for task in far)
    curve = robustness(*fitted, x, y, train, eps=(0.0,), num_draws=5, seed=1)
    drawn = bmtl.draw(*fitted, x, num_draws=5, seed=1)
    for task in x:
        assert curve.accuracy[task] == pytest.approx(
            (drawn.targets[task].probability.argmax(-1) == y[task].numpy()).mean()
        )


def test_a_linear_classifier_is_moved_by_the_sign_of_its_gradient():
    """With two classes the gradient in x is (p - 1) times the difference of the classes' weights."""
    weight = torch.tensor([[1.0, -2.0], [0.0, 3.0], [0.5, 0.2]])
    x, y = torch.randn(6, 3, generator=seeded()), torch.tensor([0, 1, 0, 1, 1, 0])
    train = torch.tensor([[-50.0, -50.0, -50.0], [50.0, 50.0, 50.0], [0.0, 10.0, 20.0]])
    scale = train.std(0, correction=0)
    other = (weight[:, 1] - weight[:, 0])[None] * torch.where(y == 0, 1.0, -1.0)[:, None]
    moved = fgsm(*linear(weight), x, {"a": y}, 0.3, train)
    torch.testing.assert_close(moved, x + 0.3 * scale * other.sign())


def test_attacks_raise_the_loss_and_stay_in_range(fitted, inputs):
    x, y, train = inputs
    low = torch.cat(list(train.values())).amin(0)
    high = torch.cat(list(train.values())).amax(0)
    losses = []
    for eps in (0.0, 0.05, 0.1):
        moved = fgsm(*fitted, x, y, eps, train, num_draws=4, seed=2)
        losses.append(cross_entropy(fitted, moved, y, num_draws=4, seed=2))
        for task, part in moved.items():
            inside = (x[task] >= low) & (x[task] <= high)
            assert ((part >= low) & (part <= high))[inside].all()
    assert losses[0] < losses[1] < losses[2]
    huge = fgsm(*fitted, x, y, 1e6, train)
    for task, part in huge.items():
        ends = torch.minimum((part - torch.minimum(low, x[task])).abs(), (part - torch.maximum(high, x[task])).abs())
        assert (ends == 0).logical_or(part == x[task]).all()


def test_the_curve_is_that_of_the_attacks_one_by_one(fitted, inputs):
    x, y, train = inputs
    curve = robustness(*fitted, x, y, train, eps=(0.0, 0.2), num_draws=4, seed=2)
    moved = fgsm(*fitted, x, y, 0.2, train, num_draws=4, seed=2)
    log_p = log_probabilities(*fitted, moved, num_draws=4, seed=2)
    for task in x:
        assert curve.nll[task][1] == pytest.approx(F.nll_loss(log_p[task], y[task]).item(), rel=1e-5)
    pooled = torch.cat(list(train.values())).numpy()
    assert curve.scale.keys() == curve.low.keys() == curve.high.keys() == {""}
    np.testing.assert_allclose(curve.scale[""], pooled.std(0), rtol=1e-5)
    np.testing.assert_array_equal(curve.low[""], pooled.min(0))
    np.testing.assert_array_equal(curve.high[""], pooled.max(0))
    assert (curve.num_draws, curve.seed, curve.eps.tolist()) == (4, 2, [0.0, 0.2])


def test_a_seed_repeats_and_nothing_else_changes(fitted, inputs):
    x, y, train = inputs
    model, guide = fitted
    model.train()
    before = torch.random.get_rng_state()
    first, again, other = (fgsm(model, guide, x, y, 0.1, train, num_draws=2, seed=s) for s in (0, 0, 1))
    assert all(torch.equal(first[task], again[task]) for task in x)
    assert any(not torch.equal(first[task], other[task]) for task in x)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(part.training for part in model.modules())
    assert model.step == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rows_without_a_label_stay_and_do_not_count(inputs):
    x, train = inputs[0]["a"], inputs[2]["a"]
    model = task_model(mlp(4, (6,), generator=seeded()), 6, {"a": 3, "b": 3}, ROWS, generator=seeded())
    y = {task: torch.randint(3, (ROWS,), generator=seeded(9)) for task in "ab"}
    y["a"][:5] = y["b"][:3] = -1
    moved = fgsm(model, model.guide(), x, y, 0.1, train)
    assert torch.equal(moved[:3], x[:3])
    assert (moved[3:] != x[3:]).any(1).all()
    curve = robustness(model, model.guide(), x, y, train, eps=(0.0,))
    log_p = log_probabilities(model, model.guide(), x)["a"][5:]
    assert curve.accuracy["a"] == pytest.approx((log_p.argmax(-1) == y["a"][5:]).double().mean().item())


def test_what_cannot_be_attacked_is_told(fitted, inputs):
    x, y, train = inputs
    for eps in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="eps is a size"):
            fgsm(*fitted, x, y, eps, train)
    with pytest.raises(ValueError, match="eps is empty"):
        robustness(*fitted, x, y, train, eps=())
    with pytest.raises(ValueError, match="num_draws"):
        log_probabilities(*fitted, x, num_draws=0)
    with pytest.raises(ValueError, match=r"\['c'\]"):
        fgsm(*fitted, x, {"c": y["a"]}, 0.1, train)
    with pytest.raises(ValueError, match=r"without a labelled row.*\['a'\]"):
        robustness(*fitted, x, {"a": torch.full((ROWS,), -1)}, train)
    model = task_model(mlp(4, (6,)), 6, {"a": 0}, ROWS)
    with pytest.raises(ValueError, match="Normal; classes are expected"):
        log_probabilities(model, model.guide(), x["a"])
    with pytest.raises(ValueError, match="predicts nothing"):
        log_probabilities(lambda x: None, lambda x: None, x)


# ---- Inputs of other kinds -------------------------------------------------------------------------------------------


class Classes(nn.Module):
    """A classifier of the features that inputs of any kind were made of, with a latent head."""

    def __init__(self):
        super().__init__()
        self.trunk = mlp(WIDTH, (6,), generator=seeded())

    def forward(self, x, y=None):
        with bmtl.task("a"):
            head = pyro.sample("head", dist.Normal(torch.zeros(6, CLASSES), 1.0).to_event(2))
            h = self.trunk(features(x).float())
            with pyro.plate("a_rows", 40, subsample=h):
                bmtl.observe("y_a", dist.Categorical(logits=h @ head), None if y is None else y["a"])


def head_guide(x):
    pyro.sample("head", dist.Normal(torch.linspace(-1, 1, 6 * CLASSES).reshape(6, CLASSES), 0.1).to_event(2))


@pytest.mark.parametrize("kind", ["dict", "named tuple", "nested"])
def test_inputs_in_several_tensors_are_moved_like_one(kind):
    """The same attack as on the table that they were cut from."""
    x, train = table(ROWS), table(40, seed=1)
    y = {"a": torch.randint(CLASSES, (ROWS,), generator=seeded())}
    program = (Classes(), head_guide)
    whole = fgsm(*program, x, y, 0.2, train, num_draws=3)
    moved = fgsm(*program, KINDS[kind](x), y, 0.2, KINDS[kind](train), num_draws=3)
    assert type(moved) is type(KINDS[kind](x))
    torch.testing.assert_close(features(moved), whole)
    one, other = (
        robustness(*program, make(x), y, make(train), eps=(0.1, 0.3), num_draws=3)
        for make in (KINDS["tensor"], KINDS[kind])
    )
    np.testing.assert_allclose(one.nll["a"], other.nll["a"], rtol=1e-5)
    np.testing.assert_allclose(np.concatenate(list(other.scale.values())), one.scale[""], rtol=1e-5)


def test_each_tasks_own_structures_pool_their_training_rows():
    x = PerTask({"a": KINDS["dict"](table(ROWS)), "b": KINDS["dict"](table(5, seed=2))})
    train = PerTask({"a": KINDS["dict"](table(20, seed=3)), "b": KINDS["dict"](table(30, seed=4))})

    def model(x, y=None):
        for task, own in x.items():
            with bmtl.task(task), pyro.plate(f"{task}_rows", len(own["drug"])):
                bmtl.observe(f"y_{task}", dist.Categorical(logits=features(own)), None)

    y = {task: torch.zeros(len(own["drug"]), dtype=torch.int64) for task, own in x.items()}
    moved = fgsm(model, lambda x: None, x, y, 0.1, train)
    pooled = torch.cat([features(own) for own in train.values()])
    size = (features(moved["b"]) - features(x["b"])).abs()
    inside = (size > 0) & (features(moved["b"]) < pooled.amax(0)) & (features(moved["b"]) > pooled.amin(0))
    torch.testing.assert_close(size[inside], (0.1 * pooled.std(0, correction=0)).expand_as(size)[inside])
    assert inside.any()
    assert isinstance(moved, PerTask)


def test_indices_and_masks_stay():
    """Padded graphs: what a mask leaves out has no gradient, and stays too."""
    x, train = KINDS["graphs"](table(ROWS)), KINDS["graphs"](table(40, seed=1))
    given = {"graph": x, "domain": torch.arange(ROWS)}

    def model(x, y=None):
        assert x["domain"].dtype == torch.int64
        with bmtl.task("a"), pyro.plate("rows", ROWS):
            bmtl.observe("y_a", dist.Categorical(logits=features(x["graph"])), None)

    y = {"a": torch.zeros(ROWS, dtype=torch.int64)}
    moved = fgsm(model, lambda x: None, given, y, 0.1, {"graph": train, "domain": torch.arange(40)})
    assert torch.equal(moved["graph"].mask, x.mask)
    assert torch.equal(moved["domain"], given["domain"])
    assert torch.equal(moved["graph"].nodes[~x.mask], x.nodes[~x.mask])
    assert (moved["graph"].nodes[x.mask] != x.nodes[x.mask]).any()


@pytest.mark.parametrize(
    ("x", "name"),
    [
        (KINDS["ragged"](table(3)), "inputs of type Ragged are not"),
        ({"molecule": KINDS["ragged"](table(3)), "dose": table(3)}, "Ragged was given"),
        (torch.zeros(3, 2, dtype=torch.int64), r"there is none in \{'x': 'torch.int64'\}"),
        ({"tokens": torch.zeros(3, 2, dtype=torch.int64), "mask": torch.ones(3, 2).bool()}, "'tokens': 'torch.int64'"),
        (PerTask({"a": table(3), "b": torch.zeros(3, dtype=torch.int64)}), r"none in \{'x': 'torch.int64'\}"),
    ],
)
def test_inputs_without_a_gradient_are_refused_by_name(x, name):
    for attack in (fgsm, robustness):
        with pytest.raises(TypeError, match=name):
            attack(
                lambda x: None, lambda x: None, x, {"a": torch.zeros(3).long()}, *([0.1] if attack is fgsm else []), x
            )


def test_training_inputs_of_another_form_are_refused():
    x, y = {"drug": table(3)}, {"a": torch.zeros(3).long()}
    for train in (table(5), {"drug": table(5)[:, :2]}, {"protein": table(5)}):
        with pytest.raises(
            ValueError, match=r"x has features of shape \{'drug': \(3,\)\}, and the training inputs have"
        ):
            fgsm(*linear(torch.eye(3)), x, y, 0.1, train)


# ---- Task plates and given draws -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [-1, -2])
def test_a_task_plate_predicts_each_tasks_classes(dim):
    x = table(4)
    logits = torch.randn(2, 4, CLASSES, generator=seeded())

    def model(x, y=None):
        rows = pyro.plate("rows", 4, dim=-3 - dim)
        with bmtl.task_plate(["a", "b"], dim=dim), rows:
            bmtl.observe("y", dist.Categorical(logits=logits if dim == -2 else logits.transpose(0, 1)), None)

    for parallel in (False, True):
        log_p = log_probabilities(model, lambda x: None, x, num_draws=2, parallel=parallel)
        for k, task in enumerate("ab"):
            torch.testing.assert_close(log_p[task], logits[k].log_softmax(-1))


def test_given_draws_are_averaged_in_order():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with bmtl.task("a"), pyro.plate("rows", len(x)):
            bmtl.observe("y_a", dist.Bernoulli(logits=w * x[:, 0]), None)

    values = torch.linspace(-2, 2, 8)
    guide = PosteriorDraws({"w": values}, chains=2)
    log_p = log_probabilities(model, guide, torch.ones(2, 1), num_draws=8)["a"]
    torch.testing.assert_close(log_p.exp()[0, 1], values.sigmoid().mean())
    two = log_probabilities(model, guide, torch.ones(2, 1), num_draws=2)["a"]
    torch.testing.assert_close(two.exp()[0, 1], values[[0, 4]].sigmoid().mean())
    with pytest.raises(ValueError, match="parallel=True .* PosteriorDraws"):
        log_probabilities(model, guide, torch.ones(2, 1), num_draws=8, parallel=True)
