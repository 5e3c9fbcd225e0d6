"""How far a fitted classifier's predictions hold when its inputs are moved against it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical
from torch.nn import functional as F

from bmtl.inference.draws import few_rows
from bmtl.inference.loaders import forked
from bmtl.inference.parameter_mode import own_parameters
from bmtl.inference.predictives import PREFIX, to_numpy
from bmtl.tasks import PARTICLE_PLATE

Inputs = Tensor | Mapping[str, Tensor]
EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Robustness:
    """Predictions under attacks of growing size; E sizes.

    Attributes:
        eps: Sizes ``(E,)``, in standard deviations of each feature over the training inputs.
        accuracy: Target -> share of labelled rows predicted right ``(E,)``.
        nll: Target -> mean negative log-likelihood of the labels ``(E,)``, in nats.
        scale: Standard deviation of each feature, ``(...)``.
        low: Its least value in training.
        high: Its largest.
        num_draws: Draws of the predictive that was attacked and scored.
        seed: Of those draws.
    """

    eps: np.ndarray
    accuracy: dict[str, np.ndarray]
    nll: dict[str, np.ndarray]
    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    num_draws: int
    seed: int


def log_probabilities(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Inputs,
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
        x: Inputs ``(N, ...)``, or a mapping task -> ``(N_task, ...)``.
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
    seeds = torch.randint(2**62, (num_draws,), generator=torch.Generator().manual_seed(seed)).tolist()
    evaluating = _evaluating(model, guide)
    if parallel:
        nesting = _nesting(model, guide, few_rows(x)) if max_plate_nesting is None else max_plate_nesting
        plate = pyro.plate(PARTICLE_PLATE, num_draws, dim=-1 - nesting)
        model, guide, seeds = plate(model), plate(guide), seeds[:1]
    found: dict[str, list[Tensor]] = {}
    with evaluating, forked(None):
        for own in seeds:
            torch.manual_seed(own)
            proposal = poutine.trace(guide).get_trace(x)
            with _Predicted() as predicted:
                poutine.replay(model, trace=proposal)(x)
            for target, log_p in predicted.log_p.items():
                found.setdefault(target, []).append(log_p)
    if not found:
        raise ValueError(
            f"The model predicts nothing: called with inputs alone it must sample a site {PREFIX}<target> for each target."
        )
    return {target: _averaged(torch.stack(parts)) for target, parts in found.items()}


def fgsm(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Inputs,
    y: Mapping[str, Tensor],
    eps: float,
    train: Inputs,
    *,
    num_draws: int = 20,
    seed: int = 0,
) -> Inputs:
    """Inputs moved by the fast gradient sign method, in feature space: ``x + eps s sign(grad CE(log mean p))``.

    s is each feature's standard deviation over the training inputs. The cross entropy is that of the true labels under the
    predictive, draws averaged. What is moved stays between the least and the largest value of the feature in training, or
    where it was if it lay outside already; ``eps = 0`` moves nothing. A row that several targets are labelled for is moved
    against all of them; one without a label stays.

    Args:
        model: As for `log_probabilities`.
        guide: Its guide.
        x: Inputs ``(N, ...)``, or a mapping task -> ``(N_task, ...)``.
        y: Target -> labels ``(N,)``, -1 where missing.
        eps: Size, in standard deviations, from 0.
        train: Training inputs, in the form of `x`; rows of all tasks count together.
        num_draws: Of the predictive.
        seed: Of the draws; score with the same.

    Raises:
        ValueError: If `eps` is negative or not finite, `y` has a target that is not predicted, or as
            `log_probabilities`.

    Source:
        Goodfellow, Shlens & Szegedy (2015), Explaining and Harnessing Adversarial Examples, section 4. In the space of
        features, in units of their spread, and clipped to their range: ours.
    """
    slope = _slope(model, guide, x, y, num_draws, seed)
    return _moved(x, slope, _checked_eps(eps), *_spread(train))


def robustness(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Inputs,
    y: Mapping[str, Tensor],
    train: Inputs,
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
        ValueError: If `eps` is empty, a target has no labelled row, or as `fgsm`.
    """
    sizes = [_checked_eps(size) for size in eps]
    if not sizes:
        raise ValueError("eps is empty. Give sizes, such as (0, 0.1, 0.2).")
    unlabelled = [target for target, labels in y.items() if not (labels != -1).any()]
    if unlabelled:
        raise ValueError(f"Targets without a labelled row cannot be scored: {unlabelled}. Leave them out of y.")
    slope = _slope(model, guide, x, y, num_draws, seed)
    box = _spread(train)
    accuracy: dict[str, list[float]] = {target: [] for target in y}
    nll: dict[str, list[float]] = {target: [] for target in y}
    for size in sizes:
        with torch.no_grad():
            log_p = log_probabilities(model, guide, _moved(x, slope, size, *box), num_draws=num_draws, seed=seed)
        for target, labels in y.items():
            rows = labels != -1
            right = log_p[target][rows].argmax(-1) == labels[rows]
            accuracy[target].append(right.double().mean().item())
            nll[target].append(F.nll_loss(log_p[target][rows].double(), labels[rows]).item())
    scale, low, high = (to_numpy(part) for part in box)
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
    x: Inputs,
    y: Mapping[str, Tensor],
    num_draws: int,
    seed: int,
) -> Inputs:
    """Sign of the gradient of the labels' cross entropy in the inputs."""
    leaves = {name: part.detach().clone().requires_grad_() for name, part in _parts(x).items()}
    given = leaves[""] if isinstance(x, Tensor) else leaves
    with torch.enable_grad():
        log_p = log_probabilities(model, guide, given, num_draws=num_draws, seed=seed)
        unknown = sorted(set(y) - set(log_p))
        if unknown:
            raise ValueError(f"The model predicts {sorted(log_p)}, and labels were given for {unknown}.")
        losses = [F.nll_loss(log_p[target], y[target], ignore_index=-1, reduction="sum") for target in y]
        gradients = torch.autograd.grad(torch.stack(losses).sum(), list(leaves.values()), materialize_grads=True)
    signs = dict(zip(leaves, (gradient.sign() for gradient in gradients), strict=True))
    return signs[""] if isinstance(x, Tensor) else signs


