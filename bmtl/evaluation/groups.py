"""Datasets of draws and of scored rows, each target with its own rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.names import check_same_names, check_variable_name

Arrays = Mapping[str, ArrayLike]


class ScoredRows:
    """The labels of a run, and from them which rows every other group keeps.

    Args:
        observed: Target -> labels ``(N,)``; missing ones are NaN in floats, -1 in integers.

    Raises:
        ValueError: If a name holds a slash, labels are no numbers ``(N,)``, or one is infinite.
    """

    def __init__(self, observed: Arrays) -> None:
        self.labels = {check_variable_name("observed", name): _labels(name, y) for name, y in observed.items()}
        self.kept = {name: np.flatnonzero(_labelled(y)) for name, y in self.labels.items()}

    @property
    def targets(self) -> list[str]:
        return list(self.labels)

    def observations(self) -> xr.Dataset:
        """The labels that are there."""
        return self.values("observed", self.labels)

    def values(self, argument: str, given: Arrays) -> xr.Dataset:
        """One value a row: ``y_<target> (obs_<target>)`` from arrays ``(N,)``."""
        check_same_names(argument, given, self.labels)
        variables = {}
        for name, kept in self.kept.items():
            values, expected = np.asarray(given[name]), self.labels[name].shape
            if values.shape != expected:
                raise ValueError(
                    f"{argument}[{name!r}] has shape {values.shape}; expected {expected}, a value for each row of "
                    f"observed[{name!r}], unlabelled ones included."
                )
            variables[f"y_{name}"] = ((f"obs_{name}",), values[kept])
        return xr.Dataset(variables, coords=self._numbers())

    def draws(self, argument: str, given: Arrays) -> xr.Dataset:
        """Draws of every row: ``y_<target> (chain, draw, obs_<target>)`` from arrays ``(S, N)``."""
        check_same_names(argument, given, self.labels)
        variables = {}
        for name, kept in self.kept.items():
            values, count = np.asarray(given[name]), len(self.labels[name])
            if values.ndim != 2 or values.shape[1] != count or not len(values):
                raise ValueError(
                    f"{argument}[{name!r}] has shape {values.shape}; expected (draws, {count}), at least one draw of "
                    f"each row of observed[{name!r}], unlabelled ones included."
                )
            variables[f"y_{name}"] = (("chain", "draw", f"obs_{name}"), values[None][:, :, kept])
        counts = {name: len(np.asarray(given[name])) for name in self.kept}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"The targets of {argument} have different numbers of draws, {counts}; draw all of them alike."
            )
        draw = np.arange(next(iter(counts.values()), 0))
        return xr.Dataset(variables, coords={"chain": [0], "draw": draw, **self._numbers()})

    def _numbers(self) -> dict[str, np.ndarray]:
        """Coordinates: a row keeps its number among all rows, so that a dropped one shows."""
        return {f"obs_{name}": kept for name, kept in self.kept.items()}


def posterior_group(sites: Arrays, coords: Mapping[str, ArrayLike], dims: Mapping[str, Sequence[str]]) -> xr.Dataset:
    """Draws of the latents: site ``(chain, draw, ...)`` from arrays ``(S, ...)``, every axis named and labelled.

    Raises:
        ValueError: If a site has no draws, its `dims` do not fit its axes, or two sites (or `coords`) disagree on
            the length of a dimension.
    """
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    sizes = {"chain": 1}
    for site, given in sites.items():
        check_variable_name("posterior", site)
        values = np.asarray(given)
        if not values.ndim or not len(values):
            raise ValueError(
                f"posterior[{site!r}] has shape {values.shape}; expected (draws, ...) with a draw or more."
            )
        event = dims.get(site, [f"{site}_dim_{i}" for i in range(values.ndim - 1)])
        if len(event) != values.ndim - 1 or {"chain", "draw", site} & set(event):
            raise ValueError(
                f"dims[{site!r}] is {list(event)}; expected {values.ndim - 1} names, for the axes after the draws of "
                f"shape {values.shape}, none of them 'chain', 'draw' or the site's own."
            )
        for name, size in zip(("draw", *event), values.shape, strict=True):
            labels = np.asarray(coords[name]) if name in coords else None
            expected = sizes.setdefault(name, size if labels is None else len(labels))
            if size != expected:
                raise ValueError(
                    f"posterior[{site!r}] has {size} entries along {name!r}, where "
                    f"{'the other sites have' if labels is None else 'coords has'} {expected}."
                )
        variables[site] = (("chain", "draw", *event), values[None])
    for clash in variables.keys() & sizes.keys():
        raise ValueError(f"posterior[{clash!r}] has the name of another site's dimension; rename one in dims.")
    named = {name: np.asarray(coords[name]) if name in coords else np.arange(size) for name, size in sizes.items()}
    return xr.Dataset(variables, coords=named)


def _labelled(y: np.ndarray) -> np.ndarray:
    return ~np.isnan(y) if y.dtype.kind == "f" else y != -1


def _labels(name: str, y: ArrayLike) -> np.ndarray:
    values = np.asarray(y)
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"observed[{name!r}] has shape {values.shape} and dtype {values.dtype}; expected a number a row, (N,)."
        )
    if np.isinf(values).any():
        raise ValueError(f"observed[{name!r}] holds an infinite label; mark a missing one by NaN.")
    return values
