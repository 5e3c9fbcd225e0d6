"""The first paragraph, on comparisons whose outcome is known."""

import numpy as np
import pytest

from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.report.ranking import Headline
from bmtl.evaluation.report.verdict import Called, amount, verdict

SINGLE = Called("single-task networks (stl)", "multi-task method")


def found(changes, *, runs=5, baseline="stl", width=1.0, references=(), targets=3, best=()):
    """A headline of methods by their mean change; intervals are as wide as given on either side."""
    intervals = {name: (mean - width, mean + width) for name, mean in changes.items() if np.isfinite(mean)}
    return Headline(
        "mean relative change against stl" if baseline else "mean rank over the targets",
        " %" if baseline else "",
        dict(changes),
        dict.fromkeys(changes, 0.5),
        list(best),
        Repeats(runs, 1, runs),
        targets,
        tuple(references),
        baseline,
        intervals if baseline and runs >= 3 else {},
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            found({"ew": 30.0, "igb-v1": 16.0, "uw": 20.0}, width=4),
            "No multi-task method is better than single-task networks (stl) here; igb-v1 is closest, 16 % worse in the mean "
            "over 3 targets (95 % interval 12 to 20 % worse over 5 seeds of one split).",
        ),
        (
            found({"ew": 3.0, "igb-v1": -8.0}, width=3),
            "igb-v1 is better than single-task networks (stl) here: 8.0 % better in the mean over 3 targets (95 % "
            "interval 5.0 to 11 % better over 5 seeds of one split).",
        ),
        (
            found({"ew": 3.0, "igb-v1": -1.0}, width=2),
            "No multi-task method is clearly better than single-task networks (stl) here; igb-v1 is first, 1.0 % better "
            "in the mean over 3 targets, and the 95 % interval over 5 seeds of one split, 3.0 % better to 1.0 % worse, "
            "contains no difference.",
        ),
        (
            found({"ew": 1.0}, width=2, targets=1),
            "ew is not clearly better than single-task networks (stl) here; it is 1.0 % worse on the one target, and the "
            "95 % interval over 5 seeds of one split, 1.0 % better to 3.0 % worse, contains no difference.",
        ),
        (
            found({"ew": -4.0, "uw": 2.0}, runs=1),
            "In the only run ew, the first of 2 multi-task methods, is 4.0 % better than single-task networks (stl) in the "
            "mean over 3 targets.",
        ),
        (
            found({"ew": np.nan}),
            "No method has a mean that is a number: runs diverged, or there is nothing to rank by.",
        ),
        (
            found({"ew": 1.2, "uw": 1.8}, baseline=None),
            "ew has the lowest mean rank over the targets: 1.20 ± 0.50 over 5 seeds of one split.",
        ),
    ],
    ids=["worse", "better", "tie", "one method", "one seed", "diverged", "no baseline"],
)
def test_the_first_sentence(given, words):
    assert verdict(given, SINGLE)[0] == words


def test_one_run_claims_nothing():
    said = " ".join(verdict(found({"ew": -40.0, "uw": -30.0}, runs=1), SINGLE))
    assert said.endswith("One run is too few to compare methods: run more seeds or splits.")
    assert "interval" not in said
    assert "Two runs are too few to compare methods" in verdict(found({"ew": -40.0}, runs=2), SINGLE)[-1]


def test_a_method_whose_interval_excludes_zero_leads_over_one_with_a_lower_mean():
    given = found({"noisy": -3.0, "steady": -2.0, "bad": 9.0, "open": 0.2})
    object.__setattr__(given, "intervals", {**given.intervals, "noisy": (-7.0, 1.0)})
    first, *rest = verdict(given, SINGLE)
    assert first.startswith("steady is better than single-task networks (stl) here: 2.0 % better")
    text = " ".join(rest)
    assert "noisy has a lower mean still (3.0 % better), but its interval contains 0." in text
    assert "Worse: bad (9.0 % worse)." in text
    assert "Undecided: open (0.2 % worse)." in text


def test_references_never_lead_and_one_that_is_ahead_is_said_to_be():
    given = found({"ew": 5.0, "uw": 7.0, "ridge": 12.0, "boosting": -9.0}, references=("ridge", "boosting"))
    first, *rest = verdict(given, SINGLE)
    assert "ew is closest, 5.0 % worse" in first
    assert "But a reference is ahead of every method and of stl: boosting (9.0 % better)." in rest
    assert "References against stl: ridge (12 % worse)." in rest


def test_diverged_methods_and_what_intervals_are_over():
    said = verdict(found({"ew": 5.0, "uw": np.nan}), SINGLE)
    assert "uw diverged in at least one run." in said
    assert said[-2:] == [
        "Intervals are over seeds and hold no variance of the data.",
        "With 5 seeds intervals are rough.",
    ]
    splits = found({"ew": 5.0})
    object.__setattr__(splits, "repeats", Repeats(8, 8, 8))
    assert verdict(splits, SINGLE)[-1] == "Intervals are over splits, which share rows, and are approximate."


@pytest.mark.parametrize(("change", "words"), [(0.01, "as good as"), (-3.0, "3.0 % better than")])
def test_few_runs_say_how_a_method_compares(change, words):
    said = verdict(found({"ew": change, "uw": 5.0}, runs=2), SINGLE)[0]
    assert f"ew, the first of 2 {SINGLE.method}s, is {words} {SINGLE.baseline}" in said


def test_without_a_baseline_marks_decide():
    said = verdict(found({"a": 1.0, "b": 1.1, "c": 2.9}, baseline=None, best=("a", "b")), Called())
    assert "c is significantly worse (95 % paired interval)." in said
    assert "b is not significantly worse (95 % paired interval)." in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (16.4, "16 % worse"),
        (-2.46, "2.5 % better"),
        (0.01, "as good"),
        (774.0, "774 % worse"),
        (1234.0, "1,234 % worse"),
    ],
)
def test_amounts(change, words):
    assert amount(change) == words
