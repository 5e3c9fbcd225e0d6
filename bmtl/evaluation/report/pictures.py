"""Which pictures the trees allow, each with words that say how to read it."""

from collections.abc import Iterator
from functools import partial

import xarray as xr

from bmtl.evaluation import plots
from bmtl.evaluation.history import has, recorded
from bmtl.evaluation.metrics.labelled import targets_of
from bmtl.evaluation.relatedness import relating
from bmtl.evaluation.report.figures import Picture
from bmtl.evaluation.report.shown import Trees, first_ones, with_group, with_values
from bmtl.evaluation.scores import kinds_of

MOST_MATRICES = 3  # runs whose gradients are shown pair by pair
MOST_RELATED = 24  # tasks of a heat map whose cells can be told apart
MOST_ALONE = 4  # targets with a picture of their own


def of_training(trees: Trees) -> Iterator[Picture]:
    """Losses and weights over the steps."""
    losing = {name: tree for name, tree in trees.items() if has(tree, "losses")}
    if losing:
        tasks, note = first_ones(_tasks(losing, "losses"), "tasks")
        yield Picture(
            "Losses over the steps",
            "Training loss of each task, a line a method; lower is better within a panel, as far as methods train on "
            f"the same loss. Methods whose loss can be negative have an axis of their own at the right.{note}",
            lambda: plots.loss_curves(losing, tasks=tasks),
        )
    weighing = {name: tree for name, tree in trees.items() if has(tree, "weights")}
    if weighing:
        yield Picture(
            "Weights over the steps",
            "How much each task counts in the update of the shared parameters, a panel a method and a line a task. "
            "Flat lines at one height are equal weights.",
            lambda: plots.weights_over_time(weighing),
        )


def of_conflicts(trees: Trees) -> Iterator[Picture]:
    """How the tasks' gradients lay to each other, for runs that measured it."""
    measured = {
        name: tree for name, tree in trees.items() if has(tree, "cosine") and len(_tasks({name: tree}, "cosine")) > 1
    }
    chosen, note = first_ones(list(measured), "methods that compared gradients", MOST_MATRICES)
    for name in chosen:
        tree = measured[name]
        yield Picture(
            f"Conflicts of tasks: {name}",
            "Mean cosine between the gradients of each pair of tasks, where red pairs pull in one direction and blue "
            "ones against each other; and the share of the measured steps at which they pointed against each other, of "
            f"which gradients without any relation show one half.{note}",
            partial(plots.cosine_matrix, tree),
            [partial(plots.conflict_matrix, tree)],
        )
    if measured:
        yield Picture(
            "Cosines over the steps",
            "Moving average of the cosine between the gradients of a pair of tasks, a line a method. Below the line at "
            "zero the two conflict.",
            lambda: plots.cosine_curves(measured),
        )
    for array, title, caption, draw in (
        (
            "projection",
            "The worst-served task",
            "Least cosine of any task's gradient with the update of the shared parameters. Below zero the update "
            "raises some task's loss, to first order.",
            plots.projection_curves,
        ),
        (
            "fidelity",
            "Fidelity of cheap gradients",
            "Cosine of the update with the one that full gradients would give; 1 says that the cheaper geometry costs "
            "nothing.",
            plots.fidelity_curves,
        ),
    ):
        recording = {name: tree for name, tree in trees.items() if has(tree, array)}
        if recording:
            yield Picture(title, caption, partial(draw, recording))


def of_relatedness(trees: Trees) -> Iterator[Picture]:
    """What the tasks' priors are made of, for models that make them of each other's posteriors."""
    having = {
        name: tree for name, tree in trees.items() if relating(tree) and len(tree["posterior"]["task"]) <= MOST_RELATED
    }
    chosen, note = first_ones(list(having), "methods whose priors come from other tasks", MOST_MATRICES)
    for name in chosen:
        drawing = [partial(plots.relatedness_matrix, having[name], latent=latent) for latent in relating(having[name])]
        yield Picture(
            f"Which tasks are related: {name}",
            "Share of each source in each task's prior, of the classifiers w or the representations z: mean over the draws, "
            "and the interval that holds 95 % of them. Rows sum to one; the anchor is the part that knows of no task. A "
            f"large share says that a source's posterior is near, which is no correlation.{note}",
            drawing[0],
            drawing[1:],
        )


