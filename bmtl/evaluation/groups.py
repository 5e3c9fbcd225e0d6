"""Datasets of draws and of scored rows, each target with its own rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.names import check_same_names, check_variable_name

Arrays = Mapping[str, ArrayLike]


class ScoredRows:
    """The labels of a run, and from them which rows every other group keeps.

    Args:
        observed: Target -> labels ``(N,)``; missing ones are NaN in floats, -1 in integers.
        numbers: Target -> what its rows are called ``(N,)``; from 0 on for targets that are not named.

    Raises:
        ValueError: If a name holds a slash, labels are no numbers ``(N,)``, one is infinite, or `numbers` has another
            target or length.
    """

    def __init__(self, observed: Arrays, numbers: Arrays | None = None) -> None:
        self.labels = {check_variable_name("observed", name): _labels(name, y) for name, y in observed.items()}
        self.kept = {name: np.flatnonzero(_labelled(y)) for name, y in self.labels.items()}
        self.numbers = {
            name: self._rows("row_numbers", name, of) for name, of in self._known("row_numbers", numbers or {}).items()
        }

    @property
    def targets(self) -> list[str]:
        return list(self.labels)

    def observations(self) -> xr.Dataset:
        """The labels that are there, ``y_<target> (obs_<target>)``."""
        return self.values("observed", self.labels)

    def values(self, argument: str, given: Arrays) -> xr.Dataset:
        """One value a row: ``y_<target> (obs_<target>)`` from arrays ``(N,)`` of some or all targets."""
        return self._dataset(
            {
                f"y_{name}": ((f"obs_{name}",), self._rows(argument, name, values)[self.kept[name]])
                for name, values in self._known(argument, given).items()
            }
        )

    def uncertainties(self, aleatoric: Arrays, epistemic: Arrays) -> xr.Dataset:
        """Total, aleatoric and epistemic uncertainty of each row, from the latter two."""
        check_same_names("epistemic", epistemic, aleatoric)
        parts = {
            name: (self._rows("aleatoric", name, values), self._rows("epistemic", name, epistemic[name]))
            for name, values in self._known("aleatoric", aleatoric).items()
        }
        return self._dataset(
            {
                f"{part}_{name}": ((f"obs_{name}",), values[self.kept[name]])
                for name, (known, unknown) in parts.items()
                for part, values in (("total", known + unknown), ("aleatoric", known), ("epistemic", unknown))
            }
        )

    def probabilities(self, argument: str, given: Arrays, classes: Mapping[str, Sequence[str]]) -> xr.Dataset:
        """Class probabilities ``y_<target> (obs_<target>, class_<target>)`` from arrays ``(N, C)``."""
        variables, coords = {}, {}
        for name, array in self._known(argument, given).items():
            values, count = np.asarray(array), len(self.labels[name])
            if values.ndim != 2 or len(values) != count:
                raise ValueError(
                    f"{argument}[{name!r}] has shape {values.shape}; expected ({count}, C), the probabilities of C classes "
                    f"for each row of observed[{name!r}], unlabelled ones included."
                )
            names = list(classes.get(name, range(values.shape[1])))
            if len(names) != values.shape[1]:
                raise ValueError(
                    f"classes[{name!r}] has {len(names)} names, and there are probabilities of {values.shape[1]} classes."
                )
            variables[f"y_{name}"] = ((f"obs_{name}", f"class_{name}"), values[self.kept[name]])
            coords[f"class_{name}"] = names
        return self._dataset(variables).assign_coords(coords)

    def components(self, argument: str, given: Mapping[str, Arrays]) -> xr.Dataset:
        """``loc_<target>``, ``scale_<target>``, ``df_<target>`` (component, obs_<target>) from arrays ``(S, N)``."""
        variables = {}
        for name, parameters in self._known(argument, given).items():
            if set(parameters) != {"loc", "scale", "df"}:
                raise ValueError(f"{argument}[{name!r}] holds {list(parameters)}; expected loc, scale and df.")
            for parameter, values in parameters.items():
                drawn = self._draws(f"{argument}[{name!r}]", parameter, values, name)
                variables[f"{parameter}_{name}"] = (("component", f"obs_{name}"), drawn)
        return self._dataset(variables)

    def draws(self, argument: str, given: Arrays) -> xr.Dataset:
        """Draws of every row: ``y_<target> (chain, draw, obs_<target>)`` from arrays ``(S, N)``."""
        check_same_names(argument, given, self.labels)
        variables = {
            f"y_{name}": (("chain", "draw", f"obs_{name}"), self._draws(argument, name, given[name], name)[None])
            for name in self.kept
        }
        counts = {name: len(np.asarray(given[name])) for name in self.kept}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"The targets of {argument} have different numbers of draws, {counts}; draw all of them alike."
            )
        draw = np.arange(next(iter(counts.values()), 0))
        return self._dataset(variables).assign_coords({"chain": [0], "draw": draw})

    def _known(self, argument: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, in the targets' order; a kind of target may be left out."""
        check_same_names(argument, {**dict.fromkeys(self.labels), **given}, self.labels)
        return {name: given[name] for name in self.labels if name in given}

    def _rows(self, argument: str, name: str, given: ArrayLike) -> np.ndarray:
        values, expected = np.asarray(given), self.labels[name].shape
        if values.shape != expected:
            raise ValueError(
                f"{argument}[{name!r}] has shape {values.shape}; expected {expected}, a value for each row of "
                f"observed[{name!r}], unlabelled ones included."
            )
        return values

    def _draws(self, argument: str, key: str, given: ArrayLike, name: str) -> np.ndarray:
        values, count = np.asarray(given), len(self.labels[name])
        if values.ndim != 2 or values.shape[1] != count or not len(values):
            raise ValueError(
                f"{argument}[{key!r}] has shape {values.shape}; expected (draws, {count}), at least one draw of "
                f"each row of observed[{name!r}], unlabelled ones included."
            )
        kept = self.kept[name]
        return values if len(kept) == count else values[:, kept]  # a copy of all of them would be for nothing

    def _dataset(self, variables: Mapping[str, Any]) -> xr.Dataset:
        used = {dim for dims, _ in variables.values() for dim in dims}
        return xr.Dataset(variables, coords={dim: values for dim, values in self._numbers().items() if dim in used})

    def _numbers(self) -> dict[str, np.ndarray]:
        """Coordinates: a row keeps its number among all rows, so that a dropped one shows."""
        return {
            f"obs_{name}": self.numbers[name][kept] if name in self.numbers else kept
            for name, kept in self.kept.items()
        }


