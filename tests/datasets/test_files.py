import numpy as np
import pytest

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
        with pytest.raises(ValueError, match=f"{name} is not an .npz file"):
            Archive(tmp_path / name)
