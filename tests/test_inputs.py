"""Counting, indexing, splitting and moving inputs of any kind against the table of features that they were made of."""

import collections
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from bmtl import inputs
from bmtl.inputs import PerTask
from tests.kinds_of_input import GEOMETRIC, KINDS, OF_TENSORS, WIDTH, Graphs, Pair, Ragged, features, table


def made(name, x):
    if name in GEOMETRIC:
        pytest.importorskip("torch_geometric")
    return {**KINDS, **GEOMETRIC}[name](x)


every_kind = pytest.mark.parametrize("kind", [*KINDS, *GEOMETRIC])


@every_kind
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_every_kind_follows_its_table(kind, data):
    """Rows taken, split and cut in chunks are those of the table; nothing else is there or missing."""
    rows = data.draw(st.integers(1, 9))
    whole = table(rows)
    x = made(kind, whole)
    assert inputs.count(x) == rows
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=12)))
    assert_close(features(inputs.take(x, chosen)), whole[chosen])
    start, stop = sorted((data.draw(st.integers(0, rows - 1)), data.draw(st.integers(1, rows))))
    if start < stop:
        assert_close(features(inputs.take(x, slice(start, stop))), whole[start:stop])
    number = data.draw(st.integers(1, rows))
    halves = inputs.split(x, number)
    assert [inputs.count(part) for part in halves] == [len(part) for part in whole.tensor_split(number)]
    assert_close(torch.cat([features(part) for part in halves]), whole)
    size = data.draw(st.integers(1, 12))
    cut = inputs.chunks(x, size)
    assert max(inputs.count(part) for part in cut) <= size
    assert_close(torch.cat([features(part) for part in cut]), whole)
    assert len(inputs.chunks(x)) == 1
    (row,) = {tuple(row.tolist()) for row in features(inputs.few(x))}
    assert_close(torch.tensor(row), whole[0])
    assert inputs.count(inputs.few(x)) != rows


@every_kind
def test_only_floats_change_their_precision_and_nothing_is_moved_in_place(kind):
    x = made(kind, table(4))
    moved = inputs.to(x, "cpu", torch.float64)
    assert features(moved).dtype == torch.float64
    assert_close(features(moved).float(), table(4))
    assert features(x).dtype == torch.float32
    assert features(inputs.to(x, "cpu")).dtype == torch.float32
    if torch.cuda.is_available():
        assert features(inputs.take(inputs.to(x, "cuda"), torch.tensor([1]))).is_cuda


def test_integers_and_masks_keep_their_types():
    x = {"tokens": torch.arange(4), "graphs": KINDS["graphs"](table(4))}
    moved = inputs.to(x, dtype=torch.float16)
    assert (moved["tokens"].dtype, moved["graphs"].mask.dtype, moved["graphs"].nodes.dtype) == (
        torch.int64,
        torch.bool,
        torch.float16,
    )


@every_kind
def test_structures_keep_their_types(kind):
    def shape(x):
        if isinstance(x, dict):
            return {name: shape(child) for name, child in x.items()}
        return (type(x), *map(shape, x)) if isinstance(x, tuple) else type(x)

    x = made(kind, table(3))
    for other in (inputs.take(x, torch.tensor([2, 0])), inputs.to(x, "cpu"), inputs.few(x), *inputs.split(x, 2)):
        assert shape(other) == shape(x)


# ---- Tensors by name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OF_TENSORS)
def test_inputs_are_their_tensors_and_can_be_made_of_others(kind):
    x = made(kind, table(5))
    parts = inputs.parts(x)
    assert {len(part) for part in parts.values()} == {5}
    assert_close(features(inputs.with_parts(x, parts)), table(5))
    other = inputs.parts(made(kind, table(2, seed=1)))  # another number of rows
    assert_close(features(inputs.with_parts(x, other)), table(2, seed=1))
    backwards = dict(reversed(other.items()))  # by name, not by place
    assert_close(features(inputs.with_parts(x, backwards)), table(2, seed=1))


def test_tensors_are_called_by_their_place():
    x = made("nested", table(2))
    assert list(inputs.parts(x)) == ["drug.left", "drug.right.0", "protein.atoms"]
    assert list(inputs.parts(table(2))) == [""]
    assert list(inputs.parts({"g": made("graphs", table(2))})) == ["g.nodes", "g.mask"]
    assert list(inputs.parts(PerTask({"a": table(2), "b": Pair(table(1), table(1))}))) == ["a", "b.left", "b.right"]


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"need names that differ; got \['a.b', 'a.b'\]"):
        inputs.parts({"a.b": table(1), "a": {"b": table(1)}})


@pytest.mark.parametrize("kind", ["ragged", "named graphs", *GEOMETRIC])
def test_kinds_without_a_tensor_of_rows_have_no_parts(kind):
    x = made(kind, table(2))
    for ask in (inputs.parts, lambda x: inputs.with_parts(x, {})):
        with pytest.raises(TypeError, match="registered with bmtl.inputs.parts and with_parts; (Ragged|DataBatch) was"):
            ask(x)


# ---- Each task its own -----------------------------------------------------------------------------------------------


def per_task(**rows):
    names = list(KINDS)
    return PerTask({task: made(names[i % len(names)], table(n, seed=i)) for i, (task, n) in enumerate(rows.items())})


