from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmtl.datasets import Batches, BatchesByTask
from bmtl.inputs import PerTask

# Rows per class of two tasks; the second lacks a class.
SIZES = {"many": [9, 1, 4], "few": [2, 0, 3]}


def tensors(sizes=SIZES) -> tuple[PerTask, dict[str, torch.Tensor]]:
    """Inputs that carry their row's number."""
    y = {task: torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)) for task, counts in sizes.items()}
    return PerTask({task: torch.arange(len(labels))[:, None].float() for task, labels in y.items()}), y


def balanced(per_class=4, **options) -> BatchesByTask:
    return BatchesByTask(*tensors(), per_class=per_class, **options)


def seen(batches, count=None) -> list[list[int]]:
    return [[*x["many"][:, 0].int().tolist(), -1, *x["few"][:, 0].int().tolist()] for x, _ in islice(batches, count)]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=4).filter(any), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_every_class_of_every_task_counts_alike(sizes, per_class, steps):
    x, y = tensors({f"t{i}": counts for i, counts in enumerate(sizes)})
    batches = list(BatchesByTask(x, y, per_class=per_class, steps=steps))
    assert len(batches) == steps
    for inputs, labels in batches:
        assert list(inputs) == list(labels) == list(x)
        for task, counts in zip(x, sizes, strict=True):
            expected = [per_class if count else 0 for count in counts]
            assert torch.bincount(labels[task], minlength=len(counts)).tolist() == expected
            # Inputs and labels stay together.
            assert torch.equal(y[task][inputs[task][:, 0].long()], labels[task])


def test_rows_of_a_class_are_drawn_evenly_with_replacement():
    batches = BatchesByTask(*tensors({"a": [5, 1]}), per_class=10, steps=200)
    counts = torch.bincount(torch.cat([x["a"][:, 0].int() for x, _ in batches]), minlength=6)
    assert counts[5] == 2000  # the only row of its class
    # Each of the others is binomial(2000, 1/5), of standard deviation 18; 5 of them.
    assert (counts[:5] - 400).abs().max() < 90


def test_an_epoch_is_as_long_as_the_longest_task_or_as_asked_for():
    assert len(balanced(1)) == 5  # 14 rows, 3 a batch
    assert len(balanced(50)) == 1
    assert len(balanced(1, steps=7)) == len(list(balanced(1, steps=7))) == 7


def test_a_seed_is_an_order_and_epochs_differ():
    first, second, other = (balanced(steps=3, seed=seed) for seed in (3, 3, 4))
    epochs = [seen(first), seen(first)]
    assert epochs == [seen(second), seen(second)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != seen(other)


def test_a_trainer_may_seed_every_epoch():
    loader = balanced(steps=3)
    loader.generator.manual_seed(5)
    epoch = seen(loader)
    seen(loader)
    loader.generator.manual_seed(5)
    assert seen(loader) == epoch


def test_torch_s_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    order = seen(balanced())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert seen(balanced()) == order


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_resumed_loader_goes_on_with_the_next_batch(steps):
    loader = balanced(steps=3)
    seen(loader)
    running = iter(loader)
    seen(running, steps)
    state = loader.state_dict()
    expected = [*seen(running), *seen(loader)]
    resumed = balanced(steps=3, seed=99)
    resumed.load_state_dict(state)
    found = seen(resumed) if steps == 3 else [*seen(resumed), *seen(resumed)]
    assert found == expected


@pytest.mark.parametrize(
    "other",
    [balanced(5, steps=3), balanced(steps=4), BatchesByTask(*tensors(), 1), BatchesByTask(*tensors(), total=7)],
    ids=["rows", "steps", "shuffled", "total"],
)
def test_a_state_of_another_loader_is_refused(other):
    with pytest.raises(ValueError, match="Resume with the same data and batch size"):
        other.load_state_dict(balanced(steps=3).state_dict())


@pytest.mark.parametrize("batch_size", [1, 4, 20])
def test_without_classes_it_shuffles_each_task(batch_size):
    x, y = tensors()
    found, expected = BatchesByTask(x, y, batch_size, seed=2), Batches(x, y, batch_size, seed=2)
    assert len(found) == len(expected)
    assert seen(found) == seen(expected)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 30), st.booleans())
