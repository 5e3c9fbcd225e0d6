"""What a reader returns: one table of inputs, several targets, a fixed split."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bmtl.datasets import checks
from bmtl.datasets.scaler import Scaler

Kind = Literal["regression"] | int


@dataclass(frozen=True, eq=False)
class MultiTaskData:
    """Raw values in reported units, the split, and scalers fitted on the training rows.

    Models see scaled values (`tensors`); reports are in units (``data.y_scalers[task].inverse``). `from_arrays` builds
    one from your own arrays and fits the scalers.

    Args:
        name: What reports call the data set.
        x: Inputs ``(N, ...)``, usually ``(N, D)``, finite.
        y: Target name -> raw values ``(N,)``; a missing label is NaN, or -1 in an integer array of classes.
        kinds: Target name -> ``"regression"``, or the number of classes.
        units: Target name -> unit, for every regression target.
        rows: Part (``"train"``, and usually ``"val"`` and ``"test"``) -> zero-based rows; no row is in two parts.
        x_scaler: For `x`.
        y_scalers: Target name -> scaler, for every regression target.
        citation: Where the data come from.
        licence: Under which terms.

    Raises:
        ValueError: If the pieces do not fit together; the message says which.
    """

    name: str
    x: np.ndarray = field(repr=False)
    y: Mapping[str, np.ndarray] = field(repr=False)
    kinds: Mapping[str, Kind]
    units: Mapping[str, str]
    rows: Mapping[str, np.ndarray] = field(repr=False)
    x_scaler: Scaler = field(repr=False)
    y_scalers: Mapping[str, Scaler] = field(repr=False)
    citation: str = field(default="", repr=False)
    licence: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        x = checks.inputs(self.x)
        if not self.y:
            raise ValueError(f"The data set {self.name!r} has no target. Give y as a mapping name -> values (N,).")
        checks.same_keys("kinds", self.kinds, self.y)
        y = {task: checks.target(task, values, self.kinds[task], len(x)) for task, values in self.y.items()}
        regressions = [task for task, kind in self.kinds.items() if kind == "regression"]
        checks.same_keys("y_scalers", self.y_scalers, regressions)
        checks.same_keys(
            "units", [task for task in self.units if self.kinds.get(task) in (None, "regression")], regressions
        )
        checks.scaler_shape(self.x_scaler, x)
        # Read-only copies: the fingerprint stays true of what is held.
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "rows", checks.partition(self.rows, len(x)))
        for mapping in ("kinds", "units", "y_scalers"):
            object.__setattr__(self, mapping, dict(getattr(self, mapping)))

    @classmethod
    def from_arrays(
        cls,
        name: str,
        x: ArrayLike,
        y: Mapping[str, ArrayLike],
        rows: Mapping[str, ArrayLike],
        *,
        kinds: Mapping[str, Kind] | None = None,
        units: Mapping[str, str] | None = None,
        clip: float | None = None,
        citation: str = "",
        licence: str = "",
    ) -> Self:
        """Fit the scalers on the training rows and put the pieces together.

        Args:
            name: What reports call the data set.
            x: Inputs ``(N, ...)``.
            y: Target name -> raw values ``(N,)``.
            rows: Part -> zero-based rows.
            kinds: Target name -> number of classes; what is not named is a regression.
            units: Target name -> unit; what is not named has the unit ``"1"``.
            clip: Bound of the scaled inputs, in standard deviations. Targets are never clipped.
            citation: Where the data come from.
            licence: Under which terms.

        Raises:
            ValueError: If the pieces do not fit together, or a target has no label in the training rows.
        """
        features = checks.inputs(x)
        parts = checks.partition(rows, len(features))
        every_kind: dict[str, Kind] = {**dict.fromkeys(y, "regression"), **(kinds or {})}
        checks.same_keys("kinds", every_kind, y)
        targets = {task: checks.target(task, values, every_kind[task], len(features)) for task, values in y.items()}
        scalers = {}
        for task, values in targets.items():
            labels = values[parts["train"]]
            if not checks.labelled(labels).any():
                raise ValueError(f"Target {task!r} has no label in the {len(labels)} training rows. Leave it out.")
            if every_kind[task] == "regression":
                scalers[task] = Scaler.fit(labels)
        return cls(
            name=name,
            x=features,
            y=targets,
            kinds=every_kind,
            units={**dict.fromkeys(scalers, "1"), **(units or {})},
            rows=parts,
            x_scaler=Scaler.fit(features[parts["train"]], clip=clip),
            y_scalers=scalers,
            citation=citation,
            licence=licence,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The targets' names, in order."""
        return tuple(self.y)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the bytes of inputs, targets and split: equal on every platform, new for any new value."""
        digest = hashlib.sha256()
        pieces = [("x", self.x)]
        pieces += [(f"y/{task}", values) for task, values in self.y.items()]
        pieces += [(f"rows/{part}", rows) for part, rows in self.rows.items()]
        for label, array in pieces:
            plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            # Names and shapes too, so that no two tables run together to the same bytes.
            digest.update(f"{label}:{plain.dtype.str}:{plain.shape};".encode())
            digest.update(plain.tobytes())
        return digest.hexdigest()

    def tensors(self, part: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, dict[str, Tensor]]:
        """Scaled inputs and targets of one part, as a model sees them.

        Args:
            part: ``"train"``, ``"val"``, ``"test"``, or what the data set calls its parts.
            dtype: Of inputs and regression targets.

        Returns:
            Inputs ``(B, ...)`` and target name -> ``(B,)``: standardised with NaN where missing for a regression, int64
            with -1 where missing for classes.

        Raises:
            ValueError: If there is no such part.
        """
        if part not in self.rows:
            raise ValueError(f"The data set {self.name!r} has no part {part!r}; its parts are: {', '.join(self.rows)}.")
        rows = self.rows[part]
        y = {}
        for task, values in self.y.items():
            if self.kinds[task] == "regression":
                y[task] = torch.as_tensor(self.y_scalers[task].transform(values[rows]), dtype=dtype)
            else:
                y[task] = torch.as_tensor(values[rows])  # (B,), int64
        return torch.as_tensor(self.x_scaler.transform(self.x[rows]), dtype=dtype), y

    def subset(self, tasks: Sequence[str]) -> Self:
        """The same rows with these targets only, in the order given.

        Raises:
            ValueError: If a name is unknown or repeated, or none is given.
        """
        if isinstance(tasks, str):
            raise ValueError(f"tasks is a sequence of names; got the string {tasks!r}. Write [{tasks!r}].")
        checks.names_among(tasks, self.tasks)
        pick: dict[str, Any] = {
            mapping: {task: getattr(self, mapping)[task] for task in tasks if task in getattr(self, mapping)}
            for mapping in ("y", "kinds", "units", "y_scalers")
        }
        return replace(self, **pick)
