"""Rooms that are drawn while one trains."""

import pytest
import torch

from bmtl.datasets import load
from bmtl.datasets.rooms import DrawnBatches, Generator

GENERATOR = Generator(height=16, width=16)


def test_drawn_batches_are_the_data_set_without_end():
    x, y = load("rooms", train=12, val=0, test=0, height=16, width=16).tensors("train")
    loader = DrawnBatches(GENERATOR, 2, 3)
    assert len(loader) == 3
    batches = [batch for _ in range(2) for batch in loader]
    assert torch.equal(torch.cat([images for images, _ in batches]), x)
    for name, labels in y.items():
        drawn = torch.cat([of[name] for _, of in batches])
        assert drawn.dtype == labels.dtype
        torch.testing.assert_close(drawn, labels, rtol=0, atol=0, equal_nan=True)
    later = DrawnBatches(GENERATOR, 2, 3, first=10, inverse=True)
    images, labels = next(iter(later))
    assert torch.equal(images, x[10:])
    torch.testing.assert_close(labels["inverse_depth"], 1 / y["depth"][10:])


def test_a_place_is_resumed():
    first = DrawnBatches(GENERATOR, 1, 3)
    epoch = iter(first)
    next(epoch)
    second = DrawnBatches(GENERATOR, 1, 3)
    second.load_state_dict(first.state_dict())
    rest, others = list(second), list(epoch)
    assert len(rest) == len(others) == 2
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(rest, others, strict=True))
    with pytest.raises(ValueError, match="Resume with the same choices"):
        DrawnBatches(GENERATOR, 2, 3).load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="Resume with the same choices"):
        DrawnBatches(Generator(seed=1, height=16, width=16), 1, 3).load_state_dict(first.state_dict())


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batches": 1.5}, {"first": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is a whole number from"):
        DrawnBatches(GENERATOR, **{"batch_size": 1, "batches": 1, **wrong})
