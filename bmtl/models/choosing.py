"""Which likelihood each target of a data set has: its family's default, a recipe's, or one that was requested."""

from collections.abc import Mapping, Sequence
from typing import Any

from bmtl.models.likelihoods import LIKELIHOODS, Likelihood, Noise, likelihood_of
from bmtl.models.spec import DataSpec
from bmtl.targets import Family

Choice = str | Sequence[str] | Mapping[str, str] | None
"""Names of likelihoods: one, or several with commas between or in a sequence, each for every target that it serves; or by
target. None leaves the defaults."""


def likelihoods_of(
    spec: DataSpec,
    likelihood: Choice = None,
    *,
    real: str | None = None,
    noise: Noise = "parameter",
    noise_prior: tuple[float, float] | None = None,
    options: Mapping[str, Any] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    temperature: float | None = None,
    censored: bool = False,
) -> dict[str, Likelihood]:
    """The likelihood of each target.

    Args:
        spec: Description of the data.
        likelihood: Names that override the defaults, see `Choice`.
        real: The default for real targets, instead of the family's; there must be one then.
        noise: How unknowns enter.
        noise_prior: Of the unknowns, where they are latent.
        options: Of the likelihood `real`.
        own: By target, further options of the likelihood `real`.
        temperature: Of targets that are images.
        censored: Whether labels of targets whose family has bounds count with the probability beyond a bound that they are
            at (`bmtl.distributions.Censored`). Without it they are exact labels, as published work takes them.

    Raises:
        TypeError: If a likelihood has no such option.
        ValueError: If a name is unknown or does not serve its target, or there is no real target where one is needed.
    """
    names = chosen(spec, likelihood)
    if real is not None:
        made_for = LIKELIHOODS[real].families[0]
        of_real = [name for name, family in spec.targets.items() if getattr(family, "of", family).name == made_for]
        if not of_real:
            kinds = {name: family.name for name, family in spec.targets.items()}
            raise ValueError(f"The likelihood {real!r} is for real targets, and the data have none: {kinds}.")
        names = {name: names[name] or (real if name in of_real else None) for name in spec.targets}
    everywhere = {**spec.others, **spec.targets}
    if censored and not any(getattr(family, "bounds", None) for family in everywhere.values()):
        raise ValueError(
            f"censored=True is for targets whose family has bounds, Real(bounds=(lower, upper)), and none of "
            f"{list(everywhere)} has. Give the bounds where the labels are made, or leave the option out."
        )
    found = {}
    for name, family in spec.targets.items():
        given: dict[str, Any] = {"noise": noise, "noise_prior": noise_prior}
        bounds = getattr(family, "bounds", None)
        if censored and bounds is not None:
            given["bounds"] = bounds
        if real is not None and names[name] == real:
            given |= {**(options or {}), **(own or {}).get(name, {})}
        if temperature is not None and hasattr(family, "of"):
            given["temperature"] = temperature
        found[name] = likelihood_of(family, names[name], **given)
    return found


def chosen(spec: DataSpec, likelihood: Choice) -> dict[str, str | None]:
    """The name of each target's likelihood, None for its family's default.

    Raises:
        ValueError: If a name is unknown or serves no target, a target is unknown, or two names serve one target.
    """
    names: dict[str, str | None] = dict.fromkeys(spec.targets)
    if isinstance(likelihood, Mapping):
        unknown = sorted(set(likelihood) - {*names, *spec.others})
        if unknown:
            raise ValueError(f"likelihood names {unknown}, and the targets are {[*names, *spec.others]}.")
        return {name: likelihood.get(name) for name in names}
    if isinstance(likelihood, str):
        likelihood = likelihood.split(",")
    for given in likelihood or ():
        name = given.strip()
        if name not in LIKELIHOODS:
            raise ValueError(f"There is no likelihood {name!r}. The likelihoods are: {', '.join(LIKELIHOODS)}.")
        served = [target for target, family in spec.targets.items() if serves(name, family)]
        twice = [target for target in served if names[target] is not None]
        if not served and any(serves(name, family) for family in spec.others.values()):
            continue
        if not served or twice:
            reason = f"serves none of the targets {list(names)}" if not served else f"and another serve {twice}"
            raise ValueError(f"The likelihood {name!r} {reason}; give a mapping target -> likelihood.")
        names |= dict.fromkeys(served, name)
    return names


def serves(name: str, family: Family) -> bool:
    """Whether a likelihood serves targets of a family; of images, whether it serves their pixels."""
    return getattr(family, "of", family).name in LIKELIHOODS[name].families
