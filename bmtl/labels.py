"""Labels of a batch as a distribution takes them: whether they fit, which are missing, and what replaces those.

A label is NaN where it is missing in a float tensor and -1 in an integer one, and an event with a missing entry is missing
as a whole. A distribution that sees its labels otherwise says so itself, by any of

* ``label_shape``: shape of one row's label, where that is not its ``event_shape`` (a censored time is drawn as a number and
  observed as an interval, ``(2,)``);
* ``missing(value)``: bool tensor of the shape of `value`, which entries are missing;
* ``feasible(value)``: a tensor that broadcasts to `value`, whose entries have a finite density in place of missing ones;
* ``marginal(mask)``: the distribution of the entries in `mask` (bool, rows and event) alone. Its ``log_prob`` takes events
  of the full shape and ignores the others; a row is then missing only if all of its entries are.
"""

from collections.abc import Sequence
from functools import singledispatch
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK, Message, effectful
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
    constraints,
    transform_to,
)
from torch.distributions.constraints import Constraint, MixtureSameFamilyConstraint

PARTICLE_PLATE = "num_particles_vectorized"
"""Pyro's name for the plate of vectorised particles."""


class Labels(NamedTuple):
    """Labels that a density can be taken of.

    Attributes:
        fn: The distribution; the marginal of what is labelled, where it offers one.
        value: The labels, with missing ones replaced.
        labelled: Which rows have a label, bool, of the labels' batch shape.
    """

    fn: Any
    value: Tensor
    labelled: Tensor


def read_labels(name: str, fn: Any, value: Tensor) -> Labels:
    """Checks labels against a distribution and replaces missing ones by values that have a density.

    They are replaced *before* a density is taken, since a mask alone lets NaN into the gradient.

    Args:
        name: Name of the site, for messages.
        fn: Distribution with batch shape ``(B,)``, or one that broadcasts to it.
        value: Labels, ``(B,)`` and the shape of one label.

    Raises:
        TypeError: As `check_targets`.
        ValueError: As `check_targets`; if labels are missing and no replacement is known.
    """
    shape = label_shape(fn)
    check_targets(
        name,
        fn.batch_shape + shape,
        value,
        event_dim=len(shape),
        discrete=not _is_continuous(fn),
        categorical=has_classes(fn),
    )
    if not value.is_floating_point():
        value = value.long()  # densities negate and subtract, and bool and uint8 have no negative numbers
    missing = missing_entries(fn, value)
    absent = missing
    if shape and hasattr(fn, "marginal"):
        absent = missing.flatten(-len(shape)).all(-1)
        fn = fn.marginal(~missing)
    elif shape:  # half of a simplex has no density
        absent = missing.flatten(-len(shape)).any(-1)
        missing = absent.reshape(absent.shape + (1,) * len(shape))
    filled = torch.where(missing, _replacement(name, fn, value, missing), value)
    if not value.is_floating_point() and _is_boolean(_support(fn)):
        filled = filled.to(fn.mean.dtype)  # torch's Bernoulli takes floats only
    return Labels(fn, filled, ~absent)


def label_shape(fn: Any) -> torch.Size:
    """Shape of one row's label under a distribution."""
    return torch.Size(getattr(fn, "label_shape", fn.event_shape))


def missing_entries(fn: Any, value: Tensor) -> Tensor:
    """Which entries of labels are missing, bool, of their shape."""
    if hasattr(fn, "missing"):
        found: Tensor = fn.missing(value)
        return found
    return value.isnan() if value.is_floating_point() else value == -1


def has_classes(fn: Any) -> bool:
    """Whether a distribution is over class indices, which are integers; counts may be floats."""
    inner = fn
    while isinstance(inner, Independent | dist.MaskedDistribution | dist.ExpandedDistribution | MixtureSameFamily):
        inner = inner.component_distribution if isinstance(inner, MixtureSameFamily) else inner.base_dist
    return isinstance(inner, Categorical)


# ---- Replacements of missing labels ----------------------------------------------------------------------------------


