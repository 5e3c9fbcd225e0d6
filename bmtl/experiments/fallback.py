"""Where what was learnt goes if the results of a run cannot be written: a plain archive of arrays."""

from pathlib import Path

import numpy as np
import xarray as xr

from bmtl.evaluation.storage import atomic


def save_arrays(tree: xr.DataTree, path: Path) -> None:
    """Writes every variable of a tree to an ``.npz`` archive that loads without pickle, under numbers.

    The array ``paths`` holds the variables' paths in the tree, in the order of the archive's ``0``, ``1``, ...: an entry's
    own name may be what could not be written.

    Args:
        tree: A results tree.
        path: The file, ending in ``.npz``.
    """
    found = {
        f"{node.path.rstrip('/')}/{name}": np.asarray(variable.values)
        for node in tree.subtree
        for name, variable in node.to_dataset(inherit=False).variables.items()
    }
    plain = {name: values if values.dtype.kind in "biufU" else values.astype(str) for name, values in found.items()}
    with atomic(path) as temporary, temporary.open("wb") as file:
        arrays = {"paths": np.array(list(plain)), **{str(i): values for i, values in enumerate(plain.values())}}
        np.savez(file, allow_pickle=False, **arrays)
