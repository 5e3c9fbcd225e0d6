"""The record of a step, the losses of a batch, and a history of steps as arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Evaluation(NamedTuple):
    """The losses of a batch without a step, float64 on the host.

    Attributes:
        losses: Expected negative log-likelihood per labelled row of each task ``(K,)``; NaN without a label.
        labelled: Labelled rows of each task ``(K,)``, to average over batches.
        shared: The terms of weight 1 (KL divergences) per datum.
    """

    losses: Tensor
    labelled: Tensor
    shared: float


@dataclass(frozen=True)
class StepRecord:
    """One step. Arrays are float64 on the host, K counts all tasks, and an absent task is NaN.

    Attributes:
        step: Number of the step, from 0.
        epoch: Number of the epoch, from 1.
        names: The K tasks.
        losses: Task losses per datum, as the balancer saw them ``(K,)``.
        shared: The terms of weight 1 (KL divergences) per datum.
        active: Which tasks had a label ``(K,)``, bool.
        weights: Effective weights, d objective / d loss, for the shared parameters ``(K,)``.
        weights_heads: The same for each task's own parameters ``(K,)``.
        alpha: The weighting's weights of the scaled losses ``(K,)``; NaN without a weighting.
        gram: Gram matrix of the scaled losses' gradients ``(K, K)``; None where no gradients were compared.
        combination: The shared parameters' update is ``sum_k alpha_k g_k`` of the gradients in `gram`; false for methods
            with a direction of their own (GradDrop, DB-MTL, MoCo, BayesAgg).
        lr: Learning rate of the optimizer's first group, NaN without a torch optimizer.
        probed: Cosines that a `ConflictProbe` measured, by pair of tasks.
        residual: The weighting's residual, NaN without one.
        iterations: Rounds of the weighting's solver.
        status: "ok", "inexact", "stationary"; "skipped" where the step was not taken.
        length: Name of the length rule, "" without a weighting.
        gradients: How `full` found its gradients: "formed", or how many of the shared parameters were measured layer by
            layer ("4 of 6 by layer"); "" for other geometries.
        fidelity: Cosine of the update with the one from the full gradients, NaN where it was not found.
        seconds: Time of the step's parts; "step" is the whole.
        events: What was out of the ordinary.
    """

    step: int
    epoch: int
    names: tuple[str, ...]
    losses: Tensor
    shared: float
    active: Tensor
    weights: Tensor
    weights_heads: Tensor
    alpha: Tensor
    gram: Tensor | None = None
    combination: bool = True
    lr: float = float("nan")
    probed: dict[tuple[str, str], float] = field(default_factory=dict)
    residual: float = float("nan")
    iterations: int = 0
    status: str = "ok"
    length: str = ""
    gradients: str = ""
    fidelity: float = float("nan")
    seconds: dict[str, float] = field(default_factory=dict)
    events: tuple[str, ...] = ()


def history_arrays(history: Iterable[StepRecord]) -> dict[str, np.ndarray]:
    """A history of S steps as arrays, with what follows from them; a long run's may hold every n-th step only.

    ``effective_lr`` is ``lr * weights``: the learning rate at which the shared parameters see each task. From the Gram
    matrix of a step, with n_k = |g_k| the norms of the scaled losses' gradients in the space that the geometry compares:

    * ``cosine``: g_k' g_l / (n_k n_l). Below zero the two tasks conflict (Yu et al. 2020, "Gradient Surgery for Multi-Task
      Learning", definition 1). A pair that a `ConflictProbe` measures has the probe's, NaN at steps that it left out.
    * ``magnitude_similarity``: 2 n_k n_l / (n_k^2 + n_l^2), from 0 to 1 (definition 2 there).
    * ``projection``: min_k cos(g_k, d) with the update d = sum_k alpha_k g_k of the shared parameters, terms of weight 1
      (KL divergences) left out. Its sign is that of the least inner product g_k' d, which CAGrad maximises as the worst
      local improvement (Liu et al. 2021, "Conflict-Averse Gradient Descent", section 3): below zero, a small step along
      -d raises some task's loss. NaN where the update is no such combination.

    Returns:
        ``losses``, ``weights``, ``weights_heads``, ``effective_lr`` (S, K); ``step``, ``epoch``, ``lr``, ``shared``,
        ``residual``, ``fidelity``, ``seconds``, ``skipped`` (S,). If gradients were compared at any step, ``gram`` and in
        single precision ``cosine`` and ``magnitude_similarity`` (S, K, K), and ``projection`` (S,), NaN at the other steps.
        If they were only probed, ``cosine`` alone of these.

    Raises:
        ValueError: If the history is empty.
    """
    history = list(history)  # a `History` makes its records again each time
    if not history:
        raise ValueError("The history is empty: no step has been taken.")
    weights = torch.stack([r.weights for r in history]).numpy()
    lr = np.array([r.lr for r in history])
    return {
        "step": np.array([r.step for r in history]),
        "epoch": np.array([r.epoch for r in history]),
        "losses": torch.stack([r.losses for r in history]).numpy(),
        "weights": weights,
        "weights_heads": torch.stack([r.weights_heads for r in history]).numpy(),
        "effective_lr": lr[:, None] * weights,
        **_compared(history),
        "lr": lr,
        "shared": np.array([r.shared for r in history]),
        "residual": np.array([r.residual for r in history]),
        "fidelity": np.array([r.fidelity for r in history]),
        "seconds": np.array([r.seconds.get("step", np.nan) for r in history]),
        "skipped": np.array([r.status == "skipped" for r in history]),
    }


def _compared(history: Sequence[StepRecord]) -> dict[str, np.ndarray]:
    """Statistics of the steps at which gradients were compared."""
    names = history[-1].names
    size, k = len(history), len(names)
    found: dict[str, np.ndarray] = {}
    at = [i for i, r in enumerate(history) if r.gram is not None]
    if at:
        gram = torch.stack([r.gram for r in history if r.gram is not None]).numpy()
        norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
        rows, columns = norms[:, :, None], norms[:, None, :]
        found |= {"gram": np.full((size, k, k), np.nan), "projection": np.full(size, np.nan)}
        found |= {name: np.full((size, k, k), np.nan, np.float32) for name in ("cosine", "magnitude_similarity")}
        with np.errstate(invalid="ignore", divide="ignore"):  # a zero gradient has no direction: NaN
            found["cosine"][at] = gram / rows / columns
            ratio = np.minimum(rows, columns) / np.maximum(rows, columns)  # squares of norms could overflow
            found["magnitude_similarity"][at] = 2 * ratio / (1 + ratio**2)
        found["gram"][at] = gram
        alpha = torch.stack([history[i].alpha for i in at]).numpy()
        combination = [history[i].combination for i in at]
        found["projection"][at] = np.where(combination, _least_cosine(gram, norms, alpha), np.nan)
    pairs = dict.fromkeys(pair for r in history for pair in r.probed)
    if pairs:
        cosine = found.setdefault("cosine", np.full((size, k, k), np.nan, np.float32))
        for pair in pairs:
            i, j = map(names.index, pair)
            cosine[:, i, j] = cosine[:, j, i] = [r.probed.get(pair, np.nan) for r in history]
    return found


def _least_cosine(gram: np.ndarray, norms: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Least cosine of a task gradient with ``sum_k alpha_k g_k``, a step each; NaN where the sum is zero.

    Args:
        gram: ``(S, K, K)``, NaN for absent tasks.
        norms: Of the gradients ``(S, K)``.
        alpha: ``(S, K)``; NaN counts as 1, since without a weighting the gradients are added up.
    """
    products = np.nan_to_num(gram)
    alpha = np.where(np.isnan(alpha), 1.0, alpha)  # an absent task's products are zero
    inner = np.einsum("skl,sl->sk", products, alpha)
    length = np.sqrt(np.maximum(np.einsum("sk,sk->s", alpha, inner), 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = inner / norms / length[:, None]
    least = np.where(np.isfinite(cosines), cosines, np.inf).min(axis=1, initial=np.inf)
    return np.where(np.isfinite(least), least, np.nan)
