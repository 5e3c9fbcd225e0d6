"""What a comparison can train: named methods, each a model with its options and a balancer."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bmtl.datasets.checks import meant
from bmtl.models import (
    BakkerHeskes,
    DropoutGuide,
    EvidentialRegression,
    GaussianRegression,
    Homoscedastic,
    MultilinearRelationship,
    VariationalBottleneck,
    dropout_mlp,
    mlp,
    vmtl_preset,
)
from bmtl.models.vmtl import KLWeights

Kind = Literal["regression"] | int


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
        name: Its name in tables and folders.
        balancer: String form of the balancer.
        model: One of `MODELS`.
        options: Options of that model.
        normalize: What the balancer sees, as for `bmtl.TaskELBO`: "data" is the ELBO per datum; "task_mean" counts each task
            alike however many labels it has.
        single_task: One network a target, each trained by itself (STL).
        members: Networks, each from a seed of its own, whose predictives are mixed: a deep ensemble.
        weight_decay: Of Adam, on all parameters.
    """

    name: str
    balancer: str = "ew"
    model: str = "homoscedastic"
    options: Mapping[str, Any] = field(default_factory=dict)
    normalize: Literal["per_datum", "task_mean"] = "task_mean"
    single_task: bool = False
    members: int = 1
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"There is no model {self.model!r}. The models are: {', '.join(MODELS)}.")
        if self.members < 1:
            raise ValueError(f"members is a number of networks, from 1, and {self.members} was given.")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay is 0 or more, and {self.weight_decay} was given.")

    @property
    def fits_noise(self) -> bool:
        """Whether the program is trained at unit variance, and each regression's noise fitted on validation afterwards."""
        return self.options.get("noise") == "fixed"

    def balanced_by(self, balancer: str) -> "Method":
        """The same method with another balancer, and a name that says so.

        Raises:
            ValueError: If there is no such balancer.
        """
        check_balancer(balancer)
        return replace(self, balancer=balancer, name=f"{self.name} ({balancer})")

    def settings(self) -> dict[str, Any]:
        """Everything that was set, as plain values."""
        return {**asdict(self), "options": dict(self.options)}


@dataclass(frozen=True)
class Shape:
    """What a model must know of the data before it sees any.

    Attributes:
        inputs: Width D of the inputs ``(N, D)``.
        kinds: Target -> "regression", or its number of classes.
        n_data: Number of training rows, for all targets or each target's own.
        support: The training rows ``(x, y)``, for models of `MODELS_BY_ROWS`.
    """

    inputs: int
    kinds: Mapping[str, Kind]
    n_data: int | Mapping[str, int]
    support: tuple[Tensor | Mapping[str, Tensor], Mapping[str, Tensor]] | None = None


Built = tuple[nn.Module, Callable[..., None]]


def build(method: Method, shape: Shape, widths: tuple[int, ...], seed: int) -> Built:
    """The untrained model of a method on an MLP trunk and its guide, with initial weights that `seed` decides.

    Raises:
        TypeError: If the model does not know an option.
        ValueError: If an option will not do, or the model cannot take a target's kind.
    """
    return MODELS[method.model](shape, widths, torch.Generator().manual_seed(seed), **method.options)


def _homoscedastic(
    shape: Shape, widths: tuple[int, ...], generator: torch.Generator, *, dropout: float = 0.0, **options: Any
) -> Built:
    """Of `bmtl.models.Homoscedastic`; with ``dropout``, MC dropout before every layer."""
    if dropout:
        trunk = dropout_mlp(shape.inputs, widths, rate=dropout, generator=generator)
    else:
        trunk = mlp(shape.inputs, widths, generator=generator)
    model = Homoscedastic(trunk, widths[-1], shape.kinds, shape.n_data, generator=generator, **options)
    return model, DropoutGuide(trunk, model.guide()) if dropout else model.guide()


def _evidential(shape: Shape, widths: tuple[int, ...], generator: torch.Generator, **options: Any) -> Built:
    trunk = mlp(shape.inputs, widths, generator=generator)
    model = EvidentialRegression(
        trunk, widths[-1], _regressions("evidential", shape), shape.n_data, generator=generator, **options
    )
    return model, model.guide()


