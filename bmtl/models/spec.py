"""The description of the data that a recipe is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from bmtl.targets import Family


@dataclass(frozen=True)
class DataSpec:
    """The description of the data from which a model is built.

    Attributes:
        targets: Family of each target.
        n_data: Number of training rows, for all targets or each target's own.
        inputs: Description of the inputs in plain values, with their ``"kind"``; of tables their ``"width"``.
        support: The training rows ``(x, y)``, for recipes that ask for them (``recipe.requires_support``).
        examples: Training inputs as the model sees them, in the order of `labels`: what is fitted before training is fitted
            to them. None for a fitted model that is read from a file.
        labels: Training labels as the model sees them, by target ``(N, ...)``: where likelihoods take their start from.
        others: Families of further targets of the data, which other networks of the method learn (single-task learning).
            Options may name them too.
    """

    targets: Mapping[str, Family]
    n_data: int | Mapping[str, int]
    inputs: Mapping[str, Any]
    support: tuple[Any, Mapping[str, Tensor]] | None = None
    labels: Mapping[str, Tensor] | None = None
    examples: Any = None
    others: Mapping[str, Family] = field(default_factory=dict)


Recipe = TypeVar("Recipe", bound=Callable[..., Any])


def needs_support(*, to_start: bool = False, own_rows: bool = False) -> Callable[[Recipe], Recipe]:
    """A decorator that marks a recipe as one that needs the training rows, `DataSpec.support`.

    Args:
        to_start: Whether they are needed to choose a start alone, and so not for a fitted model that is read from a file.
        own_rows: Whether each target is trained on its own rows where no row has labels of two targets: in a table the
            model would look up every row for every target.

    The recipe gets the attributes `requires_support`, `keeps_support` (not `to_start`) and `own_rows`.
    """

    def mark(recipe: Recipe) -> Recipe:
        setattr(recipe, "requires_support", True)  # noqa: B010
        setattr(recipe, "keeps_support", not to_start)  # noqa: B010
        setattr(recipe, "own_rows", own_rows)  # noqa: B010
        return recipe

    return mark
