import cProfile
import errno
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import netCDF4
import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation import netcdf, storage
from bmtl.evaluation.parts import scored
from bmtl.evaluation.results import PredictedRows, ReportedTarget, to_datatree
from bmtl.evaluation.storage import SCHEMA, ResultsFileError, atomic, check_writable, read, read_attributes, write
from bmtl.targets import Law, Prediction, Real, Scaler


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
    tree["test/posterior_predictive"] = xr.DataTree(
        tree["test/posterior_predictive"].to_dataset().isel(draw=slice(2), obs_mu=[0])
    )
    assert identical(tree, read(write(tree, tmp_path / "results.nc")))


def test_plain_netcdf_sees_the_groups(make_tree, tmp_path):
    path = write(make_tree(), tmp_path / "results.nc")
    with netCDF4.Dataset(path) as file:
        large, small = file["test/posterior_predictive"]["y_mu"], file["test/pit"]["y_mu"]
        assert large.dtype == np.float32
        assert large.filters()["zlib"]
        assert small.chunking() == "contiguous"


def test_xarray_reads_the_same_tree(make_tree, tmp_path):
    tree = make_tree(attributes={"empty": "", "å": "µ"}, training={"losses": np.ones((2, 3)), "skipped": [True, False]})
    path = write(tree, tmp_path / "results.nc")
    with xr.open_datatree(path, engine="netcdf4") as theirs:
        for node in tree.subtree:
            there = theirs[node.path].to_dataset(inherit=False)
            for name, variable in node.to_dataset(inherit=False).variables.items():
                assert there.variables[name].dims == variable.dims
                np.testing.assert_array_equal(there.variables[name].values, variable.values)
        assert {name: theirs.attrs[name] for name in tree.attrs} == tree.attrs


def test_every_kind_of_array_comes_back(tmp_path):
    data = xr.Dataset(
        {
            **{f"k{i}": ("x", np.array([0, 1, 2], dtype=kind)) for i, kind in enumerate("bhilBHILfd?")},
            "text": ("x", ["", "å", "long text"]),
            "scalar": 3.5,
            "word": "yes",
            "large": (("x", "y"), np.random.default_rng(0).normal(size=(3, 5000))),
            "none": ("nothing", np.zeros(0, dtype=np.float32)),
            "no_text": ("nothing", np.zeros(0, dtype="U3")),
            "special": ("x", [np.nan, np.inf, -0.0]),
        },
        coords={"x": [3, 1, 2], "unit": ("x", ["m", "", "s"]), "label": "run"},
        attrs={"bmtl_version": "1", "schema": SCHEMA, "number": 2.5, "none": float("nan")},
    )
    data["large"].attrs = {"long_name": "µ", "level": 3}
    found = read(write(data, tmp_path / "a.nc")).to_dataset()
    assert found.identical(data)
    assert set(found.xindexes) == {"x"}
    assert all(found[name].dtype == data[name].dtype for name in data.variables if data[name].dtype.kind != "U")
    assert np.signbit(found["special"].values[2])


def test_text_and_types_that_the_library_lacks_are_stored_as_near_as_can_be(tmp_path):
    data = xr.Dataset(
        {
            "half": ("x", np.array([1.5, 2.5], dtype=np.float16)),
            "long": ("x", np.array([1.0, 2.0], dtype=np.longdouble)),
        },
        coords={"learner": ("x", ["a\0b", "\ud800"])},
        attrs={"bmtl_version": "1", "schema": SCHEMA},
    )
    data["status"] = ("x", np.array(["ok", "skipped"], dtype=object))
    found = read(write(data, tmp_path / "a.nc")).to_dataset()
    assert (found["half"].dtype, found["long"].dtype) == (np.float32, np.float64)
    assert found["half"].values.tolist() == [1.5, 2.5]
    assert found["learner"].values.tolist() == ["a\N{REPLACEMENT CHARACTER}b", "?"]
    assert found["status"].values.tolist() == ["ok", "skipped"]
    with pytest.raises(ValueError, match="z has dtype complex128, which no results file holds"):
        write(data.assign(z=("x", [1j, 2j])), tmp_path / "a.nc")


