"""What torch's and Pyro's distributions are called in reports, and the class probabilities of those over classes."""

from functools import singledispatch
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    Laplace,
    LogNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
    Weibull,
)

TensorLaw = tuple[str, dict[str, Tensor]]
"""Name, a key of `bmtl.targets.laws.LAWS`, and parameters. Each has all batch dimensions on the left, of size 1 where it is
the same along one."""

LARGEST_MATRIX = 32
"""Components of a vector up to which independent normals are reported as one with a covariance matrix a row."""


@singledispatch
def law_of(fn: Any) -> TensorLaw | None:
    """Name and parameters of a distribution, for reports; None if it has no name there, and draws must do.

    A distribution that is not torch's or Pyro's answers by a method ``law()`` of the same result. Wrappers (``mask``,
    ``expand``, ``to_event(0)``) are looked through, and a vector of independent normals is a multivariate one.
    """
    own = getattr(fn, "law", None)
    found: TensorLaw | None = None if own is None else own()
    return found and (found[0], {key: _constant_once(value, len(fn.batch_shape)) for key, value in found[1].items()})


@singledispatch
def probabilities_of(fn: Any) -> Tensor | None:
    """Class probabilities ``(*batch, C)`` of a distribution over classes ``0..C-1``; None of any other.

    A distribution that is not torch's or Pyro's answers by a method ``class_probabilities()``.
    """
    own = getattr(fn, "class_probabilities", None)
    return None if own is None else own()


@singledispatch
def marginals_of(fn: Any) -> list[Any]:
    """The distribution of each component of vectors ``(*batch, d)`` alone, None where it is not known."""
    return [None] * fn.event_shape[-1]


@marginals_of.register
def _(fn: dist.MaskedDistribution) -> list[Any]:
    return [None if own is None else own.mask(fn._mask) for own in marginals_of(fn.base_dist)]


@marginals_of.register(MultivariateNormal)
@marginals_of.register(LowRankMultivariateNormal)
def _(fn: Any) -> list[Any]:
    return [dist.Normal(*pair) for pair in zip(fn.mean.unbind(-1), fn.variance.sqrt().unbind(-1), strict=True)]


@marginals_of.register
def _(fn: Independent) -> list[Any]:
    base = fn.base_dist
    if not isinstance(base, Normal | Laplace) or fn.reinterpreted_batch_ndims > 1:
        return [None] * fn.event_shape[-1]
    family = dist.Normal if isinstance(base, Normal) else dist.Laplace
    return [family(*pair) for pair in zip(base.loc.unbind(-1), base.scale.unbind(-1), strict=True)]


# ---- Wrappers --------------------------------------------------------------------------------------------------------


@law_of.register
def _(fn: dist.MaskedDistribution) -> TensorLaw | None:
    return law_of(fn.base_dist)


@law_of.register
def _(fn: dist.ExpandedDistribution) -> TensorLaw | None:
    found = law_of(fn.base_dist)
    added = len(fn.batch_shape) - len(fn.base_dist.batch_shape)
    return found and (found[0], {name: value[(None,) * added] for name, value in found[1].items()})


@law_of.register
def _(fn: Independent) -> TensorLaw | None:
    found = law_of(fn.base_dist)
    if not fn.reinterpreted_batch_ndims or found is None:
        return found
    if fn.reinterpreted_batch_ndims > 1 or fn.base_dist.event_shape or fn.event_shape[-1] > LARGEST_MATRIX:
        return None
    name, parameters = found
    if name != "student-t" or not torch.isinf(parameters["df"]).all():
        return None
    size = fn.event_shape[-1]
    loc, scale = (parameters[key].expand(*parameters[key].shape[:-1], size) for key in ("loc", "scale"))
    return "multivariate-normal", {"loc": loc, "scale_tril": torch.diag_embed(scale)}


@probabilities_of.register
def _(fn: dist.MaskedDistribution) -> Tensor | None:
    return probabilities_of(fn.base_dist)


@probabilities_of.register
def _(fn: dist.ExpandedDistribution) -> Tensor | None:
    found = probabilities_of(fn.base_dist)
    return None if found is None else found.expand(*fn.batch_shape, found.shape[-1])


@probabilities_of.register
def _(fn: Independent) -> Tensor | None:
    return None if fn.reinterpreted_batch_ndims else probabilities_of(fn.base_dist)


# ---- Classes ---------------------------------------------------------------------------------------------------------


@probabilities_of.register
def _(fn: Categorical) -> Tensor:  # Pyro's OrderedLogistic is one
    return fn.probs


@probabilities_of.register
def _(fn: Bernoulli) -> Tensor:
    return torch.stack([1 - fn.probs, fn.probs], -1)


# ---- Real numbers ----------------------------------------------------------------------------------------------------


@law_of.register
def _(fn: Normal) -> TensorLaw:
    return "student-t", {**_compact(fn, "loc", "scale"), "df": fn.loc.new_full((1,) * fn.loc.dim(), torch.inf)}


@law_of.register
def _(fn: StudentT) -> TensorLaw:
    return "student-t", _compact(fn, "loc", "scale", "df")


@law_of.register
def _(fn: Laplace) -> TensorLaw:
    return "laplace", _compact(fn, "loc", "scale")


@law_of.register(MultivariateNormal)
@law_of.register(LowRankMultivariateNormal)
def _(fn: Any) -> TensorLaw:
    # One covariance for all rows is one matrix in torch, until it is requested.
    tril = getattr(fn, "_unbroadcasted_scale_tril", None)
    tril = fn.scale_tril if tril is None else tril
    missing = len(fn.batch_shape) + 2 - tril.dim()
    return "multivariate-normal", {
        "loc": _constant_once(fn.loc, fn.loc.dim() - 1),
        "scale_tril": _constant_once(tril[(None,) * missing], len(fn.batch_shape)),
    }


# ---- Counts ----------------------------------------------------------------------------------------------------------


@law_of.register
def _(fn: Poisson) -> TensorLaw:
    return "poisson", _compact(fn, "rate")


@law_of.register
def _(fn: NegativeBinomial) -> TensorLaw:
    total = fn.total_count.to(fn.probs)
    return "negative-binomial", {"mean": fn.mean, "concentration": _constant_once(total, total.dim())}


@law_of.register
def _(fn: dist.GammaPoisson) -> TensorLaw:
    return "negative-binomial", {"mean": fn.concentration / fn.rate, **_compact(fn, "concentration")}


@law_of.register
def _(fn: dist.ZeroInflatedPoisson) -> TensorLaw:
    return "zero-inflated-poisson", _compact(fn, "rate", "gate")


# ---- Times -----------------------------------------------------------------------------------------------------------


@law_of.register
def _(fn: Weibull) -> TensorLaw:
    return "weibull", _compact(fn, "scale", "concentration")


@law_of.register
def _(fn: LogNormal) -> TensorLaw:
    return "log-normal", _compact(fn, "loc", "scale")


def _compact(fn: Any, *names: str) -> dict[str, Tensor]:
    """Parameters of these names, which have the batch shape, once where they are the same for all rows."""
    return {name: _constant_once(getattr(fn, name), len(fn.batch_shape)) for name in names}


def _constant_once(value: Tensor, batch_dims: int) -> Tensor:
    """A tensor without the copies that its memory does not hold either: one number expanded to all rows is one number."""
    for dim in range(batch_dims):
        if value.stride(dim) == 0:
            value = value.narrow(dim, 0, 1)
    return value
