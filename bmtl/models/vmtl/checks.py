"""Options of VMTL, and what contradicts what."""

from typing import Any, Literal, get_args

from bmtl.models.vmtl.mixing import WEIGHTS
from bmtl.models.vmtl.priors import Level, Rule

Prior = Literal["flat", "normal", "tasks"]

_OPTIONS: dict[str, tuple[Any, ...]] = {
    "encoder_sharing": ("shared", "task"),
    "latent_z": ("point", "gaussian"),
    "latent_w": ("point", "gaussian"),
    "classifier": ("free", "amortised"),
    "prior": get_args(Prior),
    "combine": get_args(Rule),
    "mixture_kl": ("mc", "tight"),
    "level": get_args(Level),
    "weights": WEIGHTS,
    "attention": ("class", "all", None),
    "sampling": ("logits", "weights"),
    "predict": ("draws", "mean"),
}


def check(*, classes: int, outputs: int, own_encoder: bool, amortised_dropout: float, **given: Any) -> None:
    """Checks the options by name.

    Args:
        classes: Number of classes of the labels, 0 where they are none.
        outputs: Number of outputs C of a classifier.
        own_encoder: Whether the encoder is a module of the user's.
        amortised_dropout: Probability of dropping a mean feature of amortised classifiers.
        **given: The options.

    Raises:
        ValueError: If one is unknown, or two contradict each other.
    """
    for option, value in given.items():
        if value not in _OPTIONS[option]:
            raise ValueError(f"{option} is one of {', '.join(map(repr, _OPTIONS[option]))}, and {value!r} was given.")
    gaussian = [option for option in ("latent_z", "latent_w") if given[option] == "gaussian"]
    if (given["prior"] == "flat") == bool(gaussian):
        raise ValueError(
            f"prior={given['prior']!r} where {' and '.join(gaussian) or 'nothing'} is Gaussian: 'flat' belongs to points "
            "alone, 'normal' and 'tasks' to Gaussians."
        )
    if given["encoder_sharing"] == "task" and own_encoder:
        raise ValueError("An encoder of your own is one module, for all tasks: encoder_sharing='shared'.")
    if given["encoder_sharing"] == "task" and given["prior"] == "tasks" and "latent_z" in gaussian:
        raise ValueError("z's prior comes from the one encoder that tasks share; encoder_sharing='task' has none.")
    if given["classifier"] == "amortised" and not (classes and classes == outputs and "latent_w" in gaussian):
        raise ValueError(
            "Amortised classifiers are Gaussian, with an output for each class of the labels: latent_w='gaussian', and a "
            "categorical likelihood."
        )
    if not 0 <= amortised_dropout < 1 or (amortised_dropout and given["classifier"] != "amortised"):
        raise ValueError(
            "amortised_dropout is a probability below 1, and 0 where classifiers are not amortised; "
            f"{amortised_dropout} was given for classifier={given['classifier']!r}."
        )
    if given["attention"] == "class" and not classes:
        raise ValueError("attention='class' needs labels that are classes, and these targets have none.")
