"""Errors of steps and of checkpoints. A step's says which task and which step; all leave the parameters as they were."""


class StepError(ArithmeticError):
    """A step that cannot be taken; under ``on_error="skip"`` it is an event in the step's record instead."""


class NonFinite(StepError):
    """A loss or a gradient is NaN or infinite."""


class NonPositiveLoss(StepError):
    """A loss outside the domain of a balancer's formula.

    Args:
        balancer: Name of the transform or the weighting.
        task: Name of the task.
        value: The loss.
        bound: Its lower bound.
        strict: The loss must exceed the bound: the formula has a logarithm or a quotient by the loss. Otherwise it may be
            equal to it.
    """

    def __init__(self, balancer: str, task: str, value: float, bound: float = 0.0, strict: bool = True) -> None:
        allowed = "logarithms or quotients of losses, so each must be above" if strict else "losses that are at least"
        if value == bound == 0.0:
            why = (
                "The batch's labels are fitted exactly, or predicted with probabilities that its number format rounds to 1, "
                "and there is nothing left to learn from them: end training earlier or regularise (weight decay, dropout, "
                'a prior), give a bound a little below 0 (bound=-1e-6), leave such steps out (on_error="skip"), or use'
            )
        else:
            why = (
                "A negative log-density can be negative: give a lower bound (bound=...), train at unit variance (the "
                "deterministic baseline), or use"
            )
        super().__init__(
            f"{balancer!r} takes {allowed} {bound:g}; task {task!r} gave {value:.6g}. {why} a transform without logarithms "
            "such as 'ew' or 'si(scale=\"spread\")'."
        )
        self.task, self.value = task, value


class SolverFailed(StepError):
    """A weighting's residual is above its tolerance although a solution exists."""


class CheckpointError(ValueError):
    """A file or a saved state that is damaged, cannot be written as a checkpoint, or belongs to another model."""
