"""Log-probabilities of classes: relative accuracy where a class is almost certain."""

import math

import pyro.distributions as dist
import pytest
import torch

from bmtl.distributions import Bernoulli, Categorical

LOGITS = [0.0, 0.3, 5.0, 20.0, 50.0, 100.0]


def exact(logit):
    """``-log sigmoid(logit)``, and minus its derivative, in double precision."""
    if logit < 0:
        return -logit + math.log1p(math.exp(logit)), 1 / (1 + math.exp(logit))
    return math.log1p(math.exp(-logit)), math.exp(-logit) / (1 + math.exp(-logit))


@pytest.mark.parametrize("logit", [*LOGITS, *(-logit for logit in LOGITS)])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("classes", [False, True])
def test_a_loss_keeps_its_digits(classes, label, logit):
    f = torch.tensor(logit, requires_grad=True)
    if classes:  # the two others share the weight of one
        half = torch.full((), -math.log(2.0))
        logits = torch.stack([half, half, f] if label else [f, half, half])
        fn, y, own = Categorical(logits=logits), torch.tensor(2 * label), logit
    else:
        fn, y, own = Bernoulli(logits=f), torch.tensor(float(label)), logit if label else -logit
    loss = -fn.log_prob(y)
    value, slope = exact(own)
    least = torch.finfo(torch.float32).smallest_normal  # below, there are fewer digits
    assert loss.item() == pytest.approx(value, rel=1e-5, abs=1e-5 * least)
    assert loss.item() > 0
    (gradient,) = torch.autograd.grad(loss, f)
    assert abs(gradient.item()) == pytest.approx(slope, rel=1e-5, abs=1e-5 * least)


def test_they_are_pyros_where_classes_are_uncertain():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 3, 2, 1, 1])
    found, expected = Categorical(logits=logits), dist.Categorical(logits=logits)
    torch.testing.assert_close(found.log_prob(y), expected.log_prob(y))
    torch.testing.assert_close(
        found.log_prob(found.enumerate_support()), expected.log_prob(expected.enumerate_support())
    )
    support = found.enumerate_support(expand=False)
    torch.testing.assert_close(found.log_prob(support), expected.log_prob(expected.enumerate_support(expand=False)))
    assert found.expand([2, 5]).log_prob(y).shape == (2, 5)
    with pytest.raises(ValueError, match="support"):
        Categorical(logits=logits, validate_args=True).log_prob(y + 1)
    with pytest.raises(ValueError, match="support"):
        Bernoulli(logits=logits, validate_args=True).log_prob(torch.full((5, 4), 0.5))
