"""What a reader returns: one table of inputs, several targets, a fixed split."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bmtl.datasets import checks
from bmtl.targets.scaler import Scaler

Kind = Literal["regression"] | int

Scaling = Literal["train", "all", "none"]
"""Rows that scalers are fitted on. ``"all"``: those of every part, test rows included, as for some published tables; say so
where you report it. ``"none"``: inputs stay as they are, and regression targets are scaled as for ``"train"``."""


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
        classes: Target name -> names of its classes, where they have any.
        features: Names of the D columns of `x`, where they have any: by them new rows are put in order.
        scaling: Rows that the scalers were fitted on.
        num_splits: Number of fixed splits that the set comes with, of which `rows` is one; None if `rows` was drawn or
            is the only one.

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
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    features: Sequence[str] = field(default=(), repr=False)
    scaling: Scaling = "train"
    num_splits: int | None = None

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
        checks.class_names(self.classes, self.kinds)
        checks.feature_names(self.features, x)
        # Read-only copies: the fingerprint stays true of what is held.
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "rows", checks.partition(self.rows, len(x)))
        object.__setattr__(self, "classes", {task: tuple(names) for task, names in self.classes.items()})
        object.__setattr__(self, "features", tuple(self.features))
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
        classes: Mapping[str, Sequence[str]] | None = None,
        features: Sequence[str] = (),
        scaling: Scaling = "train",
        num_splits: int | None = None,
    ) -> Self:
        """Fit the scalers, on the training rows if nothing else is asked for, and put the pieces together.

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
            classes: Target name -> names of its classes.
            features: Names of the columns of `x`.
            scaling: Rows to fit the scalers on.
            num_splits: Number of fixed splits, of which `rows` is one.

        Raises:
            ValueError: If the pieces do not fit together, or a target has no label in the training rows.
        """
        inputs = checks.inputs(x)
        parts = checks.partition(rows, len(inputs))
        every_kind: dict[str, Kind] = {**dict.fromkeys(y, "regression"), **(kinds or {})}
        checks.same_keys("kinds", every_kind, y)
        targets = {task: checks.target(task, values, every_kind[task], len(inputs)) for task, values in y.items()}
        if scaling not in get_args(Scaling):
            raise ValueError(f"Scalers are fitted on {', '.join(map(repr, get_args(Scaling)))}; got {scaling!r}.")
        fitted = np.concatenate(list(parts.values())) if scaling == "all" else parts["train"]
        if scaling == "none":
            x_scaler = Scaler(np.zeros(()), np.ones(()), clip)
        else:
            x_scaler = Scaler.fit(inputs[fitted], clip=clip)
        scalers = {}
        for task, values in targets.items():
            labels = values[parts["train"]]
            if not checks.labelled(labels).any():
                raise ValueError(f"Target {task!r} has no label in the {len(labels)} training rows. Leave it out.")
            if every_kind[task] == "regression":
                scalers[task] = Scaler.fit(values[fitted])
        return cls(
            name=name,
            x=inputs,
            y=targets,
            kinds=every_kind,
            units={**dict.fromkeys(scalers, "1"), **(units or {})},
            rows=parts,
            x_scaler=x_scaler,
            y_scalers=scalers,
            citation=citation,
            licence=licence,
            classes=classes or {},
            features=features,
            scaling=scaling,
            num_splits=num_splits,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The targets' names, in order."""
        return tuple(self.y)

    @cached_property
    def one_label_a_row(self) -> bool:
        """Whether there are several targets and no row has a label for two: the targets are domains, schools, people."""
        labels = np.sum([checks.labelled(values) for values in self.y.values()], axis=0)  # (N,)
        return len(self.y) > 1 and int(labels.max()) == 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over inputs, targets, split and kind of scaling: equal on every platform, new for any new value."""
        digest = hashlib.sha256()
        pieces = [("x", self.x)]
        pieces += [(f"y/{task}", values) for task, values in self.y.items()]
        pieces += [(f"rows/{part}", rows) for part, rows in self.rows.items()]
        for label, array in pieces:
            plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            # Names and shapes too, so that no two tables run together to the same bytes.
            digest.update(f"{label}:{plain.dtype.str}:{plain.shape};".encode())
            digest.update(plain.tobytes())
        if self.scaling != "train":  # models then see other numbers
            digest.update(f"scaling:{self.scaling};".encode())
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
        rows = self._rows(part)
        return self._inputs(rows, dtype), {task: self._labels(task, rows, dtype) for task in self.y}

    def tensors_by_task(
        self, part: str, dtype: torch.dtype = torch.float32
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Scaled inputs and targets of one part, each task with its own rows: those that have a label for it.

        For models that take a mapping of inputs, and for sets whose tasks have few rows in common, where `tensors` would
        be missing labels for the most part. A task without a label in this part is in neither mapping.

        Args:
            part: ``"train"``, ``"val"``, ``"test"``, or what the data set calls its parts.
            dtype: Of inputs and regression targets.

        Returns:
            Task -> inputs ``(B_task, ...)`` and task -> labels ``(B_task,)``, in the order of `rows_by_task`; nothing is
            missing.

        Raises:
            ValueError: If there is no such part.
        """
        by_task = self.rows_by_task(part)
        x = {task: self._inputs(rows, dtype) for task, rows in by_task.items()}
        return x, {task: self._labels(task, rows, dtype) for task, rows in by_task.items()}

    def rows_by_task(self, part: str) -> dict[str, np.ndarray]:
        """Task -> the rows of one part that have a label for it, if there are any.

        Raises:
            ValueError: If there is no such part.
        """
        rows = self._rows(part)
        by_task = {task: rows[self.has_label(task, part)] for task in self.y}
        return {task: found for task, found in by_task.items() if len(found)}

    def has_label(self, task: str, part: str) -> np.ndarray:
        """Which rows of a part have a label for the task, bool, in the order of the part.

        Raises:
            ValueError: If there is no such part.
        """
        return checks.labelled(self.y[task][self._rows(part)])

    def data_warnings(self) -> list[str]:
        """What is odd about the training rows, a sentence each: targets of which there is nothing to learn."""
        found = []
        for task, rows in self.rows_by_task("train").items():
            values = self.y[task][rows]
            if len(values) > 1 and (values == values[0]).all():
                names = self.classes.get(task)
                value = f"{values[0]:g}" if names is None else repr(names[values[0]])
                found.append(f"The target {task!r} is {value} in all of its {len(values):,} training rows.")
        return found

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
            for mapping in ("y", "kinds", "units", "y_scalers", "classes")
        }
        return replace(self, **pick)

    def labelled(self) -> Self:
        """The same data without rows that have no label for any target, as ``data.subset([task])`` may leave many.

        Scalers stay as they are. A part without a label vanishes.
        """
        found = np.any([checks.labelled(values) for values in self.y.values()], axis=0)  # (N,)
        rows = {part: kept for part, rows in self.rows.items() if len(kept := rows[found[rows]])}
        return replace(self, rows=rows)

    def _rows(self, part: str) -> np.ndarray:
        if part not in self.rows:
            raise ValueError(f"The data set {self.name!r} has no part {part!r}; its parts are: {', '.join(self.rows)}.")
        return self.rows[part]

    def _inputs(self, rows: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(self.x_scaler.transform(self.x[rows]), dtype=dtype)

    def _labels(self, task: str, rows: np.ndarray, dtype: torch.dtype) -> Tensor:
        values = self.y[task][rows]
        if self.kinds[task] != "regression":
            return torch.as_tensor(values)  # (B,), int64
        return torch.as_tensor(self.y_scalers[task].transform(values), dtype=dtype)
