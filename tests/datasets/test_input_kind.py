"""Another kind of input is one class and its registration with `bmtl.inputs`; nothing else is told of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from bmtl import inputs
from bmtl.datasets import Batches, BatchesByTask, Inputs, MultiTaskData, inputs_from_state, inputs_state, register_kind
from bmtl.datasets.input_kind import KINDS
from bmtl.datasets.many_tasks import assemble


@dataclass
class PaddedGraphs:
    """Graphs as dense padded batches with a mask, as a model sees them."""

    nodes: Tensor  # (B, most, D)
    edges: Tensor  # (B, most, most)
    mask: Tensor  # (B, most)


@inputs.count.register
def _(x: PaddedGraphs) -> int:
    return len(x.nodes)


@inputs.take.register
def _(x: PaddedGraphs, rows: inputs.Rows) -> PaddedGraphs:
    return PaddedGraphs(x.nodes[rows], x.edges[rows], x.mask[rows])


@inputs.to.register
def _(x: PaddedGraphs, device=None, dtype=None) -> PaddedGraphs:
    return PaddedGraphs(*(inputs.to(t, device, dtype) for t in (x.nodes, x.edges, x.mask)))


@dataclass(frozen=True, eq=False)
class StubGraphs(Inputs):
    """A list of (nodes (n, D), edges (n, n)); nodes are divided by their largest value."""

    kind: ClassVar[str] = "stub-graphs"
    graphs: tuple[tuple[np.ndarray, np.ndarray], ...]
    width: int = 2
    largest: float = 1.0

    def __len__(self) -> int:
        return len(self.graphs)

    def tensors(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> PaddedGraphs:
        return self._padded([self.graphs[row] for row in rows.tolist()], dtype)

    def pieces(self) -> Iterable[tuple[str, np.ndarray]]:
        for number, (nodes, edges) in enumerate(self.graphs):
            yield f"nodes/{number}", nodes
            yield f"edges/{number}", edges

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "width": self.width, "trunk": "somewhere:GraphTrunk"}

    def prepare(self, raw: Any, dtype: torch.dtype = torch.float32) -> PaddedGraphs:
        return self._padded(raw, dtype)

    def read(self, path: str | Path) -> Any:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return {"width": self.width, "largest": self.largest}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        return cls((), state["width"], state["largest"])

    def _padded(self, graphs: Any, dtype: torch.dtype) -> PaddedGraphs:
        most = max(len(nodes) for nodes, _ in graphs)
        found = PaddedGraphs(
            torch.zeros(len(graphs), most, self.width, dtype=dtype),
            torch.zeros(len(graphs), most, most, dtype=dtype),
            torch.zeros(len(graphs), most, dtype=torch.bool),
        )
        for i, (nodes, edges) in enumerate(graphs):
            found.nodes[i, : len(nodes)] = torch.as_tensor(nodes / self.largest, dtype=dtype)
            found.edges[i, : len(nodes), : len(nodes)] = torch.as_tensor(edges, dtype=dtype)
            found.mask[i, : len(nodes)] = True
        return found


@pytest.fixture(autouse=True)
def _registered():
    register_kind(StubGraphs)
    yield
    del KINDS["stub-graphs"]


def graphs(rows: int = 20) -> StubGraphs:
    sizes = 1 + np.arange(rows) % 4
    return StubGraphs(tuple((np.full((n, 2), float(i)), np.eye(n)) for i, n in enumerate(sizes)), largest=10.0)


Y = np.arange(20.0)
PARTS = {"train": np.arange(12), "val": np.arange(12, 15), "test": np.arange(15, 20)}


def test_a_data_set_and_its_loaders_take_it():
    data = MultiTaskData.from_arrays("graphs", graphs(), {"a": Y, "b": np.arange(20) % 3}, PARTS, families={"b": 3})
    x, y = data.tensors("train", torch.float64)
    assert isinstance(x, PaddedGraphs)
    assert x.nodes.dtype == y["a"].dtype == torch.float64
    for batch, labels in Batches(x, y, 5):
        ids = batch.nodes[:, 0, 0] * 10
        assert_allclose(ids, data.targets["a"].scaler.inverse(labels["a"]), atol=1e-9)
    assert data.describe_inputs() == ["stub-graphs: 20 rows"]
    with pytest.raises(ValueError, match="'stub-graphs' have no numbers .N, D. for methods that take tables"):
        data.features("train")


def test_each_task_may_have_its_own():
    labels = np.where(np.arange(20) % 2, np.nan, Y)
    data = MultiTaskData.from_arrays(
        "graphs", graphs(), {"a": labels, "b": np.where(np.isnan(labels), Y, np.nan)}, PARTS
    )
    x, y = data.tensors_by_task("train")
    assert x.counts() == {"a": 6, "b": 6}
    batches = list(BatchesByTask(x, y, total=4))
    assert sum(batch["a"].nodes.shape[0] for batch, _ in batches) == 6


def test_readers_of_many_tasks_take_it():
    data = assemble("graphs", graphs(), Y, task=np.arange(20) % 2, task_names=["even", "odd"])
    assert data.tasks == ("even", "odd")
    assert isinstance(data.tensors("test")[0], PaddedGraphs)


def test_its_fingerprint_is_that_of_its_pieces():
    one, other = graphs(), graphs()
    other.graphs[3][1][0, 0] = 7.0
    prints = {MultiTaskData.from_arrays("g", x, {"a": Y}, PARTS).fingerprint for x in (one, other, graphs())}
    assert len(prints) == 2


def test_its_state_is_found_by_its_kind(tmp_path):
    given = graphs()
    torch.save(inputs_state(given), tmp_path / "x.pt")
    back = inputs_from_state(torch.load(tmp_path / "x.pt", weights_only=True))
    assert isinstance(back, StubGraphs)
    assert back.describe() == given.describe()
    assert torch.equal(back.prepare(given.graphs[:3]).nodes, given.tensors(np.arange(3)).nodes)


def test_an_unknown_kind_is_named_with_its_module():
    state = inputs_state(graphs())
    register_kind(StubGraphs)
    with pytest.raises(
        ValueError, match="kind 'other', which no imported module defines; it was defined in .*test_input_kind"
    ):
        inputs_from_state({**state, "kind": "other"})
