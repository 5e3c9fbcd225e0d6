"""The marks that a Pyro program carries: which task a site belongs to, and what the tasks share.

with bmtl.task("depth"):                      # every sample site inside belongs to the task "depth"
    pyro.sample("y_depth", dist.Normal(head(h), 1.0), obs=y)
"""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message, effectful
from torch import Tensor
from torch.distributions import constraints, transform_to

TASK_PLATE = "task"
"""Name of the vectorised plate whose rows are tasks."""

PARTICLE_PLATE = "num_particles_vectorized"
"""Pyro's name for the plate of vectorised particles."""


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns task names as a tuple.

    Raises:
        ValueError: If there is no name, a name is empty or not a string, or one stands twice.
    """
    names = tuple(names)
    if not names:
        raise ValueError("A list of tasks needs at least one name, and this one is empty.")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"A task's name is a non-empty string, and {name!r} was given.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Task names must differ, and {', '.join(map(repr, twice))} stands more than once in {names}.")
    return names


class task(Messenger):
    """SharedRepresentation every sample site inside as a part of one task; the innermost mark wins.

    The guide needs no marks: a guide site belongs to the task of the model's site of that name. Sites without a mark are
    shared. Entering the same task more than once (its prior here, its likelihood there) is normal.

    Args:
        name: The task. It may hold a slash (``affinity/nll`` and ``affinity/mse`` are two objectives of one target).

    Raises:
        ValueError: If the name is not a non-empty string.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> with task("depth"):
        ...     trace = pyro.poutine.trace(lambda: pyro.sample("y", dist.Normal(0.0, 1.0))).get_trace()
        >>> trace.nodes["y"]["task"]
        'depth'
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        (self.name,) = check_names((name,))

    def _pyro_sample(self, msg: Message) -> None:
        # On the message and not in `infer`: replay hands a model site the guide's `infer`, and the mark would be lost.
        msg.setdefault("task", self.name)  # type: ignore[typeddict-item]


class task_plate(pyro.plate):
    """A vectorised plate whose rows are tasks, with their names.

    A plain ``pyro.plate("task", K)`` is understood too; its tasks are called "0", "1", ...

    Args:
        names: One name a row, ``(K,)``.
        dim: The plate's dimension, counted from the right; by default the next free one.
        n_data: Number of data of each task, where they differ and rows inside are padded to one length; by default what
            the plates inside declare.

    Raises:
        ValueError: If a name is empty or stands twice, or `n_data` has another length.
    """

    def __init__(self, names: Sequence[str], dim: int | None = None, n_data: Sequence[int] | None = None) -> None:
        self.names = check_names(names)
        self.n_data = None if n_data is None else tuple(n_data)
        if self.n_data is not None and len(self.n_data) != len(self.names):
            raise ValueError(f"n_data has {len(self.n_data)} numbers for the {len(self.names)} tasks {self.names}.")
        super().__init__(TASK_PLATE, len(self.names), dim=dim)

    def _process_message(self, msg: Message) -> None:
        super()._process_message(msg)
        if msg["type"] == "sample":
            msg["task_names"] = self.names  # type: ignore[typeddict-unknown-key]
            msg["task_n_data"] = self.n_data  # type: ignore[typeddict-unknown-key]


@effectful(type="shared")
def _mark(h: Tensor) -> Tensor:
    return h


def shared(h: Tensor) -> Tensor:
    """SharedRepresentation the representation that the tasks share; returns it unchanged.

    Balancers may use a marked tensor as the surface where task gradients are compared: the parameters upstream of it are
    the shared ones. A program may mark several tensors (one per task, each from its own input): together they are the
    shared representation. A program without the mark works; only the cheap geometries are then not offered.

    Args:
        h: Any shape, usually ``(B, width)``.

    Raises:
        TypeError: If `h` is not a tensor.
    """
    if not isinstance(h, Tensor):
        raise TypeError(f"bmtl.shared marks a tensor, and {type(h).__name__} was given; mark each tensor by itself.")
    return _mark(h)


