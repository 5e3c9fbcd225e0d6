"""One run: a method trained on a data set, drawn from, and written as a results tree."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from lightning.pytorch import Callback
from numpy.typing import ArrayLike
from torch import Tensor, nn

from bmtl.datasets import Batches, MultiTaskData
from bmtl.evaluation import results
from bmtl.evaluation.attributes import decode_attributes
from bmtl.experiments import fitted
from bmtl.experiments.methods import Method, build
from bmtl.experiments.rows import Inputs, batches, once, shape_of, tensors
from bmtl.experiments.trees import add_relatedness, results_tree
from bmtl.inference import BalancedSVI, Draws, FitResult, TaskELBO, draw, fit
from bmtl.inference.checkpoint import save as save_checkpoint
from bmtl.inference.predictives import merge_targets, mixture
from bmtl.inference.record import history_arrays
from bmtl.models import VMTL

SELECTIONS = {
    "val": "epoch with the best score on validation",
    "last": "last epoch",
    "best-on-test": "epoch with the best score on the test rows, which no honest figure may use",
}


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
            epochs; else it is constant.

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

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("epochs", "batch_size", "lr", "draws")}
        wrong = [f"{name}={value}" for name, value in numbers.items() if not value > 0]
        if wrong or not self.widths or min(self.widths) < 1:
            raise ValueError(
                f"A budget's numbers are positive; {', '.join(wrong) or f'widths={self.widths}'} was given."
            )
        for name, given, known in (
            ("score", self.score, ("likelihood", "mean", "log")),
            ("select", self.select, tuple(SELECTIONS)),
        ):
            if given not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, and {given!r} was given.")


def run(
    data: MultiTaskData,
    method: Method,
    seed: int,
    budget: Budget,
    folder: str | Path | None = None,
    *,
    keep_model: bool = False,
    outside: ArrayLike | None = None,
    callbacks: Sequence[Callback] = (),
) -> xr.DataTree:
    """Trains one method and returns its results tree, scored on the test rows.

    The tree's ``validation`` holds the same of the validation rows. The training of an ensemble is its first member's, its
    time that of all.

    Args:
        data: With parts "train", "val" and "test". Each target has a label in "val".
        method: What to train.
        seed: Of initial weights, order of batches, and draws.
        budget: How long and how large.
        folder: Where ``results.nc`` is written. An interrupted run leaves ``last.ckpt`` and ``partial.nc`` there, which
            holds the finished targets where each is trained by itself, and the finished members of an ensemble.
        keep_model: Write ``model.pt`` beside the results, which `bmtl.experiments.load_fitted` reads; and draw for the
            training rows too where there are latents, into the tree's ``train``, which tells whether the guide is to be
            trusted (not of VMTL, which has no joint density).
        outside: Raw inputs ``(M, D)`` without labels, such as out-of-distribution ones, to be drawn for too: the tree's
            ``predictions`` and ``predictions_uncertainty``.
        callbacks: Further Lightning callbacks for the training.

    Raises:
        OSError: If `folder` cannot be written, before anything is trained.
        ValueError: If the data lack a part or a label, `outside` does not have their columns, the model cannot take
            them, or is to be kept and has an option that is no plain value, before anything is trained.
        KeyboardInterrupt: On Ctrl-C, after what was learnt so far has been written.
    """
    check_data(data)
    unlabelled = None if outside is None else fitted.scaled_inputs(outside, data.x_scaler, data.x.shape[1])
    out = None if folder is None else results.check_writable(folder)
    if out is not None and keep_model:
        fitted.check_settings(method)
    if out is not None:
        for name in ("last.ckpt", "partial.nc"):  # of an earlier run that was interrupted
            (out / name).unlink(missing_ok=True)
    parts = [data.subset([task]) for task in data.tasks] if method.single_task else [data]
    learnt: list[_Learnt] = []
    members: list[_Learnt] = []
    try:
        for part in parts:
            members = []
            for member in range(method.members):
                own = seed * method.members + member
                members.append(_train(part, method, own, budget, out, keep_model, unlabelled, callbacks))
            learnt.append(_mixed(members))
    except KeyboardInterrupt as stop:
        if not learnt and isinstance(stop, _Stopped):
            learnt = [_mixed(members) if members else stop.learnt]
        if out is not None and learnt:
            partial = _run_tree(data, method, seed, budget, _joined(learnt), {"interrupted": True})
            results.write(partial, out / "partial.nc")
        raise
    tree = _run_tree(data, method, seed, budget, _joined(learnt))
    if out is not None:
        results.write(tree, out / "results.nc")
        if keep_model:
            fitted.save(out / "model.pt", data, method, budget, [part.states for part in learnt])
    return tree


def validation_errors(tree: xr.DataTree) -> dict[str, float]:
    """What a run came to on the rows it was selected on, by target, to choose settings by.

    Args:
        tree: From `run`.

    Returns:
        Mean absolute error in the target's unit, or share of wrong classes.

    Raises:
        ValueError: If the tree does not have it.
    """
    return _of_a_run(tree, "validation_errors")


def validation_score(tree: xr.DataTree) -> float:
    """The best validation score of a run's epochs, by which settings are compared within a method; less is better.

    Raises:
        ValueError: If the tree does not have it.
    """
    return _of_a_run(tree, "validation_score")


def check_data(data: MultiTaskData) -> None:
    """Raise a ``ValueError`` if a run could not train on, select by, or score on the data."""
    lacking = [part for part in ("train", "val", "test") if part not in data.rows]
    if lacking:
        raise ValueError(f"A run needs the parts {', '.join(lacking)}, and the data set has {', '.join(data.rows)}.")
    for part in ("train", "val"):
        labelled = data.rows_by_task(part)
        unlabelled = [task for task in data.tasks if task not in labelled]
        if unlabelled:
            raise ValueError(
                f"Targets without a label in the part {part!r}: {', '.join(unlabelled)}. Leave them out with "
                "data.subset([...])."
            )


def program(data: MultiTaskData, method: Method, seed: int, budget: Budget) -> tuple[nn.Module, BalancedSVI, Batches]:
    """What a method trains, before its first step, and the batches that it trains on."""
    x, y = tensors(data, method, "train")
    model, guide = build(method, shape_of(data, method), budget.widths, seed)
    elbo = TaskELBO("analytic", normalize=method.normalize)
    optim = functools.partial(torch.optim.Adam, lr=budget.lr, weight_decay=method.weight_decay, fused=True)
    svi = BalancedSVI(model, guide, optim, method.balancer, elbo)
    return model, svi, batches(x, y, budget.batch_size, seed)


def configuration(method: Method, budget: Budget) -> dict[str, object]:
    """Everything that was set for a run, as plain values."""
    return {
        "method": method.settings(),
        "budget": asdict(budget),
        "noise_for_predictions": "fitted on validation" if method.fits_noise else "in the program",
        "selection": SELECTIONS[budget.select],
    }


@dataclass(frozen=True)
class _Learnt:
    """Draws for the rows of each part, the training by step, and what came out on validation."""

    test: Draws
    val: Draws
    train: Draws | None  # if the guide is to be judged
    outside: Draws | None  # of inputs without labels, if there are any
    history: dict[str, np.ndarray]
    tasks: tuple[str, ...]  # of the history
    errors: dict[str, float]  # in scaled units
    score: float
    states: list[dict[str, Any]]  # of model and guide, a member each
    related: VMTL | None = None  # the model, if its priors relate the tasks


class _Stopped(KeyboardInterrupt):
    """An interruption of training, with what was learnt until then."""

    def __init__(self, learnt: _Learnt) -> None:
        super().__init__("Training was interrupted.")
        self.learnt = learnt


def _train(
    data: MultiTaskData,
    method: Method,
    seed: int,
    budget: Budget,
    folder: Path | None,
    trust: bool,
    outside: Tensor | None,
    callbacks: Sequence[Callback],
) -> _Learnt:
    labelled = data.labelled()  # rows that teach nothing would only lengthen the epochs
    model, svi, train = program(labelled, method, seed, budget)
    rows = tensors(labelled, method, "test" if budget.select == "best-on-test" else "val")
    regressions = "regression" in labelled.kinds.values()  # a class has no noise to be best at
    score: Literal["mean", "log"] = "log" if method.fits_noise and regressions else "mean"
    if budget.score != "likelihood":
        score = budget.score
    try:
        result = fit(
            svi,
            train,
            once(*rows),
            max_epochs=budget.epochs,
            scheduler=_plateau if budget.plateau else None,
            score=score,
            restore_best=budget.select != "last",
            seed=seed,
            progress=False,
            callbacks=callbacks,
        )
    except KeyboardInterrupt as stop:
        if not svi.steps:
            raise
        if folder is not None:
            save_checkpoint(svi, folder / "last.ckpt")
        raise _Stopped(_read_off(data, model, svi, method, seed, budget, outside, float("nan"))) from stop
    return _read_off(data, model, svi, method, seed, budget, outside, _kept_score(result, score), trust)


def _kept_score(result: FitResult, score: str) -> float:
    """The score of the epoch whose parameters were kept."""
    losses = np.array(list(result.validation.values()))  # (K, E)
    kept = result.best_epoch - 1 if result.restored and result.best_epoch is not None else -1
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((np.log(losses) if score == "log" else losses)[:, kept].mean())


def _plateau(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=5, min_lr=1e-5)


def _read_off(
    data: MultiTaskData,
    model: nn.Module,
    svi: BalancedSVI,
    method: Method,
    seed: int,
    budget: Budget,
    outside: Tensor | None,
    score: float,
    trust: bool = False,
) -> _Learnt:
    def predict(x: Inputs, y: dict[str, Tensor] | None = None) -> Draws:
        return draw(model, svi.guide, x, y, num_draws=budget.draws, seed=seed)

    def drawn(part: str) -> tuple[Draws, dict[str, Tensor]]:
        x, y = tensors(data, method, part)
        return predict(x, y), y

    val, y = drawn("val")
    errors = {}
    for task in data.tasks:
        label = y[task].numpy()
        predicted = val.targets[task]
        if predicted.probability is not None:
            errors[task] = float((predicted.probability.argmax(-1) != label)[label != -1].mean())
        else:
            errors[task] = float(np.nanmean(np.abs(label - predicted.mean)))
    if method.fits_noise:
        residuals = {task: y[task].numpy() - p.mean for task, p in val.targets.items() if p.mean is not None}
        noise = {task: float(np.sqrt(np.nanmean(np.square(values)))) for task, values in residuals.items()}
        model.set_noise(noise)  # type: ignore[operator]
        val, _ = drawn("val")
    state = copy.deepcopy(svi.module.state_dict())
    # VMTL predicts under another prior than it was trained under, and has no joint density to judge its guide by.
    judged = trust and val.log_q is not None and method.members == 1 and not isinstance(model, VMTL)
    train = drawn("train")[0] if judged else None
    elsewhere = None if outside is None else predict(outside)
    history = history_arrays(svi.history)
    related = model if isinstance(model, VMTL) and model.priors is not None else None
    return _Learnt(drawn("test")[0], val, train, elsewhere, history, svi.names, errors, score, [state], related)


def _mixed(members: Sequence[_Learnt]) -> _Learnt:
    """An ensemble's members as one."""
    first = members[0]
    if len(members) == 1:
        return first
    outside = [member.outside for member in members if member.outside is not None]
    return _Learnt(
        test=mixture([member.test for member in members]),
        val=mixture([member.val for member in members]),
        train=None,
        outside=mixture(outside) if outside else None,
        history={**first.history, "seconds": np.sum([member.history["seconds"] for member in members], axis=0)},
        tasks=first.tasks,
        errors={task: float(np.mean([member.errors[task] for member in members])) for task in first.errors},
        score=float(np.mean([member.score for member in members])),
        states=[state for member in members for state in member.states],
    )