def _gaussian(shape: Shape, widths: tuple[int, ...], generator: torch.Generator) -> Built:
    trunk = mlp(shape.inputs, widths, generator=generator)
    model = GaussianRegression(trunk, widths[-1], _regressions("gaussian", shape), shape.n_data, generator=generator)
    return model, model.guide()


def _bakker_heskes(shape: Shape, widths: tuple[int, ...], generator: torch.Generator, **options: Any) -> Built:
    trunk = mlp(shape.inputs, widths, generator=generator)
    model = BakkerHeskes(trunk, widths[-1], shape.kinds, shape.n_data, generator=generator, **options)
    return model, model.guide()


def _multilinear(shape: Shape, widths: tuple[int, ...], generator: torch.Generator, **options: Any) -> Built:
    trunk = mlp(shape.inputs, widths, generator=generator)
    model = MultilinearRelationship(trunk, widths[-1], shape.kinds, shape.n_data, generator=generator, **options)
    return model, model.guide()


def _bottleneck(shape: Shape, widths: tuple[int, ...], generator: torch.Generator, **options: Any) -> Built:
    trunk = mlp(shape.inputs, widths, generator=generator)
    model = VariationalBottleneck(trunk, widths[-1], shape.kinds, shape.n_data, generator=generator, **options)
    return model, model.guide()


def _gaussian_process(
    shape: Shape, widths: tuple[int, ...], generator: torch.Generator, *, inducing: int = 64, **options: Any
) -> Built:
    """Of `bmtl.models.gaussian_process.MultitaskGP`, on the inputs themselves: there is no trunk, and no widths."""
    from bmtl.models.gaussian_process import MultitaskGP  # needs the extra gp

    assert isinstance(shape.n_data, int)  # the model's rows are one table
    inducing = min(inducing, shape.n_data)
    targets = _regressions("gaussian-process", shape)
    model = MultitaskGP(shape.inputs, targets, shape.n_data, inducing=inducing, generator=generator, **options)
    return model, model.guide()


def _vmtl(
    shape: Shape,
    widths: tuple[int, ...],
    generator: torch.Generator,
    *,
    preset: str = "VMTL",
    kl_w: float | None = None,
    kl_z: float | None = None,
    **switches: Any,
) -> Built:
    """Of `bmtl.models.vmtl_preset`, whose encoder has the trunk's widths (ELU) and as many latents as its last layer.

    Where a preset has Gaussian latents, their divergences are multiplied by `kl_w` and `kl_z`, by default 0.1 and 1e-4: at
    their full weight, 1, they outweigh tens of rows a task, and predictions are at chance. Inputs have no dropout unless
    `dropout` says so. For z's prior, rows of a row's own class answer where all tasks have all classes
    (``attention="class"``), and all rows elsewhere.
    """
    given: dict[str, Any] = {"latent": widths[-1], "dropout": 0.0, **switches}
    if not given.get("as_released") and "kl_weights" not in given:
        given["kl_weights"] = KLWeights(0.1 if kl_w is None else kl_w, 1e-4 if kl_z is None else kl_z)
    elif (kl_w, kl_z) != (None, None):
        raise ValueError(
            f"kl_w={kl_w} and kl_z={kl_z} go without kl_weights and as_released, which have weights of their own."
        )
    if "attention" not in given and _lacks_a_class(shape):
        given["attention"] = "all"
    model = vmtl_preset(
        preset,
        shape.inputs,
        shape.kinds,
        shape.n_data,
        widths=widths,
        support=shape.support,
        generator=generator,
        **given,
    )
    return model, model.guide()


def _lacks_a_class(shape: Shape) -> bool:
    """Whether some task has no training row of some class."""
    labels = {} if shape.support is None else shape.support[1]
    kinds = shape.kinds.items()
    return any(kind != "regression" and len(labels[name][labels[name] != -1].unique()) < kind for name, kind in kinds)