def test_with_a_total_an_epoch_is_each_row_once(sizes, total, shuffle):
    """As long as one of a common table; of a task with fewer rows than batches, each batch has one."""
    x, y = tensors({f"t{i}": [size] for i, size in enumerate(sizes)})
    loader = BatchesByTask(x, y, total=total, shuffle=shuffle, seed=1)
    batches = list(loader)
    steps = -(-sum(sizes) // total)
    assert len(loader) == len(batches) == steps
    for task, size in zip(x, sizes, strict=True):
        parts = [inputs[task][:, 0].long() for inputs, _ in batches]
        counts = torch.bincount(torch.cat(parts), minlength=size)
        assert counts.max() - counts.min() <= 1
        assert counts.sum() == max(size, steps)
        lengths = {len(part) for part in parts}
        assert lengths <= {size // steps, size // steps + 1} if size >= steps else lengths == {1}
        if not shuffle:
            assert torch.cat(parts)[:size].tolist() == list(range(size))
    most, least = (pick(sum(map(len, x.values())) for x, _ in batches) for pick in (max, min))
    assert most - least <= len(sizes)


def test_with_a_total_it_resumes_and_epochs_differ():
    loader = BatchesByTask(*tensors(), total=4, seed=5)
    epochs = [seen(loader), seen(loader)]
    assert epochs[0] != epochs[1]
    again = BatchesByTask(*tensors(), total=4, seed=5)
    running = iter(again)
    seen(running, 2)
    state = again.state_dict()
    resumed = BatchesByTask(*tensors(), total=4, seed=0)
    resumed.load_state_dict(state)
    assert [*epochs[0][:2], *seen(resumed), *seen(resumed)] == [*epochs[0], *epochs[1]]


X, Y = tensors()
FLOATS = {task: labels + 0.5 for task, labels in Y.items()}


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (X["many"], Y, {"per_class": 1}, TypeError, "x must be bmtl.inputs.PerTask, .*got Tensor"),
        (dict(X), Y, {"per_class": 1}, TypeError, "got dict. Batches takes inputs that all tasks share"),
        (X, Y, {}, ValueError, "one of batch_size, per_class and total; got None, None and None"),
        (X, Y, {"batch_size": 1, "per_class": 1}, ValueError, "got 1, 1 and None"),
        (X, Y, {"batch_size": 1, "total": 1}, ValueError, "got 1, None and 1"),
        (X, Y, {"total": 2, "steps": 1}, ValueError, "steps goes with per_class"),
        (X, Y, {"total": 0}, ValueError, "total must be a positive whole number; got 0"),
        (X, Y, {"batch_size": 1, "steps": 1}, ValueError, "steps goes with per_class"),
        (X, Y, {"batch_size": 0}, ValueError, "batch_size must be a positive whole number; got 0"),
        (X, Y, {"per_class": 0}, ValueError, "per_class must be a positive whole number; got 0"),
        (X, Y, {"per_class": 1, "steps": 1.5}, ValueError, "steps must be a positive whole number; got 1.5"),
        (
            X,
            FLOATS,
            {"per_class": 1},
            TypeError,
            "those of 'many' are torch.float32 .*Use batch_size for other targets",
        ),
        (X, {**Y, "few": Y["few"] - 1}, {"per_class": 1}, ValueError, "'few' has rows without a label"),
        (X, {"many": Y["many"]}, {"per_class": 1}, ValueError, "y has labels for .'many'"),
    ],
)
def test_bad_input_is_refused(x, y, options, error, message):
    with pytest.raises(error, match=message):
        BatchesByTask(x, y, **options)