def _joined(parts: Sequence[_Learnt]) -> _Learnt:
    """Single-task runs as one, their histories side by side; a step of all tasks takes the sum of their times."""
    if len(parts) == 1:
        return parts[0]
    steps = min(len(part.history["step"]) for part in parts)  # tasks with fewer rows take fewer
    histories = [{name: values[:steps] for name, values in part.history.items()} for part in parts]
    by_task = ("losses", "weights", "weights_heads", "effective_lr")
    history = {
        "step": histories[0]["step"],
        "epoch": histories[0]["epoch"],
        **{name: np.concatenate([arrays[name] for arrays in histories], axis=1) for name in by_task},
        "seconds": np.sum([arrays["seconds"] for arrays in histories], axis=0),
    }
    outside = [part.outside for part in parts if part.outside is not None]
    return _Learnt(
        test=merge_targets([part.test for part in parts]),
        val=merge_targets([part.val for part in parts]),
        train=None,
        outside=merge_targets(outside) if outside else None,
        history=history,
        tasks=tuple(task for part in parts for task in part.tasks),
        errors={task: error for part in parts for task, error in part.errors.items()},
        score=float(np.mean([part.score for part in parts])),
        states=[],
    )


def _run_tree(
    data: MultiTaskData,
    method: Method,
    seed: int,
    budget: Budget,
    learnt: _Learnt,
    attributes: dict[str, object] | None = None,
) -> xr.DataTree:
    scale = {task: float(data.y_scalers[task].std) if task in data.y_scalers else 1.0 for task in learnt.errors}
    tree = results_tree(
        data,
        learnt.test,
        learnt.history,
        tasks=learnt.tasks,
        validation=learnt.val,
        train=learnt.train,
        outside=learnt.outside,
        method=method.name,
        balancer=method.balancer,
        seed=seed,
        configuration=configuration(method, budget),
        attributes={
            "validation_errors": {task: error * scale[task] for task, error in learnt.errors.items()},
            "validation_score": learnt.score,
            **(attributes or {}),
        },
    )
    if learnt.related is not None:
        add_relatedness(tree, learnt.related, learnt.test)
    return tree


def _of_a_run(tree: xr.DataTree, attribute: str) -> Any:
    found = decode_attributes(tree)
    if attribute not in found:
        raise ValueError(f"This tree has no {attribute}: it was not written by run().")
    return found[attribute]
