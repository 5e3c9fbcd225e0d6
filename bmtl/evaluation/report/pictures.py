"""Which pictures the trees allow, each with a caption that says how to read it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bmtl.evaluation import plots
from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.changes import gains
from bmtl.evaluation.compared import references_of
from bmtl.evaluation.history import has, recorded
from bmtl.evaluation.images import images_of
from bmtl.evaluation.ood import uncertainties
from bmtl.evaluation.parts import part_of, part_targets, reported_targets, scored
from bmtl.evaluation.relatedness import relating
from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.report.figures import Picture
from bmtl.evaluation.report.ood import with_both_sides
from bmtl.evaluation.report.shown import Trees, first_ones, pages, with_group, with_values
from bmtl.targets.score import Scored

MOST_MATRICES = 3  # runs whose gradients are shown pair by pair
MOST_RELATED = 24  # tasks of a heat map whose cells can be read
MOST_ALONE = 4  # targets with a picture of their own


def of_predictions(name: str, tree: xr.DataTree) -> Iterator[Picture]:
    """Predictions of a run next to the labels: points of numbers, confusion matrices of classes."""
    numbers, note = first_ones(plots.point_targets(tree))
    if numbers:
        yield Picture(
            f"Observed against predicted: {name}",
            "A dot a test row: on the diagonal the prediction is right. Below, the residuals (observed less predicted) "
            "against the prediction; their dashed mean is 0 where predictions are right on average, and a slope or a fan "
            f"says where they are not. Of many rows 200 are drawn.{note}",
            partial(plots.observed_against_predicted, {name: tree}, tasks=numbers),
        )
    classes, note = first_ones(plots.class_targets(tree))
    if classes:
        yield Picture(
            f"Confusion of classes: {name}",
            "Share of the test rows of each label by predicted class; rows sum to 100 %. The number of rows is next to the "
            f"label. Off the diagonal is what is taken for something else.{note}",
            partial(plots.confusion_matrices, {name: tree}, tasks=classes),
        )


def of_gains(comparison: xr.Dataset) -> Iterator[Picture]:
    """Change of each target's error against the baseline in percent, with intervals."""
    baseline = decode_attributes(comparison).get("baseline")
    if baseline is None or comparison.sizes["learner"] < 2:
        return
    found = gains(comparison, baseline)
    tasks, note = first_ones([str(task) for task in found["task"].values])
    if tasks:
        repeats = Repeats.of(comparison)
        if repeats.runs > 1:
            read = f"the bar its 95 % interval over {repeats.nouns}; a filled dot's excludes 0. {repeats.interval()}"
        else:
            read = "of one run, which has no interval."
        yield Picture(
            f"Gain on each target against {baseline}",
            f"Relative change of the error in percent, all panels on one axis: left of 0 a method is better than "
            f"{baseline}. An arrow is a method outside the axis, with its value. The dot is the mean, {read}{note}",
            partial(plots.gains_by_task, found, over=repeats.noun, tasks=tasks, references=references_of(comparison)),
        )


def of_labels(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Picture]:
    """Number of labels of each target."""
    if any(counts.values()):
        yield Picture(
            "Labels of each target",
            "Number of labelled rows in each part of the data. A target with few training labels is where other targets can "
            "help most; one with few test labels has scores that are uncertain.",
            partial(plots.label_counts, counts),
        )


def of_training(trees: Trees) -> Iterator[Picture]:
    """Losses and weights over the steps."""
    validated = {name: tree for name, tree in trees.items() if has(tree, "validation_losses")}
    if validated:
        tasks, note = first_ones(_tasks(validated, "validation_losses"), "tasks")
        yield Picture(
            "Training and validation",
            "Loss of each task on the validation rows after each epoch (strong) and on the training rows (faint). Where "
            "validation rises while training falls, a method overfits; the kept epoch is the one with the best validation "
            "score over all tasks, unless the run says otherwise, and a task may have its own best elsewhere. Methods whose "
            f"loss can be negative have an axis of their own at the right.{note}",
            lambda: plots.validation_curves(validated, tasks=tasks),
        )
    losing = {name: tree for name, tree in trees.items() if has(tree, "losses")}
    if losing:
        tasks, note = first_ones(_tasks(losing, "losses"), "tasks")
        yield Picture(
            "Losses over the steps",
            "Training loss of each task, a line a method; lower is better within a panel, as far as methods train on "
            f"the same loss. Methods whose loss can be negative have an axis of their own at the right.{note}",
            lambda: plots.loss_curves(losing, tasks=tasks),
        )
    weighing = {name: tree for name, tree in trees.items() if len(_tasks({name: tree}, "weights")) > 1}
    if weighing:
        yield Picture(
            "Weights over the steps",
            "How much each task counts in the update of the shared parameters, a panel a method and a line a task. "
            "Flat lines at one height are equal weights.",
            lambda: plots.weights_over_time(weighing),
        )


