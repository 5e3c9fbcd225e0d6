"""One negative ELBO per task from one pair of guide and model traces."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyro.poutine as poutine
import torch
from pyro.distributions import MaskedDistribution, Unit
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer.elbo import ELBO
from pyro.infer.trace_mean_field_elbo import _check_mean_field_requirement
from pyro.infer.util import MultiFrameTensor, is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from bmtl.inference.divergence import divergence
from bmtl.inference.losses import ScoreTerms, TaskLosses, TaskTerms
from bmtl.inference.shared_representation import SharedRepresentation
from bmtl.inference.site_tasks import Site, SiteTask, labelled_rows, task_of_auxiliary, task_of_site
from bmtl.labels import PARTICLE_PLATE
from bmtl.tasks import TASK_PLATE

logger = logging.getLogger(__name__)


Turn = tuple[tuple[str, int], ...]  # of the plates that a program loops over: their names, and which turn it is


class _Sums:
    """Adds up terms by owner. A scalar 0.0 stands for "nothing yet", so that an empty term costs no tensor."""

    def __init__(self) -> None:
        self.rows: dict[str, Tensor | float] = {}
        self.plate: Tensor | float = 0.0  # (K_plate,)
        self.shared: Tensor | float = 0.0

    def add(self, owner: SiteTask, term: Tensor | float) -> None:
        """Adds a term of batch shape; a number counts as a scalar."""
        if owner.dim is not None:
            if isinstance(term, Tensor):
                dims = [d for d in range(-term.dim(), 0) if d != owner.dim]
                term = term.sum(dims) if dims else term
                if term.shape != (len(owner.names),):  # broadcast along the plate: its rows are equal
                    term = term.expand(len(owner.names))
            self.plate = self.plate + term
            return
        if isinstance(term, Tensor) and term.dim():
            term = term.sum()
        if owner.names:
            self.rows[owner.names[0]] = self.rows.get(owner.names[0], 0.0) + term
        else:
            self.shared = self.shared + term


@dataclass
class _Rows:
    """Labelled rows of a task, or those of a task plate's tasks as tensors ``(K_plate,)``.

    Attributes:
        data: They are data, and not factors alone.
        labelled: How many.
        scale: What the plates scale each up by.
        size: Number of data that the plates declare.
    """

    data: bool
    labelled: Tensor | float
    scale: Tensor | float
    size: float


@dataclass
class _Walk:
    """What one walk over the traces gathers."""

    nll: _Sums = field(default_factory=_Sums)
    kl: _Sums = field(default_factory=_Sums)
    score_nll: _Sums = field(default_factory=_Sums)
    score_kl: _Sums = field(default_factory=_Sums)
    names: dict[str, None] = field(default_factory=dict)
    plate_names: tuple[str, ...] = ()
    rows: dict[tuple[SiteTask, Turn], _Rows] = field(default_factory=dict)
    n_data: dict[str, float] = field(default_factory=dict)  # of each task, where a task plate tells it
    scored: bool = False


class TaskELBO(ELBO):
    """Estimates one negative ELBO per task from one model/guide trace pair.

    With one seed, the terms add up to Pyro's own estimator in value and in every gradient: `Trace_ELBO` for ``"mc"``,
    `TraceMeanField_ELBO` for ``"analytic"``. It is a Pyro `ELBO`: ``elbo(model, guide)`` is a `torch.nn.Module`, and
    `pyro.infer.SVI` accepts it.

    Args:
        estimator: "mc" draws the KL terms; "analytic" takes them in closed form where one is registered, which has far
            less noise and is right when the guide draws its latents in the model's order.
        num_particles: Draws per estimate.
        vectorize_particles: Draw all particles at once, in one more plate left of all others.
        max_plate_nesting: The model's number of nested plates; found from one run if it is needed and None.
        balanced: What a balancer sees and weighs: "likelihood" is each task's expected negative log-likelihood (its KL
            can be most of its loss, and would then be what is balanced), "elbo" adds the task's own KL. The shared KL
            is never weighed.
        normalize: "per_datum" divides every task by one number of data, so that equal weights give the ELBO's step;
            "task_mean" takes each task's mean over its labelled rows, so that each counts alike however many labels it has.
        n_data: Number of data, one for all tasks or by task; by default what the plates declare.

    Raises:
        ValueError: If an option is not one of those above, the model has no task, or a site cannot be taken (enumeration,
            a non-reparameterised latent under "analytic").
    """

    def __init__(
        self,
        estimator: Literal["mc", "analytic"] = "mc",
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int | None = None,
        balanced: Literal["likelihood", "elbo"] = "likelihood",
        normalize: Literal["per_datum", "task_mean"] = "per_datum",
        n_data: int | Mapping[str, int] | None = None,
    ) -> None:
        _check_choice("estimator", estimator, ("mc", "analytic"))
        _check_choice("balanced", balanced, ("likelihood", "elbo"))
        _check_choice("normalize", normalize, ("per_datum", "task_mean"))
        if num_particles < 1:
            raise ValueError(f"num_particles is the number of draws, at least 1, and {num_particles} was given.")
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=math.inf if max_plate_nesting is None else max_plate_nesting,
        )
        self.estimator = estimator
        self.balanced = balanced
        self.normalize = normalize
        self.n_data = n_data
        self._warned: set[str] = set()

    # ---- Pyro's interface ----------------------------------------------------------------------------------------

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The negative ELBO of a batch as a number."""
        with torch.no_grad():
            return self.task_losses(model, guide, *args, **kwargs).total.item()

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The negative ELBO of a batch, whose gradient is Pyro's gradient estimate."""
        return self.task_losses(model, guide, *args, **kwargs).total

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The negative ELBO of a batch; its gradient is added to the parameters' (for `pyro.infer.SVI`)."""
        total = self.task_losses(model, guide, *args, **kwargs).total
        if total.requires_grad:
            total.backward(retain_graph=self.retain_graph)
        return total.item()

    def _get_trace(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        unwrapped = poutine.unwrap(guide)
        if isinstance(unwrapped, Messenger):  # guides that are effect handlers run the model themselves
            guide(*args, **kwargs)
            model_trace, guide_trace = unwrapped.get_traces()  # type: ignore[attr-defined]
        else:
            guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
            model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        return model_trace, guide_trace

    # ---- The terms -----------------------------------------------------------------------------------------------

    def task_losses(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        cut: bool | SharedRepresentation = False,
        **kwargs: Any,
    ) -> TaskLosses:
        """Runs guide and model on a batch and returns every task's terms.

        Args:
            model: The task model.
            guide: Its guide.
            *args: The batch, for both.
            cut: Cut the graph at the tensors marked by `bmtl.shared` (the cheap geometries ask for this); or what handles
                the marks.
            **kwargs: The batch, for both.
        """
        walk, traces = _Walk(), []
        with cut if isinstance(cut, SharedRepresentation) else SharedRepresentation(cut) as marks:
            for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
                self._gather(walk, model_trace, guide_trace)
                traces.append((model_trace, guide_trace))
        if not walk.names:
            raise ValueError(
                "The model has no task: no observed or latent site lies in `bmtl.task(name)` or in a plate named "
                f"{TASK_PLATE!r}. Put each task's sites in `with bmtl.task(...)`.\n{model_trace.format_shapes()}"
            )
        return self._losses(walk, marks, tuple(traces))

    def _gather(self, walk: _Walk, model_trace: Trace, guide_trace: Trace) -> None:
        validate = is_validation_enabled()
        _check_guide(model_trace, guide_trace)
        if validate:
            self._check_traces(model_trace, guide_trace)
        owners: dict[str, SiteTask] = {}
        unreparameterised: list[Site] = []
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            owner = owners[name] = task_of_site(site)
            if owner.dim is not None and walk.plate_names not in ((), owner.names):
                raise ValueError(f"Two task plates give different tasks: {walk.plate_names} and {owner.names}.")
            walk.names.update(dict.fromkeys(owner.names))
            if owner.dim is not None:
                walk.plate_names = owner.names
            if site["is_observed"]:
                log_prob = self._log_prob(model_trace, name, site, validate)
                walk.nll.add(owner, -log_prob)
                self._count(walk, owner, site)
            else:
                guide_site = guide_trace.nodes[name]
                walk.kl.add(owner, self._kl(model_trace, guide_trace, name, site, guide_site, validate))
                if self.estimator == "mc" and not is_identically_zero(guide_site["score_parts"].score_function):
                    unreparameterised.append(guide_site)
        for name, site in guide_trace.nodes.items():
            if site["type"] == "sample" and name not in owners and not site_is_subsample(site):
                owner, mixed = task_of_auxiliary(name, guide_trace, owners)
                owners[name] = owner
                self._warn_of_joint_site(name, mixed)
                parts = self._score_parts(guide_trace, name, site, validate)
                walk.kl.add(owner, _entropy(parts))
                if not is_identically_zero(parts.score_function):
                    self._check_reparameterised(guide_trace, name, site)
                    unreparameterised.append(site)
        if unreparameterised:
            walk.scored = True
            self._add_scores(walk, model_trace, guide_trace, owners, unreparameterised)

    def _log_prob(self, trace: Trace, name: str, site: Site, validate: bool) -> Tensor:
        if "log_prob" not in site:
            try:
                log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
            except ValueError as error:  # shapes or support: show the table that tells which
                raise ValueError(f"At site {name!r}: {error}\n{trace.format_shapes(last_site=name)}") from error
            site["log_prob"] = scale_and_mask(log_prob, site["scale"], site["mask"])
        if validate:
            check_site_shape(site, self.max_plate_nesting)
        return site["log_prob"]

    def _score_parts(self, trace: Trace, name: str, site: Site, validate: bool) -> Any:
        if "score_parts" not in site:
            parts = site["fn"].score_parts(site["value"], *site["args"], **site["kwargs"])
            parts = parts.scale_and_mask(site["scale"], site["mask"])
            site["score_parts"], site["log_prob"] = parts, parts.log_prob
        if validate:
            check_site_shape(site, self.max_plate_nesting)
        return site["score_parts"]

    def _kl(
        self, model_trace: Trace, guide_trace: Trace, name: str, site: Site, guide_site: Site, validate: bool
    ) -> Tensor | float:
        """The KL term of one latent: closed form, or a draw of log q - log p."""
        if self.estimator == "analytic":
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
        parts = self._score_parts(guide_trace, name, guide_site, validate)
        return _entropy(parts) - self._log_prob(model_trace, name, site, validate)

    def _check_reparameterised(self, guide_trace: Trace, name: str, site: Site) -> None:
        if self.estimator == "analytic":
            raise ValueError(
                f"Latent {name!r} is not reparameterised ({type(site['fn']).__name__}), and the analytic estimator has no "
                "score-function terms. Use TaskELBO('mc').\n" + guide_trace.format_shapes()
            )

    def _count(self, walk: _Walk, owner: SiteTask, site: Site) -> None:
        """Counts a site's labelled rows, and the data that its plates declare."""
        if not owner.names or site["infer"].get("_deterministic"):
            return
        if owner.dim is not None and site.get("task_n_data"):
            walk.n_data.update(zip(owner.names, map(float, site["task_n_data"]), strict=True))
        size = 1.0
        turn: Turn = ()
        for frame in site["cond_indep_stack"]:
            if frame.name not in (TASK_PLATE, PARTICLE_PLATE):
                size *= max(frame.full_size or frame.size, 1)
                if frame.dim is None:
                    turn += ((frame.name, frame.counter),)
        rows = _Rows(not isinstance(site["fn"], Unit), *_labelled(site, owner), size)
        before = walk.rows.get((owner, turn))
        if before is None or rows.data > before.data:  # a factor is no datum, unless its task has nothing else
            walk.rows[owner, turn] = rows
        elif rows.data == before.data:  # several sites on the same rows
            if isinstance(rows.labelled, Tensor) or isinstance(before.labelled, Tensor):
                before.labelled = torch.maximum(torch.as_tensor(rows.labelled), torch.as_tensor(before.labelled))
            else:
                before.labelled = max(rows.labelled, before.labelled)
            if size > before.size:
                before.scale, before.size = rows.scale, size

    def _warn_of_joint_site(self, name: str, tasks: tuple[str, ...]) -> None:
        if tasks and name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "Guide site %r draws latents of several tasks (%s) at once: its entropy counts as shared, and those tasks' "
                "own 'kl' is no divergence. Give each task a guide of its own if you need the split.",
                name,
                ", ".join(tasks),
            )

    def _add_scores(
        self, walk: _Walk, model_trace: Trace, guide_trace: Trace, owners: dict[str, SiteTask], sites: list[Site]
    ) -> None:
        """Score-function terms, split by whose cost they carry.

        ``log p - log q`` adds over sites and summing it down to a site's plates is linear, so the split is exact.
        """
        groups: dict[tuple[SiteTask, bool], MultiFrameTensor] = {}
        for name, site in model_trace.nodes.items():
            if name not in owners:
                continue
            log_r = self._log_prob(model_trace, name, site, False)
            if not site["is_observed"]:
                self._score_parts(guide_trace, name, guide_trace.nodes[name], False)
                log_r = log_r - guide_trace.nodes[name]["log_prob"]
            frames = [f for f in site["cond_indep_stack"] if f.vectorized]
            groups.setdefault((owners[name], site["is_observed"]), MultiFrameTensor()).add((frames, log_r.detach()))
        for (owner, observed), costs in groups.items():
            target = walk.score_nll if observed else walk.score_kl
            task_frames = {f for frames in costs for f in frames if f.name == TASK_PLATE}
            for drawn in sites:
                cost = costs.sum_to({*drawn["cond_indep_stack"], *task_frames})
                term = -(cost * drawn["score_parts"].score_function)
                if owner.dim is not None and term.dim() < -owner.dim:  # sum_to drops leading dimensions of size 1
                    term = term.reshape([1] * (-owner.dim - term.dim()) + list(term.shape))
                target.add(owner, term - term.detach())

    def _check_traces(self, model_trace: Trace, guide_trace: Trace) -> None:
        for trace in (model_trace, guide_trace):
            sites: dict[str, Site] = trace.nodes
            for name, site in sites.items():
                if site["type"] == "sample" and site["infer"].get("enumerate"):
                    raise ValueError(
                        f"Site {name!r} asks for enumeration, which TaskELBO does not do. Drop its "
                        'infer={"enumerate": ...}; its gradient is then estimated by score functions.'
                    )
        check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        if self.estimator == "analytic":
            _check_mean_field_requirement(prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace))

    def _losses(self, walk: _Walk, marks: SharedRepresentation, traces: tuple[tuple[Trace, Trace], ...]) -> TaskLosses:
        names = tuple(walk.names)
        like = next(
            term
            for sums in (walk.nll, walk.kl)
            for term in (*sums.rows.values(), sums.plate, sums.shared)
            if isinstance(term, Tensor)
        )
        particles = self.num_particles
        zero = like.new_zeros(())

        def scalar(term: Tensor | float) -> Tensor:
            if not isinstance(term, Tensor):
                return zero + term if term else zero
            return term / particles if particles > 1 else term

        def rows(sums: _Sums) -> TaskTerms:
            if isinstance(sums.plate, Tensor) and not sums.rows and walk.plate_names == names:
                return TaskTerms(sums.plate / particles if particles > 1 else sums.plate)
            if not isinstance(sums.plate, Tensor) and not sums.rows:
                return TaskTerms(zero.expand(len(names)))
            plate = (
                dict(zip(walk.plate_names, sums.plate.unbind(), strict=True)) if isinstance(sums.plate, Tensor) else {}
            )
            terms = []
            for name in names:
                term = sums.rows.get(name, 0.0)
                terms.append(scalar(term + plate[name] if name in plate else term))
            return TaskTerms(terms)

        found = _by_task(walk.rows)
        none = _Rows(False, 0.0, 1.0, 0.0)
        counted = [found.get(name, none) for name in names]
        labelled = _stack([rows.labelled for rows in counted], like)
        vectorized = particles if self.vectorize_particles else 1
        score = None
        if walk.scored:
            score = ScoreTerms(
                rows(walk.score_nll).vector,
                rows(walk.score_kl).vector,
                scalar(walk.score_nll.shared) + scalar(walk.score_kl.shared),
            )
        # An observed site outside every task weighs 1 and is balanced by nobody: it goes with the shared terms.
        shared = scalar(walk.kl.shared) + scalar(walk.nll.shared)
        return TaskLosses(
            names=names,
            nll_terms=rows(walk.nll),
            kl_terms=rows(walk.kl),
            shared=shared,
            labelled=labelled / vectorized if vectorized > 1 else labelled,
            scales=_stack([rows.scale for rows in counted], like),
            sizes=tuple(walk.n_data.get(name, rows.size) for name, rows in zip(names, counted, strict=True)),
            score=score,
            marks=marks,
            traces=traces,
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}, and {value!r} was given.")


