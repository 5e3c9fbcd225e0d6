"""How many data each task has: given, declared by plates, or estimated from the labels of the batches seen."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

NData = int | Mapping[str, int] | None


class BatchCounts(NamedTuple):
    """The data of one batch, of all processes that train together: K numbers each.

    Attributes:
        sizes: Number of data that plates declare; 0 where they declare none.
        labelled: Labelled rows.
        scales: What plates scale each row up by, to `sizes` data in all.
        most: Rows of the batch, padding included.
    """

    sizes: Sequence[float]
    labelled: Sequence[float]
    scales: Sequence[float]
    most: Sequence[float]

    @property
    def rows(self) -> list[float]:
        """Rows of the batch, labelled or not, that plates scale up to `sizes` data."""
        return [size / scale if scale > 0 else 0.0 for size, scale in zip(self.sizes, self.scales, strict=True)]


class NumbersOfData:
    """The numbers of data that losses are divided by, kept over the batches of a run.

    In each method `n_data` is what was given: one number for all tasks, or by task, or None.
    """

    def __init__(self) -> None:
        self.declared: dict[str, float] = {}  # by plates, in the first batch
        self._labelled: dict[str, float] = {}  # sums over training batches
        self._rows: dict[str, float] = {}
        self._warned = False

    def declare(self, names: Sequence[str], sizes: Sequence[float], n_data: NData = None) -> None:
        """Takes up what the plates of the first batch declare, for tasks that a later batch does not visit.

        Args:
            names: The tasks.
            sizes: Number of data of each, 0 for nothing.
            n_data: Given numbers.

        Raises:
            ValueError: If `n_data` lacks a task.
        """
        self.declared = dict(zip(names, self.of_plates(names, sizes, n_data), strict=True))

    def of_plates(self, names: Sequence[str], sizes: Sequence[float], n_data: NData = None) -> list[float]:
        """Number of data of every task: as given, else as plates declare, else as they declared in the first batch.

        A task of which none of these is known is taken to have as many as the others have on average.

        Args:
            names: The tasks.
            sizes: What the plates declare, 0 for nothing.
            n_data: Given numbers.

        Raises:
            ValueError: If `n_data` lacks a task.
        """
        if isinstance(n_data, Mapping):
            missing = [name for name in names if name not in n_data]
            if missing:
                raise ValueError(f"n_data names {sorted(n_data)}, and the model also has the tasks {missing}.")
            return [float(n_data[name]) for name in names]
        if n_data is not None:
            return [float(n_data)] * len(names)
        if all(sizes):
            return list(sizes)
        found = {**self.declared, **{name: size for name, size in zip(names, sizes, strict=True) if size}}
        mean = sum(found.values()) / len(found) if found else 1.0
        return [found.get(name, mean) for name in names]

    def count(self, names: Sequence[str], batch: BatchCounts, n_data: NData = None) -> None:
        """Counts the labels of a training batch.

        Args:
            names: The tasks.
            batch: The data of the batch.
            n_data: Given numbers; without them, estimates are warned of once.
        """
        self._add(self._labelled, names, batch.labelled)
        self._add(self._rows, names, batch.rows)
        if n_data is None and not self._warned:
            rows = [min(pair) for pair in zip(batch.rows, batch.most, strict=True)]
            each = zip(names, batch.labelled, batch.sizes, rows, strict=True)
            estimated = [
                name for name, labelled, size, all_ in each if labelled < all_ * (1 - 1e-6) and size > all_ * (1 + 1e-6)
            ]
            if estimated:
                self._warned = True
                logger.warning(
                    "Tasks %s have rows without a label, so that the numbers of labelled data by which "
                    "normalize='task_mean' divides are estimated from the batches seen. Give them: "
                    "TaskELBO(normalize='task_mean', n_data={task: number of labelled training rows}).",
                    estimated,
                )

    def labelled(self, names: Sequence[str], batch: BatchCounts, n_data: NData = None) -> list[float]:
        """Number of labelled data of each of the K tasks.

        It is given, or what plates declare times the share of labelled rows in the batches counted; in this batch where
        none has been counted. A task without any label so far is taken to have them all.

        Args:
            names: The tasks.
            batch: The data of the batch at hand.
            n_data: Given numbers.
        """
        sizes = self.of_plates(names, batch.sizes, n_data)
        if n_data is not None:
            return sizes
        found = []
        for name, size, *here in zip(names, sizes, batch.labelled, batch.rows, strict=True):
            counted = self._rows.get(name, 0.0)
            labelled, rows = (self._labelled.get(name, 0.0), counted) if counted > 0 else here
            found.append(size * labelled / rows if labelled > 0 and rows > 0 else size)
        return found

    def state(self) -> dict[str, Any]:
        """What the next batches depend on, as plain values."""
        return {"declared": dict(self.declared), "labelled": dict(self._labelled), "rows": dict(self._rows)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.declared = dict(state["declared"])
        self._labelled, self._rows = dict(state["labelled"]), dict(state["rows"])

    @staticmethod
    def _add(sums: dict[str, float], names: Sequence[str], numbers: Sequence[float]) -> None:
        for name, number in zip(names, numbers, strict=True):
            sums[name] = sums.get(name, 0.0) + number
