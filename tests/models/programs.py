"""Task models that the tests of models share."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import bmtl
from bmtl.models import BayesianHeads, LinearHeads, TaskModel
from bmtl.models.likelihoods import Categorical, Gaussian, Kendall, Laplace, Likelihood


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def likelihoods(
    classes: Mapping[str, int],
    noise: str = "parameter",
    noise_prior: tuple[float, float] = (0.0, 2.0),
    real: str = "gaussian",
    classification: str = "exact",
) -> dict[str, Likelihood]:
    """By target with so many classes, 0 for a real one."""
    of_real = {"gaussian": Gaussian, "laplace": Laplace}[real]
    of_classes = {"exact": Categorical, "kendall": Kendall}[classification]
    return {
        name: of_classes(count, noise, noise_prior) if count else of_real(noise, noise_prior)
        for name, count in classes.items()
    }


def task_model(
    trunk: nn.Module,
    width: int,
    classes: Mapping[str, int],
    n_data: int | Mapping[str, int],
    *,
    head: Any = "linear",
    prior_scale: float | None = None,
    generator: torch.Generator | None = None,
    representation: Any = None,
    stack: bool = False,
    **options: Any,
) -> TaskModel:
    """A program of `likelihoods`, which take the other options; each target's statements are its own unless told."""
    heads = {"linear": LinearHeads, "bayesian": functools.partial(BayesianHeads, prior_scale=prior_scale)}.get(
        head, head
    )
    made = {"stack": stack} | ({} if representation is None else {"representation": representation})
    return TaskModel(trunk, width, likelihoods(classes, **options), n_data, head=heads, generator=generator, **made)


def log_variance(model: TaskModel, target: str) -> nn.Parameter:
    """The parameter of a target's noise, in which a step is ten of the log-variance."""
    return model.likelihoods[target].unknowns["log_variance"].scaled


def losses(model: Any, x: Any, y: Any, guide: Any = None, estimator: str = "analytic", **options: Any) -> Any:
    return bmtl.TaskELBO(estimator, **options).task_losses(model, guide or model.guide(), x, y)


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random parameters."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded(seed + i)).to(parameter))
    return module


def minimise(loss: Any, parameters: Any, steps: int = 150, tolerance: float = 1e-10) -> None:
    """L-BFGS on a deterministic loss, to convergence."""
    optimizer = torch.optim.LBFGS(
        [p for p in parameters if p.requires_grad],
        max_iter=steps,
        tolerance_grad=tolerance,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Any:
        optimizer.zero_grad()
        total = loss()
        total.backward()
        return total

    optimizer.step(closure)
