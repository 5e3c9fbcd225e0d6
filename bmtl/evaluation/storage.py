"""Results files: atomic writes, and reads that say what is wrong with a file."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xarray as xr

from bmtl.evaluation import netcdf

SCHEMA = 2
"""Number of the layout of results and comparisons. Files of another are refused."""
OWN = "bmtl_version"  # the root attribute that every file of bmtl carries
DIGEST = "digest"
# What damaged bytes surface as, depending on where the damage is.
DAMAGED = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    NotImplementedError,
    MemoryError,
    OverflowError,
)


class ResultsFileError(OSError, ValueError):
    """A results file or its folder cannot be read or written; the message names it and says what to do.

    Both an ``OSError`` and a ``ValueError``, as `io.UnsupportedOperation` is: the trouble may be the disk or the bytes.
    """


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the folder of `path` that replaces it when the block ends without an error, and is removed if not.

    A reader sees the old file or the new one, never part of one. The folder is created.

    Args:
        path: The file to write.

    Yields:
        The temporary path, in the same folder (a rename is atomic within one file system only).

    Raises:
        ResultsFileError: If the folder cannot be made or written to, the disk is full, or `path` is a folder.
    """
    path = Path(path)
    # A name of our own and not `mkstemp`: that would leave the file readable by its owner only.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise ResultsFileError(
            f"{path} could not be written ({_reason(error)}). Nothing there was changed. {_way_out(error)}"
        ) from error
    finally:
        with suppress(OSError):  # where the folder is no folder, there is nothing to remove
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # some network file systems cannot sync a folder; the file itself is complete
        _flush(path.parent)


def check_writable(folder: str | os.PathLike[str]) -> Path:
    """Create `folder` and check that files can be written there, before training rather than after it.

    Args:
        folder: The folder for results; its parents are created too.

    Returns:
        The folder.

    Raises:
        ResultsFileError: If it cannot be created or written to; names the folder.
    """
    folder = Path(folder)
    probe = folder / f".writable-{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"bmtl")
        probe.unlink()
    except OSError as error:
        raise ResultsFileError(
            f"The output folder {folder} cannot be written to ({_reason(error)}). {_way_out(error)}"
        ) from error
    return folder


@contextmanager
def output_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """`check_writable`; the folders that it makes are removed again if the block raises before it has written anything.

    Args:
        folder: The folder for results.

    Yields:
        The folder.

    Raises:
        ResultsFileError: As `check_writable`.
    """
    made = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
    try:
        yield check_writable(folder)
    except BaseException:
        with suppress(OSError):  # one that holds something stays, with those above it
            for path in made:
                path.rmdir()
        raise


