"""Methods that cannot be built for their data, found before anything is trained."""

from collections.abc import Iterator, Sequence

from bmtl.datasets import MultiTaskData
from bmtl.experiments.budgets import Budget
from bmtl.experiments.cells import Job
from bmtl.experiments.methods import Method, build
from bmtl.experiments.rows import keeps_support, own_rows, spec_of
from bmtl.experiments.training import program
from bmtl.models.spec import DataSpec


def refused(jobs: Sequence[Job]) -> Iterator[tuple[Job, Exception]]:
    """The jobs whose method's model cannot be made for their data, each with the error that its run would raise.

    A method is tried on its first job's data, and on further splits only where that raises.
    """
    of_method: dict[str, list[Job]] = {}
    for job in jobs:
        of_method.setdefault(job.cell.method.name, []).append(job)
    for own in of_method.values():
        known: dict[int, Exception | None] = {}
        for job in own:
            if id(job.data) not in known:
                known[id(job.data)] = refusal(job.data, job.cell.method, job.budget)
            error = known[id(job.data)]
            if error is not None:
                yield job, error
            elif len(known) == 1:
                break


def refusal(data: MultiTaskData, method: Method, budget: Budget) -> Exception | None:
    """The error with which a method's run on some data would start, if its model cannot be made; None if it can.

    The model is made as one that is read from a file, which fits and loads nothing that can be left out. What raises then
    is made as for training, so that a recipe that needs more of the data is not refused for it. Where each target is
    trained separately, one target of each family is tried.
    """
    budget = budget.of(data)
    assert budget.widths is not None
    one_each = {str(target.family.spec()): name for name, target in reversed([*data.targets.items()])}
    for part in [data.subset([name]) for name in one_each.values()] if method.single_task else [data]:
        try:
            build(method, _outline(part, method), budget.widths, 0)
        except Exception:
            try:
                program(part.labelled(), method, 0, budget)
            except Exception as error:
                return error
    return None


def _outline(data: MultiTaskData, method: Method) -> DataSpec:
    """The description of the data without rows, where the model looks up none."""
    if keeps_support(method):
        return spec_of(data.labelled(), method)
    of_each = {name: len(rows) for name, rows in data.rows_by_task("train").items()}
    return DataSpec(
        targets={name: target.family for name, target in data.targets.items()},
        n_data=of_each if own_rows(data, method) else len(data.rows["train"]),
        inputs=data.inputs.describe(),
        others=data.others if method.single_task else {},
    )
