"""A trained network whose last layer is replaced by a closed-form fit: Bayesian linear regression on its representation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bmtl import inputs
from bmtl.inputs import PerTask
from bmtl.models.task_model import TaskModel, task_name
from bmtl.tasks import observe, task

PENALTIES = np.logspace(-6, 4, 41)
ROWS = 1024
"""Rows of inputs that are no table that are represented at a time."""
_PULL = 5.0  # rows of validation that the weights' starting values count as


@dataclass(frozen=True)
class Posterior:
    """``w ~ Normal(mean, noise * inverse)`` of ``r = h' w + e`` under ``w ~ Normal(0, noise / penalty)``, centred.

    Attributes:
        penalty: The noise's variance over the prior's, where the evidence is highest.
        noise: Variance of e.
        mean: ``(H + 1,)``, the intercept last.
        inverse: ``(H + 1, H + 1)``.
    """

    penalty: float
    noise: float
    mean: np.ndarray
    inverse: np.ndarray

    @classmethod
    def fit(cls, h: np.ndarray, r: np.ndarray, penalty: float | None = None) -> "Posterior":
        """The posterior at the highest evidence, or at a penalty that is given.

        Args:
            h: Features ``(N, H)``.
            r: Labels ``(N,)``.
            penalty: None chooses it of 41 from 1e-6 to 1e4.

        Source:
            Bishop (2006), "Pattern Recognition and Machine Learning", section 3.5; the noise is at its maximum for each
            penalty. The intercept has a flat prior.
        """
        n = len(r)
        centre, level = h.mean(axis=0), r.mean()
        squares, vectors = np.linalg.eigh((h - centre).T @ (h - centre))
        squares = np.maximum(squares, 0.0)
        along = vectors.T @ ((h - centre).T @ (r - level))
        total = float(((r - level) ** 2).sum())

        def noise_at(of: float) -> float:
            return max(total - float((along**2 / (squares + of)).sum()), 1e-12 * total + 1e-300) / n

        def evidence(of: float) -> float:
            return -0.5 * n * float(np.log(noise_at(of))) - 0.5 * float(np.log1p(squares / of).sum())

        chosen = float(max(PENALTIES, key=evidence)) if penalty is None else penalty
        slope = vectors @ (along / (squares + chosen))
        # In coordinates with an intercept: h - centre = (h, 1) M.
        shift = np.vstack([np.eye(len(centre)), -centre])
        inverse = shift @ ((vectors / (squares + chosen)) @ vectors.T) @ shift.T
        inverse[-1, -1] += 1 / n
        return cls(chosen, noise_at(chosen), np.append(slope, level - centre @ slope), inverse)

    def predict(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance ``(N,)`` of ``h' w``, the variance in units of the noise's."""
        rows = np.column_stack([h, np.ones(len(h))])
        return rows @ self.mean, np.einsum("nh,hk,nk->n", rows, self.inverse, rows)


def stacked(r: np.ndarray, network: np.ndarray, linear: np.ndarray) -> tuple[float, float]:
    """Weights a, b of ``a network + b linear``, not negative and at most 1 together, with the least squared error.

    The remainder to 1 is the weight of predicting 0. Weights are shrunk towards 1/2 each, with the strength of five rows.

    Args:
        r: Labels ``(N,)``.
        network: One prediction ``(N,)``.
        linear: The other.
    """
    steps = np.linspace(0, 1, 41)
    a, b = (grid.ravel() for grid in np.meshgrid(steps, steps))
    a, b = a[a + b <= 1 + 1e-9], b[a + b <= 1 + 1e-9]
    scale = float(np.mean(network**2 + linear**2)) / 2
    cost = (
        a**2 * float(network @ network)
        + b**2 * float(linear @ linear)
        + 2 * a * b * float(network @ linear)
        - 2 * a * float(network @ r)
        - 2 * b * float(linear @ r)
        + _PULL * scale * ((a - 0.5) ** 2 + (b - 0.5) ** 2)
    )
    best = int(np.argmin(cost))
    return float(a[best]), float(b[best])


