"""The loss of a step as a function of the parameters, for optimizers that evaluate it several times."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Objective
from bmtl.inference.programs import Batch, set_generators
from bmtl.inference.scaled_losses import ScaledLosses


@dataclass(frozen=True)
class RepeatedLoss:
    """The batch, the draws and the weights of a step.

    Attributes:
        batch: What the programs were called with.
        draws: States of torch's generators before the step.
        weights: Of the losses of the tasks present ``(K,)``.
        present: Which tasks were present.
        first: The loss that the step has found.
    """

    batch: Batch
    draws: Any
    weights: Tensor
    present: Tensor
    first: float

    def closure(
        self,
        run: Callable[[Batch], ScaledLosses],
        objective_of: Callable[[ScaledLosses], Objective],
        zero_grad: Callable[[], None],
    ) -> Callable[[], float]:
        """The closure for the optimizer: its first call gives what is known, each other one runs the programs.

        Args:
            run: Gives the terms of a batch at the parameters that there are.
            objective_of: Gives their graph.
            zero_grad: Clears all gradients.
        """
        known = [self.first]

        def evaluate() -> float:
            if known:
                return known.pop()
            zero_grad()
            set_generators(self.draws)
            with torch.enable_grad():
                terms = run(self.batch).only(self.present)
                objective = objective_of(terms)
                for total in (objective.weighted(self.weights), objective.unweighted(self.weights)):
                    if total is not None and total.requires_grad:
                        total.backward(retain_graph=True)
            return float(self.weights @ terms.values[self.present]) + terms.unweighted_terms

        return evaluate
