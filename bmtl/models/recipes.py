"""Published methods, each as a few lines: a recipe makes the untrained model of a data set, and its guide.

    recipe(spec, *, trunk, generator, **options) -> model, or (model, guide)

`spec` is a `DataSpec`; ``trunk(**options)`` makes a trunk with an int attribute ``width``. Each target has its family's
default likelihood unless a recipe is about another; the option `likelihood` overrides it:

    likelihood="laplace"                       every target that a Laplace likelihood serves
    likelihood="laplace,kendall"               real targets and classes
    likelihood={"visits": "negative-binomial"} one target
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from bmtl.models.choosing import Choice, chosen, likelihoods_of
from bmtl.models.heads import HEADS, CommonPriorHeads, LinearHeads, TensorNormalHeads
from bmtl.models.likelihoods import Likelihood, Noise, likelihood_of
from bmtl.models.linear_part import LinearPart
from bmtl.models.neural_linear import NeuralLinear
from bmtl.models.representations import Bottleneck, Deterministic, MCDropout
from bmtl.models.spec import DataSpec, needs_support
from bmtl.models.task_model import TaskModel
from bmtl.models.vmtl import KLWeights, vmtl_preset

Trunk = Callable[..., nn.Module]
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
    hidden: int | None = None,
    kernel: int = 3,
    activation: Literal["none", "relu"] = "none",
    temperature: float | None = None,
    trunk_options: Mapping[str, Any] | None = None,
    prior_scale: float | None = None,
    dropout: float = 0.0,
    censored: bool = False,
) -> Built:
    """Task noise as task weight; with ``noise="fixed"`` the deterministic program that balancers are compared on.

    Args:
        spec: Description of the data.
        trunk: Makes the trunk; asked for ``mc_dropout`` where `dropout` is above 0.
        generator: Draws initial weights.
        likelihood: Instead of the families' own, see the module.
        noise: "fixed", "parameter", "latent" or "heteroscedastic".
        noise_prior: Mean and standard deviation of latent noises' prior; each likelihood has its own by default.
        head: "linear" has point weights, "bayesian" a normal prior on every weight and bias; of images "conv", see
            `ConvHeads`, which a trunk whose features are each target's own needs.
        hidden: Of convolutional heads, as for `ConvHeads`.
        kernel: The same.
        activation: The same.
        temperature: Of images, as for `bmtl.models.likelihoods.Pixels`.
        trunk_options: Of the trunk, such as its width.
        prior_scale: Standard deviation of a Bayesian head's prior; ``1 / sqrt(width)`` by default.
        dropout: MC dropout before every layer.
        censored: Labels at a bound of their family count with the probability beyond it, see `likelihoods_of`.

    Raises:
        ValueError: If an option is unknown or does not fit a target.

    Source:
        Kendall, Gal & Cipolla (2018), section 3. Dropout: Gal & Ghahramani (2016).
    """
    heads = choice("head", head, {name: HEADS[name] for name in ("linear", "bayesian", "conv")})
    likelihoods = likelihoods_of(
        spec, likelihood, noise=noise, noise_prior=noise_prior, temperature=temperature, censored=censored
    )
    made = trunk(**(trunk_options or {}), **({"mc_dropout": dropout} if dropout else {}))
    own_features = getattr(made, "own_features", 1)
    if head == "bayesian":
        heads = functools.partial(heads, prior_scale=prior_scale)
    elif head == "conv":
        heads = functools.partial(heads, hidden=hidden, kernel=kernel, activation=activation, own_features=own_features)
    if own_features > 1 and head != "conv":
        raise ValueError(f"This trunk's features are each target's own; its heads are head='conv', not {head!r}.")
    return _built(spec, made, generator, likelihoods, heads, MCDropout if dropout else Deterministic)


@needs_support(to_start=True)
def neural_linear(spec: DataSpec, *, trunk: Trunk, generator: torch.Generator, likelihood: Choice = None) -> Built:
    """The deterministic program whose heads of real targets are replaced by a closed-form fit, see `NeuralLinear`.

    Args:
        spec: Description of the data, with their support.
        trunk: Makes the trunk.
        generator: Draws initial weights.
        likelihood: Instead of the families' own; others than Gaussian ones keep their heads.

    Source:
        Snoek et al. (2015), "Scalable Bayesian Optimization Using Deep Neural Networks".
    """
    model = functools.partial(NeuralLinear, support=spec.support)
    return _built(spec, trunk(), generator, likelihoods_of(spec, likelihood, noise="fixed"), model=model)


def gaussian(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    likelihood: Choice = None,
    censored: bool = False,
) -> Built:
    """A mean and a variance for each row of a real target: a member of a deep ensemble (Lakshminarayanan et al., 2017)."""
    likelihoods = likelihoods_of(spec, likelihood, real="heteroscedastic", censored=censored)
    return _built(spec, trunk(), generator, likelihoods)


def evidential(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    likelihood: Choice = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    censored: bool = False,
    **options: Any,
) -> Built:
    """ENet (``objective="nll"``), MSE-ENet ("nll+mse") and MT-ENet ("nll+lipschitz"), Oh & Shin (2022).

    Args:
        spec: Description of the data. Targets that are not real have their family's likelihood.
        trunk: Makes the trunk.
        generator: Draws initial weights.
        likelihood: Instead of these.
        bounds: Bounds of targets whose labels stop there, in the model's scale.
        censored: As for `homoscedastic`: those of the targets' families.
        **options: Of `bmtl.models.likelihoods.Evidential`.

    Raises:
        ValueError: If no target is real, an option is out of range, or `bounds` names a target that there is not.
    """
    unknown = sorted(set(bounds or {}) - set(spec.targets))
    if unknown:
        raise ValueError(f"bounds names {unknown}, and the targets are {list(spec.targets)}.")
    own = {name: {"bounds": pair} for name, pair in (bounds or {}).items()}
    likelihoods = likelihoods_of(spec, likelihood, real="evidential", options=options, own=own, censored=censored)
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
    """A stochastic representation that compresses x: Qian et al. (2020), see `Bottleneck`; they train on "kendall"."""
    likelihoods = likelihoods_of(spec, likelihood, noise=noise, noise_prior=noise_prior)
    representation = functools.partial(Bottleneck, latent=latent, beta=beta)
    return _built(spec, trunk(), generator, likelihoods, LinearHeads, representation)


@needs_support(own_rows=True)
def vmtl(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    likelihood: Choice = None,
    preset: str = "VMTL",
    kl_w: float | None = None,
    kl_z: float | None = None,
    **switches: Any,
) -> Built:
    """Variational multi-task learning: priors made of the other tasks' posteriors, Shen et al. (2021), see `VMTL`.

    Where a preset has Gaussian latents, their divergences are multiplied by `kl_w` and `kl_z`, by default 0.1 and 1e-4: at
    their full weight, 1, they outweigh tens of rows per task, and predictions are at chance. Inputs have no dropout unless
    `dropout` says so. For z's prior, rows of a row's own class answer where all tasks have all classes
    (``attention="class"``), and all rows elsewhere.

    Args:
        spec: Description of the data, with their support: the targets are of one kind.
        trunk: Makes the hidden layers, of ELU where the inputs are a table.
        generator: Draws initial weights.
        likelihood: Instead of the families' own, see the module.
        preset: One of `bmtl.models.vmtl.PRESETS`.
        kl_w: Weight of w's divergence.
        kl_z: Weight of z's divergence.
        **switches: Of `VMTL`.

    Raises:
        ValueError: If an option is unknown, or options contradict each other or the data.
    """
    given: dict[str, Any] = {"dropout": 0.0, **switches}
    if not given.get("as_released") and "kl_weights" not in given:
        given["kl_weights"] = KLWeights(0.1 if kl_w is None else kl_w, 1e-4 if kl_z is None else kl_z)
    elif (kl_w, kl_z) != (None, None):
        raise ValueError(
            f"kl_w={kl_w} and kl_z={kl_z} go without kl_weights and as_released, which have weights of their own."
        )
    if "latent" not in given and (given.get("as_released") or given.get("encoder", "mlp") != "mlp"):
        state = generator.get_state()
        given["latent"] = trunk().width  # there are no hidden layers to take it from
        generator.set_state(state)
    names = chosen(spec, likelihood)
    # The logits' scale is free already: a temperature would be one parameter twice.
    likelihoods = {name: likelihood_of(family, names[name]) for name, family in spec.targets.items()}
    for name, of in likelihoods.items():
        if of.classes:
            likelihoods[name] = likelihood_of(spec.targets[name], names[name], noise="fixed")
    for name, labels in (spec.labels or {}).items():
        likelihoods[name].start(labels)
    if "attention" not in given and _lacks_a_class(spec, likelihoods):
        given["attention"] = "all"
    table = spec.inputs.get("kind") == "table"
    model = vmtl_preset(
        preset,
        int(spec.inputs.get("width", 0)),
        likelihoods,
        spec.n_data,
        trunk=functools.partial(trunk, activation=nn.ELU) if table else trunk,
        support=spec.support,
        generator=generator,
        **given,
    )
    return model, model.guide()


@needs_support(to_start=True)
def gaussian_process(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    likelihood: Choice = None,
    inducing: int = 64,
    restarts: int = 3,
    **options: Any,
) -> Built:
    """Multi-task Gaussian process with inducing points, on the inputs themselves, see `bmtl.models.gaussian_process`.

    Several starts are tried for a few steps on the support, and the one with the highest ELBO is taken: one at the labels'
    own correlations, the others random. A warning is logged where they lead to different optima.

    Args:
        spec: Description of the data: a table, real targets, and their support.
        trunk: Not used.
        generator: Draws initial coefficients and inducing points.
        likelihood: Instead of Gaussian ones; only what has a closed form is taken.
        inducing: Number of inducing points, at most that of rows.
        restarts: Number of starts, from 1.
        **options: Of `bmtl.models.gaussian_process.MultitaskGP`.

    Raises:
        ImportError: Without the extra ``gp``.
        ValueError: If a target's likelihood has no closed form, or an option is out of range.
    """
    from bmtl.models.gaussian_process import MultitaskGP, best_start

    if restarts < 1:
        raise ValueError(f"restarts is a number of starts, from 1, and {restarts} was given.")
    likelihoods = likelihoods_of(spec, likelihood)
    rows = min(spec.n_data.values()) if isinstance(spec.n_data, Mapping) else spec.n_data

    def start(labels: Mapping[str, torch.Tensor] | None) -> MultitaskGP:
        return MultitaskGP(
            int(spec.inputs["width"]),
            copy.deepcopy(likelihoods),
            spec.n_data,
            inducing=min(inducing, rows),
            labels=labels,
            generator=generator,
            **options,
        )

    if spec.support is None:
        model = start(spec.labels)
    else:
        makes = {"the labels' correlations": functools.partial(start, spec.support[1])}
        makes |= {f"random {i}": functools.partial(start, None) for i in range(1, restarts)}
        model = best_start(makes, *spec.support)
    return model, model.guide()


def _lacks_a_class(spec: DataSpec, likelihoods: Mapping[str, Likelihood]) -> bool:
    """Whether some task has no training row of some class."""
    labels = {} if spec.support is None else spec.support[1]
    return any(
        len(labels[name][labels[name] != -1].unique()) < of.classes for name, of in likelihoods.items() if of.classes
    )


def choice(option: str, value: str, known: Mapping[str, Any]) -> Any:
    """The value of a name.

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
    model: Callable[..., TaskModel] = TaskModel,
) -> Built:
    width: int = trunk.width  # type: ignore[assignment]
    linear_part = None
    if getattr(trunk, "linear_part", False):
        linear_part = LinearPart(int(spec.inputs["width"]), likelihoods, trunk.clip)  # type: ignore[arg-type]
    made = model(
        trunk,
        width,
        likelihoods,
        spec.n_data,
        head=head,
        representation=representation,
        labels=spec.labels,
        linear_part=linear_part,
        generator=generator,
    )
    if linear_part is not None and spec.examples is not None and spec.labels is not None:
        linear_part.fit(spec.examples, spec.labels, likelihoods)
    return made, made.guide()
