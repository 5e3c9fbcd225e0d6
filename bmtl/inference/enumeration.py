"""The terms of programs whose discrete latents are enumerated, by task."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from opt_einsum import shared_intermediates
from pyro.distributions.util import is_identically_zero
from pyro.infer.util import compute_site_dice_factor
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import LogRing
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from bmtl.inference.half_precision import autocast_now
from bmtl.inference.site_tasks import Site, SiteTask, task_plate_of
from bmtl.inference.trace_walk import TraceWalk, check_guide

Plates = frozenset[str]  # the symbols of a site's plates


class EnumerationWalk(TraceWalk):
    """Adds up the terms of trace pairs in which discrete latents are enumerated, in the guide or in the model.

    A tensor is packed, as Pyro's `TraceEnum_ELBO` has it: its dimensions are named by symbols, those of plates and those of
    enumerated latents, and have no place.

    A latent enumerated in the guide gives each task the expectation of its term under the guide. A latent enumerated in the
    model alone is summed out; `_Component` says which task gets which part.
    """

    def add(self, model_trace: Trace, guide_trace: Trace) -> None:
        """Adds the terms of a pair of traces with packed tensors.

        Raises:
            ValueError: If a site cannot be taken, with its name.
        """
        self.traces.append((model_trace, guide_trace))
        check_guide(model_trace, guide_trace)
        sites, owners = _samples(model_trace), self._owners(model_trace, guide_trace)
        if sites:
            with autocast_now(sites[0]["value"].device, False):  # sums of densities are not for half precision
                self._add_costs(list(self._costs(model_trace, guide_trace, owners)), guide_trace)

    def _owners(self, model_trace: Trace, guide_trace: Trace) -> dict[str, SiteTask]:
        """The tasks of all sites; counts labels and warns as it finds them."""
        owners: dict[str, SiteTask] = {}
        for site in _samples(model_trace):
            owners[site["name"]] = owner = self._owner(site)
            if site["is_observed"]:
                self._counts.add(owner, _without_enumerated(site, int(self.max_plate_nesting)))
                if not owner.names:
                    self.warnings.outside_tasks(site)
        for site in _samples(guide_trace):
            if site["name"] not in owners:
                owners[site["name"]] = self._owner_of_auxiliary(site["name"], guide_trace, owners)
        return owners

    def posteriors(self, model_trace: Trace, guide_trace: Trace) -> dict[str, Tensor]:
        """The posterior of each latent that the model sums out, given what is observed and what the guide draws.

        Returns:
            Site -> probabilities, of its plates' sizes and last its values.
        """
        _, components = self._parts(model_trace, guide_trace, self._owners(model_trace, guide_trace))
        with shared_intermediates() as cache:
            weights = _GuideWeights(guide_trace, cache, scored=False)
            return {
                factor.site["name"]: _unpacked(weights.averaged(factor, posterior), factor, model_trace)
                for component in components
                for factor, posterior in component.posteriors()
            }

    def _costs(self, model_trace: Trace, guide_trace: Trace, owners: dict[str, SiteTask]) -> "Iterator[_Cost]":
        """The program's terms of the ELBO, one after another."""
        costs, components = self._parts(model_trace, guide_trace, owners)
        yield from costs
        for component in components:
            yield from component.costs(guide_trace)
        for site in _samples(guide_trace):
            value = packed.neg(site["packed"]["log_prob"])
            cost = self._cost(site, guide_trace, owners, value)
            yield cost._replace(observed=False, plain=_detached(value) if _is_scored(site) else value)

    def _parts(
        self, model_trace: Trace, guide_trace: Trace, owners: dict[str, SiteTask]
    ) -> "tuple[list[_Cost], list[_Component]]":
        """The model's terms: those that depend on nothing that is summed out, and the others."""
        summed = {
            site["infer"]["_enumerate_symbol"]
            for site in _samples(model_trace)
            if site["name"] not in guide_trace.nodes and site["infer"].get("_enumerate_dim") is not None
        }
        costs: list[_Cost] = []
        factors: list[_Factor] = []
        for site in _samples(model_trace):
            value = site["packed"]["log_prob"]
            if summed.isdisjoint(value._pyro_dims):
                costs.append(self._cost(site, model_trace, owners, value))
                continue
            latent = site["infer"].get("_enumerate_symbol") in summed
            density = site["packed"]["unscaled_log_prob"]
            if not latent:  # the mask goes inside the logarithm, and the scale outside
                density = packed.scale_and_mask(density, mask=site["packed"]["mask"])
            factors.append(_Factor(self._cost(site, model_trace, owners, density), latent, site))
        return costs, _components(factors, summed)

    @staticmethod
    def _cost(site: Site, trace: Trace, owners: dict[str, SiteTask], value: Tensor) -> "_Cost":
        owner = owners[site["name"]]
        task = "" if owner.dim is None else trace.plate_to_symbol.get(task_plate_of(site), "")
        return _Cost(owner, task, site["is_observed"], _plates_of(site, trace), value, value)

    def _add_costs(self, costs: "list[_Cost]", guide_trace: Trace) -> None:
        """Adds the costs' expectations over what the guide enumerates, and score terms of what it cannot reparameterise."""
        scored = any(_is_scored(site) for site in _samples(guide_trace))
        self._scored = self._scored or scored
        with shared_intermediates() as cache:
            exact = _GuideWeights(guide_trace, cache, scored=False)
            full = _GuideWeights(guide_trace, cache, scored=True) if scored else None
            for cost in costs:
                owner = cost.owner if cost.owner.dim is None else cost.owner._replace(dim=-1)
                term = -exact.expectation(cost, cost.plain)
                (self._nll if cost.observed else self._kl).add(owner, term)
                if full is not None:
                    score = -full.expectation(cost, cost.value) - term
                    (self._score_nll if cost.observed else self._score_kl).add(owner, score - score.detach())


