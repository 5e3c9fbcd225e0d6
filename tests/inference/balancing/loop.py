"""Steps of a balancer on losses and gradients that a test chooses."""

import math

import torch
from torch import Tensor

from bmtl.inference.balancing import Balancer, Context, Objective, Update, balancer
from bmtl.inference.losses import TaskTerms

NAN = math.nan


class Loop:
    """Trains by a balancer as BalancedSVI does, on losses and gradients made to measure.

    A row is ``loss_k + gradient_k' (theta - stop(theta))``: any loss can have any gradient. The balancer's own parameters
    are trained by Adam at BalancedSVI's learning rate.
    """

    def __init__(self, spec, names: str = "abc", lr: float = 0.025) -> None:
        self.balancer = spec if isinstance(spec, Balancer) else balancer(spec)
        self.balancer.bind(tuple(names))
        self.transform = self.balancer.transform
        own = list(self.balancer.parameters())
        self.optimizer = torch.optim.Adam(own, lr=lr) if own else None
        self.steps, self.epoch = 0, 1
        self.grad = torch.zeros(0)

    def update(self, losses, gradients=None, after=None) -> Update:
        """One step; NaN in `losses` (K_all,) is an absent task. `after`: the losses at the new parameters."""
        losses = torch.as_tensor(losses, dtype=torch.float64)
        active = ~losses.isnan()
        here = active.nonzero().flatten().tolist()
        gradients = torch.ones(len(losses), 1) if gradients is None else torch.as_tensor(gradients)
        gradients = gradients.double()
        theta = torch.zeros(gradients.shape[1], dtype=torch.float64, requires_grad=True)
        objective = Objective(
            names=tuple(self.balancer.names[k] for k in here),
            losses=losses[active],
            rows=TaskTerms([losses[k] + gradients[k] @ theta for k in here]),
            per_datum_scale=torch.ones(len(here), dtype=torch.float64),
        )
        if self.optimizer:
            self.optimizer.zero_grad()
        update = self.balancer.backward(objective, Context(active, self.steps, self.epoch))
        self.grad = theta.grad
        if self.optimizer:
            self.optimizer.step()
        self.steps += 1
        if self.transform.second_forward:
            after = losses if after is None else torch.as_tensor(after, dtype=torch.float64)
            self.balancer.after_step(after[active], Context(active, self.steps, self.epoch))
        return update

    def step(self, losses, gradients=None, after=None) -> Tensor:
        """Effective weights of all tasks (K_all,), NaN for absent ones."""
        full = torch.full((len(self.balancer.names),), NAN, dtype=torch.float64)
        full[~torch.as_tensor(losses, dtype=torch.float64).isnan()] = self.update(losses, gradients, after).weights
        return full

    def end_epoch(self, means) -> None:
        means = torch.as_tensor(means, dtype=torch.float64)
        self.balancer.end_epoch(means, Context(torch.ones(len(means), dtype=torch.bool), self.steps, self.epoch))
        self.epoch += 1
