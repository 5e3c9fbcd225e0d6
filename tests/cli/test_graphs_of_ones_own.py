"""A kind of input that bmtl does not have: all that it needs is in this file, and the commands take it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from bmtl import inputs
from bmtl.datasets import Inputs, MultiTaskData, register, register_kind, registry
from bmtl.datasets.input_kind import KINDS
from bmtl.evaluation import results
from tests.cli.commands import TINY


@dataclass
class PaddedGraphs:
    """A dense batch: values of the nodes ``(B, most)``, edges ``(B, most, most)``, and which nodes there are."""

    nodes: Tensor
    edges: Tensor
    mask: Tensor


@inputs.parts.register
def _(x: PaddedGraphs) -> dict[str, Tensor]:
    return {"nodes": x.nodes, "edges": x.edges, "mask": x.mask}


@inputs.with_parts.register
def _(x: PaddedGraphs, parts: dict[str, Tensor]) -> PaddedGraphs:
    return PaddedGraphs(**parts)


@dataclass(frozen=True, eq=False)
class OwnGraphs(Inputs):
    """Graphs as values of the nodes ``(N, most)``, NaN where there is none, and edges ``(N, most, most)``."""

    kind: ClassVar[str] = "own-graphs"
    nodes: np.ndarray
    edges: np.ndarray

    def __len__(self):
        return len(self.nodes)

    def tensors(self, rows, dtype=torch.float32):
        return self.prepare((self.nodes[rows], self.edges[rows]), dtype)

    def pieces(self):
        return [("nodes", self.nodes), ("edges", self.edges)]

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "trunk": f"{__name__}:trunk"}

    def prepare(self, raw, dtype=torch.float32):
        nodes, edges = raw
        return PaddedGraphs(
            torch.tensor(np.nan_to_num(nodes), dtype=dtype),
            torch.tensor(edges, dtype=dtype),
            torch.tensor(~np.isnan(nodes)),
        )

    def read(self, path):
        with np.load(path) as file:
            return file["nodes"], file["edges"]

    def state(self):
        return {}

    @classmethod
    def from_state(cls, state):
        return cls(np.zeros((0, 1)), np.zeros((0, 1, 1)))


class Sums(nn.Module):
    """Each node with the sum of its neighbours, summed over the nodes that there are."""

    def __init__(self, width):
        super().__init__()
        self.width, self.layer = width, nn.Linear(2, width)

    def forward(self, x):
        neighbours = (x.edges @ x.nodes[..., None])[..., 0]
        h = self.layer(torch.stack([x.nodes, neighbours], -1)).tanh()
        return (h * x.mask[..., None]).sum(-2)


def trunk(description, *, widths, generator=None):
    return Sums(widths[-1])


def read(root=None) -> MultiTaskData:
    """Graphs of one to four nodes, with the sum of their values and their number of edges."""
    random = np.random.default_rng(0)
    nodes = np.where(np.arange(4) < random.integers(1, 5, size=(60, 1)), random.normal(size=(60, 4)), np.nan)
    there = ~np.isnan(nodes)
    edges = np.triu(random.uniform(size=(60, 4, 4)) < 0.5, 1) & there[:, :, None] & there[:, None, :]
    rows = {"train": np.arange(40), "val": np.arange(40, 50), "test": np.arange(50, 60)}
    labels = {"total": np.nansum(nodes, 1), "bonds": edges.sum((1, 2))}
    edges = (edges | edges.swapaxes(1, 2)).astype(float)
    return MultiTaskData.from_arrays("own-graphs", OwnGraphs(nodes, edges), labels, rows, families={"bonds": "count"})


@pytest.fixture(autouse=True)
def _registered():
    """What an installed package does by an entry point."""
    register("own-graphs", read)
    register_kind(OwnGraphs)
    yield
    del registry.READERS["own-graphs"], KINDS["own-graphs"]


@pytest.mark.usefixtures("short_ending")
def test_they_are_compared_under_balancers_and_bayesian_heads(run, tmp_path):
    methods = ("--methods", "bayesian", "--balancers", "last-layer >> nash-mtl", "--jobs", 1)
    code, out, err = run("compare", "own-graphs", *TINY, *methods, "--no-reference", "--out", tmp_path)
    assert (code, err) == (0, ""), out + err
    frame = pd.read_csv(tmp_path / "table.csv", index_col="learner")
    assert len(frame) == 1
    assert np.isfinite(frame[["MAE total", "MAE bonds"]]).all(axis=None)


def test_they_are_trained_on_and_new_ones_are_predicted(run, tmp_path):
    code, out, err = run("train", "own-graphs", *TINY, "--method", "bayesian", "--out", tmp_path / "m")
    assert code == 0, out + err
    data = read()
    rows = data.rows["test"]
    np.savez(tmp_path / "new.npz", nodes=data.inputs.nodes[rows], edges=data.inputs.edges[rows])
    given = ("predict", tmp_path / "m", "--data", tmp_path / "new.npz", "--allow-code", "--out", tmp_path / "p.csv")
    code, out, err = run(*given)
    assert code == 0, out + err
    frame = pd.read_csv(tmp_path / "p.csv", index_col="row")
    mean = results.read(tmp_path / "m/results.nc")["test/predictive_mean"]
    for name in ("total", "bonds"):
        np.testing.assert_allclose(frame[f"{name} mean"], mean[f"y_{name}"], rtol=1e-4, atol=1e-5)