@pytest.mark.parametrize("value", [True, None, ["one"], (1,), [1, 2.5], ["a", 1], b"x", "a\0b", {"a": 1}, 1j, 2**64])
def test_an_attribute_that_would_come_back_as_another_is_not_written(value, tmp_path):
    data = xr.Dataset({"x": ("r", [1.0])}, attrs={"bmtl_version": "1", "schema": SCHEMA})
    with pytest.raises(ValueError, match=r"attribute 'mine' of a group is .* does not give back"):
        write(data.assign_attrs(mine=value), tmp_path / "a.nc")
    data["x"].attrs["mine"] = value
    with pytest.raises(ValueError, match=r"attribute 'mine' of the variable 'x'"):
        write(data, tmp_path / "a.nc")


def test_lists_come_back_and_so_do_coordinates_with_spaces(tmp_path):
    attrs = {
        "tuple": (1, 2),
        "array": np.array([1.0, np.nan]),
        "texts": ["", "å"],
        "nothing": [],
        "single": np.float32(0.5),
    }
    data = xr.Dataset({"x": ("r", [1.0])}, {"my own": ("r", [2])}, {"bmtl_version": "1", "schema": SCHEMA, **attrs})
    found = read(write(data, tmp_path / "a.nc")).to_dataset()
    assert list(found.coords) == ["my own"]
    wanted = {"tuple": [1, 2], "texts": ["", "å"], "nothing": [], "single": 0.5}
    assert {name: found.attrs[name] for name in wanted} == wanted
    np.testing.assert_array_equal(found.attrs["array"], [1.0, np.nan])
    with pytest.raises(ValueError, match="the name is taken"):
        write(data.assign_attrs(coordinates="x"), tmp_path / "a.nc")


def test_definitions_come_before_values(make_tree, tmp_path, monkeypatch):
    """One after the other, variable by variable, they cost the square of the number of variables."""
    done = []
    define = netcdf._define

    class Recorded:
        def __init__(self, target):
            self.target = target

        def __setitem__(self, key, values):
            done.append("write")
            self.target[key] = values

    def defined(*arguments):
        done.append("define")
        return Recorded(define(*arguments))

    monkeypatch.setattr(netcdf, "_define", defined)
    write(make_tree(), tmp_path / "results.nc")
    assert done == sorted(done)
    assert done.count("define") == done.count("write") > 20


def test_many_targets_cost_in_proportion(tmp_path):
    """Calls made, which do not depend on the machine: four times the targets make four times the calls."""

    def calls(function):
        profile = cProfile.Profile()
        found = profile.runcall(function)
        return found, sum(entry.callcount for entry in profile.getstats())

    def counts(number):
        names = [f"t{i}" for i in range(number)]
        rows = PredictedRows(
            Prediction(np.zeros((2, 3)), mean=np.zeros(3), law=Law("poisson", {"rate": np.ones((2, 3))})), np.zeros(3)
        )
        parts = {part: dict.fromkeys(names, rows) for part in ("test", "validation")}
        tree, built = calls(
            lambda: to_datatree(
                parts, dict.fromkeys(names, ReportedTarget(Real())), posterior={n: np.ones((2, 3)) for n in names}
            )
        )
        path, written = calls(lambda: write(tree, tmp_path / f"{number}.nc"))
        back, read_ = calls(lambda: read(path))
        _, scored_ = calls(lambda: scored(back))
        return np.array([built, written, read_, scored_])

    few, many = counts(50), counts(200)
    assert (many < 4.4 * few).all(), (few, many)


def test_a_dataset_is_the_root(tmp_path):
    data = xr.Dataset(
        {"mae": ("task", [1.0, 2.0])}, coords={"task": ["a", "b"]}, attrs={"bmtl_version": "1", "schema": SCHEMA}
    )
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


def small_tree(rows=3):
    """As little as a run has."""
    rows = PredictedRows(
        Prediction(np.arange(2.0 * rows).reshape(2, rows), pit=np.full(rows, 0.5)), 1 + np.arange(rows, dtype=float)
    )
    return to_datatree(
        {"test": {"mu": rows}}, {"mu": ReportedTarget(Real(), "D", Scaler(np.array(3.0), np.array(2.0)))}
    )


def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path):
    """240 of them: bits of structure that no content depends on may flip; whatever would be read otherwise is an error."""
    tree = small_tree(rows=200)
    path = write(tree, tmp_path / "results.nc")
    data = path.read_bytes()
    noticed = 0
    for position in np.random.default_rng(0).choice(8 * len(data), size=240, replace=False).tolist():
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            found = read(path)
        except ResultsFileError:
            noticed += 1
            continue
        assert found.identical(tree), position
    assert noticed > 40  # of the 17 kB, 6 kB are numbers


