"""What is read from a predicting site's distribution: moments, class probabilities, law, densities of labels."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor

from bmtl.inference.laws import TensorLaw, law_of, marginals_of, probabilities_of
from bmtl.labels import Labels, label_shape, read_labels


@dataclass(frozen=True)
class Reading:
    """One pass's distribution of some rows. Batch dimensions come first: rows, and for a site in a task plate its tasks.

    Attributes:
        event_dims: Number of dimensions of one value.
        drawn: Draws ``(samples, *batch, *event)``.
        probability: Class probabilities ``(*batch, C)``; None if there are no classes.
        mean: Mean ``(*batch, *event)``; None if there are classes.
        aleatoric: Variance of y (of each component), less what the distribution itself calls epistemic; for classes their
            entropy ``(*batch)``, in nats. None where there is no variance.
        epistemic: What the distribution itself calls epistemic, of the shape of `aleatoric`; None if it says nothing.
        law: Its name and parameters; None if it has no name.
        density: Log density of the labels ``(*batch)``, NaN where there is none; None without labels.
        pit: Its cdf at exact labels ``(*batch)``, NaN elsewhere; of continuous numbers only.
    """

    event_dims: int
    drawn: Tensor
    probability: Tensor | None
    mean: Tensor | None
    aleatoric: Tensor | None
    epistemic: Tensor | None
    law: TensorLaw | None
    density: Tensor | None
    pit: Tensor | None

    def of_task(self, dim: int, task: int) -> "Reading":
        """The part of one task of a task plate.

        Args:
            dim: Of the task plate, counted from the right of the batch dimensions.
            task: Its place in the plate.
        """
        event = self.event_dims
        batch_dims = self.drawn.dim() - 1 - event
        entropy_dims = 0 if self.probability is not None else event

        def part(values: Tensor, event_dims: int = 0) -> Tensor:
            at = dim - event_dims
            return values.select(at, task if values.shape[at] > 1 else 0)

        def known(values: Tensor | None, event_dims: int = 0) -> Tensor | None:
            return None if values is None else part(values, event_dims)

        law = self.law
        return Reading(
            event,
            drawn=part(self.drawn, event),
            probability=known(self.probability, 1),
            mean=known(self.mean, event),
            aleatoric=known(self.aleatoric, entropy_dims),
            epistemic=known(self.epistemic, entropy_dims),
            law=law and (law[0], {name: part(value, value.dim() - batch_dims) for name, value in law[1].items()}),
            density=known(self.density),
            pit=known(self.pit),
        )


def read(site: Any, labels: Tensor | None, samples: int, where: str) -> Reading:
    """Reads a site's distribution.

    Args:
        site: Of a model's trace, sampled.
        labels: For the site's rows, missing ones included; None without labels.
        samples: Number of draws; one is the trace's own.
        where: Names target and site in messages.

    Raises:
        TypeError: If labels do not have the type of the distribution's values.
        ValueError: If labels have another shape than the site's rows, or lie outside its support.
    """
    fn, value, masks = site["fn"], site["value"], [site["mask"]]
    while isinstance(fn, MaskedDistribution):
        masks.append(fn._mask)
        fn = fn.base_dist
    if hasattr(fn, "entries"):  # images: their pixels are read, each separately
        fn = fn.entries()
    event = len(fn.event_shape)
    drawn = value[None] if samples == 1 else fn.sample((samples,))
    probability = probabilities_of(fn)
    mean, epistemic = None, None
    if probability is not None:
        aleatoric = torch.special.entr(probability).sum(-1)
    else:
        mean = _known(lambda: fn.mean)
        mean = drawn.to(torch.get_default_dtype()).mean(0) if mean is None else mean.expand(value.shape)
        aleatoric = _known(lambda: fn.aleatoric if hasattr(fn, "aleatoric") else fn.variance)
        aleatoric = None if aleatoric is None else aleatoric.expand(value.shape)
        epistemic = getattr(fn, "epistemic", None)
        epistemic = None if epistemic is None else epistemic.expand(value.shape)
    density, pit = None, None
    if labels is not None:
        found = _checked(site["name"], fn, labels, value.shape, where)
        labelled = found.labelled
        inner = len(site["fn"].event_shape) - event  # dimensions of pixels, which masks of rows do not have
        for mask in masks:
            if mask is not None:
                there = torch.as_tensor(mask, device=labelled.device)
                labelled = labelled & there.reshape(there.shape + (1,) * (inner if there.dim() else 0))
        density = _density(found, labelled, where)
        pit = _pit(fn, found, labelled, drawn)
    return Reading(event, drawn, probability, mean, aleatoric, epistemic, law_of(fn), density, pit)


def read_components(site: Any, labels: Tensor | None, samples: int, where: str) -> tuple[Tensor | None, list[Reading]]:
    """Reads a site of vectors, each of whose components is a target.

    Args:
        site: As for `read`.
        labels: ``(*batch, d)``, missing ones included; None without labels.
        samples: As for `read`.
        where: As for `read`.

    Returns:
        The joint log density of what is labelled ``(*batch)``, NaN where nothing is, and each component's own distribution:
        its marginal, whose density is that of its labels alone. Draws are of all components together.
    """
    whole = read(site, labels, samples, where)
    parts = []
    for i, marginal in enumerate(marginals_of(site["fn"])):
        own = None if labels is None else labels[..., i]
        if marginal is None:
            mean, aleatoric, epistemic = (
                None if values is None else values[..., i] for values in (whole.mean, whole.aleatoric, whole.epistemic)
            )
            part = Reading(0, whole.drawn[..., i], None, mean, aleatoric, epistemic, None, None, None)
        else:
            part = read({**site, "fn": marginal, "value": site["value"][..., i]}, own, 1, where)
        parts.append(replace(part, drawn=whole.drawn[..., i]))
    return whole.density, parts


def _checked(name: str, fn: Any, labels: Tensor, shape: torch.Size, where: str) -> Labels:
    """Labels with missing ones replaced.

    Args:
        name: Of the site.
        fn: Its distribution.
        labels: As they were given.
        shape: Of the site's value.
        where: As for `read`.
    """
    batch = shape[: len(shape) - len(fn.event_shape)]
    try:
        found = read_labels(name, fn, labels)
        if found.labelled.shape == batch:
            return found
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from error
    except ValueError as error:
        if labels.shape in (shape, (*batch, *label_shape(fn))):
            raise ValueError(f"{where}: {error}") from error
    raise ValueError(
        f"{where}: labels of shape {tuple(labels.shape)} were given where the model predicts {tuple(shape)}. Give one for "
        "each row of the inputs, NaN (or -1 for classes) where there is none."
    )


def _density(found: Labels, labelled: Tensor, where: str) -> Tensor:
    """Log density of labels, NaN where there is none."""
    try:
        density = found.fn.log_prob(found.value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if density.shape != labelled.shape:
        raise ValueError(
            f"{where}: {type(found.fn).__name__} gives log densities of shape {tuple(density.shape)}, and one for each of "
            f"{tuple(labelled.shape)} is expected."
        )
    density = density.to(torch.promote_types(density.dtype, torch.float32))  # a half is too coarse
    return density.masked_fill(~labelled, torch.nan)


def _pit(fn: Any, found: Labels, labelled: Tensor, drawn: Tensor) -> Tensor | None:
    """The cdf at exact labels, NaN elsewhere; the share of draws below them where there is no cdf."""
    if fn.event_shape or _is_discrete(fn):
        return None
    value = found.value
    if value.dim() > labelled.dim():  # intervals
        lower, upper = value.unbind(-1)
        labelled = labelled & (lower == upper)
        value = torch.where(labelled, lower, drawn[0].to(lower))
    below = _known(lambda: fn.cdf(value))
    below = (drawn <= value).double().mean(0) if below is None else below.double()
    return below.masked_fill(~labelled, torch.nan)


def _known(ask: Callable[[], Any]) -> Any:
    """An attribute of a distribution, None where it is not implemented."""
    try:
        return ask()
    except NotImplementedError:
        return None


def _is_discrete(fn: Any) -> bool:
    support = _known(lambda: fn.support)
    return support is not None and bool(_known(lambda: support.is_discrete))
