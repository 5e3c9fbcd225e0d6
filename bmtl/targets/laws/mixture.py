"""Equal-weight mixtures of components of one kind, a component a posterior draw, whatever the kind."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from bmtl.targets.scaler import Scaler

MEMORY = 1 << 20  # numbers held at once: components times rows times levels


class Parameter:
    """A parameter of a mixture, ``(S, N)``, as an attribute; its own name by default."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    def __get__(self, mixture: "Mixture", owner: type) -> np.ndarray:
        return mixture.parameters[self.name]


class Mixture(ABC):
    """The mean of S distributions of one kind for each of N rows.

    A subclass takes its law's parameters by their names and defines what a single component is; this class computes the
    mixture from that. Parameters are ``(S, N)``, or broadcast to it, and ``(N,)`` is one component. Methods take `y` of
    shape ``(..., N)`` (or a scalar for all rows) and return that shape. A NaN in a row's parameters makes what is computed
    of that row NaN. Rows are processed in chunks, so that memory stays bounded.

    Raises:
        ValueError: If the shapes do not broadcast to ``(S, N)``, or a parameter is out of its range.
    """

    name: ClassVar[str]
    parameters: dict[str, np.ndarray]

    def __init__(self, **parameters: np.ndarray) -> None:
        arrays = [np.atleast_2d(values) for values in parameters.values()]
        given = ", ".join(f"{name} {values.shape}" for name, values in zip(parameters, arrays, strict=True))
        try:
            spread = np.broadcast_arrays(*arrays)
        except ValueError:
            raise ValueError(f"The shapes {given} do not broadcast to (S, N).") from None
        if spread[0].ndim != 2 or not len(spread[0]):
            raise ValueError(f"The shapes are {given}; expected (S, N), a component at least.")
        self.parameters = dict(zip(parameters, spread, strict=True))

    # Of the components, each (S, ..., N) from y or levels (..., N), or (S, N) without.

    @abstractmethod
    def component_mean(self) -> np.ndarray:
        """Means ``(S, N)``."""

    @abstractmethod
    def component_variance(self) -> np.ndarray:
        """Variances ``(S, N)``."""

    @abstractmethod
    def component_cdf(self, y: np.ndarray) -> np.ndarray:
        """Probability of a value up to `y` under each component."""

    @abstractmethod
    def component_survival(self, y: np.ndarray) -> np.ndarray:
        """Probability of a value above `y` under each component, exact in the upper tail."""

    @abstractmethod
    def component_log_prob(self, y: np.ndarray) -> np.ndarray:
        """Log density or log probability at `y` under each component."""

    @abstractmethod
    def component_distance(self, y: np.ndarray) -> np.ndarray:
        """``E|Y - y|`` under each component."""

    @abstractmethod
    def half_difference(self) -> np.ndarray:
        """``E|Y - Y'| / 2`` of two independent values of the mixture ``(N,)``."""

    @abstractmethod
    def draw(self, random: np.random.Generator) -> np.ndarray:
        """A draw of each component ``(S, N)``."""

    @abstractmethod
    def quantile(self, p: ArrayLike) -> np.ndarray:
        """Smallest value up to which there is probability `p`.

        Args:
            p: A scalar, ``(L, 1)`` for L levels of every row, or ``(..., N)``.

        Raises:
            ValueError: If a level is outside [0, 1]. (Levels 0 and 1 give the ends of the support.)
        """

    @classmethod
    def to_units(cls, parameters: dict[str, np.ndarray], scaler: Scaler) -> dict[str, np.ndarray]:
        """Parameters of ``mean + std * y`` from those of y.

        Raises:
            ValueError: If that is of another kind.
        """
        raise ValueError(
            f"The law {cls.name!r} is not of numbers that can be standardised. Leave the target as it is: give it a family "
            'that is not scaled, or the data scaling="none".'
        )

    # Of the mixture.

    @property
    def components(self) -> int:
        """S, the number of components."""
        return int(self._first.shape[0])

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return int(self._first.shape[1])

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """The mixture of some rows."""
        return self._with({name: values[:, rows] for name, values in self.parameters.items()})

    def mean(self) -> np.ndarray:
        """Mean ``(N,)``."""
        return np.asarray(self.component_mean().mean(axis=0))

    def variance(self) -> np.ndarray:
        """Variance ``(N,)``: that of the components on average plus that of their means."""
        return self.within() + self.between()

    def within(self) -> np.ndarray:
        """Mean of the components' variances ``(N,)``."""
        return np.asarray(self.component_variance().mean(axis=0))

    def between(self) -> np.ndarray:
        """Variance of the components' means ``(N,)``; zero for one component."""
        return np.asarray(self.component_mean().var(axis=0))

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value up to `y`."""
        return self.by_rows(lambda part, at: part.component_cdf(at).mean(axis=0), self.labels(y))

    def survival(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value above `y`, exact in the upper tail."""
        return self.by_rows(lambda part, at: part.component_survival(at).mean(axis=0), self.labels(y))

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density at `y`, per unit of `y`; log probability where y is counted."""
        return self.by_rows(
            lambda part, at: logsumexp(part.component_log_prob(at), axis=0) - np.log(self.components), self.labels(y)
        )

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end ``(N,)`` of the central interval of a level in (0, 1)."""
        return central_interval(self.quantile, level)

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """Independent draws ``(n, N)``; a seed gives the same ones again."""
        random = np.random.default_rng(seed)
        chosen = random.integers(self.components, size=(n, self.rows))
        drawn = {name: np.take_along_axis(values, chosen, axis=0) for name, values in self.parameters.items()}
        return self._with(drawn).draw(random)

    def crps(self, y: ArrayLike) -> np.ndarray:
        """Continuous ranked probability score at `y`, in its unit: ``E|Y - y| - E|Y - Y'| / 2``."""
        distance = self.by_rows(lambda part, at: part.component_distance(at).mean(axis=0), self.labels(y))
        return distance - self.half_difference()

    # For subclasses.

    @property
    def _first(self) -> np.ndarray:
        return next(iter(self.parameters.values()))

    def _with(self, parameters: dict[str, np.ndarray]) -> Self:
        """A mixture of other parameters of the same kind, which are not checked again."""
        other = object.__new__(type(self))
        other.parameters = parameters
        return other

    def spread(self, dims: int) -> list[np.ndarray]:
        """The parameters in their order as ``(S, 1, ..., N)``, against values of `dims` dimensions."""
        shape = self.components, *(1,) * (dims - 1), self.rows
        return [values.reshape(shape) for values in self.parameters.values()]

    def labels(self, y: ArrayLike) -> np.ndarray:
        """`y` as floats ``(..., N)``."""
        return row_values(y, self.rows)

    def by_rows(self, core: Callable[..., np.ndarray], *arrays: np.ndarray, held: int = 1) -> np.ndarray:
        """`core` of the mixture and arrays ``(..., N)``, a chunk of rows at a time; `held`: times the memory of one."""
        shape = np.broadcast_shapes(*(each.shape for each in arrays), (self.rows,))
        given = [np.broadcast_to(each, np.broadcast_shapes(each.shape, (self.rows,))) for each in arrays]
        found = np.empty(shape)
        step = max(1, MEMORY // (held * self.components * max(1, int(np.prod(shape[:-1])))))
        for start in range(0, self.rows, step):
            rows = slice(start, start + step)
            found[..., rows] = core(self[rows], *(each[..., rows] for each in given))
        return found


def row_values(y: ArrayLike, rows: int) -> np.ndarray:
    """Values as floats ``(..., N)``, a scalar for all rows.

    Raises:
        ValueError: If the last axis is another.
    """
    values = np.asarray(y, dtype=float)
    if values.ndim and values.shape[-1] != rows:
        raise ValueError(f"y has shape {values.shape}; expected (..., {rows}), the rows last.")
    return values if values.ndim else np.full(rows, values)


def checked_levels(p: ArrayLike, rows: int) -> np.ndarray:
    """Levels as floats: a scalar, ``(L, 1)`` or ``(..., N)``.

    Raises:
        ValueError: If one is outside [0, 1], or the shape is another.
    """
    levels = np.asarray(p, dtype=float)
    if (levels < 0).any() or (levels > 1).any():
        raise ValueError(f"Levels range from {levels.min():.4g} to {levels.max():.4g}; they are in [0, 1].")
    if levels.ndim and levels.shape[-1] not in (1, rows):
        raise ValueError(f"Levels have shape {levels.shape}; expected a scalar, (L, 1) or (..., {rows}).")
    return levels


def central_interval(quantile: Callable[[float], np.ndarray], level: float) -> tuple[np.ndarray, np.ndarray]:
    """The quantiles between which there is probability `level`, as much beyond either.

    Raises:
        ValueError: If the level is outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"The interval's level is {level}; expected one in (0, 1).")
    return quantile((1 - level) / 2), quantile((1 + level) / 2)


def finite(name: str, values: ArrayLike) -> np.ndarray:
    """The parameter as floats; a ``ValueError`` where one is infinite."""
    array = np.asarray(values, dtype=float)
    if np.isinf(array).any():
        raise ValueError(f"A {name} is infinite; expected finite ones.")
    return array


def positive(name: str, values: ArrayLike, *, infinite: bool = False) -> np.ndarray:
    """The parameter as floats; a ``ValueError`` where one is not positive, or infinite unless that has a meaning."""
    array = np.asarray(values, dtype=float)
    if (array <= 0).any() or (not infinite and np.isinf(array).any()):
        raise ValueError(
            f"A {name} is zero, negative{'' if infinite else ' or infinite'}; expected positive ones: bound it from below."
        )
    return array


def not_negative(name: str, values: ArrayLike) -> np.ndarray:
    """The parameter as floats; a ``ValueError`` where one is negative or infinite."""
    array = np.asarray(values, dtype=float)
    if (array < 0).any() or np.isinf(array).any():
        raise ValueError(f"A {name} is negative or infinite; expected finite ones from 0.")
    return array


def share(name: str, values: ArrayLike) -> np.ndarray:
    """The parameter as floats; a ``ValueError`` where one is outside [0, 1]."""
    array = np.asarray(values, dtype=float)
    if (array < 0).any() or (array > 1).any():
        raise ValueError(f"A {name} is outside [0, 1]; it is a probability.")
    return array
