"""What scores of a million predictions cost, here and in other libraries, in one run.

ECE from PIT values, concordance index with and without ties, CRPS of Student-t and normal predictives and of draws, in one
thread. All take turns, so that a drift of the machine's speed hits them alike; the least of the rounds counts. Scores stand
beside the times: they agree, but for uncertainty-toolbox's ECE, whose levels are others. A library that is not installed is
left out; one that compares all pairs of rows is given a thousand, and the table says so. Run:

    python benchmarks/metrics.py [--rows 1000000] [--rounds 3] [--json metrics.json]
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from bmtl.targets.laws import StudentTMixture
from bmtl.targets.metrics import intervals
from bmtl.targets.metrics.concordance import concordance_index
from bmtl.targets.metrics.pit import LEVELS, ece_from_pit

Score = Callable[[], float]
DRAWS = 20
LIBRARIES = ("numpy", "scipy", "scikit-learn", "torchmetrics", "scoringrules", "uncertainty-toolbox")


def library(name: str) -> ModuleType | None:
    """A module, or None where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def calibration(random: np.random.Generator, rows: int) -> dict[str, Score]:
    """The mean absolute calibration error; those that build intervals start from the normal predictive itself."""
    loc, scale = random.normal(size=rows), np.exp(0.3 * random.normal(size=rows))
    y = loc + 0.8 * scale * random.normal(size=rows)
    pit = stats.norm.cdf(y, loc, scale)

    def by_intervals() -> float:
        errors = []
        for level in LEVELS[:-1]:
            half = stats.norm.ppf((1 + level) / 2) * scale
            errors.append(abs(np.mean((y >= loc - half) & (y <= loc + half)) - level))
        return float(np.mean([*errors, 0.0]))

    found: dict[str, Score] = {
        "bmtl ece_from_pit": lambda: ece_from_pit(pit),
        "bmtl with the cdf": lambda: ece_from_pit(StudentTMixture(loc, scale).cdf(y)),
        "scipy, an interval a level": by_intervals,
    }
    if toolbox := library("uncertainty_toolbox.metrics_calibration"):
        # Its fast way holds rows times levels; levels are 0, 1/99, ..., 1.
        found["uncertainty-toolbox"] = lambda: float(toolbox.mean_absolute_calibration_error(loc, scale, y))
    return found


def concordance(random: np.random.Generator, rows: int, *, ties: bool) -> dict[str, Score]:
    y = random.normal(size=rows)
    predicted = y + random.normal(size=rows)
    if ties:
        y, predicted = y.round(1), predicted.round(1)
    found: dict[str, Score] = {"bmtl concordance_index": lambda: concordance_index(y, predicted)}
    if not ties:  # with ties its statistic is another one
        found["scipy kendalltau, as (1 + tau) / 2"] = lambda: (1 + stats.kendalltau(y, predicted).statistic) / 2
    if torchmetrics := library("torchmetrics.functional.regression"):
        torch = import_module("torch")
        first, second = torch.tensor(y[:1000]), torch.tensor(predicted[:1000])  # it compares all pairs
        if not ties:
            found["torchmetrics kendall_rank_corrcoef, 1,000 rows"] = lambda: float(
                (1 + torchmetrics.kendall_rank_corrcoef(second, first)) / 2
            )
    return found


def ranking(random: np.random.Generator, rows: int) -> dict[str, Score]:
    """Of two classes the concordance index is the area under the ROC curve."""
    y = random.integers(2, size=rows).astype(float)
    predicted = (y + random.normal(size=rows)).round(2)
    found: dict[str, Score] = {"bmtl concordance_index": lambda: concordance_index(y, predicted)}
    if sklearn := library("sklearn.metrics"):
        found["scikit-learn roc_auc_score"] = lambda: float(sklearn.roc_auc_score(y, predicted))
    if torchmetrics := library("torchmetrics.functional.classification"):
        torch = import_module("torch")
        scores, labels = torch.tensor(predicted / 10).sigmoid(), torch.tensor(y).long()
        found["torchmetrics binary_auroc"] = lambda: float(torchmetrics.binary_auroc(scores, labels))
    return found


