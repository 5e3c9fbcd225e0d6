"""What VMTL learns on data whose truth is known."""

import functools

import pyro
import pytest
import torch
from torch import nn

import bmtl
from bmtl.inputs import PerTask
from bmtl.models.likelihoods import Categorical, Gaussian
from bmtl.models.vmtl import VMTL, KLWeights, PointEncoder, vmtl_preset

NOISE = 0.3
FEATURES, ROWS = 20, 12


def regressions(options, x, latent=FEATURES, noise=NOISE):
    """Bayesian linear regressions of unit prior and known noise, one a task: z is x."""
    return VMTL(
        latent,
        {name: Gaussian.known(noise) for name in x},
        {name: len(rows) for name, rows in x.items()},
        encoder=PointEncoder(nn.Identity()),
        latent=latent,
        latent_z="point",
        scale_w=1.0,
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def train(model, x, y, steps, lr=0.04, elbo=None):
    pyro.set_rng_seed(int(model.step))
    svi = bmtl.BalancedSVI(
        model, model.guide(), functools.partial(torch.optim.Adam, lr=lr), elbo=elbo or bmtl.TaskELBO("analytic")
    )
    for _ in range(steps):
        svi.step(x, y)
    return svi


def spread(model):
    """Mean standard deviation of w."""
    return model.classifier()[1].sqrt().mean().item()


@pytest.fixture(scope="module")
def clusters():
    """Four regressions with fewer rows than features; those of even and of odd number have almost the same weights."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(2, FEATURES, generator=g)
    x, y, truth = {}, {}, []
    for t in range(4):
        truth.append(centres[t % 2] + 0.05 * torch.randn(FEATURES, generator=g))
        x[f"t{t}"] = torch.randn(ROWS, FEATURES, generator=g)
        y[f"t{t}"] = x[f"t{t}"] @ truth[t] + NOISE * torch.randn(ROWS, generator=g)
    return PerTask(x), y, torch.stack(truth)


@pytest.fixture(scope="module")
def fits(clusters):
    """Models of the clusters after 300 steps, and their spreads after 150."""
    x, y, _ = clusters
    found = {}
    for name, options in {
        "alone": {"prior": "normal"},
        "anchored": {"weights": "learned"},
        "unanchored": {"weights": "learned", "anchor": 0.0},
        "dirichlet": {"weights": "dirichlet"},
    }.items():
        model = regressions(options, x)
        train(model, x, y, 150)
        middle = spread(model)
        train(model, x, y, 150)
        found[name] = model, middle
    return found


@pytest.mark.parametrize("name", ["anchored", "dirichlet"])
def test_the_partner_of_a_task_is_found_and_its_data_are_used(clusters, fits, name):
    truth, model = clusters[2], fits[name][0]
    shares = model.relatedness()["w"] / (1 - model.priors.anchor)
    assert all(shares[t, (t + 2) % 4] > 0.8 for t in range(4)), shares
    error, alone = ((m.classifiers.loc[:, 0] - truth).square().mean().sqrt() for m in (model, fits["alone"][0]))
    assert error < 0.75 * alone


def test_an_anchor_gives_the_spread_a_fixed_point_and_without_it_there_is_none(fits):
    """Tasks that are each other's priors count each other's data again at each step, unless the anchor stops them."""
    ratio = {name: spread(model) / middle for name, (model, middle) in fits.items()}
    assert ratio["anchored"] == pytest.approx(1.0, abs=0.06)
    assert ratio["unanchored"] < 0.8


@pytest.mark.parametrize("sampling", ["logits", "weights"])
def test_gradients_vanish_at_the_conjugate_posterior_where_it_is_diagonal(sampling):
    """Orthogonal columns of squared norm c: precision ``1 + c / noise^2``, mean ``x'y / noise^2`` over it."""
    g = torch.Generator().manual_seed(0)
    x, y = {}, {}
    for t, scale in enumerate((0.5, 1.0, 2.0)):
        x[f"t{t}"] = scale * torch.linalg.qr(torch.randn(8, 3, generator=g))[0]
        y[f"t{t}"] = torch.randn(8, generator=g)
    x = PerTask(x)
    model = regressions({"prior": "normal", "sampling": sampling}, x, latent=3, noise=0.5)
    q = model.classifiers
    for t, (rows, labels) in enumerate(zip(x.values(), y.values(), strict=True)):
        precision = 1 + rows.square().sum(0) / 0.25
        q.loc.data[t, 0] = rows.T @ labels / 0.25 / precision
        q.rho.data[t, 0] = precision.rsqrt().expm1().log()
    elbo = bmtl.TaskELBO("analytic", num_particles=500, vectorize_particles=True, max_plate_nesting=2)

    def gradients():
        """Mean gradient of the loss over 20 estimates, in standard errors."""
        found = []
        for seed in range(20):
            pyro.set_rng_seed(seed)
            loss = elbo.task_losses(model, model.guide(), x, y).total
            found.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(q.parameters()))]))
        each = torch.stack(found)
        return each.mean(0) / (each.std(0) / 20**0.5)

    assert gradients().abs().max() < 5
    q.rho.data += 0.2
    assert gradients().abs().max() > 20, "the estimates tell a wrong posterior"


def test_classes_learnt_by_one_task_help_the_others():
    """Tasks with the same two blobs: a model with priors from the others is right where a task alone is not sure."""
    g = torch.Generator().manual_seed(0)
    sizes = {"rich": 80, "poor": 4, "poorer": 2}
    centres = torch.randn(2, 10, generator=g)

    def draw(rows):
        label = torch.arange(rows) % 2
        return centres[label] + 1.5 * torch.randn(rows, 10, generator=g), label

    data = {name: draw(rows) for name, rows in sizes.items()}
    x, y = ({name: part[i] for name, part in data.items()} for i in (0, 1))
    x = PerTask(x)
    test = {name: draw(400) for name in sizes}
    accuracy = {}
    for preset in ("VSTL", "VMTL"):
        model = vmtl_preset(
            preset,
            10,
            {name: Categorical(2, "fixed") for name in sizes},
            sizes,
            encoder="linear",
            latent=8,
            dropout=0.0,
            kl_weights=KLWeights(0.1, 0.1),
            support=(x, y),
            generator=torch.Generator().manual_seed(0),
        )
        train(model, x, y, 100, lr=0.05)
        drawn = bmtl.draw(model, model.guide(), PerTask({name: rows for name, (rows, _) in test.items()}), num_draws=20)
        accuracy[preset] = {
            name: (drawn.targets[name].probability.argmax(-1) == label.numpy()).mean()
            for name, (_, label) in test.items()
        }
    assert min(accuracy["VMTL"].values()) > 0.65, accuracy
    assert accuracy["VMTL"]["poorer"] > accuracy["VSTL"]["poorer"] + 0.1, accuracy
