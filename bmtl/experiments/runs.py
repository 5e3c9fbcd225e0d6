"""One run: a method trained on a data set, drawn from, and written as a results tree."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr
from lightning.pytorch import Callback

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import results
from bmtl.evaluation.attributes import decode_attributes
from bmtl.experiments import model_files
from bmtl.experiments.budgets import Budget
from bmtl.experiments.collecting import RunResult, collect, join
from bmtl.experiments.methods import Method
from bmtl.experiments.numerics import DTYPES, check_device
from bmtl.experiments.training import Trained, train
from bmtl.experiments.trees import run_tree
from bmtl.experiments.zoo import method as named

logger = logging.getLogger(__name__)


class NotWritten(OSError):
    """The results of a finished run cannot be written; the message names the file that holds the model and the draws."""


def run(
    data: MultiTaskData,
    method: Method | str,
    seed: int,
    budget: Budget,
    folder: str | Path | None = None,
    *,
    keep_model: bool = False,
    trust: bool = False,
    scored: bool = True,
    new: Any = None,
    callbacks: Sequence[Callback] = (),
) -> xr.DataTree:
    """Trains one method and returns its results tree, scored on the test rows.

    The tree's ``validation`` holds the same of the validation rows. The training of an ensemble is its first member's, its
    time that of all.

    Args:
        data: With a part "train"; with "val" unless ``budget.select`` is "last"; scored on "test", and on "ood" if it is
            there. Each target has a label in the training rows, and in those that epochs are selected by.
        method: The method to train, or its name or what else `bmtl.experiments.method` takes.
        seed: Of initial weights, order of batches, and draws.
        budget: Length and size of the training.
        folder: Where ``results.nc`` is written. An interrupted run leaves ``last.ckpt`` and ``partial.nc`` there, which
            holds the finished targets where each is trained separately, and the finished members of an ensemble.
        keep_model: Write ``model.pt`` next to the results, which `bmtl.experiments.load_fitted` reads.
        trust: Draw for the training rows too, where there are latents and a joint density: the groups at the tree's root,
            by which `bmtl.evaluation.trust` judges the guide.
        scored: Whether there must be test rows; without, the tree holds what there is of other parts.
        new: Raw inputs without labels, such as out-of-distribution ones, to be drawn for too: the tree's ``predictions``
            and ``predictions_uncertainty``.
        callbacks: Further Lightning callbacks for the training.

    Raises:
        OSError: If `folder` cannot be written, before anything is trained.
        NotWritten: If the results cannot be written when the run is over; says where the model and the draws are.
        ValueError: If the budget's device is not there, the data lack a part or a label, `new` is not of their kind, the
            model cannot take them, or is to be kept and has an option that is not a plain value, before anything is trained.
        KeyboardInterrupt: On Ctrl-C, after the results so far have been written.
    """
    method, budget = named(method), budget.of(data)
    check_data(data, budget, scored)
    check_device(budget.device)
    unlabelled = None if new is None else data.inputs.prepare(new, DTYPES[budget.precision])
    if keep_model:
        model_files.check_settings(method)
    with nullcontext() if folder is None else results.output_folder(folder) as out:
        if out is not None:
            for name in ("last.ckpt", "partial.nc"):  # of an earlier run that was interrupted
                (out / name).unlink(missing_ok=True)
        parts = [data.subset([task]) for task in data.tasks] if method.single_task else [data]
        finished: list[RunResult] = []
        for part in parts:
            members: list[Trained] = []
            seeds = [seed * method.ensemble_size + member for member in range(method.ensemble_size)]
            collected = partial(_collected, part, members, method, seeds, budget, unlabelled, trust)

            for own in seeds:
                try:
                    members.append(train(part, method, own, budget, out, callbacks))
                except KeyboardInterrupt:
                    left = [*finished, *([collected(len(members))] if members else [])]
                    _write_partial(data, method, seed, budget, left, out)
                    raise
                if members[-1].interrupted:
                    # A first member or target counts as far as it came; later ones only if they are complete.
                    count = max(1, len(members) - 1)
                    left = finished if finished and len(members) == 1 else [*finished, collected(count)]
                    _write_partial(data, method, seed, budget, left, out)
                    raise KeyboardInterrupt
            finished.append(collected(len(members)))
        learnt = join(finished)
        tree = run_tree(data, method, seed, budget, learnt, new=new, trust=trust)
        if out is not None:
            states = [part.states for part in finished]
            _write(tree, out, data, method, budget, states)
            if keep_model:
                model_files.save(out / "model.pt", data, method, budget, states)
        return tree


def validation_scores(tree: xr.DataTree) -> dict[str, float]:
    """Each target's primary score on the validation rows, to choose settings by.

    Args:
        tree: From `run`.

    Raises:
        ValueError: If the tree does not have it.
    """
    return {str(target): float(value) for target, value in _of_a_run(tree, "validation_scores").items()}


def validation_score(tree: xr.DataTree) -> float:
    """The best validation score of a run's epochs, by which settings are compared within a method; less is better.

    Raises:
        ValueError: If the tree does not have it.
    """
    return float(_of_a_run(tree, "validation_score"))


def check_data(data: MultiTaskData, budget: Budget, scored: bool = True) -> None:
    """Raise a ``ValueError`` if a run could not train on, select by, or score on the data."""
    needed = {"train"} | ({"test"} if scored else set()) | ({"val"} if budget.select == "val" else set())
    lacking = sorted(needed - set(data.rows))
    if lacking:
        raise ValueError(
            f"A run needs the parts {', '.join(lacking)}, and the data set has {', '.join(data.rows)}."
            + (
                " Without validation rows, select the last epoch: select='last' (--select last)."
                if lacking == ["val"]
                else ""
            )
        )
    for part in sorted(needed - {"test"}):
        labelled = data.rows_by_task(part)
        unlabelled = [task for task in data.tasks if task not in labelled]
        if unlabelled:
            raise ValueError(
                f"Targets without a label in the part {part!r}: {', '.join(unlabelled)}. Name the others "
                "alone as targets, leave these out (data.subset([...])), or draw another split."
            )


def _collected(
    part: MultiTaskData,
    members: Sequence[Trained],
    method: Method,
    seeds: Sequence[int],
    budget: Budget,
    new: Any,
    trust: bool,
    count: int,
) -> RunResult:
    """What the first `count` members predict."""
    return collect(part, members[:count], method, seeds[:count], budget, new=new, trust=trust)


def _write(
    tree: xr.DataTree,
    out: Path,
    data: MultiTaskData,
    method: Method,
    budget: Budget,
    states: Sequence[Sequence[dict[str, Any]]],
) -> None:
    """Writes the results; if that fails, what was learnt goes to a file that the error names."""
    fallback = {
        "fallback.npz": lambda path: results.write_arrays(tree, path),
        "fallback-model.pt": lambda path: model_files.save(path, data, method, budget, states),
    }
    try:
        results.write(tree, out / "results.nc")
    except Exception as error:
        kept = [str(out / name) for name, keep in fallback.items() if _kept(keep, out / name)]
        raise NotWritten(
            f"{out / 'results.nc'} cannot be written ({type(error).__name__}: {error}). The trained model is in "
            f"{', '.join(kept) or 'no file'}"
            + ("; bmtl.evaluation.results.read_arrays reads the .npz." if str(out / "fallback.npz") in kept else ".")
        ) from error
    for name in fallback:  # of an earlier run that could not be written
        (out / name).unlink(missing_ok=True)


def _kept(write: Callable[[Path], object], path: Path) -> bool:
    """Writes a file; where that fails too, it is logged."""
    try:
        write(path)
    except Exception:
        logger.exception("The fallback %s cannot be written either.", path)
        return False
    return True


def _write_partial(
    data: MultiTaskData, method: Method, seed: int, budget: Budget, parts: Sequence[RunResult], out: Path | None
) -> None:
    """Writes what an interrupted run has learnt. An interruption stays one where that fails."""
    if out is not None and parts:
        partial = run_tree(data, method, seed, budget, join(parts), interrupted=True)
        try:
            results.write(partial, out / "partial.nc")
        except Exception:
            logger.exception("%s cannot be written; its arrays go to %s.", out / "partial.nc", out / "fallback.npz")
            _kept(lambda path: results.write_arrays(partial, path), out / "fallback.npz")


def _of_a_run(tree: xr.DataTree, attribute: str) -> Any:
    found = decode_attributes(tree)
    if attribute not in found:
        raise ValueError(f"This tree has no {attribute}: it was not written by run().")
    return found[attribute]
