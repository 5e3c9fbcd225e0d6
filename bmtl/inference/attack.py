"""How far a fitted classifier's predictions hold when its inputs are moved against it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bmtl import inputs
from bmtl.inference.accumulator import to_numpy
from bmtl.inference.log_probabilities import log_probabilities
from bmtl.inputs import PerTask

Box = dict[str, tuple[Tensor, Tensor, Tensor]]
"""Standard deviation, least and largest value of each feature, by the tensor's name in `bmtl.inputs.parts`."""

Features = dict[str, dict[str, Tensor]]
"""Tensors by task ("" for inputs that all share) and name."""

EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Robustness:
    """Predictions under attacks of growing size; E sizes.

    Attributes:
        eps: Sizes ``(E,)``, in standard deviations of each feature over the training inputs.
        accuracy: Target -> share of labelled rows predicted right ``(E,)``.
        nll: Target -> mean negative log-likelihood of the labels ``(E,)``, in nats.
        scale: Standard deviation of each feature ``(...)``, by the names that `bmtl.inputs.parts` gives tensors ("" for a
            tensor alone); those of tasks with inputs of their own are pooled.
        low: Its least value in training, likewise.
        high: Its largest.
        num_draws: Draws of the predictive that was attacked and scored.
        seed: Of those draws.
    """

    eps: np.ndarray
    accuracy: dict[str, np.ndarray]
    nll: dict[str, np.ndarray]
    scale: dict[str, np.ndarray]
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    num_draws: int
    seed: int


def fgsm(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    y: Mapping[str, Tensor],
    eps: float,
    train: Any,
    *,
    num_draws: int = 20,
    seed: int = 0,
) -> Any:
    """Inputs moved by the fast gradient sign method, in feature space: ``x + eps s sign(grad CE(log mean p))``.

    s is each feature's standard deviation over the training inputs. The cross entropy is that of the true labels under the
    predictive, draws averaged. What is moved stays between the least and the largest value of the feature in training, or
    where it was if it lay outside already; ``eps = 0`` moves nothing. A row that several targets are labelled for is moved
    against all of them; one without a label stays. Of inputs with several tensors, those of floating-point numbers are
    moved; indices and masks stay.

    Args:
        model: As for `log_probabilities`.
        guide: Its guide.
        x: Inputs, as for `bmtl.draw`.
        y: Target -> labels ``(N,)``, -1 where missing.
        eps: Size, in standard deviations, from 0.
        train: Training inputs, in the form of `x`; rows of tasks with inputs of their own count together.
        num_draws: Of the predictive.
        seed: Seed of the draws; score with the same.

    Raises:
        TypeError: If there is nothing in the inputs to move: no floating-point tensor that has a row for each datum.
        ValueError: If `eps` is negative or not finite, `y` has a target that is not predicted, `train` has other features
            than `x`, or as `log_probabilities`.

    Source:
        Goodfellow, Shlens & Szegedy (2015), Explaining and Harnessing Adversarial Examples, section 4. In the space of
        features, in units of their spread, and clipped to their range: ours.
    """
    box = _box(train, x)
    return _moved(x, _slope(model, guide, x, y, num_draws, seed), _checked_eps(eps), box)


def robustness(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    y: Mapping[str, Tensor],
    train: Any,
    *,
    eps: Sequence[float] = EPSILONS,
    num_draws: int = 20,
    seed: int = 0,
) -> Robustness:
    """Accuracy and negative log-likelihood under attacks by `fgsm`, with the same draws for attack and score.

    Args:
        model: As for `log_probabilities`.
        guide: Its guide.
        x: As for `fgsm`.
        y: As for `fgsm`; each target with a labelled row.
        train: As for `fgsm`.
        eps: Sizes.
        num_draws: Of the predictive.
        seed: Seed of the draws.

    Raises:
        TypeError: As `fgsm`.
        ValueError: If `eps` is empty, a target has no labelled row, or as `fgsm`.
    """
    sizes = [_checked_eps(size) for size in eps]
    if not sizes:
        raise ValueError("eps is empty. Give sizes, such as (0, 0.1, 0.2).")
    unlabelled = [target for target, labels in y.items() if not (labels != -1).any()]
    if unlabelled:
        raise ValueError(f"Targets without a labelled row cannot be scored: {unlabelled}. Leave them out of y.")
    box = _box(train, x)
    slope = _slope(model, guide, x, y, num_draws, seed)
    accuracy: dict[str, list[float]] = {target: [] for target in y}
    nll: dict[str, list[float]] = {target: [] for target in y}
    for size in sizes:
        with torch.no_grad():
            log_p = log_probabilities(model, guide, _moved(x, slope, size, box), num_draws=num_draws, seed=seed)
        for target, labels in y.items():
            rows = labels != -1
            right = log_p[target][rows].argmax(-1) == labels[rows]
            accuracy[target].append(right.double().mean().item())
            nll[target].append(F.nll_loss(log_p[target][rows].double(), labels[rows]).item())
    scale, low, high = ({name: to_numpy(of[i]) for name, of in box.items()} for i in range(3))
    return Robustness(
        np.asarray(sizes),
        {target: np.asarray(values) for target, values in accuracy.items()},
        {target: np.asarray(values) for target, values in nll.items()},
        scale,
        low,
        high,
        num_draws,
        seed,
    )


