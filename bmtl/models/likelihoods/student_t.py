"""Real labels with Student-t noise: tails as heavy as the labels ask for."""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.distributions import StudentT as StudentTDistribution
from bmtl.models.likelihoods.base import Values
from bmtl.models.likelihoods.location_scale import LocationScale
from bmtl.models.likelihoods.unknown import Noise, Unknown

_DF = 9.0  # degrees of freedom above 1 at the start


class StudentT(LocationScale):
    """``y ~ StudentT(df, f, sigma)`` with ``df = 1 + exp(log_df)``: more than 1, so that the mean exists.

    Args:
        noise: What ``log sigma^2`` and, without `df`, ``log_df`` are. With a fixed noise the loss is half the unit deviance,
            ``(df + 1) / 2 log(1 + e^2 / df)``, at `df`, or 10.
        noise_prior: Of ``log sigma^2``.
        df: Degrees of freedom, above 1; None leaves them unknown.
        df_prior: Mean and standard deviation of ``log_df``'s prior.
        **options: ``censored`` and ``bounds``, as for `LocationScale`.

    Raises:
        ValueError: As `LocationScale`; if `df` is not above 1.

    Source:
        Lange, Little & Taylor (1989), "Robust Statistical Modeling Using the t Distribution".
    """

    name = "student-t"

    def __init__(
        self,
        noise: Noise = "parameter",
        noise_prior: tuple[float, float] = (0.0, 2.0),
        *,
        df: float | None = None,
        df_prior: tuple[float, float] = (math.log(_DF), 1.0),
        **options: Any,
    ) -> None:
        if df is not None and not 1 < df < math.inf:
            raise ValueError(f"df is a number of degrees of freedom, above 1, and {df} was given.")
        further: dict[str, Any] = {} if df is not None else {"log_df": Unknown(math.log(_DF), noise, df_prior)}
        super().__init__(noise, noise_prior, **options, **further)
        self.df = df

    def base(self, loc: Tensor, scale: Tensor, values: Values) -> TorchDistribution:
        return StudentTDistribution(self._df(values, loc), loc, scale)

    def loss(self, e: Tensor) -> Tensor:
        df = self._df(self._starts(), e)
        return 0.5 * (df + 1) * torch.log1p(e.square() / df)

    def _df(self, values: Values, like: Tensor) -> Tensor:
        return 1 + values["log_df"].exp() if self.df is None else like.new_tensor(self.df)