class _Cost(NamedTuple):
    """A term of the ELBO.

    Attributes:
        owner: Its task.
        task: Symbol of the task plate that it lies in, or "".
        observed: It is a likelihood, and else a part of a divergence.
        plates: The symbols of its plates.
        value: Its log density or log densities, packed.
        plain: The same without the gradient of a density that only score terms need.
    """

    owner: SiteTask
    task: str
    observed: bool
    plates: Plates
    value: Tensor
    plain: Tensor


class _Factor(NamedTuple):
    """A density that depends on a latent which is summed out.

    Attributes:
        cost: What it would be without that latent: its task, plates, and unscaled log density.
        latent: It is the density of such a latent itself.
        site: Its site.
    """

    cost: _Cost
    latent: bool
    site: Site


class _Component:
    """Densities that are joined by latents which are summed out, with log-marginal ``log Z``.

    Where all of them are of one task, and what depends on the latents is observed, ``-log Z`` is the task's negative
    log-likelihood (likewise a divergence, where all that depends on them are other latents). Otherwise it is split by the
    latents' exact posterior r given all observations,

        log Z = sum_i E_r[log p_i] + H(r),

    the negative ELBO of a guide that is this posterior: each observation gives its task ``-E_r[log p(y | z)]``, each latent
    its own task (or the shared terms) ``-E_r[log p(z)]``, and the entropy ``-H(r)`` goes where the latents are. No order of
    the tasks enters. The posterior is taken without its gradient: those of the parts then add up to that of ``log Z``
    (Fisher's identity), and a task's part has no gradient by what belongs to another task alone.

    Args:
        factors: The densities.
        summed: The symbols of the latents.
    """

    def __init__(self, factors: Sequence[_Factor], summed: set[str]) -> None:
        self.factors, self.summed = factors, summed
        self.latents = [factor for factor in factors if factor.latent]
        self.dependants = [factor for factor in factors if not factor.latent]

    def costs(self, guide_trace: Trace) -> Iterator[_Cost]:
        """Its terms of the ELBO."""
        self._check_guide(guide_trace)
        scale = self._scale()
        for cost in self._unscaled():
            value = packed.scale_and_mask(cost.value, scale=scale)
            yield cost._replace(value=value, plain=value)

    def posteriors(self) -> Iterator[tuple[_Factor, Tensor]]:
        """The posterior of each latent and those that it depends on."""
        _, _, found = self._posterior()
        return ((factor, r) for factor, r in zip(self.factors, found, strict=True) if factor.latent)

    def _unscaled(self) -> Iterator[_Cost]:
        owners = {(factor.cost.owner, factor.cost.task) for factor in self.factors}
        kinds = {factor.cost.observed for factor in self.dependants}
        if len(owners) == 1 and len(kinds) <= 1:
            plates, marginal = self._contracted([factor.cost.value for factor in self.factors])
            yield self.factors[0].cost._replace(observed=kinds == {True}, plates=plates, value=marginal)
            return
        plates, marginal, posteriors = self._posterior()
        kept = plates | self._guide_dims()
        entropy = marginal
        for factor, posterior in zip(self.factors, posteriors, strict=True):
            cost = factor.cost
            expected = _weighted(posterior, cost.value, kept | {cost.task})
            yield cost._replace(plates=plates, value=expected)
            entropy = _added(entropy, packed.neg(_summed(_detached(expected), kept)))
        owner, task = _common({(factor.cost.owner, factor.cost.task) for factor in self.latents})
        if task and task not in plates:
            owner, task = SiteTask(), ""
        yield _Cost(owner, task, False, plates, entropy, entropy)

    def _posterior(self) -> tuple[Plates, Tensor, list[Tensor]]:
        """Plates and value of the log marginal, and the posterior of each factor's latents: d log Z / d log p_i."""
        dims = "".join(sorted(self._guide_dims()))
        sizes = _sizes(factor.cost.value for factor in self.factors)
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [_leaf(factor.cost.value, dims, sizes) for factor in self.factors]
            plates, marginal = self._contracted(leaves)
            found = torch.autograd.grad(marginal.sum(), leaves)
        return (
            plates,
            _detached(marginal),
            [_pack(r, leaf._pyro_dims) for r, leaf in zip(found, leaves, strict=True)],  # type: ignore[attr-defined]
        )

    def _contracted(self, values: Sequence[Tensor]) -> tuple[Plates, Tensor]:
        """The logarithm of the sum over the latents of the product of densities, and its plates."""
        tree: OrderedDict[Plates, list[Tensor]] = OrderedDict()
        for factor, value in zip(self.factors, values, strict=True):
            tree.setdefault(factor.cost.plates, []).append(value)
        with shared_intermediates() as cache:
            ring = LogRing(cache=cache, dim_to_size=_sizes(values))
            ((plates, (marginal,)),) = contract_tensor_tree(tree, set(self.summed), ring=ring).items()
        return plates, marginal

    def _guide_dims(self) -> set[str]:
        """Symbols of latents that the guide enumerates and these densities depend on."""
        every = {dim for factor in self.factors for dim in factor.cost.value._pyro_dims}  # type: ignore[attr-defined]
        return every - self.summed - frozenset().union(*(factor.cost.plates for factor in self.factors))

    def _scale(self) -> Any:
        scales = [factor.site["scale"] for factor in self.factors]
        if any(isinstance(scale, Tensor) and scale.dim() for scale in scales) or len(set(map(float, scales))) > 1:
            raise ValueError(
                f"The enumerated latents {self._names(self.latents)} and what depends on them, "
                f"{self._names(self.dependants)}, are scaled differently ({', '.join(map(str, scales))}): a sum over "
                "latents has one scale. Put a latent into the plate whose rows are subsampled; a latent of all rows "
                "needs them all, or a guide."
            )
        return scales[0]

    def _check_guide(self, guide_trace: Trace) -> None:
        plates = frozenset.intersection(*(factor.cost.plates for factor in self.latents))
        dims = self._guide_dims()
        for site in _samples(guide_trace):
            if site["infer"].get("_enumerate_symbol") in dims and not _plates_of(site, guide_trace) <= plates:
                raise ValueError(
                    f"Guide site {site['name']!r} is enumerated in a plate, and the model sums out "
                    f"{self._names(self.latents)} outside of it, on which it depends. Enumerate those in the guide too."
                )

    @staticmethod
    def _names(factors: Iterable[_Factor]) -> str:
        return ", ".join(repr(factor.site["name"]) for factor in factors) or "nothing"


