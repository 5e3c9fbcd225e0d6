import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from bmtl.evaluation import metrics, results, tables
from bmtl.evaluation.comparison import compare
from bmtl.evaluation.recalibration import recalibrate
from bmtl.evaluation.report import figures, report, sections
from bmtl.evaluation.report.figures import Picture
from bmtl.evaluation.report.markup import Markup
from bmtl.evaluation.report.page import Section
from bmtl.evaluation.report.ranking import by_target, headline
from bmtl.evaluation.report.runs import read_source
from bmtl.evaluation.results import PredictedRows, ReportedTarget
from bmtl.evaluation.statistics import paired_differences
from bmtl.evaluation.text_tables import entry
from bmtl.targets import Prediction, Real
from tests.evaluation import trees
from tests.evaluation.report.conftest import METHODS
from tests.evaluation.report.pages import check


def page_of(source, **options):
    return check(report(source, **options).read_text(encoding="utf-8"))


@pytest.fixture
def without_pictures(monkeypatch):
    """For tests of words and tables: pictures take most of the time."""
    monkeypatch.setattr(figures, "_image", lambda draw, title, largest: "")


@pytest.fixture
def without_layout(monkeypatch):
    """Pictures whose places need not be right: arranging their parts takes half of the time."""
    drawn = figures.inline

    def inline(figure, title):
        figure.set_layout_engine("none")
        return drawn(figure, title)

    monkeypatch.setattr(figures, "inline", inline)


# ---- A whole comparison ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_layout")
def test_a_comparison_has_every_section_and_every_picture(folder):
    page = page_of(
        folder(
            splits=2,
            full=True,
            rows=30,
            attributes={"command": "bmtl compare x", "data_citation": "Someone (2020), Somewhere."},
        )
    )
    assert page.sections == [
        *(
            "summary",
            "scores",
            "targets",
            "differences",
            "ranks",
            "predictions",
            "training",
            "conflicts",
            "calibration",
        ),
        *("uncertainty", "recalibration", "trust", "ood", "runs", "data"),
    ]
    # Gains, scores, differences, ranks; points of two methods; losses, weights; two matrices a method, cosines; margins,
    # coverage, places; parts, risk; three densities.
    assert page.tags.count("svg") == 4 + 2 + 2 + 2 * 3 + 1 + 3 + 2 + 3
    assert "img" not in page.tags
    assert "Not drawn" not in page.text
    for words in ("3 methods, 3 targets, 2 splits of each", "bmtl compare x", "Someone (2020), Somewhere."):
        assert words in page.text


def test_the_relatedness_of_tasks_is_shown_where_a_run_has_it(folder, monkeypatch):
    drawn = figures._image
    monkeypatch.setattr(
        figures, "_image", lambda draw, title, *of: drawn(draw, title, *of) if "related" in title else ""
    )
    source = folder({"stl": 0.3, "vmtl": 0.2}, splits=1)
    file = source / "vmtl/split-0-seed-0/results.nc"
    for tasks, readable in ((3, True), (40, False)):
        names = [f"t{i}" for i in range(tasks)]
        share = np.full((5, tasks, tasks + 1), 0.5 / (tasks - 1))
        share[:, range(tasks), range(tasks)], share[..., -1] = 0.0, 0.5
        tree = results.read(file)
        tree["posterior"] = results.to_datatree(
            {},
            {},
            posterior={"relatedness_w": share, "relatedness_z": share},
            dims=dict.fromkeys(("relatedness_w", "relatedness_z"), ("task", "source")),
            coords={"task": names, "source": [*names, "anchor"]},
        )["posterior"]
        results.write(tree, file)
        page = page_of(source)
        assert ("relatedness" in page.ids) == readable
        assert page.text.count("Which tasks are related: vmtl") == page.tags.count("svg") / 2 == readable
        assert "Not drawn" not in page.text


def test_equal_results_make_equal_pages(folder, tmp_path):
    source = folder({"stl": 0.3}, splits=1, targets=("mu",))
    assert report(source, tmp_path / "a.html").read_bytes() == report(source, tmp_path / "b.html").read_bytes()


