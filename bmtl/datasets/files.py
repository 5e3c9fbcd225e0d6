"""Where data files are, and what is in them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile

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
            f"{what} needs the file {candidates[0]}, and no folder is given. Give the folder that holds it as `root`, or in "
            f"the environment variable {ROOT}. {source}"
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
    """The arrays of an ``.npz`` file, each read when it is asked for, without pickle.

    Args:
        path: Of the file.

    Raises:
        ValueError: If it is not an ``.npz`` file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with self._opened() as archive:
                self.names: tuple[str, ...] = tuple(archive.files)
        except (ValueError, BadZipFile, EOFError) as error:
            raise ValueError(f"{path} is not an .npz file. Write one with numpy.savez_compressed.") from error

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def array(self, name: str) -> np.ndarray:
        """One array; bytes come as text.

        Raises:
            ValueError: If there is no such array, or it holds Python objects.
        """
        if name not in self:
            raise ValueError(f"{self.path} has no array {name!r}; its arrays are: {', '.join(self.names)}.")
        with self._opened() as archive:
            try:
                array: np.ndarray = archive[name]
            except ValueError as error:
                raise ValueError(
                    f"The array {name!r} of {self.path} cannot be read without pickle. Save numbers or text."
                ) from error
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array

    @contextmanager
    def _opened(self) -> Iterator[NpzFile]:
        with self.path.open("rb") as file:  # numpy would leave a file open that it cannot read
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise ValueError(f"{self.path} holds one bare array.")
            with archive:
                yield archive
