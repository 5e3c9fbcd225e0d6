"""A label for each pixel, under the likelihood of one."""

import torch
from torch import Tensor, nn

from bmtl.distributions import Pixels as PixelsDistribution
from bmtl.labels import read_labels
from bmtl.models.guides import Latent
from bmtl.models.likelihoods.base import Likelihood, Values, factor
from bmtl.tasks import observe


class Pixels(Likelihood):
    """Images ``(B, H, W, ...)`` of labels that are independent given f ``(..., B, H, W, outputs)``, channels last.

    A row's log density is the sum over its pixels that have a label, divided by a temperature; a row is missing where no
    pixel has one. Pixels are correlated given f, and ten thousand of them would outweigh any prior. So an image counts as
    one datum unless asked otherwise: the temperature is the mean number of labelled pixels of a training image. It is one
    number for a target: losses are unbiased for means over labelled pixels, which published dense models train on.

    Args:
        of_pixel: The likelihood of a pixel; its unknowns are those of all pixels.
        temperature: What an image's log density is divided by; None for the mean number of labelled pixels of an image, as
            `start` finds it, and 1 before. At 1 the density is that of independent pixels.

    Raises:
        ValueError: If a pixel has several objectives, or the temperature is not positive.
    """

    name = "pixels"
    families = ("pixels",)
    temperature: Tensor

    def __init__(self, of_pixel: Likelihood, temperature: float | None = None) -> None:
        super().__init__(of_pixel.outputs)
        self.noise = of_pixel.noise
        if of_pixel.objectives != ("nll",):
            raise ValueError(f"A pixel has one objective, and {of_pixel.name!r} has {of_pixel.objectives}.")
        if temperature is not None and not 0 < temperature < float("inf"):
            raise ValueError(f"temperature is above 0 and finite, and {temperature} was given.")
        self.of_pixel = of_pixel
        self._found = temperature is None
        self.temperature = nn.Buffer(torch.tensor(1.0 if temperature is None else temperature))

    @property
    def classes(self) -> int:
        return self.of_pixel.classes

    @property
    def tempered(self) -> bool:
        """Whether the temperature is another than 1, and so the posterior not that of independent pixels."""
        return self._found or bool(self.temperature != 1)

    @torch.no_grad()
    def start(self, y: Tensor) -> None:
        self.of_pixel.start(y.flatten(0, 2))
        there = self.labelled(y)
        if self._found and there.any():
            self.temperature.fill_(float((~self._missing(y)).sum() / there.sum()))

    def latents(self, target: str) -> dict[str, Latent]:
        return self.of_pixel.latents(target)

    def sample(self, target: str) -> dict[str, Tensor]:
        return self.of_pixel.sample(target)

    def distribution(self, f: Tensor, values: Values) -> PixelsDistribution:
        return PixelsDistribution(self.of_pixel.distribution(f, self._of_images(values)), self.temperature)

    def observe_at(self, site: str, f: Tensor, values: Values, y: Tensor | None) -> None:
        p = self.distribution(f, values)
        if y is None or not self.of_pixel.trains_on_loss:
            observe(site, p, y)
            return
        labels = read_labels(site, p, y)
        loss = self.of_pixel.training_loss(site, f, self._of_images(values), labels.value)
        factor(site, torch.where(self._missing(y), 0.0, loss).sum((-2, -1)) / self.temperature, labels)

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
        """Which pixels have no label, ``(B, H, W)``; of vectors, those that lack a component."""
        missing = y.isnan() if y.is_floating_point() else y == -1
        return missing.flatten(3).any(-1) if missing.dim() > 3 else missing

    def _of_images(self, values: Values) -> Values:
        """Values with two more dimensions between those of rows and those of the unknown itself."""
        starts = self.of_pixel._starts()
        found = {}
        for name, value in values.items():
            own = starts[name].dim()
            batch = value.shape[: value.dim() - own]
            found[name] = value.reshape(*batch, 1, 1, *value.shape[value.dim() - own :]) if batch else value
        return found