def test_a_picture_of_many_paths_is_pixels_where_that_is_smaller():
    def draw():
        figure = Figure(figsize=(4, 3))
        figure.subplots().plot(np.random.default_rng(0).normal(size=(400, 60)))
        return figure

    picture = Picture("Many lines", "", draw)
    assert "<img" in picture.markup(100_000)
    assert "<svg" in picture.markup(10**9)


def test_a_page_that_would_be_too_large_is_made_again_with_fewer_paths(folder, monkeypatch):
    asked, counted = [], []

    def of_size(reading, largest):
        asked.append(largest)
        yield Section("a", "A", [Markup("x" * (6_000_000 if len(asked) == 1 else 10))])

    monkeypatch.setattr(sections, "sections", of_size)
    text = sections.to_html(read_source(folder({"stl": 0.3}, splits=1)), counted.append)
    assert len(text) < 5_000_000
    assert asked == [sections.LARGEST, sections.LARGEST // 10]
    assert counted == ["A"]


@pytest.mark.usefixtures("without_pictures")
class TestTables:
    def test_scores_by_method_are_those_of_the_comparison(self, folder):
        source = folder()
        scores = results.read(source / "comparison.nc").to_dataset()
        means, errors, marks = tables.table(scores), tables.standard_error(scores), tables.best(scores)
        shown = page_of(source).table("method", "delta_m [%] ↓")
        assert list(shown) == list(METHODS)
        for method, row in shown.items():
            for name, (text, key, classes) in list(row.items())[1:]:
                name = name.removesuffix(" ↓")
                assert text == entry(means.at[method, name], errors.at[method, name])
                assert key == ("" if np.isnan(means.at[method, name]) else repr(float(means.at[method, name])))
                assert ("best" in classes) == marks.at[method, name]

    def test_scores_by_target(self, folder):
        source = folder()
        scores = results.read(source / "comparison.nc").to_dataset()
        shown = page_of(source).table("target", "unit", "test rows", *METHODS)
        _, marks = by_target(scores)
        assert list(shown) == ["mu", "homo", "cv"]
        for task, row in shown.items():
            assert row["unit"][0] == str(scores["unit"].sel(task=task).item())
            assert row["test rows"][0] == "60"
            for method in METHODS:
                mean = float(scores["score"].sel(learner=method, task=task, metric="mae").mean())
                assert float(row[method][1]) == pytest.approx(mean, rel=1e-12)
                assert ("best" in row[method][2]) == bool(marks.sel(learner=method, task=task))

    def test_paired_differences(self, folder):
        source = folder(splits=6)
        scores = results.read(source / "comparison.nc").to_dataset()
        found = paired_differences(scores["score"].sel(metric="mae"), "stl")
        (shown,) = (
            t for t in page_of(source).tables if [c[0] for c in t[0]][:2] == ["method", "target"] and len(t[0]) == 6
        )
        assert len(shown) == 1 + found["difference"].size
        for (method, *_), (task, *_), (_, difference, classes), (_, lower, _), (_, p, _), (wins, *_) in shown[1:]:
            one = found.sel(learner=method, task=task)
            assert float(difference) == float(one["difference"])
            assert float(lower) == float(one["lower"])
            assert float(p) == float(one["p_holm"])
            assert wins == f"{int(one['wins'])} of 6"
            assert ("best" in classes) == (float(one["upper"]) < 0)

    def test_mean_ranks_and_the_critical_difference(self, folder):
        page = page_of(folder())
        shown = page.table("method", "mean rank ↓", "joined with")
        ranks = {method: float(row["mean rank ↓"][1]) for method, row in shown.items()}
        assert ranks == {"nash-mtl": 1, "stl": 2, "ew": 3}  # their errors are far apart
        assert "Critical difference at 0.05 (Nemenyi): 1.91" in page.text  # 2.343 sqrt(3 * 4 / 18), Demšar's table 5a

    def test_recalibration_is_fitted_on_validation(self, folder):
        source = folder({"stl": 0.3}, splits=1, full=True, width=0.5, rows=30)
        shown = page_of(source).table("method", "factor", "NLL before")
        tree = results.read(source / "stl" / "split-0-seed-0" / "results.nc")
        after = float(metrics.ece(recalibrate(tree))["ece"].mean())
        assert float(shown["stl"]["ECE before"][1]) == float(metrics.ece(tree)["ece"].mean())
        assert float(shown["stl"]["ECE after"][1]) == pytest.approx(after, rel=1e-9)

    def test_every_run_has_a_row(self, folder):
        page = page_of(folder(splits=2))
        (runs,) = (t for t in page.tables if [c[0] for c in t[0]][:3] == ["method", "run", "balancer"])
        places = [(row[0][0], row[1][0]) for row in runs[1:]]
        assert places == [(method, f"split-{k}-seed-0") for method in METHODS for k in (0, 1)]

    def test_many_targets_stay_readable(self, folder):
        names = tuple(f"t{i}" for i in range(30))
        page = page_of(folder({"ew": 0.5}, splits=1, targets=names, rows=8))
        assert list(page.table("target", "test rows")) == list(names)
        assert "Drawn are the first 12 of 30 targets." in page.text
        assert "t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11 and 18 others" in page.text

    def test_one_target_one_split_one_method(self, folder):
        page = page_of(folder({"ew": 0.3}, splits=1, targets=("mu",)))
        assert "ranks" not in page.ids
        assert "differences" not in page.ids
        assert "There is one method, ew" in page.text

    def test_classifications(self, mixed_grid, tmp_path):
        for (method, split), tree in mixed_grid.items():
            tree.attrs["method"] = method
            results.write(tree, tmp_path / method / f"seed-{split}" / "results.nc")
        page = page_of(tmp_path)
        scores = compare(mixed_grid, baseline="stl", reference="stl")
        for metric, symbol, task in (("mae", "MAE", "mu"), ("accuracy", "accuracy", "kind")):
            (caption,) = (words for words in page.captions if words.startswith(f"{symbol} on the test rows"))
            assert ("higher" in caption) == (metric == "accuracy")
            values = scores["score"].sel(metric=metric, task=task)
            means = values.mean("split").sel(learner=["nash-mtl", "stl"]).values.tolist()
            tables_of_task = [table for table in page.tables if [row[0][0] for row in table[1:]] == [task]]
            found = [[float(key or "nan") for _, key, _ in table[1][-2:]] for table in tables_of_task]
            assert any(pair == pytest.approx(means, rel=1e-12) for pair in found)


# ---- In words --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_pictures")
class TestWords:
    def test_the_first_sentence_holds_what_the_comparison_does(self, folder):
        source = folder(splits=6)
        found = headline(results.read(source / "comparison.nc").to_dataset())
        assert (found.leader, found.best) == ("nash-mtl", ["nash-mtl"])
        ends = sorted(abs(end) for end in found.intervals["nash-mtl"])
        text = page_of(source).text
        assert (
            f"nash-mtl is better than stl here: {-found.mean['nash-mtl']:.0f} % better in the mean over 3 targets"
            in text
        )
        assert f"(95 % interval {ends[0]:.0f} to {ends[1]:.0f} % better over 6 splits)." in text
        assert f"Worse: ew ({found.mean['ew']:.0f} % worse)." in text
        assert "Intervals are over splits, which share rows" in text

    def test_single_task_networks_are_called_so(self, folder):
        """The runs record which method has a network for each target."""
        source = folder({"stl": 0.1, "ew": 0.5, "uw": 0.3}, splits=4)
        for file in source.glob("*/*/results.nc"):
            tree = results.read(file)
            single = file.parent.parent.name == "stl"
            tree.attrs["configuration"] = json.dumps({"method": {"single_task": single}})
            results.write(tree, file)
        text = page_of(source).text
        assert "No multi-task method is better than single-task networks (stl) here; uw is closest," in text

    def test_one_method_and_its_baseline(self, folder):
        text = page_of(folder({"stl": 0.5, "ew": 0.1}, splits=3)).text
        assert "ew is better than stl here:" in text

    @pytest.mark.parametrize(
        ("splits", "words"),
        [(1, "In the only run nash-mtl, the first of 2 methods, is"), (2, "In the mean of 2 splits nash")],
    )
    def test_few_runs_decide_nothing(self, folder, splits, words):
        page = page_of(folder(splits=splits))
        assert words in page.text
        few = "One run is" if splits == 1 else "Two runs are"
        assert f"{few} too few to compare methods: run more seeds or splits." in page.text
        assert not any("best" in classes for table in page.tables for row in table for _, _, classes in row)
        assert "haded" not in page.text

    def test_seeds_are_called_seeds(self, folder):
        text = page_of(folder(splits=3, seeds=True)).text
        assert "3 methods, 3 targets, 3 seeds of one split of each" in text
        assert "Intervals are over seeds and hold no variance of the data." in text
        assert "differences are taken seed by seed" in text
        assert "over splits" not in text

    def test_without_a_baseline_ranks_decide(self, folder):
        assert "lowest mean rank over the targets: 1" in page_of(folder({"ew": 0.5, "uw": 0.1}, splits=6)).text

    def test_a_diverged_method_is_named(self, folder, lean_tree):
        source = folder(splits=3, stored=False)
        tree = lean_tree(method="ew", seed=1, variant=1)
        tree["test/predictive_mean"]["y_mu"][:] = np.nan
        results.write(tree, source / "ew" / "split-1-seed-0" / "results.nc")
        assert "ew diverged in at least one run." in page_of(source).text

    def test_what_failed_or_was_interrupted_or_is_missing_is_named(self, folder):
        source = folder(splits=3)
        place = source / "ew" / "split-1-seed-0"
        (place / "results.nc").rename(place / "partial.nc")
        scores = results.read(source / "comparison.nc").to_dataset()
        scores["present"].loc[{"learner": "ew", "split": 1}] = False
        results.write(scores, source / "comparison.nc")
        for seed, step in enumerate((3, 3, 4)):
            (source / "uw" / f"seed-{seed}").mkdir(parents=True)
            said = f"Traceback\n  File x\nNonFinite: loss of <mu> at step {step}\n"
            (source / "uw" / f"seed-{seed}" / "error.txt").write_text(said)
        text = page_of(source).text
        assert "3 runs failed" in text
        assert "uw/seed-0 and uw/seed-1: NonFinite: loss of <mu> at step 3" in text
        assert "uw/seed-2: NonFinite: loss of <mu> at step 4" in text
        assert "Interrupted, and not compared: ew/split-1-seed-0." in text
        assert "Without a result: ew on split 1." in text

    def test_results_of_another_comparison_are_named_and_not_mixed_in(self, folder, lean_tree):
        source = folder(splits=1)
        results.write(lean_tree(method="old"), source / "old" / "split-0-seed-0" / "results.nc")
        page = page_of(source)
        assert "Results that the comparison does not hold: old/split-0-seed-0." in page.text
        assert list(page.table("method", "delta_m [%] ↓")) == list(METHODS)


# ---- Families --------------------------------------------------------------------------------------------------------


@pytest.fixture
def every_family_folder(every_family_grid, tmp_path):
    for (method, seed), tree in every_family_grid.items():
        if seed < 2:
            results.write(tree, tmp_path / method / f"seed-{seed}" / "results.nc")
    return tmp_path


@pytest.mark.usefixtures("without_layout")
def test_a_comparison_of_every_family(every_family_folder):
    page = page_of(every_family_folder)
    assert "Not drawn" not in page.text
    for words in (
        "8 targets: price and pic50 (real); kind (classes); ill (binary); grade (ordinal); visits (count); days",
        "Distributions of labels and predictions",
        "Coverage of predictive intervals",
        "Reliability diagrams",
        "ROC and precision-recall curves",
        "Risk of the rows kept",
    ):
        assert words in page.text
    for score in ("MAE (real)", "MAE (ordinal)", "MAE (count)", "accuracy", "AUROC", "C", "energy score"):
        assert f"{score} by target" in page.text
    assert list(page.table("target", "unit", "test rows", "ew", "stl")) == ["price", "pic50"]


@pytest.mark.usefixtures("without_pictures")
def test_a_run_of_every_family(every_family_grid, tmp_path):
    results.write(every_family_grid["ew", 0], tmp_path / "results.nc")
    page = page_of(tmp_path)
    headers = [[cell[0] for cell in table[0]] for table in page.tables]
    assert any("integrated Brier ↓" in header for header in headers)
    assert any("quadratic kappa ↑" in header for header in headers)
    assert any("deviance ↓" in header for header in headers)


# ---- Posteriors ------------------------------------------------------------------------------------------------------


def bayesian(seed, method, *, train=True, chains=1, off=0.0):
    """A run whose guide is the posterior, or off by some standard deviations, with its training rows if asked."""
    random = np.random.default_rng([seed, len(method)])
    y, draws = np.random.default_rng(seed).normal(size=20), random.normal(size=400)
    spread = 1 / np.sqrt(21)
    w = y.sum() / 21 + spread * draws  # the posterior of a mean under a standard normal prior
    density = -0.5 * (y - w[:, None]) ** 2 - 0.5 * np.log(2 * np.pi)
    lp, log_q = density.sum(axis=1) - 0.5 * w**2, -0.5 * draws**2 - off * draws**3
    rows = PredictedRows(Prediction(np.repeat(w[:, None], 20, 1), y * 0 + w.mean(), log_likelihood=density), y)
    parts = {"test": {"mu": rows}, **({"train": {"mu": rows}} if train else {})}
    stats = {"lp": lp, "log_q": log_q} if chains == 1 else {"diverging": np.arange(400) > 396}
    return results.to_datatree(
        parts,
        {"mu": ReportedTarget(Real())},
        posterior={"w": w},
        sample_stats=stats,
        chains=chains,
        attributes={"method": method, "seed": seed},
    )


@pytest.mark.usefixtures("without_pictures")
def test_guides_of_a_comparison_are_judged_where_training_rows_were_drawn(tmp_path):
    for seed in (0, 1):
        for method, options in {
            "good": {},
            "wrong": {"off": 1.0},
            "unknown": {"train": False},
            "nuts": {"chains": 4},
        }.items():
            results.write(bayesian(seed, method, **options), tmp_path / method / f"seed-{seed}" / "results.nc")
    page = page_of(tmp_path)
    judged = page.table("method", "Pareto k ↓")
    assert list(judged) == ["good", "wrong"]
    assert float(judged["good"]["Pareto k ↓"][1]) < 0.5 < 0.7 < float(judged["wrong"]["Pareto k ↓"][1])
    assert "good: All 400 draws have the same weight: the guide covers the posterior." in page.text
    assert "wrong: Pareto k is" in page.text
    assert "the guide does not cover the posterior" in page.text
    assert "No draws for the training rows, by which a guide is judged: unknown." in page.text
    assert "bmtl compare --trust" in page.text
    chains = page.table("method", "chains", "draws of each")
    assert chains["nuts"]["chains"][0] == "4"
    assert float(chains["nuts"]["largest R-hat ↓"][1]) < 1.05
    assert chains["nuts"]["divergences ↓"][0] == "3"


@pytest.mark.usefixtures("without_pictures")
def test_targets_that_cannot_be_recalibrated_are_named(full_tree, tmp_path):
    tree = full_tree(rows=20)
    validation = {name: node.to_dataset().isel(obs_cv=[]) for name, node in tree["validation"].children.items()}
    tree["validation"] = xr.DataTree.from_dict({"/": xr.Dataset(attrs=tree["validation"].attrs), **validation})
    results.write(tree, tmp_path / "results.nc")
    page = page_of(tmp_path)
    assert "1 target not recalibrated" in page.text
    assert list(page.table("target", "method", "reason")) == ["cv"]
    (by_target,) = (t for t in page.tables if [cell[0] for cell in t[0]][:3] == ["method", "target", "factor"])
    assert [row[1][0] for row in by_target[1:]] == ["mu", "homo"]


# ---- Hostile names ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_pictures")
def test_names_are_shown_and_never_obeyed(folder, tmp_path):
    evil = '<img src=x onerror="alert(1)">&amp;'.replace("/", "")
    source = folder(
        {"stl": 0.3, "b": 0.5},
        splits=2,
        targets=(evil, "mu"),
        configuration={evil: {"x": evil}},
        attributes={"command": f"bmtl compare '{evil}' </code>", "data_citation": "<script>alert(2)</script>"},
        data_name=evil,
    )
    page = page_of(source)
    assert evil in page.table("target", "unit")
    assert f"Comparison on {evil}" in page.text
    assert "<script>alert(2)</script>" in page.text
    assert "</code>" in page.text


def test_hostile_names_in_pictures(folder):
    page = page_of(folder({"<i>a": 0.3}, splits=1, targets=("$x_", "a & <b>")))
    assert "There is one method, <i>a;" in page.text
    assert "Not drawn" not in page.text


# ---- What there may not be -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_pictures")
def test_a_run_by_itself(full_tree, tmp_path):
    tree = full_tree()
    results.write(tree, tmp_path / "results.nc")
    page = page_of(tmp_path)
    assert (tmp_path / "report.html").is_file()
    assert "ew (balancer ew, seed 0) predicts 3 targets: mu, homo and cv (real)." in page.text
    assert "The mean ECE is" in page.text
    scores = compare({("ew", 0): tree}, baseline=None, reference=None)["score"].isel(learner=0, split=0)
    for task, row in page.table("target", "unit", "test rows").items():
        for name, metric in (("MAE ↓", "mae"), ("R² ↑", "r2"), ("ECE ↓", "ece"), ("CRPS ↓", "crps")):
            assert float(row[name][1]) == float(scores.sel(task=task, metric=metric))
    assert not {"ranks", "differences", "targets"} & set(page.ids)


@pytest.mark.usefixtures("without_pictures")
def test_an_interrupted_run_says_so(lean_tree, tmp_path):
    results.write(lean_tree(attributes={"interrupted": True}), tmp_path / "partial.nc")
    assert "This run was interrupted" in page_of(tmp_path).text


OPTIONAL = (
    *("training", "posterior", "validation", "predictions_uncertainty", "predictions"),
    *(
        f"test/{name}"
        for name in ("pit", "uncertainty", "log_likelihood", "posterior_predictive", "predictive_distribution")
    ),
)


@pytest.mark.parametrize("group", OPTIONAL)
@pytest.mark.usefixtures("without_pictures")
def test_a_group_may_be_missing(full_tree, tmp_path, group):
    tree = full_tree(rows=20, targets=("mu",))
    part, _, name = group.rpartition("/")
    parent = tree[part] if part else tree
    parent.children = {own: node for own, node in parent.children.items() if own != name}
    results.write(tree, tmp_path / "results.nc")
    page_of(tmp_path / "results.nc")


def test_the_least_that_a_run_can_hold(run_arrays, tmp_path):
    run = run_arrays()
    tree = trees.tree(observed=run["observed"], predictive_mean=run["predictive_mean"])
    results.write(tree, tmp_path / "results.nc")
    page = page_of(tmp_path)
    assert page.sections == ["summary", "scores", "predictions", "runs", "data"]
    assert "run on unnamed data" in page.text


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no"):
        report(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has no finished run"):
        report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_failures(tmp_path):
    (tmp_path / "ew" / "seed-0").mkdir(parents=True)
    (tmp_path / "ew" / "seed-0" / "error.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match="failed: ew/seed-0"):
        report(tmp_path)


def test_a_run_without_scored_rows(tmp_path, run_arrays):
    run = run_arrays()
    tree = results.to_datatree({}, {}, training=run["training"], tasks=list(run["observed"]))
    results.write(tree, tmp_path / "results.nc")
    with pytest.raises(ValueError, match="no scored rows"):
        report(tmp_path)


def test_two_folders_of_one_method(lean_tree, tmp_path):
    for name in ("a", "b"):
        results.write(lean_tree(method="ew"), tmp_path / name / "seed-0" / "results.nc")
    with pytest.raises(ValueError, match="b/seed-0 and a/seed-0 both hold results of 'ew'"):
        report(tmp_path)


def test_a_damaged_file_is_named(folder):
    source = folder(splits=1)
    (source / "ew" / "split-0-seed-0" / "results.nc").write_bytes(b"no")
    with pytest.raises(results.ResultsFileError, match="ew/split-0-seed-0/results.nc"):
        report(source)


def test_another_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"\.html, and .*x\.pdf was given"):
        report(tmp_path, tmp_path / "x.pdf")


@pytest.mark.usefixtures("without_pictures")
def test_splits_are_in_the_order_of_their_numbers(lean_tree, tmp_path):
    for k in (0, 2, 10):
        results.write(lean_tree(method="ew", seed=k), tmp_path / "ew" / f"seed-{k}" / "results.nc")
    reading = read_source(tmp_path)
    assert [(run.place, run.split) for run in reading.runs] == [("seed-0", 0), ("seed-2", 1), ("seed-10", 2)]


# ---- Where it runs ---------------------------------------------------------------------------------------------------


def test_the_command_runs_without_torch(folder, tmp_path):
    pytest.importorskip("typer")
    source = folder({"stl": 0.3}, splits=1, targets=("mu",))
    # Not None in sys.modules: scipy looks there for a torch that others have imported.
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'torch', 'pyro', 'lightning', 'torchmetrics', 'gpytorch', 'arviz'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = ['bmtl', 'report', {str(source)!r}]\n"
        "from bmtl.cli import main\n"
        "main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "report.html" in "".join(ran.stdout.split())  # a narrow terminal breaks the line
    check((source / "report.html").read_text(encoding="utf-8"))


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium to open the page in")
def test_a_browser_sorts_the_tables_and_fetches_nothing(folder, tmp_path):
    command = {"command": f"bmtl compare csv:{'a' * 300}.csv {'-d b=c ' * 60}"}  # wider than a page
    file = report(
        folder({"stl": 0.3, "ew": 0.5, "nash-mtl": 0.1}, splits=1, targets=("mu",), attributes=command),
        tmp_path / "page.html",
    )
    # A click on the second column of the first table, twice: descending. Then the page says what it sees.
    script = (
        "<script>addEventListener('load', () => { const t = document.querySelector('table.sortable');"
        "const b = t.tHead.rows[0].cells[1].querySelector('button'); b.click(); b.click();"
        "let seen = [...t.tBodies[0].rows].map(r => r.cells[0].textContent).join() + ';' +"
        "performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length + ';' +"
        "[...document.querySelectorAll('.picture svg')].every(i => i.getBoundingClientRect().height > 50) + ';' +"
        "(document.documentElement.scrollWidth <= innerWidth) + ';';"
        # The pointer on the last point of a curve says its name and the end of the steps.
        "const c = document.querySelector('[aria-label=\"Losses over the steps\"] .curve'); const p = pointsOf(c).at(-1);"
        "const m = new DOMPoint(...p).matrixTransform(c.ownerSVGElement.getScreenCTM());"
        "c.dispatchEvent(new PointerEvent('pointermove', {clientX: m.x, clientY: m.y, bubbles: true}));"
        "seen += hover.hidden + ';' + hover.textContent.split('\\n').slice(0, 2).join();"
        "parent.postMessage(innerWidth + ';' + seen, '*'); });</script></body>"
    )
    file.write_text(file.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    # A wide page and a phone's in one start of the browser, which takes most of the time.
    frames = [
        f'<iframe src="{file.as_uri()}" width="{width}" height="900" style="border: 0"></iframe>'
        for width in (1280, 390)
    ]
    listen = (
        "<script>addEventListener('message', (event) => { const p = document.createElement('p');"
        "p.textContent = event.data; document.body.append(p); });</script>"
    )
    both = tmp_path / "both.html"
    both.write_text(f"<!DOCTYPE html><body>{listen}{''.join(frames)}</body>", encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    chrome = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", profile, "--virtual-time-budget=10000"]
    ran = subprocess.run([*chrome, "--dump-dom", both.as_uri()], capture_output=True, text=True, check=True, timeout=60)
    seen = dict(text.split(";", 1) for text in re.findall("<p>(.*?)</p>", ran.stdout))
    assert set(seen) == {"1280", "390"}
    for said in seen.values():
        # stl has no change against itself: last in either direction. 0 requests, all pictures there, no sideways scroll.
        assert said.startswith("ew,nash-mtl,stl;0;true;true;false;stl,x: ")
        assert float(said.rpartition("x: ")[2]) == pytest.approx(3, abs=0.02)
