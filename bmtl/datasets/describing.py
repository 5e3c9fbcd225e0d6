"""Targets and their families in words, to be printed before training."""

from collections.abc import Mapping, Sequence

import numpy as np

from bmtl.datasets.tables.doubts import counts_rows, doubt_about_text, marker
from bmtl.targets import Family, Target

_MOST_NAMES = 6
_LEAST = 20
_SKEWED = 1.5
"""Mean over standard deviation below which a normal distribution has 7 % and more below 0."""


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
    summary = target.family.summary(values)
    return ", ".join([*said, summary] if summary else said)


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
            f"{first_names(whole)}: whole numbers, taken as real. If they are counts or grades, say so with "
            f"kinds={name}:count or kinds={name}:ordinal."
        )
    two = [name for name, target in targets.items() if _may_be_classes(target.family, labels[name])]
    if two:
        found.append(
            f"{first_names(two)}: 0 or 1, taken as real. If they are classes, say so with kinds={two[0]}:binary."
        )
    skewed = [
        n for n, target in targets.items() if n not in whole and _all_positive_and_skewed(target.family, labels[n])
    ]
    if skewed:
        found.append(
            f"{first_names(skewed)}: all labels are above 0, and most are small: predictions may be negative. If ratios "
            "matter, give the logarithm as the target, or take it as a time, whose predictions are positive "
            f"(kinds={skewed[0]}:time-to-event)."
        )
    found += [hint for name, target in targets.items() if (hint := _doubt(name, target.family, labels[name]))]
    if observed:
        found.append(
            f"{first_names(observed)}: no time is censored. If a column says whether the event was observed, name it: "
            f"events={observed[0]}:COLUMN."
        )
    return found


def _doubt(name: str, family: Family, labels: np.ndarray) -> str:
    """What is peculiar about one target's labels, in a sentence; empty where nothing is."""
    if family.class_names:
        return doubt_about_text(name, family.class_names)
    if not family.scaled or labels.ndim != 1 or not len(labels):
        return ""
    if counts_rows(labels):
        return f"{name}: numbers the rows. Is it a target?"
    return marker(name, labels)


def _all_positive_and_skewed(family: Family, labels: np.ndarray) -> bool:
    """Whether a normal distribution with the mean and standard deviation of labels above 0 has much of its mass below."""
    numbers = family.scaled and labels.ndim == 1 and len(labels) >= _LEAST
    return numbers and bool(labels.min() > 0 and labels.mean() < _SKEWED * labels.std())


def _labels(target: Target, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    values = target.values[np.concatenate(list(rows.values()))]
    return values[~target.family.missing(values)]


def first_names(names: Sequence[str]) -> str:
    """Names in a sentence, of very many the first ones and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_MOST_NAMES])} and {more:,} more"


def _all_observed(family: Family, values: np.ndarray) -> bool:
    return family.of_events and len(values) > 0 and bool((values[:, 0] == values[:, 1]).all())


def _may_be_classes(family: Family, values: np.ndarray) -> bool:
    return family.scaled and values.ndim == 1 and set(np.unique(values).tolist()) == {0.0, 1.0}


def _may_be_whole(family: Family, values: np.ndarray) -> bool:
    if not family.scaled or values.ndim != 1 or not len(values) or not (values == np.floor(values)).all():
        return False
    return bool(values.min() >= 0) and 2 < len(np.unique(values)) <= 100
