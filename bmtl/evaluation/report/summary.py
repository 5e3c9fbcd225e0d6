"""The report in words: what was compared on what, which method is best, and what is missing."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bmtl.evaluation.columns import held
from bmtl.evaluation.compared import by_family, references_of
from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.report.markup import Markup, bullets, element, facts, fragment, paragraph
from bmtl.evaluation.report.origin import about
from bmtl.evaluation.report.ranking import headline, mean_ranks
from bmtl.evaluation.report.runs import Reading
from bmtl.evaluation.report.verdict import called, verdict
from bmtl.evaluation.text_tables import entry

MOST_NAMES = 14  # written out; beyond that their number


def title(reading: Reading) -> str:
    """What the page is called."""
    name = str(about(reading).get("data_name", "unnamed data"))
    return f"{reading.runs[0].method} on {name}" if reading.single else f"Comparison on {name}"


def subtitle(reading: Reading) -> str:
    """One line below the title."""
    scores = reading.scores
    targets = _count(scores.sizes["task"], "target")
    if reading.single:
        return f"One run, {targets}, {_rows(reading)} test rows."
    references = len(references_of(scores))
    compared = _count(scores.sizes["learner"] - references, "method")
    compared += f" and {_count(references, 'reference')}" if references else ""
    return f"{compared}, {targets}, {Repeats.of(scores).counted} of each."


def summary(reading: Reading) -> Markup:
    """Sentences, then facts."""
    if reading.single:
        first, *rest = _of_one(reading)
    else:
        first, *rest = [*verdict(headline(reading.scores), called(reading)), *_other_view(reading)]
    sentences = [paragraph(first, class_="lead"), *([paragraph(" ".join(rest))] if rest else [])]
    return fragment(*sentences, _missing(reading), _facts(reading))


def _of_one(reading: Reading) -> list[str]:
    """A description of a single run, with its mean calibration error."""
    run, scores = reading.runs[0], reading.scores
    made = [f"balancer {run.about['balancer']}"] if run.about.get("balancer") else []
    made += [f"seed {run.about['seed']}"] if run.about.get("seed") is not None else []
    where = f" ({', '.join(made)})" if made else ""
    said = [f"{run.method}{where} predicts {_targets(reading)}."]
    families = by_family(scores)
    for name, (family, places) in families.items():
        chosen = scores.isel(task=places)
        rows = [int(count) for count in chosen["rows"].values.ravel() if count]
        for score in held(scores, family.scores):
            values = chosen["score"].sel(metric=score.name)
            if score.floor is not None and rows and values.notnull().any():
                floor = np.mean([score.floor(count) for count in rows])
                of = f" of the {name} targets" if len(families) > 1 else ""
                said.append(
                    f"The mean {score.symbol}{of} is {entry(float(values.mean()), np.nan)}; a perfect predictive would show "
                    f"{floor:.3f} on so many rows."
                )
    return said


def _other_view(reading: Reading) -> list[str]:
    """The method with the best mean rank, where that is another than the one with the best mean change."""
    means, ranks = headline(reading.scores), mean_ranks(reading.scores)
    if means.name == ranks.name or ranks.leader in (None, means.leader):
        return []
    noun, value = ranks.repeats.noun, entry(ranks.mean[ranks.leader], ranks.error[ranks.leader])
    within = f" within each {noun}" if ranks.repeats.runs > 1 else ""
    return [
        f"By {ranks.name}{within} {ranks.leader} is first ({value}): "
        "means of relative changes are moved by few targets with large changes, ranks are not."
    ]


def _facts(reading: Reading) -> Markup:
    scores, shared = reading.scores, about(reading)
    pairs = [("Data", str(shared.get("data_name", "not recorded")))]
    if not reading.single:
        pairs.append(("Methods", _list([str(name) for name in scores["learner"].values])))
    pairs.append(("Targets", _targets(reading)))
    pairs.append(("Test rows", f"{_rows(reading)} labelled rows a target"))
    if not reading.single:
        places = list(dict.fromkeys(run.place for run in reading.runs))
        pairs.append(("Runs of each method", f"{Repeats.of(scores).counted}: {_list(places)}"))
    if shared.get("baseline"):
        noun = Repeats.of(scores).noun
        pairs.append(("Baseline", f"{shared['baseline']}; differences are taken {noun} by {noun}"))
    trained = [run for run in reading.runs if run.method not in references_of(scores)]
    selections = {str((run.about.get("configuration") or {}).get("selection", "not recorded")) for run in trained}
    pairs.append(("Parameters kept", "; ".join(sorted(selections))))
    budgets = {
        _length(budget) + (f", batches of {budget['batch_size']} rows" if budget["batch_size"] else "")
        for budget in ((run.about.get("configuration") or {}).get("budget") for run in reading.runs)
        if isinstance(budget, dict) and {"steps", "epochs", "batch_size"} <= budget.keys()
    }
    if budgets:
        pairs.append(
            (
                "Budget",
                "; ".join(sorted(budgets)) + ("" if reading.single else " for every method") * (len(budgets) == 1),
            )
        )
    return facts(pairs)


def _length(budget: Mapping[str, Any]) -> str:
    """How long a run was trained at most."""
    if budget["steps"]:
        return f"at most {_count(int(budget['steps']), 'step')}"
    return _count(int(budget["epochs"]), "epoch")


def _missing(reading: Reading) -> Markup:
    """Failed, interrupted and absent runs, and results that are not compared."""
    scores = reading.scores
    parts = []
    if reading.single and reading.partial:
        parts.append(paragraph("This run was interrupted: scores are of what was learnt until then.", class_="warning"))
    if reading.errors:
        alike: dict[tuple[str, str], list[str]] = {}
        for place, reason in reading.errors.items():
            alike.setdefault((place.partition("/")[0], reason), []).append(place)
        items = [fragment(element("strong", _list(places)), ": ", reason) for (_, reason), places in alike.items()]
        failed = _count(len(reading.errors), "run")
        parts.append(paragraph(f"{failed} failed (error.txt has the full traceback):", class_="warning"))
        parts.append(bullets(items))
    if reading.partial and not reading.single:
        said = f"Interrupted, and not compared: {_list(list(reading.partial))}. The same command resumes them."
        parts.append(paragraph(said, class_="warning"))
    present = scores["present"].transpose("learner", "split").values
    noun = Repeats.of(scores).noun
    absent = [
        f"{scores['learner'].values[i]} on {noun} {scores['split'].values[k]}"
        for i, k in np.argwhere(~present).tolist()
    ]
    if absent:
        said = f"Without a result: {_list(absent)}. Means of these methods are over fewer {noun}s."
        parts.append(paragraph(said, class_="warning"))
    if reading.foreign:
        said = f"Results that the comparison does not hold: {_list(list(reading.foreign))}."
        parts.append(paragraph(said, class_="warning"))
    return fragment(*parts)


def _targets(reading: Reading) -> str:
    """How many targets there are, and their names by family."""
    names = reading.scores["task"].values
    families = by_family(reading.scores)
    listed = [f"{_list([str(name) for name in names[places]])} ({family})" for family, (_, places) in families.items()]
    return f"{_count(len(names), 'target')}: {'; '.join(listed)}"


def _rows(reading: Reading) -> str:
    counts = reading.scores["rows"].values
    low, high = int(counts[counts > 0].min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _list(names: list[str]) -> str:
    """Names with commas; of very many the first few."""
    if len(names) > MOST_NAMES:
        return f"{', '.join(names[: MOST_NAMES - 2])} and {len(names) - MOST_NAMES + 2} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
