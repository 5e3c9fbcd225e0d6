from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmtl import inputs
from bmtl.datasets import Batches, load
from bmtl.inputs import PerTask


def numbered(rows: int, batch_size: int, **options) -> Batches:
    """A table whose rows carry their own number."""
    ids = torch.arange(rows)
    return Batches(ids[:, None].float(), {"a": ids, "b": 10 * ids}, batch_size, **options)


def seen(batches, count: int | None = None) -> list[list[int]]:
    return [y["a"].tolist() for _, y in islice(batches, count)]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 35), st.booleans())
def test_an_epoch_hands_out_every_row_once(rows, batch_size, shuffle):
    loader = numbered(rows, batch_size, shuffle=shuffle)
    epoch = seen(loader)
    order = list(chain(*epoch))
    assert sorted(order) == list(range(rows))
    assert len(epoch) == len(loader)
    assert all(len(batch) == batch_size for batch in epoch[:-1])
    assert shuffle or order == list(range(rows))


def test_inputs_and_labels_stay_together():
    for x, y in numbered(17, 5):
        assert torch.equal(x[:, 0], y["a"].float())
        assert torch.equal(y["b"], 10 * y["a"])


def test_a_seed_is_an_order_and_epochs_differ():
    first, second, other = numbered(50, 8, seed=3), numbered(50, 8, seed=3), numbered(50, 8, seed=4)
    epochs = [seen(first), seen(first)]
    assert epochs == [seen(second), seen(second)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != seen(other)


def test_torch_s_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    order = seen(numbered(50, 8))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert seen(numbered(50, 8)) == order


@pytest.mark.parametrize("epochs", [0, 1, 3])
@pytest.mark.parametrize("steps", [0, 1, 4, 6, 7])  # 7 is the whole epoch
def test_a_resumed_loader_goes_on_with_the_next_batch(epochs, steps):
    loader = numbered(50, 8)
    for _ in range(epochs):
        seen(loader)
    running = iter(loader)
    seen(running, steps)
    state = loader.state_dict()
    expected = [*seen(running), *seen(loader), *seen(loader)]

    resumed = numbered(50, 8, seed=99)
    resumed.load_state_dict(state)
    iter(resumed)  # a trainer may ask for an iterator that it never uses
    epochs_left = 2 if steps == len(loader) else 3
    assert [batch for _ in range(epochs_left) for batch in seen(resumed)] == expected


def test_a_loaded_state_can_be_saved_again_before_the_first_batch():
    loader = numbered(50, 8)
    seen(loader, 3)
    state = loader.state_dict()
    resumed = numbered(50, 8)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.state_dict()["generator"], state["generator"])
    assert resumed.state_dict()["position"] == 3


def test_an_abandoned_epoch_does_not_shift_the_next_one():
    loader, whole = numbered(50, 8), numbered(50, 8)
    seen(loader, 2)
    seen(whole)
    assert seen(loader) == seen(whole)


def test_a_state_survives_a_file(tmp_path):
    loader = numbered(50, 8)
    running = iter(loader)
    seen(running, 2)
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    resumed = numbered(50, 8)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert seen(resumed) == seen(running)


@pytest.mark.parametrize("other", [numbered(49, 8), numbered(50, 9), numbered(50, 8, shuffle=False)])
def test_a_state_of_other_data_is_refused(other):
    with pytest.raises(ValueError, match="Resume with the same data and batch size"):
        other.load_state_dict(numbered(50, 8).state_dict())


def test_drop_last_leaves_out_the_smaller_batch():
    loader = numbered(17, 5, drop_last=True)
    assert [len(batch) for batch in seen(loader)] == [5, 5, 5]
    assert len(loader) == 3
    assert len(numbered(15, 5, drop_last=True)) == 3


