"""Comparisons at several shares of the labels: what multi-task learning gains when labels are scarce."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes, encode_attributes
from bmtl.evaluation.changes import relative_changes
from bmtl.evaluation.compared import REFERENCE
from bmtl.evaluation.results import provenance
from bmtl.evaluation.statistics import mean_and_error
from bmtl.evaluation.tables import listed
from bmtl.evaluation.text_tables import entry


def by_label_share(comparisons: Mapping[float, xr.Dataset]) -> xr.Dataset:
    """The change against the baseline of several comparisons along one dimension.

    Args:
        comparisons: Share of the labels -> a comparison, from `comparison.compare`, of the same learners and targets with
            one baseline.

    Returns:
        ``delta_m (share, learner, split)`` in percent and ``change (share, learner, split, task)``, the relative change of
        each target's primary score in percent; negative is better. ``counted`` has the shape of ``change`` and is False
        where it has no value and is left out of means: a run is not there, or the labels give the score none (an AUROC of
        one class alone). Shares are in the order given.

    Raises:
        ValueError: If the learners, targets or baselines differ, or there is no baseline.
    """
    if not comparisons:
        raise ValueError("There is no comparison to join.")
    first, *others = comparisons.values()
    baseline = decode_attributes(first).get("baseline")
    if not baseline:
        raise ValueError("The comparisons have no baseline that a change could be taken against.")
    for other in others:
        for what in ("learner", "task"):
            if other[what].values.tolist() != first[what].values.tolist():
                raise ValueError(
                    f"The comparisons differ in their {what}s: {first[what].values.tolist()} and "
                    f"{other[what].values.tolist()}."
                )
        if decode_attributes(other).get("baseline") != baseline:
            raise ValueError(f"The baselines differ: {baseline!r} and {decode_attributes(other).get('baseline')!r}.")
    joined = [_changes(one, baseline) for one in comparisons.values()]
    stacked = {
        name: (("share", *joined[0][name].dims), np.stack([one[name].values for one in joined])) for name in joined[0]
    }
    coords = {"share": list(comparisons), **{name: joined[0][name] for name in joined[0].coords}}
    return xr.Dataset(stacked, coords, attrs=encode_attributes({**provenance(), "baseline": baseline}))


def _changes(compared: xr.Dataset, baseline: str) -> xr.Dataset:
    found = relative_changes(compared, baseline)
    delta = compared["delta_m"].transpose("learner", "split").values
    renumbered = found.assign_coords(split=np.arange(found.sizes["split"]))
    return renumbered.assign(delta_m=(("learner", "split"), delta))


def share_table(changes: xr.Dataset) -> list[list[str]]:
    """The table of delta_m in text cells: a row per learner, a column per share; mean ± standard error over splits."""
    summary = mean_and_error(changes["delta_m"])
    header = ["delta_m [%] ↓", *(f"{100 * share:g} % of labels" for share in changes["share"].values)]
    rows = [header]
    for learner in changes["learner"].values:
        of = summary.sel(learner=learner)
        cells = [
            "–" if learner == changes.attrs["baseline"] else entry(float(mean), float(error))
            for mean, error in zip(of["mean"].values, of["error"].values, strict=True)
        ]
        rows.append([str(learner), *cells])
    return rows


def conclusion(changes: xr.Dataset) -> str:
    """The conclusions that the splits support, in one sentence per share: the methods that beat the baseline in every split.

    References are left out: they are other models, and no multi-task methods.
    """
    baseline = changes.attrs["baseline"]
    methods = [
        str(name)
        for name, role in zip(changes["learner"].values, changes["role"].values, strict=True)
        if role != REFERENCE and name != baseline
    ]
    sentences = []
    for share in changes["share"].values:
        of = changes["delta_m"].sel(share=share)
        splits = of.sizes["split"]
        ahead = [name for name in methods if bool((of.sel(learner=name) < 0).all())]
        behind = [name for name in methods if bool((of.sel(learner=name) > 0).all())]
        labels = "all labels" if share == 1 else f"{100 * share:g} % of the labels"
        runs = "in the only draw" if splits == 1 else f"in all {splits} draws"
        parts = []
        if ahead:
            parts.append(f"{listed(ahead)} {_have(ahead)} a smaller error than {baseline} {runs}")
        if behind:
            parts.append(
                f"{listed(behind)} {_have(behind)} a larger " + ("one" if ahead else f"error than {baseline} {runs}")
            )
        sentences.append(f"With {labels}, {' and '.join(parts) or 'no method is ahead or behind ' + runs}.")
    return " ".join(sentences)


def left_out(changes: xr.Dataset, share: float) -> str:
    """Targets whose score has no value in some splits of a share, as a sentence; empty where all have one."""
    missing = ~changes["counted"].sel(share=share).any("learner")
    counts = missing.sum("split")
    named = [
        f"{task} in {int(count)} of {missing.sizes['split']}"
        for task, count in zip(counts["task"].values.tolist(), counts.values.tolist(), strict=True)
        if count
    ]
    return f"Left out, since the labels give the score no value: {listed(named)} draws." if named else ""


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"
