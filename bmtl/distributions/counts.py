"""Counts, in the parameters that a network gives: log means and logits, which neither over- nor underflow."""

import math
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn import functional as F

_LOG_8 = math.log(8)


class _Counts(TorchDistribution):
    """A distribution over 0, 1, 2, ... whose parameters are the attributes `names`."""

    support = constraints.nonnegative_integer
    names: tuple[str, ...]

    def _take(self, *parameters: Tensor | float, validate_args: bool | None) -> None:
        values = broadcast_all(*parameters)
        for name, value in zip(self.names, values, strict=True):
            setattr(self, name, value)
        super().__init__(values[0].shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = type(self).__new__(type(self)) if _instance is None else _instance
        for name in self.names:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        TorchDistribution.__init__(new, torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _checked(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return value


class Poisson(_Counts):
    """Counts with the log rate `log_rate`; mean and variance are the rate.

    Args:
        log_rate: Log of the rate.
    """

    arg_constraints = {"log_rate": constraints.real}  # noqa: RUF012
    names = ("log_rate",)
    log_rate: Tensor

    def __init__(self, log_rate: Tensor | float, *, validate_args: bool | None = None) -> None:
        self._take(log_rate, validate_args=validate_args)

    @property
    def rate(self) -> Tensor:
        return self.log_rate.exp()

    def law(self) -> tuple[str, dict[str, Tensor]]:
        """Name and parameters of the predictive distribution, for reports."""
        return "poisson", {"rate": self.rate}

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def variance(self) -> Tensor:
        return self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        return _log_poisson(self._checked(value), self.log_rate)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            return torch.poisson(self.rate.expand(self._extended_shape(sample_shape)))


class NegativeBinomial(_Counts):
    """Counts with mean ``exp(log_mean)`` and variance ``mean + mean^2 / concentration``: Poisson with a gamma rate.

    Args:
        log_mean: Log of the mean.
        log_concentration: Log of the concentration; the Poisson is the limit of a large one, which float32 reaches
            without loss of digits.
    """

    arg_constraints = {"log_mean": constraints.real, "log_concentration": constraints.real}  # noqa: RUF012
    names = ("log_mean", "log_concentration")
    log_mean: Tensor
    log_concentration: Tensor

    def __init__(
        self, log_mean: Tensor | float, log_concentration: Tensor | float, *, validate_args: bool | None = None
    ) -> None:
        self._take(log_mean, log_concentration, validate_args=validate_args)

    @property
    def concentration(self) -> Tensor:
        return self.log_concentration.exp()

    def law(self) -> tuple[str, dict[str, Tensor]]:
        """Name and parameters of the predictive distribution, for reports."""
        return "negative-binomial", {"mean": self.mean, "concentration": self.concentration}

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean + torch.exp(2 * self.log_mean - self.log_concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._checked(value)
        r = self.concentration
        log_ratio = F.softplus(self.log_mean - self.log_concentration)  # log(1 + mean / r)
        # Of counts above r and of smaller ones: each has terms that nearly cancel where the other is taken.
        above = (value > 8) & (value > r)
        y, few = torch.where(above, value, 16.0), torch.where(above, torch.minimum(r, value), 1.0)
        step = (few + y - 0.5) * torch.log1p((few - 1) / (y + 1)) - (few - 1) + _stirling(few + y) - _stirling(y + 1)
        many = (few - 1) * torch.log(y + 1) + step - torch.lgamma(few)
        many = many - y * F.softplus(self.log_concentration - self.log_mean)
        y = torch.where(above, 0.0, value)
        usual = _log_rising(self.log_concentration, y) - torch.lgamma(y + 1) + y * (self.log_mean - log_ratio)
        return torch.where(above, many, usual) - r * log_ratio

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            gamma = torch._standard_gamma(self.concentration.expand(shape))
            return torch.poisson(gamma * torch.exp(self.log_mean - self.log_concentration))


def _log_poisson(y: Tensor, log_rate: Tensor) -> Tensor:
    """Log probability of a Poisson count.

    Beyond 8 by its deviance: of large counts, terms of their size nearly cancel, which loses all digits in float32.
    """
    large = y > 8
    many = torch.where(large, y, 16.0)
    apart = many.log() - torch.where(large, log_rate, 0.0)
    by_deviance = -0.5 * torch.log(2 * math.pi * many) - _stirling(many) - many * (apart + torch.expm1(-apart))
    few = torch.where(large, 0.0, y)
    return torch.where(large, by_deviance, few * log_rate - log_rate.exp() - torch.lgamma(few + 1))


def _log_rising(log_r: Tensor, y: Tensor) -> Tensor:
    """``lgamma(r + y) - lgamma(r) - y log(r)``, which goes to 0 as r grows.

    By Stirling's series beyond 8, where the difference of two `lgamma` loses all digits in float32.
    """
    large = log_r > _LOG_8
    big, small = torch.where(large, log_r, _LOG_8), torch.where(large, _LOG_8, log_r)
    r = big.exp()
    step = torch.log1p(y * torch.exp(-big))
    series = (r + y - 0.5) * step - y + _stirling(r + y) - _stirling(r)
    r = small.exp()
    return torch.where(large, series, torch.lgamma(r + y) - torch.lgamma(r) - y * small)


def _stirling(z: Tensor) -> Tensor:
    """``lgamma(z) - (z - 1/2) log z + z - log(2 pi) / 2`` for z from 8, to 1e-13."""
    i = 1 / z
    q = i * i
    return i * (1 / 12 + q * (-1 / 360 + q * (1 / 1260 + q * (-1 / 1680 + q * (1 / 1188 - q * (691 / 360360))))))


class ZeroInflatedPoisson(_Counts):
    """A Poisson count, or with probability `gate` a zero.

    Args:
        log_rate: Log of the Poisson's rate.
        gate_logit: Logit of the gate.
    """

    arg_constraints = {"log_rate": constraints.real, "gate_logit": constraints.real}  # noqa: RUF012
    names = ("log_rate", "gate_logit")
    log_rate: Tensor
    gate_logit: Tensor

    def __init__(
        self, log_rate: Tensor | float, gate_logit: Tensor | float, *, validate_args: bool | None = None
    ) -> None:
        self._take(log_rate, gate_logit, validate_args=validate_args)

    @property
    def rate(self) -> Tensor:
        return self.log_rate.exp()

    @property
    def gate(self) -> Tensor:
        return torch.sigmoid(self.gate_logit)

    def law(self) -> tuple[str, dict[str, Tensor]]:
        """Name and parameters of the predictive distribution, for reports."""
        return "zero-inflated-poisson", {"rate": self.rate, "gate": self.gate}

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.gate_logit) * self.rate

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 + self.gate * self.rate)

    def log_prob(self, value: Tensor) -> Tensor:
        value = self._checked(value)
        counted = F.logsigmoid(-self.gate_logit) + _log_poisson(value, self.log_rate)
        zero = torch.logaddexp(F.logsigmoid(self.gate_logit), counted)
        return torch.where(value == 0, zero, counted)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            counted = torch.poisson(self.rate.expand(shape))
            closed = torch.rand(shape, dtype=counted.dtype, device=counted.device) < self.gate
            return torch.where(closed, 0.0, counted)
