"""Distributions of labels, one likelihood per file; `likelihood_of` chooses by a target's family."""

from typing import Any

from bmtl.models.likelihoods.base import Likelihood
from bmtl.models.likelihoods.bernoulli import Bernoulli
from bmtl.models.likelihoods.categorical import Categorical
from bmtl.models.likelihoods.evidential import Evidential
from bmtl.models.likelihoods.gaussian import Gaussian
from bmtl.models.likelihoods.heteroscedastic import Heteroscedastic
from bmtl.models.likelihoods.joint import JointNormal
from bmtl.models.likelihoods.kendall import Kendall
from bmtl.models.likelihoods.laplace import Laplace
from bmtl.models.likelihoods.negative_binomial import NegativeBinomial
from bmtl.models.likelihoods.ordinal import Ordinal
from bmtl.models.likelihoods.pixels import Pixels
from bmtl.models.likelihoods.poisson import Poisson
from bmtl.models.likelihoods.student_t import StudentT
from bmtl.models.likelihoods.survival import LogNormal, Weibull
from bmtl.models.likelihoods.unknown import Noise, Unknown
from bmtl.models.likelihoods.vectors import GaussianVector, LaplaceVector
from bmtl.models.likelihoods.von_mises_fisher import VonMisesFisher
from bmtl.models.likelihoods.weighted_categorical import WeightedCategorical
from bmtl.models.likelihoods.zero_inflated_poisson import ZeroInflatedPoisson
from bmtl.targets import Family
from bmtl.targets import Pixels as PixelsFamily

LIKELIHOODS: dict[str, type[Likelihood]] = {
    cls.name: cls
    for cls in (
        Poisson,
        Gaussian,
        Ordinal,
        Categorical,
        Weibull,
        JointNormal,
        Laplace,
        StudentT,
        Heteroscedastic,
        Evidential,
        Kendall,
        Bernoulli,
        NegativeBinomial,
        ZeroInflatedPoisson,
        LogNormal,
        GaussianVector,
        LaplaceVector,
        VonMisesFisher,
        WeightedCategorical,
    )
}
"""Likelihood by name; the first that serves a family is its default."""

OF_PIXELS = {"real": "laplace", "vector": "laplace-vector"}
"""Defaults of pixels where they are others than those of rows: absolute errors, which dense models are trained on."""


def likelihood_of(
    family: Family,
    name: str | None = None,
    *,
    noise: Noise = "parameter",
    noise_prior: tuple[float, float] | None = None,
    **options: Any,
) -> Likelihood:
    """The likelihood of targets of a family.

    Args:
        family: The family. That of images is asked for what a pixel is.
        name: One of `LIKELIHOODS`; by default the family's: "gaussian" for real targets, "categorical" for classes and
            binary ones, "ordinal", "poisson" for counts, "weibull" for times to an event, "joint-normal" for vectors,
            "von-mises-fisher" for directions. Pixels that are numbers or vectors have "laplace" and "laplace-vector".
        noise: How its unknown quantities enter: "fixed", "parameter" or "latent"; or "heteroscedastic", where a head gives
            the noise of each row.
        noise_prior: Mean and standard deviation of the prior of its unknowns; its own by default.
        **options: Further ones of the likelihood; ``temperature`` is that of `Pixels`.

    Raises:
        TypeError: If the likelihood has no such option.
        ValueError: If there is no such likelihood, or it does not serve the family.
    """
    if isinstance(family, PixelsFamily):
        temperature = options.pop("temperature", None)
        name = name or OF_PIXELS.get(family.of.name)
        of_pixel = likelihood_of(family.of, name, noise=noise, noise_prior=noise_prior, **options)
        return Pixels(of_pixel, temperature)
    serving = [other for other, of in LIKELIHOODS.items() if family.name in of.families]
    if name is None and serving:
        name = serving[0]
    if name not in LIKELIHOODS:
        raise ValueError(f"There is no likelihood {name!r}. The likelihoods are: {', '.join(LIKELIHOODS)}.")
    if name not in serving:
        raise ValueError(
            f"The likelihood {name!r} is for targets of {', '.join(LIKELIHOODS[name].families)}, and this one is "
            f"{family.name!r}, for which there are: {', '.join(serving)}."
        )
    cls = LIKELIHOODS[name]
    if noise_prior is not None and cls.has_unknowns:
        options["noise_prior"] = noise_prior
    return cls.of(family, noise=noise, **options)


__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "Evidential",
    "Gaussian",
    "GaussianVector",
    "Heteroscedastic",
    "JointNormal",
    "Kendall",
    "Laplace",
    "LaplaceVector",
    "Likelihood",
    "LogNormal",
    "NegativeBinomial",
    "Noise",
    "Ordinal",
    "Pixels",
    "Poisson",
    "StudentT",
    "Unknown",
    "VonMisesFisher",
    "Weibull",
    "WeightedCategorical",
    "ZeroInflatedPoisson",
    "likelihood_of",
]
