"""What every method of a comparison gets alike: epochs, batches, rate, widths, and how an epoch is chosen."""

from dataclasses import dataclass
from typing import Literal

SELECTIONS = {
    "val": "epoch with the best score on validation",
    "last": "last epoch",
    "best-on-test": "epoch with the best score on the test rows, which no honest figure may use",
}


SCHEDULES = ("constant", "cosine", "exponential")


@dataclass(frozen=True)
class Budget:
    """What every method gets alike.

    Attributes:
        epochs: Number of epochs.
        batch_size: Rows in a batch.
        lr: Learning rate of Adam.
        widths: Widths of the trunk.
        draws: Posterior and predictive draws.
        score: What epochs are compared by: the validation "likelihood" (of a program trained at unit variance at each
            target's best noise, which is the mean "log" of its squared errors), or "mean" or "log" as for `bmtl.fit`.
        select: Which epoch's parameters are kept: "val" has the best validation score, "last" the last. "best-on-test"
            selects on the test rows: only to explain published figures that did so, and labelled in the tree.
        plateau: Whether the learning rate falls to 0.7 of itself, down to 1e-5, when the score has not improved for five
            epochs.
        schedule: Of the learning rate, by epoch, without `plateau`: "constant"; "cosine" falls to 0 at the end along half a
            cosine; "exponential" multiplies it by 0.99.

    Raises:
        ValueError: If a number is not positive or an option is unknown.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 2e-3
    widths: tuple[int, ...] = (128, 128)
    draws: int = 100
    score: Literal["likelihood", "mean", "log"] = "likelihood"
    select: Literal["val", "last", "best-on-test"] = "val"
    plateau: bool = False
    schedule: Literal["constant", "cosine", "exponential"] = "constant"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        numbers = {name: getattr(self, name) for name in ("epochs", "batch_size", "lr", "draws")}
        wrong = [f"{name}={value}" for name, value in numbers.items() if not value > 0]
        if wrong or not self.widths or min(self.widths) < 1:
            raise ValueError(
                f"A budget's numbers are positive; {', '.join(wrong) or f'widths={self.widths}'} was given."
            )
        for name, given, known in (
            ("score", self.score, ("likelihood", "mean", "log")),
            ("select", self.select, tuple(SELECTIONS)),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if given not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, and {given!r} was given.")
        if self.plateau and self.schedule != "constant":
            raise ValueError(f"The learning rate has one schedule; plateau=True and {self.schedule!r} were given.")
