import io
import re
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy

from bmtl.datasets.files import Archive, find, own_path


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch):
    monkeypatch.delenv("BMTL_DATA", raising=False)


def test_the_first_that_exists_is_found(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "c").touch()
    assert find("set", ["a", "b", "c"], tmp_path, "") == tmp_path / "b"
    assert find("set", ["c", "b"], str(tmp_path), "") == tmp_path / "c"


def test_the_root_comes_from_the_environment_unless_it_is_given(tmp_path, monkeypatch):
    given = tmp_path / "given"
    given.mkdir()
    for folder in (tmp_path, given):
        (folder / "a").touch()
    monkeypatch.setenv("BMTL_DATA", str(tmp_path))
    assert find("set", ["a"], None, "") == tmp_path / "a"
    assert find("set", ["a"], given, "") == given / "a"


def test_what_is_missing_is_named_with_its_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"set needs the file a/x.npz or a/y in .*Get it at \[there\]."):
        find("set", ["a/x.npz", "a/y"], tmp_path, "Get it at [there].")
    with pytest.raises(FileNotFoundError, match="a.npz, and no folder is given. .*`root`.*BMTL_DATA. Get it."):
        find("set", ["a.npz"], None, "Get it.")


def test_an_own_file_is_below_the_working_folder_or_the_root(tmp_path, monkeypatch):
    work, root = tmp_path / "work", tmp_path / "root"
    for folder in (work, root):
        folder.mkdir()
        (folder / "mine.npz").touch()
    monkeypatch.chdir(work)
    assert own_path("mine.npz", None, "").resolve() == work / "mine.npz"
    assert own_path("mine.npz", root, "") == root / "mine.npz"
    assert own_path(str(work / "mine.npz"), root, "") == work / "mine.npz"
    (work / "mine.npz").unlink()
    monkeypatch.setenv("BMTL_DATA", str(root))
    assert own_path("mine.npz", None, "") == root / "mine.npz"
    with pytest.raises(FileNotFoundError, match="other.npz .*Write it."):
        own_path("other.npz", None, "Write it.")


def test_bytes_come_as_text(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["é".encode(), b"b"]), x=np.arange(3))
    archive = Archive(tmp_path / "a.npz")
    assert archive.array("names").tolist() == ["é", "b"]
    assert archive.array("x").tolist() == [0, 1, 2]
    assert "x" in archive
    assert "y" not in archive


def test_arrays_that_are_not_there_or_need_pickle_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), objects=np.array([{}, None], dtype=object))
    archive = Archive(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="has no array 'X'; its arrays are: x, objects"):
        archive.array("X")
    with pytest.raises(ValueError, match="'objects' .* without pickle"):
        archive.array("objects")


def test_what_is_no_archive_is_refused(tmp_path):
    np.save(tmp_path / "bare.npy", np.arange(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04" + b"0" * 40)
    for name in ("bare.npy", "text.npz", "empty.npz", "broken.npz"):
        with pytest.raises(ValueError, match=f"{name} is not an .npz file, or not the whole of one"):
            Archive(tmp_path / name)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ValueError, match="folder.npz is a folder"):
        Archive(tmp_path / "folder.npz")


# ---- Damaged files are named as such, whatever numpy or zipfile make of them ------------------------------------------


def header(shape, descr="<f8") -> bytes:
    """The beginning of an .npy file that claims a shape."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def archive_of(path, **members) -> Archive:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "."), content)
    return Archive(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((3 * 10**12,)), "its header claims 24,000,000,000,000 bytes, and 0 are there"),
        (header((3,)) + bytes(16), "its header claims 24 bytes, and 16 are there"),  # once blamed on pickle
        (header((3,)) + bytes(32), "its header claims 24 bytes, and 32 are there"),
        (header((2**62, 2**62)), "its header claims"),
        (header((3,))[:20], "is damaged"),
        (b"", "is damaged"),
        (b"hello", "is damaged"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "is damaged"),
        (header((3,)).replace(b"<f8", b"<z8") + bytes(24), "is damaged"),
        (header((3,)).replace(b"{'descr'", b"['descr'") + bytes(24), "is damaged"),
        (header((3,)).replace(b"(3,)", b"(-3,") + bytes(24), "is damaged"),
        (header((2,), "S2") + b"\xff\xfe\xff\xfe", "is damaged .UnicodeDecodeError"),
    ],
)
def test_damaged_arrays_are_named(tmp_path, content, message):
    archive = archive_of(tmp_path / "a.npz", X__npy=content, y__npy=header((0,)))
    with pytest.raises(ValueError, match="The array 'X' of .*a.npz is damaged.*Restore the file") as error:
        archive.array("X")
    assert "pickle" not in str(error.value)
    assert re.search(message, str(error.value))
    assert archive.array("y").shape == (0,)  # the others can be read


def test_a_member_that_is_no_array_is_no_array(tmp_path):
    """Once: 'bytes' object has no attribute 'dtype'."""
    archive = archive_of(tmp_path / "a.npz", X="hello", notes__txt="hello", y__npy=header((0,)))
    assert archive.names == ("y",)
    for name in ("X", "notes.txt"):
        with pytest.raises(ValueError, match=f"has no array '{name}'; its arrays are: y"):
            archive.array(name)
    with pytest.raises(ValueError, match="has no array 'X'; its arrays are: none"):
        archive_of(tmp_path / "b.npz", X="hello").array("X")


@given(st.data())
def test_one_flipped_bit_is_found_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bits") / "a.npz"
    arrays = {"X": np.arange(12.0).reshape(4, 3), "names": np.array(["ab", "c"])}
    np.savez_compressed(path, **arrays)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    for name, expected in arrays.items():
        found = None
        try:
            found = Archive(path).array(name)
        except ValueError as error:
            refusal = str(error)
        if found is None:
            assert "a.npz" in refusal
        else:
            np.testing.assert_array_equal(found, expected)
