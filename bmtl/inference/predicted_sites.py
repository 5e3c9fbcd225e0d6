"""Which targets a program's sites predict, by the sites' names and tasks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from bmtl.inference.site_tasks import task_of_site

SITE = "y"
"""A site of this name predicts its task's target."""

PREFIX = "y_"
"""A site of this name and a target's predicts that target."""

EXPECTED = (
    f"Called with inputs alone, the model must sample a site {PREFIX}<target> for each target, or {SITE} in a task plate or "
    "under bmtl.task(<target>): bmtl.observe does with value None."
)


class SiteTargets(NamedTuple):
    """The targets of a site.

    Attributes:
        names: One, or one for each task of the task plate that the site lies in, or for each component of its vectors.
        dim: Dimension of the task plate, counted from the right of the batch shape; None of a site outside.
        joint: Whether the targets are the components of the site's vectors.
    """

    names: tuple[str, ...]
    dim: int | None = None
    joint: bool = False

    def rows(self, batch: Sequence[int]) -> int | None:
        """Number of rows of each target: the first dimension of a batch shape that is not the task plate's. None without."""
        sizes = list(batch)
        if self.dim is not None:
            del sizes[self.dim]
        return sizes[0] if sizes else None

    def split(self, values: Tensor, event_dims: int = 0) -> list[Tensor]:
        """Values ``(*batch, *event)`` of the site as each target's own."""
        if self.joint:
            return list(values.unbind(-1))
        return [values] if self.dim is None else list(values.unbind(self.dim - event_dims))


def targets_of_site(site: Any) -> SiteTargets | None:
    """The targets that a site predicts by its name; None if it predicts none.

    ``y_depth`` predicts the target "depth". ``y`` predicts the target of its task: each task's own in a task plate, that
    of `bmtl.task`, or a target "y" without either. ``y_height`` in a task plate over ("boys", "girls") predicts
    "height_boys" and "height_girls"; ``<label>/y`` in a task plate with that label is its ``y``. A site of vectors whose
    components are targets names them:

        pyro.sample("y_a+b", dist.MultivariateNormal(...), infer={"components": ("a", "b")})

    Raises:
        ValueError: If the site is in a task plate and under `bmtl.task` at once; if it names another number of components
            than its vectors have.
    """
    if site["type"] != "sample" or site_is_subsample(site):  # a target "y" has the plate "y_rows"
        return None
    label = site.get("task_label")
    name = site["name"] if label is None else site["name"].removeprefix(f"{label}/")
    if name != SITE and not name.startswith(PREFIX):
        return None
    components = tuple(site["infer"].get("components", ()))
    if components:
        shape = tuple(site["fn"].event_shape)
        if shape != (len(components),):
            raise ValueError(
                f"The site {name!r} names the components {components}, and its values have the shape {shape}."
            )
        return SiteTargets(components, joint=True)
    stem = name.removeprefix(PREFIX) if name != SITE else ""
    owner = task_of_site(site)
    if owner.dim is not None:
        return SiteTargets(tuple(f"{stem}_{task}" if stem else task for task in owner.names), owner.dim)
    return SiteTargets((stem or (owner.names[0] if owner.names else SITE),))


def predicted_sites(trace: Trace, given: Mapping[str, Any] | Trace) -> Iterator[tuple[SiteTargets, Any]]:
    """The sites of a model's trace that predict targets: neither observed nor among those that the guide has `given`.

    Raises:
        ValueError: If two sites predict one target.
    """
    found: dict[str, str] = {}
    sites: dict[str, Any] = dict(trace.nodes)
    taken = given.nodes if isinstance(given, Trace) else given
    for name, site in sites.items():
        if name in taken or site["type"] != "sample" or site["is_observed"]:  # deterministic sites count as observed
            continue
        targets = targets_of_site(site)
        if targets is None:
            continue
        for target in targets.names:
            if target in found:
                raise ValueError(
                    f"The sites {found[target]!r} and {name!r} both predict the target {target!r}. Give them names of their "
                    f"own, {PREFIX}<target>."
                )
            found[target] = name
        yield targets, site


def joined_labels(targets: SiteTargets, labels: Mapping[str, Tensor | None], shape: torch.Size, where: str) -> Any:
    """Labels of a site's targets in the site's shape; None if no target has any.

    A target without labels, of a task plate or a vector, gets missing ones.

    Args:
        targets: Of the site.
        labels: Target -> labels of its rows, or None.
        shape: Batch shape of the site.
        where: Names the site in messages.

    Raises:
        ValueError: If targets of one site have labels of different shapes or types.
    """
    own = {name: labels[name] for name in targets.names if labels.get(name) is not None}
    if not own or (targets.dim is None and not targets.joint):
        return own.get(targets.names[0])
    given: dict[str, Tensor] = {name: value for name, value in own.items() if value is not None}
    first = next(iter(given.values()))
    if any(value.shape != first.shape or value.dtype != first.dtype for value in given.values()):
        found = {name: (*value.shape, str(value.dtype)) for name, value in given.items()}
        raise ValueError(
            f"{where}: the tasks of one site have labels of one shape and type, and {found} were given. Pad shorter tasks "
            "with missing labels (NaN, or -1 for classes)."
        )
    absent = torch.full_like(first, torch.nan if first.is_floating_point() else -1)
    # Behind the task plate come the batch's dimensions to its right, and then those of a label.
    place = len(shape) + (targets.dim or 0)
    return torch.stack([given.get(name, absent) for name in targets.names], dim=place)
