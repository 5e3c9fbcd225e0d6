"""Smooth Tchebycheff scalarisation."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import Natural, Positive
from bmtl.inference.balancing.transforms.base import Domain, Transform


class STCH(Transform):
    """A smooth maximum of the losses (smooth Tchebycheff scalarisation, Lin et al. 2024).

    ``S = K mu logsumexp(log(L / nadir) / mu)`` over the K tasks present. Its gradient is that of ``sum_k c_k L_k`` with
    ``c_k = K softmax(log(L / nadir) / mu)_k / L_k`` held constant: a large `mu` gives `si`, a small one the worst task
    only. Before, `warmup` epochs of `si` and one more, in which the nadir is found: the mean training loss. A task that had
    no label in that epoch takes the first epoch in which it has one, and a ratio of 1 until then. After the warm-up, a loss
    of 0 has the weight 0 where ``mu < 1``, and that of its limit where ``mu = 1``.

    With ``log=False``, ``S = mu logsumexp((L - ideal) / (K mu))`` from the first step on, for losses of any sign and of
    comparable scale; its effective weights sum to 1/K, as in TorchJD.

    Differs from LibMTL, whose warm-up and nadir these are, in what is reported: the weights c, not ones.

    Args:
        mu: How smooth the maximum is: 1 by default, and to be given with ``log=False``, where it is in units of a loss.
        warmup: Epochs of `si` before the one in which the nadir is found.
        log: Compare the logarithms of relative losses.
        ideal: For ``log=False``, an ideal loss by task name; 0 for tasks that are not named.
        bound: For ``log=True``, what every loss must exceed; it is subtracted first, from the nadir too.

    Raises:
        ValueError: If `mu` is missing with ``log=False``, or `ideal` is given with ``log=True``; at set-up, if it names a
            task that does not exist.
    """

    name = "stch"
    paper = "Lin et al. 2024"
    cost = "1 backward"

    nadir: Tensor
    lowest: Tensor

    def __init__(
        self,
        mu: Positive | None = None,
        warmup: Natural = 4,
        log: bool = True,
        ideal: Mapping[str, float] | None = None,
        bound: float = 0.0,
    ) -> None:
        super().__init__(bound)
        if mu is None and not log:
            raise ValueError(
                "With log=False, mu is in units of a loss and must be given, as in stch(log=False, mu=0.1)."
            )
        if ideal and log:
            raise ValueError("ideal belongs to log=False; with logarithms, give bound.")
        self.mu = 1.0 if mu is None else mu
        self.warmup, self.log = warmup, log
        self.ideal = dict(ideal or {})
        self.epochs = log
        self.domain = "positive" if log else "real"

    def bind(self, names: Sequence[str]) -> None:
        unknown = [task for task in self.ideal if task not in names]
        if unknown:
            raise ValueError(f"Ideal losses were given for {unknown}, and the tasks are {list(names)}.")
        if self.log and "nadir" not in self._buffers:
            self.register_buffer("nadir", torch.full((len(names),), torch.nan, dtype=torch.float64))
        elif not self.log:
            self.lowest = torch.tensor([self.ideal.get(name, 0.0) for name in names], dtype=torch.float64)

    def domain_of(self, losses: Tensor, ctx: Context) -> Domain:
        if not self.log or self.mu > 1.0 or ctx.epoch <= self.warmup + 1:
            return self.domain
        zero = losses == 0
        compared = not self.nadir[ctx.active][zero].isnan().any()
        return "nonnegative" if compared and not zero.all() else self.domain  # a maximum of nothing but 0 has no slope

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        value = losses.detach()
        if not self.log:
            gaps = (value - self.lowest[ctx.active]) / len(losses)
            return torch.softmax(gaps / self.mu, dim=0) / len(losses) * losses
        if ctx.epoch <= self.warmup + 1:
            return self.log_of(losses)
        log, nadir = value.log(), self.nadir[ctx.active]
        log_nadir = torch.where(nadir.isnan(), value, nadir).log()
        # softmax(log(L / nadir) / mu) / L as one exponential, which has a limit at L = 0.
        power = 1.0 / self.mu - 1.0
        exponent = (power * log if power else 0.0) - log_nadir / self.mu
        weights = len(losses) * (exponent - torch.logsumexp((log - log_nadir) / self.mu, dim=0)).exp()
        return weights * losses

    def end_epoch(self, mean_losses: Tensor, ctx: Context) -> None:
        if self.log and ctx.epoch > self.warmup:
            missing = self.nadir.isnan()
            self.nadir[missing] = mean_losses[missing]
