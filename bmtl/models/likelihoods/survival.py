"""Times to an event, censored or not."""

import torch
from torch import Tensor

from bmtl.distributions import IntervalLabels
from bmtl.distributions import LogNormal as LogNormalDistribution
from bmtl.distributions import Weibull as WeibullDistribution
from bmtl.models.likelihoods.base import Likelihood, Values, finite_ends
from bmtl.models.likelihoods.unknown import Noise, Unknown


class _Survival(Likelihood):
    """Labels are intervals ``(B, 2)``, see `bmtl.targets.TimeToEvent`; training starts at the geometric mean time."""

    families = ("time-to-event",)

    def start(self, y: Tensor) -> None:
        times = finite_ends(y).double()
        times = times[times > 0]
        if len(times):
            self.location.fill_(times.log().mean().item())

    def distribution(self, f: Tensor, values: Values) -> IntervalLabels:
        raise NotImplementedError

    def loss(self, log_ratio: Tensor) -> Tensor:
        """Half the unit deviance of an observed time, from the log of its ratio to the predicted one."""
        raise NotImplementedError

    def deviance(self, f: Tensor, y: Tensor) -> Tensor:
        lower, upper = y.unbind(-1)
        known = lower == upper
        p = self.distribution(f, self._starts())
        exact = self.loss(torch.where(known, lower, p.fill).log() - self.location - f[..., 0])
        inside = p.log_between(torch.where(known, 0.0, lower), torch.where(known, p.fill, upper))
        return torch.where(known, exact, -inside)


class Weibull(_Survival):
    """``P(T > t) = exp(-(t / exp(f))^k)``: hazards that rise or fall with time as a power.

    Args:
        noise: What ``log k``, the unknown ``log_concentration``, is. A fixed one is 0 in training (an exponential law),
            where the loss is half the unit deviance, ``-log P`` of a censored time.
        noise_prior: Mean and standard deviation of its prior.
    """

    name = "weibull"

    def __init__(self, noise: Noise = "parameter", noise_prior: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(1, noise, {"log_concentration": Unknown(0.0, noise, noise_prior)})

    def distribution(self, f: Tensor, values: Values) -> WeibullDistribution:
        return WeibullDistribution(self.location + f[..., 0], values["log_concentration"])

    def loss(self, log_ratio: Tensor) -> Tensor:
        return torch.expm1(log_ratio) - log_ratio


class LogNormal(_Survival):
    """``log T ~ Normal(f, sigma)``: hazards that rise and then fall.

    Args:
        noise: What ``log sigma^2``, the unknown ``log_variance``, is. A fixed one is 0 in training, where the loss is half
            the unit deviance, ``-log P`` of a censored time.
        noise_prior: Mean and standard deviation of its prior.
    """

    name = "log-normal"

    def __init__(self, noise: Noise = "parameter", noise_prior: tuple[float, float] = (0.0, 2.0)) -> None:
        super().__init__(1, noise, {"log_variance": Unknown(0.0, noise, noise_prior)})

    def distribution(self, f: Tensor, values: Values) -> LogNormalDistribution:
        return LogNormalDistribution(self.location + f[..., 0], torch.exp(0.5 * values["log_variance"]))

    def loss(self, log_ratio: Tensor) -> Tensor:
        return log_ratio.square() / 2
