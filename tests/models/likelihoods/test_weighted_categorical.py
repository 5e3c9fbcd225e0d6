"""Rare classes count more, and nothing else changes."""

import pyro
import pytest
import torch

from bmtl.models.likelihoods import Categorical, Pixels, WeightedCategorical

LABELS = torch.tensor([0] * 16 + [1] * 4 + [-1] * 5)  # a third class is never seen


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("power", "ratio"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_weights_follow_from_the_training_labels(power, ratio):
    made = WeightedCategorical(3, power=power)
    made.start(LABELS)
    weights = made.class_weights
    assert weights[1] / weights[0] == pytest.approx(ratio)
    assert weights[LABELS[LABELS >= 0]].mean() == pytest.approx(1)
    assert weights.isfinite().all()
    made.start(LABELS[-5:])
    assert torch.equal(weights, made.class_weights), "no label says nothing"


def test_the_loss_is_torchs_and_predictions_are_those_of_equal_weights():
    made, plain, values = WeightedCategorical(3), Categorical(3), {"log_variance": torch.tensor(0.3)}
    made.start(LABELS)
    f, y = normal(25, 3), LABELS.clamp(min=0)
    expected = torch.nn.functional.cross_entropy(f * torch.tensor(-0.3).exp(), y, made.class_weights, reduction="none")
    torch.testing.assert_close(made.training_loss("y", f, values, y), expected)
    assert torch.equal(made.distribution(f, values).logits, plain.distribution(f, values).logits)


def test_pixels_without_a_label_do_not_count():
    made, values = Pixels(WeightedCategorical(3)), {"log_variance": torch.zeros(())}
    y = LABELS.reshape(1, 5, 5)
    made.start(y)
    assert made.of_pixel.class_weights[1] > 1
    f = normal(1, 5, 5, 3).requires_grad_()
    with pyro.poutine.trace() as traced:
        made.observe_at("y", f, values, y)
    loss = -traced.trace.log_prob_sum()
    each = made.of_pixel.training_loss("y", f, values, y.clamp(min=0))
    torch.testing.assert_close(loss, each[y >= 0].mean())
    (gradient,) = torch.autograd.grad(loss, f)
    assert (gradient[y == -1] == 0).all()


def test_powers_out_of_range_and_labels_that_are_no_class_are_refused():
    with pytest.raises(ValueError, match="power is from 0 to 1, and 2 was given"):
        WeightedCategorical(3, power=2)
    with pytest.raises(ValueError, match="At site 'y'"):
        WeightedCategorical(3).training_loss("y", normal(1, 3), {"log_variance": torch.zeros(())}, torch.tensor([3]))
