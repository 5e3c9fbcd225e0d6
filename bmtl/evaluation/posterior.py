"""The groups ``posterior`` and ``sample_stats`` of a results tree: draws by chain, every axis named and labelled."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.assembly import DRAWN, dataset, storable
from bmtl.evaluation.groups import split_chains
from bmtl.targets.names import MOST_BYTES

Arrays = Mapping[str, ArrayLike]


def posterior_group(
    sites: Arrays, coords: Mapping[str, ArrayLike], dims: Mapping[str, Sequence[str]], chains: int = 1
) -> xr.Dataset:
    """Draws of the latents: site ``(chain, draw, ...)`` from arrays ``(S, ...)``.

    A site whose name no file can hold gets one that it can (`stored_names`), with the attribute ``site``; a complex site
    becomes two, ``<site>_real`` and ``<site>_imag``.

    Args:
        sites: Site -> draws, one chain after the other.
        coords: Dimension -> labels of its entries.
        dims: Site -> names of the dimensions after the draws; ``<site>_dim_<i>`` by default.
        chains: How many.

    Raises:
        ValueError: If a site has no draws, its `dims` do not fit its axes, or two sites (or `coords`) disagree on
            the length of a dimension.
    """
    sites, dims = _real(sites, dims)
    names = stored_names([*sites, *coords, *(dim for of in dims.values() for dim in of)])
    labels = {names[dim]: storable(f"coords[{dim!r}]", of) for dim, of in coords.items()}
    variables: dict[str, xr.Variable] = {}
    sizes: dict[str, int] = {}
    for site, given in sites.items():
        name = names[site]
        values = split_chains(f"posterior[{site!r}]", storable(f"posterior[{site!r}]", given), chains)
        event = (
            [names[dim] for dim in dims[site]] if site in dims else [f"{name}_dim_{i}" for i in range(values.ndim - 2)]
        )
        if len(event) != values.ndim - 2 or {*DRAWN, name} & set(event) or len(set(event)) < len(event):
            raise ValueError(
                f"dims[{site!r}] is {list(event)}; expected {values.ndim - 2} different names, for the axes after the "
                f"draws of shape {values.shape[2:]}, none of them 'chain', 'draw' or the site's own."
            )
        for dim, size in zip((*DRAWN, *event), values.shape, strict=True):
            expected = sizes.setdefault(dim, len(labels[dim]) if dim in labels else size)
            if size != expected:
                raise ValueError(
                    f"posterior[{site!r}] has {size} entries along {dim!r}, where "
                    f"{'coords has' if dim in labels else 'the other sites have'} {expected}."
                )
        variables[name] = xr.Variable((*DRAWN, *event), values, {} if name == site else {"site": repr(site)})
    for clash in variables.keys() & sizes.keys():
        raise ValueError(f"posterior[{clash!r}] has the name of another site's dimension; rename one in dims.")
    named = {dim: xr.Variable(dim, labels.get(dim, np.arange(size))) for dim, size in sizes.items()}
    return dataset(variables, named, indexed={*DRAWN, *labels})


def stored_names(names: Iterable[str]) -> dict[str, str]:
    """Each name -> one that a variable in a NetCDF file can have: the same where possible.

    Names of sites are found when a run is over, too late to refuse them. Slashes and characters that cannot be printed
    become underscores, one is put before a first character that may not be first, and of a long name the end is replaced by
    a digest of it.

    Raises:
        ValueError: If two different names become the same.
    """
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        safe = " ".join(unicodedata.normalize("NFC", str(name)).split())
        safe = "".join(sign if sign.isprintable() and sign != "/" else "_" for sign in safe) or "_"
        if not (safe[0].isalnum() or safe[0] == "_" or ord(safe[0]) > 127):
            safe = f"_{safe}"
        if len(safe.encode()) > MOST_BYTES:
            digest = hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).hexdigest()[:12]
            safe = f"{safe.encode()[: MOST_BYTES - 13].decode('utf-8', 'ignore')}_{digest}"
        other = taken.setdefault(safe, name)
        if other != name:
            raise ValueError(f"{other!r} and {name!r} are both {safe!r} in a file. Rename one of them.")
        found[name] = safe
    return found


def _real(sites: Arrays, dims: Mapping[str, Sequence[str]]) -> tuple[Arrays, Mapping[str, Sequence[str]]]:
    """The sites and their dimensions with each complex one as two."""
    parts: dict[str, ArrayLike] = {}
    named = dict(dims)
    for site, given in sites.items():
        values = np.asarray(given)
        if values.dtype.kind != "c":
            parts[site] = values
            continue
        parts |= {f"{site}_real": values.real, f"{site}_imag": values.imag}
        if site in dims:
            named |= dict.fromkeys((f"{site}_real", f"{site}_imag"), dims[site])
    return parts, named
