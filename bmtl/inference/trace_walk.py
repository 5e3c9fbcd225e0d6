"""The walk over the traces of guide and model that gives every task's terms of the negative ELBO."""

import math
from typing import Any

from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer.trace_mean_field_elbo import _check_mean_field_requirement
from pyro.infer.util import MultiFrameTensor, is_validation_enabled
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from bmtl.inference.divergence import divergence
from bmtl.inference.label_counts import LabelCounts
from bmtl.inference.losses import ScoreTerms, TaskLosses
from bmtl.inference.program_warnings import ProgramWarnings
from bmtl.inference.shared_representation import SharedRepresentation
from bmtl.inference.site_tasks import Site, SiteTask, task_of_auxiliary, task_of_site, task_plate_of
from bmtl.inference.term_sums import TermSums, mean, plus
from bmtl.tasks import is_task_plate


class TraceWalk:
    """Adds up the terms of trace pairs, one a particle.

    Args:
        analytic: Take KL terms in closed form where one is registered; else they are drawn.
        max_plate_nesting: The model's number of nested plates, for shape checks.
        warnings: What is to be said of the programs.
    """

    def __init__(self, analytic: bool, max_plate_nesting: float, warnings: ProgramWarnings) -> None:
        self.analytic = analytic
        self.max_plate_nesting = max_plate_nesting
        self.warnings = warnings
        self.traces: list[tuple[Trace, Trace]] = []
        self.names: dict[str, None] = {}  # in the order in which the model first mentions them
        self._plate_names: dict[str, tuple[str, ...]] = {}  # the tasks of each task plate
        self._nll, self._kl, self._score_nll, self._score_kl = (TermSums() for _ in range(4))
        self._counts = LabelCounts()
        self._scored = False

    def add(self, model_trace: Trace, guide_trace: Trace) -> None:
        """Adds the terms of a pair of traces.

        Raises:
            ValueError: If a site cannot be taken, with its name.
        """
        self._take(model_trace, guide_trace)
        owners: dict[str, SiteTask] = {}
        unreparameterised: list[Site] = []
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            owner = owners[name] = self._owner(site)
            if site["is_observed"]:
                self._nll.add(owner, -self._log_prob(model_trace, name, site))
                self._counts.add(owner, site)
                if not owner.names:
                    self.warnings.outside_tasks(site)
            else:
                guide_site = guide_trace.nodes[name]
                self._kl.add(owner, self._divergence(model_trace, guide_trace, name))
                if not self.analytic and not is_identically_zero(guide_site["score_parts"].score_function):
                    unreparameterised.append(guide_site)
        for name, site in guide_trace.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            if name in owners:
                # The guide draws what the model observes: `Trace_ELBO` counts its log q, `TraceMeanField_ELBO` does not.
                if self.analytic or not model_trace.nodes[name]["is_observed"]:
                    continue
                owner = owners[name]
            else:
                owner = owners[name] = self._owner_of_auxiliary(name, guide_trace, owners)
            parts = self._score_parts(name, site)
            self._kl.add(owner, _entropy(parts))
            if not is_identically_zero(parts.score_function):
                self._check_reparameterised(guide_trace, name, site)
                unreparameterised.append(site)
        if unreparameterised:
            self._scored = True
            self._add_scores(model_trace, guide_trace, owners, unreparameterised)

    def _take(self, model_trace: Trace, guide_trace: Trace) -> None:
        """Keeps a pair of traces, checked."""
        self.traces.append((model_trace, guide_trace))
        check_nothing_enumerated(model_trace, guide_trace)
        check_guide(model_trace, guide_trace)
        if is_validation_enabled():
            self._check_traces(model_trace, guide_trace)

    def losses(self, particles: int, vectorized: bool, marks: SharedRepresentation) -> TaskLosses:
        """All terms, means over particles.

        Args:
            particles: Number of particles.
            vectorized: They lie side by side in one pair of traces.
            marks: What the programs marked as shared.
        """
        return self._record(particles, particles if vectorized else 1, marks)

    def _record(self, summed: int, side_by_side: int, marks: SharedRepresentation) -> TaskLosses:
        """The sums as means over so many particles, and the counts of sites that hold so many side by side."""
        names = tuple(self.names)
        like = next(term for sums in (self._nll, self._kl) for term in sums.tensors())
        zero = like.new_zeros(())

        def terms(sums: TermSums) -> Any:
            return sums.terms(names, summed, zero)

        score = None
        if self._scored:
            shared = mean(plus(self._score_nll.shared, self._score_kl.shared), summed, zero)
            score = ScoreTerms(terms(self._score_nll).vector, terms(self._score_kl).vector, shared)
        counts = self._counts.of(names, side_by_side, like)
        return TaskLosses(
            names=names,
            nll_terms=terms(self._nll),
            kl_terms=terms(self._kl),
            # An observed site outside every task has weight 1, as the shared terms have.
            shared=mean(plus(self._kl.shared, self._nll.shared), summed, zero),
            labelled=counts.labelled,
            scales=counts.scales,
            sizes=counts.sizes,
            rows=counts.rows,
            score=score,
            marks=marks,
            traces=tuple(self.traces),
        )

    def _owner(self, site: Site) -> SiteTask:
        """The task of a model's site; notes the names of all tasks."""
        owner = task_of_site(site)
        self.names.update(dict.fromkeys(owner.names))
        if owner.dim is not None:
            known = self._plate_names.setdefault(task_plate_of(site), owner.names)
            if known != owner.names:
                raise ValueError(
                    f"Two task plates give different tasks: {known} and {owner.names}. Give each a label of its own, "
                    "bmtl.task_plate(names, label=...)."
                )
        return owner

    def _owner_of_auxiliary(self, name: str, guide_trace: Trace, owners: dict[str, SiteTask]) -> SiteTask:
        """The task of a site of the guide alone."""
        site: Site = guide_trace.nodes[name]
        owner, tasks = task_of_auxiliary(name, guide_trace, owners)
        if owner.dim is not None and not site.get("task_names"):  # an AutoGuide makes plates without names
            owner = owner._replace(names=self._plate_names.get(task_plate_of(site), owner.names))
        if tasks:
            self.warnings.joint_site(name, tasks)
        return owner

    # ---- One site's terms ----------------------------------------------------------------------------------------

    def _log_prob(self, trace: Trace, name: str, site: Site) -> Tensor:
        if "log_prob" not in site:
            try:
                log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
            except ValueError as error:  # shapes or support: the table says which
                table = trace.format_shapes(last_site=name)
                raise ValueError(f"At site {name!r}: {error}{_about_labels(site)}\n{table}") from error
            site["log_prob"] = scale_and_mask(log_prob, site["scale"], site["mask"])
        self._check_shape(site)
        found: Tensor = site["log_prob"]
        return found

    def _score_parts(self, name: str, site: Site) -> Any:
        if "score_parts" not in site:
            parts = site["fn"].score_parts(site["value"], *site["args"], **site["kwargs"])
            parts = parts.scale_and_mask(site["scale"], site["mask"])
            site["score_parts"], site["log_prob"] = parts, parts.log_prob
        self._check_shape(site)
        return site["score_parts"]

    def _divergence(self, model_trace: Trace, guide_trace: Trace, name: str) -> Tensor | float:
        """The KL term of one latent: in closed form, or as a draw of log q - log p."""
        site: Site = model_trace.nodes[name]
        guide_site: Site = guide_trace.nodes[name]
        if self.analytic:
            if not getattr(guide_site["fn"], "has_rsample", False):
                self._check_reparameterised(guide_trace, name, guide_site)
            try:
                kl = divergence(guide_site["fn"], site["fn"])
            except NotImplementedError:
                pass  # no closed form is registered for this pair: drawn below
            else:
                kl = scale_and_mask(kl, guide_site["scale"], guide_site["mask"])
                if not isinstance(kl, Tensor):
                    kl = kl * math.prod(guide_site["fn"].batch_shape)
                guide_site["kl"] = kl
                return kl
        return _entropy(self._score_parts(name, guide_site)) - self._log_prob(model_trace, name, site)

    def _add_scores(
        self, model_trace: Trace, guide_trace: Trace, owners: dict[str, SiteTask], drawn: list[Site]
    ) -> None:
        """Score-function terms of the sites `drawn`, split by the task whose cost they carry.

        ``log p - log q`` adds over sites and summing it down to a site's plates is linear, so the split is exact.
        """
        groups: dict[tuple[SiteTask, bool], MultiFrameTensor] = {}
        for name, site in model_trace.nodes.items():
            if name not in owners:
                continue
            log_r = self._log_prob(model_trace, name, site)
            if not site["is_observed"]:
                self._score_parts(name, guide_trace.nodes[name])
                log_r = log_r - guide_trace.nodes[name]["log_prob"]
            frames = [f for f in site["cond_indep_stack"] if f.vectorized]
            groups.setdefault((owners[name], site["is_observed"]), MultiFrameTensor()).add((frames, log_r.detach()))
        for (owner, observed), costs in groups.items():
            task_frames = {f for frames in costs for f in frames if is_task_plate(f.name)}
            for site in drawn:
                cost = costs.sum_to({*site["cond_indep_stack"], *task_frames})
                self._add_score(owner, observed, -(cost * site["score_parts"].score_function))

    def _add_score(self, owner: SiteTask, observed: bool, term: Tensor) -> None:
        """Adds a score term, without its value."""
        if owner.dim is not None and term.dim() < -owner.dim:  # sum_to drops leading dimensions of size 1
            term = term.reshape([1] * (-owner.dim - term.dim()) + list(term.shape))
        (self._score_nll if observed else self._score_kl).add(owner, term - term.detach())

    # ---- Checks --------------------------------------------------------------------------------------------------

    def _check_shape(self, site: Site) -> None:
        if is_validation_enabled():
            check_site_shape(site, self.max_plate_nesting)  # type: ignore[arg-type]

    def _check_reparameterised(self, guide_trace: Trace, name: str, site: Site) -> None:
        if self.analytic:
            raise ValueError(
                f"Latent {name!r} is not reparameterised ({type(site['fn']).__name__}), and the analytic estimator has no "
                "score-function terms. Use TaskELBO('mc').\n" + guide_trace.format_shapes()
            )

    def _check_traces(self, model_trace: Trace, guide_trace: Trace) -> None:
        _check_rows(model_trace, guide_trace)
        check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        if self.analytic:
            _check_mean_field_requirement(prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace))


