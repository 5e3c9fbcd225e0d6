"""The parts of a results tree, read back: which node they are, and each target's rows as `Scored`.

The root's own groups are those of the rows that the posterior was conditioned on ("train"), if the run drew them; labelled
rows of other parts are in the subtrees ``test``, ``validation`` and ``ood``. What judges a run reads "test" unless it is
given another part: ``mae(tree)`` is the test rows' and ``mae(tree["validation"])`` the validation rows'.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bmtl.evaluation.constants import ReportedTarget, targets_from
from bmtl.evaluation.groups import GROUPS, UNCERTAINTY
from bmtl.targets.laws import Law
from bmtl.targets.prediction import Prediction
from bmtl.targets.score import Scored

TRAIN = "train"
SUBTREES = ("test", "validation", "ood")
PARTS = (TRAIN, *SUBTREES)
"""Names of the parts with labels."""
PART = "part"  # attribute of a subtree, so that one that was taken out of its tree is still known as a part


def part_of(tree: xr.DataTree, name: str | None = None) -> xr.DataTree:
    """The node that holds the groups of a part.

    Args:
        tree: A run's results tree, or a part of it, which is the answer where no other is requested.
        name: One of `PARTS`; "test" by default, and for "train" the root itself.

    Raises:
        ValueError: If the run has no such part; says which it has.
    """
    if PART in tree.attrs and name in (None, tree.attrs[PART]):
        return tree
    if name is not None and name not in PARTS:
        raise ValueError(f"There is no part {name!r}; the parts of a run are {', '.join(PARTS)}.")
    wanted = name or "test"
    root = tree.root
    if wanted in parts_of(root):
        return root if wanted == TRAIN else root.children[wanted]
    raise ValueError(
        f"The results tree has no rows of the part {wanted!r}; it has {parts_of(root) or 'no part'}. "
        + ("A run draws its training rows where it is asked to: bmtl train does." if wanted == TRAIN else "")
    )


def parts_of(tree: xr.DataTree) -> list[str]:
    """Names of the parts that a run has labelled rows of."""
    trained = [TRAIN] if "observed_data" in tree.children else []
    return trained + [name for name in SUBTREES if name in tree.children]


def group(tree: xr.DataTree, name: str, part: str | None = None) -> xr.Dataset:
    """A group of a part, or one of the root's own, such as "training".

    Raises:
        ValueError: If the tree was built without it; says what it has.
    """
    node = part_of(tree, part) if name in GROUPS else tree.root
    if name not in node.children:
        where = f"part {node.attrs.get(PART, TRAIN)!r} of the results tree" if name in GROUPS else "results tree"
        raise ValueError(
            f"The {where} has no group {name!r}; it has {list(node.children)}. "
            "Give that group's arrays to to_datatree, or leave out what is computed from it."
        )
    return node.children[name].to_dataset(inherit=False)


def reported_targets(tree: xr.DataTree) -> dict[str, ReportedTarget]:
    """The targets of a run, in the order in which they were given.

    Raises:
        ValueError: If the tree has no ``constant_data``: a part must be read within its run's tree.
    """
    for node in (tree, *tree.parents):
        if "constant_data" in node.children:
            return targets_from(node.children["constant_data"].to_dataset(inherit=False))
    raise ValueError(
        "The tree has no group 'constant_data', which says what its targets are. Pass the run's tree and the part's name, "
        "or the part as a node of that tree, and no copy of it."
    )


def part_targets(tree: xr.DataTree, part: str | None = None) -> list[str]:
    """Names of the targets that a part has rows of, in the order in which targets were given."""
    return [str(name).removeprefix("y_") for name in group(tree, "observed_data", part).data_vars]


def scored(tree: xr.DataTree, part: str | None = None) -> dict[str, Scored]:
    """Each target's labelled rows with what the run says of them, in reported units.

    Args:
        tree: A run's results tree, or a part of it.
        part: Which part; "test" by default.

    Returns:
        Target -> rows; a target without a labelled row has none in its arrays.

    Raises:
        ValueError: If the run has no such part.
    """
    reader = PartReader(tree, part)
    known = reported_targets(tree)
    return {
        name: Scored(
            reader.labels(name), reader.prediction(name), known[name].family, known[name].scaler, reader.whole(name)
        )
        for name in reader.targets
    }


class PartReader:
    """Reads arrays of a part's groups by target, without an array of xarray's for each.

    Args:
        tree: A run's results tree, or a part of it.
        part: Which part; "test" by default.
    """

    def __init__(self, tree: xr.DataTree, part: str | None = None) -> None:
        node = part_of(tree, part)
        self.groups: dict[str, Mapping[str, xr.Variable]] = {
            name: node.children[name].to_dataset(inherit=False).variables  # type: ignore[misc]
            for name in GROUPS
            if name in node.children
        }
        self.targets = [name.removeprefix("y_") for name in self.groups["observed_data"] if name.startswith("y_")]
        self._laws: dict[str, dict[str, xr.Variable]] = {}
        for name, variable in self.groups.get("predictive_distribution", {}).items():
            parameter = variable.attrs["parameter"]  # both it and the target may hold underscores
            target = variable.attrs.get("target", name.removeprefix(f"{parameter}_"))
            self._laws.setdefault(target, {})[parameter] = variable

    def labels(self, target: str) -> np.ndarray:
        """Labels ``(N, ...)``."""
        return self.groups["observed_data"][f"y_{target}"].values

    def numbers(self, target: str) -> np.ndarray:
        """Numbers of the rows ``(N,)`` in the table that they are from."""
        return self.groups["observed_data"][f"obs_{target}"].values

    def whole(self, target: str) -> dict[str, float]:
        """Scores of all rows, where the part holds a sample of them; none where it holds all."""
        group = self.groups.get("whole_scores", {})
        if f"score_{target}" not in group:
            return {}
        scores = group[f"score_{target}"]
        names = group[str(scores.dims[0])].values
        return dict(zip(map(str, names), map(float, scores.values), strict=True))

    def prediction(self, target: str) -> Prediction:
        """The run's predictions for the rows."""
        values = self._values
        draws = values("posterior_predictive", target)
        rows = len(self.labels(target))
        return Prediction(
            draws=np.empty((0, rows)) if draws is None else draws,
            mean=values("predictive_mean", target),
            probability=values("probability", target),
            law=self._law(target),
            **{part: values("uncertainty", target, part) for part in UNCERTAINTY if part != "total"},
            log_likelihood=values("log_likelihood", target),
            pit=values("pit", target),
        )

    def _values(self, group: str, target: str, prefix: str = "y") -> np.ndarray | None:
        variable = self.groups.get(group, {}).get(f"{prefix}_{target}")
        if variable is None:
            return None
        if "draw" in variable.dims:
            ordered = variable.transpose("chain", "draw", ...)
            draws = ordered.shape[0] * ordered.shape[1]  # and not -1, which no rows leave open
            return ordered.values.reshape(draws, *ordered.shape[2:])
        return variable.values

    def _law(self, target: str) -> Law | None:
        if target not in self._laws:
            return None
        parameters = {}
        for parameter, variable in self._laws[target].items():
            values = variable.values
            values = values if "component" in variable.dims else values[None]
            parameters[parameter] = values if f"obs_{target}" in variable.dims else values[:, None]
        return Law(next(iter(self._laws[target].values())).attrs["law"], parameters)
