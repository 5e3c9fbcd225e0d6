import math

import pytest
import torch
from torch import nn

from bmtl.models import mlp
from bmtl.models.networks.mlp import linear


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_layers_widths_and_activations():
    trunk = mlp(3, (8, 5), activation=nn.Tanh, dropout=0.2)
    assert [type(layer) for layer in trunk] == [nn.Linear, nn.Tanh, nn.Dropout] * 2
    assert [(layer.in_features, layer.out_features) for layer in trunk if isinstance(layer, nn.Linear)] == [
        (3, 8),
        (8, 5),
    ]
    assert trunk(torch.zeros(7, 3)).shape == (7, 5)


def test_a_generator_gives_the_same_weights_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    one, other, third = (mlp(3, (8, 5), generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), third.parameters(), strict=True))


def test_without_a_generator_the_global_one_draws():
    torch.manual_seed(0)
    one = mlp(3, (4,))
    torch.manual_seed(0)
    assert torch.equal(one[0].weight, nn.Linear(3, 4).weight)


@pytest.mark.parametrize("generator", [None, seeded()])
def test_initial_weights_follow_pytorchs_rule(generator):
    layer = linear(100, 2000, generator)
    for parameter in layer.parameters():
        bound = 1 / math.sqrt(100)
        assert parameter.requires_grad
        assert parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(("inputs", "widths"), [(3, ()), (3, (4, 0)), (0, (4,)), (3, (-1,))])
def test_a_trunk_without_width_is_refused(inputs, widths):
    with pytest.raises(ValueError, match="one or more layers of width 1 or more"):
        mlp(inputs, widths)
