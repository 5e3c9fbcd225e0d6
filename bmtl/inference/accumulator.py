"""How one target's rows are gathered over chunks of rows and passes over the posterior."""

import numpy as np
from torch import Tensor

from bmtl.inference.readings import Reading
from bmtl.targets.prediction import Law, Prediction


class TargetAccumulator:
    """Gathers what is read of one target; a chunk is known by its first row.

    What is as large as the draws is written to its place at once, in the precision of the model, and handed out once only,
    by `prediction`: a second copy of it would double the memory that drawing takes. A parameter of the law that is the same
    for all rows is kept once a pass.

    Args:
        name: Of the target.
        labels: For all rows; None without labels.
        passes: Number of passes over the rows. One may bring several draws, each of more than one brings a draw.
    """

    def __init__(self, name: str, labels: Tensor | None, passes: int) -> None:
        self.name = name
        self.labels = labels
        self.passes = passes
        self._turn = 0  # which pass this is
        self._row = 0  # first row of the next chunk
        self._rows = 0  # of a whole pass
        self._classes = False
        self._law: str | None = None
        self._drawn: dict[int, np.ndarray] = {}
        self._first: dict[int, np.ndarray] = {}  # the first pass's means: sums are of differences to them
        self._shift: dict[int, np.ndarray] = {}
        self._square: dict[int, np.ndarray] = {}
        self._aleatoric: dict[int, np.ndarray] = {}
        self._within: dict[int, np.ndarray] = {}
        self._parameters: dict[str, dict[int, np.ndarray]] = {}
        self._density: dict[int, np.ndarray] = {}
        self._pit: dict[int, np.ndarray] = {}

    def next_labels(self, rows: int) -> Tensor | None:
        """Labels of the next chunk of a pass."""
        return None if self.labels is None else self.labels[self._row : self._row + rows]

    def add(self, reading: Reading) -> float:
        """Adds the next chunk of a pass; returns the log density of its labels."""
        start, rows = self._row, reading.drawn.shape[1]
        self._row += rows
        self._keep(self._drawn, start, to_numpy(reading.drawn))
        self._moments(start, reading)
        law = reading.law
        if not self._turn and not start:
            self._law = None if law is None else law[0]
        if law is not None and law[0] == self._law:
            for name, tensor in law[1].items():
                # A copy, and no parameter of the model, which may go on training.
                self._keep(self._parameters.setdefault(name, {}), start, to_numpy(tensor)[None].copy())
        elif self._law is not None:
            raise ValueError(
                f"Target {self.name!r} has a law {self._law!r} in some rows or draws, and "
                f"{None if law is None else law[0]!r} in others. A target is of one kind of distribution."
            )
        if reading.density is None or self.labels is None:
            return 0.0
        density = to_numpy(reading.density)
        self._keep(self._density, start, density[None])
        if reading.pit is not None:
            self._pit[start] = self._pit.get(start, 0.0) + to_numpy(reading.pit)
        return float(np.nansum(density, dtype=np.float64))

    def end_pass(self) -> None:
        """Goes back to the first row.

        Raises:
            ValueError: If there are more labels than rows.
        """
        if self.labels is not None and len(self.labels) != self._row:
            raise ValueError(
                f"{len(self.labels)} labels were given for the target {self.name!r}, and the model predicts {self._row} "
                "rows. Give a label for each row, NaN (or -1 for classes) where there is none."
            )
        self._rows, self._row = self._row, 0
        self._turn += 1

    def prediction(self) -> Prediction:
        """What was gathered; once only."""
        n = self.passes
        means = np.concatenate([self._first[start] + self._shift[start] / n for start in self._first])
        aleatoric = np.concatenate(list(self._aleatoric.values())) / n if self._aleatoric else None
        pit = np.concatenate(list(self._pit.values())) / n if self._pit else None
        law = None
        if self._law is not None:
            parameters = {name: _parameter(parts, self._rows) for name, parts in self._parameters.items()}
            if all(values.shape[1] < self._rows for values in parameters.values()):  # one law for all rows
                name, values = next(iter(parameters.items()))
                parameters[name] = np.broadcast_to(values, (len(values), self._rows, *values.shape[2:]))
            law = Law(self._law, parameters)
        return Prediction(
            draws=_whole(self._drawn, self._rows),
            mean=None if self._classes else means,
            probability=means if self._classes else None,
            law=law,
            aleatoric=aleatoric,
            epistemic=None if aleatoric is None else self._epistemic(means, aleatoric),
            log_likelihood=_whole(self._density, self._rows) if self._density else None,
            pit=None if pit is None else np.clip(pit, 0.0, 1.0),
        )

    def _epistemic(self, means: np.ndarray, aleatoric: np.ndarray) -> np.ndarray:
        """Variance of the means with what distributions call epistemic; mutual information of classes."""
        if self._classes:
            return np.maximum(entropy(means) - aleatoric, 0.0)
        n = self.passes
        between = [self._square[start] / n - np.square(self._shift[start] / n) for start in self._first]
        within = np.concatenate(list(self._within.values())) / n if self._within else 0.0
        return np.maximum(np.concatenate(between), 0.0) + within

    def _moments(self, start: int, reading: Reading) -> None:
        self._classes = reading.probability is not None
        mean = to_numpy((reading.probability if reading.mean is None else reading.mean).double())  # type: ignore[union-attr]
        shift = mean - self._first.setdefault(start, mean)
        self._shift[start] = self._shift.get(start, 0.0) + shift
        self._square[start] = self._square.get(start, 0.0) + np.square(shift)
        for parts, values in ((self._aleatoric, reading.aleatoric), (self._within, reading.epistemic)):
            if values is not None:
                parts[start] = parts.get(start, 0.0) + to_numpy(values.double())

    def _keep(self, parts: dict[int, np.ndarray], start: int, values: np.ndarray) -> None:
        """Writes this pass's values ``(samples, B, ...)`` of the chunk at `start` to their place."""
        if self.passes == 1:
            parts[start] = values
            return
        shape = (self.passes, *values.shape[1:])
        if start not in parts:
            parts[start] = np.empty(shape, values.dtype)
        elif parts[start].shape[1] < values.shape[1]:  # one number for all rows until now
            parts[start] = np.broadcast_to(parts[start], shape).copy()
        parts[start][self._turn : self._turn + 1] = values


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy in nats over the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(probability > 0, probability * np.log(probability), 0.0).sum(axis=-1)


def to_numpy(value: Tensor) -> np.ndarray:
    """A tensor as an array on the host."""
    return value.detach().cpu().numpy()


def _whole(parts: dict[int, np.ndarray], rows: int) -> np.ndarray:
    """Arrays ``(S, B, ...)`` of the chunks as one ``(S, N, ...)``; each chunk is forgotten when it has been copied."""
    if len(parts) == 1:
        return parts.popitem()[1]
    starts = sorted(parts)
    first = parts[starts[0]]
    whole = np.empty((len(first), rows, *first.shape[2:]), first.dtype)
    for start, end in zip(starts, [*starts[1:], rows], strict=True):
        whole[:, start:end] = parts.pop(start)
    return whole


def _parameter(parts: dict[int, np.ndarray], rows: int) -> np.ndarray:
    """A parameter of the law ``(S, N, ...)``, or ``(S, 1, ...)`` if it is the same for all rows of all chunks."""
    first, *others = parts.values()
    if first.shape[1] == 1 and all(np.array_equal(first, other) for other in others):
        return first
    return _whole(parts, rows)
