"""Files that are whole or not there: atomic writes, and reads that say what is wrong with a file."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import netCDF4
import numpy as np
import xarray as xr
from xarray.backends import NetCDF4DataStore

# One engine for both directions: where h5netcdf is installed too, xarray's own choice would depend on the machine.
ENGINE: Final = "netcdf4"
CACHE = 4 * 2**20  # bytes a variable, while a file is written
OWN = "bmtl_version"  # the root attribute that every file of ours carries
# What damaged bytes surface as, depending on where the damage is.
DAMAGED = (OSError, RuntimeError, ValueError, LookupError, AttributeError, TypeError, NotImplementedError)


class ResultsFileError(OSError, ValueError):
    """A results file or its folder cannot be read or written; the message names it and says what to do.

    Both an ``OSError`` and a ``ValueError``, as `io.UnsupportedOperation` is: the trouble may be the disk or the bytes.
    """


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well, and vanishes when it does not.

    A reader sees the old file or the new one, never a half. The folder is created.

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
            f"{path} could not be written ({_reason(error)}). Nothing there was changed; "
            "choose another folder, or mend its permissions or free space."
        ) from error
    finally:
        with suppress(OSError):  # where the folder is no folder, there is nothing to remove
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # some network file systems cannot sync a folder; the file itself is complete
        _flush(path.parent)


def check_writable(folder: str | os.PathLike[str]) -> Path:
    """Create `folder` and prove that files can be written there, so that this is known before training and not after.

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
            f"The output folder {folder} cannot be written to ({_reason(error)}). "
            "Choose another folder, or mend its permissions."
        ) from error
    return folder


def write(results: xr.DataTree | xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a results tree, or a comparison's dataset, to one NetCDF file: atomic, compressed, with checksums.

    Dtypes are kept (float32 stays float32).

    Args:
        results: From `to_datatree` or `compare`. A dataset becomes the root group.
        path: The file; an older one is replaced only once the new one is complete on disk.

    Returns:
        The path.

    Raises:
        ResultsFileError: If the file cannot be written; an older file is then untouched.
        ValueError: If `results` was made by neither, and so could not be told from a foreign file on reading.
    """
    tree = xr.DataTree(dataset=results) if isinstance(results, xr.Dataset) else results
    if OWN not in tree.attrs:
        raise ValueError(f"The results have no attribute {OWN!r}: build them with to_datatree or compare.")
    with atomic(path) as temporary:
        try:
            with _small_cache():
                _put(tree, temporary)
        except RuntimeError as error:  # the library's word for a full or vanished disk
            raise OSError(str(error)) from error
    return Path(path)


def read(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a results tree into memory and close the file.

    Args:
        path: A file that `write` made. A comparison's dataset is the root of the tree: ``read(path).to_dataset()``.

    Returns:
        The tree, equal to the one that was written.

    Raises:
        FileNotFoundError: If there is no such file.
        ResultsFileError: If the file is truncated, damaged or of another kind; names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no results file {path}. Give the path of a results.nc that a run wrote.")
    try:
        with xr.open_datatree(path, engine=ENGINE) as stored:
            stored.load()
            # Without encodings: chunk sizes of this file must not bind a smaller one written from a selection.
            groups = {node.path: node.to_dataset(inherit=False).drop_encoding() for node in stored.subtree}
    except DAMAGED as error:
        raise ResultsFileError(
            f"{path} is not a readable results file ({_reason(error)}): it is truncated, damaged or of another kind. "
            "Run again to write it anew, or restore it from a copy."
        ) from error
    if OWN not in groups["/"].attrs:
        raise ResultsFileError(
            f"{path} is a NetCDF file, but not of bmtl's results (no attribute {OWN!r}). "
            "Give the path of a results.nc that a run wrote, or open it with xarray."
        )
    return xr.DataTree.from_dict(groups)


def _put(tree: xr.DataTree, path: Path) -> None:
    """What ``tree.to_netcdf`` does, but for the order: all variables are defined before the first value is written.

    Between values and definitions the library goes once through all that was defined, so that taking turns, as xarray does,
    costs the square of the number of variables.
    """
    later = _Later()
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        for node in tree.subtree:
            group = node.to_dataset(inherit=node is tree)  # the root of a file has nothing above it
            store = NetCDF4DataStore(file if node is tree else file.createGroup(node.path))
            group.dump_to_store(store, writer=later, encoding=_compression(group))
        for target, values in later.values:
            target[...] = values


class _Later:
    """Stands in for xarray's writer of arrays, and keeps what it is to write."""

    def __init__(self) -> None:
        self.values: list[tuple[Any, np.ndarray]] = []

    def add(self, source: np.ndarray, target: Any, region: None = None) -> None:
        self.values.append((target, source))


def _compression(group: xr.Dataset) -> dict[str, dict[str, object]]:
    """Encoding by variable. Text has no fixed size and cannot be deflated; an empty array has nothing to deflate."""
    return {
        str(name): {"zlib": True, "complevel": 4, "shuffle": True, "fletcher32": True}
        for name, variable in group.variables.items()
        if variable.dtype.kind in "biuf" and variable.size and variable.ndim
    }


@contextmanager
def _small_cache() -> Iterator[None]:
    """Chunks are written once and never read back: the library would keep up to 64 MB of each variable until the end."""
    before = netCDF4.get_chunk_cache()
    netCDF4.set_chunk_cache(CACHE, *before[1:])
    try:
        yield
    finally:
        netCDF4.set_chunk_cache(*before)


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
