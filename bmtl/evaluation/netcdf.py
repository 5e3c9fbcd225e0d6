"""Trees as NetCDF files and back, linear in the number of variables, with a digest of the content.

xarray's own writer and reader take milliseconds a variable and compare all row coordinates of a tree with each other; a run
of a thousand targets has twenty thousand variables. What is written here is what xarray would write, up to filters and fill
values, and any NetCDF reader opens it.

**Threads.** The NetCDF library is not thread-safe: two calls at once crash the process, of two files too. Everything here
runs under `LIBRARY`. A program that opens NetCDF files in threads by other means, xarray's included, must hold it as well:

    with bmtl.evaluation.netcdf.LIBRARY:
        weather = xarray.load_dataset("weather.nc")
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from bmtl.evaluation.assembly import dataset, storable
from bmtl.evaluation.attributes import INT64, is_storable

LIBRARY = threading.RLock()
"""Lock to hold during any call of the NetCDF library."""
SMALL = 4096  # bytes up to which an array is stored as it is: chunks and filters would take more space than they save
CACHE = 4 * 2**20  # bytes a variable while a file is written: chunks are written once and never read back
MOST_EXPANDED = 1100  # times a file's size that its arrays can have: deflate's limit is 1,032
COORDINATES, INDEXED = "coordinates", "indexed"  # attributes of a group: coordinates that xarray could not infer


class Damaged(ValueError):
    """A file's content is not what was written."""


@dataclass
class Group:
    """A group of a file.

    Attributes:
        attrs: Text and numbers by name.
        variables: Coordinates included.
        coords: Names of the coordinates.
        indexed: Names of those that have an index.
    """

    attrs: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, xr.Variable] = field(default_factory=dict)
    coords: list[str] = field(default_factory=list)
    indexed: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, given: xr.Dataset, *, as_it_is: bool = False) -> "Group":
        """The group that holds a dataset, with text and types that NetCDF has unless it is to be taken as it is.

        Raises:
            ValueError: If an array or an attribute is of a kind that NetCDF has not; names it.
        """
        coords = [str(name) for name in given.coords]
        held = {str(name): v if as_it_is else _safe(str(name), v) for name, v in given.variables.items()}
        attrs = {str(name): value for name, value in given.attrs.items()}
        if not as_it_is:
            attrs = _safe_attributes("a group", attrs, (COORDINATES, INDEXED))
        return cls(attrs, held, coords, [name for name in coords if name in given.xindexes])

    def dataset(self) -> xr.Dataset:
        """The dataset that the group holds."""
        return dataset(
            {name: variable for name, variable in self.variables.items() if name not in self.coords},
            {name: self.variables[name] for name in self.coords},
            indexed=self.indexed,
            attrs=self.attrs,
        )


def groups_of(tree: xr.DataTree, *, as_it_is: bool = False) -> dict[str, Group]:
    """Path -> group, "." for the tree itself."""
    return {
        path: Group.of(node.to_dataset(inherit=node is tree), as_it_is=as_it_is)  # a file's root has nothing above it
        for path, node in tree.subtree_with_keys
    }


def digest(groups: Mapping[str, Group]) -> str:
    """SHA-256 of the names, shapes, types, attributes and values of everything in the groups."""
    found = hashlib.sha256()
    for path in sorted(groups):
        group = groups[path]
        names = sorted(group.variables)
        about = [
            (name, v.dims, _kind(v.dtype), v.shape, _plain_attributes(v.attrs))
            for name in names
            for v in (group.variables[name],)
        ]
        # The order of coordinates is that of the file's variables and has no meaning.
        found.update(repr((path, _plain_attributes(group.attrs), sorted(group.coords), about)).encode())
        for name in names:
            values = group.variables[name].values
            if values.dtype.kind == "U":
                found.update(json.dumps(values.ravel().tolist()).encode())
            else:
                found.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data)
    return found.hexdigest()


def put(groups: Mapping[str, Group], path: Path, root_attributes: Mapping[str, Any]) -> None:
    """Writes groups to a file.

    All variables are defined before the first value is written: between values and definitions the library goes once
    through all that was defined, so that taking turns costs the square of the number of variables.

    Args:
        groups: From `groups_of`.
        path: The file; an older one is replaced.
        root_attributes: Further attributes of the root.

    Raises:
        OSError: If the file cannot be made.
        RuntimeError: As the library says it, if the disk is full or vanished.
    """
    with LIBRARY, netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        later = []
        for place, group in groups.items():
            target = file if place == "." else file.createGroup(place)
            later += [(_define(target, name, variable), variable) for name, variable in group.variables.items()]
            target.setncatts({**group.attrs, **_about_coordinates(group), **(root_attributes if place == "." else {})})
        file.set_auto_maskandscale(False)
        for stored, variable in later:
            values = variable.values
            if variable.size:
                stored[...] = values.astype(object) if values.dtype.kind == "U" else values


def get(path: Path) -> dict[str, Group]:
    """Reads the groups of a file.

    Raises:
        Damaged: If its arrays cannot be as large as it says.
        OSError: If the library cannot open it; and what else damaged bytes surface as.
    """
    most = MOST_EXPANDED * path.stat().st_size
    groups: dict[str, Group] = {}

    def walk(group: Any, place: str) -> None:
        groups[place] = _read(group, most)
        for name, below in group.groups.items():
            walk(below, name if place == "." else f"{place}/{name}")

    with LIBRARY, netCDF4.Dataset(path, "r") as file:
        file.set_auto_maskandscale(False)
        walk(file, ".")
    return groups