def _components(factors: Sequence[_Factor], summed: set[str]) -> list[_Component]:
    """The factors that have latents in common, directly or through others."""
    groups: list[tuple[set[str], list[_Factor]]] = []
    for factor in factors:
        dims, members = summed.intersection(factor.cost.value._pyro_dims), [factor]  # type: ignore[attr-defined]
        apart = []
        for group in groups:
            if dims & group[0]:
                dims, members = dims | group[0], group[1] + members
            else:
                apart.append(group)
        groups = [*apart, (dims, members)]
    return [_Component(members, dims) for dims, members in groups]


class _GuideWeights:
    """The weights of terms that depend on what the guide draws: probabilities of enumerated values, and 1 of drawn ones.

    Args:
        guide_trace: Of the guide.
        cache: Of opt_einsum.
        scored: Weights of drawn values that cannot be reparameterised have the gradient of their log density, as score
            terms want it.
    """

    def __init__(self, guide_trace: Trace, cache: dict[Any, Any], scored: bool) -> None:
        self._ring = LogRing(cache=cache)
        self._factors: list[tuple[Plates, Tensor]] = []
        self._repeated: list[tuple[Plates, float]] = []  # by how many traces a term is counted, as a logarithm
        self._known: dict[tuple[Plates, Plates], Tensor | float] = {}
        for site in _samples(guide_trace):
            log_weight, log_number = compute_site_dice_factor(site)
            plates = _plates_of(site, guide_trace)
            if isinstance(log_weight, Tensor):
                drawn = _is_scored(site)
                if not drawn or scored:
                    self._factors.append((plates, log_weight))
                elif site["infer"].get("num_samples") is not None:
                    self._factors.append((plates, _detached(log_weight)))
            if log_number:
                self._repeated.append((plates, log_number))

    def expectation(self, cost: _Cost, value: Tensor) -> Tensor:
        """The weighted sum of a cost over all dimensions but that of its task plate."""
        weight = self._weight(cost.plates, frozenset(value._pyro_dims))  # type: ignore[attr-defined]
        if isinstance(weight, Tensor):
            return _weighted(weight, value, {cost.task})
        found = _summed(value, {cost.task})
        return found if weight == 1.0 else weight * found

    def averaged(self, factor: _Factor, posterior: Tensor) -> Tensor:
        """The posterior of a latent alone: over what it depends on, and over what the guide enumerates."""
        kept = factor.cost.plates | {factor.site["infer"]["_enumerate_symbol"]}
        weight = self._weight(factor.cost.plates, frozenset(posterior._pyro_dims))  # type: ignore[attr-defined]
        return _weighted(weight, posterior, kept) if isinstance(weight, Tensor) else _summed(posterior, kept)

    def _weight(self, plates: Plates, dims: Plates) -> Tensor | float:
        if (plates, dims) not in self._known:
            self._known[plates, dims] = self._computed(plates, dims)
        return self._known[plates, dims]

    def _computed(self, plates: Plates, dims: Plates) -> Tensor | float:
        upstream = [factor for of, factor in self._factors if of <= plates]
        number = sum(log_number for of, log_number in self._repeated if not of <= plates)
        share = float(torch.tensor(-number, dtype=torch.float64).exp()) if number else 1.0
        if not upstream:
            return share
        every = {dim for factor in upstream for dim in factor._pyro_dims}  # type: ignore[attr-defined]
        weight = packed.exp(self._ring.sumproduct(upstream, every - dims - plates))
        return weight if share == 1.0 else _pack(share * weight, weight._pyro_dims)


