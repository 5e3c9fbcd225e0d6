"""Columns of a table as labels: their family, found by stated rules or given, and their values.

| fields that are not missing | kind |
|---|---|
| numbers | real; binary if all are 0 or 1; real and censored if some carry a mark (``<3``, ``>10``) |
| text | binary if there are two, classes if there are more, in alphabetical order; yes, true, positive and the like
come second |

A column of numbers with any other text in it is an error that names the field, whatever there is more of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bmtl.datasets.tables.column import AS_MISSING, Column, number_text
from bmtl.datasets.tables.command_line import option
from bmtl.datasets.tables.doubts import doubt_about_text
from bmtl.datasets.tables.features import too_many
from bmtl.datasets.tables.kinds import Kind, KindLike, index_of_classes, of_classes, parse_kind
from bmtl.datasets.tables.number_fields import NumberStyle, parse_all, parse_label
from bmtl.targets import Binary, Classes, Family, Ordinal, Real, TimeToEvent, Vector

Style = Callable[[Column, str], NumberStyle | None]
"""How a column's numbers are written; see `bmtl.datasets.tables.number_fields.Decimals.style`."""

_EVENTS = {"yes", "y", "ja", "oui", "sí", "si", "sì", "sim"}  # in several languages
_EVENTS |= {"true", "t", "1", "positive", "pos", "+", "active", "event", "dead", "died", "present", "case"}
_NO_EVENTS = {"no", "n", "nein", "nej", "nee", "non", "não"}
_NO_EVENTS |= {"false", "f", "0", "negative", "neg", "inactive", "censored", "alive", "absent", "control"}


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one target.

    Attributes:
        values: As `Family.check` returns them.
        family: The target's family.
        unit: ``"%"`` where the fields have a percent sign, else empty.
        inferred: Whether the family was found from the fields.
    """

    values: np.ndarray
    family: Family
    unit: str = ""
    inferred: bool = True


def read_labels(target: str, column: Column, kind: KindLike | None, style: Style) -> Labels:
    """A column as labels.

    Args:
        target: Its name.
        column: The fields.
        kind: See `bmtl.datasets.tables.kinds`; None finds it by the rules of the module.
        style: How numbers are written.

    Raises:
        ValueError: If a field cannot be read, names file, row, column and value; or if all labels are missing or of one
            class, text differs from row to row, or levels in no natural order are given no order.
    """
    if column.missing.all():
        raise ValueError(
            f"Target {target!r} has no label: the column {column.name!r} of {column.origin.source} is empty."
        )
    parsed = None if kind is None else parse_kind(target, kind)
    if parsed is not None and not parsed.family.in_one_column:
        raise ValueError(
            f"A target of the kind {parsed.family.name} is no single column; got the column {column.name!r} for "
            f"{target!r}. Name the columns of a vector: vectors={target}:u+v."
        )
    if parsed is not None and parsed.indexed and parsed.classes:
        return _of_classes(target, column, parsed, style)
    as_text = parsed is not None and parsed.indexed
    mixed = (
        f"Correct it, mark it as missing ({AS_MISSING}), or take the column as classes "
        f"({option('kinds', 'classes', of=target)})."
        if parsed is None
        else f"Correct it, or mark it as missing ({AS_MISSING}); the target {target!r} is of the kind {parsed.family.name}."
    )
    numbers = _style_if_numbers(column, style) if as_text else style(column, mixed)
    if numbers is None and parsed is not None and not parsed.indexed:
        row, text = next(column.present())
        raise ValueError(f"{column.at(row)}: {text!r} is no number. {mixed}")
    if parsed is not None and parsed.indexed:
        return replace(_distinct(target, column, numbers, parsed.family), inferred=False)
    if numbers is None:
        return _distinct(target, column, None, None)
    return _of_numbers(target, column, parsed, numbers, mixed)


def _style_if_numbers(column: Column, style: Style) -> NumberStyle | None:
    """How the numbers are written; None where any field is none."""
    try:
        return style(column, "")
    except ValueError:
        return None


def _of_numbers(target: str, column: Column, parsed: Kind | None, style: NumberStyle, mixed: str) -> Labels:
    unit = "%" if style.percent else ""
    intervals = _intervals(column, style, mixed)
    exact = (intervals[:, 0] == intervals[:, 1]) | np.isnan(intervals[:, 0])
    if parsed is None:
        family: Family = Real(censored=not exact.all())
        if set(np.unique(intervals[~np.isnan(intervals)]).tolist()) == {0.0, 1.0}:
            family = Binary()
    else:
        family = parsed.given or parsed.family()
        if not exact.all():
            family = family.with_intervals()
    lowest = family.intervals_from
    if lowest is None and not exact.all():
        row = int(np.argmin(exact))
        raise ValueError(
            f"{column.at(row)}: {column.as_texts()[row]!r} is known up to an interval only, and a target of the kind "
            f"{family.name} takes exact labels. {mixed}"
        )
    if lowest is None:
        values = intervals[:, 0]
    else:  # "<5" has no lower end of its own
        lower, upper = intervals.T
        values = np.stack([np.where(np.isneginf(lower), lowest, lower), upper], axis=1)
    return Labels(checked(target, column, values, family), family, unit, parsed is None)


def _intervals(column: Column, style: NumberStyle, mixed: str) -> np.ndarray:
    """Lower and upper ends ``(N, 2)``, NaN where missing."""
    if column.values is not None or not any(text[0] in "<>≤≥" for _, text in column.present()):
        return np.repeat(parse_all(column, style, mixed)[:, None], 2, axis=1)
    found = np.full((len(column), 2), np.nan)
    for row, text in column.present():
        interval = parse_label(text, style)
        if interval is None:
            raise ValueError(f"{column.at(row)}: {text!r} is no number. {mixed}")
        found[row] = interval
    return found


def checked(target: str, column: Column, values: np.ndarray, family: Family) -> np.ndarray:
    """`Family.check`, with the place in the file where it fails.

    Raises:
        ValueError: If a label is none of this family; names file, row, column and value.
    """
    try:
        return family.check(target, values, len(values))
    except ValueError as error:
        for row in range(len(values)):
            try:
                family.check(target, values[row : row + 1], 1)
            except ValueError:
                raise ValueError(f"{column.at(row)}: {column.as_texts()[row]!r}. {error}") from error
        raise


def _distinct(target: str, column: Column, numbers: NumberStyle | None, family: type[Family] | None) -> Labels:
    """Classes that are the texts, or the numbers, of the column."""
    texts = column.as_texts()
    values = np.empty(0) if numbers is None else parse_all(column, numbers, "")
    if (np.abs(values) > 2**53).any():  # identifiers: beyond it, whole numbers that differ may be one float64
        numbers = None
    if numbers is not None:
        texts = [None if np.isnan(value) else number_text(value) for value in values]
        found = [number_text(value) for value in np.unique(values[~np.isnan(values)])]
    else:
        found = sorted({text for text in texts if text is not None})
        ordered = [level for level in column.levels if level in found]
        if len(ordered) == len(found):
            found = ordered
        elif family is not None and family.ordered and not all(len(text) == 1 for text in found):
            levels = f"ordinal({','.join(found[:10])})"
            raise ValueError(
                f"Target {target!r} is ordinal, and the order of {', '.join(found[:10])} is not known. Give the levels "
                f"from the lowest: {option('kinds', levels, of=target)}."
            )
        _check_spelling(target, column, found)
    labelled = int((~column.missing).sum())
    if too_many(len(found), labelled):
        raise ValueError(
            f"Target {target!r} has {len(found):,} different texts, such as {found[0]!r}, in {labelled:,} rows with a "
            "label, too many for classes. Leave the column out, or give its labels as numbers."
            + (f" {doubt}" if (doubt := doubt_about_text(target, found)) else "")
        )
    if len(found) < 2:
        raise ValueError(
            f"Target {target!r} has the one label {found[0]!r} in the column {column.name!r} of "
            f"{column.origin.source}. Leave it out, or name its classes "
            f"({option('kinds', f'binary({found[0]},other)', of=target)})."
        )
    if family is None:
        # pandas' ordered categories say that there is an order.
        family = Ordinal if column.levels and len(found) > 2 else Binary if len(found) == 2 else Classes
    if len(found) == 2 and not column.levels and numbers is None:
        found = _event_last(found)
    return Labels(index_of_classes(target, texts, found), of_classes(family, found))


def _check_spelling(target: str, column: Column, classes: Sequence[str]) -> None:
    """Refuse classes that differ in case alone; naming the classes allows them."""
    first: dict[str, str] = {}
    for name in classes:
        other = first.setdefault(name.casefold(), name)
        if other != name:
            row = next(row for row, text in column.present() if text == name)
            raise ValueError(
                f"{column.at(row)}: {name!r} and {other!r} differ in case alone. Write them alike, or name the classes of "
                f"target {target!r}: -d 'kinds={target}:classes({','.join(classes)})'."
            )


def _event_last(found: list[str]) -> list[str]:
    """Two classes in the order in which the second is the event."""
    first, second = (text.lower() for text in found)
    if first in _EVENTS and second not in _EVENTS:
        return found[::-1]
    if second in _NO_EVENTS and first not in _NO_EVENTS:
        return found[::-1]
    return found


def _of_classes(target: str, column: Column, kind: Kind, style: Style) -> Labels:
    """Classes that were named."""
    assert kind.given is not None
    texts = column.as_texts()
    numbers = _style_if_numbers(column, style)
    if column.texts is not None and numbers is not None and not set(texts) - {None} <= set(kind.classes):
        values = parse_all(column, numbers, "")  # "1.0" is the class "1"
        texts = [None if np.isnan(value) else number_text(value) for value in values]
    for row, text in enumerate(texts):
        if text is not None and text not in kind.classes:
            raise ValueError(
                f"{column.at(row)}: {text!r} is none of the classes {', '.join(kind.classes)} of target {target!r}."
            )
    return Labels(index_of_classes(target, texts, kind.classes), kind.given, inferred=False)


def with_common_classes(labels: dict[str, Labels]) -> dict[str, Labels]:
    """Targets whose found classes overlap, with the classes of all of them, so that a number means the same in each."""
    groups: list[tuple[list[str], list[str]]] = []  # names of targets, names of their classes
    for target, own in labels.items():
        classes = list(own.family.class_names)
        if not own.inferred or not classes:
            continue
        touched = [group for group in groups if set(group[1]) & set(classes)]
        groups = [group for group in groups if group not in touched]
        targets = [name for group in touched for name in group[0]]
        groups.append(([*targets, target], sorted({c for group in touched for c in group[1]} | set(classes))))
    common = dict(labels)
    for targets, classes in groups:
        if len({labels[target].family for target in targets}) < 2:
            continue
        if all(map(str.isdecimal, classes)):
            classes = sorted(classes, key=int)
        for target in targets:
            own = labels[target]
            names = own.family.class_names
            texts = [None if index < 0 else names[index] for index in own.values.tolist()]
            family = Binary if len(classes) == 2 else Classes
            common[target] = replace(
                own, values=index_of_classes(target, texts, classes), family=family(tuple(classes))
            )
    return common


def survival(target: str, times: Column, events: Column, style: Style) -> Labels:
    """Times to an event from two columns: the time, and whether the event was observed then.

    Args:
        target: Its name.
        times: Numbers above 0.
        events: 1, yes or true: the event was observed at that time; 0, no or false: it had not happened by then. A row
            with a time and without this is an error.
        style: How numbers are written.

    Returns:
        Intervals ``(N, 2)``: equal ends if observed, an infinite upper end if not.

    Raises:
        ValueError: If a field cannot be read; names file, row, column and value.
    """
    exact = read_labels(target, times, "time-to-event", style)
    intervals = np.array(exact.values)
    texts = events.as_texts()
    for row in np.flatnonzero(~times.missing).tolist():
        text = (texts[row] or "").lower().removesuffix(".0")
        if text not in _EVENTS | _NO_EVENTS:
            raise ValueError(
                f"{events.at(row)}: {texts[row] or ''!r} does not say whether the event of target {target!r} was "
                "observed. Give 1 (yes, true) or 0 (no, false: the event had not happened by that time)."
            )
        if text in _NO_EVENTS:
            intervals[row, 1] = np.inf
    family = TimeToEvent()
    return Labels(checked(target, times, intervals, family), family, exact.unit, inferred=False)


def vector(target: str, columns: Sequence[Column], style: Style) -> Labels:
    """Several columns of numbers as one target, of which a row may lack some.

    Raises:
        ValueError: If there is one column only, or a field is not a number.
    """
    mixed = f"The target {target!r} is a vector of numbers: correct it, or mark it as missing ({AS_MISSING})."
    numbers = [parse_all(column, style(column, mixed) or NumberStyle(), mixed) for column in columns]
    family = Vector(tuple(column.name for column in columns))
    return Labels(family.check(target, np.stack(numbers, axis=1), len(columns[0])), family, inferred=False)