def unscored_draws(given: Arrays) -> xr.Dataset:
    """Draws for inputs without labels: ``y_<target> (chain, draw, row)`` from arrays ``(S, M)``, M alike for all.

    Raises:
        ValueError: If shapes differ, or a name holds a slash.
    """
    arrays = {check_variable_name("predictions", name): np.asarray(values) for name, values in given.items()}
    if len({values.shape for values in arrays.values()}) > 1 or any(values.ndim != 2 for values in arrays.values()):
        raise ValueError(
            f"predictions have shapes { {name: a.shape for name, a in arrays.items()} }; expected one (draws, rows) for all."
        )
    draws, rows = next(iter(arrays.values())).shape
    return xr.Dataset(
        {f"y_{name}": (("chain", "draw", "row"), values[None]) for name, values in arrays.items()},
        coords={"chain": [0], "draw": np.arange(draws), "row": np.arange(rows)},
    )


def unscored_values(aleatoric: Arrays, epistemic: Arrays) -> xr.Dataset:
    """Total, aleatoric and epistemic uncertainty for inputs without labels, from arrays ``(M,)`` of the latter two.

    Raises:
        ValueError: If they are of different targets or lengths.
    """
    check_same_names("predictions_epistemic", epistemic, aleatoric)
    variables, count = {}, 0
    for name, values in aleatoric.items():
        known, unknown = np.asarray(values), np.asarray(epistemic[name])
        for part, array in (("total", known + unknown), ("aleatoric", known), ("epistemic", unknown)):
            variables[f"{part}_{name}"] = (("row",), array)
        count = len(known)
    return xr.Dataset(variables, coords={"row": np.arange(count)})


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
