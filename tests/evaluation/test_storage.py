import os
import stat
import subprocess
import sys

import netCDF4
import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation import storage
from bmtl.evaluation.storage import ResultsFileError, atomic, check_writable, read, write


def identical(one, other):
    assert one.identical(other)
    for node in one.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            assert other[node.path].to_dataset(inherit=False).variables[name].dtype == variable.dtype
    return True


def test_reads_back_equal_attributes_and_dtypes_included(make_tree, tmp_path):
    tree = make_tree(attributes={"empty": "", "none": None, "å": "µ"})
    path = write(tree, tmp_path / "ew" / "seed-0" / "results.nc")
    assert identical(tree, read(path))
    assert os.listdir(path.parent) == ["results.nc"]


def test_a_target_without_labels_and_absent_tasks_read_back_equal(make_tree, run_arrays, tmp_path):
    given = run_arrays()
    given["observed"]["cv"] = np.full(60, np.nan)
    given["training"]["losses"][3, 1] = np.nan
    given["training"]["skipped"] = np.zeros(30, dtype=bool)
    given["training"]["status"] = np.full(30, "ok")
    given["units"] = {}
    tree = make_tree(**{name: given[name] for name in ("observed", "training", "units")})
    assert identical(tree, read(write(tree, tmp_path / "results.nc")))


def test_what_was_read_can_be_cut_and_written_again(make_tree, tmp_path):
    tree = read(write(make_tree(), tmp_path / "results.nc"))
    tree["posterior_predictive"] = xr.DataTree(
        tree["posterior_predictive"].to_dataset().isel(draw=slice(2), obs_mu=[0])
    )
    assert identical(tree, read(write(tree, tmp_path / "results.nc")))


def test_plain_netcdf_sees_the_groups(make_tree, tmp_path):
    path = write(make_tree(), tmp_path / "results.nc")
    with netCDF4.Dataset(path) as file:
        variable = file["posterior_predictive"]["y_mu"]
        assert variable.dtype == np.float32
        assert variable.filters()["zlib"]
        assert variable.filters()["fletcher32"]


def test_a_file_is_the_one_that_xarray_would_write(make_tree, tmp_path):
    """Up to the order of things: the same variables, types, attributes and filters in the same groups."""
    tree = make_tree(attributes={"empty": "", "å": "µ"})
    tree["below"] = make_tree(seed=1)
    tree.to_netcdf(
        tmp_path / "theirs.nc",
        engine="netcdf4",
        encoding={node.path: storage._compression(node.to_dataset(inherit=False)) for node in tree.subtree},
    )
    write(tree, tmp_path / "ours.nc")

    def contents(group):
        found = {"attributes": {name: group.getncattr(name) for name in group.ncattrs()}}
        found["dimensions"] = {name: len(dimension) for name, dimension in group.dimensions.items()}
        for name, v in group.variables.items():
            about = {key: str(v.getncattr(key)) for key in v.ncattrs()}
            found[name] = (v.dimensions, v.dtype, v.filters(), v.chunking(), about, np.asarray(v[...]).tolist())
        return found | {name: contents(below) for name, below in group.groups.items()}

    with netCDF4.Dataset(tmp_path / "ours.nc") as ours, netCDF4.Dataset(tmp_path / "theirs.nc") as theirs:
        assert repr(contents(ours)) == repr(contents(theirs))  # as text, in which NaN equals NaN
        assert len(ours["below"].groups) == len(tree["below"].children)


def test_definitions_come_before_values(make_tree, tmp_path, monkeypatch):
    """One after the other, variable by variable, they cost the square of the number of variables."""
    done = []
    put = storage.NetCDF4DataStore.prepare_variable

    def prepare(self, name, variable, *args, **kwargs):
        done.append("define")
        target, values = put(self, name, variable, *args, **kwargs)
        return Told(target), values

    class Told:
        def __init__(self, target):
            self.target = target

        def __setitem__(self, key, values):
            done.append("write")
            self.target[key] = values

    monkeypatch.setattr(storage.NetCDF4DataStore, "prepare_variable", prepare)
    write(make_tree(), tmp_path / "results.nc")
    assert done == sorted(done)
    assert done.count("define") == done.count("write") > 20