def _regressions(model: str, shape: Shape) -> list[str]:
    classes = [name for name, kind in shape.kinds.items() if kind != "regression"]
    if classes:
        raise ValueError(
            f"The model {model!r} is for regressions, and these targets are classes: {', '.join(classes)}. Leave them out "
            "with data.subset([...])."
        )
    return list(shape.kinds)


MODELS: Mapping[str, Callable[..., Built]] = {
    "homoscedastic": _homoscedastic,
    "evidential": _evidential,
    "gaussian": _gaussian,
    "bakker-heskes": _bakker_heskes,
    "multilinear": _multilinear,
    "bottleneck": _bottleneck,
    "gaussian-process": _gaussian_process,
    "vmtl": _vmtl,
}
"""Name -> function of (shape, widths, generator, options) that makes a model and its guide."""

MODELS_BY_ROWS = ("vmtl",)
"""Models that need the training rows when they are built, and that are trained on each target's own rows where no row has
labels for two targets: in a table they would encode every row for every target."""

_FIXED = {"noise": "fixed"}

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("stl", options=_FIXED, single_task=True),
        *(
            Method(name, balancer, options=_FIXED)
            for name, balancer in (
                ("ew", "ew"),
                ("uw", "uw"),
                ("igb-v1", "igb-v1"),
                ("nash-mtl", "nash-mtl"),
                ("igb-v1+nash", "igb-v1 >> nash-mtl"),
            )
        ),
        Method("homoscedastic", options={"noise": "parameter"}, normalize="per_datum"),
        Method("bayesian", options={"noise": "latent", "head": "bayesian"}, normalize="per_datum"),
        Method("gaussian", model="gaussian"),
        Method("ensemble", model="gaussian", members=5),
        Method("mc-dropout", options={**_FIXED, "dropout": 0.05}),
        Method("enet", model="evidential", options={"objective": "nll"}),
        Method("mse-enet", model="evidential", options={"objective": "nll+mse"}),
        Method("mt-enet", model="evidential", options={"objective": "nll+lipschitz"}),
        Method("mt-enet-sample", model="evidential", options={"objective": "nll+lipschitz", "threshold": "sample"}),
        Method("bakker-heskes", model="bakker-heskes", normalize="per_datum"),
        Method("mrn", model="multilinear", normalize="per_datum"),
        Method("mtvib", model="bottleneck", options={"beta": 0.01}, normalize="per_datum"),
        *(
            Method(name, model="vmtl", options={"preset": preset, **options})
            for name, preset, options in (
                ("vstl", "VSTL", {}),
                ("bmtl", "BMTL", {}),
                ("vbmtl", "VBMTL", {}),
                ("vmtl-mean", "VMTL-mean", {}),
                ("vmtl-learned", "VMTL-learned", {}),
                ("vmtl", "VMTL", {}),
                ("vmtl-dirichlet", "VMTL", {"weights": "dirichlet"}),
                ("vmtl-w", "VMTL", {"latent_z": "point"}),
                ("vmtl-ac", "VMTL-AC", {}),
            )
        ),
        Method("gp-icm", model="gaussian-process", options={"kernel": "icm"}, normalize="per_datum"),
        Method("gp-lmc", model="gaussian-process", options={"kernel": "lmc"}, normalize="per_datum"),
    )
}
"""Methods by name; "stl" to "igb-v1+nash" are the unit-variance program with point-mass parameters."""


def check_balancer(text: str) -> None:
    """Raises a ``ValueError`` if there is no balancer of that string form."""
    from bmtl.inference import balancer

    balancer(text)


def method(name: str) -> Method:
    """A method by its name, or the unit-variance program under a balancer of that string form.

    Raises:
        ValueError: If it is neither.
    """
    if name in METHODS:
        return METHODS[name]
    try:
        check_balancer(name)
    except ValueError as error:
        raise ValueError(
            f"There is no method {name!r}.{meant(name, METHODS)} The methods are: {', '.join(METHODS)}; a balancer's name "
            f"is one too ({error})"
        ) from error
    return Method(name, name, options=_FIXED)
