"""Targets and their families in words, to be printed before training."""

from collections.abc import Mapping

import numpy as np

from bmtl.targets import Family, Target

_MOST_NAMES = 6


def label_text(family: Family, label: np.ndarray) -> str:
    """One label for a message."""
    if label.ndim > 1:
        return "the same image"
    if family.class_names:
        name = family.class_names[int(label)]
        return name if name == str(int(label)) else repr(name)
    return f"{label:g}" if label.ndim == 0 else str(label.tolist())


def target_line(name: str, target: Target, rows: Mapping[str, np.ndarray]) -> str:
    """One line: family, unit, number of labels, and classes or range; with a hint where the kind is a guess.

    Args:
        name: Of the target.
        target: Its labels.
        rows: Part -> rows; only rows of a part count.
    """
    used = np.concatenate(list(rows.values()))
    values = target.values[used]
    values = values[~target.family.missing(values)]
    unit = f" [{target.unit}]" if target.unit not in ("", "1") else ""
    said = [f"{name}{unit}: {target.family.name}", f"{len(values):,} labels of {len(used):,} rows"]
    classes = target.family.class_names
    if classes:
        said.append(_classes(classes, values, target.family.name))
    elif components := getattr(target.family, "components", ()):
        said.append(f"components {', '.join(components)}")
    elif values.ndim <= 2 and len(values):
        said.append(_range(values))
    line = ", ".join(said)
    hint = _hint(name, target, values)
    return f"{line}. {hint}" if hint else line


def _classes(classes: tuple[str, ...], values: np.ndarray, family: str) -> str:
    if family == "binary" and len(values):
        return f"{np.mean(values == 1):.1%} {classes[1]!r} (the event) and the rest {classes[0]!r}"
    joint = " < " if family == "ordinal" else ", "
    shown = joint.join(classes[:_MOST_NAMES]) + (f"{joint}..." if len(classes) > _MOST_NAMES else "")
    return f"{len(classes)} classes {shown}"


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    text = f"{finite.min():g} to {finite.max():g}"
    if values.ndim == 2:
        text += f", {_censored(values) or 'none censored'}"
    return text


def _censored(intervals: np.ndarray) -> str:
    """How many labels are known up to an interval, by the end that is open."""
    lower, upper = intervals.T
    left, right = np.isneginf(lower), np.isposinf(upper)
    rest = (lower != upper) & ~left & ~right
    kinds = {"right-censored": right, "left-censored": left, "interval-censored": rest}
    return ", ".join(f"{int(found.sum()):,} {name}" for name, found in kinds.items() if found.any())


def _hint(name: str, target: Target, values: np.ndarray) -> str:
    """What a target may rather be, or lacks."""
    if target.family.of_events and len(values) and (values[:, 0] == values[:, 1]).all():
        return f"If a column says whether the event was observed, name it: events={name}:COLUMN."
    if not target.family.scaled or values.ndim != 1 or not len(values) or not (values == np.floor(values)).all():
        return ""
    if values.min() < 0 or len(np.unique(values)) > 100:
        return ""
    return f"Whole numbers: if they are counts or grades, say so with kinds={name}:count or kinds={name}:ordinal."