def of_regressions(trees: Trees) -> Iterator[Picture]:
    """Whether the intervals of regressions hold what they promise."""
    having = with_group(trees, "pit", "observed_data")
    targets, note = first_ones(with_values(having, "pit"))
    if targets:
        yield Picture(
            "Coverage of predictive intervals",
            "Share of test labels inside the central predictive interval of each nominal level. On the diagonal "
            "intervals hold what they promise, above it they are too wide, below it too narrow; the band is what a "
            f"calibrated predictive shows by chance.{note}",
            lambda: plots.reliability_curves(having, tasks=targets),
        )


def of_predictive_ranks(name: str, tree: xr.DataTree) -> Iterator[Picture]:
    """PIT plots of a run's first targets."""
    if "posterior_predictive" not in tree.children:
        return
    kinds = kinds_of(tree)
    regressions = [t for t in with_values({name: tree}, "posterior_predictive") if kinds[t] == "regression"]
    targets, note = first_ones(regressions, most=MOST_ALONE)
    if targets:
        drawing = [partial(plots.pit_plot, tree, target) for target in targets]
        yield Picture(
            f"Ranks of the labels: {name}",
            "Where the labels lie among the predictive draws, as the difference between their ranks' distribution and "
            f"the uniform one. A calibrated predictive stays inside the band.{note}",
            drawing[0],
            drawing[1:],
        )


def of_classes(trees: Trees) -> Iterator[Picture]:
    """What class probabilities are worth."""
    having = with_group(trees, "probability", "observed_data")
    everything = with_values(having, "probability")
    targets, note = first_ones(everything)
    if not targets:
        return
    yield Picture(
        "Reliability diagrams",
        "Share of right predictions against confidence, in ten bins. On the diagonal confidence is what it says, below "
        "it predictions are over-confident; bars are 95 % intervals of a bin, the lower panels say how many rows it "
        f"has.{note}",
        lambda: plots.reliability_diagrams(having, tasks=targets),
    )
    few, told = first_ones(everything, most=max(1, 24 // len(having)))
    yield Picture(
        "Entropies of right and wrong predictions",
        "Predictive entropy of right and of wrong predictions, each as shares of their number; dashed lines are the "
        f"means. Where the entropy knows the errors, wrong predictions are to the right.{told}",
        lambda: plots.entropy_histograms(having, tasks=few),
    )


def of_uncertainty(trees: Trees) -> Iterator[Picture]:
    """Whether a run's uncertainty knows its errors."""
    having = {
        name: tree
        for name, tree in with_group(trees, "uncertainty", "observed_data").items()
        if "predictive_mean" in tree.children or "probability" in tree.children
    }
    targets, note = first_ones(with_values(having, "uncertainty", "total"))
    if targets:
        yield Picture(
            "Risk of the rows kept",
            "Error of the rows that remain when the most uncertain ones are left out: error rate of a classification, "
            "mean absolute error of a regression. A curve that falls to the left says that the uncertainty knows the "
            f"errors; the faint line is the least that any order of the rows would have.{note}",
            lambda: plots.risk_coverage_curves(having, tasks=targets),
        )


def of_outsiders(trees: Trees) -> Iterator[Picture]:
    """Uncertainty of rows in distribution against rows out of it."""
    having = with_group(trees, "uncertainty", "predictions_uncertainty")
    known = with_values(having, "predictions_uncertainty", "total")
    both = [target for target in known if all(_both_sides(tree, target) for tree in having.values())]
    targets, note = first_ones(both, most=MOST_ALONE)
    if targets:
        drawing = [partial(plots.ood_densities, having, target) for target in targets]
        yield Picture(
            "Uncertainty in and out of distribution",
            "Densities of the log epistemic uncertainty of test rows and of rows from elsewhere. The further apart the "
            f"two, the better the uncertainty tells them; an AUROC of 0.5 tells nothing.{note}",
            drawing[0],
            drawing[1:],
        )


def _both_sides(tree: xr.DataTree, target: str) -> bool:
    groups = [tree[name].data_vars for name in ("uncertainty", "predictions_uncertainty")]
    name = f"epistemic_{target}"
    return target in targets_of(tree) and all(name in group and group[name].size for group in groups)


def _tasks(trees: Trees, array: str) -> list[str]:
    found = (recorded(tree, array) for tree in trees.values())
    return list(dict.fromkeys(str(task) for record in found if record is not None for task in record["task"].values))
