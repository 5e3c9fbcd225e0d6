"""Where data files are, and what is in them."""

import lzma
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy

ROOT = "BMTL_DATA"
"""Environment variable that names the folder of the data, where a reader's `root` does not."""


def find(what: str, candidates: Sequence[str | Path], root: str | Path | None, source: str) -> Path:
    """The first file or folder that exists.

    Args:
        what: The data set's name, for the error.
        candidates: Paths below the root, the usual one first.
        root: Folder of the data; the default is what the environment variable ``BMTL_DATA`` says.
        source: Where somebody who has internet gets the data: what to do, as a sentence.

    Raises:
        FileNotFoundError: If there is none; the message says where it was looked for, and `source`.
    """
    folder = root if root is not None else os.environ.get(ROOT)
    if not folder:
        raise FileNotFoundError(
            f"{what} needs the file {candidates[0]}, and no folder is given. Give the folder that holds it as `root`, "
            f"or in the environment variable {ROOT}. {source}"
        )
    for candidate in candidates:
        path = Path(folder) / candidate
        if path.exists():
            return path
    names = " or ".join(map(str, candidates))
    raise FileNotFoundError(f"{what} needs the file {names} in {Path(folder).absolute()}. {source}")


def own_path(path: str, root: str | Path | None, source: str) -> Path:
    """A file or folder of the user's own: below `root`; without one, below the working folder or ``BMTL_DATA``.

    Raises:
        FileNotFoundError: If there is none.
    """
    if root is None and Path(path).exists():
        return Path(path)
    return find("The data set", [path], root or os.environ.get(ROOT) or ".", source)


class Archive:
    """The arrays of an ``.npz`` file, each read when it is requested, without pickle.

    Args:
        path: Of the file.

    Raises:
        ValueError: If it is not an ``.npz`` file, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise ValueError(f"{path} is a folder, and an .npz file is expected.")
        try:
            with ZipFile(path) as archive:
                members = archive.namelist()
        except BadZipFile as error:
            raise ValueError(
                f"{path} is not an .npz file, or not the whole of one ({error}). Write one with numpy.savez_compressed."
            ) from error
        self.names: tuple[str, ...] = tuple(name.removesuffix(".npy") for name in members if name.endswith(".npy"))

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def array(self, name: str) -> np.ndarray:
        """One array; bytes come as text.

        Raises:
            ValueError: If there is no such array, it holds Python objects, its bytes are damaged or cut off, or it is
                larger than memory.
        """
        if name not in self:
            raise ValueError(f"{self.path} has no array {name!r}; its arrays are: {', '.join(self.names) or 'none'}.")
        try:
            with ZipFile(self.path) as archive:
                array = self._read(archive, f"{name}.npy", name)
            return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        except _ObjectsError:
            raise
        except MemoryError as error:
            raise ValueError(f"The array {name!r} of {self.path} does not fit into memory ({error}).") from error
        except _DAMAGED as error:
            raise ValueError(
                f"The array {name!r} of {self.path} is damaged ({type(error).__name__}: {error}). Restore the file "
                "from a copy, or write it again."
            ) from error

    def _read(self, archive: ZipFile, member: str, name: str) -> np.ndarray:
        # The header is compared with the member's size first: numpy allocates whatever a damaged header claims.
        with archive.open(member) as file:
            version = npy.read_magic(file)
            if version not in _HEADERS:
                raise BadZipFile(f"an array of the unknown format {version}")
            shape, _, dtype = _HEADERS[version](file)
            if dtype.hasobject:
                raise _ObjectsError(
                    f"The array {name!r} of {self.path} holds Python objects, which cannot be read without pickle. "
                    "Save numbers or text."
                )
            claimed, there = math.prod(shape) * dtype.itemsize, archive.getinfo(member).file_size - file.tell()
            if claimed != there:
                raise BadZipFile(f"its header claims {claimed:,} bytes, and {there:,} are there")
        with archive.open(member) as file:
            array: np.ndarray = npy.read_array(file, allow_pickle=False)
            return array


class _ObjectsError(ValueError):
    """An array of Python objects."""


_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# What damaged bytes surface as depends on where the damage is.
_DAMAGED = (
    BadZipFile,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    TypeError,
    SyntaxError,
    TokenError,
    OverflowError,
    EOFError,
    OSError,
    RuntimeError,
)