def observe(name: str, fn: Any, value: Tensor | None) -> Tensor:
    """Sample site that leaves missing labels out.

    A missing label is NaN in a float tensor and -1 in an integer one; an event with a missing entry is missing as a
    whole. It is filled with a value inside the distribution's support *before* its density is taken and then masked,
    since a mask alone would let its NaN into the gradient.

    Args:
        name: Name of the site, by convention ``y_<target>``.
        fn: Distribution with batch shape ``(B,)`` or one that broadcasts to it.
        value: Targets, batch shape ``(B,)`` plus the event shape; None samples (prediction).

    Returns:
        The filled targets, or the sample.

    Raises:
        TypeError: If integers are observed under a continuous distribution, floats under a categorical one, or anything
            but a tensor.
        ValueError: If the shape of `value` is not the one that the distribution describes: ``(B,)`` against ``(B, 1)``
            would broadcast to ``(B, B)`` unseen.
    """
    if value is None:
        return pyro.sample(name, fn)
    event_dim = len(fn.event_shape)
    support = fn.support
    shape = fn.batch_shape + fn.event_shape
    categorical = type(fn).__name__ == "Categorical"
    check_targets(name, shape, value, event_dim=event_dim, discrete=support.is_discrete, categorical=categorical)
    missing = value.isnan() if value.is_floating_point() else value == -1
    rows = missing
    if event_dim:  # one missing entry leaves its whole event out: half of a simplex has no density
        rows = missing.flatten(-event_dim).any(-1)
        missing = rows.reshape(rows.shape + (1,) * event_dim)
    filled = torch.where(missing, _feasible(support, value), value)
    if not value.is_floating_point() and _is_boolean(support):
        filled = filled.to(fn.mean.dtype)  # torch's Bernoulli takes floats only
    with poutine.mask(mask=~rows):  # type: ignore[call-overload]
        return pyro.sample(name, fn, obs=filled)


def _is_boolean(support: constraints.Constraint) -> bool:
    return getattr(support, "base_constraint", support) is constraints.boolean


def _feasible(support: constraints.Constraint, value: Tensor) -> Tensor:
    """A value inside the support, to stand where a label is missing; ``()`` or the shape of `value`."""
    if support is constraints.real:
        return value.new_zeros(())
    if support.is_discrete:
        if support.event_dim and not isinstance(support, constraints.independent):
            first = torch.zeros_like(value)  # one-hot vectors and counts: all in the first class
            first[..., 0] = getattr(support, "upper_bound", 1)
            return first
        lower = getattr(support, "lower_bound", 0)
        return lower.to(value) if isinstance(lower, Tensor) else value.new_full((), lower)
    return transform_to(support)(torch.zeros_like(value))


class _OpenPlates(Messenger):
    """Tells which plates a program is in."""

    def _pyro_post_plates(self, msg: Message) -> None:
        self.frames = msg["cond_indep_stack"]


@effectful(type="plates")
def _ask_for_plates() -> None:
    return None


def _without_particles(shape: Sequence[int], event_dim: int) -> tuple[int, ...]:
    """A distribution's shape within one particle: that right of the plate of vectorised particles, if one is open."""
    with _OpenPlates() as plates:
        _ask_for_plates()
    for frame in plates.frames:
        if frame.name == PARTICLE_PLATE and frame.dim is not None:
            one = list(shape[max(len(shape) + 1 + frame.dim - event_dim, 0) :])
            while len(one) > event_dim and one[0] == 1:
                del one[0]
            return tuple(one)
    return tuple(shape)


def check_targets(
    name: str,
    shape: Sequence[int],
    value: Tensor,
    *,
    event_dim: int = 0,
    discrete: bool,
    categorical: bool = False,
) -> None:
    """Checks that targets fit a distribution in shape and kind.

    Args:
        name: Name of the site, for messages.
        shape: Batch and event shape of the distribution.
        value: The targets.
        event_dim: How many dimensions of the shape are the event's.
        discrete: Whether the distribution is discrete.
        categorical: Whether it is over class indices.

    Raises:
        TypeError: As `observe`.
        ValueError: As `observe`.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"Site {name!r} was given targets of type {type(value).__name__}, and a tensor is expected.")
    if value.shape != shape:
        shape = _without_particles(shape, event_dim)  # all particles see the same targets
        try:
            fits = torch.broadcast_shapes(shape, value.shape) == value.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"Site {name!r} was given targets of shape {tuple(value.shape)}, and its distribution has shape "
                f"{tuple(shape)}. Targets are (B,), one entry per row of the batch: squeeze or reshape them (or the "
                "prediction)."
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