def _slope(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    y: Mapping[str, Tensor],
    num_draws: int,
    seed: int,
) -> Features:
    """Sign of the gradient of the labels' cross entropy in the inputs."""
    leaves = {
        task: {name: part.detach().clone().requires_grad_() for name, part in own.items()}
        for task, own in _features(x).items()
    }
    with torch.enable_grad():
        log_p = log_probabilities(model, guide, _with_features(x, leaves), num_draws=num_draws, seed=seed)
        unknown = sorted(set(y) - set(log_p))
        if unknown:
            raise ValueError(f"The model predicts {sorted(log_p)}, and labels were given for {unknown}.")
        losses = [F.nll_loss(log_p[target], y[target], ignore_index=-1, reduction="sum") for target in y]
        flat = [leaf for own in leaves.values() for leaf in own.values()]
        gradients = iter(torch.autograd.grad(torch.stack(losses).sum(), flat, materialize_grads=True))
    return {task: {name: next(gradients).sign() for name in own} for task, own in leaves.items()}


def _moved(x: Any, slope: Features, eps: float, box: Box) -> Any:
    def moved(name: str, part: Tensor, sign: Tensor) -> Tensor:
        scale, low, high = box[name]
        return (part + eps * scale * sign).clamp(torch.minimum(low, part), torch.maximum(high, part))

    features = _features(x)
    return _with_features(
        x,
        {
            task: {name: moved(name, part, slope[task][name]) for name, part in own.items()}
            for task, own in features.items()
        },
    )


def _box(train: Any, x: Any) -> Box:
    """Standard deviation, least and largest value of each feature of `x` over training rows."""
    rows: dict[str, list[Tensor]] = {}
    for own in _features(train).values():
        for name, part in own.items():
            rows.setdefault(name, []).append(part)
    wanted = {name: tuple(part.shape[1:]) for own in _features(x).values() for name, part in own.items()}
    given = {name: sorted({tuple(part.shape[1:]) for part in parts}) for name, parts in rows.items()}
    if any(given.get(name) != [shape] for name, shape in wanted.items()):
        raise ValueError(
            f"x has features of shape {wanted}, and the training inputs have {given}. Give both in one form."
        )
    joined = {name: torch.cat(rows[name]) for name in wanted}
    return {name: (all_.std(0, correction=0), all_.amin(0), all_.amax(0)) for name, all_ in joined.items()}


def _features(x: Any) -> Features:
    """The floating-point tensors of inputs.

    Raises:
        TypeError: If there are none, or the inputs are not made of tensors.
    """
    found: Features = {}
    for task, own in _tasks(x).items():
        try:
            parts = inputs.parts(own)
        except TypeError as error:
            raise TypeError(
                f"An attack moves tensors that have a row for each datum, and inputs of type {type(own).__name__} are not, "
                f"or not all, made of such. {error}"
            ) from error
        found[task] = {name: part for name, part in parts.items() if part.is_floating_point()}
        if not found[task]:
            types = {name or "x": str(part.dtype) for name, part in parts.items()}
            raise TypeError(
                f"An attack follows the gradient in the inputs, and there is none in {types}. Attack a model that takes "
                "floating-point inputs, such as embeddings."
            )
    return found


def _with_features(x: Any, features: Features) -> Any:
    """The inputs with other values in their floating-point tensors."""
    made = {task: inputs.with_parts(own, {**inputs.parts(own), **features[task]}) for task, own in _tasks(x).items()}
    return PerTask(made) if isinstance(x, PerTask) else made[""]


def _tasks(x: Any) -> dict[str, Any]:
    """Each task's own inputs, or those of all under no name."""
    return dict(x) if isinstance(x, PerTask) else {"": x}


def _checked_eps(eps: float) -> float:
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps is a size in standard deviations, from 0, and {eps} was given.")
    return float(eps)
