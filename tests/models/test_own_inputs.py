"""Programs on a shared trunk whose tasks have rows of their own: the domains of an image set, say."""

import functools

import pytest
import torch

import bmtl
from bmtl.inputs import PerTask
from bmtl.models import Bottleneck, CommonPriorHeads, TensorNormalHeads, mlp
from tests.models.programs import seeded, task_model

SIZES = {"amazon": 7, "dslr": 3, "web.cam": 12}
CLASSES = 4
TARGETS = dict.fromkeys(SIZES, CLASSES)
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


def rows():
    generator = seeded(1)
    x = PerTask({name: torch.randn(size, 3, generator=generator) for name, size in SIZES.items()})
    return x, {name: torch.randint(0, CLASSES, (size,), generator=generator) for name, size in SIZES.items()}


def one_table(x, y):
    """The same rows as one table, in which each has one task's label."""
    labels = {
        name: [values if other == name else torch.full_like(y[other], -1) for other in x] for name, values in y.items()
    }
    return torch.cat(list(x.values())), {name: torch.cat(parts) for name, parts in labels.items()}


def program(n_data, **parts):
    generator = seeded()
    return task_model(mlp(3, (6,), generator=generator), 6, TARGETS, n_data, generator=generator, **parts)


def common_prior(n_data, guide):
    model = program(n_data, head=CommonPriorHeads)
    return model, model.guide(guide, scale=1e-6)


def tensor_normal(n_data, guide):
    model = program(n_data, head=TensorNormalHeads)
    return model, model.guide(guide)


def bottleneck(n_data, guide):
    model = program(n_data, representation=functools.partial(Bottleneck, latent=4))
    torch.nn.init.constant_(model.representation.trunk.spread.bias, -30.0)  # of z: what is drawn is nearly its mean
    return model, model.guide()


@pytest.fixture(autouse=True)
def no_floor(monkeypatch):
    monkeypatch.setattr("bmtl.models.representations.bottleneck.LEAST_VARIANCE", 1e-30)


PROGRAMS = [
    (common_prior, "correlated"),
    (common_prior, "normal"),
    (common_prior, "point"),
    (tensor_normal, "point"),
    (bottleneck, None),
]


@pytest.mark.parametrize(("make", "guide"), PROGRAMS)
def test_rows_of_their_own_are_a_table_with_labels_missing(make, guide):
    """The same likelihoods and the same divergences, where every task's rows are all of its data."""
    x, y = rows()
    table, labels = one_table(x, y)
    elbo = bmtl.TaskELBO("analytic")
    own = elbo.task_losses(*make(SIZES, guide), x, y)
    common = elbo.task_losses(*make(len(table), guide), table, labels)
    torch.testing.assert_close(own.nll, common.nll, rtol=1e-4, atol=1e-3)
    # A row's z is everybody's in a table, and its task's where it is that task's alone.
    together = [(losses.kl.sum() + losses.shared) for losses in (own, common)]
    torch.testing.assert_close(*together, rtol=1e-5, atol=1e-3)
    assert own.counts.tolist() == list(SIZES.values())


@pytest.mark.parametrize("balancer", ["ew", "last-layer >> nash-mtl", "full >> pcgrad"])
@pytest.mark.parametrize(("make", "guide"), [*PROGRAMS[:2], (tensor_normal, "normal"), (bottleneck, None)])
def test_they_train_under_balancers_and_predict(make, guide, balancer):
    x, y = rows()
    model, posterior = make(SIZES, guide)
    svi = bmtl.BalancedSVI(model, posterior, ADAM, balancer, bmtl.TaskELBO("analytic", normalize="task_mean"))
    torch.manual_seed(0)
    losses = torch.stack([svi.step(x, y).losses for _ in range(20)])
    assert svi.names == tuple(SIZES)
    assert (losses[-5:].mean(0) < losses[:5].mean(0)).all()
    drawn = bmtl.draw(model, posterior, x, y, num_draws=5)
    for name, size in SIZES.items():
        assert drawn.targets[name].probability.shape == (size, CLASSES)
        assert drawn.targets[name].log_likelihood.shape == (5, size)
