"""Whether uncertainties predict errors, in words and numbers: what leaving out the least certain half of the rows gains."""

import numpy as np

from bmtl.evaluation.parts import scored
from bmtl.evaluation.report.markup import Cell, Markup, bullets, details, element, fragment, number, table
from bmtl.evaluation.report.shown import Trees, with_group
from bmtl.targets.metrics.selective import RiskOfTheSurer, risk_of_the_surer_half

LEAST_ROWS = 20  # below which half of them says nothing
CHANCE = 1.96


def usefulness(trees: Trees) -> Markup:
    """A sentence on each run's uncertainty, and the numbers by target; nothing where no run has uncertainties and losses."""
    found = {name: _by_target(trees, name) for name in with_group(trees, "uncertainty", "observed_data")}
    found = {name: of for name, of in found.items() if of}
    if not found:
        return Markup()
    rows = [
        [
            method,
            task,
            number(of.every),
            number(of.surer),
            _percent(_change(of.surer, of.every)),
            _percent(_change(of.ideal, of.every)),
            number(of.z),
            _verdict(of),
        ]
        for method, by_task in found.items()
        for task, of in by_task.items()
    ]
    sentences: dict[str, list[str]] = {}
    for name, of in found.items():
        sentences.setdefault(in_words(of), []).append(name)
    header = [
        "method",
        "target",
        "loss of all rows",
        "of the surer half",
        "change",
        "ideal change",
        "z ↑",
        "the order of rows",
    ]
    words = (
        "Mean loss of all test rows and of the half with the smaller uncertainty; the ideal is the half with the smaller "
        "losses. z: how far below a random half, in standard deviations; up to 1.96 an uncertainty that says nothing "
        "shows it too."
    )
    return fragment(
        element("h3", "What the uncertainty is worth"),
        bullets([fragment(element("strong", ", ".join(names)), ": ", said) for said, names in sentences.items()]),
        details("What the uncertainty is worth, by target", table(header, rows, words)),
    )


def in_words(found: dict[str, RiskOfTheSurer]) -> str:
    """One sentence on a run's uncertainties, with the numbers that it rests on.

    Args:
        found: Target -> risks, one target at least.
    """
    of = f"of {len(found)} targets" if len(found) > 1 else "the target"
    constant = [risks for risks in found.values() if risks.constant]
    if len(constant) == len(found):
        on = "on every target" if len(found) > 1 else ""
        return f"the uncertainty is the same for all rows {on}".rstrip() + ": it cannot say which predictions to trust."
    varying = {task: risks for task, risks in found.items() if not risks.constant}
    useless = [task for task, risks in varying.items() if not risks.z > CHANCE]
    changes = [_change(risks.surer, risks.every) for risks in varying.values()]
    ideals = [_change(risks.ideal, risks.every) for risks in varying.values()]
    numbers = (
        f"leaving out the least certain half of the rows changes the loss by {_mean(changes)} in the mean "
        f"(an ideal order: {_mean(ideals)})"
    )
    same = f" On {len(constant)} {of} the uncertainty is the same for all rows." if constant else ""
    if len(useless) == len(varying):
        which = "on any target" if len(found) > 1 else ""
        return (
            f"the uncertainty does not predict the errors {which}".rstrip() + f": {numbers}, no more than chance.{same}"
        )
    if useless:
        names = f"{', '.join(useless[:6])}{', …' * (len(useless) > 6)}"
        return f"{numbers}; on {len(useless)} {of} no more than chance ({names}).{same}"
    where = " on every target where it varies" if constant else " on every target" if len(found) > 1 else ""
    return f"{numbers}, more than chance{where}.{same}"


def _by_target(trees: Trees, name: str) -> dict[str, RiskOfTheSurer]:
    found = {}
    for task, rows in scored(trees[name]).items():
        of = rows.prediction
        losses = rows.losses() if len(rows.labels) >= LEAST_ROWS else None
        if losses is None or of.aleatoric is None or of.epistemic is None:
            continue
        total = of.aleatoric + of.epistemic
        if np.isfinite(losses).all() and np.isfinite(total).all() and losses.any():
            found[task] = risk_of_the_surer_half(losses, total)
    return found


def _verdict(of: RiskOfTheSurer) -> str:
    if of.constant:
        return "none: all have one uncertainty"
    return "better than chance" if of.z > CHANCE else "no better than chance"


def _change(value: float, of: float) -> float:
    return 100 * (value / of - 1)


def _mean(changes: list[float]) -> str:
    return _percent(float(np.mean(changes))).text


def _percent(value: float) -> Cell:
    """A change in whole percent, with a true minus."""
    text = "0 %" if abs(value) < 0.5 else f"{value:+.0f} %".replace("-", "\N{MINUS SIGN}")
    return Cell(text, value)
