import functools
import math

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from torch import nn

import bmtl
from bmtl.models import Dropout, DropoutGuide, MCDropout, mlp
from tests.models.programs import seeded, task_model


def program(rate=0.3, targets=("a", "b"), noise="fixed", **options):
    generator = seeded(0)
    trunk = mlp(4, (16, 8), mc_dropout=rate, generator=generator, **options)
    classes = dict.fromkeys(targets, 0)
    model = task_model(trunk, 8, classes, 40, noise=noise, representation=MCDropout, generator=generator)
    return model, model.guide()


def batch(rows=20):
    generator = seeded(1)
    return torch.randn(rows, 4, generator=generator), {n: torch.randn(rows, generator=generator) for n in ("a", "b")}


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_the_share_dropped_and_the_mean_kept(rate):
    """In both modes a unit is dropped with probability `rate` and the expected output is the input."""
    torch.manual_seed(0)
    layer = Dropout(50_000, rate, "noise")
    deviation = math.sqrt(rate * (1 - rate) / 50_000)
    for mode in (True, False):
        out = layer.train(mode)(torch.ones(1, 50_000))
        assert ((out == 0).float().mean() - rate).abs() <= 4 * deviation
        torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1 / (1 - rate)))


def test_rows_have_own_masks_in_training_and_one_mask_in_evaluation():
    torch.manual_seed(0)
    layer = Dropout(64, 0.5, "noise")
    x = torch.ones(10, 64)
    with poutine.trace() as training:
        masks = layer(x) > 0
    assert not training.trace.nodes, "no latent in training"
    assert len(masks.unique(dim=0)) == 10
    with poutine.trace() as evaluation:
        masks = layer.eval()(x) > 0
    assert len(masks.unique(dim=0)) == 1
    noise = evaluation.trace.nodes["noise"]["value"]
    assert torch.equal(masks[0], noise >= 0.5)


def test_dropout_comes_before_every_layer():
    trunk = mlp(4, (16, 8), mc_dropout=0.3, activation=nn.Tanh)
    kinds = [type(layer) for layer in trunk]
    assert kinds == [Dropout, nn.Linear, nn.Tanh, Dropout, nn.Linear, nn.Tanh, Dropout]
    assert [(d.width, d.site) for d in trunk if isinstance(d, Dropout)] == [
        (4, "dropout_0"),
        (16, "dropout_1"),
        (8, "dropout_2"),
    ]
    assert "Dropout(16, rate=0.3, site='dropout_1')" in repr(trunk)
    assert not isinstance(mlp(4, (16,), mc_dropout=0.3, input_dropout=0.0)[0], Dropout)
    assert mlp(4, (16,), mc_dropout=0.3, input_dropout=0.1)[0].rate == 0.1


@pytest.mark.parametrize("estimator", ["mc", "analytic"])
@pytest.mark.parametrize("training", [True, False])
def test_the_noise_has_no_part_in_the_elbo(estimator, training):
    model, guide = program()
    x, y = batch()
    for part in (model, guide):
        part.train(training)
    terms = bmtl.TaskELBO(estimator).task_losses(model, guide, x, y)
    assert terms.shared.item() == 0
    assert not terms.kl.any()
    assert terms.score is None


def test_training_is_that_of_torchs_dropout():
    """The same draws from the global generator give the same losses and gradients."""
    model, guide = program(input_dropout=0.0)
    x, y = batch()
    torch.manual_seed(3)
    terms = bmtl.TaskELBO().task_losses(model, guide, x, y)
    layers = model.representation.trunk
    plain = nn.Sequential(*(nn.Dropout(0.3) if isinstance(layer, Dropout) else layer for layer in layers))
    torch.manual_seed(3)
    h = plain(x)
    errors = torch.stack([(model.heads(n, h, None).squeeze(-1) - y[n]).square().sum() for n in "ab"])
    torch.testing.assert_close(terms.nll, errors)  # halved, and 20 rows of 40