def _entropy(parts: Any) -> Tensor | float:
    """Log q, with its gradient where the draw is reparameterised and without it otherwise."""
    if is_identically_zero(parts.entropy_term):
        return parts.log_prob.detach() if isinstance(parts.log_prob, Tensor) else parts.log_prob
    return parts.entropy_term


def check_guide(model_trace: Trace, guide_trace: Trace) -> None:
    """Checks that the guide has a site for every latent that is not enumerated in the model.

    Raises:
        ValueError: If it lacks some; names them.
    """
    sites: dict[str, Site] = model_trace.nodes
    missing = [
        name
        for name, site in sites.items()
        if site["type"] == "sample"
        and not site["is_observed"]
        and name not in guide_trace.nodes
        and not site_is_subsample(site)
        and site["infer"].get("_enumerate_dim") is None
    ]
    if missing:
        raise ValueError(
            f"The guide has no site for the model's latents {missing}. A site that should be observed had no value (None "
            "predicts); a discrete latent can be summed out, with TaskELBO('enum') and infer={'enumerate': 'parallel'} at "
            f"its site.\n{guide_trace.format_shapes()}"
        )


def _check_rows(model_trace: Trace, guide_trace: Trace) -> None:
    """Checks that the guide's latents of rows are those of the batch's rows."""
    guide_sites: dict[str, Site] = guide_trace.nodes
    model_sites: dict[str, Site] = model_trace.nodes
    for name, site in guide_sites.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        for frame in site["cond_indep_stack"]:
            drawn, given = guide_sites.get(frame.name), model_sites.get(frame.name)
            if drawn is None or given is None or not (site_is_subsample(drawn) and site_is_subsample(given)):
                continue
            number = drawn["fn"].subsample_size
            if number is not None and number < drawn["fn"].size and given["fn"].subsample_size is None:
                raise ValueError(
                    f"Guide site {name!r} is of rows that its plate {frame.name!r} draws at random, and the model's plate "
                    "has the batch's rows. Let the batch have the numbers of its rows, and give them to both: "
                    f"pyro.plate({frame.name!r}, n_data, subsample=rows) in the model, and an AutoGuide's create_plates, "
                    "which is called with the batch and returns this plate."
                )


