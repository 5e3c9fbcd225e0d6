"""Attributes of a results tree, in the three kinds that NetCDF can hold: text, integer, float."""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr

JSON_NAMES = "json_attributes"  # the attribute that lists which of the others are JSON
INT64 = np.iinfo(np.int64)


def encode_attributes(attributes: Mapping[str, object]) -> dict[str, str | int | float]:
    """Attributes as NetCDF can store them; what it cannot becomes JSON, and the names of those are recorded.

    NetCDF has no bool, None or mapping, and gives a list of one string back as that string, so all of these are
    JSON, and so are an integer beyond 64 bits and text that would be cut off or cannot be encoded. Objects that JSON
    does not know (a path, a dtype) become their ``str``.

    Args:
        attributes: Any values by name.

    Returns:
        The same names, and `JSON_NAMES` where there is something for `decode_attributes` to undo.
    """
    encoded: dict[str, str | int | float] = {}
    as_json = []
    for name, given in attributes.items():
        value = given.item() if isinstance(given, np.generic) else given
        fits = (
            isinstance(value, float)
            or (isinstance(value, str) and is_storable(value))
            or (type(value) is int and INT64.min <= value <= INT64.max)
        )
        if not fits:
            as_json.append(name)
            value = json.dumps(value, default=str)
        encoded[name] = value  # type: ignore[assignment]
    if as_json:
        encoded[JSON_NAMES] = json.dumps(as_json)
    return encoded


def is_storable(text: str) -> bool:
    """Whether text comes back from a file as it was."""
    return "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


def decode_attributes(tree: xr.DataTree | xr.Dataset) -> dict[str, Any]:
    """The root's attributes as they were given to `encode_attributes`: mappings, lists, bools and None again."""
    as_json = set(json.loads(tree.attrs.get(JSON_NAMES, "[]")))
    return {
        str(name): json.loads(value) if name in as_json else value
        for name, value in tree.attrs.items()
        if name != JSON_NAMES
    }


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed, without importing any of them."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