def _entropy(parts: Any) -> Tensor | float:
    """Log q, with its gradient where the draw is reparameterised and without it otherwise."""
    if is_identically_zero(parts.entropy_term):
        return parts.log_prob.detach() if isinstance(parts.log_prob, Tensor) else parts.log_prob
    return parts.entropy_term


def _check_guide(model_trace: Trace, guide_trace: Trace) -> None:
    missing = [
        name
        for name, site in model_trace.nodes.items()
        if site["type"] == "sample"
        and not site["is_observed"]
        and name not in guide_trace.nodes
        and not site_is_subsample(site)
    ]
    if missing:
        raise ValueError(
            f"The guide has no site for the model's latents {missing}. A site that should be observed had no value (None "
            f"predicts).\n{guide_trace.format_shapes()}"
        )


def _labelled(site: Site, owner: SiteTask) -> tuple[Tensor | float, Tensor | float]:
    """Number of a site's rows that are not masked and what they are scaled by, on average; by task in a task plate."""
    mask, scale = site["mask"], site["scale"]
    weighted = isinstance(scale, Tensor) and scale.dim() > 0
    if owner.dim is None and not weighted and not isinstance(site["fn"], MaskedDistribution):
        if isinstance(mask, Tensor):
            return mask.expand(site["fn"].batch_shape).sum(), scale
        return 0.0 if mask is False else float(math.prod(site["fn"].batch_shape)), scale

    def total(rows: Tensor) -> Tensor:
        dims = [d for d in range(-rows.dim(), 0) if d != owner.dim]
        rows = rows.sum(dims) if dims else rows
        return rows if owner.dim is None else rows.expand(len(owner.names))

    rows = labelled_rows(site)
    labelled = total(rows)
    return labelled, total(rows * scale) / labelled.clamp_min(1.0) if weighted else scale


def _by_task(counted: Mapping[tuple[SiteTask, Turn], _Rows]) -> dict[str, _Rows]:
    """The labelled rows of each task: those of a plate's tasks one by one, those of a loop's turns added up."""
    found: dict[str, _Rows] = {}
    for (owner, _), rows in counted.items():
        for k, name in enumerate(owner.names):
            labelled, scale = (
                value[k] if owner.dim is not None and isinstance(value, Tensor) and value.dim() else value
                for value in (rows.labelled, rows.scale)
            )
            before = found.get(name)
            if before is None or rows.data > before.data:
                found[name] = _Rows(rows.data, labelled, scale, rows.size)
            elif rows.data == before.data:
                before.labelled = before.labelled + labelled
                before.size = max(before.size, rows.size)
    return found


def _stack(values: list[Tensor | float], like: Tensor) -> Tensor:
    """Numbers and scalar tensors as one tensor ``(K,)``, without a copy to the device for each number."""
    if not any(isinstance(value, Tensor) for value in values):
        return torch.tensor(values, dtype=like.dtype, device=like.device)
    return torch.stack([torch.as_tensor(value, device=like.device).to(like.dtype) for value in values])