class NeuralLinear(TaskModel):
    """A `TaskModel` whose `calibrate` replaces the heads of real targets by Bayesian linear regression.

    For each real target, with h the representation in float64, clipped to its range in training, and r what the linear part
    leaves of the label, in the likelihood's unit:

    1. ``r = h' w + e`` is fitted to the training rows at the highest evidence;
    2. on validation rows the prediction is ``a f + b h' w`` with f the trained head, `stacked`, and the variance
       ``c noise (1 + h' A^-1 h)`` with c the mean of squared errors over it: after training to convergence the variance at
       the highest evidence is far too small;
    3. w is fitted again to training and validation rows.

    The head's weight a does here what `LinearPart.shrink` does elsewhere, and is fitted in its place.

    Other targets, those with their own rows, and those with fewer than ten labels in training or two in validation keep
    their heads.

    Args:
        *args: Of `TaskModel`.
        support: Training rows ``(x, y)``, not kept in files.
        **options: Of `TaskModel`.

    Source:
        Snoek et al. (2015), "Scalable Bayesian Optimization Using Deep Neural Networks", section 3; steps 2 and 3 are ours.
    """

    def __init__(self, *args: Any, support: tuple[Any, Mapping[str, Tensor]] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._support = support
        width = self.representation.width
        self.closed = nn.Buffer(torch.zeros(len(self.names), dtype=torch.bool))
        self.range = nn.Buffer(torch.zeros(2, width))
        self.weights = nn.Buffer(torch.zeros(len(self.names), 2))  # a, b
        self.means = nn.Buffer(torch.zeros(len(self.names), width + 1))
        real = [name for name, likelihood in self.likelihoods.items() if likelihood.integrates]
        self._place = {name: i for i, name in enumerate(real)}
        self.factors = nn.Buffer(torch.zeros(len(real), width + 1, width + 1))

    def forward(self, x: Any, y: Mapping[str, Tensor] | None = None) -> None:
        if self.training or not self.closed.any():
            super().forward(x, y)
            return
        h = self._features(x)
        for of in self._walk_apart(x, y):
            i = self.names.index(of.name)
            with of.plate, task(task_name(of.name, of.likelihood.objectives[0], of.likelihood)):
                if not self.closed[i]:
                    of.likelihood.observe(of.name, of.f, of.values, of.labels, of.likelihood.objectives[0])
                    continue
                part = self._linear_part(of.name, x)
                a, b = self.weights[i]
                mean = part + a * (of.f[..., 0] - part) + b * (h @ self.means[i])
                spread = (h @ self.factors[self._place[of.name]]).square().sum(-1)
                variance = spread * of.values["log_variance"].exp()
                observe(f"y_{of.name}", of.likelihood.integrated(mean, variance, of.values), of.labels)

    @torch.no_grad()
    def calibrate(
        self, guide: Callable[..., Any], x: Any, y: Mapping[str, Tensor], *, num_draws: int = 1, seed: int = 0
    ) -> None:
        super().calibrate(guide, x, y, num_draws=num_draws, seed=seed)
        if self._support is None or not self._place or isinstance(x, PerTask):
            return
        x_train, y_train = self._support
        counts = torch.stack([self.likelihoods[name].labelled(y_train[name]) for name in self._place], 1).sum(1)
        if len(self._place) > 1 and int(counts.max()) < 2:
            return  # their own rows: each target alone has too few
        modes = [(part, part.training) for part in self.modules()]
        self.eval()
        try:
            h = self._represented(x_train)
            self.range.copy_(torch.stack([h.amin(0), h.amax(0)]))
            heads = {
                part: (self._bounded(own)[:, :-1].double().cpu().numpy(), self._heads(own))
                for part, own in (("train", h), ("val", self._represented(x)))
            }
        finally:
            for part, mode in modes:
                part.training = mode
        for name in self._place:
            labels = {"train": y_train[name], "val": y[name]}
            seen = {part: (~values.isnan()).cpu().numpy() for part, values in labels.items()}
            if seen["train"].sum() < 10 or seen["val"].sum() < 2:
                continue
            r = {
                part: self._left(name, rows_of, labels[part])[seen[part]]
                for part, rows_of in (("train", x_train), ("val", x))
            }
            rows = {part: heads[part][0][seen[part]] for part in heads}
            self._close(name, rows, r, heads["val"][1][name][seen["val"]])

    def _close(self, name: str, h: Mapping[str, np.ndarray], r: Mapping[str, np.ndarray], network: np.ndarray) -> None:
        """Steps 1 to 3 of the class, of one target."""
        likelihood, i = self.likelihoods[name], self.names.index(name)
        posterior = Posterior.fit(h["train"], r["train"])
        linear, spread = posterior.predict(h["val"])
        a, b = stacked(r["val"], network, linear)
        ratio = np.mean((r["val"] - a * network - b * linear) ** 2 / (posterior.noise * (1 + spread)))
        noise = max(float(ratio) * posterior.noise, 1e-12)
        both = Posterior.fit(
            np.concatenate([h["train"], h["val"]]), np.concatenate([r["train"], r["val"]]), posterior.penalty
        )
        values, vectors = np.linalg.eigh(both.inverse)
        like = self.means
        self.means[i] = torch.as_tensor(both.mean).to(like)
        self.factors[self._place[name]] = torch.as_tensor(vectors * np.sqrt(np.maximum(values, 0.0))).to(like)
        self.weights[i] = torch.tensor([a, b]).to(like)
        self.closed[i] = True
        if self.linear_part is not None:
            self.linear_part.shares[self.linear_part.names.index(name)] = 1.0
        likelihood.unknowns["log_variance"].set(float(np.log(noise)))  # type: ignore[operator]

    def _represented(self, x: Any) -> Tensor:
        """The representation ``(N, H)`` of all rows; of inputs that are no table a few rows at a time."""
        parts = inputs.chunks(x, None if isinstance(x, Tensor) else ROWS)
        return torch.cat([self.representation.trunk(part) for part in parts])

    def _features(self, x: Any) -> Tensor:
        """The representation within its range in training, and 1: ``(B, H + 1)``."""
        return self._bounded(self.representation.trunk(x))

    def _bounded(self, h: Tensor) -> Tensor:
        return nn.functional.pad(h.clamp(self.range[0], self.range[1]), (0, 1), value=1.0)

    def _heads(self, h: Tensor) -> dict[str, np.ndarray]:
        """What the trained head of each real target gives ``(N,)``, without the linear part."""
        return {name: self.heads(name, h, None)[..., 0].double().cpu().numpy() for name in self._place}

    def _linear_part(self, name: str, x: Any) -> Tensor:
        """The linear part ``(B,)`` of a target, 0 without one."""
        zero = self.range.new_zeros(inputs.count(x), 1)
        found: Tensor = zero if self.linear_part is None else self.linear_part(name, x, zero)
        return found[..., 0]

    def _left(self, name: str, x: Any, y: Tensor) -> np.ndarray:
        """What the linear part leaves of labels, in the likelihood's unit."""
        likelihood = self.likelihoods[name]
        left = (y - likelihood.location) / likelihood.unit - self._linear_part(name, x)
        return left.double().cpu().numpy()
