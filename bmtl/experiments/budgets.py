"""The budget common to all methods of a comparison: its length, batches, rate, widths, selection, device and precision."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from bmtl.datasets import MultiTaskData
from bmtl.experiments.numerics import DEVICES, PRECISIONS, Device, Precision

SELECTIONS = {
    "val": "epoch with the best score on validation",
    "last": "last epoch",
    "best-on-test": "epoch with the best score on the test rows, for diagnosis only: no reported figure may use it",
}
SCHEDULES = {
    "cosine": "AdamW whose rate warms up and falls along a cosine",
    "constant": "Adam at a constant rate",
    "plateau": "Adam whose rate falls when the score no longer improves",
    "falling": "Adam whose rate falls to 0 along half a cosine, epoch by epoch",
    "exponential": "Adam whose rate is multiplied by 0.99 after each epoch",
}
VALIDATED_EVERY = 40
"""Steps between validations, where a budget is in steps."""


@dataclass(frozen=True)
class Budget:
    """The training budget common to all methods.

    Fields that are None are set by the data's inputs (`of`), equally for all methods.

    Attributes:
        steps: Number of steps, rounded up to whole epochs, which are of 40 steps or fewer and validated. Training ends early
            where a quarter of the steps, 750 of 3,000, or three validations if these take longer, has brought no better
            score. 3,000 under the schedule "cosine", unless `epochs` is given.
        epochs: Number of passes over the training rows instead, each of them validated and none left out. 30 under the
            schedules "constant" and "plateau", unless `steps` is given.
        schedule: "cosine": AdamW with decoupled weight decay of 0.01 on the weight matrices of networks, its rate rises with
            the square of the step, over `warm_up` of the steps, and falls to 0 along a cosine; epochs are compared by an
            average of the parameters over `average` steps, which is kept. "constant": Adam at a constant rate.
            "plateau": Adam, its rate falls to 0.7 of itself, down to 1e-5, when the score has not improved for five epochs.
            "falling": Adam, its rate falls to 0 along half a cosine, epoch by epoch. "exponential": Adam, its rate is
            multiplied by 0.99 after each epoch. Tables have "cosine", other inputs what their kind says, or "constant".
        batch_size: Rows in a batch. Under the schedule "cosine" the power of two that is nearest to a quarter of the
            training rows, from 32 to 512, or all rows; else 128. Where it chooses the size and the budget is in steps, the
            rows of a pass that do not fill a batch are left out of it.
        lr: Learning rate, at its highest. 5e-3 under the schedule "cosine", else 2e-3.
        warm_up: Share of the steps in which the rate of "cosine" rises, from 0 to below 1.
        average: Number of steps over which parameters are averaged under "cosine", where epochs are selected; 1 averages
            nothing.
        widths: Widths of the trunk; 128, 128 where the inputs' kind says nothing else.
        draws: Posterior and predictive draws; 100 where the inputs' kind says nothing else.
        score: What epochs are compared by: the validation "likelihood" (of a program trained at unit variance at each
            target's best noise, which is the mean "log" of its squared errors), or "mean" or "log" as for `bmtl.fit`.
        select: Which parameters are kept: "val" are those with the best validation score, the ones before the first step
            included where the budget is in steps; "last" the last. "best-on-test" selects on the test rows: only to explain
            published figures that did so, and labelled in the tree.
        shrink: Whether the network's output is multiplied by a factor from 0 to 1 before it is added to a target's linear
            part. The factor is chosen on validation rows, for programs whose noise is fitted there too; see
            `bmtl.models.linear_part`.
        augment: Whether images are seen in random views: enlarged, flipped and in other colours; see
            `bmtl.datasets.augmentation`.
        device: Where networks are trained: "cpu", or "cuda", one GPU. Predictions are drawn on the processor.
        precision: "float32"; "float64", of parameters, inputs and draws; or "bf16-mixed", in which the products of layers
            are taken in bfloat16 while training, and parameters and predictions are in float32.

    Raises:
        ValueError: If a number is not positive, an option is unknown, or both steps and epochs are given.
    """

    steps: int | None = None
    epochs: int | None = None
    schedule: Literal["cosine", "constant", "plateau", "falling", "exponential"] | None = None
    batch_size: int | None = None
    lr: float | None = None
    warm_up: float = 0.3
    average: int = 20
    widths: tuple[int, ...] | None = None
    draws: int | None = None
    score: Literal["likelihood", "mean", "log"] = "likelihood"
    select: Literal["val", "last", "best-on-test"] = "val"
    shrink: bool = True
    augment: bool = False
    device: Device = "cpu"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.widths is not None:
            try:
                widths = tuple(self.widths)
            except TypeError:
                one = self.widths
                raise ValueError(f"widths has a number for each layer, such as ({one}, {one}); got {one}.") from None
            object.__setattr__(self, "widths", widths)
        numbers = {name: getattr(self, name) for name in ("steps", "epochs", "batch_size", "lr", "average", "draws")}
        wrong = [f"{name}={value}" for name, value in numbers.items() if value is not None and not value > 0]
        if wrong or (self.widths is not None and min(self.widths, default=0) < 1):
            raise ValueError(
                f"A budget's numbers are positive; {', '.join(wrong) or f'widths={self.widths}'} was given."
            )
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                f"A budget is in steps or in epochs; steps={self.steps} and epochs={self.epochs} were given."
            )
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up is a share of the steps, from 0 to below 1, and {self.warm_up} was given.")
        for name, given, known in (
            ("score", self.score, ("likelihood", "mean", "log")),
            ("select", self.select, tuple(SELECTIONS)),
            ("schedule", self.schedule, (None, *SCHEDULES)),
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
        ):
            if given not in known:
                options = ", ".join(str(one) for one in known if one is not None)
                raise ValueError(f"{name} is one of {options}, and {given!r} was given.")

    def of(self, data: MultiTaskData) -> Self:
        """The same with everything chosen for a data set. Fields that are already set stay.

        `bmtl.datasets.Inputs.budget` says what suits a kind of inputs; what it leaves open follows from the schedule. The
        batch size of the schedule "cosine" stays open: it depends on the rows of each network (`rows_in_batch`).
        """
        own = data.inputs.budget()
        if self.steps is not None or self.epochs is not None:
            own = {name: value for name, value in own.items() if name not in ("steps", "epochs")}
        chosen = replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})
        schedule = chosen.schedule or "constant"
        cosine = schedule == "cosine"
        steps, epochs = chosen.steps, chosen.epochs
        if steps is None and epochs is None:
            steps, epochs = (3000, None) if cosine else (None, 30)
        return replace(
            chosen,
            schedule=schedule,
            steps=steps,
            epochs=epochs,
            batch_size=chosen.batch_size or (None if cosine else 128),
            lr=chosen.lr or (5e-3 if cosine else 2e-3),
            widths=chosen.widths or (128, 128),
            draws=chosen.draws or 100,
        )

    def rows_in_batch(self, rows: int) -> int:
        """Rows in a batch of a network with this many training rows."""
        if self.batch_size is not None:
            return self.batch_size
        powers = (32, 64, 128, 256, 512)
        return min(powers, key=lambda size: abs(size - rows / 4))

    @property
    def epochs_of_steps(self) -> tuple[int, int] | None:
        """Number of epochs and steps in each, where the budget is in steps."""
        if self.steps is None:
            return None
        epochs = -(-self.steps // VALIDATED_EVERY)
        return epochs, -(-self.steps // epochs)

    @property
    def most_epochs(self) -> int:
        """Number of epochs of a run that does not end early."""
        return self.epochs_of_steps[0] if self.epochs_of_steps else self.epochs or 0
