"""A tree's arrays as NumPy's ``.npz``, for when its results file cannot be written, so that nothing learnt is lost."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import xarray as xr

from bmtl.evaluation import netcdf
from bmtl.evaluation.storage import ResultsFileError, atomic

ABOUT = "about"


def write_arrays(results: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write a tree's arrays as they are, whatever their names.

    The arrays are called ``array_0``, ``array_1``, ...; ``about`` holds JSON that says which group and variable each is,
    with dimensions and attributes. `read_arrays` makes the tree again.

    Args:
        results: A tree whose arrays are numbers, booleans and text.
        path: The file, ending in ``.npz``.

    Returns:
        The path.

    Raises:
        ResultsFileError: If this cannot be written either.
    """
    arrays: dict[str, np.ndarray] = {}
    groups = {}
    for place, group in netcdf.groups_of(results, as_it_is=True).items():
        variables = []
        for name, variable in group.variables.items():
            key = f"array_{len(arrays)}"
            arrays[key] = variable.values
            variables.append({"name": name, "array": key, "dims": list(variable.dims), "attrs": variable.attrs})
        groups[place] = {
            "attrs": group.attrs,
            "coords": group.coords,
            "indexed": group.indexed,
            "variables": variables,
        }
    about = np.frombuffer(json.dumps(groups, default=netcdf.plain).encode(), dtype=np.uint8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{ABOUT: about}, **arrays)
    return Path(path)


def read_arrays(path: str | os.PathLike[str]) -> xr.DataTree:
    """The tree that `write_arrays` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ResultsFileError: If it is damaged or of another kind; names the file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            groups = json.loads(stored[ABOUT].tobytes())
            read = {
                place: netcdf.Group(
                    group["attrs"],
                    {
                        of["name"]: xr.Variable(of["dims"], stored[of["array"]], of["attrs"])
                        for of in group["variables"]
                    },
                    group["coords"],
                    group["indexed"],
                ).dataset()
                for place, group in groups.items()
            }
    except (OSError, ValueError, LookupError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ResultsFileError(
            f"{path} holds no arrays of a run ({error}): it is damaged or of another kind."
        ) from error
    return xr.DataTree.from_dict(read)
