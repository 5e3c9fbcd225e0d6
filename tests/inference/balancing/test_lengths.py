import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from bmtl.inference.balancing import AsIs, Mean, Norm, Sum
from bmtl.inference.errors import StepError

steady = settings(max_examples=40)
weights = st.lists(st.floats(1e-8, 1e8), min_size=1, max_size=40).map(lambda w: torch.tensor(w, dtype=torch.float64))


def random_gradients(k, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-4, 4, k, dtype=torch.float64)[:, None] if k > 1 else 1.0
    return torch.randn(k, 7, dtype=torch.float64, generator=generator) * scale


@steady
@given(alpha=weights)
def test_sum_and_mean_fix_the_sum_and_keep_the_direction(alpha):
    gram = torch.eye(len(alpha), dtype=torch.float64)
    for length, total in ((Sum(), len(alpha)), (Mean(), 1.0)):
        scaled = length(alpha, gram)
        assert scaled.sum().item() == pytest.approx(total)
        assert_close(scaled / alpha, (scaled / alpha).mean().expand_as(alpha))
    assert AsIs()(alpha, gram) is alpha


@steady
@given(alpha=weights, seed=st.integers(0, 1000))
def test_norm_makes_the_update_as_long_as_that_of_equal_weights(alpha, seed):
    j = random_gradients(len(alpha), seed)
    scaled = Norm()(alpha, j @ j.T)
    assert (scaled @ j).norm().item() == pytest.approx(j.sum(0).norm().item(), rel=1e-6)
    assert_close(scaled / alpha, (scaled / alpha).mean().expand_as(alpha))


@pytest.mark.parametrize("length", [Sum(), Norm(), AsIs()])
@pytest.mark.parametrize("k", [1, 2, 11])
def test_equal_weights_of_1_stay_as_they_are(length, k):
    j = random_gradients(k)
    assert_close(length(torch.ones(k, dtype=torch.float64), j @ j.T), torch.ones(k, dtype=torch.float64))


@pytest.mark.parametrize("length", [Sum(), Mean()])
@pytest.mark.parametrize("alpha", [[1.0, -1.0], [0.5, -2.0], [0.0, 0.0], [math.nan, 1.0]])
def test_a_sum_that_is_not_positive_is_refused(length, alpha):
    with pytest.raises(StepError, match=rf"The length '{length.name}' divides by the sum of the weights"):
        length(torch.tensor(alpha, dtype=torch.float64), torch.eye(2, dtype=torch.float64))


def test_norm_takes_weights_whose_sum_is_negative():
    gram = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    scaled = Norm()(torch.tensor([1.0, -3.0], dtype=torch.float64), gram)
    assert scaled[0] > 0 > scaled[1]
    assert (scaled @ gram @ scaled).item() == pytest.approx(3.0)


@pytest.mark.parametrize("error", [0.0, 1e-15, -1e-15])
def test_norm_does_not_blow_up_an_update_that_has_cancelled(error):
    gram = torch.tensor([[1.0, -2.0], [-2.0, 4.0 + error]], dtype=torch.float64)
    alpha = torch.tensor([4 / 3, 2 / 3], dtype=torch.float64)
    assert_close(Norm()(alpha, gram), alpha)
