"""A label for each pixel, under the likelihood of one."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.distributions import Pixels as PixelsDistribution
from bmtl.labels import read_labels
from bmtl.models.guides import Latent
from bmtl.models.likelihoods.base import Likelihood, Values, factor
from bmtl.tasks import observe


class Pixels(Likelihood):
    """Images ``(B, H, W)`` of labels that are independent given f ``(..., B, H, W, outputs)``, channels last.

    A row's log density is the sum over its pixels that have a label; a row is missing where none has.

    Args:
        of_pixel: The likelihood of a pixel; its unknowns are those of all pixels.
    """

    name = "pixels"
    families = ("pixels",)

    def __init__(self, of_pixel: Likelihood) -> None:
        super().__init__(of_pixel.outputs, of_pixel.noise)
        if of_pixel.objectives != ("nll",):
            raise ValueError(f"A pixel has one objective, and {of_pixel.name!r} has {of_pixel.objectives}.")
        self.of_pixel = of_pixel

    @property
    def classes(self) -> int:
        return self.of_pixel.classes

    def start(self, y: Tensor) -> None:
        self.of_pixel.start(y.flatten(0, 2))

    def latents(self, target: str) -> dict[str, Latent]:
        return self.of_pixel.latents(target)

    def sample(self, target: str) -> dict[str, Tensor]:
        return self.of_pixel.sample(target)

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        return PixelsDistribution(self.of_pixel.distribution(f, self._of_images(values)))

    def observe_at(self, site: str, f: Tensor, values: Values, y: Tensor | None) -> None:
        p = self.distribution(f, values)
        if y is None or not self.of_pixel.trains_on_deviance:
            observe(site, p, y)
            return
        labels = read_labels(site, p, y)
        loss = self.of_pixel.deviance(f, labels.value)
        factor(site, torch.where(self._missing(y), 0.0, loss).sum((-2, -1)), labels)

    def labelled(self, y: Tensor) -> Tensor:
        return ~self._missing(y).flatten(1).all(1)

    @property
    def needs_calibration(self) -> bool:
        return self.of_pixel.needs_calibration

    def calibrate(self, f: Tensor, y: Tensor) -> None:
        self.of_pixel.calibrate(f.flatten(0, 2), y.flatten(0, 2))

    def set_noise(self, sigma: float) -> None:
        self.of_pixel.set_noise(sigma)

    def _missing(self, y: Tensor) -> Tensor:
        return y.isnan() if y.is_floating_point() else y == -1

    def _of_images(self, values: Values) -> Values:
        """Values with two more dimensions between those of rows and those of the unknown itself."""
        starts = self.of_pixel._starts()
        found = {}
        for name, value in values.items():
            own = starts[name].dim()
            batch = value.shape[: value.dim() - own]
            found[name] = value.reshape(*batch, 1, 1, *value.shape[value.dim() - own :]) if batch else value
        return found