def ragged(batch_size: int, **options) -> Batches:
    """Three tasks with their own rows, of which one is shorter than a batch."""
    sizes = {"long": 50, "short": 13, "tiny": 3}
    ids = {task: torch.arange(rows) for task, rows in sizes.items()}
    return Batches(PerTask({task: rows[:, None].float() for task, rows in ids.items()}), ids, batch_size, **options)


def test_tasks_with_their_own_inputs_are_as_long_as_the_longest():
    batches = list(ragged(8))
    assert len(batches) == 7
    for x, y in batches:
        assert list(x) == list(y) == ["long", "short", "tiny"]
        assert all(torch.equal(x[task][:, 0], y[task].float()) for task in x)
    assert sorted(torch.cat([y["long"] for _, y in batches]).tolist()) == list(range(50))
    assert [len(y["long"]) for _, y in batches] == [8] * 6 + [2]


def test_a_shorter_task_starts_anew_when_its_rows_are_used_up():
    batches = list(ragged(8))
    short = torch.cat([y["short"] for _, y in batches])
    passes = [short[i : i + 13].tolist() for i in range(0, 39, 13)]
    assert all(sorted(once) == list(range(13)) for once in passes)
    assert passes[0] != passes[1]
    # A batch never holds more rows of a task than there are: a plate of that size could not take them.
    assert [sorted(y["tiny"].tolist()) for _, y in batches[:6]] == [[0, 1, 2]] * 6


def test_ragged_tasks_resume_as_well():
    loader = ragged(8)
    running = iter(loader)
    list(islice(running, 3))
    state = loader.state_dict()
    resumed = ragged(8, seed=5)
    resumed.load_state_dict(state)
    expected = [*running, *loader]
    found = [*resumed, *resumed]
    assert len(found) == 4 + 7
    for (_, y), (_, again) in zip(expected, found, strict=True):
        assert all(torch.equal(y[task], again[task]) for task in y)


def test_a_data_set_s_tensors_load_as_they_are():
    x, y = load("qm9-mini").tensors("train")
    batches = list(Batches(x, y, 256))
    assert len(batches) == 6
    assert batches[0][0].shape == (256, 34)
    assert len(batches[0][1]) == 11


ROWS = torch.zeros(4)


@pytest.mark.parametrize(
    ("x", "y", "batch_size", "options", "message"),
    [
        (ROWS, {}, 2, {}, "at least one task"),
        (torch.zeros(0, 2), {"a": torch.zeros(0)}, 2, {}, "no rows to load"),
        (ROWS, {"a": torch.zeros(3)}, 2, {}, "x has 4 rows, but .*'a': 3"),
        (PerTask({"a": ROWS}), {"b": ROWS}, 2, {}, r"inputs for \['a'\], y has labels for \['b'\]"),
        (PerTask({"a": ROWS}), {"a": torch.zeros(3)}, 2, {}, "differ: {'a': .4, 3.}"),
        (PerTask({"a": ROWS, "b": torch.zeros(0)}), {"a": ROWS, "b": torch.zeros(0)}, 2, {}, "b has 0"),
        ({"a": ROWS, "b": torch.zeros(3)}, {"a": ROWS}, 2, {}, "theirs differ in number.*PerTask"),
        (torch.tensor(1.0), {"a": ROWS}, 2, {}, "a tensor without a dimension"),
        (ROWS, {"a": ROWS}, 0, {}, "batch_size must be a positive"),
        (ROWS, {"a": ROWS}, 2.0, {}, "batch_size must be a positive"),
        (ROWS, {"a": ROWS}, 5, {"drop_last": True}, "4 rows, fewer than batch_size=5"),
    ],
)
def test_bad_input_is_refused(x, y, batch_size, options, message):
    with pytest.raises(ValueError, match=message):
        Batches(x, y, batch_size, **options)


@pytest.mark.parametrize("x", [ROWS.numpy(), [1, 2, 3, 4], None])
def test_inputs_of_an_unknown_type_are_refused(x):
    with pytest.raises(TypeError, match="Inputs are tensors, a structure of them.*was given"):
        Batches(x, {"a": ROWS}, 2)