def test_a_dataset_is_the_root(tmp_path):
    data = xr.Dataset({"mae": ("task", [1.0, 2.0])}, coords={"task": ["a", "b"]}, attrs={"bmtl_version": "1"})
    assert read(write(data, tmp_path / "comparison.nc")).to_dataset().identical(data)


def test_a_foreign_tree_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="build them with to_datatree or compare"):
        write(xr.Dataset({"a": 1}), tmp_path / "a.nc")
    assert not os.listdir(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.nc"):
        read(tmp_path / "nothing.nc")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(make_tree, tmp_path, share):
    path = write(make_tree(), tmp_path / "results.nc")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ResultsFileError, match="results.nc is not a readable results file.*Run again"):
        read(path)


def test_a_changed_byte_is_noticed(make_tree, tmp_path):
    """The checksum sees damage inside the arrays, which an uncompressed file would give back as numbers."""
    path = write(make_tree(targets=("mu",), rows=4000, posterior=None, training=None), tmp_path / "results.nc")
    data = bytearray(path.read_bytes())
    for position in range(len(data) // 3, 2 * len(data) // 3, 997):
        data[position] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ResultsFileError, match="results.nc"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"method,seed\n", b"CDF\x01" + bytes(100), b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ResultsFileError, match="table.csv"):
        read(path)


def test_another_netcdf_file_is_named(tmp_path):
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="netcdf4")
    with pytest.raises(ResultsFileError, match="other.nc is a NetCDF file, but not of bmtl's results"):
        read(tmp_path / "other.nc")


def test_a_folder_is_no_file(tmp_path, make_tree):
    with pytest.raises(ResultsFileError):
        read(tmp_path)
    (tmp_path / "results.nc").mkdir()
    with pytest.raises(ResultsFileError, match="results.nc could not be written"):
        write(make_tree(), tmp_path / "results.nc")
    assert os.listdir(tmp_path) == ["results.nc"]


@pytest.mark.parametrize("error", [RuntimeError("NetCDF: HDF error"), OSError(28, "No space left on device")])
def test_a_failed_write_leaves_the_old_file_and_no_other(make_tree, tmp_path, monkeypatch, error):
    old = make_tree(seed=1)
    path = write(old, tmp_path / "results.nc")

    def fail(tree, path):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(storage, "_put", fail)
    with pytest.raises(ResultsFileError, match="results.nc could not be written.*Nothing there was changed"):
        write(make_tree(seed=2), path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["results.nc"]
    assert identical(old, read(path))


def test_an_interrupt_leaves_no_half_file(tmp_path):
    def interrupted():
        with atomic(tmp_path / "results.nc") as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_a_killed_write_leaves_the_old_file(make_tree, tmp_path):
    path = write(make_tree(), tmp_path / "results.nc")
    before = path.read_bytes()
    code = (
        "import os, sys\n"
        "from bmtl.evaluation.storage import atomic\n"
        "with atomic(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="permission bits are POSIX's")
def test_others_may_read_as_the_umask_says(make_tree, tmp_path):
    path = write(make_tree(), tmp_path / "results.nc")
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    assert check_writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert os.listdir(tmp_path / "a" / "b") == []


def test_a_file_in_the_folders_place_is_named(tmp_path, make_tree):
    (tmp_path / "runs").write_bytes(b"")
    with pytest.raises(ResultsFileError, match="output folder .*runs cannot be written to"):
        check_writable(tmp_path / "runs")
    with pytest.raises(ResultsFileError, match="could not be written"):
        write(make_tree(), tmp_path / "runs" / "results.nc")


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    def refuse(self, data):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage.Path, "write_bytes", refuse)
    with pytest.raises(ResultsFileError, match="Permission denied"):
        check_writable(tmp_path)


def test_the_error_is_of_both_kinds():
    assert issubclass(ResultsFileError, OSError)
    assert issubclass(ResultsFileError, ValueError)


def test_a_part_of_a_tree_keeps_the_coordinates_that_it_inherits(tmp_path):
    whole = xr.DataTree.from_dict(
        {"/": xr.Dataset(coords={"x": [1.0, 2.0]}), "/part": xr.Dataset({"a": ("x", [3.0, 4.0])})}
    )
    part = whole["part"]
    part.attrs[storage.OWN] = "1"
    found = read(write(part, tmp_path / "part.nc"))
    assert found["x"].values.tolist() == [1.0, 2.0]
    assert found["a"].sel(x=2.0) == 4.0
