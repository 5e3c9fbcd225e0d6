"""What a comparison says in sentences: whether anything is better than the baseline, by how much, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.compared import references_of
from bmtl.evaluation.report.ranking import Headline
from bmtl.evaluation.report.runs import Reading
from bmtl.evaluation.text_tables import entry

MOST_NAMES = 8  # written out


@dataclass(frozen=True)
class Called:
    """What the parts of a comparison are called.

    Attributes:
        baseline: The baseline, such as "single-task networks (stl)".
        method: One of what is compared, such as "multi-task method".
    """

    baseline: str = ""
    method: str = "method"


def called(reading: Reading) -> Called:
    """Names by what the runs record: a baseline with a network for each target is "single-task networks"."""
    single = {}
    for run in reading.runs:
        method = (run.about.get("configuration") or {}).get("method")
        single[run.method] = isinstance(method, dict) and bool(method.get("single_task"))
    baseline = decode_attributes(reading.scores).get("baseline")
    compared = [name for name in single if name not in (baseline, *references_of(reading.scores))]
    multi = single.get(baseline or "", False) and compared and not any(single[name] for name in compared)
    named = f"single-task networks ({baseline})" if single.get(baseline or "") else baseline or ""
    return Called(named, "multi-task method" if multi else "method")


def verdict(found: Headline, names: Called) -> list[str]:
    """Sentences on the best method, the main one first; what they claim is by 95 % intervals over the runs."""
    if found.leader is None:
        return ["No method has a mean that is a number: runs diverged, or there is nothing to rank by."]
    said = [_first(found, names)]
    if not found.repeats.decisive:
        few = "One run is" if found.repeats.runs == 1 else "Two runs are"
        return [*said, *_references(found), f"{few} too few to compare methods: run more seeds or splits."]
    said += _others(found)
    said += _references(found)
    said.append(found.repeats.interval())
    if found.repeats.runs < 6:
        said.append(f"With {found.repeats.runs} {found.repeats.nouns} intervals are rough.")
    return said


def _first(found: Headline, names: Called) -> str:
    leader = found.leader
    assert leader is not None
    repeats = found.repeats
    over = f" over {repeats.counted}" if repeats.runs > 1 else ""
    if found.baseline is None:
        value = f"{entry(found.mean[leader], found.error[leader])}{found.unit}"
        if len(found.methods) == 1 and not found.references:
            return f"There is one method, {leader}; {found.name}: {value}{over}."
        return f"{leader} has the lowest {found.name}: {value}{over}."
    where = f"in the mean over {found.targets} targets" if found.targets > 1 else "on the one target"
    if not repeats.decisive:
        runs = "In the only run" if repeats.runs == 1 else f"In the mean of {repeats.runs} {repeats.nouns}"
        first = "" if len(found.methods) == 1 else f", the first of {len(found.methods)} {names.method}s,"
        size = amount(found.mean[leader])
        return f"{runs} {leader}{first} is {size} {'as' if size == AS_GOOD else 'than'} {names.baseline} {where}."
    better = [name for name in found.methods if _clear(found, name) < 0]
    if better:
        name = better[0]
        interval = _interval(found, name)
        by = f"{amount(found.mean[name])} {where} (95 % interval {interval}{over})"
        return f"{name} is better than {names.baseline} here: {by}."
    interval = _interval(found, leader)
    alone = len(found.methods) == 1
    subject = f"{leader} is not" if alone else f"No {names.method} is"
    if _clear(found, leader) > 0:
        which = "it is" if alone else f"{leader} is closest,"
        by = f"{amount(found.mean[leader])} {where} (95 % interval {interval}{over})"
        return f"{subject} better than {names.baseline} here; {which} {by}."
    which = "it is" if alone else f"{leader} is first," if found.mean[leader] < 0 else f"{leader} is closest,"
    return (
        f"{subject} clearly better than {names.baseline} here; {which} {amount(found.mean[leader])} {where}, and the 95 % "
        f"interval{over}, {interval}, contains no difference."
    )


def _others(found: Headline) -> list[str]:
    """The other methods: better and worse than the baseline, or than the leader without one, and those that diverged."""
    said: list[str] = []
    rest = [name for name in found.methods if name != found.leader]
    diverged = [name for name in rest if not np.isfinite(found.mean[name])]
    rest = [name for name in rest if name not in diverged]
    if found.baseline is not None:
        clear = {name: _clear(found, name) for name in found.methods if name in rest or name == found.leader}
        better = [name for name, sign in clear.items() if sign < 0]
        worse = [name for name, sign in clear.items() if sign > 0 and name != found.leader]
        if better[1:]:
            said.append(f"Better too: {_amounts(found, better[1:])}.")
        clear_leader = found.methods[0]
        if better and better[0] != clear_leader:
            mean = amount(found.mean[clear_leader])
            said.append(f"{clear_leader} has a lower mean still ({mean}), but its interval contains 0.")
        if worse:
            said.append(f"Worse: {_amounts(found, worse)}.")
        undecided = [name for name in rest if not clear[name]]
        if undecided and (better or worse):
            said.append(f"Undecided: {_amounts(found, undecided)}.")
    else:
        worse = [name for name in rest if found.best and name not in found.best]
        alike = [name for name in rest if name not in worse]
        if worse:
            said.append(f"{listed(worse)} {_is(worse)} significantly worse (95 % paired interval).")
        if alike:
            said.append(f"{listed(alike)} {_is(alike)} not significantly worse (95 % paired interval).")
    if diverged:
        said.append(f"{listed(diverged)} diverged in at least one run.")
    return said


def _references(found: Headline) -> list[str]:
    """How references compare with the baseline; those that are better than every method come first, as a warning."""
    if found.baseline is None or found.leader is None:
        return []
    known = [name for name in found.references if np.isfinite(found.mean.get(name, np.nan))]
    ahead = [name for name in known if found.mean[name] < min(0.0, found.mean[found.leader])]
    said = []
    if ahead:
        said.append(f"But a reference is ahead of every method and of {found.baseline}: {_amounts(found, ahead)}.")
    behind = [name for name in known if name not in ahead]
    if behind:
        said.append(f"References against {found.baseline}: {_amounts(found, behind)}.")
    return said


AS_GOOD = "as good"


def amount(change: float) -> str:
    """A change in percent in words: "16 % worse", "2.5 % better"; "as good" where it rounds to nothing."""
    size = abs(change)
    text = f"{size:,.0f}" if size >= 10 else f"{size:.1f}"
    return AS_GOOD if text == "0.0" else f"{text} % {'better' if change < 0 else 'worse'}"


def listed(names: Sequence[str]) -> str:
    """Names with commas and "and"; of very many the first few."""
    if len(names) > MOST_NAMES:
        return f"{', '.join(names[: MOST_NAMES - 2])} and {len(names) - MOST_NAMES + 2} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _clear(found: Headline, name: str) -> int:
    """-1 where the interval is below 0, 1 where it is above, 0 where it holds 0 or is not known."""
    low, high = found.intervals.get(name, (-np.inf, np.inf))
    return -1 if high < 0 else 1 if low > 0 else 0


def _interval(found: Headline, name: str) -> str:
    """The ends in words, the smaller change first: "12 to 20 % worse", "4.8 % better to 0.7 % worse"."""
    if name not in found.intervals:
        return "unknown"
    low, high = (amount(end) for end in found.intervals[name])
    if low.endswith(("better", "worse")) and low.rpartition(" ")[2] == high.rpartition(" ")[2]:
        first, second = (low, high) if low.endswith("worse") else (high, low)
        return f"{first.removesuffix(' % worse').removesuffix(' % better')} to {second}"
    return f"{low} to {high}"


def _amounts(found: Headline, names: Sequence[str]) -> str:
    return listed([f"{name} ({amount(found.mean[name])})" for name in names])


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
