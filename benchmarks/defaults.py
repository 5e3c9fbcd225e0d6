"""How good the defaults are on tables: every table at hand, fresh splits, against ridge, boosting and the network before.

A fifth of the rows is for testing, a fifth of the rest for validation. References are scikit-learn's with their defaults, a
model a target, trained on training and validation rows together: ridge or logistic regression with its penalty by
cross-validation, and histogram gradient boosting. The error of a target is its root mean squared error, or its log loss;
errors are divided by a reference's and averaged geometrically, over a set's targets and splits, then over sets. "plain" is
the network 128-128 with 30 epochs of Adam at a constant rate. NLL is the mean over targets, per standard deviation of the
labels in training; coverage is that of central 90 % intervals. Seconds are of processor time. Run:

    python benchmarks/defaults.py --root ../shared/data [--methods plain,uw,igb-v1] [--sets enb,power] [--splits 1]
        [--first-split 100] [--rows 5000] [--epochs 125] [--warm-up 0.3] [--average 20] [--nested] [--no-copies]
        [--results docs/results/defaults.csv] [--quick]

With --results, lines of the file with the same set and method are replaced and the others stay, and the tables of
docs/defaults.md are printed from the whole file.

With --nested, the rows that are for testing in a split of these tables (seeds 100 to 102, or 100 of larger sets) are left
out, and the rest are split in the same way: settings are to be chosen there. With --no-copies, test rows whose features are
those of a training or validation row are left out.
"""

import argparse
import csv
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from bmtl.datasets import MultiTaskData, load
from bmtl.evaluation import metrics
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.storage import atomic
from bmtl.experiments import Budget, method, run

ROOT = Path("../shared/data")
Arrays = tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]
"""Inputs, labels by target, and the group of each row: no group is in two parts."""


def uci(name: str) -> Callable[[Path], Arrays]:
    def read(root: Path) -> Arrays:
        with np.load(root / "uci" / f"{name}.npz", allow_pickle=False) as file:
            x, y = file["X"], file["Y_all"]
        return x, {f"y{i}": column for i, column in enumerate(y.T)}, np.arange(len(x))

    return read


def mulan(name: str) -> Callable[[Path], Arrays]:
    def read(root: Path) -> Arrays:
        with np.load(root / "mulan_mtr" / f"{name}.npz", allow_pickle=False) as file:
            x, y, names = file["X"], file["Y"], file["targets"]
        return x, {str(target): y[:, i] for i, target in enumerate(names)}, np.arange(len(x))

    return read


def qm9(root: Path) -> Arrays:
    """Nine targets: the four energies are one in all but name."""
    with np.load(root / "qm9" / "qm9_12k.npz", allow_pickle=False) as file:
        x, y, names = file["X"], file["y"], file["y_names"]
    kept = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "cv")
    return x, {str(t): y[:, i] for i, t in enumerate(names) if t in kept}, np.arange(len(x))


def school(root: Path) -> Arrays:
    with np.load(root / "school" / "school.npz", allow_pickle=False) as file:
        x, y, task = file["X"].astype(float), file["y"], file["task"]
    return x, {f"school {k}": np.where(task == k, y, np.nan) for k in np.unique(task)}, np.arange(len(x))


def tox21(root: Path) -> Arrays:
    with np.load(root / "tox21" / "tox21.npz", allow_pickle=False) as file:
        x, y, names, smiles = np.unpackbits(file["fp"], axis=1), file["Y"], file["targets"], file["smiles"]
    groups = np.unique(smiles, return_inverse=True)[1]
    return x.astype(float), {str(t): y[:, i].astype(np.int64) for i, t in enumerate(names)}, groups


SETS: Mapping[str, Callable[[Path], Arrays]] = {
    **{name: uci(name) for name in ("yacht", "boston", "concrete")},
    "enb": mulan("enb"),
    "wine": uci("wine"),
    **{name: mulan(name) for name in ("jura", "slump", "wq")},
    **{name: uci(name) for name in ("naval", "power", "kin8nm", "protein")},
    "qm9": qm9,
    "school": school,
    "tox21": tox21,
}


def split(arrays: Arrays, seed: int) -> dict[str, np.ndarray]:
    groups = arrays[2]
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    ends = np.round(np.array([0.64, 0.8]) * len(names)).astype(int)
    parts = dict(zip(("train", "val", "test"), np.split(names, ends), strict=True))
    return {part: np.flatnonzero(np.isin(groups, own)) for part, own in parts.items()}