def attributes(path: Path) -> dict[str, Any]:
    """The root's attributes alone."""
    with LIBRARY, netCDF4.Dataset(path, "r") as file:
        return _attributes(file)


def _safe(name: str, variable: xr.Variable) -> xr.Variable:
    """The variable in a dtype that NetCDF has, without characters at which it would end text."""
    attrs = {str(key): value for key, value in variable.attrs.items()}
    checked = _safe_attributes(f"the variable {name!r}", attrs, ("dtype",))
    if variable.dtype.kind in "biu" or variable.dtype in (np.float32, np.float64):
        return variable if checked == attrs else xr.Variable(variable.dims, variable.values, checked)
    return xr.Variable(variable.dims, storable(name, variable.values), checked)


def _safe_attributes(what: str, attrs: Mapping[str, Any], own: tuple[str, ...]) -> dict[str, Any]:
    """Attributes as a file gives them back; the names `own` are for the file itself."""
    found = {name: plain(value) for name, value in attrs.items()}
    for name, value in found.items():
        if name in own or not _comes_back(value):
            raise ValueError(
                f"The attribute {name!r} of {what} is {attrs[name]!r}, which a results file does not give back as it is"
                f"{' (the name is taken)' if name in own else ''}. Give text, a number, or several of one type; anything "
                "else as text, json.dumps(value)."
            )
    return found


def _comes_back(value: Any) -> bool:
    if isinstance(value, list):  # one alone is no list any more
        return len(value) != 1 and len(set(map(type, value))) < 2 and all(map(_comes_back, value))
    if isinstance(value, str):
        return is_storable(value)
    return type(value) is float or (type(value) is int and INT64.min <= value <= np.iinfo(np.uint64).max)


def _define(group: Any, name: str, variable: xr.Variable) -> Any:
    for dim, size in variable.sizes.items():
        if dim not in group.dimensions:
            group.createDimension(dim, size)
    kind: Any = {"b": "i1", "U": str}.get(variable.dtype.kind, variable.dtype)
    large = variable.nbytes > SMALL and variable.dtype.kind != "U"  # text has no fixed size, and cannot be deflated
    filters = {"compression": "zlib", "complevel": 4, "shuffle": True, "chunk_cache": CACHE} if large else {}
    stored = group.createVariable(name, kind, variable.dims, fill_value=False if kind is not str else None, **filters)
    attrs = {**variable.attrs, **({"dtype": "bool"} if variable.dtype.kind == "b" else {})}
    if attrs:
        stored.setncatts(attrs)
    return stored


def _about_coordinates(group: Group) -> dict[str, str]:
    """Attributes that say which variables are coordinates, and which of those have an index, where it is not plain."""
    own = [name for name in group.coords if group.variables[name].dims != (name,)]
    named = [name for name in group.coords if name not in own]
    spaced = any(name.split() != [name] or name.startswith("[") for name in own)
    found = {COORDINATES: json.dumps(own) if spaced else " ".join(own)} if own else {}
    if len(group.indexed) < len(named):
        found[INDEXED] = json.dumps(group.indexed)
    return found


def _read(group: Any, most: int) -> Group:
    attrs = _attributes(group)
    listed = attrs.pop(COORDINATES, "")
    own = json.loads(listed) if listed.startswith("[") else listed.split()
    indexed = attrs.pop(INDEXED, None)
    variables = {name: _variable(stored, most) for name, stored in group.variables.items()}
    named = [name for name, variable in variables.items() if variable.dims == (name,)]
    return Group(attrs, variables, [*named, *own], named if indexed is None else json.loads(indexed))


def _variable(stored: Any, most: int) -> xr.Variable:
    size = 1
    for length in stored.shape:
        size *= int(length)
    claimed = size * (8 if stored.dtype is str else stored.dtype.itemsize)  # a pointer for each text
    if claimed > max(most, SMALL):
        raise Damaged(f"it claims {claimed / 1e9:,.1f} GB for {stored.name!r}, more than a file of its size can hold")
    attrs = _attributes(stored)
    values = stored[...] if size else np.empty(stored.shape, dtype="U1" if stored.dtype is str else stored.dtype)
    if stored.dtype is str:
        values = np.asarray(np.asarray(values, dtype=object).tolist(), dtype=str)
    elif attrs.get("dtype") == "bool":
        values = values.astype(bool)
        del attrs["dtype"]
    return xr.Variable(stored.dimensions, values, attrs)


def _attributes(of: Any) -> dict[str, Any]:
    return {name: plain(of.getncattr(name)) for name in of.ncattrs()}


def plain(value: Any) -> Any:
    """A value of NumPy's as one of Python's own."""
    if isinstance(value, np.ndarray) and not value.ndim:
        return value.item()
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _plain_attributes(attrs: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    return sorted((str(name), plain(value)) for name, value in attrs.items())


def _kind(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind == "U" else f"{dtype.kind}{dtype.itemsize}"