def check_nothing_enumerated(model_trace: Trace, guide_trace: Trace) -> None:
    """Checks that no site asks for enumeration, for estimators that do not enumerate.

    Raises:
        ValueError: If one does; names it.
    """
    for trace in (guide_trace, model_trace):
        sites: dict[str, Site] = trace.nodes
        for name, site in sites.items():
            if site["type"] == "sample" and site["infer"].get("enumerate"):
                raise ValueError(
                    f"Site {name!r} asks for enumeration (infer={{'enumerate': ...}}, or config_enumerate). Take the "
                    "estimator that enumerates, TaskELBO('enum'); or drop the request and give the latent a site in the "
                    "guide: its gradient is then estimated by score functions."
                )


def _about_labels(site: Site) -> str:
    """What labels outside a distribution's support usually are, as a sentence; empty for latents."""
    value = site["value"]
    if not site["is_observed"] or not isinstance(value, Tensor):
        return ""
    if value.isnan().any():
        return " Missing labels (NaN) are left out by bmtl.observe, not by pyro.sample."
    if value.is_floating_point() and (value != value.floor()).any() and site["fn"].support.is_discrete:
        return (
            " Labels of real targets are scaled. If these are counts or classes, say so where the data are read: "
            "families={target: 'count'} of MultiTaskData.from_arrays, kinds of tables."
        )
    return ""