@pytest.mark.parametrize("y", [ROWS.numpy(), torch.tensor(1.0), [1, 2, 3, 4]])
def test_labels_that_are_no_tensors_are_refused(y):
    with pytest.raises(TypeError, match="y is a mapping from each task to its labels"):
        Batches(torch.zeros(2, 2), torch.zeros(2), 2)
    with pytest.raises(TypeError, match="y must hold tensors"):
        Batches(ROWS, {"a": y}, 2)


class Pair(NamedTuple):
    drug: torch.Tensor
    protein: dict[str, torch.Tensor]


@dataclass
class Graphs:
    """A stub kind of input: graphs as dense padded batches with a mask."""

    nodes: torch.Tensor  # (N, most nodes, features)
    mask: torch.Tensor  # (N, most nodes)


@inputs.count.register
def _(x: Graphs) -> int:
    return len(x.nodes)


@inputs.take.register
def _(x: Graphs, rows: inputs.Rows) -> Graphs:
    nodes, mask = x.nodes[rows], x.mask[rows]
    most = int(mask.sum(1).max())  # padded to the largest of the batch
    return Graphs(nodes[:, :most], mask[:, :most])


def graphs(rows: int) -> Graphs:
    sizes = 1 + torch.arange(rows) % 4
    mask = torch.arange(4) < sizes[:, None]
    return Graphs(torch.arange(rows).float()[:, None, None] * mask[:, :, None], mask)


STRUCTURES = {
    "tensor": (lambda n: torch.arange(n).float(), lambda x: x),
    "dict": (lambda n: {"drug": torch.arange(n), "protein": torch.zeros(n, 3)}, lambda x: x["drug"]),
    "tuple": (lambda n: (torch.zeros(n), torch.arange(n)), lambda x: x[1]),
    "named tuple": (lambda n: Pair(torch.arange(n), {"seq": torch.arange(n) * 2}), lambda x: x.protein["seq"] / 2),
    "registered kind": (graphs, lambda x: x.nodes[:, 0, 0]),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("shuffle", [True, False])
def test_any_inputs_load_with_their_labels(name, shuffle):
    make, ids = STRUCTURES[name]
    loader = Batches(make(23), {"a": torch.arange(23)}, 5, shuffle=shuffle)
    batches = list(loader)
    assert type(batches[0][0]) is type(make(23))
    assert [inputs.count(x) for x, _ in batches] == [5, 5, 5, 5, 3]
    assert sorted(torch.cat([y["a"] for _, y in batches]).tolist()) == list(range(23))
    assert all(torch.equal(ids(x).long(), y["a"]) for x, y in batches)
    # The order is that of a tensor of as many rows.
    expected = Batches(torch.zeros(23), {"a": torch.arange(23)}, 5, shuffle=shuffle)
    assert all(torch.equal(y["a"], other["a"]) for (_, y), (_, other) in zip(batches, expected, strict=True))


def test_tasks_may_have_inputs_of_several_kinds():
    x = PerTask({"a": graphs(9), "b": {"u": torch.arange(4), "v": torch.arange(4)}})
    for batch, y in Batches(x, {"a": torch.arange(9), "b": torch.arange(4)}, 3):
        assert isinstance(batch, PerTask)
        assert torch.equal(batch["a"].nodes[:, 0, 0].long(), y["a"])
        assert torch.equal(batch["b"]["u"], y["b"])


def test_batches_of_pytorch_geometric_load():
    data = pytest.importorskip("torch_geometric.data")
    whole = data.Batch.from_data_list([data.Data(x=torch.full((1 + i % 3, 2), float(i))) for i in range(11)])
    batches = list(Batches(whole, {"a": torch.arange(11)}, 4))
    assert [x.num_graphs for x, _ in batches] == [4, 4, 3]
    assert all([g.x[0, 0].item() for g in x.to_data_list()] == y["a"].tolist() for x, y in batches)
