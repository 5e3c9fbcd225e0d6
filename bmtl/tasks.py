"""The marks of a Pyro program: the task of each site, and the representation that the tasks share.

with bmtl.task("depth"):                      # every sample site inside belongs to the task "depth"
    pyro.sample("y_depth", dist.Normal(head(h), 1.0), obs=y)
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message, apply_stack, effectful
from pyro.poutine.subsample_messenger import SubsampleMessenger, _Subsample
from torch import Tensor

from bmtl.labels import read_labels

TASK_PLATE = "task"
"""Name of the vectorised plate whose rows are tasks; of one with a label, ``task/<label>``."""


def is_task_plate(name: str) -> bool:
    """Whether a plate of this name has tasks as its rows."""
    return name == TASK_PLATE or name.startswith(f"{TASK_PLATE}/")


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns task names as a tuple.

    Raises:
        ValueError: If there is no name, a name is empty or not a string, or a name appears twice.
    """
    names = tuple(names)
    if not names:
        raise ValueError("A list of tasks needs at least one name, and this one is empty.")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"A task's name is a non-empty string, and {name!r} was given.")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            f"Task names must differ, and {', '.join(map(repr, twice))} appears more than once in {names}."
        )
    return names


class task(Messenger):
    """Marks every sample site inside as part of one task; the innermost mark takes precedence.

    The guide needs no marks: a guide site belongs to the task of the model's site with the same name. Sites without a mark
    are shared. The same task may be entered more than once (for its prior and for its likelihood).

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


def _check_number(name: str, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise TypeError(f"n_data holds numbers of data, integers, and {number!r} was given for {name!r}.")
    if number < 1:
        raise ValueError(f"n_data holds numbers of data, each from 1, and {number} was given for {name!r}.")


class task_plate(pyro.plate):
    """A vectorised plate whose rows are tasks, with their names.

    A plain ``pyro.plate("task", K)`` is also recognised; its tasks are named "0", "1", ...

    Args:
        names: One name per row, ``(K,)``.
        dim: The plate's dimension, counted from the right; by default the next free one.
        n_data: Number of data of each task, from 1, where they differ and rows inside are padded to one length; by default
            what the plates inside declare.
        label: Distinguishes this plate from others in the same program, each with its own tasks. Sites inside a plate with
            a label are named ``<label>/<name>``, and a row of such a site is named ``<name>_<task>`` in `bmtl.draw`.

    Raises:
        TypeError: If `n_data` holds anything but integers.
        ValueError: If a name is empty or appears twice, or `n_data` has the wrong length or a number below 1.
    """

    def __init__(
        self,
        names: Sequence[str],
        dim: int | None = None,
        n_data: Sequence[int] | None = None,
        label: str | None = None,
    ) -> None:
        self.names = check_names(names)
        self.label = label
        self.n_data = None if n_data is None else tuple(n_data)
        if self.n_data is not None and len(self.n_data) != len(self.names):
            raise ValueError(f"n_data has {len(self.n_data)} numbers for the {len(self.names)} tasks {self.names}.")
        for name, number in zip(self.names, self.n_data or (), strict=False):
            _check_number(name, number)
        super().__init__(TASK_PLATE if label is None else f"{TASK_PLATE}/{label}", len(self.names), dim=dim)

    @staticmethod
    def _subsample(name: str, size: Any = None, *_: Any, **__: Any) -> tuple[int, int, Tensor | None]:
        """All rows, as the site that every plate of Pyro's has; it draws its own, which takes three times as long."""
        rows = torch.arange(size)
        msg = Message(
            type="sample",
            name=name,
            fn=_Subsample(size, None, None, rows.device),  # type: ignore[arg-type]  # a device does as well as its name
            is_observed=False,
            args=(),
            kwargs={},
            value=rows,
            infer={},
            scale=1.0,
            mask=None,
            cond_indep_stack=(),
            done=False,
            stop=False,
            continuation=None,
        )
        apply_stack(msg)
        return size, size, msg["value"]

    def _process_message(self, msg: Message) -> None:
        SubsampleMessenger._process_message(self, msg)
        if msg["type"] == "sample":
            if not _has_its_rows(msg):
                BroadcastMessenger._pyro_sample(msg)
            msg["task_names"] = self.names  # type: ignore[typeddict-unknown-key]
            msg["task_n_data"] = self.n_data  # type: ignore[typeddict-unknown-key]
            msg["task_label"] = self.label  # type: ignore[typeddict-unknown-key]


def _has_its_rows(msg: Message) -> bool:
    """Whether a site's distribution has the sizes of all its plates already, so that expanding it would make a copy."""
    shape: Sequence[int] = getattr(msg["fn"], "batch_shape", ())
    places = [(frame.dim, frame.size) for frame in msg["cond_indep_stack"] if frame.dim is not None]
    return all(len(shape) >= -dim and shape[dim] == size for dim, size in places)


@effectful(type="shared")
def _mark(h: Tensor) -> Tensor:
    return h


def shared(h: Tensor) -> Tensor:
    """Marks the representation that the tasks share; returns it unchanged.

    Balancers may use a marked tensor as the surface where task gradients are compared: the parameters upstream of it are
    the shared ones. A program may mark several tensors (one per task, each from its own input): together they are the
    shared representation. The mark is optional, but the cheap geometries need it.

    Args:
        h: Any shape, usually ``(B, width)``.

    Raises:
        TypeError: If `h` is not a tensor.
    """
    if not isinstance(h, Tensor):
        raise TypeError(f"bmtl.shared marks a tensor, and {type(h).__name__} was given; mark each tensor by itself.")
    return _mark(h)


def observe(name: str, fn: Any, value: Tensor | None) -> Tensor:
    """A sample site that ignores missing labels.

    A missing label is NaN in a float tensor and -1 in an integer one; an event with a missing entry is missing as a
    whole, unless its distribution offers ``marginal(mask)``. A missing label is replaced by a value inside the
    distribution's support *before* its density is taken and then masked, since a mask alone lets its NaN into the gradient.
    What a distribution may say of its own labels (intervals of shape ``(B, 2)``, missing ones, marginals) is described in
    `bmtl.labels`.

    Args:
        name: Name of the site, by convention ``y_<target>``.
        fn: Distribution with batch shape ``(B,)`` or one that broadcasts to it.
        value: Labels, batch shape ``(B,)`` and the shape of one label; None samples (prediction). Class indices are
            integers; counts are floats or integers.

    Returns:
        The labels with missing ones replaced, or the sample.

    Raises:
        TypeError: If integers are observed under a continuous distribution, floats under a categorical one, or anything
            but a tensor.
        ValueError: If the shape of `value` is not the one that the distribution describes: ``(B,)`` against ``(B, 1)``
            would broadcast to ``(B, B)`` unseen; if labels are missing and no value is known to replace them.
    """
    if value is None:
        return pyro.sample(name, fn)
    if isinstance(fn, dist.MaskedDistribution):
        with poutine.mask(mask=fn._mask):
            return observe(name, fn.base_dist, value)
    labels = read_labels(name, fn, value)
    with poutine.mask(mask=labels.labelled):  # type: ignore[call-overload]
        return pyro.sample(name, labels.fn, obs=labels.value)