def stored_number(path, group, name, value):
    """Writes one number into a file in mode "a", as another program would."""
    with netCDF4.Dataset(path, "a") as file:
        file[group][name][...] = value


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("constant_data", "target_scale", 2.0000000001),
        ("constant_data", "unit", np.array(["meV"], dtype=object)),
        ("test/observed_data", "y_mu", [1.0, 2.0, 3.5]),
        ("test/observed_data", "obs_mu", [0, 1, 3]),
        ("test/pit", "y_mu", [0.5, 0.5, np.nan]),
        ("test/posterior_predictive", "y_mu", 0.0),
    ],
)
def test_a_changed_number_is_noticed_wherever_it_is(tmp_path, group, name, value):
    path = write(small_tree(), tmp_path / "results.nc")
    stored_number(path, group, name, value)
    with pytest.raises(ResultsFileError, match="results.nc is not what was written.*mode 'a'"):
        read(path)


def test_a_changed_attribute_or_variable_is_noticed(tmp_path):
    for change in (
        lambda file: file.setncattr("method", "stl"),
        lambda file: file["test/pit"]["y_mu"].setncattr("units", "m"),
        lambda file: file["test/pit"].createVariable("y_nu", "f8", ()),
        lambda file: file.createGroup("further"),
        lambda file: file["test/pit"].renameVariable("y_mu", "y_nu"),
        lambda file: file.delncattr("digest"),
    ):
        path = write(small_tree(), tmp_path / "results.nc")
        with netCDF4.Dataset(path, "a") as file:
            change(file)
        with pytest.raises(ResultsFileError, match="results.nc is not what was written"):
            read(path)


def test_large_arrays_have_the_digest_too(tmp_path, make_tree):
    path = write(make_tree(targets=("mu",), rows=4000, posterior=None, training=None), tmp_path / "results.nc")
    data = path.read_bytes()
    for position in range(len(data) // 3, 2 * len(data) // 3, len(data) // 50):
        changed = bytearray(data)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ResultsFileError, match="results.nc"):
            read(path)


def test_a_file_that_claims_more_than_it_can_hold_is_named(tmp_path):
    """A header that says 24 TB, which would otherwise be an attempt to have them."""
    path = write(small_tree(), tmp_path / "results.nc")
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("huge", 3 * 10**12)
        file.createVariable("claimed", "f8", ("huge",), chunksizes=(10**6,))
    with pytest.raises(
        ResultsFileError, match=r"results.nc is not a readable results file \(it claims 24,000.0 GB for 'claimed'"
    ):
        read(path)


def test_what_has_no_memory_is_named(tmp_path, monkeypatch):
    path = write(small_tree(), tmp_path / "results.nc")

    def fail(path):
        raise MemoryError("Unable to allocate 21.8 TiB")

    monkeypatch.setattr(netcdf, "get", fail)
    with pytest.raises(ResultsFileError, match="results.nc is not a readable results file.*21.8 TiB"):
        read(path)


@pytest.mark.skipif(os.name == "nt", reason="HDF5 locks files by flock on POSIX alone")
def test_a_file_that_is_open_for_writing_is_no_damaged_one(tmp_path):
    path = write(small_tree(), tmp_path / "results.nc")
    code = (
        "import netCDF4, sys\n"
        "file = netCDF4.Dataset(sys.argv[1], 'a')\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(ResultsFileError, match="results.nc is open for writing in another program.*mode 'a'"):
            read(path)
        with pytest.raises(ResultsFileError, match="open for writing"):
            read_attributes(path)
        other.communicate("\n")
    assert read(path).identical(read(path))


def test_a_file_of_another_schema_is_refused_with_the_way_out(tmp_path):
    tree = small_tree()
    for schema, said in ((SCHEMA + 1, SCHEMA + 1), (1, 1), (None, 1)):
        path = write(tree, tmp_path / "results.nc")
        with netCDF4.Dataset(path, "a") as file:
            file.delncattr("schema") if schema is None else file.setncattr("schema", schema)
        for open_ in (read, read_attributes):
            with pytest.raises(
                ResultsFileError, match=f"schema {said}; this version reads schema {SCHEMA}. Train again"
            ):
                open_(path)


def test_attributes_alone_are_read_without_the_arrays(tmp_path, make_tree, monkeypatch):
    tree = make_tree()
    path = write(tree, tmp_path / "results.nc")
    monkeypatch.setattr(netcdf, "get", None)
    assert read_attributes(path) == tree.attrs
    with pytest.raises(FileNotFoundError, match="no results file"):
        read_attributes(tmp_path / "none.nc")
    (tmp_path / "bad.nc").write_bytes(b"nothing")
    with pytest.raises(ResultsFileError, match=r"bad.nc is not a readable results file"):
        read_attributes(tmp_path / "bad.nc")


THREADED = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import xarray as xr
from bmtl.evaluation import netcdf, results
from bmtl.evaluation.results import PredictedRows, ReportedTarget
from bmtl.targets import Prediction, Real

folder = sys.argv[1]
names = [f"t{k}" for k in range(20)]
rows = PredictedRows(Prediction(np.zeros((20, 50))), np.zeros(50))
tree = results.to_datatree({"test": dict.fromkeys(names, rows)}, dict.fromkeys(names, ReportedTarget(Real())))
results.write(tree, f"{folder}/one.nc")


def work(what, i):
    if what in ("write", "both"):
        results.write(tree, f"{folder}/w{i}.nc")
    if what in ("read", "both"):
        assert results.read(f"{folder}/one.nc").identical(tree)
    if what == "others":
        results.write(tree, f"{folder}/w{i}.nc")
        with netcdf.LIBRARY:
            xr.open_datatree(f"{folder}/one.nc", engine="netcdf4").load().close()


for what in ("write", "read", "both", "others"):
    print(what, flush=True)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [what] * 16, range(16)))
