"""How far a fitted classifier's predictions hold when its inputs are moved against it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Bernoulli, Categorical
from torch.nn import functional as F

from bmtl import inputs
from bmtl.inference.accumulator import to_numpy
from bmtl.inference.draws import evaluating, guides_of_draws
from bmtl.inference.loaders import forked
from bmtl.inference.posterior_draws import PosteriorDraws
from bmtl.inference.predicted_sites import EXPECTED, targets_of_site
from bmtl.inputs import PerTask
from bmtl.labels import PARTICLE_PLATE

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


def log_probabilities(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *,
    num_draws: int = 20,
    seed: int = 0,
    parallel: bool = False,
    max_plate_nesting: int | None = None,
) -> dict[str, Tensor]:
    """Logarithm of the class probabilities of the predictive, which averages draws; differentiable in `x`.

    Dropout is off. One after the other, the draws are those of `bmtl.draw` with this number, this seed and all rows at once.

    Args:
        model: A program that predicts when it is called with inputs alone, as for `bmtl.draw`.
        guide: Its guide.
        x: Inputs, as for `bmtl.draw`.
        num_draws: Number of draws S.
        seed: Of the draws; torch's global generator is left as it was.
        parallel: Take all draws at once, in one more plate left of all others: other draws of the same law, in a fraction
            of the time, and with the memory of all. Model and guide must broadcast, as they must for vectorised particles.
        max_plate_nesting: Number of nested plates, for `parallel`; found from a run on one row if None.

    Returns:
        Target -> ``(N, C)``.

    Raises:
        ValueError: If the model predicts nothing, or a target that is no classification; if `num_draws` is below 1.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws is a number of draws, from 1, and {num_draws} was given.")
    given = (model, guide)
    if parallel:
        if isinstance(guide, PosteriorDraws):
            raise ValueError(
                "parallel=True takes all draws of a guide at once, and a PosteriorDraws gives one at a time."
            )
        nesting = _nesting(model, guide, inputs.few(x)) if max_plate_nesting is None else max_plate_nesting
        plate = pyro.plate(PARTICLE_PLATE, num_draws, dim=-1 - nesting)
        model, guide = plate(model), plate(guide)
    found: dict[str, list[Tensor]] = {}
    with evaluating(*given), forked(None):
        for own, of_draw in guides_of_draws(guide, 1 if parallel else num_draws, seed):
            torch.manual_seed(own)
            proposal = poutine.trace(of_draw).get_trace(x)
            with _Predicted() as predicted:
                poutine.replay(model, trace=proposal)(x)
            for target, log_p in predicted.log_p.items():
                found.setdefault(target, []).append(log_p)
    if not found:
        raise ValueError(f"The model predicts nothing. {EXPECTED}")
    return {target: _averaged(torch.stack(parts)) for target, parts in found.items()}


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
        seed: Of the draws; score with the same.

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
        seed: Of the draws.

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


class _Predicted(Messenger):
    """Gathers the targets' log probabilities in place of drawing them.

    Attributes:
        log_p: By target.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_p: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        targets = None if msg["value"] is not None else targets_of_site(msg)
        if targets is None:
            return
        log_p = _log_p(msg["fn"], ", ".join(targets.names), msg["name"])
        self.log_p |= dict(zip(targets.names, targets.split(log_p, 1), strict=True))
        msg["value"], msg["done"] = log_p.new_zeros(log_p.shape[:-1]), True


def _averaged(log_p: Tensor) -> Tensor:
    """Over all but rows and classes."""
    each = log_p.flatten(0, -3)
    return each.logsumexp(0) - np.log(len(each))


def _nesting(model: Callable[..., Any], guide: Callable[..., Any], x: Any) -> int:
    """How deep plates are nested at most."""
    with torch.no_grad(), evaluating(model, guide), forked(None):
        proposal = poutine.trace(guide).get_trace(x)
        trace = poutine.trace(poutine.replay(model, trace=proposal)).get_trace(x)
    frames = [f for t in (proposal, trace) for site in t.nodes.values() for f in site.get("cond_indep_stack", ())]
    return -min((frame.dim for frame in frames if frame.dim is not None), default=0)


def _log_p(fn: Any, target: str, site: str) -> Tensor:
    """Logarithm of class probabilities ``(*batch, C)``."""
    while isinstance(fn, dist.MaskedDistribution):
        fn = fn.base_dist
    if isinstance(fn, Categorical):
        return fn.logits  # normalised by torch
    if isinstance(fn, Bernoulli):
        return torch.stack([F.logsigmoid(-fn.logits), F.logsigmoid(fn.logits)], -1)
    raise ValueError(
        f"The model predicts {target!r} (site {site!r}) by a {type(fn).__name__}; classes are expected, as Categorical or "
        "Bernoulli."
    )
