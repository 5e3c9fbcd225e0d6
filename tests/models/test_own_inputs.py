"""Programs on a shared trunk whose tasks have rows of their own: the domains of an image set, say."""

import functools

import pytest
import torch

import bmtl
from bmtl.models import BakkerHeskes, MultilinearRelationship, VariationalBottleneck, mlp

SIZES = {"amazon": 7, "dslr": 3, "web.cam": 12}
CLASSES = 4
TARGETS = dict.fromkeys(SIZES, CLASSES)
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows():
    generator = seeded(1)
    x = {name: torch.randn(size, 3, generator=generator) for name, size in SIZES.items()}
    return x, {name: torch.randint(0, CLASSES, (size,), generator=generator) for name, size in SIZES.items()}


def one_table(x, y):
    """The same rows as one table, in which each has one task's label."""
    labels = {
        name: [values if other == name else torch.full_like(y[other], -1) for other in x] for name, values in y.items()
    }
    return torch.cat(list(x.values())), {name: torch.cat(parts) for name, parts in labels.items()}


def bakker_heskes(n_data, guide):
    generator = seeded()
    model = BakkerHeskes(mlp(3, (6,), generator=generator), 6, TARGETS, n_data, generator=generator)
    return model, model.guide(guide, scale=1e-6)


def multilinear(n_data, guide):
    generator = seeded()
    model = MultilinearRelationship(mlp(3, (6,), generator=generator), 6, TARGETS, n_data, generator=generator)
    return model, model.guide(guide)


def bottleneck(n_data, guide):
    generator = seeded()
    trunk = mlp(3, (6,), generator=generator)
    model = VariationalBottleneck(trunk, 6, TARGETS, n_data, latent=4, generator=generator)
    torch.nn.init.constant_(model.trunk.spread.bias, -30.0)  # of z: what is drawn is its mean
    return model, model.guide()


PROGRAMS = [
    (bakker_heskes, "correlated"),
    (bakker_heskes, "normal"),
    (bakker_heskes, "point"),
    (multilinear, "point"),
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
@pytest.mark.parametrize(("make", "guide"), [*PROGRAMS[:2], (multilinear, "normal"), (bottleneck, None)])
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
