"""Datasets and trees put together without what xarray would look up again for every variable."""

from collections.abc import Collection, Mapping

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

DRAWN = ("chain", "draw")
"""Dimensions of draws; the only indexed ones in groups whose other dimensions belong to one target each."""


def dataset(
    variables: Mapping[str, xr.Variable],
    coords: Mapping[str, xr.Variable] | None = None,
    *,
    indexed: Collection[str] | None = None,
    attrs: Mapping[str, object] | None = None,
) -> xr.Dataset:
    """A dataset, some of whose coordinates have no index.

    xarray compares the indexes of a tree's datasets with each other at a cost of the square of their number; a group with
    a row coordinate for each of a thousand targets takes it seconds. Selection by label needs an index:
    ``dataset.set_xindex("obs_mu").sel(obs_mu=17)``.

    Args:
        variables: By name.
        coords: Coordinates by name.
        indexed: Names of the coordinates that have an index; by default every one that is named as its dimension.
        attrs: Of the dataset.
    """
    given = dict(coords or {})
    with_index = {
        name: variable
        for name, variable in given.items()
        if variable.dims == (name,) and (indexed is None or name in indexed)
    }
    indexes = xr.Coordinates(with_index).xindexes
    # With its variables: an index may hold text in another dtype than was given.
    every = {**given, **{name: index.create_variables()[name] for name, index in indexes.items()}}
    coordinates = xr.Coordinates(every, indexes=dict(indexes))
    return xr.Dataset(dict(variables), coords=coordinates, attrs=dict(attrs or {}))


def storable(what: str, given: ArrayLike) -> np.ndarray:
    """The array in a dtype that NetCDF has: half precision as single, extended as double, text without what ends it there.

    Raises:
        ValueError: If it is of objects, times or complex numbers.
    """
    values = np.asarray(given)
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
        return values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    if values.dtype.kind in "biuf":
        return values
    if values.dtype.kind in "UOT" and all(isinstance(value, str) for value in values.ravel().tolist()):
        return np.asarray([_text(value) for value in values.ravel().tolist()], dtype=str).reshape(values.shape)
    raise ValueError(f"{what} has dtype {values.dtype}, which no results file holds; give numbers, booleans or text.")


def _text(value: str) -> str:
    """Text that UTF-8 can hold, without the character at which NetCDF would end it."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