# ---- Sites -----------------------------------------------------------------------------------------------------------


def _samples(trace: Trace) -> list[Site]:
    """The sample sites; subsampling has been pruned."""
    return [site for site in trace.nodes.values() if site["type"] == "sample"]


def _plates_of(site: Site, trace: Trace) -> Plates:
    return frozenset(trace.plate_to_symbol[frame.name] for frame in site["cond_indep_stack"] if frame.vectorized)


def _is_scored(site: Site) -> bool:
    """Whether a guide's site is drawn and has score terms."""
    enumerated = site["infer"].get("enumerate") and site["infer"].get("num_samples") is None
    return not enumerated and not is_identically_zero(site["packed"]["score_parts"].score_function)


def _common(owners: set[tuple[SiteTask, str]]) -> tuple[SiteTask, str]:
    """The only one, or none (shared)."""
    return next(iter(owners)) if len(owners) == 1 else (SiteTask(), "")


def _without_enumerated(site: Site, nesting: int) -> Site:
    """A site without the dimensions of enumerated latents, left of those of plates, for counts of its rows."""
    shape = site["fn"].batch_shape
    if len(shape) <= nesting:
        return site
    rows = shape[len(shape) - nesting :]

    def of_rows(mask: Any) -> Any:
        if not isinstance(mask, Tensor) or mask.dim() <= nesting:
            return mask
        return mask.flatten(0, mask.dim() - nesting - 1).any(0)

    zeros = torch.zeros(rows, device=site["value"].device)
    fn = dist.Unit(zeros) if isinstance(site["fn"], dist.Unit) else dist.Delta(zeros)
    if isinstance(site["fn"], dist.MaskedDistribution):
        fn = fn.mask(of_rows(site["fn"]._mask))
    return {**site, "fn": fn, "mask": of_rows(site["mask"])}