def of_conflicts(trees: Trees) -> Iterator[Picture]:
    """Directions of the tasks' gradients relative to each other, for runs that measured them."""
    measured = {
        name: tree for name, tree in trees.items() if has(tree, "cosine") and len(_tasks({name: tree}, "cosine")) > 1
    }
    chosen, note = first_ones(list(measured), "methods that compared gradients", MOST_MATRICES)
    for name in chosen:
        tree = measured[name]
        yield Picture(
            f"Conflicts of tasks: {name}",
            "Mean cosine between the gradients of each pair of tasks, where red pairs pull in one direction and blue "
            "ones against each other; and the share of the measured steps at which they pointed against each other; "
            f"for unrelated gradients this is one half.{note}",
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
            "Cosine of the update with the one that full gradients would give; at 1 the cheaper geometry has "
            "the same direction.",
            plots.fidelity_curves,
        ),
    ):
        recording = {name: tree for name, tree in trees.items() if has(tree, array)}
        if recording:
            yield Picture(title, caption, partial(draw, recording))


def of_relatedness(trees: Trees) -> Iterator[Picture]:
    """The components of the tasks' priors, for models that build them from each other's posteriors."""
    having = {
        name: tree for name, tree in trees.items() if relating(tree) and len(tree["posterior"]["task"]) <= MOST_RELATED
    }
    chosen, note = first_ones(list(having), "methods whose priors come from other tasks", MOST_MATRICES)
    for name in chosen:
        drawing = [partial(plots.relatedness_matrix, having[name], latent=latent) for latent in relating(having[name])]
        yield Picture(
            f"Which tasks are related: {name}",
            "Share of each source in each task's prior, of the classifiers w or the representations z: mean over the draws, "
            "and the interval that holds 95 % of them. Rows sum to one; the anchor is the part that depends on no task. A "
            f"large share means that a source's posterior is near; it is no correlation.{note}",
            drawing[0],
            drawing[1:],
        )


def of_margins(trees: Trees) -> Iterator[Picture]:
    """Whether the mean predictive has the labels' distribution, for each family of targets in its own way."""
    targets, note = first_ones(plots.marginal_targets(trees))
    if targets:
        yield Picture(
            "Distributions of labels and predictions",
            "Distribution of the labels and the mean predictive of each method: cdfs of numbers, shares of "
            "counts and classes, survival curves of times (Kaplan-Meier, with its 95 % band). A calibrated method follows "
            f"the labels; one that does so may still be wrong row by row.{note}",
            lambda: plots.marginal_calibration(trees, tasks=targets),
        )


def of_intervals(trees: Trees) -> Iterator[Picture]:
    """Whether central predictive intervals hold as many labels as they should."""
    found = _judged(trees)
    having = {name: trees[name] for name, tasks in found.items() if tasks}
    shown, note = pages(list(dict.fromkeys(task for tasks in found.values() for task in tasks)))
    if shown:
        drawing = [partial(plots.reliability_curves, having, tasks=tasks) for tasks in shown]
        yield Picture(
            "Coverage of predictive intervals",
            "Share of test labels inside the central predictive interval of each nominal level. On the diagonal intervals "
            "are calibrated, above it too wide, below it too narrow; the band is what a calibrated predictive shows by "
            f"chance. Counts and censored labels have randomised PIT values.{note}",
            drawing[0],
            folded=_folded(shown, drawing),
        )


def of_pit(trees: Trees) -> Iterator[Picture]:
    """Distribution of the labels' places in their predictives, of targets that are numbers."""
    found = _judged(trees)
    having = {name: trees[name] for name, tasks in found.items() if tasks}
    targets, note = first_ones(list(dict.fromkeys(task for tasks in found.values() for task in tasks)))
    if targets:
        yield Picture(
            "Places of the labels in their predictives",
            "Predictive cdf at each label (PIT), as the difference between its distribution and the uniform one. A "
            "calibrated predictive stays inside the band. A wave up and then down: predictives are too narrow; down and "
            f"then up: too wide; above zero throughout: predictions are too large.{note}",
            lambda: plots.pit_deviations(having, tasks=targets),
        )