def _replacement(name: str, fn: Any, value: Tensor, missing: Tensor) -> Tensor:
    """Values that have a density, broadcastable to `value`."""
    try:
        with torch.no_grad():
            return feasible(fn, value)
    except NotImplementedError as error:
        if not missing.any():
            return value
        raise ValueError(
            f"Site {name!r} has missing labels, and a value inside the support of {type(fn).__name__} is not known, to "
            "replace them. Give the distribution a method feasible(value) that returns one, or leave the rows out."
        ) from error


@singledispatch
def feasible(fn: Any, value: Tensor) -> Tensor:
    """A value inside a distribution's support: a tensor that broadcasts to the labels `value`.

    Raises:
        NotImplementedError: If none is known.
    """
    if hasattr(fn, "feasible"):
        found: Tensor = fn.feasible(value)
        return found
    support = _support(fn)
    if support is not None:
        try:
            return _inside(support, value)
        except NotImplementedError:
            pass  # no transform leads to this support
    if label_shape(fn) != fn.event_shape:
        raise NotImplementedError
    cuda = [value.device] if value.is_cuda else []
    with torch.random.fork_rng(devices=cuda):  # training must draw what it draws without missing labels
        drawn: Tensor = fn.sample()
    return drawn.to(value)


@feasible.register
def _(fn: TransformedDistribution, value: Tensor) -> Tensor:
    base = _support(fn.base_dist)
    own = type(fn).support is not TransformedDistribution.support
    if own or getattr(base, "base_constraint", base) is constraints.real:
        return _inside(fn.support, value)
    # The support is said to be the last transform's codomain, of which some bases reach a part: an affine map of a positive
    # number is not any number.
    shape = value.shape
    for transform in reversed(fn.transforms):
        shape = transform.inverse_shape(shape)
    found = feasible(fn.base_dist, value.new_zeros(shape))
    for transform in fn.transforms:
        found = transform(found)
    return found


@feasible.register(dist.MaskedMixture)
def _(fn: Any, value: Tensor) -> Tensor:
    mask = fn.mask.reshape(fn.mask.shape + (1,) * len(fn.event_shape))
    return torch.where(mask, feasible(fn.component1, value), feasible(fn.component0, value))


def _inside(support: Constraint, value: Tensor) -> Tensor:
    """A value inside a support, ``()`` or broadcastable to `value`."""
    if support is constraints.real:
        return value.new_zeros(())
    if isinstance(support, MixtureSameFamilyConstraint):
        return _inside_all(support.base_constraint, value)
    if support.is_discrete:
        if support.event_dim and not isinstance(support, constraints.independent):
            first = torch.zeros_like(value)  # one-hot vectors and counts: all in the first class
            first[..., 0] = getattr(support, "upper_bound", 1)
            return first
        lower = getattr(support, "lower_bound", 0)
        return lower.to(value) if isinstance(lower, Tensor) else value.new_full((), lower)
    transform = transform_to(support)
    found: Tensor = transform(value.new_zeros(transform.inverse_shape(value.shape)))
    return found


def _inside_all(support: Constraint, value: Tensor) -> Tensor:
    """A value inside the supports of all components of a mixture, which may depend on the component."""
    dim = -1 - support.event_dim
    candidates = _inside(support, value.unsqueeze(dim))
    if candidates.dim() < -dim or candidates.shape[dim] == 1:
        return candidates if candidates.dim() < -dim else candidates.squeeze(dim)
    # Each component's own, with itself as its own batch: (K, ..., 1, event).
    each = candidates.movedim(dim, 0).unsqueeze(dim)
    fits = support.check(each).all(-1)  # (K, ...)
    best = fits.long().argmax(0).reshape((1, *fits.shape[1:], *(1,) * support.event_dim))
    each = each.squeeze(dim)
    return each.gather(0, best.expand(1, *each.shape[1:])).squeeze(0)


