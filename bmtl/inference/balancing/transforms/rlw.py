"""Random loss weights."""

from typing import Literal

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import Seed
from bmtl.inference.balancing.transforms.base import Transform


class RLW(Transform):
    """K times a softmax of standard normals as weights, redrawn each step (random loss weighting, Lin et al. 2022).

    ``l_k = lambda_k phi(L_k)``, ``lambda = K softmax(N(0, I))``, K the tasks present; each weight is 1 on average.

    Source: Lin et al. (2022), whose weights sum to K too. Differs from LibMTL, TorchJD and nash-mtl, where they sum to 1:
    their gradients are K times smaller.

    Args:
        phi: "id" weights the losses, "log" their logarithms (RLW+SI of Dai et al. 2023); every loss must then be positive.
        seed: Seeds the generator that this transform owns. Torch's global one is neither read nor moved.
        bound: For "log", what every loss must exceed; it is subtracted first.
    """

    name = "rlw"
    paper = "Lin et al. 2022"
    cost = "1 backward"

    def __init__(self, phi: Literal["id", "log"] = "id", seed: Seed = 0, bound: float = 0.0) -> None:
        super().__init__(bound)
        self.phi = phi
        self.seed = seed
        self.domain = "positive" if phi == "log" else "real"
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        noise = torch.randn(len(losses), generator=self.generator, dtype=torch.float64)
        weights = len(losses) * torch.softmax(noise, dim=0)
        return weights * (self.log_of(losses) if self.phi == "log" else losses)

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())