LARGE = ("naval", "kin8nm", "protein", "qm9", "school", "tox21")
"""Sets of which the tables have one split, and of others three."""


def without_test_rows(name: str, arrays: Arrays) -> Arrays:
    """The rows that are in no test part of the tables' splits."""
    tested = [split(arrays, seed)["test"] for seed in range(100, 101 if name in LARGE else 103)]
    rows = np.setdiff1d(np.arange(len(arrays[0])), np.concatenate(tested))
    return arrays[0][rows], {target: values[rows] for target, values in arrays[1].items()}, arrays[2][rows]


def without_copies(x: np.ndarray, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the test rows whose features another part has too."""
    known = {x[i].tobytes() for i in np.concatenate([rows["train"], rows["val"]])}
    return {**rows, "test": np.array([i for i in rows["test"] if x[i].tobytes() not in known])}


def data_of(name: str, arrays: Arrays, seed: int, most: int | None = None, copies: bool = True) -> MultiTaskData:
    """Targets without a label in some part are left out. Of larger sets, `most` rows are drawn."""
    if most is not None and len(arrays[0]) > most:
        drawn = np.random.default_rng(seed).choice(len(arrays[0]), most, replace=False)
        arrays = (arrays[0][drawn], {target: values[drawn] for target, values in arrays[1].items()}, arrays[2][drawn])
    x, y, _ = arrays
    rows = split(arrays, seed) if copies else without_copies(x, split(arrays, seed))
    families = {t: "binary" for t, values in y.items() if values.dtype.kind == "i"}
    missing = {t: values == -1 if t in families else np.isnan(values) for t, values in y.items()}
    kept = {t: values for t, values in y.items() if all((~missing[t][own]).sum() > 2 for own in rows.values())}
    own = {t: family for t, family in families.items() if t in kept}
    return MultiTaskData.from_arrays(name, x, kept, rows, families=own, clip=5.0)


def errors_of(data: MultiTaskData, predicted: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of means or probabilities of the test rows that have a label."""
    found = {}
    for target, labels in data.labels("test").items():
        seen = data.has_label(target, "test")
        guess = predicted[target]
        if data.targets[target].family.scaled:
            found[target] = float(np.sqrt(np.mean((labels[seen] - guess) ** 2)))
        else:
            found[target] = float(log_loss(labels[seen], guess, labels=[0, 1]))
    return found


def references(data: MultiTaskData) -> dict[str, dict[str, float]]:
    """Errors of ridge (or logistic regression) and boosting, by target."""
    x = np.concatenate([data.features("train"), data.features("val")])
    test = data.features("test")
    found: dict[str, dict[str, np.ndarray]] = {"linear": {}, "boosting": {}}
    for target in data.tasks:
        y = np.concatenate([data.labels("train")[target], data.labels("val")[target]])
        seen = np.concatenate([data.has_label(target, "train"), data.has_label(target, "val")])
        rows = test[data.has_label(target, "test")]
        if data.targets[target].family.scaled:
            linear = RidgeCV(alphas=np.logspace(-6, 4, 21)).fit(x[seen], y[seen])
            trees = HistGradientBoostingRegressor(random_state=0).fit(x[seen], y[seen])
            found["linear"][target], found["boosting"][target] = linear.predict(rows), trees.predict(rows)
        else:
            logit = LogisticRegressionCV(Cs=5, cv=3, scoring="neg_log_loss", max_iter=200, tol=1e-3)
            found["linear"][target] = logit.fit(x[seen], y[seen]).predict_proba(rows)
            trees = HistGradientBoostingClassifier(random_state=0).fit(x[seen], y[seen])
            found["boosting"][target] = trees.predict_proba(rows)
    return {name: errors_of(data, predicted) for name, predicted in found.items()}


def outcome(data: MultiTaskData, name: str, seed: int, short: bool, budget: Budget) -> dict[str, object]:
    """Errors by target, and what a run's predictive distributions are worth."""
    chosen = method(name) if name != "plain" else method("ew").on_trunk("mlp")
    if name == "plain":
        budget = Budget(schedule="constant")
    if short:
        budget = Budget(epochs=1, draws=5, schedule=budget.schedule)
    start = time.process_time()
    tree = run(data, chosen, seed, budget)
    seconds = time.process_time() - start
    real = [target.family.scaled for target in data.targets.values()]
    scores = metrics.rmse(tree)["rmse"] if all(real) else metrics.nll(tree)["nll"]
    scale = np.array([-np.log(target.scaler.std) if target.family.scaled else 0.0 for target in data.targets.values()])
    covered = metrics.coverage(tree)["coverage"].values
    return {
        "errors": dict(zip(data.tasks, scores.values.tolist(), strict=True)),
        "nll": float((metrics.nll(tree)["nll"].values + scale.ravel()).mean()),
        "coverage": float(covered.mean()) if all(real) else None,
        "steps": int(tree["training"]["step"].values[-1]) + 1,
        "seconds": seconds,
    }


def relative(errors: Mapping[str, float], to: Mapping[str, float]) -> float:
    return float(np.mean([np.log(errors[target] / to[target]) for target in errors]))


def row(name: str, outcomes: list[dict[str, object]]) -> dict[str, object]:
    """The splits of a set as one."""
    compared: dict[str, object] = {"set": name}
    for key in outcomes[0]:
        values = [each[key] for each in outcomes]
        compared[key] = None if None in values else float(np.mean(values))  # type: ignore[arg-type]
    return compared


def shown(value: object, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


FIELDS = ("over boosting", "over linear", "worst over linear", "nll", "coverage", "steps", "seconds")
SHOWN = ("plain", "igb-v1", "uw", "neural-linear")
"""Methods of the page's tables."""
Lines = dict[tuple[str, str], dict[str, str]]
"""A file's lines by set and method."""


def read(path: Path) -> Lines:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {(line["set"], line["method"]): line for line in csv.DictReader(file)}


def keep(path: Path, found: Iterable[Mapping[str, str]]) -> Lines:
    """The file's lines, with those that were found in place of theirs."""
    lines = read(path) | {(line["set"], line["method"]): dict(line) for line in found}
    sets, methods = list(SETS), [*SHOWN, *dict.fromkeys(method for _, method in lines)]
    lines = {key: lines[key] for key in sorted(lines, key=lambda key: (sets.index(key[0]), methods.index(key[1])))}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["set", "rows", "targets", "splits", "method", *FIELDS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines.values())
    return lines


def geometric_mean(values: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))


def cell(line: Mapping[str, str] | None, field: str, digits: int) -> str:
    """A number as the page has it; empty where it was not measured."""
    text = line[field] if line else ""
    return f"{float(text):,.{digits}f}".replace("-", "−") if text else ""


def errors_page(lines: Lines) -> str:
    """Errors over boosting's, by set, with their geometric means over the sets that have all methods."""
    names = list(dict.fromkeys(name for name, _ in lines))
    rows = []
    for name in names:
        one = next(line for (own, _), line in lines.items() if own == name)
        ratio = float(one["over boosting"]) / float(one["over linear"])
        size = f"{name} ({int(one['rows']):,}, {one['targets']})"
        cells = [cell(lines.get((name, each)), "over boosting", 3) for each in SHOWN]
        worst = [cell(lines.get((name, each)), "worst over linear", 2) for each in SHOWN[1:]]
        rows.append([size, one["splits"], f"{ratio:.3f}", *cells, *worst])
    whole = [name for name in names if all((name, each) in lines for each in SHOWN)]
    for label, of in (("geometric mean", whole), ("without naval", [name for name in whole if name != "naval"])):
        means = [geometric_mean(float(lines[name, each]["over boosting"]) for name in of) for each in SHOWN]
        linear = geometric_mean(
            float(lines[name, "plain"]["over boosting"]) / float(lines[name, "plain"]["over linear"]) for name in of
        )
        rows.append([f"{label} ({len(of)})", "", f"{linear:.3f}", *(f"{mean:.3f}" for mean in means), "", "", ""])
    header = [
        "set (rows, targets)",
        "splits",
        "linear",
        *SHOWN,
        *(f"worst {each}" for each in SHOWN[1:]),
    ]
    return markdown_table(header, *rows)


def uncertainty_page(lines: Lines) -> str:
    """NLL, coverage, steps and seconds by set."""
    rows = []
    for name in dict.fromkeys(name for name, _ in lines):
        of = [lines.get((name, each)) for each in SHOWN]
        rows.append(
            [
                name,
                *(cell(line, "nll", 3) for line in of),
                *(cell(line, "coverage", 2) for line in of[1:]),
                cell(of[1], "steps", 0),
                *(cell(line, "seconds", 0) for line in of),
            ]
        )
    header = ["set", *(f"NLL {each}" for each in SHOWN), *(f"coverage {each}" for each in SHOWN[1:]), "steps igb-v1"]
    return markdown_table([*header, *(f"s {each}" for each in SHOWN)], *rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--methods", default="plain,uw,igb-v1")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--first-split", type=int, default=100)
    parser.add_argument("--rows", type=int, help="of each set at most, drawn by the split's seed")
    parser.add_argument("--epochs", type=int, help="without early stopping, in place of the default steps")
    parser.add_argument("--warm-up", type=float, default=Budget().warm_up, help="of all methods but plain")
    parser.add_argument("--average", type=int, default=Budget().average, help="of all methods but plain")
    parser.add_argument("--nested", action="store_true", help="without the rows on which the tables test")
    parser.add_argument("--no-copies", action="store_true", help="leave out test rows that another part has too")
    parser.add_argument("--results", type=Path, help="a CSV file that keeps the numbers")
    parser.add_argument("--quick", action="store_true", help="the table that comes with bmtl, an epoch")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")
    names, methods = options.sets.split(","), options.methods.split(",")
    budget = Budget(epochs=options.epochs, warm_up=options.warm_up, average=options.average)
    if options.quick:
        names, methods = ["qm9-mini"], methods[:2]
    found: dict[str, dict[str, dict[str, object]]] = {name: {} for name in names}
    with threadpool_limits(1):
        for name in names:
            by_method: dict[str, list[dict[str, object]]] = {each: [] for each in methods}
            for seed in range(options.first_split, options.first_split + (1 if options.quick else options.splits)):
                if options.quick:
                    data = load("qm9-mini").subset(["mu", "cv"])
                else:
                    arrays = SETS[name](options.root)
                    arrays = without_test_rows(name, arrays) if options.nested else arrays
                    data = data_of(name, arrays, seed, options.rows, not options.no_copies)
                to = references(data)
                for each in methods:
                    of = outcome(data, each, seed, options.quick, budget)
                    errors = of.pop("errors")
                    of |= {f"over {other}": relative(errors, to[other]) for other in to}  # type: ignore[arg-type]
                    of["worst over linear"] = max(np.log(errors[t] / to["linear"][t]) for t in errors)  # type: ignore[index]
                    by_method[each].append(of)
            for each in methods:
                one = row(name, by_method[each])
                one["rows"], one["targets"] = sum(map(len, data.rows.values())), len(data.tasks)
                for key in ("over linear", "over boosting", "worst over linear"):
                    one[key] = float(np.exp(one[key]))  # type: ignore[arg-type]
                found[name][each] = one
                print(
                    f"{name:10} {each:14} boosting {shown(one['over boosting'], 3)}  linear {shown(one['over linear'], 3)} "
                    f"(worst target {shown(one['worst over linear'], 3)})  NLL {shown(one['nll'], 3)}  "
                    f"coverage {shown(one['coverage'])}  steps {one['steps']:.0f}  {one['seconds']:.1f} s",
                    flush=True,
                )
    for each in methods:
        ratios = {name: found[name][each]["over boosting"] for name in names}
        without = [value for name, value in ratios.items() if name != "naval"]
        mean = float(np.exp(np.mean(np.log(list(ratios.values())))))  # type: ignore[arg-type]
        print(
            f"{each}: error over boosting's {mean:.3f}, without naval "
            f"{float(np.exp(np.mean(np.log(without)))):.3f}; "  # type: ignore[arg-type]
            f"{sum(found[name][each]['seconds'] for name in names):.0f} s"  # type: ignore[misc]
        )
    if options.results:
        lines = keep(
            options.results,
            (
                {"method": each, "splits": str(options.splits)}
                | {key: f"{one[key]}" for key in ("set", "rows", "targets")}
                | {key: shown(one[key], 6) for key in FIELDS}
                for by_method in found.values()
                for each, one in by_method.items()
            ),
        )
        print(errors_page(lines), uncertainty_page(lines), sep="\n\n")


if __name__ == "__main__":
    main()
