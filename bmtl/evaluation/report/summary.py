"""The report in words: what was compared on what, which method is best, and what is missing."""

import numpy as np

from bmtl.evaluation.metrics import noise_floor
from bmtl.evaluation.report.markup import Markup, bullets, element, facts, fragment, paragraph
from bmtl.evaluation.report.origin import about
from bmtl.evaluation.report.ranking import Headline, headline, mean_ranks
from bmtl.evaluation.report.runs import Reading
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
    runs = _count(scores.sizes["split"], "run")
    return f"{_count(scores.sizes['method'], 'method')}, {targets}, {runs} of each method."


def summary(reading: Reading) -> Markup:
    """Sentences, then facts."""
    first, *rest = _of_one(reading) if reading.single else verdict(headline(reading.scores)) + _other_view(reading)
    sentences = [paragraph(first, class_="lead"), *([paragraph(" ".join(rest))] if rest else [])]
    return fragment(*sentences, _missing(reading), _facts(reading))


def verdict(found: Headline) -> list[str]:
    """Which method is best by the interval rule."""
    leader = found.leader
    if leader is None:
        return ["No method has a mean over its splits that is a number: runs diverged, or there is nothing to rank by."]
    value = f"{entry(found.mean[leader], found.error[leader])}{found.unit}"
    sign = "; negative is better" if found.unit else ""
    others = [name for name in found.mean if name != leader]
    if not others:
        return [f"There is one method, {leader}; {found.name}: {value}."]
    if found.splits < 2:
        return [
            f"{leader} has the lowest {found.name} ({value}{sign}), on one split: no interval tells methods apart, so "
            "none is called best.",
            "Run more splits or seeds to know which differences would come again.",
        ]
    if not found.best:
        return [
            f"{leader} has the lowest {found.name} ({value}{sign}), but the 95 % intervals over {found.splits} splits "
            "tell no other method apart from it: none is called best.",
        ]
    alike = [name for name in found.best if name != leader]
    worse = [name for name in others if name not in found.best]
    diverged = [name for name in worse if not np.isfinite(found.mean[name])]
    worse = [name for name in worse if name not in diverged]
    said = [f"{leader} has the lowest {found.name}: {value} over {found.splits} splits{sign}."]
    if alike:
        said.append(f"The 95 % interval of paired differences does not tell {_list(alike)} apart from it.")
    if worse:
        said.append(f"{_list(worse)} {'is' if len(worse) == 1 else 'are'} worse by that interval.")
    if diverged:
        said.append(f"{_list(diverged)} diverged on a split at least.")
    if found.splits < 6:
        said.append(f"With {found.splits} splits intervals are rough: read them as a first impression.")
    return said


def _of_one(reading: Reading) -> list[str]:
    """What a single run is, and how far off its calibration is in the mean."""
    run, scores = reading.runs[0], reading.scores
    made = [f"balancer {run.about['balancer']}"] if run.about.get("balancer") else []
    made += [f"seed {run.about['seed']}"] if run.about.get("seed") is not None else []
    where = f" ({', '.join(made)})" if made else ""
    said = [f"{run.method}{where} predicts {_targets(reading)}."]
    if "ece" in scores["metric"].values:
        regressions = scores.isel(task=(scores["kind"] == "regression").values)
        ece = regressions["score"].sel(metric="ece")
        if ece.notnull().any():
            floor = np.mean([noise_floor(int(rows)).mean for rows in regressions["rows"].values.ravel() if rows])
            said.append(
                f"The mean calibration error (ECE) of its intervals is {entry(float(ece.mean()), np.nan)}, where a perfect "
                f"predictive would show {floor:.3f} on so many rows."
            )
    return said


def _other_view(reading: Reading) -> list[str]:
    """Who has the best mean rank, where that is another than the one with the best mean change."""
    means, ranks = headline(reading.scores), mean_ranks(reading.scores)
    if means.name == ranks.name or ranks.leader in (None, means.leader):
        return []
    return [
        f"By {ranks.name} {ranks.leader} is first ({entry(ranks.mean[ranks.leader], ranks.error[ranks.leader])}): "
        "means of relative changes are moved by few targets with large changes, ranks are not."
    ]


def _facts(reading: Reading) -> Markup:
    scores, shared = reading.scores, about(reading)
    pairs = [("Data", str(shared.get("data_name", "not recorded")))]
    if not reading.single:
        pairs.append(("Methods", _list([str(name) for name in scores["method"].values])))
    pairs.append(("Targets", _targets(reading)))
    pairs.append(("Test rows", f"{_rows(reading)} labelled rows a target"))
    if not reading.single:
        seeds = sorted({int(run.about["seed"]) for run in reading.runs if run.about.get("seed") is not None})
        said = f"{scores.sizes['split']} ({_list(list(dict.fromkeys(run.place for run in reading.runs)))})"
        pairs.append(("Splits and seeds", said + (f"; seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "")))
    if shared.get("baseline"):
        pairs.append(("Baseline", f"{shared['baseline']}; differences are taken split by split"))
    selections = {str((run.about.get("configuration") or {}).get("selection", "not recorded")) for run in reading.runs}
    pairs.append(("Parameters kept", "; ".join(sorted(selections))))
    budgets = {
        f"{budget['epochs']} epochs, batches of {budget['batch_size']} rows"
        for budget in ((run.about.get("configuration") or {}).get("budget") for run in reading.runs)
        if isinstance(budget, dict) and {"epochs", "batch_size"} <= budget.keys()
    }
    if budgets:
        pairs.append(
            (
                "Budget",
                "; ".join(sorted(budgets)) + ("" if reading.single else " for every method") * (len(budgets) == 1),
            )
        )
    return facts(pairs)


def _missing(reading: Reading) -> Markup:
    """Failed, interrupted and absent runs, and what lies there without being compared."""
    scores = reading.scores
    parts = []
    if reading.single and reading.partial:
        parts.append(paragraph("This run was interrupted: scores are of what was learnt until then.", class_="warning"))
    if reading.errors:
        items = [fragment(element("strong", place), ": ", reason) for place, reason in reading.errors.items()]
        parts.append(
            paragraph(f"{_count(len(items), 'run')} failed (error.txt has the whole story):", class_="warning")
        )
        parts.append(bullets(items))
    if reading.partial and not reading.single:
        said = f"Interrupted, and not compared: {_list(list(reading.partial))}. The same command goes on with them."
        parts.append(paragraph(said, class_="warning"))
    present = scores["present"].transpose("method", "split").values
    absent = [
        f"{scores['method'].values[i]} on split {scores['split'].values[k]}" for i, k in np.argwhere(~present).tolist()
    ]
    if absent:
        said = f"Without a result: {_list(absent)}. Means of these methods are over fewer splits."
        parts.append(paragraph(said, class_="warning"))
    if reading.foreign:
        said = f"Results that the comparison does not hold: {_list(list(reading.foreign))}."
        parts.append(paragraph(said, class_="warning"))
    return fragment(*parts)


def _targets(reading: Reading) -> str:
    kinds = reading.scores["kind"].values.tolist()
    names = [str(name) for name in reading.scores["task"].values]
    said = " and ".join(_count(kinds.count(kind), kind) for kind in dict.fromkeys(kinds))
    return f"{said}: {_list(names)}"


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
