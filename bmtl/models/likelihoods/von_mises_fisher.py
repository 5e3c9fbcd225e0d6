"""Directions, such as surface normals: the cosine loss and its noise."""

from typing import Any, ClassVar, Self

from torch import Tensor
from torch.nn import functional as F

from bmtl.distributions import VonMisesFisher as Distribution
from bmtl.models.likelihoods.base import Likelihood, Values
from bmtl.models.likelihoods.unknown import Noise, Unknown
from bmtl.targets import Family

NEAREST = 1e-6  # length below which an output counts as this long


class VonMisesFisher(Likelihood):
    """``y ~ von Mises-Fisher(f / |f|, 1 / sigma^2)`` for unit vectors of three components.

    The mean direction's loss is the cosine's: a fixed noise trains on ``1 - y' f / |f|``, half the unit deviance at a
    concentration of 1, and the other noises on that over sigma^2 with the normaliser. Where angles are small, sigma is the
    standard deviation of each of the two of them in radians.

    Args:
        noise: "fixed", "parameter", "latent" or "heteroscedastic": what ``log sigma^2`` is, the concentration's negative
            logarithm.
        noise_prior: Mean and standard deviation of its prior.

    Source:
        Fisher (1953), "Dispersion on a Sphere". The cosine loss: Eigen & Fergus (2015), "Predicting Depth, Surface Normals
        and Semantic Labels".
    """

    name = "von-mises-fisher"
    families: ClassVar[tuple[str, ...]] = ("unit-vector",)
    from_head: ClassVar[str] = "log_variance"

    def __init__(self, noise: Noise = "parameter", noise_prior: tuple[float, float] = (0.0, 2.0)) -> None:
        super().__init__(3, noise, {"log_variance": Unknown(0.0, noise, noise_prior)})

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        return cls(**options)

    def distribution(self, f: Tensor, values: Values) -> Distribution:
        return Distribution(f[..., :3], (-self.noise_of(f, values)).exp())

    def deviance(self, f: Tensor, y: Tensor) -> Tensor:
        return 1 - (F.normalize(f[..., :3], dim=-1, eps=NEAREST) * y).sum(-1)
