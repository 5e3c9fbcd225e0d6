import os

import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation.fallback import read_arrays, write_arrays
from bmtl.evaluation.storage import ResultsFileError


def test_a_run_comes_back(make_tree, tmp_path):
    tree = make_tree(attributes={"odd": "a\0b"})
    path = write_arrays(tree, tmp_path / "a" / "fallback.npz")
    assert read_arrays(path).identical(tree)
    assert os.listdir(path.parent) == ["fallback.npz"]


@pytest.mark.parametrize(
    "name", ["cafe\N{COMBINING ACUTE ACCENT}", "IC50 ", "a\0b", "x" * 300, "-beta", "\ud800", "file"]
)
def test_names_that_no_results_file_holds_are_kept(tmp_path, name):
    data = xr.Dataset({name: (("x y",), np.arange(3.0))}, coords={"x y": ["a", "b", "c"]}, attrs={name: 1})
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"k": 2.5}), f"/{name}": data})
    assert read_arrays(write_arrays(tree, tmp_path / "fallback.npz")).identical(tree)


def test_arrays_of_any_numbers_are_kept(tmp_path):
    data = xr.Dataset({"z": ("x", [1j, 2.0]), "half": ("x", np.ones(2, dtype=np.float16)), "when": ("x", ["a", "b"])})
    found = read_arrays(write_arrays(xr.DataTree(data), tmp_path / "fallback.npz"))
    assert found.identical(xr.DataTree(data))
    assert (found["z"].dtype, found["half"].dtype) == (complex, np.float16)


def test_other_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.npz"):
        read_arrays(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_bytes(b"PK\x03\x04 and no more")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("other.npz", "text.npz", "one.npy"):
        with pytest.raises(ResultsFileError, match=f"{name} holds no arrays of a run"):
            read_arrays(tmp_path / name)
