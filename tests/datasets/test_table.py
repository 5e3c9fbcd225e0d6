import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from bmtl.datasets import Table, inputs_from_state, inputs_state
from bmtl.targets import Scaler

X = np.array([[1.0, 10.0], [3.0, 10.0], [100.0, 30.0]])


def test_numbers_are_scaled_by_the_given_rows_and_clipped():
    table = Table.fit(X, np.array([0, 1]), clip=2.0)
    assert_array_equal(table.tensors(np.array([0, 1, 2])), [[-1, 0], [1, 0], [2, 2]])
    assert_array_equal(Table.fit(X, None).tensors(np.array([2])), [[100, 30]])
    assert table.tensors(np.array([0]), torch.float64).dtype == torch.float64


def test_it_goes_through_a_file_without_its_rows(tmp_path):
    table = Table.fit(X, np.array([0, 1]), clip=2.0, features=["a", "b"], reading={"array": "fp", "unpack": False})
    torch.save(inputs_state(table), tmp_path / "t.pt")
    back = inputs_from_state(torch.load(tmp_path / "t.pt", weights_only=True))
    assert len(back) == 0
    described = {"kind": "table", "width": 2, "shape": [2], "features": ["a", "b"], "bins": [[], []]}
    assert back.describe() == table.describe() == described
    assert_array_equal(back.prepare(X), table.tensors(np.arange(3)))


def test_new_rows_may_be_arrays_frames_or_files(tmp_path):
    table = Table.fit(X, np.array([0, 1]), features=["a", "b"])
    expected = table.tensors(np.arange(3)).numpy()
    frame = pd.DataFrame({"b": X[:, 1], "more": "x", "a": X[:, 0]})
    frame.to_csv(tmp_path / "new.csv", index=False)
    np.savez(tmp_path / "new.npz", X=X)
    for raw in (X, X.tolist(), frame, table.read(tmp_path / "new.csv"), table.read(tmp_path / "new.npz")):
        assert_allclose(table.prepare(raw), expected)
    unnamed = Table.fit(X, np.array([0, 1]))
    pd.DataFrame(X, columns=["u", "v"]).to_csv(tmp_path / "order.csv", index=False)
    assert_allclose(unnamed.prepare(unnamed.read(tmp_path / "order.csv")), expected)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((3, 3)), r"shape \(rows, 2\), as the training data; got \(3, 3\)"),
        (np.zeros(2), r"got \(2,\)"),
        ([[1, np.nan]], r"must be finite; the entry \(0, 1\) is not"),
        (pd.DataFrame({"a": [1.0]}), "has no column 'b'; the model was trained on a, b"),
        (pd.DataFrame({"a": [1.0], "b": [np.nan]}), "row 0, column 'b': missing. Inputs are numbers"),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), "row 0, column 'b': 'x' is no number"),
    ],
)
def test_other_rows_are_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        Table.fit(X, None, features=["a", "b"]).prepare(raw)


@pytest.mark.parametrize("clip", [0, -1.0, "none", True, np.nan])
def test_a_bound_is_positive(clip):
    with pytest.raises(ValueError, match="clip is a positive number of standard deviations, inf for no bound; got"):
        Table.fit(X, None, clip=clip)
    assert Table.fit(X, None, clip=np.inf).tensors(np.array([2])).max() == 100


def test_a_missing_file_is_named(tmp_path):
    for name in ("none.npz", "none.csv"):
        with pytest.raises(FileNotFoundError, match=f"no file .*{name}"):
            Table.fit(X, None).read(tmp_path / name)


def test_rows_may_have_several_dimensions():
    images = np.arange(24.0).reshape(4, 2, 3)
    table = Table.fit(images, np.arange(4))
    assert table.describe()["shape"] == [2, 3]
    assert table.describe()["width"] == 6
    assert table.prepare(images).shape == (4, 2, 3)
    assert table.summary_features(np.arange(2)).shape == (2, 6)


def test_a_state_that_is_none_is_refused():
    state = inputs_state(Table.fit(X, None))
    with pytest.raises(ValueError, match="not the state of inputs of the kind 'table' .KeyError: 'std'"):
        inputs_from_state({**state, "state": {k: v for k, v in state["state"].items() if k != "std"}})
    with pytest.raises(ValueError, match="columns of shape"):
        Table(X, Scaler(np.zeros(3), np.ones(3)))