def write(results: xr.DataTree | xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a results tree, or a comparison's dataset, to one NetCDF file: atomic, compressed, with a digest.

    Dtypes are kept (float32 stays float32). Safe to call from several threads; see `bmtl.evaluation.netcdf`.

    Args:
        results: From `to_datatree` or `compare`. A dataset becomes the root group.
        path: The file; an older one is replaced only once the new one is complete on disk.

    Returns:
        The path.

    Raises:
        ResultsFileError: If the file cannot be written; an older file is then untouched.
        ValueError: If `results` was made by neither, and so could not be distinguished from a foreign file on reading; if
            an array or an attribute is of a kind that NetCDF has not, or does not give back as it was.
    """
    tree = xr.DataTree(dataset=results) if isinstance(results, xr.Dataset) else results
    if OWN not in tree.attrs or "schema" not in tree.attrs:
        raise ValueError(
            f"The results have no attributes {OWN!r} and 'schema': build them with to_datatree or compare."
        )
    groups = netcdf.groups_of(tree)
    groups["."].attrs.pop(DIGEST, None)
    content = netcdf.digest(groups)
    with atomic(path) as temporary:
        try:
            netcdf.put(groups, temporary, {DIGEST: f"sha256:{content}"})
        except RuntimeError as error:  # the library's word for a full or vanished disk
            raise _library_error(error, groups, temporary.parent) from error
    return Path(path)


def read(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a results tree into memory and close the file.

    Args:
        path: A file that `write` made. A comparison's dataset is the root of the tree: ``read(path).to_dataset()``.

    Returns:
        The tree, equal to the one that was written.

    Raises:
        FileNotFoundError: If there is no such file.
        ResultsFileError: If the file is truncated, damaged, changed since it was written, of another kind or schema, or
            open for writing elsewhere; names the file.
    """
    path = _existing(path)
    try:
        groups = netcdf.get(path)
    except DAMAGED as error:
        raise _unreadable(path, error) from error
    stored = groups["."].attrs.pop(DIGEST, None)
    _check_own(path, groups["."].attrs)
    try:
        content = f"sha256:{netcdf.digest(groups)}"
        tree = xr.DataTree.from_dict({place: group.dataset() for place, group in groups.items()})
    except DAMAGED as error:
        raise _unreadable(path, error) from error
    if content != stored:
        raise ResultsFileError(
            f"The content of {path} is not what was written (its digest differs): the file is damaged, or was changed by "
            "another program, as by opening it in mode 'a'. Restore it from a copy, or run again to write it anew."
        )
    return tree


def read_attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The root attributes of a results file, for `decode_attributes`, without reading or checking its arrays.

    Raises:
        FileNotFoundError: If there is no such file.
        ResultsFileError: As `read`, but for damage to the arrays.
    """
    path = _existing(path)
    try:
        found = netcdf.attributes(path)
    except DAMAGED as error:
        raise _unreadable(path, error) from error
    _check_own(path, found)
    return {name: value for name, value in found.items() if name not in (DIGEST, netcdf.COORDINATES, netcdf.INDEXED)}


def _existing(given: str | os.PathLike[str]) -> Path:
    path = Path(given)
    if not path.exists():
        raise FileNotFoundError(f"There is no results file {path}. Give the path of a results.nc that a run wrote.")
    return path


def _check_own(path: Path, attrs: dict[str, Any]) -> None:
    """Raise unless the attributes are those of a file of bmtl, of this schema."""
    if OWN not in attrs:
        raise ResultsFileError(
            f"{path} is a NetCDF file, but not of bmtl's results (no attribute {OWN!r}). "
            "Give the path of a results.nc that a run wrote, or open it with xarray."
        )
    if attrs.get("schema") != SCHEMA:
        raise ResultsFileError(
            f"{path} was written by bmtl {attrs[OWN]} with schema {attrs.get('schema', 1)}; this version reads schema "
            f"{SCHEMA}. Train again into another folder, or read the file with that version."
        )


def _unreadable(path: Path, error: Exception) -> ResultsFileError:
    if path.is_dir():
        return ResultsFileError(f"{path} is a folder. Give the path of a results.nc that a run wrote.")
    if _is_being_written(path):
        return ResultsFileError(
            f"{path} is open for writing in another program (in mode 'a' or 'w'), which keeps it from being read. Close it "
            "there and try again."
        )
    if isinstance(error, PermissionError):
        return ResultsFileError(f"{path} may not be read ({_reason(error)}). Change its permissions.")
    return ResultsFileError(
        f"{path} is not a readable results file ({_reason(error)}): it is truncated, damaged or of another kind. "
        "Run again to write it anew, or restore it from a copy."
    )


def _is_being_written(path: Path) -> bool:
    """Whether another program holds the lock that the HDF5 library takes for writing."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _library_error(error: RuntimeError, groups: dict[str, netcdf.Group], folder: Path) -> OSError:
    """The cause of the library's failure to write, as far as it can be determined."""
    needed = sum(variable.nbytes for group in groups.values() for variable in group.variables.values())
    free = shutil.disk_usage(folder).free
    sizes = f"up to {needed / 1e6:,.1f} MB to write, {free / 1e6:,.1f} MB free"
    if free < max(needed, 2**20):
        return OSError(errno.ENOSPC, f"No space left on device: {sizes}")
    return OSError(errno.EIO, f"{error}; {sizes}: a quota or a limit on the size of files may be reached")


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _way_out(error: OSError) -> str:
    """What to do about a failure to write."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "Free some space there, or choose another folder."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "Change its permissions, or choose another folder."
        case errno.ENAMETOOLONG:
            return "Choose a shorter name."
        case _:
            return "Choose another folder, or change its permissions, or free some space."