"""


def test_files_are_written_and_read_in_threads(tmp_path):
    """The library crashes the interpreter where two threads are in it at once. The last word printed is where."""
    done = subprocess.run([sys.executable, "-c", THREADED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
    with pytest.raises(ResultsFileError, match="is a folder. Give the path of a results.nc"):
        read(tmp_path)
    (tmp_path / "results.nc").mkdir()
    with pytest.raises(ResultsFileError, match="results.nc could not be written"):
        write(make_tree(), tmp_path / "results.nc")
    assert os.listdir(tmp_path) == ["results.nc"]


FULL = "No space left on device.*Free some space there"


@pytest.mark.parametrize(
    ("error", "free", "message"),
    [
        (RuntimeError("NetCDF: HDF error"), 1000, FULL),  # the library does not say what is the matter
        (OSError(errno.ENOSPC, "No space left on device"), 10**12, FULL),
        (RuntimeError("NetCDF: HDF error"), 10**12, "NetCDF: HDF error; .* a quota or a limit on the size of files"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 10**12, "Disk quota exceeded.*Free some space"),
        (OSError(errno.EROFS, "Read-only file system"), 10**12, "Read-only file system.*Change its permissions"),
        (PermissionError(errno.EACCES, "Permission denied"), 10**12, "Permission denied.*Change its permissions"),
    ],
)
def test_a_failed_write_says_why_and_leaves_the_old_file_and_no_other(
    make_tree, tmp_path, monkeypatch, error, free, message
):
    old = make_tree(seed=1)
    path = write(old, tmp_path / "results.nc")

    def fail(groups, path, attributes):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(netcdf, "put", fail)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    with pytest.raises(ResultsFileError, match=f"results.nc could not be written.*{message}"):
        write(make_tree(seed=2), path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["results.nc"]
    assert identical(old, read(path))


@pytest.mark.skipif(os.name == "nt", reason="limits on the size of files are POSIX's")
def test_a_disk_that_takes_no_more_is_named(tmp_path):
    code = (
        "import resource, signal, sys\n"
        "import numpy as np\n"
        "from bmtl.evaluation import results\n"
        "from bmtl.evaluation.results import PredictedRows, ReportedTarget\n"
        "from bmtl.targets import Prediction, Real\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "rows = PredictedRows(Prediction(np.random.default_rng(0).normal(size=(500, 500))), np.zeros(500))\n"
        "tree = results.to_datatree({'test': {'mu': rows}}, {'mu': ReportedTarget(Real())})\n"
        "try:\n"
        "    results.write(tree, sys.argv[1])\n"
        "except results.ResultsFileError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "results.nc")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "results.nc could not be written" in said
    assert "MB to write" in said or "too large" in said
    assert os.listdir(tmp_path) == []


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
    part.attrs |= {storage.OWN: "1", "schema": SCHEMA}
    found = read(write(part, tmp_path / "part.nc"))
    assert found["x"].values.tolist() == [1.0, 2.0]
    assert found["a"].sel(x=2.0) == 4.0
