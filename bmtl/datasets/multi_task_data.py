"""Data sets as readers return them: inputs, several targets, and a split."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bmtl.datasets import checks
from bmtl.datasets.describing import kind_hints, target_line
from bmtl.datasets.input_kind import Inputs
from bmtl.datasets.peculiarities import peculiarities
from bmtl.datasets.table import Table
from bmtl.datasets.tables.column import tokens_of
from bmtl.datasets.tables.date_fields import DateOrder
from bmtl.datasets.tables.frames import raw_table
from bmtl.datasets.tables.kinds import KindLike, labels_of_numbers
from bmtl.datasets.tables.number_fields import Decimal
from bmtl.datasets.tables.roles import find_roles
from bmtl.datasets.tables.wide import TableOptions, decimals_of, labels_of, pieces_of_table
from bmtl.datasets.target_fitting import Scaling, check_scaling, checked_targets, fitted_rows, fitted_target, units_of
from bmtl.inputs import PerTask
from bmtl.targets import Family, LinearBaseline, Target


@dataclass(frozen=True, eq=False)
class MultiTaskData:
    """Inputs and labels in reported units, the split, and scalers fitted on the training rows.

    Models see scaled values (`tensors`); reports are in units, as ``data.targets[name].scaler`` has them. `from_arrays`
    builds one from your own arrays, `from_frame` from a pandas data frame.

    Args:
        name: Name of the data set in reports.
        inputs: Of N rows, such as a `Table`.
        targets: Name -> labels of the N rows, their family, unit and scaler.
        rows: Part (``"train"``, and usually ``"val"`` and ``"test"``) -> zero-based rows; no row is in two parts.
        citation: Source of the data.
        licence: Terms of use.
        scaling: Rows that the scalers were fitted on.
        num_splits: Number of fixed splits that the set comes with, of which `rows` is one; None if `rows` was drawn or
            is the only one.
        notes: What a reader left out or assumed, a sentence each.
        others: Families of the targets that `subset` left out.

    Raises:
        ValueError: If the pieces do not fit together; the message says which.
    """

    name: str
    inputs: Inputs = field(repr=False)
    targets: Mapping[str, Target] = field(repr=False)
    rows: Mapping[str, np.ndarray] = field(repr=False)
    citation: str = field(default="", repr=False)
    licence: str = field(default="", repr=False)
    scaling: Scaling = "train"
    num_splits: int | None = None
    notes: Sequence[str] = field(default=(), repr=False)
    others: Mapping[str, Family] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_scaling(self.scaling)
        labels = {name: (target.values, target.family) for name, target in self.targets.items()}
        checked = checked_targets(labels, len(self.inputs))
        targets = {
            name: replace(target, values=values)
            for (name, (values, _)), target in zip(checked.items(), self.targets.values(), strict=True)
        }
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "rows", checks.partition(self.rows, len(self.inputs)))
        object.__setattr__(self, "notes", tuple(self.notes))

    @classmethod
    def from_arrays(
        cls,
        name: str,
        x: ArrayLike | Inputs,
        y: Mapping[str, ArrayLike],
        rows: Mapping[str, ArrayLike],
        *,
        families: Mapping[str, KindLike] | None = None,
        units: str | Mapping[str, str] = "",
        clip: float | None = None,
        citation: str = "",
        licence: str = "",
        features: Sequence[str] = (),
        reading: Mapping[str, Any] | None = None,
        scaling: Scaling = "train",
        num_splits: int | None = None,
        baselines: Mapping[str, LinearBaseline] | None = None,
        notes: Sequence[str] = (),
    ) -> Self:
        """Fit the scalers, on the training rows by default, and put the pieces together.

        Args:
            name: Name of the data set in reports.
            x: Inputs of N rows: numbers ``(N, ...)``, which become a `Table`, or inputs of any kind.
            y: Target -> labels, rows first; NaN where missing, and -1 in integers of classes.
            rows: Part -> zero-based rows.
            families: Target -> a family, its name such as ``"count"``, or a number of classes; real by default.
            units: Target -> unit, or one unit for all targets without classes; ``"1"`` by default.
            clip: Bound of the scaled inputs, in standard deviations. Targets are never clipped.
            citation: Source of the data.
            licence: Terms of use.
            features: Names of the columns of `x`.
            reading: How files of new rows are read; see `Table`.
            scaling: Rows to fit the scalers on.
            num_splits: Number of fixed splits, of which `rows` is one.
            baselines: Target -> what is known of its labels beforehand, from numbers of the inputs by their names; it is
                subtracted before labels are scaled, and added back in units.
            notes: See the class.

        Raises:
            ValueError: If the pieces do not fit together, or a target has no label in the training rows.
        """
        numbers = x if isinstance(x, Inputs) else checks.inputs(x)
        parts = checks.partition(rows, len(numbers))
        checks.names_of_targets("families", families or {}, y)
        kinds = {**dict.fromkeys(y, "real"), **(families or {})}
        labels = {target: labels_of_numbers(target, np.asarray(y[target]), kinds[target]) for target in y}
        checked = checked_targets(labels, len(numbers))
        checks.names_of_targets("baselines", baselines or {}, y)
        unit = units_of(units, {target: family for target, (_, family) in checked.items()})
        if isinstance(numbers, Inputs):
            if clip is not None or features or reading:
                raise ValueError("clip, features and reading describe numbers (N, D); the inputs given have their own.")
            inputs = numbers
        else:
            on = fitted_rows(parts, scaling)
            inputs = Table.fit(numbers, on, clip=clip, features=features, reading=reading)
        known = baselines or {}
        offsets = {target: baseline.of(inputs.numbers(baseline.features)) for target, baseline in known.items()}
        targets = {
            target: fitted_target(
                target, values, family, unit.get(target) or "1", parts, scaling, known.get(target), offsets.get(target)
            )
            for target, (values, family) in checked.items()
        }
        return cls(name, inputs, targets, parts, citation, licence, scaling, num_splits, notes)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        targets: str | Sequence[str] = (),
        name: str = "frame",
        ignore: str | Sequence[str] = (),
        split: str | None = None,
        groups: str | None = None,
        kinds: KindLike | Mapping[str, KindLike] | None = None,
        units: str | Mapping[str, str] = "",
        events: Mapping[str, str] | None = None,
        vectors: Mapping[str, str | Sequence[str]] | None = None,
        missing: str | float | Sequence[str | float] = (),
        decimal: Decimal | None = None,
        dates: DateOrder | None = None,
        proportion: float | None = None,
        validation: float = 0.2,
        validation_from: Literal["train", "test"] = "train",
        seed: int = 0,
        scale: Scaling = "train",
        clip: float | None = 5.0,
    ) -> Self:
        """A pandas data frame, read as the reader ``csv:FILE`` reads a file; its options are described there.

        Kinds of features and targets follow from their columns: `describe_targets` and `describe_inputs` list them.
        Medians, categories and scales are fitted on the training rows.

        Args:
            frame: A row per datum. Its index names rows in messages and is not a column.
            targets: Columns of labels.
            name: Name of the data set in reports.
            ignore: Columns to leave out.
            split: Column of a fixed split.
            groups: Column of groups that a split must not divide.
            kinds: A kind of all targets, or column -> kind.
            units: Target -> unit, or one for all targets without classes.
            events: Target of times -> column that says whether its event was observed.
            vectors: Name -> columns that are one target.
            missing: Further fields that are a missing value.
            decimal: What separates decimals in columns of text.
            dates: Order of day and month in columns of text.
            proportion: Of the training rows, validation included, where a split is drawn.
            validation: Proportion that becomes the part ``"val"``.
            validation_from: Part that it comes from.
            seed: Seed of all random draws.
            scale: Rows to fit the scalers on.
            clip: Bound of the scaled features, in standard deviations.

        Raises:
            ValueError: If a field cannot be read or an option is wrong; names row, column and value, and what to do.
        """
        tokens = tokens_of(missing)
        table = raw_table(frame, missing=tokens)
        roles = find_roles(
            table,
            targets=targets,
            ignore=ignore,
            split=split,
            groups=groups,
            kinds=kinds,
            events=events,
            vectors=vectors,
        )
        options = TableOptions(
            units, decimal, dates, proportion, validation, validation_from, seed, scale, clip, {"missing": tokens}
        )
        decimals = decimals_of(table, roles, options)
        return cls(name=name, **pieces_of_table(table, labels_of(table, roles, decimals), roles, decimals, options))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The targets' names, in order."""
        return tuple(self.targets)

    @cached_property
    def one_label_a_row(self) -> bool:
        """Whether there are several targets and no row has a label for two, as where targets are domains or schools."""
        labels = np.zeros(len(self.inputs), dtype=np.int64)
        for target in self.targets.values():
            labels += target.labelled
        return len(self.targets) > 1 and int(labels.max()) == 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over inputs, labels, split and kind of scaling, equal on every platform."""
        digest = hashlib.sha256()
        pieces = list(self.inputs.pieces())
        pieces += [(f"y/{name}", target.values) for name, target in self.targets.items()]
        pieces += [(f"rows/{part}", rows) for part, rows in self.rows.items()]
        for label, array in pieces:
            plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            # Names and shapes too, so that no two tables run together to the same bytes.
            digest.update(f"{label}:{plain.dtype.str}:{plain.shape};".encode())
            digest.update(plain.tobytes())
        for name, target in self.targets.items():
            digest.update(f"family/{name}:{target.family.name};".encode())
        for name, target in self.targets.items():
            if target.baseline is not None:
                # To six digits: least squares are not the same to the last bit on every platform.
                numbers = [f"{number:.6g}" for number in (*target.baseline.coefficients, target.baseline.intercept)]
                digest.update(f"baseline/{name}:{target.baseline.features}:{numbers};".encode())
        if self.scaling != "train":  # models then see other numbers
            digest.update(f"scaling:{self.scaling};".encode())
        return digest.hexdigest()

    def tensors(
        self, part: str, dtype: torch.dtype = torch.float32, *, places: slice | np.ndarray | None = None
    ) -> tuple[Any, dict[str, Tensor]]:
        """Inputs and labels of one part, as a model sees them.

        Args:
            part: ``"train"``, ``"val"``, ``"test"``, or what the data set calls its parts.
            dtype: Type of floating-point tensors.
            places: Which of the part's rows, by their places in it; all by default.

        Returns:
            Inputs of B rows, and target -> labels, rows first: scaled floats with NaN where missing (``(B, 2)`` for
            intervals), or int64 with -1 where missing for classes.

        Raises:
            ValueError: If there is no such part.
        """
        rows = self._rows(part) if places is None else self._rows(part)[places]
        return self.inputs.tensors(rows, dtype), {name: self._labels(name, rows, dtype) for name in self.targets}

    def tensors_by_task(self, part: str, dtype: torch.dtype = torch.float32) -> tuple[PerTask, dict[str, Tensor]]:
        """Inputs and labels of one part, each task with its own rows: those that have a label for it.

        For models that take inputs per task, and for sets whose tasks have few rows in common, where `tensors` would
        be missing labels for the most part. A task without a label in this part is in neither.

        Args:
            part: ``"train"``, ``"val"``, ``"test"``, or what the data set calls its parts.
            dtype: Type of floating-point tensors.

        Returns:
            Inputs by task and task -> labels, rows first, in the order of `rows_by_task`; nothing is missing.

        Raises:
            ValueError: If there is no such part, or no task has a label in it.
        """
        by_task = self.rows_by_task(part)
        if not by_task:
            raise ValueError(f"No target of {self.name!r} has a label in the part {part!r}.")
        x = PerTask({name: self.inputs.tensors(rows, dtype) for name, rows in by_task.items()})
        return x, {name: self._labels(name, rows, dtype) for name, rows in by_task.items()}

    def rows_by_task(self, part: str) -> dict[str, np.ndarray]:
        """Task -> the rows of one part that have a label for it, if there are any.

        Raises:
            ValueError: If there is no such part.
        """
        rows = self._rows(part)
        by_task = {name: rows[self.has_label(name, part)] for name in self.targets}
        return {name: found for name, found in by_task.items() if len(found)}

    def has_label(self, task: str, part: str) -> np.ndarray:
        """Which rows of a part have a label for the task, bool, in the order of the part.

        Raises:
            ValueError: If there is no such part.
        """
        target = self.targets[task]
        return ~target.family.missing(target.values[self._rows(part)])

    def features(self, part: str) -> np.ndarray:
        """Numbers ``(B, D)`` as float64 for methods that take tables, such as those of scikit-learn.

        Scaled as models see them. Labels in reported units of the same rows: ``data.labels(part)``.

        Raises:
            ValueError: If there is no such part, or the kind of input has no numbers for such methods.
        """
        found = self.inputs.summary_features(self._rows(part))
        if found is None:
            raise ValueError(
                f"Inputs of the kind {self.inputs.kind!r} have no numbers (N, D) for methods that take tables."
            )
        return found

    def labels(self, part: str) -> dict[str, np.ndarray]:
        """Target -> labels of one part in reported units, as its family has them.

        Raises:
            ValueError: If there is no such part.
        """
        rows = self._rows(part)
        return {name: target.values[rows] for name, target in self.targets.items()}

    def data_warnings(self) -> list[str]:
        """Peculiarities, a sentence each: targets that can teach nothing, features made from a target, copied test rows."""
        return peculiarities(self.inputs, self.targets, self.rows)

    def describe_targets(self) -> list[str]:
        """One line per target: family, unit, number of labels, and classes or range."""
        return [target_line(name, target, self.rows) for name, target in self.targets.items()]

    def kind_hints(self) -> list[str]:
        """What targets may rather be than what they were taken as, a sentence each kind; for readers that take `kinds`."""
        return kind_hints(self.targets, self.rows)

    def describe_inputs(self) -> list[str]:
        """A description of the inputs and how they were read, in lines."""
        return [*self.inputs.lines(), *self.notes]

    def subset(self, tasks: Sequence[str]) -> Self:
        """The same rows with these targets only, in the order given.

        Raises:
            ValueError: If a name is unknown or repeated, or none is given.
        """
        if isinstance(tasks, str):
            raise ValueError(f"tasks is a sequence of names; got the string {tasks!r}. Write [{tasks!r}].")
        checks.names_among(tasks, self.tasks)
        left_out = {name: target.family for name, target in self.targets.items() if name not in tasks}
        return self._with(targets={name: self.targets[name] for name in tasks}, others={**self.others, **left_out})

    def with_share_of_labels(self, share: float, *, seed: int = 0, parts: Sequence[str] = ("train", "val")) -> Self:
        """The same data with a random share of the labels, as where each label costs a measurement.

        Which rows keep their label is drawn for each target and part separately; of n labels ``round(share * n)`` stay, one
        at least. Scalers and fitted baselines are fitted again, and other parts keep all their labels.

        Args:
            share: Above 0, and 1 at most.
            seed: Of what is drawn.
            parts: Parts that lose labels.

        Raises:
            ValueError: If the share is out of range or there is no such part.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}; expected more than 0 and 1 at most.")
        generator = np.random.default_rng(seed)
        targets = {}
        for name, target in self.targets.items():
            values = target.values.copy()
            for part in parts:
                there = self._rows(part)[self.has_label(name, part)]
                kept = max(round(share * len(there)), 1)
                values[generator.permutation(there)[kept:]] = -1 if values.dtype.kind == "i" else np.nan
            values = target.family.check(name, values, len(values))
            baseline, offset = self._baseline(target, values)
            targets[name] = fitted_target(
                name, values, target.family, target.unit, self.rows, self.scaling, baseline, offset
            )
        return self._with(targets=targets)

    def _baseline(self, target: Target, values: np.ndarray) -> tuple[LinearBaseline | None, np.ndarray | None]:
        """A target's baseline with other labels, and the baseline of each label."""
        if target.baseline is None or not target.baseline.fitted:
            return target.baseline, target.offset
        train, features = self.rows["train"], target.baseline.features
        numbers = self.inputs.numbers(features)
        baseline = LinearBaseline.fit(features, numbers[train], values[train])
        return baseline, baseline.of(numbers)

    def labelled(self) -> Self:
        """The same data without rows that have no label for any target, as ``data.subset([task])`` may leave many.

        Scalers stay unchanged. A part without a label vanishes.
        """
        found = np.zeros(len(self.inputs), dtype=bool)
        for target in self.targets.values():
            found |= target.labelled
        rows = {part: kept for part, rows in self.rows.items() if len(kept := rows[found[rows]])}
        return self._with(rows=rows)

    def _with(self, **pieces: Any) -> Self:
        """The same with pieces of what was checked already: a thousand tasks are not checked a thousand times."""
        new = copy.copy(self)
        for cached in ("fingerprint", "one_label_a_row"):
            new.__dict__.pop(cached, None)
        for name, piece in pieces.items():
            object.__setattr__(new, name, piece)
        return new

    def _rows(self, part: str) -> np.ndarray:
        if part not in self.rows:
            raise ValueError(f"The data set {self.name!r} has no part {part!r}; its parts are: {', '.join(self.rows)}.")
        return self.rows[part]

    def _labels(self, name: str, rows: np.ndarray, dtype: torch.dtype) -> Tensor:
        values = self.targets[name].scaled(rows)
        return torch.as_tensor(values, dtype=dtype if values.dtype.kind == "f" else torch.int64)
