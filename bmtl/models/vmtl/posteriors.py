"""The posteriors of VMTL's latents: of each row's representation z, and of each task's classifier w."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bmtl import inputs
from bmtl.models.networks.gaussian import LEAST_VARIANCE, GaussianEncoder, Moments, above_floor, marked
from bmtl.models.vmtl.classifiers import AmortisedClassifiers, FreeClassifiers
from bmtl.models.vmtl.encoders import at_averages, encoder_of, location
from bmtl.models.vmtl.rows import Rows
from bmtl.models.vmtl.support import AttentionWeights, Support


class Posteriors(nn.Module):
    """Normals of z from an encoder, and of w by task; or points. See `VMTL` for the options.

    Args:
        names: The T tasks.
        features: Number of features D.
        shape: Outputs C of a classifier, and the number of latents H, None for that of the trunk.
        gaussian: Whether z and w are Gaussian.
        scale_w: Standard deviation of w under its prior; None for ``1 / sqrt(H)``.
        scale_z: That of z.
        encoder: Name, or a module.
        sharing: "shared" or "task".
        trunk: Makes hidden layers.
        dropout: On the encoder's inputs.
        amortised: Whether w comes from the mean features of its classes.
        amortised_dropout: On those mean features.
        support: The training rows, if they are given.
        generator: Draws initial weights; None uses torch's global generator.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        features: int,
        shape: tuple[int, int | None],
        gaussian: dict[str, bool],
        *,
        scale_w: float | None,
        scale_z: float,
        encoder: str | nn.Module,
        sharing: str,
        trunk: Callable[[], nn.Module],
        dropout: float,
        amortised: bool,
        amortised_dropout: float,
        support: Support | None,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.names, self.gaussian = names, gaussian
        outputs, latent = shape
        encoders = []
        for _ in names if sharing == "task" else ("shared",):
            made, latent = encoder_of(encoder, features, trunk, latent, dropout, gaussian["z"], generator)
            encoders.append(made)
        assert latent is not None
        self.latent = latent
        self.scales = {"w": latent**-0.5 if scale_w is None else scale_w, "z": scale_z}
        # Free parameters do not run away as a network's output does: their floor is that of float32 alone.
        self._least_z = LEAST_VARIANCE * scale_z**2
        self._least_w = (LEAST_VARIANCE if amortised else 1e-10) * self.scales["w"] ** 2
        self.encoders = nn.ModuleList(encoders)
        self.support, self.amortised = support, amortised
        if not amortised:
            self.classifiers: nn.Module = FreeClassifiers((len(names), outputs, latent), gaussian["w"], generator)
            return
        hidden = trunk()
        means = self._support().class_means(outputs)
        width: int = hidden.width  # type: ignore[assignment]
        if amortised_dropout:
            hidden = nn.Sequential(nn.Dropout(amortised_dropout), hidden)
        network = GaussianEncoder(hidden, width, latent, generator)
        self.classifiers = AmortisedClassifiers(network, *means, self.scales["w"])

    def _support(self) -> Support:
        if self.support is None:
            raise ValueError(
                "support=(x, y), the training rows, is needed for amortised classifiers and for z's prior from other tasks."
            )
        return self.support

    def encode(self, rows: Rows, mean_only: bool = False) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
        """Mean and variance of z by task, ``(B_t, H)`` each; None for the variance of points, and where it is not asked."""

        def moments(encoder: nn.Module, x: Any) -> Moments:
            mean, variance = (location(encoder, x), None) if mean_only else above_floor(encoder(x), self._least_z)
            expected = (inputs.count(x), self.latent)
            if mean.shape != expected:
                raise ValueError(
                    f"The encoder gives means of shape {tuple(mean.shape)}; {expected} is expected, rows and "
                    f"latent={self.latent}."
                )
            return mean, variance

        if len(self.encoders) > 1:
            each = [moments(encoder, x) for encoder, x in zip(self.encoders, rows.inputs.values(), strict=True)]
            variances = tuple(v for _, v in each if v is not None)
            return tuple(m for m, _ in each), variances or None
        loc, variance = marked(moments(self.encoders[0], rows.packed))
        return rows.split(loc), None if variance is None else rows.split(variance)

    def encode_averages(self, answers: AttentionWeights, support: Support) -> Moments:
        """Mean and variance of z at averages of a support's rows, without dropout."""
        encoder = self.encoders[0]
        with predicting(encoder):
            return above_floor(at_averages(encoder, support.packed, answers), self._least_z)

    def classifier(self) -> Moments:
        """Mean and variance of w, ``(T, C, H)``; None for the variance of points."""
        moments = above_floor(self.classifiers(), self._least_w)
        return marked(moments) if self.amortised else moments

    def classifier_without_dropout(self) -> Moments:
        """The same, as it is in predictions."""
        with predicting(self.classifiers):
            return above_floor(self.classifiers(), self._least_w)

    def classifier_constants(self) -> Moments:
        """The same, without dropout and without a gradient."""
        loc, variance = self.classifier_without_dropout()
        return loc.detach(), None if variance is None else variance.detach()


@contextmanager
def predicting(encoder: nn.Module) -> Iterator[None]:
    """Evaluation mode: the others' posteriors are those that they predict with, without dropout."""
    modes = [(part, part.training) for part in encoder.modules()]  # part by part: some may be frozen
    encoder.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class QuickNormal(dist.Normal):
    """A normal that draws in one pass over its numbers: the samples of z are the largest tensor there is."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, noise, self.scale)
