import functools
import math

import numpy as np
import pytest
import torch

import bmtl
from bmtl.inputs import PerTask
from bmtl.models import Bottleneck, mlp
from tests.models.programs import seeded, task_model

TARGETS = {"a": 0, "c": 3, "b.1": 0}  # number of classes, 0 for a real target
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


def program(targets=TARGETS, n_data=40, seed=0, latent=4, beta=1.0, **options):
    generator = seeded(seed)
    trunk = mlp(3, (6,), generator=generator)
    representation = functools.partial(Bottleneck, latent=latent, beta=beta)
    return task_model(trunk, 6, targets, n_data, representation=representation, generator=generator, **options)


@pytest.fixture
def without_spread(monkeypatch):
    """Makes z its mean."""
    monkeypatch.setattr("bmtl.models.representations.bottleneck.LEAST_VARIANCE", 1e-30)

    def of(model):
        torch.nn.init.constant_(model.representation.trunk.spread.weight, 0.0)
        torch.nn.init.constant_(model.representation.trunk.spread.bias, -60.0)
        return model

    return of


def batch(rows=20, missing=0):
    generator = seeded()
    x = torch.randn(rows, 3, generator=generator)
    y = {
        "a": torch.randn(rows, generator=generator),
        "c": torch.randint(0, 3, (rows,), generator=generator),
        "b.1": torch.randn(rows, generator=generator),
    }
    for name, empty in (("a", math.nan), ("c", -1), ("b.1", math.nan)):
        y[name][:missing] = empty
    return x, y


def losses(model, x, y, estimator="analytic", **options):
    return bmtl.TaskELBO(estimator, **options).task_losses(model, model.guide(), x, y)


def divergence(model, x, n):
    """By the formula, of all rows ``(B,)``, scaled up to n."""
    with torch.no_grad():
        mean, variance = model.representation.trunk(x)
        return 0.5 * (mean.square() + variance - variance.log() - 1).sum(-1) * n / len(x)


