"""Which task a site belongs to: one task, the rows of a task plate, or none (shared)."""

from typing import Any, NamedTuple

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from bmtl.tasks import is_task_plate

Site = Any  # Pyro's message of a sample statement: a dictionary with keys of bmtl's own


class SiteTask(NamedTuple):
    """One task (one name), the rows of a task plate (names and the plate's dim), or none (no name: the site is shared)."""

    names: tuple[str, ...] = ()
    dim: int | None = None


def task_of_site(site: Site) -> SiteTask:
    """The task of a site, from its mark and its plates.

    Raises:
        ValueError: If a site is in the task plate and in `bmtl.task` at once, or the task plate is subsampled.
    """
    tag = site.get("task")
    for frame in site["cond_indep_stack"]:
        if is_task_plate(frame.name):
            if tag is not None:
                raise ValueError(
                    f"Site {site['name']!r} lies in the task plate and in bmtl.task({tag!r}) at once. Use one of the two."
                )
            size = frame.full_size or frame.size
            if size != frame.size:
                raise ValueError(
                    f"The task plate has {size} tasks, and {frame.size} of them are drawn at site {site['name']!r}. Tasks "
                    "cannot be subsampled: leave a task's labels out (NaN) where it sits out a step."
                )
            names = site.get("task_names") or tuple(map(str, range(size)))
            if frame.dim is None:  # a plate that is looped over
                return SiteTask((names[frame.counter - 1],))
            return SiteTask(names, frame.dim)
    return SiteTask() if tag is None else SiteTask((tag,))


def task_plate_of(site: Site) -> str:
    """Name of the task plate that a site lies in; "" without one."""
    return next((frame.name for frame in site["cond_indep_stack"] if is_task_plate(frame.name)), "")


def named_rows(site: Site) -> dict[str, Tensor]:
    """A site's value by its name; of one in a task plate with a label, each task's row as ``<name>_<task>``."""
    label, value = site.get("task_label"), site["value"]
    if label is None:
        return {site["name"]: value}
    stem = site["name"].removeprefix(f"{label}/")
    owner = task_of_site(site)
    assert owner.dim is not None
    axis = value.dim() - len(site["fn"].event_shape) + owner.dim
    # Behind the tasks' dimension there are those of the plates inside, of which a latent of all rows has one entry.
    inner = tuple(range(axis, axis - owner.dim - 1))
    rows = value.unbind(axis)
    return {f"{stem}_{task}": row.squeeze(inner) for task, row in zip(owner.names, rows, strict=True)}


def is_derived(site: Site) -> bool:
    """Whether a site follows from others: `pyro.deterministic`, or a latent that a reparameterisation has replaced."""
    if site["type"] != "sample" or not site["is_observed"]:
        return False
    fn = site["fn"]
    return isinstance(fn, MaskedDistribution) and fn._mask is False and isinstance(fn.base_dist, Delta)


def task_of_auxiliary(name: str, guide_trace: Trace, owners: dict[str, SiteTask]) -> tuple[SiteTask, tuple[str, ...]]:
    """The task of an auxiliary guide site: that of its own mark, else that of the model's sites which it feeds.

    Returns:
        The site's task, and the tasks of all latents that it draws jointly where they are several (it is then shared).
    """
    own = task_of_site(guide_trace.nodes[name])
    if own.names:
        return own, ()
    for suffix in ("_unconstrained", "_aux"):  # as AutoNormal and AutoStructured name the site of one latent
        stem = name.removesuffix(suffix)
        if stem != name and stem in owners:
            return owners[stem], ()
    fed: list[SiteTask] = []
    sites: dict[str, Site] = guide_trace.nodes
    following = iter(sites.items())
    for other, _ in following:
        if other == name:
            break
    for other, site in following:  # a joint guide draws its site first and hands its parts on as Deltas
        if site["type"] != "sample":
            continue
        if site["infer"].get("is_auxiliary"):
            break
        if other in owners:
            fed.append(owners[other])
    # Outside the task plate, one site draws all of the plate's rows: no row has a part of its density.
    if fed and fed[0].dim is None and all(owner == fed[0] for owner in fed):
        return fed[0], ()
    return SiteTask(), tuple(sorted({task for owner in fed for task in owner.names}))


def labelled_rows(site: Site) -> Tensor:
    """1 where a site's row counts and 0 where it is masked, of the site's batch shape."""
    shape = site["fn"].batch_shape
    masks = [site["mask"]]
    if isinstance(site["fn"], MaskedDistribution):
        masks.append(site["fn"]._mask)
    labelled = torch.ones(shape, device=site["value"].device)
    for mask in masks:
        if mask is not None:
            labelled = labelled * torch.as_tensor(mask, device=labelled.device)
    return labelled
