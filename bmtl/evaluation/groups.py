"""The groups of a part of the data: labels, draws and predictives of its rows, each target with its own rows.

    observed_data            y_<t> (obs_<t>, ...)                        labels; coordinate obs_<t>: the row's number
    posterior_predictive     y_<t> (chain, draw, obs_<t>, ...)           draws of y; class indices
    log_likelihood           y_<t> (chain, draw, obs_<t>)                log density of each label under each draw
    predictive_mean          y_<t> (obs_<t>, ...)                        mean of the predictive, not of its draws
    probability              y_<t> (obs_<t>, class_<t>)                  class probabilities
    pit                      y_<t> (obs_<t>)                             predictive cdf at the label
    predictive_distribution  <parameter>_<t> (component, obs_<t>, ...)   components of the predictive, of equal weight;
                                                                         attributes ``law``, ``parameter``, and
                                                                         ``target`` where another's has the name
    uncertainty              total_<t>, aleatoric_<t>, epistemic_<t> (obs_<t>)   variances, or entropies in nats

    whole_scores             score_<t> (scored_<t>)                      scores of all rows where those here are a sample
    images                   see `bmtl.evaluation.images`                a few predicted images, of targets of images

All in reported units, and of the same rows in the same order. `bmtl.evaluation.parts` reads them back.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.assembly import DRAWN, dataset, storable
from bmtl.evaluation.constants import ReportedTarget
from bmtl.evaluation.images import PredictedImages
from bmtl.targets.prediction import Prediction

GROUPS = (
    "observed_data",
    "posterior_predictive",
    "log_likelihood",
    "predictive_mean",
    "probability",
    "pit",
    "predictive_distribution",
    "uncertainty",
    "whole_scores",
    "images",
)
"""Names of a part's groups."""
BY_ROW = {"predictive_mean": "mean", "probability": "probability", "pit": "pit"}
BY_DRAW = {"posterior_predictive": "draws", "log_likelihood": "log_likelihood"}
UNCERTAINTY = ("total", "aleatoric", "epistemic")
Axes = Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True, eq=False)
class PredictedRows:
    """One target's rows of a part, in reported units.

    Attributes:
        prediction: What the model says of the N rows.
        labels: Their labels ``(N, ...)`` in the family's format; rows without a label are left out of the tree. None for
            the rows of "predictions", which have none.
        rows: Their numbers ``(N,)`` in the table that they are from, so that runs which were given each target's own rows
            and runs on the whole table agree on which row is which; 0 to N - 1 by default.
        whole: Scores by name, of all rows, where these are a sample of them.
        images: A few predicted images, where the rows are pixels.
    """

    prediction: Prediction
    labels: ArrayLike | None = None
    rows: ArrayLike | None = None
    whole: Mapping[str, float] = dataclasses.field(default_factory=dict)
    images: PredictedImages | None = None


def part_groups(
    part: str, given: Mapping[str, PredictedRows], targets: Mapping[str, ReportedTarget], chains: int = 1
) -> dict[str, xr.Dataset]:
    """The datasets of a part's labelled rows by group; a group for which no target has anything is left out.

    Args:
        part: Name of the part, for messages.
        given: Target -> rows with labels.
        targets: What the targets are; the tree's order is theirs.
        chains: Of the draws, whose axis has one chain after the other.

    Raises:
        ValueError: If a target is unknown, an array does not have the shape of its target's labels, a label is not of the
            family, or targets have different numbers of draws in one group; names the part, the target and the field.
    """
    if unknown := given.keys() - targets.keys():
        raise ValueError(f"The part {part!r} has a target {min(unknown)!r}, and targets has {list(targets)}.")
    groups: dict[str, dict[str, xr.Variable]] = {}
    coords: dict[str, dict[str, xr.Variable]] = {}
    for name in (name for name in targets if name in given):
        rows = _Rows(part, name, given[name], targets[name], chains)
        for group, variable, values in rows.variables():
            held = groups.setdefault(group, {})
            if variable in held:  # "scale_tril" of "x", and "scale" of "tril_x"
                values.attrs["target"] = name
                variable = f"{variable} of {name}"
            held[variable] = values
        for group, variable, values in rows.coordinates():
            coords.setdefault(group, {})[variable] = values
    return {
        name: drawn_dataset(f"{part}: {name}", groups[name], coords.get(name, {})) for name in GROUPS if name in groups
    }


