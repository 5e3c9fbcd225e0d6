"""Options of VMTL, and what contradicts what."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from bmtl.models.homoscedastic import Kind
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


def check(*, classes: int, own_encoder: bool, **given: Any) -> None:
    """Checks the options by name.

    Args:
        classes: Number of classes, 0 for regressions.
        own_encoder: Whether the encoder is a module of the user's.
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
    if given["classifier"] == "amortised" and not (classes and "latent_w" in gaussian):
        raise ValueError("Amortised classifiers are Gaussian, and of classes: latent_w='gaussian', and no regressions.")
    if given["attention"] == "class" and not classes:
        raise ValueError("attention='class' needs classes, and the targets are regressions.")


def classes_of(targets: Mapping[str, Kind]) -> int:
    """The number of classes of all targets, 0 for regressions.

    Raises:
        ValueError: If they differ, or one is neither "regression" nor 2 or more.
    """
    kinds = set(targets.values())
    if len(kinds) > 1:
        raise ValueError(
            "Classifiers are each other's priors, so that all tasks are regressions or have equally many classes; "
            f"{dict(targets)} was given."
        )
    (kind,) = kinds
    if kind == "regression":
        return 0
    if not (isinstance(kind, int) and kind >= 2):
        raise ValueError(f"A target is 'regression' or a number of classes from 2, and {kind!r} was given.")
    return kind


def numbers_of_data(n_data: int | Mapping[str, int], names: tuple[str, ...]) -> tuple[int, ...]:
    """The number of data of each task.

    Raises:
        ValueError: If a task's is missing or below 1.
    """
    if isinstance(n_data, Mapping) and set(names) - set(n_data):
        raise ValueError(f"n_data lacks the targets {sorted(set(names) - set(n_data))}.")
    numbers = tuple(n_data[name] if isinstance(n_data, Mapping) else n_data for name in names)
    if min(numbers) < 1:
        raise ValueError(f"n_data is a number of data, from 1, and {n_data} was given.")
    return numbers