@pytest.mark.parametrize("classification", ["exact", "kendall"])
@pytest.mark.parametrize("noise", ["fixed", "parameter", "latent"])
@pytest.mark.parametrize("own", [False, True])
def test_every_choice_trains_and_predicts(own, noise, classification):
    x, y = batch(missing=3)
    inputs = PerTask(dict.fromkeys(TARGETS, x)) if own else x
    for balancer in ("ew", "last-layer >> nash-mtl", "full >> pcgrad"):
        model = program(noise=noise, classification=classification)
        svi = bmtl.BalancedSVI(model, model.guide(), ADAM, balancer, bmtl.TaskELBO("analytic"))
        for _ in range(2):
            record = svi.step(inputs, y)
        assert record.names == tuple(TARGETS)
        assert record.losses.isfinite().all()
        assert all(p.grad is not None and p.grad.any() for p in model.representation.parameters())
    drawn = bmtl.draw(model, svi.guide, inputs, y, num_draws=30)
    assert list(drawn.targets) == list(TARGETS)
    assert set(drawn.posterior) == {f"log_variance_{n}" for n in TARGETS if noise == "latent"}, "z is a row's own"
    assert drawn.targets["a"].epistemic.min() > 0
    np.testing.assert_allclose(drawn.targets["c"].probability.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("beta", [1e-4, 0.3, 1.0])
def test_with_common_inputs_the_kl_of_z_is_everybodys(beta):
    x, y = batch()
    found = losses(model := program(beta=beta), x, y)
    assert not found.kl.any()
    assert found.shared.item() == pytest.approx(beta * divergence(model, x, 40).sum().item(), rel=1e-5)
    assert len(found.marks.tensors) == 2


@pytest.mark.parametrize("beta", [1e-4, 0.3])
def test_with_own_inputs_the_kl_of_z_is_its_tasks(beta):
    _, y = batch()
    x = PerTask({name: torch.randn(20, 3, generator=seeded(i + 5)) for i, name in enumerate(TARGETS)})
    model = program(n_data=(n_data := {"a": 40, "c": 60, "b.1": 100}), beta=beta)
    found = losses(model, x, y)
    expected = [beta * divergence(model, x[name], n_data[name]).sum().item() for name in TARGETS]
    assert found.kl.tolist() == pytest.approx(expected, rel=1e-5)
    assert found.shared.item() == 0.0
    assert len(found.marks.tensors) == 6


def test_a_row_without_any_label_has_no_divergence():
    x, y = batch(missing=5)
    model = program()
    everything = divergence(model, x, 40)
    assert losses(model, x, y).shared.item() == pytest.approx(everything[5:].sum().item(), rel=1e-5)
    y["a"][:2] = 1.0
    found = losses(model, x, y)
    assert found.shared.item() == pytest.approx((everything[:2].sum() + everything[5:].sum()).item(), rel=1e-5)
    own = losses(model, PerTask(dict.fromkeys(TARGETS, x)), y)
    assert own.kl[1].item() == pytest.approx(everything[5:].sum().item(), rel=1e-5)


def test_drawn_kl_agrees_with_the_closed_form():
    x, y = batch()
    exact = losses(model := program(beta=0.2), x, y).shared
    torch.manual_seed(0)
    with torch.no_grad():
        options = {"num_particles": 50, "vectorize_particles": True}
        drawn = torch.stack([losses(model, x, y, "mc", **options).shared for _ in range(20)])
    assert (drawn.mean() - exact).abs() < 4 * drawn.std() / math.sqrt(len(drawn))


def test_particles_of_a_representation_without_spread_are_alike(without_spread):
    x, y = batch(missing=4)
    for options in ({}, {"classification": "kendall", "noise": "fixed"}):
        model = without_spread(program(**options))
        one, many = (losses(model, x, y, **o) for o in ({}, {"num_particles": 3, "vectorize_particles": True}))
        for field in ("nll", "counts"):
            torch.testing.assert_close(getattr(many, field), getattr(one, field), rtol=1e-4, atol=1e-4)


def test_without_spread_it_is_the_program_on_the_mean(without_spread):
    x, y = batch(missing=2)
    model = without_spread(program())

    class Mean(torch.nn.Module):
        def forward(self, x):
            return model.representation.trunk(x)[0]

    plain = task_model(Mean(), 4, TARGETS, 40)
    plain.heads.load_state_dict(model.heads.state_dict())
    expected = bmtl.TaskELBO().task_losses(plain, plain.guide(), x, y)
    torch.testing.assert_close(losses(model, x, y).nll, expected.nll, rtol=1e-4, atol=1e-4)


def test_permuting_tasks_permutes_the_losses(without_spread):
    x, y = batch()
    order = ["b.1", "c", "a"]
    model, other = without_spread(program()), without_spread(program({name: TARGETS[name] for name in order}))
    other.representation.load_state_dict(model.representation.state_dict())
    for name in order:
        other.heads.of(name)[0].load_state_dict(model.heads.of(name)[0].state_dict())
    found, again = losses(model, x, y), losses(other, x, y)
    mine, theirs = (dict(zip(t.names, t.nll.tolist(), strict=True)) for t in (found, again))
    assert mine == pytest.approx(theirs, rel=1e-4)


def test_the_spread_of_z_has_a_floor():
    """Where the likelihood outweighs the divergence, the variance would fall on until its logarithm is infinite."""
    x, y = batch()
    model = program()
    torch.nn.init.constant_(model.representation.trunk.spread.bias, -1e4)
    found = losses(model, x, y)
    assert found.shared.isfinite()
    assert found.shared < 40 * 4 * 4  # KL of a variance of 1e-3 is 3 a number
    found.total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_large_beta_forgets_x_and_a_small_one_keeps_it():
    n = 200
    x = torch.randn(n, 3, generator=seeded(1))
    y = {"a": x[:, 0] + 0.1 * torch.randn(n, generator=seeded(2)), "b": x[:, 1] - x[:, 2]}
    kept, error = {}, {}
    for beta in (1e-3, 100.0):
        model = program(dict.fromkeys(y, 0), n, beta=beta)
        optim = functools.partial(torch.optim.Adam, lr=2e-2)
        svi = bmtl.BalancedSVI(model, model.guide(), optim, elbo=bmtl.TaskELBO("analytic"))
        torch.manual_seed(0)
        for _ in range(150):
            svi.step(x, y)
        kept[beta] = divergence(model, x, n).mean().item()
        error[beta] = np.mean((bmtl.draw(model, svi.guide, x).targets["a"].mean - y["a"].numpy()) ** 2)
    assert kept[100.0] < 0.02
    assert kept[1e-3] > 2
    assert error[100.0] > 0.8 * y["a"].var().item()
    assert error[1e-3] < 0.2 * y["a"].var().item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta is above 0 and finite, and 0.0"),
        ({"beta": math.inf}, "beta is above 0"),
        ({"noise": "learnt"}, "noise is one of 'fixed', 'parameter', 'latent', 'heteroscedastic', and 'learnt'"),
        ({"n_data": {"a": 3}}, "n_data lacks the targets"),
    ],
)
def test_a_wrong_option_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        program(**options)


def test_a_wrong_batch_is_told():
    x, y = batch()
    for model, inputs, labels, message in (
        (program(), PerTask({"a": x}), y, r"x has inputs for \['a'\], and the program also has 'c', 'b.1'"),
        (program(), x, {"a": y["a"]}, r"The batch has targets \['a'\], and the program also has 'c', 'b.1'"),
        (program(), x, y | {"b.1": y["b.1"][:7]}, "'b.1' has 20 rows of inputs, and 7 labels"),
        (
            program(n_data={"a": 4, "c": 4, "b.1": 5}),
            x,
            y,
            "Targets with common inputs share each row's representation",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            losses(model, inputs, labels)
