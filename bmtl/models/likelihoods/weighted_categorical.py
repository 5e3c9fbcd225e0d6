"""Classes, trained on a cross-entropy in which rare ones count more."""

import torch
from torch import Tensor, nn

from bmtl.models.likelihoods.base import Values
from bmtl.models.likelihoods.categorical import Categorical, class_losses
from bmtl.models.likelihoods.unknown import Noise


class WeightedCategorical(Categorical):
    """Trains on ``w_c`` times the negative log density of a label of class c, with ``w_c`` in proportion to ``n_c^-power``.

    ``n_c`` is how many training labels are of class c, as `start` counts them; before that, all weights are 1. The mean
    weight of a training label is 1, so that the loss keeps its scale among the tasks. For scores in which classes count
    alike, as the mean IoU and the balanced accuracy: what is trained on is no density, and predicted probabilities of rare
    classes are too large. Predictions use `Categorical`'s form.

    Args:
        count: Number of classes C, from 2.
        noise: As for `Categorical`.
        noise_prior: As for `Categorical`.
        power: From 0, which is `Categorical`, to 1, where all classes have the same total weight.

    Raises:
        ValueError: As `Categorical`, or if `power` is not from 0 to 1.

    Source:
        Eigen & Fergus (2015), section 5, and Badrinarayanan et al. (2017), section 4, weight by median frequency over
        frequency, which is a power of 1; those weights have another mean.
    """

    name = "weighted-categorical"
    families = ("classes", "binary")
    class_weights: Tensor

    def __init__(
        self,
        count: int,
        noise: Noise = "parameter",
        noise_prior: tuple[float, float] = (0.0, 2.0),
        power: float = 0.5,
    ) -> None:
        super().__init__(count, noise, noise_prior)
        if not 0 <= power <= 1:
            raise ValueError(f"power is from 0 to 1, and {power!r} was given.")
        self.power = power
        self.class_weights = nn.Buffer(torch.ones(count))

    @torch.no_grad()
    def start(self, y: Tensor) -> None:
        seen = torch.bincount(y[self.labelled(y)].long(), minlength=self.count).double()
        if seen.sum():
            weights = seen.clamp(min=1) ** -self.power
            self.class_weights.copy_(weights * seen.sum() / (weights * seen).sum())

    @property
    def trains_on_loss(self) -> bool:
        return True

    def training_loss(self, site: str, f: Tensor, values: Values, y: Tensor) -> Tensor:
        """The weighted negative log density.

        Raises:
            ValueError: If a label is not a class.
        """
        return class_losses(site, self.distribution(f, values), y) * self.class_weights[y.long()]
