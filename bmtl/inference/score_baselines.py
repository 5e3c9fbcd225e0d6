"""Score-function terms of lower variance: costs downstream of a draw alone, less a baseline."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from pyro.distributions.util import detach
from pyro.infer.util import MultiFrameTensor
from pyro.ops.provenance import detach_provenance, get_provenance
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from bmtl.inference.losses import TaskLosses
from bmtl.inference.program_warnings import ProgramWarnings
from bmtl.inference.shared_representation import SharedRepresentation
from bmtl.inference.site_tasks import Site, SiteTask
from bmtl.inference.trace_walk import TraceWalk
from bmtl.tasks import is_task_plate

_BETA = 0.9
_OPTIONS = ("use_decaying_avg_baseline", "baseline_beta", "baseline_value", "nn_baseline", "nn_baseline_input")


class DecayingAverages(nn.Module):
    """Means of costs over the steps so far, each step's share falling geometrically; saved with a run's modules.

    Attributes:
        averages: By site, task and part.
    """

    def __init__(self) -> None:
        super().__init__()
        self.averages: dict[str, Tensor] = {}

    def before(self, key: str, cost: Tensor, beta: float) -> Tensor:
        """The mean of the costs before, 0 at first, to which this one is then added.

        A cost of another shape (the rows of a batch that is smaller) sees the mean's mean, and leaves it as it is.
        """
        old = self.averages.get(key, torch.zeros_like(cost)).to(cost)
        if old.shape != cost.shape:
            return old.mean().expand_as(cost)
        self.averages[key] = (1.0 - beta) * cost.detach() + beta * old
        return old

    def get_extra_state(self) -> dict[str, Tensor]:
        return dict(self.averages)

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.averages = dict(state)


class DownstreamWalk(TraceWalk):
    """Adds up terms as Monte Carlo does, with the score terms of Pyro's `TraceGraph_ELBO` (Schulman et al. 2015).

    Which costs depend on a draw is found from the values (Pyro's provenance): a score term has only those, and a site's
    ``infer={"baseline": {...}}`` is subtracted from them, with Pyro's options. Both leave the expectation as it is.

    * ``use_decaying_avg_baseline``, ``baseline_beta``: each task's cost has a mean of its own, which goes with its weight.
      Their sum is Pyro's.
    * ``baseline_value``, or ``nn_baseline`` with ``nn_baseline_input``: one baseline for the costs of all tasks together,
      and so a shared term of weight 1. It is fitted by its squared error, whose gradient is among the shared score terms.

    Args:
        averages: The means over the steps so far.
        max_plate_nesting: The model's number of nested plates, for shape checks.
        warnings: What is to be said of the programs.
    """

    def __init__(self, averages: DecayingAverages, max_plate_nesting: float, warnings: ProgramWarnings) -> None:
        super().__init__(False, max_plate_nesting, warnings)
        self.averages = averages

    def _log_prob(self, trace: Trace, name: str, site: Site) -> Tensor:
        found = super()._log_prob(trace, name, site)
        site.setdefault("drawn_by", get_provenance(found))  # the draws that its density depends on
        site["log_prob"] = plain = detach_provenance(found)
        return plain

    def _score_parts(self, name: str, site: Site) -> Any:
        found = super()._score_parts(name, site)
        site.setdefault("drawn_by", get_provenance(found.log_prob))
        site["score_parts"] = plain = type(found)(*map(detach_provenance, found))
        site["log_prob"] = plain.log_prob
        return plain

    def _record(self, summed: int, side_by_side: int, marks: SharedRepresentation) -> TaskLosses:
        losses = super()._record(summed, side_by_side, marks)  # masks may be of drawn values
        return replace(losses, labelled=detach_provenance(losses.labelled), scales=detach_provenance(losses.scales))

    def _add_scores(
        self, model_trace: Trace, guide_trace: Trace, owners: dict[str, SiteTask], drawn: list[Site]
    ) -> None:
        costs = list(self._costs(model_trace, guide_trace, owners))
        for site in drawn:
            score = site["score_parts"].score_function
            groups: dict[tuple[SiteTask, bool], MultiFrameTensor] = {}
            for owner, observed, frames, cost, draws in costs:
                if site["name"] in draws:
                    groups.setdefault((owner, observed), MultiFrameTensor()).add((frames, cost))
            options = _options(site)
            total = MultiFrameTensor()
            for (owner, observed), parts in groups.items():
                total.add(*parts.items())
                tasks = {frame for frames in parts for frame in frames if is_task_plate(frame.name)}
                cost = parts.sum_to({*site["cond_indep_stack"], *tasks})
                if options.get("use_decaying_avg_baseline"):
                    key = "|".join((site["name"], ",".join(owner.names), "nll" if observed else "kl"))
                    cost = cost - self.averages.before(key, cost, options.get("baseline_beta", _BETA))
                self._add_score(owner, observed, -(cost * score))
            if (given := _given_baseline(options)) is not None:
                self._add_given(given, total.sum_to(site["cond_indep_stack"]), score, site, options)

    def _costs(
        self, model_trace: Trace, guide_trace: Trace, owners: dict[str, SiteTask]
    ) -> Iterator[tuple[SiteTask, bool, list[Any], Tensor, frozenset[str]]]:
        """Of all sites: task, likelihood or not, plates, log density, and what draws it depends on."""
        for trace, sign in ((model_trace, 1.0), (guide_trace, -1.0)):
            sites: dict[str, Site] = trace.nodes
            for name, site in sites.items():
                if site["type"] != "sample" or site_is_subsample(site):
                    continue
                if sign > 0:
                    log_p = self._log_prob(trace, name, site)
                else:
                    log_p = self._score_parts(name, site).log_prob
                drawn_by: frozenset[str] = site["drawn_by"]
                frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
                observed = bool(site["is_observed"]) and sign > 0
                yield owners[name], observed, frames, sign * log_p.detach(), drawn_by

    def _add_given(self, given: Tensor, total: Tensor, score: Tensor, site: Site, options: dict[str, Any]) -> None:
        """A baseline of the program's for the costs of all tasks, and its squared error."""
        if given.shape != total.shape:
            raise ValueError(
                f"The baseline of site {site['name']!r} has the shape {tuple(given.shape)}, and its cost "
                f"{tuple(total.shape)}: that of the site's plates."
            )
        error = total - given
        if options.get("use_decaying_avg_baseline"):
            beta = options.get("baseline_beta", _BETA)
            error = error - self.averages.before(f"{site['name']}||all", total, beta)
        self._add_score(SiteTask(), False, (given.detach() * score).sum() + error.square().sum())


def _options(site: Site) -> dict[str, Any]:
    """A site's options of a baseline.

    Raises:
        ValueError: If one is unknown, or there are two baselines of the program's.
    """
    options: dict[str, Any] = dict(site["infer"].get("baseline", {}))
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ValueError(
            f"The baseline of site {site['name']!r} has the options {unknown}, and these are known: {', '.join(_OPTIONS)}."
        )
    if options.get("nn_baseline") is not None and options.get("baseline_value") is not None:
        raise ValueError(
            f"The baseline of site {site['name']!r} is baseline_value or nn_baseline, and both were given."
        )
    return options


def _given_baseline(options: dict[str, Any]) -> Tensor | None:
    """The program's own baseline, with its gradient by its own parameters."""
    found: Tensor | None = options.get("baseline_value")
    if options.get("nn_baseline") is not None:
        found = options["nn_baseline"](detach(detach_provenance(options["nn_baseline_input"])))
    return None if found is None else detach_provenance(found)
