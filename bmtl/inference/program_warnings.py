"""Warnings about likely mistakes in a program, each given once, with the site and the remedy."""

import logging
from collections.abc import Iterable

import torch
from pyro.distributions import Unit
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from bmtl.inference.site_tasks import Site, is_derived
from bmtl.labels import PARTICLE_PLATE
from bmtl.tasks import is_task_plate

logger = logging.getLogger(__name__)


class ProgramWarnings:
    """Warnings about one program's statements; each is given once."""

    def __init__(self) -> None:
        self._given: set[tuple[str, str]] = set()
        self._sizes: dict[str, int] = {}
        self._scales_seen = False

    def joint_site(self, name: str, tasks: tuple[str, ...]) -> None:
        """For a guide's site that draws the latents of several tasks at once."""
        self._once(
            ("joint", name),
            f"Guide site {name!r} draws latents of several tasks ({', '.join(tasks)}) at once: its entropy counts as "
            "shared, and those tasks' own 'kl' is no divergence. Give each task a guide of its own if you need the split.",
        )

    def outside_tasks(self, site: Site) -> None:
        """For an observed site of no task; factors and deterministic sites are none."""
        if not _is_data(site):
            return
        name = site["name"]
        self._once(
            ("outside", name),
            f"The observed site {name!r} is in no task: its likelihood counts as a shared term of weight 1, and no balancer "
            f"sees it. Put it inside `with bmtl.task(name):`, or write a penalty that is meant to be shared as pyro.factor.",
        )

    def batch_sizes(self, traces: Iterable[Trace]) -> None:
        """For a plate that takes each training batch for all of the data, ``plate(len(x))``, or has fewer rows than it.

        Args:
            traces: Of the model on a training batch.
        """
        for trace in traces:
            sites: dict[str, Site] = trace.nodes
            for name, site in sites.items():
                if site["type"] != "sample" or not site["is_observed"] or not _is_data(site):
                    continue
                self._too_small(name, site)
                if isinstance(site["scale"], Tensor) or site["scale"] != 1:
                    continue  # scaled up to all data, by a plate or by hand
                frames = [
                    frame
                    for frame in site["cond_indep_stack"]
                    if frame.name != PARTICLE_PLATE and not is_task_plate(frame.name)
                ]
                for frame in frames:
                    before = self._sizes.setdefault(frame.name, frame.size)
                    if frame.size != before:
                        self._once(
                            ("size", frame.name),
                            f"The plate {frame.name!r} around site {name!r} declared {before} data in one batch and "
                            f"{frame.size} in another: it takes each batch for all of the data, so that KL terms count once "
                            "a batch instead of once an epoch. Declare the number of training data: "
                            f"pyro.plate({frame.name!r}, n_data, subsample=x).",
                        )

    def scales(self, traces: Iterable[tuple[Trace, Trace]]) -> None:
        """For latents that count another number of times in the model than in the guide.

        Args:
            traces: Of model and guide on a training batch; those of the first are looked at.
        """
        for model_trace, guide_trace in () if self._scales_seen else traces:
            self._scales_seen = True
            sites: dict[str, Site] = guide_trace.nodes
            for name, site in model_trace.nodes.items():
                drawn = sites.get(name)
                if site["type"] != "sample" or site["is_observed"] or site_is_subsample(site) or drawn is None:
                    continue
                one, other = (torch.as_tensor(of["scale"], dtype=torch.float64).detach().cpu() for of in (site, drawn))
                if (torch.maximum(one, other) > (1 + 1e-6) * torch.minimum(one, other)).any():
                    in_model, in_guide = (f"{float(scale.mean()):.4g}" for scale in (one, other))
                    self._once(
                        ("scale", name),
                        f"The latent {name!r} counts {in_model} times in the model and {in_guide} times in the guide: "
                        "its prior and its entropy are not those of one divergence. Put poutine.scale around both, or the "
                        "likelihood alone, and give their plates the same number of data and the same rows.",
                    )

    def _too_small(self, name: str, site: Site) -> None:
        for frame in site["cond_indep_stack"]:
            if frame.full_size is not None and frame.full_size < frame.size:
                self._once(
                    ("rows", frame.name),
                    f"The plate {frame.name!r} around site {name!r} has {frame.full_size} data, and a training batch "
                    f"{frame.size} of them: its likelihood counts less than once. Declare the number of training data.",
                )

    def _once(self, key: tuple[str, str], message: str) -> None:
        if key not in self._given:
            self._given.add(key)
            logger.warning(message)


def warn_of_random_rows(traces: Iterable[Trace]) -> None:
    """Warns of plates that drew the rows of a prediction at random: ``plate(subsample_size=...)``.

    Args:
        traces: Of the programs as they predict.
    """
    found: dict[str, Site] = {}
    for trace in traces:
        sites: dict[str, Site] = trace.nodes
        found |= {name: site for name, site in sites.items() if site["type"] == "sample" and _is_random(site)}
    for plate, site in found.items():
        inside = [
            name
            for trace in traces
            for name, other in trace.nodes.items()
            if other["type"] == "sample" and plate in [frame.name for frame in other["cond_indep_stack"]]
        ]
        logger.warning(
            "The plate %r around %s draws %d of its %d rows at random (subsample_size), in predictions too: rows of a "
            "prediction are then not those that were asked for. Take all rows without labels, such as "
            "pyro.plate(%r, n_data, subsample=x), and draw batches with a loader.",
            plate,
            f"site {inside[0]!r}" if inside else "no site",
            site["fn"].subsample_size,
            site["fn"].size,
            plate,
        )


def _is_data(site: Site) -> bool:
    """Whether an observed site is a likelihood: no factor, and no deterministic site."""
    return not isinstance(site["fn"], Unit) and not is_derived(site)


def _is_random(site: Site) -> bool:
    """Whether it is a plate's choice of rows that is not the first ones, in order."""
    if not site_is_subsample(site):
        return False
    drawn, rows = site["fn"].subsample_size, site["value"]
    if drawn is None or drawn >= site["fn"].size:
        return False
    return not (isinstance(rows, Tensor) and torch.equal(rows, torch.arange(len(rows), device=rows.device)))