def test_a_draw_is_one_thinned_network_for_all_rows():
    """The first layer's mean over many draws is that without dropout; single draws are functions of x."""
    model, guide = program(targets=("a",))
    x, _ = batch()
    same = torch.cat([x, x])
    draws = bmtl.draw(model, guide, same, num_draws=30)
    assert draws.posterior["dropout_0"].shape == (30, 4)
    assert draws.posterior["dropout_2"].shape == (30, 8)
    model.set_noise({"a": 1e-6})
    values = bmtl.draw(model, guide, same, num_draws=30).targets["a"].draws
    np.testing.assert_allclose(values[:, :20], values[:, 20:], atol=1e-4)
    assert values.std(axis=0).min() > 0
    chunked = bmtl.draw(model, guide, same, num_draws=30, batch_size=7).targets["a"].draws
    np.testing.assert_allclose(chunked, values, atol=1e-4)


def test_predictions_are_the_mixture_over_masks():
    """A linear network's exact moments: h_i / (1 - rate) is kept with probability 1 - rate, independently."""
    rate = 0.4
    trunk = nn.Sequential(Dropout(3, rate, "dropout_0"))
    model = task_model(trunk, 3, {"a": 0}, 10, noise="fixed")
    (head,) = model.heads.of("a")
    weight, bias = head.weight.detach()[0], head.bias.item()
    guide = DropoutGuide(trunk)  # of a program of one's own; `MCDropout` has it in the model's
    model.set_noise({"a": 0.5})
    x = torch.tensor([[1.0, 2.0, -1.0], [0.3, 0.0, 4.0]])
    draws = bmtl.draw(model, guide, x, num_draws=500)
    mean = x @ weight + bias
    variance = (x * weight).square().sum(1) * rate / (1 - rate)
    error = (variance / 500).sqrt()
    assert (abs(draws.targets["a"].mean - mean.numpy()) < 4 * error.numpy()).all()
    total = (variance + 0.25).numpy()
    np.testing.assert_allclose(draws.targets["a"].draws.var(axis=0), total, rtol=5 * math.sqrt(2 / 500))


def test_it_trains_by_balanced_svi():
    model, guide = program()
    x, y = batch()
    svi = bmtl.BalancedSVI(
        model, guide, functools.partial(torch.optim.Adam, lr=1e-2, weight_decay=1e-4), "last-layer >> pcgrad"
    )
    first = svi.evaluate(x, y).losses.sum().item()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(60):
        svi.step(x, y)
    assert svi.evaluate(x, y).losses.sum().item() < first
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_guide_draws_other_latents_too():
    model, guide = program(noise="latent")
    x, y = batch()
    sites = poutine.trace(guide.eval()).get_trace(x).stochastic_nodes
    assert sites == ["dropout_0", "dropout_1", "dropout_2", "log_variance_a", "log_variance_b"]
    draws = bmtl.draw(model, guide, x, y, num_draws=3)
    assert draws.targets["a"].log_likelihood.shape == (3, 20)


def test_vectorised_particles_are_networks_of_their_own():
    model, guide = program(targets=("a",))
    x, _ = batch()
    for part in (model, guide):
        part.eval()
    with pyro.plate("num_particles_vectorized", 5, dim=-2):
        trace = poutine.trace(model.representation.trunk).get_trace(x)
    assert trace.nodes["_RETURN"]["value"].shape == (5, 20, 8)


def test_what_does_not_fit_is_told():
    for rate in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="rate is a probability"):
            Dropout(3, rate, "noise")
    with pytest.raises(ValueError, match="width is a number of units"):
        Dropout(0, 0.5, "noise")
    with pytest.raises(ValueError, match="has no Dropout layer"):
        DropoutGuide(nn.Sequential(nn.Dropout(0.5)))
    with pytest.raises(ValueError, match="has a site of its own"):
        DropoutGuide(nn.Sequential(Dropout(3, 0.5, "noise"), Dropout(3, 0.5, "noise")))
    with pytest.raises(ValueError, match="has no Dropout layer"):
        task_model(mlp(4, (8,), dropout=0.5), 8, {"a": 0}, 10, representation=MCDropout)
