"""A table with named columns as the pieces of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from bmtl.datasets.table import Table
from bmtl.datasets.tables.column import PARTS, Column, RawTable, spelled
from bmtl.datasets.tables.date_fields import DateOrder, order_of
from bmtl.datasets.tables.features import Encoding, fit_features
from bmtl.datasets.tables.kinds import KindLike, parse_kind
from bmtl.datasets.tables.labels import Labels, read_labels, survival, vector
from bmtl.datasets.tables.number_fields import Decimal, Decimals
from bmtl.datasets.tables.roles import Roles
from bmtl.datasets.target_fitting import Scaling, checked_targets, fitted_rows, fitted_target, parts_of, units_of
from bmtl.targets import Family, TimeToEvent, Vector


@dataclass(frozen=True)
class TableOptions:
    """How a table becomes a data set; each as the option of `csv_tables.read` of that name.

    Attributes:
        units: Target -> unit, or one for all targets without classes.
        decimal: What separates decimals, where it is known.
        dates: Order of day and month, where it is known.
        proportion: Of the training rows where a split is drawn.
        validation: Proportion that becomes validation rows.
        validation_from: Part that they come from.
        seed: Seed of all random draws.
        scale: Rows to fit the scalers on.
        clip: Bound of the scaled features.
        reading: Options of `read_table`, kept for files of new rows.
    """

    units: str | Mapping[str, str] = ""
    decimal: Decimal | None = None
    dates: DateOrder | None = None
    proportion: float | None = None
    validation: float = 0.2
    validation_from: Literal["train", "test"] = "train"
    seed: int = 0
    scale: Scaling = "train"
    clip: float | None = 5.0
    reading: Mapping[str, Any] = field(default_factory=dict)


def decimals_of(table: RawTable, roles: Roles, options: TableOptions) -> Decimals:
    """How the numbers of a table are written, with its features and labels as evidence."""
    names = (*roles.features, *roles.label_columns)
    return Decimals([table.columns[name] for name in names], options.decimal, table.delimiter)


def labels_of(table: RawTable, roles: Roles, decimals: Decimals) -> dict[str, Labels]:
    """Labels of each target of a table.

    Raises:
        ValueError: If a field cannot be read; names file, row, column and value.
    """
    found: dict[str, Labels] = {}
    for target, columns in roles.targets.items():
        own = [table.columns[name] for name in columns]
        kind = roles.target_kinds.get(target)
        if target in roles.events:
            _check_kind(target, kind, TimeToEvent, "events")
            event = table.columns[roles.events[target]]
            found[target] = survival(target, own[0], event, decimals.style)
        elif len(own) > 1:
            _check_kind(target, kind, Vector, "vectors")
            found[target] = vector(target, own, decimals.style)
        else:
            found[target] = read_labels(target, own[0], kind, decimals.style)
    return found


def _check_kind(target: str, kind: KindLike | None, family: type[Family], option: str) -> None:
    if kind is not None and parse_kind(target, kind).family is not family:
        raise ValueError(
            f"{option} names {target!r}, whose kind is given as {kind!r}; such a target is of the kind {family.name}."
        )


def pieces_of_table(
    table: RawTable, labels: Mapping[str, Labels], roles: Roles, decimals: Decimals, options: TableOptions
) -> dict[str, Any]:
    """Inputs, targets, rows, scaling and notes of `MultiTaskData`.

    Args:
        table: All rows.
        labels: Target -> labels of all rows.
        roles: What the columns are for.
        decimals: How numbers are written.
        options: How they become a data set.

    Raises:
        ValueError: If a field cannot be read, or an option is wrong; names file, row, column and value, and what to do.
    """
    checked = checked_targets({target: (own.values, own.family) for target, own in labels.items()}, len(table))
    rows = parts_of(
        checked,
        codes=None if roles.split is None else _split(table.columns[roles.split]),
        proportion=options.proportion,
        validation=options.validation,
        validation_from=options.validation_from,
        seed=options.seed,
        groups=None if roles.groups is None else _groups(table.columns[roles.groups]),
    )
    features, notes = fit_features(
        table,
        roles.features,
        rows["train"],
        kinds=roles.feature_kinds,
        style=decimals.style,
        order=lambda column: order_of(column, options.dates),
    )
    if not features:
        raise ValueError(f"No column of {table.source} has a value in the training rows besides the targets.")
    encoding = Encoding(tuple(features), dict(options.reading))
    inputs = Table.fit(
        encoding.transform(table),
        fitted_rows(rows, options.scale),
        clip=options.clip,
        features=encoding.names,
        encoding=encoding,
    )
    families = {target: family for target, (_, family) in checked.items()}
    of_fields = {target: own.unit for target, own in labels.items() if own.unit}
    units = options.units
    if not isinstance(units, str):
        units = {roles.renamed.get(spelled(name), name): text for name, text in units.items()}
    unit = of_fields | {target: text for target, text in units_of(units, families).items() if text}
    called = [
        f"{column}: the target is called {name}, since files keep slashes for groups."
        for column, name in roles.renamed.items()
    ]
    return {
        "inputs": inputs,
        "targets": {
            target: fitted_target(target, values, family, unit.get(target, "1"), rows, options.scale)
            for target, (values, family) in checked.items()
        },
        "rows": rows,
        "scaling": options.scale,
        "notes": (*table.notes, *notes, *called),
    }


def _groups(column: Column) -> np.ndarray:
    """Group of each row ``(N,)``; a row that names none is its own group."""
    texts = enumerate(column.as_texts())
    return np.array([f"row {row}" if text is None else f"group {text}" for row, text in texts])


def _split(column: Column) -> np.ndarray:
    """Part of each row ``(N,)`` as text, empty for none.

    Raises:
        ValueError: If a field is no part; names file, row, column and value.
    """
    codes = {"1": "train", "0": "test", "-1": "", "1.0": "train", "0.0": "test", "-1.0": ""}
    found = []
    for row, text in enumerate(column.as_texts()):
        key = (text or "").lower()
        if key not in PARTS and key not in codes and text is not None:
            raise ValueError(
                f"{column.at(row)}: {text!r} is no part of a split. Expected {', '.join(PARTS)} in any case, or 1 "
                "(training), 0 (test) and -1 (neither); empty is neither."
            )
        found.append(PARTS.get(key, codes.get(key, "")))
    return np.array(found)
