"""Seeds of torch's own generators."""

import pytest
import torch

from bmtl.inference.loaders import forked, seed_random_state


@pytest.mark.parametrize("seed", [0, 7, 2**62 + 1])
def test_a_seed_gives_what_torch_gives(seed):
    with forked(None):
        torch.manual_seed(seed)
        expected = torch.randn(5)
        seed_random_state(seed)
        assert torch.equal(torch.randn(5), expected)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="generators of an accelerator are seeded at once")
def test_seeding_keeps_no_record_of_its_calls():
    """torch.manual_seed does, for a device that is set up later."""
    before = len(torch.cuda._queued_calls)
    with forked(None):
        for seed in range(3):
            seed_random_state(seed)
    assert len(torch.cuda._queued_calls) == before