def test_each_tasks_inputs_are_counted_by_themselves():
    x = per_task(a=7, b=2, c=4)
    assert x.counts() == {"a": 7, "b": 2, "c": 4}
    assert inputs.count(x) == 7
    moved = inputs.to(x, "cpu", torch.float64)
    assert isinstance(moved, PerTask)
    assert {features(own).dtype for own in moved.values()} == {torch.float64}
    assert repr(PerTask({"a": 1})) == "PerTask({'a': 1})"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 9), st.data())
def test_each_task_is_split_by_itself(sizes, size, data):
    x = per_task(**{f"t{i}": n for i, n in enumerate(sizes)})
    parts = inputs.split(x, data.draw(st.integers(1, min(sizes))))
    for cut in (parts, inputs.chunks(x, size)):
        assert all(isinstance(part, PerTask) and min(part.counts().values()) > 0 for part in cut)
        for i, task in enumerate(x):
            assert_close(torch.cat([features(part[task]) for part in cut]), table(sizes[i], seed=i))
    assert len(cut) <= min(sizes)
    if -(-max(sizes) // size) <= min(sizes):
        assert max(inputs.count(part) for part in cut) <= size
    few = inputs.few(x)
    assert all(few.counts()[task] != n for task, n in x.counts().items())


def test_the_same_rows_of_every_task():
    x = inputs.take(per_task(a=3, b=4), torch.tensor([2, 0]))
    assert_close(features(x["a"]), table(3)[[2, 0]])
    assert_close(features(x["b"]), table(4, seed=1)[[2, 0]])


# ---- What is refused -------------------------------------------------------------------------------------------------


def test_parts_that_differ_in_rows_name_themselves_and_the_way_out():
    for x in ({"drug": table(3), "protein": table(2)}, {"x": {"drug": table(3), "protein": table(2)}}):
        with pytest.raises(ValueError, match=r"\{'drug': 3, 'protein': 2\}. Where each task .*PerTask"):
            inputs.count(x)
    with pytest.raises(ValueError, match=r"\{'left': 3, 'right': 1\}"):
        inputs.count(Pair(table(3), table(1)))
    with pytest.raises(ValueError, match=r"\{'nodes': 3, 'mask': 2\}"):
        inputs.count(Graphs(torch.zeros(3, 2, WIDTH), torch.ones(2, 2)))


@pytest.mark.parametrize("x", [[torch.zeros(2)], torch.zeros(2).numpy(), "abc", None, {"a": [1, 2]}, object()])
def test_other_types_are_refused_by_name(x):
    name = type(x["a"] if isinstance(x, dict) else x).__name__
    for ask in (inputs.count, lambda x: inputs.take(x, slice(0, 1)), inputs.to, lambda x: inputs.split(x, 1)):
        with pytest.raises(TypeError, match=f"registered with bmtl.inputs.count, take and to; {name} was given"):
            ask(x)


def test_what_can_be_counted():
    for kind in KINDS:
        assert inputs.countable(made(kind, table(2)))
    assert inputs.countable(PerTask({"a": 1}))
    assert not any(map(inputs.countable, (1, None, "abc", [table(1)], object())))


def test_empty_inputs_are_refused():
    for empty in ({}, (), {"a": {}}):
        with pytest.raises(ValueError, match="has one part at least"):
            inputs.count(empty)
    with pytest.raises(ValueError, match="needs the inputs of one task"):
        PerTask({})
    with pytest.raises(ValueError, match="without a dimension"):
        inputs.count(torch.tensor(1.0))
    with pytest.raises(ValueError, match="have no row: 0"):
        inputs.chunks(table(0))
    with pytest.raises(ValueError, match=r"have no row: \{'a': 2, 'b': 0\}"):
        inputs.chunks(PerTask({"a": table(2), "b": table(0)}))


@pytest.mark.parametrize("parts", [0, 4, -1])
def test_a_part_without_a_row_is_refused(parts):
    with pytest.raises(ValueError, match=f"3 rows cannot be split into {parts} parts"):
        inputs.split(table(3), parts)


def test_what_messages_name_is_found_from_the_package():
    code = (
        "import bmtl; print(bmtl.inputs.PerTask.__name__, bmtl.targets.Real.name, bmtl.distributions.StudentT.__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["PerTask", "real", "StudentT"]


# ---- Kinds that others bring -----------------------------------------------------------------------------------------


def test_the_most_special_registration_wins():
    class Counted(collections.UserDict):
        """A mapping whose rows are counted its own way."""

    x = Counted(a=1)
    with pytest.raises(TypeError):
        inputs.count(x)
    inputs.count.register(Counted, lambda x: 5)
    assert inputs.count(x) == 5
    assert inputs.count({"x": x, "y": table(5)}) == 5


def test_a_kind_inherits_what_its_class_registered():
    class Special(Ragged):
        """A kind of ragged sets."""

    x = Special(KINDS["ragged"](table(3)).sets)
    assert inputs.count(x) == 3
    assert inputs.countable(x)


def test_graphs_of_pytorch_geometric_are_known_without_importing_it():
    pytest.importorskip("torch_geometric")
    code = """
import sys, torch
from bmtl import inputs
inputs.count(torch.zeros(2))
assert not inputs.countable(object())
assert "torch_geometric" not in sys.modules
from torch_geometric.data import Batch, Data
x = Batch.from_data_list([Data(x=torch.ones(n, 1), edge_index=torch.zeros(2, 0, dtype=torch.int64)) for n in (1, 2)])
assert inputs.countable(x)
print(inputs.count(x), inputs.take(x, torch.tensor([1])).num_nodes)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["2", "2"]