def drawn_dataset(what: str, variables: Mapping[str, xr.Variable], coords: Mapping[str, xr.Variable]) -> xr.Dataset:
    """A dataset of variables that share their chains and draws, numbered from 0; other coordinates have no index.

    Raises:
        ValueError: If two variables have different numbers of draws.
    """
    counts = {name: variable.sizes["draw"] for name, variable in variables.items() if "draw" in variable.dims}
    if len(set(counts.values())) > 1:
        first, other = next(iter(counts)), next(name for name, n in counts.items() if n != next(iter(counts.values())))
        raise ValueError(
            f"{what} has {counts[first]} draws of {first} and {counts[other]} of {other}; draw all targets alike."
        )
    drawn = {}
    for variable in variables.values():
        if "draw" in variable.dims:
            drawn = {name: xr.Variable(name, np.arange(variable.sizes[name])) for name in DRAWN}
            break
    return dataset(variables, {**drawn, **coords}, indexed=DRAWN)


class _Rows:
    """One target's labelled rows, checked."""

    def __init__(self, part: str, name: str, given: PredictedRows, target: ReportedTarget, chains: int) -> None:
        self.part, self.name, self.target, self.chains = part, name, target, chains
        self.prediction, self.whole, self.images = given.prediction, given.whole, given.images
        if given.labels is None:
            raise ValueError(f"{self} has no labels; rows without any belong to 'predictions'.")
        count = len(np.asarray(given.labels))
        self.labels = target.family.check(name, given.labels, count)
        self.count = count
        self.kept = np.flatnonzero(~target.family.missing(self.labels))
        self.numbers = self._of_rows("rows", np.arange(count) if given.rows is None else given.rows, {})

    def __str__(self) -> str:
        return f"Target {self.name!r} of the part {self.part!r}"

    @property
    def row(self) -> str:
        return f"obs_{self.name}"

    def variables(self) -> Iterator[tuple[str, str, xr.Variable]]:
        """Group, variable's name, variable."""
        family, name = self.target.family, self.name
        axes = family.axes()
        yield "observed_data", f"y_{name}", self._variable(self._kept(self.labels), family.label_axes())
        for group, field in BY_DRAW.items():
            values = getattr(self.prediction, field)
            if values is not None and len(values):
                of = axes if field == "draws" else {}
                yield group, f"y_{name}", self._drawn(field, values, of)
        for group, field in BY_ROW.items():
            values = getattr(self.prediction, field)
            if values is not None:
                of = {"mean": axes, "probability": {"class": family.class_names or None}, "pit": {}}[field]
                yield group, f"y_{name}", self._variable(self._of_rows(field, values, of), of)
        if self.prediction.law is not None:
            for parameter, values in self.prediction.law.parameters.items():
                yield "predictive_distribution", f"{parameter}_{name}", self._component(parameter, values)
        if self.prediction.aleatoric is not None and self.prediction.epistemic is not None:
            scaler = self.target.scaler
            known, unknown = (
                self._of_rows(field, family.row_variance(np.asarray(getattr(self.prediction, field)), scaler), {})
                for field in ("aleatoric", "epistemic")
            )
            for part, values in zip(UNCERTAINTY, (known + unknown, known, unknown), strict=True):
                yield "uncertainty", f"{part}_{name}", self._variable(values, {})

        if self.whole:
            yield "whole_scores", f"score_{name}", xr.Variable(f"scored_{name}", list(self.whole.values()))
        if self.images is not None:
            for variable, values in self.images.variables(name):
                yield "images", variable, values

    def coordinates(self) -> Iterator[tuple[str, str, xr.Variable]]:
        """Group, coordinate's name, coordinate: rows' numbers, and names of entries where there are any."""
        family = self.target.family
        yield "observed_data", self.row, xr.Variable(self.row, self.numbers)
        if self.whole:
            place = f"scored_{self.name}"  # no target can make it the name of a variable, which begins with score_
            yield "whole_scores", place, xr.Variable(place, np.asarray(list(self.whole), dtype=str))
        named: list[tuple[str, Axes]] = [("observed_data", family.label_axes())]
        if self.prediction.has("draws"):
            named.append(("posterior_predictive", family.axes()))
        if self.prediction.mean is not None:
            named.append(("predictive_mean", family.axes()))
        if self.prediction.probability is not None:
            named.append(("probability", {"class": family.class_names or None}))
        for group, axes in named:
            for axis, names in axes.items():
                if names is not None:
                    dim = f"{axis}_{self.name}"
                    yield group, dim, xr.Variable(dim, storable(f"names of {axis}", names))

    def _kept(self, values: np.ndarray) -> np.ndarray:
        return values if len(self.kept) == self.count else values[self.kept]  # no copy of all rows

    def _variable(self, values: np.ndarray, axes: Axes) -> xr.Variable:
        return xr.Variable((self.row, *(f"{axis}_{self.name}" for axis in axes)), values)

    def _of_rows(self, field: str, given: ArrayLike, axes: Axes) -> np.ndarray:
        values = storable(f"{field} of {self}", given)
        self._check(field, values, (self.count,), axes)
        return self._kept(values)

    def _drawn(self, field: str, given: ArrayLike, axes: Axes) -> xr.Variable:
        values = storable(f"{field} of {self}", given)
        self._check(field, values, (None, self.count), axes)
        kept = values if len(self.kept) == self.count else values[:, self.kept]
        dims = (*DRAWN, self.row, *(f"{axis}_{self.name}" for axis in axes))
        return xr.Variable(dims, split_chains(f"{field} of {self}", kept, self.chains))

    def _component(self, parameter: str, given: ArrayLike) -> xr.Variable:
        """A parameter of the law; an axis of size 1 that is the same for all components, or rows, is left out."""
        law = self.prediction.law
        assert law is not None
        values = storable(f"law of {self}", given)
        components = law.components
        if values.ndim < 2 or values.shape[0] not in (1, components) or values.shape[1] not in (1, self.count):
            raise ValueError(
                f"{self}: the law's {parameter} has shape {values.shape}; expected ({components}, {self.count}, ...), "
                "components by rows, unlabelled ones included, or 1 where all are alike."
            )
        dims = ["component", self.row, *(f"{parameter}_{self.name}_dim_{i}" for i in range(values.ndim - 2))]
        if values.shape[1] == 1 and self.count != 1:
            values, dims = values[:, 0], [dims[0], *dims[2:]]
        elif len(self.kept) < self.count:
            values = values[:, self.kept]
        if values.shape[0] == 1 and components != 1:
            values, dims = values[0], dims[1:]
        return xr.Variable(dims, values, {"law": law.name, "parameter": parameter})

    def _check(self, field: str, values: np.ndarray, leading: Sequence[int | None], axes: Axes) -> None:
        sizes = [*leading, *(None if names is None else len(names) for names in axes.values())]
        fits = values.ndim == len(sizes) and all(
            size == wanted or wanted is None for size, wanted in zip(values.shape, sizes, strict=True)
        )
        if not fits:
            words = ["draws", "rows"][2 - len(leading) :] + list(axes)
            wanted = ", ".join(word if size is None else str(size) for word, size in zip(words, sizes, strict=True))
            raise ValueError(
                f"{self}: {field} has shape {values.shape}; expected ({wanted}{',' * (len(sizes) == 1)}), with all rows "
                "that there are labels for, unlabelled ones included."
            )


def split_chains(what: str, values: np.ndarray, chains: int) -> np.ndarray:
    """Draws ``(S, ...)``, one chain after the other, as ``(chain, draw, ...)``; a single draw is the same in one chain.

    Raises:
        ValueError: If there is no draw, or their number is not a multiple of the chains.
    """
    if not values.ndim or not len(values) or len(values) % chains:
        raise ValueError(
            f"{what} has shape {values.shape}; expected (draws, ...) with the draws of {chains} "
            f"chain{'s' * (chains > 1)} of equal length, one after the other."
        )
    return values.reshape(chains, len(values) // chains, *values.shape[1:])
