"""Two processes, each with rows of its own, take the steps of one process on the joined rows."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch.testing import assert_close

from bmtl.inference import distributed
from tests.inference.distributed_cases import CASES, Found, run, work
from tests.inference.programs import assert_same

WORLD = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Found]]:
    """What each of two processes has found in all cases; they start once, which is what costs the time."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (WORLD, str(folder)), nprocs=WORLD)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(WORLD)]


@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_take_the_steps_of_one_on_the_joined_rows(found, name):
    one, two = (of[name] for of in found)
    assert_same(one, two)  # bit for bit, or they would drift apart
    expected = run(name)
    assert one.keys() == expected.keys() or not expected  # some say only that the two agree
    for key, value in expected.items():
        assert_close(one[key], value, rtol=1e-7, atol=1e-9, equal_nan=True, msg=lambda m, key=key: f"{key}: {m}")


def test_a_task_that_one_process_has_no_label_for_is_trained_in_both(found):
    for name in (name for name in CASES if name.startswith("labels in one process")):
        assert found[0][name]["losses"].isfinite().all()


def test_a_fault_in_one_process_is_skipped_by_both(found):
    for of in found:
        assert of["faults"]["skipped"].tolist() == [False, True, True, False]


def test_one_process_costs_nothing():
    tensor = torch.ones(2)
    assert distributed.world_size() == 1
    assert distributed.rank() == 0
    assert distributed.mean_(tensor) is distributed.sum_(tensor) is distributed.inner_products(tensor) is tensor
    assert distributed.gather("a") == ["a"]