# ---- Packed tensors --------------------------------------------------------------------------------------------------


def _pack(value: Tensor, dims: str) -> Tensor:
    value._pyro_dims = dims  # type: ignore[attr-defined]
    return value


def _detached(value: Tensor) -> Tensor:
    return _pack(value.detach(), value._pyro_dims)  # type: ignore[attr-defined]


def _sizes(values: Iterable[Tensor]) -> dict[str, int]:
    return {dim: size for value in values for dim, size in zip(value._pyro_dims, value.shape, strict=True)}  # type: ignore[attr-defined]


def _unpacked(value: Tensor, factor: _Factor, trace: Trace) -> Tensor:
    """In the order of the site's plates, and last the latent's values."""
    own: str = value._pyro_dims  # type: ignore[attr-defined]
    frames = sorted((f for f in factor.site["cond_indep_stack"] if f.vectorized), key=lambda frame: frame.dim)
    order = [trace.plate_to_symbol[frame.name] for frame in frames] + [factor.site["infer"]["_enumerate_symbol"]]
    sizes = [value.shape[own.index(dim)] if dim in own else 1 for dim in order]  # a dimension of size 1 is not there
    return value.permute([own.index(dim) for dim in order if dim in own]).reshape(sizes)


def _leaf(value: Tensor, dims: str, sizes: dict[str, int]) -> Tensor:
    """A copy without a graph, along further dimensions, by which derivatives are taken."""
    own: str = value._pyro_dims  # type: ignore[attr-defined]
    further = "".join(dim for dim in dims if dim not in own)
    copy = value.detach().clone().expand([sizes[dim] for dim in further] + list(value.shape))
    return _pack(copy.requires_grad_(), further + own)


def _summed(value: Tensor, kept: Iterable[str]) -> Tensor:
    """Summed over all dimensions but those of some symbols."""
    own: str = value._pyro_dims  # type: ignore[attr-defined]
    over = [i for i, dim in enumerate(own) if dim not in kept]
    rest = "".join(dim for dim in own if dim in kept)
    return _pack(value.sum(over) if over else value[...], rest)


def _weighted(weight: Tensor, value: Tensor, kept: Iterable[str]) -> Tensor:
    """The sum of weights times values; what has no weight counts nothing, also if it is infinite."""
    weight, value = packed.broadcast_all(weight, value)
    dims: str = value._pyro_dims  # type: ignore[attr-defined]
    return _summed(_pack(weight * torch.where(weight > 0, value, 0.0), dims), set(kept))


def _added(one: Tensor, other: Tensor) -> Tensor:
    one, other = packed.broadcast_all(one, other)
    return _pack(one + other, one._pyro_dims)  # type: ignore[attr-defined]
