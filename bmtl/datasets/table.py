"""Tables of numbers as inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bmtl.datasets import checks
from bmtl.datasets.files import Archive
from bmtl.datasets.input_kind import Inputs, register_kind
from bmtl.datasets.tables.bins import Bins, quantile_bins
from bmtl.datasets.tables.column import RawTable
from bmtl.datasets.tables.features import Encoding, far_outside
from bmtl.datasets.tables.frames import raw_table
from bmtl.datasets.tables.number_fields import NumberStyle, parse_all
from bmtl.datasets.tables.reading import read_table
from bmtl.targets.scaler import Scaler

_NAMED = 3  # columns of new rows that are unlike the training rows'


@register_kind
@dataclass(frozen=True, eq=False)
class Table(Inputs):
    """Numbers ``(N, D)``, or ``(N, ...)``, and the scaler between them and what a model sees.

    Args:
        x: Raw numbers, finite; a read-only copy is kept.
        scaler: Fitted on the training rows.
        features: Names of the D columns, where they have any: by them new rows are put in order.
        encoding: How the columns of a file or data frame become `x`, where they are not the same.
        reading: Options with which files of new rows are read: of `read_table`, and for an ``.npz`` file its ``array``
            (``"X"``) and whether it is to ``unpack`` bits.
        bins: Edges of each column's quantile bins, as a model sees the column; None where nothing was fitted.
        ranges: Least and greatest number of each column ``(2, D)`` in the training rows; None where nothing was fitted.

    Raises:
        ValueError: If `x` is not a table of finite numbers, or scaler or names do not fit its columns.
    """

    kind: ClassVar[str] = "table"
    x: np.ndarray = field(repr=False)
    scaler: Scaler = field(repr=False)
    features: tuple[str, ...] = field(default=(), repr=False)
    encoding: Encoding | None = field(default=None, repr=False)
    reading: Mapping[str, Any] = field(default_factory=dict, repr=False)
    bins: Bins | None = field(default=None, repr=False)
    ranges: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        x = checks.inputs(self.x) if len(self.x) else np.asarray(self.x)
        checks.scaler_shape(self.scaler, x)
        checks.feature_names(self.features, x)
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "features", tuple(self.features))

    def rows_as_bytes(self, rows: np.ndarray) -> list[bytes]:
        return [row.tobytes() for row in self.x[rows]]

    @classmethod
    def fit(
        cls,
        x: ArrayLike,
        rows: np.ndarray | None,
        *,
        clip: float | None = None,
        features: Sequence[str] = (),
        encoding: Encoding | None = None,
        reading: Mapping[str, Any] | None = None,
    ) -> Self:
        """A table with a scaler and quantile bins fitted on some rows.

        Args:
            x: Raw numbers ``(N, ...)``.
            rows: Those that scaler and bins are fitted on; None leaves numbers as they are.
            clip: Bound of the scaled numbers, in standard deviations.
            features: See the class.
            encoding: See the class.
            reading: See the class.

        Raises:
            ValueError: See the class.
        """
        numbers = checks.inputs(x)
        if clip is not None and (isinstance(clip, bool) or not isinstance(clip, int | float) or not clip > 0):
            raise ValueError(f"clip is a positive number of standard deviations, inf for no bound; got {clip!r}.")
        scaler = Scaler(np.zeros(()), np.ones(()), clip) if rows is None else Scaler.fit(numbers[rows], clip=clip)
        bins = None if rows is None else quantile_bins(scaler.transform(numbers[rows]).reshape(len(rows), -1))
        flat = numbers.reshape(len(numbers), -1)
        ranges = None if rows is None else np.stack([flat[rows].min(axis=0), flat[rows].max(axis=0)])
        return cls(numbers, scaler, tuple(features), encoding, dict(reading or {}), bins, ranges)

    def __len__(self) -> int:
        return len(self.x)

    def tensors(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        """Scaled numbers ``(B, ...)``."""
        return torch.as_tensor(self.scaler.transform(self.x[rows]), dtype=dtype)

    def budget(self) -> dict[str, Any]:
        """The schedule "cosine"."""
        return {"schedule": "cosine"}

    def summary_features(self, rows: np.ndarray) -> np.ndarray:
        """Scaled numbers ``(B, D)`` as float64, flattened if a row has more than one dimension."""
        return self.scaler.transform(self.x[rows]).reshape(len(rows), -1)

    def numbers(self, names: Sequence[str], raw: Any = None) -> np.ndarray:
        lacking = [name for name in names if name not in self.features]
        if lacking:
            raise ValueError(
                f"The table has no column {', '.join(map(repr, lacking))}; its columns are "
                f"{', '.join(self.features) or 'without names'}."
            )
        x = self.x if raw is None else self._unscaled(raw)
        return np.asarray(x[:, [self.features.index(name) for name in names]], dtype=np.float64)

    def pieces(self) -> Iterable[tuple[str, np.ndarray]]:
        yield "x", self.x

    def options(self) -> dict[str, Any]:
        """``clip``, as text, since it may be infinite."""
        return {} if self.scaler.clip is None else {"clip": f"{self.scaler.clip:g}"}

    def describe(self) -> dict[str, Any]:
        """``kind``, ``width`` (D, the product of a row's dimensions), ``shape`` of a row, ``features`` and ``bins``."""
        shape = list(self.x.shape[1:])
        return {
            "kind": self.kind,
            "width": int(np.prod(shape)),
            "shape": shape,
            "features": list(self.features),
            "bins": self._plain_bins(),
        }

    def _plain_bins(self) -> list[list[float]] | None:
        return None if self.bins is None else [list(edges) for edges in self.bins]

    def lines(self) -> list[str]:
        if self.encoding is not None:
            return self.encoding.describe()
        return [f"{' x '.join(map(str, self.x.shape[1:]))} numbers"]

    def prepare(self, raw: ArrayLike | pd.DataFrame | RawTable, dtype: torch.dtype = torch.float32) -> Tensor:
        """New rows as a model sees them.

        Args:
            raw: What `read` returned; a data frame with the columns of the training file or data frame, among others
                and in any order; or numbers ``(M, D)`` as the data set had them before scaling.
            dtype: Of the result.

        Raises:
            ValueError: If a column is not there, a field cannot be read, or numbers have another shape or are not
                finite.
        """
        return torch.as_tensor(self.scaler.transform(self._unscaled(raw)), dtype=dtype)

    def unlike_training(self, raw: ArrayLike | pd.DataFrame | RawTable) -> list[str]:
        """Categories that no training row has, and numbers far outside the training rows' range.

        The columns with the most such rows, each in a sentence, and how many more columns there are.
        """
        if self.encoding is not None:
            found = self.encoding.unlike_training(self._columns(raw))
        elif self.ranges is not None:
            x = self._unscaled(raw)
            names = self.features or [f"column {i}" for i in range(self.ranges.shape[1])]
            columns = zip(names, x.reshape(len(x), -1).T, *self.ranges.tolist(), strict=True)
            each = [far_outside(name, numbers, low, high, "{:g}".format) for name, numbers, low, high in columns]
            found = [(count, sentence) for count, sentence in each if count]
        else:
            found = []
        found.sort(key=lambda of: -of[0])
        more = len(found) - _NAMED
        return [
            *(sentence for _, sentence in found[:_NAMED]),
            *([f"{more:,} more {'column is' if more == 1 else 'columns are'} so."] if more > 0 else []),
        ]

    def _columns(self, raw: Any) -> Any:
        """New rows, those of a data frame as raw columns."""
        return raw_table(raw, missing=self._options().get("missing", ())) if isinstance(raw, pd.DataFrame) else raw

    def _unscaled(self, raw: ArrayLike | pd.DataFrame | RawTable) -> np.ndarray:
        """New rows as numbers ``(M, D)``, not scaled."""
        raw = self._columns(raw)
        if self.encoding is not None and not isinstance(raw, RawTable):
            names = [feature.name for feature in self.encoding.features]
            raise ValueError(
                f"The model was trained on the columns {', '.join(names)} of a table; give a file or a data frame that "
                f"has them, and not {type(raw).__name__}."
            )
        if isinstance(raw, RawTable):
            x = self._numbers(raw) if self.encoding is None else self.encoding.transform(raw)
        else:
            x = np.asarray(raw, dtype=np.float64)
        width = self.x.shape[1:]
        if x.shape[1:] != width or x.ndim != self.x.ndim:
            wanted = ", ".join(map(str, ("rows", *width)))
            raise ValueError(f"Inputs must have the shape ({wanted}), as the training data; got {x.shape}.")
        if not np.isfinite(x).all():
            place = tuple(np.argwhere(~np.isfinite(x))[0].tolist())
            raise ValueError(f"Inputs must be finite; the entry {place} is not. Impute it, or leave the row out.")
        return x

    def _numbers(self, raw: RawTable) -> np.ndarray:
        """The columns of a table ``(N, D)`` where the training data were an array: by name, else in order."""
        names = list(self.features) or list(raw.columns)
        lacking = [name for name in names if name not in raw.columns]
        if lacking:
            raise ValueError(
                f"{raw.source} has no column {', '.join(map(repr, lacking))}; the model was trained on "
                f"{', '.join(names)}."
            )
        way_out = "Inputs are numbers; impute what is missing, or leave the row out."
        columns = []
        for name in names:
            numbers = parse_all(raw.columns[name], NumberStyle(), way_out)
            if np.isnan(numbers).any():
                row = int(np.argmax(np.isnan(numbers)))
                raise ValueError(f"{raw.columns[name].at(row)}: missing. {way_out}")
            columns.append(numbers)
        return np.stack(columns, axis=1)

    def read(self, path: str | Path) -> np.ndarray | RawTable:
        """An ``.npz`` file's array, or the columns of a text or Parquet file."""
        path = Path(path)
        if path.suffix == ".npz":
            if not path.is_file():
                raise FileNotFoundError(f"There is no file {path}.")
            array = Archive(path).array(self.reading.get("array", "X"))
            return np.unpackbits(array, axis=1) if self.reading.get("unpack") else array
        return read_table(path, **self._options())

    def _options(self) -> dict[str, Any]:
        return dict(self.encoding.reading) if self.encoding is not None else {}

    def state(self) -> dict[str, Any]:
        return {
            "mean": torch.tensor(np.array(self.scaler.mean)),
            "std": torch.tensor(np.array(self.scaler.std)),
            "clip": self.scaler.clip,
            "shape": list(self.x.shape[1:]),
            "features": list(self.features),
            "encoding": None if self.encoding is None else self.encoding.state(),
            "reading": dict(self.reading),
            "bins": self._plain_bins(),
            "ranges": None if self.ranges is None else torch.tensor(self.ranges),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        kept = state["encoding"]
        return cls(
            np.zeros((0, *state["shape"])),
            Scaler(state["mean"].numpy(), state["std"].numpy(), state["clip"]),
            tuple(state["features"]),
            None if kept is None else Encoding.from_state(kept),
            dict(state["reading"]),
            None if state["bins"] is None else tuple(tuple(edges) for edges in state["bins"]),
            None if state["ranges"] is None else state["ranges"].numpy(),
        )