def _support(fn: Any) -> Constraint | None:
    """A distribution's support, None where it does not say."""
    try:
        found: Constraint | None = fn.support
    except NotImplementedError:
        return None
    return found


def _is_continuous(fn: Any) -> bool:
    """Whether a distribution is certain to be over floats: a support that no transform leads to may hold anything."""
    support = _support(fn)
    if support is None:
        return False
    while isinstance(support, MixtureSameFamilyConstraint | constraints.independent):
        support = support.base_constraint
    try:
        if support.is_discrete:
            return False
        transform_to(support)
    except NotImplementedError:
        return False
    return True


def _is_boolean(support: Constraint | None) -> bool:
    return getattr(support, "base_constraint", support) is constraints.boolean


# ---- Checks ----------------------------------------------------------------------------------------------------------


class _OpenPlates(Messenger):
    """Finds the plates that are open where a program is."""

    def _pyro_post_plates(self, msg: Message) -> None:
        self.frames = msg["cond_indep_stack"]


@effectful(type="plates")
def _ask_for_plates() -> None:
    return None


def _of_rows(shape: Sequence[int], event_dim: int) -> tuple[int, ...]:
    """A distribution's shape within one particle, and for one value of each enumerated latent.

    The plate of vectorised particles, and then the dimensions of enumerated latents, are left of all other plates.
    """
    with _OpenPlates() as plates:
        _ask_for_plates()
    dims = {frame.name: frame.dim for frame in plates.frames if frame.dim is not None}
    left = [-1 - dims[PARTICLE_PLATE]] if PARTICLE_PLATE in dims else []
    if any(isinstance(handler, EnumMessenger) for handler in _PYRO_STACK):
        left.append(-min(dims.values(), default=0))
    if not left:
        return tuple(shape)
    one = list(shape[max(len(shape) - event_dim - min(left), 0) :])
    while len(one) > event_dim and one[0] == 1:
        del one[0]
    return tuple(one)


def check_targets(
    name: str,
    shape: Sequence[int],
    value: Tensor,
    *,
    event_dim: int = 0,
    discrete: bool,
    categorical: bool = False,
) -> None:
    """Checks that labels fit a distribution in shape and kind.

    Args:
        name: Name of the site, for messages.
        shape: Batch shape of the distribution and shape of one label.
        value: The labels.
        event_dim: How many dimensions of the shape are those of one label.
        discrete: Whether the distribution is discrete.
        categorical: Whether it is over class indices.

    Raises:
        TypeError: If integers are observed under a continuous distribution, floats under a categorical one, or anything
            but a tensor.
        ValueError: If the shape of `value` is not the one that the distribution describes: ``(B,)`` against ``(B, 1)``
            would broadcast to ``(B, B)`` unseen.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"Site {name!r} was given targets of type {type(value).__name__}, and a tensor is expected.")
    if value.shape != shape:
        shape = _of_rows(shape, event_dim)  # all particles, and all enumerated values, see the same targets
        try:
            fits = torch.broadcast_shapes(shape, value.shape) == value.shape
        except RuntimeError:
            fits = False
        if not fits or (event_dim and value.shape[-event_dim:] != shape[len(shape) - event_dim :]):
            raise ValueError(
                f"Site {name!r} was given targets of shape {tuple(value.shape)}, and its distribution has shape "
                f"{tuple(shape)}. Targets are (B,), one entry per row of the batch{_event_words(shape, event_dim)}: "
                "squeeze or reshape them (or the prediction)."
            )
    if value.is_floating_point():
        if categorical:
            raise TypeError(
                f"Site {name!r} is categorical, and its targets are {value.dtype}. Give class indices as integers, "
                "with -1 for a missing label."
            )
    elif not discrete:
        raise TypeError(
            f"Site {name!r} has a continuous distribution, and its targets are {value.dtype}. Give floats, with NaN "
            "for a missing label."
        )


def _event_words(shape: Sequence[int], event_dim: int) -> str:
    return f", and {tuple(shape[len(shape) - event_dim :])} numbers an entry" if event_dim else ""