def _moved(x: Inputs, slope: Inputs, eps: float, scale: Tensor, low: Tensor, high: Tensor) -> Inputs:
    signs = _parts(slope)
    moved = {
        name: (part + eps * scale * signs[name]).clamp(torch.minimum(low, part), torch.maximum(high, part))
        for name, part in _parts(x).items()
    }
    return moved[""] if isinstance(x, Tensor) else moved


def _spread(train: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Standard deviation, least and largest value of each feature."""
    rows = torch.cat(list(_parts(train).values()))
    return rows.std(0, correction=0), rows.amin(0), rows.amax(0)


def _parts(x: Inputs) -> dict[str, Tensor]:
    return {"": x} if isinstance(x, Tensor) else dict(x)


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
        latent = msg["value"] is not None or site_is_subsample(msg)  # a target "y" has the plate "y_rows"
        if msg["name"].startswith(PREFIX) and not latent:
            target = msg["name"].removeprefix(PREFIX)
            self.log_p[target] = log_p = _log_p(msg["fn"], target)
            msg["value"], msg["done"] = log_p.new_zeros(log_p.shape[:-1]), True


def _averaged(log_p: Tensor) -> Tensor:
    """Over all but rows and classes."""
    each = log_p.flatten(0, -3)
    return each.logsumexp(0) - np.log(len(each))


def _nesting(model: Callable[..., Any], guide: Callable[..., Any], x: Inputs) -> int:
    """How many plates stand in each other at most."""
    with torch.no_grad(), _evaluating(model, guide), forked(None):
        proposal = poutine.trace(guide).get_trace(x)
        trace = poutine.trace(poutine.replay(model, trace=proposal)).get_trace(x)
    frames = [f for t in (proposal, trace) for site in t.nodes.values() for f in site.get("cond_indep_stack", ())]
    return -min((frame.dim for frame in frames if frame.dim is not None), default=0)


def _log_p(fn: Any, target: str) -> Tensor:
    if isinstance(fn, Categorical):
        return fn.logits  # normalised by torch
    if isinstance(fn, Bernoulli):
        return torch.stack([F.logsigmoid(-fn.logits), F.logsigmoid(fn.logits)], -1)
    raise ValueError(
        f"The model predicts {target!r} by a {type(fn).__name__}; classes are expected, as Categorical or Bernoulli."
    )


@contextmanager
def _evaluating(*programs: Callable[..., Any]) -> Iterator[None]:
    """Evaluation mode inside, part by part as it was afterwards."""
    modes = [
        (part, part.training) for program in programs if isinstance(program, nn.Module) for part in program.modules()
    ]
    for part, _ in modes:
        part.training = False
    try:
        with own_parameters(*programs):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
