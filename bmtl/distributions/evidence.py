"""Losses of evidential networks besides the likelihood."""

from typing import Literal, get_args

import torch
from torch import Tensor

from bmtl.distributions.censored import Censored
from bmtl.distributions.normal_inverse_gamma import NormalInverseGamma

Evidential = NormalInverseGamma | Censored
Threshold = Literal["batch_min", "sample", "inf"]


def lipschitz_mse(y: Tensor, p: Evidential, threshold: Threshold = "batch_min") -> Tensor:
    """Squared error with a bounded slope, one value per row: ``k (2 |e| - k)`` with ``k = min(|e|, delta)``.

    Twice Huber's loss. The threshold delta is the error at which the likelihood would start to lower the evidence, the
    Student-t's scale; no gradient passes through it, and so the loss trains the prediction alone.

    Args:
        y: Labels, of the distribution's batch shape, or intervals if it is censored; NaN rows are missing and have loss 0.
        p: The prediction.
        threshold: "batch_min" is the least scale of the labelled rows of the batch, as in the paper (it depends on the
            batch's size, and clips most rows of a trained network); "sample" is each row's own scale; "inf" does not
            clip: plain squared errors.

    Raises:
        ValueError: If the shapes differ, or the threshold is unknown.

    Source:
        Oh & Shin (2022), equation 6, in value and gradient. The authors' code scales the squared error by a detached
        factor instead: the same gradient, another value, and NaN where error and scale are 0.
    """
    check_threshold(threshold)
    seen, e = _errors(y, p)
    if threshold == "inf":
        return e.square()
    delta = _base(p).scale.detach()
    if threshold == "batch_min":
        delta = torch.where(seen, delta, torch.inf).amin(-1, keepdim=True) if delta.dim() else delta
    magnitude = e.abs()
    k = torch.minimum(magnitude, delta)
    return k * (2 * magnitude - k)


def evidence_penalty(y: Tensor, p: Evidential) -> Tensor:
    """Evidence where the prediction is wrong, one value per row: ``|e| (2 nu + alpha)``.

    Not free of scale: standardise labels. It also pulls on the prediction, as an absolute error of weight 2 nu + alpha.

    Args:
        y: Labels, of the distribution's batch shape, or intervals if it is censored; NaN rows are missing, with penalty 0.
        p: The prediction.

    Raises:
        ValueError: If the shapes differ.

    Source:
        Amini et al. (2020); Oh & Shin (2022), equation 7.
    """
    _, e = _errors(y, p)
    base = _base(p)
    return e.abs() * (2 * base.nu + base.alpha)


def check_threshold(threshold: str) -> None:
    """Raises a ValueError if there is no such threshold."""
    if threshold not in get_args(Threshold):
        names = ", ".join(map(repr, get_args(Threshold)))
        raise ValueError(f"threshold is one of {names}, and {threshold!r} was given.")


def _base(p: Evidential) -> NormalInverseGamma:
    base = p.base if isinstance(p, Censored) else p
    if not isinstance(base, NormalInverseGamma):
        raise TypeError(f"Evidence is that of a NormalInverseGamma, censored or not; {type(base).__name__} was given.")
    return base


def _errors(y: Tensor, p: Evidential) -> tuple[Tensor, Tensor]:
    """Which rows are labelled, and the errors, 0 where they are not."""
    intervals = isinstance(p, Censored) and p.holds_intervals(y)
    shape = y.shape[:-1] if intervals else y.shape
    if (
        shape != p.batch_shape[max(len(p.batch_shape) - len(shape), 0) :]
    ):  # the particles' dimensions are left of the rows'
        raise ValueError(f"Labels of shape {tuple(y.shape)} were given for predictions of {tuple(p.batch_shape)}.")
    missing = y.isnan()
    seen = ~(missing.any(-1) if intervals else missing)
    return seen, torch.where(seen, p.residual(torch.where(missing, 0.0, y)), 0.0)
