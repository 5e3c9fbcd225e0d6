"""Distributions of classes whose log-probabilities keep their digits where a class is almost certain.

``log p = l_c - logsumexp(l)`` of logits l is a difference of nearly equal numbers there: in float32 it is exactly 0 from 17
on, long before ``1 - p`` underflows. Here it is ``-log(1 + sum_{j != c} exp(l_j - l_c))``, whose error is relative.
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn import functional as F


class Bernoulli(dist.Bernoulli):
    """Pyro's, for logits far from 0."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits: Any = self.logits
        # (2 y - 1) logits, for y of 0 and 1
        return F.logsigmoid(torch.where(value > 0.5, logits, -logits))


class Categorical(dist.Categorical):
    """Pyro's, for logits far from one another."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._num_events < 2 or hasattr(value, "_pyro_categorical_support"):
            found: Tensor = super().log_prob(value)
            return found
        if self._validate_args:
            self._validate_sample(value)
        at, logits = torch.broadcast_tensors(value.long().unsqueeze(-1), self.logits)
        at = at[..., :1]
        others = logits.scatter(-1, at, -torch.inf).logsumexp(-1)
        return F.logsigmoid(logits.gather(-1, at).squeeze(-1) - others)
