"""Published methods, each as a few lines: a recipe makes the untrained model of a data set, and its guide.

    recipe(spec, *, trunk, generator, **options) -> model, or (model, guide)

`spec` is a `DataSpec`; ``trunk(**options)`` makes a trunk with an int attribute ``width``. Each target has its family's
default likelihood unless a recipe is about another; the option `likelihood` overrides it:

    likelihood="laplace"                       every target that a Laplace likelihood serves
    likelihood="laplace,kendall"               real targets and classes
    likelihood={"visits": "negative-binomial"} one target
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bmtl.models.heads import HEADS, CommonPriorHeads, LinearHeads, TensorNormalHeads
from bmtl.models.likelihoods import LIKELIHOODS, Likelihood, Noise, likelihood_of
from bmtl.models.representations import Bottleneck, Deterministic, MCDropout
from bmtl.models.spec import DataSpec
from bmtl.models.task_model import TaskModel

Trunk = Callable[..., nn.Module]
Choice = str | Sequence[str] | Mapping[str, str] | None
Built = tuple[nn.Module, Callable[..., Any]]


def homoscedastic(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    likelihood: Choice = None,
    noise: Noise = "parameter",
    noise_prior: tuple[float, float] | None = None,
    head: str = "linear",
    prior_scale: float | None = None,
    dropout: float = 0.0,
) -> Built:
    """Task noise as task weight; with ``noise="fixed"`` the deterministic program that balancers are compared on.

    Args:
        spec: Of the data.
        trunk: Makes the trunk; asked for ``mc_dropout`` where `dropout` is above 0.
        generator: Draws initial weights.
        likelihood: Instead of the families' own, see the module.
        noise: "fixed", "parameter" or "latent".
        noise_prior: Mean and standard deviation of latent noises' prior; each likelihood has its own by default.
        head: "linear" has point weights, "bayesian" a normal prior on every weight and bias.
        prior_scale: Standard deviation of a Bayesian head's prior; ``1 / sqrt(width)`` by default.
        dropout: MC dropout before every layer.

    Raises:
        ValueError: If an option is unknown or does not fit a target.

    Source:
        Kendall, Gal & Cipolla (2018), section 3. Dropout: Gal & Ghahramani (2016).
    """
    heads = choice("head", head, {"linear": LinearHeads, "bayesian": HEADS["bayesian"]})
    if head == "bayesian":
        heads = functools.partial(heads, prior_scale=prior_scale)
    likelihoods = likelihoods_of(spec, likelihood, noise=noise, noise_prior=noise_prior)
    made = trunk(mc_dropout=dropout) if dropout else trunk()
    return _built(spec, made, generator, likelihoods, heads, MCDropout if dropout else Deterministic)


def gaussian(spec: DataSpec, *, trunk: Trunk, generator: torch.Generator, likelihood: Choice = None) -> Built:
    """A mean and a variance for each row of a real target: a member of a deep ensemble (Lakshminarayanan et al., 2017)."""
    likelihoods = likelihoods_of(spec, likelihood, real="heteroscedastic")
    return _built(spec, trunk(), generator, likelihoods)


def evidential(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    likelihood: Choice = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    **options: Any,
) -> Built:
    """ENet (``objective="nll"``), MSE-ENet ("nll+mse") and MT-ENet ("nll+lipschitz"), Oh & Shin (2022).

    Args:
        spec: Of the data. Targets that are not real have their family's likelihood.
        trunk: Makes the trunk.
        generator: Draws initial weights.
        likelihood: Instead of these.
        bounds: Bounds of targets whose labels stop there, in the model's scale.
        **options: Of `bmtl.models.likelihoods.Evidential`.

    Raises:
        ValueError: If no target is real, an option is out of range, or `bounds` names a target that there is not.
    """
    unknown = sorted(set(bounds or {}) - set(spec.targets))
    if unknown:
        raise ValueError(f"bounds names {unknown}, and the targets are {list(spec.targets)}.")
    own = {name: {"bounds": pair} for name, pair in (bounds or {}).items()}
    likelihoods = likelihoods_of(spec, likelihood, real="evidential", options=options, own=own)
    return _built(spec, trunk(), generator, likelihoods)


def bakker_heskes(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    likelihood: Choice = None,
    noise: Noise = "parameter",
    noise_prior: tuple[float, float] | None = None,
    prior_scale: float | None = None,
) -> Built:
    """Heads from one normal, whose mean and covariance are learnt: Bakker & Heskes (2003), see `CommonPriorHeads`."""
    likelihoods = likelihoods_of(spec, likelihood, noise=noise, noise_prior=noise_prior)
    heads = functools.partial(CommonPriorHeads, prior_scale=prior_scale)
    return _built(spec, trunk(), generator, likelihoods, heads)


def multilinear(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    likelihood: Choice = None,
    noise: Noise = "parameter",
    noise_prior: tuple[float, float] | None = None,
    concentration: float = 1.0,
    prior_scale: float | None = None,
) -> Built:
    """Heads with a tensor-normal prior, which learns how tasks relate: Long et al. (2017), see `TensorNormalHeads`."""
    likelihoods = likelihoods_of(spec, likelihood, noise=noise, noise_prior=noise_prior)
    heads = functools.partial(TensorNormalHeads, concentration=concentration, prior_scale=prior_scale)
    return _built(spec, trunk(), generator, likelihoods, heads)


def bottleneck(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    likelihood: Choice = None,
    noise: Noise = "parameter",
    noise_prior: tuple[float, float] | None = None,
    latent: int | None = None,
    beta: float = 1.0,
) -> Built:
    """A stochastic representation that keeps little of x: Qian et al. (2020), see `Bottleneck`; they train on "kendall"."""
    likelihoods = likelihoods_of(spec, likelihood, noise=noise, noise_prior=noise_prior)
    representation = functools.partial(Bottleneck, latent=latent, beta=beta)
    return _built(spec, trunk(), generator, likelihoods, LinearHeads, representation)


# ---- Choosing likelihoods --------------------------------------------------------------------------------------------


def likelihoods_of(
    spec: DataSpec,
    likelihood: Choice = None,
    *,
    real: str | None = None,
    noise: Noise = "parameter",
    noise_prior: tuple[float, float] | None = None,
    options: Mapping[str, Any] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Likelihood]:
    """The likelihood of each target.

    Args:
        spec: Of the data.
        likelihood: Names that override the defaults, see the module.
        real: The default for real targets, instead of the family's; there must be one then.
        noise: How unknowns enter.
        noise_prior: Of the unknowns, where they are latent.
        options: Of the likelihood `real`.
        own: By target, further options of the likelihood `real`.

    Raises:
        TypeError: If a likelihood does not know an option.
        ValueError: If a name is unknown or does not serve its target, or there is no real target where one is needed.
    """
    names = chosen(spec, likelihood)
    if real is not None:
        of_real = [name for name, family in spec.targets.items() if family.name in ("real",)]
        if not of_real:
            kinds = {name: family.name for name, family in spec.targets.items()}
            raise ValueError(f"The likelihood {real!r} is for real targets, and the data have none: {kinds}.")
        names = {name: names[name] or (real if name in of_real else None) for name in spec.targets}
    found = {}
    for name, family in spec.targets.items():
        given: dict[str, Any] = {"noise": noise, "noise_prior": noise_prior}
        if real is not None and names[name] == real:
            given |= {**(options or {}), **(own or {}).get(name, {})}
        found[name] = likelihood_of(family, names[name], **given)
    return found


def chosen(spec: DataSpec, likelihood: Choice) -> dict[str, str | None]:
    """The name of each target's likelihood, None for its family's default.

    Raises:
        ValueError: If a name is unknown or serves no target, a target is unknown, or two names serve one target.
    """
    names: dict[str, str | None] = dict.fromkeys(spec.targets)
    if isinstance(likelihood, Mapping):
        unknown = sorted(set(likelihood) - set(names))
        if unknown:
            raise ValueError(f"likelihood names {unknown}, and the targets are {list(names)}.")
        return names | dict(likelihood)
    if isinstance(likelihood, str):
        likelihood = likelihood.split(",")
    for given in likelihood or ():
        name = given.strip()
        if name not in LIKELIHOODS:
            raise ValueError(f"There is no likelihood {name!r}. The likelihoods are: {', '.join(LIKELIHOODS)}.")
        served = [target for target, family in spec.targets.items() if serves(name, family)]
        twice = [target for target in served if names[target] is not None]
        if not served or twice:
            reason = f"serves none of the targets {list(names)}" if not served else f"and another serve {twice}"
            raise ValueError(f"The likelihood {name!r} {reason}; give a mapping target -> likelihood.")
        names |= dict.fromkeys(served, name)
    return names


def serves(name: str, family: Any) -> bool:
    """Whether a likelihood serves targets of a family; of images, whether it serves their pixels."""
    return getattr(family, "of", family).name in LIKELIHOODS[name].families


def choice(option: str, value: str, known: Mapping[str, Any]) -> Any:
    """What a name stands for.

    Raises:
        ValueError: If it is none of them.
    """
    if value not in known:
        raise ValueError(f"{option} is one of {', '.join(map(repr, known))}, and {value!r} was given.")
    return known[value]


def _built(
    spec: DataSpec,
    trunk: nn.Module,
    generator: torch.Generator,
    likelihoods: Mapping[str, Likelihood],
    head: Callable[..., Any] = LinearHeads,
    representation: Callable[..., Any] = Deterministic,
) -> Built:
    width: int = trunk.width  # type: ignore[assignment]
    model = TaskModel(
        trunk,
        width,
        likelihoods,
        spec.n_data,
        head=head,
        representation=representation,
        labels=spec.labels,
        generator=generator,
    )
    return model, model.guide()