def of_classes(trees: Trees) -> Iterator[Picture]:
    """How good class probabilities are."""
    having = with_group(trees, "probability", "observed_data")
    everything = with_values(having, "probability")
    shown, note = pages(everything)
    if not shown:
        return
    drawing = [partial(plots.reliability_diagrams, having, tasks=tasks) for tasks in shown]
    yield Picture(
        "Reliability diagrams",
        "Share of right predictions against confidence, in ten bins. On the diagonal confidence is calibrated, below it "
        "predictions are overconfident; bars are 95 % intervals of a bin, the lower panels give its share of the rows."
        f"{note}",
        drawing[0],
        folded=_folded(shown, drawing),
    )
    few, said = first_ones(everything, most=max(1, 24 // len(having)))
    yield Picture(
        "Entropies of right and wrong predictions",
        "Predictive entropy of right and of wrong predictions, each as shares of their number; dashed lines are the "
        f"means. Where the entropy predicts the errors, wrong predictions are to the right.{said}",
        lambda: plots.entropy_histograms(having, tasks=few),
    )
    two = {task for tree in having.values() for task, rows in scored(tree).items() if _two_classes(rows)}
    targets_of_two, said = first_ones([task for task in everything if task in two])
    if targets_of_two:
        yield Picture(
            "ROC and precision-recall curves",
            "Of the second class, with the area under each curve. Dashed: probabilities without information. Where the "
            f"event is rare, the second picture says more than the first.{said}",
            lambda: plots.roc_curves(having, tasks=targets_of_two),
            [lambda: plots.roc_curves(having, curve="precision-recall", tasks=targets_of_two)],
        )


def of_uncertainty(trees: Trees) -> Iterator[Picture]:
    """How large uncertainties are and of what kind, and whether they predict errors."""
    shares = {name: plots.uncertainty_shares(tree) for name, tree in with_group(trees, "uncertainty").items()}
    sized = {name: trees[name] for name, of in shares.items() if of.sizes["task"]}
    targets, note = first_ones(list(dict.fromkeys(str(t) for of in shares.values() for t in of["task"].values)))
    if targets:
        yield Picture(
            "Aleatoric against epistemic uncertainty",
            "Mean uncertainty in units of what errors show: variances over the mean squared error, entropies of classes "
            "over the mean negative log probability. A bar up to the line at 1 is calibrated on average; a shorter one is "
            "too certain. Solid: aleatoric, which more data would not remove; hatched: epistemic, which a method without a "
            f"posterior does not have.{note}",
            lambda: plots.uncertainty_parts(sized, tasks=targets),
        )
    having = with_group(trees, "uncertainty", "observed_data")
    losing = {
        task
        for tree in having.values()
        for task, rows in scored(tree).items()
        if len(rows.labels) and rows.losses() is not None
    }
    targets, note = first_ones([task for task in with_values(having, "uncertainty", "total") if task in losing])
    if targets:
        yield Picture(
            "Risk of the rows kept",
            "Mean loss of the rows that remain when the most uncertain ones are left out: error rate of classes, mean "
            "absolute error of numbers and ranks. Where the uncertainty predicts the errors, a curve falls to the left; the "
            f"faint line is the least that any order of the rows would have.{note}",
            lambda: plots.risk_coverage_curves(having, tasks=targets),
        )


def of_images(name: str, tree: xr.DataTree) -> Iterator[Picture]:
    """A few predicted images of a run, next to their labels."""
    part = part_of(tree)
    images = images_of(part)
    if images:
        families = {target: known.family for target, known in reported_targets(part).items()}
        yield Picture(
            f"Predicted images: {name}",
            "Image, label, prediction, error and uncertainty of each target. Label and prediction have the same colours: a "
            "colour a class; numbers from dark to bright; vectors by direction (hue) and length; directions in space by "
            "their components. Errors (wrong class; absolute; length; angle) and uncertainties (entropy; deviation) run "
            "from dark to bright, each on its own scale: where the uncertainty predicts the error, the two look alike. "
            "White pixels have no label.",
            lambda: plots.image_maps(images, families),
        )


def of_outsiders(trees: Trees) -> Iterator[Picture]:
    """Uncertainty of rows in distribution against rows out of it."""
    having = with_both_sides(trees)
    known = with_values(having, "uncertainty", "epistemic")
    both = [target for target in known if all(all(map(len, _both(tree, target))) for tree in having.values())]
    targets, note = first_ones(both, most=MOST_ALONE)
    if targets:
        drawing = [partial(plots.ood_densities, having, target) for target in targets]
        yield Picture(
            "Uncertainty in and out of distribution",
            "Densities of the log epistemic uncertainty of test rows and of rows from elsewhere. The further apart the two, "
            f"the better the uncertainty detects those from elsewhere; an AUROC of 0.5 is chance.{note}",
            drawing[0],
            drawing[1:],
        )


def _judged(trees: Trees) -> dict[str, list[str]]:
    """Run -> its targets with a predictive cdf at each label."""
    return {
        name: [task for task, rows in scored(tree).items() if len(rows.labels) and rows.pit() is not None]
        for name, tree in trees.items()
    }


def _folded(
    shown: Sequence[Sequence[str]], drawing: Sequence[Callable[[], Figure]]
) -> list[tuple[str, Callable[[], Figure]]]:
    """The pictures after the first, with the targets that they show."""
    pairs = list(zip(shown, drawing, strict=True))[1:]
    return [(f"{tasks[0]} to {tasks[-1]}" if len(tasks) > 1 else tasks[0], draw) for tasks, draw in pairs]


def _both(tree: xr.DataTree, target: str) -> tuple[np.ndarray, np.ndarray]:
    return uncertainties(tree, target) if target in part_targets(tree) else (np.zeros(0), np.zeros(0))


def _two_classes(rows: Scored) -> bool:
    p = rows.prediction.probability
    return p is not None and p.shape[1:] == (2,) and len(np.unique(rows.labels)) == 2


def _tasks(trees: Trees, array: str) -> list[str]:
    found = (recorded(tree, array) for tree in trees.values())
    return list(dict.fromkeys(str(task) for record in found if record is not None for task in record["task"].values))
