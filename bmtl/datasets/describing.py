"""Targets and their families in words, to be printed before training."""

from collections.abc import Mapping, Sequence

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
    """One line: family, unit, number of labels, and classes or range.

    Args:
        name: Of the target.
        target: Its labels.
        rows: Part -> rows; only rows of a part count.
    """
    used = np.concatenate(list(rows.values()))
    values = _labels(target, rows)
    unit = f" [{target.unit}]" if target.unit not in ("", "1") else ""
    said = [f"{name}{unit}: {target.family.name}", f"{len(values):,} labels of {len(used):,} rows"]
    classes = target.family.class_names
    if classes:
        said.append(_classes(classes, values, target.family.name))
    elif components := getattr(target.family, "components", ()):
        said.append(f"components {', '.join(components)}")
    elif values.ndim <= 2 and len(values):
        said.append(_range(values))
    return ", ".join(said)


def kind_hints(targets: Mapping[str, Target], rows: Mapping[str, np.ndarray]) -> list[str]:
    """What targets may rather be, or lack, one sentence for all that are alike.

    Args:
        targets: By name.
        rows: Part -> rows; only rows of a part count.
    """
    labels = {name: _labels(target, rows) for name, target in targets.items()}
    whole = [name for name, target in targets.items() if _may_be_whole(target.family, labels[name])]
    observed = [name for name, target in targets.items() if _all_observed(target.family, labels[name])]
    found = []
    if whole:
        name = whole[0]
        found.append(
            f"{_names(whole)}: whole numbers, taken as real. If they are counts or grades, say so with "
            f"kinds={name}:count or kinds={name}:ordinal."
        )
    if observed:
        found.append(
            f"{_names(observed)}: no time is censored. If a column says whether the event was observed, name it: "
            f"events={observed[0]}:COLUMN."
        )
    return found


def _labels(target: Target, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    values = target.values[np.concatenate(list(rows.values()))]
    return values[~target.family.missing(values)]


def _names(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_MOST_NAMES])} and {more:,} more"


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


def _all_observed(family: Family, values: np.ndarray) -> bool:
    return family.of_events and len(values) > 0 and bool((values[:, 0] == values[:, 1]).all())


def _may_be_whole(family: Family, values: np.ndarray) -> bool:
    if not family.scaled or values.ndim != 1 or not len(values) or not (values == np.floor(values)).all():
        return False
    return bool(values.min() >= 0) and len(np.unique(values)) <= 100