def crps(random: np.random.Generator, rows: int, *, normal: bool) -> dict[str, Score]:
    y, loc = random.normal(size=(2, rows))
    scale, df = np.exp(0.3 * random.normal(size=rows)), random.uniform(2.1, 30, rows)
    if normal:
        found: dict[str, Score] = {"bmtl normal": lambda: float(StudentTMixture(loc, scale).crps(y).mean())}
    else:
        found = {"bmtl Student t": lambda: float(StudentTMixture(loc, scale, df).crps(y).mean())}
    if rules := library("scoringrules"):
        if normal:
            found["scoringrules crps_normal"] = lambda: float(rules.crps_normal(y, loc, scale).mean())
        else:
            found["scoringrules crps_t"] = lambda: float(rules.crps_t(y, df, loc, scale).mean())
    toolbox = library("uncertainty_toolbox.metrics_scoring_rule")
    if toolbox and normal:
        found["uncertainty-toolbox crps_gaussian"] = lambda: float(toolbox.crps_gaussian(loc, scale, y))
    return found


def crps_of_draws(random: np.random.Generator, rows: int) -> dict[str, Score]:
    y, draws = random.normal(size=rows), random.normal(size=(DRAWS, rows))
    found: dict[str, Score] = {"bmtl crps_of_draws": lambda: intervals.crps_of_draws(y, draws, fair=False)}
    across = np.ascontiguousarray(draws.T)
    if rules := library("scoringrules"):
        found["scoringrules crps_ensemble"] = lambda: float(rules.crps_ensemble(y, across, estimator="qd").mean())
    if torchmetrics := library("torchmetrics.functional.regression"):
        torch = import_module("torch")
        first, second = torch.tensor(across), torch.tensor(y)
        found["torchmetrics continuous_ranked_probability_score"] = lambda: float(
            torchmetrics.continuous_ranked_probability_score(first, second)
        )
    return found


def measure(scores: dict[str, Score], rounds: int) -> dict[str, dict[str, float]]:
    """Least seconds of each contestant, taking turns, and its score."""
    found = {name: {"seconds": np.inf, "score": np.nan} for name in scores}
    for _ in range(rounds):
        for name, score in scores.items():
            start = time.perf_counter()
            found[name]["score"] = score()
            found[name]["seconds"] = min(found[name]["seconds"], time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file for seconds and scores")
    options = parser.parse_args()
    random, rows = np.random.default_rng(0), options.rows
    kinds = {
        "ECE": lambda: calibration(random, rows),
        "CI": lambda: concordance(random, rows, ties=False),
        "CI, with ties": lambda: concordance(random, rows, ties=True),
        "CI of two classes": lambda: ranking(random, rows),
        "CRPS, Student t": lambda: crps(random, rows, normal=False),
        "CRPS, normal": lambda: crps(random, rows, normal=True),
        f"CRPS, {DRAWS} draws": lambda: crps_of_draws(random, rows),
    }
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    print(", ".join(f"{name} {number}" for name, number in versions.items()), f"; one thread, {rows:,} rows", sep="")
    results: dict[str, dict[str, dict[str, float]]] = {}
    with threadpool_limits(1):
        if torch := library("torch"):
            torch.set_num_threads(1)
        for kind, make in kinds.items():
            results[kind] = measure(make(), options.rounds)
            print(f"\n{kind:52}{'seconds':>9}{'ratio':>8}{'score':>12}")
            first = next(iter(results[kind].values()))["seconds"]
            for name, found in results[kind].items():
                print(f"  {name:50}{found['seconds']:9.3f}{found['seconds'] / first:8.2f}{found['score']:12.7f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"rows": rows, "versions": versions, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
