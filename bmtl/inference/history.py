"""The records of a run's steps, in bounded memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from bmtl.inference.record import StepRecord

# Fields of a record by how they are packed: K numbers per step, one number per step, one word per step.
_VECTORS = {**dict.fromkeys(("losses", "weights", "weights_heads", "alpha"), np.float64), "active": np.bool_}
_NUMBERS = {
    **dict.fromkeys(("step", "epoch", "iterations"), np.int64),
    **dict.fromkeys(("shared", "lr", "residual", "fidelity"), np.float64),
    "combination": np.bool_,
}
_WORDS = ("status", "length", "gradients")
_PENDING = 64  # records that wait to be packed together
_CHUNK = 256  # records that are unpacked together


class _Growing:
    """An array that grows along its first dimension.

    Args:
        shape: Of one row.
        dtype: Of its entries.
        fill: In place of `missing` rows.
        missing: Rows at the start that nobody gave.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, fill: Any = 0, missing: int = 0) -> None:
        self._all = np.full((missing, *shape), fill, dtype)
        self.fill, self.rows = fill, missing

    @property
    def values(self) -> np.ndarray:
        return self._all[: self.rows]

    def add(self, values: Any) -> None:
        needed = self.rows + len(values)
        if needed > len(self._all):
            grown = np.empty((max(needed, 2 * len(self._all)), *self._all.shape[1:]), self._all.dtype)
            grown[: self.rows] = self.values
            self._all = grown
        self._all[self.rows : needed] = values
        self.rows = needed

    def keep(self, which: np.ndarray | slice) -> None:
        self._all = self.values[which].copy()
        self.rows = len(self._all)


