"""How well uncertainty detects rows from elsewhere, as a table."""

from bmtl.evaluation.ood import detection
from bmtl.evaluation.report.markup import Markup, number, table
from bmtl.evaluation.report.score_tables import count
from bmtl.evaluation.report.shown import Trees, groups_in, with_group

RESAMPLES = 200  # for an interval to be read, not published


def with_both_sides(trees: Trees) -> Trees:
    """The runs that have uncertainties of test rows and of rows from elsewhere."""
    return {
        name: tree
        for name, tree in with_group(trees, "observed_data", "uncertainty").items()
        if "predictions_uncertainty" in tree.children or "uncertainty" in groups_in(tree, "ood")
    }


def detected(trees: Trees) -> Markup:
    """AUROC and false alarms of the epistemic uncertainty, by method and target; nothing without rows from elsewhere."""
    rows = []
    for method, tree in with_both_sides(trees).items():
        found = detection(tree, scores=["epistemic"], resamples=RESAMPLES).isel(score=0)
        for task in found["task"].values.tolist():
            one = found.sel(task=task)
            if not int(one["rows_in"]) or not int(one["rows_out"]):
                continue
            low, high = number(float(one["auroc_low"])), number(float(one["auroc_high"]))
            rows.append(
                [
                    method,
                    task,
                    count(int(one["rows_in"])),
                    count(int(one["rows_out"])),
                    number(float(one["auroc"])),
                    f"{low.text} to {high.text}",
                    number(float(one["aupr_out"])),
                    number(float(one["fpr95"])),
                ]
            )
    if not rows:
        return Markup()
    return table(
        [
            "method",
            "target",
            "rows inside",
            "rows outside",
            "AUROC ↑",
            "95 % interval",
            "average precision ↑",
            "FPR95 ↓",
        ],
        rows,
        "Detection of rows out of distribution among test rows by the epistemic uncertainty. FPR95: share of test rows that "
        "are taken for out-of-distribution ones at the threshold that catches 95 % of those. Interval: bootstrap over rows, "
        f"{RESAMPLES} resamples.",
    )