class History(Sequence[StepRecord]):
    """A sequence of records that keeps every n-th step: n is 1 until a limit of memory is reached, and then doubles.

    A record is packed into arrays in full precision and made again when it is requested. The most recent one is the object
    that was appended, and may still be changed; it is there whether or not its turn to be kept has come. Which steps are
    kept is in their field ``step``.

    Args:
        mebibytes: The limit, of what a checkpoint holds too; None keeps every step.

    Attributes:
        every: Every how many steps one is kept now.
    """

    def __init__(self, mebibytes: float | None = 8.0) -> None:
        self.mebibytes = mebibytes
        self.clear()

    def clear(self) -> None:
        """Forgets all records."""
        self.every = 1
        self._names: tuple[str, ...] = ()
        self._seen = 0
        self._bytes = 0  # of the kept records, about
        self._last: StepRecord | None = None
        self._pending: list[StepRecord] = []  # kept, and not packed yet
        self._packed: dict[str, _Growing] = {}
        self._seconds: dict[str, _Growing] = {}
        self._probed: dict[tuple[str, str], _Growing] = {}  # value, and whether it was measured
        self._words: list[str] = []
        self._events: dict[int, tuple[str, ...]] = {}  # by row

    # ---- As a sequence -------------------------------------------------------------------------------------------

    def append(self, record: StepRecord) -> None:
        """Adds the record of the next step.

        Raises:
            ValueError: If it is of other tasks than those before.
        """
        if self._seen and record.names != self._names:
            raise ValueError(f"The history is of the tasks {self._names}, and a record of {record.names} was given.")
        self._names = record.names
        self._settle()
        self._last = record
        self._seen += 1

    def extend(self, records: Iterable[StepRecord]) -> None:
        """Adds records of the next steps."""
        for record in records:
            self.append(record)

    def __len__(self) -> int:
        return self._rows + len(self._pending) + (self._last is not None)

    @overload
    def __getitem__(self, index: int) -> StepRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[StepRecord]: ...

    def __getitem__(self, index: int | slice) -> StepRecord | list[StepRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"The history has {size} records, and number {index} was asked for.")
        index %= size
        if index >= self._rows:
            return self._recent()[index - self._rows]
        return next(self._unpacked(range(index, index + 1)))

    def __iter__(self) -> Iterator[StepRecord]:
        return chain(self._unpacked(range(self._rows)), self._recent())

    def _recent(self) -> list[StepRecord]:
        return self._pending if self._last is None else [*self._pending, self._last]

    # ---- Packing -------------------------------------------------------------------------------------------------

    @property
    def _rows(self) -> int:
        return self._packed["step"].rows if self._packed else 0

    def _columns(self) -> Iterator[_Growing]:
        """Those with one row a record; Gram matrices are only there where gradients were compared."""
        rows = (column for name, column in self._packed.items() if name != "gram")
        return chain(rows, self._seconds.values(), self._probed.values())

    def _settle(self) -> None:
        """Keeps the last record, if its turn has come, and thins the records where they have reached the limit.

        What is dropped depends on the records alone, and not on when they were packed or saved.
        """
        record, self._last = self._last, None
        if record is None or (self._seen - 1) % self.every:
            return
        self._pending.append(record)
        self._bytes += self._size(1, record.gram is not None)
        if len(self._pending) == _PENDING:
            self._pack()
        if self.mebibytes is not None and self._bytes > self.mebibytes * 2**20:
            self._pack()
            while self._bytes > self.mebibytes * 2**20 and self._rows > 1:
                self._thin()

    def _size(self, records: int, grams: int) -> int:
        k = len(self._names)
        return records * (33 * k + 160) + grams * 8 * k * k

    def _pack(self) -> None:
        """Moves the pending records into the arrays."""
        records, self._pending = self._pending, []
        if not records:
            return
        k, before = len(self._names), self._rows
        if not self._packed:
            self._packed = {name: _Growing((k,), dtype) for name, dtype in _VECTORS.items()}
            self._packed |= {name: _Growing((), dtype) for name, dtype in _NUMBERS.items()}
            self._packed |= {name: _Growing((), np.int16) for name in _WORDS}
            self._packed |= {"gram": _Growing((k, k), np.float64), "compared": _Growing((), np.bool_)}
        for name in _VECTORS:
            self._packed[name].add(torch.stack([getattr(record, name) for record in records]).numpy())
        for name in _NUMBERS:
            self._packed[name].add([getattr(record, name) for record in records])
        for name in _WORDS:
            self._packed[name].add([self._word(getattr(record, name)) for record in records])
        self._packed["compared"].add([record.gram is not None for record in records])
        grams = [record.gram for record in records if record.gram is not None]
        if grams:
            self._packed["gram"].add(torch.stack(grams).numpy())
        for key in dict.fromkeys(key for record in records for key in record.seconds):
            self._seconds.setdefault(key, _Growing((), np.float64, np.nan, before))
        for key, column in self._seconds.items():
            column.add([record.seconds.get(key, np.nan) for record in records])
        for pair in dict.fromkeys(pair for record in records for pair in record.probed):
            self._probed.setdefault(pair, _Growing((2,), np.float64, 0.0, before))
        for pair, column in self._probed.items():
            column.add([(record.probed.get(pair, 0.0), pair in record.probed) for record in records])
        self._events |= {before + i: tuple(record.events) for i, record in enumerate(records) if record.events}

    def _thin(self) -> None:
        """Drops every other record."""
        even = np.flatnonzero(self._packed["compared"].values) % 2 == 0
        self._packed["gram"].keep(even)
        for column in self._columns():
            column.keep(slice(None, None, 2))
        self._events = {row // 2: events for row, events in self._events.items() if row % 2 == 0}
        self._bytes = self._size(self._rows, self._packed["gram"].rows)
        self.every *= 2

    def _word(self, word: str) -> int:
        if word not in self._words:
            self._words.append(word)
        return self._words.index(word)

    def _unpacked(self, rows: range) -> Iterator[StepRecord]:
        for start in range(rows.start, rows.stop, _CHUNK):
            yield from self._chunk(slice(start, min(start + _CHUNK, rows.stop)))

    def _chunk(self, rows: slice) -> Iterator[StepRecord]:
        packed = {name: column.values for name, column in self._packed.items()}
        compared = packed["compared"]
        first, last = (int(compared[:row].sum()) for row in (rows.start, rows.stop))
        grams = iter(torch.from_numpy(packed["gram"][first:last].copy()))
        columns: dict[str, Any] = {name: torch.from_numpy(packed[name][rows].copy()).unbind() for name in _VECTORS}
        columns |= {name: packed[name][rows].tolist() for name in _NUMBERS}
        columns |= {name: [self._words[number] for number in packed[name][rows]] for name in _WORDS}
        columns["gram"] = [next(grams) if there else None for there in compared[rows]]
        seconds = {key: column.values[rows].tolist() for key, column in self._seconds.items()}
        probed = {pair: column.values[rows].tolist() for pair, column in self._probed.items()}
        for i, fields in enumerate(zip(*columns.values(), strict=True)):
            yield StepRecord(
                names=self._names,
                seconds={key: values[i] for key, values in seconds.items() if values[i] == values[i]},
                probed={pair: values[i][0] for pair, values in probed.items() if values[i][1]},
                events=self._events.get(rows.start + i, ()),
                **dict(zip(columns, fields, strict=True)),
            )

    # ---- State ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The records as tensors and lists, without a class."""
        self._pack()
        last = None
        if self._last is not None:
            alone = History(None)
            alone._names, alone._pending = self._names, [self._last]
            last = alone.state_dict()
        return {
            "names": list(self._names),
            "seen": self._seen,
            "every": self.every,
            "packed": {name: torch.from_numpy(column.values.copy()) for name, column in self._packed.items()},
            "seconds": {key: torch.from_numpy(column.values.copy()) for key, column in self._seconds.items()},
            "probed": {pair: torch.from_numpy(column.values.copy()) for pair, column in self._probed.items()},
            "words": list(self._words),
            "events": {row: list(events) for row, events in self._events.items()},
            "last": last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads saved records in place of its own; the limit stays."""
        self.clear()
        self._names = tuple(state["names"])
        self._seen, self.every = state["seen"], state["every"]
        self._packed = {name: _restored(values) for name, values in state["packed"].items()}
        self._seconds = {key: _restored(values, np.nan) for key, values in state["seconds"].items()}
        self._probed = {tuple(pair): _restored(values) for pair, values in state["probed"].items()}
        self._words = list(state["words"])
        self._events = {row: tuple(events) for row, events in state["events"].items()}
        if self._packed:
            self._bytes = self._size(self._rows, self._packed["gram"].rows)
        if state["last"] is not None:
            alone = History(None)
            alone.load_state_dict(state["last"])
            self._last = alone[0]


def _restored(values: Tensor, fill: Any = 0) -> _Growing:
    array = values.cpu().numpy()
    column = _Growing(array.shape[1:], array.dtype, fill)
    column.add(array)
    return column
